"Studies that are run: six phantoms of 64 pixels, three steps, the first of them plain"

import contextlib
import io
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import tree
from helpers import close
from safetensors.torch import load_file

from atm_net.anatomy import LUMBAR
from atm_net.checkpoint import read_checkpoint
from atm_net.config import PRESETS
from atm_net.core import InputError, read_json, write_json
from atm_net.data import Cache
from atm_net.metrics import METRICS, POLICIES
from atm_net.predict import weights_id
from atm_net.run_folder import finished
from atm_net.show import read_rows
from atm_net.study import atm_study, run_study, split_sizes
from atm_net.study_grid import (
    STUDIES,
    Run,
    grid,
    plain_stage,
    run_name,
    study_command,
    study_config,
    train_command,
)
from atm_net.study_runs import read_beside, score_run, starts_of, take_plain, train_run
from atm_net.study_scores import load_scores
from atm_net.study_tables import form_files, study_tables
from atm_net.train import Stopped, train
from atm_net.trainer import Trainer
from atm_net.weights import build_network

BOTH = STUDIES['table4'][-1]  # HASF and CCAE
SMALL = dict(steps=3, plain=0.34, warmup=0, batch=2, windows=(64,), val_cases=1)


@contextlib.contextmanager
def hushed():
    "Swallow progress; hand back what was said"
    with contextlib.redirect_stderr(io.StringIO()) as e, contextlib.redirect_stdout(io.StringIO()):
        yield e


@pytest.fixture(scope='module', autouse=True)
def mini():
    "A preset of three steps, for this file alone"
    PRESETS['mini'] = replace(PRESETS['tiny'], preset='mini', **SMALL)
    yield
    del PRESETS['mini']


@pytest.fixture(scope='module')
def data(cache):
    return Cache(cache)


def go(names, data, out, **options):
    "A study of preset mini"
    how = dict(protocols='generic,oracle', on='cache') | options
    with hushed():
        return run_study(names, data, out, 'mini', **how)


@pytest.fixture(scope='module')
def table4(data, tmp_path_factory):
    "Table 4 with its four runs; the first was trained by itself before, without a shared stage"
    out = tmp_path_factory.mktemp('study') / 'out'
    run = grid('table4', 'mini')[0]
    with hushed():
        train_run(run, out / 'runs' / run.name, data)
    go('table4', data, out)
    folder = out / 'runs' / run.name
    return SimpleNamespace(out=out, run=run, folder=folder, d=read_json(out / 'study.json'))


def unequal(a, b) -> list:
    "Names of tensors that differ between two files or two states"
    a, b = (x if isinstance(x, dict) else load_file(x) for x in (a, b))
    assert list(a) == list(b)
    return [k for k in a if not torch.equal(a[k], b[k])]


# --- one run


def test_a_finished_run_is_left_alone(table4, data):
    before = tree(table4.folder)
    assert finished(table4.folder, table4.run.config)
    assert not finished(table4.folder, replace(table4.run.config, steps=4))
    assert train_run(table4.run, table4.folder, data) is False
    assert tree(table4.folder) == before
    assert read_json(table4.folder / 'times.json')['train'] > 0


def logged_steps(folder) -> list:
    return [int(r['step']) for r in read_rows(folder / 'log.csv')]


@pytest.mark.slow
def test_a_shared_plain_stage_changes_no_bit(data, tmp_path):
    "Weights and the optimizer's memory are those of a run in one go, broken off or not"
    whole = Run('whole', study_config(BOTH, 'mini', steps=4, plain=0.5), ())
    stage = plain_stage(whole.config)
    at = tmp_path / 'plain' / run_name(stage)
    assert (stage.network, stage.steps) == ('swin_unetr', 2)
    with hushed():
        train_run(whole, tmp_path / 'one-go', data)
        train_run(whole, tmp_path / 'taken', data, plain=(stage, at))
    last = tmp_path / 'one-go' / 'last.safetensors'
    assert unequal(last, tmp_path / 'taken' / 'last.safetensors') == []
    assert any(k.startswith('hasf') for k in load_file(last))
    point = 'checkpoints/step-0000004.safetensors'
    a, b = (read_checkpoint(tmp_path / k / point)[1] for k in ('one-go', 'taken'))
    assert unequal(a, b) == [] and sum(k.startswith('opt.') for k in a) > 100
    steps = logged_steps(tmp_path / 'taken')
    assert max(steps) == 4 and min(steps) <= 2
    assert read_json(tmp_path / 'taken' / 'config.json')['how']['plain'] == at.name
    before = tree(at)
    take_plain(whole, tmp_path / 'broken-off', at, data)
    assert not finished(tmp_path / 'broken-off', whole.config)
    with hushed() as said:
        train_run(whole, tmp_path / 'broken-off', data, plain=(stage, at))
    assert 'going on from step 2' in said.getvalue()
    assert unequal(tmp_path / 'broken-off' / 'last.safetensors', last) == []
    assert tree(at) == before


