"Figures: boxes, clouds, words, confusion, sizes and calibration with known answers, and the files"

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers import close
from sklearn.metrics import confusion_matrix
from torch.testing import assert_close

import atm_net.figures as drawing
import atm_net.predict as predicting
from atm_net.anatomy import IGNORE, LUMBAR, convert
from atm_net.cache import prepare
from atm_net.charts import (
    calibration_error,
    dice_by_size,
    dice_by_structure,
    level_confusion,
    neighbour_share,
    protocol_bars,
    reliability,
    show_calibration,
    show_confusion,
    size_bins,
    structure_points,
)
from atm_net.cohort import open_cohort
from atm_net.core import InputError
from atm_net.data import Cache
from atm_net.evaluate import case_words
from atm_net.figures import (
    _file,
    atm_figures,
    case_prediction,
    draw_figures,
    fullest_slice,
    pick_cases,
    segment_case,
    slice_under,
    spread_slices,
)
from atm_net.grid import Grid
from atm_net.metrics import volume_scores
from atm_net.paper_figures import (
    best_window,
    class_errors,
    class_features,
    cluster_scores,
    edge_errors,
    embed,
    on_canvas,
    push_apart,
    qualitative,
    tsne,
    tsne_seeds,
    window_sums,
    zoom_boxes,
)
from atm_net.phantom import make_phantom
from atm_net.phantom_cohort import write_cohort
from atm_net.predict import Predictor
from atm_net.prompts import holistic, present_structures
from atm_net.slices import pad32
from atm_net.text import TextFeatures, load_encoder
from atm_net.weights import build_network, save_weights
from atm_net.word_maps import (
    choose_words,
    colour_limit,
    even_shares,
    read_slice,
    tint,
    word_attention,
    word_maps,
    word_ratio,
    word_shares,
)

joint = LUMBAR.scheme('joint')
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def closed():
    "No figure is left open"
    yield
    plt.close('all')


ph = make_phantom(8, contrast='t2', slices=(3, 5.0))
image, truth = ph.volume.data[1], ph.labels[1]
mm = ph.volume.spacing[1:]
up = np.arange(256)
for n in ('L3', 'L2', 'L1', 'T12', 'T11'):
    up[joint.channel(n)] = joint.channel(LUMBAR.above(n, 'vertebra'))
shifted = up[truth].astype(np.uint8)
h, w = np.indices(truth.shape)
wobble = (
    (h + np.round(3 * np.sin(w / 4)).astype(int)).clip(0, truth.shape[0] - 1),
    (w + np.round(3 * np.sin(h / 5)).astype(int)).clip(0, truth.shape[1] - 1),
)
ragged = truth[wobble]


# where to zoom


def test_methods_with_one_kind_of_mistake():
    assert ((shifted > 0) == (truth > 0)).all()
    assert (ragged != truth).any()


def test_two_kinds_of_mistake():
    p, t = np.zeros((9, 14), np.uint8), np.zeros((9, 14), np.uint8)
    t[2:7, 3:11] = 4
    p[2:7, 3:12] = 4
    p[2, 3] = 5
    p[0, 0] = 6
    p[4, 7] = 0
    assert np.argwhere(class_errors(p, t)).tolist() == [[2, 3]]
    assert np.argwhere(edge_errors(p, t, 1)).tolist() == [
        [r, 11] for r in range(2, 7)
    ]  # not the far island at (0,0), not the hole at (4,7)
    assert edge_errors(p, t, 9).sum() == 7  # a wide band has both
    t[3, 11] = t[2, 3] = IGNORE
    assert (class_errors(p, t).sum(), edge_errors(p, t, 1)[3, 11]) == (0, False)
    assert [
        int(f(m, truth).sum()) > 0 for m in (shifted, ragged) for f in (class_errors, edge_errors)
    ] == [True, False, True, True]


def test_windows():
    c = rng.integers(0, 4, (11, 17))
    naive = np.array([[c[i : i + 3, j : j + 5].sum() for j in range(13)] for i in range(9)])
    np.testing.assert_array_equal(window_sums(c, (3, 5)), naive)
    i, j, a, b = best_window(c, (3, 5))
    assert (naive[i, j], a, b) == (naive.max(), 3, 5)
    assert window_sums(c, (11, 17)) == [[c.sum()]]
    one = np.zeros((20, 30))
    one[10, 15] = 1
    i, j, *_ = best_window(one, (5, 7))
    assert (i, j) == (8, 12)  # ties: the spot is in the middle
    assert best_window(one * 0, (5, 7)) is None
    assert best_window(one, (50, 50)) == (0, 0, 20, 30)


