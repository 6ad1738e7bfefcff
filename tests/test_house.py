"""The rules of the package: who may import whom, what a module may hold, what installs, and what
must not lie about. How code and cells must read is in test_style.py"""

import ast
import functools
import importlib
import inspect
import json
import re
import subprocess

import pytest
from conftest import ROOT, console_scripts, has_module
from make_readme import settings
from notebooks import LESSONS, NBS, NOTEBOOKS, TOURS, module_of, notebook_of

from atm_net.cli import read_command

MODULES = [module_of(p) for p in NOTEBOOKS]

MAX_LINES = 500
HEAVY = {'torch', 'monai', 'transformers', 'matplotlib', 'scipy', 'sklearn', 'SimpleITK'}


def source_of(module: str) -> str:
    return (ROOT / 'atm_net' / f'{module}.py').read_text(encoding='utf-8')


def default_exp(nb):  # -> module or None
    "The module that a notebook exports"
    for c in json.loads(nb.read_text(encoding='utf-8'))['cells']:
        if m := re.search(r'^#\|\s*default_exp\s+(\S+)', ''.join(c['source']), re.M):
            return m[1]
    return None


# --- who may import whom


def of_package(node) -> list:  # of (module, name or None)
    "What an import statement takes from the package"
    if isinstance(node, ast.Import):
        names = [a.name.split('.') for a in node.names]
        return [(path[1], None) for path in names if path[0] == 'atm_net' and len(path) > 1]
    if not isinstance(node, ast.ImportFrom):
        return []
    path = (node.module or '').split('.')
    if node.level == 0 and path[0] == 'atm_net':
        path = path[1:]
    elif node.level != 1:
        return []
    if not path or not path[0]:
        return [(a.name, None) for a in node.names]
    return [(path[0], a.name) for a in node.names]


def imported(source: str) -> set:
    "Modules of the package that a source file imports, at any depth of its code"
    return {m for node in ast.walk(ast.parse(source)) for m, _ in of_package(node)}


def test_imported_sees_every_form():
    code = """
import torch, atm_net.a
from .b import x
from . import c
from atm_net import d
def f():
    from atm_net.e.g import y
from torch.nn import h
"""
    assert imported(code) == set('abcde')


def upward(number: dict, sources: dict) -> list:  # of (module, imported)
    "Imports of modules whose number is not lower, or unknown"
    bad = []
    for m, source in sources.items():
        for i in sorted(imported(source) - {'__version__'}):
            if number.get(i, 99) >= number[m]:
                bad.append((m, i))
    return bad


def test_upward_notices():
    assert upward(dict(a=0, b=1), dict(a='from .b import x', b='from .a import y')) == [('a', 'b')]
    assert upward(dict(a=0, b=1), dict(a='', b='from .zzz import y')) == [('b', 'zzz')]


def test_modules_import_only_lower_modules():
    number = {default_exp(n): int(n.name[:2]) for n in NOTEBOOKS}
    assert upward(number, {m: source_of(m) for m in number}) == []


def private_names(source: str) -> list:  # of 'module._name'
    "Underscored names that a source takes from other modules of the package"
    tree = ast.parse(source)
    taken = []
    aliases = {}
    for node in ast.walk(tree):
        for module, name in of_package(node):
            if name and name.startswith('_') and not name.startswith('__'):
                taken.append(f'{module}.{name}')
        if isinstance(node, ast.ImportFrom) and any(n is None for _, n in of_package(node)):
            aliases |= {a.asname or a.name: a.name for a in node.names}
    for node in ast.walk(tree):
        owner = getattr(getattr(node, 'value', None), 'id', None)
        if isinstance(node, ast.Attribute) and owner in aliases and re.match('_[^_]', node.attr):
            taken.append(f'{aliases[owner]}.{node.attr}')
    return taken


def test_private_names_notices():
    code = 'from .a import _x, y, __version__\nfrom atm_net import b as c\nc._z, c.z, self._w'
    assert private_names(code) == ['a._x', 'b._z']


def test_no_module_takes_private_names():
    found = {module_of(p): private_names(source_of(module_of(p))) for p in NOTEBOOKS}
    assert {m: names for m, names in found.items() if names} == {}


# --- a name comes from the module that defines it


