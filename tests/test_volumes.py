"Files of any orientation, damaged files, and what is said of them"

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from helpers import write_series
from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from scipy.spatial.transform import Rotation

from atm_net.core import InputError
from atm_net.geometry import Geometry, check_image, check_pair, new_geometry, new_volume
from atm_net.volumes import (
    is_dicom_folder,
    is_volume,
    list_volumes,
    natural,
    read_labels,
    read_volume,
    write_labels,
    write_volume,
)

MM = (4, 1.3, 0.7)
PLACE = new_geometry((5, 7, 11), MM)
NOISE = np.random.default_rng(0).normal(size=(5, 7, 11)).astype(np.float32)
MASK = np.arange(30).reshape(2, 3, 5)
SMALL = new_geometry(MASK.shape, MM)


def refused(f, *args) -> str:
    "The one line that `f` complains with"
    with pytest.raises(InputError) as complaint:
        f(*args)
    said = str(complaint.value)
    assert '\n' not in said
    return said


# --- geometry


def test_facts_about_a_geometry():
    straight = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    upright = Geometry((5, 7, 11), (4.0, 2.0, 3.0), (0.0, 0.0, 0.0), straight)
    assert (upright.codes, upright.shape) == ('LPS', (5, 11, 7))
    assert upright.canonical_spacing == (4.0, 3.0, 2.0)
    assert upright.to_canonical(np.zeros((5, 7, 11))).flags.c_contiguous
    assert upright.to_source(np.zeros((5, 11, 7))).flags.c_contiguous


def test_axis_codes_that_are_none():
    with pytest.raises(InputError, match='one letter each'):
        new_geometry((5, 11, 7), (4, 3, 2), 'LRS')


def test_data_that_do_not_fit():
    with pytest.raises(InputError, match='do not fit'):
        new_volume(np.zeros((5, 11, 7)), PLACE)


def test_names(tmp_path):
    for name in ('.hidden.nii', 'notes.txt', 'series/1.dcm'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [p.name for p in list_volumes(tmp_path)] == ['series']
    assert (is_dicom_folder(tmp_path / 'series'), is_dicom_folder(tmp_path)) == (True, False)
    assert not is_volume(tmp_path / 'notes.txt')
    assert sorted(['b10', 'b9'], key=natural) == ['b9', 'b10']
    assert 'cannot read the folder' in refused(list_volumes, tmp_path / 'no')


# --- nibabel as a referee

ALL_48 = [''.join(c) for axes in permutations(('LR', 'IS', 'PA')) for c in product(*axes)]
OBLIQUE = Rotation.from_euler('zyx', [17, -9, 12], degrees=True).as_matrix()


def by_nibabel(path, codes='LIP'):
    "Data and affine in the frame `codes`, by nibabel alone"
    im = nib.load(path)
    a = np.asanyarray(im.dataobj)
    turn = ornt_transform(io_orientation(im.affine), axcodes2ornt(codes))
    return apply_orientation(a, turn), im.affine @ inv_ornt_aff(turn, a.shape)


@pytest.mark.parametrize('turn', [np.eye(3), OBLIQUE], ids=['upright', 'oblique'])
@pytest.mark.parametrize('codes', ALL_48)
def test_all_ways_of_storing_it(tmp_path, codes, turn):
    source, out, mha = (tmp_path / n for n in ('source.nii.gz', 'out.nii.gz', 'out.mha'))
    g = new_geometry((5, 7, 11), (4.1, 1.3, 0.7), codes, turn)
    lps = np.eye(4)
    lps[:3, :3] = g.cosines * g.spacing
    lps[:3, 3] = np.array(g.origin) + [3, 5, 7]
    a = np.random.default_rng(1).integers(0, 200, g.size).astype(np.uint8)
    nib.save(nib.Nifti1Image(a, np.diag([-1, -1, 1, 1]) @ lps), source)
    v = read_volume(source)
    data, affine = by_nibabel(source)
    assert v.geometry.codes == codes == ''.join(aff2axcodes(nib.load(source).affine))
    np.testing.assert_array_equal(v.data, data)
    np.testing.assert_allclose(v.geometry.affine, affine, atol=1e-4)
    np.testing.assert_allclose(v.spacing, (4.1, 1.3, 0.7), atol=1e-5)
    write_labels(v.data.astype(int), v, out)
    np.testing.assert_array_equal(np.asanyarray(nib.load(out).dataobj), a)
    np.testing.assert_allclose(nib.load(out).affine, nib.load(source).affine, atol=1e-4)
    write_labels(v.data.astype(int), v, mha)
    m = read_labels(mha)
    assert (m.geometry.size, m.data.dtype) == (v.geometry.size, np.uint8)
    np.testing.assert_array_equal(m.data, v.data)
    np.testing.assert_allclose(m.geometry.affine, v.geometry.affine, atol=1e-6)
    np.testing.assert_allclose(m.geometry.direction, v.geometry.direction, atol=1e-9)
    np.testing.assert_allclose(m.geometry.origin, v.geometry.origin, atol=1e-9)


# --- writing


@pytest.mark.parametrize(
    'top, kind', [(0, np.uint8), (255, np.uint8), (256, np.int16), (65535, np.int64)]
)
def test_masks_take_the_smallest_type(tmp_path, top, kind):
    mask = MASK.copy()
    mask[1, 2, 4] = top
    write_labels(mask.astype(float), SMALL, tmp_path / 'm.mha')
    read = read_labels(tmp_path / 'm.mha').data
    np.testing.assert_array_equal(read, mask)
    assert read.dtype == kind


def test_masks_of_true_and_false(tmp_path):
    write_labels(MASK > 7, SMALL, tmp_path / 'm.mha')
    np.testing.assert_array_equal(read_labels(tmp_path / 'm.mha').data, MASK > 7)


@pytest.mark.parametrize(
    'value, words',
    [
        (65536, 'above 65535'),
        (70000, '70000'),
        (-1, 'negative'),
        (2.7, 'whole numbers'),
        (np.nan, 'whole numbers'),
        (np.inf, 'whole numbers'),
    ],
)
def test_values_that_a_mask_cannot_hold(tmp_path, value, words):
    mask = MASK.astype(float)
    mask[0, 1, 2] = value
    said = refused(write_labels, mask, SMALL, tmp_path / 'm.mha')
    assert words in said and 'm.mha: ' in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['v.mha', 'v.nii.gz'])
