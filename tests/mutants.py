"""Does a notebook notice when its code is wrong? `python tests/mutants.py [fusion contrast ...]`

A mutant is one small change in an export cell, of the operators of cosmic-ray: `+` becomes `-`,
`<` becomes `<=`, 3 becomes 4. Each runs in a copy of the project whose notebook cell and exported
module are both changed: first all cells of the notebook, then tests/test_<module>.py.
It is dead when one of them fails or takes too long. A subject is the notebooks of a few modules.
Results: runs/mutants/<subject>.json and report.md."""

import argparse
import ast
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time

# before torch and the notebooks' own tools are imported; IN_TEST keeps nbdev from exporting
os.environ.update(OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1', MPLBACKEND='agg', IN_TEST='1')
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import nbformat
from notebooks import NBS, ROOT, module_of, notebook_of
from tqdm import tqdm

SUBJECTS = {  # subject -> its modules, as far as they exist
    'prompts': ('prompts', 'levels', 'reports', 'voting', 'user_prompts'),
    'fusion': ('fusion',),
    'contrast': ('contrast',),
    'model': ('model', 'variants', 'weights', 'baselines'),
    'losses': ('losses',),
    'metrics': ('distances', 'metrics'),
}
MORE_TESTS = {  # subject -> files in tests/ that guard it under another name
    'model': ('test_contrast_readings.py', 'test_backbones.py'),
}
# [{subject, before, after, reason}]: lines of survivors that change nothing one could see
EQUIVALENT = ROOT / 'tests' / 'mutants_equivalent.json'
EXPORT = re.compile(r'^#\|\s*exporti?\b', re.M)
SKIP = re.compile(r'^#\|\s*(slow|gpu|eval:\s*false)', re.M)
UNFAIR = re.compile(r'VariableInserter|VariableReplacer|ExceptionReplacer|_Is(Not)?$')


@dataclass(frozen=True)
class Mutant:
    "One export cell of a notebook with one small change"

    notebook: Path
    cell: str  # its id
    source: str


def notebooks_of(subject) -> list:
    "The notebooks of a subject's modules"
    found = [notebook_of(module) for module in SUBJECTS[subject]]
    return [path for path in found if path]


def tests_of(subject, notebook: Path) -> list:
    "Files in tests/ that guard a subject, those of the notebook's own module first"
    own = module_of(notebook)
    modules = [own, *(m for m in SUBJECTS[subject] if m != own)]
    files = [f'test_{module}.py' for module in modules] + [*MORE_TESTS.get(subject, ())]
    return [f for f in files if (ROOT / 'tests' / f).exists()]


def code_cells(notebook: Path) -> list:  # of (id, source)
    "The cells that `make test` runs"
    cells = nbformat.read(notebook, as_version=4).cells
    return [(c.id, c.source) for c in cells if c.cell_type == 'code' and not SKIP.search(c.source)]


# --- mutants


def no_sense(source) -> list:  # of (start, end), each (line, column)
    "Places of what only a reader sees, annotations: changing them proves nothing"
    spans = []
    for node in ast.walk(ast.parse(source)):
        notes = [getattr(node, 'annotation', None), getattr(node, 'returns', None)]
        for note in filter(None, notes):
            start = note.lineno, note.col_offset
            spans.append((start, (note.end_lineno, note.end_col_offset)))
    return spans


def changed(old, new) -> tuple:
    "The first line that differs, before and after"
    for before, after in zip(old.splitlines(), new.splitlines()):
        if before != after:
            return before.strip(), after.strip()
    return '', ''


def orders_names(old, new) -> bool:
    "Is an (in)equality with a string turned into an order? Names have none"
    quoted = re.compile(r"(==|!=|<=|>=|<|>)\s*['\"]|['\"]\s*(==|!=|<=|>=|<|>)")
    before, after = ([m[1] or m[2] for m in quoted.finditer(s)] for s in changed(old, new))
    same = ('==', '!=')
    turned = [a in same and b not in same for a, b in zip(before, after)]
    return len(before) == len(after) and any(turned)


def fair_operators() -> list:
    "cosmic-ray's operators, without those whose mutants say nothing"
    from cosmic_ray.plugins import get_operator, operator_names

    # `is` for `==` of small numbers says the same
    return [get_operator(name)() for name in sorted(operator_names()) if not UNFAIR.search(name)]


def places(source) -> dict:  # place in the source -> mutated sources
    "Every change that an operator can make, by place"
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    tree = get_ast(source)
    hidden = no_sense(source)
    out = {}
    for operator in fair_operators():
        positions = [at for node in ast_nodes(tree) for at in operator.mutation_positions(node)]
        for k, (start, end) in enumerate(positions):
            new = mutate_code(source, operator, k)
            if not new or new == source or orders_names(source, new):
                continue
            if not any(a <= start < b for a, b in hidden):
                out.setdefault((start, end), set()).add(new)
    return {place: sorted(sources) for place, sources in out.items()}


def sample(notebooks, n, seed) -> list:  # of Mutant
    "n mutants of the export cells of notebooks, at as many places as there are"
    rng = random.Random(seed)
    by_place = []
    for notebook in notebooks:
        for id_, source in code_cells(notebook):
            if EXPORT.search(source):
                for sources in places(source).values():
                    by_place.append([Mutant(notebook, id_, new) for new in sources])
    rng.shuffle(by_place)
    turns = [rng.sample(mutants, len(mutants)) for mutants in by_place]
    rounds = range(max(map(len, turns)))
    return [t[k] for k in rounds for t in turns if k < len(t)][:n]


# --- a copy of the project with one of them


def put_in_module(path, id_, source):
    "Replace one cell of an exported module by a mutated source"
    head, *parts = re.split(r'(?m)^(?=# %% )', path.read_text(encoding='utf-8'))
    body = EXPORT.sub('', source).strip('\n')
    body = re.sub(r'from atm_net\.', 'from .', body)
    for i, part in enumerate(parts):
        first = part.partition('\n')[0]
        if first.endswith(f'#{id_}'):
            parts[i] = f'{first}\n{body}\n\n'
            break
    else:
        raise SystemExit(f'{path}: no cell {id_}: run nbdev_export')
    path.write_text(head + ''.join(parts), encoding='utf-8')


def link_files(source: Path, target: Path):
    "The same folders with links to the files, so that `..` stays in the copy"
    target.mkdir()
    for path in source.iterdir():
        if path.name in ('.ipynb_checkpoints', '__pycache__'):
            continue
        if path.is_dir():
            link_files(path, target / path.name)
        else:
            os.symlink(path, target / path.name)


def copy_project(folder):
    "A copy of what the cells and tests read"
    ignore = shutil.ignore_patterns('__pycache__', 'assets')
    for name in ('atm_net', 'tests'):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    os.symlink(ROOT / 'atm_net' / 'assets', folder / 'atm_net' / 'assets')
    for name in ('settings.ini', 'README.md', 'benchmarks', 'setup.py'):
        os.symlink(ROOT / name, folder / name)
    link_files(NBS, folder / 'nbs')


# --- running it


def go_there(folder, place):
    "In a process of its own: stand in the copy, import from it, say nothing"
    os.setpgrp()
    os.chdir(place)
    os.environ['PYTHONPATH'] = str(folder)
    sys.modules.pop('notebooks')  # it knows the files of the project, not those of the copy
    left_out = ('', str(ROOT), str(ROOT / 'tests'))
    sys.path[:] = [str(folder), *(p for p in sys.path if p not in left_out)]
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


def run_cells(folder, place, cells, pipe):
    "Run the cells in order, send the error of the first that fails"
    go_there(folder, place)
    from execnb.shell import CaptureShell

    shell = CaptureShell(place)
    for id_, source in cells:
        shell.run(source)
        if shell.exc:
            pipe.send(f'cell {id_}: {type(shell.exc).__name__}')
            os._exit(1)
    pipe.send(None)
    os._exit(0)


def run_tests(folder, tests, pipe):
    "Run the fast tests of some files, send their exit status if one fails"
    go_there(folder, folder)
    import pytest

    files = [str(folder / 'tests' / t) for t in tests]
    code = pytest.main(['-q', '-x', '-m', 'not slow', '-p', 'no:cacheprovider', *files])
    pipe.send(f'tests: exit {int(code)}' if code else None)
    os._exit(0)


def judge(target, *args, limit):
    "What killed it, or None; a process that says nothing in time is dead of it"
    context = get_context('fork')
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*args, there))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(limit) else f'over {limit:.0f} s'
    except EOFError:
        return f'died with status {process.exitcode}'
    finally:
        if process.is_alive():
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                process.kill()  # before it had a group of its own
        process.join()


