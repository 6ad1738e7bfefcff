"""The audit of a folder with a file made broken on purpose: one line names file, field and
remedy, the other cases are audited, the status is 0"""

import json
import re
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import call, complaint, done, shell, tree
from test_bad_input import axial, constant, four_d, shifted, spoil, truncated, with_nan

from atm_net.anatomy import LUMBAR, convert
from atm_net.geometry import new_geometry
from atm_net.volumes import read_volume, write_labels, write_volume

JOINT, SPIDER = LUMBAR.scheme('joint'), LUMBAR.scheme('spider')


def tower(seed, shape=(6, 84, 44), names=('L2', 'L2/L3', 'L3', 'L3/L4', 'L4', 'L4/L5', 'L5')):
    "A toy spine of boxes from head to feet with the canal behind: image, joint channels"
    rng = np.random.default_rng(seed)
    lab = np.zeros(shape, np.uint8)
    top = 3 + 2 * seed
    for i, n in enumerate(names):
        lab[1:-1, top + 9 * i : top + 9 * i + 8, 14:28] = JOINT.channel(n)
    lab[1:-1, 4:-4, 31:36] = JOINT.channel('SC')
    return (
        (np.r_[0.2, np.linspace(0.35, 0.95, 20)][lab] + rng.normal(0, 0.02, shape)) * 1000
    ).astype(np.float32), lab


def toy(folder, stems, end='.nii.gz', scheme=JOINT):
    "A cohort of toy spines: `images/`, `masks/`"
    for k, n in enumerate(stems):
        img, lab = tower(k)
        g = new_geometry(img.shape, (4.0, 1.5, 1.5))
        write_volume(img, g, folder / 'images' / f'{n}{end}')
        write_labels(
            scheme.decode(convert(lab, JOINT, scheme)[0]), g, folder / 'masks' / f'{n}{end}'
        )
    return folder


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    "Four cases in the plain layout"
    d = toy(tmp_path_factory.mktemp('toys'), ('a', 'b', 'c', 'd'))
    (d / 'labels.yaml').write_text(
        ''.join(f'{v}: {n}\n' for n, v in JOINT.values.items()), encoding='utf-8'
    )
    (d / 'cases.csv').write_text('case,patient\na,A\nb,B\nc,C\nd,D\n', encoding='utf-8')
    return d


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / 'd')


def audited(folder, *args):
    "What the command says, and the JSON beside it"
    out = folder.parent / 'a.json'
    r = done(call('atm_audit', folder, '--json', out, *args))
    assert r.err == ''
    return r.out.splitlines(), json.loads(out.read_text(encoding='utf-8'))


def same(path, other):
    shutil.copy(path, other)


def image_of(d):
    return d / 'images' / 'b.nii.gz'


def mask_of(d):
    return d / 'masks' / 'b.nii.gz'


def not_an_image(f):
    f.write_text('This is no image.\n', encoding='utf-8')


def one_slice(d):
    for f in (image_of(d), mask_of(d)):
        sitk.WriteImage(sitk.ReadImage(str(f))[2:3, :, :], str(f))


PROBLEMS = [  # fault, file that the line names, what it says, the remedy
    (
        'truncated',
        lambda d: truncated(image_of(d)),
        image_of,
        'truncated',
        'copy or export it again',
    ),
    (
        'not an image',
        lambda d: not_an_image(image_of(d)),
        image_of,
        'is no NIfTI image',
        'Export it again',
    ),
    (
        'truncated mask',
        lambda d: truncated(mask_of(d)),
        mask_of,
        'truncated',
        'copy or export it again',
    ),
    (
        'missing mask',
        lambda d: mask_of(d).unlink(),
        image_of,
        'mask missing',
        'under the same name',
    ),
    (
        'shape',
        lambda d: sitk.WriteImage(sitk.ReadImage(str(mask_of(d)))[:, 1:, :], str(mask_of(d))),
        mask_of,
        'shape',
        'is it the mask of another image',
    ),
    (
        'geometry',
        lambda d: spoil(mask_of(d), lambda a: a, shifted),
        mask_of,
        'geometry differs',
        "save the mask again with the image's spacing",
    ),
    (
        'unknown label',
        lambda d: spoil(mask_of(d), lambda a: np.where(a == 3, 77, a).astype(np.uint8)),
        mask_of,
        r'label value\(s\) 77 unknown',
        'correct the mask, or name it in labels.yaml',
    ),
    (
        'fractions in a mask',
        lambda d: spoil(mask_of(d), lambda a: a * 0.5),
        mask_of,
        'whole numbers',
        'linear interpolation',
    ),
    ('NaN', lambda d: with_nan(image_of(d)), image_of, 'NaN', 'replace them'),
    ('constant', lambda d: constant(image_of(d)), image_of, 'constant image', 'export it again'),
    ('4-D', lambda d: four_d(image_of(d)), image_of, 'is 4-D', 'extract one volume'),
    (
        'axial',
        lambda d: axial(image_of(d)),
        image_of,
        'axial acquisition',
        'give the sagittal series',
    ),
    (
        'empty mask',
        lambda d: spoil(mask_of(d), lambda a: a * 0),
        mask_of,
        'holds no structure',
        'is it empty',
    ),
    (
        'empty file',
        lambda d: image_of(d).write_bytes(b''),
        image_of,
        'is empty',
        'export it again',
    ),
]


