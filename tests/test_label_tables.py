"Masks of other programs: read by name, found by their order, never taken for SPIDER's"

import numpy as np
import pytest

from atm_net.anatomy import IGNORE, LUMBAR
from atm_net.core import InputError
from atm_net.geometry import new_geometry
from atm_net.label_tables import TABLES, Held, disorder, foreign_values, mask_scheme
from atm_net.mask_files import file_scheme, fitting_schemes, mask_values, read_mask, side_schemes
from atm_net.volumes import write_labels

JOINT = LUMBAR.scheme('joint')
BODIES = ('T9', 'T10', 'T11', 'T12', 'L1', 'L2', 'L3', 'L4', 'L5', 'S')
PLACE = new_geometry((2, 200, 30), (4.0, 1.5, 1.25))


def column(values: dict, canal=None) -> np.ndarray:
    "Structures from head to feet (s, h, w), 10 rows a body, 6 a disc"
    labels = np.zeros((2, 200, 30), int)
    row = 2
    for name in LUMBAR.top_down:
        if LUMBAR[name].kind == 'canal':
            continue
        high = 6 if LUMBAR[name].kind == 'disc' else 10
        labels[:, row : row + high, 5:15] = values.get(name, 0)
        row += high
    if canal:
        labels[:, 2:198, 20:24] = canal
    return labels


def saved(tmp_path, labels, name='m.nii.gz'):
    write_labels(labels, PLACE, tmp_path / name)
    return tmp_path / name


def test_the_tables_name_each_structure_once():
    for name, table in TABLES.items():
        assert set(table.values) <= set(LUMBAR.names), name
        values = [*table.values.values(), *table.alias]
        assert len(set(values)) == len(values), name
        assert not set(values) & table.others, name
    assert mask_scheme('spineps', LUMBAR).values['L4/L5'] == 123
    assert mask_scheme('totalspineseg', LUMBAR).values['L5/S'] == 100
    assert mask_scheme('totalspineseg-2024', LUMBAR).values['T9/T10'] == 210
    assert mask_scheme('totalsegmentator-mr', LUMBAR).values['T9'] == 10
    assert mask_scheme('totalsegmentator', LUMBAR).values['L1'] == 31
    with pytest.raises(InputError, match='use one of joint, .*spineps'):
        mask_scheme('spine', LUMBAR)


@pytest.mark.parametrize('name', TABLES)
def test_read_by_name(tmp_path, name):
    scheme = mask_scheme(name, LUMBAR)
    table = TABLES[name]
    labels = column(scheme.values, scheme.values.get('SC'))
    other = max(table.others)
    labels[0, 199, 29] = other
    path = saved(tmp_path, labels)
    assert file_scheme(name, [path], LUMBAR).values == scheme.values
    for truth in (True, False):
        channels = read_mask(path, scheme, truth)[1]
        assert channels[0, 199, 29] == IGNORE
        np.testing.assert_array_equal(scheme.decode(channels), np.where(labels == other, 0, labels))


@pytest.mark.parametrize('name', ['spineps', 'totalspineseg', 'totalspineseg-2024'])
def test_found_by_its_values(tmp_path, name, capsys):
    scheme = mask_scheme(name, LUMBAR)
    path = saved(tmp_path, column(scheme.values))
    assert file_scheme(None, [path], LUMBAR).name == name
    assert f"the values are those of '{name}'" in capsys.readouterr().err


def test_levels_that_only_the_order_tells_apart(tmp_path):
    "3 to 12: L4 to T9 and two discs for us, L4 to T7 for TotalSegmentator"
    labels = np.zeros(PLACE.shape, int)
    for k, value in enumerate(range(12, 2, -1)):
        labels[:, 2 + 19 * k : 17 + 19 * k, 5:15] = value
    held = mask_values([saved(tmp_path, labels)])
    assert [s.name for s in side_schemes(held, LUMBAR)] == ['totalsegmentator-mr']
    assert disorder(Held(labels), JOINT) == 'L4/L5 would lie above L4'


def test_our_own_come_first(tmp_path):
    for name in ('joint', 'mrspineseg', 'spider'):
        scheme = LUMBAR.scheme(name)
        held = Held(column(scheme.values, scheme.values.get('SC')))
        want = 'joint' if name == 'mrspineseg' else name
        assert fitting_schemes(held, LUMBAR)[0].name == want


def test_upside_down_is_refused(tmp_path):
    path = saved(tmp_path, column(JOINT.values)[:, ::-1])
    with pytest.raises(InputError, match="by scheme 'joint' .* would lie above .*--labels"):
        file_scheme(None, [path], LUMBAR)
    assert file_scheme('joint', [path], LUMBAR).name == 'joint'  # named is not guessed
    held = mask_values([path])
    assert side_schemes(held, LUMBAR, strict=False)[0].name == 'joint'  # a poor prediction


def test_one_structure_out_of_place_is_no_other_table():
    labels = column(JOINT.values)
    labels[labels == JOINT.values['L3']] = 0
    labels[:, 190:196, 18:22] = JOINT.values['L3']
    assert disorder(Held(labels), JOINT) == ''


def test_the_cord_is_in_the_canal():
    scheme = mask_scheme('spineps', LUMBAR)
    assert foreign_values(scheme, [0, 20, 60, 61, 203]) == ([203], {60: 'SC'})
    assert foreign_values(JOINT, [60]) == ([], {})


def test_255_counts_for_nothing(tmp_path):
    labels = column(JOINT.values)
    labels[0] = IGNORE
    path = saved(tmp_path, labels)
    assert file_scheme(None, [path], LUMBAR).name == 'joint'
    volume, channels = read_mask(path, JOINT)
    assert (channels[0] == IGNORE).all() and channels[1].max() < 21
    assert 'value 255' in volume.notes[0]
