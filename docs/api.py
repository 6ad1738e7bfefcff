"The API of a module as a page, from its source: signatures, docstrings, fastcore's docments"

import ast
import functools
import io
import re
import tokenize
from pathlib import Path

from headings import label, read, sections
from notebooks import NOTEBOOKS, ROOT, module_of

from atm_net.show import table_md

# --- public names and their targets


@functools.cache
def public(module: str) -> list:
    "`__all__` of a module"
    text = (ROOT / 'atm_net' / f'{module}.py').read_text(encoding='utf-8')
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__':
            return ast.literal_eval(node.value)
    raise LookupError(f'atm_net.{module} has no __all__')


def anchor(module: str, name: str) -> str:
    "The target of a public name; targets know no capitals: `Role` and `role` get a number"
    same = [n for n in public(module) if n.lower() == name.lower()]
    number = same.index(name) + 1
    target = f'api-{module}-{name}'.lower()
    return target if number == 1 else f'{target}-{number}'


def is_plain_word(name: str) -> bool:
    "Would a reader take it for English? No underscore, and all small or all capitals"
    return '_' not in name and name in (name.lower(), name.upper())


def targets(own: str = '') -> dict:  # word between backticks -> address
    "Public names: a module's own, and of others those that are unique and no plain words"
    modules = [module_of(p) for p in NOTEBOOKS]
    names = [(name, m) for m in modules for name in public(m)]
    seen = [name for name, _ in names]
    out = {}
    for name, m in names:
        if m == own or seen.count(name) == 1 and not is_plain_word(name):
            out[name] = f'#{anchor(m, name)}'
    return out


# --- pieces of Markdown


def comments(source: str) -> dict:  # line -> comment
    "The comment on each line that has one"
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = [t for t in tokens if t.type == tokenize.COMMENT]
    return {t.start[0]: t.string.lstrip('# ').strip() for t in found}


def table(rows, *head) -> str:
    "A Markdown table"
    return table_md([[str(x or '').replace('\n', ' ') for x in r] for r in rows], head)


def code(node) -> str:
    "An expression as inline code"
    return f'`{ast.unparse(node)}`' if node is not None else ''


def escape(text: str) -> str:
    "A comment as Markdown text"
    return re.sub(r'([*_<$\[\]])', r'\\\1', text)


def escape_doc(text: str) -> str:
    "A docstring as Markdown text; what stands between backticks is code already"
    pieces = re.split(r'(`[^`]+`)', text)
    return ''.join(p if i % 2 else escape(p) for i, p in enumerate(pieces))


def described(node) -> str:
    "The docstring as a paragraph"
    return escape_doc(ast.get_docstring(node) or '')


def paragraphs(parts) -> str:
    return '\n\n'.join(filter(None, parts))


# --- functions, classes, constants


def defaults(arguments) -> dict:  # parameter -> default
    "The default of each parameter that has one; None where a keyword has none"
    positional = [a.arg for a in arguments.posonlyargs + arguments.args]
    with_default = positional[len(positional) - len(arguments.defaults) :]
    keywords = [a.arg for a in arguments.kwonlyargs]
    found = dict(zip(with_default, arguments.defaults))
    return found | dict(zip(keywords, arguments.kw_defaults))


def named_arguments(arguments) -> list:  # of (name with its stars, argument)
    "The parameters in the order of the signature"
    every = [(a.arg, a) for a in arguments.posonlyargs + arguments.args]
    if arguments.vararg:
        every.append((f'*{arguments.vararg.arg}', arguments.vararg))
    every += [(a.arg, a) for a in arguments.kwonlyargs]
    if arguments.kwarg:
        every.append((f'**{arguments.kwarg.arg}', arguments.kwarg))
    return every


def parameters(f, said: dict) -> list:  # of (name, type, default, what)
    "The parameters of a function with the comments beside them"
    default = defaults(f.args)
    body = f.body[0].lineno
    rows = []
    for name, a in named_arguments(f.args):
        if name in ('self', 'cls'):
            continue
        what = escape(said.get(a.lineno, '')) if a.lineno < body else ''
        rows.append((f'`{name}`', code(a.annotation), code(default.get(name)), what))
    return rows