@pytest.mark.parametrize(
    'fault,file,words,remedy', [p[1:] for p in PROBLEMS], ids=[p[0] for p in PROBLEMS]
)
def test_a_broken_file_is_flagged(folder, fault, file, words, remedy):
    "One line for the case, the three others usable, prepare skips the same"
    fault(folder)
    before = tree(folder)
    lines, a = audited(folder, '--page', folder.parent / 'a.html')
    mine = [line for line in lines if line.startswith('would skip')]
    page = (folder.parent / 'a.html').read_text(encoding='utf-8')
    assert (
        len(mine) == 1
        and mine[0].startswith(f'would skip b: {file(folder)}')
        and re.search(words, mine[0])
        and re.search(remedy, mine[0])
    ), lines
    assert (
        (a['cases'], a['usable'], a['skipped']) == (4, 3, ['b'])
        and a['problems'] == [dict(case='b', problem=mine[0].removeprefix('would skip b: '))]
        and a['structures']['L4']['volumes'] == 3
    )
    assert (
        re.search(words, page.split('What is there')[0])
        and page.count('data:image/jpeg') >= 3
        and tree(folder) == before
    )
    r = done(call('atm_prepare', folder, folder.parent / 'c', '--size', 48))
    assert f'skipped b: {file(folder)}' in r.out and re.search(words, r.out)


def swapped(a):
    return np.where(a == 4, 3, np.where(a == 3, 4, a)).astype(
        np.uint8
    )  # L4 (3) and L3 (4) in joint values


def far_piece(a):
    a = a.copy()
    a[2, 80, 2] = 4
    return a  # axes as in the file: (w, h, s)


def without(n):
    return lambda a: np.where(a == JOINT.values[n], 0, a).astype(np.uint8)


def saturated(a):
    return np.minimum(a, np.percentile(a, 70))


def coarse(im):
    im.SetSpacing([12.0, 1.5, 1.5])


SUSPICIOUS = [
    ('one slice only', one_slice, ['one slice only']),
    (
        'spacing',
        lambda d: [spoil(f(d), lambda a: a, coarse) for f in (image_of, mask_of)],
        ['12 mm from slice to slice, usual are 0.5 to 10'],
    ),
    ('order', lambda d: spoil(mask_of(d), swapped), ['L3 lies below L3/L4']),
    ('gap', lambda d: spoil(mask_of(d), without('L4')), ['no L4 between L2 and L5']),
    ('pieces', lambda d: spoil(mask_of(d), far_piece), ['L3 lies in pieces']),
    ('saturated', lambda d: spoil(image_of(d), saturated), ['30% of the voxels at the maximum']),
    (
        'copied file',
        lambda d: [same(f(d).with_name('a.nii.gz'), f(d)) for f in (image_of, mask_of)],
        ['the same image as a', 'the same mask as a'],
    ),
    (
        'same mask',
        lambda d: same(mask_of(d).with_name('a.nii.gz'), mask_of(d)),
        ['the same mask as a'],
    ),
]


@pytest.mark.parametrize('fault,why', [s[1:] for s in SUSPICIOUS], ids=[s[0] for s in SUSPICIOUS])
def test_a_suspicious_case_is_flagged_and_kept(folder, fault, why):
    fault(folder)
    lines, a = audited(folder, '--page', folder.parent / 'a.html')
    by = {s['case']: s['why'] for s in a['suspicious']}
    assert (
        a['usable'] == 4
        and not a['skipped']
        and all(any(w in g for g in by['b']) for w in why)
        and set(by) <= {'a', 'b'}
    ), (by, lines)
    assert any(line.startswith('suspicious b: ') and all(w in line for w in why) for line in lines)
    page = (folder.parent / 'a.html').read_text(encoding='utf-8')
    assert page.index(why[0]) < page.index('What is there')


