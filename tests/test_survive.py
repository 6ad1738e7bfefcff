"""A run outlives kill -9, Ctrl-C, a crashed worker and a full disk, and ends with the weights of
a run that nobody touched"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import call, complaint, done, shell
from safetensors.torch import load_file

from atm_net.core import LOCK

STEPS = 8
SCRIPT = """
"Train for a few steps with a checkpoint after each; argument 3 says what goes wrong"
import os, signal, sys, time
from dataclasses import replace
from pathlib import Path
import safetensors.torch as st
from atm_net import train as T
from atm_net.config import PRESETS

cache, run, fault = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
mark = run.parent / f'{run.name}.faults'  # how often it has gone wrong
write, update = st.save_file, T.Trainer.update

def once():
    n = int(mark.read_text() or 0) if mark.exists() else 0
    mark.write_text(str(n + 1))
    return n == 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def half(t, f, **kw):
    "Die in the middle of writing a checkpoint"
    write(t, f, **kw)
    if 'step-0000005' in str(f) and once():
        Path(f).write_bytes(Path(f).read_bytes()[:5000])
        die()

def crash(self, batch):
    "Die in the middle of the run"
    last = self.group.rank == self.group.size - 1
    if self.step == int(fault[5:]) and last and once():
        die()
    return update(self, batch)

def slow(self, batch):
    time.sleep(.3)
    return update(self, batch)

if fault == 'write':
    st.save_file = half
if fault.startswith('crash'):
    T.Trainer.update = crash
if fault == 'slow':
    T.Trainer.update = slow
if __name__ == '__main__':
    few = dict(steps=8, batch=2, warmup=0, plain=.5, windows=(64,), val_cases=1)
    resume = (run / 'config.json').exists() and 'no-resume' not in sys.argv
    every = dict(every=1, val_every=4, save_every=1)
    T.train(cache, run, replace(PRESETS['tiny'], **few), resume=resume, device='cpu', **every)
"""
ENV = os.environ | {'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1'}  # else a restart may hang


@pytest.fixture(scope='session')
def script(home):
    (home / 'go.py').write_text(SCRIPT, encoding='utf-8')
    return home / 'go.py'


@pytest.fixture(scope='session')
def whole(script, cache, home):
    "The run that nobody touches"
    r = finish(start(script, cache, home / 'whole'))
    assert r.returncode == 0, r.stderr
    return home / 'whole'


def start(script, cache, run, fault='none', before=(), *more):
    "A process group of its own"
    return subprocess.Popen(
        [sys.executable, *map(str, before), str(script), str(cache), str(run), fault, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=ENV,
    )


def finish(p, timeout=180):
    "Wait under a hard limit"
    try:
        out, err = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        stop_all(p)
        out, err = p.communicate()
        pytest.fail(f'hung for {timeout} s\n{err[-3000:]}')
    return subprocess.CompletedProcess(p.args, p.returncode, out, err)


def children(pid) -> list:
    return [
        int(c)
        for c in subprocess.run(
            ['pgrep', '-P', str(pid)], check=False, capture_output=True, text=True
        ).stdout.split()
    ]


def stop_all(p):
    "kill -9 a process and its children, which torchrun puts into sessions of their own"
    for pid in (*children(p.pid), p.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it may have ended by itself: that is what is wanted


def alive(pid) -> bool:
    "Does it run? A zombie that nobody has buried does not"
    try:
        return (
            Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rpartition(')')[2].split()[0]
            != 'Z'
        )
    except FileNotFoundError:
        return False


def until(what, seconds, why):
    limit = time.time() + seconds
    while not (found := what()):
        assert time.time() < limit, why
        time.sleep(0.02)
    return found


def points(run):
    return sorted((run / 'checkpoints').glob('step-*.safetensors'))


def same(a, b):
    "Bit for bit: weights, moments, best; and the same rows in the log"
    for name in (
        'last.safetensors',
        'best.safetensors',
        f'checkpoints/step-{STEPS:07d}.safetensors',
    ):
        x, y = load_file(a / name), load_file(b / name)
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x), name

    def rows(f):
        return [
            line.split(',')[:6] + line.split(',')[7:]
            for line in (f / 'log.csv').read_text(encoding='utf-8').splitlines()
        ]

    assert rows(a) == rows(b)
    assert [p.name for p in points(b)] == [f'step-{s:07d}.safetensors' for s in (STEPS - 1, STEPS)]
    assert not list(b.rglob('.*')), 'something half-written is left'


def test_kill_in_the_middle_of_a_checkpoint(script, cache, whole, tmp_path):
    """kill -9 while the fifth checkpoint is being written; the half file is no checkpoint, the
    fourth is taken up"""
    r = finish(start(script, cache, tmp_path / 'run', 'write'))
    assert r.returncode == -signal.SIGKILL, r.stderr
    assert points(tmp_path / 'run')[-1].name == 'step-0000004.safetensors' and list(
        (tmp_path / 'run' / 'checkpoints').glob('.step-0000005*')
    )
    r = finish(start(script, cache, tmp_path / 'run'))
    assert r.returncode == 0 and 'going on from step 4' in r.stderr, r.stderr
    same(whole, tmp_path / 'run')


@pytest.mark.slow
def test_a_second_process_and_a_killed_one(script, cache, whole, tmp_path):
    """While one process trains, a second one on the same run is refused and changes nothing; when
    the first is killed, the run is taken up at once, whatever lock lies there"""
    run = tmp_path / 'run'
    p = start(script, cache, run, 'slow')
    until(lambda: points(run) or p.poll() is not None, 120, 'no checkpoint')
    r = finish(start(script, cache, run), 60)
    assert r.returncode != 0 and 'another process is writing here' in r.stderr, r.stderr
    assert p.poll() is None
    os.kill(p.pid, signal.SIGKILL)
    finish(p)
    assert (run / LOCK).exists() and points(run)[-1].stem < f'step-{STEPS:07d}'
    r = finish(start(script, cache, run))
    assert r.returncode == 0 and 'going on from step' in r.stderr, r.stderr
    same(whole, run)
    assert not (run / LOCK).exists()


def test_what_safetensors_leaves_is_swept(tmp_path):
    """safetensors fills a nameless file of its own first. Here the system kills it in the
    middle, by a limit on the size of files; the next start removes what is left, and nothing
    else"""
    from atm_net.checkpoint import sweep

    code = """
