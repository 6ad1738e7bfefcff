"Series as scanners leave them: which files, which series, and slices that are no volume"

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian
from test_volumes import refused

from atm_net.dicom import dicom_files, is_dicom, series_folders
from atm_net.volumes import is_dicom_folder, is_volume, list_volumes, read_volume, write_labels

MR, ENHANCED = '1.2.840.10008.5.1.4.1.1.4', '1.2.840.10008.5.1.4.1.1.4.1'
CAPTURE = '1.2.840.10008.5.1.4.1.1.7'
PIXELS = np.random.default_rng(0).integers(0, 900, (5, 14, 22)).astype(np.uint16)
PLANES = dict(sagittal=[0, 1, 0, 0, 0, -1], axial=[1, 0, 0, 0, 1, 0], coronal=[1, 0, 0, 0, 0, -1])


def new_file(path, pixels, kind=MR, **tags):
    "Write a DICOM file; a tag of None is left out"
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = kind
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = pydicom.uid.generate_uid()
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, 'MONOCHROME2'
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.Modality = 'MR'
    for name, value in tags.items():
        if value is not None:
            setattr(ds, name, value)
    ds.PixelData = np.ascontiguousarray(pixels, '<u2').tobytes()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def series(folder, uid='1.2.3.4', study='1.2.3', plane='sagittal', name='IM{}', slices=5, **tags):
    "A series of one file a slice, in disorder; a tag may be a function of the slice"
    iop = PLANES[plane]
    normal = np.cross(iop[:3], iop[3:])
    for k in range(slices):
        common = dict(
            SeriesInstanceUID=uid,
            StudyInstanceUID=study,
            ImageOrientationPatient=iop,
            ImagePositionPatient=[float(x) for x in -4.0 * k * normal],
            PixelSpacing=[1.5, 0.75],
            SliceThickness=4.0,
        )
        own = {n: v(k) if callable(v) else v for n, v in tags.items()}
        new_file(Path(folder) / name.format((3 * k) % 5), PIXELS[k], **common | own)
    return folder


def at(k, shift=(0, 0, 0)):
    "Where slice `k` lies, `shift` mm beside it"
    return [float(x) for x in np.add((4.0 * k, 0, 0), shift)]


# --- which files


@pytest.mark.parametrize('name', ['IM{}', 'IM{}.IMA', 'IM{}.DCM', '1.2.840.{}', 'x {} ü.dcm'])
def test_names_mean_nothing(tmp_path, name):
    volume = read_volume(series(tmp_path / 'd', name=name))
    np.testing.assert_array_equal(volume.data, PIXELS)
    np.testing.assert_allclose(volume.spacing, (4, 1.5, 0.75))
    assert is_volume(tmp_path / 'd') and [p.name for p in list_volumes(tmp_path)] == ['d']
    write_labels(PIXELS > 450, volume, tmp_path / 'm.nii.gz')
    again = read_volume(tmp_path / 'm.nii.gz')
    np.testing.assert_allclose(again.geometry.affine, volume.geometry.affine, atol=1e-4)


def test_what_is_no_dicom_file(tmp_path):
    series(tmp_path)
    for name in ('notes.txt', '.hidden', 'DICOMDIR'):
        (tmp_path / name).write_bytes(b'\0' * 128 + (b'DICM' if name != 'notes.txt' else b'text'))
    assert len(dicom_files(tmp_path)) == 5
    assert not is_dicom(tmp_path / 'none') and not is_dicom(tmp_path)
    (tmp_path / 'bad.dcm').write_bytes(b'no DICOM')
    volume = read_volume(tmp_path)
    assert volume.shape == (5, 14, 22)
    assert 'set aside, not readable as DICOM: bad.dcm' in volume.notes


def test_stray_files_hide_no_volumes(tmp_path):
    from test_nifti import image, saved

    (tmp_path / 'in').mkdir()
    saved(tmp_path / 'in', image(), 'a.nii.gz')
    series(tmp_path / 'in', slices=1, name='scout.dcm')
    assert [p.name for p in list_volumes(tmp_path / 'in')] == ['a.nii.gz']
    assert not is_dicom_folder(tmp_path / 'in')


# --- folders


