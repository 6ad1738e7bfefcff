"Cohorts, caches, augmentation and audit: what is refused, in which words, and the edge cases"

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from atm_net.anatomy import IGNORE, LUMBAR, Scheme, convert, get_anatomy
from atm_net.audit import (
    Gallery,
    audit,
    audit_case,
    convention,
    odd_geometry,
    odd_intensity,
    odd_labels,
    shapes,
    value_name,
)
from atm_net.audit_page import atm_audit, audit_page, audit_text
from atm_net.cache import (
    VERSION,
    levels_in,
    merge_rare,
    prepare,
    prepare_case,
    prepared,
    split_patients,
    split_shares,
    topmost,
)
from atm_net.cohort import (
    RULES,
    Case,
    case_labels,
    find_schemes,
    guess_layout,
    keep_annotated,
    load_case,
    open_cohort,
    read_annotated,
    read_table,
    spider_patient,
)
from atm_net.core import InputError, sole_writer
from atm_net.data import Cache, SliceDataset, augment, random_window, sampling_grid
from atm_net.geometry import new_geometry, new_volume
from atm_net.grid import Grid, crop_oracle, normalise
from atm_net.volumes import read_labels, write_labels, write_volume

JOINT = LUMBAR.scheme('joint')
SPIDER = LUMBAR.scheme('spider')
SIX = ('L3', 'L3/L4', 'L4', 'L4/L5', 'L5', 'L5/S')
MM = (4.0, 1.5, 1.5)


# --- toy cohorts


def tower(names=SIX, seed=0, canal=True):
    "A toy spine: image (s, h, w), joint channels; boxes 8 px high, on the inner slices"
    rng = np.random.default_rng(seed)
    labels = np.zeros((5, 70, 44), np.uint8)
    top = int(rng.integers(4, 10))
    for i, name in enumerate(names):
        labels[1:-1, top + 9 * i : top + 9 * i + 8, 14:28] = JOINT.channel(name)
    if canal:
        labels[1:-1, 4:-4, 31:36] = JOINT.channel('SC')
    body = np.zeros(labels.shape)
    body[:, :, 3:] = 0.2
    grey = np.maximum(np.r_[0, np.linspace(0.35, 0.95, 20)][labels], body)
    return ((grey + rng.normal(0, 0.02, labels.shape)) * 1000).astype(np.float32), labels


def write_case(root, layout, stem, scheme=None, codes='LPS', **kwargs):
    "Write one toy case in a dataset's layout"
    image, labels = tower(**kwargs)
    scheme = scheme or LUMBAR.scheme(layout)
    geometry = new_geometry(image.shape, MM, codes)
    images, masks = ('train/MR', 'train/Mask') if layout == 'mrspineseg' else ('images', 'masks')
    end = '.mha' if layout == 'spider' else '.nii.gz'
    mask = f'mask_{stem.lower()}' if layout == 'mrspineseg' else stem
    values = scheme.decode(convert(labels, JOINT, scheme)[0])
    write_volume(image, geometry, root / images / f'{stem}{end}')
    write_labels(values, geometry, root / masks / f'{mask}{end}')


def write_text(path, text):
    path.write_text(text, encoding='utf-8')


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    "Two small cohorts: `spider` of three patients, `mr` of two patients"
    root = tmp_path_factory.mktemp('toys')
    for stem in ('1_t1', '1_t2', '1_t2_SPACE', '2_t2', '3_t2'):
        codes = 'PIR' if stem == '2_t2' else 'LPS'
        write_case(root / 'spider', 'spider', stem, codes=codes, seed=int(stem[0]))
    write_text(
        root / 'spider' / 'overview.csv',
        'new_file_name,subset\n1_t1,training\n1_t2,training\n1_t2_SPACE,training\n'
        '2_t2,training\n3_t2,validation\n',
    )
    write_text(
        root / 'spider' / 'radiological_gradings.csv',
        'Patient,IVD label,Modic,Pfirrman grade\n1,1,0,3\n1,2,0,2\n8,1,0,2\n',
    )
    for k in (1, 2, 10):
        write_case(root / 'mr', 'mrspineseg', f'Case{k}', seed=k, canal=False)
    write_text(root / 'mr' / 'cases.csv', 'case,patient\nCase1,P1\nCase2,P1\nCase10,P2\n')
    write_text(root / 'part.csv', 'case,labels\nCase1,2 3\nCase9,2\n')
    return root


@pytest.fixture
def own(toys, tmp_path):
    "The toy cohorts, to be spoiled"
    shutil.copytree(toys, tmp_path / 'own')
    return tmp_path / 'own'


@pytest.fixture(scope='module')
def bigger(toys, tmp_path_factory):
    "`mr` with more cases, two of them bad"
    root = tmp_path_factory.mktemp('bigger')
    shutil.copytree(toys / 'mr', root / 'mr')
    for k in range(4, 9):
        names = ('L4', 'L4/L5', 'L5', 'L5/S', 'S')
        if k % 2:
            names = ('L2', 'L2/L3', 'L3', 'L3/L4', 'L4', 'L4/L5')
        write_case(root / 'mr', 'mrspineseg', f'Case{k}', seed=k, canal=False, names=names)
    (root / 'mr' / 'train' / 'Mask' / 'mask_case7.nii.gz').unlink()
    (root / 'mr' / 'train' / 'MR' / 'Case8.nii.gz').write_bytes(b'broken')
    return open_cohort(root / 'mr', LUMBAR, annotated=toys / 'part.csv')


@pytest.fixture(scope='module')
def cached(bigger, tmp_path_factory):
    "A cache of `bigger`, and its manifest"
    folder = tmp_path_factory.mktemp('cached') / 'cache'
    return folder, prepare(bigger, folder, Grid(2.0), seed=3)


# --- tables and layouts


@pytest.mark.parametrize(
    'text, words',
    [
        ('case,labels\nA,2 77\n', "line 2, field labels: '77'"),
        ('case\nA\n', 'labels missing'),
        ('case,labels\n', 'no rows'),
        ('case,labels\nA,\n', 'empty'),
        ('case,labels\nA,2\nA,3\n', 'twice'),
    ],
)
def test_a_wrong_table_of_annotations(tmp_path, text, words):
    write_text(tmp_path / 'a.csv', text)
    with pytest.raises(InputError, match=words) as refused:
        read_annotated(tmp_path / 'a.csv', JOINT)
    assert 'a.csv' in str(refused.value)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match='cannot be read'):
        read_table(tmp_path / 'no.csv')


