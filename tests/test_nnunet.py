"The real nnU-Net v2 between our export and our scores"

import json
import os
import sys
from pathlib import Path

import pytest
from conftest import call, done

from atm_net.core import InputError
from atm_net.nnunet import atm_nnunet

PYTHON = os.environ.get('ATM_NET_NNUNET', sys.executable)  # the python that has nnunetv2


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(PYTHON).parent / 'nnUNetv2_train').exists(),
    reason="no nnunetv2: pip install 'atm_net[nnunet]', or name its python in ATM_NET_NNUNET",
)
def test_real_nnunet(tmp_path):
    """Planned, trained for two short epochs, predicted and scored; taken up without doing
    anything twice; then a row beside a study's"""
    done(call('atm_phantom', tmp_path / 'data', '--patients', 6, '--seed', 3, '--view', 120))
    done(call('atm_prepare', tmp_path / 'data', tmp_path / 'cache', '--split', '4:1:1'))
    args = (
        'atm_nnunet',
        tmp_path / 'cache',
        tmp_path / 'nn',
        '--epochs',
        2,
        '--iterations',
        3,
        '--memory',
        1,
        '--python',
        PYTHON,
    )
    r = done(call(*args))
    s = json.loads((tmp_path / 'nn' / 'scores.json').read_text(encoding='utf-8'))
    first = s['summary']
    assert (
        'nnU-Net v2' in r.out
        and list((tmp_path / 'nn' / 'results').rglob('checkpoint_final.pth'))
        and first['parameters'] > 1e5
        and (first['grid'], first['protocol']) == ('source', 'none')
    )
    assert len(s['volumes']) == 1 and any(
        r['dsc'] is not None for v in s['volumes'].values() for r in v.values()
    )
    log = (tmp_path / 'nn' / 'logs' / 'train.txt').stat().st_mtime_ns
    done(call(*args, '--grid', 'cache'))
    assert (tmp_path / 'nn' / 'logs' / 'train.txt').stat().st_mtime_ns == log
    from atm_net.data import Cache
    from atm_net.study_runs import read_beside

    assert list(
        read_beside(
            str(tmp_path / 'nn' / 'scores.json'), Cache(tmp_path / 'cache'), 'test', 'cache'
        )
    ) == ['nnU-Net v2']


def test_the_grid_is_checked_first(tmp_path):
    from atm_net.core import InputError
    from atm_net.nnunet import atm_nnunet

    with pytest.raises(InputError, match='use source or cache'):
        atm_nnunet(str(tmp_path / 'cache'), str(tmp_path / 'other'), grid='voxels')
    assert not (tmp_path / 'other').exists()


def test_a_python_without_nnunet(tmp_path):
    done(call('atm_phantom', tmp_path / 'data', '--patients', 3, '--seed', 3, '--view', 120))
    done(call('atm_prepare', tmp_path / 'data', tmp_path / 'cache'))
    missing = str(tmp_path / 'nowhere' / 'python')
    with pytest.raises(InputError, match=r'atm_net\[nnunet\]'):
        atm_nnunet(str(tmp_path / 'cache'), str(tmp_path / 'out'), python=missing)
