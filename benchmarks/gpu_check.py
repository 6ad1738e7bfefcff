"""Does preset `paper` train and predict on this machine? One command for a first day with a GPU.

    python benchmarks/gpu_check.py --json gpu.json     # under eight minutes on one GPU
    python benchmarks/gpu_check.py --short             # sizes of a toy: does the script itself run?

Phantoms of 384 px, a BERT with random weights in the shape of Bio-ClinicalBERT, and the network of
preset `paper`: Swin UNETR of feature size 48 with HASF and CCAE. Nothing is learnt here. Each case
makes the same steps on one batch in a process of its own, so that one that fails does not stop the
others. Two cases are held against `fp32`: the first loss must differ by at most 2 %, the last by
10 %. A case that cannot run here says why. The table is what to put on record. The exit status is
1 if a case failed."""

import argparse
import datetime
import gc
import math
import multiprocessing
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
from encoders import CLINICAL_BERT, random_bert
from run import silent
from speed import kilobytes
from training import launcher, make_cache, stepper

HERE = Path(__file__).resolve()
LEAST_SECONDS = 5  # with less time left no case is begun
FIRST_GAP, LAST_GAP = 0.02, 0.1  # allowed to a loss, as a share of that of fp32 (ours)


@dataclass(frozen=True)
class Sizes:
    "How much a case has to do"

    side: int = 384  # px
    feature_size: int = 48
    batch: int = 8
    steps: int = 12
    unmeasured: int = 3  # of these steps, at the start
    patients: int = 3
    slices: int = 24  # of the volume to predict
    turns: int = 3  # of predicting it
    bert: dict = None  # of `random_bert`


FULL = Sizes(bert=CLINICAL_BERT)
SMALL_BERT = dict(hidden_size=96, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192)
SHORT = Sizes(64, 12, 2, 4, 1, 3, 3, 1, CLINICAL_BERT | SMALL_BERT)


@dataclass(frozen=True)
class Case:
    "What is tried, and for how many seconds at most"

    name: str
    job: str = 'train'  # a key of `JOBS`
    amp: str = 'none'
    channels_last: bool = False
    compile: bool = False
    ranks: int = 1
    limit: int = 100  # s


DATA = Case('data and encoder', 'make')
CASES = (
    Case('fp32'),
    Case('bf16', amp='bf16'),
    Case('fp16', amp='fp16'),
    Case('channels-last', channels_last=True),
    Case('resume', 'resume'),
    Case('inference', 'predict'),
    Case('as on the CPU', 'agree'),
    Case('two ranks', ranks=2),
    Case('compile', compile=True, limit=200),
)


# --- what a case does, in a process of its own


def make(case, sizes, device, folder) -> dict:
    "Phantoms, their cache and the encoder, for all other cases"
    from atm_net.grid import Grid

    began = time.perf_counter()
    make_cache(folder, sizes.patients, Grid(size=sizes.side))
    silent(random_bert, folder / 'bert', sizes.bert)
    return dict(seconds=time.perf_counter() - began)


def trainer_of(case, sizes, group, folder) -> tuple:  # `Trainer`, a call that makes one step
    "Preset `paper` at the sizes of this check"
    from atm_net.config import PRESETS
    from atm_net.data import Cache

    cfg = replace(
        PRESETS['paper'],
        encoder=str(folder / 'bert'),
        feature_size=sizes.feature_size,
        windows=(sizes.side,),
        batch=sizes.batch,
        amp=case.amp,
    )
    how = dict(channels_last=case.channels_last, compile=case.compile)
    return stepper(Cache(folder / 'cache'), folder / f'run {case.name}', cfg, group, **how)


def wait_for(device: str):
    "Until the GPU has done what it was told"
    import torch

    if device != 'cpu':
        torch.cuda.synchronize()


def forget_peak(device: str):
    import torch

    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: str) -> float | None:
    "Peak memory: tensors on the GPU, or the process where there is none (Linux only)"
    import torch

    if device != 'cpu':
        return torch.cuda.max_memory_allocated() / 1e9
    return kilobytes('VmHWM') / 1e6 if Path('/proc/self/status').exists() else None


def timed_steps(step, n: int, group) -> tuple:  # losses, seconds of each step
    "`n` optimizer steps on one batch"
    from atm_net.distributed import mean_rows

    losses, seconds = [], []
    for _ in range(n):
        began = time.perf_counter()
        row = step()
        wait_for(group.device)
        seconds.append(time.perf_counter() - began)
        losses.append(mean_rows(group, [row])['loss'])
    return losses, seconds