@pytest.mark.parametrize(
    'names, layout',
    [
        ('train/MR/', 'mrspineseg'),
        ('images/', 'folder'),
        ('images/scan.mha', 'folder'),
        ('images/3_t1.mha images/x_t2_SPACE.mha', 'spider'),
        ('images/ overview.csv', 'spider'),
        ('images/3_t1.mha images/a.mha overview.csv', 'spider'),
        ('images/scan.mha images/john_t2.nii.gz', 'folder'),
        ('images/john_t2.nii.gz labels.yaml', 'folder'),
        ('images/3_t1.mha labels.yaml overview.csv', 'folder'),
        ('images/a.mha train/MR/', 'mrspineseg'),
        ('images/a.mha train/MR/ labels.yaml', 'folder'),
    ],
)
def test_the_layout_is_guessed_by_what_is_there(tmp_path, names, layout):
    for name in names.split():
        path = tmp_path / name
        if name.endswith('/'):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert guess_layout(tmp_path) == layout


def test_no_dataset_folder(tmp_path):
    with pytest.raises(InputError, match='train/MR'):
        guess_layout(tmp_path)


def test_the_longest_suffix_wins():
    assert spider_patient('x_1_t2') == 'x_1'


def test_schemes_of_files_and_cache(tmp_path):
    def found(*asked):
        return tuple(s.name for s in find_schemes(tmp_path, *asked, LUMBAR))

    assert found('spider', None) == ('spider', 'spider')
    assert found('spider', 'joint') == ('spider', 'joint')
    assert found('mrspineseg', 'joint') == ('mrspineseg', 'joint')
    values = ''.join(f'{value}: {name}\n' for name, value in JOINT.values.items())
    write_text(tmp_path / 'labels.yaml', values)
    files, cache = find_schemes(tmp_path, 'folder', None, LUMBAR)
    assert files.values == cache.values == JOINT.values
    write_text(tmp_path / 'phantom.json', json.dumps(dict(layout='mrspineseg', labels='joint')))
    assert found('mrspineseg', None) == ('joint', 'joint')
    assert found('mrspineseg', 'spider') == ('joint', 'spider')


@pytest.mark.parametrize(
    'text, words',
    [
        ('1: L6\n', 'did you mean'),
        ('- L5\n', "'value: name'"),
        ('1: L5\n2: L5\n', 'twice'),
        ('1: [\n', 'YAML'),
        ('70000: L5\n', '0 to 65535'),
        ('true: L5\n', 'whole numbers'),
    ],
)
def test_a_wrong_labels_yaml(tmp_path, text, words):
    write_text(tmp_path / 'labels.yaml', text)
    with pytest.raises(InputError, match=words):
        find_schemes(tmp_path, 'folder', None, LUMBAR)


def test_no_labels_yaml(tmp_path):
    with pytest.raises(InputError, match='labels.yaml missing'):
        find_schemes(tmp_path, 'folder', None, LUMBAR)


# --- cohorts


def test_a_complete_cohort_has_no_notes(toys):
    c = open_cohort(toys / 'spider', LUMBAR)
    assert (c.layout, c.scheme.name, c.notes) == ('spider', 'spider', ())
    assert [(x.id, x.patient, x.subset) for x in c.cases] == [
        ('1_t1', '1', 'training'),
        ('1_t2', '1', 'training'),
        ('1_t2_SPACE', '1', 'training'),
        ('2_t2', '2', 'training'),
        ('3_t2', '3', 'validation'),
    ]
    assert all(x.mask.endswith(f'masks/{x.id}.mha') for x in c.cases)


def test_mrspineseg_with_annotations(toys):
    m = open_cohort(toys / 'mr', LUMBAR, annotated=toys / 'part.csv')
    assert m.layout == 'mrspineseg'
    assert m.cases[2].mask.endswith('/mask_case10.nii.gz')
    assert [x.annotated for x in m.cases] == [('L5', 'L4'), None, None]
    assert len(m.notes) == 2


OVERVIEW = (
    'new_file_name,subset\n1_t1,training\n1_t2,training\n1_t2_SPACE,training\n'
    '2_t2,training\n3_t2,validation\n'
)


@pytest.mark.parametrize(
    'folder, file, text, words',
    [
        ('spider', 'overview.csv', None, ['overview.csv is absent']),
        ('spider', 'radiological_gradings.csv', None, ['radiological_gradings.csv is absent']),
        ('mr', 'cases.csv', None, ['cases.csv is absent']),
        (
            'spider',
            'overview.csv',
            OVERVIEW.replace('training', 'TRAINING  ').replace('subset', 'subset '),
            [],
        ),
        (
            'spider',
            'overview.csv',
            OVERVIEW + '9_t1, training,\n,,\n',
            ['1 row(s) for cases that are not here, such as 9_t1'],
        ),
        (
            'spider',
            'overview.csv',
            OVERVIEW.replace('3_t2,validation', '3_T2.mha,'),
            ['1 case(s) without subset, such as 3_t2'],
        ),
        ('spider', 'overview.csv', OVERVIEW.replace('validation', 'test'), ["'test' is neither"]),
        ('spider', 'overview.csv', OVERVIEW + '1_t1,validation\n', ["'1_t1' occurs twice"]),
        (
            'mr',
            'cases.csv',
            'case,patient\nCase1,P1\nCase1,P2\nCase2,P1\n',
            [
                '1 case(s) without patient, such as Case10',
                "'Case1' occurs twice, with patient 'P1' and 'P2'",
            ],
        ),
        ('mr', 'cases.csv', 'case;patient\nCase1;P1\n', ['field(s) case, patient missing']),
    ],
)
def test_what_optional_tables_lack_is_noted(own, folder, file, text, words):
    path = own / folder / file
    if text is None:
        path.unlink()
    else:
        write_text(path, text)
    said = []
    layout = 'mrspineseg' if folder == 'mr' else 'spider'
    said = [*open_cohort(own / folder, LUMBAR, layout, complain=said.append).notes, *said]
    assert len(said) == len(words)
    assert all(word in line for word, line in zip(words, said, strict=True))


def test_a_folder_with_a_part_of_a_scheme(tmp_path):
    bodies = Scheme('folder', {'L3': 3, 'L4': 4, 'L5': 5})
    write_case(tmp_path, 'folder', 'b1', bodies, seed=1)
    write_text(tmp_path / 'labels.yaml', '0: background\n3: L3\n4: L4\n5: L5\n')
    b = open_cohort(tmp_path, LUMBAR)
    assert (b.layout, b.file_scheme.values) == ('folder', {'L5': 5, 'L4': 4, 'L3': 3})
    assert (b.scheme.name, b.cases[0].annotated) == ('mrspineseg', ('L5', 'L4', 'L3'))
    assert b.cases[0].patient == 'b1'


