"One optimizer step, validation and the best weights, on six small phantoms"

import copy
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from atm_net.anatomy import IGNORE
from atm_net.config import PRESETS
from atm_net.core import InputError
from atm_net.data import Cache
from atm_net.distributed import Distributed
from atm_net.grid import Grid
from atm_net.trainer import (
    Trainer,
    cache_dice,
    check_grid,
    check_share,
    class_prior,
    clip_groups,
    start_at_prior,
    validation_dice,
)
from atm_net.weights import NETWORKS, build_network

SMALL = replace(PRESETS['tiny'], steps=8, batch=2, windows=(64,), warmup=1, plain=0.5, val_cases=1)
PLAIN = dict(hasf=False, ccae=False)


def trainer(cache, run, cfg=SMALL, **how):
    return Trainer(cache, run, cfg, Distributed(), **how)


def one_step(cache, run, cfg=SMALL, start=4, **how):
    "A trainer after one step of the text stage, and what it returned"
    t = trainer(cache, run, cfg, **how)
    t.step = start
    return t, t.update(next(iter(t.batches())))


def gradients(t):
    return torch.cat([p.grad.flatten() for p in t.net.parameters() if p.grad is not None])


# what is scored


def volume():
    t = np.zeros((2, 5, 7))
    t[:, :2] = 1
    t[:, 3:] = 2
    t[1, :, :2] = IGNORE
    return t


def test_dice_leaves_out_what_nobody_labelled():
    p = volume()
    p[0, 0] = 2
    dice = [2 * 17 / (17 + 24), 2 * 24 / (31 + 24)]
    assert cache_dice(p, volume(), [True, True, True]) == pytest.approx(np.mean(dice))
    assert cache_dice(p, volume(), [False, True, True]) == pytest.approx(np.mean(dice))
    assert cache_dice(p, volume(), [True, True, False]) == pytest.approx(dice[0])


def test_an_invented_structure_costs_unless_nobody_could_know():
    q = volume()
    q[0, 2] = 3
    assert cache_dice(q, volume(), [True] * 4) == pytest.approx(2 / 3)
    assert cache_dice(q, volume(), [True] * 3 + [False]) == 1
    nothing = np.zeros((2, 5, 7))
    assert np.isnan(cache_dice(nothing, nothing, [True] * 3))


class Wrong(Cache):
    "The same cache with other masks"

    def labels(self, case):
        return np.roll(np.asarray(super().labels(case)), 9, axis=1)


def test_validation_is_no_oracle(phantom_cache, tmp_path):
    "A true mask that is changed changes the score and not the prediction"
    t = trainer(phantom_cache, tmp_path, replace(SMALL, prior=False))
    seen, scores = {}, {}
    for name, cache in (('right', phantom_cache), ('wrong', Wrong(phantom_cache.path))):

        def see(case, image, truth, pred, name=name):
            seen[name] = pred

        scores[name] = validation_dice(t.predictor(), cache, cache.cases('val'), t.group, see)
    np.testing.assert_array_equal(seen['right'], seen['wrong'])
    assert len(np.unique(seen['right'])) > 2
    assert scores['right'] != scores['wrong']


def test_the_best_weights(phantom_cache, tmp_path):
    "Highest mean Dice by `self`, or by `none`; of equals the first"
    t = trainer(phantom_cache, tmp_path)
    kept = []
    t.write_weights = lambda name, validation: kept.append((name, validation['self']))
    for score in (0.2, 0.5, 0.4, 0.5, np.nan):
        t.keep_best(dict(generic=0.9, self=score))
    assert kept == [('best.safetensors', 0.2), ('best.safetensors', 0.5)]
    assert t.best == 0.5
    t.write_weights = lambda *a, **more: None
    t.keep_best(dict(none=0.6))
    assert t.best == 0.6


# one step


