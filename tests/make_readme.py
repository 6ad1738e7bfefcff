"""README.md from nbs/index.ipynb, the cells with which lessons and walkthroughs open, CITATION.cff.

Addresses and the version come from settings.ini alone, what the demo found from
results/demo/found.json; `--check` only compares."""

import json
import posixpath
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat
from notebooks import LESSONS, ROOT, TOURS

OPENED = [*TOURS, *LESSONS]  # notebooks that open on a bare machine


def settings():
    "settings.ini as nbdev and setup.py read it"
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT / 'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


def user_and_repo(s) -> list:
    "The last two parts of the repository's address"
    return s['git_url'].rstrip('/').split('/')[-2:]


def binder(path: str, s=None) -> str:  # of a file in the repository
    "Where Binder opens a notebook; lessons in the student edition, which binder/postBuild writes"
    s = s or settings()
    user, repo = user_and_repo(s)
    file = path.replace('nbs/workshop/', 'student/')
    return f'https://mybinder.org/v2/gh/{user}/{repo}/{s["branch"]}?urlpath=lab/tree/{file}'


def colab(path: str, s=None) -> str:
    "Where Colab opens a notebook"
    s = s or settings()
    user, repo = user_and_repo(s)
    return f'https://colab.research.google.com/github/{user}/{repo}/blob/{s["branch"]}/{path}'


# --- what is written into notebooks, by the id of its cell


def badges(s=None) -> str:
    "Under the title of the README"
    explorer = binder('nbs/walkthroughs/01_explorer.ipynb', s)
    tour = colab('nbs/walkthroughs/00_tour.ipynb', s)
    return (
        f'[![Try the explorer on Binder](images/binder.svg)]({explorer}) '
        f'[![Open the tour in Colab](images/colab.svg)]({tour})'
    )


def clone(s=None) -> str:
    "How to get the repository"
    s = s or settings()
    repo = user_and_repo(s)[1]
    cpu = 'https://download.pytorch.org/whl/cpu   # Linux without a GPU; else leave it out'
    return f"""```bash
git clone {s['git_url']} && cd {repo}
export PIP_EXTRA_INDEX_URL={cpu}
make demo   # sets up .venv, then leaves one page: runs/demo/report.html
make test   # what CI runs
```"""


# --- what the demo found: written by `atm_demo`, kept by `docs/picture.py`

WORDS = {  # protocol -> a column of the table
    'generic': 'no words (default)',
    'self': "the network's own",
    'oracle': 'the true list',
    'shuffled': "another patient's list",
}


def demo_found() -> dict:
    "The numbers of the demo as they were kept"
    return json.loads((ROOT / 'results' / 'demo' / 'found.json').read_text(encoding='utf-8'))


def picture(d: dict) -> str:  # d: of `demo_found`
    "The picture of the README and what it shows"
    said = d['opening']['said'].replace('Here: of', 'Of', 1)
    alt = 'One slice: the truth, then the mask without words, with the true list of levels, and '
    alt += 'with every level named one too low'
    return (
        f'![{alt}](images/words.png)\n\n'
        f'*{said} Orange marks a wrong name. Of the synthetic volumes without the sacrum, '
        'this is the one in which words help most. What they do on the whole is in the table '
        'below.*'
    )


def span(seconds: float) -> str:
    "A time as people say it, rounded up"
    if seconds <= 60:
        return f'{-(-seconds // 10) * 10:.0f} seconds'
    return f'{-(-seconds // 30) / 2:g} minutes'


def times(d: dict) -> str:
    "What the two commands print, and how long they take"
    core = d['timing']['core_seconds']
    printed = '\n'.join(re.sub(r'^demo [\d:]+ +', 'demo  ', x) for x in d['timing']['lines'])
    return (
        'The first call sets up `.venv`, which takes a few minutes and 2.5 GB. (Without the '
        "`export` line PyPI serves PyTorch's CUDA build on Linux, which is several GB larger.) "
        f'Then **`make demo`** needs {span(core["first_picture"])} of one core for its first '
        f'picture, and {span(core["all"])} for the whole page. '
        'It prints these lines, each with its time:\n\n'
        f'```\n{printed}\n```\n\n'
        '**`make test`** checks the style, and runs every notebook and all tests. That takes some '
        'twenty minutes on two cores. It prints each file and test, and ends with the number that '
        'passed. For Windows, macOS, Binder, Colab or a machine without `make` see '
        '[Install](../docs/install.md).'
    )


def dice_cell(ci: dict) -> str:
    return f'{ci["mean"]:.2f} ({ci["low"]:.2f} to {ci["high"]:.2f})'


def gain_cell(gain: dict) -> str:
    return f'{gain["mean"]:+.2f} ({gain["low"]:+.2f} to {gain["high"]:+.2f})'


def gain_text(view: str, gain: dict) -> str:
    return f'by {gain["mean"]:+.2f} with the {view}'


