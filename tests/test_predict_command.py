"Which file becomes which, what is refused before any work, and the crop of `atm_prepare`"

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from conftest import call, complaint, done

from atm_net.anatomy import LUMBAR
from atm_net.column import Naming
from atm_net.core import InputError, sha256_of
from atm_net.data import Cache
from atm_net.geometry import new_geometry
from atm_net.mask_files import levels_record_of, write_label_files
from atm_net.phantom import make_phantom
from atm_net.predict import SHIPPED, load_predictor, localise, weights_id
from atm_net.predict_command import (
    Job,
    atm_prepare,
    check_weighed,
    companion,
    find_jobs,
    levels_record,
    spare_inputs,
)
from atm_net.prediction import Prediction
from atm_net.volumes import read_volume, write_labels, write_volume


@pytest.fixture
def scans(tmp_path):
    "A folder with two volumes, and a link to it"
    (tmp_path / 'in').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'in')
    for name in ('a.mha', 'b.nii.gz'):
        (tmp_path / 'in' / name).write_bytes(b'scan')
    return tmp_path


def refused(volume, out, words, **beside):
    jobs = find_jobs(volume, out)
    for job in jobs:
        for field, path in beside.items():
            setattr(job, field, path)
    with pytest.raises(InputError, match=words):
        spare_inputs(jobs)


# --- jobs


def test_a_folder_gives_a_folder(scans, capsys):
    (scans / 'in' / 'notes.txt').touch()
    jobs = find_jobs(str(scans / 'in'), str(scans / 'out'))
    assert [j.volume.name for j in jobs] == ['a.mha', 'b.nii.gz']
    assert [j.mask.relative_to(scans).as_posix() for j in jobs] == ['out/a.mha', 'out/b.nii.gz']
    assert [j.picture.relative_to(scans).as_posix() for j in jobs] == [
        'out/png/a.png',
        'out/png/b.png',
    ]
    assert 'passed over, not a volume: notes.txt' in capsys.readouterr().err


def test_a_file_gives_a_file_or_goes_to_a_folder(scans):
    a = scans / 'in' / 'a.mha'
    assert find_jobs(a, scans / 'm.nii.gz') == [Job(a, scans / 'm.nii.gz', scans / 'm.png')]
    assert find_jobs(a, scans / 'out') == [
        Job(a, scans / 'out' / 'a.mha', scans / 'out' / 'png' / 'a.png')
    ]
    with pytest.raises(InputError, match='only the mask of a single slice is a PNG'):
        find_jobs(a, scans / 'm.png')
    with pytest.raises(InputError, match='or name a folder with / at its end'):
        find_jobs(a, scans / 'm.txt')


def test_a_name_that_is_a_folder_is_one(scans):
    a = scans / 'in' / 'a.mha'
    (scans / 'results_v1.2').mkdir()
    for out in (scans / 'results_v1.2', f'{scans}/results_v1.2/', f'{scans}/new.1/'):
        (job,) = find_jobs(a, out)
        assert job.mask.name == 'a.mha' and job.mask.parent.name in ('results_v1.2', 'new.1')
    with pytest.raises(InputError, match='holds 2 volumes: name a folder'):
        find_jobs(scans / 'in', scans / 'm.nii.gz')


def test_endings_in_capital_letters(scans):
    (scans / 'SCAN.NII.GZ').touch()
    (job,) = find_jobs(scans / 'SCAN.NII.GZ', scans / 'out')
    assert (job.mask.name, job.picture.name) == ('SCAN.nii.gz', 'SCAN.png')
    (scans / 'x.mhd').touch()
    (scans / 'y.NRRD').touch()
    names = [find_jobs(scans / n, scans / 'out')[0].mask.name for n in ('x.mhd', 'y.NRRD')]
    assert names == ['x.mha', 'y.nrrd']


def test_a_stray_slice_hides_no_volume(scans, capsys):
    (scans / 'in' / 'scout.dcm').touch()
    (scans / 'in' / 'old').mkdir()
    assert [j.volume.name for j in find_jobs(scans / 'in', scans / 'out')] == ['a.mha', 'b.nii.gz']
    said = capsys.readouterr().err
    assert 'DICOM beside volumes (a series needs a folder of its own): scout.dcm' in said
    assert 'not a volume: old' in said