def test_zoom_boxes():
    b = zoom_boxes(truth, [shifted])
    assert b['edge'] is None  # only classes were wrong
    i, j, a, _ = b['class']
    inside = class_errors(shifted, truth)[i : i + a, j : j + a]
    others = window_sums(class_errors(shifted, truth), (a, a))
    assert inside.sum() == others.max()
    assert zoom_boxes(truth, [truth]) == {'class': None, 'edge': None}


def test_panel():
    fig = qualitative(
        image,
        truth,
        dict(shifted=shifted, ragged=ragged),
        joint,
        mm,
        texts=dict(shifted='lumbar vertebra L2, ...', ragged='nothing'),
    )
    assert len(fig.axes) == 12
    boxes = zoom_boxes(truth, [shifted, ragged])
    for ax, k in (
        (fig.axes[5], 'class'),
        (fig.axes[9], 'edge'),
    ):  # the zoomed rows show their boxes, in mm
        i, j, a, b = boxes[k]
        close(ax.get_ylim(), ((i + a) * mm[0], i * mm[0]), 1e-06)
        close(ax.get_xlim(), (j * mm[1], (j + b) * mm[1]), 1e-06)
    names = [t.get_text() for t in fig.legends[0].get_texts()]
    seen = {joint.names[c - 1] for m in (truth, shifted, ragged) for c in np.unique(m) if c}
    assert tuple(names) == LUMBAR.order(seen)
    assert [a.get_title() for a in fig.axes[:4]] == ['image', 'truth', 'shifted', 'ragged']


def test_panel_without_truth_or_mistake():
    flat = qualitative(image, None, {'no truth': shifted}, joint)
    assert len(flat.axes) == 2
    plt.close(flat)
    same = qualitative(image, truth, dict(perfect=truth), joint)
    assert len(same.axes) == 3
    plt.close(same)  # nothing wrong: no zoom


# features


class Known(torch.nn.Module):
    def features(self, x, text=None):
        known = [x, x**2]
        if text is not None:
            total = text.states[text.prompt_index].sum((1, 2))
            known.append(x * 0 + total[:, None, None, None])
        return torch.cat(known, 1)


def test_features_of_structures():
    imgs = rng.random((5, 33, 21)).astype(np.float32)
    labs = np.zeros((5, 33, 21), np.uint8)
    labs[:, 3:9, 2:7] = 2
    labs[1:, 20:24, 4:9] = 13
    labs[4, 0, :9] = 7
    labs[0, 12:, :] = IGNORE
    x, y, k = class_features(Known(), imgs, labs, batch=2)
    assert sorted(zip(k, y)) == [(0, 2)] + [
        (i, c) for i in range(1, 5) for c in (2, 13)
    ]  # 9 pixels of channel 7 are too few; 255 is no structure
    at = [(i, c) for i, c in zip(k, y)].index((3, 13))
    close(x[at], [imgs[3, 20:24, 4:9].mean(), (imgs[3, 20:24, 4:9] ** 2).mean()], 1e-05)
    g = torch.arange(5.0)[:, None, None].expand(5, 3, 2)
    text = TextFeatures(g, torch.ones(5, 3, dtype=bool), torch.zeros(5, 3, dtype=int))
    x2, *_ = class_features(Known(), imgs, labs, text, batch=2)
    close(x2[:, 2], k * 6.0, 1e-05)  # each slice got its own words
    with pytest.raises(InputError, match='t-SNE needs'):
        class_features(torch.nn.Conv2d(1, 2, 1), imgs, labs)
    assert len(class_features(Known(), imgs, labs * 0)[1]) == 0


def test_canvas():
    a = rng.integers(1, 9, (5, 7)).astype(np.uint8)
    c = on_canvas(a, 11)
    assert (c.shape, c.dtype, c.sum()) == ((11, 11), a.dtype, a.sum())
    np.testing.assert_array_equal(c[:5, :7], a)
    np.testing.assert_array_equal(on_canvas(a[:, :5], 5), a[:, :5])
    for b in (a, a.T):
        with pytest.raises(InputError, match='at least 7'):  # nothing is cut in silence
            on_canvas(b, 6)