def try_notebook(notebook: Path, tests, limit, mutant: Mutant = None) -> tuple:
    "Run a notebook and its tests, as they are or with a mutant: (killer or None, seconds)"
    start = time.time()
    folder = Path(tempfile.mkdtemp(prefix='mutant_'))
    cells = dict(code_cells(notebook))
    try:
        copy_project(folder)
        if mutant:
            module = folder / 'atm_net' / f'{module_of(notebook)}.py'
            put_in_module(module, mutant.cell, mutant.source)
            cells[mutant.cell] = mutant.source
        place = folder / notebook.parent.relative_to(ROOT)
        killer = judge(run_cells, folder, place, list(cells.items()), limit=limit)
        if killer is None and tests:
            killer = judge(run_tests, folder, tests, limit=limit)
        return killer, time.time() - start
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- a subject


def time_limits(subject) -> dict:  # notebook -> seconds
    "How long a mutant may take, from the notebooks as they are; they must pass"
    limits = {}
    for notebook in notebooks_of(subject):
        killer, seconds = try_notebook(notebook, tests_of(subject, notebook), 600)
        if killer:
            raise SystemExit(f'{notebook.stem}: fails unchanged ({killer})')
        limits[notebook] = 30 + 4 * seconds
    return limits


def known_reason(subject, before, after):  # -> str or None
    "Why a survivor changes nothing, where tests/mutants_equivalent.json says so"
    for entry in json.loads(EQUIVALENT.read_text(encoding='utf-8')):
        if (entry['subject'], entry['before'], entry['after']) == (subject, before, after):
            return entry['reason']
    return None


