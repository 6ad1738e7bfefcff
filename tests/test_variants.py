"The edges of what is ours: other attention, keys, position encodings, contrast and decoders"

import copy
import math
from dataclasses import replace

import pytest
import torch
from helpers import contrast_batch, defaults
from monai.networks.nets import SwinUNETR
from torch import nn
from torch.testing import assert_close

from atm_net.anatomy import LUMBAR
from atm_net.contrast import ChannelContrast
from atm_net.core import InputError
from atm_net.fusion import (
    HASFStage,
    SelfEnhance,
    SineCosine,
    TextFusion,
    TextProjection,
    code_1d,
    to_tokens,
)
from atm_net.losses import dice_focal
from atm_net.model import ATMNet, SwinBackbone
from atm_net.prompts import holistic
from atm_net.text import TextFeatures, load_encoder
from atm_net.variants import (
    EndsFusion,
    LevelFusion,
    PooledSelfEnhance,
    ProjectedContrast,
    RowByRow,
    TwoDecoders,
    WordProjection,
    forward_repeated,
    logits_and_word_maps,
    to_words,
    wave,
    word_map,
)
from atm_net.weights import build_network

RANK = torch.tensor([[0, 1, 0, 2, 3, 0, 0], [0, 0, 1, 0, 0, 0, 0]])  # of seven words
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0, 0]]).bool()


def ranked(d=12) -> TextFeatures:
    return TextFeatures(torch.randn(2, 7, d).double(), MASK, RANK)


def test_defaults():
    assert defaults(PooledSelfEnhance) == {'heads': 4, 'position': None, 'pool': 8}
    assert defaults(LevelFusion) == {'heads': 4, 'alpha': 0.1, 'stride': 1}
    assert defaults(ProjectedContrast) == {'grid': 8, 'dim': 64, 'tau': 0.07}


def test_wavelengths():
    "From 14 to 400 px: after so much the first and the last pair of channels are as at 0"
    code = wave(torch.tensor([0.0, 14.0, 400.0]), 12)
    assert_close(code[1, :2], code[0, :2], rtol=0, atol=1e-5)
    assert_close(code[2, -2:], code[0, -2:], rtol=0, atol=1e-5)


# --- pooled attention, running numbers


def test_pooled_attention():
    torch.manual_seed(0)
    exact = SelfEnhance(12, 3).double()
    nn.init.normal_(exact.norm.weight)
    image = torch.randn(2, 35, 12).double()
    for pool, same in ((7, True), (3, False)):
        pooled = PooledSelfEnhance(12, 3, pool=pool).double()
        pooled.load_state_dict(exact.state_dict())
        change = (pooled(image, (5, 7)) - exact(image, (5, 7))).abs().max()
        assert (change < 1e-9) == same
    means = pooled.pooled(image, (5, 7))
    assert means.shape == (2, 9, 12)
    rows = image.unflatten(1, (5, 7))
    assert_close(means[:, 0], rows[:, :2, :3].mean((1, 2)))


def test_row_by_row():
    position, tokens = RowByRow(6), torch.zeros(2, 35, 6).double()
    assert_close(position(tokens, (5, 7)), code_1d(35, 6).double())
    assert_close(position(tokens), code_1d(35, 6).double())
    with pytest.raises(InputError, match='divisible by 2'):
        RowByRow(7)


# --- words as keys


def test_words_as_keys():
    torch.manual_seed(0)
    project = WordProjection(5, 12, 7).double()
    text = replace(ranked(5), prompt_index=torch.tensor([1, 0, 1]))
    projected = project(text)
    by_hand = text.states[0, 3] @ project.linear.weight.T + project.linear.bias
    assert_close(projected.states[0, 3], by_hand.clamp_min(0))
    assert_close(projected.states[1, 5], project.linear.bias.clamp_min(0))  # padding is 0
    assert projected.mask is MASK and projected.level_rank is RANK
    assert projected.prompt_index is text.prompt_index
    with pytest.raises(InputError, match='have 7 token places, the model was built for 8'):
        WordProjection(5, 12, 8).double()(text)