@pytest.mark.parametrize('dtype', [bool, np.float16, np.int16, np.uint16, np.float32, np.float64])
def test_types_of_images(tmp_path, dtype, name):
    image = (MASK % 7).astype(dtype)
    write_volume(image, SMALL, tmp_path / name)
    np.testing.assert_array_equal(read_volume(tmp_path / name).data, image.astype(np.float32))


def test_what_cannot_be_written(tmp_path):
    write_volume(NOISE, PLACE, tmp_path / 'a.mha')
    assert 'negative' in refused(write_labels, NOISE.astype(int) - 9, PLACE, tmp_path / 'neg.mha')
    assert '.mha, .nii or .nii.gz' in refused(write_volume, NOISE, PLACE, tmp_path / 'a.txt')
    assert '5 slices' in refused(write_volume, NOISE, PLACE, tmp_path / 'a.png')
    assert 'do not fit' in refused(write_volume, NOISE[:4], PLACE, tmp_path / 'b.mha')
    assert 'cannot be made' in refused(write_volume, NOISE, PLACE, tmp_path / 'a.mha' / 'b.mha')
    assert [f.name for f in tmp_path.iterdir()] == ['a.mha']  # nothing half-written


FULL = """
import os, resource, signal
import numpy as np
from atm_net.core import InputError
from atm_net.geometry import new_geometry
from atm_net.volumes import write_labels

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
mask = np.random.default_rng(0).integers(0, 255, (5, 70, 110))
for name in ('m.mha', 'm.nii', 'm.nii.gz'):
    try:
        write_labels(mask, new_geometry(mask.shape, (4, 1, 1)), name)
        print('wrote', name)
    except InputError as e:
        print(e)
print(os.listdir('.'))
"""


def test_a_full_disk_leaves_no_half_mask(tmp_path):
    run = [sys.executable, '-c', FULL]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ''
    *complaints, left = done.stdout.splitlines()
    assert [line.split(':')[0] for line in complaints] == ['m.mha', 'm.nii', 'm.nii.gz']
    assert all('cannot be written' in line for line in complaints)
    assert left == '[]'


