"""Ratios against named peers, both measured in this run, interleaved; medians of several repeats. `python benchmarks/run.py [--quick]`"""
import argparse, os, platform, statistics, sys, tempfile, time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
os.environ.setdefault('HF_HUB_OFFLINE', '1')


def rival_times(fs, repeats, warm=1): # seconds of each function
    "Median seconds of each function; the rivals take turns, so that a busy machine slows all alike"
    for _ in range(warm):
        for f in fs: f()
    seconds = [[] for _ in fs]
    for _ in range(repeats):
        for f,s in zip(fs, seconds): t = time.perf_counter(); f(); s.append(time.perf_counter()-t)
    return [statistics.median(s) for s in seconds]


def row(what, peer, ours, theirs, unit='ms', scale=1e3): # a line of the table; ratio: ours / peer in time
    return [what, peer, f'{ours*scale:.4g} {unit}', f'{theirs*scale:.4g} {unit}', f'{ours/theirs:.3g}']


def batch_of(batch, side, channels):
    "Random images and labels: speed does not depend on what they show"
    import torch
    g = torch.Generator().manual_seed(0)
    return torch.rand(batch, 1, side, side, generator=g), torch.randint(0, channels, (batch, side, side), generator=g)


def networks(args):
    "(a) training step and inference of the tiny ATM-Net against MONAI's Swin UNETR of the same width"
    import torch
    from monai.losses import DiceFocalLoss
    from monai.networks.nets import SwinUNETR
    from atm_net.losses import dice_focal, total_loss
    from atm_net.model import ATMNet
    k,batch,out = 21,args.batch,[]; torch.manual_seed(0)
    ours,peer = ATMNet(k, 12, attention='pooled'), SwinUNETR(1, k, feature_size=12, spatial_dims=2)
    text,mask = torch.randn(batch, 128, 128), torch.ones(batch, 128, dtype=torch.bool); classes,here = torch.randn(batch, k, 128), torch.ones(batch, k, dtype=torch.bool)
    opts = [torch.optim.AdamW(n.parameters(), 1e-3) for n in (ours, peer)]; loss = DiceFocalLoss(to_onehot_y=True, softmax=True)
    def step(opt, f): opt.zero_grad(); f().backward(); opt.step()
    for side in (96, 128):
        x,y = batch_of(batch, side, k)
        def own():
            z = ours(x, text, mask)
            return total_loss(dice_focal(z, y), ours.ccae(z.softmax(1), classes, here))
        for n in (ours, peer): n.train()
        out.append(row(f'training step, {batch} x {side} px', 'MONAI SwinUNETR, DiceFocalLoss', *rival_times([lambda: step(opts[0], own), lambda: step(opts[1], lambda: loss(peer(x), y[:,None]))], args.repeats)))
        for n in (ours, peer): n.eval()
        with torch.inference_mode(): out.append(row(f'inference, {batch} x {side} px', 'MONAI SwinUNETR', *rival_times([lambda: ours(x, text, mask), lambda: peer(x)], args.repeats)))
    return out


def text(args):
    "(b) what the words of one training step cost, features cached or computed anew"
    import numpy as np
    from atm_net.anatomy import LUMBAR
    from atm_net.prompts import holistic
    from atm_net.text import load_encoder
    enc = load_encoder('spine_bert_tiny'); names = [n for n in LUMBAR.top_down if n!='SC']; at = np.random.default_rng(0).integers(0, 6, args.batch)
    prompts = [str(holistic(names[i:]+['SC'], 3, p)) for i,p in zip(at, ['upper','middle','lower']*args.batch)]
    def fresh():
        enc._memory.clear(); enc._bytes = 0
        enc(prompts, 128)
    return [row(f'words of a step, {args.batch} prompts, cached', 'the same without the cache', *rival_times([lambda: enc(prompts, 128), fresh], args.repeats))]


def phantom_labels(shape):
    "Labels of a phantom cut or padded to a shape, and a copy moved by two pixels with one structure missing"
    import numpy as np
    from atm_net.phantom import make_phantom
    lab = make_phantom(3).labels; lab = lab[:, ::max(1, lab.shape[1]//shape[1]), ::max(1, lab.shape[2]//shape[2])]
    truth = np.zeros(shape, np.uint8); cut = tuple(slice(0, min(a, b)) for a,b in zip(shape, lab.shape)); truth[cut] = lab[cut]
    pred = np.roll(truth, 2, axis=1); pred[pred==truth[truth>0].min()] = 0
    return pred, truth


def metrics(args):
    "(c) all scores of a volume against two of MONAI's, structure by structure"
    import numpy as np, torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
    from atm_net.anatomy import LUMBAR
    from atm_net.metrics import volume_scores
    scheme,spacing = LUMBAR.scheme('joint'),(4., 1.5, 1.5); pred,truth = phantom_labels((12, 128, 128))
    found = [c for c in np.unique(truth) if c and (pred==c).any()]
    def peer():
        for c in found:
            a,b = (torch.from_numpy(m==c)[None,None].float() for m in (pred, truth)); kw = dict(include_background=True, spacing=spacing)
            compute_hausdorff_distance(a, b, percentile=95, **kw); compute_average_surface_distance(a, b, symmetric=True, **kw)
    return [row(f'HD95 and ASD, 12 x 128 x 128, {len(found)} structures (ours: px and mm, DSC, Jaccard too)', "MONAI's two functions, 3-D mm", *rival_times([lambda: volume_scores(pred, truth, spacing, scheme), peer], args.repeats))]


def phantoms(args):
    "(d) seconds for a slice drawn fresh, against reading one from the cache"
    import numpy as np
    from atm_net.data import Cache, Grid, open_cohort, prepare
    from atm_net.phantom import make_phantom, write_cohort
    n = 2 if args.quick else 4
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()): write_cohort(root/'ph', patients=3, seed=0); prepare(open_cohort(root/'ph'), root/'cache', Grid(spacing=2.))
        cache = Cache(root/'cache'); counts = {}
        def draw(): counts['ours'] = sum(len(make_phantom(s).labels) for s in range(n))
        def read(): counts['peer'] = sum(len(np.asarray(a(c)).copy()) for c in cache.cases() for a in (cache.image, cache.labels))//2
        ours,peer = rival_times([draw, read], max(3, args.repeats//3)); a,b = counts['ours']/ours, counts['peer']/peer
    return [['phantom slices per second, full size', 'read from the slice cache (2 mm)', f'{a:.4g} /s', f'{b:.4g} /s', f'{b/a:.3g}']]


def main():
    p = argparse.ArgumentParser(description=__doc__); p.add_argument('--quick', action='store_true', help='fewer repeats, smaller batch'); p.add_argument('--threads', type=int, help='of torch (default: OMP_NUM_THREADS, else all)')
    args = p.parse_args(); args.repeats,args.batch = (3, 2) if args.quick else (9, 8)
    import monai, torch
    import atm_net
    if args.threads: torch.set_num_threads(args.threads)
    rows = []
    for f in (networks, text, metrics, phantoms): print(f.__doc__, file=sys.stderr); rows += f(args)
    print(f"Medians of {args.repeats} repeats after one to warm up, rivals taking turns; {torch.get_num_threads()} threads; {platform.machine()}, {os.cpu_count()} cores; atm_net {atm_net.__version__}, torch {torch.__version__}, MONAI {monai.__version__}.\nRatio: time of ours over time of the peer, below 1 is faster.\n")
    head = ['what', 'against', 'ours', 'peer', 'ratio']
    for r in (head, ['---']*len(head), *rows): print('| '+' | '.join(r)+' |')


if __name__ == '__main__': main()