def test_a_batch_in_parts_has_the_gradient_of_the_whole(phantom_cache, tmp_path):
    "Rounding apart: where a unit sits on the kink of its LeakyReLU, up to 1e-3"
    four = replace(SMALL, batch=4)
    whole, a = one_step(phantom_cache, tmp_path, four)
    parts, b = one_step(phantom_cache, tmp_path, four, accumulate=4)
    assert (gradients(parts) - gradients(whole)).norm() < 1e-2 * gradients(whole).norm()
    for k in ('loss', 'seg', 'contrast'):
        assert a[k] == pytest.approx(b[k], abs=1e-5)
    later, _ = one_step(phantom_cache, tmp_path, four, start=5)
    assert (gradients(later) - gradients(whole)).norm() > 1e-2 * gradients(whole).norm()


def test_a_batch_must_divide():
    four = replace(SMALL, batch=4)
    with pytest.raises(InputError, match='--accumulate 3'):
        check_share(four, Distributed(), 3)
    with pytest.raises(InputError, match='share of a process, 2,'):
        check_share(four, Distributed(0, 2), 4)
    with pytest.raises(InputError, match='--batch 4 is not divisible by 3 processes'):
        check_share(four, Distributed(0, 3), 1)
    with pytest.raises(InputError, match='--accumulate 0 must be positive'):
        check_share(four, Distributed(), 0)


def random_states():
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    ]


@pytest.mark.parametrize('name', NETWORKS)
def test_a_step_draws_nothing(phantom_cache, tmp_path, name):
    "Whatever the network: so a checkpoint keeps no random state"
    text = dict(hasf=name == 'atm_net', ccae=name == 'atm_net')
    t = trainer(phantom_cache, tmp_path, replace(SMALL, network=name, **text))
    t.step = 4
    before = random_states()
    t.update(next(iter(t.batches())))
    assert random_states() == before


def test_the_random_states_are_seen():
    before = random_states()
    random.random()
    torch.rand(1)
    np.random.rand()
    assert [a == b for a, b in zip(random_states(), before)] == [False] * 3


@pytest.mark.parametrize('amp', ['bf16', 'fp16'])
@pytest.mark.slow
def test_mixed_precision_is_near(phantom_cache, tmp_path, amp):
    t, out = one_step(phantom_cache, tmp_path, replace(SMALL, amp=amp))
    _, full = one_step(phantom_cache, tmp_path)
    assert out['loss'] == pytest.approx(full['loss'], abs=1e-2)
    assert out['loss'] != full['loss']
    assert {p.dtype for p in t.net.parameters()} == {torch.float32}


def test_a_gradient_that_overflows_costs_one_step(phantom_cache, tmp_path):
    "And halves the scale, which a checkpoint keeps"
    cfg = replace(SMALL, amp='fp16')
    t, _ = one_step(phantom_cache, tmp_path, cfg)
    weight = t.net.out.conv.conv.weight
    before = weight.clone()
    t.scaler.update(2.0**100)
    t.update(next(iter(t.batches())))
    assert torch.equal(weight, before)
    assert (t.scaler.get_scale(), t.step) == (2.0**99, 6)
    t.scaler.update(1024.0)
    t.update(next(iter(t.batches())))
    assert not torch.equal(weight, before)
    t.checkpoint()
    twin = trainer(phantom_cache, tmp_path, cfg)
    assert twin.resume()
    assert (twin.step, twin.scaler.state_dict()) == (7, t.scaler.state_dict())


def test_channels_last_changes_the_speed_alone(phantom_cache, tmp_path):
    t, a = one_step(phantom_cache, tmp_path, channels_last=True)
    _, b = one_step(phantom_cache, tmp_path)
    assert a['loss'] == pytest.approx(b['loss'], abs=1e-5)
    patch = t.net.swinViT.patch_embed.proj.weight
    assert patch.is_contiguous(memory_format=torch.channels_last)


def test_a_loss_that_is_not_finite(phantom_cache, tmp_path):
    t = trainer(phantom_cache, tmp_path)
    with torch.no_grad():
        t.net.out.conv.conv.bias.fill_(float('nan'))
    with pytest.raises(InputError, match='step 0: the loss is not finite: try a lower --lr'):
        t.update(next(iter(t.batches())))


# stages


