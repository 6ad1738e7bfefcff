"Each level named once per volume: all ways by trying, and columns whose faults are known"

import itertools

import numpy as np
import pytest

from atm_net.anatomy import LUMBAR, Scheme
from atm_net.column import (
    ColumnLabeler,
    Naming,
    Parts,
    along_column,
    best_naming,
    column_parts,
    counting_confidence,
    cut_surfaces,
    disc_names,
    disc_places,
    join_halves,
    measure_parts,
    name_column,
    name_discs,
    name_parts,
    name_volume,
    order_column,
    reach,
    runner_up,
    usual_pitch,
)
from atm_net.grid import Grid
from atm_net.phantom import make_phantom

JOINT = LUMBAR.scheme('joint')
C = JOINT.channel
ONES = np.ones(5)
EVEN = [0, 30, 60, 90, 120]  # mm
UNSURE = np.full((5, 8), 0.1)  # only the third part looks like a level, the fifth of eight
UNSURE[2, 4] = 0.3
CERTAIN = np.full((5, 8), 0.01) + np.eye(5, 8, 1)  # levels 1 to 5


# --- names of bodies


def worth(names, places, likes, weight, known, spread=0.2, lost=6.0, floor=0.02):
    "The sum that is maximised, for one way to name the parts; None: forbidden"
    gaps = np.diff(places)
    pitch = np.median(gaps[gaps > 8]) if len(gaps) else 30.0
    kept = [i for i, name in enumerate(names) if name is not None]
    pairs = list(zip(kept, kept[1:]))
    if not kept or any(names[b] < names[a] for a, b in pairs):
        return None
    total = 60 * len({name for name in names if name is not None and known[name]})
    total += sum(weight[i] * np.log(likes[i, names[i]] / likes[i].sum() + floor) for i in kept)
    total -= sum(lost * w for i, w in enumerate(weight) if i not in kept)
    for a, b in pairs:
        misfit = names[b] - names[a] - (places[b] - places[a]) / pitch
        total -= misfit**2 / (4 * spread**2)
    return total


def by_trying(places, likes, weight, known=(False,) * 9):
    "The best of all ways to name the parts"
    best, out = -np.inf, None
    for names in itertools.product([None, *range(likes.shape[1])], repeat=len(places)):
        total = worth(names, places, likes, weight, known)
        if total is not None and total > best:
            best, out = total, list(names)
    return out


@pytest.mark.parametrize('seed', range(40))
def test_name_column_is_the_best_of_all_ways(seed):
    "Four parts, three levels: 256 ways"
    rng = np.random.default_rng(seed)
    places = np.sort(rng.uniform(0, 120, 4))
    places[1:] = np.maximum(places[1:], places[:-1] + 9)
    likes = rng.random((4, 3)) ** 3 + 0.01
    weight = rng.uniform(0.2, 1, 4)
    assert name_column(places, likes, weight) == by_trying(places, likes, weight)
    known = rng.random(3) < 0.5
    got = name_column(places, likes, weight, known_levels=known)
    assert got == by_trying(places, likes, weight, known)


# --- how far ahead the best names are


def all_worths(places, likes, weight, known=(False,) * 9) -> dict:  # names -> worth
    "Every way to name the parts that is allowed"
    ways = itertools.product([None, *range(likes.shape[1])], repeat=len(places))
    worths = {names: worth(names, places, likes, weight, known) for names in ways}
    return {names: total for names, total in worths.items() if total is not None}


def is_off(names, best):
    "Has no part the name that it has in `best`?"
    return all(a != b for a, b in zip(names, best) if b is not None)


def random_column(seed, n, k):
    "Places at least 9 mm apart, looks, weights"
    rng = np.random.default_rng(seed)
    places = np.cumsum(rng.uniform(9, 40, n))
    return places, rng.random((n, k)) ** 3 + 0.01, rng.uniform(0.1, 1, n), rng.random(k) < 0.5


