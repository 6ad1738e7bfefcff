"Parts that people bring: the examples of the how-to pages, run as they stand, and what is refused"

import re
import shlex
import shutil
import sys

import pytest
from conftest import ROOT, call, done
from test_anatomy import draw_knee

from atm_net.anatomy import LUMBAR, get_anatomy
from atm_net.cohort import open_cohort
from atm_net.core import InputError
from atm_net.geometry import new_geometry
from atm_net.volumes import write_labels, write_volume

BLOCK = re.compile(r'```(\w+)\n(.*?)```', re.S)


def python_files(page: str) -> dict:  # name -> text
    "The modules that a page writes: each is named before its block"
    text = (ROOT / 'docs' / 'howto' / page).read_text(encoding='utf-8')
    return dict(re.findall(r'`(\w+\.py)`[^`]*?```python\n(.*?)```', text, re.S))


def commands(page: str) -> list:  # of lists of words
    "The commands of a page that use what it writes"
    text = (ROOT / 'docs' / 'howto' / page).read_text(encoding='utf-8')
    lines = '\n'.join(code for kind, code in BLOCK.findall(text) if kind == 'bash').splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if 'PYTHONPATH=.' in line]


@pytest.fixture
def place(tmp_path, monkeypatch):
    "A folder on the path, in which commands run; its modules are forgotten afterwards"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], '__file__', '')):
            del sys.modules[name]


def write_modules(place, page):
    for name, text in python_files(page).items():
        (place / name).write_text(text, encoding='utf-8')


def run_page(page, matching: str, *options):
    "Run the commands of a page that hold a word; options go to those that train"
    ran = [words for words in commands(page) if matching in ' '.join(words)]
    assert ran
    for words in ran:
        done(call(*words, *(options if words[0] == 'atm_train' else ())))


def test_a_layout(place, slab):
    write_modules(place, 'data.md')
    for image in slab.glob('images/*'):
        folder = place / 'exports' / image.name.split('.')[0]
        folder.mkdir(parents=True)
        shutil.copy(image, folder / 't2.nii.gz')
        shutil.copy(slab / 'masks' / image.name, folder / 'spine.nii.gz')
    run_page('data.md', 'exports')
    cases = open_cohort(place / 'exports', LUMBAR, 'hospital:by_patient', 'joint').cases
    assert {c.id for c in cases} == {p.name.split('.')[0] for p in slab.glob('images/*')}
    (place / 'hospital.py').unlink()  # the cache does without it
    done(call('atm_train', 'cache', 'run', '--steps', 1, '--batch', 1, '--windows', 64))


def test_an_anatomy(place):
    write_modules(place, 'data.md')
    for k in range(1, 4):
        image, mask = draw_knee(k)
        geometry = new_geometry(image.shape, (4.0, 2.0, 2.0), 'LPS')
        for kind in ('images', 'masks'):
            (place / 'knees' / kind).mkdir(parents=True, exist_ok=True)
        write_volume(image, geometry, place / 'knees' / 'images' / f'case{k}.nii.gz')
        mask = (mask % 4).astype(mask.dtype)  # the page has no patella, draw_knee's value 1
        write_labels(mask, geometry, place / 'knees' / 'masks' / f'case{k}.nii.gz')
    run_page('data.md', 'knee', '--steps', 1, '--batch', 1)
    assert get_anatomy('knee:KNEE').names == ('femur', 'tibia', 'PCL')


def test_a_backbone(place, cache):
    write_modules(place, 'network.md')
    (place / 'cache').symlink_to(cache)
    run_page('network.md', 'mynet', '--steps', 1, '--batch', 1)
    assert 'mynet:Net' in (place / 'runs' / 'own' / 'config.json').read_text('utf-8')


def test_an_encoder(place, cache):
    done(
        call(
            'atm_train', cache, place / 'bits', '--encoder', 'atm_net.level_bits:LevelBits',
            '--steps', 1, '--batch', 1,
        )
    )  # fmt: skip


LAYOUTS = """
from atm_net.cohort import OwnCase
def none(root): return []
def fails(root): return [1 / 0]
def absent(root): return [OwnCase('a', 'a', root / 'no.nii')]
def twice(root): return [OwnCase('a', 'a', root), OwnCase('A', 'b', root)]
def nameless(root): return [OwnCase('', 'a', root)]
def in_a_folder(root): return [OwnCase('a/b', 'a', root)]
def short(root): return [('a',)]
def numbers(root): return [OwnCase(1, 7, root)]
def bare(root): return [OwnCase('a', 'a', None)]
number = 3
"""


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('none', 'finds no case'),
        ('fails', r'fails: ZeroDivisionError: division by zero \(layouts.py, line 4\)'),
        ('absent', "case 'a': .*no.nii does not exist"),
        ('twice', "case 'A': occurs twice"),
        ('nameless', 'id and patient must be text'),
        ('in_a_folder', 'the id no folder or ending'),
        ('numbers', 'id and patient must be text'),
        ('bare', 'has no image'),
        ('short', 'missing 2 required positional arguments'),
        ('number', "'int' object is not callable"),
        ('nothing', "'layouts' has no 'nothing'"),
    ],
)
def test_a_layout_that_is_refused(name, said, place):
    (place / 'layouts.py').write_text(LAYOUTS, encoding='utf-8')
    for command in ('atm_audit', 'atm_prepare'):
        more = (place / 'cache',) if command == 'atm_prepare' else ()
        r = call(command, place, *more, '--layout', f'layouts:{name}', '--labels', 'joint')
        assert r.status == 2 and len(r.err.strip().splitlines()) == 1
        assert re.search(said, r.err)
    assert not (place / 'cache').exists()


def test_an_unknown_layout(place):
    r = call('atm_audit', place, '--layout', 'nowhere')
    assert r.status == 2
    assert "layout 'nowhere' is unknown: use one of spider, mrspineseg, folder, auto" in r.err


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('KNEE = 3', 'is a int'),
        ("KNEE = dict(name='knee')", r'own:KNEE: field\(s\) image, structures, top_down missing'),
        ('', "'own' has no 'KNEE'"),
        ('import nosuchdep', "there is no module 'nosuchdep': install its package"),
        ('raise ModuleNotFoundError("install timm first")', 'fails: .*: install timm first'),
        (
            'def __getattr__(name): import nosuchdep',
            r"No module named 'nosuchdep' \(own.py, line 1",
        ),
    ],
)
def test_an_anatomy_that_is_refused(text, said, place):
    (place / 'own.py').write_text(text, encoding='utf-8')
    with pytest.raises(InputError, match=said):
        get_anatomy('own:KNEE')