def test_scores_are_taken_where_they_are_missing_or_of_other_weights(table4, data):
    f = table4.folder / 'scores' / 'none-test-cache.json'
    s = load_scores(f)
    assert list(s.volumes) == data.cases('test')
    assert (s.summary['run'], s.summary['grid']) == (table4.run.name, 'cache')
    assert s.patients == {i: data.row(i)['patient'] for i in data.cases('test')}
    stamp = f.stat().st_mtime_ns
    score_run(table4.run, table4.folder, data, ['self'], on='cache')
    assert f.stat().st_mtime_ns == stamp
    d = read_json(f)
    write_json(f, d | dict(summary=d['summary'] | dict(weights='other')))
    with hushed():
        score_run(table4.run, table4.folder, data, ['self'], on='cache')
    assert load_scores(f).summary['weights'] == s.summary['weights']
    network = build_network('swin_unetr', data.scheme.channels, 12, use_v2=True)
    assert s.summary['parameters'] == sum(p.numel() for p in network.parameters())


# --- the files of a study


def test_files_of_a_study(table4):
    d, out = table4.d, table4.out
    assert d['failed'] == {}
    assert {p.name for p in (out / 'runs').iterdir()} == {r.name for r in grid('table4', 'mini')}
    made = ['plain', 'runs', 'study.csv', 'study.json', 'study.md', 'study.png', 'tables']
    assert sorted(p.name for p in out.iterdir()) == made
    # one plain stage, for those that were not there yet
    stage = run_name(plain_stage(table4.run.config))
    assert [p.name for p in (out / 'plain').iterdir()] == [stage]
    assert {n for n, r in d['runs'].items() if r['plain']} == set(d['runs']) - {table4.run.name}
    rows = {q: {r['method']: r for r in d['tables']['table4'][q]} for q in ('generic', 'oracle')}
    assert [r['words'] for r in rows['oracle'].values()] == ['none', 'none', 'oracle', 'oracle']
    assert rows['generic']['CCAE']['scores'] == rows['oracle']['CCAE']['scores']
    dice = rows['oracle']['HASF']['scores']['penalised']['dsc']
    assert len(dice['values']) == 1
    csv = read_rows(out / 'study.csv')
    assert len(csv) == 2 * 4 * len(POLICIES) * len(METRICS)
    keys = ('study', 'table', 'method', 'policy', 'metric')
    wanted = ['table4', 'oracle', 'HASF', 'penalised', 'dsc']
    close([r['mean'] for r in csv if [r[k] for k in keys] == wanted], [dice['mean']], 1e-9)


@pytest.mark.parametrize(
    'said',
    [
        '3 steps of 2 images',
        '1 seed.',
        'grid of the cache',
        'Protocol `oracle`',
        'Reads a true mask: this slice',
        'train: 4 volumes of 4 patients',
        'torch ',
        'taken over bit for bit',
        '## Claims',
        'not tested',
    ],
)
def test_the_page_of_a_study_says(table4, said):
    assert said in (table4.out / 'study.md').read_text(encoding='utf-8')


def test_the_page_of_a_study_has_its_commands(table4, data):
    page = (table4.out / 'study.md').read_text(encoding='utf-8')
    assert page.count('\natm_train ') == 4
    assert f'atm_study table4 {data.path} {table4.out}' in page
    tex = sorted(p.stem for p in (table4.out / 'tables').glob('*.tex'))
    kinds = ('table4-generic', 'table4-oracle')
    assert tex == [*kinds, 'table4-structures-generic', 'table4-structures-oracle']
    splits = table4.d['splits']
    assert splits == split_sizes(data)
    assert (splits['train']['cases'], splits['test']['patients']) == (4, 1)
    assert all(r['seconds']['train'] > 0 for r in table4.d['runs'].values())