@pytest.mark.parametrize('size', [(4, 3), (3, 5), (5, 2), (1, 4)])
@pytest.mark.parametrize('seed', range(10))
def test_the_margin_is_the_lead_over_all_ways_that_are_off(seed, size):
    *column, known = random_column(seed, *size)
    for levels in (None, known):
        worths = all_worths(*column, *(() if levels is None else (levels,)))
        best, value = best_naming(*column, levels)
        assert value == pytest.approx(max(worths.values())) == pytest.approx(worths[tuple(best)])
        names, second = runner_up(*column, best, levels)
        off = {way: total for way, total in worths.items() if is_off(way, best)}
        assert is_off(names, best)
        assert second == pytest.approx(max(off.values())) == pytest.approx(worths[tuple(names)])


@pytest.mark.parametrize('seed', range(10))
def test_names_and_ends_that_are_not_allowed(seed):
    *column, _ = random_column(seed, 4, 3)
    rng = np.random.default_rng(seed)
    allowed = rng.random((4, 3)) < 0.6
    allowed[0, 1] = True
    ends = rng.random((4, 3)) < 0.5
    ends[0, 1] = True
    want = {}
    for way, total in all_worths(*column).items():
        kept = [(i, level) for i, level in enumerate(way) if level is not None]
        if all(allowed[pair] for pair in kept) and ends[kept[-1]]:
            want[way] = total
    got = best_naming(*column, allowed=allowed, ends=ends)
    assert got[1] == pytest.approx(max(want.values()))
    assert tuple(got[0]) == max(want, key=want.get)


def test_no_name_is_allowed():
    got = best_naming(EVEN, UNSURE, ONES, allowed=np.zeros((5, 8), bool))
    assert got == ([None] * 5, -np.inf)


def test_the_runner_up_of_an_even_column_is_a_level_off():
    likes = CERTAIN + np.eye(5, 8, 2) * 0.1
    best, value = best_naming(EVEN, likes, ONES)
    names, second = runner_up(EVEN, likes, ONES, best)
    assert (best, names) == ([1, 2, 3, 4, 5], [2, 3, 4, 5, 6])
    assert value > second


def test_confidence_rises_with_margin_and_sacrum():
    values = [counting_confidence(m, z) for m, z in ((0, 0), (8, 0), (8, 0.5), (20, 1))]
    assert values == sorted(values) and 0 < values[0] < values[-1] < 1
    assert counting_confidence(500, 0.5) == counting_confidence(20, 0.5)


# --- what a person says


BODIES = JOINT.of_kind('vertebra', 'sacrum')  # T9 to S


def parts_of(first, n, sharp=3.0, weight=None):
    "Parts at even distances that look like the levels from `first` on"
    names = np.arange(len(BODIES)) - BODIES.index(first) - np.arange(n)[:, None]
    likes = np.exp(-sharp * np.abs(names))
    weight = np.ones(n) if weight is None else np.asarray(weight)
    return Parts(None, np.arange(1, n + 1), 30.0 * np.arange(n), likes, weight)


def run(top, bottom):
    return tuple(BODIES[BODIES.index(top) : BODIES.index(bottom) + 1])


def test_the_image_alone():
    naming = name_parts(parts_of('T12', 7), JOINT)
    assert naming.levels == naming.by_image == run('T12', 'S')
    assert naming.source == '' and naming.agrees and naming.is_sure
    assert naming.margin > 10 and naming.sacrum > 0.9
    assert naming.lowest == 'S'


def test_without_a_sacrum_nothing_is_sure():
    naming = name_parts(parts_of('T11', 6), JOINT)
    assert naming.levels == run('T11', 'L4')
    assert naming.sacrum == 0 and naming.confidence < 0.5 and not naming.is_sure


@pytest.mark.parametrize(
    ('anchor', 'want'),
    [
        ('L3', run('T10', 'L3')),
        ('L4', run('T11', 'L4')),
        ('L5', run('T12', 'L5')),
        ('S', run('L1', 'S')),
    ],
)
def test_an_anchor_names_the_lowest_vertebra(anchor, want):
    naming = name_parts(parts_of('T11', 6), JOINT, anchor=anchor)
    assert naming.levels == want and naming.by_image == run('T11', 'L4')
    assert naming.source == 'anchor' and naming.is_sure
    assert naming.agrees == (anchor == 'L4')


