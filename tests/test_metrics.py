"Metrics: closed forms, MONAI and SciPy as oracles, and the edge cases of every function"

import warnings
from inspect import signature

import numpy as np
import pytest
from helpers import box, close, monai_hd_asd
from scipy import ndimage, stats

from atm_net.anatomy import IGNORE, LUMBAR
from atm_net.core import InputError
from atm_net.metrics import (
    METRICS,
    _means,
    any_vertebra,
    bootstrap_ci,
    by_patient,
    dice,
    draw_patients,
    exclude,
    headline_of,
    interval,
    interval_text,
    jaccard,
    level_shift,
    match_levels,
    mean_of,
    paired_test,
    patient_sums,
    policy_values,
    relabel_matched,
    span_text,
    structure_scores,
    summarise,
    volume_scores,
)

spacing = (4.0, 1.0, 0.5)
joint = LUMBAR.scheme('joint')
ch = joint.channel


b = box((7, 11, 13), (1, 2, 3), (3, 4, 5))
empty = np.zeros(b.shape, bool)
miss = structure_scores(empty, b, spacing)
false_positive = structure_scores(b, empty, spacing)
absent = structure_scores(empty, empty, spacing)


def rec(d):
    "A record with a given Dice"
    return structure_scores(b, b, spacing) | dict(dsc=d)


vols = dict(
    v1=dict(L4=rec(0.9), T9=rec(0.2)),
    v2=dict(L4=rec(0.7), T9=absent),
    v3=dict(L4=rec(0.8), T9=absent),
)


# overlap


def test_overlap_of_equal_disjoint_and_empty_masks():
    assert (dice(b, b), jaccard(b, b)) == (1.0, 1.0)
    assert (dice(b, ~b), jaccard(b, ~b)) == (0.0, 0.0)
    assert (dice(empty, empty), jaccard(empty, empty)) == (None, None)
    assert (dice(empty, b), dice(b, empty)) == (0.0, 0.0)


@pytest.mark.parametrize(('axis', 'n'), [(0, 3), (1, 4), (2, 5)])
def test_overlap_of_a_moved_box(axis, n):
    a = np.roll(b, 1, axis)
    close((dice(a, b), jaccard(a, b)), ((n - 1) / n, (n - 1) / (n + 1)), 1e-12)


# one structure


def test_status_and_penalties():
    diag = np.hypot(11, 13)
    mm = np.sqrt((7 * 4) ** 2 + 11**2 + (13 * 0.5) ** 2)
    for r, status in ((miss, 'missed'), (false_positive, 'false positive')):
        assert (r['status'], r['dsc'], r['jaccard'], r['hd95_px_found']) == (status, 0.0, 0.0, None)
        close([r[k] for k in METRICS[2:]], (diag, mm, diag, mm), 1e-12)
    assert [absent[k] for k in METRICS] == [None] * 6
    assert absent['status'] == 'absent'
    assert [(r['present'], r['predicted']) for r in (miss, false_positive, absent)] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_a_moved_box_and_a_missed_slice():
    diag = np.hypot(11, 13)
    a = np.roll(b, 2, 2)
    r = structure_scores(a, b, spacing)
    close((r['dsc'], r['jaccard'], r['hd95_px'], r['hd95_mm']), (3 / 5, 3 / 7, 2.0, 1.0), 1e-12)
    assert (r['status'], r['present'], r['predicted']) == ('found', True, True)
    a[1] = 0
    r = structure_scores(a, b, spacing)
    close(r['hd95_px'], (2 + 2 + diag) / 3, 1e-12)
    close(r['hd95_px_found'], 2.0, 1e-12)


def test_no_slice_is_shared():
    "Present and predicted, but never in one slice: all slices pay, and nothing was found"
    a, t = box((3, 5, 7), (0, 1, 1), (1, 2, 2)), box((3, 5, 7), (2, 1, 1), (1, 2, 2))
    r = structure_scores(a, t, (1, 1, 1))
    close((r['hd95_px'], r['asd_px'], r['hd95_mm']), (np.hypot(5, 7), np.hypot(5, 7), 2), 1e-12)
    assert (r['status'], r['hd95_px_found'], r['asd_px_found']) == ('found', None, None)


