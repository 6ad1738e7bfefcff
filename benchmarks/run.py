"""Ratios against named peers, both measured in this run, interleaved; medians of several repeats.

`python benchmarks/run.py [--quick]`"""

import argparse
import itertools
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
from speed import batch_of, build, rivals


def rival_times(fs, repeats):  # seconds of each function
    "Median seconds of each function; the rivals take turns, so that a busy machine slows all alike"
    return [statistics.median(s) for s in rivals(fs, repeats)]


def row(what, peer, ours, theirs, unit='ms', scale=1e3):
    "A line of the table; ratio: ours / peer in time"
    ratio = f'{ours / theirs:.3g}' if theirs else '-'
    return [what, peer, f'{ours * scale:.4g} {unit}', f'{theirs * scale:.4g} {unit}', ratio]


def pair(batch, side, k=21):
    """The tiny ATM-Net and MONAI's Swin UNETR of the same width; for each a loss and an
    inference on the same random batch"""
    from monai.losses import DiceFocalLoss
    from monai.networks.nets import SwinUNETR

    from atm_net.losses import dice_focal, total_loss

    ours = build('HASF, pooled, and CCAE', k)
    peer = SwinUNETR(1, k, feature_size=12, spatial_dims=2, use_v2=True)
    d = batch_of(batch, side, k=k)
    loss = DiceFocalLoss(to_onehot_y=True, softmax=True)
    x, y, text = d['x'], d['y'], d['text']

    def own():
        z = ours(x, text)
        return total_loss(dice_focal(z, y), ours.ccae(z.softmax(1), d['classes'], d['here']))

    return (ours, own, lambda: ours(x, text)), (
        peer,
        lambda: loss(peer(x), y[:, None]),
        lambda: peer(x),
    )


def training_steps(batch, side):  # a callable for ours and for the peer
    "One optimizer step each"
    import torch

    def stepper(net, loss):
        opt = torch.optim.AdamW(net.train().parameters(), 1e-3)

        def step():
            opt.zero_grad()
            loss().backward()
            opt.step()

        return step

    return [stepper(net, loss) for net, loss, _ in pair(batch, side)]


def networks(args):
    """(a) training step and inference of the tiny ATM-Net against MONAI's Swin UNETR of the same
    width"""
    import torch

    out = []
    batch = args.batch
    for side in (96, 128):
        out.append(
            row(
                f'training step, {batch} x {side} px',
                'MONAI SwinUNETR, DiceFocalLoss',
                *rival_times(training_steps(batch, side), args.repeats),
            )
        )
        both = pair(batch, side)
        for net, *_ in both:
            net.eval()
        with torch.inference_mode():
            out.append(
                row(
                    f'inference, {batch} x {side} px',
                    'MONAI SwinUNETR',
                    *rival_times([f for *_, f in both], args.repeats),
                )
            )
    return out


def text(args):
    """(b) what the words of one training step cost, features cached or computed anew, against
    each other and against the step"""
    import numpy as np

    from atm_net.anatomy import LUMBAR
    from atm_net.prompts import holistic
    from atm_net.text import load_encoder

    enc = load_encoder('spine_bert_tiny')
    names = [n for n in LUMBAR.top_down if n != 'SC']
    at = np.random.default_rng(0).integers(0, 6, args.batch)
    prompts = [
        str(holistic(names[i:] + ['SC'], LUMBAR, 3, p))
        for i, p in zip(at, ['upper', 'middle', 'lower'] * args.batch)
    ]

    def fresh():
        enc._memory.clear()
        enc._bytes = 0
        enc(prompts, 128)

    cached, anew, step = rival_times(
        [lambda: enc(prompts, 128), fresh, training_steps(args.batch, 128)[0]], args.repeats
    )
    what = f'words of a step, {args.batch} prompts'
    return [
        row(f'{what}, cached', 'the same without the cache', cached, anew),
        row(f'{what}, cached', 'the training step, 128 px', cached, step),
        row(f'{what}, without the cache', 'the training step, 128 px', anew, step),
    ]


