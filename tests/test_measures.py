"Measures: the ruler against slabs of known size, notes for what cannot be measured, the command"

import io
import json
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from atm_net import measures as module
from atm_net.anatomy import LUMBAR, convert
from atm_net.core import InputError, read_json, sha256_of, write_json
from atm_net.geometry import new_geometry
from atm_net.mask_files import levels_path
from atm_net.measures import (
    COLUMNS,
    STEP,
    atm_measure,
    canal_width,
    facing_tilt,
    fit_frame,
    frames,
    front_piece,
    mark_odd,
    mark_uncertain,
    measure,
    mid_slice,
    pixel_corners,
    rectangle_tilt,
    rows_csv,
    straighten,
    write_table,
)
from atm_net.show import read_rows
from atm_net.volumes import write_labels

MM = (0.8, 1.1)
JOINT = LUMBAR.scheme('joint')
SPIDER = LUMBAR.scheme('spider')
SPACING = (4.0, 1.0, 0.9)
TILTS = dict(L1=20, L2=12, L3=2, L4=-8, L5=-20, S=-35)
THREAD = np.pad(np.ones((20, 1), bool), 4)
STRIP = np.pad(np.ones((30, 2), bool), ((3, 3), (0, 9)))


def axes(tilt):
    "Unit vectors (h, w) to the back and down"
    t = np.radians(tilt)
    return np.array([np.sin(t), np.cos(t)]), np.array([np.cos(t), -np.sin(t)])


def slab(shape, spacing, centre, height, depth, tilt, opening=0):
    "(h, w) bool: a slab of `height` x `depth` mm at `centre` (mm), `tilt` and `opening` in degrees"
    grid = np.meshgrid(*(np.arange(n) * d for n, d in zip(shape, spacing)), indexing='ij')
    point = np.stack(grid, -1) - centre
    back, down = axes(tilt)
    u = point @ back
    v = point @ down
    half = height / 2 - np.tan(np.radians(opening / 2)) * u
    return (np.abs(v) <= half) & (np.abs(u) <= depth / 2)


@pytest.fixture(scope='module')
def spine():
    "(s, h, w) joint channels: bodies of 26 x 34 mm, discs of 8, a canal of 15"
    labels = np.zeros((5, 215, 110), np.uint8)

    def put(name, *where):
        free = labels[1] == 0
        labels[1:4, slab(labels.shape[1:], SPACING[1:], *where) & free] = JOINT.channel(name)

    centre = np.array([25.0, 40.0])
    discs = {}
    for upper, lower in pairwise(TILTS):
        back, down = axes(TILTS[upper])
        put(upper, centre, 26, 34, TILTS[upper])
        put('SC', centre + 28.5 * back, 26, 15, TILTS[upper])
        discs[upper, lower] = centre + 17.5 * down
        centre = discs[upper, lower] + 17.5 * axes(TILTS[lower])[1]
    put('S', centre + 8 * axes(-35)[1], 42, 32, -35)
    for (upper, lower), disc in discs.items():
        mean = (TILTS[upper] + TILTS[lower]) / 2
        put('SC', disc + 28.5 * axes(mean)[0], 22, 15, mean)
        put(f'{upper}/{lower}', disc, 8, 34, mean)
    return labels


def by_name(rows):
    return {row['structure']: row for row in rows}


# The slice, the piece, the direction


def test_mid_slice_is_never_empty():
    volume = np.zeros((7, 40, 50), bool)
    volume[1:6, 10:20, 5:17] = True
    volume[2, 10:20, 5:45] = True
    assert mid_slice(volume) == 3
    assert mid_slice(np.ones((1, 4, 5), bool)) == 0
    ring = np.zeros((5, 4, 4), bool)
    ring[[0, 4]] = True
    assert ring[mid_slice(ring)].any()


def test_front_piece_leaves_one_piece_alone():
    body = np.zeros((40, 50), bool)
    body[10:20, 5:17] = True
    np.testing.assert_array_equal(front_piece(body), body)
    whole = body.copy()
    whole[12:18, 30:38] = True
    whole[0, 0] = True
    np.testing.assert_array_equal(front_piece(whole), body)
    np.testing.assert_array_equal(front_piece(body, share=1.0), body)


@pytest.mark.parametrize(
    'tilt, expect, found',
    [(-40, 0, -40), (0, 0, 0), (33, 0, 33), (44, 0, 44), (-60, -50, -60), (-60, 0, 30)],
)
def test_rectangle_tilt(tilt, expect, found):
    mask = slab((90, 90), MM, (36, 48), 24, 34, tilt)
    assert rectangle_tilt(mask, MM, expect) == pytest.approx(found, abs=2.5)