# --- reading


@pytest.mark.parametrize('name', ['a.mha', 'a.nii', 'a.nii.gz'])
def test_files_that_are_cut_short_or_no_image(tmp_path, name):
    path = tmp_path / name
    write_volume(NOISE, PLACE, path)
    whole = path.read_bytes()
    np.testing.assert_array_equal(read_volume(path).data, NOISE)
    for cut in (len(whole) - 40, len(whole) // 2, 100):
        path.write_bytes(whole[:cut])
        said = refused(read_volume, path)
        assert name in said and 'again' in said
    path.write_text('hello', encoding='utf-8')
    assert 'again' in refused(read_volume, path)
    path.unlink()
    assert 'no such file' in refused(read_volume, path)


def save(array, path, affine=None):
    "By nibabel"
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def test_images_of_the_wrong_kind(tmp_path):
    assert 'folder without a DICOM series' in refused(read_volume, tmp_path)
    save(np.ones((5, 7, 11, 2), 'int16'), tmp_path / '4d.nii.gz')
    said = refused(read_volume, tmp_path / '4d.nii.gz')
    assert '4-D' in said and 'extract' in said
    save(np.ones((5, 7), 'int16'), tmp_path / '2d.nii.gz')
    assert '2-D' in refused(read_volume, tmp_path / '2d.nii.gz')
    colour = sitk.GetImageFromArray(np.ones((5, 7, 11, 3), 'uint8'), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / 'rgb.mha'))
    assert '3 values per voxel' in refused(read_volume, tmp_path / 'rgb.mha')


def test_one_volume_in_four_dimensions(tmp_path):
    save(np.ones((5, 7, 11, 1), 'int16'), tmp_path / 'a.nii.gz')
    assert sorted(read_volume(tmp_path / 'a.nii.gz').shape) == [5, 7, 11]


@pytest.mark.parametrize('shear, passes', [(2e-4, True), (0.02, False)])
def test_rounding_in_the_header_passes_and_shear_does_not(tmp_path, shear, passes):
    affine = np.eye(4)
    affine[0, 1] = shear
    im = nib.Nifti1Image(np.ones((5, 7, 11), 'int16'), affine)
    im.header['qform_code'] = 0
    nib.save(im, tmp_path / 'a.nii')
    if passes:
        assert sorted(read_volume(tmp_path / 'a.nii').shape) == [5, 7, 11]
    else:
        assert 'right angles' in refused(read_volume, tmp_path / 'a.nii')


@pytest.mark.parametrize('odd', [np.nan, np.inf])
def test_not_a_number_in_a_nifti_file(tmp_path, odd):
    image = NOISE.copy()
    image[1, 2, 3] = odd
    save(image, tmp_path / 'a.nii')
    assert '1 voxels are NaN or infinite' in refused(read_volume, tmp_path / 'a.nii')


def test_masks_are_whole_numbers(tmp_path):
    write_volume(NOISE, PLACE, tmp_path / 'a.mha')
    assert 'whole numbers' in refused(read_labels, tmp_path / 'a.mha')
    write_volume(np.full((5, 7, 11), 300.0), PLACE, tmp_path / 'm.nii.gz')
    assert read_labels(tmp_path / 'm.nii.gz').data.dtype == np.int16


def test_threads_leave_the_terminal_as_it_was(tmp_path):
    write_volume(NOISE, PLACE, tmp_path / 'a.mha')
    before = os.fstat(2)
    with ThreadPoolExecutor(8) as pool:
        volumes = list(pool.map(lambda _: read_volume(tmp_path / 'a.mha'), range(64)))
    assert all((v.data == NOISE).all() for v in volumes)
    after = os.fstat(2)
    assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)


# --- MetaImage and NRRD


def header(name, spacing='4 1.3 0.7', matrix='1 0 0 0 1 0 0 0 1', size=(5, 7, 11)):
    "A small file as text; fields of None are left out"
    lines = ['ObjectType = Image', 'NDims = 3', f'DimSize = {" ".join(map(str, size))}']
    lines += [f'ElementSpacing = {spacing}'] if spacing else []
    lines += [f'TransformMatrix = {matrix}'] if matrix else []
    lines += ['ElementType = MET_UCHAR', 'ElementDataFile = LOCAL']
    return '\n'.join(lines).encode() + b'\n' + bytes(range(250)) + bytes(135)