def test_plane_by_plane_against_monai():
    r = np.random.default_rng(5)
    a, t = (ndimage.gaussian_filter(r.random((4, 17, 13)), (0, 1.5, 1.5)) > 0.5 for _ in range(2))
    t[2] = 0
    want = np.mean([monai_hd_asd(a[k], t[k], (1, 1)) for k in (0, 1, 3)], 0)
    got = structure_scores(a, t, (5.0, 2.0, 3.0))
    np.testing.assert_allclose((got['hd95_px'], got['asd_px']), want, rtol=1e-6)


# a whole volume


def annotated():
    "A prediction and a truth that lacks what nobody drew"
    truth = np.zeros((5, 11, 7), np.uint8)
    pred = truth.copy()
    truth[1:4, 2:4, 1:5] = ch('L4')
    truth[1:4, 6:8, 1:5] = ch('L5')
    truth[2, 9, 1:5] = ch('S')
    truth[1, 0] = IGNORE
    pred[:, 2:4, 1:5] = ch('L4')
    pred[:, 6:8, 1:5] = ch('L5')
    pred[:, 9, 1:5] = ch('S')
    pred[:, 0] = ch('L3')
    return pred, truth


def test_exclude():
    pred, truth = annotated()
    p, t = exclude(pred, truth, joint)
    assert (p[1, 0].max(), p[2, 0].min(), t.max()) == (
        0,
        ch('L3'),
        ch('L4'),
    )  # IGNORE goes, the rest stays
    p, t = exclude(pred, truth, joint, ['L4', 'L5'])
    assert (p[0].max(), p[4].max(), p[2, 9].max(), t[2, 9].max()) == (
        0,
        0,
        0,
        0,
    )  # slices without annotation, an S that is not on the list
    assert p[3, 9, 1] == ch('S')  # elsewhere the prediction is left alone
    with pytest.raises(InputError, match='did you mean'):
        exclude(pred, truth, joint, ['L6'])
    with pytest.raises(InputError, match='differ in shape'):
        exclude(pred[1:], truth, joint)
    with pytest.raises(InputError, match='axes'):
        exclude(pred[0], truth[0], joint)


def test_scores_of_a_volume():
    pred, truth = annotated()
    s = volume_scores(pred, truth, spacing, joint)
    assert [s[n]['status'] for n in ('L4', 'S', 'L3', 'T9')] == [
        'found',
        'found',
        'false positive',
        'absent',
    ]
    close((s['L4']['dsc'], s['S']['dsc']), (2 * 3 / (3 + 5), 2 * 1 / (1 + 5)), 1e-12)
    close(
        s['L3']['hd95_mm'], np.linalg.norm([5 * 4, 11 * 1, 7 * 0.5]), 1e-12
    )  # the image's diagonal, not the box's
    s = volume_scores(pred, truth, spacing, joint, ['L4', 'L5'])
    assert (s['L4']['dsc'], s['L5']['dsc'], s['S']['status'], s['S']['dsc'], s['L3']['status']) == (
        1.0,
        1.0,
        'ignored',
        None,
        'ignored',
    )
    assert set(s) == set(joint.names)


def test_scores_of_a_structure_that_lies_elsewhere():
    far = np.zeros((2, 3, 9, 11), np.uint8)
    far[0, 1, 1:3, 1:4] = far[1, 1, 6:8, 7:9] = ch('L2')
    s = volume_scores(*far, spacing, joint)
    w = structure_scores(
        *(far == ch('L2')), spacing
    )  # nowhere near: a structure has one box for both
    assert (s['L2']['status'], s['L2']['dsc']) == ('found', 0.0)
    close(s['L2']['hd95_mm'], w['hd95_mm'], 1e-12)
    assert [
        volume_scores(*np.where(far > 0, ch(n), 0), spacing, joint)[n]['status']
        for n in (joint.names[0], joint.names[-1])
    ] == ['found'] * 2