def train(case, sizes, device, folder) -> dict | None:  # None where not the lead
    "Seconds of a step, memory and losses"
    from atm_net.distributed import join_group, leave_group

    group = join_group(device)
    _, step = trainer_of(case, sizes, group, folder)
    forget_peak(group.device)
    losses, seconds = timed_steps(step, sizes.steps, group)
    pace = statistics.median(seconds[sizes.unmeasured :])
    peak = peak_gb(group.device)
    leave_group(group)
    if not group.lead:
        return None
    return dict(
        seconds_a_step=pace,
        first_step=seconds[0],
        images_a_second=sizes.batch / pace,
        peak_gb=peak,
        losses=losses,
    )


def resume(case, sizes, device, folder) -> dict:
    "Half of the steps, a checkpoint, the other half; then that half once more from the checkpoint"
    from atm_net.distributed import join_group

    group = join_group(device)
    case = replace(case, amp='none' if device == 'cpu' else 'fp16')  # with the state of its scaler
    half = sizes.steps // 2
    whole, step = trainer_of(case, sizes, group, folder)
    timed_steps(step, half, group)
    whole.checkpoint()
    losses, _ = timed_steps(step, half, group)
    del whole, step
    gc.collect()
    again, step = trainer_of(case, sizes, group, folder)
    again.resume()
    if again.step != half:
        raise ValueError(f'the checkpoint is of step {again.step}, not {half}')
    repeated, _ = timed_steps(step, half, group)
    gap = max(abs(a - b) / abs(a) for a, b in zip(losses, repeated, strict=True))
    allowed = 1e-5 if device == 'cpu' else 1e-2  # a GPU adds in another order each time
    if gap > allowed:
        raise ValueError(f'losses after the checkpoint differ by {gap:.2g}, allowed {allowed:g}')
    return dict(losses=repeated, gap=gap)


def predict(case, sizes, device, folder) -> dict:
    "Seconds from a volume to its labels, each pixel by itself, under the generic prompt"
    from atm_net.distributed import Distributed
    from atm_net.phantom import make_phantom

    trainer, _ = trainer_of(case, sizes, Distributed(device=device), folder)
    predictor = trainer.predictor()
    volume = make_phantom(11, contrast='t2', slices=(sizes.slices, 4.0)).volume
    forget_peak(device)
    seconds = []
    for _ in range(sizes.turns + 1):
        began = time.perf_counter()
        labels = predictor.predict(volume, 'generic', one_name_per_level=False).labels
        seconds.append(time.perf_counter() - began)
    if labels.shape != volume.shape:
        raise ValueError(f'labels of {labels.shape} for a volume of {volume.shape}')
    pace = statistics.median(seconds[1:])
    return dict(inference_seconds=pace, slices=sizes.slices, peak_gb=peak_gb(device))


def agree(case, sizes, device, folder) -> dict:
    "Logits of one image with its prompt, by this device and by the CPU"
    import torch

    from atm_net.distributed import Distributed

    trainer, _ = trainer_of(case, sizes, Distributed(device=device), folder)
    item = next(iter(trainer.batches()))[:1]
    image = item[0]['image'][None]
    text = trainer.prompts.holistic(item)
    logits = {}
    for where in (device, 'cpu'):
        net = trainer.net.to(where).eval()
        with torch.inference_mode():
            logits[where] = net(image.to(where), text.to(where)).float().cpu()
    here, there = logits[device], logits['cpu']
    gap = ((here - there).abs().max() / there.abs().max()).item()
    if not gap <= 0.02:  # convolutions of TF32 have ten bits; not a number is refused, too
        raise ValueError(f'logits differ by {gap:.2g} of the largest one')
    return dict(gap=gap)


JOBS = dict(make=make, train=train, resume=resume, predict=predict, agree=agree)


def work(case: Case, sizes: Sizes, device: str, folder: Path):
    "Do a case and write what came of it"
    from atm_net.core import write_json

    try:
        result = JOBS[case.job](case, sizes, device, folder)
    except BaseException as e:
        why = next(iter(str(e).strip().splitlines()), '')
        write_json(folder / f'{case.name}.failed', f'{type(e).__name__}: {why}')
        raise
    if result is not None:
        write_json(folder / f'{case.name}.done', result)


# --- one case after the other


def as_process(case: Case, args, folder: Path, limit: float) -> int | None:  # exit status
    "A new Python, or torchrun, for a case; None where the time was not enough"
    command = [*launcher(case.ranks), str(HERE), '--worker', case.name, '--folder', str(folder)]
    command += ['--device', args.device, '--batch', str(args.sizes.batch)]
    command += ['--short'] if args.short else []
    with open(folder / f'{case.name}.log', 'w', encoding='utf-8') as log:
        p = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            return p.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()
            return None


