"""Does a notebook notice when its code is wrong? `python tests/mutants.py [fusion contrast ...]`

A mutant is one small change in an export cell, of the operators of cosmic-ray: `+` becomes `-`, `<` becomes `<=`, 3 becomes 4.
Each runs in a copy of the project whose notebook cell and exported module are both changed: first all cells of the notebook,
then the tests of the room. It is dead when one of them fails or takes too long. Results: runs/mutants/<room>.json and report.md."""

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

os.environ.update(OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1', MPLBACKEND='agg')
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nbformat
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
ROOMS = {  # room -> (notebook, its tests)
    'prompts': ('30_prompts', ['test_reports.py']),
    'fusion': ('40_fusion', []),
    'contrast': ('41_contrast', []),
    'model': ('43_model', []),
    'losses': ('42_losses', []),
    'metrics': ('70_metrics', []),
}
EQUIVALENT = (
    ROOT / 'tests' / 'mutants_equivalent.json'
)  # [{room, before, after, reason}]: lines of survivors that change nothing one could see
EXPORT = re.compile(r'^#\|\s*exporti?\b', re.M)
SKIP = re.compile(r'^#\|\s*(slow|gpu|eval:\s*false)', re.M)


def code_cells(notebook):
    "(id, source) of the cells that `make test` runs"
    nb = nbformat.read(ROOT / 'nbs' / f'{notebook}.ipynb', as_version=4)
    return [
        (c['id'], c.source) for c in nb.cells if c.cell_type == 'code' and not SKIP.search(c.source)
    ]


def no_sense(source):
    "Lines and columns of what only a reader sees: annotations and docstrings; changing them proves nothing"
    spans = []
    for n in ast.walk(ast.parse(source)):
        notes = [getattr(n, 'annotation', None), getattr(n, 'returns', None)]
        spans += [
            ((a.lineno, a.col_offset), (a.end_lineno, a.end_col_offset))
            for a in notes
            if a is not None
        ]
    return spans


def changed(old, new):
    "The first line that differs, before and after"
    return next(
        ((a.strip(), b.strip()) for a, b in zip(old.splitlines(), new.splitlines()) if a != b),
        ('', ''),
    )


def orders_names(before, after):
    "Is an (in)equality with a string turned into an order? Names have none"
    a, b = changed(before, after)
    quoted = re.compile(r"(==|!=|<=|>=|<|>)\s*['\"]|['\"]\s*(==|!=|<=|>=|<|>)")

    def ops(s):
        return [m[1] or m[2] for m in quoted.finditer(s)]

    return len(ops(a)) == len(ops(b)) and any(
        x in ('==', '!=') and y not in ('==', '!=') for x, y in zip(ops(a), ops(b))
    )


def places(source):
    "{place in the source: [mutated sources]}, by cosmic-ray's operators"
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    tree, hidden, out = get_ast(source), no_sense(source), {}
    for name in sorted(operator_names()):
        if re.search(r'VariableInserter|VariableReplacer|ExceptionReplacer|_Is(Not)?$', name):
            continue  # `is` for `==` of small numbers says the same
        op = get_operator(name)()
        k = 0
        for node in ast_nodes(tree):
            for start, end in op.mutation_positions(node):
                new = mutate_code(source, op, k)
                k += 1
                if (
                    new
                    and new != source
                    and not any(a <= start < b for a, b in hidden)
                    and not orders_names(source, new)
                ):
                    out.setdefault((start, end), set()).add(new)
    return {p: sorted(v) for p, v in out.items()}


def sample(notebook, n, seed):
    "n mutants of a notebook's export cells, as many places as there are: [(cell id, source)]"
    rng = random.Random(seed)
    todo = []
    for id_, source in code_cells(notebook):
        if EXPORT.search(source):
            todo += [(id_, new) for new in places(source).values()]
    rng.shuffle(todo)
    turns = [[(id_, new[i]) for i in rng.sample(range(len(new)), len(new))] for id_, new in todo]
    return [t[k] for k in range(max(map(len, turns))) for t in turns if k < len(t)][:n]


def put_in_module(path, id_, source):
    "Replace one cell of an exported module by a mutated source"
    head, *parts = re.split(r'(?m)^(?=# %% )', path.read_text(encoding='utf-8'))
    body = EXPORT.sub('', source).strip('\n')
    body = re.sub(r'from atm_net\.', 'from .', body)
    for i, p in enumerate(parts):
        first, _, rest = p.partition('\n')
        if first.endswith(f'#{id_}'):
            parts[i] = f'{first}\n{body}\n\n'
            break
    else:
        raise SystemExit(f'{path}: no cell {id_}: run nbdev_export')
    path.write_text(head + ''.join(parts), encoding='utf-8')


def copy_project(folder, notebook, id_=None, source=None):
    "A copy of what the cells and tests read, with one cell mutated"
    for d in ('atm_net', 'tests'):
        shutil.copytree(
            ROOT / d, folder / d, ignore=shutil.ignore_patterns('__pycache__', 'weights*', 'assets')
        )
    for p in (ROOT / 'atm_net').iterdir():
        if p.is_dir() and not (folder / 'atm_net' / p.name).exists() and p.name != '__pycache__':
            os.symlink(p, folder / 'atm_net' / p.name)
    for name in ('settings.ini', 'README.md', 'benchmarks', 'setup.py'):
        os.symlink(ROOT / name, folder / name)
    (folder / 'nbs').mkdir()
    for p in (ROOT / 'nbs').iterdir():
        if p.name != '.ipynb_checkpoints':
            os.symlink(p, folder / 'nbs' / p.name)
    if id_:
        put_in_module(folder / 'atm_net' / f'{notebook.partition("_")[2]}.py', id_, source)


def go_there(folder):
    os.setpgrp()
    os.chdir(folder / 'nbs')
    os.environ['PYTHONPATH'] = str(folder)
    sys.path[:] = [
        str(folder),
        *(p for p in sys.path if p not in ('', str(ROOT), str(ROOT / 'tests'))),
    ]
    null = os.open(os.devnull, os.O_RDWR)
    for f in (0, 1, 2):
        os.dup2(null, f)


def run_cells(folder, cells, pipe):
    "In a process of its own: run the cells in order, send the error of the first that fails"
    go_there(folder)
    from execnb.shell import CaptureShell

    shell = CaptureShell(folder / 'nbs')
    for id_, source in cells:
        shell.run(source)
        if shell.exc:
            pipe.send(f'cell {id_}: {type(shell.exc).__name__}')
            os._exit(1)
    pipe.send(None)
    os._exit(0)


def run_tests(folder, tests, pipe):
    go_there(folder)
    os.chdir(folder)
    import pytest

    code = pytest.main(
        [
            '-q',
            '-x',
            '-m',
            'not slow',
            '-p',
            'no:cacheprovider',
            *(str(folder / 'tests' / t) for t in tests),
        ]
    )
    pipe.send(f'tests: exit {int(code)}' if code else None)
    os._exit(0)


def judge(target, *args, limit):
    "What killed it, or None; a process that says nothing in time is dead of it"
    ctx = get_context('fork')
    here, there = ctx.Pipe(duplex=False)
    p = ctx.Process(target=target, args=(*args, there))
    p.start()
    there.close()
    try:
        return here.recv() if here.poll(limit) else f'over {limit:.0f} s'
    except EOFError:
        return f'died with status {p.exitcode}'
    finally:
        if p.is_alive():
            try:
                os.killpg(p.pid, 9)
            except ProcessLookupError:
                p.kill()  # before it had a group of its own
        p.join()


def try_mutant(notebook, tests, limits, id_=None, source=None):
    "Run one mutant (or the project as it is); returns (killer or None, seconds)"
    t = time.time()
    folder = Path(tempfile.mkdtemp(prefix='mutant_'))
    try:
        copy_project(folder, notebook, id_, source)
        cells = [(i, source if i == id_ else s) for i, s in code_cells(notebook)]
        killer = judge(run_cells, folder, cells, limit=limits[0])
        if killer is None and tests:
            killer = judge(run_tests, folder, tests, limit=limits[1])
        return killer, time.time() - t
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def study(room, n, seed, jobs):
    "All mutants of a room; returns what is written to its JSON"
    notebook, tests = ROOMS[room]
    before = dict(code_cells(notebook))
    known = json.loads(EQUIVALENT.read_text(encoding='utf-8'))
    killer, seconds = try_mutant(notebook, tests, (600, 600))
    if killer:
        raise SystemExit(f'{notebook}: fails unchanged ({killer})')
    limits = (30 + 4 * seconds,) * 2
    todo = sample(notebook, n, seed)
    with ThreadPoolExecutor(jobs) as pool:
        found = list(
            tqdm(pool.map(lambda m: try_mutant(notebook, tests, limits, *m), todo), room, len(todo))
        )
    rows = []
    for (id_, source), (killer, _) in zip(todo, found):
        a, b = changed(before[id_], source)
        why = next(
            (e['reason'] for e in known if (e['room'], e['before'], e['after']) == (room, a, b)),
            None,
        )
        rows.append(
            dict(cell=id_, before=a, after=b, killer=killer, equivalent=None if killer else why)
        )
    return dict(
        room=room,
        seed=seed,
        mutants=len(rows),
        killed=sum(r['killer'] is not None for r in rows),
        equivalent=sum(bool(r['equivalent']) for r in rows),
        rows=rows,
    )


def report(results):
    lines = ['| room | mutants | killed | equivalent | alive |', '|---|---|---|---|---|']
    lines += [
        f'| {r["room"]} | {r["mutants"]} | {r["killed"]} ({r["killed"] / r["mutants"]:.0%}) | {r["equivalent"]} | {r["mutants"] - r["killed"] - r["equivalent"]} |'
        for r in results
    ]
    for r in results:
        lines += [
            '',
            f'**{r["room"]}**, survivors',
            *(
                f'- `{x["before"]}` -> `{x["after"]}`'
                + (f': equivalent, {x["equivalent"]}' if x['equivalent'] else '')
                for x in r['rows']
                if not x['killer']
            ),
        ]
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a.add_argument('rooms', nargs='*', metavar='ROOM', help=f'{", ".join(ROOMS)} (default: all)')
    a.add_argument('--n', type=int, default=60, help='mutants per room')
    a.add_argument('--seed', type=int, default=0)
    a.add_argument('--jobs', type=int, default=2)
    a.add_argument('--min', type=float, default=0.9, help='share that must die')
    args = a.parse_args()
    if bad := set(args.rooms) - set(ROOMS):
        a.error(f'unknown room {", ".join(sorted(bad))}')
    import hypothesis  # once, before the forks
    import matplotlib.pyplot
    import monai.losses
    import monai.metrics
    import monai.networks.nets
    import scipy.ndimage
    import torch
    import transformers

    out = ROOT / 'runs' / 'mutants'
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for room in args.rooms or ROOMS:
        results.append(study(room, args.n, args.seed, args.jobs))
        (out / f'{room}.json').write_text(json.dumps(results[-1], indent=1), encoding='utf-8')
    (out / 'report.md').write_text(report(results), encoding='utf-8')
    print(report(results))
    sys.exit(
        any(
            r['killed'] < args.min * r['mutants'] or r['equivalent'] > 0.05 * r['mutants']
            for r in results
        )
    )
