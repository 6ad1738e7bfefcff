"Synthetic subjects: what is drawn where, what is refused, and cohorts on disk"

import copy
import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from atm_net import phantom_cohort
from atm_net.anatomy import LUMBAR, Scheme, convert, get_anatomy
from atm_net.canvas import Canvas, local_frame
from atm_net.core import InputError
from atm_net.morphometry import LEVELS, MORPHOMETRY, channel_of, drawn_levels
from atm_net.phantom import GRADING_HEADER, gradings, make_phantom, present
from atm_net.phantom_body import abdomen, bowel, kidneys, paint_body, surfaces, vessels
from atm_net.phantom_cohort import LAYOUTS, atm_phantom, write_cohort
from atm_net.phantom_spec import PhantomSpec, draw_spec, spine_curve, with_findings
from atm_net.phantom_spine import (
    paint_canal,
    paint_disc,
    paint_level,
    paint_posterior,
    paint_sacrum,
)
from atm_net.scanner import finish, in_field
from atm_net.shapes import (
    body_sdf,
    canal_sdf,
    coordinates,
    endplates,
    outline,
    posterior_sdf,
    smooth_max,
    smooth_noise,
    spinous_sdf,
)
from atm_net.volumes import read_labels, read_volume

JOINT = LUMBAR.scheme('joint')
INDEX = {name: i for i, name in enumerate(LEVELS)}
NONE = (0.0,) * len(LEVELS)
FEW = dict(slices=(7, 6.0))  # few slices are quick to paint


@pytest.fixture(scope='module')
def spec() -> PhantomSpec:
    return draw_spec(7, pathology=0, contrast='t2', column=0.52, **FEW)


def of(*structures, kind='part', name='chest'):
    "An anatomy of some structures"
    parts = [dict(name=s, kind=kind) for s in structures]
    return get_anatomy(dict(name=name, image='MRI', structures=parts, top_down=list(structures)))


# --- levels and specs


def test_the_table_of_levels():
    assert (len(LEVELS), LEVELS[0], LEVELS[-1]) == (22, 'T1', 'S5')
    spine = sum(MORPHOMETRY[f'L{k}'][0] + MORPHOMETRY[f'L{k}'][3] for k in range(1, 6))
    assert abs(spine - 180) < 8  # a lumbar spine of about 18 cm


def test_channels_of_another_anatomy():
    chest = of('T6/T7', 'T7', 'S1', 'cord')
    channels = [channel_of(name, chest) for name in ('T6/T7', 'T7', 'S1', 'cord', 'L5')]
    assert channels == [1, 2, 3, 4, 0]
    assert drawn_levels(chest) == ['T6', 'T7', 'S1']
    assert [channel_of(name, LUMBAR) for name in ('S1/S2', 'T8/T9')] == [0, 0]


def test_an_anatomy_that_is_not_drawn():
    with pytest.raises(InputError, match="anatomy 'knee'"):
        drawn_levels(of('femur', kind='bone', name='knee'))


def test_a_spec_is_the_phantom():
    one, other = draw_spec(7, contrast='t1'), draw_spec(8, contrast='t1')
    assert one != other
    assert json.loads(json.dumps(asdict(one)))['discs'] == list(one.discs)
    assert draw_spec(7, below=31.0).below == 31.0


def test_a_healthy_spine():
    healthy = draw_spec(7, pathology=0)
    fields = (healthy.crushes, healthy.schmorls, healthy.herniations, healthy.modics)
    assert sum(map(sum, fields)) == 0


@pytest.mark.parametrize(
    'seed, options, words',
    [
        (7, dict(contrast='t3'), 't3'),
        (-1, {}, 'negative'),
        (7, dict(view=20.0), '60 to 600'),
        (7, dict(view=700.0), '60 to 600'),
    ],
)
def test_a_spec_that_is_refused(seed, options, words):
    with pytest.raises(InputError, match=words):
        draw_spec(seed, **options)


