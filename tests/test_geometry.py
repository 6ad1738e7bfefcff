"Affines taken apart, borders left out, and what is odd about a place"

import nibabel as nib
import numpy as np
import pytest
from test_volumes import ALL_48, MM, NOISE, OBLIQUE, refused

from atm_net.geometry import (
    apart,
    check_image,
    geometry_of,
    image_box,
    image_part,
    new_geometry,
    new_volume,
    tell,
    view_notes,
)


@pytest.mark.parametrize('codes', ALL_48[::5])
def test_an_affine_there_and_back(codes):
    g = new_geometry((5, 7, 11), MM, codes, OBLIQUE)
    found = geometry_of(g.file_affine, g.size)
    assert found.codes == codes == ''.join(nib.aff2axcodes(g.file_affine))
    assert apart(found.file_affine, g.file_affine, g.size) < 1e-9
    np.testing.assert_allclose(found.canonical_spacing, MM)


@pytest.mark.parametrize('entry, value', [((0, 0), 0), ((1, 3), np.nan), ((2, 2), np.inf)])
def test_an_affine_that_is_none(entry, value):
    affine = np.diag([4, 1.3, 0.7, 1.0])
    affine[entry] = value
    assert 'a.nii: field affine: holds a step of 0 mm' in refused(
        geometry_of, affine, (5, 7, 11), 'a.nii: field affine'
    )


@pytest.mark.parametrize('codes', ['LIP', 'RSA', 'PIR', 'SAL'])
def test_a_part_keeps_its_place(codes):
    whole = new_volume(NOISE, new_geometry(NOISE.shape, MM, codes, OBLIQUE), header='of the whole')
    part = whole.part((slice(1, 4), slice(0, 6), slice(3, 11)))
    assert part.shape == (3, 6, 8) == part.geometry.shape and part.header is None
    np.testing.assert_array_equal(part.data, NOISE[1:4, :6, 3:])
    for at in ((0, 0, 0), (2, 5, 7)):
        there = np.add(at, (1, 0, 3))
        np.testing.assert_allclose(
            part.geometry.affine @ [*at, 1], whole.geometry.affine @ [*there, 1], atol=1e-9
        )


@pytest.mark.parametrize('value', [0, -1000, 7])
def test_a_border_on_some_sides(value):
    data = np.pad(NOISE, ((0, 2), (3, 0), (1, 4)), constant_values=value)
    assert image_part(data) == (slice(0, 5), slice(3, 10), slice(1, 12))
    assert image_box(data) == (3, 1, 10, 12)
    assert image_part(NOISE) == tuple(slice(0, n) for n in NOISE.shape)


def test_a_border_of_two_values():
    data = np.pad(np.pad(NOISE, 2), 3, constant_values=-5)
    assert image_part(data) == tuple(slice(5, 5 + n) for n in NOISE.shape)


@pytest.mark.parametrize('data', [np.zeros((3, 4, 5)), np.eye(5)[None], np.zeros((0, 4, 5))])
def test_an_image_without_a_border_or_without_an_image(data):
    assert image_part(data) == tuple(slice(0, n) for n in data.shape)


def test_a_single_bright_pixel_is_no_image():
    data = np.zeros((3, 9, 9))
    data[1, 4, 4] = 1
    assert image_part(data) == (slice(0, 3), slice(0, 9), slice(0, 9))


def scan(shape, mm):
    rng = np.random.default_rng(1)
    return new_volume(rng.normal(size=shape), new_geometry(shape, mm), 'a.nii')


def test_a_usual_scan_has_nothing_odd():
    for shape, mm in (((15, 60, 50), (4, 5, 5)), ((1, 60, 50), (4, 5, 5)), ((9, 9, 9), (20,) * 3)):
        assert view_notes(scan(shape, mm)) == ()


@pytest.mark.parametrize(
    'shape, mm, words',
    [
        ((60, 60, 6), (3, 3, 3), 'its 6 slices run from front to back'),
        ((60, 6, 70), (3, 3, 3), 'its 6 slices run from head to feet'),
        ((15, 40, 40), (4, 1, 1), 'field of view of 40 x 40 mm'),
        ((15, 40, 40), (90, 30, 30), 'field of view of 1.2e+03 x 1.2e+03 mm'),
    ],
)
def test_an_odd_place_is_said_once(shape, mm, words, capsys):
    volume = check_image(scan(shape, mm))
    assert any(words in note for note in volume.notes)
    assert check_image(volume).notes == volume.notes
    tell(volume)
    tell(volume)
    assert capsys.readouterr().err.count(words) <= 1
