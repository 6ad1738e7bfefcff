"""What the text costs: ATM-Net against plain Swin UNETR of the same width and version, both measured in this run. `python benchmarks/speed.py [--sides 96,128] [--out FILE] [--profile]`

Rivals take turns; ratios are medians over repeats of (ours / plain) in the same turn. In training each image has a
sentence of its own (two with 'two readings', as the weights that ship were trained); in inference they share one, as slices of a volume do, and its keys and values are made once. Peak memory: the highest resident size of a process
that does nothing but these steps, minus its size before them. FLOPs: of one forward pass, by torch.utils.flop_counter."""
import argparse, json, os, statistics, subprocess, sys, time
os.environ.setdefault('HF_HUB_OFFLINE', '1')

NETS = {'plain': dict(hasf=False, ccae=False), 'HASF, pooled': dict(ccae=False), 'HASF, pooled, and CCAE': {}, 'HASF, exact': dict(ccae=False, attention='exact'),
        'HASF, pooled, mixed keys': dict(ccae=False, tokens='mixed', code='2d'), 'HASF, pooled, and CCAE, two readings': {}}


def readings(name): return 2 if 'two readings' in name else 1 # of each image in a training step, by one decoder


def build(name, k=21):
    import torch
    from atm_net.model import ATMNet
    from atm_net.train import PRESETS
    torch.manual_seed(0); tiny = PRESETS['tiny']
    return ATMNet(k, tiny.feature_size, **(dict(length=tiny.length, n_tokens=tiny.n_tokens, heads=tiny.heads, attention=tiny.attention, pool=tiny.pool, tokens=tiny.tokens, code=tiny.code, use_v2=tiny.swin=='v2') | NETS[name]))


def batch_of(batch, side, r=1, k=21):
    "`batch` images, and sentences, masks and classes for `r` readings of all of them"
    import torch
    g = torch.Generator().manual_seed(0); n = r*batch; mask = torch.zeros(n, 128, dtype=torch.uint8); mask[:, :90] = 1+torch.arange(90)%18 # words of 17 structures and of none: 90 of 128 places
    return dict(x=torch.rand(batch, 1, side, side, generator=g), y=torch.randint(0, k, (n, side, side), generator=g), g=torch.randn(n, 128, 128, generator=g), mask=mask,
                classes=torch.randn(n, k, 128, generator=g), here=torch.ones(n, k, dtype=torch.bool))


def training(net, d):
    "One optimizer step"
    import torch
    from atm_net.losses import dice_focal, total_loss
    opt = torch.optim.AdamW(net.train().parameters(), 1e-3)
    def step():
        z = net(d['x'], d['g'], d['mask']) if net.hasf is not None else net(d['x'], text=False)
        con = net.ccae(z.softmax(1), d['classes'], d['here']) if net.ccae is not None else None
        loss = total_loss(dice_focal(z, d['y']), con); opt.zero_grad(); loss.backward(); opt.step()
    return step


def inference(net, d):
    import torch
    net.eval(); which = torch.zeros(len(d['x']), dtype=torch.long)
    def run():
        with torch.inference_mode(): net(d['x'], d['g'][:1], d['mask'][:1], which=which) if net.hasf is not None else net(d['x'], text=False)
    return run


def rivals(fs, repeats):
    "Seconds of each in each turn"
    for f in fs: f()
    out = [[] for _ in fs]
    for _ in range(repeats):
        for f, s in zip(fs, out): t = time.perf_counter(); f(); s.append(time.perf_counter()-t)
    return out


def flops(net, d):
    "Of one pass, counted on tensors without data: there attention is the two products that it is, where PyTorch's kernel for the CPU counts as nothing"
    from copy import deepcopy
    from torch.utils.flop_counter import FlopCounterMode
    net = deepcopy(net).to('meta').eval(); d = {k: v.to('meta') for k, v in d.items()}
    with FlopCounterMode(display=False) as c: net(d['x'], d['g'][:1], d['mask'][:1], which=d['y'].new_zeros(len(d['x']))) if net.hasf is not None else net(d['x'], text=False)
    return c.get_total_flops()


def peak(name, side, batch, what):
    "MB, in a process of its own"
    code = f'''
import sys, resource; sys.path.insert(0, {os.path.dirname(__file__)!r}); import speed, torch
torch.set_num_threads({THREADS}); r = {readings(name)}; d = speed.batch_of(2, 64, r); speed.{what}(speed.build({name!r}), d)()
net, d = speed.build({name!r}), speed.batch_of({batch}, {side}, r); now = lambda: int(open('/proc/self/statm').read().split()[1])*resource.getpagesize()/2**20
was = now(); speed.{what}(net, d)(); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024-was)'''
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    return float(r.stdout) if r.returncode == 0 else None