def test_a_sacrum_may_follow_the_anchor_l5():
    naming = name_parts(parts_of('T12', 7), JOINT, anchor='L5')
    assert naming.levels == run('T12', 'S') and naming.agrees


@pytest.mark.parametrize('size', [0.05, 0.2, 1.0])
def test_the_lowest_level_as_anchor_changes_nothing(size):
    for first in ('T10', 'T12', 'L1'):
        parts = parts_of(first, 6, weight=[1, 1, 1, 1, 1, size])
        plain = name_parts(parts, JOINT)
        naming = name_parts(parts, JOINT, anchor=plain.lowest)
        whole = [n if w > 0.1 else None for n, w in zip(plain.levels, parts.weight)]
        assert naming.levels == tuple(whole) and naming.agrees


def test_an_anchor_drops_no_body_below_it():
    "Nine parts from T9 on: moved up, the first has no name, and the last keeps one"
    naming = name_parts(parts_of('T9', 9), JOINT, anchor='L4')
    assert naming.levels == (None, *run('T9', 'L4')) and not naming.agrees


def test_an_anchor_is_no_crumb():
    parts = parts_of('L1', 6, weight=[1, 1, 1, 1, 1, 0.05])
    naming = name_parts(parts, JOINT)
    assert naming.levels == run('L1', 'S') and naming.lowest == 'L5'
    naming = name_parts(parts, JOINT, anchor='S')
    assert naming.levels == (*run('L2', 'S'), None)


def test_a_list_that_settles_the_names_and_one_that_does_not():
    parts = parts_of('T11', 6, sharp=0.5)
    naming = name_parts(parts, JOINT, run('L1', 'S'))
    assert naming.levels == run('L1', 'S') and naming.source == 'list' and not naming.agrees
    naming = name_parts(parts, JOINT, ['L1', 'L2'])  # in view however one counts
    assert naming.levels == run('T11', 'L4') and naming.source == '' and not naming.is_sure


def test_names_of_the_majority_agree():
    same = Naming(('L1', 'L2', None), ('L1', 'L3', 'L4'), 1.0, 0.0)
    assert same.agrees and not Naming(('L1', 'L2'), ('L2', 'L3'), 1.0, 0.0).agrees


def test_one_certain_part_names_its_neighbours():
    assert name_column(EVEN, UNSURE, ONES) == [2, 3, 4, 5, 6]


def test_names_step_over_a_gap_of_two_pitches():
    assert name_column([0, 30, 60, 120, 150], UNSURE, ONES) == [2, 3, 4, 6, 7]


@pytest.mark.parametrize(
    ('known', 'want'),
    [
        ((2, 3, 4, 5, 6), [2, 3, 4, 5, 6]),
        ((3, 4), [1, 2, 3, 4, 5]),
        ((0, 1, 2, 3), [0, 1, 2, 3, 4]),
        (range(8), [1, 2, 3, 4, 5]),
    ],
)
def test_known_levels_outweigh_the_image(known, want):
    levels = [level in known for level in range(8)]
    assert name_column(EVEN, CERTAIN, ONES, known_levels=levels) == want


def test_a_crumb_between_two_bodies_is_dropped():
    likes = np.insert(UNSURE, 3, 0.1, 0)
    weight = [1, 1, 1, 0.1, 1, 1]
    assert name_column([0, 30, 60, 73, 90, 120], likes, weight) == [2, 3, 4, None, 5, 6]


def test_one_part_has_the_name_it_looks_like():
    assert name_column([5], CERTAIN[2:3], [1]) == [3]


def test_usual_pitch_leaves_out_what_is_close():
    assert usual_pitch(np.array([0, 4, 30, 64, 94])) == 30.0
    assert usual_pitch(np.array([0.0, 5.0])) == 30.0
    assert usual_pitch(np.array([7.0])) == 30.0


def test_halves_of_one_body_take_the_crumb_between_them():
    assert join_halves([1, None, 1, 2, None, 3]) == [1, 1, 1, 2, None, 3]


# --- the curve, the cuts, the parts


