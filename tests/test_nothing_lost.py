"""No command overwrites what it did not write, and no two processes write in one folder"""

import os
import shutil
import signal
import subprocess
import sys
from inspect import signature
from types import SimpleNamespace

import pytest
from conftest import ROOT, call, complaint, console_scripts, done, function_of, shell, tree

from atm_net.cli import COMMANDS
from atm_net.core import LOCK, InputError, made_here, sole_writer, spare_files, spare_folder
from atm_net.nnunet import DATASET, to_nnunet
from atm_net.run_folder import open_run
from atm_net.study import is_study

MINE = 'what somebody wrote'
HOLD = """
import sys, time
from atm_net.core import sole_writer
with sole_writer(sys.argv[1]):
    print('held', flush=True)
    time.sleep(300)
"""


@pytest.fixture(scope='session')
def data(cohort, cache, run, slab, scan, home):
    "What commands read; the scan has five slices"
    done(call('atm_workshop', home / 'lesson', '--lesson', 1))
    lesson = next((home / 'lesson').glob('*.ipynb'))
    image, mask = (slab / f.relative_to(cohort) for f in (scan.image, scan.mask))
    names = dict(cohort=cohort, cache=cache, run=run.path, image=image, mask=mask, lesson=lesson)
    return SimpleNamespace(**names)


# name of the case -> command, its words, where a file of somebody lies in OUT
CASES = {
    'phantom': ('atm_phantom', 'OUT --patients 1', 'notes.txt'),
    'audit to JSON': ('atm_audit', '{cohort} --json OUT/a.json', 'a.json'),
    'audit to a page': ('atm_audit', '{cohort} --page OUT/a.html', 'a.html'),
    'prepare': ('atm_prepare', '{cohort} OUT --size 64', 'notes.txt'),
    'a mask': ('atm_predict', '{image} OUT/m.nii.gz --weights {run}', 'm.nii.gz'),
    'its picture': ('atm_predict', '{image} OUT/m.nii.gz --weights {run}', 'm.png'),
    'its record': ('atm_predict', '{image} OUT/m.nii.gz --weights {run}', 'm.nii.gz.json'),
    'its probabilities': (
        'atm_predict',
        '{image} OUT/m.nii.gz --weights {run} --probabilities',
        'm_probabilities.npz',
    ),
    'masks': ('atm_predict', '{image} OUT/ --weights {run}', '{image.name}'),
    'label tables': ('atm_predict', '{image} OUT/ --weights {run}', 'labels_joint.txt'),
    'measures as CSV': ('atm_measure', '{mask} --out OUT/t.csv', 't.csv'),
    'measures as JSON': ('atm_measure', '{mask} --out OUT/t.json', 't.json'),
    'train': ('atm_train', '{cache} OUT --steps 1 --batch 1', 'notes.txt'),
    'score': ('atm_score', '{mask} {mask} --out OUT', 'scores.md'),
    'evaluate': ('atm_evaluate', '{cache} {run} --protocols generic --out OUT', 'notes.txt'),
    'figures': ('atm_figures', '{cache} {run} --protocols generic --out OUT', 'notes.txt'),
    'study': ('atm_study', 'table4 {cache} OUT --steps 1 --batch 1', 'notes.txt'),
    'demo': ('atm_demo', '--out OUT', 'notes.txt'),
    'nnunet': ('atm_nnunet', '{cache} OUT', 'notes.txt'),
    'sample': ('atm_sample', 'OUT', 'SOURCE.txt'),
    'lessons': ('atm_workshop', 'OUT --lesson 1', '01_reading_mri.ipynb'),
    'outcomes': ('atm_workshop', 'OUT --check {lesson}', 'checks.csv'),
}
FOLDERS = ('phantom', 'prepare', 'train', 'study', 'demo', 'nnunet')  # filled over minutes
# not run to their end here
LONG = (
    'evaluate',
    'figures',
    'study',
    'demo',
    'nnunet',
    'sample',
    'its picture',
    'its record',
    'its probabilities',
)


def words(name, data, out) -> list:
    "The command line of a case"
    command, line, _ = CASES[name]
    return [command, *line.format(**vars(data)).replace('OUT', str(out)).split()]