@pytest.mark.parametrize('folder, lack', [('spider', 'S'), ('mr', 'SC')])
def test_what_the_files_never_draw_is_not_annotated(toys, folder, lack):
    j = open_cohort(toys / folder, LUMBAR, labels='joint')
    assert (j.scheme.name, j.file_scheme.name) == ('joint', LUMBAR.scheme(j.layout).name)
    assert {x.annotated for x in j.cases} == {tuple(n for n in JOINT.names if n != lack)}
    assert f'never hold {lack}:' in j.notes[-1]


@pytest.mark.parametrize(
    'folder, one, two',
    [
        ('spider/images', '1_t1.mha', '1_t1.nii'),
        ('spider/images', '1_t1.mha', '1_T1.mha'),
        ('mr/train/MR', 'Case2.nii.gz', 'Case2.nii'),
        ('mr/train/Mask', 'mask_case2.nii.gz', 'Mask_Case2.mha'),
        ('mr/train/Mask', 'mask_case2.nii.gz', 'Case2.nii'),
    ],
)
def test_two_files_of_one_name(own, folder, one, two):
    (own / folder / two).touch()
    with pytest.raises(InputError, match='the same name') as refused:
        open_cohort(own / folder.split('/')[0], LUMBAR)
    assert one in str(refused.value) and two in str(refused.value)


@pytest.mark.parametrize(
    'folder, options, words',
    [
        ('none', {}, 'no such folder'),
        ('mr', dict(layout='xnat'), 'unknown'),
        ('spider', dict(layout='folder'), 'labels.yaml'),
        ('mr', dict(layout='spider'), 'cannot read the folder'),
        ('mr', dict(partial='drop'), "--partial 'drop' is unknown: use keep or ignore"),
        ('mr', dict(above='keep'), 'use ignore or refuse'),
    ],
)
def test_a_folder_or_an_option_that_is_refused(toys, folder, options, words):
    with pytest.raises(InputError, match=words):
        open_cohort(toys / folder, LUMBAR, **options)


# --- one case


@pytest.fixture(scope='module')
def case(toys) -> Case:
    "Stored as PIR"
    return open_cohort(toys / 'spider', LUMBAR).cases[3]


def with_mask(case: Case, values, path) -> Case:
    "The case with another mask"
    write_labels(values, load_case(case, SPIDER)[0].geometry, path)
    return replace(case, mask=str(path))


def test_labels_in_both_schemes(case):
    vol, labels = load_case(case, SPIDER)
    drawn = tower(seed=2)[1]
    np.testing.assert_array_equal(labels, convert(drawn, JOINT, SPIDER)[0])
    np.testing.assert_array_equal(load_case(case, SPIDER, JOINT)[1], drawn)
    np.testing.assert_array_equal(case_labels(case, vol, read_labels(case.mask), SPIDER), labels)


def test_what_is_not_annotated_is_ignored():
    drawn = tower(seed=2)[1]
    kept = keep_annotated(drawn, JOINT, ('L4', 'L5'))
    assert sorted(np.unique(kept).tolist()) == [0, 2, 3, IGNORE]
    assert (kept[[0, -1]] == IGNORE).all()
    others = (drawn > 0) & ~np.isin(drawn, [2, 3])
    np.testing.assert_array_equal((kept == IGNORE)[1:-1], others[1:-1])
    assert keep_annotated(drawn, JOINT, None) is drawn


def test_values_beyond_the_table(case, tmp_path):
    values = np.zeros((5, 70, 44), int)
    values[2, 3:9, 4] = (1, 101, 25, 210, 201, 100)
    odd = with_mask(case, values, tmp_path / 'special.mha')
    disc, canal = SPIDER.channel('L5/S'), SPIDER.channel('SC')

    def seen(**rules):
        return load_case(odd, SPIDER, **rules)[1][2, 3:9, 4].tolist()

    assert seen() == [1, 1, IGNORE, IGNORE, disc, canal]
    assert seen(partial='ignore') == [1, IGNORE, IGNORE, IGNORE, disc, canal]
    with pytest.raises(InputError, match=r'special.mha: label value\(s\) 25, 210 lie above'):
        seen(above='refuse')


def test_partly_visible_and_above(case, tmp_path):
    values = np.zeros((5, 70, 44), int)
    values[2, 3:9, 4] = (1, 112, 102, 0, 201, 100)
    odd = with_mask(case, values, tmp_path / 'special.mha')
    disc, canal = SPIDER.channel('L5/S'), SPIDER.channel('SC')
    assert load_case(odd, SPIDER)[1][2, 3:9, 4].tolist() == [1, IGNORE, 2, 0, disc, canal]
    ignored = load_case(odd, SPIDER, partial='ignore')[1][2, 3:9, 4]
    assert ignored.tolist() == [1, IGNORE, IGNORE, 0, disc, canal]
    with pytest.raises(InputError, match=r'value\(s\) 112 lie'):
        load_case(odd, SPIDER, above='refuse')


@pytest.mark.parametrize('value, words', [(50, r'value\(s\) 50 unknown'), (0, 'no structure')])
def test_a_mask_of_unknown_values_or_of_none(case, tmp_path, value, words):
    values = np.zeros((5, 70, 44), int)
    values[2, 9, 4] = value
    values[2, 10, 4] = 201 if value else 0
    with pytest.raises(InputError, match=words):
        load_case(with_mask(case, values, tmp_path / 'odd.mha'), SPIDER)


@pytest.mark.parametrize(
    'changed, words',
    [
        (dict(mask=None), 'mask missing'),
        (dict(annotated=('T9',)), 'no structure'),
        (dict(image='gone.mha'), 'no such file'),
    ],
)
def test_a_case_that_cannot_be_loaded(case, changed, words):
    with pytest.raises(InputError, match=words):
        load_case(replace(case, **changed), SPIDER)


def test_an_image_as_a_mask_and_a_constant_image(toys, case, tmp_path):
    image = open_cohort(toys / 'mr', LUMBAR).cases[0].image
    with pytest.raises(InputError, match='whole numbers'):
        load_case(replace(case, mask=image), SPIDER)
    vol = load_case(case, SPIDER)[0]
    write_volume(vol.data * 0, vol.geometry, tmp_path / 'flat.mha')
    with pytest.raises(InputError, match='constant'):
        load_case(replace(case, image=str(tmp_path / 'flat.mha')), SPIDER)


# --- intensities and grids


def test_padding_does_not_count():
    image = tower(seed=2)[0]
    padded = np.pad(image, ((0, 0), (20, 20), (30, 30)), constant_values=-1000.0)
    inside = normalise(padded)[:, 20:-20, 30:-30]
    np.testing.assert_allclose(inside, normalise(image), atol=0.05)
    assert normalise(image).shape == image.shape


def test_a_nearly_empty_image():
    few = np.zeros((3, 5, 7))
    few[1, 2, 3] = 9
    np.testing.assert_array_equal(normalise(few), few / 9)