def test_grids_are_those_of_scanners():
    for seed in range(300):
        s = draw_spec(seed)
        slices, height, width = (n * d for n, d in zip(s.shape, s.spacing, strict=True))
        assert 9 <= s.shape[0] <= 31
        assert 17 < (slices - s.spacing[0]) / 2 < 45
        assert 249 < height < 401 and 234 < width < 391


def test_findings_are_named_by_level_or_disc(spec):
    by_disc = with_findings(spec, herniations={'L5/S': 6.0})
    assert by_disc == with_findings(spec, herniations={'L5/S1': 6.0})
    assert by_disc.herniations[INDEX['L5']] == 6.0


@pytest.mark.parametrize(
    'findings, words',
    [
        (dict(hernia={'L4/L5': 1.0}), "finding 'hernia' unknown"),
        (dict(shape={'L4': 1}), "finding 'shape' unknown"),
        (dict(slips={'L6': 1.0}), "level 'L6' unknown"),
        (dict(herniations={'L4/S1': 6.0}), "'L4/S1' unknown"),
    ],
)
def test_findings_that_are_refused(spec, findings, words):
    with pytest.raises(InputError, match=words):
        with_findings(spec, **findings)


# --- centreline, coordinates, shapes


def test_l3_stands_where_the_spec_wants_it(spec):
    curve = spine_curve(spec)
    column = np.interp(curve.at[INDEX['L3']], curve.a, curve.z)
    np.testing.assert_allclose(column, spec.column * spec.shape[2] * spec.spacing[2], atol=1e-3)


def test_a_slip_moves_a_level_forwards(spec):
    still = replace(spec, slips=NONE)

    def l4_from_l5(s):
        curve = spine_curve(s)
        l4, l5 = (curve.at[INDEX[name]] for name in ('L4', 'L5'))
        down = np.interp(l4, curve.a, curve.y) - np.interp(l5, curve.a, curve.y)
        back = np.interp(l4, curve.a, curve.z) - np.interp(l5, curve.a, curve.z)
        return np.array([down, back])

    moved = l4_from_l5(with_findings(still, slips={'L4': 6.0})) - l4_from_l5(still)
    assert abs(np.linalg.norm(moved) - 6) < 0.1 and moved[1] < -5


def test_noise_is_smooth_near_by_and_unrelated_far_off():
    f = smooth_noise(np.random.default_rng(0), (5, 210, 190), (2, 9, 9))
    assert abs(f.std() - 1) < 0.1

    def alike(k):
        return np.corrcoef(f[:, k:].ravel(), f[:, :-k].ravel())[0, 1]

    assert alike(1) > 0.95 and abs(alike(40)) < 0.2


def test_distances_close_to_an_edge_and_deep_inside():
    assert smooth_max(0.3, 0.1, 2.0) > 0.3
    assert outline(0.0, 0.0, 17.0, 24.0, 3.0) < -5
    np.testing.assert_allclose(outline(-10.0, 0.0, 17.0, 24.0, 3.0), -7, atol=1e-3)


G = np.arange(-30, 30, 0.5, dtype=np.float32) + 0.25
U, V, T = np.meshgrid(G, G, G, indexing='ij')


def volume(s) -> int:
    return int((body_sdf(s, INDEX['L3'], U, V, T) < 0).sum())


def test_findings_change_the_volume_of_a_body(spec):
    assert volume(with_findings(spec, crushes={'L3': 0.4})) < 0.9 * volume(spec)
    assert volume(with_findings(spec, schmorls={'L3': 5.0})) < volume(spec)
    assert volume(with_findings(spec, lips={'L3': 4.0})) > volume(spec)


def test_endplates_are_hollow(spec):
    i = INDEX['L3']
    top, bottom = endplates(spec, i, np.float32(0), np.float32(0))
    np.testing.assert_allclose(top + bottom, spec.heights[i] - 2 * spec.concavity, atol=1e-3)