def test_cluster_scores():
    y = np.repeat([2, 3, 4], 20)
    vol = np.tile(np.arange(4), 15)
    blobs = np.eye(3)[y - 2] * 9 + rng.normal(size=(60, 3))
    tidy, mess = cluster_scores(blobs, y, vol), cluster_scores(rng.normal(size=(60, 3)), y, vol)
    print(tidy, mess)
    assert tidy['purity'] == 1.0
    assert tidy['silhouette'] > 0.6
    assert abs(mess['silhouette']) < 0.15
    close(mess['chance'], 15 / 45, 1e-09)
    assert abs(mess['purity'] - mess['chance']) < 0.25
    copies = np.repeat(rng.normal(size=(20, 3)) * 5, 3, 0)
    yc = rng.integers(0, 3, 20).repeat(3)
    gc = np.arange(20).repeat(3)
    assert cluster_scores(copies, yc)['purity'] == 1.0
    assert cluster_scores(copies, yc, gc)['purity'] < 0.7  # near copies do not count
    close(
        cluster_scores(blobs * [1, 100, 0.001], y, vol)['silhouette'], tidy['silhouette'], 1e-09
    )  # the unit of a feature does not matter
    with pytest.raises(InputError, match='take more slices'):
        cluster_scores(blobs, y * 0)


some = ['S', 'L5', 'L4', 'L3', 'L2', 'L1', 'L5/S', 'L4/L5', 'L3/L4', 'SC']
y = np.repeat([joint.channel(n) for n in some], 25)
vol = np.tile(np.arange(5), 50)


@pytest.fixture(scope='module')
def x():
    "L1, L2 and L3 from one cloud, all else apart"
    rng = np.random.default_rng(1)
    centre = rng.normal(size=(21, 12)) * 4
    centre[[joint.channel('L2'), joint.channel('L1')]] = centre[joint.channel('L3')]
    return centre[y] + rng.normal(size=(250, 12))


def test_tsne(x):
    fig, s = tsne(x, y, joint, groups=vol, title='L1 to L3 mixed')
    assert (s['n'], s['classes'], s['perplexity']) == (250, 10, 30)
    apart = cluster_scores(*(v[~np.isin(y, [4, 5, 6])] for v in (x, y, vol)))
    assert s['purity'] < 0.9 < apart['purity']
    assert len(fig.axes[0].collections) == 10
    fig.draw_without_rendering()
    names = [t for t in fig.axes[0].texts if t.get_text()]
    boxes = [t.get_window_extent() for t in names]
    assert {t.get_text() for t in names} == set(some)
    assert [b.count_overlaps(boxes) for b in boxes] == [
        1
    ] * 10  # each name touches only itself, L1, L2 and L3 too

    def shape(h):
        return len(h.get_paths()[0].vertices)

    marks = dict(
        zip(
            (t.get_text() for t in fig.legends[0].get_texts()),
            map(shape, fig.legends[0].legend_handles),
        )
    )
    assert tuple(marks) == LUMBAR.order(some)
    assert (marks['L1'] == marks['L5'], len({marks[n] for n in ('L4', 'L4/L5', 'SC')})) == (
        True,
        3,
    )  # the legend shows disc, diamond and triangle


def test_boxes_are_pushed_apart():
    at = np.array([[0, 0], [0, 0], [1, 0.5], [9, 9.0]])
    size = np.array([[6, 2], [4, 2], [4, 2], [3, 3.0]])
    p = push_apart(at, size)
    i, j = np.triu_indices(4, 1)
    assert (np.abs(p[j] - p[i]) >= (size[i] + size[j]) / 2 - 1e-06).any(1).all()
    assert p[3].tolist() == at[3].tolist()
    close(
        p[:3].mean(0), at[:3].mean(0), 1e-09
    )  # apart; who was free stays; the group stays about its middle


def test_embedding(x):
    assert_close(embed(x[:60], 9, seed=3), embed(x[:60], 9, seed=3))
    assert embed(x[:60], 9).shape == (60, 2)
    f2, s2 = tsne(x, y, joint, names=['L5', 'L4'], perplexity=10)
    assert (s2['n'], len(f2.axes[0].collections)) == (50, 2)
    plt.close(f2)
    with pytest.raises(InputError, match='perplexity 30 must be smaller'):
        embed(x[:20])


