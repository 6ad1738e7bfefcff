"benchmarks/lists_act.py: recipes that can be trained, and figures over seeds and patients by hand"

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

from atm_net.core import InputError

sys.path.insert(0, str(ROOT / 'benchmarks'))
import lists_act as la
from words_followed import Found

NAMES = 19  # structures at stake in scheme joint: 9 vertebrae and 10 discs


def found(patient, sacrum, **dice):
    "A volume whose structures all have one Dice under a prompt"
    return Found(patient, sacrum, {k: np.full(NAMES, v) for k, v in dice.items()})


SEEDS = [
    [found('a', True, generic=0.2, oracle=0.4), found('b', True, generic=0.4, oracle=0.8)],
    [found('a', True, generic=0.6, oracle=0.6), found('b', True, generic=0.8, oracle=0.6)],
]


def test_means_over_seeds_and_patients():
    figure = la.drawn_figure(SEEDS, ('generic',), la.itself)
    assert figure['seeds'] == pytest.approx([0.3, 0.7])
    assert (figure['mean'], figure['n']) == (pytest.approx(0.5), 2)


def test_interval_draws_seeds_as_well_as_patients():
    figure = la.drawn_figure(SEEDS, ('generic',), la.itself)
    # the worst draw is seed 0 twice with patient a twice, the best seed 1 with patient b
    assert (figure['low'], figure['high']) == pytest.approx((0.2, 0.8))
    one = la.drawn_figure(SEEDS[:1], ('generic',), la.itself)
    assert (one['low'], one['high']) == pytest.approx((0.2, 0.4))


def test_costs_are_paired():
    figure = la.drawn_figure(SEEDS, ('oracle', 'generic'), la.cost)
    assert figure['seeds'] == pytest.approx([0.3, -0.1])


def test_a_list_that_no_volume_has():
    figure = la.drawn_figure(SEEDS, ('follow',), la.itself)
    assert (figure['mean'], figure['n'], figure['seeds']) == (None, 0, [])


def test_a_gap_that_is_none_in_a_seed():
    "Overlap is no better than no list with seed 1: the share of the gap is that of seed 0"
    by_seed = [
        [found('a', True, generic=0.2, oracle=0.4, overlap=0.6)],
        [found('a', True, generic=0.5, oracle=0.5, overlap=0.5)],
    ]
    keys = ('oracle', 'generic', 'overlap')
    figure = la.drawn_figure(by_seed, keys, la.gap_share)
    assert (figure['mean'], figure['seeds']) == (pytest.approx(0.5), pytest.approx([0.5]))
    none = la.drawn_figure(by_seed[1:], keys, la.gap_share)
    assert (none['mean'], none['seeds']) == (None, [])


def test_halves_of_the_volumes():
    by_seed = {'0': [la.as_json(f) for f in (*SEEDS[0], found('c', False, generic=1.0))]}
    result = json.loads(json.dumps({'HASF': by_seed}))
    figures = la.figures(result)['HASF']
    assert figures['in_view']['generic']['mean'] == pytest.approx(30)
    assert figures['out_of_view']['generic']['mean'] == pytest.approx(100)
    assert figures['out_of_view']['oracle']['mean'] is None


def test_structures_that_are_nowhere_survive_the_file():
    row = np.array([0.12345, np.nan, 1.0])
    back = la.from_json(json.loads(json.dumps(la.as_json(Found('a', True, {'generic': row})))))
    np.testing.assert_allclose(back.dice['generic'], [0.1234, np.nan, 1.0], atol=1e-4)


@pytest.mark.parametrize('name', la.RECIPES)
def test_each_recipe_can_be_trained(name, tmp_path, monkeypatch):
    monkeypatch.setattr(la, 'random_bert', lambda folder, shape: str(folder))
    cfg = la.config_of(name, 3, 20, tmp_path)
    changed = {k: v for k, v in (la.BASE | la.RECIPES[name]).items() if k.startswith('p_')}
    assert {k: getattr(cfg, k) for k in changed} == changed
    assert (cfg.seed, cfg.steps, cfg.feature_size) == (3, 20, 8)


def test_another_cohort_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('atm_net.run_folder.cache_hash', str)
    head = dict(steps=5, train='x', near='y', runs={})
    (tmp_path / 'scores.json').write_text(json.dumps(head), encoding='utf-8')
    args = SimpleNamespace(steps=5, out=tmp_path)
    assert la.begun(args, 'x', 'y')['runs'] == {}
    with pytest.raises(InputError, match='of other near'):
        la.begun(args, 'x', 'z')


def test_a_table_of_nothing_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['lists_act.py', '--table', str(tmp_path)])
    with pytest.raises(SystemExit):
        la.arguments()
    assert 'nothing is finished there' in capsys.readouterr().err


def test_the_never_trained_encoder_lies_with_the_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(la, 'random_bert', lambda folder, shape: str(folder))
    cfg = la.config_of('counterfactual levels, random BERT', 0, 20, tmp_path)
    assert cfg.encoder == str(tmp_path / 'random_bert')
