"README.md from nbs/index.ipynb, and the cells with which lessons and walkthroughs open; addresses come from settings.ini alone; `--check` only compares"

import posixpath
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
OPENED = [
    p
    for d in ('walkthroughs', 'workshop')
    for p in sorted((ROOT / 'nbs' / d).glob('[0-9][0-9]_*.ipynb'))
]  # notebooks that open on a bare machine


def settings():
    "settings.ini as nbdev and setup.py read it"
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT / 'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


def binder(path: str, s=None) -> str:  # of a file in the repository
    "Where Binder opens a notebook; lessons in the student edition, which binder/postBuild writes"
    s = s or settings()
    user, repo = s['git_url'].rstrip('/').split('/')[-2:]
    return f'https://mybinder.org/v2/gh/{user}/{repo}/{s["branch"]}?urlpath=lab/tree/{path.replace("nbs/workshop/", "student/")}'


def colab(path: str, s=None) -> str:
    "Where Colab opens a notebook"
    s = s or settings()
    user, repo = s['git_url'].rstrip('/').split('/')[-2:]
    return f'https://colab.research.google.com/github/{user}/{repo}/blob/{s["branch"]}/{path}'


# --- what is written into notebooks, by the id of its cell


def badges(s=None) -> str:
    "Under the title of the README"
    first = 'nbs/walkthroughs/01_explorer.ipynb', 'nbs/walkthroughs/00_tour.ipynb'
    return f'[![Try the explorer on Binder](images/binder.svg)]({binder(first[0], s)}) [![Open the tour in Colab](images/colab.svg)]({colab(first[1], s)})'


def clone(s=None) -> str:
    "How to get the repository"
    s = s or settings()
    return f'```bash\ngit clone {s["git_url"]} && cd {s["git_url"].rstrip("/").split("/")[-1]}\nexport PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu   # Linux without a GPU; else leave it out\nmake demo   # sets up .venv, then the main job: runs/demo/report.html\nmake lab    # JupyterLab at the prompt explorer: edit a sentence, watch the mask\n```'


def opening(path: str, s=None) -> str:
    "Under the title of a lesson or walkthrough"
    which = ('student edition', 'with the solutions') if 'workshop' in path else ('', '')
    said = [
        f'[{name}]({url})' + f' ({w})' * bool(w)
        for name, url, w in zip(('Binder', 'Colab'), (binder(path, s), colab(path, s)), which)
    ]
    return f'Open it in {said[0]} or {said[1]}. Anywhere else, the first code cell (folded) installs the kit where it is missing.'


def editions(path: str) -> str:
    "At the head of a lesson's source; the student edition is written without it"
    return f'<!-- notes -->\nHere the solutions stand beside the exercises. To do them yourself, write the student edition first, `atm_workshop lessons --edition student`, and open `lessons/{Path(path).name}`.'


def install(s=None) -> str:
    "The set-up cell: does nothing where atm_net is installed"
    s = s or settings()
    lib = s['lib_name']
    torch = next(r for r in s['requirements'].split() if r.startswith('torch'))
    return f"""#| setup
try:
    import {lib}  # noqa: F401
except ModuleNotFoundError:  # a bare machine: install the kit; takes minutes
    import importlib
    import shutil
    import subprocess
    import sys
    from pathlib import Path

    def holds_kit(folder):
        return (folder / 'settings.ini').is_file() and (folder / '{lib}').is_dir()

    clones = [str(folder) for folder in Path.cwd().resolve().parents if holds_kit(folder)]
    kit = clones[0] if clones else 'git+{s['git_url']}'
    pip = [sys.executable, '-m', 'pip', 'install', '-q']
    if sys.platform == 'linux' and not shutil.which('nvidia-smi'):  # no GPU: several GB less
        cpu = ['--extra-index-url', 'https://download.pytorch.org/whl/cpu']
        subprocess.run([*pip, '{torch}', *cpu], check=True)
    subprocess.run([*pip, kit], check=True)
    importlib.invalidate_caches()"""


def opened(nb, path: str, s=None):
    "A notebook with its opening cells, made anew"
    from nbformat.v4 import new_code_cell, new_markdown_cell

    cells = [c for c in nb.cells if c.get('id') not in ('opening', 'editions', 'install')]
    at = next(i for i, c in enumerate(cells) if c.cell_type == 'code')
    cells.insert(
        at, new_code_cell(install(s), id='install', metadata=dict(jupyter=dict(source_hidden=True)))
    )
    heads = [new_markdown_cell(opening(path, s), id='opening')] + [
        new_markdown_cell(editions(path), id='editions')
    ] * ('workshop' in path)
    nb.cells = [*cells[:1], *heads, *cells[1:]]
    return nb


def home(nb, s=None):
    "nbs/index.ipynb with its two cells that hold an address"
    for c in nb.cells:
        if c.id in ('badges', 'clone'):
            c.source = dict(badges=badges, clone=clone)[c.id](s)
    return nb


# --- files


def moved(text: str, folder: str = 'nbs') -> str:
    "Markdown written for a folder, as it stands one level above: its links follow"
    return re.sub(
        r'(?<=\]\()(?!\w+:|#)([^)\s]+)', lambda m: posixpath.normpath(f'{folder}/{m[1]}'), text
    )


def readme(nb) -> str:
    "The README as Markdown: markdown cells as they are, code cells as code, text outputs below"
    parts = []
    for c in nb.cells:
        if '#| hide' in c.source:
            continue
        parts.append(
            moved(c.source) if c.cell_type == 'markdown' else f'```python\n{c.source}\n```'
        )
        if c.cell_type == 'code':
            text = ''.join(
                o.get('text', '') for o in c.outputs if o.output_type == 'stream'
            ).strip()
            if text:
                parts.append(f'```\n{text}\n```')
    return (
        '<!-- made from nbs/index.ipynb by `make readme`: edit the notebook -->\n\n'
        + '\n\n'.join(parts)
        + '\n'
    )


def files(s=None) -> dict:  # path -> text
    "Everything that this script writes"

    def read(p):
        return nbformat.read(p, as_version=4)

    index = home(read(ROOT / 'nbs' / 'index.ipynb'), s)
    out = {
        ROOT / 'nbs' / 'index.ipynb': nbformat.writes(index) + '\n',
        ROOT / 'README.md': readme(index),
    }
    return out | {
        p: nbformat.writes(opened(read(p), p.relative_to(ROOT).as_posix(), s)) + '\n'
        for p in OPENED
    }


if __name__ == '__main__':
    made = files()
    stale = [f for f, text in made.items() if f.read_text(encoding='utf-8') != text]
    if '--check' in sys.argv:
        sys.exit(
            bool(stale)
            and f'{", ".join(str(f.relative_to(ROOT)) for f in stale)} differs from what nbs/index.ipynb and settings.ini say: run `make readme`'
        )
    for f in stale:
        f.write_text(made[f], encoding='utf-8', newline='\n')
        print(f.relative_to(ROOT))
