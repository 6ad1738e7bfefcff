"The site: `python docs/build.py [OUT]` stages notebooks, walkthroughs, lessons, API and map as pages and lets Sphinx build them; nothing is run"

import ast
import copy
import functools
import io
import re
import shutil
import sys
import tempfile
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
import nbformat
import yaml
from make_readme import readme, settings

from atm_net.show import table_md
from atm_net.workshop import role

NBS = ROOT / 'nbs'
ROOMS = sorted(NBS.glob('[0-9]_*/[0-9][0-9]_*.ipynb'))
TOURS = sorted((NBS / 'walkthroughs').glob('[0-9][0-9]_*.ipynb'))
LESSONS = sorted((NBS / 'workshop').glob('[0-9][0-9]_*.ipynb'))
STUDIES = [p.relative_to(ROOT).as_posix() for p in sorted(ROOT.glob('results/*/study.md'))]
TEXTS = [
    'docs/install.md',
    'docs/commands.md',
    'CONTRIBUTING.md',
    'CHANGELOG.md',
    'atm_net/assets/atm_net_tiny/README.md',
    'atm_net/assets/spine_bert_tiny/README.md',
    'results/README.md',
    *STUDIES,
]


@functools.cache
def read(path):
    return nbformat.read(path, as_version=4)


def stem(path) -> str:
    return path.relative_to(NBS).with_suffix('').as_posix()


# --- sections: which heading a cell stands under

FENCE = re.compile(r'(```.*?```)', re.S)


def headings(text: str) -> list:  # of (depth, words)
    "The headings of a Markdown text, code left out"
    return [
        (len(m[1]), m[2].strip())
        for m in re.finditer(r'^(#{1,6}) +(.+)$', FENCE.sub('', text), re.M)
    ]


def sections(nb) -> dict:  # cell id -> (label, words of the last heading at or before it)
    "Where a cell stands"
    now, out = ('', ''), {}
    for c in nb.cells:
        if c.cell_type == 'markdown' and (h := headings(c.source)):
            now = (f'{c.id}-{len(h) - 1}', h[-1][1])
        out[c.id] = now
    return out


def label(path, at: str) -> str:
    "The target of a heading: a notebook and what `sections` says"
    return f'sec-{stem(path).replace("/", "-")}-{at}'.lower()


# --- a notebook as a page


@functools.cache
def public(module: str) -> list:
    "`__all__` of a room"
    tree = ast.parse((ROOT / 'atm_net' / f'{module}.py').read_text(encoding='utf-8'))
    return next(
        ast.literal_eval(n.value)
        for n in tree.body
        if isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', '') == '__all__'
    )


def anchor(module: str, name: str) -> str:
    "The target of a public name; targets know no capitals, so `Role` and `role` get a number"
    same = [n for n in public(module) if n.lower() == name.lower()]
    return f'api-{module}-{name}'.lower() + f'-{same.index(name) + 1}' * (same.index(name) > 0)


def targets(own: str = '') -> dict:  # word between backticks -> address
    "Public names: a room's own, and of other rooms those that only one has and that are no plain words"
    names = [(n, m) for m in (r.stem[3:] for r in ROOMS) for n in public(m)]
    seen = [n for n, _ in names]
    return {
        n: f'#{anchor(m, n)}'
        for n, m in names
        if m == own or seen.count(n) == 1 and ('_' in n or n.lower() != n and n.upper() != n)
    }


def linked(text: str, words: dict, up: str) -> str:
    "Markdown in which `40_fusion` and `holistic` lead to their pages; code, headings and links stay"
    rooms = {r.stem: f'{up}nbs/{r.name}' for r in ROOMS}

    def one(m):
        at = rooms.get(m[1]) or words.get(m[1])
        return f'[`{m[1]}`]({at})' if at else m[0]

    def line(l):
        return (
            l
            if l.startswith('#')
            else ''.join(
                p if i % 2 else re.sub(r'(?<![`\w])`(\w+)`(?![`\w])', one, p)
                for i, p in enumerate(re.split(r'(\[[^\]]*\]\([^)]*\)|``.+?``)', l))
            )
        )

    return ''.join(
        p if i % 2 else '\n'.join(map(line, p.split('\n'))) for i, p in enumerate(FENCE.split(text))
    )


