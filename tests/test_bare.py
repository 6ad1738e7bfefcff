"""A machine that has Jupyter and nothing else: the set-up cell installs the kit from the clone
around the notebook, and the first lesson runs"""

import os
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from conftest import ROOT, done
from make_readme import OPENED, install, settings
from test_house import tracked


def cells(path):
    return {c.id: c for c in nbformat.read(path, as_version=4).cells}


@pytest.mark.parametrize('path', OPENED, ids=lambda p: p.stem)
def test_every_lesson_begins_with_the_cell(path):
    "The same text everywhere, before any other code"
    first = next(c for c in cells(path).values() if c.cell_type == 'code')
    assert first.source == install() and first.id == 'install'


def run_cell(cwd, found: bool, tmp_path, gpu=True, platform='linux'):
    """Run the set-up cell in a folder, with pip and the package replaced by stand-ins -> what
    pip was asked"""
    fake = tmp_path / 'fake'
    fake.mkdir(exist_ok=True)
    (fake / 'atm_net.py').write_text(
        '' if found else "raise ModuleNotFoundError('atm_net')", encoding='utf-8'
    )
    code = f"""
import shutil, subprocess, sys

shutil.which = lambda name: {gpu}
sys.platform = {platform!r}
subprocess.run = lambda args, check: print(*args[5:])
{install()}
"""
    return done(
        subprocess.run(
            [sys.executable, '-c', code],
            check=False,
            cwd=cwd,
            env=os.environ | dict(PYTHONPATH=str(fake)),
            capture_output=True,
            text=True,
            timeout=60,
        )
    ).out.splitlines()


def test_what_the_cell_installs(tmp_path):
    """Nothing where the kit is there; the clone around the notebook; else the address of
    settings.ini"""
    clone = tmp_path / 'clone'
    inside = clone / 'nbs' / 'workshop'
    inside.mkdir(parents=True)
    (clone / 'atm_net').mkdir()
    shutil.copy(ROOT / 'settings.ini', clone)
    assert run_cell(inside, True, tmp_path) == []
    assert run_cell(inside, False, tmp_path) == [str(clone.resolve())]
    assert run_cell(tmp_path, False, tmp_path) == ['git+' + settings()['git_url']]
    assert run_cell(tmp_path, False, tmp_path, gpu=None) == [
        'torch>=2.8 --extra-index-url https://download.pytorch.org/whl/cpu',
        'git+' + settings()['git_url'],
    ]  # PyTorch for CPU first, where there is no GPU
    assert run_cell(tmp_path, False, tmp_path, gpu=None, platform='darwin') == [
        'git+' + settings()['git_url']
    ]


def copy_of_the_repository(home):
    for f in tracked():
        (home / f.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(f, home / f.relative_to(ROOT))


def bare_environment(constraint):
    "Neither the package nor a backend; PyTorch in the version of requirements.lock"
    lock = (ROOT / 'requirements.lock').read_text(encoding='utf-8').splitlines()
    torch = next(line for line in lock if line.startswith('torch=='))
    constraint.write_text(torch, encoding='utf-8')
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'MPLBACKEND')}
    return env | dict(ATM_NET_WORKSHOP='short', PIP_CONSTRAINT=str(constraint))


@pytest.mark.slow
def test_first_lesson_on_a_bare_machine(tmp_path):
    """A fresh virtual environment with Jupyter alone; 2.5 GB and several minutes, most of them
    PyTorch's"""
    home, venv = tmp_path / 'clone', tmp_path / 'venv'
    copy_of_the_repository(home)
    env = bare_environment(tmp_path / 'torch.txt')

    def run(*a, cwd=tmp_path):
        args = [str(x) for x in a]
        how = dict(env=env, cwd=cwd, capture_output=True, text=True, timeout=3600)
        return subprocess.run(args, check=False, **how)

    done(run(sys.executable, '-m', 'venv', venv))
    python = venv / 'bin' / 'python'
    done(run(python, '-m', 'pip', 'install', '-q', 'jupyterlab', 'nbclient', 'ipykernel'))
    assert run(python, '-c', 'import atm_net').returncode == 1
    lesson = home / 'nbs' / 'workshop' / '01_reading_mri.ipynb'
    code = f"""
import nbformat, nbclient

nb = nbformat.read({str(lesson)!r}, 4)
nbclient.NotebookClient(nb, timeout=3000).execute()
nbformat.write(nb, {str(lesson)!r})
"""
    t = time.time()
    done(run(python, '-c', code, cwd=lesson.parent))
    print(f'the first lesson, with its set-up cell: {time.time() - t:.0f} s')
    where = done(run(python, '-c', 'import atm_net, torch; print(atm_net.__file__)')).out
    assert str(venv) in where
    outs = [o for c in cells(lesson).values() for o in c.get('outputs', [])]
    assert sum('image/png' in o.get('data', {}) for o in outs) >= 4
    assert [o for o in outs if o.output_type == 'error'] == []