# --- position encoding by the order of levels


def test_wave():
    code = wave(torch.tensor([[2.5, 7.0], [0.0, 31.0]]), 6)
    lengths = [14 * (400 / 14) ** (j / 2) for j in range(3)]
    angles = [2 * math.pi * 31 / length for length in lengths]
    by_hand = [f(angle) for angle in angles for f in (math.sin, math.cos)]
    assert_close(code[1, 1], torch.tensor(by_hand))
    assert code.shape == (2, 2, 6)
    with pytest.raises(InputError, match='5 channels'):
        wave(torch.zeros(3), 5)


def test_places_of_words_and_rows():
    torch.manual_seed(0)
    fuse = LevelFusion(12, 3, stride=4).double()
    image, text = torch.randn(2, 35, 12).double(), ranked()
    query, key = fuse.with_positions(image, text, (5, 7))
    rows = torch.tensor([4 * (i // 7 + 0.5) for i in range(35)])
    assert_close(query, image + wave(rows, 12).double())
    expected = text.states.clone()
    for prompt, word, rank in ((0, 1, 1), (0, 3, 2), (0, 4, 3), (1, 2, 1)):
        expected[prompt, word] += wave(torch.tensor((rank - 0.5) * 9.0), 12).double()
    assert_close(key, expected, rtol=1e-5, atol=1e-6)


def test_level_fusion_starts_with_agreeing_projections():
    fuse = LevelFusion(12, 3, alpha=0.7)
    assert_close(fuse.att.k.weight, fuse.att.q.weight)
    assert (fuse.pitch.item(), round(fuse.alpha.item(), 6)) == (9.0, 0.7)
    assert [name for name, _ in fuse.named_parameters()][:2] == ['alpha', 'pitch']


def test_level_fusion_is_eq_2_with_other_places():
    torch.manual_seed(0)
    fuse = LevelFusion(12, 3, alpha=0.7, stride=4).double()
    image, text = torch.randn(2, 35, 12).double(), ranked()
    query, key = fuse.with_positions(image, text, (5, 7))
    attended = fuse.att(query, key, text.states, text.mask)
    assert_close(fuse(image, text, (5, 7)), image + fuse.alpha * fuse.norm(attended))
    fuse(image, text, (5, 7)).square().mean().backward()
    assert fuse.pitch.grad.abs() > 0


def test_levels_counted_from_the_end_of_the_list_too():
    torch.manual_seed(0)
    fuse = EndsFusion(12, 3, stride=4).double()
    image, text = torch.randn(2, 35, 12).double(), ranked()
    query, key = fuse.with_positions(image, text, (5, 7))
    top_query, top_key = LevelFusion.with_positions(fuse, image, text, (5, 7))
    assert_close(query, top_query)
    expected = torch.zeros(2, *text.states.shape[1:]).double()
    # prompt 0 names three levels, prompt 1 one: the last stands half a pitch above the edge
    for prompt, word, from_end in ((0, 1, 3), (0, 3, 2), (0, 4, 1), (1, 2, 1)):
        place = 5 * 4 - (from_end - 0.5) * 9.0
        expected[prompt, word] += wave(torch.tensor(place), 12).double()
    assert_close(key - top_key, fuse.from_end * expected, rtol=1e-5, atol=1e-5)


def test_a_list_cut_at_its_top_keeps_its_places_from_the_end():
    fuse = EndsFusion(12, 3, stride=4)
    with torch.no_grad():
        fuse.from_end.fill_(1.0)
    whole, cut = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 3]])

    def from_end(rank):
        text = TextFeatures(torch.zeros(1, rank.shape[1], 12), None, rank)
        image = torch.zeros(1, 35, 12)
        own = fuse.with_positions(image, text, (5, 7))[1]
        return own - LevelFusion.with_positions(fuse, image, text, (5, 7))[1]

    assert_close(from_end(whole)[:, 1:], from_end(cut))


