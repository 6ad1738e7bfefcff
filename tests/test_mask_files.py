"Which scheme a mask file holds, what is refused, and what is said where the values leave a choice"

import numpy as np
import pytest

from atm_net.anatomy import IGNORE, LUMBAR, convert, get_anatomy
from atm_net.core import InputError
from atm_net.geometry import new_geometry
from atm_net.mask_files import (
    choice_note,
    file_scheme,
    fitting_schemes,
    guess_scheme,
    mask_values,
    read_mask,
    side_schemes,
    value_names,
)
from atm_net.volumes import write_labels

JOINT = LUMBAR.scheme('joint')
SPIDER = LUMBAR.scheme('spider')
MM = (4.0, 1.5, 1.25)


def spine() -> np.ndarray:
    "Joint channels (s, h, w): L3 to S, and the canal"
    labels = np.zeros((3, 40, 12), np.uint8)
    for i, name in enumerate(('L3', 'L3/L4', 'L4', 'L4/L5', 'L5', 'L5/S', 'S')):
        labels[:, i * 5 : i * 5 + 5, :9] = JOINT.channel(name)
    labels[:, :, 10] = JOINT.channel('SC')
    return labels


def in_spider() -> np.ndarray:
    return convert(spine(), JOINT, SPIDER)[0]


@pytest.fixture
def masks(tmp_path):
    "Files: all of `joint`, its vertebrae alone, nothing, no canal, SPIDER's, an unknown value"
    labels = spine()
    files = {
        'joint.nii.gz': JOINT.decode(labels),
        'vertebrae.mha': np.where(labels <= 4, labels, 0),
        'empty.mha': labels * 0,
        'bodies.nii.gz': np.where(labels < 20, labels, 0),
        'spider.mha': SPIDER.decode(in_spider()),
        'odd.mha': labels * 0 + 77,
    }
    for name, values in files.items():
        write_labels(values, new_geometry(labels.shape, MM, 'RSA'), tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    'values, scheme',
    [
        ([0, 1, 2, 11], 'mrspineseg'),
        ([0, 1, 100, 201], 'spider'),
        ([0, 1, 20], 'joint'),
        ([0, 1, 100, 105, 210], 'spider'),
        ([0, 1, 2], 'mrspineseg'),  # fits all, and then the smallest
        ([0], 'mrspineseg'),
        ([0, 9], 'mrspineseg'),
    ],
)
def test_the_smallest_scheme_that_fits(values, scheme):
    assert guess_scheme(values, LUMBAR) == scheme


@pytest.mark.parametrize('values, odd', [([0, 1, 2, 50], 50), ([0, 1, 100, 150], 150)])
def test_values_that_fit_no_scheme(values, odd):
    with pytest.raises(InputError, match=rf'value\(s\) {odd} fit'):
        guess_scheme(values, LUMBAR)


def test_from_100_it_is_spiders_where_there_is_a_spider():
    kinds = dict(C3='vertebra', C4='vertebra', CC='canal')
    neck = get_anatomy(
        dict(
            name='neck',
            image='MRI',
            structures=[dict(name=name, kind=kind) for name, kind in kinds.items()],
            top_down=list(kinds),
            schemes=dict(big=dict(C3=103, C4=104, CC=1)),
        )
    )
    assert guess_scheme([103], neck) == 'big'


@pytest.mark.parametrize(
    'values, names',
    [
        ([0], ['joint']),
        ([1, 2], ['joint', 'spider']),
        ([1, 10], ['joint']),
        ([1, 20], ['joint']),
        ([1, 201], ['spider']),
        ([12, 201], ['spider']),
    ],
)
def test_all_schemes_that_fit(values, names):
    assert [s.name for s in fitting_schemes(values, LUMBAR)] == names


def test_the_meaning_of_values():
    assert value_names(JOINT, {1, 2, 77}) == {1: 'S', 2: 'L5'}
    assert choice_note([JOINT]) == ''
    assert choice_note([JOINT, SPIDER]) == 'the values fit joint and spider alike, read as joint'


@pytest.mark.parametrize(
    'name, scheme',
    [('joint.nii.gz', 'joint'), ('bodies.nii.gz', 'joint'), ('spider.mha', 'spider')],
)
def test_the_scheme_of_a_file(masks, name, scheme, capsys):
    assert file_scheme(None, [masks / name], LUMBAR).name == scheme
    assert capsys.readouterr().err == ''


def test_a_named_scheme_needs_no_file():
    assert file_scheme('mrspineseg', [], LUMBAR).name == 'mrspineseg'
    with pytest.raises(InputError, match='unknown label scheme'):
        file_scheme('spyder', [], LUMBAR)


def test_files_are_judged_together(masks):
    both = [masks / 'vertebrae.mha', masks / 'spider.mha']
    assert file_scheme(None, both, LUMBAR).name == 'spider'
    assert side_schemes(mask_values(both), LUMBAR) == [SPIDER]
    with pytest.raises(InputError, match="bodies.nii.gz: holds labels of scheme 'joint'"):
        file_scheme(None, [masks / 'bodies.nii.gz', masks / 'spider.mha'], LUMBAR)


def test_a_choice_is_noted_on_stderr(masks, capsys):
    assert file_scheme(None, [masks / 'vertebrae.mha'], LUMBAR).name == 'joint'
    said = 'the values fit joint and spider alike, read as joint: --labels decides'
    assert capsys.readouterr().err == f'{masks / "vertebrae.mha"}: {said}\n'
    assert file_scheme(None, [masks / 'empty.mha'], LUMBAR).name == 'joint'
    assert capsys.readouterr().err == ''  # an empty mask leaves no choice


def test_an_unknown_value_names_the_file(masks):
    with pytest.raises(InputError, match='odd.mha'):
        file_scheme(None, [masks / 'odd.mha'], LUMBAR)
    with pytest.raises(InputError, match=r'spider.mha: label value\(s\)'):
        read_mask(masks / 'spider.mha', JOINT)


def test_channels_of_a_mask(masks):
    volume, labels = read_mask(masks / 'spider.mha', SPIDER)
    np.testing.assert_array_equal(labels, in_spider())
    np.testing.assert_allclose(volume.spacing, MM, atol=1e-6)


def test_values_beyond_the_table(tmp_path):
    part = in_spider()
    odd = SPIDER.decode(part).astype(int)
    odd[odd == 3] = 103  # partly visible L3
    odd[0, 0, 10:] = (12, 215)  # above our range
    path = tmp_path / 't.mha'
    write_labels(odd, new_geometry(part.shape, MM, 'RSA'), path)
    labels = read_mask(path, SPIDER)[1]
    np.testing.assert_array_equal(labels[1:], part[1:])
    assert labels[0, 0, 10:].tolist() == [IGNORE, IGNORE]
    with pytest.raises(InputError, match=r'label value\(s\) 12, 103, 215'):
        read_mask(path, SPIDER, truth=False)  # no network may answer so