def test_parameters_that_are_clipped_together(phantom_cache, tmp_path):
    assert len(clip_groups(trainer(phantom_cache, tmp_path).net)) == 1
    net = trainer(phantom_cache, tmp_path, replace(SMALL, text_decoder=True)).net
    plain, text = clip_groups(net)
    assert len(plain) + len(text) == len(list(net.parameters()))
    own = [
        p for n, p in net.named_parameters() if n.startswith(('hasf.', 'ccae.', 'text_decoder.'))
    ]
    assert {id(p) for p in text} == {id(p) for p in own}


def test_the_text_decoder_starts_at_the_border(phantom_cache, tmp_path):
    "As the decoder that is there, but not where weights brought one that has learnt"
    t = trainer(phantom_cache, tmp_path, replace(SMALL, text_decoder=True))
    t.step = 4
    with torch.no_grad():
        for p in t.net.decoder3.parameters():
            p.add_(1.0)

    def same():
        state = t.net.state_dict()
        return all(torch.equal(v, state[k]) for k, v in t.net.text_decoder.state_dict().items())

    t.meta['init'] = dict(file='w')
    t.enter_stage()
    assert not same()
    del t.meta['init']
    t.enter_stage()
    assert same()


def test_text_modules_rest_in_the_plain_stage(phantom_cache, tmp_path):
    t, out = one_step(phantom_cache, tmp_path, start=3)
    assert out['contrast'] is None
    assert not any(p.requires_grad for p in t.net.hasf.parameters())
    out = t.update(next(iter(t.batches())))
    assert out['contrast'] is not None
    assert all(p.requires_grad for p in t.net.hasf.parameters())


# the grid of preset `paper`


def at(phantom_cache, **grid):
    "The cache as if it had been prepared on another grid"
    other = copy.copy(phantom_cache)
    other.grid = Grid(**grid)
    return other


PAPER = PRESETS['paper']


@pytest.mark.parametrize(
    'grid, windows, words',
    [
        (dict(spacing=2.0), (384,), 'has pixels of 2 mm, but --preset paper takes windows of 384'),
        (dict(size=64), (384,), 'has images of 64 px, but --preset paper takes windows of 384'),
        (dict(size=96), (64, 128), 'takes windows of 128 px'),
    ],
)
def test_the_grid_of_preset_paper(phantom_cache, grid, windows, words):
    "A window larger than the image is black for the most part"
    with pytest.raises(InputError, match=words) as e:
        check_grid(replace(PAPER, windows=windows), at(phantom_cache, **grid))
    assert 'prepare the data with atm_prepare --preset paper' in str(e.value)


def test_another_grid_is_said(phantom_cache):
    assert check_grid(PAPER, at(phantom_cache, size=384)) == ''
    assert check_grid(SMALL, at(phantom_cache, spacing=2.0)) == ''
    small = replace(PAPER, windows=(64,))
    note = check_grid(small, at(phantom_cache, spacing=2.0))
    assert note.endswith('has pixels of 2 mm; the paper has whole images of 384 px')
    assert 'images of 64 px' in check_grid(small, at(phantom_cache, size=64))
    assert check_grid(replace(PAPER, windows=(128,)), at(phantom_cache, size=384)) == ''


# the start at the prior


def test_the_prior_is_the_share_of_pixels(phantom_cache, tmp_path):
    c = phantom_cache
    seen = np.concatenate([np.asarray(c.labels(case)[k]).ravel() for case, k in c.slices('train')])
    count = np.bincount(seen, minlength=c.scheme.channels) + 1
    assert class_prior(c, every=1) == pytest.approx(np.log(count / count.sum()))
    assert np.exp(class_prior(c)).sum() == pytest.approx(1)
    t = trainer(c, tmp_path)
    assert_close(t.net.out.conv.conv.bias.detach(), torch.tensor(class_prior(c)).float())


@pytest.mark.parametrize('name', NETWORKS)
def test_one_bias_takes_the_prior(phantom_cache, name):
    channels = phantom_cache.scheme.channels
    net = build_network(name, channels)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    start_at_prior(net, name, 12, {}, class_prior(phantom_cache))
    changed = [v.shape for k, v in net.state_dict().items() if not torch.equal(v, before[k])]
    assert changed == [(channels,)]
