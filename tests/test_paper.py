"Preset `paper`: what it holds, what it refuses, and all commands in a row at 384 px"

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, call, complaint, done, tree

from atm_net.anatomy import LUMBAR
from atm_net.batches import PromptBatcher
from atm_net.config import PRESETS
from atm_net.grid import Grid
from atm_net.prompts import atpg
from atm_net.text import load_encoder

PAPER = PRESETS['paper']


@pytest.fixture(scope='module')
def clinical_bert(tmp_path_factory):
    "A folder with a BERT of Bio-ClinicalBERT's shape and random weights"
    import runpy

    tools = runpy.run_path(str(ROOT / 'benchmarks' / 'encoders.py'))
    folder = tmp_path_factory.mktemp('encoder') / 'clinical'
    return tools['random_bert'](folder, tools['CLINICAL_BERT'])


# --- the configuration


def test_the_numbers_are_the_papers():
    "Sec. 4: global batch 8, 1e-4 to 1e-6, 384 px; Eq. 8; Sec. 3: both modules, Option 3"
    assert (PAPER.batch, PAPER.lr, PAPER.lr_min, PAPER.windows) == (8, 1e-4, 1e-6, (384,))
    assert (PAPER.lambda_1, PAPER.lambda_2, PAPER.option) == (1.0, 0.2, 3)
    assert (PAPER.hasf, PAPER.ccae, PAPER.attention, PAPER.tokens) == (True, True, 'exact', 'mixed')
    assert (PAPER.paired, PAPER.text_decoder, PAPER.plain, PAPER.prior) == (
        False,
        False,
        0.0,
        False,
    )


def test_each_image_is_read_with_its_own_prompt():
    "No prompt dropout: what ATPG says of the labels, in every epoch"
    scheme = LUMBAR.scheme('joint')
    batcher = PromptBatcher(PAPER, scheme, load_encoder('spine_bert_tiny'))
    label = np.zeros((40, 30), np.uint8)
    names = ('L5', 'L4', 'L4/L5', 'L3')
    for row, name in enumerate(names):
        label[5 * row : 5 * row + 3] = scheme.channel(name)
    known = torch.ones(scheme.channels, dtype=torch.bool)
    for epoch in range(40):
        item = dict(k=3, n=9, epoch=epoch, index=0, annotated=known)
        assert batcher.prompt(item, label) == str(atpg(label, scheme, 3, 9, 3, True))
    assert all(name in batcher.prompt(item, label) for name in names)


def test_the_crop_reads_no_mask():
    "`atm_prepare --preset paper`: the whole field of view, padded to a square of 384 px"
    from fastcore.docments import docments

    from atm_net.predict_command import atm_prepare

    defaults = {k: v['default'] for k, v in docments(atm_prepare.__wrapped__, full=True).items()}
    assert defaults['crop'] == 'fov'
    whole = np.ones((1, 300, 200), np.float32)
    grid = Grid(size=384).to_grid(whole, (1.0, 1.0))[0]
    assert grid.shape == (384, 384)
    assert np.flatnonzero(grid.any(1)).tolist() == list(range(384))
    assert np.flatnonzero(grid.any(0)).tolist() == list(range(64, 320))


# --- what is refused


def test_a_cache_of_preset_tiny_is_refused(slab_cache, tmp_path):
    line = complaint(call('atm_train', slab_cache, tmp_path / 'run', '--preset', 'paper'))
    assert f'{slab_cache}: has pixels of 2 mm' in line
    assert 'atm_prepare --preset paper' in line
    assert tree(tmp_path) == {}


def test_a_study_of_preset_paper_is_refused_before_its_first_run(slab_cache, tmp_path):
    line = complaint(call('atm_study', 'table4', slab_cache, tmp_path / 'out', '--preset', 'paper'))
    assert 'has pixels of 2 mm' in line
    assert tree(tmp_path) == {}


def test_the_same_command_twice_is_refused(run, cache):
    before = tree(run.path)
    line = complaint(call('atm_train', cache, run.path, '--steps', 3, '--batch', 2))
    assert 'holds a finished run of 3 steps: score it with atm_evaluate' in line
    assert f'--init {run.path}' in line
    assert tree(run.path) == before