import resource, signal, sys, torch
from safetensors.torch import save_file
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
save_file(dict(a=torch.zeros(50_000)), sys.argv[1])
"""
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / '.mine').touch()
    for f in ('last', 'checkpoints/step-0000001'):
        assert (
            subprocess.run(
                [sys.executable, '-c', code, tmp_path / f'{f}.safetensors'],
                check=False,
                capture_output=True,
            ).returncode
            == -signal.SIGXFSZ
        )
    assert len([*tmp_path.rglob('.*')]) == 3
    sweep(tmp_path)
    assert [f.name for f in tmp_path.rglob('.*')] == ['.mine']


def has_saved(p, run, step) -> bool:
    "Has a run ended, or written the checkpoint of a step or a later one?"
    return p.poll() is not None or any(f.stem >= f'step-{step:07d}' for f in points(run))


@pytest.mark.slow
def test_ten_kills_at_random_moments(script, cache, whole, tmp_path):
    "Each run is killed once, a random moment after the checkpoint of a random step"
    for k in range(10):
        run = tmp_path / f'run{k}'
        rng = random.Random(k)
        step, wait = rng.randrange(1, STEPS), rng.uniform(0, 0.2)
        p = start(script, cache, run)
        until(partial(has_saved, p, run, step), 120, 'no checkpoint')
        t = time.time()
        while time.time() < t + wait:
            pass
        stop_all(p)
        err = finish(p).stderr
        assert p.returncode == -signal.SIGKILL, f'it ended before kill {k}: {err}'
        names = [f.name for f in points(run)]
        half = len(list(run.rglob('.*')))
        print(f'kill {k}: {wait:.3f} s after checkpoint {step}')
        print(f'then there were {names} and {half} half-written files')
        r = finish(start(script, cache, run))
        assert r.returncode == 0 and 'going on from step' in r.stderr, r.stderr
        same(whole, run)


@pytest.mark.slow
def test_a_killed_worker_restarts(script, cache, tmp_path):
    """One of two workers dies at step 5; torchrun starts both again, they resume
    by themselves, and the run ends well"""
    check_restart(script, cache, tmp_path / 'run', 5)


@pytest.mark.slow
def test_ten_restarts(script, cache, tmp_path):
    for k in range(10):
        t = time.time()
        check_restart(script, cache, tmp_path / f'run{k}', k % STEPS)
        print(f'restart {k}: died at step {k % STEPS}, ended after {time.time() - t:.0f} s')


def check_restart(script, cache, run, step):
    "Two workers with one restart, a hard limit, and the end"
    r = finish(
        start(
            script,
            cache,
            run,
            f'crash{step}',
            (
                '-m',
                'torch.distributed.run',
                '--standalone',
                '--nproc-per-node',
                2,
                '--max-restarts',
                1,
            ),
            'no-resume',
        ),
        timeout=240,
    )
    assert r.returncode == 0, r.stderr[-3000:]
    assert (run.parent / f'{run.name}.faults').read_text(encoding='utf-8') == '2' if step else True
    assert f'{run}: ' + ('going on from step' if step else 'no checkpoint yet') in r.stderr, (
        r.stderr[-3000:]
    )
    assert points(run)[-1].name == f'step-{STEPS:07d}.safetensors' and [
        line.split(',')[0]
        for line in (run / 'log.csv').read_text(encoding='utf-8').splitlines()
        if line.split(',')[1]
    ] == ['step', *map(str, range(1, STEPS + 1))]


def test_workers_end_with_their_torchrun(script, cache, tmp_path):
    """kill -9 of torchrun alone: within seconds no worker is left that would go on writing into
    the run"""
    run, workers = tmp_path / 'run', []
    p = start(
        script,
        cache,
        run,
        'slow',
        ('-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2),
    )
    try:
        until(lambda: points(run) or p.poll() is not None, 120, 'no checkpoint')
        workers = children(p.pid)
        assert len(workers) == 2 and p.poll() is None
        os.kill(p.pid, signal.SIGKILL)
        p.wait(30)
        until(lambda: not any(map(alive, workers)), 15, 'workers outlive their torchrun')
    finally:
        for w in workers:
            if alive(w):
                os.kill(w, signal.SIGKILL)
        p.communicate()
    assert points(run)[-1].name < f'step-{STEPS:07d}'


@pytest.mark.parametrize(
    'sig',
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
    ids=['SIGTERM', 'Ctrl-C'],
)
def test_a_stop_saves(script, cache, whole, tmp_path, sig):
    "A message, status of a refusal, and a checkpoint from which the run ends as the untouched one"
    run = tmp_path / 'run'
    p = start(script, cache, run, 'slow')
    until(lambda: points(run) or p.poll() is not None, 120, 'no checkpoint')
    os.kill(p.pid, sig)
    r = finish(p, 60)
    last = int(points(run)[-1].stem[5:])
    assert (
        r.returncode != 0
        and f'stopped at step {last}; a checkpoint is saved: go on with --resume' in r.stderr
        and last < STEPS
    )
    r = finish(start(script, cache, run))
    assert r.returncode == 0 and f'going on from step {last}' in r.stderr
    same(whole, run)


@pytest.mark.slow
def test_a_stop_of_two_processes_saves(script, cache, tmp_path):
    "SIGTERM to torchrun, as a queue sends it before the time is up"
    run = tmp_path / 'run'
    p = start(
        script,
        cache,
        run,
        'slow',
        ('-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2),
    )
    until(lambda: points(run) or p.poll() is not None, 120, 'no checkpoint')
    os.kill(p.pid, signal.SIGTERM)
    r = finish(p, 60)
    assert (
        r.returncode != 0
        and 'a checkpoint is saved: go on with --resume' in r.stderr
        and not list(run.rglob('.*'))
    ), r.stderr[-2000:]
    r = finish(start(script, cache, run))
    assert r.returncode == 0 and 'going on from step' in r.stderr


@pytest.fixture
def small_disk(tmp_path):
    "A file system of a few megabytes"
    d = tmp_path / 'disk'
    d.mkdir()
    size = 48
    r = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', f'size={size}m', 'tmpfs', str(d)],
        check=False,
        capture_output=True,
        text=True,
    )
    if r.returncode:
        pytest.skip(f'no small file system can be mounted here: {r.stderr.strip()}')
    yield d
    subprocess.run(['umount', str(d)], check=True)


def test_a_full_disk(cache, small_disk):
    """The run stops with one line, the checkpoint before is whole, and with space again it
    goes on to the end"""
    from atm_net.checkpoint import read_checkpoint

    args = (
        'atm_train',
        cache,
        small_disk / 'run',
        '--model',
        'unet',
        '--steps',
        3,
        '--batch',
        1,
        '--save',
        1,
    )
    elsewhere = small_disk.parent / 'elsewhere'
    done(call(*args[:2], elsewhere, *args[3:]))
    whole = sum(f.stat().st_size for f in elsewhere.rglob('*') if f.is_file())
    point = points(elsewhere)[0].stat().st_size
    st = os.statvfs(small_disk)
    free = st.f_bavail * st.f_frsize
    assert free > whole, f'the disk is too small: {free} for {whole}'
    # space for all but the second checkpoint
    (small_disk / 'ballast').write_bytes(bytes(free - whole + point // 2))
    line = complaint_of_a_run(shell(*args))
    assert 'No space left' in line and '--resume' in line and str(small_disk / 'run') in line
    found = points(small_disk / 'run')
    assert found and read_checkpoint(found[-1])[0]['step'] == int(found[-1].stem[5:]) < 3
    assert not list((small_disk / 'run').rglob('.*'))
    (small_disk / 'ballast').unlink()
    r = done(shell(*args, '--resume'))
    assert (
        f'going on from step {int(found[-1].stem[5:])}' in r.err
        and points(small_disk / 'run')[-1].name == 'step-0000003.safetensors'
    )


def complaint_of_a_run(r) -> str:
    "Status 2 and no traceback; the last line says why, those before are progress"
    assert r.returncode == 2 and 'Traceback' not in r.stderr, f'status {r.returncode}: {r.stderr}'
    *before, last = r.stderr.strip().splitlines()
    assert last.startswith('atm_train:') and all(line.startswith('step ') for line in before), (
        r.stderr
    )
    return last


@pytest.mark.slow
def test_two_fresh_processes_make_the_same_weights(cache, run, tmp_path):
    "The same command twice, each in a process of its own: bit for bit"
    done(shell('atm_train', cache, tmp_path / 'again', '--steps', 3, '--batch', 2))
    a, b = (load_file(d / 'last.safetensors') for d in (run.path, tmp_path / 'again'))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_help_within_two_seconds():
    "Of processor time, since others may use the machine; the best of three"
    import resource

    def used():
        return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])

    spent = []
    for _ in range(3):
        t = used()
        done(shell('atm_train', '--help'))
        spent.append(used() - t)
    assert min(spent) < 2, spent


@pytest.mark.parametrize(
    'args,words',
    [
        (('--amp', 'int4'), 'int4'),
        (('--accumulate', 0), '--accumulate'),
        (('--batch', 4, '--accumulate', 3), '--accumulate 3'),
        (('--save', 0), '--save'),
        (('--keep', 0), '--keep'),
    ],
)
def test_refuses_an_option(cache, tmp_path, args, words):
    line = complaint(call('atm_train', cache, tmp_path / 'r', '--steps', 1, *args))
    assert words in line and not (tmp_path / 'r').exists()


def test_tensorboard_is_asked_for_and_absent(cache, tmp_path, monkeypatch):
    monkeypatch.setitem(
        sys.modules, 'torch.utils.tensorboard', None
    )  # as where the package is missing
    line = complaint(call('atm_train', cache, tmp_path / 'r', '--steps', 1, '--tensorboard'))
    assert 'pip install tensorboard' in line and not (tmp_path / 'r').exists()


def test_tensorboard(cache, tmp_path):
    "The same numbers as in log.csv"
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from atm_net.show import read_rows

    done(
        call(
            'atm_train',
            cache,
            tmp_path / 'r',
            '--steps',
            3,
            '--batch',
            1,
            '--model',
            'unet',
            '--tensorboard',
        )
    )
    e = EventAccumulator(str(tmp_path / 'r' / 'tensorboard'))
    e.Reload()
    want = [
        (r['step'], r['loss'])
        for r in read_rows(tmp_path / 'r' / 'log.csv')
        if r['loss'] is not None
    ]
    assert [s.step for s in e.Scalars('loss')] == [s for s, _ in want] and [
        s.value for s in e.Scalars('loss')
    ] == pytest.approx([v for _, v in want], rel=1e-4)
    assert {'loss', 'dice', 'lr', 'val_none'} <= set(e.Tags()['scalars'])
