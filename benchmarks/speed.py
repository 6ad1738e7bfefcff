"""What the text costs: ATM-Net against plain Swin UNETR of the same width and version.

`python benchmarks/speed.py [--sides 96,128] [--out FILE] [--profile]`; all is measured in this
run. Rivals take turns; ratios are medians over repeats of (ours / plain) in the same turn. In
training each image has a sentence of its own and, where a network sees each image twice, a second
pass, as `65_step` does it; in inference all share one sentence, as slices of a volume do, and its
keys and values are made once. Peak memory: the highest resident size while a process of its own
does one such step, minus its size before it (Linux only). FLOPs: of one forward pass, by
torch.utils.flop_counter."""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')

THREADS = int(os.environ.get('OMP_NUM_THREADS', '2'))
ONE = dict(paired=False)  # one pass of each image
NETS = {  # name -> what is changed in the preset
    'plain': ONE | dict(hasf=False, ccae=False),
    'HASF, pooled': ONE | dict(ccae=False, attention='pooled'),
    'HASF, pooled, and CCAE': ONE | dict(attention='pooled'),
    'HASF, exact': ONE | dict(ccae=False, attention='exact'),
    'HASF, pooled, mixed keys': ONE
    | dict(ccae=False, attention='pooled', tokens='mixed', code='2d'),
    'the whole preset': {},
    'two decoders': dict(text_decoder=True, paired=True),
}


def config(name, preset='tiny'):
    from dataclasses import replace

    from atm_net.config import PRESETS

    return replace(PRESETS[preset], **NETS[name])


def build(name, k=21, preset='tiny'):
    import torch

    from atm_net.config import network_kwargs
    from atm_net.weights import build_network

    torch.manual_seed(0)
    cfg = config(name, preset)
    return build_network(
        'atm_net', k, cfg.feature_size, **network_kwargs(cfg, TEXT_DIM[preset], None)
    )


TEXT_DIM = dict(tiny=128, paper=768)  # channels of spine_bert_tiny and of Bio-ClinicalBERT


def batch_of(batch, side, name='HASF, pooled', k=21, preset='tiny'):
    "`batch` images with words, and masks for all that the network reads"
    import torch

    from atm_net.text import TextFeatures

    cfg = config(name, preset)
    length, d = cfg.length, TEXT_DIM[preset]
    g = torch.Generator().manual_seed(0)
    r = 2 if cfg.paired else 1
    spoken = batch if cfg.text_decoder else r * batch
    rank = torch.zeros(spoken, length, dtype=torch.long)
    n = length * 7 // 10  # words of 17 structures and of none: seven places of ten
    rank[:, :n] = torch.arange(n) % 18
    mask = (torch.arange(length) < n).expand(spoken, length)
    return dict(
        x=torch.rand(batch, 1, side, side, generator=g),
        y=torch.randint(0, k, (r * batch, side, side), generator=g),
        text=TextFeatures(torch.randn(spoken, length, d, generator=g), mask, rank),
        classes=torch.randn(spoken, k, d, generator=g),
        here=torch.ones(spoken, k, dtype=torch.bool),
    )


def training(net, d):
    "One optimizer step"
    import torch

    from atm_net.losses import dice_focal, total_loss
    from atm_net.step import logits_and_contrast
    from atm_net.variants import ClassPrompts

    n = len(d['classes'])
    here, target = d['here'], d['y'][:n]
    classes = ClassPrompts(text=d['classes'], present=here, known=here, target=target)
    opt = torch.optim.AdamW(net.train().parameters(), 1e-3)
    r = len(d['y']) // len(d['x'])

    def step():
        z, con = logits_and_contrast(
            net,
            d['x'],
            d['text'] if net.hasf is not None else None,
            classes if net.ccae is not None else None,
        )
        loss = total_loss(sum(dice_focal(p, t) for p, t in zip(z.chunk(r), d['y'].chunk(r))), con)
        opt.zero_grad()
        loss.backward()
        opt.step()

    return step


