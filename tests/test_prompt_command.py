"The command `atm_prompt`: what it prints of masks and reports, and what it refuses"

import json
import re

import numpy as np
import pytest
from conftest import call, done
from drawn import draw, joint, spider, truth
from test_reports import REPORT

from atm_net.anatomy import LUMBAR
from atm_net.geometry import new_geometry
from atm_net.prompts import atpg, holistic
from atm_net.reports import read_report, say_findings
from atm_net.user_prompts import report_prompt, unrecognised
from atm_net.volumes import write_labels, write_volume


def write_mask(path, labels, scheme=joint, spacing=(4.0, 1.0, 1.0)):
    write_labels(scheme.decode(labels), new_geometry(labels.shape, spacing), path)
    return path


EMPTY = np.zeros((90, 31), np.uint8)
VOLUME = np.stack(
    [EMPTY, draw((*LUMBAR.run('L4', 'S'), 'SC')), draw(LUMBAR.run('L5', 'S')), EMPTY, EMPTY]
)
NAMES = ['L4', 'L4/L5', 'L5', 'L5/S', 'S', 'SC']


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "A mask, a report and an image"
    d = tmp_path_factory.mktemp('prompts')
    write_mask(d / 'm.nii.gz', VOLUME)
    (d / 'r.txt').write_text(REPORT, encoding='utf-8')
    (d / 'n.txt').write_text('Normal lumbar spine.', encoding='utf-8')
    image = np.arange(5 * 12 * 10.0).reshape(5, 12, 10)
    write_volume(image, new_geometry(image.shape, (4.0, 1.0, 1.0)), d / 'image.nii.gz')
    return d


def said(*args):
    "What `atm_prompt --json` says"
    return json.loads(done(call('atm_prompt', *args, '--json')).out)


def test_one_slice_of_a_mask(files):
    r = call('atm_prompt', files / 'm.nii.gz', '--slice', 1, '--json')
    out = json.loads(done(r).out)
    assert list(out) == ['scheme', 'structures', 'findings', 'sentence', 'slice', 'position']
    assert (out['structures'], out['findings'], out['position']) == (NAMES, [], 'upper')
    assert out['sentence'] == atpg(VOLUME[1], joint, 1, 5).text
    assert "read as scheme 'joint'" in r.err  # it says what it guessed


def test_a_whole_mask(files):
    out = said(files / 'm.nii.gz', '--labels', 'joint')
    assert list(out) == ['scheme', 'structures', 'findings', 'sentence', 'slices']
    assert out['structures'] == NAMES and out['sentence'] == holistic(NAMES, LUMBAR).text
    sentences = [s['sentence'] for s in out['slices']]
    assert sentences == [atpg(lab, joint, k, 5).text for k, lab in enumerate(VOLUME)]
    assert [s['position'] for s in out['slices']] == ['upper'] * 2 + ['middle'] + ['lower'] * 2


@pytest.mark.parametrize('option', (1, 2, 3))
def test_options_of_a_slice(files, option):
    out = said(files / 'm.nii.gz', '--labels', 'joint', '--slice', 0, '--option', option)
    assert out['sentence'] == atpg(VOLUME[0], joint, 0, 5, option).text


def test_option_3_is_the_default(files):
    out = said(files / 'm.nii.gz', '--labels', 'joint', '--slice', 0)
    assert out['sentence'] == atpg(VOLUME[0], joint, 0, 5).text


def test_option_1_lists_what_the_mask_shows(files):
    assert said(files / 'm.nii.gz', '--labels', 'joint', '--option', 1)['structures'] == NAMES


def test_a_report(files):
    out = said('--report', files / 'r.txt')
    assert list(out) == ['structures', 'findings', 'sentence']
    assert out['sentence'] == report_prompt(REPORT, LUMBAR).text
    assert out['findings'] == [vars(f) for f in read_report(REPORT, LUMBAR)]
    out = said('--report', files / 'r.txt', '--option', 4)
    assert out['sentence'] == report_prompt(REPORT, LUMBAR, option=4).text


def test_a_mask_and_a_report(files):
    args = (files / 'm.nii.gz', '--labels', 'joint', '--report', files / 'r.txt')
    sentence = atpg(VOLUME[1], joint, 1, 5).text
    findings = say_findings(read_report(REPORT, LUMBAR), LUMBAR)
    assert said(*args, '--slice', 1, '--option', 4)['sentence'] == sentence + findings
    out = said(*args, '--slice', 1)
    assert out['sentence'] == sentence and len(out['findings']) == len(read_report(REPORT, LUMBAR))
    out = said(*args, '--option', 4)
    assert all(s['sentence'].endswith(findings) for s in (out, *out['slices']))


def test_a_report_that_names_no_level(files):
    r = call('atm_prompt', '--report', files / 'n.txt', '--json')
    wanted = dict(structures=[], findings=[], sentence=str(holistic((), LUMBAR, 1)))
    assert json.loads(done(r).out) == wanted
    assert r.err == f'{files / "n.txt"}: {unrecognised(report_prompt("Normal.", LUMBAR))}\n'


