"Study: the runs of a grid, the arithmetic of tables, files, commands; nothing is trained"

import io
import itertools
import shlex
from contextlib import redirect_stdout
from dataclasses import replace
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import close

import atm_net.train as training
from atm_net.anatomy import LUMBAR
from atm_net.batches import step_samples
from atm_net.cli import run_command
from atm_net.config import PRESETS, learning_rate
from atm_net.core import InputError, read_json, write_json
from atm_net.metrics import METRICS, POLICIES, bootstrap_ci, by_patient, paired_test
from atm_net.show import read_rows
from atm_net.study import study_protocols
from atm_net.study_grid import (
    STUDIES,
    TITLES,
    Row,
    _off,
    essential,
    grid,
    plain_stage,
    reads_words,
    run_name,
    shared_stages,
    steps_to_do,
    study_command,
    study_config,
    study_names,
    study_plan,
    train_command,
)
from atm_net.study_runs import check_out
from atm_net.study_scores import (
    BY_CONSTRUCTION,
    STUDY_HEADER,
    Scores,
    cell_text,
    compare,
    difference_text,
    headlines,
    long_rows,
    p_text,
    seed_means,
    study_figure,
    study_rows,
    study_table,
)
from atm_net.study_tables import (
    CLAIMS,
    claims_table,
    form_files,
    label_rows,
    study_claims,
    study_tables,
    verdict,
    write_forms,
)
from atm_net.train import atm_train
from atm_net.weights import NETWORKS

row4, row5 = ({r.name: r for r in STUDIES[s]} for s in ('table4', 'table5'))


def test_rows_of_the_studies():
    assert [r.changes['network'] for r in STUDIES['table2']] == list(NETWORKS)
    assert set(TITLES) == set(STUDIES)
    assert [len(STUDIES[s]) for s in ('table2', 'table4', 'table5', 'protocols', 'readings')] == [
        9,
        4,
        4,
        1,
        12,
    ]
    assert {
        (r.changes.get('hasf', True), r.changes.get('ccae', True)) for r in STUDIES['table4']
    } == {(False, False), (False, True), (True, False), (True, True)}
    assert [r.changes.get('option') for r in STUDIES['table5']] == [None, 1, 2, 3]
    assert {r.changes['ccae'] for r in STUDIES['table5']} == {False}
    assert study_names(' table5,table4 ,table5') == ['table5', 'table4']
    assert study_names(['table2']) == ['table2']
    assert study_names('table3,table2') == ['table2']
    with pytest.raises(InputError, match="did you mean 'table4'"):
        study_names('tabel4')
    with pytest.raises(InputError, match='name a study'):
        study_names(',')


def test_settings_that_do_not_act():
    assert study_config(row4['HASF']) == study_config(row5['Option 3'])
    assert study_config(row4['neither']) == study_config(STUDIES['table2'][1])
    assert study_config(row5['no text'], option=1) == study_config(row4['neither'])
    assert study_config(row4['CCAE'], option=1) == study_config(row4['CCAE'])
    assert study_config(row4['HASF'], option=1) != study_config(
        row4['HASF']
    )  # without HASF the option is idle
    assert study_config(row4['HASF'], tau=0.5) == study_config(row4['HASF'])
    assert study_config(row4['CCAE'], tau=0.5) != study_config(row4['CCAE'])
    assert study_config(row4['neither'], decoder='plain') != study_config(
        STUDIES['table2'][1], decoder='plain'
    )  # Eq. 3 to the letter is not MONAI's decoder
    assert study_config(row4['neither'], lr=0.01) != study_config(row4['neither'])
    assert (
        study_config(row4['HASF'], steps=50).warmup,
        study_config(row4['HASF'], steps=50).option,
    ) == (5, 3)
    with pytest.raises(InputError, match='tiny'):
        study_config(row4['HASF'], 'huge')
    with pytest.raises(InputError, match='positive'):
        study_config(row4['HASF'], steps=0)
    with pytest.raises(TypeError, match='hasv'):
        study_config(Row('x', dict(hasv=1)))


def sizes(*a, **k):
    return len(grid(*a, **k))


def own(preset):
    "The interpretations that a preset is made of"
    return [x for r in grid('readings', preset) if len(r.rows) > 1 for _, x in r.rows]


