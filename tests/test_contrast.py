"The edges of the contrast between class channels and class sentences (Eq. 5 to 7)"

import pytest
import torch
import torch.nn.functional as F
from helpers import contrast_batch, defaults
from torch.testing import assert_close

from atm_net.contrast import ChannelContrast, centre_norm, info_nce, pool_words
from atm_net.core import InputError


def test_defaults():
    assert defaults(ChannelContrast) == {'grid': 8, 'tau': 0.07}
    assert defaults(info_nce) == {'tau': 0.07}
    assert list(ChannelContrast().parameters()) == []


# --- Eq. 5


def test_tokens_count_alike():
    states = torch.tensor([[1.0], [2.0], [9.0]])
    assert pool_words(states, torch.tensor([True, True, True])).item() == 4.0


def test_level_ranks_are_no_mask():
    "A rank would weigh its token: 1, 2 and 9 with the ranks 1, 2 and 5 gave 6.25 in place of 4"
    states = torch.tensor([[1.0], [2.0], [9.0]])
    for ranks in (torch.tensor([1, 2, 5], dtype=torch.uint8), torch.tensor([0, 1, 2])):
        with pytest.raises(InputError, match='not bool'):
            pool_words(states, ranks)


def test_one_token_and_none():
    states, mask = torch.randn(1, 7, 5), torch.zeros(1, 7).bool()
    assert_close(pool_words(states, mask), torch.zeros(1, 5))
    mask[0, 3] = True
    assert_close(pool_words(states, mask)[0], states[0, 3])


def test_norm_with_a_class_that_takes_no_part():
    torch.manual_seed(0)
    vectors = torch.randn(1, 1, 16) + 0.2 * torch.randn(1, 5, 16)  # five almost equal vectors
    known = torch.tensor([[True, True, False, True, True]])
    normed = centre_norm(vectors, known)
    assert_close(normed.norm(dim=-1)[0], torch.tensor([1.0, 1, 0, 1, 1]))
    by_hand = F.normalize(vectors[0, 1] - vectors[0, [0, 1, 3, 4]].mean(0), dim=0)
    assert_close(normed[0, 1], by_hand)


def test_norm_without_a_known_class():
    vectors = torch.randn(2, 6, 5)
    assert_close(centre_norm(vectors, torch.zeros(2, 6).bool()), torch.zeros(2, 6, 5))


def test_norm_of_equal_vectors_is_finite():
    vectors, known = torch.ones(1, 4, 3), torch.ones(1, 4).bool()
    assert_close(centre_norm(vectors, known), torch.zeros(1, 4, 3))


# --- Eq. 7


@pytest.fixture
def pairs():
    torch.manual_seed(0)
    f_o, f_c = (F.normalize(torch.randn(3, 7, 5).double(), dim=-1) for _ in range(2))
    present, known = torch.rand(3, 7) > 0.4, torch.rand(3, 7) > 0.2
    present[2] = False
    return f_o, f_c, present, known


def test_two_processes_agree_with_one(pairs):
    first = info_nce(*(x[:1] for x in pairs))
    others = info_nce(*(x[1:] for x in pairs))
    assert_close((first + 2 * others) / 3, info_nce(*pairs))


def test_an_image_without_positives_adds_nothing(pairs):
    f_o, f_c, present, known = pairs
    two = info_nce(f_o[:2], f_c[:2], present[:2], known[:2])
    assert_close(info_nce(*pairs), two * 2 / 3)


def test_nobody_to_match_gives_0_with_gradient(pairs):
    f_o, f_c, present, known = pairs
    f_o = f_o.clone().requires_grad_()
    loss = info_nce(f_o, f_c, torch.zeros_like(present), known)
    loss.backward()
    assert (loss.item(), f_o.grad.abs().max().item()) == (0, 0)


def test_an_unknown_class_takes_no_part(pairs):
    f_o, f_c, present, _ = pairs
    known = torch.ones(3, 7).bool()
    known[:, 4] = False
    others = [0, 1, 2, 3, 5, 6]
    without = info_nce(f_o[:, others], f_c[:, others], present[:, others], known[:, others])
    assert_close(info_nce(f_o, f_c, present, known), without)


def test_half_precision_around_it():
    v, t = (F.normalize(torch.randn(2, 6, 5), dim=-1) for _ in range(2))
    yes = torch.ones(2, 6).bool()
    plain = info_nce(v, t, yes, yes)
    with torch.autocast('cpu', torch.bfloat16):
        assert info_nce(v, t, yes, yes) == plain  # not one bit less
    types = (torch.bfloat16, torch.float32, torch.float64)
    made = [info_nce(v.to(k), t.to(k), yes, yes).dtype for k in types]
    assert made == [torch.float32, torch.float32, torch.float64]


# --- the module


@pytest.fixture
def batch():
    return contrast_batch()


def test_another_text_another_loss(batch):
    probs, text, present = batch
    contrast = ChannelContrast(grid=4)
    assert contrast(probs, text, present) != contrast(probs, text.roll(1, 1), present)


def test_background_takes_no_part(batch):
    probs, text, present = batch
    contrast = ChannelContrast(grid=4)
    other = text.clone()
    other[:, 0] = 9
    assert_close(contrast(probs, other, present), contrast(probs, text, present))


def test_gradient_reaches_the_image(batch):
    _, text, present = batch
    logits = torch.randn(3, 6, 16, 24).double().requires_grad_()
    ChannelContrast(grid=4)(logits.softmax(1), text, present).backward()
    assert logits.grad.abs().max() > 0


def test_known_is_all_unless_it_is_said(batch):
    probs, text, present = batch
    contrast = ChannelContrast(grid=4, tau=0.3)
    known = torch.ones_like(present)
    assert_close(contrast(probs, text, present), contrast(probs, text, present, known))
    known[:, 2] = False
    assert contrast(probs, text, present) != contrast(probs, text, present, known)


def test_half_precision_around_the_module():
    contrast = ChannelContrast()
    probs, text = torch.randn(2, 7, 16, 24).softmax(1), torch.randn(2, 7, 64)
    yes = torch.ones(2, 7).bool()
    plain = info_nce(*contrast.vectors(probs, text, yes), yes[:, 1:], yes[:, 1:]).item()
    with torch.autocast('cpu', torch.bfloat16):
        assert contrast(probs, text, yes).item() == plain
