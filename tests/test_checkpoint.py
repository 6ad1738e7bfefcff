"Checkpoints: what is kept, what is refused, what a kill leaves"

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from atm_net.checkpoint import (
    checkpoints,
    checksum,
    full_disk_named,
    load_checkpoint,
    model_tensors,
    read_checkpoint,
    save_checkpoint,
    sweep,
)
from atm_net.core import InputError


def network(seed=0):
    "A small network after one step, and its optimizer"
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    opt = torch.optim.AdamW(net.parameters(), 1e-2)
    net(torch.ones(1, 3)).square().sum().backward()
    opt.step()
    return net, opt


@pytest.fixture
def run(tmp_path):
    "A folder with two checkpoints, of steps 5 and 6"
    net, opt = network()
    for step in (4, 5, 6):
        save_checkpoint(tmp_path, step, net, opt, dict(best=step / 10))
    return tmp_path


def test_the_last_two_are_kept(run):
    assert [f.name for f in checkpoints(run)] == [
        'step-0000005.safetensors',
        'step-0000006.safetensors',
    ]


def test_state_weights_and_moments_come_back(run):
    net, opt = network(seed=1)
    assert load_checkpoint(run, net, opt) == dict(best=0.6, step=6)
    want, want_opt = network()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), want.parameters()))
    for p, q in zip(net.parameters(), want.parameters()):
        a, b = opt.state[p], want_opt.state[q]
        assert a.keys() == b.keys()
        assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def test_the_names_of_the_tensors(run):
    _, tensors = read_checkpoint(checkpoints(run)[-1])
    assert {k.split('.')[0] for k in tensors} == {'model', 'opt'}
    assert {'model.0.weight', 'opt.1.bias.exp_avg', 'opt.0.weight.step'} <= set(tensors)
    assert set(model_tensors(tensors)) == {'0.weight', '0.bias', '1.weight', '1.bias'}


def flip_a_bit(path):
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])


def test_a_flipped_bit_is_named_and_the_one_before_taken(run, capsys):
    flip_a_bit(checkpoints(run)[-1])
    assert load_checkpoint(run, *network())['step'] == 5
    said = capsys.readouterr().err
    assert 'step-0000006.safetensors: broken checkpoint (the checksum differs)' in said
    load_checkpoint(run, *network(), lead=False)
    assert capsys.readouterr().err == ''


def test_a_cut_off_file_is_no_checkpoint(run):
    checkpoints(run)[-1].write_bytes(b'x')
    assert load_checkpoint(run, *network())['step'] == 5


def test_all_broken(run):
    for f in checkpoints(run):
        f.write_bytes(b'')
    with pytest.raises(InputError, match='no whole checkpoint is left: start anew'):
        load_checkpoint(run, *network())


def test_none_is_no_fault(tmp_path):
    assert load_checkpoint(tmp_path, *network()) is None


def test_a_checkpoint_without_checksum_is_read(run):
    "As they were written before there was one"
    path = checkpoints(run)[-1]
    save_file(load_file(path), path, metadata=dict(state=json.dumps(dict(step=6, best=0.1))))
    assert load_checkpoint(run, *network()) == dict(step=6, best=0.1)


def test_the_checksum_covers_names_and_bytes():
    a = dict(x=torch.arange(3.0), y=torch.ones(2))
    assert checksum(a) == checksum(dict(reversed(a.items())))
    assert checksum(a) != checksum(dict(x=torch.arange(3.0), z=torch.ones(2)))
    assert checksum(a) != checksum(a | dict(y=-torch.ones(2)))


def test_only_leftovers_are_swept(run):
    mine = run / '.mine'
    left = [run / '.log.csv.123.0a1b2c.csv', run / 'checkpoints' / '.tmpAb12Cd']
    for f in [mine, *left]:
        f.touch()
    sweep(run)
    assert mine.exists() and len(checkpoints(run)) == 2
    assert not any(f.exists() for f in left)


def test_a_full_disk_has_a_remedy():
    from safetensors import SafetensorError

    said = 'x: cannot be written .*make room, then go on with'
    with pytest.raises(InputError, match=said), full_disk_named('x'):
        raise SafetensorError('No space left')
