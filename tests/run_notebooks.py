"""Run notebooks top to bottom and keep their outputs.

`python tests/run_notebooks.py [--slow] [nbs/4_network/40_fusion.ipynb ...]`; a name alone,
`40_fusion`, is found. Without `--slow`, slow cells keep what they have."""

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
from notebooks import NBS, ROOT, notebook
from PIL import Image

os.environ.pop('MPLBACKEND', None)  # a backend from the shell would leave out the figures


def lighter(nb, least=150_000):
    "Large pictures keep 256 colours: a third of the size or less"
    code = [c for c in nb.cells if c.cell_type == 'code']
    for out in (o for c in code for o in c.outputs):
        png = base64.b64decode(out.get('data', {}).get('image/png', ''))
        if len(png) < least:
            continue
        picture = Image.open(io.BytesIO(png)).convert('RGB')
        file = io.BytesIO()
        picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(file, 'PNG')
        out.data['image/png'] = base64.b64encode(file.getvalue()).decode()


def without_ids(nb):
    """No progress bars, which nobody sees afterwards, and widgets without the id of this run

    A widget that brings a stored picture of itself is kept as that picture.
    """
    mime = 'application/vnd.jupyter.widget-view+json'
    for c in (c for c in nb.cells if c.cell_type == 'code'):
        bars = [o for o in c.outputs if mime in o.get('data', {}) and '%|' in o.data['text/plain']]
        c.outputs = [o for o in c.outputs if o not in bars]
        for o in (o for o in c.outputs if mime in o.get('data', {})):
            if 'text/html' in o.data:
                del o.data[mime]
            else:
                o.data[mime]['model_id'] = ''  # the site says that there is a widget


def left_out(nb, slow) -> list:
    "The code cells that are not run"
    marks = ['gpu', r'eval:\s*false']
    if not slow:
        marks.append('slow')
    mark = re.compile(rf'^#\|\s*({"|".join(marks)})', re.M)
    return [c for c in nb.cells if c.cell_type == 'code' and mark.search(c.source)]


def run(path: Path, slow=False):
    "Execute one notebook in its own folder, then clean its metadata"
    nb = nbformat.read(path, as_version=4)
    start = time.time()
    kept = [(c, c.source, c.outputs) for c in left_out(nb, slow)]
    for c, _, _ in kept:
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
    without_ids(nb)
    nbformat.write(nb, path)
    clean = Path(sys.executable).parent / 'nbdev_clean'
    subprocess.run([str(clean), '--fname', str(path)], check=True)
    print(f'{path.relative_to(ROOT)}: {time.time() - start:.0f} s')


if __name__ == '__main__':
    given = [notebook(a) or Path(a) for a in sys.argv[1:] if a != '--slow']
    for p in given or sorted(NBS.rglob('*.ipynb')):
        run(p.resolve(), '--slow' in sys.argv)
