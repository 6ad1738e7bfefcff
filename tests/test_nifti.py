"Two forms, broken headers, names that lie: what is read, what is said, what a mask takes over"

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from test_volumes import refused

from atm_net.volumes import read_labels, read_volume, write_labels

SIZE = (3, 20, 30)
AFFINE = np.array([[3.3, 0, 0, -4], [0, 0.9, 0, 7], [0, 0, 0.8, -9], [0, 0, 0, 1.0]])
NOISE = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)


def image(data=NOISE, affine=AFFINE, qform=1, sform=1, kind=nib.Nifti1Image):
    im = kind(data, affine)
    im.set_qform(affine, qform)
    im.set_sform(affine, sform)
    im.header.set_xyzt_units('mm', 'sec')
    return im


def saved(tmp_path, im, name='a.nii'):
    nib.save(im, tmp_path / name)
    return tmp_path / name


def patched(path, at, form, *values):
    "Overwrite bytes of a header; a packed file stays packed"
    raw = path.read_bytes()
    packed = raw[:2] == b'\x1f\x8b'
    raw = bytearray(gzip.decompress(raw) if packed else raw)
    struct.pack_into('<' + form, raw, at, *values)
    path.write_bytes(gzip.compress(raw) if packed else raw)
    return path


def mask_of(path, end='.nii.gz'):
    "The header of a mask written on a volume, and the volume"
    volume = read_volume(path)
    out = path.with_name('mask' + end)
    write_labels(volume.data > 0, volume, out)
    again = read_labels(out)
    np.testing.assert_array_equal(again.data, volume.data > 0)
    np.testing.assert_allclose(again.geometry.affine, volume.geometry.affine, atol=1e-3)
    return nib.load(out), volume


def same_place(mask, path):
    "Nibabel sees a mask where it sees its image, by either form"
    source = nib.load(path)
    np.testing.assert_allclose(mask.affine, source.affine, atol=1e-4)
    for form in ('qform', 'sform'):
        assert mask.header[f'{form}_code'] == source.header[f'{form}_code']
        a, b = (getattr(im, f'get_{form}')(coded=True)[0] for im in (mask, source))
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, atol=1e-4)


# --- forms


@pytest.mark.parametrize('codes', [(1, 1), (1, 0), (0, 2), (3, 2)])
def test_forms_that_agree_are_kept_and_need_no_word(tmp_path, codes):
    path = saved(tmp_path, image(qform=codes[0], sform=codes[1]))
    mask, volume = mask_of(path)
    same_place(mask, path)
    assert volume.notes == ()
    np.testing.assert_array_equal(volume.geometry.to_source(volume.data), NOISE)


def test_forms_that_disagree(tmp_path):
    im = image()
    turn = np.eye(4)
    turn[1:3, 1:3] = [[0.94, -0.342], [0.342, 0.94]]
    turn[:3, 3] = 5, -20, 30
    im.set_sform(turn @ AFFINE, 2)
    im.set_qform(AFFINE, 1)
    path = saved(tmp_path, im, 'a.nii.gz')
    mask, volume = mask_of(path)
    same_place(mask, path)
    (note,) = volume.notes
    assert 'qform and sform put it up to' in note and 'read by the sform' in note


def test_steps_that_disagree(tmp_path):
    path = patched(saved(tmp_path, image()), 80, '3f', 1, 1, 1)
    mask, volume = mask_of(path)
    same_place(mask, path)
    np.testing.assert_allclose(volume.spacing, (3.3, 0.8, 0.9), atol=1e-5)
    assert 'pixdim says 1 x 1 x 1 mm, the sform 3.3 x 0.9 x 0.8 mm' in volume.notes[0]


@pytest.mark.parametrize('codes', [(1, 1), (1, 0), (0, 2)])
def test_negative_steps(tmp_path, codes):
    im = image(qform=codes[0], sform=codes[1])
    path = patched(saved(tmp_path, im), 80, '3f', -3.3, -0.9, -0.8)
    mask, volume = mask_of(path)
    np.testing.assert_allclose(mask.affine, nib.load(path).affine, atol=1e-4)
    np.testing.assert_allclose(mask.affine, AFFINE, atol=1e-4)
    assert 'pixdim is negative' in volume.notes[0]


@pytest.mark.parametrize('step', [0, np.nan, np.inf])
def test_steps_that_are_none(tmp_path, step):
    path = patched(saved(tmp_path, image()), 80, '3f', step, 0.9, 0.8)
    _, volume = mask_of(path)
    np.testing.assert_allclose(volume.spacing, (3.3, 0.8, 0.9), atol=1e-5)
    assert 'pixdim holds no step' in volume.notes[0]
    path = patched(saved(tmp_path, image(sform=0)), 80, '3f', step, 0.9, 0.8)
    assert 'there is no sform' in refused(read_volume, path)


def test_no_orientation(tmp_path):
    path = patched(saved(tmp_path, image()), 252, '2h', 0, 0)
    mask, volume = mask_of(path)
    same_place(mask, path)
    assert nib.aff2axcodes(mask.affine) == nib.aff2axcodes(nib.load(path).affine)
    assert 'the orientation is not in the header' in volume.notes[0]


def test_an_identity_looks_like_a_default(tmp_path):
    volume = read_volume(saved(tmp_path, image(affine=np.eye(4))))
    assert 'the affine is the identity' in volume.notes[0]


