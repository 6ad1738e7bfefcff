"""What the text costs: ATM-Net against plain Swin UNETR of the same width and version, both measured in this run. `python benchmarks/speed.py [--sides 96,128] [--out FILE] [--profile]`

Rivals take turns; ratios are medians over repeats of (ours / plain) in the same turn. In training each image has a
sentence of its own and, where a network reads twice, a second reading, as `63_train` does it; in inference all share one
sentence, as slices of a volume do, and its keys and values are made once. Peak memory: the highest resident size while a
process of its own does one such step, minus its size before it (Linux only). FLOPs: of one forward pass, by torch.utils.flop_counter."""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')

ONE = dict(text_decoder=False, paired=False)  # one decoder, one reading of each image
NETS = {  # name -> what is changed in the preset
    'plain': ONE | dict(hasf=False, ccae=False),
    'HASF, pooled': ONE | dict(ccae=False, attention='pooled'),
    'HASF, pooled, and CCAE': ONE | dict(attention='pooled'),
    'HASF, exact': ONE | dict(ccae=False, attention='exact'),
    'HASF, pooled, mixed keys': ONE
    | dict(ccae=False, attention='pooled', tokens='mixed', code='2d'),
    'HASF, pooled, and CCAE, two readings': dict(text_decoder=False, paired=True),
    'the whole preset': {},
}


def config(name, preset='tiny'):
    from dataclasses import replace

    from atm_net.train import PRESETS

    return replace(PRESETS[preset], **NETS[name])


def build(name, k=21, preset='tiny'):
    import torch

    from atm_net.model import build_network
    from atm_net.train import network_kwargs

    torch.manual_seed(0)
    cfg = config(name, preset)
    return build_network(
        'atm_net', k, cfg.feature_size, **network_kwargs(cfg, TEXT_DIM[preset], None, None)
    )


TEXT_DIM = dict(tiny=128, paper=768)  # channels of spine_bert_tiny and of Bio-ClinicalBERT


def batch_of(batch, side, name='HASF, pooled', k=21, preset='tiny'):
    "`batch` images with words, and masks for all that the network reads"
    import torch

    cfg = config(name, preset)
    l, d = cfg.length, TEXT_DIM[preset]
    g = torch.Generator().manual_seed(0)
    r = 2 if cfg.paired else 1
    spoken = batch if cfg.text_decoder else r * batch
    mask = torch.zeros(spoken, l, dtype=torch.uint8)
    n = l * 7 // 10
    mask[:, :n] = (
        1 + torch.arange(n) % 18
    )  # words of 17 structures and of none: seven places of ten
    return dict(
        x=torch.rand(batch, 1, side, side, generator=g),
        y=torch.randint(0, k, (r * batch, side, side), generator=g),
        g=torch.randn(spoken, l, d, generator=g),
        mask=mask,
        classes=torch.randn(spoken, k, d, generator=g),
        here=torch.ones(spoken, k, dtype=torch.bool),
    )


def training(net, d):
    "One optimizer step"
    import torch

    from atm_net.losses import dice_focal, total_loss
    from atm_net.train import logits_and_contrast

    opt = torch.optim.AdamW(net.train().parameters(), 1e-3)
    r = len(d['y']) // len(d['x'])

    def step():
        z, con = logits_and_contrast(
            net,
            d['x'],
            [d['g'], d['mask']] if net.hasf is not None else [],
            (d['classes'], d['here']) if net.ccae is not None else None,
        )
        loss = total_loss(sum(dice_focal(p, t) for p, t in zip(z.chunk(r), d['y'].chunk(r))), con)
        opt.zero_grad()
        loss.backward()
        opt.step()

    return step


def inference(net, d):
    import torch

    net.eval()
    which = torch.zeros(len(d['x']), dtype=torch.long)

    def run():
        with torch.inference_mode():
            net(d['x'], d['g'][:1], d['mask'][:1], which=which) if net.hasf is not None else net(
                d['x'], text=False
            )

    return run


