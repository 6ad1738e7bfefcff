"Surface distances: closed forms, MONAI and SciPy as oracles, and the edge cases"

import numpy as np
import pytest
from helpers import box, close, monai_hd_asd
from scipy import ndimage

from atm_net.core import InputError
from atm_net.distances import (
    VARIANTS,
    _nearest,
    _percentile,
    _percentile_of_area,
    _roomy,
    assd,
    between,
    element_areas,
    hd95,
    surface,
    surface_distances,
    surface_elements,
    variant_distances,
)

b = box((7, 11, 13), (1, 2, 3), (3, 4, 5))
empty = np.zeros(b.shape, bool)


# surfaces and distances


def test_surface_of_one_slice_and_of_nothing():
    assert surface(b).sum() == 3 * 4 * 5 - 1 * 2 * 3
    assert surface(b, flat=True).sum() == 3 * (4 * 5 - 2 * 3)
    assert surface(np.ones((1, 4, 5), bool)).sum() == 20  # all of it is surface in 3-D
    assert surface(np.ones((1, 4, 5), bool), flat=True).sum() == 14  # an outline in the plane
    assert not surface(empty).any()


@pytest.mark.parametrize('flat', [False, True])
def test_surface_is_what_erosion_takes_away(flat):
    r = np.random.default_rng(0).random((5, 7, 11)) > 0.3
    cross = ndimage.generate_binary_structure(3, 1)
    plane = cross & np.array([0, 1, 0], bool)[:, None, None]
    core = ndimage.binary_erosion(r, plane if flat else cross)
    np.testing.assert_array_equal(surface(r, flat), r & ~core)


def test_distances_of_all_pairs():
    mm = (3.0, 1.0, 0.5)
    a = np.roll(b, 2, 2)
    x, y = (np.argwhere(surface(m)) * np.array(mm) for m in (a, b))
    every = np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))
    d_ab, d_ba = surface_distances(a, b, mm)
    close(d_ab, every.min(1), 1e-12)
    close(d_ba, every.min(0), 1e-12)
    x, y = surface(a), surface(b)
    close(d_ab, ndimage.distance_transform_edt(~y, sampling=mm)[x], 1e-12)
    close(d_ba, ndimage.distance_transform_edt(~x, sampling=mm)[y], 1e-12)
    with pytest.raises(ValueError, match='empty'):
        surface_distances(a, empty)
    with pytest.raises(ValueError, match='empty'):
        surface_distances(empty, a)


def test_distances_default_to_pixels():
    a = np.roll(b, 2, 2)
    for d, e in zip(surface_distances(a, b), surface_distances(a, b, (1, 1, 1))):
        close(d, e, 1e-12)


@pytest.mark.parametrize(
    ('seed', 'mm'), list(enumerate(((3.0, 0.7, 1.0), (1.0, 1.0, 1.0), (0.4, 5.0, 2.0))))
)
def test_tree_and_transform_agree_in_one_order(seed, mm):
    "In a box, and in one that is stretched: each of the two ways is taken"
    r = np.random.default_rng(seed)
    x, y = (surface(r.random((5, 7, 11)) > 0.6) for _ in range(2))
    wide_x, wide_y = (np.pad(m, ((0, 9), (20, 20), (0, 30))) for m in (x, y))
    assert x.size < _roomy * (x.sum() + y.sum()) < wide_x.size
    by_tree = _nearest(np.argwhere(x), np.argwhere(y), mm)
    for d, e, f in zip(between(x, y, mm), by_tree, between(wide_x, wide_y, mm)):
        close(d, e, 1e-12)
        close(d, f, 1e-12)


def test_which_way_is_taken_changes_only_the_time():
    "The limit itself: as many voxels as `_roomy` allows, and one row more"
    x, y = np.zeros((1, 1, 48), bool), np.zeros((1, 1, 48), bool)
    x[0, 0, 0] = y[0, 0, 5] = True
    for m in (0, 1):
        d = between(
            np.pad(x, ((0, m), (0, 0), (0, 0))), np.pad(y, ((0, m), (0, 0), (0, 0))), (1, 1, 2)
        )
        close(np.concatenate(d), [10, 10], 1e-12)


@pytest.mark.parametrize('side, searched', [(40, True), (3, False)])
def test_few_points_in_a_large_box_are_searched_in_a_tree(monkeypatch, side, searched):
    calls = []

    def nearest(*args):
        calls.append(len(args))
        return _nearest(*args)

    monkeypatch.setattr('atm_net.distances._nearest', nearest)
    x = np.zeros((1, side, side), bool)
    x[0, 0, 0] = True
    y = x[:, ::-1, ::-1]
    to_y, to_x = between(x, y, (1, 1, 1))
    close(to_y, [np.hypot(side - 1, side - 1)])
    close(to_x, to_y)
    assert bool(calls) == searched


