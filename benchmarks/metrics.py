"""HD95 and ASD of a volume of 384 x 384 x 24 with 19 structures, and memory over many volumes.

`python benchmarks/metrics.py [--repeats 3] [--volumes 40]`: ours against MONAI's two functions,
structure by structure on whole arrays."""

import argparse
import os
import statistics
import time

os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np

SHAPE, SPACING = (24, 384, 384), (4.0, 0.98, 0.98)  # slices, rows, columns; mm


def column(scheme, seed=0):
    """Ten bodies of 26 x 40 pixels with nine discs of 10 rows between them, bent, over 16
    slices: 19 structures from the top to the bottom of the image"""
    from atm_net.anatomy import LUMBAR

    r = np.random.default_rng(seed)
    out = np.zeros(SHAPE, np.uint8)
    row = 2
    for n in (n for n in LUMBAR.top_down if n in scheme.names and LUMBAR[n].kind != 'canal'):
        tall = 10 if LUMBAR[n].kind == 'disc' else 26
        left = 170 + int(30 * np.sin(row / 70)) + r.integers(-2, 3)
        z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
        bulge = 3 * np.cos((z - 11.5) / 6)
        out[
            (abs(z - 11.5) < 8)
            & (y >= row)
            & (y < row + tall)
            & (x >= left - bulge)
            & (x < left + 40 + bulge)
        ] = scheme.channel(n)
        row += tall + 2
    return out


def predicted(truth, seed=0, stray=0):
    """The truth moved by two rows and a column, frayed at the edges; `stray` voxels of each
    structure anywhere in the volume"""
    r = np.random.default_rng(seed + 1)
    p = np.roll(truth, (0, 2, 1), (0, 1, 2))
    p[r.random(SHAPE) < 0.03] = 0
    for c in np.unique(truth)[1:]:
        p[tuple(r.integers(0, n, stray) for n in SHAPE)] = c
    return p


def by_monai(pred, truth, found):  # channel -> (HD95, ASD), mm
    "Each structure by itself, as a user of MONAI would write it"
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    out, kw = {}, dict(include_background=True, spacing=list(SPACING))
    for c in found:
        a, b = (torch.from_numpy(m == c)[None, None] for m in (pred, truth))
        out[c] = (
            compute_hausdorff_distance(a, b, percentile=95, **kw).item(),
            compute_average_surface_distance(a, b, symmetric=True, **kw).item(),
        )
    return out


def by_us(pred, truth, scheme):  # channel -> (HD95, ASD), mm
    "All scores of the volume: pixels, Dice and Jaccard too"
    from atm_net.metrics import volume_scores

    return {
        scheme.channel(n): (r['hd95_mm'], r['asd_mm'])
        for n, r in volume_scores(pred, truth, SPACING, scheme).items()
        if r['status'] == 'found'
    }


def timed(f, *args):
    t = time.perf_counter()
    out = f(*args)
    return time.perf_counter() - t, out


def compare(scheme, repeats, stray):  # a line of the table
    """Both on the same volumes, in turns; the ratio is the median of the ratios of the turns;
    raises `AssertionError` if the numbers differ"""
    ours, theirs = [], []
    for k in range(repeats):
        truth = column(scheme, k)
        pred = predicted(truth, k, stray)
        found = [int(c) for c in np.unique(truth) if c]
        t, a = timed(by_us, pred, truth, scheme)
        ours.append(t)
        t, b = timed(by_monai, pred, truth, found)
        theirs.append(t)
        assert set(a) == set(b) == set(found) and len(found) == 19, (
            len(found),
            sorted(set(a) ^ set(b)),
        )
        worst = max(abs(x - y) / max(1, y) for c in found for x, y in zip(a[c], b[c]))
        assert worst < 1e-5, f'the numbers differ by {worst}'  # MONAI works in float32
    ratio = statistics.median(y / x for x, y in zip(ours, theirs))
    size = ' x '.join(map(str, SHAPE))
    astray = f', {stray} stray voxels each' if stray else ''
    seconds = f'{statistics.median(ours):.2f} s | {statistics.median(theirs):.1f} s'
    return f'| HD95 and ASD, {size}, 19 structures{astray} | {seconds} | {ratio:.1f} |'


def resident() -> float:  # MB
    "Memory that this process holds (Linux)"
    with open('/proc/self/status', encoding='utf-8') as f:
        return next(int(line.split()[1]) for line in f if line.startswith('VmRSS')) / 1024


def memory(scheme, volumes):  # MB after each volume
    "Score volumes one after the other, keeping the records as an evaluation does"
    from atm_net.mask_scores import score

    kept, seen = {}, []
    for k in range(volumes):
        truth = column(scheme, k)
        kept[k] = score(predicted(truth, k), truth, SPACING, scheme)
        del truth
        seen.append(resident())
    return seen


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--repeats', type=int, default=3)
    p.add_argument('--volumes', type=int, default=40)
    args = p.parse_args()
    import torch

    from atm_net.anatomy import LUMBAR

    torch.set_num_threads(1)
    scheme = LUMBAR.scheme('mrspineseg')
    by_us(column(scheme), column(scheme), scheme)
    by_monai(column(scheme), column(scheme), [2])  # imports, first calls
    print('| what | ours | MONAI | times faster |\n|---|---|---|---|')
    for stray in (0, 3):
        print(compare(scheme, args.repeats, stray), flush=True)
    m = memory(scheme, args.volumes)
    early, late = m[min(4, len(m) - 1)], m[-1]
    print(
        f'\nMemory over {args.volumes} volumes, all scores: {early:.0f} MB after '
        f'{min(5, len(m))}, {late:.0f} MB after the last, at most {max(m):.0f} MB'
    )


if __name__ == '__main__':
    main()