def test_near_the_flank_there_are_two_rims(spec):
    hollow = replace(spec, flank=0.14, squareness=2.5)
    i = INDEX['L3']
    side = np.float32(0.92 * spec.widths[i] / 2)
    on = body_sdf(hollow, i, G, np.float32(0), side) < 0
    upper, lower = on[:60], on[60:]
    assert upper.any() and lower.any() and not on[G.searchsorted(0)]


BACK = np.arange(-20, 75, 0.5, dtype=np.float32)
U2, V2 = np.meshgrid(np.arange(-45, 45, 0.5, dtype=np.float32), BACK, indexing='ij')


def spinous_end(spec, name) -> float:
    "How far back the spinous process reaches behind the middle of the body, mm"
    return V2[spinous_sdf(spec, INDEX[name], U2, V2, np.float32(0)) < 0].max()


def test_the_spinous_process_is_a_thin_plate_and_short_at_l5(spec):
    even = replace(spec, depths=(spec.depths[0],) * len(LEVELS))
    assert spinous_end(even, 'L4') > spinous_end(even, 'L5') + 5
    assert not (spinous_sdf(spec, INDEX['L3'], U2, V2, np.float32(7)) < 0).any()


def test_posterior_elements_leave_the_canal_free(spec):
    def inside(side):
        return posterior_sdf(spec, INDEX['L3'], U2, V2, np.float32(side)) < 0

    wall = spec.depths[INDEX['L3']] / 2
    assert inside(0)[:, BACK > 45].any() and not inside(15)[:, BACK > 52].any()
    assert not inside(0)[:, (wall + 3 < BACK) & (wall + 9 > BACK)].any()
    assert inside(15)[:, (wall < BACK) & (wall + 6 > BACK)].any()


# --- painting


def test_boxes(spec):
    p = Canvas(spec, LUMBAR)
    assert p.box(-100.0, 60.0, 20.0) is None
    assert p.box(50.0, 60.0, (10.0, 20.0))[0] == slice(0, spec.shape[0])


def test_streaks_follow_the_spine(spec):
    p = Canvas(spec, LUMBAR)
    rows, cols = (slice(int(0.2 * n), int(0.8 * n)) for n in spec.shape[1:])
    line = p.streaks(p.rng(1), 40, 1.5)[:, rows, cols]
    along = np.corrcoef(line[:, 4:].ravel(), line[:, :-4].ravel())[0, 1]
    across = np.corrcoef(line[:, :, 4:].ravel(), line[:, :, :-4].ravel())[0, 1]
    assert p.fibre.shape == spec.shape and along > across + 0.2


def test_a_part_is_a_canvas_of_views(spec):
    p = Canvas(spec, LUMBAR)
    q = p.part(-20, 20)
    assert np.shares_memory(q.img, p.img) and 0 < q.img.shape[2] < p.img.shape[2]
    assert (q.c.v.shape[1:], q.c.x.shape) == (q.img.shape[1:], p.c.x.shape)
    assert p.part(1e6, 2e6).img.size == 0


def test_surfaces_lie_in_order(spec):
    fascia, skin, front = surfaces(Canvas(spec, LUMBAR))
    assert (front < skin).all() and (fascia < skin).all()


@pytest.mark.parametrize('paint', [bowel, vessels, lambda p, rng: abdomen(p, rng, 10.0)])
def test_the_belly_is_filled(spec, paint):
    p = Canvas(spec, LUMBAR)
    p.cavity = np.full(spec.shape, -50, np.float32)
    paint(p, np.random.default_rng(0))
    assert (p.img != 0).mean() > 0.02


def test_kidneys_lie_to_the_right_and_to_the_left():
    p = Canvas(draw_spec(7, contrast='t2', slices=(25, 3.2)), LUMBAR)
    kidneys(p, np.random.default_rng(3))
    seen = p.img.any((1, 2))
    assert (seen[0], seen[-1], seen[12]) == (True, True, False)


