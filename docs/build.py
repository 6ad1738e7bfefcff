"""The site: `python docs/build.py [OUT]` stages notebooks, walkthroughs, lessons, API and map.

Sphinx builds the staged pages; nothing is run."""

import copy
import re
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))
sys.path.insert(0, str(Path(__file__).parent))
import nbformat
import yaml
from api import anchor, api, api_index, table, targets
from headings import heading_target, headings, label, read, sections, split_code, with_targets
from make_readme import readme, settings
from notebooks import LESSONS, NBS, NOTEBOOKS, ROOT, TOURS, module_of, notebook

from atm_net.lessons import role

HOW_TO = [f'docs/howto/{name}.md' for name in ('index', 'segment', 'train', 'sentence')]
HOW_TO += [f'docs/howto/{name}.md' for name in ('class', 'figure', 'network', 'data', 'cite')]
STUDIES = [p.relative_to(ROOT).as_posix() for p in sorted(ROOT.glob('results/*/study.md'))]
TEXTS = [
    'docs/install.md',
    'docs/commands.md',
    'docs/python.md',
    'docs/glossary.md',
    'docs/history.md',
    *HOW_TO,
    'CONTRIBUTING.md',
    'CHANGELOG.md',
    'CITATION.cff',
    'atm_net/assets/atm_net_tiny/README.md',
    'atm_net/assets/spine_bert_tiny/README.md',
    'results/README.md',
    'benchmarks/README.md',
    'results/text_used/search.md',
    *STUDIES,
]
WIDGET = 'application/vnd.jupyter.widget-view+json'
HIDE = re.compile(r'^#\|\s*hide\b', re.M)
EXPORT = re.compile(r'^#\|\s*exports?\b', re.M)
NOT_FOR_READERS = ('rules', 'wrong', 'solution', 'notes', 'answer')  # roles of cells in a lesson
CHAPTERS = {  # folder -> caption in the menu
    '0_ground': '0 Ground',
    '1_phantoms': '1 Phantoms',
    '2_data': '2 Data',
    '3_prompts': '3 Prompts',
    '4_network': '4 Network',
    '5_masks': '5 Masks',
    '6_training': '6 Training',
    '7_evaluation': '7 Evaluation',
    '8_people': '8 For people',
    '9_learning': '9 Learning',
}


# --- a notebook as a page


def linked(text: str, words: dict, up: str) -> str:
    "Markdown in which `40_fusion` and `holistic` lead to their pages; code and links stay"
    books = {p.stem: f'{up}{p.relative_to(ROOT).as_posix()}' for p in NOTEBOOKS}

    def one(m):
        at = books.get(m[1]) or words.get(m[1])
        return f'[`{m[1]}`]({at})' if at else m[0]

    def line(text):
        if text.startswith('#'):
            return text
        pieces = re.split(r'(\[[^\]]*\]\([^)]*\)|``.+?``)', text)  # links and code stay
        word = re.compile(r'(?<![`\w])`(\w+)`(?![`\w])')
        return ''.join(p if i % 2 else word.sub(one, p) for i, p in enumerate(pieces))

    return ''.join(
        piece if is_code else '\n'.join(map(line, piece.split('\n')))
        for piece, is_code in split_code(text)
    )


def outputs(cell) -> list:
    "What a page shows of a cell's outputs: widgets are named, progress bars left out"
    out = []
    for o in cell.outputs:
        data = o.get('data', {})
        if WIDGET in data:
            if '%|' in ''.join(data.get('text/plain', '')):
                continue
            o['data'] = {'text/plain': '(a widget: it lives in the notebook)'}
        elif 'image/png' in data:
            o['data'] = {'image/png': data['image/png']}
        out.append(o)
    return out


def is_shown(cell) -> bool:
    "Neither hidden nor for the instructor alone"
    hidden = cell.cell_type == 'code' and HIDE.search(cell.source)
    return not hidden and role(cell).role not in NOT_FOR_READERS