def test_pictures_need_a_pixel_size(scans):
    (scans / 'in' / 's.png').touch()
    plain = find_jobs(scans / 'in', scans / 'out')
    assert [j.volume.name for j in plain] == ['a.mha', 'b.nii.gz']
    jobs = find_jobs(scans / 'in', scans / 'out', '0.7')
    assert [(j.volume.name, j.spacing) for j in jobs] == [
        ('a.mha', None),
        ('b.nii.gz', None),
        ('s.png', '0.7'),
    ]
    (job,) = find_jobs(scans / 'in' / 's.png', scans / 'm.png', '0.7,0.5')
    assert (job.mask.name, job.picture.name) == ('m.png', 'm_overlay.png')
    with pytest.raises(InputError, match="--spacing 'wide'"):
        find_jobs(scans / 'in' / 's.png', scans / 'm.png', 'wide')


def test_a_series_is_asked_of_dicom_only(scans):
    with pytest.raises(InputError, match='--series 3: no DICOM folder'):
        find_jobs(scans / 'in', scans / 'out', series='3')


def test_a_dicom_folder_gives_nifti(scans):
    (scans / 'series').mkdir()
    (scans / 'series' / '1.dcm').touch()
    (job,) = find_jobs(scans / 'series', scans / 'out')
    assert job.mask == scans / 'out' / 'series.nii.gz'


def test_what_is_no_volume(scans):
    (scans / 'empty').mkdir()
    (scans / 'notes.txt').touch()
    for name, words in (
        ('none', 'no such file or folder'),
        ('empty', 'DICOM volume in this folder'),
        ('notes.txt', 'is not a volume'),
    ):
        with pytest.raises(InputError, match=words):
            find_jobs(scans / name, scans / 'out')


# --- no output is an input


@pytest.mark.parametrize('out', ['in', 'link', 'in/../in'])
def test_masks_spare_their_scans_however_spelt(scans, out):
    words = 'a.mha: would be overwritten by its mask: name another folder'
    refused(scans / 'in', scans / out, words)
    refused(scans / 'in' / 'b.nii.gz', scans / out, 'b.nii.gz: would be overwritten')


def test_masks_spare_a_scan_behind_a_link(scans):
    refused(scans / 'link' / 'a.mha', scans / 'in' / 'a.mha', 'overwritten')


@pytest.mark.parametrize('field', ['truth', 'report'])
def test_masks_spare_what_is_read_beside_the_scan(scans, field):
    t = scans / 't.nii.gz'
    refused(scans / 'in' / 'a.mha', t, 't.nii.gz: would be overwritten', **{field: t})


def test_pictures_spare_what_is_read(scans):
    refused(scans / 'in' / 'a.mha', scans / 'm.mha', 'overwritten', report=scans / 'm.png')


def test_two_masks_are_two_files(scans):
    (scans / 'in' / 'b').mkdir()
    (scans / 'in' / 'b' / '1.dcm').touch()
    refused(scans / 'in', scans / 'out', 'different folders')  # both would be b.nii.gz


def test_other_names_are_fine(scans):
    spare_inputs(find_jobs(scans / 'in', scans / 'out'))
    spare_inputs(find_jobs(scans / 'in' / 'a.mha', scans / 'in' / 'a_mask.mha'))


# --- companions


def test_a_companion_has_the_stem_of_its_volume(tmp_path):
    for name in ('mask_A.nii.gz', 'b.mha', 'a.txt'):
        (tmp_path / name).touch()
    assert companion(tmp_path, tmp_path / 'a.mha', 'mask').name == 'mask_A.nii.gz'
    assert companion(tmp_path, tmp_path / 'A.nii.gz', 'report').name == 'a.txt'
    with pytest.raises(InputError, match='no report for c.mha'):
        companion(tmp_path, tmp_path / 'c.mha', 'report')