def test_the_same_data_under_another_name_and_format(folder):
    "A duplicate is found by its voxels, whatever file holds them"
    im = read_volume(image_of(folder))
    image_of(folder).unlink()
    write_volume(im.data, im, folder / 'images' / 'b.mha')
    shutil.copy(folder / 'masks' / 'b.nii.gz', folder / 'masks' / 'twin.nii.gz')
    write_volume(im.data, im, folder / 'images' / 'twin.nii')
    _, a = audited(folder)
    assert (
        a['same_images']['across_patients'] == a['same_masks']['across_patients'] == [['b', 'twin']]
        and a['usable'] == 5
    )
    r = done(call('atm_prepare', folder, folder.parent / 'c', '--size', 48))
    assert re.search(
        r'note: b, twin of different patients hold the same image and the same mask.*cases.csv',
        r.out,
    )
    (folder / 'cases.csv').write_text(
        'case,patient\na,A\nb,B\nc,C\nd,D\ntwin,B\n', encoding='utf-8'
    )
    r = done(call('atm_prepare', folder, folder.parent / 'c2', '--size', 48))
    assert 'different patients' not in r.out  # said to be one person: one part of the split


def test_two_files_of_one_name(folder):
    "The audit names both and goes on with the first; prepare stops"
    shutil.copy(image_of(folder), folder / 'images' / 'B.nii.gz')
    lines, a = audited(folder)
    assert (
        any(
            line.startswith('problem: ')
            and 'b.nii.gz' in line
            and 'B.nii.gz' in line
            and 'rename or remove' in line
            for line in lines
        )
        and a['cases'] == a['usable'] == 4
    )
    assert 'rename or remove' in complaint(call('atm_prepare', folder, folder.parent / 'c'))


def test_an_optional_table_that_cannot_be_read(folder):
    (folder / 'cases.csv').write_text('name;who\n1;2\n', encoding='utf-8')
    lines, a = audited(folder)
    assert (
        any(
            line.startswith('problem: ')
            and 'cases.csv: field(s) case, patient missing' in line
            and 'add the column' in line
            for line in lines
        )
        and a['usable'] == 4
    )


def test_ten_faults_at_once_as_a_process(good, tmp_path):
    "Every fault in one folder: all are named, the status is 0"
    d = shutil.copytree(good, tmp_path / 'd')
    for k, (_, fault, *_) in enumerate(PROBLEMS):
        for kind in ('images', 'masks'):
            shutil.copy(good / kind / 'b.nii.gz', d / kind / 'b.nii.gz')
        fault(d)
        for f in (image_of(d), mask_of(d)):
            if f.exists():
                f.rename(f.with_name(f'bad{k:02}.nii.gz'))
    r = done(shell('atm_audit', d, '--page', tmp_path / 'a.html'))
    assert r.err == '' and [
        line.split(':')[0] for line in r.out.splitlines() if line.startswith('would skip')
    ] == [f'would skip bad{k:02}' for k in range(len(PROBLEMS))]
    assert '3 usable' in r.out and (tmp_path / 'a.html').stat().st_size < 40_000 * (
        len(PROBLEMS) + 3
    )


def test_a_page_is_a_file(folder):
    for k in ('--page', '--json'):
        assert 'is a folder' in complaint(call('atm_audit', folder, k, folder.parent))
    done(call('atm_audit', folder, '--page', folder.parent / 'p.html', '--pictures', 2))
    page = (folder.parent / 'p.html').read_text(encoding='utf-8')
    assert (
        page.count('data:image/jpeg') == 2
        and '2 more case(s)' in page
        and 'None.' in page
        and not re.search(r'<script|src="http|href="http|@import', page)
    )  # few pictures, nothing fetched


# SPIDER's values and tables


@pytest.fixture
def spider(tmp_path):
    """SPIDER's layout: T1 and T2 of patient 1 with one mask, of 2 with different masks; one
    vertebra of 3 partly visible and one above the range"""
    d = toy(
        tmp_path / 's', ('1_t1', '1_t2', '2_t1', '2_t2', '3_t2', '4_t2', '5_t2'), '.mha', SPIDER
    )
    shutil.copy(d / 'masks' / '1_t1.mha', d / 'masks' / '1_t2.mha')

    def odd(a):
        a = a.copy()
        a[a == 4] = 104
        a[:8, :3] = 12
        return a  # (w, h, s)

    spoil(d / 'masks' / '3_t2.mha', odd)
    return d