def text_cell(cell, is_first, path, words):
    "A cell of prose with links and targets; a page has one title"
    text = role(cell).source
    if not is_first:
        text = re.sub(r'^# (?=\S)', '## ', text, flags=re.M)
    up = '../' * (len(path.relative_to(ROOT).parents) - 1)
    cell.source = with_targets(linked(text, words, up), path, cell.id)
    return cell


def code_cell(cell):
    "A cell of code without marks; what a check printed is left out"
    r = role(cell)
    if EXPORT.search(r.source):
        cell.metadata['tags'] = ['exported']
    cell.source = re.sub(r'^#\|.*\n?', '', r.source, flags=re.M).strip('\n')
    cell.outputs = [] if r.role == 'check' else outputs(cell)
    return cell


def page(nb, path, words: dict):
    "A notebook as it is read: no marks, no hidden cells; of a lesson neither solutions nor answers"
    nb = copy.deepcopy(nb)
    cells = []
    for i, c in enumerate(nb.cells):
        if not is_shown(c):
            continue
        if c.cell_type == 'markdown':
            cells.append(text_cell(c, i == 0, path, words))
        elif code_cell(c).source:
            cells.append(c)
    nb.cells = cells
    nb.metadata['language_info'] = dict(name='python', pygments_lexer='python')
    return nb


def on_github(file: str, s) -> str:
    "Where a file of the repository is shown"
    return f'{s["git_url"]}/blob/{s["branch"]}/{file}'


def beside(path, s) -> str:
    "Under the title of a notebook: its file and its API"
    m = module_of(path)
    file = on_github(path.relative_to(ROOT).as_posix(), s)
    return f'[Notebook on GitHub]({file}) · module `atm_net.{m}` · [API](#api-{m})'


# --- from the paper to the code


def paper_map() -> dict:
    "docs/paper_map.yaml"
    return yaml.safe_load((ROOT / 'docs' / 'paper_map.yaml').read_text(encoding='utf-8'))


def test_link(test: str, s) -> str:
    "A test of the map, `FILE::FUNCTION` or `NOTEBOOK#CELL`, as a link"
    if '::' in test:
        file, name = test.split('::')
        return f'[{file}: {name}]({on_github(f"tests/{file}", s)})'
    stem, cell = test.split('#')
    path = notebook(stem)
    at, _ = sections(read(path))[cell]
    return f'[`{stem}` {cell}](#{label(path, at)})'


def map_row(e: dict, s) -> tuple:
    "One equation, table or figure with notebook, functions and tests"
    path = notebook(e['notebook'])
    where = f'[{path.stem[:2]}: {e["heading"]}](#{heading_target(path, e["heading"])})'
    functions = [f'[`{f}`](#{anchor(*f.split("."))})' for f in e['functions']]
    tests = [test_link(test, s) for test in e['tests']]
    return f'**{e["paper"]}**', e['what'], where, ', '.join(functions), '; '.join(tests)


def map_page(s) -> str:
    "Each equation, table and figure with notebook, functions and test"
    m = paper_map()
    rows = [map_row(e, s) for e in m['entries']]
    body = table(rows, 'paper', 'what', 'notebook', 'code', 'test')
    return f'# From the paper to the code\n\n{m["intro"]}\n\n{body}\n'


# --- the menu


def toc(caption: str, entries, maxdepth=1) -> str:
    "A part of the menu, as Sphinx writes it"
    head = f'```{{toctree}}\n:caption: {caption}\n:hidden:\n:maxdepth: {maxdepth}\n'
    return '\n'.join([head, *entries, '```'])


def titled(path) -> str:
    "A notebook's entry in the contents"
    title = headings(read(path).cells[0].source)[0][1]
    number = path.stem[:2] if path in NOTEBOOKS else ''
    return f'{number} {title} <{path.relative_to(ROOT).with_suffix("").as_posix()}>'.strip()