def first_prompt(d):
    "All images read the first prompt"
    from dataclasses import replace

    text, index = d['text'], d['y'].new_zeros(len(d['x']))
    own = {k: getattr(text, k)[:1] for k in ('states', 'mask', 'level_rank')}
    return replace(text, **own, prompt_index=index)


def inference(net, d):
    import torch

    net.eval()
    text = first_prompt(d) if net.hasf is not None else False

    def run():
        with torch.inference_mode():
            net(d['x'], text)

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
    text = first_prompt(d) if net.hasf is not None else None
    # to the decoder itself: which of two would be asked of the data
    decode = net.decode_text if hasattr(net, 'text_decoder') else net.decode
    with FlopCounterMode(display=False) as c:
        net.out(decode(net.backbone.encode(d['x']), text))
    return c.get_total_flops()


def kilobytes(field):
    """Of this process, by the kernel's account: VmRSS now, VmHWM at its highest (ru_maxrss would
    begin with the parent's)"""
    account = Path('/proc/self/status').read_text(encoding='utf-8')
    return int(re.search(field + r':\s+(\d+)', account)[1])


def peak_here(name, side, batch, what, preset):
    "Print the MB that one step takes at its peak, after one on small images to warm up"
    import torch

    torch.set_num_threads(THREADS)
    make = dict(training=training, inference=inference)[what]
    make(build(name, preset=preset), batch_of(2, 64, name, preset=preset))()
    step = make(build(name, preset=preset), batch_of(batch, side, name, preset=preset))
    Path('/proc/self/clear_refs').write_text('5', encoding='utf-8')  # the mark of the peak
    before = kilobytes('VmRSS')
    step()
    print((kilobytes('VmHWM') - before) / 1024)


def peak(name, side, batch, what, preset='tiny'):
    """MB, in a process of its own, whose mark of the peak is set back before the step; None
    where there is no such mark"""
    if not Path('/proc/self/clear_refs').exists():
        return None
    here = str(Path(__file__).resolve().parent)
    call = f'speed.peak_here({name!r}, {side}, {batch}, {what!r}, {preset!r})'
    code = f'import sys; sys.path.insert(0, {here!r}); import speed; {call}'
    # all that is larger than this comes from the kernel and goes back at once
    env = os.environ | dict(MALLOC_MMAP_THRESHOLD_='65536')
    command = [sys.executable, '-c', code]
    r = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
    return float(r.stdout)


def measured_row(name, seconds, plain, megabytes, plain_megabytes) -> dict:
    "Time and memory of a network, alone and over the plain one in the same turn"
    ratios = sorted(a / b for a, b in zip(seconds, plain))
    return dict(
        network=name,
        seconds=statistics.median(seconds),
        ratio=statistics.median(ratios),
        low=ratios[0],
        high=ratios[-1],
        peak_mb=megabytes,
        memory_ratio=megabytes and megabytes / plain_megabytes,
    )


def measure(side, batch, names, repeats, preset='tiny'):
    "A row for each network, in training and in inference"
    import torch

    torch.set_num_threads(THREADS)
    batches = {n: batch_of(batch, side, n, preset=preset) for n in names}
    nets = {n: build(n, preset=preset) for n in names}
    with torch.no_grad():
        gflops = {n: flops(net, batches[n]) / 1e9 for n, net in nets.items()}
    rows = []
    for what, make in (('training', training), ('inference', inference)):
        seconds = dict(zip(names, rivals([make(nets[n], batches[n]) for n in names], repeats)))
        memory = {n: peak(n, side, batch, what, preset) for n in names}
        for n in names:
            size = dict(parameters=sum(p.numel() for p in nets[n].parameters()), gflops=gflops[n])
            row = measured_row(n, seconds[n], seconds['plain'], memory[n], memory['plain'])
            rows.append(dict(preset=preset, side=side, batch=batch, what=what) | row | size)
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


