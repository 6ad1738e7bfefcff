"A wheel in an empty environment, run from another folder, finds what ships"

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, done
from notebooks import LESSONS


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    "The wheel of a copy of the tree, installed into an empty folder"
    t = tmp_path_factory.mktemp('wheel')
    src = t / 'src'
    src.mkdir()
    for f in ('settings.ini', 'setup.py', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / f, src)
    shutil.copytree(ROOT / 'atm_net', src / 'atm_net', ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copytree(ROOT / 'nbs' / 'workshop', src / 'nbs' / 'workshop')

    def pip(*a):
        return done(
            subprocess.run(
                [sys.executable, '-m', 'pip', '--disable-pip-version-check', *map(str, a)],
                check=False,
                capture_output=True,
                text=True,
                timeout=150,
                cwd=t,
            )
        )

    pip('wheel', src, '--no-deps', '--no-build-isolation', '-w', t)
    (whl,) = t.glob('atm_net-*.whl')
    pip('install', '--no-deps', '--no-index', '--target', t / 'target', whl)
    shutil.rmtree(src)
    return t / 'target'


def python(installed, code, cwd, timeout=150):
    "Run code against the installed package, from elsewhere"
    return done(
        subprocess.run(
            [sys.executable, '-c', code],
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            env=os.environ | dict(PYTHONPATH=str(installed)),
        )
    )


def test_encoder_comes_from_the_wheel(installed, tmp_path):
    code = """
import atm_net
from atm_net.text import load_encoder
states, mask = load_encoder('spine_bert_tiny')(['An MRI with L4.'], 16)
print(atm_net.__file__)
print(tuple(states.shape), int(mask.sum()))
"""
    out = python(installed, code, tmp_path).out.split('\n')
    assert (
        out[0].startswith(str(installed))
        and out[1].startswith('(1, 16, 128)')
        and not list(tmp_path.iterdir())
    )


def test_lessons_come_with_the_wheel(installed, tmp_path):
    code = "from atm_net.workshop import atm_workshop; atm_workshop('out')"
    python(installed, code, tmp_path)
    written = sorted(p.name for p in (tmp_path / 'out').iterdir())
    assert written == [p.name for p in LESSONS]


def test_every_asset_is_in_the_wheel(installed):
    def assets(root):
        return {
            str(p.relative_to(root))
            for p in (root / 'atm_net' / 'assets').rglob('*')
            if p.is_file() and '__pycache__' not in p.parts
        }

    assert assets(installed) == assets(
        ROOT
    ) and 'atm_net/assets/spine_bert_tiny/tokenizer.json' in assets(installed)

    def modules(root):
        return {p.name for p in (root / 'atm_net').glob('*.py')}

    assert modules(installed) == modules(ROOT)


@pytest.mark.slow
def test_shipped_weights_segment_from_the_wheel(installed, scan, tmp_path):
    "The model that ships, named by nobody"
    assert (installed / 'atm_net' / 'assets' / 'atm_net_tiny' / 'weights.safetensors').is_file(), (
        'no weights ship: atm_net/assets/atm_net_tiny/weights.safetensors'
    )
    code = f"""
from atm_net.predict import SHIPPED, segment
p = segment({str(scan.image)!r})
print(SHIPPED)
print(p.protocol, p.scheme.name, p.labels.shape)
"""
    out = python(installed, code, tmp_path).out.split('\n')
    assert out[0].startswith(str(installed)) and out[1].startswith('generic joint')
    from atm_net.volumes import read_labels

    run = """
import sys
from atm_net.cli import run_command
from atm_net.predict_command import atm_predict
run_command(atm_predict.__wrapped__, sys.argv[1:])
"""
    done(
        subprocess.run(
            [sys.executable, '-c', run, str(scan.image), str(tmp_path / 'm.nii.gz')],
            check=False,
            capture_output=True,
            text=True,
            timeout=150,
            cwd=tmp_path,
            env=os.environ | dict(PYTHONPATH=str(installed)),
        )
    )
    found, truth = (read_labels(f).data for f in (tmp_path / 'm.nii.gz', scan.mask))
    assert found.max() <= 20, 'the shipped model writes joint'
    a, b = ((x >= 2) & (x <= 10) for x in (found, truth))
    dice = 2 * (a & b).sum() / (a.sum() + b.sum())
    assert dice > 0.6, f'the shipped model finds vertebrae with Dice {dice:.2f}: no trained model'