def test_rows_that_pad_an_image_move_no_word():
    "An image of 20 px and its copy with 12 rows below: the words lie at the same places"
    fuse = EndsFusion(12, 3, stride=4)
    rank = torch.tensor([[1, 0, 2, 3]])

    def keys(rows, image_rows):
        text = TextFeatures(torch.zeros(1, 4, 12), None, rank, image_rows=image_rows)
        return fuse.with_positions(torch.zeros(1, rows * 7, 12), text, (rows, 7))[1]

    assert_close(keys(8, 20), keys(5, None))
    assert (keys(8, None) - keys(5, None)).abs().max() > 0.1


# --- contrast


@pytest.fixture
def batch():
    return contrast_batch()


def test_projected_contrast_by_hand(batch):
    probs, text, present = batch
    contrast = ProjectedContrast(128, grid=4, dim=5).double()
    f_o, f_c = contrast.vectors(probs, text, torch.ones(3, 6).bool())
    cells = torch.stack(
        [
            probs[:, 1:, 4 * i : 4 * i + 4, 6 * j : 6 * j + 6].mean((2, 3))
            for i in range(4)
            for j in range(4)
        ],
        -1,
    )
    for found, vectors in (
        (f_o, cells @ contrast.visual.weight.T),
        (f_c, text[:, 1:] @ contrast.textual.weight.T),
    ):
        centred = vectors - vectors.mean(1, keepdim=True)
        assert_close(found, nn.functional.normalize(centred, dim=-1))
    assert isinstance(contrast, ChannelContrast)
    contrast(probs, text, present).backward()
    assert all(p.grad.abs().max() > 0 for p in contrast.parameters())


def test_weights_of_the_projection():
    shapes = {k: tuple(v.shape) for k, v in ProjectedContrast(12).state_dict().items()}
    assert shapes == {'visual.weight': (64, 64), 'textual.weight': (64, 12)}


# --- Swin UNETR-V2


def test_version_2_is_monai():
    torch.manual_seed(0)
    theirs = SwinUNETR(in_channels=1, out_channels=5, feature_size=12, spatial_dims=2, use_v2=True)
    torch.manual_seed(0)
    ours = ATMNet(5, hasf=False, ccae=False, backbone=SwinBackbone(5, use_v2=True))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))


# --- a decoder for the text


@pytest.fixture(scope='module')
def prompts():
    "Features of two prompts that name levels and of one that names none"
    encoder = load_encoder('spine_bert_tiny')
    views = [LUMBAR.run('T11', 'L3') + ('SC',), LUMBAR.run('L1', 'S') + ('SC',)]
    named = [str(holistic(view, LUMBAR, option=3, position='middle')) for view in views]
    silent = str(holistic((), LUMBAR, 1, source='generic'))

    def features(*numbers):
        return encoder.features([[*named, silent][i] for i in numbers], 128, LUMBAR)

    return features


@pytest.fixture(scope='module')
def two():
    torch.manual_seed(0)
    net = build_network('atm_net', 21, alpha=0.5, tokens='words', text_decoder=True).eval()
    with torch.no_grad():
        for p in net.text_decoder.parameters():
            p.add_(0.05 * torch.randn_like(p))  # as after some steps
    return net


@pytest.fixture(scope='module')
def plain(two):
    "The network that is left without text"
    net = build_network('swin_unetr', 21).eval()
    state = two.state_dict()
    net.load_state_dict({key: state[key] for key in net.state_dict()})
    return net


@pytest.fixture(scope='module')
def one(two):
    "A network whose only decoder is that of the text"
    net = build_network('atm_net', 21, tokens='words').eval()
    state = two.state_dict()
    net.load_state_dict({k: state.get(f'text_decoder.{k}', state[k]) for k in net.state_dict()})
    return net


@pytest.fixture(scope='module')
def images():
    return torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(1))


def test_text_that_names_nothing_is_the_plain_network(two, plain, images, prompts):
    with torch.no_grad():
        assert torch.equal(two(images, prompts(2, 2)), plain(images))
        assert torch.equal(two(images, text=False), plain(images))