def test_one_pixel_has_a_direction():
    assert rectangle_tilt(np.ones((1, 1), bool), MM) == pytest.approx(0, abs=1e-9)


def test_straighten_keeps_sizes():
    view = straighten(slab((90, 70), MM, (36, 38), 27, 34, 20), MM, (36, 38), 20, 24)
    assert view.shape == (193, 193)
    assert view.sum(0)[96] * STEP == pytest.approx(27, abs=0.8)
    assert view.sum(1)[96] * STEP == pytest.approx(34, abs=0.8)


# A frame


@pytest.mark.parametrize('tilt, opening', [(0, 10), (-20, 20), (15, 22)])
def test_discs_that_are_wedges(tilt, opening):
    frame = fit_frame(slab((110, 100), MM, (44, 55), 9, 34, tilt, opening), MM)
    edge = 2 * np.tan(np.radians(opening / 2)) * 34 * 0.375
    assert frame.heights == pytest.approx((9 + edge, 9, 9 - edge), abs=0.6)
    assert frame.depth == pytest.approx(34, abs=0.8)
    assert frame.tilt == pytest.approx(tilt, abs=1.0)
    assert frame.sup_tilt - frame.inf_tilt == pytest.approx(opening, abs=1.0)


@pytest.mark.parametrize('tilt, opening', [(0, 0), (-38, 0), (25, 10), (12, -6), (-30, 14)])
def test_bodies(tilt, opening):
    frame = fit_frame(slab((110, 100), MM, (44, 55), 27, 34, tilt, opening), MM)
    edge = 2 * np.tan(np.radians(opening / 2)) * 34 * 0.375
    assert frame.heights == pytest.approx((27 + edge, 27, 27 - edge), abs=0.6)
    assert frame.depth == pytest.approx(34, abs=0.8)
    assert frame.tilt == pytest.approx(tilt, abs=1.0)


def seen_tilts(mask, frame):
    "Tilts of both endplates, drawn anew in the view of the frame's own tilt (degrees)"
    corners = pixel_corners(mask, MM) - np.array(frame.centre)
    half = np.linalg.norm(corners, axis=1).max() + 2
    profile = module._profile(straighten(mask, MM, np.array(frame.centre), frame.tilt, half))
    slopes = np.array([slope for _, slope in module._endplates(profile)])
    return frame.tilt + np.degrees(np.arctan(slopes))


def test_lines_and_tilt_belong_to_one_view():
    unsettled = 0
    cut = ((35, 34), (-50, 36), (20, -38))  # by the edge of the image
    for tilt, shift in ((0, 0), (25, 0), (-38, 30), *cut):
        mask = slab((110, 100), MM, (44 + shift, 55), 27, 34, tilt, 8)
        frame = fit_frame(mask, MM)
        seen = seen_tilts(mask, frame)
        assert (frame.sup_tilt, frame.inf_tilt) == pytest.approx(seen, abs=1e-6)
        unsettled += abs(sum(seen) / 2 - frame.tilt) >= 0.05
    assert unsettled > 0  # after three rounds


def test_an_upright_box_is_exact_to_the_grid():
    frame = fit_frame(np.pad(np.ones((20, 30), bool), 5), MM)
    assert (*frame.heights, frame.depth, frame.tilt) == pytest.approx((16, 16, 16, 33, 0), abs=0.3)
    assert frame.note == ''
    ends = [[4.5 * 0.8, 4.5 * 1.1], [4.5 * 0.8, 34.5 * 1.1]]
    np.testing.assert_allclose(frame.points('sup'), ends, atol=0.3)


def test_a_mask_at_the_edge_is_noted():
    mask = np.pad(np.ones((20, 30), bool), ((0, 5), (5, 5)))
    assert fit_frame(mask, MM).note == 'cut by the edge of the image'


def test_too_few_pixels():
    assert fit_frame(np.ones((2, 5), bool), MM) is None
    corner = np.tri(5, dtype=bool)[::-1]  # 15 pixels, a scrap cut off by the edge
    frame = fit_frame(corner, MM)
    assert frame is None or abs(frame.tilt) <= 60


def is_sound(frame):
    "None, or a frame whose numbers are finite and whose heights are positive"
    if frame is None:
        return True
    numbers = [frame.tilt, *frame.sup, *frame.inf, *frame.span, *frame.heights]
    return np.isfinite(numbers).all() and min(frame.heights) > 0 and frame.depth > 0