@functools.cache
def defined_names(module: str) -> frozenset:
    "Functions, classes and values that a module makes itself"
    tree = ast.parse(source_of(module))
    nodes = [*tree.body, *at_top(tree)]
    names = {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    for node in nodes:
        targets = getattr(node, 'targets', [getattr(node, 'target', None)])
        names |= {n.id for t in targets if t for n in ast.walk(t) if isinstance(n, ast.Name)}
    return frozenset(names)


def passed_on(source: str) -> list:  # of 'module.name'
    "Names that a source takes from a module which only imports them"
    taken = [x for node in ast.walk(ast.parse(source)) for x in of_package(node)]
    named = [
        (module, name) for module, name in taken if module in MODULES and name not in (None, '*')
    ]
    return [f'{module}.{name}' for module, name in named if name not in defined_names(module)]


def test_passed_on_notices():
    code = 'from atm_net.predict import Volume, segment\nfrom .show import read_json, table_md'
    assert passed_on(code) == ['predict.Volume', 'show.read_json']


def test_names_come_from_the_module_that_defines_them():
    texts = code_texts()
    magic = [k for k, t in texts.items() if '.ipynb' in k and re.search(r'^[%!]', t, re.M)]
    found = {where: passed_on(t) for where, t in texts.items() if where not in magic}
    assert {where: names for where, names in found.items() if names} == {}


def test_no_exported_cell_passes_names_on():
    "An import that nothing uses, kept by a comment for ruff"
    for path in NOTEBOOKS:
        for c in json.loads(path.read_text(encoding='utf-8'))['cells']:
            source = ''.join(c['source'])
            if source.startswith('#| export'):
                assert not re.search(r'noqa.*F401', source), f'{path.name}, cell {c["id"]}'


# --- imports inside functions


def at_top(tree) -> list:
    "Statements that run when a module is imported"
    todo = list(tree.body)
    out = []
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        out.append(node)
        todo += [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)]
    return out


@functools.cache
def libraries(module: str) -> frozenset:
    "The heavy libraries that come with the import of a module, its own imports included"
    found = set()
    for node in at_top(ast.parse(source_of(module))):
        if isinstance(node, ast.Import):
            found |= {a.name.split('.')[0] for a in node.names} & HEAVY
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {node.module.split('.')[0]} & HEAVY
        for other, _ in of_package(node):
            if notebook_of(other):
                found |= libraries(other)
    return frozenset(found)


def imports_in_functions(module: str) -> list:  # of modules
    "What a module imports inside functions, though no heavy library is spared by that"
    tree = ast.parse(source_of(module))
    top = {id(node) for node in at_top(tree)}
    inside = [node for node in ast.walk(tree) if id(node) not in top]
    others = {m for node in inside for m, _ in of_package(node)}
    return sorted(m for m in others if not libraries(m) - libraries(module))


def test_libraries_come_with_their_modules():
    assert {'torch', 'monai'} <= libraries('model') and 'torch' not in libraries('predict')


@pytest.mark.parametrize('module', MODULES)
def test_imports_in_functions_spare_a_library(module):
    "An import of the package inside a function is there to keep a heavy library out of start-up"
    assert imports_in_functions(module) == []


# --- a scheme knows its anatomy


def functions_of(source: str) -> list:  # of (name, names of parameters, defaults)
    "All functions of a module, methods included"
    out = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            a = node.args
            names = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
            defaults = [ast.unparse(d) for d in (*a.defaults, *a.kw_defaults) if d is not None]
            out.append((getattr(node, 'name', 'lambda'), names, defaults))
    return out


def takes_both(source: str) -> list:
    "Functions that take a scheme and an anatomy, though a scheme knows its own"
    return [f for f, names, _ in functions_of(source) if {'scheme', 'anatomy'} <= {*names}]


def assumes_lumbar(source: str) -> list:
    "Functions with the lumbar spine as a default"
    return [f for f, _, defaults in functions_of(source) if any('LUMBAR' in d for d in defaults)]


def test_anatomy_rules_notice():
    code = 'def f(scheme, *, anatomy): 0\nclass A:\n def g(self, x, anatomy=b.LUMBAR): 0\n'
    assert takes_both(code) == ['f'] and assumes_lumbar(code) == ['g']
    assert takes_both('def f(scheme, src): 0\ndef g(anatomy): 0') == []


def test_no_function_takes_a_scheme_and_an_anatomy():
    "`scheme.anatomy` is the one that fits; a second could be another"
    found = {module_of(p): takes_both(source_of(module_of(p))) for p in NOTEBOOKS}
    assert {m: names for m, names in found.items() if names} == {}


def test_no_function_falls_back_on_the_lumbar_spine():
    "Commands choose it, by `get_anatomy(None)`; other functions take it as an argument"
    found = {module_of(p): assumes_lumbar(source_of(module_of(p))) for p in NOTEBOOKS}
    assert {m: names for m, names in found.items() if names} == {}