@pytest.mark.parametrize('other', ('a.json', 'a.pdf', 'a.PDF', 'a.docx', 'a.html'))
def test_a_report_is_the_text_among_files_of_its_stem(tmp_path, other):
    (tmp_path / other).touch()
    (tmp_path / 'a.txt').touch()
    assert companion(tmp_path, tmp_path / 'a.mha', 'report').name == 'a.txt'


def test_a_file_of_another_kind_is_no_report(tmp_path):
    (tmp_path / 'a.json').touch()
    with pytest.raises(InputError, match='no report for a.mha'):
        companion(tmp_path, tmp_path / 'a.mha', 'report')


def test_a_companion_may_be_a_file_or_left_out(tmp_path):
    assert companion('x.txt', tmp_path / 'a.mha', 'report').name == 'x.txt'
    assert companion(None, tmp_path / 'a.mha', 'mask') is None
    with pytest.raises(InputError, match='--report: empty'):
        companion(' ', tmp_path / 'a.mha', 'report')


# --- how the levels were counted

JOINT = LUMBAR.scheme('joint')


@pytest.fixture(scope='module')
def lumbar_scan(tmp_path_factory):
    "A phantom of five slices, T9 to L5"
    phantom = make_phantom(8, contrast='t2', slices=(5, 5.0))
    path = tmp_path_factory.mktemp('scan') / 's.nii.gz'
    write_volume(phantom.volume.data, phantom.volume.geometry, path)
    return path


def predicted(scan, out, *args):
    "What was said, and the record"
    said = done(call('atm_predict', scan, out, '--labels', 'joint', *args))
    return said, json.loads((out.parent / f'{out.name}.json').read_text(encoding='utf-8'))


def levels_line(said) -> str:
    "The line about the levels"
    return next(x for x in said.err.splitlines() if ': levels' in x).split(': ', 1)[1]


def test_the_record_of_a_mask(lumbar_scan, tmp_path):
    out = tmp_path / 'm.nii.gz'
    said, record = predicted(lumbar_scan, out, '--protocol', 'generic')
    assert record['note'] == levels_line(said)
    assert record['settled_by'] == 'image' and record['agrees_with_image']
    assert record['mask_sha256'] == sha256_of(out)[:12] and levels_record_of(out) == record
    assert record['weights'] == weights_id() and record['anchor'] is None
    assert (record['protocol'], record['labels']) == ('generic', 'joint')
    assert 0 < record['confidence'] < 1 and record['parts'] == record['parts_by_image']
    mask = read_volume(out)
    for row in record['levels']:
        here = np.argwhere(mask.data == JOINT.values[row['level']])
        centre = mask.geometry.affine @ [*here.mean(0), 1]
        np.testing.assert_allclose(row['position_ras_mm'], centre[:3], atol=0.1)
        assert row['slice'] == round(here[:, 0].mean())
    heights = [row['position_ras_mm'][2] for row in record['levels']]
    assert len(heights) > 4 and heights == sorted(heights, reverse=True)
    lumbar = [row for row in record['levels'] if row['level'].startswith('L')]
    assert record['lumbar_bodies'] == len(lumbar)


def test_the_record_says_what_is_in_the_mask(lumbar_scan, tmp_path):
    out = tmp_path / 'm.nii.gz'
    record = predicted(lumbar_scan, out, '--protocol', 'generic')[1]
    mask = read_volume(out)
    ml = np.prod(mask.spacing) / 1000
    for name, volume in record['volumes_ml'].items():
        assert volume == pytest.approx((mask.data == JOINT.values[name]).sum() * ml, abs=1e-3)
    assert record['values'] == JOINT.values and record['colors']['L5'] == LUMBAR['L5'].color
    assert len(record['prompts']) == len(mask.data) and record['prompt'] in record['prompts']
    assert (record['source'], record['notes']) == (lumbar_scan.name, [])
    assert {'torch', 'nibabel'} <= set(record['libraries'])