def rivals(fs, repeats):
    "Seconds of each in each turn"
    for f in fs:
        f()
    out = [[] for _ in fs]
    for _ in range(repeats):
        for f, s in zip(fs, out):
            t = time.perf_counter()
            f()
            s.append(time.perf_counter() - t)
    return out


def flops(net, d):
    """Of one pass, counted on tensors without data: there attention is the two products that it
    is, where PyTorch's kernel for the CPU counts as nothing"""
    from copy import deepcopy

    from torch.utils.flop_counter import FlopCounterMode

    net = deepcopy(net).to('meta').eval()
    d = {k: v.to('meta') for k, v in d.items()}
    words = (
        (d['g'][:1], d['mask'][:1], False, d['y'].new_zeros(len(d['x'])))
        if net.hasf is not None
        else ()
    )  # to the decoder itself: which of two would be asked of the data
    with FlopCounterMode(display=False) as c:
        net.out(net.decode(net.encode(d['x']), *words)[0])
    return c.get_total_flops()


def kilobytes(field):
    """Of this process, by the kernel's account: VmRSS now, VmHWM at its highest (ru_maxrss would
    begin with the parent's)"""
    return int(
        re.search(field + r':\s+(\d+)', Path('/proc/self/status').read_text(encoding='utf-8'))[1]
    )


