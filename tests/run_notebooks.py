"Run notebooks top to bottom and keep their outputs: `python tests/run_notebooks.py [--slow] [nbs/4_network/40_fusion.ipynb ...]`; without `--slow`, slow cells keep what they have"

import base64
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
os.environ.pop('MPLBACKEND', None)  # a backend from the shell would leave out the figures


def lighter(nb, least=150_000):
    "Large pictures keep 256 colours: a third of the size or less"
    for out in (o for c in nb.cells if c.cell_type == 'code' for o in c.outputs):
        png = base64.b64decode(out.get('data', {}).get('image/png', ''))
        if len(png) < least:
            continue
        file = io.BytesIO()
        Image.open(io.BytesIO(png)).convert('RGB').quantize(
            256, method=Image.Quantize.FASTOCTREE
        ).save(file, 'PNG')
        out.data['image/png'] = base64.b64encode(file.getvalue()).decode()


def run(path: Path, slow=False):
    "Execute one notebook in its own folder, then clean its metadata"
    nb = nbformat.read(path, as_version=4)
    t = time.time()
    skip = [
        c
        for c in nb.cells
        if c.cell_type == 'code'
        and re.search(r'^#\|\s*(' + 'slow|' * (not slow) + r'gpu|eval:\s*false)', c.source, re.M)
    ]
    kept = [(c, c.source, c.outputs) for c in skip]
    for c in skip:
        c.source = ''
    NotebookClient(
        nb,
        store_widget_state=False,
        timeout=3600,
        kernel_name='python3',
        resources={'metadata': {'path': str(path.parent)}},
    ).execute()
    for c, source, outputs in kept:
        c.source, c.outputs = source, outputs
    lighter(nb)
    nbformat.write(nb, path)
    subprocess.run(
        [str(Path(sys.executable).parent / 'nbdev_clean'), '--fname', str(path)], check=True
    )
    print(f'{path.relative_to(ROOT)}: {time.time() - t:.0f} s')


if __name__ == '__main__':
    given = [Path(a) for a in sys.argv[1:] if a != '--slow']
    for p in given or sorted((ROOT / 'nbs').rglob('*.ipynb')):
        run(p.resolve(), '--slow' in sys.argv)