def returned(f, said: dict) -> str:
    "What comes back, with the comment beside it"
    if not f.returns:
        return ''
    line = f.returns.lineno
    what = escape(said.get(line, '')) if line < f.body[0].lineno else ''
    return f'**Returns** {code(f.returns)} {what}'.strip()


def function(f, said: dict, name=None) -> str:
    "Signature, docstring, parameters, what comes back"
    signature = f'{name or f.name}({ast.unparse(f.args)})'
    if f.returns:
        signature += f' -> {ast.unparse(f.returns)}'
    rows = parameters(f, said)
    return paragraphs(
        [
            f'```python\n{signature}\n```',
            described(f),
            table(rows, 'parameter', 'type', 'default', 'what') if rows else '',
            returned(f, said),
        ]
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
    parts = [described(c)]
    if '__init__' in methods:
        parts.append(function(methods['__init__'], said, c.name))
    if rows := fields(c, said):
        parts.append(table(rows, 'field', 'type', 'default', 'what'))
    shown = [
        (f'`{name}({ast.unparse(m.args)})`', described(m))
        for name, m in methods.items()
        if not name.startswith('_')
    ]
    if shown:
        parts.append(table(shown, 'method', 'what'))
    return paragraphs(parts)


def constant(node, said: dict) -> str:
    "A statement that names a value, cut where it is long"
    value = ast.unparse(node)
    if len(value) >= 300:
        value = value[:300] + ' ...'
    return f'```python\n{value}\n```\n\n{escape(said.get(node.lineno, ""))}'


def entry(node, said: dict) -> str:
    "What the page says of a definition"
    if isinstance(node, ast.FunctionDef):
        return function(node, said)
    if isinstance(node, ast.ClassDef):
        return klass(node, said)
    return constant(node, said)


def defined(node) -> list:  # of names
    "What a statement of a module defines"
    if hasattr(node, 'name'):
        return [node.name]
    names = []
    for target in filter(None, getattr(node, 'targets', [getattr(node, 'target', None)])):
        for n in ast.walk(target):
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
                names.append(n.id)
    return names


def is_overload(node) -> bool:
    "Is it one of the forms that only a type checker reads?"
    return any(ast.unparse(d) == 'overload' for d in getattr(node, 'decorator_list', []))


# --- the page of a module


def cell_marks(text: str) -> list:  # of (line, cell id)
    "Where nbdev says from which cell the lines below come"
    numbered = enumerate(text.split('\n'), 1)
    marks = [(i, line) for i, line in numbered if line.startswith('# %% ../nbs/')]
    return [(i, line.rsplit('#', 1)[1].strip()) for i, line in marks]


def api(path: Path) -> str:
    "The API page of a notebook's module"
    m = module_of(path)
    text = (ROOT / 'atm_net' / f'{m}.py').read_text(encoding='utf-8')
    tree = ast.parse(text)
    said = comments(text)
    marks = cell_marks(text)
    section_of = sections(read(path))
    parts = [
        f'(api-{m})=\n# atm_net.{m}',
        f'> {described(tree)}',
        f'From [{path.stem}](../{path.relative_to(ROOT).as_posix()}).',
    ]
    for node in tree.body:
        names = [name for name in defined(node) if name in public(m)]
        if not names or is_overload(node):
            continue
        cell = [c for line, c in marks if line <= node.lineno][-1]
        where, words = section_of[cell]
        heads = ''.join(f'({anchor(m, name)})=\n' for name in names)
        parts.append(f'{heads}## {", ".join(names)}')
        parts.append(entry(node, said))
        parts.append(f'Built in [{escape(words)}](#{label(path, where)}).')
    return '\n\n'.join(parts) + '\n'


def api_index() -> str:
    "The page that lists the public names of every module"
    modules = [module_of(p) for p in NOTEBOOKS]
    rows = []
    for m in modules:
        names = [f'[`{name}`](#{anchor(m, name)})' for name in public(m)]
        rows.append((f'[{m}](#api-{m})', ', '.join(names)))
    intro = '# API\n\nThe public names of every module, from its source.\n\n'
    return intro + table(rows, 'module', 'names')