@pytest.mark.slow
def test_several_networks_and_seeds(x):
    apart_ = x.copy()
    for k, n in enumerate(('L3', 'L2', 'L1')):
        apart_[y == joint.channel(n)] += 9 * np.eye(12)[k]
    fig, out = tsne_seeds(dict(mixed=(x, y, vol), apart=(apart_, y, vol)), joint, perplexity=20)
    assert (list(out), [s['seed'] for s in out['mixed']['seeds']], len(fig.axes)) == (
        ['mixed', 'apart'],
        [0, 1, 2],
        6,
    )
    close(
        [out[m][k] for m in out for k in ('silhouette', 'purity')],
        [cluster_scores(f, y, vol)[k] for f in (x, apart_) for k in ('silhouette', 'purity')],
        1e-09,
    )
    assert (
        all(a['purity'] < b['purity'] for a, b in zip(out['mixed']['seeds'], out['apart']['seeds']))
        and out['mixed']['purity'] < out['apart']['purity']
    )  # the same order with every seed
    close(
        out['apart']['seeds'][1]['purity'],
        cluster_scores(embed(apart_, 20, 1, 'random'), y, vol)['purity'],
        1e-09,
    )
    for other in ((x[:-1], y[:-1], vol[:-1]), (x, y[::-1], vol)):
        with pytest.raises(InputError, match='sampled differently'):
            tsne_seeds(dict(a=(x, y, vol), b=other), joint, 20)
    assert np.abs(embed(x, 20, 0, 'random') - embed(x, 20, 1, 'random')).max() > 1
    assert (
        np.abs(embed(x, 20, 0) - embed(x, 20, 1)).max() < 1
    )  # from the principal components the seed changes nothing


# words


def test_shares_of_words():
    tok = rng.random((7, 3, 5))
    s = word_shares((('L4/L5', (1, 2, 3)), ('is', (5,))), tok)
    assert s.shape == (2, 3, 5)
    close(s[0], tok[1] + tok[2] + tok[3], 1e-12)
    close(s[1], tok[5], 1e-12)


enc = load_encoder('spine_bert_tiny')
torch.manual_seed(0)
meta = dict(scheme='joint', values=joint.values, grid=dict(spacing=6.0, size=None))
meta |= dict(length=128, option=3)
net = Predictor(build_network('atm_net', 21, text_dim=enc.dim, alpha=1.0), meta, encoder=enc)
mute = Predictor(build_network('swin_unetr', 21), meta)
small = net.to_grid(ph.volume)[1]
seen = ('L3', 'L3/L4', 'L4', 'L4/L5', 'L5')
prompt = holistic(seen, LUMBAR, 3, 'middle')
words, stages = word_attention(net, small, prompt)