def chapters() -> list:
    "The parts of the menu with the notebooks of each chapter"
    folders = list(dict.fromkeys(p.parent.name for p in NOTEBOOKS))
    parts = []
    for folder in folders:
        books = [titled(p) for p in NOTEBOOKS if p.parent.name == folder]
        parts.append(toc(CHAPTERS.get(folder, folder), books))
    return parts


def menu() -> str:
    start = [
        'docs/install',
        'Commands <docs/commands>',
        'docs/python',
        'docs/glossary',
        'Equation to code <docs/paper_map>',
    ]
    reference = [
        'api/index',
        'The model that ships <atm_net/assets/atm_net_tiny/README>',
        'Its text encoder <atm_net/assets/spine_bert_tiny/README>',
        'Results <results/README>',
        'benchmarks/README',
        'results/text_used/search',
        *(p.removesuffix('.md') for p in STUDIES),
        'CONTRIBUTING',
        'CHANGELOG',
        'docs/history',
    ]
    parts = [
        toc('Start', start),
        toc('I want to ...', (p.removesuffix('.md') for p in HOW_TO)),
        toc('Walkthroughs', map(titled, TOURS)),
        toc('Lessons', map(titled, LESSONS)),
        *chapters(),
        toc('Reference', reference),
    ]
    return '\n\n'.join(parts)


# --- the whole


def one_image(text: str) -> str:
    "Pictures with a light and a dark file, which GitHub chooses from, as the light one"
    picture = r'<picture>.*?<img alt="([^"]*)" src="([^"]*)"[^>]*>.*?</picture>'
    return re.sub(picture, r'![\1](\2)', text, flags=re.S)


def front_page() -> str:
    "The README with the menu"
    text = one_image(linked(readme(read(NBS / 'index.ipynb')), targets(), ''))
    text = text.replace('](docs/paper_map.yaml)', '](docs/paper_map.md)')
    return f'{text}\n\n{menu()}\n'


def notebook_page(path, s) -> str:
    "The page of a notebook, tour or lesson, as a notebook"
    makes_module = path in NOTEBOOKS
    nb = page(read(path), path, targets(module_of(path) if makes_module else ''))
    if makes_module:
        nb.cells[0].source += f'\n\n{beside(path, s)}'
    return nbformat.writes(nb)


def pages(s) -> dict:  # path -> text
    "Every page; the tree is that of the repository, so that links hold"
    out = {t: (ROOT / t).read_text(encoding='utf-8') for t in TEXTS}
    for p in [*NOTEBOOKS, *TOURS, *LESSONS]:
        out[p.relative_to(ROOT).as_posix()] = notebook_page(p, s)
    for p in NOTEBOOKS:
        out[f'api/{module_of(p)}.md'] = api(p)
    out['api/index.md'] = api_index() + '\n\n' + toc('API', map(module_of, NOTEBOOKS))
    out['docs/paper_map.md'] = map_page(s)
    out['index.md'] = front_page()
    return out


def stage(out: Path):
    "Write every page as Sphinx reads it"
    for name, text in pages(settings()).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding='utf-8')
    shutil.copytree(NBS / 'images', out / 'nbs' / 'images')


def build(out: Path) -> int:
    "Stage and build; a warning (a link that leads nowhere, an unreadable formula) is an error"
    from sphinx.cmd.build import main

    if out.is_dir() and any(out.iterdir()) and not (out / 'objects.inv').is_file():
        sys.exit(f'{out}: is not empty and holds no site: choose another folder')
    with tempfile.TemporaryDirectory() as d:
        source, trees, made = (Path(d) / name for name in ('src', 'trees', 'made'))
        stage(source)
        options = ['-b', 'html', '-q', '-W', '--keep-going', '-c', str(ROOT / 'docs')]
        status = main([*options, '-d', str(trees), str(source), str(made)])
        if status:
            return status
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)
        return 0


if __name__ == '__main__':
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / '_site')
    status = build(out)
    if not status:
        print(out / 'index.html')
    sys.exit(status)