def test_bounding_boxes_change_no_number():
    r = np.random.default_rng(1)
    names = ('L5', 'L4', 'SC')
    big_t, big_p = (np.zeros((6, 19, 23), np.uint8) for _ in range(2))
    for m in (big_t, big_p):
        for n in names:
            m[ndimage.gaussian_filter(r.random(m.shape), 1.2) > 0.55] = ch(n)
    s = volume_scores(big_p, big_t, spacing, joint)
    for n in names:
        whole = structure_scores(big_p == ch(n), big_t == ch(n), spacing)
        for k in METRICS:
            close(s[n][k], whole[k], 1e-12)


# policies and summaries


def test_policies():
    assert policy_values(miss, 'paper') == dict(zip(METRICS, (0.0, 0.0, None, None, None, None)))
    assert policy_values(false_positive, 'paper') == dict.fromkeys(METRICS)
    assert policy_values(miss)['hd95_px'] == miss['hd95_px']
    with pytest.raises(InputError, match='penalised'):
        policy_values(miss, 'kind')
    assert (mean_of([1, None, 2, np.nan]), mean_of([None])) == (1.5, None)
    assert policy_values(absent, 'paper') == policy_values(absent)
    r = rec(0.5) | dict(hd95_px=9.0, hd95_px_found=3.0, asd_px=8.0, asd_px_found=2.0)
    paper = policy_values(r, 'paper')
    assert (paper['dsc'], paper['hd95_px'], paper['asd_px']) == (0.5, 3.0, 2.0)
    assert policy_values(r)['hd95_px'] == 9.0


def test_headline_is_a_mean_of_means():
    s = summarise(vols)
    close(s['headline']['dsc'], (0.8 + 0.2) / 2, 1e-12)  # not (.9+.7+.8+.2)/4
    assert (s['structures']['T9']['n']['dsc'], s['structures']['T9']['present'], s['volumes']) == (
        1,
        1,
        3,
    )
    assert summarise(dict(v=dict(T9=absent)))['headline']['dsc'] is None
    h = summarise(dict(v1=dict(L4=miss, L5=false_positive), v2=dict(L4=rec(1.0), L5=absent)))
    assert [h['headline'][k] for k in ('present', 'missed', 'false_positive')] == [2, 1, 1]
    assert h['headline']['n']['dsc'] == 2


def test_dropping_rewards_a_miss():
    good, bad = np.roll(b, 1, 1), np.roll(b, 4, 1)

    def two(p1, p2):
        return {v: {'T12': structure_scores(p, b, spacing)} for v, p in (('v1', p1), ('v2', p2))}

    bold, timid = two(good, bad), two(good, empty)

    def head(v, policy):
        return summarise(v, policy)['headline']

    assert (
        head(timid, 'paper')['hd95_mm'] < head(bold, 'paper')['hd95_mm']
        and head(timid, 'paper')['asd_px'] < head(bold, 'paper')['asd_px']
    )
    for k in ('hd95_px', 'hd95_mm', 'asd_px', 'asd_mm'):
        assert head(timid, 'penalised')[k] > head(bold, 'penalised')[k]
    assert summarise(timid, 'paper')['structures']['T12']['n'] == dict(
        dsc=2, jaccard=2, hd95_px=1, hd95_mm=1, asd_px=1, asd_mm=1
    )