# --- from phantoms to a table


def few_slices(cohort, n=3):
    "Keep the middle slices of each volume"
    import SimpleITK as sitk

    for path in [*cohort.glob('images/*'), *cohort.glob('masks/*')]:
        image = sitk.ReadImage(str(path))
        first = (image.GetSize()[0] - n) // 2
        sitk.WriteImage(image[first : first + n], str(path))


@pytest.fixture(scope='module')
def paper_run(tmp_path_factory, clinical_bert):
    "Phantoms, cache and two steps at 384 px, of a network a quarter as wide"
    home = tmp_path_factory.mktemp('paper')
    done(call('atm_phantom', home / 'phantoms', '--patients', 3, '--seed', 5))
    few_slices(home / 'phantoms')
    done(call('atm_prepare', home / 'phantoms', home / 'cache', '--preset', 'paper'))
    narrow = replace(PAPER, feature_size=12)
    given = ('--preset', 'paper', '--encoder', clinical_bert, '--steps', 2, '--batch', 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, 'paper', narrow)
        done(call('atm_train', home / 'cache', home / 'run', *given, '--workers', 0))
    return SimpleNamespace(home=home, cache=home / 'cache', run=home / 'run')


@pytest.mark.slow
def test_training_at_384_px(paper_run):
    from atm_net.core import read_json
    from atm_net.data import Cache
    from atm_net.show import read_rows
    from atm_net.weights import read_weights

    cache = Cache(paper_run.cache)
    assert (cache.grid, cache.crop) == (Grid(size=384), 'fov')
    assert {cache.image(c).shape for c in cache.cases()} == {(3, 384, 384)}
    losses = [float(r['loss']) for r in read_rows(paper_run.run / 'log.csv') if r['loss']]
    assert losses and np.isfinite(losses).all()
    meta = read_weights(paper_run.run / 'last.safetensors')[1]
    assert (meta['steps'], meta['kwargs']['text_dim']) == (2, 768)
    kept = read_json(paper_run.run / 'config.json')['config']
    shares = [kept[k] for k in ('p_generic', 'p_incomplete', 'p_wrong')]
    assert shares == [dict(value=0.0, source='paper')] * 3


@pytest.mark.slow
def test_prediction_at_384_px(paper_run, tmp_path):
    from atm_net.volumes import read_volume

    scan = next((paper_run.home / 'phantoms' / 'images').iterdir())
    done(call('atm_predict', scan, tmp_path, '--weights', paper_run.run))
    mask = read_volume(tmp_path / scan.name)
    assert mask.shape == read_volume(scan).shape
    record = json.loads((tmp_path / f'{scan.name}.json').read_text(encoding='utf-8'))
    assert record['protocol'] == 'generic'


@pytest.mark.slow
def test_scores_at_384_px(paper_run, tmp_path):
    out = ('--protocols', 'generic,oracle', '--out', tmp_path)
    done(call('atm_evaluate', paper_run.cache, paper_run.run, *out))
    said = ' '.join(p.read_text(encoding='utf-8') for p in tmp_path.glob('*.md'))
    assert 'oracle' in said


@pytest.mark.slow
def test_the_crop_of_the_model_at_384_px(paper_run, tmp_path):
    "`--crop self` finds the spine by the weights that ship: a box, no larger than the image"
    from atm_net.data import Cache

    phantoms = paper_run.home / 'phantoms'
    given = ('--preset', 'paper', '--crop', 'self')
    done(call('atm_prepare', phantoms, tmp_path / 'cache', *given))
    cache, whole = Cache(tmp_path / 'cache'), Cache(paper_run.cache)
    assert cache.crop == 'self'
    for case in cache.cases():
        top, left, bottom, right = cache.meta(case)['box']
        assert 0 < (bottom - top) * (right - left) < np.prod(cache.meta(case)['shape'][1:])
        assert set(cache.meta(case)['levels']) == set(whole.meta(case)['levels'])