def test_attention_on_words():
    "No word is lost, and sizes follow the stages"
    padded = pad32(torch.zeros(1, 1, *small.shape)).shape[2:]
    assert [s.shape[1:] for s in stages] == [
        tuple(n // f for n in padded) for f in (32, 16, 8, 4, 2)
    ]
    assert len(words) == len(stages[0])
    assert [w for w in words if '/' in w][:2] == ['L3/L4', 'L4/L5']
    assert all((s.sum(0) < 1 + 0.0001).all() and (s >= 0).all() for s in stages)
    assert all(
        s.sum(0).min() > 0.5 for s in stages
    )  # most of the attention is on words, not on marks
    with pytest.raises(InputError, match='reads no text'):
        word_attention(mute, small, prompt)
    probs, tokens = read_slice(net, small, prompt)
    np.testing.assert_array_equal(
        probs.argmax(0), net.grid_labels(small[None], [prompt])[0]
    )  # oracle: the way of 53_predict
    close(probs.sum(0), np.ones(small.shape), 1e-05)
    at = dict(enc.words(str(prompt)).words)['L3/L4']
    close(stages[2][words.index('L3/L4')], tokens[2][list(at)].sum(0), 1e-06)


def indifferent(**kw):
    "The reading network, its queries set to 0"
    torch.manual_seed(0)
    p = Predictor(
        build_network('atm_net', 21, text_dim=enc.dim, alpha=1.0, **kw), meta, encoder=enc
    )
    for s in p.model.hasf:
        torch.nn.init.zeros_(s.fuse.att.q.weight)
        torch.nn.init.zeros_(s.fuse.att.q.bias)
    return p


def test_even_shares_of_an_indifferent_network():
    tokens = read_slice(net, small, prompt)[1]
    n = int(enc([str(prompt)])[1].sum())
    for kw in ({}, dict(tokens='words')):
        flat = indifferent(**kw)
        even, shares = even_shares(flat, prompt), read_slice(flat, small, prompt)[1]
        for e, s in zip(even, shares):
            close(s, np.broadcast_to(e[:, None, None], s.shape), 1e-6)
            close(e.sum(), 1, 1e-5)
            assert not e[n:].any()
        assert (np.ptp(even[2][:n]) < 1e-6) == bool(kw)
    change = [np.abs(s - e[:, None, None]).max() for e, s in zip(even_shares(net, prompt), tokens)]
    assert max(change) > 1e-3  # the other one has preferences


def test_word_maps():
    fig = word_maps(small, words, stages[3], LUMBAR, title=str(prompt))
    mean, ratio, cell = word_ratio(stages[3], small.shape)
    assert (cell, ratio.shape[1:]) == (4, tuple(-(-n // 4) for n in small.shape))
    close(ratio.mean((1, 2)), np.ones(len(words)), 1e-05)
    assert [a.get_title().split('\n')[0] for a in fig.axes[1:6]] == [
        words[i] for i in choose_words(words, ratio, LUMBAR)
    ]
    assert {words[i] for i in choose_words(words, ratio, LUMBAR, n=9)} == set(seen)
    bent = np.ones((3, 4, 6))
    bent[1, 0] = 1.2
    bent[2, 0] = 3
    assert choose_words(('the', 'L3', 'L4'), bent, LUMBAR, 1) == [2]
    assert colour_limit(bent[:1]) == 0.1
    close([colour_limit(bent[:2]), colour_limit(bent)], [np.log2(1.2), np.log2(3)], 1e-09)
    odd = np.ones((20, 20))
    odd[0, 0] = 1e3
    assert (colour_limit(odd), colour_limit(odd * 0), colour_limit(odd * 4)) == (
        0.1,
        3.0,
        2.0,
    )  # one odd cell; nothing at all; four times everywhere
    away = np.ones((1, 12, 16))
    away[0, 9:] = 5
    assert word_ratio(away, (72, 128))[0] == [1.0]
    close(
        word_ratio(away, (73, 128))[0], [1.4], 1e-09
    )  # 72 rows end with the ninth cell, the others are padding


def test_a_map_with_a_known_place():
    fake = np.full((2, 8, 8), 0.1)
    fake[1, 4:, 4:] = 0.2
    white = np.ones((64, 50))
    white[0] = 0
    m = word_maps(white, ('the', 'canal'), fake, LUMBAR, ['canal', 'the'])
    rgb = m.axes[1].images[0].get_array()
    assert rgb.shape == (64, 50, 3)
    assert [
        np.ptp(rgb[a, b], (0, 1)).max() < 1e-09
        for a, b in ((slice(1, 32), slice(0, 32)), (slice(33, 64), slice(33, 50)))
    ] == [True, True]  # two flat regions,
    assert (rgb[2, 2, 0] > rgb[2, 2, 2], rgb[60, 40, 2] > rgb[60, 40, 0]) == (
        True,
        True,
    )  # orange above, purple in the corner
    assert rgb[31, 31].tolist() != rgb[32, 32].tolist()
    grey = m.axes[2].images[0].get_array()[1:]
    assert np.ptp(grey, -1).max() < 0.01  # a word without preference stays grey
    assert [a.get_title() for a in m.axes[1:3]] == ['canal\n12.1%', 'the\n10.0%']
    plt.close(m)
    close(tint(white, np.array([[2.0]]), 64, 1)[9, 9], plt.get_cmap('PuOr')(1.0)[:3], 1e-09)
    with pytest.raises(InputError, match="no word 'L9'"):
        word_maps(small, words, stages[2], LUMBAR, ['L9'])


# charts


def test_confusion():
    m = level_confusion(shifted, truth, joint)
    show_confusion(m, joint, 'named one level too high from L3 up')
    np.testing.assert_array_equal(
        m, confusion_matrix(truth.ravel(), shifted.ravel(), labels=range(21))
    )
    assert m[joint.channel('L3'), joint.channel('L2')] == (truth == joint.channel('L3')).sum()
    body = [joint.channel(n) for n in joint.of_kind('vertebra', 'sacrum')]
    close(neighbour_share(m, joint), (shifted != truth).sum() / np.isin(truth, body).sum(), 1e-09)
    assert neighbour_share(level_confusion(truth, truth, joint), joint) == 0.0
    gap = truth.copy()
    gap[:50] = IGNORE
    assert level_confusion(shifted, gap, joint).sum() == truth[50:].size
    assert neighbour_share(m * 0, joint) is None


def test_bars():
    def row(run, protocol, v, d, mask='no'):
        return dict(
            run=run,
            protocol=protocol,
            reads_mask=mask,
            penalised_dsc=v,
            penalised_dsc_low=v and v - d,
            penalised_dsc_high=v and v + d,
        )

    rows = [
        row('reader', 'self', 0.71, 0.06),
        row('reader', 'generic', 0.69, 0.05),
        row('reader', 'oracle', 0.82, 0.04, 'this slice'),
        row('reader', 'shuffled', 0.41, 0.09, 'another patient'),
        row('plain', 'none', 0.66, 0.05),
    ]
    fig = protocol_bars(rows)
    ax = fig.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        'reader: self',
        'reader: generic',
        'reader: oracle',
        'reader: shuffled',
        'plain: none',
    ]
    close([p.get_width() for p in ax.patches], [r['penalised_dsc'] for r in rows], 1e-09)
    assert [bool(p.get_hatch()) for p in ax.patches] == [False, False, True, True, False]
    one = protocol_bars([row('r', 'self', None, 0)])
    assert [t.get_text() for t in one.axes[0].texts] == ['undefined']
    plt.close(one)


def test_dice_by_structure():
    by = {
        'reader: self': dict(L4=0.8, L3=0.7, S=0.9, SC=None),
        'plain: none': {'L4': 0.7, 'L3': 0.5, 'L3/L4': 0.6, 'S': 0.85},
    }
    fig = dice_by_structure(by, LUMBAR)
    ax = fig.axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ['L3', 'L3/L4', 'L4', 'S']
    assert np.isnan(ax.lines[0].get_ydata()).tolist() == [False, True, False, False]
    close(ax.lines[1].get_ydata(), [0.5, 0.6, 0.7, 0.85], 1e-09)
    with pytest.raises(InputError, match="'L9'"):
        dice_by_structure({'a': {'L9': 0.5}}, LUMBAR)


def test_points_of_structures():
    t = np.zeros((2, 9, 7), np.uint8)
    t[:, 1:4, 1:5] = joint.channel('L4')
    t[0, 5:7, 1:4] = joint.channel('L4/L5')
    p = t.copy()
    p[1, 1:4, 1:5] = 0
    p[0, 8, 0] = joint.channel('S')
    pts = {x['structure']: x for x in structure_points(p, t, (4.0, 2.0, 0.5), joint)}
    assert set(pts) == {'L4', 'L4/L5', 'S'}
    close(
        [
            pts['L4']['size'],
            pts['L4']['dice'],
            pts['L4/L5']['dice'],
            pts['S']['size'],
            pts['S']['dice'],
        ],
        [24 * 4 / 1000, 2 * 12 / 36, 1, 0, 0],
        1e-12,
    )


def test_dice_by_size():
    r_ = np.random.default_rng(0)

    def made(gain):
        return [
            dict(
                structure=n,
                size=s,
                dice=float(
                    np.clip(0.3 + 0.25 * np.log10(s * 10) + gain + r_.normal(0, 0.04), 0, 1)
                ),
                patient=str(k),
            )
            for k in range(8)
            for n, s in (
                ('L4', 25 * r_.uniform(0.8, 1.2)),
                ('L3', 20 * r_.uniform(0.8, 1.2)),
                ('L4/L5', 6 * r_.uniform(0.7, 1.3)),
                ('L3/L4', 4 * r_.uniform(0.7, 1.3)),
                ('SC', 12 * r_.uniform(0.7, 1.3)),
            )
        ]

    cloud = dict(plain=made(0), reader=made(0.1))
    fig = dice_by_size(cloud, LUMBAR)
    big = [line for line in fig.axes[0].lines if line.get_markersize() == 7]
    assert len(big) == 2 * 5

    def means(k):
        return [float(line.get_ydata()[0]) for line in big[5 * k : 5 * k + 5]]

    assert np.all(np.diff(means(0)) > 0) and np.all(
        np.subtract(means(1), means(0)) > 0
    )  # larger is better, and the reader in every bin
    sizes = np.sort([p['size'] for p in cloud['plain']])
    ((middle_, c),) = size_bins(cloud['plain'], [0] * 40)
    close(c['mean'], np.mean([p['dice'] for p in cloud['plain']]), 1e-12)
    close(np.log(middle_), np.log(sizes).mean(), 1e-09)
    with pytest.raises(InputError, match='no structure'):
        dice_by_size(dict(a=[dict(structure='L4', size=0, dice=0, patient='x')]), LUMBAR)


def test_calibration():
    r_ = np.random.default_rng(0)
    conf = np.array([[0.95, 0.95, 0.95, 0.95], [0.55, 0.55, 0.2, 1.0]])
    pr = np.array([[1, 1, 1, 2], [3, 3, 0, 0]])
    tr = np.array([[1, 1, 2, 2], [3, 1, 0, 4]])
    tab = reliability(conf, pr, tr)
    assert (tab.shape, tab[0].sum()) == (
        (3, 10),
        7.0,
    )  # the pixel that is background twice does not count, the missed one does
    close(tab[:, [5, 9]], [[2, 5], [1.1, 4 * 0.95 + 1], [1, 3]], 1e-12)
    close(calibration_error(tab), (abs(1.1 - 1) + abs(4.8 - 3)) / 7, 1e-12)
    assert calibration_error(tab * 0) is None
    u = r_.random(20000)
    honest = reliability(u, np.ones(20000, int), np.where(r_.random(20000) < u, 1, 2))
    confident = reliability(np.sqrt(u), np.ones(20000, int), np.where(r_.random(20000) < u, 1, 2))
    assert (
        calibration_error(honest) < 0.01
        and abs(calibration_error(confident) - (2 / 3 - 1 / 2)) < 0.01
    )  # E[sqrt(u)] - E[u]
    fig = show_calibration(dict(honest=honest, confident=confident))
    line = fig.axes[0].lines[2]
    assert np.all(line.get_ydata() < line.get_xdata())
    assert [t.get_text().split(':')[0] for t in fig.axes[0].get_legend().get_texts()] == [
        'honest',
        'confident',
    ]


def test_which_case():
    s = dict(a=0.9, b=0.5, c=0.7, d=0.2, e=0.8)
    assert pick_cases(s) == dict(c='median', d='worst')
    assert pick_cases(s, 1) == dict(c='median')
    assert pick_cases(s, 3) == {'c': 'median', 'b': 'rank 4 of 5', 'd': 'worst'}
    assert pick_cases({'x': 0.3}) == {'x': 'median'}
    assert len(pick_cases(s, 9)) == 3
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, :2] = 3
    labels[2, :3] = 5
    labels[3] = IGNORE
    assert fullest_slice(labels) == 2


class Shelf:  # a cache of labels only
    def __init__(self, n):
        self.n = n

    def labels(self, c):
        labels = np.zeros((self.n, 4, 4), np.uint8)
        labels[int(c)] = 1
        return labels


def test_which_slices():
    shelf = Shelf(9)
    want = [(c, k) for c, ks in (('4', (3, 4, 5)), ('0', (0, 1, 2)), ('8', (6, 7, 8))) for k in ks]
    assert spread_slices(shelf, ['4', '0', '8'], n=9) == want
    assert spread_slices(shelf, list('0123456'), n=3) == [('0', 0), ('3', 3), ('6', 6)]
    assert spread_slices(Shelf(2), ['1'], n=40) == [('1', 0), ('1', 1)]


# files


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "Three phantoms and their cache"
    root = tmp_path_factory.mktemp('figures')
    write_cohort(root / 'ph', patients=3, seed=5)
    prepare(open_cohort(root / 'ph', LUMBAR), root / 'cache', Grid(spacing=6.0))
    return root


@pytest.fixture
def cache(root):
    return Cache(root / 'cache')


@pytest.mark.slow
def test_all_figures(root, cache, monkeypatch):
    asked, whole = [], predicting.slice_probs

    def counted(model, x, *a):
        if model is net.model:
            asked.append(len(x))
        return whole(model, x, *a)

    monkeypatch.setattr(drawing, 'slice_probs', counted)
    monkeypatch.setattr(predicting, 'slice_probs', counted)
    d = draw_figures(
        cache,
        dict(reader=net, plain=mute),
        root / 'fig',
        ('generic',),
        split='all',
        slices=12,
        perplexity=20,
    )
    assert asked == [len(cache.labels(c)) for c in cache.cases()] + [1, 1]

    files = {p.name for p in (root / 'fig').iterdir()}
    assert set(d['files']) | {'figures.json'} == files

    def kinds(end):
        return sorted(f.split('-')[0] for f in files if f.endswith(end))

    assert kinds('.png') == kinds('.svg')
    assert (
        kinds('.png')
        == ['calibration']
        + ['confusion'] * 2
        + ['levels']
        + ['qualitative'] * 2
        + ['size']
        + ['tsne'] * 3
        + ['words'] * 2
    )
    assert max(p.stat().st_size for p in (root / 'fig').iterdir()) < 600000
    assert not any('words-plain' in f for f in files)
    assert not any('oracle' in f for f in files)
    assert list(d['tsne']) == ['reader: generic', 'plain: none']
    assert len({s['n'] for s in d['tsne'].values()}) == 1  # the same points
    assert sorted(v['rank'] for v in d['cases'].values()) == ['median', 'worst']
    assert d['notes'] == ["plain has no text: scored once, as 'none'"]
    assert {len(s['seeds']) for s in d['tsne'].values()} == {3}
    assert set(d['calibration_error']) == set(d['tsne'])


def test_confidence_of_a_case(cache):
    labels, prob = segment_case(mute, cache, cache.cases()[0], [])
    np.testing.assert_array_equal(labels, case_prediction(mute, cache, cache.cases()[0], []))
    assert (prob.min() > 1 / 22, prob.max() <= 1) == (True, True)
    some_case = cache.cases()[0]
    truth_ = np.asarray(cache.labels(some_case))
    want = volume_scores(labels, truth_, (1, 1, 1), cache.scheme)
    got_ = {
        p['structure']: p['dice']
        for p in structure_points(
            labels, np.where(truth_ == IGNORE, 0, truth_), (1, 1, 1), cache.scheme
        )
    }
    assert got_ == {
        n: v['dsc'] for n, v in want.items() if v['dsc'] is not None
    }  # oracle: module `metrics`


@pytest.mark.slow
def test_prompts_from_a_true_mask_are_named(root, cache):

    d = draw_figures(
        cache,
        dict(reader=net),
        root / 'from_masks',
        ('shuffled',),
        split='all',
        cases=1,
        slices=9,
        perplexity=15.0,
    )

    assert sorted({f.split('-')[0] for f in d['files']}) == [
        'calibration',
        'confusion',
        'levels',
        'qualitative',
        'size',
        'tsne',
        'words',
    ]
    assert [f for f in d['files'] if 'oracle' not in f] == []
    print(*d['files'][::2], sep='\n')
    assert [
        _file(f'r0: {n}', q)
        for n, q in (
            ('oracle', 'oracle'),
            ('self (oracle crop)', 'self'),
            ('self', 'self'),
            ('shuffled', 'shuffled'),
            ('oracle-levels', 'oracle-levels'),
        )
    ] == ['r0-oracle', 'r0-self-oracle-crop', 'r0-self', 'r0-shuffled-oracle', 'r0-oracle-levels']


def test_what_each_protocol_says(root, cache):
    case = cache.cases()[0]
    said = {
        q: case_words(net, cache, case, q, cache.cases()[1])
        for q in ('generic', 'oracle', 'oracle-levels', 'shuffled')
    }
    shape = cache.labels(case).shape
    assert {q: len(v) for q, v in said.items()} == dict.fromkeys(said, shape[0])
    k = fullest_slice(np.asarray(cache.labels(case)))
    assert set(said['oracle'][k].structures) == set(
        present_structures(np.asarray(cache.labels(case)[k]), cache.scheme)
    )
    assert said['generic'][k].structures == ()
    none = case_words(mute, cache, case, 'none')
    assert (case_prediction(mute, cache, case, none).shape, none) == (shape, [])
    imgs, labs = (
        np.asarray(cache.image(case), np.float32),
        convert(np.asarray(cache.labels(case)), cache.scheme, joint)[0],
    )
    full = said['oracle'][k].complete
    for q in ('generic', 'oracle', 'self'):
        labels, p = slice_under(net, imgs, k, q, labs, complete=full)
        np.testing.assert_array_equal(labels, net.grid_labels(imgs[k : k + 1], [p])[0])
        assert str(p) == str(case_words(net, cache, case, q)[k])
    labels, p = slice_under(mute, imgs, k, 'oracle', labs)
    assert (labels.shape, p) == (shape[1:], None)
    assert slice_under(net, imgs, k, 'oracle', labs, option=2)[1].option == 2
    assert str(slice_under(net, imgs, k, 'shuffled', other=said['oracle'])[1]) == str(
        said['oracle'][k]
    )


def test_what_cannot_be_drawn(root, cache):
    case = cache.cases()[0]
    k = fullest_slice(np.asarray(cache.labels(case)))
    imgs = np.asarray(cache.image(case), np.float32)
    with pytest.raises(InputError, match='needs a true mask'):
        slice_under(net, imgs, k, 'oracle')
    with pytest.raises(InputError, match='--cases'):
        draw_figures(cache, dict(m=mute), root / 'x', split='all', cases=0)
    with pytest.raises(InputError, match='Grid'):
        draw_figures(
            cache,
            dict(m=Predictor(mute.model, meta | dict(grid=dict(spacing=2.0, size=None)))),
            root / 'x',
            split='all',
        )


def test_the_command(root):
    save_weights(
        root / 'plain.safetensors',
        mute.model,
        meta
        | dict(
            network='atm_net', out_channels=21, feature_size=12, kwargs=dict(hasf=False, ccae=False)
        ),
    )

    atm_figures(
        str(root / 'cache'),
        str(root / 'plain.safetensors'),
        split='all',
        cases=1,
        slices=9,
        perplexity=15.0,
        out=str(root / 'one'),
    )

    assert len(list((root / 'one').glob('*.png'))) == 7
    with pytest.raises(InputError, match="did you mean 'oracle'"):
        atm_figures(str(root / 'cache'), str(root / 'plain.safetensors'), protocols='oracel')