def scrap(r):
    "(h, w) bool, (2,) mm, degrees: a thread, a strip, a cloud or a ragged piece, at an edge or not"
    mask = r.random(r.integers(1, 13, 2) * (1, 2)) < r.choice([0.15, 0.4, 0.8, 1.0])
    if r.random() < 0.3:
        mask = np.eye(*mask.shape, dtype=bool) | (mask & (r.random(mask.shape) < 0.1))
    mask = np.pad(mask, r.integers(0, 3, (2, 2)))
    return mask, r.choice([0.2, 0.3, 0.6, 0.9], 2), float(r.uniform(-60, 60))


def test_scraps_are_measured_soundly_or_refused():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found = [fit_frame(*scrap(np.random.default_rng(i))) for i in range(120)]
    assert all(map(is_sound, found))
    assert 25 < sum(frame is None for frame in found) < 95


def test_threads_and_strips():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert fit_frame(THREAD, (0.3, 0.3)) is None  # no three points along an endplate
        lying = fit_frame(THREAD.T, (0.3, 0.3))
        for mask in (STRIP, STRIP[:, ::-1], STRIP.T):
            assert is_sound(fit_frame(mask, (0.6, 0.6)))
    assert lying.depth == pytest.approx(6, abs=0.3)
    assert 0 < max(lying.heights) <= 0.5


# Sacrum and canal


def test_the_sacrum_is_seen_from_the_body_above():
    body = fit_frame(slab((150, 110), MM, (40, 50), 27, 34, -20), MM)
    centre = np.array([40, 50]) + axes(-20)[1] * (27 / 2 + 9) + axes(-35)[1] * 25
    sacrum = slab((150, 110), MM, centre, 50, 32, -35)
    assert facing_tilt(sacrum, MM, body) == pytest.approx(-35, abs=1.5)
    assert facing_tilt(np.zeros_like(sacrum), MM, body) is None
    sliver = replace(body, span=(-0.3, 0.3))  # faces too little to draw a line through
    assert facing_tilt(sacrum, MM, sliver) is None


def test_frames_of_a_spine(spine):
    found = frames(spine, SPACING, JOINT)
    order = ['L1', 'L1/L2', 'L2', 'L2/L3', 'L3', 'L3/L4', 'L4', 'L4/L5', 'L5', 'L5/S']
    assert list(found) == order
    for name in ('L1', 'L2', 'L3', 'L4', 'L5'):
        frame = found[name]
        assert frame.slice == 2
        sizes = (frame.tilt, frame.heights[1], frame.depth)
        assert sizes == pytest.approx((TILTS[name], 26, 34), abs=1.2)


def test_canal_width(spine):
    found = frames(spine, SPACING, JOINT)
    canal = spine[2] == JOINT.channel('SC')
    for name in ('L1', 'L3', 'L5'):
        assert canal_width(canal, SPACING[1:], found[name]) == pytest.approx(15, abs=1.0)
    assert canal_width(canal, SPACING[1:], found['L3/L4']) == pytest.approx(15, abs=1.5)
    assert canal_width(spine[0] > 0, SPACING[1:], found['L3']) is None
    thin = replace(found['L3'], sup=(0.1, 0), inf=(0.2, 0))  # thinner than the grid
    assert canal_width(canal, SPACING[1:], thin) is None


# The table


def test_table_of_a_spine(spine):
    rows = measure(spine, SPACING, JOINT)
    row = by_name(rows)
    assert list(row) == [*frames(spine, SPACING, JOINT), 'S', 'L1-S']
    assert {tuple(r) for r in rows} == {COLUMNS}
    assert row['L1-S']['angle_deg'] == pytest.approx(20 + 35, abs=2.0)
    assert row['S']['tilt_deg'] == pytest.approx(-35, abs=1.5)
    assert [row['L3'][k] for k in COLUMNS[3:7]] == pytest.approx((26, 26, 26, 34), abs=0.8)
    assert row['L3/L4']['height_middle_mm'] == pytest.approx(8, abs=0.8)
    assert row['L2']['canal_mm'] == pytest.approx(15, abs=1.0)
    assert {r['note'] for r in rows if r['kind'] == 'vertebra'} == {''}


def test_where_the_canal_is_missing(spine):
    part = spine.copy()
    part[:, :60][part[:, :60] == JOINT.channel('SC')] = 0
    row = by_name(measure(part, SPACING, JOINT))['L1']
    assert (row['canal_mm'], row['note']) == (None, 'no canal found behind it')


