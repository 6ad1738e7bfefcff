"""How long one scan takes: `python benchmarks/predict.py [--slices 24] [--threads 2] [--repeats 5]`

A phantom of so many slices goes from file to mask file with the weights that ship, as `atm_predict` does it (reading, grid, words, network,
column, back to the pixels, writing), under each source of words that a new scan has. The peer is one pass of the same slices, ready on the grid,
through MONAI's SwinUNETR of the same width and version; all take turns. The aim is ten seconds on two cores."""

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault('HF_HUB_OFFLINE', '1')
from pathlib import Path


def main():
    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a.add_argument('--slices', type=int, default=24)
    a.add_argument('--threads', type=int, default=2)
    a.add_argument('--repeats', type=int, default=5)
    args = a.parse_args()
    import torch
    from monai.networks.nets import SwinUNETR

    from atm_net.explorer import HELD_OUT
    from atm_net.phantom import make_phantom
    from atm_net.predict import load_predictor, pad32
    from atm_net.show import table_md
    from atm_net.volumes import read_volume, write_labels, write_volume

    torch.set_num_threads(args.threads)
    predictor = load_predictor(one_name_per_level=True)
    ph = make_phantom(HELD_OUT, contrast='t2', slices=(args.slices, 4.0))
    with tempfile.TemporaryDirectory() as tmp:
        scan, mask = Path(tmp) / 'scan.nii.gz', Path(tmp) / 'mask.nii.gz'
        write_volume(ph.volume.data, ph.volume.geometry, scan)

        def whole(protocol):
            def run():
                v = read_volume(scan)
                write_labels(predictor.predict(v, protocol).labels, v, mask)

            return run

        x = pad32(torch.as_tensor(predictor.to_grid(ph.volume))[:, None].float())
        net = SwinUNETR(
            in_channels=1,
            out_channels=predictor.scheme.channels,
            feature_size=12,
            spatial_dims=2,
            use_v2=True,
        ).eval()

        def peer():
            with torch.inference_mode():
                [net(b) for b in x.split(8)]

        rivals = {
            "MONAI's SwinUNETR, one pass": peer,
            'generic, from file to file': whole('generic'),
            'self, from file to file': whole('self'),
        }
        seconds = {n: [] for n in rivals}
        for f in rivals.values():
            f()
        for _ in range(args.repeats):
            for n, f in rivals.items():
                t = time.perf_counter()
                f()
                seconds[n].append(time.perf_counter() - t)
    first = next(iter(rivals))
    rows = []
    for n, s in seconds.items():
        r = sorted(a / b for a, b in zip(s, seconds[first]))
        rows.append(
            [
                n,
                f'{statistics.median(s):.2f}',
                f'{statistics.median(r):.2f} [{r[0]:.2f}, {r[-1]:.2f}]',
            ]
        )
    print(
        f'{args.slices} slices of {ph.volume.shape[1]} x {ph.volume.shape[2]} px, {args.threads} threads\n'
    )
    print(table_md(rows, ('what', 'seconds', 'over one pass')))


if __name__ == '__main__':
    main()