# --- methods trained elsewhere


@pytest.fixture
def elsewhere(table4, tmp_path):
    "Scores of a run under another name"
    swin = table4.folder / 'scores' / 'none-test-cache.json'
    j = read_json(swin)
    write_json(tmp_path / 'other.json', j | dict(summary=j['summary'] | dict(run='nnU-Net v2')))
    write_json(tmp_path / 'ours.json', j | dict(summary=j['summary'] | dict(run='ATM-Net')))
    return SimpleNamespace(swin=swin, other=tmp_path / 'other.json', ours=tmp_path / 'ours.json')


def test_methods_trained_elsewhere_are_rows_of_table_2(table4, data, elsewhere):
    swin = load_scores(elsewhere.swin)
    ours = load_scores(next(table4.out.glob('runs/atm_net-seed*/scores/oracle-test-cache.json')))
    beside = read_beside(str(elsewhere.other), data, 'test', 'cache')
    runs = grid('table2', 'mini')
    results = {
        r.name: dict(oracle=ours) if r.config.network == 'atm_net' else dict(none=swin)
        for r in runs
    }
    tables = study_tables(['table2'], runs, results, ['oracle'], 1, beside)
    rows = tables['table2']['oracle']
    ends = [(r['method'], r['words']) for r in rows][::9]
    assert ends == [('ATM-Net', 'oracle'), ('nnU-Net v2', 'none')]
    assert rows[-1]['scores'] == rows[1]['scores'] and len(rows) == 10
    forms = form_files(runs, results, tables, 1, LUMBAR, beside=beside)
    _, structures, header = forms['table3-oracle'][0]
    assert header[-1] == 'nnU-Net v2' and all(r[-1] == r[2] for r in structures)
    assert forms['table2-oracle'][0][1][-1][0] == 'nnU-Net v2'


def test_scores_of_other_data_are_refused(table4, data, elsewhere, tmp_path):
    def refused(file, words, split='test', on='cache'):
        with pytest.raises(InputError, match=words):
            read_beside(str(file), data, split, on)

    refused(elsewhere.other, 'field split', split='val')
    refused(elsewhere.other, 'field grid', on='source')
    refused(f'{elsewhere.other},{elsewhere.other}', 'already')
    refused(table4.out / 'study.json', 'not a scores.json')
    refused(tmp_path / 'none.json', 'none.json')
    refused(elsewhere.ours, "'ATM-Net' already")
    with pytest.raises(InputError, match='rows of table2'):
        go('table4', data, table4.out, beside=str(elsewhere.other))


# --- started from other weights


@pytest.mark.slow
def test_each_row_goes_on_from_its_own_run(table4, data, tmp_path):
    four = grid('table4', 'mini', steps=2, plain=0.0)
    assert starts_of(None, four) == {}
    starts = starts_of(str(table4.out), four)  # row by row; other steps, so other hashes
    assert len({*starts.values()}) == 4
    rows = {n: p.parent.name.rsplit('-', 1)[0] for n, p in starts.items()}
    assert rows == {r.name: r.name.rsplit('-', 1)[0] for r in four}
    out = tmp_path / 'tuned'
    d = go('table4', data, out, init=str(table4.out), steps=2, plain=0.0)
    assert d['failed'] == {}
    assert {n: r['init'] for n, r in d['runs'].items()} == {
        n: weights_id(p) for n, p in starts.items()
    }
    assert d['command'].split(' --init ')[1].split()[0] == str(table4.out)
    page = (out / 'study.md').read_text(encoding='utf-8')
    assert f'Each run starts from weights ({table4.out})' in page
    for r in four:  # bit for bit what `train` makes of the same start
        with hushed():
            train(data, tmp_path / r.name, r.config, init=starts[r.name], device='cpu')
        last = tmp_path / r.name / 'last.safetensors'
        assert unequal(out / 'runs' / r.name / 'last.safetensors', last) == []
    for options, words in (
        ({}, 'not from nothing'),
        (dict(init=str(starts[four[-1].name])), 'repeat the --init'),
    ):
        with pytest.raises(InputError, match=words):
            go('table4', data, out, steps=2, plain=0.0, **options)