def test_sizes_of_grids():
    assert [sizes(s) for s in STUDIES] == [9, 4, 4, 1, 8]
    assert [sizes(s, seeds=3) for s in STUDIES] == [27, 12, 12, 3, 24]
    assert sizes('readings', 'paper') == 8
    assert sizes('table4,table5') == 6  # 4 + 4, two shared: no text, and HASF alone
    # 9 + 4 + 4 + 1 = 18 rows; Swin UNETR serves 3, ATM-Net 3, HASF alone 2: 18 - 2 - 2 - 1;
    # 7 interpretations that are not the preset's
    assert sizes(list(STUDIES)) == 20
    assert len({r.name for r in grid(list(STUDIES), seeds=4)}) == 80
    with pytest.raises(InputError, match='at least one'):
        grid('table4', seeds=0)


def test_shared_runs():
    shared = [r.rows for r in grid(list(STUDIES)) if len(r.rows) > 1]
    common = ['residual decoder', 'projected contrast', 'softmax focal']
    assert own('tiny') == [*common, 'words in order', 'pooled attention']
    assert own('paper') == [*common, 'mixed keys, 2d', 'exact attention']
    whole = (('table2', 'ATM-Net'), ('table4', 'HASF and CCAE'), ('protocols', 'ATM-Net'))
    assert shared == [
        (*whole, *(('readings', x) for x in own('tiny'))),
        (('table2', 'Swin UNETR'), ('table4', 'neither'), ('table5', 'no text')),
        (('table4', 'HASF'), ('table5', 'Option 3')),
    ]


def test_names_of_runs():
    g = grid('table5', steps=70)
    assert [r.name.rsplit('-', 1)[0] for r in g] == [
        'swin_unetr-seed0',
        'atm_net-no-ccae-option1-seed0',
        'atm_net-no-ccae-option2-seed0',
        'atm_net-no-ccae-seed0',
    ]
    assert {r.name for r in g} & {r.name for r in grid('table5', steps=71)} == set()
    assert [r.name for r in g] == [r.name for r in grid('table5', steps=70)]
    assert run_name(replace(PRESETS['tiny'], **_off)) == run_name(
        replace(PRESETS['tiny'], network='swin_unetr')
    )
    names = [r.name.rsplit('-', 2)[0] for r in grid('readings')]
    assert names == [
        'atm_net',
        'atm_net-plain-decoder',
        'atm_net-grid-contrast',
        'atm_net-sigmoid-focal',
        'atm_net-2d-code',
        'atm_net-mixed-tokens-2d-code',
        'atm_net-mixed-tokens-1d-code',
        'atm_net-exact-attention',
    ]


def test_shared_plain_stages():
    runs = grid('table4,table5', seeds=2, steps=100, plain=0.4)
    s = shared_stages(runs)
    assert (len(runs), len(s), len({run_name(p) for p in s.values()})) == (
        12,
        12,
        2,
    )  # one stage for each seed
    p = s[runs[0].name]
    assert (p.network, p.steps, p.plain, p.seed, p.lr, p.warmup) == (
        'swin_unetr',
        40,
        0.0,
        runs[0].config.seed,
        runs[0].config.lr,
        runs[0].config.warmup,
    )
    full = next(r.config for r in runs if r.config.network == 'atm_net' and r.config.seed == p.seed)
    assert [(learning_rate(full, i), step_samples(full, 30, i)) for i in range(40)] == [
        (learning_rate(p, i), step_samples(p, 30, i)) for i in range(40)
    ]
    assert steps_to_do(runs) == (2 * (40 + 6 * 60), 12 * 100)
    assert steps_to_do(grid('protocols', steps=100, plain=0.4)) == (
        100,
        100,
    )  # a single run has nobody to share with
    t2 = grid('table2', steps=100, plain=0.4)
    assert sorted(r.config.network for r in t2 if r.name in shared_stages(t2)) == [
        'atm_net',
        'swin_unetr',
    ]  # the others are never plain
    assert [plain_stage(replace(full, **k)) for k in (dict(plain=0.0), dict(network='unet'))] == [
        None,
        None,
    ]
    assert (
        plain_stage(replace(full, decoder='plain')).network == 'atm_net'
    )  # Eq. 3's decoder has a plain stage of its own