def test_a_mask_without_any_canal_has_no_note(spine):
    none = np.where(spine == JOINT.channel('SC'), 0, spine)
    row = by_name(measure(none, SPACING, JOINT))['L1']
    assert (row['canal_mm'], row['note']) == (None, '')


def test_odd_vertebrae_are_noted():
    def body(name, tilt, depth=34.0, note=''):
        return module._row(name, 'vertebra', tilt_deg=tilt, depth_mm=depth, note=note)

    disc = module._row('L2/L3', 'disc', tilt_deg=60.0)
    rows = [
        body('T12', -33.0, note='cut'),
        body('L1', 2.0, 15.0),  # 2 - (-33 + 5) / 2 = 16 degrees
        body('L2', 5.0),
        disc,
        body('L3', 1.0),
        body('L4', None),
    ]
    mark_odd(rows)
    assert [r['note'] for r in rows] == [
        'cut; tilted -35 degrees against its neighbours: look at the mask',
        'much less deep than the others: look at the mask',
        '',
        '',
        '',
        '',
    ]


def test_lordosis_without_a_sacrum(spine):
    without = np.where(spine == JOINT.channel('S'), 0, spine)
    row = measure(without, SPACING, JOINT)[-1]
    assert row['structure'] == 'L1-L5'
    assert row['note'] == 'lordosis: L1 superior to L5 inferior endplate'
    assert row['angle_deg'] == pytest.approx(20 + 20, abs=2.0)


def test_lordosis_without_l1(spine):
    without = np.where(spine == JOINT.channel('L1'), 0, spine)
    assert measure(without, SPACING, JOINT)[-1]['angle_deg'] is None
    empty = measure(np.zeros_like(spine), SPACING, JOINT)[-1]
    assert empty['note'] == 'needs L1 and S or L5 in the mask'


def test_a_sacrum_alone_needs_the_body_above_it(spine):
    alone = np.where(spine == JOINT.channel('S'), spine, 0)
    row = measure(alone, SPACING, JOINT)[0]
    assert row['note'] == 'its superior endplate needs the body above it'
    assert row['slice'] is row['tilt_deg'] is None


def test_the_scheme_does_not_matter(spine):
    other = measure(convert(spine, JOINT, SPIDER)[0], SPACING, SPIDER)
    assert by_name(other)['L4'] == by_name(measure(spine, SPACING, JOINT))['L4']


def test_the_spacing_does_not_matter(spine):
    coarse = by_name(measure(spine, SPACING, JOINT))
    fine = by_name(measure(spine.repeat(2, 1).repeat(3, 2), (4.0, 0.5, 0.3), JOINT))
    for name in ('L1', 'L4/L5', 'L5'):
        want = coarse[name]['height_middle_mm']
        assert fine[name]['height_middle_mm'] == pytest.approx(want, abs=0.5)


# Files and the command


def test_rows_csv():
    assert rows_csv([dict(a=1, b=None)]) == 'a,b\n1,\n'
    assert rows_csv([], 'ab') == 'a,b\n'
    assert rows_csv([]) == '\n'


def test_write_table_by_suffix(spine, tmp_path):
    rows = measure(spine, SPACING, JOINT)
    write_table(rows, tmp_path / 'a.json')
    assert read_json(tmp_path / 'a.json') == rows
    write_table(rows, tmp_path / 'a.CSV')
    assert by_name(read_rows(tmp_path / 'a.CSV'))['L1-S']['depth_mm'] is None
    with pytest.raises(InputError, match='.csv or .json'):
        write_table(rows, tmp_path / 'a.txt')


@pytest.fixture
def files(spine, tmp_path):
    "The same mask under two schemes"
    geometry = new_geometry(spine.shape, SPACING, 'RSA')
    write_labels(JOINT.decode(spine), geometry, tmp_path / 'joint.nii.gz')
    other = SPIDER.decode(convert(spine, JOINT, SPIDER)[0])
    write_labels(other, geometry, tmp_path / 'spider.mha')
    return tmp_path


def printed(*args, **options):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()):
        atm_measure(*map(str, args), **options)
    return out.getvalue()


def test_the_command_says_which_scheme_it_took(files):
    assert printed(files / 'joint.nii.gz').startswith('labels joint\n')
    assert printed(files / 'spider.mha').startswith('labels spider\n')
    text = printed(files / 'spider.mha', 'spider')
    assert text.startswith('| structure') and 'labels' not in text