@pytest.mark.slow
def test_one_start_and_a_shared_plain_stage(table4, data, tmp_path):
    "HASF and CCAE are those of the start"
    start = next(table4.out.glob('runs/atm_net-seed*/last.safetensors'))
    tuned = Run('tuned', study_config(BOTH, 'mini', steps=4, plain=0.5), ())
    stage = plain_stage(tuned.config)
    plain = (stage, tmp_path / 'plain')
    with hushed():
        train_run(tuned, tmp_path / 'one-go', data, init=start)
        train_run(tuned, tmp_path / 'taken', data, plain=plain, init=start)
    files = (tmp_path / k / 'last.safetensors' for k in ('one-go', 'taken'))
    assert unequal(*files) == []
    command = train_command(study_config(BOTH, 'mini'), 'c', 'r', 'w.safetensors')
    assert command.split(' --init ')[1] == 'w.safetensors'


def test_starts_that_are_refused(table4, data, tmp_path):
    start = next(table4.out.glob('runs/atm_net-seed*/last.safetensors'))
    out = str(table4.out)
    with pytest.raises(InputError, match='was started from nothing'):
        go('table4', data, table4.out, init=str(start))
    for study, options, words in (
        ('table5', dict(init=out), r'has no run atm_net-no-ccae-option1-seed0 \(table5: Option 1'),
        ('table4', dict(init=out), 'use --plain 0'),
        ('table4', dict(lr=1e-9), '--lr'),
        ('table4', dict(swin='v3'), '--swin'),
        ('table4', dict(init='nowhere'), 'nowhere'),
    ):
        with pytest.raises(InputError, match=words):
            go(study, data, tmp_path / 'new', **options)
    assert not (tmp_path / 'new').exists()


# --- stopped, broken, refused


def option_1_breaks(trainer, batch, update=Trainer.update):
    "Option 1 breaks; option 2 is stopped in its first step with text"
    if trainer.cfg.option == 1:
        raise RuntimeError('out of\nmemory')
    trainer.stop = trainer.cfg.option == 2 and trainer.step == 1
    return update(trainer, batch)


@pytest.mark.slow
def test_a_stopped_study_goes_on(table4, data, tmp_path, monkeypatch):
    two = tmp_path / 'two'
    shutil.copytree(table4.out / 'runs', two / 'runs')
    broken = next(r.name for r in grid('table5', 'mini') if 'option1' in r.name)
    monkeypatch.setattr(Trainer, 'update', option_1_breaks)
    with pytest.raises(Stopped, match='stopped at step 2; a checkpoint is saved: repeat the'):
        go('table5', data, two)
    assert not (two / 'study.json').exists()
    with hushed() as said:
        d = run_study('table5', data, two, 'mini', protocols='generic,oracle', on='cache')
    assert 'going on from step 2' in said.getvalue()
    assert f'{broken}: failed: RuntimeError' in said.getvalue()
    assert d['failed'] == {broken: 'RuntimeError: out of memory'}
    note = two / 'runs' / broken / 'failed.txt'
    trace = note.read_text(encoding='utf-8')
    assert 'Traceback' in trace and 'in option_1_breaks' in trace
    assert 'RuntimeError: out of\nmemory' in trace
    page = (two / 'study.md').read_text(encoding='utf-8')
    assert 'Failed runs' in page and f'`runs/{broken}/failed.txt`' in page
    assert [p.parent.name for p in two.rglob('failed.txt')] == [broken]
    rows = d['tables']['table5']['oracle']
    means = [(r['runs'], r['scores']['penalised']['dsc']['mean'] is None) for r in rows]
    assert means == [(1, False), (0, True), (1, False), (1, False)]
    monkeypatch.undo()
    with hushed() as said:
        d = run_study('table5', data, two, 'mini', protocols='generic,oracle', on='cache')
    assert d['failed'] == {} and 'failed' not in said.getvalue() and not note.exists()
    rows = d['tables']['table5']['oracle']
    assert rows[1]['runs'] == 1
    hasf = table4.d['tables']['table4']['oracle'][2]  # one run, two tables
    values = [r['scores']['penalised']['dsc']['values'] for r in (rows[3], hasf)]
    assert values[0] == values[1]


