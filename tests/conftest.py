"What the tests share: a synthetic cohort, caches, a trained run, and two ways to call a command"

import os

os.environ.update(
    OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1', MPLBACKEND='agg'
)  # before torch, transformers and matplotlib are imported
import contextlib
import functools
import importlib
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
REAL = ROOT.parent / 'shared' / 'data' / 'real_lumbar'


# the longest files come first, so that two workers end at about the same time
LONGEST = [
    'commands',
    'nothing_lost',
    'golden_model',
    'explorer',
    'workshop',
    'bad_input',
    'demo',
    'study_runs',
    'golden',
    'train',
    'predict_command',
    'phantom',
    'fuzz',
    'backbones',
    'figures',
    'real',
    'variants',
    'trainer',
    'anatomy',
    'contrast_readings',
]


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes minutes; `make test-slow` runs it')


def pytest_collection_modifyitems(items):
    ranks = {f'test_{name}': rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))


def console_scripts() -> dict:  # command -> (module, function)
    "The console commands that the package installs"
    from atm_net.cli import COMMANDS

    return {name: (f'atm_net.{module}', name) for name, module in COMMANDS.items()}


def has_module(name) -> bool:
    "Is the module of a command exported already?"
    return (ROOT / f'{name.replace(".", "/")}.py').exists()


@functools.cache
def function_of(command):
    "The function behind a console command"
    module, name = console_scripts()[command]
    return getattr(importlib.import_module(module), name)


def shell(command, *args, timeout=150, cwd=None):
    "A console command as a process of its own, under a hard time limit"
    return subprocess.run(
        [str(BIN / command), *map(str, args)],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
    )


def call(command, *args) -> SimpleNamespace:  # status, out, err
    """A console command in this process: the same parsing and the same messages, without the
    start of an interpreter"""
    from atm_net.cli import run_command

    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_command(function_of(command).__wrapped__, [str(a) for a in args])
        except SystemExit as e:
            status = e.code or 0
    return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue())


def done(r):
    "Assert success, showing what was said; returns the result"
    status = getattr(r, 'status', None)
    status = r.returncode if status is None else status
    out, err = (
        (getattr(r, 'out', None) if hasattr(r, 'out') else r.stdout),
        (r.err if hasattr(r, 'err') else r.stderr),
    )
    assert status == 0, f'status {status}\n{out}\n{err}'
    return SimpleNamespace(status=status, out=out, err=err)


def complaint(r) -> str:
    "Assert that a command refused with status 2 and one line on stderr; returns the line"
    status = r.status if hasattr(r, 'status') else r.returncode
    err = r.err if hasattr(r, 'err') else r.stderr
    lines = [
        line
        for line in re.split(r'[\r\n]+', err)
        if line.strip() and not re.search(r'\d+%\||\dit/s|\?it/s', line)
    ]
    assert status == 2, f'status {status}: {err}'
    assert 'Traceback' not in err, err
    assert len(lines) == 1, f'{len(lines)} lines instead of one:\n{err}'
    return lines[0]


def tree(folder) -> dict:  # relative path -> bytes
    "Every file under a folder"
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(Path(folder).rglob('*'))
        if p.is_file()
    }


@pytest.fixture(scope='module', autouse=True)
def close_figures():
    "A figure that one file of tests leaves open must not reach the next one in this process"
    yield
    if plt := sys.modules.get('matplotlib.pyplot'):
        plt.close('all')


@pytest.fixture(scope='session')
def encoder():
    "The text encoder that ships"
    from atm_net.text import load_encoder

    return load_encoder('spine_bert_tiny')


@pytest.fixture(scope='session')
def home(tmp_path_factory):
    return tmp_path_factory.mktemp('kit')


@pytest.fixture(scope='session')
def cohort(home):
    "Six patients in the plain layout, all structures"
    done(call('atm_phantom', home / 'folder', '--patients', 6, '--seed', 3))
    return home / 'folder'


@pytest.fixture(scope='session')
def cache(cohort, home):
    "The cohort on small images: training and prediction take a fraction of a second a slice"
    done(call('atm_prepare', cohort, home / 'cache', '--size', 64))
    return home / 'cache'


@pytest.fixture(scope='session')
def run(cache, home):
    "ATM-Net after three steps, both stages"
    r = done(call('atm_train', cache, home / 'run', '--steps', 3, '--batch', 2))
    return SimpleNamespace(path=home / 'run', out=r.out, err=r.err)


@pytest.fixture(scope='session')
def unet(cache, home):
    "A network without text, after two steps"
    done(call('atm_train', cache, home / 'unet', '--model', 'unet', '--steps', 2, '--batch', 2))
    return home / 'unet'


@pytest.fixture(scope='session')
def scan(cache, cohort):
    "Image and mask of the test patient"
    from atm_net.data import Cache

    case = Cache(cache).cases('test')[0]
    return SimpleNamespace(
        case=case,
        image=cohort / 'images' / f'{case}.nii.gz',
        mask=cohort / 'masks' / f'{case}.nii.gz',
    )


@pytest.fixture
def scratch(tmp_path, scan):
    "A folder with a copy of the scan and its mask, to be spoilt"
    for k in ('image', 'mask'):
        shutil.copy(getattr(scan, k), tmp_path / f'{k}.nii.gz')
    return tmp_path


@pytest.fixture(scope='session')
def slab(cohort, home):
    "The cohort with every other of its ten middle slices: five for each patient"
    import SimpleITK as sitk

    folder = home / 'slab'
    for source in [*cohort.glob('images/*'), *cohort.glob('masks/*')]:
        image = sitk.ReadImage(str(source))
        first = (image.GetSize()[0] - 10) // 2
        target = folder / source.relative_to(cohort)
        target.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image[first : first + 10 : 2], str(target))
    for name in ('labels.yaml', 'cases.csv'):
        shutil.copy(cohort / name, folder)
    return folder


@pytest.fixture(scope='session')
def slab_cache(slab, home):
    "The slab on the grid of the weights that ship, 2 mm"
    done(call('atm_prepare', slab, home / 'slab_cache'))
    return home / 'slab_cache'


@pytest.fixture(scope='session')
def phantom_cache(home):
    "Six phantoms with all structures on pixels of 4 mm, made without a process of their own"
    from atm_net.anatomy import LUMBAR
    from atm_net.cache import prepare
    from atm_net.cohort import open_cohort
    from atm_net.data import Cache
    from atm_net.grid import Grid
    from atm_net.phantom_cohort import write_cohort

    write_cohort(home / 'six', 'folder', patients=6, seed=1)
    prepare(open_cohort(home / 'six', LUMBAR), home / 'six_cache', Grid(spacing=4.0))
    return Cache(home / 'six_cache')