def test_a_study_lies_one_level_down(tmp_path):
    series(tmp_path / 's' / 'a', '1.1', plane='axial', SeriesDescription='t2 tra')
    series(tmp_path / 's' / 'b', '1.2', SeriesDescription='t2 sag', SeriesNumber=7)
    assert is_dicom_folder(tmp_path / 's')
    volume = read_volume(tmp_path / 's')
    np.testing.assert_array_equal(volume.data, PIXELS)
    assert 'of 2 series 7 (t2 sag, 5 sagittal slices) is read' in volume.notes[0]
    (path,) = list_volumes(tmp_path)
    assert path.name == 's'


def test_patients_are_no_study(tmp_path):
    for n in (1, 2):
        series(tmp_path / f'p{n}', f'1.{n}', study=f'9.{n}')
    assert not is_dicom_folder(tmp_path) and series_folders(tmp_path) == []
    assert [p.name for p in list_volumes(tmp_path)] == ['p1', 'p2']
    series(tmp_path, '1.3', study='9.3', slices=1, name='stray.dcm')
    assert [p.name for p in list_volumes(tmp_path)] == ['p1', 'p2']


def test_constant_numbers_are_no_study(tmp_path):
    "Anonymised: one study and series for all"
    for n in (1, 2):
        series(tmp_path / f'p{n}')
    assert [p.name for p in list_volumes(tmp_path)] == ['p1', 'p2']


def test_a_patient_with_one_series_below(tmp_path):
    series(tmp_path / 'cohort' / 'p1' / 's1')
    assert [p.name for p in list_volumes(tmp_path / 'cohort')] == ['p1']
    assert read_volume(tmp_path / 'cohort' / 'p1').shape == (5, 14, 22)


def test_a_cd(tmp_path):
    "Folders in folders beside a DICOMDIR"
    (tmp_path / 'DICOMDIR').write_bytes(b'\0' * 128 + b'DICM')
    series(tmp_path / 'DICOM' / 'PA0' / 'SE1', '1.1')
    assert is_dicom_folder(tmp_path) and read_volume(tmp_path).shape == (5, 14, 22)
    series(tmp_path / 'DICOM' / 'PA0' / 'SE2', '1.2', plane='axial')
    assert 'of 2 series 1.1' in read_volume(tmp_path).notes[0]


# --- which series


def test_what_is_set_aside(tmp_path):
    series(tmp_path)
    new_file(tmp_path / 'cap', PIXELS[0], CAPTURE, SeriesInstanceUID='8.1')
    series(tmp_path, '8.2', name='loc{}', ImageType=['ORIGINAL', 'PRIMARY', 'LOCALIZER'])
    series(tmp_path, '8.3', name='one{}', slices=1)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.data, PIXELS)
    said = ' '.join(volume.notes)
    assert 'a secondary capture: cap' in said and 'a scout: loc0' in said
    assert '8.3 (no description, 1 sagittal slices)' in said


def test_several_series(tmp_path):
    series(tmp_path, '1.1', name='a{}', SeriesDescription='T1 sag', SeriesNumber=3)
    series(tmp_path, '1.2', name='b{}', SeriesDescription='T2 sag', SeriesNumber=4)
    said = refused(read_volume, tmp_path)
    assert '--series NUMBER' in said
    assert '3 (T1 sag, 5 sagittal slices); 4 (T2 sag, 5 sagittal slices)' in said
    for wanted in ('4', 't2', '1.2'):
        assert read_volume(tmp_path, series=wanted).shape == (5, 14, 22)
    assert "--series 'sag' fits 2" in refused(read_volume, tmp_path, None, 'sag')
    assert "--series '5' fits none" in refused(read_volume, tmp_path, None, '5')


def test_the_lumbar_one_of_two_sagittal_series(tmp_path):
    series(tmp_path, '1.1', name='a{}', BodyPartExamined='CSPINE')
    series(tmp_path, '1.2', name='b{}', SeriesDescription='T2 sag LWS')
    assert '1.2 (T2 sag LWS' in read_volume(tmp_path).notes[0]


# --- tags


@pytest.mark.parametrize(
    'tag, number',
    [
        ('PixelSpacing', '(0028,0030)'),
        ('ImagePositionPatient', '(0020,0032)'),
        ('ImageOrientationPatient', '(0020,0037)'),
    ],
)
def test_a_tag_that_is_missing(tmp_path, tag, number):
    usual = dict(
        PixelSpacing=[1.5, 0.75],
        ImagePositionPatient=None,
        ImageOrientationPatient=PLANES['sagittal'],
    )

    def third(k):
        return None if k == 2 else (at(k) if tag == 'ImagePositionPatient' else usual[tag])

    said = refused(read_volume, series(tmp_path, **{tag: third}))
    assert said.startswith(f'{tmp_path / "IM1"}: tag {tag} {number} is missing')


