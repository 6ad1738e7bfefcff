"The edges of HASF's parts: Eq. 1, Eq. 2, the text projection, one stage and five"

import pytest
import torch
from helpers import defaults
from torch.testing import assert_close

from atm_net.core import InputError
from atm_net.fusion import (
    HASF,
    Attention,
    HASFStage,
    SelfEnhance,
    SineCosine,
    TextFusion,
    TextProjection,
    code_1d,
    code_2d,
    of_images,
    to_grid,
    to_tokens,
)
from atm_net.text import TextFeatures


def words(p=2, length=11, d=5, padding=(), seed=0, index=None) -> TextFeatures:
    "Random states of p prompts; `padding`: (prompt, first place of padding)"
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(p, length).bool()
    for prompt, first in padding:
        mask[prompt, first:] = False
    states = torch.randn(p, length, d, generator=generator).double()
    return TextFeatures(states, mask, torch.zeros(p, length).long(), index)


def test_defaults():
    assert defaults(Attention) == {'heads': 4}
    assert defaults(SelfEnhance) == {'heads': 4, 'position': None}
    assert defaults(TextProjection) == {'n_tokens': 32}
    assert defaults(TextFusion) == {'heads': 4, 'alpha': 0.1, 'position': None}
    own = {'project': None, 'enhance': None, 'fuse': None}
    assert defaults(HASFStage) == {'n_tokens': 32, 'heads': 4, 'alpha': 0.1} | own


# --- position encoding


def test_no_two_places_share_a_code():
    code = code_2d(5, 7, 12)
    assert code.shape == (35, 12)
    assert torch.cdist(code, code).fill_diagonal_(9).min() > 0.05
    assert code_1d(5, 4).shape == (5, 4)
    assert code_2d(2, 3, 8).shape == (6, 8)


def test_channels_that_do_not_divide():
    with pytest.raises(InputError, match='6 channels are not divisible by 4'):
        code_2d(5, 7, 6)
    with pytest.raises(InputError, match='7 channels are not divisible by 2'):
        code_1d(5, 7)
    with pytest.raises(InputError, match='9 channels are not divisible by 2'):
        code_1d(5, 9)
    for dim in (6, 9):
        with pytest.raises(InputError, match='divisible by 4'):
            SineCosine(dim)


def test_code_of_an_image_and_of_a_text():
    position, tokens = SineCosine(12), torch.zeros(2, 35, 12).double()
    assert_close(position(tokens, (5, 7)), code_2d(5, 7, 12).double())
    assert_close(position(tokens), code_1d(35, 12).double())


# --- attention


def test_heads_must_divide():
    with pytest.raises(InputError, match='12 channels are not divisible by 5 heads'):
        Attention(12, heads=5)


def test_keys_have_no_bias():
    "The softmax would cancel it"
    names = ['k.weight', 'out.bias', 'out.weight', 'q.bias', 'q.weight', 'v.bias', 'v.weight']
    assert sorted(Attention(12).state_dict()) == names


def test_no_weight_on_padding():
    torch.manual_seed(0)
    attention = Attention(12, heads=3).double()
    q, k = torch.randn(2, 35, 12).double(), torch.randn(2, 7, 12).double()
    mask = torch.ones(2, 7).bool()
    mask[0, 5:] = False
    weights = attention.weights(q, k, mask)
    assert weights[0, :, 5:].abs().max() == 0
    assert_close(weights.sum(-1), torch.ones(2, 35).double())
    k2 = k.clone()
    k2[0, 5:] = 99
    assert_close(attention(q, k2, k2, mask), attention(q, k, k, mask))


def test_rows_of_prompts_as_rows_of_images():
    x = torch.arange(3)[:, None]
    assert of_images(x, torch.tensor([2, 0, 2])).flatten().tolist() == [2, 0, 2]
    assert of_images(x, None) is x


# --- Eq. 1


def test_norms_of_weight_0_make_the_identity():
    enhance, image = SelfEnhance(12, 3), torch.randn(2, 35, 12)
    torch.nn.init.zeros_(enhance.norm.weight)
    assert_close(enhance(image, (5, 7)), image)


def test_another_position_encoding_is_handed_in():
    class Nowhere(torch.nn.Module):
        def forward(self, tokens, grid=None):
            return torch.zeros_like(tokens[0])

    torch.manual_seed(0)
    enhance, image = SelfEnhance(12, 3, Nowhere()), torch.randn(1, 35, 12)
    order = torch.randperm(35)
    assert_close(enhance(image[:, order], (5, 7)), enhance(image, (5, 7))[:, order])
    with_places = SelfEnhance(12, 3)
    with_places.load_state_dict(enhance.state_dict())
    change = with_places(image[:, order], (5, 7)) - with_places(image, (5, 7))[:, order]
    assert change.abs().max() > 1e-3


