"benchmarks/development.py: figures of a set of scans, by hand"

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

from atm_net.anatomy import LUMBAR

sys.path.insert(0, str(ROOT / 'benchmarks'))
import development as dv

JOINT = LUMBAR.scheme('joint')
NAN = float('nan')


def volume(**changes):
    "A volume that is right in all respects"
    dice = dict.fromkeys(('exact', 'pixel', 'typed', 'complete', 'any'), 0.8)
    off = dict.fromkeys(('off', 'pixel off', 'typed off', 'complete off'), False)
    return dice | off | dict(volume=1.2) | changes


def test_means_and_counts():
    mended = volume(exact=0.4, **{'pixel off': True})
    lost = volume(**{'off': True, 'pixel off': True, 'typed off': True})
    f = dv.set_figures([volume(), mended, lost])
    assert (f['volumes'], f['off'], f['pixel off'], f['typed off']) == (3, 1, 2, 1)
    assert (f['mended'], f['mended complete']) == (1, 2)
    assert f['exact'] == pytest.approx(100 * (0.8 + 0.4 + 0.8) / 3)
    assert f['volume'] == pytest.approx(1.2)  # a ratio stays one


def test_what_no_volume_has():
    f = dv.set_figures([volume(any=NAN), volume(any=NAN)])
    assert f['any'] is None
    assert '–' in dv.markdown({'w': {'discs': f}})


def test_vertebrae_count_between_the_true_ends():
    truth = np.zeros((2, 12, 5), np.uint8)
    truth[0, 3:6, 1:4] = JOINT.channel('L4')
    truth[0, 7:9, 1:4] = JOINT.channel('L5')
    labels = truth.copy()
    labels[0, 0:2, 1:4] = JOINT.channel('L3')  # above what is annotated
    labels[0, 6, 1:4] = JOINT.channel('L5')  # in a true gap
    labels[1, 3:6, 1:4] = JOINT.channel('L4')  # in a slice without a true body
    pred, true = dv.vertebrae(labels, SimpleNamespace(truth=truth), JOINT)
    assert (int(true.sum()), int(pred.sum())) == (15, 18)


def test_tables_of_sets_and_slices():
    sets = dict(scans=dv.set_figures([volume()]))
    counts = {'slices': 40, 'discs right': 25, 'sacrum': 38}
    text = dv.markdown({'weights': sets | dict(slices=counts)})
    assert '| weights | scans: 1 | 80.0 | 80.0 | 0 | 1.20 |' in text
    assert '| weights | 25 | 38 | 40 |' in text
