"The loss of a step, against losses of separate forward passes"

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from atm_net.anatomy import IGNORE, LUMBAR
from atm_net.batches import PromptBatcher, moved_item, present_classes
from atm_net.config import PRESETS, network_kwargs
from atm_net.losses import dice_focal
from atm_net.prompts import holistic
from atm_net.step import hard_dice, logits_and_contrast, step_loss
from atm_net.variants import forward_repeated
from atm_net.weights import build_network

JOINT = LUMBAR.scheme('joint')
APART = replace(PRESETS['tiny'], text_decoder=True, windows=(64,), alpha=0.5, gain=1.0)
SHARED = replace(APART, text_decoder=False, w_generic=0.7, ccae=False)


@pytest.fixture(scope='module')
def batch():
    torch.manual_seed(0)
    sizes = dict(n=9, epoch=0, annotated=torch.ones(21).bool())
    return [
        sizes
        | dict(k=k, index=k, label=torch.randint(0, 21, (64, 96)), image=torch.rand(1, 64, 96))
        for k in (2, 5)
    ]


class Spy:
    "A network as a step calls it, and what it was asked"

    def __init__(self, cfg, encoder):
        torch.manual_seed(0)
        kwargs = network_kwargs(cfg, encoder.dim, JOINT)
        self.net = build_network('atm_net', 21, 12, **kwargs).eval()
        if cfg.text_decoder:
            with torch.no_grad():
                for p in self.net.text_decoder.parameters():
                    p.add_(0.05 * torch.randn_like(p))
        self.prompts = PromptBatcher(cfg, JOINT, encoder)
        self.asked = []

    def __call__(self, x, text, classes):
        self.asked.append((x, text))
        return logits_and_contrast(self.net, x, text, classes)


def images_and_labels(batch):
    return (torch.stack([i[k] for i in batch]) for k in ('image', 'label'))


@torch.no_grad()
def test_one_decoder_weighs_the_two_passes(batch, encoder):
    spy = Spy(SHARED, encoder)
    x, y = images_and_labels(batch)
    without = encoder.features([str(holistic((), LUMBAR, 1, source='generic'))] * 2, 128, LUMBAR)
    logits = [spy.net(x, spy.prompts.holistic(batch)), spy.net(x, without)]
    got = step_loss(spy, SHARED, batch, spy.prompts, True)['seg']
    by_hand = 0.3 * dice_focal(logits[0], y) + 0.7 * dice_focal(logits[1], y)
    assert_close(got, by_hand, atol=1e-5, rtol=1e-5)
    alike = step_loss(spy, replace(SHARED, w_generic=0.5), batch, spy.prompts, True)['seg']
    mean_over_all_images = dice_focal(torch.cat(logits), y.repeat(2, 1, 1))
    assert_close(alike, mean_over_all_images, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_encoder_sees_each_image_once(batch, encoder):
    spy = Spy(SHARED, encoder)
    step_loss(spy, SHARED, batch, spy.prompts, True)
    images, text = spy.asked[0]
    own, without = text.prompt_index.chunk(2)
    assert len(images) == len(own) == 2
    assert not set(own.tolist()) & set(without.tolist())


@torch.no_grad()
def test_without_text_there_is_one_pass(batch, encoder):
    spy = Spy(SHARED, encoder)
    out = step_loss(spy, SHARED, batch, spy.prompts, False)
    assert (len(spy.asked[0][0]), spy.asked[0][1]) == (2, None)
    x, y = images_and_labels(batch)
    assert_close(out['loss'], dice_focal(spy.net(x, text=False), y))
    assert out['contrast'] is None


@torch.no_grad()
def test_two_decoders_have_a_pass_each(batch, encoder):
    "And the contrast meets the pass with prompts"
    spy = Spy(APART, encoder)
    x, y = images_and_labels(batch)
    got = step_loss(spy, APART, batch, spy.prompts, True)
    prompted = spy.net(x, spy.prompts.holistic(batch))
    assert_close(got['seg'], dice_focal(prompted, y) + dice_focal(spy.net(x, text=False), y))
    assert (got['seg'] - 2 * dice_focal(prompted, y)).abs() > 1e-3
    present = present_classes(y, 21)
    features = spy.prompts.class_features(present)
    contrast = spy.net.ccae(prompted.softmax(1), features, present, torch.ones(2, 21).bool())
    assert_close(got['contrast'], contrast)
    assert_close(got['loss'], got['seg'] + APART.lambda_2 * got['contrast'])


@torch.no_grad()
def test_one_decoder_contrasts_both_passes(batch, encoder):
    cfg = replace(SHARED, ccae=True)
    spy = Spy(cfg, encoder)
    x, y = images_and_labels(batch)
    text = spy.prompts.holistic([*batch, *(i | dict(generic=True) for i in batch)])
    present = present_classes(y.repeat(2, 1, 1), 21)
    known = torch.ones(4, 21).bool()
    features = spy.prompts.class_features(present)
    want = spy.net.ccae(forward_repeated(spy.net, x, text).softmax(1), features, present, known)
    assert_close(step_loss(spy, cfg, batch, spy.prompts, True)['contrast'], want)


@torch.no_grad()
def test_what_is_not_annotated_is_known_to_the_loss(batch, encoder):
    spy = Spy(SHARED, encoder)
    partial = torch.ones(21).bool()
    partial[3:7] = False
    part = [i | dict(annotated=partial) for i in batch]
    x, y = images_and_labels(batch)
    got = step_loss(spy, SHARED, part, spy.prompts, False)['seg']
    want = dice_focal(spy.net(x, text=False), y, 'softmax', partial.expand(2, 21))
    assert_close(got, want)
    assert got != dice_focal(spy.net(x, text=False), y)


def test_dice_of_a_batch():
    torch.manual_seed(0)
    y = torch.randint(0, 4, (2, 7, 9))
    z = torch.nn.functional.one_hot(y, 4).movedim(-1, 1).float()
    assert hard_dice(z, y) == 1
    z[1, :, :3] = z[1, :, :3].roll(1, 0)
    y[0] = IGNORE
    p, t = z[1].argmax(0), y[1]
    by_hand = [
        float(2 * ((p == c) & (t == c)).sum() / ((p == c).sum() + (t == c).sum()))
        for c in (1, 2, 3)
    ]
    assert hard_dice(z, y) == pytest.approx(np.mean(by_hand))
    assert 0 < hard_dice(z, y) < 1
    assert np.isnan(hard_dice(z, torch.zeros_like(y)))


def test_the_pass_without_a_prompt_keeps_its_labels(encoder, batch):
    cfg = replace(SHARED, p_moved=1.0, p_incomplete=0.0, p_wrong=0.0)
    few = torch.tensor([0, *(JOINT.channel(n) for n in ('L1', 'L1/L2', 'L2', 'SC'))])
    items = [item | dict(label=few[item['label'] % 5]) for item in batch]
    spy = Spy(cfg, encoder)
    with torch.no_grad():
        step = step_loss(spy, cfg, items, spy.prompts, text=True)
        moved = [moved_item(cfg, item, JOINT) for item in items]
        assert not any(torch.equal(a['label'], b['label']) for a, b in zip(items, moved))
        x = torch.stack([item['image'] for item in items])
        own = spy.net(x, spy.prompts.holistic(moved))
        without = spy.net(x, spy.prompts.holistic([i | dict(generic=True) for i in items]))
        a = dice_focal(own, torch.stack([item['label'] for item in moved]))
        b = dice_focal(without, torch.stack([item['label'] for item in items]))
    assert_close(step['seg'], 0.3 * a + 0.7 * b, atol=1e-5, rtol=1e-5)