def test_along_a_slope_of_one_column_a_row():
    slope = np.zeros((2, 60, 70))
    for r in range(5, 55):
        slope[:, r, r - 3 : r + 4] = 1
    along, beside = along_column(slope, (4.0, 2.0, 1.5))  # 2.5 mm a step
    steps = np.diff([along[r, r] for r in range(6, 54)])
    np.testing.assert_allclose(steps, 2.5, atol=1e-2)
    np.testing.assert_allclose((beside[30, 30], beside[30, 32]), (0, 2.4), atol=1.0)


class Stack:
    "Bodies of 26 mm and discs of 6 mm, which the two outer slices call body too"

    tops = range(4, 116, 16)
    spacing = (4.0, 2.0, 2.0)
    places = [2.0 * (top + 14 - 4) for top in tops]  # mm along the column of each disc

    def __init__(self):
        self.body = np.zeros((5, 120, 40))
        self.disc = np.zeros((5, 120, 40))
        for top in self.tops:
            bottom = top + 13
            self.body[:, top:bottom, 10:26] = 1
            self.body[[0, 4], bottom : bottom + 3, 10:26] = 1
            self.disc[1:4, bottom : bottom + 3, 10:26] = 1
        self.along, self.beside = along_column(self.body + self.disc, self.spacing)

    def cuts(self, body=None, disc=None):
        return disc_places(self.body if body is None else body, disc, self.along, self.beside)


@pytest.fixture(scope='module')
def stack():
    return Stack()


def test_cuts_lie_at_the_discs(stack):
    np.testing.assert_allclose(stack.cuts(disc=stack.disc)[:6], stack.places[:6], atol=2.0)


def test_a_disc_that_was_missed_is_cut_all_the_same(stack):
    fewer = stack.disc.copy()
    fewer[:, stack.tops[2] + 13 : stack.tops[2] + 16] = 0
    body = stack.body + stack.disc - fewer
    np.testing.assert_allclose(stack.cuts(body, fewer)[:6], stack.places[:6], atol=4.0)


def test_cuts_lie_where_no_body_is_found(stack):
    "No disc was found, or the scheme has none"
    apart = np.where(stack.disc.max(0) > 0, 0, stack.body)
    for disc in (np.zeros_like(stack.disc), None):
        np.testing.assert_allclose(stack.cuts(apart, disc)[:6], stack.places[:6], atol=2.0)


def test_a_cut_leans_with_its_disc(stack):
    "Each slice one row lower than the one before"
    cuts = stack.cuts(disc=stack.disc)
    lean = np.stack([np.roll(stack.disc.max(0), k - 2, 0) for k in range(5)])
    surfaces = cut_surfaces(lean, stack.along, cuts, stack.spacing)
    np.testing.assert_allclose(np.diff(surfaces[1:5, :, 20], axis=1), 2.0, atol=0.1)
    np.testing.assert_allclose(surfaces[1:5, 2, 20], stack.places[1:5], atol=1.0)


def test_a_cut_without_a_disc_runs_straight_across(stack):
    cuts = stack.cuts(disc=stack.disc)
    none = cut_surfaces(None, stack.along, cuts, stack.spacing)
    assert none.shape == (len(cuts), 1, 40)
    np.testing.assert_allclose(none[:, 0, 0], cuts)
    empty = cut_surfaces(0 * stack.disc, stack.along, cuts, stack.spacing)
    np.testing.assert_allclose(empty[:, 3, 5], cuts)


def test_parts_lie_between_cuts_and_crumbs_are_none(stack):
    surfaces = cut_surfaces(stack.disc, stack.along, stack.cuts(disc=stack.disc), stack.spacing)
    body = stack.body.copy()
    body[:, stack.tops[3] - 3 : stack.tops[4]] = 0
    body[0, stack.tops[3] + 5, 15] = 1  # .016 ml
    parts = column_parts(body, stack.along, stack.beside, surfaces, stack.spacing)
    middle = [int(parts[2, top + 6, 18]) for top in stack.tops]
    assert middle == [1, 2, 3, 0, 5, 6, 7]
    assert 4 not in parts