@pytest.mark.parametrize(
    'tags, words',
    [
        (dict(PixelSpacing=lambda k: [1.5, 0.75 if k != 2 else 0.8]), 'tag PixelSpacing'),
        (dict(PixelSpacing=[0, 0]), 'must be positive'),
        (dict(PixelSpacing=[-1.5, 0.75]), 'must be positive'),
        (
            dict(
                ImageOrientationPatient=lambda k: (
                    [0, 1, 0, 0, 0, -1] if k != 2 else [0, 1, 0, 0, 0, 1]
                )
            ),
            'tag ImageOrientationPatient',
        ),
        (dict(ImageOrientationPatient=[0, 1, 0, 0, 0.3, -0.9]), 'right angles'),
        (dict(ImagePositionPatient=lambda k: at(k + (k > 2))), 'a slice is missing'),
        (dict(ImagePositionPatient=lambda k: at(k + 0.3 * (k == 2))), 'unevenly spaced'),
        (dict(ImagePositionPatient=lambda k: at(max(k, 1))), 'a slice is doubled'),
        (dict(ImagePositionPatient=lambda k: at(k, (0, 5 * (k == 2), 0))), 'shifted by 5.00 mm'),
        (dict(ImagePositionPatient=lambda k: at(k, (0, 0, 0.8 * k))), 'shifted by 1.60 mm'),
        (dict(ImagePositionPatient=lambda k: at(0)), 'several pictures of one place'),
    ],
)
def test_slices_that_are_no_volume(tmp_path, tags, words):
    said = refused(read_volume, series(tmp_path, **tags))
    assert words in said
    assert re.match(rf'{re.escape(str(tmp_path))}/IM\d: ', said)