# --- text projection


def test_another_length_is_refused():
    for length in (10, 12):
        with pytest.raises(InputError, match=f'have {length} token places.* built for 11'):
            TextProjection(5, 12, 11).double()(words(length=length))


def test_padding_does_not_leak():
    torch.manual_seed(0)
    project = TextProjection(5, 12, 11, n_tokens=4).double()
    text = words(padding=[(1, 8)])
    states = text.states.clone()
    states[1, 8:] = 99
    other = TextFeatures(states, text.mask, text.level_rank)
    assert_close(project(other).states, project(text).states)


def test_projected_text():
    text = words(index=torch.tensor([1, 0, 1]))
    projected = TextProjection(5, 12, 11, n_tokens=4).double()(text)
    assert projected.states.shape == (2, 4, 12)
    assert projected.mask is None  # every mixture counts
    assert projected.prompt_index is text.prompt_index


# --- Eq. 2


@pytest.fixture
def fusion():
    torch.manual_seed(0)
    fuse = TextFusion(12, 3, alpha=0.7).double()
    torch.nn.init.normal_(fuse.norm.weight)
    image = torch.randn(2, 35, 12).double()
    text = words(length=7, d=12)
    return fuse, image, text


def test_alpha_0_is_no_text(fusion):
    fuse, image, text = fusion
    torch.nn.init.zeros_(fuse.alpha)
    assert_close(fuse(image, text, (5, 7)), image)


def test_order_of_words_matters(fusion):
    fuse, image, text = fusion
    flipped = TextFeatures(text.states.flip(1), text.mask, text.level_rank)
    assert (fuse(image, flipped, (5, 7)) - fuse(image, text, (5, 7))).abs().max() > 1e-3


def test_shapes(fusion):
    fuse, image, text = fusion
    assert fuse(image, text, (5, 7)).shape == (2, 35, 12)
    assert fuse.weights(image, text, (5, 7)).shape == (2, 35, 7)


# --- stages


def test_tokens_and_grid():
    features = torch.randn(2, 3, 5, 7)
    tokens = to_tokens(features)
    assert tokens.shape == (2, 35, 3)
    assert_close(tokens[1, 2 * 7 + 4], features[1, :, 2, 4])
    assert_close(to_grid(tokens, (5, 7)), features)


def test_a_stage_is_its_three_steps():
    torch.manual_seed(0)
    stage = HASFStage(12, 5, 11, n_tokens=4, heads=3).double()
    features, text = torch.randn(2, 12, 5, 7).double(), words(padding=[(1, 8)])
    image = stage.enhance(to_tokens(features), (5, 7))
    fused = stage.fuse(image, stage.project(text), (5, 7))
    assert_close(stage(features, text), to_grid(fused, (5, 7)))


def test_position_matters():
    torch.manual_seed(1)
    stage = HASFStage(12, 5, 11, n_tokens=4, heads=3).double()
    x, text = torch.randn(2, 12, 5, 7).double(), words()
    assert (stage(x.flip(3), text).flip(3) - stage(x, text)).abs().max() > 1e-3


def test_images_that_share_prompts():
    "As if each image brought its own, but keys and values are projected once for each prompt"
    torch.manual_seed(0)
    stage = HASFStage(12, 5, 11, n_tokens=4, heads=3).double()
    x, index = torch.randn(3, 12, 5, 7).double(), torch.tensor([1, 0, 1])
    shared = words(padding=[(1, 8)], index=index)
    own = TextFeatures(shared.states[index], shared.mask[index], shared.level_rank[index])
    assert_close(stage(x, shared), stage(x, own))
    rows = []
    for linear in (stage.fuse.att.k, stage.fuse.att.v):
        linear.register_forward_hook(lambda module, inputs, result: rows.append(len(inputs[0])))
    stage(x, shared)
    assert rows == [2, 2]


def test_five_stages():
    five = HASF((192, 96, 48, 24, 12), 5, 11, n_tokens=4, heads=2, alpha=0.5)
    assert [stage.fuse.att.q.weight.shape[0] for stage in five] == [192, 96, 48, 24, 12]
    assert {stage.fuse.alpha.item() for stage in five} == {0.5}
    assert {stage.enhance.att.heads for stage in five} == {2}


def test_other_modules_are_handed_in():
    project, enhance, fuse = TextProjection(5, 12, 11, 4), SelfEnhance(12, 3), TextFusion(12, 3)
    stage = HASFStage(12, 5, 11, project=project, enhance=enhance, fuse=fuse)
    assert (stage.project, stage.enhance, stage.fuse) == (project, enhance, fuse)