def kernel_ms(step) -> dict:  # kind of kernel -> ms
    "Where the time of one step goes"
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as p:
        step()
    ms = dict.fromkeys([*KERNELS, 'rest'], 0.0)
    for e in p.key_averages():
        kinds = [kind for kind, words in KERNELS.items() if any(w in e.key for w in words)]
        ms[kinds[0] if kinds else 'rest'] += e.self_cpu_time_total / 1e3
    return ms


def profile(side, batch, what, names, preset='tiny', turns=5):
    """Where the time of the text goes: ms of a step by kind of kernel, in turns -> table rows:
    plain, then each other and what it adds"""
    import torch

    torch.set_num_threads(THREADS)
    make = dict(training=training, inference=inference)[what]
    steps = {
        n: make(build(n, preset=preset), batch_of(batch, side, n, preset=preset)) for n in names
    }
    seen = {n: [] for n in names}
    for _ in range(turns + 1):
        for n, step in steps.items():
            seen[n].append(kernel_ms(step))
    kinds = [*KERNELS, 'rest']
    # the first turn is not counted
    ms = {n: {k: statistics.median(s[k] for s in seen[n][1:]) for k in kinds} for n in names}
    base, *others = ms.values()
    whole = sum(base.values())
    rows = []
    for kind, t in base.items():
        row = [f'{batch} x {side} px, {what}', kind, f'{t:.0f}']
        for m in others:
            row += [f'{m[kind]:.0f}', f'{(m[kind] - t) / whole:+.1%}']
        rows.append(row)
    return rows


# --- the command


def arguments():
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
        help="names with semicolons, 'plain' first "
        "(default: all; of a profile 'HASF, pooled' and the whole preset)",
    )
    a.add_argument(
        '--profile', action='store_true', help='instead: which kernels the added time is spent in'
    )
    args = a.parse_args()
    args.sides = [int(side) for side in args.sides.split(',')]
    args.names = list(NETS)
    if args.networks:
        args.names = args.networks.split(';')
    elif args.profile:
        args.names = ['plain', 'HASF, pooled', 'the whole preset']
    if args.names[0] != 'plain' or len(args.names) < 2 or set(args.names) - set(NETS):
        a.error(f"--networks: 'plain', then others of {'; '.join(list(NETS)[1:])}")
    return args


def profile_table(args) -> str:
    from atm_net.show import table_md

    rows = []
    for side in args.sides:
        for what in ('training', 'inference'):
            rows += profile(side, args.batch, what, args.names, args.preset)
    head = ['step', 'kernels', 'plain, ms']
    for n in args.names[1:]:
        head += [f'{n}, ms', 'added, of the plain step']
    return table_md(rows, head)


def table_row(r) -> list:
    "A row of the table from what `measure` gives"

    def number(x, form):
        return '–' if x is None else f'{x:{form}}'

    return [
        f'{r["batch"]} x {r["side"]} px, {r["what"]}',
        r['network'],
        f'{r["seconds"] * 1e3:.0f}',
        f'{r["ratio"]:.2f} [{r["low"]:.2f}, {r["high"]:.2f}]',
        number(r['peak_mb'], '.0f'),
        number(r['memory_ratio'], '.2f'),
        f'{r["parameters"] / 1e6:.2f}',
        f'{r["gflops"]:.2f}',
    ]


def all_sides(args) -> list:
    "What `measure` gives for every size; large images alone, and in fewer turns"
    rows = []
    for side in args.sides:
        large = side >= 384
        batch = 1 if large else args.batch
        repeats = max(3, args.repeats // 2) if large else args.repeats
        rows += measure(side, batch, args.names, repeats, args.preset)
    return rows


def main():
    args = arguments()
    from atm_net.core import write_json
    from atm_net.show import table_md

    if args.profile:
        print(profile_table(args))
        return
    rows = all_sides(args)
    head = ['step', 'network', 'ms', 'time / plain', 'peak MB', 'memory / plain']
    head += ['million parameters', 'GFLOP']
    print(f'{THREADS} threads, preset {args.preset}\n')
    print(table_md(map(table_row, rows), head))
    if args.out:
        write_json(args.out, dict(threads=THREADS, rows=rows))


if __name__ == '__main__':
    main()