THREADS = int(os.environ.get('OMP_NUM_THREADS', 2))


def measure(side, batch, names, repeats):
    import torch
    torch.set_num_threads(THREADS); ds = {n: batch_of(batch, side, readings(n)) for n in names}; nets = {n: build(n) for n in names}; rows = []
    with torch.no_grad(): fl = {n: flops(m, ds[n]) for n, m in nets.items()}
    for what, make in (('training', training), ('inference', inference)):
        s = dict(zip(names, rivals([make(nets[n], ds[n]) for n in names], repeats))); mem = {n: peak(n, side, batch, what) for n in names}
        for n in names:
            ratios = sorted(a/b for a, b in zip(s[n], s['plain']))
            rows.append(dict(side=side, batch=batch, what=what, network=n, seconds=statistics.median(s[n]), ratio=statistics.median(ratios), low=ratios[0], high=ratios[-1], peak_mb=mem[n],
                             memory_ratio=mem[n]/mem['plain'] if mem[n] and mem['plain'] else None, parameters=sum(p.numel() for p in nets[n].parameters()), gflops=fl[n]/1e9))
    return rows


KERNELS = {'attention': ('scaled_dot_product',), 'linear layers': ('aten::mm', 'aten::addmm', 'aten::bmm'), 'softmax': ('softmax',), 'norms': ('norm',), 'convolutions': ('conv',),
           'sums, copies, elementwise': ('aten::add', 'aten::sum', 'aten::copy_', 'aten::mul', 'aten::cat', 'aten::fill_', 'aten::div')}


def profile(side, batch, what, turns=5):
    "Where the time of the text goes: ms of a step by kind of kernel, plain and with HASF, in turns -> table rows"
    import torch
    from torch.profiler import ProfilerActivity, profile
    torch.set_num_threads(THREADS); d = batch_of(batch, side); names = ('plain', 'HASF, pooled'); steps = {n: globals()[what](build(n), d) for n in names}; seen = {n: [] for n in names}
    for _ in range(turns+1): # the first is not counted
        for n, f in steps.items():
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as p: f()
            groups = dict.fromkeys([*KERNELS, 'rest'], 0.)
            for e in p.key_averages(): groups[next((g for g, words in KERNELS.items() if any(w in e.key for w in words)), 'rest')] += e.self_cpu_time_total/1e3
            seen[n].append(groups)
    ms = {n: {g: statistics.median(s[g] for s in seen[n][1:]) for g in seen[n][0]} for n in names}; whole = sum(ms['plain'].values())
    return [[f'{batch} x {side} px, {what}', g, f"{ms['plain'][g]:.0f}", f"{ms['HASF, pooled'][g]:.0f}", f"{(ms['HASF, pooled'][g]-ms['plain'][g])/whole:+.1%}"] for g in ms['plain']]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--sides', default='96,128,192,384'); a.add_argument('--repeats', type=int, default=7); a.add_argument('--batch', type=int, default=8, help='images; 1 at 384 px'); a.add_argument('--out', help='JSON to write')
    a.add_argument('--profile', action='store_true', help='instead: which kernels the added time is spent in')
    args = a.parse_args()
    from atm_net.show import table_md, write_json
    if args.profile:
        rows = [r for side in map(int, args.sides.split(',')) for what in ('training', 'inference') for r in profile(side, args.batch, what)]
        print(table_md(rows, ('step', 'kernels', 'plain, ms', 'with HASF, ms', 'added, of the plain step'))); return
    rows = []
    for side in map(int, args.sides.split(',')): rows += measure(side, 1 if side >= 384 else args.batch, list(NETS), args.repeats if side < 384 else max(3, args.repeats//2))
    cell = lambda r: [f"{r['batch']} x {r['side']} px, {r['what']}", r['network'], f"{r['seconds']*1e3:.0f}", f"{r['ratio']:.2f} [{r['low']:.2f}, {r['high']:.2f}]", '–' if r['peak_mb'] is None else f"{r['peak_mb']:.0f}", '–' if r['memory_ratio'] is None else f"{r['memory_ratio']:.2f}", f"{r['parameters']/1e6:.2f}", f"{r['gflops']:.2f}"]
    print(f'{THREADS} threads, preset tiny\n'); print(table_md([cell(r) for r in rows], ('step', 'network', 'ms', 'time / plain', 'peak MB', 'memory / plain', 'million parameters', 'GFLOP')))
    if args.out: write_json(args.out, dict(threads=THREADS, rows=rows))


if __name__ == '__main__': main()