def test_the_command_writes_what_it_measured(files, spine):
    printed(files / 'spider.mha', out=str(files / 's.json'))
    want = by_name(measure(spine, SPACING, JOINT))
    assert by_name(read_json(files / 's.json'))['L4'] == want['L4']
    printed(files / 'joint.nii.gz', out=str(files / 'j.csv'))
    depth = by_name(read_rows(files / 'j.csv'))['L3']['depth_mm']
    assert depth == pytest.approx(want['L3']['depth_mm'], abs=0.2)


@pytest.mark.parametrize(
    'args, message',
    [
        (('spider.mha', 'joint'), '--labels'),
        (('joint.nii.gz', None, 'x.txt'), '.csv or .json'),
        (('none.mha',), 'no such file'),
        (('empty.mha',), 'no structure'),
    ],
)
def test_bad_input(files, spine, args, message):
    write_labels(spine * 0, new_geometry(spine.shape, SPACING, 'RSA'), files / 'empty.mha')
    mask, *rest = args
    with pytest.raises(InputError, match=message):
        atm_measure(str(files / mask), *rest)


def test_a_folder_gives_one_table(files):
    (files / 'bad.mha').write_bytes(b'')
    with pytest.raises(InputError, match=r'1 mask\(s\) were not measured: .*bad.mha: is empty'):
        printed(files, out=str(files / 'all.csv'))
    rows = read_rows(files / 'all.csv')
    assert {(r['case'], r['labels']) for r in rows} == {('joint', 'joint'), ('spider', 'spider')}
    one = by_name([r for r in rows if r['case'] == 'spider'])
    printed(files / 'spider.mha', out=str(files / 's.csv'))
    assert one['L4'].items() >= by_name(read_rows(files / 's.csv'))['L4'].items()


NECK = dict(
    name='neck',
    image='MRI',
    structures=[
        dict(name='C3', kind='vertebra'),
        dict(name='C4', kind='vertebra'),
        dict(name='CC', kind='canal'),
    ],
    top_down=['C3', 'C4', 'CC'],
)


@pytest.mark.parametrize(
    'mask, mm, channel, anatomy',
    [
        (THREAD, 0.3, JOINT.channel('L4'), None),
        (STRIP, 0.6, JOINT.channel('L4'), None),
        (STRIP, 0.6, 3, NECK),
    ],
    ids=['L4 as a thread', 'L4 as a strip', 'a canal alone'],
)
def test_next_to_nothing_in_the_mask(tmp_path, mask, mm, channel, anatomy):
    geometry = new_geometry((3, *mask.shape), (4.0, mm, mm), 'RSA')
    write_labels(np.stack([mask * np.uint8(channel)] * 3), geometry, tmp_path / 'o.mha')
    text = printed(tmp_path / 'o.mha', out=str(tmp_path / 'o.json'), anatomy=anatomy)
    rows = json.loads((tmp_path / 'o.json').read_text(encoding='utf-8'))
    assert printed(tmp_path / 'o.mha', out=str(tmp_path / 'o.csv'), anatomy=anatomy) == text
    header = (tmp_path / 'o.csv').read_text(encoding='utf-8').split('\n')[0]
    assert header == ','.join(COLUMNS)
    assert len(read_rows(tmp_path / 'o.csv')) == len(rows) == len(text.splitlines()) - 4
    found = [(r['structure'], r['height_middle_mm'], r['note']) for r in rows]
    if anatomy:
        assert found == []
    else:
        assert found == [
            ('L4', None, 'too little of it to measure'),
            ('lordosis', None, 'needs L1 and S or L5 in the mask'),
        ]


def test_uncertain_levels_are_noted():
    rows = [dict(note=''), dict(note='cut')]
    mark_uncertain(rows, None)
    mark_uncertain(rows, dict(sure=True))
    assert [row['note'] for row in rows] == ['', 'cut']
    mark_uncertain(rows, dict(sure=False))
    assert [row['note'] for row in rows] == ['level uncertain', 'cut; level uncertain']


def test_the_record_beside_a_mask_is_read(tmp_path):
    path = tmp_path / 'm.mha'
    write_labels(np.ones((3, 20, 20), np.uint8) * 3, new_geometry((3, 20, 20), (4, 2, 2)), path)
    write_json(levels_path(path), dict(sure=False, mask_sha256=sha256_of(path)[:12]))
    assert 'level uncertain' in printed(path, labels='joint')
    write_json(levels_path(path), dict(sure=False, mask_sha256='another'))
    assert 'level uncertain' not in printed(path, labels='joint')