def ramp(shape, mm):
    "(2, h, w): position in mm of each pixel's centre"
    centres = [(np.arange(n) + 0.5) * d for n, d in zip(shape, mm, strict=True)]
    return np.stack(np.meshgrid(*centres, indexing='ij')).astype(np.float32)


@pytest.mark.parametrize(
    'grid, shape, mm, box',
    [
        (Grid(2.0), (301, 260), (0.7, 0.9), None),
        (Grid(2.0), (90, 70), (3.1, 2.5), None),
        (Grid(size=96), (300, 210), (0.8, 0.8), None),
        (Grid(2.0), (301, 260), (0.7, 0.9), (40, 30, 240, 230)),
    ],
)
def test_each_pixel_lies_where_it_lay(grid, shape, mm, box):
    top, left, bottom, right = box or (0, 0, *shape)
    part = (bottom - top, right - left)
    got = grid.to_grid(ramp(shape, mm), mm, box=box)
    full, (i, j) = grid.canvas(part, mm)
    h, w = grid.content(part, mm)
    corner = np.array([top * mm[0], left * mm[1]])[:, None, None]
    want = ramp((h, w), grid.pixel(part, mm)) + corner
    assert got.shape[1:] == full
    inside = got[:, i + 3 : i + h - 3, j + 3 : j + w - 3]
    np.testing.assert_allclose(inside, want[:, 3:-3, 3:-3], atol=0.06)


def discs(shape, mm):
    "(1, h, w): three discs of their own label"
    y, x = ramp(shape, mm)
    height, width = shape[0] * mm[0], shape[1] * mm[1]
    labels = np.zeros(shape, np.uint8)
    for c, (cy, cx, r) in enumerate([(0.3, 0.3, 0.16), (0.62, 0.5, 0.2), (0.3, 0.72, 0.12)], 1):
        far = np.hypot(y - cy * height, x - cx * width)
        labels[far < r * min(height, width)] = c
    return labels[None]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize(
    'grid, shape, mm',
    [
        (Grid(2.0), (301, 260), (0.7, 0.9)),
        (Grid(2.0), (90, 70), (3.1, 2.5)),
        (Grid(size=128), (300, 210), (0.8, 0.8)),
    ],
)
def test_there_and_back(grid, shape, mm):
    true = discs(shape, mm)
    small = grid.to_grid(true, mm, labels=True)[0]
    assert sorted(np.unique(small)) == [0, 1, 2, 3]
    back = grid.from_grid(np.eye(4, dtype=np.float32)[small].transpose(2, 0, 1), shape, mm)
    for c in (1, 2, 3):
        here, there = back == c, true[0] == c
        shift = np.argwhere(here).mean(0) - np.argwhere(there).mean(0)
        assert dice(here, there) > 0.95 and np.abs(shift).max() < 0.5


def test_back_from_a_box():
    shape, mm, box = (301, 260), (0.7, 0.9), (40, 30, 240, 230)
    true = discs(shape, mm)
    small = Grid(2.0).to_grid(true, mm, True, box)[0]
    scores = np.eye(4, dtype=np.float32)[small].transpose(2, 0, 1)
    back = Grid(2.0).from_grid(scores, shape, mm, box)
    outside = np.ones(shape, bool)
    outside[40:240, 30:230] = False
    assert not back[outside].any()
    assert dice(back == 2, true[0] == 2) > 0.95


@pytest.mark.parametrize(
    'settings', [{}, dict(spacing=2.0, size=9), dict(spacing=-1.0), dict(spacing=0), dict(size=0)]
)
def test_a_grid_is_one_or_the_other(settings):
    with pytest.raises(InputError, match='grid'):
        Grid(**settings)


def test_a_box_and_scores_that_do_not_fit():
    with pytest.raises(InputError, match='crop box'):
        Grid(2.0).to_grid(np.zeros((1, 70, 44)), (1, 1), box=(0, 0, 99, 9))
    with pytest.raises(ValueError, match='do not fit'):
        Grid(2.0).from_grid(np.zeros((4, 9, 9)), (301, 260), (0.7, 0.9))


def test_the_oracle_crop_stays_inside():
    labels = np.zeros((3, 50, 70), np.uint8)
    labels[1, 20:25, 30:41] = 4
    labels[0, 0, 0] = IGNORE
    assert crop_oracle(labels, (2.0, 1.0), 10) == (15, 20, 30, 51)
    assert crop_oracle(labels, (1.0, 1.0), 40) == (0, 0, 50, 70)
    assert crop_oracle(labels * 0, (1, 1)) == (0, 0, 50, 70)


# --- split


ORDER = ('T9', 'T10', 'T11', 'T12', 'L1')


def parts(n: int, **options) -> set:
    "Which parts `n` patients are split into"
    return set(split_patients({i: ORDER[i % 5] for i in range(n)}, ORDER, **options)[0].values())


@pytest.mark.parametrize('n', range(3, 30))
def test_no_part_is_ever_empty(n):
    assert parts(n, seed=n) == {'train', 'val', 'test'}


def test_other_seeds_and_shares():
    rng = np.random.default_rng(1)
    top = {f'p{i}': str(rng.choice(ORDER, p=(0.02, 0.1, 0.4, 0.3, 0.18))) for i in range(172)}
    first = split_patients(top, ORDER, seed=3)[0]
    assert split_patients(top, ORDER, seed=4)[0] != first
    shared = list(split_patients(top, ORDER, shares=split_shares('2:1:1'))[0].values())
    assert [shared.count(p) for p in ('train', 'val', 'test')] == [86, 43, 43]
    assert parts(2, shares=(9, 1, 0)) == {'train', 'val'}
    with pytest.raises(InputError, match='at least 3'):
        parts(2)


def test_all_patients_to_score_on():
    assert split_shares('test') == (0, 0, 1)
    top = {'a': 'T12', 'b': 'L1'}
    part, strata = split_patients(top, ORDER, shares=split_shares('test'))
    assert part == {'a': 'test', 'b': 'test'}
    assert sum(row[3] for row in strata) == 2


def test_shares_as_text():
    assert (split_shares('random'), split_shares('60:10:30')) == ((8, 1, 1), (60, 10, 30))


@pytest.mark.parametrize(
    'text', ['6:1', '6:1:0', '6:1:1:2', 'a:1:3', '6::3', '-6:1:3', '6:1:3:', '']
)
def test_shares_that_are_none(text):
    with pytest.raises(InputError, match='as in 6:1:3'):
        split_shares(text)