def somebodys(name, data, out):
    "The file of somebody that lies in the way"
    path = out / CASES[name][2].format(**vars(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MINE, encoding='utf-8')
    return path


def test_every_command_that_writes_is_tried():
    tried = {command for command, _, _ in CASES.values()}
    assert tried == set(COMMANDS) - {'atm_prompt'}
    assert set(console_scripts()) == set(COMMANDS)
    for name in tried:
        force = signature(function_of(name)).parameters['force']
        assert force.default is False, name


@pytest.mark.parametrize('name', CASES)
def test_files_of_others_are_spared(name, data, tmp_path):
    "Status 2, one line that names --force, and nothing has changed"
    path = somebodys(name, data, tmp_path / 'out')
    line = complaint(call(*words(name, data, tmp_path / 'out')))
    assert '--force' in line and str(tmp_path / 'out') in line
    assert tree(tmp_path / 'out') == {str(path.relative_to(tmp_path / 'out')): MINE.encode()}


@pytest.mark.parametrize('name', [n for n in CASES if n not in LONG])
def test_force_writes_and_the_next_time_needs_none(name, data, tmp_path):
    "What lay in the way is overwritten, what did not is kept; own results are written again"
    out = tmp_path / 'out'
    path = somebodys(name, data, out)
    (out / 'mine.txt').write_text(MINE, encoding='utf-8')
    done(call(*words(name, data, out), '--force'))
    assert (out / 'mine.txt').read_text(encoding='utf-8') == MINE
    in_the_way = path.name != 'notes.txt'
    assert (path.read_bytes() == MINE.encode()) is not in_the_way
    assert not list(out.rglob(LOCK))
    if in_the_way and name != 'lessons':  # students work in lessons: they are never ours again
        done(call(*words(name, data, out)))


def test_a_sample_keeps_what_is_there(tmp_path):
    from atm_net.sample import SPIDER_CREDIT, fetch_sample

    for part in ('images', 'masks'):
        (tmp_path / part).mkdir()
        (tmp_path / part / '42_t2.mha').write_text(MINE, encoding='utf-8')
    note = tmp_path / 'SOURCE.txt'
    note.write_text(MINE, encoding='utf-8')
    fetch_sample(tmp_path, '42_t2', force=True)
    assert SPIDER_CREDIT in note.read_text(encoding='utf-8')
    assert (tmp_path / 'images' / '42_t2.mha').read_text(encoding='utf-8') == MINE
    fetch_sample(tmp_path, '42_t2')


def test_a_corrected_mask_is_spared(data, tmp_path):
    "A person mends a mask of `atm_predict`; the same command does not throw that away"
    line = words('a mask', data, tmp_path)
    done(call(*line))
    done(call(*line))
    mask = tmp_path / 'm.nii.gz'
    mask.write_bytes(data.mask.read_bytes())
    assert '--force' in complaint(call(*line))
    assert mask.read_bytes() == data.mask.read_bytes()
    done(call(*line, '--force'))
    assert mask.read_bytes() != data.mask.read_bytes()


def test_a_prediction_that_was_stopped_goes_on(data, tmp_path):
    "The record is written first: without the sum of its mask it says that the rest is ours"
    line = words('a mask', data, tmp_path)
    done(call(*line))
    record = tmp_path / 'm.nii.gz.json'
    text = record.read_text(encoding='utf-8').replace('"mask_sha256"', '"was"')
    record.write_text(text, encoding='utf-8')
    done(call(*line))


@pytest.mark.parametrize('name', FOLDERS)
def test_a_file_in_place_of_a_folder(name, data, tmp_path):
    out = tmp_path / 'out'
    out.write_text(MINE, encoding='utf-8')
    line = complaint(call(*words(name, data, out), '--force'))
    assert 'is a file' in line and out.read_text(encoding='utf-8') == MINE


def test_signs(tmp_path):
    "What a command takes for its own"
    f = tmp_path / 'f.json'
    for text, own in (
        ('{"a": 1, "b": 2}', True),
        ('[{"a": 1, "b": 2}]', False),
        ('[]', False),
        ('{"a": 1}', False),
        ('3', False),
        ('no JSON', False),
    ):
        f.write_text(text, encoding='utf-8')
        assert made_here(f, 'a', 'b') is own, text
    for text, own in (
        ('[{"a": 1}, {"a": 2}]', True),
        ('[{"a": 1}, 3]', False),
        ('{"a": 1}', False),
    ):
        f.write_text(text, encoding='utf-8')
        assert made_here(f, 'a', rows=True) is own, text
    assert not made_here(tmp_path / 'none.json', 'a')
    with pytest.raises(InputError, match='is a folder'):
        spare_files([tmp_path], own=True, force=True)
    with pytest.raises(InputError, match='is a file'):
        spare_folder(f, own=True, force=True)


def test_a_link_that_leads_nowhere_is_somebodys(tmp_path):
    (tmp_path / 'link').symlink_to(tmp_path / 'gone')
    with pytest.raises(InputError, match='--force'):
        spare_files([tmp_path / 'link'], own=False)


# --- one writer at a time


@pytest.fixture
def holder(tmp_path):
    "Another process that writes in OUT"
    p = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path / 'out')],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert p.stdout.readline() == 'held\n'
    yield p
    p.kill()
    p.communicate()


