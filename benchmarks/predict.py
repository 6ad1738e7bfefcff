"""How long one scan takes, and how much memory: `python benchmarks/predict.py [--slices 24,150]`

A phantom of so many slices goes from file to mask file with the weights that ship, as
`atm_predict` does it (reading, grid, words, network, one name for each level, back to the pixels,
writing), under each source of words that a new scan has. The peers are one pass of the same
slices, ready on the grid, through MONAI's SwinUNETR of the same width and version, and through
the network of nnU-Net's 2-D plan for this size (MONAI's DynUNet). All take turns. 24 slices are
4 mm thick, more are 1 mm.

Start-up is the time of a process that loads the weights, over one that imports PyTorch and
MONAI's networks. Peak memory is the highest resident size of a process that does one scan (Linux
only)."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

os.environ.setdefault('HF_HUB_OFFLINE', '1')
from pathlib import Path

from speed import rivals

PROTOCOLS = ('generic', 'self')
IMPORTS = 'import torch, monai.networks.nets'
LOADS = 'from atm_net.predict import load_predictor; load_predictor()'
# VmHWM is of this process alone; `getrusage` also counts the parent before it became this one
ONE_SCAN = """
import re, sys
from pathlib import Path
from atm_net.cli import main
sys.argv[0] = 'atm_predict'
try:
    main()
finally:
    status = Path('/proc/self/status').read_text()
    print(int(re.search('VmHWM:\\s*(\\d+) kB', status)[1]) / 1024)
"""


def arguments():
    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a.add_argument('--slices', default='24,150', help='with commas')
    a.add_argument('--threads', type=int, default=2)
    a.add_argument('--repeats', type=int, default=5)
    args = a.parse_args()
    args.slices = [int(n) for n in args.slices.split(',')]
    return args


def phantom(slices: int):
    "A scan that no weights were trained on"
    from atm_net.explorer_scans import HELD_OUT
    from atm_net.phantom import make_phantom

    thickness = 4.0 if slices <= 24 else 1.0  # mm
    return make_phantom(HELD_OUT, contrast='t2', slices=(slices, thickness)).volume


def peers(predictor) -> dict:  # name -> network
    "Networks without text for the same task"
    from monai.networks.nets import DynUNet, SwinUNETR

    k = predictor.scheme.channels
    swin = SwinUNETR(in_channels=1, out_channels=k, feature_size=12, spatial_dims=2, use_v2=True)
    widths = [32, 64, 128, 256, 512, 512]  # of nnU-Net's 2-D plans, six scales at 192 px
    strides = [1] + [2] * 5
    nnunet = DynUNet(2, 1, k, [3] * 6, strides, strides[1:], filters=widths)
    return {"MONAI's SwinUNETR, one pass": swin, "nnU-Net's 2-D network, one pass": nnunet}


def one_pass(net, slices):
    "A call that takes all slices through a network once, eight at a time"
    import torch

    net.eval()

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


def peak_memory(scan, mask, protocol) -> float:  # MiB
    "Of a process that segments one scan"
    command = [sys.executable, '-c', ONE_SCAN, scan, mask, '--protocol', protocol]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(said.splitlines()[-1])


def process(code):
    "A call that runs Python code in a process of its own"
    return lambda: subprocess.run([sys.executable, '-c', code], check=True)


def print_scan(slices: int, predictor, folder: Path, repeats: int):
    "The table of a scan, and its peak memory"
    import torch

    from atm_net.show import table_md
    from atm_net.slices import pad32
    from atm_net.volumes import write_volume

    volume = phantom(slices)
    scan, mask = folder / f'{slices}.nii.gz', folder / f'mask{slices}.nii.gz'
    write_volume(volume.data, volume.geometry, scan)
    on_grid = pad32(torch.as_tensor(predictor.to_grid(volume))[:, None].float())
    calls = {name: one_pass(net, on_grid) for name, net in peers(predictor).items()}
    for protocol in PROTOCOLS:
        name = f'{protocol}, from file to file'
        calls[name] = from_file_to_file(predictor, scan, mask, protocol)
    rows = table_rows(calls, rivals(calls.values(), repeats))
    h, w = volume.shape[1:]
    print(f'\n{slices} slices of {h} x {w} px\n')
    print(table_md(rows, ('what', 'seconds', 'over one pass')))
    for protocol in PROTOCOLS:
        peak = peak_memory(scan, folder / f'{protocol}{slices}.nii.gz', protocol)
        print(f'\npeak memory, {protocol}: {peak:.0f} MiB')


def main():
    args = arguments()
    import torch

    from atm_net.predict import load_predictor
    from atm_net.show import table_md

    torch.set_num_threads(args.threads)
    os.environ['OMP_NUM_THREADS'] = str(args.threads)
    print(f'{args.threads} threads, {args.repeats} turns\n')
    starts = {"PyTorch and MONAI's networks are imported": IMPORTS, 'weights are loaded': LOADS}
    seconds = rivals([process(code) for code in starts.values()], args.repeats)
    print(table_md(table_rows(starts, seconds), ('a process in which', 'seconds', 'ratio')))
    predictor = load_predictor()
    with tempfile.TemporaryDirectory() as tmp:
        for slices in args.slices:
            print_scan(slices, predictor, Path(tmp), args.repeats)


if __name__ == '__main__':
    main()