def test_reach_is_in_mm():
    parts = np.eye(1, 9, 4, dtype=int)[None]
    assert reach(parts, (4.0, 2.0, 2.0), 4.0).tolist() == [[[0, 0, 1, 1, 1, 1, 1, 0, 0]]]
    assert reach(0 * parts, (4.0, 2.0, 2.0), 4.0).tolist() == [[[0] * 9]]


# --- names of discs


def possible(gap, discs):
    "None, and the levels between the bodies of a gap that have a disc"
    above, below = gap
    first = below - 1 if above is None else above
    end = above + 1 if below is None else below
    return [None] + [level for level in range(first, end) if level in discs]


def best_discs(gaps, fits, discs):
    "The likeliest of all ways that name as many cuts as they can, in order, none twice"
    ways = []
    for way in itertools.product(*(possible(gap, discs) for gap in gaps)):
        named = [level for level in way if level is not None]
        if named == sorted(set(named)):
            ways.append(way)

    def named_in(way, gap):
        return sum(way[i] is not None for i in range(len(gaps)) if gaps[i] == gap)

    most = {gap: max(named_in(way, gap) for way in ways) for gap in gaps}
    full = [way for way in ways if all(named_in(way, gap) == n for gap, n in most.items())]
    return max(full, key=lambda way: sum(fits[i, j] for i, j in enumerate(way) if j is not None))


@pytest.mark.parametrize('seed', range(9))
@pytest.mark.parametrize(
    'gaps',
    [
        [(None, 2), (None, 2), (2, 2), (2, None)],
        [(0, 3), (0, 3), (3, 4), (4, 4)],
        [(1, 1), (1, 4), (1, 4), (1, 4)],
        [(None, 1), (1, 6), (1, 6), (6, 7)],
    ],
)
def test_disc_names_are_the_best_of_all_ways(gaps, seed):
    rng = np.random.default_rng(seed)
    fits = rng.random((4, 8))
    discs = set(rng.choice(8, 6, replace=False).tolist())
    assert tuple(disc_names(gaps, fits, discs)) == best_discs(gaps, fits, discs)


# --- the whole step


def spoilt(truth, wrong):
    "Probability .6 for the channels in `wrong`, at least .3 for the true ones"
    p = np.full((len(truth), 21, *truth.shape[1:]), 0.1 / 19, np.float32)
    s, h, w = np.indices(truth.shape)
    p[s, truth, h, w] = 0.3
    p[s, wrong, h, w] += 0.6
    p[s, truth, h, w] = np.maximum(p[s, truth, h, w], 0.3)
    return p / p.sum(1, keepdims=True)


@pytest.fixture(scope='module')
def phantom():
    ph = make_phantom(8, contrast='t2', slices=(5, 5.0))
    return ph, Grid(spacing=2.0).to_grid(ph.labels, ph.volume.spacing[1:], labels=True)


def labels_of(p, phantom, known_levels=()):
    spacing = (phantom[0].volume.spacing[0], 2.0, 2.0)
    return ColumnLabeler(JOINT, spacing)(p, known_levels).argmax(1)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope='module')
def mixed(phantom):
    "L3 is L2 in two slices, every other row of L4 is L5, a disc has another's name in two slices"
    wrong = phantom[1].copy()
    wrong[:2][wrong[:2] == C('L3')] = C('L2')
    wrong[:, ::2][wrong[:, ::2] == C('L4')] = C('L5')
    wrong[3:][wrong[3:] == C('L2/L3')] = C('L3/L4')
    return spoilt(phantom[1], wrong)


def test_mixed_names_become_one_a_level(phantom, mixed):
    truth = phantom[1]
    before = mixed.argmax(1)
    after = labels_of(mixed, phantom)
    assert dice(before == C('L3'), truth == C('L3')) < 0.8
    assert dice(before == C('L4'), truth == C('L4')) < 0.8
    for name in ('L2', 'L3', 'L4', 'L2/L3'):
        assert dice(after == C(name), truth == C(name)) > 0.97


def test_probabilities_still_sum_to_one(phantom, mixed):
    spacing = (phantom[0].volume.spacing[0], 2.0, 2.0)
    p = order_column(mixed, JOINT, spacing)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-4)


def test_the_input_is_not_changed(phantom, mixed):
    before = mixed.copy()
    labels_of(mixed, phantom)
    np.testing.assert_array_equal(mixed, before)