def found(d: dict) -> str:
    "What words are worth, as a table and a sentence"
    columns = [*WORDS.values(), 'the true list over no words']
    head = '| | ' + ' | '.join(columns) + ' |\n|---|' + '---|' * len(columns)
    rows = [
        f'| {view}, {w["patients"]} patients | '
        + ' | '.join([*(dice_cell(w['dice'][q]) for q in WORDS), gain_cell(w['gain'])])
        for view, w in d['worth'].items()
    ]
    gains = ' and '.join(gain_text(view, w['gain']) for view, w in d['worth'].items())
    return (
        '## What the demo found\n\n'
        + '\n'.join([head, *(r + ' |' for r in rows)])
        + '\n\nDice is the overlap of mask and truth, from 0 to 1, with the right level name. '
        'Brackets hold the 95 % interval over patients. The true list and that of another patient '
        'come from a true mask, which a new scan does not have. **The true list changes Dice '
        f'{gains}.** Scores on more patients and on real scans are in '
        '[the card](../atm_net/assets/atm_net_tiny/README.md).'
    )


def opening(path: str, s=None) -> str:
    "Under the title of a lesson or walkthrough"
    at_binder = f'[Binder]({binder(path, s)})'
    at_colab = f'[Colab]({colab(path, s)})'
    if 'workshop' in path:
        at_binder += ' (student edition)'
        at_colab += ' (with the solutions)'
    return (
        f'Open it in {at_binder} or {at_colab}. '
        'Anywhere else, the first code cell (folded) installs the kit where it is missing.'
    )


def editions(path: str) -> str:
    "At the head of a lesson's source; the student edition is written without it"
    return f"""<!-- notes -->
Here the solutions stand beside the exercises. To do them yourself, write the student edition \
first, `atm_workshop lessons --edition student`, and open `lessons/{Path(path).name}`."""


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

    folded = dict(jupyter=dict(source_hidden=True))
    heads = [new_markdown_cell(opening(path, s), id='opening')]
    if 'workshop' in path:
        heads.append(new_markdown_cell(editions(path), id='editions'))
    title, *cells = [c for c in nb.cells if c.get('id') not in ('opening', 'editions', 'install')]
    first_code = next(i for i, c in enumerate(cells) if c.cell_type == 'code')
    cells.insert(first_code, new_code_cell(install(s), id='install', metadata=folded))
    nb.cells = [title, *heads, *cells]
    return nb


def home(nb, s=None):
    "nbs/index.ipynb with its cells that hold an address or a number"
    d = demo_found()
    made = dict(badges=badges(s), clone=clone(s), picture=picture(d), times=times(d))
    made |= dict(found=found(d))
    for c in nb.cells:
        c.source = made.get(c.id, c.source)
    return nb


# --- files


def moved(text: str, folder: str = 'nbs') -> str:
    "Markdown written for a folder, as it stands one level above: its links follow"

    def one(link):
        return posixpath.normpath(f'{folder}/{link[1]}')

    text = re.sub(r'(?<=\]\()(?!\w+:|#)([^)\s]+)', one, text)
    return re.sub(r'(?<=src="|set=")(?!\w+:)([^"]+)', one, text)


def printed(cell) -> str:
    "What a code cell printed"
    streams = (o for o in cell.outputs if o.output_type == 'stream')
    return ''.join(o.get('text', '') for o in streams).strip()


def readme(nb) -> str:
    "The README as Markdown: markdown cells as they are, code cells as code, text outputs below"
    parts = ['<!-- made from nbs/index.ipynb by `make readme`: edit the notebook -->']
    for c in nb.cells:
        if '#| hide' in c.source:
            continue
        if c.cell_type == 'markdown':
            parts.append(moved(c.source))
            continue
        parts.append(f'```python\n{c.source}\n```')
        if text := printed(c):
            parts.append(f'```\n{text}\n```')
    return '\n\n'.join(parts) + '\n'


def citation(text: str, s=None) -> str:
    "CITATION.cff with the version and the address of settings.ini"
    s = s or settings()
    text = re.sub(r'(?m)^version: .*', f'version: {s["version"]}', text)
    return re.sub(r'(?m)^repository-code: .*', f'repository-code: {s["git_url"]}', text)


def files(s=None) -> dict:  # path -> text
    "Everything that this script writes"

    def text(nb):
        return nbformat.writes(nb) + '\n'

    index = ROOT / 'nbs' / 'index.ipynb'
    front = home(nbformat.read(index, as_version=4), s)
    out = {index: text(front), ROOT / 'README.md': readme(front)}
    for path in OPENED:
        nb = nbformat.read(path, as_version=4)
        out[path] = text(opened(nb, path.relative_to(ROOT).as_posix(), s))
    cite = ROOT / 'CITATION.cff'
    out[cite] = citation(cite.read_text(encoding='utf-8'), s)
    return out


def main():
    made = files()
    stale = [f for f, text in made.items() if f.read_text(encoding='utf-8') != text]
    names = [str(f.relative_to(ROOT)) for f in stale]
    if stale and '--check' in sys.argv:
        said = 'differs from what nbs/index.ipynb and settings.ini say: run `make readme`'
        sys.exit(f'{", ".join(names)} {said}')
    for f, name in zip(stale, names):
        f.write_text(made[f], encoding='utf-8', newline='\n')
        print(name)


if __name__ == '__main__':
    main()