def ball(radius, spacing, half=18):
    "A sphere of `radius` mm in a cube of 2*`half` mm"
    x = [np.arange(-half, half + 1e-6, s) for s in spacing]
    return sum(g**2 for g in np.meshgrid(*x, indexing='ij')) <= radius**2


@pytest.mark.parametrize('mm', ((1, 1, 1), (3, 1, 1.5), (2, 0.75, 1)))
def test_concentric_spheres(mm):
    d = surface_distances(ball(12, mm), ball(15, mm), mm)
    assert abs(hd95(*d) - 3) <= max(mm) and abs(assd(*d) - 3) <= max(mm)


def plate(row):
    return box((1, 40, 9), (0, row, 0), (1, 1, 9))


def test_plates_and_a_stray_pixel():
    d = surface_distances(b, b)
    assert (hd95(*d), assd(*d)) == (0.0, 0.0)
    d = surface_distances(plate(10), plate(15), (1, 0.5, 1))
    assert (hd95(*d), assd(*d)) == (2.5, 2.5)
    stray = plate(10) | box((1, 40, 9), (0, 30, 4), (1, 1, 1))
    d_ab, d_ba = surface_distances(stray, plate(10))
    close(assd(d_ab, d_ba), 20 / (10 + 9), 1e-12)
    close(hd95(d_ab, d_ba), np.quantile([0] * 9 + [20], 0.95), 1e-12)
    assert hd95(d_ba, d_ab) == hd95(d_ab, d_ba)  # the larger of the two, whichever it is
    assert np.quantile(np.r_[d_ab, d_ba], 0.95) < hd95(d_ab, d_ba)


def box_distances(lo, size, LO, SIZE, mm):
    "From the surface of the inner box (lo, size) to that of the outer one (LO, SIZE), and back"
    x, y = (np.argwhere(surface(box((13, 17, 19), *c))) for c in ((lo, size), (LO, SIZE)))
    gap = np.minimum(x - LO, np.add(LO, SIZE) - 1 - x) * np.array(mm, float)
    back = (y - y.clip(lo, np.add(lo, size) - 1)) * np.array(mm, float)
    return gap.min(1), np.linalg.norm(back, axis=1)


@pytest.mark.parametrize(
    ('size', 'mm'),
    [((3, 4, 5), (1, 1, 1)), ((2, 6, 3), (4.0, 0.7, 1.1)), ((5, 1, 7), (0.5, 3.0, 0.9))],
)
def test_a_box_in_a_box(size, mm):
    lo, LO, SIZE = (3, 5, 4), (2, 3, 1), np.add(size, (1 + 2, 2 + 1, 3 + 4))
    exact = box_distances(lo, size, LO, SIZE, mm)
    d = surface_distances(box((13, 17, 19), lo, size), box((13, 17, 19), LO, SIZE), mm)
    close(hd95(*d), max(np.quantile(e, 0.95) for e in exact), 1e-6)
    close(assd(*d), np.concatenate(exact).mean(), 1e-6)


def test_percentile_is_numpys():
    d = np.random.default_rng(2).random(37)
    for x in (d, d[:20], [3.0], [1.0, 2.0]):
        for q in (0.95, 0.5, 0.0, 1.0):
            close(_percentile(x, q), np.quantile(x, q), 1e-12)
        close(_percentile(x), np.quantile(x, 0.95), 1e-12)


@pytest.mark.parametrize(
    ('seed', 'mm'),
    list(enumerate(((3.0, 0.7, 1.0), (1.0, 1.0, 1.0), (4.4, 1.3, 0.6), (2.0, 0.5, 0.5)))),
)
def test_random_masks_with_an_empty_rim(seed, mm):
    r = np.random.default_rng(seed)
    x, y = (ndimage.gaussian_filter(r.random((5, 17, 11)), 1) > t for t in (0.5, 0.53))
    x[:, :, 8:] = 0
    y[0] = 0
    d = surface_distances(x, y, mm)
    np.testing.assert_allclose((hd95(*d), assd(*d)), monai_hd_asd(x, y, mm), rtol=1e-6, atol=1e-6)


# what other tools call HD95 and ASD


def test_areas_of_the_256_cells():
    a1 = element_areas((1.0, 1.0, 1.0))
    assert (a1[0], a1[255]) == (0.0, 0.0)
    close(
        a1[[1, 3, 15, 129]], [np.sqrt(3) / 8, np.sqrt(0.5), 1, 2 * np.sqrt(3) / 8], 1e-12
    )  # a corner cut off, an edge, half a cell, two opposite corners
    np.testing.assert_allclose(a1, a1[::-1])  # inside and outside change roles
    close(
        a1[[9, 33, 6]], [2 * np.sqrt(3) / 8] * 3, 1e-12
    )  # two corners across a face: each is cut off by itself
    close(
        [element_areas((3.0, 1.0, 0.5))[c] for c in (85, 51, 15)], [3 * 1, 3 * 0.5, 1 * 0.5], 1e-12
    )  # flat pieces across each axis


