"The edges of Dice, focal loss and the total (Eq. 4 and 8)"

from inspect import signature

import monai.losses as ml
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from atm_net.anatomy import IGNORE
from atm_net.core import InputError
from atm_net.losses import (
    dice_focal,
    dice_loss,
    focal_loss,
    marginal,
    one_hot,
    total_loss,
    with_background,
)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(3, 5, 6, 11).double(), torch.randint(0, 5, (3, 6, 11))


def partly_ignored(logits, target):
    "A part of the pixels is ignored; the same logits, and others under what is ignored"
    target, other = target.clone(), logits.clone()
    target[:, 2:4, 1:9] = IGNORE
    other[:, :, 2:4, 1:9] = 50 * torch.randn(3, 5, 2, 8).double()
    return other, target


def test_defaults_of_the_paper():
    parameters = signature(total_loss).parameters
    assert (parameters['lambda_1'].default, parameters['lambda_2'].default) == (1.0, 0.2)
    assert_close(total_loss(torch.tensor(2.0), torch.tensor(3.0)), torch.tensor(2.6))
    assert_close(total_loss(torch.tensor(2.0)), torch.tensor(2.0))
    weighted = total_loss(torch.tensor(2.0), torch.tensor(3.0), 0.5, 2.0)
    assert_close(weighted, torch.tensor(7.0))
    assert_close(total_loss(torch.tensor(2.0), lambda_1=0.5), torch.tensor(1.0))


def test_labels_as_channels():
    target = torch.tensor([[[0, 2], [IGNORE, 1]]])
    channels, valid = one_hot(target, 3)
    assert channels[0].argmax(0)[valid[0, 0]].tolist() == [0, 2, 1]
    assert channels[0, :, 1, 0].tolist() == [0, 0, 0]
    assert valid.flatten().tolist() == [True, True, False, True]


def test_a_perfect_answer_costs_nothing(batch):
    _, target = batch
    perfect = 40 * F.one_hot(target, 5).movedim(-1, 1).double()
    assert dice_loss(perfect, target) < 1e-6
    assert focal_loss(perfect, target) < 1e-6


def test_ignored_pixels_do_not_matter(batch):
    logits, target = batch
    other, target = partly_ignored(logits, target)
    assert_close(dice_loss(other, target), dice_loss(logits, target))
    for form in ('softmax', 'sigmoid'):
        assert_close(focal_loss(other, target, form), focal_loss(logits, target, form))


def test_focal_against_monai(batch):
    logits, target = batch
    monai = ml.FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2.0)(logits, target[:, None])
    channels = 5  # by which MONAI also divides
    assert_close(focal_loss(logits, target), monai.double() * channels, rtol=1e-5, atol=1e-6)


def test_unknown_focal(batch):
    with pytest.raises(InputError, match="'tanh' is unknown: use 'softmax' or 'sigmoid'"):
        focal_loss(*batch, 'tanh')


def test_both_terms(batch):
    for form in ('softmax', 'sigmoid'):
        both = dice_loss(*batch) + focal_loss(*batch, form)
        assert_close(dice_focal(*batch, form), both)
    assert_close(dice_focal(*batch), dice_focal(*batch, 'softmax'))


def test_all_annotated_changes_nothing(batch):
    everything = torch.ones(3, 5).bool()
    assert_close(dice_focal(*batch, annotated=everything), dice_focal(*batch))


def test_background_is_part_of_every_case(batch):
    annotated = torch.tensor([[False, True, False]])
    assert with_background(annotated).tolist() == [[True, True, False]]
    assert annotated.tolist() == [[False, True, False]]
    logits, target = batch
    some = torch.ones(3, 5).bool()
    some[:, 2] = False
    without = some.clone()
    without[:, 0] = False
    assert_close(marginal(logits, without), marginal(logits, some))
    assert_close(dice_loss(logits, target, without), dice_loss(logits, target, some))


def test_marginal_takes_the_place_of_the_background():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 3, 7).double()
    annotated = torch.ones(2, 5).bool()
    annotated[1, [1, 4]] = False
    before, after = logits.softmax(1), marginal(logits, annotated).softmax(1)
    assert_close(after[0], before[0])
    assert_close(after[1, 0], before[1, [0, 1, 4]].sum(0))
    assert after[1, [1, 4]].max() == 0
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert torch.isfinite(marginal(logits.to(dtype), annotated)).all()


def test_dice_leaves_out_what_is_not_annotated(batch):
    logits, target = batch
    annotated = torch.ones(3, 5).bool()
    annotated[0, 3] = False
    target = target.clone()
    target[0][target[0] == 3] = 0
    moved = marginal(logits, annotated)
    truth, _ = one_hot(target, 5)
    dice = ml.DiceLoss(reduction='none')(moved.softmax(1), truth.to(logits)).flatten(1)
    by_hand = (dice[0, [0, 1, 2, 4]].mean() + dice[1].mean() + dice[2].mean()) / 3
    assert_close(dice_loss(logits, target, annotated), by_hand)


def test_two_processes_agree_with_one(batch):
    logits, target = batch
    _, target = partly_ignored(logits, target)
    annotated = torch.ones(3, 5).bool()
    first = dice_focal(logits[:1], target[:1], annotated=annotated[:1])
    others = dice_focal(logits[1:], target[1:], annotated=annotated[1:])
    assert_close((first + 2 * others) / 3, dice_focal(logits, target))


def test_an_image_that_is_ignored_as_a_whole(batch):
    logits, _ = batch
    logits.requires_grad_()
    nothing = torch.full((3, 6, 11), IGNORE)
    dice_focal(logits, nothing).backward()
    assert focal_loss(logits, nothing).item() == 0
    assert torch.isfinite(logits.grad).all()