def test_names_and_colours_go_along(tmp_path):
    write_label_files(JOINT, tmp_path)
    snap = (tmp_path / 'labels_joint.txt').read_text(encoding='utf-8').splitlines()
    slicer = (tmp_path / 'labels_joint.ctbl').read_text(encoding='utf-8').splitlines()
    assert '2 230 159 0 1 1 1 "L5"' in snap and '2 L5 230 159 0 255' in slicer
    assert len(snap) == 21 and len(slicer) == 22


def test_an_anchor_moves_all_names(lumbar_scan, tmp_path):
    before = predicted(lumbar_scan, tmp_path / 'a.nii.gz', '--protocol', 'generic')[1]
    lowest = [n for n in before['parts_by_image'] if n][-1]
    args = ('--protocol', 'generic', '--anchor', 'l3')
    said, record = predicted(lumbar_scan, tmp_path / 'b.nii.gz', *args)
    assert (record['anchor'], record['settled_by'], record['sure']) == ('L3', 'anchor', True)
    assert record['parts_by_image'] == before['parts_by_image']
    line = levels_line(said)
    assert line.startswith('levels: the anchor and the network disagree')
    assert [n for n in record['parts'] if n][-1] == 'L3'
    assert 'L3 by the anchor' in line and f'{lowest} by the network' in line


def test_a_list_that_disagrees_is_followed_and_said(lumbar_scan, tmp_path):
    before = predicted(lumbar_scan, tmp_path / 'a.nii.gz', '--protocol', 'generic')[1]
    bodies = JOINT.of_kind('vertebra', 'sacrum')
    seen = [n for n in before['parts_by_image'] if n]
    moved = [bodies[bodies.index(n) + 1] for n in seen]
    said, record = predicted(lumbar_scan, tmp_path / 'b.nii.gz', '--prompt', ', '.join(moved))
    assert record['settled_by'] == 'list' and not record['agrees_with_image']
    assert levels_line(said).startswith('levels: the list and the network disagree')


def test_pixelwise_counts_nothing(lumbar_scan, tmp_path):
    out = tmp_path / 'm.nii.gz'
    said, record = predicted(lumbar_scan, out, '--protocol', 'generic', '--pixelwise')
    assert 'levels' not in said.err and 'confidence' not in record
    assert record['counting'] == 'each pixel by itself' and record['levels']


def test_what_is_there_is_not_done_again(lumbar_scan, tmp_path):
    "A mask with its own record is left alone; one without may be somebody's: only with --force"
    (tmp_path / 'in').mkdir()
    for name in ('a.nii.gz', 'b.nii.gz', 'c.nii.gz'):
        shutil.copy(lumbar_scan, tmp_path / 'in' / name)
    args = (tmp_path / 'in', tmp_path / 'out', '--protocol', 'generic', '--skip-existing')
    done(call('atm_predict', *args))
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / 'out').glob('*.nii.gz')}
    (tmp_path / 'out' / 'b.nii.gz.json').unlink()
    (tmp_path / 'out' / 'c.nii.gz').unlink()
    assert 'b.nii.gz: exists' in call('atm_predict', *args).err
    said = done(call('atm_predict', *args, '--force')).out.splitlines()
    assert said[0] == f'{tmp_path / "out" / "a.nii.gz"}: is there already, skipped'
    assert [line.split(':')[0][-8:] for line in said] == ['a.nii.gz', 'b.nii.gz', 'c.nii.gz']
    changed = {p.name for p, at in times.items() if p.stat().st_mtime_ns != at}
    assert changed == {'b.nii.gz', 'c.nii.gz'}
    assert done(call('atm_predict', *args)).out.count('skipped') == 3
    mended = tmp_path / 'out' / 'a.nii.gz'
    mended.write_bytes(lumbar_scan.read_bytes())  # by a person; the others go on
    (tmp_path / 'out' / 'b.nii.gz').unlink()
    said = done(call('atm_predict', *args)).out
    assert 'a.nii.gz: was changed since it was written, left alone' in said
    assert mended.read_bytes() == lumbar_scan.read_bytes() and said.count('skipped') == 1