# from scores to cells


def made(values, **summary):
    "Scores from {volume: (patient, dsc of L4, dsc of SC)}"

    def rec(v):
        return dict.fromkeys((*METRICS, 'hd95_px_found', 'asd_px_found')) | dict(
            dsc=v, status='absent' if v is None else 'missed' if v == 0 else 'found'
        )

    return Scores(
        {i: dict(L4=rec(a), SC=rec(b)) for i, (_, a, b) in values.items()},
        {i: v[0] for i, v in values.items()},
        summary,
    )


s0 = made(dict(a1=('A', 0.8, 0.6), a2=('A', 0.6, 0.8), b=('B', 0.7, None), c=('C', 0.3, 0.1)))
s1 = made(dict(a1=('A', 0.9, 0.7), a2=('A', 0.7, 0.9), b=('B', 0.8, None), c=('C', 0.4, 0.2)))
base = made(dict(a1=('A', 0.6, 0.5), a2=('A', 0.4, 0.7), b=('B', 0.5, None), c=('C', 0.3, 0.0)))
same = {0: s0, 1: s1}


def test_by_hand():
    col = compare(dict(base={0: base}, ours={0: s0, 1: s1}, lost={}))
    close(
        [col['ours']['mean'], *col['ours']['values'], col['base']['mean']],
        [0.6, 0.55, 0.65, 0.425],
        1e-12,
    )
    close(col['ours']['sd'], 0.1 / np.sqrt(2), 1e-12)  # two values .1 apart
    close(col['ours']['difference']['mean'], 0.55 - 0.425, 1e-12)
    assert col['ours']['difference']['seeds'] == [0]  # seed 1 has no partner
    assert (
        col['base']['sd'],
        col['base']['difference'],
        col['lost']['mean'],
        col['lost']['values'],
        col['lost']['difference'],
    ) == (None, None, None, [], None)


def test_missing_seeds():
    d = compare(dict(base={1: s1}, ours=same))['ours']
    close(d['mean'] - compare(dict(base={1: s1}))['base']['mean'], -0.05, 1e-12)
    assert d['difference'] == dict(mean=0.0, low=0.0, high=0.0, seeds=[1], p=1.0, with_seeds=None)
    assert compare(dict(base={1: s1}, ours={0: s0}))['ours']['difference'] is None
    assert compare(dict(base={}, ours=same))['ours']['difference'] is None
    assert (
        compare(dict(base=same, ours={1: s1, 0: s0}))['ours']['difference']['mean'] == 0.0
    )  # by seed, not by place


def table(s):
    return by_patient(s.volumes, s.patients)


def test_one_seed_is_bootstrap_and_paired_test():
    one = compare(dict(base={0: base}, ours={0: s0}))
    ci = bootstrap_ci(table(s0))
    close(
        [one['ours'][k] for k in ('mean', 'low', 'high')],
        [ci[k] for k in ('mean', 'low', 'high')],
        1e-12,
    )
    pt = paired_test(table(s0), table(base))
    close(
        [one['ours']['difference'][k] for k in ('mean', 'low', 'high')],
        [pt[k] for k in ('difference', 'low', 'high')],
        1e-12,
    )
    close(one['ours']['difference']['p'], pt['p'], 1e-12)  # and Wilcoxon's p
    twice = compare(dict(base={0: base}, ours={0: s0, 1: s0}))
    close(
        [twice['ours'][k] for k in ('mean', 'low', 'high', 'sd')],
        [one['ours'][k] for k in ('mean', 'low', 'high')] + [0.0],
        1e-12,
    )


def by_hand(draw, seeds=(s0, s1)):
    "The mean over seeds for a tuple of drawn patients, with loops"

    def scores(s, n, draw):
        values = [v[n]['dsc'] for p in draw for i, v in s.volumes.items() if s.patients[i] == p]
        return [v for v in values if v is not None]

    def headline(s):
        return np.mean([np.mean(scores(s, n, draw) or scores(s, n, 'ABC')) for n in ('L4', 'SC')])

    return np.mean([headline(s) for s in seeds])