def nrrd(directions='(4,0,0) (0,1.3,0) (0,0,0.7)', space='left-posterior-superior'):
    lines = ['NRRD0004', 'type: uchar', 'dimension: 3']
    lines += [f'space: {space}'] if space else []
    lines += ['sizes: 5 7 11']
    lines += [f'space directions: {directions}'] if directions else []
    lines += ['encoding: raw'] + (['space origin: (0,0,0)'] if space else [])
    return '\n'.join(lines).encode() + b'\n\n' + bytes(range(250)) + bytes(135)


@pytest.mark.parametrize(
    'name, raw, words',
    [
        ('a.mha', header('a'), None),
        ('a.nrrd', nrrd(), None),
        ('a.mha', header('a', spacing=None), 'has no spacing'),
        ('a.mha', header('a', matrix=None), 'has no orientation'),
        ('a.nrrd', nrrd(directions=None, space=None), 'has no spacing'),
    ],
)
def test_headers_that_say_too_little(tmp_path, name, raw, words):
    (tmp_path / name).write_bytes(raw)
    volume = read_volume(tmp_path / name)
    assert sorted(volume.shape) == [5, 7, 11]
    if words is None:
        assert volume.notes == () and sorted(volume.spacing) == [0.7, 1.3, 4]
    else:
        assert any(words in note for note in volume.notes)


@pytest.mark.parametrize(
    'name, raw, words',
    [
        ('a.mha', header('a', matrix='1 0.2 0 0 1 0 0 0 1'), 'right angles'),
        ('a.nrrd', nrrd('(4,0,0) (0.4,1.3,0) (0,0,0.7)'), 'right angles'),
        ('a.mha', header('a', spacing='4 -1.3 0.7'), 'field ElementSpacing'),
        ('a.mha', header('a', spacing='4 0 0.7'), 'field ElementSpacing'),
        ('a.mha', header('a', spacing='4 x 0.7'), 'field ElementSpacing'),
        ('a.nrrd', nrrd()[:300], 'truncated or damaged'),
        ('a.nrrd', b'hello', 'is no MetaImage or NRRD file'),
        ('a.mha', b'', 'is empty'),
    ],
)
def test_headers_that_cannot_be(tmp_path, name, raw, words):
    (tmp_path / name).write_bytes(raw)
    assert words in refused(read_volume, tmp_path / name)


@pytest.mark.parametrize('name', ['v.nrrd', 'v.seg.nrrd', 'V.MHA', 'V.NRRD'])
def test_more_names_to_write(tmp_path, name):
    write_labels(MASK, SMALL, tmp_path / name, [(1, 'S', '#7A7A7A'), (2, 'L5', '#E69F00')])
    read = read_labels(tmp_path / name)
    np.testing.assert_array_equal(read.data, MASK)
    np.testing.assert_allclose(read.geometry.affine, SMALL.affine, atol=1e-6)
    assert [f.name for f in tmp_path.iterdir()] == [name]
    if 'nrrd' in name.lower():
        text = (tmp_path / name).read_bytes().partition(b'\n\n')[0].decode()
        assert 'Segment1_Name:=L5' in text and 'Segment1_LabelValue:=2' in text


# --- what is no file


def test_pipes_links_and_closed_files(tmp_path):
    os.mkfifo(tmp_path / 'pipe.nii')
    assert 'pipe or a device' in refused(read_volume, tmp_path / 'pipe.nii')
    (tmp_path / 'gone.nii').symlink_to(tmp_path / 'nowhere.nii')
    said = refused(read_volume, tmp_path / 'gone.nii')
    assert 'nowhere.nii, which is not there' in said
    assert not is_dicom_folder(tmp_path / 'pipe.nii')
    (tmp_path / 'a name with spaces \u0448').mkdir()
    path = tmp_path / 'a name with spaces \u0448' / '\u65e5\u672c.mha'
    write_volume(NOISE, PLACE, path)
    np.testing.assert_array_equal(read_volume(path).data, NOISE)