def labelled(text: str, path, cell: str) -> str:
    "Markdown with a target before each heading"
    count = iter(range(99))

    def one(m):
        return f'\n({label(path, f"{cell}-{next(count)}")})=\n{m[0]}'

    return ''.join(
        p if i % 2 else re.sub(r'^#{1,6} +.+$', one, p, flags=re.M)
        for i, p in enumerate(FENCE.split(text))
    )


WIDGET = 'application/vnd.jupyter.widget-view+json'


def outputs(cell) -> list:
    "What a page shows of a cell's outputs: widgets are named, progress bars left out"
    out = [
        o
        for o in cell.outputs
        if not (WIDGET in o.get('data', {}) and '%|' in ''.join(o.data.get('text/plain', '')))
    ]
    for o in out:
        if WIDGET in o.get('data', {}):
            o['data'] = {'text/plain': '(a widget: it lives in the notebook)'}
        if 'image/png' in o.get('data', {}):
            o['data'] = {'image/png': o.data['image/png']}
    return out


def page(nb, path, words: dict):
    "A notebook as it is read: no marks, no hidden cells; of a lesson neither solutions nor answers"
    nb = copy.deepcopy(nb)
    cells = []
    up = '../' * len(path.relative_to(ROOT).parents[1:])
    for i, c in enumerate(nb.cells):
        r = role(c)
        if (
            r.role in ('wrong', 'solution', 'notes', 'answer')
            or c.cell_type == 'code'
            and re.search(r'^#\|\s*hide\b', c.source, re.M)
        ):
            continue
        text = r.source
        if c.cell_type == 'markdown':
            if i:
                text = re.sub(r'^# (?=\S)', '## ', text, flags=re.M)  # one title for a page
            c.source = labelled(linked(text, words, up), path, c.id)
        else:
            if re.search(r'^#\|\s*exports?\b', text, re.M):
                c.metadata['tags'] = ['exported']
            c.source = re.sub(r'^#\|.*\n?', '', text, flags=re.M).strip('\n')
            c.outputs = [] if r.role == 'check' else outputs(c)
            if not c.source:
                continue
        cells.append(c)
    nb.cells = cells
    nb.metadata['language_info'] = dict(name='python', pygments_lexer='python')
    return nb


def beside(path, s) -> str:
    "Under the title of a room: its file and its API"
    m = path.stem[3:]
    return f'[Notebook on GitHub]({s["git_url"]}/blob/{s["branch"]}/nbs/{path.name}) · module `atm_net.{m}` · [API](#api-{m})'


# --- the API of a room, from its source


def comments(source: str) -> dict:  # line -> comment
    return {
        t.start[0]: t.string.lstrip('# ').strip()
        for t in tokenize.generate_tokens(io.StringIO(source).readline)
        if t.type == tokenize.COMMENT
    }


def table(rows, *head) -> str:
    "A Markdown table"
    return table_md([[str(x or '').replace('\n', ' ') for x in r] for r in rows], head)


def code(x) -> str:
    "An expression as inline code"
    return f'`{ast.unparse(x)}`' if x is not None else ''


def parameters(f, said: dict) -> list:  # of (name, type, default, what)
    "The parameters of a function with the comments beside them (fastcore's docments)"
    a = f.args
    pos = a.posonlyargs + a.args
    default = dict(zip([x.arg for x in pos[len(pos) - len(a.defaults) :]], a.defaults)) | {
        x.arg: d for x, d in zip(a.kwonlyargs, a.kw_defaults)
    }
    star = [(f'*{a.vararg.arg}', a.vararg)] if a.vararg else []
    kw = [(f'**{a.kwarg.arg}', a.kwarg)] if a.kwarg else []
    every = [(x.arg, x) for x in pos] + star + [(x.arg, x) for x in a.kwonlyargs] + kw
    header = f.body[0].lineno
    return [
        (
            f'`{n}`',
            code(x.annotation),
            code(default.get(n)),
            escape(said.get(x.lineno, '')) if x.lineno < header else '',
        )
        for n, x in every
        if n not in ('self', 'cls')
    ]


def escape(text: str) -> str:
    "A comment as Markdown text"
    return re.sub(r'([*_<$\[\]])', r'\\\1', text)


def described(node) -> str:
    "The docstring as a paragraph"
    return escape_doc(ast.get_docstring(node) or '')


def escape_doc(text: str) -> str:
    return ''.join(p if i % 2 else escape(p) for i, p in enumerate(re.split(r'(`[^`]+`)', text)))