def test_all_27_draws_of_three_patients():
    draws = list(itertools.product('ABC', repeat=3))
    every = [by_hand(d) for d in draws]
    col = compare(dict(base={0: base}, ours=same))['ours']
    span = np.quantile(every, (0.025, 0.975), method='inverted_cdf')
    close([col['low'], col['high']], span, 1e-6)
    close(by_hand('ABC'), 0.6, 1e-12)  # C, C, C and A, A, A are the extremes
    weights = np.array([[d.count(p) for p in 'ABC'] for d in draws], float)
    close(headlines([table(s0), table(s1)], weights).mean(1), every, 1e-12)


# seeds drawn as well as patients


def test_all_draws_of_three_patients_and_two_seeds():
    "27 x 4 draws by loops: the mean over the drawn seeds, and where its quantiles lie"
    first = {0: base, 1: plus(base, -0.02)}
    drawn = list(itertools.product(itertools.product('ABC', repeat=3), (0, 1), (0, 1)))
    every = [
        np.mean([by_hand(d, [same[s]]) - by_hand(d, [first[s]]) for s in seeds])
        for d, *seeds in drawn
    ]
    patients = np.array([[d.count(p) for p in 'ABC'] for d, *_ in drawn])
    counts = np.array([[seeds.count(s) for s in (0, 1)] for _, *seeds in drawn])
    ours, theirs = (headlines([table(x[s]) for s in (0, 1)], patients) for x in (same, first))
    close(seed_means(ours - theirs, counts), every, 1e-12)
    found = compare(dict(first=first, ours=same))['ours']['difference']['with_seeds']
    low, high = (
        np.quantile(every, q, method='inverted_cdf') for q in ((0.01, 0.045), (0.955, 0.99))
    )
    assert low[0] <= found['low'] <= low[1]
    assert high[0] <= found['high'] <= high[1]


def test_seeds_that_disagree_decide():
    """One seed is .3 better in each patient, the other .1 worse: .1 for certain where patients
    alone are drawn, -.1 in a quarter of the draws of two seeds"""
    d = compare(
        dict(first={0: plus(s0, -0.05), 1: s1}, ours={0: plus(s0, 0.25), 1: plus(s1, -0.1)})
    )
    d = d['ours']['difference']
    close([d['low'], d['high']], [0.1, 0.1], 1e-9)
    close([d['with_seeds']['low'], d['with_seeds']['high']], [-0.1, 0.3], 1e-9)
    assert (verdict(d | dict(with_seeds=None)), verdict(d)) == ('seen', 'not seen')


def test_seeds_that_agree_are_seen():
    d = compare(dict(first=same, ours={0: plus(s0, -0.02), 1: plus(s1, -0.04)}))['ours'][
        'difference'
    ]
    close([d['with_seeds']['low'], d['with_seeds']['high']], [-0.04, -0.02], 1e-9)
    assert verdict(d) == 'the contrary is seen'


def test_one_patient_and_other_patients():
    two = {s: made(dict(a=('A', 0.5, 0.7))) for s in (0, 1)}
    assert compare(dict(x=two, y=two))['y']['difference']['with_seeds'] is None
    alone = made(dict(a=('A', 0.5, 0.7)))
    assert compare(dict(x={0: alone}, y={0: alone}))['y']['difference']['p'] is None
    assert compare(dict(x={0: alone}))['x']['low'] is None
    close(compare(dict(x={0: alone}))['x']['mean'], 0.6, 1e-12)
    with pytest.raises(InputError, match="'y' is scored on other patients"):
        compare(dict(x={0: s0}, y={0: alone}))


# tables


@pytest.fixture
def rows():
    "A row with one seed of two, one with both, one that was lost"
    for s, rate in ((s0, 0.25), (s1, 0.75)):
        s.summary.update(parameters=2_500_000, level_shift=dict(rate=rate))
    methods = dict(base={0: base}, ours=same, lost={})
    return study_rows(methods, dict(base='none', ours='self', lost='self'), 2)