def test_no_error_of_a_library_gets_through(tmp_path, monkeypatch):
    import atm_net.volumes as module

    def broken(path):
        raise ZeroDivisionError('of a library')

    monkeypatch.setattr(module, 'read_nifti', broken)
    (tmp_path / 'a.nii').touch()
    said = refused(read_volume, tmp_path / 'a.nii')
    assert 'cannot be read (ZeroDivisionError: of a library)' in said


# --- DICOM

SERIES = np.random.default_rng(2).integers(0, 900, (5, 14, 22))


def test_a_series_and_its_mask(tmp_path):
    folder, out = tmp_path / 'series', tmp_path / 'mask.nii.gz'
    folder.mkdir()
    write_series(folder, SERIES, (4.0, 1.5, 0.75))
    v = read_volume(folder)
    np.testing.assert_array_equal(v.data, SERIES)
    np.testing.assert_allclose(v.spacing, (4, 1.5, 0.75))
    write_labels(SERIES > 450, v, out)
    np.testing.assert_array_equal(read_labels(out).data, SERIES > 450)
    np.testing.assert_allclose(read_labels(out).geometry.affine, v.geometry.affine, atol=1e-4)


def test_a_series_with_a_hole_or_without_images(tmp_path):
    write_series(tmp_path, SERIES, (4.0, 1.5, 0.75))
    (tmp_path / '1.dcm').unlink()
    assert 'missing' in refused(read_volume, tmp_path)
    for f in tmp_path.iterdir():
        f.write_bytes(b'not dicom')
    assert 'no readable DICOM series' in refused(read_volume, tmp_path)


@pytest.mark.parametrize(
    'places',
    [(0, 0, 0, 0, 0), (0, 0, 1, 1, 2), (1, 1, 2, 3, 4)],
    ids=['a time series of one slice', 'each place twice', 'one slice doubled'],
)
def test_several_images_of_one_place(tmp_path, places):
    write_series(tmp_path, SERIES, (4.0, 1.5, 0.75), places)
    said = refused(read_volume, tmp_path)
    assert 'several pictures of one place' in said and '0.00 mm from' in said


# --- images and pairs


def made(data, mm=MM):
    return new_volume(data, new_geometry(data.shape, mm), 'a.mha')


def with_value(value):
    image = NOISE.copy()
    image[1, 2, 3] = value
    return image


def test_images_that_pass():
    assert check_image(made(NOISE, (1, 0.9, 1.1))).shape == (5, 7, 11)  # nearly isotropic
    assert check_image(made(NOISE[:1])).shape == (1, 7, 11)  # one slice is a volume too


@pytest.mark.parametrize(
    'data, mm, words',
    [
        (NOISE, (1, 4, 0.7), 'axial'),
        (NOISE, (0.7, 1.3, 4), 'coronal'),
        (with_value(np.nan), MM, '1 voxels are NaN'),
        (with_value(np.inf), MM, 'infinite'),
        (NOISE * 0 + 7, MM, 'constant image (every voxel is 7)'),
        (NOISE[:0], MM, '0 sagittal slices'),
        (NOISE[:, :1], MM, '1 x 11 px'),
        (NOISE, (4, 1, np.nan), 'spacing'),
    ],
)
def test_images_that_are_refused(data, mm, words):
    said = refused(check_image, made(data, mm))
    assert words in said and 'a.mha: ' in said


def test_an_array_that_is_no_volume():
    flat = replace(made(NOISE), data=NOISE[0])
    assert 'is 2-D' in refused(check_image, flat)


def test_pairs():
    image, mask = made(NOISE), NOISE > 0
    check_pair(image, made(mask))
    check_pair(image, new_volume(mask, new_geometry((5, 7, 11), MM, 'PSR')))
    assert 'shape (5, 7, 10)' in refused(check_pair, image, made(mask[:, :, :-1]))
    assert 'geometry differs' in refused(check_pair, image, made(mask, (4, 1.3, 0.8)))
    origin = tuple(np.add(image.geometry.origin, (0, 0.2, 0)))
    shifted = new_volume(mask, replace(image.geometry, origin=origin))
    assert '0.2 mm apart' in refused(check_pair, image, shifted)
