"Batches: each slice once an epoch, whatever the processes; prompts that fit the window"

import re
from dataclasses import replace

import pytest
import torch

from atm_net.anatomy import IGNORE, LUMBAR
from atm_net.batches import (
    PromptBatcher,
    moved_item,
    present_classes,
    step_samples,
    training_samples,
)
from atm_net.config import PRESETS
from atm_net.distributed import Distributed

CFG = replace(PRESETS['tiny'], batch=4, seed=5, steps=9)
SLICES = 9  # do not divide by the batch


def samples(steps=9, cfg=CFG):
    "The endless list of (slice, epoch)"
    return [sample[:2] for step in range(steps) for sample in step_samples(cfg, SLICES, step)]


def test_each_slice_once_an_epoch():
    assert len(samples()) == 4 * SLICES
    for epoch in range(4):
        assert sorted(i for i, e in samples() if e == epoch) == list(range(SLICES))


@pytest.mark.parametrize('size', [1, 2, 4])
def test_several_ranks_are_one_in_the_same_order(size):
    ranks = [list(training_samples(CFG, SLICES, 0, Distributed(r, size))) for r in range(size)]
    seen = [item[:2] for shares in zip(*ranks) for share in shares for item in share]
    assert seen == samples()


def test_a_start_in_the_middle_goes_on_with_the_same_batches():
    whole = list(training_samples(CFG, SLICES, 0, Distributed()))
    rest = list(training_samples(CFG, SLICES, 4, Distributed()))
    assert (rest, len(rest)) == (whole[4:], 5)


def test_windows_are_drawn_per_step():
    windows = [{w for _, _, w in step_samples(CFG, SLICES, s)} for s in range(60)]
    assert {len(of_step) for of_step in windows} == {1}
    assert set.union(*windows) == {64, 96, 128, 160}
    batch = next(iter(training_samples(CFG, SLICES, 0, Distributed())))
    assert batch == step_samples(CFG, SLICES, 0)


def test_another_seed_another_order():
    assert samples(3) != samples(3, replace(CFG, seed=6))


def item(**more):
    label = torch.zeros(40, 30, dtype=torch.long)
    label[:20] = LUMBAR.scheme('joint').channel('L4')
    label[30:] = IGNORE
    known = torch.ones(21).bool()
    return dict(k=1, n=9, annotated=known, index=3, epoch=0, label=label) | more


def batcher(encoder, **changes):
    cfg = replace(CFG, **changes)
    return PromptBatcher(cfg, LUMBAR.scheme('joint'), encoder)


def text(prompts, sample):
    return prompts.prompt(sample, sample['label'].numpy())


def test_classes_that_occur():
    label = torch.stack([item()['label'], torch.full((40, 30), IGNORE)])
    present = present_classes(label, 21)
    l4 = LUMBAR.scheme('joint').channel('L4')
    assert present.shape == (2, 21)
    assert present.nonzero().tolist() == [[0, 0], [0, l4]]


def test_dropout_is_keyed_by_epoch_and_sample(encoder):
    prompts = batcher(encoder, p_generic=0.5)
    seen = [text(prompts, item(epoch=e)) for e in range(20)]
    assert seen == [text(prompts, item(epoch=e)) for e in range(20)]
    assert len(set(seen)) > 1
    assert seen != [text(prompts, item(epoch=e, index=4)) for e in range(20)]


def test_the_second_pass_has_no_level(encoder):
    plain = batcher(encoder, p_generic=0.0, p_incomplete=0.0, p_wrong=0.0)
    assert 'L4' in text(plain, item())
    assert 'L4' not in text(plain, item(generic=True))


def test_a_share_of_the_lists_is_out_of_order(encoder):
    shares = dict(p_generic=0.0, p_incomplete=0.0, p_wrong=0.0)
    sample = item()
    for row, name in enumerate(('L1', 'L2', 'L3')):
        sample['label'][10 * row : 10 * row + 10] = LUMBAR.scheme('joint').channel(name)
    ordered = text(batcher(encoder, **shares), sample)
    seen = [
        text(batcher(encoder, p_unordered=0.5, **shares), sample | dict(epoch=e)) for e in range(60)
    ]
    moved = [s for s in seen if s != ordered]
    assert 15 < len(moved) < 45
    words = {tuple(sorted(re.findall(r'\w+', s))) for s in (ordered, *seen)}
    assert len(words) == 1


def test_features_of_a_batch(encoder):
    prompts = batcher(encoder)
    features = prompts.holistic([item(), item(generic=True), item()])
    assert features.states.shape == (2, 128, encoder.dim)
    assert features.mask.shape == features.level_rank.shape == (2, 128)
    assert features.prompt_index.tolist() == [0, 1, 0]
    assert prompts.classes.shape == (21, 2, encoder.dim)


def column_item(names, index=3, **more):
    "A slice whose rows hold these structures"
    joint = LUMBAR.scheme('joint')
    label = torch.zeros(40, 30, dtype=torch.long)
    for row, name in enumerate(names):
        label[3 * row : 3 * row + 2] = joint.channel(name)
    return item(label=label, index=index) | more


def names_of(sample):
    joint = LUMBAR.scheme('joint')
    return {joint.names[c - 1] for c in sample['label'].unique().tolist() if 0 < c < IGNORE}


def test_levels_of_labels_and_list_move_together(encoder):
    cfg = replace(CFG, p_moved=1.0, p_generic=0.0, p_incomplete=0.0, p_wrong=0.0)
    prompts = PromptBatcher(cfg, LUMBAR.scheme('joint'), encoder)
    seen = set()
    for index in range(20):
        sample = column_item(('L1', 'L1/L2', 'L2', 'SC'), index)
        moved = moved_item(cfg, sample, prompts.scheme)
        names = names_of(moved)
        seen.add(tuple(sorted(names)))
        said = text(prompts, moved)
        assert all(name in said for name in names)
        assert torch.equal(moved['label'] > 0, sample['label'] > 0)
        assert names_of(sample) == {'L1', 'L1/L2', 'L2', 'SC'}  # the sample itself stays
    assert seen == {('L1', 'SC', 'T12', 'T12/L1'), ('L2', 'L2/L3', 'L3', 'SC')}


def test_share_of_moved_items():
    cfg, scheme = replace(CFG, p_moved=0.3), LUMBAR.scheme('joint')
    samples = [column_item(('L2', 'SC'), index) for index in range(400)]
    moved = [moved_item(cfg, sample, scheme) is not sample for sample in samples]
    assert sum(moved) / len(moved) == pytest.approx(0.3, abs=0.06)
    again = [moved_item(cfg, sample, scheme) is not sample for sample in samples]
    assert moved == again


@pytest.mark.parametrize('why', ['sacrum', 'partly annotated'])
def test_what_is_not_moved(why):
    cfg, scheme = replace(CFG, p_moved=1.0), LUMBAR.scheme('joint')
    names = ('L4', 'L4/L5', 'S') if why == 'sacrum' else ('L2', 'SC')
    known = torch.ones(21).bool()
    known[-1] = why == 'sacrum'
    sample = column_item(names, annotated=known)
    assert moved_item(cfg, sample, scheme) is sample