def peak(name, side, batch, what, preset='tiny'):
    """MB, in a process of its own, whose mark of the peak is set back before the step; None
    where there is no such mark"""
    if not Path('/proc/self/clear_refs').exists():
        return None
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).resolve().parent)!r}); import speed, torch
torch.set_num_threads({THREADS}); speed.{what}(speed.build({name!r}, preset={preset!r}), speed.batch_of(2, 64, {name!r}, preset={preset!r}))()
step = speed.{what}(speed.build({name!r}, preset={preset!r}), speed.batch_of({batch}, {side}, {name!r}, preset={preset!r}))
open('/proc/self/clear_refs', 'w').write('5'); was = speed.kilobytes('VmRSS'); step(); print((speed.kilobytes('VmHWM')-was)/1024)"""
    return float(
        subprocess.run(
            [sys.executable, '-c', code],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | dict(MALLOC_MMAP_THRESHOLD_='65536'),
        ).stdout
    )  # all that is larger comes from the kernel and goes back at once


THREADS = int(os.environ.get('OMP_NUM_THREADS', 2))


def measure(side, batch, names, repeats, preset='tiny'):
    import torch

    torch.set_num_threads(THREADS)
    ds = {n: batch_of(batch, side, n, preset=preset) for n in names}
    nets = {n: build(n, preset=preset) for n in names}
    rows = []
    with torch.no_grad():
        fl = {n: flops(m, ds[n]) for n, m in nets.items()}
    for what, make in (('training', training), ('inference', inference)):
        s = dict(zip(names, rivals([make(nets[n], ds[n]) for n in names], repeats)))
        mem = {n: peak(n, side, batch, what, preset) for n in names}
        for n in names:
            ratios = sorted(a / b for a, b in zip(s[n], s['plain']))
            rows.append(
                dict(
                    preset=preset,
                    side=side,
                    batch=batch,
                    what=what,
                    network=n,
                    seconds=statistics.median(s[n]),
                    ratio=statistics.median(ratios),
                    low=ratios[0],
                    high=ratios[-1],
                    peak_mb=mem[n],
                    memory_ratio=mem[n] and mem[n] / mem['plain'],
                    parameters=sum(p.numel() for p in nets[n].parameters()),
                    gflops=fl[n] / 1e9,
                )
            )
    return rows


KERNELS = {
    'attention': ('scaled_dot_product',),
    'linear layers': ('aten::mm', 'aten::addmm', 'aten::bmm'),
    'softmax': ('softmax',),
    'norms': ('norm',),
    'convolutions': ('conv',),
    'sums, copies, elementwise': (
        'aten::add',
        'aten::sum',
        'aten::copy_',
        'aten::mul',
        'aten::cat',
        'aten::fill_',
        'aten::div',
    ),
}


def profile(side, batch, what, names, preset='tiny', turns=5):
    """Where the time of the text goes: ms of a step by kind of kernel, in turns -> table rows:
    plain, then each other and what it adds"""
    import torch

    torch.set_num_threads(THREADS)
    steps = {
        n: globals()[what](build(n, preset=preset), batch_of(batch, side, n, preset=preset))
        for n in names
    }
    seen = {n: [] for n in names}
    for _ in range(turns + 1):  # the first is not counted
        for n, f in steps.items():
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as p:
                f()
            groups = dict.fromkeys([*KERNELS, 'rest'], 0.0)
            for e in p.key_averages():
                groups[
                    next(
                        (g for g, words in KERNELS.items() if any(w in e.key for w in words)),
                        'rest',
                    )
                ] += e.self_cpu_time_total / 1e3
            seen[n].append(groups)
    ms = {n: {g: statistics.median(s[g] for s in seen[n][1:]) for g in seen[n][0]} for n in names}
    base, *others = ms.values()
    whole = sum(base.values())
    return [
        [
            f'{batch} x {side} px, {what}',
            g,
            f'{t:.0f}',
            *(x for m in others for x in (f'{m[g]:.0f}', f'{(m[g] - t) / whole:+.1%}')),
        ]
        for g, t in base.items()
    ]


def main():
    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a.add_argument('--sides', default='96,128,192,384')
    a.add_argument('--repeats', type=int, default=7)
    a.add_argument('--batch', type=int, default=8, help='images; 1 at 384 px')
    a.add_argument('--out', help='JSON to write')
    a.add_argument(
        '--preset',
        default='tiny',
        choices=list(TEXT_DIM),
        help='width, version, words and attention of all rows, but for what their names say',
    )
    a.add_argument(
        '--networks',
        help="names with semicolons, 'plain' first (default: all; of a profile 'HASF, pooled' and the whole preset)",
    )
    a.add_argument(
        '--profile', action='store_true', help='instead: which kernels the added time is spent in'
    )
    args = a.parse_args()
    names = (
        args.networks.split(';')
        if args.networks
        else ['plain', 'HASF, pooled', 'the whole preset']
        if args.profile
        else list(NETS)
    )
    if names[0] != 'plain' or len(names) < 2 or set(names) - set(NETS):
        a.error(f"--networks: 'plain', then others of {'; '.join(list(NETS)[1:])}")
    from atm_net.show import table_md, write_json

    if args.profile:
        rows = [
            r
            for side in map(int, args.sides.split(','))
            for what in ('training', 'inference')
            for r in profile(side, args.batch, what, names, args.preset)
        ]
        print(
            table_md(
                rows,
                (
                    'step',
                    'kernels',
                    'plain, ms',
                    *(c for n in names[1:] for c in (f'{n}, ms', 'added, of the plain step')),
                ),
            )
        )
        return
    rows = []
    for side in map(int, args.sides.split(',')):
        rows += measure(
            side,
            1 if side >= 384 else args.batch,
            names,
            args.repeats if side < 384 else max(3, args.repeats // 2),
            args.preset,
        )

    def cell(r):
        return [
            f'{r["batch"]} x {r["side"]} px, {r["what"]}',
            r['network'],
            f'{r["seconds"] * 1e3:.0f}',
            f'{r["ratio"]:.2f} [{r["low"]:.2f}, {r["high"]:.2f}]',
            *(
                '–' if v is None else f'{v:{f}}'
                for v, f in ((r['peak_mb'], '.0f'), (r['memory_ratio'], '.2f'))
            ),
            f'{r["parameters"] / 1e6:.2f}',
            f'{r["gflops"]:.2f}',
        ]

    print(f'{THREADS} threads, preset {args.preset}\n')
    print(
        table_md(
            [cell(r) for r in rows],
            (
                'step',
                'network',
                'ms',
                'time / plain',
                'peak MB',
                'memory / plain',
                'million parameters',
                'GFLOP',
            ),
        )
    )
    if args.out:
        write_json(args.out, dict(threads=THREADS, rows=rows))


if __name__ == '__main__':
    main()