@pytest.mark.parametrize(
    'top, strata',
    [
        ({1: 'T9', 2: 'L1', 3: 'L1'}, [('T9 to L1', [1, 2, 3])]),
        ({1: 'T9', 2: 'T9', 3: 'L1'}, [('T9 to L1', [1, 2, 3])]),
        ({1: 'T9', 2: 'T9', 3: 'L1', 4: 'L1'}, [('T9', [1, 2]), ('L1', [3, 4])]),
    ],
)
def test_rare_strata_are_merged(top, strata):
    assert merge_rare(top, ORDER, least=2) == strata


# --- cache


def test_levels():
    assert levels_in(np.array([0, IGNORE]), JOINT) == ()
    assert topmost(('L5', 'T12/L1', 'L1', 'SC'), LUMBAR) == 'L1'
    assert topmost((), LUMBAR) == ''
    assert VERSION == 1


def test_what_is_known_of_a_case(bigger):
    image, labels, meta = prepare_case(bigger.cases[2], bigger, Grid(2.0))
    assert (image.dtype, image.shape) == (np.float16, (5, 53, 33))
    assert (labels.dtype, labels.shape) == (np.uint8, (5, 53, 33))
    assert meta['levels'] == ('L4', 'L4/L5', 'L5', 'L5/S', 'S')
    assert (meta['topmost'], meta['frequency']['L4'], meta['codes']) == ('L4', 3, 'LPS')
    np.testing.assert_allclose(meta['grid_spacing'], (4, 105 / 53, 2))


def test_bad_cases_are_skipped_and_listed(cached):
    manifest = cached[1]
    ids = [row['id'] for row in manifest['cases']]
    assert ids == ['Case1', 'Case2', 'Case4', 'Case5', 'Case6', 'Case10']
    missing, broken = manifest['skipped']
    assert (missing['case'], broken['case']) == ('Case7', 'Case8')
    assert 'mask missing' in missing['reason'] and 'is no NIfTI image' in broken['reason']
    assert 'skipped Case7: ' in prepared(manifest)


def test_a_patient_has_one_part(cached):
    cases = cached[1]['cases']
    assert len({row['part'] for row in cases if row['patient'] == 'P1'}) == 1
    assert {row['part'] for row in cases} == {'train', 'val', 'test'}
    assert cases[0]['use'] == [1, 2, 3]


@pytest.fixture
def spoiled(cached, tmp_path):
    "A copy of the cache"
    shutil.copytree(cached[0], tmp_path / 'cache')
    return tmp_path / 'cache'


def test_an_interrupted_run_goes_on(bigger, cached, spoiled):
    arrays = list(spoiled.rglob('[!.]*.npy'))
    before = {f: f.stat().st_mtime_ns for f in arrays}
    (spoiled / 'manifest.json').unlink()
    (spoiled / 'meta' / 'Case4.json').unlink()
    assert prepare(bigger, spoiled, Grid(2.0), seed=3) == cached[1]
    changed = {f.name for f in arrays if f.stat().st_mtime_ns != before[f]}
    assert changed == {'Case4.npy'}


def test_half_written_files_are_swept_away(bigger, spoiled):
    left, own = spoiled / 'images' / '.Case4.npy.1.0a1b2c.npy', spoiled / 'images' / '.mine'
    left.touch()
    own.touch()
    prepare(bigger, spoiled, Grid(2.0), seed=3)
    assert (left.exists(), own.exists()) == (False, True)


def test_a_cache_from_before_the_rules_were_options(bigger, cached, spoiled):
    mark = spoiled / 'cache.json'
    settings = json.loads(mark.read_text(encoding='utf-8'))
    old = {k: v for k, v in settings.items() if k not in RULES}
    write_text(mark, json.dumps(old))
    assert prepare(bigger, spoiled, Grid(2.0), seed=3) == cached[1]
    with pytest.raises(InputError, match='field partial: keep, asked for ignore'):
        prepare(replace(bigger, partial='ignore'), spoiled, Grid(2.0), seed=3)


def test_a_second_run_at_once_is_refused(bigger, tmp_path):
    with (
        sole_writer(tmp_path / 'cache'),
        pytest.raises(InputError, match='another process is writing here'),
    ):
        prepare(bigger, tmp_path / 'cache', Grid(2.0))
    assert not (tmp_path / 'cache').exists()


@pytest.mark.parametrize('grid, seed', [(Grid(3.0), 3), (Grid(2.0), 0)])
def test_other_settings_need_another_folder(bigger, cached, grid, seed):
    with pytest.raises(InputError, match='other settings'):
        prepare(bigger, cached[0], grid, seed=seed)


def test_what_stops_a_preparation(bigger, tmp_path):
    with pytest.raises(InputError, match='not empty'):
        prepare(bigger, bigger.root, Grid(2.0))
    with pytest.raises(InputError, match='Case7'):
        prepare(bigger, tmp_path / 'strict', Grid(2.0), strict=True)
    with pytest.raises(InputError, match='nothing left'):
        prepare(replace(bigger, cases=bigger.cases[5:7]), tmp_path / 'bad', Grid(2.0))