def test_monai_drops_the_miss_as_policy_paper_does():
    import torch
    from monai.metrics import DiceMetric, HausdorffDistanceMetric

    def by_monai(*preds):
        x = torch.from_numpy(np.stack(preds))[:, None].float()
        y = torch.from_numpy(np.stack([b, b]))[:, None].float()
        dsc = DiceMetric(include_background=True)
        hd = HausdorffDistanceMetric(include_background=True, percentile=95)
        dsc(x, y)
        hd(x, y, spacing=list(spacing))
        return dsc.aggregate().item(), hd.aggregate().item()

    def head(*preds):
        volumes = {str(i): dict(T12=structure_scores(p, b, spacing)) for i, p in enumerate(preds)}
        return summarise(volumes, 'paper')['headline']

    good, bad = np.roll(b, 1, 1), np.roll(b, 4, 1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for preds in ((good, bad), (good, empty)):
            close(by_monai(*preds)[1], head(*preds)['hd95_mm'], 1e-5)
        close(by_monai(b, empty), [0.5, 0], 1e-6)


# levels


def column(names, at=1, shape=(3, 47, 9)):
    "A column of small bodies from the top, with discs between them where the names allow"
    m = np.zeros(shape, np.uint8)
    for i, n in enumerate(names):
        m[:, at + 8 * i : at + 8 * i + 5, 2:7] = ch(n)
        if i and (d := f'{names[i - 1]}/{n}') in joint.names:
            m[:, at + 8 * i - 2 : at + 8 * i, 2:7] = ch(d)
    return m


truth = column(['L1', 'L2', 'L3', 'L4', 'L5'])
shifted = column(['L2', 'L3', 'L4', 'L5', 'S'])


def test_levels_are_matched_by_overlap():
    m = match_levels(shifted, truth, joint)
    assert {k: v for k, v in m.items() if '/' not in k} == dict(
        L1='L2', L2='L3', L3='L4', L4='L5', L5='S'
    )
    assert (m['L1/L2'], m['L4/L5']) == ('L2/L3', 'L5/S')
    assert match_levels(truth, truth, joint) == {
        n: n for n in joint.names if (truth == ch(n)).any()
    }
    assert match_levels(np.zeros_like(truth), truth, joint) == {}


def test_the_sacrum_is_matched_too():
    "Channel 1 is a structure, 0 is none"
    sacrum = np.zeros((1, 6, 5), np.uint8)
    sacrum[:, 2:4] = ch('S')
    low = np.where(sacrum > 0, np.uint8(ch('L5')), sacrum)
    assert match_levels(low, sacrum, joint) == {'S': 'L5'}


def test_matched_names():
    p, extra = relabel_matched(shifted, truth, joint)
    np.testing.assert_array_equal(p, truth)
    assert extra == ()
    exact, matched = (
        volume_scores(x, truth, (4.0, 1.0, 1.0), joint)['L3']['dsc'] for x in (shifted, p)
    )
    assert (exact, matched) == (0.0, 1.0)
    extra_low = shifted.copy()
    extra_low[:, 45:] = ch('L1')  # a second L1 far below: the name is taken
    assert relabel_matched(extra_low, truth, joint)[1] == ('L1',)
    extra_low[extra_low == ch('L1')] = ch('T10')  # a T10 there is a plain false positive
    assert (
        volume_scores(relabel_matched(extra_low, truth, joint)[0], truth, (4.0, 1.0, 1.0), joint)[
            'T10'
        ]['status']
        == 'false positive'
    )


@pytest.mark.parametrize('kind', ['vertebra', 'disc'])
def test_a_second_one_far_away_has_no_place(kind):
    "At every level: y lies on x, and another x far away is listed"
    level = [x for x in joint.names if LUMBAR[x].kind == kind]
    for x, y in zip(level, level[1:] + level[:1]):
        t = np.zeros((1, 30, 9), np.uint8)
        t[:, 2:7] = ch(x)
        q = np.where(t > 0, ch(y), 0).astype(np.uint8)
        q[:, 20:25] = ch(x)
        p, extra = relabel_matched(q, t, joint)
        assert extra == (x,)
        np.testing.assert_array_equal(p, t)


def test_level_shift():
    assert level_shift(shifted, truth, joint) == dict(matched=5, off=5, shift=1.0, shifted=True)
    assert level_shift(truth, shifted, joint) == dict(
        matched=4, off=4, shift=-1.0, shifted=True
    )  # the sacrum is matched but is no vertebra
    assert level_shift(truth, truth, joint) == dict(matched=5, off=0, shift=0.0, shifted=False)
    assert level_shift(np.zeros_like(truth), truth, joint) == dict(
        matched=0, off=0, shift=None, shifted=None
    )
    assert level_shift(column(['L1', 'L2', 'L4', 'L5', 'S']), truth, joint)[
        'shifted'
    ]  # three of five
    assert not level_shift(column(['L1', 'L2', 'L3', 'L5', 'S']), truth, joint)[
        'shifted'
    ]  # two of five


def test_any_vertebra():
    assert (
        any_vertebra(truth, truth, joint),
        any_vertebra(np.zeros_like(truth), np.zeros_like(truth), joint),
    ) == (1.0, None)
    close(any_vertebra(shifted, truth, joint), 2 * 4 / (4 + 5), 1e-12)  # L5 became S
    part = np.where(np.isin(truth, [ch('L1'), ch('L5')]), 0, truth)  # only L2 to L4 are annotated
    close(
        any_vertebra(truth, part, joint), 2 * 3 / (3 + 5), 1e-12
    )  # naive: two right vertebrae count as errors
    assert (
        any_vertebra(truth, part, joint, ['L2', 'L3', 'L4']) == 1.0
    )  # between the top and bottom annotated body
    hole = truth.copy()
    hole[:, 17:22] = 0
    close(any_vertebra(hole, part, joint, ['L2', 'L3', 'L4']), 2 * 2 / (2 + 3), 1e-12)


# intervals and paired tests


def test_tables_by_patient():
    t = by_patient(vols, dict(v1='A', v2='B', v3='A'))
    np.testing.assert_array_equal(t['A'], [[0.9, 0.2], [0.8, np.nan]])
    np.testing.assert_array_equal(t['B'], [[0.7, np.nan]])
    assert list(by_patient(vols, structures=['L4'])['v2'].shape) == [1, 1]
    total, count = patient_sums(t.values())
    close(headline_of(total.sum(0), count.sum(0)), summarise(vols)['headline']['dsc'], 1e-12)


rare = {i: [[1.0] + [0.0 if j == i else np.nan for j in range(10)]] for i in range(10)}


def test_the_naive_interval_misses_its_own_estimate():
    total, count = patient_sums(rare.values())
    w = draw_patients(10, 2000, 0)
    assert w.shape == (2000, 10) and (w.sum(1) == 10).all()
    assert np.quantile(headline_of(w @ total, w @ count), 0.025) > 1 / 11
    close([bootstrap_ci(rare)[k] for k in ('mean', 'low', 'high')], [1 / 11] * 3, 1e-12)


def test_interval_of_a_mean_is_scipys():
    x = np.random.default_rng(3).normal(0.7, 0.1, 60)
    ci = bootstrap_ci({i: [v] for i, v in enumerate(x)}, n=4000)
    ref = stats.bootstrap(
        (x,), np.mean, method='percentile', n_resamples=4000, rng=np.random.default_rng(1)
    ).confidence_interval
    close((ci['mean'], ci['low'], ci['high']), (x.mean(), ref.low, ref.high), 0.003)
    close(ci['high'] - ci['low'], 2 * 1.96 * x.std() / np.sqrt(60), 0.005)
    assert bootstrap_ci({i: [v] for i, v in enumerate(x)}, seed=7) == bootstrap_ci(
        {i: [v] for i, v in enumerate(x)}, seed=7
    )
    assert bootstrap_ci({'A': [0.5, 0.7]})['low'] is None


def slow_headlines(by, w):
    "Headline of each draw with lists and loops; None where nothing is defined"

    def columns(volumes):
        return [[x for x in c if x == x] for c in zip(*volumes)]

    full = [mean_of(c) for c in columns([v for t in by.values() for v in t])]

    def one(times):
        drawn = [v for t, k in zip(by.values(), times) for _ in range(k) for v in t]
        means = [mean_of(c) if c else f for c, f in zip(columns(drawn), full)]
        return mean_of(means)

    return [one(times) for times in w.tolist()]


def gappy(seed, patients=7, k=5):
    "Patients of 1 to 3 volumes, most values missing, the last structure in nobody"
    r = np.random.default_rng(seed)
    ts = [r.random((r.integers(1, 4), k)) for _ in range(patients)]
    return {
        i: np.where((r.random(t.shape) < 0.7) | (np.arange(k) == k - 1), np.nan, t)
        for i, t in enumerate(ts)
    }


@pytest.mark.parametrize('by', [rare, gappy(0), gappy(1)])
def test_intervals_are_those_of_the_slow_way(by):
    ci = bootstrap_ci(by, seed=4, n=300)
    assert ci['low'] <= ci['mean'] <= ci['high']
    drawn = slow_headlines(by, draw_patients(len(by), 300, 4))
    close((ci['low'], ci['high']), np.quantile(drawn, (0.025, 0.975)), 1e-12)
    close(ci['mean'], slow_headlines(by, np.ones((1, len(by)), int))[0], 1e-12)


def test_an_interval_holds_its_estimate_with_few_draws():
    for i in range(20):
        for n in (1, 2, 50):
            c = bootstrap_ci(gappy(i), i, n)
            assert c['low'] <= c['mean'] <= c['high']
    for i in range(20):
        for n in (1, 2):
            p = paired_test(gappy(i), gappy(i + 20), seed=i, n=n)
            assert p['low'] <= p['difference'] <= p['high']


def test_nothing_defined_and_one_patient():
    nothing = bootstrap_ci({i: [np.nan] for i in 'AB'})
    assert nothing == dict(mean=None, low=None, high=None, n=2)
    assert bootstrap_ci({'A': [0.5, 0.7]})['low'] is None
    assert bootstrap_ci({'A': [0.5], 'B': [0.7]}, n=99)['low'] is not None
    with np.errstate(all='raise'):
        assert np.isnan(_means(np.array([0.0, 3.0]), np.array([0, 2]))).tolist() == [True, False]


def test_levels_of_an_interval():
    even = np.linspace(0, 1, 101)
    close(list(interval(0.5, even, 0.4).values()), [0.3, 0.7], 1e-5)
    close(list(interval(0.5, even).values()), [0.025, 0.975], 1e-5)
    assert interval(2.0, even)['high'] == 2.0 and interval(-1.0, even)['low'] == -1.0


def test_text_of_an_interval():
    ci = dict(mean=0.81239, low=0.7904, high=0.8332)
    assert interval_text(ci) == '0.812 [0.790, 0.833]'
    assert interval_text(ci | dict(sd=0.01)) == '0.812 ± 0.010 [0.790, 0.833]'
    assert interval_text(ci | dict(sd=None), 2, 100) == '81.24 [79.04, 83.32]'
    assert interval_text(ci | dict(low=-0.1), sign='+') == '+0.812 [-0.100, +0.833]'
    assert interval_text(ci, 0, form=' ({} to {})') == '1 (1 to 1)'
    assert interval_text(dict(mean=0.5, low=None, high=None)) == '0.500'
    assert interval_text(dict(mean=9.6), 2) == '9.60'
    assert (interval_text(None), interval_text({}), interval_text(dict(mean=None))) == ('–',) * 3
    assert (span_text(ci), span_text({})) == (' [0.790, 0.833]', '')


def methods():
    "Two methods on thirty patients, the first a little better on each"
    r = np.random.default_rng(0)
    base = r.normal(0.6, 0.15, 30)
    A = {i: [v + 0.03 + e] for i, (v, e) in enumerate(zip(base, r.normal(0, 0.02, 30)))}
    B = {i: [v] for i, v in enumerate(base)}
    return A, B


def test_paired_wilcoxon():
    A, B = methods()
    t = paired_test(A, B)
    close(t['difference'], np.mean([A[i][0] - B[i][0] for i in A]), 1e-12)
    assert t['p'] < 0.01 and 0 < t['low'] < t['difference'] < t['high']
    close(paired_test(B, A)['p'], t['p'], 1e-12)
    close(paired_test(B, A)['difference'], -t['difference'], 1e-12)
    assert paired_test(A, A)['p'] == 1.0
    close(t['p'], stats.wilcoxon([A[i][0] for i in A], [B[i][0] for i in A]).pvalue, 1e-12)
    assert paired_test(A, dict(reversed(B.items()))) == t  # by patient, not by place


def test_paired_bootstrap_is_never_zero():
    A, B = methods()
    assert paired_test(A, A, test='bootstrap')['p'] == 1.0
    assert paired_test(A, B, test='bootstrap')['p'] == 2 / 2001
    assert paired_test(A, B, test='bootstrap', n=99)['p'] == 2 / 100  # no draw on the far side


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        (gappy(0), gappy(2)),
        (gappy(3), {i: v + 0.1 for i, v in gappy(3).items()}),
        (rare, {i: np.zeros((1, 11)) for i in rare}),
    ],
)
def test_paired_bootstrap_is_that_of_the_slow_way(one, other):
    p = paired_test(one, other, test='bootstrap', seed=4, n=300)
    assert p['low'] <= p['difference'] <= p['high']
    d = np.subtract(*(slow_headlines(x, draw_patients(len(x), 300, 4)) for x in (one, other)))
    close((p['low'], p['high']), np.quantile(d, (0.025, 0.975)), 1e-12)
    close(p['p'], min(1, 2 * (min(sum(d <= 0), sum(d >= 0)) + 1) / 301), 1e-12)