def test_what_is_refused_before_any_step(table4, data, tmp_path, monkeypatch):
    new = tmp_path / 'x'
    for study, out, options, words in (
        ('table2', table4.out, {}, 'table4,table2'),
        ('table4', table4.out, dict(split='best'), "'best'"),
        ('table4', new, dict(device='tpu'), 'tpu'),
        ('table4', new, dict(on='fine'), 'source or cache'),
    ):
        with pytest.raises(InputError, match=words):
            go(study, data, out, **options)
    with pytest.raises(InputError, match='no such cache'):
        go('table4', tmp_path / 'nowhere', new)
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(InputError, match='without torchrun'):
        go('table4', data, table4.out)
    assert not new.exists()


def test_runs_of_another_cache_are_refused(table4, data):
    f = table4.folder / 'config.json'
    c = read_json(f)
    write_json(f, c | dict(cache=c['cache'] | dict(hash='another')))
    try:
        with pytest.raises(InputError, match='another cache'):
            go('table4', data, table4.out)
    finally:
        write_json(f, c)


# --- the command


def test_the_command_ends_with_the_first_failure(cache, tmp_path, monkeypatch):
    def fails(self, batch):
        raise InputError('the loss is not finite')

    monkeypatch.setattr(Trainer, 'update', fails)
    options = dict(preset='mini', protocols='generic', device='cpu')
    out = tmp_path / 'bad'
    match = '1 of 1 runs failed; the first: atm_net-seed0'
    with hushed(), pytest.raises(InputError, match=match):
        atm_study('protocols', str(cache), str(out), **options)
    tables = read_json(out / 'study.json')['tables']
    assert tables['protocols']['all protocols'][0]['runs'] == 0


def test_a_plan_trains_nothing(cache, tmp_path, capsys):
    atm_study('table4,table5', str(cache), str(tmp_path / 'y'), seeds=2, plan=True)
    assert '12 runs' in capsys.readouterr().out
    assert not (tmp_path / 'y').exists()


@pytest.mark.parametrize(
    'name, options, words',
    [
        ('table9', {}, 'table2, table4'),
        ('table4', dict(plain=1.0), '--plain 1: a share'),
        ('table4', dict(set=['plain=1']), '--plain 1: a share'),
        ('table4', dict(set=['tua=.1']), "--set tua: no such hyper-parameter, did you mean 'tau'"),
        ('table4', dict(set=['tau=low']), '--set tau'),
        ('table4', dict(set=['tau']), 'give it as FIELD=VALUE'),
        ('table4', dict(set=['hasf=false']), '--set hasf: rows of table4 differ in it'),
        ('table5,table2', dict(set=['network=unet']), '--set network: rows of table2 differ'),
        ('table4', dict(set=['seed=3']), '--set seed: .*use --seeds'),
        ('table4', dict(set=['lr=.1'], lr=0.1), '--set lr: is given twice'),
    ],
)
def test_what_the_command_refuses(cache, tmp_path, name, options, words):
    with pytest.raises(InputError, match=words):
        atm_study(name, str(cache), str(tmp_path / 'y'), plan=True, **options)
    assert not (tmp_path / 'y').exists()


def test_set_reaches_every_run(cache, tmp_path, monkeypatch):
    "And it stands in the line that repeats the study"
    asked = {}

    def plan(name, cache, out, preset, seeds, init, **over):
        asked.update(over)
        return ''

    monkeypatch.setattr('atm_net.study.plan_study', plan)
    pairs = ['tau=0.5', 'paired=False', 'text_decoder=false']
    atm_study('table4', str(cache), str(tmp_path / 'y'), batch=2, set=pairs, plan=True)
    assert asked == dict(batch=2, tau=0.5, paired=False, text_decoder=False)
    by_row = {r.rows[0][1]: r.config for r in grid('table4', **asked)}
    assert [by_row[row].tau for row in ('CCAE', 'HASF and CCAE')] == [0.5, 0.5]
    assert [by_row[row].paired for row in ('HASF', 'HASF and CCAE')] == [False, False]
    line = study_command(['table4'], 'c', 'out', **asked)
    given = '--set tau=0.5 --set paired=False --set text_decoder=False'
    assert line == f'atm_study table4 c out --batch 2 {given}'