def function(f, said: dict, name=None) -> str:
    "Signature, docstring, parameters, what comes back"
    sig = f'{name or f.name}({ast.unparse(f.args)})' + (
        f' -> {ast.unparse(f.returns)}' if f.returns else ''
    )
    rows = parameters(f, said)
    back = (
        said.get(f.returns.lineno, '') if f.returns and f.returns.lineno < f.body[0].lineno else ''
    )
    return '\n\n'.join(
        filter(
            None,
            [
                f'```python\n{sig}\n```',
                described(f),
                table(rows, 'parameter', 'type', 'default', 'what') if rows else '',
                f'**Returns** {code(f.returns)} {escape(back)}'.strip() if f.returns else '',
            ],
        )
    )


def fields(c, said: dict) -> list:
    "The fields of a dataclass"
    return [
        (f'`{n.target.id}`', code(n.annotation), code(n.value), escape(said.get(n.lineno, '')))
        for n in c.body
        if isinstance(n, ast.AnnAssign)
    ]


def klass(c, said: dict) -> str:
    "Docstring, fields or constructor, public methods"
    methods = {n.name: n for n in c.body if isinstance(n, ast.FunctionDef)}
    rows = fields(c, said)
    parts = [described(c)]
    if '__init__' in methods:
        parts.append(function(methods['__init__'], said, c.name))
    if rows:
        parts.append(table(rows, 'field', 'type', 'default', 'what'))
    shown = [
        (f'`{n}({ast.unparse(m.args)})`', described(m))
        for n, m in methods.items()
        if not n.startswith('_')
    ]
    if shown:
        parts.append(table(shown, 'method', 'what'))
    return '\n\n'.join(filter(None, parts))


def constant(n, said: dict) -> str:
    value = ast.unparse(n)
    value = value if len(value) < 300 else value[:300] + ' ...'
    return f'```python\n{value}\n```\n\n{escape(said.get(n.lineno, ""))}'


def defined(n) -> list:  # of names
    "What a statement of a module defines"
    if hasattr(n, 'name'):
        return [n.name]
    return [
        x.id
        for t in getattr(n, 'targets', [getattr(n, 'target', None)])
        if t
        for x in ast.walk(t)
        if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)
    ]


def api(path) -> str:
    "The API page of a room"
    m = path.stem[3:]
    file = ROOT / 'atm_net' / f'{m}.py'
    text = file.read_text(encoding='utf-8')
    tree = ast.parse(text)
    said = comments(text)
    at = sections(read(path))
    marks = [
        (i, l.rsplit('#', 1)[1].strip())
        for i, l in enumerate(text.split('\n'), 1)
        if l.startswith('# %% ../nbs/')
    ]
    parts = [
        f'(api-{m})=\n# atm_net.{m}',
        f'> {escape_doc(ast.get_docstring(tree) or "")}',
        f'From [{path.stem}](../nbs/{path.name}).',
    ]
    for n in tree.body:
        names = [x for x in defined(n) if x in public(m)]
        if not names:
            continue
        cell = [c for line, c in marks if line <= n.lineno][-1]
        where, words = at[cell]
        body = (
            function(n, said)
            if isinstance(n, ast.FunctionDef)
            else klass(n, said)
            if isinstance(n, ast.ClassDef)
            else constant(n, said)
        )
        parts += [
            ''.join(f'({anchor(m, x)})=\n' for x in names) + f'## {", ".join(names)}',
            body,
            f'Built in [{escape(words)}](#{label(path, where)}).',
        ]
    return '\n\n'.join(parts) + '\n'


# --- from the paper to the code


def paper_map() -> dict:
    "docs/paper_map.yaml"
    return yaml.safe_load((ROOT / 'docs' / 'paper_map.yaml').read_text(encoding='utf-8'))


def heading_of(path, words: str) -> str:  # label
    "The target of the heading with these words"
    for c in read(path).cells:
        if c.cell_type == 'markdown':
            for i, (_, h) in enumerate(headings(c.source)):
                if h == words:
                    return label(path, f'{c.id}-{i}')
    raise LookupError(f'{path.name}: no heading {words!r}')


