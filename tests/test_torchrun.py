"Several processes, on one machine or on two, do what one does"

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import call, done
from safetensors.torch import load_file

HERE = Path(__file__).parent


def torchrun(*args, n=2, timeout=180):
    "torchrun on this machine, under a hard limit; a run that hangs is killed with its children"
    cmd = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc-per-node',
        n,
        *args,
    ]
    p = subprocess.Popen(
        [str(c) for c in cmd],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        out, err = p.communicate()
        pytest.fail(f'torchrun hung for {timeout} s\n{err[-3000:]}')
    return subprocess.CompletedProcess(cmd, p.returncode, out, err)


def one(cache, run, *args):
    "The same in one process"
    return subprocess.run(
        [sys.executable, str(HERE / 'double_run.py'), str(cache), str(run), *map(str, args)],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )


def two_nodes(*args, timeout=180):
    "Two torchruns that meet at an endpoint, as on two machines that share a file system"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    cmd = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--nnodes',
        2,
        '--nproc-per-node',
        1,
        '--rdzv-backend',
        'c10d',
        '--rdzv-endpoint',
        f'127.0.0.1:{port}',
        '--rdzv-id',
        'test',
        '--local-addr',
        '127.0.0.1',
        *args,
    ]
    nodes = [
        subprocess.Popen(
            [str(c) for c in cmd],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for _ in range(2)
    ]
    limit = time.time() + timeout
    try:
        said = [p.communicate(timeout=max(1, limit - time.time()))[1] for p in nodes]
    except subprocess.TimeoutExpired:
        pytest.fail(f'the nodes hung for {timeout} s')
    finally:
        [os.killpg(p.pid, signal.SIGKILL) for p in nodes if p.poll() is None]
    assert [p.returncode for p in nodes] == [0, 0], said


def far(a, b) -> tuple:  # name, largest difference
    "Where two weight files differ most"
    assert a.keys() == b.keys()
    return max(
        ((k, (a[k].double() - b[k].double()).abs().max().item()) for k in a), key=lambda x: x[1]
    )


def gap_share(run, other) -> float:
    "How far two runs of one seed ended apart, as a share of the way from the start"
    from atm_net.weights import build_network, read_weights

    (a, meta), (b, _) = (
        read_weights(run / 'last.safetensors'),
        read_weights(other / 'last.safetensors'),
    )
    torch.manual_seed(meta['seed'])
    start = build_network(
        meta['network'], meta['out_channels'], meta['feature_size'], **meta['kwargs']
    ).state_dict()

    def norm(x, y):
        return sum(((x[k] - y[k]) ** 2).sum().item() for k in x if x[k].is_floating_point()) ** 0.5

    assert norm(a, start) > 1e-3
    return norm(a, b) / norm(a, start)


def test_two_processes_equal_one_in_float64(cache, tmp_path):
    """Four steps over both stages (text and contrast from step 2), global batch 4: the same
    weights up to rounding. In float32 AdamW blows rounding up to the learning rate wherever a
    gradient is nearly 0, so the sharp comparison is in float64"""
    done(torchrun(HERE / 'double_run.py', cache, tmp_path / 'two', 4, 4))
    done(one(cache, tmp_path / 'one', 4, 4))
    a, b = (load_file(tmp_path / n / 'last.safetensors') for n in ('one', 'two'))
    name, gap = far(a, b)
    assert a['out.conv.conv.weight'].dtype == torch.float64
    assert gap < 1e-6, f'{name} differs by {gap:.2g}'
    assert (
        json.loads((tmp_path / 'two' / 'config.json').read_text(encoding='utf-8'))['processes'] == 2
        and json.loads((tmp_path / 'one' / 'config.json').read_text(encoding='utf-8'))['processes']
        == 1
    )


@pytest.mark.slow
def test_two_nodes_with_accumulation_equal_one_process(cache, tmp_path):
    """--nnodes 2, each batch in two parts in each process: still the weights of one process that
    sees the batch whole"""
    two_nodes(HERE / 'double_run.py', cache, tmp_path / 'nodes', 4, 4, 2)
    done(one(cache, tmp_path / 'one', 4, 4))
    a, b = (load_file(tmp_path / n / 'last.safetensors') for n in ('one', 'nodes'))
    name, gap = far(a, b)
    assert gap < 1e-6, f'{name} differs by {gap:.2g}'
    d = json.loads((tmp_path / 'nodes' / 'config.json').read_text(encoding='utf-8'))
    assert (d['processes'], d['how']['accumulate']) == (2, 2)


def test_torchrun_command(cache, tmp_path):
    """The command itself under torchrun, in float32: one run folder, written once, and weights
    that lie close to one process's"""
    done(torchrun('-m', 'atm_net.train', cache, tmp_path / 'two', '--steps', 2, '--batch', 4))
    done(call('atm_train', cache, tmp_path / 'one', '--steps', 2, '--batch', 4))
    assert (share := gap_share(tmp_path / 'one', tmp_path / 'two')) < 0.1, share
    assert (
        json.loads((tmp_path / 'two' / 'config.json').read_text(encoding='utf-8'))['processes'] == 2
    )
    assert {p.name for p in (tmp_path / 'two').iterdir()} == {
        p.name for p in (tmp_path / 'one').iterdir()
    } and len((tmp_path / 'two' / 'log.csv').read_text(encoding='utf-8').splitlines()) == len(
        (tmp_path / 'one' / 'log.csv').read_text(encoding='utf-8').splitlines()
    )


def test_torchrun_refuses_a_batch_that_does_not_divide(cache, tmp_path):
    r = torchrun(
        '-m', 'atm_net.train', cache, tmp_path / 'r', '--steps', 2, '--batch', 3, timeout=90
    )
    assert (
        r.returncode != 0
        and 'exitcode  : 2' in r.stderr
        and '--batch 3 is not divisible by 2 processes' in r.stderr
        and not (tmp_path / 'r').exists()
    )
    assert 'InputError' not in r.stderr


def kill_at_checkpoint(p, points, timeout=180):
    "kill -9 a process with its children as soon as a checkpoint stands"
    limit = time.time() + timeout
    try:
        while not list(points.glob('step-*.safetensors')):
            assert p.poll() is None, f'ended before its first checkpoint: {p.stderr.read()}'
            assert time.time() < limit, f'no checkpoint within {timeout} s'
            time.sleep(0.02)
    finally:
        workers = subprocess.run(
            ['pgrep', '-P', str(p.pid)], check=False, capture_output=True, text=True
        ).stdout.split()  # torchrun gives each a session of its own
        for pid in (p.pid, *map(int, workers)):
            os.kill(pid, signal.SIGKILL)
        p.wait(timeout=30)
        p.stderr.close()


@pytest.mark.slow
def test_another_number_of_processes_after_a_kill(cache, tmp_path):
    """Two processes, killed after the first checkpoint; one process goes on over the border of
    the stages and ends where an unbroken run ends (in float64, see above)"""
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    done(one(cache, whole, 4, 8))
    p = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc-per-node',
            '2',
            str(HERE / 'double_run.py'),
            str(cache),
            str(broken),
            '4',
            '8',
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    kill_at_checkpoint(p, broken / 'checkpoints')
    assert max((broken / 'checkpoints').glob('step-*.safetensors')).name < 'step-0000008'
    r = one(cache, broken, 4, 8)
    assert r.returncode == 0 and 'going on from step' in r.stderr, r.stderr
    a, b = (load_file(f / 'last.safetensors') for f in (whole, broken))
    name, gap = far(a, b)
    assert gap < 1e-6, f'{name} differs by {gap:.2g}'

    def steps(f):
        return [
            line.split(',')[0] for line in (f / 'log.csv').read_text(encoding='utf-8').splitlines()
        ]

    assert steps(broken) == steps(whole)