# --- one notebook, one module


def test_one_notebook_one_module():
    assert len(NOTEBOOKS) >= 16
    for n in NOTEBOOKS:
        assert default_exp(n) == module_of(n), f'{n.name} exports {default_exp(n)}'
    assert len({n.name[:2] for n in NOTEBOOKS}) == len(NOTEBOOKS)
    modules = {p.stem for p in (ROOT / 'atm_net').glob('*.py')} - {'__init__', '_modidx'}
    assert modules == {module_of(n) for n in NOTEBOOKS}
    for n in [*TOURS, *LESSONS, NBS / 'index.ipynb']:
        assert default_exp(n) is None, f'{n} exports code'


def test_a_folder_is_a_chapter():
    "The first digit of a notebook's number is that of its folder"
    for n in NOTEBOOKS:
        assert n.name[0] == n.parent.name[0], f'{n.name} lies in {n.parent.name}'


def lines_of_code(text: str) -> int:
    "Lines that are neither empty nor a comment alone"
    lines = [line.strip() for line in text.splitlines()]
    return sum(bool(line) and not line.startswith('#') for line in lines)


@pytest.mark.parametrize('module', MODULES)
def test_no_module_is_long(module):
    assert lines_of_code(source_of(module)) <= MAX_LINES


def test_modules_are_generated():
    for p in (ROOT / 'atm_net').rglob('*.py'):
        text = p.read_text(encoding='utf-8')
        assert (
            p.name == '__init__.py'
            or 'AUTOGENERATED! DO NOT EDIT' in text
            or p.name == '_modidx.py'
            and 'Autogenerated by nbdev' in text
        ), f'{p} is written by hand'


def text_mode(call) -> bool:
    "Does a call of `open` read or write text?"
    at = 0 if isinstance(call.func, ast.Attribute) else 1
    mode = next((k.value for k in call.keywords if k.arg == 'mode'), ast.Constant('r'))
    if len(call.args) > at:
        mode = call.args[at]
    return isinstance(mode, ast.Constant) and set(str(mode.value)) <= set('rwaxt+')


def needs_encoding(call) -> bool:
    "Is it a call that reads or writes text, and says in no way how it is encoded?"
    owner = ''
    name = getattr(call.func, 'id', '')
    if isinstance(call.func, ast.Attribute):
        owner = ast.unparse(call.func.value)
        name = call.func.attr
    if 'encoding' in {k.arg for k in call.keywords} or owner in {'Image', 'os', 'gzip'}:
        return False
    if name == 'open':
        return text_mode(call)
    if name == 'read_text':
        return owner != '' and not call.args
    return name == 'write_text' and owner != '' and len(call.args) == 1


def default_encoding(source: str) -> list:
    "Calls that read or write text in whatever encoding the machine prefers"
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
    return [ast.unparse(n) for n in calls if needs_encoding(n)]


def test_default_encoding_notices():
    bad = ['p.read_text()', "p.write_text('x')", 'open(f)', "open(f, 'w')", "p.open('a')"]
    good = [
        "p.read_text(encoding='utf-8')",
        "p.read_text('utf-8')",
        "write_text(p, 'x')",
        "open(f, 'rb')",
        'Image.open(f)',
        "open(f, encoding='utf-8')",
    ]
    assert default_encoding('; '.join(bad)) == bad
    assert default_encoding('; '.join(good)) == []


def code_texts() -> dict:  # file, or notebook and cell -> source
    "All Python code of the repository"
    texts = {}
    for folder in ('atm_net', 'tests', 'benchmarks', 'docs'):
        for p in (ROOT / folder).glob('*.py'):
            texts[f'{folder}/{p.name}'] = p.read_text(encoding='utf-8')
    for n in NBS.rglob('*.ipynb'):
        if '.ipynb_checkpoints' in n.parts:
            continue
        for k, c in enumerate(json.loads(n.read_text(encoding='utf-8'))['cells']):
            if c['cell_type'] == 'code':
                texts[f'{n.relative_to(ROOT)} cell {k}'] = ''.join(c['source'])
    return texts


def test_text_is_utf8_on_every_machine():
    plain = {k: text for k, text in code_texts().items() if not re.search(r'^[%!]', text, re.M)}
    assert {k: found for k, text in plain.items() if (found := default_encoding(text))} == {}


CONTRACT = [
    'atm_phantom',
    'atm_audit',
    'atm_prepare',
    'atm_prompt',
    'atm_train',
    'atm_predict',
    'atm_score',
    'atm_evaluate',
    'atm_figures',
    'atm_study',
    'atm_measure',
    'atm_demo',
    'atm_nnunet',
    'atm_sample',
    'atm_workshop',
]