def map_page(s) -> str:
    "Each equation, table and figure with notebook, functions and test"

    def where(e):
        p = NBS / f'{e["notebook"]}.ipynb'
        return f'[{p.stem[:2]}: {e["heading"]}](#{heading_of(p, e["heading"])})'

    def code_of(e):
        return ', '.join(f'[`{f}`](#{anchor(*f.split("."))})' for f in e['functions'])

    def test(t):
        if '::' in t:
            f, name = t.split('::')
            return f'[{f}: {name}]({s["git_url"]}/blob/{s["branch"]}/tests/{f})'
        book, cell = t.split('#')
        p = NBS / f'{book}.ipynb'
        at, _ = sections(read(p))[cell]
        return f'[`{p.stem}` {cell}](#{label(p, at)})'

    rows = [
        (f'**{e["paper"]}**', e['what'], where(e), code_of(e), '; '.join(map(test, e['tests'])))
        for e in paper_map()['entries']
    ]
    return (
        f'# From the paper to the code\n\n{paper_map()["intro"]}\n\n'
        + table(rows, 'paper', 'what', 'notebook', 'code', 'test')
        + '\n'
    )


# --- the whole


def toc(caption: str, entries, maxdepth=1) -> str:
    return '\n'.join(
        [f'```{{toctree}}\n:caption: {caption}\n:hidden:\n:maxdepth: {maxdepth}\n', *entries, '```']
    )


def titled(path) -> str:
    "A notebook's entry in the contents"
    title = headings(read(path).cells[0].source)[0][1]
    n = path.stem[:2] if path in ROOMS else ''
    return f'{n} {title} <{path.relative_to(ROOT).with_suffix("")}>'.strip()


def stage(out: Path):
    "Write every page as Sphinx reads it; the tree is that of the repository, so that links hold"
    s = settings()

    def put(name, text):
        return (
            (out / name).parent.mkdir(parents=True, exist_ok=True),
            (out / name).write_text(text, encoding='utf-8'),
        )

    for p in [*ROOMS, *TOURS, *LESSONS]:
        nb = page(read(p), p, targets(p.stem[3:] if p in ROOMS else ''))
        if p in ROOMS:
            nb.cells[0].source += f'\n\n{beside(p, s)}'
        put(p.relative_to(ROOT), nbformat.writes(nb))
    for p in ROOMS:
        put(f'api/{p.stem[3:]}.md', api(p))
    for t in TEXTS:
        put(t, (ROOT / t).read_text(encoding='utf-8'))
    shutil.copytree(NBS / 'images', out / 'nbs' / 'images')
    put('docs/paper_map.md', map_page(s))
    put(
        'api/index.md',
        '# API\n\nThe public names of every room, from its source.\n\n'
        + table(
            [
                (
                    f'[{p.stem[3:]}](#api-{p.stem[3:]})',
                    ', '.join(f'[`{n}`](#{anchor(p.stem[3:], n)})' for n in public(p.stem[3:])),
                )
                for p in ROOMS
            ],
            'room',
            'names',
        )
        + '\n\n'
        + toc('API', [p.stem[3:] for p in ROOMS]),
    )
    menu = [
        toc(
            'Start',
            ['docs/install', 'Commands <docs/commands>', 'Equation to code <docs/paper_map>'],
        ),
        toc('Walkthroughs', map(titled, TOURS)),
        toc('Lessons', map(titled, LESSONS)),
        toc('Rooms', map(titled, ROOMS)),
        toc(
            'Reference',
            [
                'api/index',
                'The model that ships <atm_net/assets/atm_net_tiny/README>',
                'Its text encoder <atm_net/assets/spine_bert_tiny/README>',
                'First studies <results/README>',
                *(p.removesuffix('.md') for p in STUDIES),
                'CONTRIBUTING',
                'CHANGELOG',
            ],
        ),
    ]
    put(
        'index.md',
        linked(readme(read(NBS / 'index.ipynb')), targets(), '').replace(
            '](docs/paper_map.yaml)', '](docs/paper_map.md)'
        )
        + '\n\n'
        + '\n\n'.join(menu)
        + '\n',
    )


def build(out: Path) -> int:
    "Stage and build; a warning (a link that leads nowhere, a formula that cannot be read) is an error"
    from sphinx.cmd.build import main

    if out.is_dir() and any(out.iterdir()) and not (out / 'objects.inv').is_file():
        sys.exit(f'{out}: is not empty and holds no site: choose another folder')
    with tempfile.TemporaryDirectory() as d:
        src, trees, made = (Path(d) / n for n in ('src', 'trees', 'made'))
        stage(src)
        if status := main(
            [
                '-b',
                'html',
                '-q',
                '-W',
                '--keep-going',
                '-c',
                str(ROOT / 'docs'),
                '-d',
                str(trees),
                str(src),
                str(made),
            ]
        ):
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