def test_probabilities_lie_beside_the_mask(lumbar_scan, tmp_path):
    predicted(lumbar_scan, tmp_path / 'm.nii.gz', '--protocol', 'generic', '--probabilities')
    kept = np.load(tmp_path / 'm_probabilities.npz')
    image = nib.load(tmp_path / 'm.nii.gz')
    assert kept['probabilities'].shape == (21, *image.shape)
    np.testing.assert_allclose(kept['affine'], image.affine, atol=1e-4)
    values = np.array([0, *JOINT.values.values()])
    best = values[kept['probabilities'].argmax(0)]
    assert (best == np.asarray(image.dataobj)).mean() > 0.9999  # but for rounding


def test_self_says_whether_its_words_were_read(lumbar_scan, tmp_path):
    said, record = predicted(lumbar_scan, tmp_path / 'm.nii.gz', '--protocol', 'self')
    words = 'its words were read' if record['words_read'] else 'the generic prompt was read'
    assert said.out.rstrip().endswith(words)
    named = 'L' in record['prompt'].replace('Lumbar', '')
    assert record['words_read'] == named, record['prompt']
    _, record = predicted(lumbar_scan, tmp_path / 'n.nii.gz', '--protocol', 'generic')
    assert record['words_read'] is None


def test_phantoms_of_another_anatomy_are_named(tmp_path):
    done(call('atm_phantom', tmp_path / 'p', '--patients', 1, '--anatomy', 'thoracic'))
    mask = next((tmp_path / 'p' / 'masks').iterdir())
    for args in (
        ('atm_audit', tmp_path / 'p'),
        ('atm_prepare', tmp_path / 'p', tmp_path / 'c'),
        ('atm_score', mask, mask),
        ('atm_measure', mask),
        ('atm_prompt', mask),
    ):
        line = complaint(call(*args))
        assert "phantoms of the 'thoracic spine': add --anatomy thoracic" in line, line
    done(call('atm_prompt', mask, '--anatomy', 'thoracic'))
    assert not (tmp_path / 'c').exists()


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (('--anchor', 'L6'), 'of six lumbar vertebrae L6 is called L5'),
        (('--anchor', 'T13'), 'right above L1 is called T12'),
        (('--anchor', 'L44'), "did you mean 'L4'?"),
        (('--anchor', 'L9'), "did you mean 'L5'?"),
        (('--anchor', 'L4/L5'), 'is no vertebra of scheme joint'),
        (('--anchor', ''), 'is no vertebra of scheme joint'),
        (('--anchor', 'L5', '--pixelwise'), '--anchor: nobody reads it with --pixelwise'),
        (('--anchor', 'L4', '--prompt', 'L3 to L5'), 'the words name L5 below it'),
        (('--prompt', 'L4 and L6'), 'of six lumbar vertebrae L6 is called L5'),
    ],
)
def test_refused_before_anything_is_written(lumbar_scan, tmp_path, args, words):
    line = complaint(call('atm_predict', lumbar_scan, tmp_path / 'm.nii.gz', *args))
    assert words in line and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'args',
    [('--anchor', 'L9'), ('--prompt', 'L4 and L9'), ('--labels', 'nosuch'), ('--prompt', 'C5')],
)
def test_wrong_words_are_refused_before_the_network_is_loaded(
    args, lumbar_scan, tmp_path, monkeypatch
):
    def load(*_, **__):
        raise AssertionError('the network was loaded')

    monkeypatch.setattr('atm_net.predict_command.load_predictor', load)
    complaint(call('atm_predict', lumbar_scan, tmp_path / 'm.nii.gz', *args))


def test_a_level_that_the_list_cannot_deny(lumbar_scan, tmp_path):
    words = 'only L4 and L5, no sacrum'
    said, record = predicted(lumbar_scan, tmp_path / 'm.nii.gz', '--prompt', words)
    assert 'S: left out of the list' in said.err
    assert 'shows' in record['prompt'] and 'at least' not in record['prompt']


def test_an_l6_of_a_report_is_answered(lumbar_scan, tmp_path):
    report = tmp_path / 'r.txt'
    report.write_text('Six lumbar vertebrae. Bulge at L4/5 and L6/S1.', encoding='utf-8')
    said, _ = predicted(lumbar_scan, tmp_path / 'm.nii.gz', '--report', report)
    assert f'{report}: L6: of six lumbar vertebrae L6 is called L5' in said.err