def test_each_image_takes_its_decoder(two, plain, one, images, prompts):
    with torch.no_grad():
        without, with_text = plain(images), one(images, prompts(0, 1))
        assert (without - with_text).abs().max() > 1e-2
        assert_close(two(images, prompts(0, 1)), with_text)
        mixed = torch.stack([without[0], with_text[1]])
        assert_close(two(images, prompts(2, 1)), mixed, atol=1e-5, rtol=1e-5)
        turned = replace(prompts(2, 1), prompt_index=torch.tensor([1, 0]))
        expected = torch.stack([one(images, prompts(1, 1))[0], without[1]])
        assert_close(two(images, turned), expected, atol=1e-5, rtol=1e-5)


def test_two_readings(two, plain, one, images, prompts):
    with torch.no_grad():
        found = forward_repeated(two, images, prompts(0, 1, 2, 2))
        expected = torch.cat([one(images, prompts(0, 1)), plain(images)])
    assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_both_decoders_at_once(two, plain, one, images, prompts):
    with torch.no_grad():
        expected = torch.cat([one(images, prompts(0, 1)), plain(images)])
        assert_close(two.forward_paired(images, prompts(0, 1)), expected)


def test_a_prompt_without_names_still_has_word_maps(two, plain, images, prompts):
    with torch.no_grad():
        logits, maps = logits_and_word_maps(two, images, prompts(2, 2))
        assert torch.equal(logits, plain(images))
        assert [tuple(m.shape[2:]) for m in maps] == [(2, 3), (4, 6), (8, 12), (16, 24), (32, 48)]


def trained(net, loss) -> set:
    "Names of the parameters that get gradient"
    net.zero_grad()
    loss.backward()
    return {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


def test_who_trains_what(two, images, prompts):
    target = torch.randint(0, 21, (2, 64, 96))
    names = {n for n, _ in two.named_parameters() if not n.startswith('ccae')}
    of_text = {n for n in names if n.startswith(('hasf', 'text_decoder'))}
    of_last = {n for n in names if n.startswith('out.')}
    by_reading = trained(two, dice_focal(two(images, prompts(0, 1)), target))
    assert by_reading - of_last == of_text
    pair = two.forward_paired(images, prompts(0, 1))
    assert trained(two, dice_focal(pair[:2], target)) == of_text
    pair = two.forward_paired(images, prompts(0, 1))
    assert trained(two, dice_focal(pair[2:], target)) == names - of_text


def test_paired_gradient_of_the_plain_part(two, plain, images, prompts):
    "It is that of a plain network, whatever the text teaches"
    target = torch.randint(0, 21, (2, 64, 96))
    pair = two.forward_paired(images, prompts(0, 1))
    trained(two, dice_focal(pair[:2], target) + dice_focal(pair[2:], target))
    plain.zero_grad()
    dice_focal(plain(images), target).backward()
    gradients = {n: p.grad for n, p in two.named_parameters()}
    for name, p in plain.named_parameters():
        assert_close(gradients[name], p.grad, atol=1e-7, rtol=1e-5)


def test_start_of_the_text_decoder(two):
    net = copy.deepcopy(two)
    net.start_text_decoder()
    for name in net.backbone.STAGES:
        own, copied = getattr(net, name).state_dict(), net.text_decoder[name].state_dict()
        assert_close(copied, own, atol=0, rtol=0)
    assert isinstance(net, TwoDecoders)


class Exported(nn.Module):
    "A network that takes text as tensors, for `torch.export`"

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images, *tensors):
        return self.net(images, TextFeatures(*tensors))


def tensors(text: TextFeatures) -> tuple:
    "Each image's own"
    index = text.prompt_index
    return text.states[index], text.mask[index], text.level_rank[index]