def test_rows_of_a_table(rows):
    ours = rows[1]
    assert (
        ours['runs'],
        ours['volumes'],
        ours['patients'],
        ours['parameters'],
        ours['shift_rate'],
        ours['present'],
        ours['missed'],
    ) == (2, 4, 3, 2500000.0, 0.5, 7, 0)
    assert (rows[2]['runs'], rows[2]['missed']) == (0, None)
    t = study_table(rows)
    assert {len(r) for r in t} == {len(STUDY_HEADER)}

    def at(i, c):
        return t[i][STUDY_HEADER.index(c)]

    assert cell_text(dict(mean=0.5, sd=0.01, low=0.4, high=0.6)) == '0.500 ± 0.010 [0.400, 0.600]'
    assert (cell_text(dict(mean=-0.5, low=None, high=None), True), cell_text(None)) == (
        '-0.500',
        '–',
    )
    assert at(1, 'DSC').startswith('0.600 ± 0.071 [')
    assert at(1, 'DSC minus first row').startswith('+0.125 [') and at(
        1, 'DSC minus first row'
    ).endswith('], 1 of 2 seeds')
    assert difference_text(dict(mean=0.1, low=None, high=None, seeds=[0, 1]), 2) == '+0.100'
    assert difference_text(None, 2) == '–'
    assert [p_text(p) for p in (None, 0.0004, 0.25, 1.0)] == ['–', '<0.001', '0.250', '1.000']
    assert (at(0, 'p'), at(1, 'p')) == (
        '–',
        p_text(ours['scores']['penalised']['dsc']['difference']['p']),
    )
    assert [at(0, c) for c in ('words', 'runs', 'DSC minus first row', 'shifted')] == [
        'none',
        '1 of 2',
        '–',
        '–',
    ]
    assert [at(1, c) for c in ('runs', 'parameters, M', 'missed', 'shifted')] == [
        2,
        '2.50',
        '0 of 7',
        '50%',
    ]
    assert (at(2, 'runs'), at(2, 'DSC')) == ('0 of 2', '–')
    long = long_rows(dict(demo=dict(self=rows)))
    assert len(long) == 3 * len(POLICIES) * len(METRICS)
    row = long[len(POLICIES) * len(METRICS)]
    assert [row[k] for k in ('seeds', 'values', 'difference_seeds')] == ['0 1', '0.55 0.65', 1]
    close(row['difference'], 0.125, 1e-12)


def test_figure(rows):
    fig = study_figure(dict(self=rows))
    ax = fig.axes[0]
    assert [x.get_text() for x in ax.get_yticklabels()] == ['base (none)', 'ours', 'lost']
    assert ax.get_xlabel() == 'DSC, penalised'
    close(
        sorted(
            float(x)
            for line in ax.lines
            if line.get_marker() == 'D'
            for x in np.atleast_1d(line.get_xdata())
        ),
        [0.425, 0.6],
        1e-12,
    )
    many = study_figure({f'table {i}': rows for i in range(7)})
    assert [a.get_visible() for a in many.axes] == [True] * 7 + [False] * 3
    assert len({a.get_xlim() for a in many.axes[:7]}) == 1
    assert len({round(a.get_position().y0, 3) for a in many.axes}) == 2
    plt.close(many)
    plt.close(fig)


def test_protocols_of_a_study():
    assert [reads_words(r) for r in STUDIES['table4']] == [False, False, True, True]
    assert [r.name for r in STUDIES['table2'] if reads_words(r)] == ['ATM-Net']
    assert study_protocols(['table4']) == ['self', 'generic', 'oracle']
    assert study_protocols(['table4', 'protocols']) == [
        'self',
        'generic',
        'oracle',
        'oracle-levels',
        'shuffled',
    ]
    assert study_protocols(['table2'], 'none,oracle') == ['oracle']
    with pytest.raises(InputError, match='by themselves'):
        study_protocols(['table4'], 'none')
    with pytest.raises(InputError, match="did you mean 'oracle'"):
        study_protocols(['table4'], 'oracel')


def test_a_folder_of_another_study(tmp_path):
    root, cache = tmp_path, None
    write_json(root / 'other' / 'study.json', dict(studies=['table2']))
    with pytest.raises(InputError, match='table2,table4'):
        check_out(root / 'other', ['table4'], [], cache)
    check_out(root / 'other', ['table4', 'table2'], [], cache)


both = grid('table4,table5', text_decoder=True)