def test_spider_tables_are_optional(spider, tmp_path):
    "Absent: noted, also under --strict; present: used, and strangers in them are named"
    r = done(call('atm_prepare', spider, tmp_path / 'c', '--size', 48, '--strict'))
    assert (
        'note: overview.csv is absent' in r.out
        and 'note: radiological_gradings.csv is absent' in r.out
    )
    (spider / 'overview.csv').write_text(
        'new_file_name,subset ,sex\n'
        + ''.join(
            f'{p.stem} ,{"validation " if p.stem[0] == "2" else "training"},F \n'
            for p in (spider / 'images').iterdir()
        )
        + '77_t1,training,M\n',
        encoding='utf-8',
    )
    (spider / 'radiological_gradings.csv').write_text(
        'Patient,IVD label,Modic\n1,1,0\n1,2,1\n300,1,0\n', encoding='utf-8'
    )
    lines, a = audited(spider)
    assert a['subsets'] == {'training': 5, 'validation': 2} and a['gradings'] == dict(
        discs=3, patients=1, unknown_patients=['300'], patients_without=4
    )
    assert (
        'note: overview.csv: 1 row(s) for cases that are not here, such as 77_t1' in lines
        and 'note: radiological_gradings.csv: 1 patient(s) that are not here, such as 300' in lines
        and not any('absent' in line for line in lines)
    )
    r = done(
        call('atm_prepare', spider, tmp_path / 'o', '--size', 48, '--strict', '--split', 'official')
    )
    m = json.loads((tmp_path / 'o' / 'manifest.json').read_text(encoding='utf-8'))
    assert {c['id'] for c in m['cases'] if c['part'] == 'test'} == {
        '2_t1',
        '2_t2',
    } and 'absent' not in r.out


@pytest.mark.parametrize('seed', range(4))
def test_series_of_a_patient_stay_together(spider, tmp_path, seed):
    "Identical masks (patient 1) and different ones (2): one side of the split"
    done(call('atm_prepare', spider, tmp_path / 'c', '--size', 48, '--seed', seed))
    m = json.loads((tmp_path / 'c' / 'manifest.json').read_text(encoding='utf-8'))
    part = {c['id']: c['part'] for c in m['cases']}
    assert (
        part['1_t1'] == part['1_t2']
        and part['2_t1'] == part['2_t2']
        and set(part.values()) == {'train', 'val', 'test'}
    )
    if not seed:
        a = audited(spider)[1]
        assert (
            a['same_masks'] == dict(within_patients=[['1_t1', '1_t2']], across_patients=[])
            and not a['same_images']['within_patients']
        )


@pytest.mark.parametrize(
    'partial,above', [('keep', 'ignore'), ('ignore', 'ignore'), ('keep', 'refuse')]
)
def test_partly_visible_and_above_the_range(spider, tmp_path, partial, above):
    """Options of audit and prepare; the source is read in the same way; another choice is
    another cache"""
    from atm_net.anatomy import IGNORE
    from atm_net.data import Cache

    opts = ('--partial', partial, '--above', above)
    lines, a = audited(spider, *opts)
    assert (a['labels']['104']['name'], a['labels']['12']['name'], a['other_values']) == (
        'L2, partly visible',
        'above our range',
        [],
    )
    assert a['skipped'] == (['3_t2'] if above == 'refuse' else []) and any(
        'here are also 12, 104' in line for line in lines
    )
    args = ('atm_prepare', spider, tmp_path / 'c', '--size', 48)
    r = done(call(*args, *opts))
    c = Cache(tmp_path / 'c')
    assert (
        c.rules == dict(partial=partial, above=above)
        and (c.manifest['partial'], c.manifest['above']) == (partial, above)
        and ('lie above the levels' in r.out) == (above == 'refuse')
    )
    if above == 'ignore':
        for lab in (np.asarray(c.labels('3_t2')), c.source('3_t2')[1]):
            assert (lab == IGNORE).any() and (lab == c.scheme.channel('L2')).any() == (
                partial == 'keep'
            )
    assert ('field above' if above == 'refuse' else 'field partial') in complaint(
        call(*args, '--partial', 'ignore' if partial == 'keep' else 'keep', '--above', 'ignore')
    ) or above == 'refuse'
    assert "--partial: 'drop' is unknown" in complaint(
        call('atm_audit', spider, '--partial', 'drop')
    ) and "--above: 'keep' is unknown" in complaint(call(*args, '--above', 'keep'))