def test_what_cannot_be_written_stops_the_run(bigger, tmp_path):
    with pytest.raises(InputError, match='Case7'):  # writes cache.json, and two cases
        prepare(bigger, tmp_path / 'stuck', Grid(2.0), strict=True)
    shutil.rmtree(tmp_path / 'stuck' / 'images')
    (tmp_path / 'stuck' / 'images').touch()
    with pytest.raises(InputError, match='stuck/images: cannot be made'):
        prepare(bigger, tmp_path / 'stuck', Grid(2.0))


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(crop='mask'), 'crop'),
        (dict(splits='mine'), 'split'),
        (dict(splits='6:0:4'), '6:1:3'),
        (dict(crop='self'), 'atm_prepare'),
        (dict(splits='official'), 'overview.csv'),
    ],
)
def test_options_that_are_refused(bigger, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        prepare(bigger, tmp_path / 'x', Grid(2.0), **options)


def test_the_official_split(toys, tmp_path):
    manifest = prepare(
        open_cohort(toys / 'spider', LUMBAR), tmp_path / 'official', Grid(2.0), splits='official'
    )
    part = {row['id']: row['part'] for row in manifest['cases']}
    assert part['3_t2'] == 'test'
    assert part['1_t1'] == part['1_t2'] == part['1_t2_SPACE']


def looked(toys, folder, sha256):
    "Prepare with boxes that weights of this hash have found"
    return prepare(
        open_cohort(toys / 'spider', LUMBAR),
        folder,
        Grid(size=48),
        crop='self',
        localise=lambda vol: (5, 3, 60, 40),
        localiser=dict(file='best.safetensors', sha256=sha256),
    )


def test_boxes_that_a_model_found(toys, cached, tmp_path):
    manifest = looked(toys, tmp_path / 'own', '12ab')
    assert manifest['localiser'] == dict(file='best.safetensors', sha256='12ab')
    assert looked(toys, tmp_path / 'own', '12ab') == manifest
    assert 'localiser' not in cached[1]
    cache = Cache(tmp_path / 'own')
    assert cache.image('1_t1').shape == (5, 48, 48)
    assert cache.meta('1_t1')['box'] == [5, 3, 60, 40]
    with pytest.raises(InputError, match='field localiser'):
        looked(toys, tmp_path / 'own', '34cd')


def test_boxes_from_the_mask(toys, tmp_path):
    prepare(open_cohort(toys / 'spider', LUMBAR), tmp_path / 'oracle', Grid(2.0), crop='oracle')
    cache = Cache(tmp_path / 'oracle')
    box = crop_oracle(cache.source('1_t1')[1], MM[1:])
    assert cache.meta('1_t1')['box'] == list(box)


# --- reading a cache


def test_a_cache_knows_what_it_was_made_of(bigger, cached):
    cache = Cache(cached[0])
    assert cache.scheme.values == LUMBAR.scheme('mrspineseg').values
    assert (cache.grid, cache.crop, cache.anatomy is LUMBAR) == (Grid(2.0), 'fov', True)
    in_parts = [i for part in ('train', 'val', 'test') for i in cache.cases(part)]
    assert sorted(cache.cases()) == sorted(in_parts)
    assert cache.meta('Case10')['patient'] == 'P2'
    assert type(cache.image('Case1')) is np.memmap
    labels = cache.source('Case1')[1]
    np.testing.assert_array_equal(labels, load_case(bigger.cases[0], bigger.scheme)[1])
    assert (labels[0] == IGNORE).all()


def test_only_a_training_leaves_out_slices_without_annotation(bigger, cached, tmp_path):
    prepare(bigger, tmp_path / 'other', Grid(2.0))
    cache, other = Cache(cached[0]), Cache(tmp_path / 'other')
    assert (cache.row('Case1')['part'], other.row('Case1')['part']) == ('train', 'val')
    for case, in_training in (('Case1', [1, 2, 3]), ('Case2', [0, 1, 2, 3, 4])):
        assert cache.use(case) == in_training
        assert [k for i, k in cache.slices('train') if i == case] == in_training
        assert [k for i, k in other.slices('val') if i == case] == [0, 1, 2, 3, 4]
    assert cache.slices('val') == [(i, k) for i in cache.cases('val') for k in range(5)]
    assert cache.annotated('Case2').all()

    def labelled(data):
        items = [data[i] for i in range(len(data))]
        mine = [x for x in items if x['case'] == 'Case1']
        return [(x['k'], (x['label'] != IGNORE).any().item()) for x in mine]

    assert labelled(SliceDataset(cache, 'train')) == [(1, True), (2, True), (3, True)]
    assert labelled(SliceDataset(other, 'val')) == [
        (0, False),
        (1, True),
        (2, True),
        (3, True),
        (4, False),
    ]


def test_names_that_a_cache_does_not_have(cached):
    cache = Cache(cached[0])
    with pytest.raises(InputError, match="did you mean 'Case1"):
        cache.image('Case11')
    with pytest.raises(InputError, match='train'):
        cache.cases('valid')


@pytest.mark.parametrize(
    'files, words',
    [
        (None, 'no such cache'),
        ({}, 'not a cache'),
        ({'cache.json': '{}'}, 'not finished'),
        ({'manifest.json': '{"version": 99}'}, 'field version: 99'),
        ({'manifest.json': '[]'}, 'field version: None'),
    ],
)
def test_a_folder_that_is_no_cache(tmp_path, files, words):
    folder = tmp_path / 'folder'
    if files is not None:
        folder.mkdir()
        for name, text in files.items():
            write_text(folder / name, text)
    with pytest.raises(InputError, match=words):
        Cache(folder)


def test_a_damaged_array(spoiled):
    f = spoiled / 'images' / 'Case4.npy'
    f.write_bytes(f.read_bytes()[:200])
    with pytest.raises(InputError, match='damaged'):
        Cache(spoiled).image('Case4')


def test_sources_that_changed_or_moved(own, tmp_path):
    prepare(open_cohort(own / 'spider', LUMBAR), tmp_path / 'cache', Grid(2.0))
    image = own / 'spider' / 'images' / '2_t2.mha'
    shutil.copy(own / 'spider' / 'images' / '3_t2.mha', image)
    with pytest.raises(InputError, match='changed'):
        Cache(tmp_path / 'cache').source('2_t2')
    image.unlink()
    with pytest.raises(InputError, match='moved'):
        Cache(tmp_path / 'cache').source('2_t2')


@pytest.mark.parametrize(
    'layout, drawn, lack',
    [('spider', None, ['S']), ('mrspineseg', None, ['SC']), ('mrspineseg', JOINT, [])],
)
def test_a_joint_cache_teaches_all_that_the_files_draw(tmp_path, layout, drawn, lack):
    root = tmp_path / 'cohort'
    for k in (1, 2, 3):
        has_canal = layout == 'spider' or drawn is not None
        stem = f'{k}_t2' if layout == 'spider' else f'Case{k}'
        write_case(root, layout, stem, drawn, seed=k, canal=has_canal)
    if drawn:
        write_text(root / 'phantom.json', json.dumps(dict(layout=layout, labels='joint')))
    manifest = prepare(open_cohort(root, LUMBAR, labels='joint'), tmp_path / 'joint', Grid(2.0))
    prepare(open_cohort(root, LUMBAR), tmp_path / 'own', Grid(2.0))
    joint, own = Cache(tmp_path / 'joint'), Cache(tmp_path / 'own')
    assert (manifest['skipped'], joint.cases()) == ([], own.cases())
    assert own.scheme.name == joint.file_scheme.name == ('joint' if drawn else layout)
    for i in joint.cases():
        taught = joint.annotated(i)[1:]
        assert [n for n, on in zip(JOINT.names, taught, strict=True) if not on] == lack
        labels = np.asarray(joint.labels(i))
        on = labels != IGNORE
        same = convert(np.asarray(own.labels(i)), own.scheme, JOINT)[0]
        np.testing.assert_array_equal(labels[on], same[on])
        assert on.all() == (not lack)
        assert (joint.source(i)[1] == JOINT.channel('SC')).any() == ('SC' not in lack)
        assert joint.use(i) == ([1, 2, 3] if lack else [0, 1, 2, 3, 4])


def test_another_anatomy_travels_with_the_cache(tmp_path):
    write_text(
        tmp_path / 'knee.yaml',
        'name: knee\nimage: sagittal MRI of the knee\n'
        'structures:\n- {name: femur, kind: bone}\n- {name: tibia, kind: bone}\n'
        'top_down: [femur, tibia]\n',
    )
    root = tmp_path / 'knee'
    for k in range(3):
        image = np.random.default_rng(k).normal(size=(3, 20, 14)).astype(np.float32)
        labels = np.zeros(image.shape, np.uint8)
        labels[:, 3:9, 4:9] = 1
        labels[:, 11:17, 4:9] = 2
        geometry = new_geometry(image.shape, (4, 2, 2))
        write_volume(image, geometry, root / 'images' / f'k{k}.mha')
        write_labels(labels, geometry, root / 'masks' / f'k{k}.mha')
    write_text(root / 'labels.yaml', '0: background\n1: femur\n2: tibia\n')
    cohort = open_cohort(root, anatomy=get_anatomy(tmp_path / 'knee.yaml'))
    prepare(cohort, tmp_path / 'cache', Grid(2.0))
    assert Cache(tmp_path / 'cache').anatomy.names == ('femur', 'tibia')
    assert cohort.cases[0].annotated is None


# --- augmentation


PLACES = np.arange(30 * 40).reshape(30, 40)
BANDS = np.repeat(np.arange(1, 11, dtype=np.uint8), 20)[:, None] * np.ones((1, 150), np.uint8)


def test_windows_lie_inside_and_beyond():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = random_window(PLACES, PLACES % 251, (20, 32), rng)
        assert a.shape == (20, 32)
        np.testing.assert_array_equal(a, PLACES[a[0, 0] // 40 :, a[0, 0] % 40 :][:20, :32])
        np.testing.assert_array_equal(b, a % 251)
    wide = random_window(PLACES + 1, PLACES + 1, (35, 50), rng)[0]
    assert wide[wide > 0].tolist() == (PLACES.ravel() + 1).tolist()  # padded, nothing lost


def test_augmentation_is_keyed_and_leaves_the_global_state():
    image = BANDS / np.float32(10)
    before = np.random.get_state()[1].copy()
    a, b = augment(image, BANDS, (0, 1, 2))
    again, labels = augment(image, BANDS, (0, 1, 2))
    np.testing.assert_array_equal(a, again)
    np.testing.assert_array_equal(b, labels)
    assert not (a == augment(image, BANDS, (0, 1, 3))[0]).all()
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_types_and_sizes_of_what_is_augmented():
    image = BANDS / np.float32(10)
    a, b = augment(image, BANDS, 3)
    assert (a.dtype, b.dtype, a.shape) == (np.float32, np.uint8, BANDS.shape)
    assert a.min() >= 0 and a.max() <= 1
    assert set(np.unique(b)) <= {0, *range(1, 11)}
    assert [x.shape for x in augment(image, BANDS, 3, size=(96, 64))] == [(96, 64)] * 2


@pytest.mark.parametrize('size', [(30, 40), (29, 40), (28, 37), (7, 33)])
def test_without_strength_the_grid_is_the_identity(size):
    import torch
    from monai.transforms import Resample

    image = PLACES[: size[0], : size[1]]
    state = np.random.RandomState(0)
    grid = sampling_grid(size, size, state, rotate=0, scale=0, shear=0, bend=0)
    same = Resample(padding_mode='zeros')(torch.from_numpy(image.astype(np.float32))[None], grid)
    np.testing.assert_allclose(same[0].numpy(), image, atol=0.02)


def test_turned_about_the_middle():
    state = np.random.RandomState(3)
    grid = sampling_grid((31, 41), (31, 41), state, rotate=12.0, scale=0, shear=0, bend=0)
    np.testing.assert_allclose(grid[:2, 15, 20].numpy(), [0, 0], atol=1e-5)


@pytest.mark.parametrize('size', [(250, 190), (96, 96), (64, 200)])
def test_never_a_flip(size):
    for seed in range(60):
        grid = sampling_grid(size, (250, 190), np.random.RandomState(seed))
        assert float(grid[0].diff(dim=0).min()) > 0.2
        assert float(grid[1].diff(dim=1).min()) > 0.2


def test_bands_keep_their_order():
    for seed in range(60):
        labels = augment(BANDS / 10.0, BANDS, (3, seed), 128)[1].astype(int)
        inside = (labels[1:] > 0) & (labels[:-1] > 0)
        assert (np.diff(labels, axis=0)[inside] >= 0).all()


def test_levels_keep_their_order_and_the_canal_its_side():
    from scipy.ndimage import zoom

    image, labels = tower(seed=2)
    image, labels = zoom(image[2], 2.5, order=1), zoom(labels[2], 2.5, order=0)
    image = np.clip(image / image.max(), 0, 1)
    names = [JOINT.channel(n) for n in ('L3', 'L4', 'L5')]
    for seed in range(60):
        moved = augment(image, labels, (7, 0, seed))[1]
        rows = [np.nonzero(moved == c)[0].mean() for c in names if (moved == c).sum() > 40]
        assert rows == sorted(rows) and len(rows) == 3
        canal, bodies = np.nonzero(moved == JOINT.channel('SC')), np.nonzero(np.isin(moved, names))
        assert np.mean(canal[1]) > np.mean(bodies[1])


def test_slices_for_training(cached):
    import torch

    cache = Cache(cached[0])
    data = SliceDataset(cache, 'train', window=32, augment=True, seed=1)
    assert len(data) == len(cache.slices('train'))
    item = data[7]
    assert (item['image'].shape, item['label'].shape) == ((1, 32, 32), (32, 32))
    assert (item['label'].dtype, item['n']) == (torch.int64, 5)
    assert (item['case'], item['k']) == cache.slices('train')[7]
    assert torch.equal(data[(7, 0, 32)]['image'], item['image'])
    assert not torch.equal(data[(7, 1, 32)]['image'], item['image'])
    assert data[(7, 0, (16, 64))]['image'].shape == (1, 16, 64)
    assert item['annotated'].shape == (cache.scheme.channels,)
    with pytest.raises(IndexError):
        data[len(data)]


def test_whole_slices_and_windows_beyond(cached):
    cache = Cache(cached[0])
    item = SliceDataset(cache, 'val')[3]
    image = cache.image(item['case'])[item['k']].astype(np.float32)
    np.testing.assert_array_equal(item['image'][0].numpy(), image)
    assert SliceDataset(cache, 'val', window=400)[0]['label'].shape == (400, 400)


# --- audit


def oddities(labels, **options):
    return odd_labels(shapes(labels, JOINT, MM), LUMBAR, **options)


def test_shapes():
    labels = tower(seed=2)[1]
    found = shapes(labels, JOINT, MM)
    assert (found['L4']['voxels'], found['L4']['slices']) == (3 * 8 * 14, 3)
    assert (found['SC']['slices'], found['L4']['apart']) == (3, 0.0)
    assert found['L4']['row'] == np.nonzero(labels == JOINT.channel('L4'))[1].mean()


def test_odd_labels():
    labels = tower(seed=2)[1]
    assert oddities(labels) == []
    third, fourth = JOINT.channel('L3'), JOINT.channel('L4')
    swapped = labels.copy()
    swapped[labels == third], swapped[labels == fourth] = fourth, third
    assert 'L3 lies below L3/L4' in oddities(swapped)
    hole = np.where(labels == fourth, 0, labels)
    assert oddities(hole) == ['no L4 between L3 and L5/S']
    assert oddities(hole, annotated=('L3', 'L5')) == []


def test_far_pieces_and_tiny_ones():
    labels = tower(seed=2)[1]
    dot = labels.copy()
    dot[2, 68, 2] = JOINT.channel('L3')
    apart = shapes(dot, JOINT, MM)['L3']['apart']
    assert oddities(dot) == [f'L3 lies in pieces {apart:.0f} mm apart']
    tiny = np.where(labels == JOINT.channel('L5/S'), 0, labels).astype(np.uint8)
    tiny[2, 60, 20] = JOINT.channel('L5/S')
    assert oddities(tiny) == ['L5/S is tiny (1 voxels)']


@pytest.mark.parametrize(
    'shape, mm, n',
    [
        ((5, 70, 44), MM, 0),
        ((5, 70, 44), (12, 1.5, 0.01), 2),
        ((3, 400, 9), (4, 1.5, 1.5), 1),
        ((300, 9, 9), (1, 1, 1), 2),
    ],
)
def test_odd_geometry(shape, mm, n):
    vol = new_volume(np.zeros(shape), new_geometry(shape, mm))
    assert len(odd_geometry(vol)) == n


def test_one_slice():
    vol = new_volume(np.zeros((1, 70, 44)), new_geometry((1, 70, 44), MM))
    assert odd_geometry(vol) == ['one slice only']


def test_intensities():
    image = tower(seed=2)[0]
    assert convention(image - 1000) == 'padded'
    assert convention(image - image.min()) == 'zero'
    assert convention(image) == 'other'
    saturated = np.minimum(image, np.percentile(image, 80))
    assert odd_intensity(image) == []
    assert odd_intensity(saturated) == ['20% of the voxels at the maximum: saturated?']


@pytest.mark.parametrize(
    'value, name',
    [
        (0, 'background'),
        (3, 'L3'),
        (103, 'L3, partly visible'),
        (112, 'above our range, partly visible'),
        (15, 'above our range'),
        (215, 'above our range'),
        (100, 'SC'),
        (50, None),
    ],
)
def test_names_of_values(value, name):
    assert value_name(value, SPIDER) == name


def test_other_schemes_have_no_values_beyond_the_table():
    assert value_name(103, JOINT) is None


def test_an_audit_in_numbers(bigger):
    a = audit(bigger.root, LUMBAR)
    assert (a['cases'], a['patients'], a['usable']) == (8, 7, 6)
    assert (a['skipped'], a['codes']) == (['Case7', 'Case8'], dict(LPS=7))
    assert [p['case'] for p in a['problems']] == ['Case7', 'Case8']
    assert a['spacing'] == dict(s=[4, 4], h=[1.5, 1.5], w=[1.5, 1.5])
    assert a['structures']['L4'] == dict(volumes=6, slices=18)
    assert a['structures']['S'] == dict(volumes=2, slices=6)
    assert a['topmost'] == dict(L3=3, L4=2, L2=1)
    assert a['labels']['3']['name'] == 'L4'
    assert a['dataset'] == dict(
        volumes=8,
        slices=35,
        resolution=[[70, 44]] * 2,
        slices_per_case=[5, 5],
        classes=dict(vertebra=4, disc=4, sacrum=1),
    )
    assert (a['intensities'], a['suspicious']) == (dict(other=7), [])


def test_twins_subsets_and_gradings(own):
    s = audit(own / 'spider', LUMBAR)
    series = ['1_t1', '1_t2', '1_t2_SPACE']
    assert s['same_masks'] == dict(within_patients=[series], across_patients=[])
    assert s['same_images']['within_patients'] == [series]  # the toy's three series are one image
    assert (s['codes'], s['subsets']) == (dict(LPS=4, PIR=1), dict(training=4, validation=1))
    assert s['gradings'] == dict(discs=3, patients=1, unknown_patients=['8'], patients_without=2)
    assert s['notes'] == ['radiological_gradings.csv: 1 patient(s) that are not here, such as 8']
    write_case(own / 'spider', 'spider', '9_t1', seed=1)
    s = audit(own / 'spider', LUMBAR)
    for what in ('same_masks', 'same_images'):
        assert s[what]['across_patients'] == [[*series, '9_t1']]
    assert [x['case'] for x in s['suspicious']] == [*series, '9_t1']


def test_a_folder_without_labels_yaml_is_a_finding(tmp_path):
    image = tower()[0]
    write_volume(image, new_geometry(image.shape, MM), tmp_path / 'images' / 'a.mha')
    a = audit(tmp_path, LUMBAR)
    assert (a['usable'], 'labels.yaml missing' in audit_text(a)) == (0, True)
    assert 'labels.yaml missing' in audit_page(a, Gallery(), LUMBAR)


def test_a_case_with_an_unknown_value(toys, case, tmp_path):
    values = np.zeros((5, 70, 44), int)
    values[2, 9, 4], values[2, 10, 4] = 50, 201
    row = audit_case(
        with_mask(case, values, tmp_path / 'hot.mha'), open_cohort(toys / 'spider', LUMBAR)
    )
    assert row['values'][50] == 1 and '50 unknown' in row['problem']


def test_a_folder_that_cannot_be_audited(tmp_path):
    with pytest.raises(InputError, match='no such folder'):
        audit(tmp_path / 'nowhere', LUMBAR)
    with pytest.raises(InputError, match='not a dataset folder'):
        audit(tmp_path, LUMBAR)


def test_a_page_keeps_few_pictures(bigger):
    gallery = Gallery(2)
    html = audit_page(audit(bigger.root, LUMBAR, gallery=gallery), gallery, LUMBAR)
    # of the two problems one has no image that can be read
    assert (len(gallery.kept), html.count('data:image/jpeg')) == (4, 3)
    assert '4 more case(s)' in html
    assert html.index('Case7') < html.index('What is there') < html.index('Other cases')
    assert '<script' not in html and 'http' not in html


def test_the_command_refuses_a_folder_before_the_work(toys, tmp_path, monkeypatch, capsys):
    def too_early(*args):
        raise AssertionError('the audit has begun')

    monkeypatch.setattr('atm_net.audit_page.audit', too_early)
    with pytest.raises(InputError, match='is a folder: give the name of a file'):
        atm_audit(str(toys / 'mr'), json=str(tmp_path))
    assert not capsys.readouterr().out