def plus(s, d):
    "The same scores, higher by d"
    values = {
        i: (s.patients[i], v['L4']['dsc'] + d, v['SC']['dsc'] and v['SC']['dsc'] + d)
        for i, v in s.volumes.items()
    }
    return made(values)


def made_up():
    "Results of both studies: text-free rows have one score, the others one for each protocol"
    out = {}
    for i, r in enumerate(both):
        if r.config.network == 'atm_net' and r.config.hasf:
            out[r.name] = dict(self=plus(s0, 0.01 * i), oracle=plus(s0, 0.01 * i + 0.1))
        else:
            out[r.name] = dict(none=base)
    return out


def test_tables_of_two_studies():
    fake = made_up()
    tt = study_tables(['table4', 'table5'], both, fake, ['self', 'oracle'], 1)

    def mean(s, q, m):
        return next(r['scores']['penalised']['dsc']['mean'] for r in tt[s][q] if r['method'] == m)

    assert {s: list(v) for s, v in tt.items()} == dict(
        table4=['self', 'oracle'], table5=['self', 'oracle']
    )
    close([mean('table4', q, 'neither') for q in ('self', 'oracle')], [0.425, 0.425], 1e-12)
    i = [r.rows[0] for r in both].index(('table4', 'HASF'))
    close(
        [mean('table4', 'self', 'HASF'), mean('table4', 'oracle', 'HASF')],
        [0.55 + 0.01 * i, 0.65 + 0.01 * i],
        1e-12,
    )
    for q in ('self', 'oracle'):
        assert mean('table4', q, 'HASF') == mean('table5', q, 'Option 3')
        assert mean('table4', q, 'neither') == mean('table5', q, 'no text')
    del fake[both[-1].name]
    tt = study_tables(['table5'], both, fake, ['self'], 1)
    assert [r['runs'] for r in tt['table5']['self']] == [
        1,
        1,
        0,
        1,
    ]  # a lost run leaves its row empty


def test_a_lost_seed():
    two = grid('table4', seeds=2)
    equal = {r.name: dict(self=(s0, s1)[r.config.seed], none=(s0, s1)[r.config.seed]) for r in two}
    gone = next(r.name for r in two if r.rows == (('table4', 'neither'),) and r.config.seed == 0)
    del equal[gone]
    rows4 = study_tables(['table4'], two, equal, ['self'], 2)['table4']['self']
    assert [r['runs'] for r in rows4] == [1, 2, 2, 2]
    assert [r['scores']['penalised']['dsc']['difference'] for r in rows4] == [None] + [
        dict(mean=0.0, low=0.0, high=0.0, seeds=[1], p=1.0, with_seeds=None)
    ] * 3
    assert [r[STUDY_HEADER.index('DSC minus first row')] for r in study_table(rows4)] == ['–'] + [
        '+0.000 [+0.000, +0.000], 1 of 2 seeds'
    ] * 3


def rows_of(s):
    return {r.name for r in STUDIES[s]}


def test_claims():
    assert all({a, b} <= rows_of(s) for s, cs in CLAIMS.items() for _, a, b in cs)
    assert [
        verdict(x)
        for x in (
            None,
            dict(mean=None, low=None, high=None),
            dict(mean=0.1, low=None, high=None),
            dict(mean=0.1, low=0.02, high=0.2),
            dict(mean=0.1, low=-0.02, high=0.2),
            dict(mean=0.1, low=0.0, high=0.2),
            dict(mean=-0.1, low=-0.2, high=-0.01),
        )
    ] == ['not tested'] * 3 + ['seen', 'not seen', 'not seen', 'the contrary is seen']
    c = study_claims(
        ['table5', 'protocols'],
        both,
        {
            r.name: dict(none=base)
            if not r.config.hasf or r.config.network != 'atm_net'
            else dict(
                self=plus(s0, 0.01 if r.config.option == 1 else 0),
                oracle=plus(s0, 0.1 * r.config.option),
            )
            for r in both
        },
        ['self', 'shuffled', 'oracle'],
        1,
    )
    assert (list(c), list(c['table5'])) == (['table5'], ['self', 'oracle'])
    assert [r['verdict'] for r in c['table5']['oracle']] == ['seen'] * 4
    assert [r['verdict'] for r in c['table5']['self']][1:] == [
        'the contrary is seen',
        'not seen',
        'the contrary is seen',
    ]  # Option 1 is better by .01 for each patient; 2 and 3 are equal
    close([r['difference']['mean'] for r in c['table5']['oracle']][1:], [0.1, 0.1, 0.2], 1e-12)
    close(c['table5']['oracle'][1]['values'], [0.1], 1e-12)
    t, h = claims_table(c['table5']['self'], 2)
    assert {len(r) for r in t} == {len(h)}
    assert t[2][1:] == ['+0.000 [+0.000, +0.000], 1 of 2 seeds', '+0.000', '1.000', 'not seen']