def test_what_cannot_be_paired():
    A, B = methods()
    with pytest.raises(InputError, match='same patients in both: 29 differ'):
        paired_test(A, {0: [1.0]})
    with pytest.raises(InputError, match='use wilcoxon or bootstrap'):
        paired_test(A, B, test='t')


def test_pairs_of_one_patient_two_and_none():
    assert [
        paired_test({'a': np.array([[0.5]])}, {'a': np.array([[0.4]])})[k]
        for k in ('n', 'p', 'low')
    ] == [1, None, None]
    close(paired_test({'a': np.array([[0.5]])}, {'a': np.array([[0.4]])})['difference'], 0.1)
    two_by_two = paired_test(
        {'a': np.array([[0.5]]), 'b': np.array([[0.7]])},
        {'a': np.array([[0.4]]), 'b': np.array([[0.5]])},
        'bootstrap',
    )
    assert (
        two_by_two['n'],
        two_by_two['p'] is not None,
        two_by_two['low'] <= 0.15 <= two_by_two['high'],
    ) == (2, True, True)
    assert (
        paired_test(
            {'a': np.array([[np.nan]]), 'b': np.array([[np.nan]])},
            {'a': np.array([[0.4]]), 'b': np.array([[0.5]])},
        )['difference']
        is None
    )