@pytest.fixture(scope='module')
def painted(spec):
    "A canvas with all of a subject, and the labels of bodies and discs before the bodies"
    p = Canvas(spec, LUMBAR)
    paint_body(p)
    changes = []
    for paint in (paint_canal, paint_sacrum, lambda q: paint_posterior(q, whole=True)):
        before = p.img.copy()
        paint(p)
        changes.append(np.abs(p.img - before).max())
    for i in p.in_view()[:-1]:
        paint_disc(p, i)
    discs = p.labels.copy()
    for i in p.in_view():
        paint_level(p, i)
    return p, discs, changes


def test_each_part_writes_its_own_labels(painted):
    p, discs, changes = painted
    assert set(np.unique(discs)) <= {0, *range(11, 20)}
    assert set(np.unique(p.labels)) <= set(range(20))
    assert set(np.unique(p.behind)) <= {0, *range(2, 11), 20}
    assert min(changes) > 0.05


def scanned(painted, **changed):
    "What a scanner makes of the painting, with some fields of the spec changed"
    p = copy.copy(painted[0])
    p.spec = replace(p.spec, **changed)
    return finish(p)


def test_padding_and_offset(painted):
    still = dict(floor=0.0, noise=0.0, clip=100.0)
    assert scanned(painted, **still, pad=-1000.0).min() == -1000
    assert scanned(painted, **still, padding=0.2)[:, :, :5].max() == 0