def phantom_labels(shape):
    "Labels of a phantom, cut or padded to a shape"
    import numpy as np

    from atm_net.phantom import make_phantom

    lab = make_phantom(3).labels
    lab = lab[:, :: max(1, lab.shape[1] // shape[1]), :: max(1, lab.shape[2] // shape[2])]
    truth = np.zeros(shape, np.uint8)
    cut = tuple(slice(0, min(a, b)) for a, b in zip(shape, lab.shape))
    truth[cut] = lab[cut]
    return truth


def phantoms(args):
    "(c) seconds for a slice drawn fresh, against loading one from the cache"
    import numpy as np

    from atm_net.anatomy import LUMBAR
    from atm_net.cache import prepare
    from atm_net.cohort import open_cohort
    from atm_net.data import Cache
    from atm_net.grid import Grid
    from atm_net.phantom import make_phantom
    from atm_net.phantom_cohort import write_cohort

    n = 2 if args.quick else 4
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        silent(write_cohort, root / 'ph', patients=3, seed=0)
        silent(prepare, open_cohort(root / 'ph', LUMBAR), root / 'cache', Grid(spacing=2.0))
        cache = Cache(root / 'cache')
        counts = {}

        def draw():
            counts['ours'] = sum(len(make_phantom(s).labels) for s in range(n))

        def read():
            counts['peer'] = 0
            for c in cache.cases():
                np.asarray(cache.image(c)).copy()
                counts['peer'] += len(np.asarray(cache.labels(c)).copy())

        ours, peer = rival_times([draw, read], max(3, args.repeats // 3))
        a, b = counts['ours'] / ours, counts['peer'] / peer
    return [
        [
            'phantom slices per second, full size',
            'read from the slice cache (2 mm)',
            f'{a:.4g} /s',
            f'{b:.4g} /s',
            f'{b / a:.3g}',
        ]
    ]


def silent(f, *args, **kwargs):
    "Call `f` without its printing"
    with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
        return f(*args, **kwargs)


def monai_pipeline():
    """What `prepare` does, with MONAI's transforms: read, orient, 2 mm in the plane,
    percentiles, half precision"""
    import monai.transforms as m
    import numpy as np

    keys = ('image', 'label')
    return m.Compose(
        [
            m.LoadImaged(keys),
            m.EnsureChannelFirstd(keys),
            m.Orientationd(keys, axcodes='LIP', labels=None),
            m.Spacingd(keys, pixdim=(-1, 2.0, 2.0), mode=('bilinear', 'nearest')),
            m.ScaleIntensityRangePercentilesd('image', 1, 99, 0, 1, clip=True),
            m.CastToTyped(keys, (np.float16, np.uint8)),
        ]
    )


def files_of(cohort):
    return [dict(image=c.image, label=c.mask) for c in cohort.cases]


def preparation(args):
    """(d) seconds a volume of `prepare` and megabytes of its cache, against MONAI's
    PersistentDataset on the same files"""
    from monai.data import PersistentDataset

    from atm_net.anatomy import LUMBAR
    from atm_net.cache import prepare
    from atm_net.cohort import open_cohort
    from atm_net.grid import Grid
    from atm_net.phantom_cohort import write_cohort

    def size(folder):
        return sum(f.stat().st_size for f in Path(folder).rglob('*') if f.is_file()) / 1e6

    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        silent(write_cohort, root / 'ph', 'folder', patients=3, seed=0)
        c = open_cohort(root / 'ph', LUMBAR)
        n = len(c.cases)

        def own():
            shutil.rmtree(root / 'own', ignore_errors=True)
            silent(prepare, c, root / 'own', Grid(spacing=2.0))

        def peer():
            shutil.rmtree(root / 'peer', ignore_errors=True)
            for _ in PersistentDataset(files_of(c), monai_pipeline(), root / 'peer'):
                pass

        t = rival_times([own, peer], max(2, args.repeats // 3))
        mb = [size(root / k) / n for k in ('own', 'peer')]
        source = size(root / 'ph') / n
    return [
        row(
            f'prepare, a volume of full size ({n} of them)',
            'MONAI PersistentDataset: the same steps, nearest labels',
            *(s / n for s in t),
            's',
            1,
        ),
        row('cache of a volume of full size', 'the same PersistentDataset', *mb, 'MB', 1),
        row('cache of a volume of full size', 'its files (.nii.gz)', mb[0], source, 'MB', 1),
    ]


PEAK = """
import sys
sys.path.insert(0, {folder!r})
import speed
{code}
print('PEAK', speed.kilobytes('VmHWM'))
"""
OWN = """
from atm_net.anatomy import LUMBAR
from atm_net.cache import prepare
from atm_net.cohort import open_cohort
from atm_net.grid import Grid
prepare(open_cohort(sys.argv[1], LUMBAR), sys.argv[2], Grid(spacing=2.))
"""
PEER = """
import run
from monai.data import CacheDataset
from atm_net.anatomy import LUMBAR
from atm_net.cohort import open_cohort
files = run.files_of(open_cohort(sys.argv[1], LUMBAR))
d = CacheDataset(files, run.monai_pipeline(), num_workers=0, progress=False)
"""


def small_cohort(folder, n):
    """A plain folder of `n` small volumes, 12 x 160 x 128; every tenth is drawn, the others are
    links to it"""
    import numpy as np

    from atm_net.anatomy import LUMBAR
    from atm_net.geometry import new_geometry
    from atm_net.volumes import write_labels, write_volume

    s = LUMBAR.scheme('joint')
    (folder / 'images').mkdir(parents=True)
    (folder / 'masks').mkdir()
    (folder / 'labels.yaml').write_text(
        ''.join(f'{v}: {n}\n' for n, v in s.values.items()), encoding='utf-8'
    )
    for k in range(n):
        if k < 10:
            lab = phantom_labels((12, 160, 128))
            img = np.random.default_rng(k).normal(lab * 20.0, 10).astype(np.float32)
            g = new_geometry(img.shape, (4.0, 1.5, 1.5))
            write_volume(img, g, folder / 'images' / f'{k}.nii.gz')
            write_labels(s.decode(lab), g, folder / 'masks' / f'{k}.nii.gz')
        else:
            for d in ('images', 'masks'):
                os.link(folder / d / f'{k % 10}.nii.gz', folder / d / f'{k}.nii.gz')
    return folder


def peak_of(code, folder, out) -> float:  # MB
    "Peak memory of a process that runs a piece of code on a folder"
    program = PEAK.format(folder=str(Path(__file__).parent), code=code)
    command = [sys.executable, '-c', program, str(folder), str(out)]
    r = subprocess.run(command, check=False, capture_output=True, text=True)
    if r.returncode:
        raise RuntimeError(r.stderr)
    return int(r.stdout.rpartition('PEAK')[2]) / 1024


def memory(args):
    "(e) peak memory of a process that prepares few and many small volumes"
    if not Path('/proc/self/status').exists():
        return []  # Linux only
    few, many = (8, 40) if args.quick else (20, 200)
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        cohorts = [small_cohort(root / str(n), n) for n in (few, many)]
        own = [peak_of(OWN, d, root / f'c{d.name}') for d in cohorts]
        cached = [peak_of(PEER, d, '') for d in cohorts]
    prepared = f'peak memory, prepare {many} small volumes'
    held = 'MONAI CacheDataset, which holds them'
    growth = f'growth of peak memory from {few} to {many} volumes, each'
    each = [(p[1] - p[0]) / (many - few) for p in (own, cached)]
    return [
        row(prepared, f'prepare {few} of them', own[1], own[0], 'MB', 1),
        row(f'the same, {many} volumes', held, own[1], cached[1], 'MB', 1),
        row(growth, 'MONAI CacheDataset', *each, 'MB', 1),
    ]


def monai_augmented(whole, side):
    "The same slices in memory, bent by MONAI's own transform, with the same intensities"
    import monai.transforms as m
    from monai.data import CacheDataset

    from atm_net.data import _intensities

    size = whole[0]['image'].shape[1:]
    bend = m.Rand2DElasticd(
        ('image', 'label'),
        (side // 4, side // 4),
        (1.7, 1.7),
        prob=1,
        rotate_range=0.21,
        shear_range=0.06,
        scale_range=(0.15, 0.15),
        translate_range=[abs(a - side) / 2 for a in size],
        spatial_size=(side, side),
        mode=('bilinear', 'nearest'),
        padding_mode='zeros',
    )
    return CacheDataset(
        [dict(image=x['image'], label=x['label'][None].float()) for x in whole],
        m.Compose([bend, m.Lambdad('image', _intensities())]),
        num_workers=0,
        progress=False,
    )


def augmented_epochs(slices, n, side):
    "A call that reads `n` slices of ours, augmented anew in each call"
    epoch = itertools.count(1)

    def run():
        now = next(epoch)
        for i in range(n):
            slices[(i % len(slices), now, side)]

    return run


def loading(args):
    "(f) a training slice, read and augmented, against what a training step needs for it"
    from atm_net.anatomy import LUMBAR
    from atm_net.cache import prepare
    from atm_net.cohort import open_cohort
    from atm_net.data import Cache, SliceDataset
    from atm_net.grid import Grid
    from atm_net.phantom_cohort import write_cohort

    side, n = 128, 32
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        silent(write_cohort, root / 'ph', 'folder', patients=3, seed=0)
        silent(prepare, open_cohort(root / 'ph', LUMBAR), root / 'cache', Grid(spacing=2.0))
        plain = SliceDataset(Cache(root / 'cache'), 'train')
        peer = monai_augmented([plain[i % len(plain)] for i in range(n)], side)
        own = augmented_epochs(SliceDataset(Cache(root / 'cache'), 'train', augment=True), n, side)
        step, _ = training_steps(args.batch, side)
        calls = [own, lambda: [peer[i] for i in range(n)], step]
        t, theirs, s = rival_times(calls, args.repeats)
    a_slice, needed = t / n, s / args.batch
    read = f'a training slice, read and augmented, window {side} px'
    takes = f'what a training step of tiny takes for it (batch {args.batch})'
    in_memory = 'MONAI CacheDataset in memory, Rand2DElasticd, the same intensities'
    rate = f'slices per second: one loader process, {side} px'
    speeds = [f'{1 / a_slice:.4g} /s', f'{1 / needed:.4g} /s', f'{a_slice / needed:.3g}']
    return [
        row(read, takes, a_slice, needed),
        row('the same', in_memory, a_slice, theirs / n),
        [rate, 'what the training step consumes', *speeds],
    ]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--quick', action='store_true', help='fewer repeats, smaller batch')
    p.add_argument('--threads', type=int, help='of torch (default: OMP_NUM_THREADS, else all)')
    args = p.parse_args()
    args.repeats, args.batch = (3, 2) if args.quick else (9, 8)
    import monai
    import torch

    import atm_net

    if args.threads:
        torch.set_num_threads(args.threads)
    rows = []
    for f in (networks, text, phantoms, preparation, memory, loading):
        print(f.__doc__, file=sys.stderr)
        rows += f(args)
    machine = f'{platform.machine()}, {os.cpu_count()} cores'
    versions = f'torch {torch.__version__}, MONAI {monai.__version__}'
    print(
        f'Medians of {args.repeats} repeats after one to warm up, rivals taking turns; '
        f'{torch.get_num_threads()} threads; {machine}; '
        f'atm_net {atm_net.__version__}, {versions}.\n'
        'Ratio: time of ours over time of the peer, below 1 is faster.\n'
    )
    head = ['what', 'against', 'ours', 'peer', 'ratio']
    for r in (head, ['---'] * len(head), *rows):
        print('| ' + ' | '.join(r) + ' |')


if __name__ == '__main__':
    main()