def test_claims_show_the_interval_that_draws_seeds():
    d = dict(mean=0.1, low=0.1, high=0.1, p=0.5, seeds=[0, 1], with_seeds=dict(low=-0.1, high=0.3))
    c = dict(claim='it helps', difference=d, values=[0.3, -0.1], verdict=verdict(d))
    (line,), header = claims_table([c], 2)
    assert dict(zip(header, line)) == {
        'claim': 'it helps',
        'DSC, difference': '+0.100 [+0.100, +0.100]',
        'by seed': '+0.300, -0.100',
        'seeds drawn, too': '[-0.100, +0.300]',
        'p': '0.500',
        'here': 'not seen',
    }


# what no test can tell apart


def labelled(runs, protocols=('self', 'generic', 'oracle')) -> dict:  # (study, protocol) -> claims
    "The claims that are true by construction"
    names = {s for r in runs for s, _ in r.rows}
    nothing = {r.name: {} for r in runs}
    claims = study_claims(sorted(names), runs, nothing, protocols, 1)
    label_rows({}, claims, runs)
    return {
        (s, q): [c['claim'] for c in cs if c['verdict'] == BY_CONSTRUCTION]
        for s, by_protocol in claims.items()
        for q, cs in by_protocol.items()
    }


def test_true_by_construction():
    """Words with a decoder of their own: without a structure in the prompt it is the plain network.
    So HASF is off under `generic`, and Option 1 always; CCAE alone acts on the plain network"""
    found = labelled(both)
    every = [claim for claim, *_ in CLAIMS['table5']]
    assert found == {
        ('table4', 'self'): [],
        ('table4', 'oracle'): [],
        ('table4', 'generic'): ['HASF helps', 'both help more than HASF alone', 'both help'],
        ('table5', 'self'): ['any prompt helps'],
        ('table5', 'oracle'): ['any prompt helps'],
        ('table5', 'generic'): every,
    }


def test_atm_net_is_swin_unetr_where_nothing_is_named():
    found = labelled(grid('table2', text_decoder=True), ['generic', 'oracle'])
    assert found['table2', 'generic'] == ['ATM-Net is better than Swin UNETR']
    assert found['table2', 'oracle'] == []


@pytest.mark.parametrize('preset', ['paper', 'tiny'])
def test_one_decoder_can_be_tested(preset):
    assert not any(labelled(grid('table4,table5', preset)).values())


def test_a_plain_stage_changes_no_label():
    assert labelled(grid('table4,table5', plain=0.3, text_decoder=True)) == labelled(both)


def test_rows_of_tables_are_labelled():
    tables = study_tables(['table4'], both, made_up(), ['self', 'oracle'], 1)
    tables['table4']['generic'] = study_tables(['table4'], both, made_up(), ['self'], 1)['table4'][
        'self'
    ]
    label_rows(tables, {}, both)
    marks = {q: [r['by_construction'] for r in rows] for q, rows in tables['table4'].items()}
    assert marks['self'] == marks['oracle'] == [False] * 4
    assert marks['generic'] == [False, False, True, True]
    line = dict(zip(STUDY_HEADER, study_table(tables['table4']['generic'])[2]))
    assert line['DSC minus first row'].endswith('], by construction')
    assert line['p'] == '–'
    csv = long_rows(tables)
    assert {r['method'] for r in csv if r['by_construction']} == {'HASF', 'HASF and CCAE'}