def test_an_uncertain_counting_is_written_so(lumbar_scan):
    predictor = load_predictor()
    volume = read_volume(lumbar_scan)
    labels = np.full(volume.shape, JOINT.channel('L5'), np.uint8)
    levels = Naming(('L4', 'L5'), ('L4', 'L5'), 3.0, 0.0, 'L5')
    prediction = Prediction(labels, JOINT, 'generic', [], levels=levels)
    record = levels_record(prediction, volume, predictor)
    assert record['sure'] is False and record['prompt'] is None
    assert record['note'].startswith('levels uncertain: the sacrum is not clearly seen')
    assert [row['level'] for row in record['levels']] == ['L5']


def test_a_mask_spares_a_scan_that_is_named_like_its_record(scans):
    refused(scans / 'in' / 'a.mha', scans / 'm.mha', 'overwritten', report=scans / 'm.mha.json')


# --- atm_prepare


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "Three small cases of two bodies, L4 and L5"
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(3)
    labels = np.zeros((2, 40, 30), np.uint8)
    labels[:, 8:16, 9:20] = 3
    labels[:, 18:30, 9:20] = 2
    geometry = new_geometry(labels.shape, (4.0, 2.0, 2.0))
    for k in range(3):
        image = labels * 100.0 + rng.normal(0, 5, labels.shape)
        write_volume(image, geometry, root / 'images' / f'c{k}.mha')
        write_labels(labels, geometry, root / 'masks' / f'c{k}.mha')
    return root


def test_crop_self_is_recorded_and_not_mixed(data, tmp_path, capsys):
    def made(**more):
        kwargs = dict(labels='joint', crop='self', size=64)
        return atm_prepare(str(data), str(tmp_path / 'c'), **kwargs, **more)

    first = made()
    assert first['localiser'] == weights_id() and len(first['localiser']['sha256']) == 12
    assert made() == first
    assert 'localiser' in json.loads((tmp_path / 'c' / 'cache.json').read_text(encoding='utf-8'))
    weights = bytearray(SHIPPED.read_bytes())
    weights[-1] ^= 1
    other = tmp_path / SHIPPED.name  # the name alone says nothing
    other.write_bytes(weights)
    with pytest.raises(InputError, match='field localiser'):
        made(weights=str(other))  # other boxes, other pixels


def test_crop_self_is_the_box_of_localise(data, tmp_path):
    atm_prepare(str(data), str(tmp_path / 'c'), labels='joint', crop='self', size=64)
    volume = read_volume(data / 'images' / 'c1.mha')
    assert Cache(tmp_path / 'c').meta('c1')['box'] == list(localise(load_predictor(), volume))


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        (dict(size=0), '--size'),
        (dict(size=-3), '--size'),
        (dict(preset='huge'), "--preset 'huge' is unknown: use tiny or paper"),
        (dict(crop='mask'), "--crop 'mask' is unknown: use fov, self or oracle"),
    ],
)
def test_bad_options_leave_no_folder(data, tmp_path, option, words):
    with pytest.raises(InputError, match=words):
        atm_prepare(str(data), str(tmp_path / 'e'), labels='joint', **option)
    assert not (tmp_path / 'e').exists()


# --- the weight of the prompt


@pytest.mark.parametrize('weight', ['-1', 'nan', 'inf'])
def test_a_weight_that_is_none(weight, tmp_path, capsys):
    (tmp_path / 'scan.nii.gz').touch()
    said = call('atm_predict', tmp_path / 'scan.nii.gz', tmp_path / 'out', f'--guidance={weight}')
    assert said.status == 2 and said.err.strip().count('\n') == 0
    assert 'must be 0 or more' in said.err and not (tmp_path / 'out').exists()


def test_a_prompt_that_names_nothing_has_no_weight():
    check_weighed(1, 'generic')
    check_weighed(4, 'user')
    with pytest.raises(InputError, match="protocol 'generic' names no structure"):
        check_weighed(4, 'generic')