def neighbour(name, where):
    other = getattr(LUMBAR, where)(name, 'vertebra')
    return other if other in JOINT.values else None


def bodies():
    return JOINT.of_kind('vertebra', 'sacrum')


def visible(truth):
    return {n for n in JOINT.names if (truth == C(n)).any()}


def test_true_levels_mend_a_column_that_slid(phantom):
    truth = phantom[1]
    wrong = truth.copy()
    for name in bodies():
        if neighbour(name, 'above'):
            wrong[truth == C(name)] = C(neighbour(name, 'above'))
    p = spoilt(truth, wrong)
    alone = labels_of(p, phantom)
    known = labels_of(p, phantom, visible(truth))
    for name in ('L1', 'L2', 'L3', 'L4'):
        assert dice(alone == C(name), truth == C(name)) < 0.05
        assert dice(known == C(name), truth == C(name)) > 0.97


def test_false_levels_shift_a_column_that_was_right(phantom):
    truth = phantom[1]

    def below(name):
        return neighbour(name, 'below') or 'S'

    wrong = {below(n) for n in visible(truth) if LUMBAR[n].kind == 'vertebra'}
    labels = labels_of(spoilt(truth, truth), phantom, wrong)
    for name in ('L2', 'L3', 'L4'):
        assert dice(labels == C(below(name)), truth == C(name)) > 0.97


COLUMN = [n for n in LUMBAR.top_down if n in JOINT.values and LUMBAR[n].kind != 'canal'][-13:]


def down_the_middle(labels, along, beside):
    "Structures on the middle line, as they follow each other from the top"
    line = beside < 1
    values = labels[len(labels) // 2][line][np.argsort(along[line])].tolist()
    return [JOINT.names[v - 1] for v, _ in itertools.groupby(values) if v]


@pytest.mark.parametrize(
    ('body', 'extra'), [('L3', 8), ('L3', 4), ('L1', 9), ('S', 9), (COLUMN[0], 9)]
)
def test_a_false_disc_inside_a_body_becomes_body(body, extra):
    spacing = (4.0, 2.0, 2.0)
    many = np.zeros((5, 200, 40), np.uint8)
    r = 4
    for name in COLUMN:
        height = 4 if LUMBAR[name].kind == 'disc' else 18
        many[:, r : r + height, 10:26] = C(name)
        r += height
    row = np.flatnonzero((many == C(body)).any((0, 2)))[0] + extra
    wrong = many.copy()
    wrong[:, row : row + 3, 10:26] = C('L4/L5')
    labels = order_column(spoilt(many, wrong), JOINT, spacing).argmax(1)
    assert down_the_middle(labels, *along_column(many > 0, spacing)) == COLUMN


def test_no_body_changes_nothing():
    nothing = np.zeros((2, 21, 8, 8), np.float32)
    nothing[:, 0] = 1
    got, naming = name_volume(nothing, JOINT, (4.0, 2.0, 2.0))
    np.testing.assert_array_equal(got, nothing)
    assert naming is None


def test_a_scheme_with_one_body_changes_nothing():
    p = np.random.default_rng(0).random((2, 3, 8, 8)).astype(np.float32)
    scheme = Scheme('one', {'L4': 1, 'L4/L5': 2}, LUMBAR)
    np.testing.assert_array_equal(order_column(p, scheme, (4.0, 2.0, 2.0)), p)


def test_no_part_large_enough_gets_no_name(stack):
    p = np.zeros((5, 21, 120, 40), np.float32)
    surfaces = np.zeros((0, 1, 40))
    got = measure_parts(p, [1, 2], stack.along, stack.beside, surfaces, stack.spacing)
    assert got is None


def test_discs_without_cuts_or_bodies_stay_as_they_are(stack):
    p = np.full((5, 21, 120, 40), 0.1, np.float32)
    discs = {0: 11}
    name_discs(p, discs, [1, 2], [(10.0, 0)], stack.along, np.array([]))
    name_discs(p, discs, [1, 2], [(10.0, None)], stack.along, np.array([20.0]))
    assert (p == np.float32(0.1)).all()