def row(subject, mutant: Mutant, killer) -> dict:
    "What is written down of a mutant"
    old = dict(code_cells(mutant.notebook))[mutant.cell]
    before, after = changed(old, mutant.source)
    return dict(
        notebook=mutant.notebook.stem,
        cell=mutant.cell,
        before=before,
        after=after,
        killer=killer,
        equivalent=None if killer else known_reason(subject, before, after),
    )


def study(subject, n, seed, jobs) -> dict:
    "n mutants of a subject; returns what is written to its JSON"
    limits = time_limits(subject)
    todo = sample(limits, n, seed)

    def killer_of(mutant):
        book = mutant.notebook
        return try_notebook(book, tests_of(subject, book), limits[book], mutant)[0]

    with ThreadPoolExecutor(jobs) as pool:
        killers = list(tqdm(pool.map(killer_of, todo), subject, len(todo)))
    rows = [row(subject, mutant, killer) for mutant, killer in zip(todo, killers)]
    return dict(
        subject=subject,
        seed=seed,
        mutants=len(rows),
        killed=sum(r['killer'] is not None for r in rows),
        equivalent=sum(bool(r['equivalent']) for r in rows),
        rows=rows,
    )


def survivors(result) -> list:
    "Lines of the report on what was not noticed"
    lines = ['', f'**{result["subject"]}**, survivors']
    for r in result['rows']:
        if not r['killer']:
            reason = f': equivalent, {r["equivalent"]}' if r['equivalent'] else ''
            lines.append(f'- `{r["before"]}` -> `{r["after"]}`{reason}')
    return lines


def report(results) -> str:
    "A table of the subjects, then the survivors of each"
    lines = ['| subject | mutants | killed | equivalent | alive |', '|---|---|---|---|---|']
    for r in results:
        killed = f'{r["killed"]} ({r["killed"] / r["mutants"]:.0%})'
        alive = r['mutants'] - r['killed'] - r['equivalent']
        lines.append(
            f'| {r["subject"]} | {r["mutants"]} | {killed} | {r["equivalent"]} | {alive} |'
        )
    for r in results:
        lines += survivors(r)
    return '\n'.join(lines) + '\n'


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = f'{", ".join(SUBJECTS)} (default: all)'
    parser.add_argument('subjects', nargs='*', metavar='SUBJECT', help=names)
    parser.add_argument('--n', type=int, default=60, help='mutants per subject')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--min', type=float, default=0.9, help='share that must die')
    args = parser.parse_args()
    if bad := set(args.subjects) - set(SUBJECTS):
        parser.error(f'unknown subject {", ".join(sorted(bad))}')
    return args


def import_once():
    "Heavy libraries, before the processes are forked"
    import importlib

    for name in (
        'hypothesis',
        'matplotlib.pyplot',
        'monai.losses',
        'monai.metrics',
        'monai.networks.nets',
        'scipy.ndimage',
        'torch',
        'transformers',
    ):
        importlib.import_module(name)


def failed(result, least) -> bool:
    "Too few killed, or too many that are said to change nothing"
    n = result['mutants']
    return result['killed'] < least * n or result['equivalent'] > 0.05 * n


def main():
    args = arguments()
    import_once()
    out = ROOT / 'runs' / 'mutants'
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for subject in args.subjects or SUBJECTS:
        result = study(subject, args.n, args.seed, args.jobs)
        (out / f'{subject}.json').write_text(json.dumps(result, indent=1), encoding='utf-8')
        results.append(result)
    (out / 'report.md').write_text(report(results), encoding='utf-8')
    print(report(results))
    sys.exit(any(failed(result, args.min) for result in results))


if __name__ == '__main__':
    main()
