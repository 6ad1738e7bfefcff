"Recipe: the weight of the background, by hand"

import math
from dataclasses import replace

import numpy as np
import pytest

from atm_net import recipe
from atm_net.config import PRESETS, check_config, learning_rate
from atm_net.core import InputError, read_json
from atm_net.grid import Grid
from atm_net.long_demo import cohort_of
from atm_net.predict import load_predictor, weights_file
from atm_net.recipe import (
    FACTORS,
    STAGES,
    background_scores,
    run_stage,
    stage_config,
    weigh_background,
)
from atm_net.weights import read_weights


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    return cohort_of(tmp_path_factory.mktemp('recipe'), 3, 5, Grid(2.0))


@pytest.fixture
def cases(cache):
    return cache.cases(None)[:2]


def found(predictor, cache, case):
    "Labels of a case without a list of levels"
    x = np.asarray(cache.image(case), np.float32)
    return predictor.grid_labels(x, predictor.words_for(x, 'generic')[0])


def plain_dice(predictor, cache, cases):
    "By hand: places of the pixels -> Dice of bodies and of discs"

    def pixels(labels, kind):
        names = enumerate(predictor.scheme.names, 1)
        channels = [i for i, n in names if predictor.anatomy[n].kind == kind]
        return set(zip(*np.nonzero(np.isin(labels, channels))))

    values = []
    for c in cases:
        z, y = found(predictor, cache, c), np.asarray(cache.labels(c))
        pairs = [(pixels(z, k), pixels(y, k)) for k in ('vertebra', 'disc')]
        values.append(np.mean([2 * len(a & b) / (len(a) + len(b)) for a, b in pairs]))
    return float(np.mean(values))


@pytest.mark.slow
def test_the_best_factor_is_written(cache, cases, tmp_path):
    p = load_predictor()
    scores = background_scores(p, cache, cases)
    assert tuple(scores) == FACTORS
    assert scores[1.0] == pytest.approx(plain_dice(p, cache, cases), abs=1e-9)
    best = weigh_background(weights_file(), tmp_path / 'w.safetensors', cache, cases)
    assert scores[best] == max(scores.values()) and scores[1.0] > 0.3
    weighed = load_predictor(tmp_path / 'w.safetensors')
    assert plain_dice(weighed, cache, cases) == pytest.approx(scores[best], abs=2e-3)
    header = read_weights(tmp_path / 'w.safetensors')[1]['background']
    assert header['factor'] == best
    assert header['dice'][f'{best:g}'] == round(scores[best], 4)


@pytest.mark.slow
def test_the_bias_does_what_the_factor_says(cache, cases, tmp_path, monkeypatch):
    "As float16, too"
    monkeypatch.setattr(recipe, 'background_scores', lambda *a: {1.0: 0.0, 3.0: 1.0})
    weigh_background(weights_file(), tmp_path / 'w.safetensors', cache, cases)
    both = [load_predictor(), load_predictor(tmp_path / 'w.safetensors')]
    bias = [p.model.out.conv.conv.bias[0].item() for p in both]
    assert bias[1] - bias[0] == pytest.approx(math.log(3), abs=5e-3)
    sizes = [sum((found(p, cache, c) > 0).sum() for c in cases) for p in both]
    assert sizes[1] < sizes[0]


def test_each_stage_has_a_lower_peak_and_a_seed_of_its_own():
    peaks = [s.lr for s in STAGES]
    assert peaks[:-1] == sorted(set(peaks[:-1]), reverse=True)  # the last learns what is new
    assert {s.lr_min for s in STAGES} == {PRESETS['tiny'].lr_min}
    assert len({s.seed for s in STAGES}) == len(STAGES)


def test_from_stage_six_on_each_image_is_read_twice():
    configs = [stage_config(s) for s in STAGES]
    assert [(c.paired, c.p_generic) for c in configs] == 5 * [(False, 0.5)] + 4 * [(True, 0.0)]
    assert [s.share for s in STAGES] == 5 * [1.0] + [0.7, 1.0, 0.5, 0.7]


def test_from_stage_seven_on_lists_decide():
    configs = [stage_config(s) for s in STAGES]
    assert [c.code for c in configs] == 6 * ['order'] + 3 * ['ends']
    assert [c.p_moved for c in configs] == 6 * [0.0] + [0.5, 0.67, 0.67]
    assert [c.p_unordered for c in configs] == 8 * [0.0] + [0.5]
    assert [s.hard_border for s in STAGES] == 6 * [0.0] + 3 * [0.5]
    for config in configs:
        check_config(config)


@pytest.mark.parametrize('stage', STAGES, ids=lambda s: str(s.seed))
def test_learning_rate_of_a_stage(stage):
    "It reaches the peak, and ends low"
    rates = [learning_rate(stage_config(stage), k) for k in range(stage.steps)]
    assert max(rates) == pytest.approx(stage.lr, rel=0.01)
    assert rates[-1] < 2 * stage.lr_min


@pytest.fixture
def two(phantom_cache, tmp_path, monkeypatch):
    "Two stages of a few steps, on a small cohort in place of their own -> their files"
    drawn = []

    def small(home, patients, seed, grid, **shares):
        drawn.append((home.name, patients, seed, grid, shares))
        return phantom_cache

    monkeypatch.setattr('atm_net.long_demo.cohort_of', small)
    stages = tuple(replace(s, steps=2, windows=(64,)) for s in STAGES[:2])
    files = [run_stage(tmp_path, k, stages=stages, val_every=2) for k in (1, 2)]
    return stages, files, drawn


def test_two_stages(two, tmp_path, capsys):
    stages, files, drawn = two
    assert [f.name for f in files] == ['stage-1.safetensors', 'stage-2.safetensors']
    assert [(home, seed) for home, _, seed, _, _ in drawn] == [('stage-1', 3001), ('stage-2', 3002)]
    first, second = (read_weights(f)[1] for f in files)
    assert (first['steps'], first['background']['factor'] in FACTORS) == (2, True)
    assert (first['recipe']['stage'], second['recipe']['stage']) == (1, 2)
    assert second['init']['file'] == 'stage-1.safetensors'
    assert second['recipe']['seeds'] == [s.seed for s in stages]
    settings = read_json(tmp_path / 'stage-2' / 'run' / 'config.json')['config']
    assert (settings['tokens']['value'], settings['lr']['value']) == ('words', stages[1].lr)
    before = files[0].read_bytes()
    assert run_stage(tmp_path, 1, stages=stages) == files[0]
    assert 'finished already' in capsys.readouterr().err
    assert files[0].read_bytes() == before


@pytest.mark.parametrize(
    'stage, message',
    [(2, 'run that one first'), (3, 'stages 1 to 2')],  # what ships is not stage 1 of two
)
def test_stages_that_cannot_be_run(tmp_path, stage, message):
    with pytest.raises(InputError, match=message):
        run_stage(tmp_path / 'new', stage, stages=STAGES[:2])
    assert not (tmp_path / 'new').exists()