@pytest.mark.slow
def test_a_graph_takes_both_ways_and_picks(two, images, prompts):
    args = (images, *tensors(prompts(0, 1)))
    graph = torch.export.export(Exported(two), args, strict=False).module()
    with torch.no_grad():
        for numbers in ((0, 1), (2, 2), (2, 1)):
            expected = two(images, prompts(*numbers))
            found = graph(images, *tensors(prompts(*numbers)))
            assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    'kwargs',
    [
        {'tokens': 'words', 'code': 'order', 'attention': 'pooled', 'use_v2': True},
        {'tokens': 'mixed', 'code': '2d', 'attention': 'exact'},
    ],
    ids=['tiny', 'paper'],
)
def test_a_graph_of_the_presets(kwargs, images, prompts):
    torch.manual_seed(1)
    net = build_network('atm_net', 21, alpha=0.5, **kwargs).eval()
    first, second = tensors(prompts(0, 1)), tensors(prompts(1, 0))
    graph = torch.export.export(Exported(net), (images, *first), strict=False).module()
    others = images.flip(0)
    with torch.no_grad():
        for x, text in ((images, first), (others, second)):
            assert_close(graph(x, *text), net(x, TextFeatures(*text)), atol=1e-4, rtol=1e-4)
        assert (graph(others, *second) - graph(others, *first)).abs().max() > 1e-3  # it reads


# --- several texts, word maps


def test_repeated_reading_encodes_each_image_once(one, images, prompts):
    seen = []
    hook = one.swinViT.register_forward_hook(lambda m, inputs, out: seen.append(len(inputs[0])))
    turns = [(0, 1), (1, 0), (2, 1)]
    with torch.no_grad():
        each = torch.cat([one(images, prompts(*turn)) for turn in turns])
        seen.clear()
        together = forward_repeated(one, images, prompts(*(i for turn in turns for i in turn)))
    hook.remove()
    assert seen == [2]
    assert_close(together, each, atol=1e-5, rtol=1e-5)
    assert (each[:2] - each[2:4]).abs().max() > 1e-3


def test_repeated_reading_without_an_index(one, images, prompts):
    text = prompts(0, 1, 2, 1)
    own = TextFeatures(*tensors(text))
    with torch.no_grad():
        found = forward_repeated(one, images, own)
        assert_close(found, forward_repeated(one, images, text), atol=1e-5, rtol=1e-5)


def test_attention_on_words():
    torch.manual_seed(0)
    project = TextProjection(5, 12, 11, n_tokens=4).double()
    mask = torch.ones(2, 11).bool()
    mask[1, 8:] = False
    weights = torch.rand(2, 35, 4).double().softmax(-1)
    share = to_words(project, weights, mask)
    assert_close(share.sum(-1), torch.ones(2, 35).double())
    assert share[1, :, 8:].abs().max() == 0
    size = project.mix.weight[..., 0].abs()
    by_hand = sum(weights[0, 2, m] * size[m, 6] / size[m].sum() for m in range(4))
    assert_close(share[0, 2, 6], by_hand)
    nothing = to_words(project, weights[:1], torch.zeros(1, 11).bool())
    assert_close(nothing, torch.zeros(1, 35, 11).double())  # no word: no share, and no NaN
    of_words = WordProjection(5, 12, 11)
    assert to_words(of_words, weights, mask) is weights


def test_word_map_of_a_stage():
    torch.manual_seed(0)
    project, position = WordProjection(5, 12, 7), SineCosine(12)
    stage = HASFStage(12, 5, 7, project=project, fuse=TextFusion(12, 3, position=position)).double()
    features = torch.randn(3, 12, 5, 7).double()
    text = replace(ranked(5), prompt_index=torch.tensor([1, 0, 1]))
    shares = word_map(stage, features, text)
    image = stage.enhance(to_tokens(features), (5, 7))
    weights = stage.fuse.weights(image, stage.project(text), (5, 7))
    assert_close(shares[1, :, 2, 4], weights[1, 2 * 7 + 4])
    assert_close(shares.sum(1), torch.ones(3, 5, 7).double())


def test_word_maps_of_a_network(one, images, prompts):
    with torch.no_grad():
        text = prompts(0, 1)
        logits, maps = logits_and_word_maps(one, images, text)
        assert_close(logits, one(images, text))
        assert len(maps) == 5
        for shares in maps:
            assert_close(shares.sum(1), torch.ones(2, *shares.shape[2:]), atol=1e-5, rtol=1e-5)
        first = word_map(one.hasf[0], one.backbone.encode(images)[0], text)
        assert_close(maps[0], first)
