"""How long one scan takes: `python benchmarks/predict.py [--slices 24] [--threads 2] [--repeats 5]`

A phantom of so many slices goes from file to mask file with the weights that ship, as
`atm_predict` does it (loading, grid, words, network, one name for each level, back to the pixels,
writing), under each source of words that a new scan has. The peer is one pass of the same slices,
ready on the grid, through MONAI's SwinUNETR of the same width and version; all take turns. The aim
is ten seconds on two cores."""

import argparse
import os
import statistics
import tempfile

os.environ.setdefault('HF_HUB_OFFLINE', '1')
from pathlib import Path

from speed import rivals


def arguments():
    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a.add_argument('--slices', type=int, default=24)
    a.add_argument('--threads', type=int, default=2)
    a.add_argument('--repeats', type=int, default=5)
    return a.parse_args()


def one_pass(predictor, volume):
    "A call that takes all slices through MONAI's network once, eight at a time"
    import torch
    from monai.networks.nets import SwinUNETR

    from atm_net.slices import pad32

    slices = pad32(torch.as_tensor(predictor.to_grid(volume))[:, None].float())
    net = SwinUNETR(
        in_channels=1,
        out_channels=predictor.scheme.channels,
        feature_size=12,
        spatial_dims=2,
        use_v2=True,
    ).eval()

    def run():
        with torch.inference_mode():
            for batch in slices.split(8):
                net(batch)

    return run


def from_file_to_file(predictor, scan, mask, protocol):
    "A call that does what `atm_predict` does"
    from atm_net.volumes import read_volume, write_labels

    def run():
        volume = read_volume(scan)
        write_labels(predictor.predict(volume, protocol).labels, volume, mask)

    return run


def table_rows(names, seconds) -> list:
    "Median seconds of each, and its ratio to the first in the same turn: median [lowest, highest]"
    rows = []
    for name, s in zip(names, seconds):
        r = sorted(a / b for a, b in zip(s, seconds[0]))
        ratio = f'{statistics.median(r):.2f} [{r[0]:.2f}, {r[-1]:.2f}]'
        rows.append([name, f'{statistics.median(s):.2f}', ratio])
    return rows


def main():
    args = arguments()
    import torch

    from atm_net.explorer_scans import HELD_OUT
    from atm_net.phantom import make_phantom
    from atm_net.predict import load_predictor
    from atm_net.show import table_md
    from atm_net.volumes import write_volume

    torch.set_num_threads(args.threads)
    predictor = load_predictor(one_name_per_level=True)
    volume = make_phantom(HELD_OUT, contrast='t2', slices=(args.slices, 4.0)).volume
    calls = {"MONAI's SwinUNETR, one pass": one_pass(predictor, volume)}
    with tempfile.TemporaryDirectory() as tmp:
        scan = Path(tmp) / 'scan.nii.gz'
        mask = Path(tmp) / 'mask.nii.gz'
        write_volume(volume.data, volume.geometry, scan)
        for protocol in ('generic', 'self'):
            name = f'{protocol}, from file to file'
            calls[name] = from_file_to_file(predictor, scan, mask, protocol)
        seconds = rivals(calls.values(), args.repeats)
    h, w = volume.shape[1:]
    print(f'{args.slices} slices of {h} x {w} px, {args.threads} threads\n')
    print(table_md(table_rows(calls, seconds), ('what', 'seconds', 'over one pass')))


if __name__ == '__main__':
    main()
