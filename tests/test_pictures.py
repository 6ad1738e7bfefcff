"Single pictures in and out"

import numpy as np
import pytest
from PIL import Image
from test_volumes import refused

from atm_net.pictures import is_picture, parse_spacing
from atm_net.volumes import read_labels, read_volume, write_labels

GREY = np.random.default_rng(0).integers(0, 255, (40, 30)).astype(np.uint8)


@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA', 'I;16', 'LA'])
def test_a_slice_as_on_the_screen(tmp_path, mode):
    image = Image.fromarray(GREY.astype(np.uint16) if mode == 'I;16' else GREY)
    (image if mode == 'I;16' else image.convert(mode)).save(tmp_path / 'a.png')
    volume = read_volume(tmp_path / 'a.png', spacing='0.7,0.5')
    np.testing.assert_array_equal(volume.data, GREY[None])
    assert volume.spacing[1:] == (0.7, 0.5) and volume.geometry.codes == 'PIL'


def test_a_jpeg_in_colours_that_is_grey(tmp_path):
    smooth = np.linspace(0, 255, 1200).reshape(40, 30).astype(np.uint8)
    Image.fromarray(smooth).convert('RGB').save(tmp_path / 'a.JPG', quality=90)
    volume = read_volume(tmp_path / 'a.JPG', spacing=0.7)
    assert np.abs(volume.data[0] - smooth).mean() < 4


def test_what_is_no_grey_slice(tmp_path):
    Image.fromarray(np.stack([GREY, GREY // 2, 255 - GREY], 2)).save(tmp_path / 'c.png')
    assert 'holds colours' in refused(read_volume, tmp_path / 'c.png', 0.7)
    Image.fromarray(GREY).save(tmp_path / 'a.png')
    assert '--spacing MM' in refused(read_volume, tmp_path / 'a.png')
    (tmp_path / 'b.png').write_bytes((tmp_path / 'a.png').read_bytes()[:200])
    assert 'b.png: ' in refused(read_volume, tmp_path / 'b.png', 0.7)
    (tmp_path / 'd.png').write_bytes(b'no picture')
    assert 'is no picture' in refused(read_volume, tmp_path / 'd.png', 0.7)
    frames = [Image.fromarray(GREY), Image.fromarray(GREY)]
    frames[0].save(tmp_path / 'two.tif', save_all=True, append_images=frames[1:])
    assert 'holds 2 pictures' in refused(read_volume, tmp_path / 'two.tif', 0.7)


def test_a_mask_of_a_picture(tmp_path):
    Image.fromarray(GREY).save(tmp_path / 'a.png')
    volume = read_volume(tmp_path / 'a.png', spacing='0.7,0.5')
    labels = (GREY[None] % 21).astype(np.uint8)
    table = [(2, 'L5', '#E69F00'), (20, 'SC', '#332288')]
    write_labels(labels, volume, tmp_path / 'm.png', table)
    mask = read_labels(tmp_path / 'm.png')
    np.testing.assert_array_equal(mask.data, labels)
    assert mask.spacing == volume.spacing
    shown = np.asarray(Image.open(tmp_path / 'm.png').convert('RGB'))
    assert (shown[labels[0] == 2] == (0xE6, 0x9F, 0)).all()
    write_labels(labels, volume, tmp_path / 'grey.png')
    np.testing.assert_array_equal(read_labels(tmp_path / 'grey.png').data, labels)
    write_labels(labels, volume, tmp_path / 'm.nii.gz')
    np.testing.assert_array_equal(read_labels(tmp_path / 'm.nii.gz').data, labels)


@pytest.mark.parametrize('text', ['', 'wide', '0', '-1', 'nan', '1,2,3', '0.7,', 'inf'])
def test_a_spacing_that_is_none(text):
    if text == '0.7,':
        assert parse_spacing(text) == (0.7, 0.7)
    else:
        assert '--spacing' in refused(parse_spacing, text)


def test_names(tmp_path):
    assert is_picture('a/B.JPEG') and not is_picture('.a.png') and not is_picture('a.nii')
    assert 'leave it out' in refused(read_volume, made(tmp_path), 0.7)


def made(tmp_path):
    from atm_net.geometry import new_geometry

    write_labels(np.ones((2, 3, 5), int), new_geometry((2, 3, 5), (4, 1, 1)), tmp_path / 'v.mha')
    return tmp_path / 'v.mha'