def test_area_of_one_voxel_and_of_a_sphere():
    at, area = surface_elements(box((1, 1, 1), (0, 0, 0), (1, 1, 1)), (1, 1, 1))
    assert len(at) == 8
    close(area.sum(), np.sqrt(3), 1e-12)
    big = surface_elements(ball(15, (2, 0.75, 1)), (2, 0.75, 1))[1].sum()
    assert 1 < big / (4 * np.pi * 15**2) < 1.2  # steps make it larger


def test_elements_lie_where_the_surface_is():
    "By hand: two voxels side by side have twelve corners"
    at, area = surface_elements(box((2, 3, 4), (0, 1, 1), (1, 1, 2)), (1, 1, 1))
    assert at.tolist() == [[i, j, k] for i in (0, 1) for j in (1, 2) for k in (1, 2, 3)]
    close(area.sum(), 8 * np.sqrt(3) / 8 + 4 * np.sqrt(0.5), 1e-12)


def test_variants_of_two_voxels():
    one, other = (box((1, 1, 5), (0, 0, k), (1, 1, 1)) for k in (0, 3))
    assert variant_distances(one, other, (1, 1, 2)) == (6.0, 6.0)
    close(variant_distances(one, other, (1, 1, 2), 'deepmind'), (6.0, 5.0), 1e-12)
    assert variant_distances(one, other) == variant_distances(one, other, (1, 1, 1))
    with pytest.raises(InputError, match='deepmind'):
        variant_distances(one, other, variant='nnunet')
    for a, c in ((one, empty[:1, :1, :5]), (empty[:1, :1, :5], one)):
        with pytest.raises(ValueError, match='empty'):
            variant_distances(a, c, variant='deepmind')


def test_variants_of_a_longer_rod():
    import torch
    from monai.metrics import compute_average_surface_distance

    short, long = (box((3, 3, 9), (1, 1, 2), (1, 1, n)) for n in (4, 5))

    def asd(a, c, variant):
        return variant_distances(a, c, (1, 1, 1), variant)[1]

    def as_monai(a, c):
        x, y = (torch.from_numpy(m)[None, None].float() for m in (a, c))
        kw = dict(include_background=True, spacing=[1, 1, 1])
        return compute_average_surface_distance(x, y, **kw).item()

    area = 4 * np.sqrt(3) / 8 / (np.sqrt(3) + 16 * np.sqrt(0.5)) / 2
    close([asd(long, short, v) for v in VARIANTS], [1 / 9, 1 / 5, 1 / 10, area], 1e-12)
    assert asd(short, long, 'directed') == 0.0  # a voxel that the prediction lacks
    # `directed` is what MONAI gives unless asked
    close([as_monai(long, short), as_monai(short, long)], [1 / 5, 0], 1e-6)


def test_percentile_of_area():
    d, area = np.arange(10.0)[::-1], np.full(10, 0.1)
    # ten tenths sum to a little less than one
    assert [_percentile_of_area(d, area, q) for q in (0.25, 0.5, 1.0)] == [2.0, 4.0, 9.0]
    assert _percentile_of_area(np.arange(100.0), np.ones(100)) == 94.0


def test_variants_differ_where_the_notebook_says_so():
    thick = (4.0, 0.7, 0.7)
    t = ball(15, thick, 20)
    moved = np.roll(t, 4, 2)
    small = ball(12, thick, 20)
    stray = t.copy()
    stray[:2, :8, :8] = True
    more = t.copy()
    more[3:7, :8, :8] = True  # the truth has a second part, which the prediction lacks
    cases = dict(
        equal=(t, t), moved=(moved, t), shrunk=(small, t), stray=(stray, t), lacking=(t, more)
    )
    tools = {v: {k: variant_distances(*m, thick, v) for k, m in cases.items()} for v in VARIANTS}
    assert [tools[v]['equal'] for v in VARIANTS] == [(0.0, 0.0)] * 4
    assert tools['directed']['lacking'][1] == 0 < tools['ours']['lacking'][1]
    assert tools['pooled']['lacking'][0] == 0 < tools['ours']['lacking'][0]
    assert tools['ours']['stray'][0] == 0 < tools['deepmind']['stray'][0]
    assert len({round(tools[v]['stray'][1], 3) for v in VARIANTS}) == 4
