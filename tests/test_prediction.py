"Python as an engineer uses it: scans of any kind in, masks that can be saved and handed on"

import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from conftest import ROOT
from test_predict import JOINT, META, Bright

from atm_net.core import InputError
from atm_net.geometry import new_geometry, new_volume
from atm_net.predict import Predictor, load_predictor, segment
from atm_net.prediction import Prediction
from atm_net.volumes import read_labels, write_labels, write_volume


@pytest.fixture(scope='module')
def volume():
    "A bright block, which the network below calls L1"
    data = np.full((5, 90, 70), 7.0, np.float32)
    data[:, 20:55, 15:50] = 1000
    return new_volume(data, new_geometry(data.shape, (4.0, 1.25, 0.875), 'PIR'))


@pytest.fixture(scope='module')
def scan(volume, tmp_path_factory):
    path = tmp_path_factory.mktemp('scan') / 'scan.nii.gz'
    write_volume(volume.data.astype(np.float32), volume, path)
    return path


@pytest.fixture(scope='module')
def predictor():
    return Predictor(Bright(), META)


@pytest.fixture(scope='module')
def mask(predictor, scan):
    return segment(scan, predictor)


def test_a_path_a_volume_and_an_array_give_the_same(predictor, volume, scan, mask):
    for given in (str(scan), volume):
        np.testing.assert_array_equal(segment(given, predictor).labels, mask.labels)
    found = segment(volume.data, predictor, spacing=volume.spacing)
    np.testing.assert_array_equal(found.labels, mask.labels)
    one = segment(volume.data[0], predictor, spacing=(1.25, 0.875))
    np.testing.assert_array_equal(one.labels, mask.labels[:1])


def test_an_array_needs_its_spacing(predictor, volume):
    for spacing in (None, 2.0, (1, 2), (1, 0, 2)):
        with pytest.raises(InputError, match='spacing='):
            segment(volume.data, predictor, spacing=spacing)


def test_many_scans_load_the_network_once(monkeypatch, predictor, scan, mask):
    loaded = []

    def load(*args):
        loaded.append(args)
        return predictor

    monkeypatch.setattr('atm_net.predict.load_predictor', load)
    found = segment([scan, scan])
    assert isinstance(found, list) and len(loaded) == 1
    np.testing.assert_array_equal(found[1].labels, mask.labels)


def test_a_generator_is_read_as_it_comes(predictor, scan):
    asked = []

    def scans():
        for k in range(3):
            asked.append(k)
            yield scan

    found = segment(scans(), predictor)
    next(found)
    assert asked == [0]
    with pytest.raises(InputError, match='one by one'):
        segment([scan, scan], predictor, truth='mask.nii.gz')


def test_saved_in_the_geometry_of_the_scan(mask, scan, tmp_path):
    mask.save(tmp_path / 'm.nii.gz')
    saved, source = nib.load(tmp_path / 'm.nii.gz'), nib.load(scan)
    np.testing.assert_allclose(saved.affine, source.affine, atol=1e-4)
    np.testing.assert_array_equal(read_labels(tmp_path / 'm.nii.gz').data, mask.values)
    np.testing.assert_array_equal(np.asarray(mask.to_nibabel().dataobj), saved.get_fdata())
    np.testing.assert_allclose(mask.to_nibabel().affine, saved.affine)
    mask.save(tmp_path / 'm.seg.nrrd')
    image = sitk.ReadImage(str(tmp_path / 'm.seg.nrrd'))
    own = mask.to_sitk()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(own), sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(own.GetOrigin(), image.GetOrigin(), atol=1e-4)
    assert own.GetMetaData('Segment5_Name') == image.GetMetaData('Segment5_Name') == 'L1'


def test_another_scheme(mask):
    spider = mask.convert('spider')
    assert spider.names == ['L1'] and set(np.unique(spider.values)) == {0, 5}
    with pytest.raises(InputError, match='nope'):
        mask.convert('nope')


def test_what_is_shown(mask):
    assert mask.names == ['L1'] and repr(mask).count('\n') == 0
    assert repr(mask).startswith('Prediction(5 slices of 90 x 70: 1 structures, L1 to L1, levels ')
    assert repr(mask).endswith(', protocol none)')
    assert mask._repr_png_()[:8] == b'\x89PNG\r\n\x1a\n'