def test_a_second_process_is_refused(holder, data, tmp_path):
    "By every command that fills a folder; the folder stays as it is"
    for name in FOLDERS:
        line = complaint(call(*words(name, data, tmp_path / 'out')))
        assert 'another process is writing here' in line, name
    assert set(tree(tmp_path / 'out')) == {LOCK}


def test_the_lock_of_a_killed_process_is_stale(holder, data, tmp_path):
    "kill -9 leaves the file; the next process takes the lock, and leaves none"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / 'out' / LOCK).exists()
    done(shell('atm_phantom', tmp_path / 'out', '--patients', 1))
    assert not (tmp_path / 'out' / LOCK).exists()


def test_a_writer_that_wrote_nothing_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_writer(tmp_path / 'new'):
        raise ZeroDivisionError
    (tmp_path / 'old').mkdir()
    with sole_writer(tmp_path / 'old'):
        pass
    assert [f.name for f in tmp_path.iterdir()] == ['old']
    with sole_writer(tmp_path / 'old'):
        (tmp_path / 'old' / 'result').touch()
    assert [f.name for f in (tmp_path / 'old').iterdir()] == ['result']


def test_a_writer_spares_a_folder_of_somebody(tmp_path):
    (tmp_path / 'notes.txt').write_text(MINE, encoding='utf-8')
    with pytest.raises(InputError, match='is not empty'), sole_writer(tmp_path, own=False):
        pass
    assert [f.name for f in tmp_path.iterdir()] == ['notes.txt']
    with sole_writer(tmp_path, own=False, force=True):
        assert (tmp_path / LOCK).exists()


@pytest.mark.parametrize(
    'name', ['.m.nii.gz.123.abcdef.nii.gz', '.a.json.9.012345.json', '.tmpab12cd']
)
def test_what_a_killed_process_left_is_nobodys(name, tmp_path):
    (tmp_path / name).touch()
    spare_folder(tmp_path, own=False)


def test_a_folder_with_runs_of_somebody_is_no_study(run, tmp_path):
    (tmp_path / 'runs' / 'mine').mkdir(parents=True)
    assert is_study(tmp_path)  # stopped before its first step
    (tmp_path / 'runs' / 'mine' / 'notes.txt').touch()
    assert not is_study(tmp_path)
    shutil.copy(run.path / 'config.json', tmp_path / 'runs' / 'mine')
    assert is_study(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='cannot be made'), sole_writer(tmp_path / 'file' / 'out'):
        pass


def test_checkpoints_beside_a_broken_config_are_spared(tmp_path):
    "Not even --force starts a new run over them; the message has the right remedy"
    (tmp_path / 'checkpoints').mkdir()
    point = tmp_path / 'checkpoints' / 'step-0000007.safetensors'
    point.write_text(MINE, encoding='utf-8')
    (tmp_path / 'config.json').write_text('{"config": ', encoding='utf-8')
    for force in (False, True):
        with pytest.raises(InputError, match='config.json: is not JSON'):
            open_run(tmp_path, None, None, resume=True, force=force)
    assert point.read_text(encoding='utf-8') == MINE


def test_a_dataset_of_somebody_is_no_export(phantom_cache, tmp_path):
    mine = tmp_path / 'raw' / DATASET / 'imagesTr' / 'mine.nii.gz'
    mine.parent.mkdir(parents=True)
    mine.write_text(MINE, encoding='utf-8')
    for _ in range(2):
        with pytest.raises(InputError, match='is no export of this command'):
            to_nnunet(phantom_cache, tmp_path, force=True)
    assert mine.read_text(encoding='utf-8') == MINE and not (tmp_path / 'nnunet.json').exists()
