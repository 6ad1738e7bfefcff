"A preparation that is killed, doubled, or out of space, and what it leaves"

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from functools import partial

import pytest
from conftest import ROOT, tree
from test_audit import toy

from atm_net.anatomy import LUMBAR
from atm_net.core import LOCK, sole_writer

N = 10
GO = """
import sys
from atm_net.anatomy import LUMBAR
from atm_net.cache import prepare
from atm_net.cohort import open_cohort
from atm_net.grid import Grid
prepare(open_cohort(sys.argv[1], LUMBAR), sys.argv[2], Grid(size=int(sys.argv[3])))
"""


def start(cohort, cache, size=96, code=GO, **kw):
    return subprocess.Popen(
        [sys.executable, '-c', code, str(cohort), str(cache), str(size)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **kw,
    )


def finished(p, timeout=120):
    "Wait for a process that must succeed; returns what it printed"
    out, err = p.communicate(timeout=timeout)
    assert p.returncode == 0, err
    return out


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    d = toy(tmp_path_factory.mktemp('toys'), [f'c{k:02}' for k in range(N)])
    (d / 'labels.yaml').write_text(
        ''.join(f'{v}: {n}\n' for n, v in LUMBAR.scheme('joint').values.items()), encoding='utf-8'
    )
    return d


@pytest.fixture(scope='module')
def whole(toys, tmp_path_factory):
    "What an unbroken run leaves"
    d = tmp_path_factory.mktemp('whole') / 'cache'
    finished(start(toys, d))
    return tree(d)


def kept(folder):
    return {
        k: v
        for k, v in tree(folder).items()
        if k != LOCK and not k.rpartition('/')[2].startswith('.')
    }  # a killed run leaves its lock, and perhaps a temporary file: the next run removes them


def kill_when(p, ready, delay=0.0, timeout=90):
    "kill -9 a moment after `ready()`; True if it was still at work"
    limit = time.time() + timeout
    while not ready() and p.poll() is None:
        assert time.time() < limit
        time.sleep(0.001)
    time.sleep(delay)
    alive = p.poll() is None
    p.kill()
    p.communicate()
    return alive


def killed_runs(toys, cache, whole, moments, seed):
    """Kill at each of the moments (number of finished cases), look at what is there, then let it
    finish; returns how many kills came in time"""
    rng = random.Random(seed)
    hits = 0

    def has_finished(n):
        metas = list((cache / 'meta').glob('[!.]*.json'))
        return (cache / 'cache.json').exists() and len(metas) >= n

    for n in moments:
        hits += kill_when(start(toys, cache), partial(has_finished, n), rng.random() * 0.03)
        left = kept(cache)
        assert all(whole[k] == v for k, v in left.items()), (
            'a file that is not whole, or not the same'
        )
        done_ = {k.split('/')[1][:-5] for k in left if k.startswith('meta/')}
        assert all({f'images/{i}.npy', f'labels/{i}.npy'} <= set(left) for i in done_)
    before = {f: f.stat().st_mtime_ns for f in (cache / 'meta').glob('[!.]*.json')}
    finished(start(toys, cache))
    assert {f: f.stat().st_mtime_ns for f in before} == before, 'a finished case was made again'
    return hits


def test_killed_at_random_moments(toys, whole, tmp_path):
    """kill -9 at the start, in the middle and near the end: nothing half-written, and the same
    bytes in the end"""
    hits = killed_runs(toys, tmp_path / 'c', whole, (0, 3, N - 1), 0)
    assert hits and kept(tmp_path / 'c') == whole


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(3))
def test_killed_at_every_case(toys, whole, tmp_path, seed):
    hits = killed_runs(toys, tmp_path / 'c', whole, range(N), seed)
    assert hits and kept(tmp_path / 'c') == whole


def test_two_runs_at_once(toys, whole, tmp_path):
    "Two processes on one cache: the second is refused, and the first ends as if alone"
    with sole_writer(tmp_path / 'c'):
        second = start(toys, tmp_path / 'c')
        assert 'another process is writing here' in second.communicate(timeout=120)[1]
    finished(start(toys, tmp_path / 'c'))
    assert tree(tmp_path / 'c') == whole


def small_files(limit=6000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def test_no_space_left(toys, whole, tmp_path):
    """A file that cannot grow as it must, as on a full disk: status 2, one line with the file,
    no case is blamed, nothing half-written; with space it goes on"""
    code = """
import sys
from atm_net.cli import run_command
from atm_net.predict_command import atm_prepare
run_command(atm_prepare.__wrapped__, [*sys.argv[1:3], '--size', sys.argv[3]])
"""
    p = start(toys, tmp_path / 'c', code=code, preexec_fn=small_files)
    _, err = p.communicate(timeout=120)
    lines = [line for line in err.splitlines() if line.strip()]
    assert (
        p.returncode == 2
        and len(lines) == 1
        and 'images/c00.npy: cannot be written' in lines[0]
        and 'check the disk space' in lines[0]
    ), err
    assert set(tree(tmp_path / 'c')) == {'cache.json'}
    p = start(toys, tmp_path / 'c', code=code)
    finished(p)
    assert tree(tmp_path / 'c') == whole


def test_the_split_is_written_down(toys, whole, tmp_path):
    "Seed and parts are in the manifest, and another seed gives other parts of the same pixels"
    code = GO.replace('size=int(sys.argv[3])))', 'size=int(sys.argv[3])), seed=7)')
    finished(start(toys, tmp_path / 'c', code=code))
    a, b = (
        json.loads(x)
        for x in (
            whole['manifest.json'],
            (tmp_path / 'c' / 'manifest.json').read_text(encoding='utf-8'),
        )
    )
    assert (
        (a['seed'], b['seed']) == (0, 7)
        and {c['id']: c['part'] for c in a['cases']} != {c['id']: c['part'] for c in b['cases']}
        and len(a['strata']) == 1
        and a['strata'][0][1:] == [8, 1, 1]
    )
    other = tree(tmp_path / 'c')
    assert all(other[k] == v for k, v in whole.items() if k.endswith('.npy'))


# ru_maxrss would begin with the peak of pytest
PEAK = f"""{GO}
import re
print('PEAK', re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.exists('/proc/self/status'), reason='peak memory is read from /proc'
)
def test_memory_does_not_grow_with_the_cohort(toys, tmp_path):
    "The peak of 160 cases is that of 10, but for the lines of the manifest"
    many = shutil.copytree(toys, tmp_path / 'many')
    for k in range(15):
        for kind in ('images', 'masks'):
            for n in range(N):
                os.link(toys / kind / f'c{n:02}.nii.gz', many / kind / f'x{k:02}{n}.nii.gz')

    def peak(d, c):
        return int(finished(start(d, c, code=PEAK), 300).rpartition('PEAK')[2]) / 1024

    few, lots = peak(toys, tmp_path / 'few'), peak(many, tmp_path / 'lots')
    assert lots - few < 15, f'{few:.0f} MB, {lots:.0f} MB'