def test_without_a_volume(mask):
    lone = Prediction(mask.labels, JOINT, 'none', [])
    assert lone._repr_png_() is None
    with pytest.raises(InputError, match='no volume'):
        lone.to_sitk()


def test_probabilities_belong_to_the_labels(predictor, volume, tmp_path):
    "Also where a border of zeros is left out, and in the axes of the file"
    wide = np.pad(volume.data, ((1, 2), (9, 0), (30, 40)))
    padded = new_volume(wide, new_geometry(wide.shape, volume.spacing, 'PIR'))
    for once in (True, False):
        found = segment(padded, predictor, probabilities=True, one_name_per_level=once)
        assert found.probabilities.shape == (21, *wide.shape)
        np.testing.assert_array_equal(found.probabilities.argmax(0), found.labels)
    found.save_probabilities(tmp_path / 'p.npz')
    kept = np.load(tmp_path / 'p.npz')
    assert list(kept['names'][:2]) == ['background', 'S'] and len(kept['names']) == 21
    np.testing.assert_allclose(kept['affine'], found.to_nibabel().affine, atol=1e-4)
    best = kept['probabilities'].argmax(0)
    np.testing.assert_array_equal(best, np.asarray(found.to_nibabel().dataobj))
    with pytest.raises(InputError, match='probabilities=True'):
        segment(volume, predictor).save_probabilities(tmp_path / 'q.npz')


def test_names_by_column_are_the_default_everywhere():
    assert load_predictor().one_name_per_level and Predictor(Bright(), META).one_name_per_level


def test_a_truth_may_be_a_path(tmp_path):
    predictor = load_predictor()
    data = np.random.default_rng(0).normal(size=(3, 48, 40)).astype(np.float32)
    scan = new_volume(data, new_geometry(data.shape, (4.0, 2.0, 2.0)))
    labels = np.zeros(data.shape, np.uint8)
    labels[:, 10:20, 10:30] = JOINT.channel('L4')
    labels[:, 21:23, 10:30] = JOINT.channel('L4/L5')
    labels[:, 24:34, 10:30] = JOINT.channel('L5')
    write_labels(JOINT.decode(labels), scan, tmp_path / 'truth.nii.gz')
    by_path = segment(scan, predictor, protocol='oracle', truth=tmp_path / 'truth.nii.gz')
    by_array = segment(scan, predictor, protocol='oracle', truth=labels)
    assert [str(p) for p in by_path.prompts] == [str(p) for p in by_array.prompts]
    assert set(by_path.prompts[0].structures) == {'L4', 'L4/L5', 'L5'}
    other = new_volume(data, new_geometry(data.shape, (4.0, 2.0, 2.5)))
    with pytest.raises(InputError, match='geometry differs'):
        segment(other, predictor, protocol='oracle', truth=tmp_path / 'truth.nii.gz')


def blocks(page: str) -> list:
    "The Python of a page"
    return re.findall(r'```python\n(.*?)```', page, re.S)


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch):
    "docs/python.md, block after block"
    from atm_net.phantom import make_phantom

    phantom = make_phantom(8, contrast='t2', slices=(3, 5.0))
    for path in ('scan.nii.gz', 'scans/a.nii.gz', 'scans/b.nii.gz'):
        write_volume(phantom.volume.data.astype(np.float32), phantom.volume, tmp_path / path)
    write_labels(JOINT.decode(phantom.labels), phantom.volume, tmp_path / 'truth.nii.gz')
    monkeypatch.chdir(tmp_path)
    names = {}
    page = (ROOT / 'docs' / 'python.md').read_text(encoding='utf-8')
    for block in blocks(page):
        exec(compile(block, 'docs/python.md', 'exec'), names)
    written = {
        str(p.relative_to(tmp_path)) for p in Path().resolve().rglob('*mask*') if p.is_file()
    }
    assert {'mask.nii.gz', 'mask.seg.nrrd', 'mask_probabilities.npz'} <= written
    assert sorted(os.listdir('masks')) == ['a.nii.gz', 'b.nii.gz']
