"Whole runs of eight steps: what they write, how they go on, what they refuse"

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from atm_net.anatomy import LUMBAR
from atm_net.config import PRESETS, provenance
from atm_net.core import InputError, read_json, write_json
from atm_net.data import Cache
from atm_net.distributed import Distributed
from atm_net.predict import weights_id
from atm_net.run_folder import cache_hash, split_hash, start_run
from atm_net.show import read_rows
from atm_net.train import pack, start_from, train
from atm_net.trainer import Trainer
from atm_net.weights import build_network, read_weights, save_weights

SMALL = replace(PRESETS['tiny'], steps=8, batch=2, windows=(64,), warmup=1, plain=0.5, val_cases=1)
PLAIN = replace(SMALL, network='swin_unetr', hasf=False, ccae=False)


def run_small(cache, run, cfg=SMALL, **how):
    return train(cache, run, cfg, device='cpu', every=1, val_every=4, save_every=5, **how)


def weights(run, name='last'):
    return read_weights(run / f'{name}.safetensors')[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def trainer(cache, run, cfg=SMALL):
    return Trainer(cache, run, cfg, Distributed())


@pytest.fixture(scope='module')
def whole(phantom_cache, tmp_path_factory):
    "The run that nobody touches"
    return run_small(phantom_cache, tmp_path_factory.mktemp('train') / 'whole')


@pytest.fixture
def copy(whole, tmp_path):
    "A copy of it that a test may spoil"
    return Path(shutil.copytree(whole, tmp_path / 'copy'))


# what a run writes


def test_the_files_of_a_run(whole):
    assert {p.name for p in whole.iterdir()} == {
        'best.safetensors',
        'checkpoints',
        'config.json',
        'curves.png',
        'last.safetensors',
        'log.csv',
        'predictions.png',
    }


def test_weights_know_where_each_number_comes_from(whole, phantom_cache):
    meta = read_weights(whole / 'last.safetensors')[1]
    assert (meta['steps'], meta['scheme'], meta['encoder']) == (8, 'joint', 'spine_bert_tiny')
    assert meta['grid'] == dict(spacing=4.0, size=None)
    hashes = dict(cache=cache_hash(phantom_cache), split=split_hash(phantom_cache))
    assert meta['data'] == hashes
    want = provenance(SMALL)
    assert meta['config'].keys() == want.keys()
    assert meta['config']['windows'] == dict(value=[64], source='ours')
    assert meta['versions']['torch'] == torch.__version__


def test_config_json(whole, phantom_cache):
    c = read_json(whole / 'config.json')
    assert c['config']['lambda_2'] == dict(value=0.02, source='ours')
    assert (c['config']['lr']['source'], c['config']['seed']['value']) == ('ours', 0)
    assert c['cache']['split'] == dict(train=4, val=1, test=1)
    assert c['cache']['split_hash'] == split_hash(phantom_cache)
    how = dict(workers=0, accumulate=1, channels_last=False, compile=False)
    assert c['how'] == dict(device='cpu') | how
    assert (c['processes'], c['init']) == (1, None)
    assert set(c['versions']) >= {'torch', 'python', 'atm_net'}


def test_the_log(whole):
    rows = read_rows(whole / 'log.csv')
    assert [int(r['step']) for r in rows if r['loss'] is not None] == list(range(1, 9))
    assert [int(r['step']) for r in rows if r['contrast'] is not None] == [5, 6, 7, 8]
    assert {int(r['step']) for r in rows if r['val_self'] is not None} == {4, 8}


def test_signal_handlers_are_given_back(phantom_cache, tmp_path):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    run_small(phantom_cache, tmp_path / 'r', replace(PLAIN, steps=1))
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


# the same again


def test_a_cut_run_goes_on_to_the_same_weights(whole, phantom_cache, tmp_path, monkeypatch):
    update = Trainer.update

    def cut(self, batch):
        if self.step == 6:
            raise KeyboardInterrupt
        return update(self, batch)

    monkeypatch.setattr(Trainer, 'update', cut)
    with pytest.raises(KeyboardInterrupt):
        run_small(phantom_cache, tmp_path / 'cut')
    monkeypatch.undo()
    run_small(phantom_cache, tmp_path / 'cut', resume=True)
    assert same(weights(tmp_path / 'cut'), weights(whole))
    logs = [(f / 'log.csv').read_text(encoding='utf-8') for f in (whole, tmp_path / 'cut')]
    assert logs[0].count('\n') == logs[1].count('\n')


@pytest.mark.slow
def test_resume_without_a_checkpoint_begins_at_the_beginning(whole, phantom_cache, tmp_path):
    run_small(phantom_cache, tmp_path / 'fresh', resume=True)
    assert same(weights(tmp_path / 'fresh'), weights(whole))


def test_another_seed_other_weights(phantom_cache, tmp_path):
    a, b = (trainer(phantom_cache, tmp_path, replace(SMALL, seed=seed)) for seed in (0, 1))
    key = 'swinViT.patch_embed.proj.weight'
    assert not torch.equal(a.net.state_dict()[key], b.net.state_dict()[key])
    steps = [t.update(next(iter(t.batches()))) for t in (a, b)]
    assert steps[0]['loss'] != steps[1]['loss']


def test_a_run_never_looks_at_the_test_part(whole, phantom_cache, tmp_path):
    "It is deleted first"
    shutil.copytree(phantom_cache.path, tmp_path / 'cache')
    (case,) = phantom_cache.cases('test')
    for folder in ('images', 'labels'):
        (tmp_path / 'cache' / folder / f'{case}.npy').unlink()
    with pytest.raises(InputError, match='missing'):
        Cache(tmp_path / 'cache').image(case)
    run_small(tmp_path / 'cache', tmp_path / 'r')
    assert same(weights(tmp_path / 'r', 'best'), weights(whole, 'best'))


def three_steps(t):
    "The weights after them"
    for _, batch in zip(range(3), t.batches()):
        t.update(batch)
    return t.net.state_dict()


def test_prompts_leave_the_plain_network_alone(phantom_cache, tmp_path):
    "With a decoder of their own; with one decoder they change everything"
    kinds = dict(
        apart=replace(SMALL, plain=0.0, text_decoder=True),
        shared=replace(SMALL, plain=0.0),
        silent=replace(PLAIN, plain=0.0),
    )
    got = {k: three_steps(trainer(phantom_cache, tmp_path, cfg)) for k, cfg in kinds.items()}
    silent = got['silent']
    assert len(silent) > 100
    assert all(torch.equal(v, got['apart'][k]) for k, v in silent.items())
    convs = [k for k in silent if k.endswith('conv.weight')]
    assert not any(torch.equal(silent[k], got['shared'][k]) for k in convs)
    decoder = [k for k in convs if k.startswith('decoder')]
    assert not any(torch.equal(silent[k], got['apart'][f'text_decoder.{k}']) for k in decoder)


# what is refused


def refuses(cache, run, cfg=SMALL, **how):
    with pytest.raises(InputError) as e:
        train(cache, run, cfg, device='cpu', **how)
    return str(e.value)


def test_a_finished_run_says_so(whole, phantom_cache, capsys):
    train(phantom_cache, whole, SMALL, resume=True, device='cpu')
    assert f'{whole}: finished already (8 steps)' in capsys.readouterr().err


def test_a_finished_run_can_be_lengthened(phantom_cache, tmp_path):
    "It goes on where it ended; config.json and the log say so"
    first = replace(PLAIN, plain=0.0, steps=3)
    run_small(phantom_cache, tmp_path / 'run', first)
    longer = replace(first, steps=5, warmup=9)
    run_small(phantom_cache, tmp_path / 'run', longer, resume=True)
    said = read_json(tmp_path / 'run' / 'config.json')
    assert said['lengthened'] == [[3, 5]] and said['config']['steps']['value'] == 5
    assert said['config']['warmup']['value'] == first.warmup  # the warm-up is over
    rows = read_rows(tmp_path / 'run' / 'log.csv')
    assert sorted({int(r['step']) for r in rows}) == [1, 2, 3, 4, 5]
    with pytest.raises(InputError, match='steps 5, not 4'):
        run_small(phantom_cache, tmp_path / 'run', replace(first, steps=4), resume=True)


def test_stages_are_not_moved_by_lengthening(whole, phantom_cache):
    with pytest.raises(InputError, match='with --init'):
        run_small(phantom_cache, whole, replace(SMALL, steps=16), resume=True)


def test_a_run_folder_holds_one_run(whole, phantom_cache):
    said = refuses(phantom_cache, whole)
    assert 'holds a finished run of 8 steps: score it with atm_evaluate' in said
    assert f'in another folder with --init {whole}' in said
    other = replace(SMALL, lr=1e-4)
    assert 'lr 0.001, not 0.0001' in refuses(phantom_cache, whole, other, resume=True)
    said = refuses(phantom_cache, whole, PLAIN, resume=True)
    assert 'network atm_net, not swin_unetr' in said


def test_a_broken_off_run_goes_on_with_resume(phantom_cache, tmp_path):
    "Stopped after the first of eight steps"
    ends = replace(SMALL, steps=8)
    t = trainer(phantom_cache, tmp_path / 'run', ends)
    start_run(t.run, phantom_cache, t.meta)
    t.update(next(iter(t.batches())))
    t.checkpoint()
    assert 'holds a run already: go on with --resume' in refuses(phantom_cache, t.run, ends)


def test_nothing_is_written_before_the_configuration_is_checked(phantom_cache, tmp_path):
    odd = replace(SMALL, windows=(64, 100))
    assert '100' in refuses(phantom_cache, tmp_path / 'x', odd)
    assert not (tmp_path / 'x').exists()
    assert 'no such cache' in refuses(tmp_path / 'nowhere', tmp_path / 'x')


def test_another_encoder_or_another_start(copy, phantom_cache):
    began = read_json(copy / 'config.json')
    write_json(copy / 'config.json', began | dict(encoder_revision='another'))
    said = refuses(phantom_cache, copy, resume=True)
    assert "another encoder 'spine_bert_tiny' (revision another" in said
    write_json(copy / 'config.json', began)
    said = refuses(phantom_cache, copy, resume=True, init=copy)
    assert 'was started from nothing, not from these weights' in said


def test_a_cache_may_move_but_not_change(copy, phantom_cache, tmp_path):
    shutil.copytree(phantom_cache.path, tmp_path / 'moved')
    manifest = tmp_path / 'moved' / 'manifest.json'
    write_json(manifest, read_json(manifest) | dict(root='/elsewhere'))
    assert cache_hash(Cache(tmp_path / 'moved')) == cache_hash(phantom_cache)
    began = read_json(copy / 'config.json')
    began['cache']['hash'] = 'other'
    write_json(copy / 'config.json', began)
    assert 'was started on another cache' in refuses(phantom_cache, copy, resume=True)


def test_a_field_that_was_not_known_has_its_default(copy, phantom_cache):
    began = read_json(copy / 'config.json')
    del began['config']['amp']
    write_json(copy / 'config.json', began)
    train(phantom_cache, copy, SMALL, resume=True, device='cpu')
    bf16 = replace(SMALL, amp='bf16')
    assert 'amp none, not bf16' in refuses(phantom_cache, copy, bf16, resume=True)


# other weights


def test_a_plain_network_takes_over_what_it_has(whole, phantom_cache, tmp_path):
    t = trainer(phantom_cache, tmp_path, PLAIN)
    note = start_from(t, whole)
    assert 'fresh: nothing' in note
    given = weights(whole, 'best')
    assert all(torch.equal(v, given[k]) for k, v in t.net.state_dict().items())


def test_text_starts_fresh_on_a_plain_network(whole, phantom_cache, tmp_path):
    plain = trainer(phantom_cache, tmp_path, PLAIN)
    start_from(plain, whole)
    plain.write_weights('plain.safetensors')
    t = trainer(phantom_cache, tmp_path)
    t.meta['encoder_revision'] = 'r2'
    note = start_from(t, tmp_path / 'plain.safetensors')
    names = [k.split('.')[0] for k in t.net.state_dict()]
    hasf, ccae = names.count('hasf'), names.count('ccae')
    taken = f'{len(names) - hasf - ccae} tensors taken over'
    assert f'{taken}; fresh: ccae ({ccae} tensors), hasf ({hasf} tensors)' in note
    assert 'through encoder' not in note  # a plain network reads no prompt
    assert "they read prompts through encoder 'spine_bert_tiny'" in start_from(t, whole)


def test_classes_are_taken_over_by_name(phantom_cache, tmp_path):
    "Not by number: SPIDER's scheme has no sacrum"
    t = trainer(phantom_cache, tmp_path)
    few, own = LUMBAR.scheme('spider'), phantom_cache.scheme
    torch.manual_seed(9)
    net = build_network('atm_net', few.channels, SMALL.feature_size, **t.meta['kwargs'])
    header = dict(values=dict(few.values), out_channels=few.channels, scheme='spider')
    save_weights(tmp_path / 'few.safetensors', net, t.meta | header)
    note = start_from(t, tmp_path / 'few.safetensors')
    new = [n for n in own.names if n not in few.names]
    assert f'new structures: {", ".join(new)}' in note
    common = [n for n in few.names if n in own.names]
    taken, given = t.net.out.conv.conv.bias, net.out.conv.conv.bias
    assert_close(taken[[own.channel(n) for n in common]], given[[few.channel(n) for n in common]])


@pytest.mark.slow
def test_weights_name_their_start_also_after_a_resume(whole, phantom_cache, tmp_path):
    short = replace(PLAIN, steps=1)
    train(phantom_cache, tmp_path / 'r', short, init=whole, device='cpu')
    train(phantom_cache, tmp_path / 'r', short, resume=True, device='cpu')
    first = weights_id(whole)
    assert read_weights(tmp_path / 'r' / 'last.safetensors')[1]['init'] == first
    assert read_json(tmp_path / 'r' / 'config.json')['init'] == first


def test_weights_that_do_not_fit(whole, phantom_cache, tmp_path):
    unet = replace(SMALL, network='unet', hasf=False, ccae=False)
    with pytest.raises(InputError, match='nothing of this atm_net fits a unet of feature size 12'):
        start_from(trainer(phantom_cache, tmp_path, unet), whole)


def test_pack(whole, tmp_path):
    best = read_weights(whole / 'best.safetensors')[1]
    pack(whole, tmp_path / 'w.safetensors')
    state, meta = read_weights(tmp_path / 'w.safetensors')
    assert (meta['scheme'], meta['steps']) == ('joint', best['steps'])
    assert meta['phantoms']['seed'] == 1
    key = 'out.conv.conv.weight'
    assert_close(state[key], weights(whole, 'best')[key], atol=1e-3, rtol=1e-3)
    assert (tmp_path / 'w.safetensors').stat().st_size < 8e6
    pack(whole, tmp_path / 'l.safetensors', last=True, note='x')
    last, meta = read_weights(tmp_path / 'l.safetensors')
    assert meta['note'] == 'x'
    assert np.allclose(last[key], weights(whole)[key], atol=1e-3)