def test_slices_of_another_matrix(tmp_path):
    series(tmp_path)
    ds = pydicom.dcmread(tmp_path / 'IM1')
    ds.Rows, ds.PixelData = 7, ds.PixelData[: len(ds.PixelData) // 2]
    ds.save_as(tmp_path / 'IM1')
    assert 'IM1: a matrix (rows, columns) of [7.0, 22.0] differs' in refused(read_volume, tmp_path)


def test_distances_come_from_the_positions(tmp_path):
    volume = read_volume(series(tmp_path, SpacingBetweenSlices=9.0))
    assert volume.spacing[0] == 4 and 'SpacingBetweenSlices says 9 mm' in volume.notes[0]


def test_one_slice_has_its_thickness(tmp_path):
    series(tmp_path, slices=1, name='a.dcm')
    volume = read_volume(tmp_path / 'a.dcm')
    assert volume.shape == (1, 14, 22) and volume.spacing == (4, 1.5, 0.75)
    series(tmp_path / 'b', slices=1, SliceThickness=None)
    assert 'tag SliceThickness (0018,0050) is missing' in refused(read_volume, tmp_path / 'b')


def say(file, **tags):
    "Write what no standard allows into the tags of a file"
    data = pydicom.dcmread(file)
    for name, text in tags.items():
        held = RawDataElement(Tag(name), 'DS', len(text), text.encode(), 0, False, True)
        data._dict[Tag(name)] = held
    data.save_as(file)
    return file


def test_a_length_that_is_no_number_is_refused(tmp_path):
    a = series(tmp_path / 'a', slices=1, name='a.dcm') / 'a.dcm'
    said = refused(read_volume, say(a, SliceThickness='4 mm'))
    assert f'{a}: tag SliceThickness (0018,0050) holds no number' in said
    b = series(tmp_path / 'b')
    first = min(b.iterdir(), key=lambda f: pydicom.dcmread(f).ImagePositionPatient[0])
    say(first, SpacingBetweenSlices='wide')
    said = refused(read_volume, b)
    assert f'{first}: tag SpacingBetweenSlices (0018,0088) holds no number' in said


def test_a_length_of_zero_is_refused(tmp_path):
    a = series(tmp_path / 'a', slices=1, SliceThickness=0.0)
    said = refused(read_volume, a)
    assert f'{a / "IM0"}: tag SliceThickness (0018,0050) holds 0, which is no length' in said
    b = series(tmp_path / 'b', SpacingBetweenSlices=lambda k: 0.0 if k == 3 else 4.0)
    assert f'{b / "IM4"}: tag SpacingBetweenSlices' in refused(read_volume, b)


def test_one_slice_without_a_place_is_a_picture(tmp_path):
    new_file(tmp_path / 'c.dcm', PIXELS[0], CAPTURE)
    assert 'a secondary capture: c.dcm' in refused(read_volume, tmp_path / 'c.dcm')
    volume = read_volume(tmp_path / 'c.dcm', spacing='1.5,0.75')
    np.testing.assert_array_equal(volume.data, PIXELS[:1])
    series(tmp_path / 'd', slices=1, name='d.dcm')
    assert 'carries its own' in refused(read_volume, tmp_path / 'd' / 'd.dcm', 0.7)


# --- pixels


def test_inverted_and_rescaled(tmp_path):
    volume = read_volume(series(tmp_path / 'a', PhotometricInterpretation='MONOCHROME1'))
    order = np.argsort(PIXELS[0].ravel())
    assert (np.diff(volume.data[0].ravel()[order]) <= 0).all()
    slopes = dict(RescaleSlope=lambda k: 1.0 + k, RescaleIntercept=2.0, RescaleType='US')
    volume = read_volume(series(tmp_path / 'b', **slopes))
    want = PIXELS * np.arange(1.0, 6.0)[:, None, None] + 2
    np.testing.assert_allclose(volume.data, want)


def test_a_file_that_is_cut_short(tmp_path):
    series(tmp_path)
    path = tmp_path / 'IM4'
    path.write_bytes(path.read_bytes()[:-300])
    said = refused(read_volume, tmp_path)
    assert 'IM4' in said and ('truncated' in said or 'not readable' in said)


# --- one file for all slices


def enhanced(path, order=range(5), shift=lambda k: (0, 0, 0), spacing=(1.5, 0.75)):
    "An enhanced file, its frames in `order`"

    def group(**sequences):
        out = Dataset()
        for name, tags in sequences.items():
            item = Dataset()
            for tag, value in tags.items():
                setattr(item, tag, value)
            setattr(out, name, [item])
        return out

    measures = dict(SliceThickness=4.0) | (dict(PixelSpacing=list(spacing)) if spacing else {})
    shared = group(
        PixelMeasuresSequence=measures,
        PlaneOrientationSequence=dict(ImageOrientationPatient=PLANES['sagittal']),
    )
    frames = [
        group(PlanePositionSequence=dict(ImagePositionPatient=at(k, shift(k)))) for k in order
    ]
    return new_file(
        path,
        PIXELS[list(order)],
        ENHANCED,
        NumberOfFrames=len(frames),
        SeriesInstanceUID='1.5',
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    )


@pytest.mark.parametrize('order', [range(5), (3, 0, 4, 1, 2)], ids=['in order', 'in disorder'])
def test_an_enhanced_file(tmp_path, order):
    path = enhanced(tmp_path / 'e' / '1.dcm', order)
    for source in (path, path.parent):
        volume = read_volume(source)
        np.testing.assert_array_equal(volume.data, PIXELS)
        np.testing.assert_allclose(volume.spacing, (4, 1.5, 0.75))
    assert list_volumes(tmp_path) == [tmp_path / 'e']


def test_frames_that_are_no_volume(tmp_path):
    path = enhanced(tmp_path / '1.dcm', (0, 1, 2, 4))
    assert re.search(r'1.dcm: frame 3: .* 8.00 mm from frame 4', refused(read_volume, path))
    path = enhanced(tmp_path / '2.dcm', shift=lambda k: (0, 3 * (k == 1), 0))
    assert '2.dcm: frame 2: ' in refused(read_volume, path)
    path = enhanced(tmp_path / '3.dcm', spacing=None)
    assert 'frame 1: tag PixelSpacing' in refused(read_volume, path)


# --- files of others

SAMPLES = Path(pydicom.__file__).parent / 'data' / 'test_files'


@pytest.mark.parametrize('name', ['MR_small.dcm', 'CT_small.dcm', 'emri_small.dcm'])
def test_sample_files_of_pydicom(name):
    path = SAMPLES / name
    if not path.exists():
        pytest.skip(f'{name} is not in this pydicom')
    try:
        volume = read_volume(path)
    except Exception as e:
        assert type(e).__name__ == 'InputError' and name in str(e)
        return
    assert volume.data.ndim == 3 and np.isfinite(volume.geometry.affine).all()
