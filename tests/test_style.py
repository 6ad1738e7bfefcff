"""How code must read, in numbers: cells that fit a screen, one statement a line, short lines,
functions that do one thing; and no words that only the authors know. The rest of the style is in
ruff.toml, which `make lint` checks"""

import ast
import functools
import json
import re
import statistics

import pytest
from conftest import ROOT
from notebooks import NBS
from test_house import MODULES, lines_of_code, source_of

MAX_CELL = 30  # lines of a cell that readers see
MEDIAN_CELL = 12
MAX_COLUMNS = 100
MAX_HIDDEN = 0.25  # of a notebook's lines of code
MAX_FUNCTION = 40  # lines, the signature included
BOOKS = sorted(p for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


# --- the code of the repository


def without_magics(source: str) -> str:
    "Code that Python can read: a line of IPython becomes `pass`"
    lines = source.splitlines()
    return '\n'.join('pass' if x.lstrip().startswith(('%', '!')) else x for x in lines)


@functools.cache
def code_cells(path) -> list:
    "The code cells of a notebook that are not empty"
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [c for c in cells if c['cell_type'] == 'code' and ''.join(c['source']).strip()]


def is_visible(cell) -> bool:
    "Neither exported nor hidden: a cell for readers"
    folded = cell['metadata'].get('jupyter', {}).get('source_hidden')
    first = ''.join(cell['source']).lstrip()
    return not folded and not first.startswith(('#| export', '#| hide'))


def visible_cells(path) -> list:  # of sources
    return [''.join(c['source']) for c in code_cells(path) if is_visible(c)]


@functools.cache
def all_code() -> dict:  # where -> source
    "Modules, tests, benchmarks, pages, and every cell"
    texts = {}
    for folder in ('atm_net', 'tests', 'benchmarks', 'docs'):
        for p in (ROOT / folder).glob('*.py'):
            if p.name != '_modidx.py':
                texts[f'{folder}/{p.name}'] = p.read_text(encoding='utf-8')
    for book in BOOKS:
        for k, c in enumerate(code_cells(book)):
            texts[f'{book.stem}[{k}]'] = without_magics(''.join(c['source']))
    return texts


# --- what a reader meets


@pytest.mark.parametrize('path', BOOKS, ids=lambda p: p.stem)
def test_visible_cells_fit_a_screen(path):
    sizes = {text.strip().splitlines()[0]: lines_of_code(text) for text in visible_cells(path)}
    assert {head: size for head, size in sizes.items() if size > MAX_CELL} == {}


def test_most_visible_cells_are_short():
    sizes = [lines_of_code(text) for book in BOOKS for text in visible_cells(book)]
    assert statistics.median(sizes) <= MEDIAN_CELL


@pytest.mark.parametrize('path', BOOKS, ids=lambda p: p.stem)
def test_little_is_hidden(path):
    "What only guards belongs in tests/"
    texts = [''.join(c['source']) for c in code_cells(path)]
    hidden = [x for x in texts if x.lstrip().startswith('#| hide')]
    lines = sum(map(lines_of_code, texts))
    assert sum(map(lines_of_code, hidden)) <= MAX_HIDDEN * lines


def shared(source: str) -> list:  # of line numbers
    "Lines on which a second statement begins"
    starts = [n.lineno for n in ast.walk(ast.parse(source)) if isinstance(n, ast.stmt)]
    return sorted({line for line in starts if starts.count(line) > 1})


def test_shared_notices():
    assert shared('a = 1; b = 2\nif a: pass\nc = 3') == [1, 2]


def test_one_statement_a_line():
    found = {where: shared(source) for where, source in all_code().items()}
    assert {where: lines for where, lines in found.items() if lines} == {}


def test_lines_are_short():
    "95 % of the lines of code, over everything"
    lines = [x for source in all_code().values() for x in source.splitlines() if x.strip()]
    code = [x for x in lines if not x.lstrip().startswith('#')]
    assert sum(len(x) <= MAX_COLUMNS for x in code) >= 0.95 * len(code)


# --- functions


def function_lengths(source: str) -> dict:  # name -> lines
    nodes = ast.walk(ast.parse(source))
    functions = [n for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return {f'{n.name}:{n.lineno}': n.end_lineno - n.lineno + 1 for n in functions}


def mostly_short(lengths: dict) -> list:  # of (lines, name), where more than 5 % are long
    "The long functions, if more than one of twenty is long"
    long = [(size, name) for name, size in lengths.items() if size > MAX_FUNCTION]
    return sorted(long, reverse=True) if len(long) > 0.05 * len(lengths) else []


def test_functions_of_modules_are_short():
    lengths = {}
    for module in MODULES:
        found = function_lengths(source_of(module))
        lengths |= {f'{module}.{name}': size for name, size in found.items()}
    assert mostly_short(lengths) == []


@pytest.mark.parametrize('folder', ['tests', 'benchmarks', 'docs'])
def test_functions_beside_the_package_are_short(folder):
    lengths = {}
    for p in (ROOT / folder).glob('*.py'):
        found = function_lengths(p.read_text(encoding='utf-8'))
        lengths |= {f'{p.name}: {name}': size for name, size in found.items()}
    assert mostly_short(lengths) == []


# --- words that only the authors know

PRIVATE = re.compile(
    r'(?<!make )(?<!have )\brooms?\b'  # of a module; *make room on the disk* is plain English
    r'|\bclimb(?:s|ed|ing)?\b(?!\\)'  # of the decoder; not in the pattern of an old weight's name
    r'|\bfoot of\b|\bas one column\b|\b(?:in|out of) sight\b'
    r'|\b(?:is|are) told\b(?! (?:apart|by)\b)'
    r'|\bis as it is\b|\bRule \d',
    re.I,
)
EXCEPTED = ('docs/history.md', 'docs/glossary.md')


def private_words(text: str) -> list:
    return [m[0] for m in PRIVATE.finditer(text)]


def messages(module) -> str:
    "All strings of a module: messages, help and docstrings"
    nodes = ast.walk(ast.parse(module.read_text(encoding='utf-8')))
    strings = [n.value for n in nodes if isinstance(n, ast.Constant)]
    return '\n'.join(s for s in strings if isinstance(s, str))


def prose_of(path) -> str:
    "What people read in a file: Markdown, the text cells of a notebook, the strings of a module"
    if path.suffix == '.py':
        return messages(path)
    if path.suffix == '.md':
        return path.read_text(encoding='utf-8')
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')


def readable_files() -> dict:  # name -> path
    paths = [
        *ROOT.glob('*.md'),
        *ROOT.glob('atm_net/*.py'),
        *ROOT.glob('atm_net/assets/**/*.md'),
        *BOOKS,
    ]
    for folder in ('docs', 'benchmarks', 'results'):
        paths += (ROOT / folder).rglob('*.md')
    return {p.relative_to(ROOT).as_posix(): p for p in paths}


def test_no_private_words():
    "Each of them once stood for something that has a name in the field"
    files = readable_files()
    assert len(files) > 100 and set(EXCEPTED) <= set(files)
    found = {name: private_words(prose_of(p)) for name, p in files.items() if name not in EXCEPTED}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize(
    'text',
    [
        'the room of the losses',
        'at the foot of the climb',
        'named as one column',
        'levels out of sight of the sacrum',
        'the network is told the levels',
        'the rest is as it is',
        'by Rule 3',
    ],
)
def test_private_words_notices(text):
    assert private_words(text)


def test_private_words_spares_plain_english():
    text = 'make room, then go on; classes are told apart; the corner of a mushroom; in the insight'
    assert private_words(text) == []