def test_forms(tmp_path):
    root, fake = tmp_path, made_up()
    tt = study_tables(
        ['table4', 'table5'],
        both,
        fake | {both[-1].name: dict(self=s0, oracle=s0)},
        ['self', 'oracle'],
        1,
    )

    def forms(paper=None):
        return form_files(
            both,
            fake | {both[-1].name: dict(self=s0, oracle=s0)},
            tt,
            1,
            LUMBAR,
            paper,
        )

    mean = by_method(tt)
    f = forms()
    assert sorted(f) == sorted(
        f'{t}{k}-{q}'
        for t in ('table4', 'table5')
        for k in ('', '-structures')
        for q in ('self', 'oracle')
    )
    (c, r, h), (c2, *_) = f['table4-oracle']
    assert (h[:3], [x[:2] for x in r]) == (
        ['HASF', 'CCAE', 'DSC, %'],
        [['', ''], ['', '✓'], ['✓', ''], ['✓', '✓']],
    )
    assert ('this slice' in c, c.endswith('penalised'), c2.endswith('paper')) == (True, True, True)
    assert r[0][2].split(' ')[0] == f'{100 * mean("table4", "oracle", "neither"):.2f}'
    c, r, h = f['table4-structures-oracle'][0]
    assert (h, [x[0] for x in r]) == (
        ['structure', 'neither', 'CCAE', 'HASF', 'HASF and CCAE'],
        ['L4', 'SC', 'mean'],
    )
    assert r[2][1] == '42.50'  # (.45 + .4)/2
    with_paper = forms('spider')
    spots = [k for k, ts in with_paper.items() for c, r, h in ts if any("paper's" in x for x in h)]
    assert sorted(spots) == [
        'table4-oracle',
        'table5-oracle',
    ]  # policy `paper`, protocol `oracle`, nowhere else
    assert [x[6:] for x in with_paper['table4-oracle'][1][1]][-1] == [
        '79.39',
        '70.56',
        '9.91',
        '2.77',
    ]
    assert str(f).count("paper's") == 0
    write_forms(f, root / 'forms')
    assert len(list((root / 'forms').iterdir())) == 8 * 4
    assert {len(r) for r in read_json(root / 'forms' / 'table5-self.json')} == {6}
    assert r'$\surd$' in (root / 'forms' / 'table4-self.tex').read_text(
        encoding='utf-8'
    ) and '| ✓ |' in (root / 'forms' / 'table4-self.md').read_text(encoding='utf-8')
    assert [x['method'] for x in read_rows(root / 'forms' / 'table5-self.csv')][:4] == [
        'no text',
        'Option 1',
        'Option 2',
        'Option 3',
    ]


def by_method(tables):
    "(study, protocol, method) -> mean Dice"

    def mean(s, q, m):
        rows = tables[s][q]
        return next(r['scores']['penalised']['dsc']['mean'] for r in rows if r['method'] == m)

    return mean


# commands


def read_back(line):
    "The configuration that `atm_train` makes of a command"
    got = []
    stand_ins = dict(train=lambda cache, run, cfg, *a, **k: got.append(cfg), Cache=str)
    with mock.patch.multiple(training, **stand_ins), redirect_stdout(io.StringIO()):
        run_command(atm_train.__wrapped__, shlex.split(line)[1:])
    return got[0]


def test_the_line_that_trains_a_run_by_hand():
    for r in grid(
        'table2,table4,table5', seeds=2, steps=70, tokens='mixed', batch=4, windows=(64, 96)
    ):
        assert (
            essential(read_back(train_command(r.config, 'a cache', 'runs/x'))) == r.config
        )  # the line makes the same run


def test_the_line_that_repeats_a_study():
    assert (
        train_command(study_config(row4['HASF'], plain=0.5), 'c', 'r') is None
    )  # no switch for it
    assert (
        study_command(
            ['table4', 'table5'],
            'my cache',
            'out',
            steps=30,
            seeds=3,
            windows=(96, 128),
            encoder=None,
        )
        == "atm_study table4,table5 'my cache' out --steps 30 --seeds 3 --windows 96,128"
    )


def test_plan(tmp_path):
    root = tmp_path
    text = study_plan(
        grid('table4,table5', seeds=3, steps=100, plain=0.4), 'cache', root / 'nothing', seconds=2
    )
    assert (
        '18 runs, 1200 steps; without sharing 1800.' in text
        and '40 min' in text
        and text.count('shared plain stage') == 3
        and text.count('to do') == 21
    )