def test_a_slice_without_annotated_bodies():
    t = np.zeros((2, 6, 4), np.uint8)
    t[0, 1:3] = ch('L3')
    t[1, 1:3] = ch('L1')
    p = np.full_like(t, ch('L3'))
    gone = exclude(p, t, joint, ('L3',))[0]
    assert (gone[0] == ch('L3')).all()
    assert not gone[1].any()  # slice 1 shows L1 alone, which nobody annotated


def test_any_vertebra_goes_slice_by_slice():
    "Each slice is scored from its own first to its own last annotated row"
    t = np.zeros((2, 12, 4), np.uint8)
    t[0, 2:4] = ch('L1')
    t[0, 8:10] = ch('L3')
    t[1, 5:7] = ch('L1')
    p = np.zeros_like(t)
    p[0, 2:10] = ch('L2')
    p[1] = ch('L2')
    a, b = np.zeros(t.shape, bool), t > 0
    a[0, 2:10] = True
    a[1, 5:7] = True
    close(
        any_vertebra(p, t, joint, ('L1', 'L3')), 2 * (a & b).sum() / (a.sum() + b.sum()), 1e-12
    )  # each slice from its own first to its own last row


def test_defaults():
    assert {
        k: p.default for k, p in signature(bootstrap_ci).parameters.items() if k != 'by'
    } == dict(seed=0, n=2000, level=0.95)
    assert [signature(paired_test).parameters[k].default for k in ('seed', 'n')] == [0, 2000]
    assert signature(interval).parameters['level'].default == 0.95
