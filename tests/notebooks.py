"Where the notebooks are: one in a chapter folder makes one module; tours and lessons make none"

from pathlib import Path

ROOT = Path(__file__).parents[1]
NBS = ROOT / 'nbs'


def numbered(pattern) -> list:
    "Notebooks below nbs/ whose names begin with two digits, in the order of their numbers"
    return sorted(NBS.glob(f'{pattern}/[0-9][0-9]_*.ipynb'), key=lambda path: path.name)


NOTEBOOKS = numbered('[0-9]_*')  # each makes the module that its name says
TOURS = numbered('walkthroughs')
LESSONS = numbered('workshop')


def module_of(path: Path) -> str:
    "The module that a notebook makes: `fusion` of 40_fusion.ipynb"
    return path.stem.partition('_')[2]


def notebook(stem: str):  # -> Path or None
    "The notebook of this name (`40_fusion`), in whatever folder it lies"
    return next((p for p in [*NOTEBOOKS, *TOURS, *LESSONS] if p.stem == stem), None)


def notebook_of(module: str):  # -> Path or None
    "The notebook that makes a module, whatever its number"
    return next((p for p in NOTEBOOKS if module_of(p) == module), None)
