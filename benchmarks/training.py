"""What a training run costs beside its steps.

`python benchmarks/training.py [--quick] [--threads 1]`

Everything is measured in this run; rivals take turns and the table gives medians of ratios, so that
a busy machine slows all alike. Scaling: a global batch of the same size in 2 processes with 1
thread each (torchrun, gloo) against 1 process with 1 thread; efficiency is the speed-up over 2. Two
runs side by side that exchange nothing say how much of a second core the machine really has (memory
and caches are shared). It needs two idle cores: on one that is busy it measures the neighbour."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
from run import silent
from speed import rivals

HERE = Path(__file__).resolve()


def config(side, batch, steps):
    "Preset tiny on windows of one size, so that all steps cost the same"
    from atm_net.config import PRESETS

    return replace(
        PRESETS['tiny'], windows=(side,), batch=batch, steps=steps, warmup=0, plain=0.0, val_cases=1
    )


def make_cache(root, patients=6, grid=None):
    "A small cohort on a grid; None: pixels of 2 mm"
    from atm_net.anatomy import LUMBAR
    from atm_net.cache import prepare
    from atm_net.cohort import open_cohort
    from atm_net.grid import Grid
    from atm_net.phantom_cohort import write_cohort

    silent(write_cohort, root / 'phantoms', patients=patients, seed=0)
    cohort = open_cohort(root / 'phantoms', LUMBAR)
    silent(prepare, cohort, root / 'cache', grid or Grid(spacing=2.0))
    return root / 'cache'


def stepper(cache, run, cfg, group=None, **kw):
    "A trainer, and a call that makes one step with data that is there already"
    from atm_net.distributed import Distributed
    from atm_net.trainer import Trainer

    t = Trainer(cache, run, cfg, group or Distributed(), **kw)
    ready = next(iter(t.batches()))
    return t, lambda: t.update(ready)


def launcher(n) -> list:
    "The start of a command that runs a script in `n` processes of one machine"
    if n == 1:
        return [sys.executable]
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node']
    return [sys.executable, *torchrun, str(n)]


def worker(cache, side, batch, steps):
    """One process of the scaling test: prints the seconds of each step, loading and exchange of
    gradients included"""
    import torch

    from atm_net.data import Cache
    from atm_net.distributed import join_group, leave_group
    from atm_net.trainer import Trainer

    torch.set_num_threads(1)
    group = join_group('cpu')
    t = Trainer(Cache(cache), '.', config(side, batch, steps + 1), group)
    seconds = []
    last = None
    for b in t.batches():
        t.update(b)
        now = time.perf_counter()
        if last is not None:
            seconds.append(now - last)  # the first step warms up
        last = now
    if group.lead:
        print(json.dumps(seconds))
    leave_group(group)


def start(n, args):
    "A run of `n` processes that prints the seconds of its steps"
    return subprocess.Popen(
        [*launcher(n), str(HERE), '--worker', *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict(OMP_NUM_THREADS='1'),
    )


def seconds_of(p):
    "Median seconds of a step of a run that was started"
    out, err = p.communicate()
    if p.returncode:
        raise RuntimeError(err[-3000:])
    return statistics.median(json.loads(out.strip().splitlines()[-1]))


def side_by_side(cache, side, batch, steps):
    """Two runs at once that know nothing of each other, each with half of the batch: what the
    machine has for two processes, exchange left out"""
    return max(map(seconds_of, [start(1, (cache, side, batch // 2, steps)) for _ in range(2)]))


def scaling(cache, args):
    "two processes against one, and against two that exchange nothing"
    how = (cache, args.side, args.batch, args.steps)
    turns = [
        (seconds_of(start(1, how)), seconds_of(start(2, how)), side_by_side(*how))
        for _ in range(args.repeats)
    ]
    one, two, apart = (statistics.median(t) for t in zip(*turns))

    def eff(f):
        return statistics.median(map(f, turns))

    what = f'2 processes x 1 thread, batch {args.batch}'
    return [
        [
            f'efficiency of {what}',
            f'{two * 1e3:.0f} ms a step',
            f'1 x 1 thread: {one * 1e3:.0f} ms',
            eff(lambda t: t[0] / (2 * t[1])),
            '>= 85 %',
        ],
        [
            'efficiency of two runs side by side',
            f'{apart * 1e3:.0f} ms a step',
            f'1 x 1 thread: {one * 1e3:.0f} ms',
            eff(lambda t: t[0] / (2 * t[2])),
            'the machine',
        ],
        [
            f'{what}: what the exchange leaves of it',
            f'{two * 1e3:.0f} ms a step',
            f'side by side: {apart * 1e3:.0f} ms',
            eff(lambda t: t[2] / t[1]),
            '>= 85 %',
        ],
    ]


def waiting(cache, args):
    "share of the time in which the loop waits for data"
    from atm_net.data import Cache
    from atm_net.distributed import Distributed
    from atm_net.trainer import Trainer

    out = []
    for workers in (0, 1):
        t = Trainer(
            Cache(cache), '.', config(args.side, args.batch, args.steps + 2), Distributed(), workers
        )
        wait, work = [], []
        batches = iter(t.batches())
        for k in range(args.steps + 2):
            a = time.perf_counter()
            b = next(batches)
            c = time.perf_counter()
            t.update(b)
            d = time.perf_counter()
            if k > 1:
                wait.append(c - a)
                work.append(d - c)  # a loader process starts with the first
        out.append(
            [
                f'waiting for data, --workers {workers}',
                f'{statistics.median(wait) * 1e3:.1f} ms',
                f'step: {statistics.median(work) * 1e3:.0f} ms',
                statistics.median(w / (w + s) for w, s in zip(wait, work)),
                '<= 2 %',
            ]
        )
    return out


def overhead(cache, root, args):
    """what a log row every 10 steps and a checkpoint every 200 add to a step; validation is not
    counted"""
    from atm_net.data import Cache
    from atm_net.run_folder import Log

    t, step = stepper(Cache(cache), root / 'run', config(args.side, args.batch, 10**6))
    (root / 'run').mkdir()
    log = Log(root / 'run' / 'log.csv', 0)
    row = dict(step=1, loss=1.234567, seg=1.0, contrast=2.0, dice=0.5, lr=1e-3, seconds=0.5)
    step()
    turns = list(zip(*rivals([step, t.checkpoint, lambda: log.add(**row)], args.repeats)))
    seconds, checkpoint, logging = (statistics.median(x) for x in zip(*turns))
    share = statistics.median((c / 200 + x / 10) / s for s, c, x in turns)
    return [
        'logging and checkpoints at their defaults',
        f'checkpoint {checkpoint * 1e3:.0f} ms / 200, row {logging * 1e3:.2f} ms / 10',
        f'step: {seconds * 1e3:.0f} ms',
        share,
        '<= 3 %',
    ]


def variants(cache, args, options):
    """a step with an option against a step without it; compiling itself, which takes minutes, is
    not counted"""
    from atm_net.data import Cache

    out = []
    cfg = config(args.side, args.batch, 10**6)
    for name, kw in options.items():
        steps = [stepper(Cache(cache), '.', cfg, **k)[1] for k in (kw, {})]
        turns = list(zip(*rivals(steps, args.repeats)))
        a, b = (statistics.median(x) for x in zip(*turns))
        out.append(
            [
                f'a step with {name}',
                f'{a * 1e3:.0f} ms',
                f'without: {b * 1e3:.0f} ms',
                statistics.median(a / b for a, b in turns),
                '< 1 to be a default',
            ]
        )
    return out


def help_time(args):
    "the command's --help, beside an empty interpreter"

    def run(*a):
        return lambda: subprocess.run([sys.executable, *a], check=True, capture_output=True)

    own, empty = (
        statistics.median(s)
        for s in rivals([run('-m', 'atm_net.train', '--help'), run('-c', '')], args.repeats)
    )
    return [
        'atm_train --help',
        f'{own:.2f} s',
        f'python -c "": {empty:.2f} s',
        own / empty,
        '<= 2 s',
    ]


def arguments():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        '--quick', action='store_true', help='tiny sizes, nothing compiled: does it run?'
    )
    p.add_argument('--threads', type=int, default=1)
    p.add_argument(
        '--skip',
        default='',
        help='comma-separated: scaling, waiting, overhead, help, variants, compile',
    )
    p.add_argument('--worker', nargs=4, help=argparse.SUPPRESS)
    args = p.parse_args()
    args.side, args.batch, args.steps, args.repeats = 128, 8, 8, 5
    args.skip = args.skip.split(',')
    if args.quick:
        args.side, args.batch, args.steps, args.repeats = 64, 2, 3, 2
        args.skip.append('compile')
    return args


def measurements(cache, root, args) -> dict:  # name -> a call that gives rows of the table
    options = {
        '--channels_last': dict(channels_last=True),
        f'--accumulate {args.batch}': dict(accumulate=args.batch),
    }
    return dict(
        scaling=lambda: scaling(cache, args),
        waiting=lambda: waiting(cache, args),
        overhead=lambda: [overhead(cache, root, args)],
        help=lambda: [help_time(args)],
        variants=lambda: variants(cache, args, options),
        compile=lambda: variants(cache, args, {'--compile': dict(compile=True)}),
    )


def conditions(args) -> str:
    "What the numbers depend on"
    import torch

    import atm_net

    machine = f'{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}'
    return (
        f'Medians of {args.repeats} turns; window {args.side} px, batch {args.batch}; '
        f'{args.threads} thread(s); {machine}; '
        f'atm_net {atm_net.__version__}, torch {torch.__version__}.\n'
    )


def main():
    args = arguments()
    if args.worker:
        cache, *n = args.worker
        worker(cache, *map(int, n))
        return
    import torch

    torch.set_num_threads(args.threads)
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        cache = make_cache(root, 3 if args.quick else 6)
        for name, f in measurements(cache, root, args).items():
            if name not in args.skip:
                print(name, file=sys.stderr)
                rows += f()
    print(conditions(args))
    for r in (['what', 'measured', 'against', 'ratio', 'target'], ['---'] * 5, *rows):
        print('| ' + ' | '.join(x if isinstance(x, str) else f'{x:.3g}' for x in r) + ' |')


if __name__ == '__main__':
    main()