def test_the_field_of_view_has_bent_edges(spec):
    p = copy.copy(Canvas(spec, LUMBAR))
    p.spec = replace(spec, border=0.0)
    assert in_field(p).all()
    p.spec = replace(spec, border=0.05)
    _, h, w = spec.shape
    assert not in_field(p)[0, 0] and in_field(p)[h // 2, w // 2]


# --- phantoms


class Bare:
    "What places a body in the image, without the noise fields of a canvas"

    in_view, where, box = Canvas.in_view, Canvas.where, Canvas.box

    def __init__(self, spec):
        self.spec, self.curve = spec, spine_curve(spec)
        self.c = coordinates(spec, self.curve)


def overlap(spec) -> int:
    "Voxels that lie in two bodies (down to S1)"
    q = Bare(spec)
    seen = np.zeros(spec.shape, np.uint8)
    for i in q.in_view():
        if i <= INDEX['S1'] and (frame := local_frame(q, q.curve.at[i], 32, 40)):
            at, uvt = frame
            seen[at] += body_sdf(spec, i, *uvt) < 0
    return int((seen > 1).sum())


@pytest.mark.parametrize('seed', range(304, 326))
def test_neighbours_do_not_touch(seed):
    assert overlap(draw_spec(seed)) == 0


@pytest.mark.parametrize('seed', range(6))
def test_neighbours_do_not_touch_with_pathology(seed):
    assert overlap(draw_spec(seed, pathology=2.0)) == 0


def test_types_and_meta_of_a_phantom():
    ph = make_phantom(5, contrast='t2', **FEW)
    assert (ph.volume.data.dtype, ph.labels.dtype) == (np.float32, np.uint8)
    assert ph.volume.shape == ph.labels.shape
    assert json.loads(json.dumps(ph.meta))['levels'] == ph.meta['levels']


def test_the_contrast_changes_the_image_alone():
    t1, t2 = (make_phantom(5, contrast=c, **FEW) for c in ('t1', 't2'))
    assert (t1.volume.data != t2.volume.data).any()
    np.testing.assert_array_equal(t1.labels, t2.labels)


def test_whole_vertebrae_add_posterior_elements_only():
    body, whole = (make_phantom(5, vertebra=v, **FEW).labels for v in ('body', 'whole'))
    on = body > 0
    np.testing.assert_array_equal(whole[on], body[on])
    extra = (whole > 0) & ~on
    assert extra.sum() > 0.1 * on.sum()
    assert set(np.unique(whole[extra])) <= set(range(2, 11))


def test_phantoms_that_are_refused(spec):
    with pytest.raises(InputError, match='body or whole'):
        make_phantom(5, vertebra='half')
    with pytest.raises(InputError, match='contrast: go with a seed'):
        make_phantom(spec, contrast='t1')


@pytest.fixture(scope='module')
def subjects():
    return [make_phantom(seed, **FEW) for seed in range(60, 70)]


def test_structures_come_in_order_without_a_gap(subjects):
    ends = []
    for ph in subjects:
        spec = PhantomSpec(**ph.meta['spec'])
        a = np.broadcast_to(coordinates(spec, spine_curve(spec)).a, ph.labels.shape)
        names = [name for name in ph.meta['levels'] if name != 'SC']
        assert list(LUMBAR.run(names[0], names[-1])) == names
        arcs = [float(a[ph.labels == JOINT.channel(name)].mean()) for name in names]
        assert arcs == sorted(arcs)
        ends.append((names[0], names[-1]))
    assert len({top for top, _ in ends}) > 2 and len({bottom for _, bottom in ends}) > 1


def test_grey_levels_are_finite_and_not_negative(subjects):
    for ph in subjects:
        assert ph.volume.data.min() >= 0 and np.isfinite(ph.volume.data).all()


def test_present():
    assert present(np.zeros((2, 2)), LUMBAR) == []


@pytest.mark.parametrize(
    'findings, disc, column, grade',
    [
        (dict(herniations={'L4/L5': 8.0}), 'L4/L5', 'Disc herniation', 1),
        (dict(slips={'L4': 9.0}), 'L4/L5', 'Spondylolisthesis', 1),
        (dict(modics={'L3/L4': 2}), 'L3/L4', 'Modic', 2),
        (dict(degenerations={'L4/L5': 1.0}), 'L4/L5', 'Pfirrman grade', 5),
        ({}, 'L4/L5', 'Disc herniation', 0),
        ({}, 'L4/L5', 'Spondylolisthesis', 0),
    ],
)
def test_gradings(findings, disc, column, grade):
    healthy = draw_spec(13, contrast='t2', pathology=0.0, slips=NONE)
    rows = {row['disc']: row for row in gradings(with_findings(healthy, **findings))}
    assert rows[disc][column] == grade
    assert set(rows[disc]) == {'disc', *GRADING_HEADER[1:]}


@pytest.mark.parametrize('seed', range(2, 7))
def test_beside_the_canal_there_is_muscle(seed):
    straight = dict(midline=(0.0, 0.0, 0.0, 300.0, 0.0), twist=0.0, fatty=0.2)
    q = Canvas(draw_spec(seed, contrast='t2', slices=(9, 9.3), **straight), LUMBAR)
    paint_body(q)
    paint_canal(q)
    _, _, mid, r = canal_sdf(q.spec, q.curve, q.c)
    lumbar = (q.c.a > q.at('L1')) & (q.c.a < q.at('L4'))
    there = (np.abs(q.c.v - mid) < r) & (np.abs(q.c.t) > 30) & lumbar
    assert there.any() and np.median(q.img[there]) < 0.5 * q.T['fat']


# --- cohorts


@pytest.fixture(scope='module')
def cohorts(tmp_path_factory):
    root = tmp_path_factory.mktemp('cohorts')
    for layout, patients in dict(folder=2, spider=2, mrspineseg=1).items():
        write_cohort(root / layout, layout, patients=patients, seed=3)
    return root


def lines(path) -> list:
    return path.read_text(encoding='utf-8').splitlines()


def test_tables_beside_the_volumes(cohorts):
    gradings_ = lines(cohorts / 'spider' / 'radiological_gradings.csv')
    assert gradings_[0] == ','.join(GRADING_HEADER)
    assert lines(cohorts / 'mrspineseg' / 'cases.csv')[:2] == ['case,patient', 'Case1,P0001']
    assert lines(cohorts / 'folder' / 'labels.yaml')[-1] == '20: SC'


@pytest.mark.parametrize('layout', LAYOUTS)
def test_what_is_read_is_what_was_drawn(cohorts, layout):
    table = Scheme('table', {n: i for i, n in enumerate(LUMBAR.names, 1)})
    labels, vertebra = LAYOUTS[layout]
    scheme = LUMBAR.scheme(labels)
    for stem, options, codes in phantom_cohort._series(layout, 1, 3):
        image, mask = (cohorts / layout / f for f in phantom_cohort._paths(layout, stem))
        vol = read_volume(image)
        ph = make_phantom(vertebra=vertebra, **options)
        np.testing.assert_array_equal(vol.data, ph.volume.data)
        values = scheme.encode(read_labels(mask).data)
        np.testing.assert_array_equal(values, convert(ph.labels, table, scheme)[0])
        assert vol.geometry.codes == codes
        np.testing.assert_allclose(vol.spacing, ph.volume.spacing, atol=1e-4)


def test_an_interrupted_cohort_is_taken_up(cohorts):
    folder = cohorts / 'folder'
    mark = folder / 'phantom.json'
    with pytest.raises(InputError, match='finished cohort'):
        write_cohort(folder, patients=2, seed=3)
    state = json.loads(mark.read_text(encoding='utf-8'))
    mark.write_text(json.dumps(state | dict(finished=False)), encoding='utf-8')
    kept, gone = (folder / 'images' / f'case000{k}.nii.gz' for k in (1, 2))
    before, stamp = read_volume(gone).data, kept.stat().st_mtime_ns
    gone.unlink()
    with pytest.raises(InputError, match='other seed'):
        write_cohort(folder, patients=2, seed=4)
    write_cohort(folder, patients=2, seed=3)
    np.testing.assert_array_equal(read_volume(gone).data, before)
    assert kept.stat().st_mtime_ns == stamp
    assert json.loads(mark.read_text(encoding='utf-8'))['finished']


def test_foreign_folders_and_files_are_left_alone(tmp_path):
    notes = tmp_path / 'notes.txt'
    notes.write_text('x', encoding='utf-8')
    with pytest.raises(InputError, match='not empty'):
        write_cohort(tmp_path)
    with pytest.raises(InputError, match='is a file'):
        write_cohort(notes)
    assert [f.name for f in tmp_path.iterdir()] == ['notes.txt']


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(layout='nako'), 'folder, spider, mrspineseg'),
        (dict(patients=0), 'at least one'),
        (dict(seed=-1), 'not negative'),
        (dict(view=20.0), '60 to 600'),
        (dict(vertebra='half'), 'body or whole'),
        (dict(anatomy=get_anatomy('thoracic'), layout='spider'), 'use --layout folder'),
        (dict(anatomy=get_anatomy('thoracic'), view=160.0), 'for the lumbar spine'),
    ],
)
def test_a_cohort_that_is_refused(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        write_cohort(tmp_path / 'no', **options)
    assert not (tmp_path / 'no').exists()


def test_the_command_prints_the_folder(tmp_path, capsys):
    atm_phantom(str(tmp_path / 'cli'), labels='mrspineseg', patients=1, seed=2)
    assert capsys.readouterr().out.strip() == str(tmp_path / 'cli')
    assert read_labels(tmp_path / 'cli' / 'masks' / 'case0001.nii.gz').data.max() < 20
    assert lines(tmp_path / 'cli' / 'labels.yaml')[-1] == '19: T9/T10'


def test_a_narrow_field_of_view_is_low_and_high_in_turn(tmp_path):
    near = write_cohort(tmp_path / 'near', patients=2, seed=5, view=160.0)
    low, high = (
        set(np.unique(read_labels(near / 'masks' / f'case000{k}.nii.gz').data)) for k in (1, 2)
    )
    assert JOINT.values['S'] in low and JOINT.values['S'] not in high
    assert all(4 <= len(values) - 1 <= 12 for values in (low, high))
    vol = read_volume(near / 'images' / 'case0002.nii.gz')
    assert abs(vol.shape[1] * vol.spacing[1] - 160) < vol.spacing[1]
    with pytest.raises(InputError, match='finished'):
        write_cohort(near, patients=2, seed=5)


HARD = [draw_spec(seed, hard_border=True) for seed in range(400)]
AMBIGUOUS = [s for s in HARD if s.junction]


def test_an_ambiguous_border_leaves_the_rest_as_it_was():
    other = AMBIGUOUS[0]
    plain = draw_spec(other.seed)
    differ = {k for k, v in vars(plain).items() if v != getattr(other, k)}
    mixed = {'heights', 'depths', 'widths', 'discs', 'angles', 'wedges'}
    assert differ - {'counted', 'transitional', 'below'} == {'junction'} | mixed
    for name in mixed - {'discs'}:
        before, after = getattr(plain, name)[:15], getattr(other, name)[:15]  # T1 to L3
        assert before == after


def test_both_countings_of_an_ambiguous_border_occur():
    assert len(AMBIGUOUS) / len(HARD) == pytest.approx(0.6, abs=0.08)
    assert all(0.3 <= abs(s.junction) <= 0.8 for s in AMBIGUOUS)
    ways = {(s.junction > 0, s.counted) for s in AMBIGUOUS}
    assert ways == {(True, 0), (True, 1), (False, 0), (False, -1)}
    named_otherwise = np.mean([s.counted != 0 for s in AMBIGUOUS])
    assert named_otherwise == pytest.approx(0.5, abs=0.1)


def test_other_hard_borders_have_a_flat_sacrum():
    flat = [s for s in HARD if not s.junction]
    s1, l5 = LEVELS.index('S1'), LEVELS.index('L5')
    for spec in flat:
        less = np.array(draw_spec(spec.seed).angles) - spec.angles
        assert 8 <= less[s1] <= 28.001
        np.testing.assert_allclose(less[s1:], less[s1], atol=2e-4)
        assert less[l5] == pytest.approx(0.4 * less[s1], abs=2e-4)
        assert not less[:l5].any()
    assert {s.counted for s in flat} == {0}


def test_half_of_the_hard_borders_lie_at_the_lower_edge():
    moved = [s for s in HARD if s.below != draw_spec(s.seed).below]
    assert len(moved) / len(HARD) == pytest.approx(0.5, abs=0.08)
    assert all(5 <= s.below <= 45 for s in moved)


@pytest.mark.parametrize('counted', [-1, 1])
def test_names_move_and_the_image_stays(counted):
    spec = draw_spec(21, contrast='t2', view=160.0, around=('L4', 'L5'), slices=(3, 4.0))
    first = make_phantom(spec)
    other = make_phantom(replace(spec, counted=counted))
    np.testing.assert_array_equal(first.volume.data, other.volume.data)
    channel = {name: k for k, name in enumerate(LUMBAR.names, 1)}
    lower = {1: ('L4', 'L3'), -1: ('L3', 'L4')}[counted]  # drawn, named
    np.testing.assert_array_equal(
        first.labels == channel[lower[0]], other.labels == channel[lower[1]]
    )
    sacrum = {1: 'L5', -1: None}[counted]  # how the drawn S1 is called
    as_s = first.labels == channel['S']
    assert set(np.unique(other.labels[as_s])) == {channel[sacrum] if sacrum else 0}
    np.testing.assert_array_equal(first.labels == channel['SC'], other.labels == channel['SC'])


def test_gradings_of_a_border_counted_otherwise():
    spec = with_findings(draw_spec(21, pathology=0.0), modics={'L4': 2})
    assert [r['Modic'] for r in gradings(spec)][:3] == [0, 2, 0]
    assert [r['Modic'] for r in gradings(replace(spec, counted=1))][:3] == [0, 0, 2]


@pytest.mark.parametrize('share', [-0.1, 1.5])
def test_a_share_that_is_none(tmp_path, share):
    for name in ('hard_border', 'numbering', 'anywhere'):
        with pytest.raises(InputError, match=f'{name} .*: a share of the patients'):
            write_cohort(tmp_path / 'new', patients=1, **{name: share})
    assert not (tmp_path / 'new').exists()


def test_a_cohort_of_hard_borders_remembers_it(tmp_path):
    out = write_cohort(tmp_path / 'new', patients=1, view=100.0, hard_border=1.0)
    assert json.loads((out / 'phantom.json').read_text(encoding='utf-8'))['hard_border'] == 1.0


# --- four or six lumbar vertebrae


@pytest.mark.parametrize('count, label, form', [(4, 'L1', 'T12'), (6, 'T12', 'L1')])
def test_the_label_is_positional_and_the_form_is_not(count, label, form):
    "With six lumbar vertebrae the label T12 stands on a body of lumbar form, counted from L5"
    five, other = draw_spec(5), draw_spec(5, lumbar=count)
    for field in ('heights', 'depths', 'widths'):
        before, after = getattr(five, field), getattr(other, field)
        assert after[INDEX[label]] == pytest.approx(before[INDEX[form]])
        assert after[INDEX['L5'] :] == before[INDEX['L5'] :]
    assert other.lumbar == count


def test_between_the_ends_forms_are_mixed():
    "Five of six: the second from L5 lies four fifths of a level up"
    five, six = (np.array(draw_spec(5, lumbar=n).depths) for n in (5, 6))
    l5 = INDEX['L5']
    assert six[l5 - 1] == pytest.approx(0.2 * five[l5] + 0.8 * five[l5 - 1], abs=1e-3)


def test_five_lumbar_vertebrae_are_what_was_drawn_before():
    assert draw_spec(5, lumbar=5) == draw_spec(5)
    with pytest.raises(InputError, match='draws 4, 5 or 6'):
        draw_spec(5, lumbar=7)


def test_a_cohort_says_how_many_lumbar_vertebrae_each_has(tmp_path):
    out = write_cohort(tmp_path / 'new', patients=2, view=100.0, numbering=1.0, seed=3)
    header, *rows = (out / 'cases.csv').read_text(encoding='utf-8').split()
    assert header == 'case,patient,lumbar'
    assert {row.split(',')[2] for row in rows} <= {'4', '6'}
    assert json.loads((out / 'phantom.json').read_text(encoding='utf-8'))['numbering'] == 1.0


# --- narrow views that are centred anywhere


def centres(**options):
    "The levels in the middle of the views without the sacrum"
    found = []
    for k in range(2, 200, 2):
        [(_, drawn, _)] = phantom_cohort._series('folder', k, 0, view=160.0, **options)
        found.append(drawn['around'])
    return found


def test_views_are_centred_on_the_same_levels_unless_asked():
    assert set(centres()) == {phantom_cohort.HIGH}
    assert {first for first, last in centres(anywhere=1.0) if first == last} == set(
        phantom_cohort.CENTRES
    )
    half = centres(anywhere=0.5)
    assert 30 < half.count(phantom_cohort.HIGH) < 70


def test_views_with_the_sacrum_stay_where_they_are():
    [(_, drawn, _)] = phantom_cohort._series('folder', 1, 0, view=160.0, anywhere=1.0)
    assert drawn['around'] == phantom_cohort.LOW


def test_no_centre_without_a_narrow_view(tmp_path):
    with pytest.raises(InputError, match='give view as well'):
        write_cohort(tmp_path / 'new', patients=1, anywhere=0.5)
    assert not (tmp_path / 'new').exists()
