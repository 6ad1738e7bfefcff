"Real scans, where they are on disk"

import csv
import json
import os

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import REAL, call, done

pytestmark = pytest.mark.skipif(
    not REAL.is_dir(), reason='no real scans at ../shared/data/real_lumbar'
)


def state():
    return {
        str(p.relative_to(REAL)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in sorted(REAL.rglob('*'))
    }


@pytest.fixture(scope='module', autouse=True)
def untouched():
    "Nothing is written into the data folder"
    before = state()
    yield
    assert state() == before


def test_audit_finds_all_cases(tmp_path):
    r = done(call('atm_audit', REAL, '--json', tmp_path / 'a.json'))
    d = json.loads((tmp_path / 'a.json').read_text(encoding='utf-8'))
    assert (
        d['layout'] == 'mrspineseg'
        and d['cases'] == d['usable'] == 14
        and d['patients'] == 12
        and 'L4' in r.out
    )


def test_train_and_predict(tmp_path):
    "Three scans of three patients, two steps of training, a mask in the geometry of the scan"
    names = ('Case1', 'Case5', 'Case14')
    folder = tmp_path / 'three'
    for kind, stem in (('MR', '{}'), ('Mask', 'mask_{}')):
        (folder / 'train' / kind).mkdir(parents=True)
        for n in names:
            f = f'{stem.format(n if kind == "MR" else n.lower())}.nii.gz'
            os.symlink(REAL / 'train' / kind / f, folder / 'train' / kind / f)
    rows = {
        r['Case' if 'Case' in r else 'case']: r
        for r in csv.DictReader((REAL / 'cases.csv').open(encoding='utf-8'))
    }
    (tmp_path / 'annotated.csv').write_text(
        'case,labels\n' + ''.join(f'{n},{rows[n]["labels"]}\n' for n in names), encoding='utf-8'
    )
    done(
        call(
            'atm_prepare',
            folder,
            tmp_path / 'cache',
            '--size',
            64,
            '--annotated',
            tmp_path / 'annotated.csv',
        )
    )
    done(call('atm_train', tmp_path / 'cache', tmp_path / 'run', '--steps', 2, '--batch', 2))
    scan = REAL / 'train' / 'MR' / 'Case10.nii.gz'
    r = done(call('atm_predict', scan, tmp_path / 'm.nii.gz', '--weights', tmp_path / 'run'))
    a, b = (sitk.ReadImage(str(p)) for p in (scan, tmp_path / 'm.nii.gz'))
    assert a.GetSize() == b.GetSize()
    assert 'protocol generic' in r.out
    for f in ('GetSpacing', 'GetOrigin', 'GetDirection'):
        np.testing.assert_allclose(getattr(a, f)(), getattr(b, f)(), atol=1e-5)