def test_contract_commands_are_declared():
    assert sorted(console_scripts()) == sorted(CONTRACT)
    installed = settings()['console_scripts'].split()
    assert sorted(installed) == [f'{name}=atm_net.cli:main' for name in sorted(CONTRACT)]


@pytest.mark.parametrize('command', CONTRACT)
def test_console_script_resolves(command):
    module, name = console_scripts()[command]
    if not has_module(module):
        pytest.skip(f'{module} does not exist yet')
    f = getattr(importlib.import_module(module), name)
    assert callable(f) and f.__doc__ and f.__doc__.strip() and f.__name__ == command
    signature = inspect.signature(inspect.unwrap(f)).parameters
    parameters = read_command(source_of(module.removeprefix('atm_net.')), command).parameters
    assert [p.name for p in parameters] == list(signature)
    for parameter in parameters:
        assert parameter.help, f'{command}: {parameter.name} has no comment, which is its help'
        if not parameter.positional:
            assert parameter.default == signature[parameter.name].default


def test_assets_are_package_data():
    text = (ROOT / 'setup.py').read_text(encoding='utf-8')
    assert re.search(r"package_data\s*=\s*\{\s*'atm_net'\s*:\s*\[\s*'assets/\*\*/\*'", text)
    for d in (p for p in (ROOT / 'atm_net' / 'assets').rglob('*') if p.is_dir()):
        assert not (d / '__init__.py').exists()
    assert (
        ROOT / 'atm_net' / 'assets' / 'spine_bert_tiny' / 'model.safetensors'
    ).stat().st_size < 8e6


def tracked() -> list:
    "Files that git tracks or would track"
    r = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if r.returncode:
        pytest.skip('not a git checkout')
    return [ROOT / f for f in r.stdout.split('\0') if f and (ROOT / f).is_file()]


def without_pictures(notebook: str) -> str:
    "The text of a notebook's file, figures left out"
    return re.sub(r'"image/(png|svg\+xml)":\s*("[^"]*"|\[[^\]]*\])', '', notebook)


def test_no_path_of_a_machine():
    folders = '|'.join(f'(?<![\\w.~])/{d}/' for d in ('work', 'root', 'home'))
    word = re.compile(f'{folders}|/tmp/' + 'w/')  # joined: this file must not match itself
    bad = []
    for f in tracked():
        data = f.read_bytes()
        if b'\0' in data[:8000]:
            continue
        text = data.decode('utf-8', errors='replace')
        if f.suffix == '.ipynb':
            text = without_pictures(text)
        bad += [f'{f.relative_to(ROOT)}: {m[0]}' for m in word.finditer(text)]
    assert bad == []


def test_no_large_file():
    megabytes = {f: f.stat().st_size / 1e6 for f in tracked()}
    large = {f: size for f, size in megabytes.items() if size > 8}
    assert [f'{f.relative_to(ROOT)}: {size:.1f} MB' for f, size in large.items()] == []


@pytest.mark.parametrize('nb', sorted(NBS.rglob('*.ipynb')), ids=lambda p: str(p.relative_to(NBS)))
def test_no_error_output(nb):
    cells = json.loads(nb.read_text(encoding='utf-8'))['cells']
    bad = [
        ''.join(c['source'])[:80]
        for c in cells
        for o in c.get('outputs', ())
        if o['output_type'] == 'error'
    ]
    assert bad == [] and cells


@pytest.mark.parametrize('nb', NOTEBOOKS, ids=lambda p: p.stem)
def test_what_is_printed_is_stored(nb):
    "A reader of the file sees what a cell prints"
    for c in json.loads(nb.read_text(encoding='utf-8'))['cells']:
        source = ''.join(c['source'])
        if c['cell_type'] == 'code' and not source.startswith('#|') and 'print(' in source:
            assert c['outputs'], f'{nb.name} {c["id"]}: run it, python tests/run_notebooks.py'


def test_requirements_have_no_spaces():
    "Each requirement is one word, or nbdev and setup.py read it in two pieces"
    for key in ('requirements', 'dev_requirements'):
        for r in settings()[key].split():
            assert re.match(r'^[A-Za-z][\w.-]*([<>=!~]=?[\w.]+(,[<>=!~]=?[\w.]+)*)?$', r), r
    names = {re.split(r'[<>=!~]', r)[0] for r in settings()['requirements'].split()}
    assert {'torch', 'monai', 'einops', 'transformers', 'nibabel', 'SimpleITK'} <= names