@pytest.mark.parametrize(
    'text, note',
    (
        ('Disc protrusion at L6/S1 and bulge at L3/4.', 'L6: of six lumbar vertebrae'),
        ('Keine Protrusion L5/S1.', 'the report seems to be in German'),
    ),
)
def test_what_is_not_read_of_a_report_is_said(tmp_path, text, note):
    (tmp_path / 'r.txt').write_text(text, encoding='utf-8')
    r = done(call('atm_prompt', '--report', tmp_path / 'r.txt', '--option', 4))
    assert note in r.err
    assert 'L5' not in r.out.partition('Findings')[2]


def test_class_wise_sentences(files):
    args = (files / 'm.nii.gz', '--labels', 'joint', '--option', 2, '--classwise')
    r = call('atm_prompt', *args)
    assert (r.status, r.err) == (0, '')
    lines = r.out.splitlines()
    assert len(lines) == 5 + 1 + 21
    assert f'slice 2 (middle third): {atpg(VOLUME[2], joint, 2, 5, 2)}' in lines
    assert lines[5].startswith('whole volume: ')
    out = said('--report', files / 'r.txt', '--classwise')['classwise']
    assert len(out) == 21 and out['L3'] == 'It contains lumbar vertebra L3.'


def test_what_is_printed_of_a_report(tmp_path):
    f = tmp_path / 'r.txt'
    f.write_text('Disc herniation at L4/5. No fracture of L1.\n', encoding='utf-8')
    lines = done(call('atm_prompt', '--report', f)).out.splitlines()
    assert lines[0] == report_prompt(f.read_text(encoding='utf-8'), LUMBAR).text
    assert lines[1:] == ['disc herniation at L4/L5', 'no fracture at L1']


@pytest.mark.parametrize(
    'option, words', ((0, 'use 1, 2, 3 or 4'), (5, 'use 1, 2, 3 or 4'), (4, '--report'))
)
def test_options_that_do_not_exist(files, option, words):
    r = call('atm_prompt', files / 'm.nii.gz', '--labels', 'joint', '--option', option)
    assert (r.status, r.out) == (2, '') and words in r.err
    assert re.search(f"--option:? '?{option}", r.err)


@pytest.mark.parametrize(
    'args, words, lines',
    (
        (('m.nii.gz', '--slice', 9), '0 to 4', 2),
        (('m.nii.gz', '--slice', -1), '0 to 4', 2),
        (('m.nii.gz', '--labels', 'spider'), 'unknown', 1),
        (('none.nii.gz',), 'none.nii.gz', 1),
        ((), '--report', 1),
        (('--report', 'm.nii.gz'), 'm.nii.gz', 1),
        (('image.nii.gz',), 'this is an image and no label volume', 1),
    ),
)
def test_what_is_refused(files, args, words, lines):
    args = [files / a if str(a).endswith('.gz') else a for a in args]
    r = call('atm_prompt', *args)
    assert (r.status, r.out, len(r.err.strip().splitlines())) == (2, '', lines)
    assert words in r.err


def test_a_grading_table(tmp_path):
    f = tmp_path / 'radiological_gradings.csv'
    f.write_text('Patient,IVD label,Disc bulging\n7,1,1\n', encoding='utf-8')
    assert said('--report', f, '--patient', 7)['structures'] == ['L5', 'L5/S', 'S']
    assert '--patient' in call('atm_prompt', '--report', f).err


def test_values_of_spider_that_are_parts_or_lie_above(tmp_path):
    "105 is a part of L1; 10 and 210 lie above the table"
    part = spider.decode(np.stack([draw(truth, scheme=spider)] * 3)).astype(np.uint16)
    part[part == 5] = 105
    part[:, :4, 6:17] = 210
    part[:, 86:, 6:17] = 10
    write_labels(part, new_geometry(part.shape, (4.0, 1.0, 1.0)), tmp_path / 's.nii.gz')
    out = said(tmp_path / 's.nii.gz', '--slice', 1)
    assert (out['scheme'], out['structures']) == ('spider', list(truth))


def test_a_prompt_of_one_slice_lists_that_slice(tmp_path):
    y = np.zeros((3, 40, 30), np.uint8)
    y[:2, 2:14, 4:20] = joint.channel('L3')
    y[1, 20:32, 4:20] = joint.channel('L4')
    args = (write_mask(tmp_path / 'm.nii.gz', y), '--labels', 'joint')
    assert set(said(*args, '--slice', 0, '--option', 1)['structures']) == {'L3'}
    assert set(said(*args, '--option', 1)['structures']) == {'L3', 'L4'}
    assert set(said(*args, '--slice', 0)['structures']) == {'L3'}
    assert set(said(*args)['structures']) == {'L3', 'L4'}


@pytest.mark.parametrize('option', (2, 3))
def test_specks_of_single_slices_make_no_structure(tmp_path, option):
    "Nine pixels in each of two slices: no sentence names them, so that of the volume does not"
    y = np.zeros((3, 40, 30), np.uint8)
    y[:, 2:14, 4:20] = joint.channel('L3')
    y[:2, 20:23, 4:7] = joint.channel('L4')
    mask = write_mask(tmp_path / 'm.nii.gz', y)
    assert said(mask, '--labels', 'joint', '--option', option)['structures'] == ['L3']