def as_fork(case: Case, args, folder: Path, limit: float) -> int | None:  # as `as_process`
    "A copy of this process, which has imported all and computed nothing; without a GPU alone"
    arguments = (case, args.sizes, args.device, folder)
    p = multiprocessing.get_context('fork').Process(target=work, args=arguments)
    p.start()
    p.join(limit)
    if p.is_alive():
        p.kill()
        p.join()
        return None
    return p.exitcode


def outcome(case: Case, args, folder: Path, seconds_left: float) -> dict:
    "Run a case: its state, why it failed, and what it measured"
    from atm_net.core import read_json

    limit = max(seconds_left, LEAST_SECONDS)
    if not args.short:  # a toy may be tried on a busy machine
        limit = min(case.limit, limit)
    forks = args.device == 'cpu' and case.ranks == 1 and hasattr(os, 'fork')
    status = (as_fork if forks else as_process)(case, args, folder, limit)
    failed, done = (folder / f'{case.name}.{end}' for end in ('failed', 'done'))
    if status is None:
        return dict(state='failed', why=f'took longer than {limit:.0f} s')
    if failed.exists():
        return dict(state='failed', why=read_json(failed))
    if status or not done.exists():
        return dict(state='failed', why=f'its process ended with status {status}')
    return dict(state='ok', why='') | read_json(done)


def gap(a: float, b: float) -> float:
    "How far a is from b, as a share of b"
    return abs(a - b) / abs(b)


def wrong_losses(losses: list, reference: list | None) -> str:  # '' where they are right
    "Losses must be numbers, fall, and be near those of fp32"
    if not all(map(math.isfinite, losses)):
        return 'a loss is not finite'
    if losses[-1] >= losses[0]:
        return f'the loss does not fall: {losses[0]:.3f}, then {losses[-1]:.3f}'
    for k, allowed, which in ((0, FIRST_GAP, 'first'), (-1, LAST_GAP, 'last')):
        if reference and gap(losses[k], reference[k]) > allowed:
            far = f'{losses[k]:.4f}, that of fp32 is {reference[k]:.4f}'
            return f'the {which} loss is {far}: more than {allowed:.0%} apart'
    return ''


def judged(case: Case, found: dict, reference: dict | None) -> dict:
    "A training that ran has failed where its losses are wrong"
    if case.job != 'train' or found['state'] != 'ok':
        return found
    why = wrong_losses(found['losses'], (reference or {}).get('losses'))
    return found | dict(state='failed', why=why) if why else found


def why_not(case: Case, device: str, gpus: int, named) -> str:  # '' where it can run
    "Why a case is not run here; on a CPU the names that were asked for are run all the same"
    import torch

    if device != 'cpu':
        if case.ranks > gpus:
            return f'needs {case.ranks} GPUs, here is {gpus}'
        bf16 = case.amp == 'bf16' and not torch.cuda.is_bf16_supported()
        return 'this GPU has no bfloat16' if bf16 else ''
    if case.name in named:
        return ''
    reasons = {
        'two ranks': "NCCL needs GPUs; --cases 'two ranks' runs it by gloo",
        'compile': 'takes minutes without a GPU; --cases compile runs it',
        'as on the CPU': 'the device is the CPU itself',
    }
    return reasons.get(case.name, '')


def load_libraries():
    "What all cases import, so that a fork need not"
    import monai.networks.nets
    import transformers

    import atm_net.trainer
    import atm_net.weights

    return monai.networks.nets, transformers.BertModel, atm_net.trainer, atm_net.weights


def check(args, folder: Path) -> dict:  # name of a case -> state, why, figures
    "All cases, until the time is used up"
    import torch

    gpus = torch.cuda.device_count()
    until = time.monotonic() + 60 * args.minutes
    found = {DATA.name: outcome(DATA, args, folder, until - time.monotonic())}
    print(f'{DATA.name}: {found[DATA.name]["state"]}', file=sys.stderr)
    ready = found[DATA.name]['state'] == 'ok'
    for case in args.cases:
        why = why_not(case, args.device, gpus, args.named)
        left = until - time.monotonic()
        if left < LEAST_SECONDS:
            why = f'the {args.minutes:g} minutes are used up'
        if not ready:
            why = f'there are no {DATA.name}'
        result = dict(state='not run', why=why)
        if not why:
            result = outcome(case, args, folder, left)
        found[case.name] = judged(case, result, found.get('fp32'))
        print(f'{case.name}: {found[case.name]["state"]}', file=sys.stderr)
    return found


# --- what to put on record


def answer(*command) -> str | None:
    "What a program says, in one line; None where there is no such program"
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip().splitlines()[0] if said.stdout.strip() else None