@pytest.mark.parametrize('unit', ['meter', 'micron'])
def test_units(tmp_path, unit):
    im = image()
    im.header.set_xyzt_units(unit, 'sec')
    path = saved(tmp_path, im)
    mask, volume = mask_of(path)
    same_place(mask, path)
    assert mask.header.get_xyzt_units()[0] == unit
    assert 'can only be mm' in volume.notes[0]
    factor = {'meter': 1e-3, 'micron': 1e3}[unit]
    im = image(affine=np.diag([factor, factor, factor, 1]) @ AFFINE)
    im.header.set_xyzt_units(unit, 'sec')
    assert 'field xyzt_units' in refused(read_volume, saved(tmp_path, im, 'b.nii'))


def test_a_shear_in_either_form(tmp_path):
    sheared = AFFINE.copy()
    sheared[0, 1] = 0.2
    im = image()
    im.set_sform(sheared, 1)
    assert 'right angles' in refused(read_volume, saved(tmp_path, im))


def test_an_sform_of_zeros_gives_way_to_the_qform(tmp_path):
    path = patched(saved(tmp_path, image()), 280, '12f', *[0.0] * 12)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.spacing, (3.3, 0.8, 0.9), atol=1e-5)
    assert 'sform is no affine' in volume.notes[0]


# --- files


def test_nifti_2_big_endian_and_scaled(tmp_path):
    two = saved(tmp_path, image(kind=nib.Nifti2Image), 'two.nii.gz')
    big = tmp_path / 'big.nii'
    nib.save(nib.Nifti1Image(NOISE, AFFINE, nib.Nifti1Header(endianness='>')), big)
    for path in (two, big):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.geometry.to_source(volume.data), NOISE)
        np.testing.assert_allclose(mask_of(path)[0].affine, AFFINE, atol=1e-4)
    im = nib.Nifti1Image((NOISE * 100).astype(np.int16), AFFINE)
    im.header.set_slope_inter(0.5, 3)
    path = saved(tmp_path, im, 'scaled.nii')
    volume = read_volume(path)
    np.testing.assert_allclose(
        volume.geometry.to_source(volume.data), nib.load(path).get_fdata(), atol=1e-4
    )


@pytest.mark.parametrize('name', ['plain.nii.gz', 'packed.nii', 'CAPITALS.NII.GZ'])
def test_names_that_lie(tmp_path, name):
    made = saved(tmp_path, image(), 'x.nii' if name == 'plain.nii.gz' else 'x.nii.gz')
    path = made.rename(tmp_path / name)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.geometry.to_source(volume.data), NOISE)
    write_labels(volume.data > 0, volume, tmp_path / 'M.NII.GZ')
    assert (tmp_path / 'M.NII.GZ').read_bytes()[:2] == b'\x1f\x8b'


def cut_header(path):
    path.write_bytes(path.read_bytes()[:200])


def other_magic(path):
    patched(path, 344, '4s', b'\0\0\0\0')


def half_of_a_pair(path):
    patched(path, 344, '4s', b'ni1\0')


def unknown_type(path):
    patched(path, 70, 'h', 1234)


def no_size(path):
    patched(path, 40, '4h', 3, 0, 20, 30)


@pytest.mark.parametrize(
    'fault, words',
    [
        (lambda p: p.write_bytes(b''), 'is empty (0 bytes)'),
        (lambda p: p.write_bytes(b'<html>404</html>'), 'is no NIfTI image'),
        (lambda p: p.write_bytes(b'version https://git-lfs'), "begins with b'version http'"),
        (cut_header, 'truncated: 200 bytes'),
        (other_magic, 'Analyze'),
        (half_of_a_pair, 'one half of a pair'),
        (unknown_type, 'header is damaged'),
        (no_size, 'field dim'),
        (lambda p: p.write_bytes(p.read_bytes()[:-40]), 'truncated: '),
    ],
)
def test_each_cause_has_its_words(tmp_path, fault, words):
    path = saved(tmp_path, image())
    fault(path)
    assert words in refused(read_volume, path)


def test_broken_packing(tmp_path):
    path = saved(tmp_path, image(), 'a.nii.gz')
    raw = bytearray(path.read_bytes())
    path.write_bytes(raw[:-30])
    assert 'packed (gzip) data end too early' in refused(read_volume, path)
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)
    assert 'gzip' in refused(read_volume, path)


def test_colours_and_complex_numbers(tmp_path):
    colour = np.zeros(SIZE, [('R', 'u1'), ('G', 'u1'), ('B', 'u1')])
    nib.save(nib.Nifti1Image(colour, AFFINE), tmp_path / 'rgb.nii')
    nib.save(nib.Nifti1Image(NOISE.astype(np.complex64), AFFINE), tmp_path / 'c.nii')
    assert 'holds colours' in refused(read_volume, tmp_path / 'rgb.nii')
    assert 'complex numbers' in refused(read_volume, tmp_path / 'c.nii')


# --- labels


def test_labels_a_little_off_are_rounded(tmp_path):
    labels = np.arange(1800).reshape(SIZE) % 20
    path = saved(tmp_path, nib.Nifti1Image((labels * 0.99999).astype(np.float32), AFFINE))
    volume = read_labels(path)
    np.testing.assert_array_equal(volume.geometry.to_source(volume.data), labels)
    assert 'off whole numbers are rounded' in volume.notes[0]
    path = saved(tmp_path, nib.Nifti1Image((labels * 0.97).astype(np.float32), AFFINE))
    assert 'save as an integer type' in refused(read_labels, path)