def machine(device: str) -> dict:
    "Device, driver and versions"
    import torch

    from atm_net.run_folder import library_versions

    about = dict(device=f'{platform.machine()}, {os.cpu_count()} cores', driver=None, gpus=0)
    if device != 'cpu':
        p = torch.cuda.get_device_properties(0)
        driver = answer('nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader')
        name = f'{p.name}, {p.total_memory / 1e9:.0f} GB'
        about = dict(device=name, driver=driver, gpus=torch.cuda.device_count())
    return about | dict(
        cuda=torch.version.cuda,
        versions=library_versions('torch', 'monai', 'transformers'),
        commit=answer('git', '-C', str(HERE.parent), 'rev-parse', '--short', 'HEAD'),
        date=f'{datetime.date.today()}',
    )


def number(x, form: str = '.3g') -> str:
    return '–' if x is None else f'{x:{form}}'


HEADER = ('case', 'result', 's a step', 'first step, s', 'images/s', 'peak GB', 'loss', 'remark')


def remark(found: dict) -> str:
    "What has no column of its own"
    if found['why']:
        return found['why']
    if 'inference_seconds' in found:
        return f'{found["inference_seconds"]:.3g} s for {found["slices"]} slices'
    if 'gap' in found:
        return f'largest difference {found["gap"]:.2g}'
    return f'{found["seconds"]:.0f} s' if 'seconds' in found else ''


def table_row(name: str, found: dict) -> list:
    losses = found.get('losses')
    return [
        name,
        found['state'],
        *(number(found.get(k)) for k in ('seconds_a_step', 'first_step', 'images_a_second')),
        number(found.get('peak_gb'), '.2f'),
        f'{losses[0]:.4f} to {losses[-1]:.4f}' if losses else '–',
        remark(found),
    ]


def record(result: dict) -> str:
    "Markdown: what was run, where, and what came of it"
    from atm_net.show import table_md

    m, s = result['machine'], result['sizes']
    versions = ', '.join(f'{k} {v}' for k, v in m['versions'].items())
    where = (
        f'{m["device"]}; GPUs: {m["gpus"]}; driver {m["driver"] or "–"}, CUDA {m["cuda"] or "–"}'
    )
    what = f'Preset paper, feature size {s["feature_size"]}, batch {s["batch"]} x {s["side"]} px'
    lines = [
        f'{m["date"]}, commit {m["commit"] or "–"}: {where}; {versions}.',
        f'{what}, {s["steps"]} steps on one batch; text encoder of random weights.',
        '',
        table_md([table_row(n, f) for n, f in result['cases'].items()], HEADER),
    ]
    return '\n'.join(lines)


# --- the command


def arguments(argv=None):
    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a.add_argument('--short', action='store_true', help='a toy of each case, also on a CPU')
    a.add_argument('--device', default='auto', help='cpu, cuda or auto')
    a.add_argument(
        '--cases', default='', help=f'with commas, of {", ".join(c.name for c in CASES)}'
    )
    a.add_argument('--batch', type=int, help='images a step (default: 8, the paper; 2 if short)')
    a.add_argument('--minutes', type=float, default=8, help='cases after that are not run')
    a.add_argument('--json', type=Path, help='file to write: what the table says, and each loss')
    a.add_argument('--worker', help=argparse.SUPPRESS)
    a.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    args = a.parse_args(argv)
    args.named = [n.strip() for n in args.cases.split(',') if n.strip()]
    if unknown := set(args.named) - {c.name for c in CASES}:
        a.error(f'--cases: no case {", ".join(sorted(unknown))}')
    args.cases = [c for c in CASES if not args.named or c.name in args.named]
    args.sizes = SHORT if args.short else FULL
    if args.batch is not None:
        if args.batch < 2 or args.batch % 2:
            a.error(f'--batch {args.batch}: an even number, for two ranks')
        args.sizes = replace(args.sizes, batch=args.batch)
    return args


def checked_device(device: str) -> str:
    "The device that is there; ends with status 2 where it is not"
    from atm_net.core import InputError
    from atm_net.slices import pick_device

    try:
        return pick_device(device)
    except InputError as e:
        print(e, file=sys.stderr)
        sys.exit(2)


def main(argv=None) -> int:  # exit status
    args = arguments(argv)
    if args.worker:
        case = next(c for c in (DATA, *CASES) if c.name == args.worker)
        work(case, args.sizes, args.device, args.folder)
        return 0
    args.device = checked_device(args.device)
    if args.device == 'cpu':
        load_libraries()
    from atm_net.core import write_json

    with tempfile.TemporaryDirectory() as tmp:
        cases = check(args, Path(tmp))
    result = dict(machine=machine(args.device), sizes=asdict(args.sizes), cases=cases)
    print(record(result))
    if args.json:
        write_json(args.json, result)
    return int(any(c['state'] == 'failed' for c in cases.values()))


if __name__ == '__main__':
    sys.exit(main())
