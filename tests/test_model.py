"The edges of ATM-Net: its parts, its paths with and without text, its backbone (Eq. 3)"

import copy
from inspect import signature

import pytest
import torch
from monai.networks.nets import SwinUNETR
from torch import nn
from torch.testing import assert_close

from atm_net.contrast import ChannelContrast
from atm_net.core import InputError
from atm_net.fusion import HASF, HASFStage
from atm_net.model import ATMNet, PlainUp, SwinBackbone
from atm_net.text import TextFeatures


def words(p=2, seed=0, index=None) -> TextFeatures:
    states = torch.randn(p, 11, 7, generator=torch.Generator().manual_seed(seed))
    return TextFeatures(states, torch.ones(p, 11).bool(), torch.zeros(p, 11).long(), index)


@pytest.fixture(scope='module')
def net():
    torch.manual_seed(0)
    return ATMNet(5, text_dim=7, length=11).eval()


@pytest.fixture(scope='module')
def images():
    return torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(1))


def test_defaults():
    parameters = signature(ATMNet).parameters
    assert {k: p.default for k, p in parameters.items() if p.default is not p.empty} == {
        'feature_size': 12,
        'hasf': True,
        'ccae': True,
        'text_dim': 128,
        'length': 128,
        'backbone': None,
    }


def test_flags_off_is_monai(images):
    torch.manual_seed(0)
    baseline = SwinUNETR(in_channels=1, out_channels=5, feature_size=12, spatial_dims=2)
    torch.manual_seed(0)
    plain = ATMNet(5, hasf=False, ccae=False)
    ours, theirs = plain.state_dict(), baseline.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in baseline.named_parameters()]
    with torch.no_grad():
        assert torch.equal(plain.eval()(images), baseline.eval()(images))
    assert plain.hasf is None and plain.ccae is None


def test_parts_follow_switches():
    assert isinstance(ATMNet(5, hasf=False).ccae, ChannelContrast)
    assert ATMNet(5, ccae=False).ccae is None
    hasf = ATMNet(5, ccae=False, text_dim=7, length=11).hasf
    assert isinstance(hasf, HASF)
    assert [stage.enhance.norm.weight.numel() for stage in hasf] == [192, 96, 48, 24, 12]
    assert hasf[0].project.mix.weight.shape == (32, 11, 1)
    assert hasf[0].project.linear.weight.shape == (192, 7)


def test_parts_are_handed_in(images):
    stages = nn.ModuleList(HASFStage(dim, 7, 11, heads=2) for dim in (192, 96, 48, 24, 12))
    contrast, backbone = ChannelContrast(grid=3), SwinBackbone(5, stage=PlainUp)
    net = ATMNet(5, hasf=stages, ccae=contrast, backbone=backbone)
    assert (net.hasf, net.ccae, net.backbone) == (stages, contrast, backbone)
    assert net(images, words()).shape == (2, 5, 64, 96)


def test_weights_of_the_backbone_go_along(net):
    "It is no child, but its parts are: they move, copy and train as one"
    assert net.backbone.swinViT is net.swinViT
    again = copy.deepcopy(net)
    assert again.backbone.swinViT is again.swinViT is not net.swinViT
    assert not any(name.startswith('backbone') for name in net.state_dict())
    again.train()
    assert again.backbone.encoder1.training and not net.backbone.encoder1.training
    assert next(again.double().backbone.decoder1.parameters()).dtype == torch.float64


# --- paths


def test_text_that_was_forgotten(net, images):
    with pytest.raises(InputError, match='reads text: give it the features of a prompt'):
        net(images)
    with torch.no_grad():
        without = net(images, text=False)
    plain = ATMNet(5, hasf=False, ccae=False).eval()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith('hasf')})
    with torch.no_grad():
        assert torch.equal(without, plain(images))
        assert torch.equal(without, plain(images, words()))  # nothing reads it


def test_another_text_another_output(net, images):
    with torch.no_grad():
        assert (net(images, words()) - net(images, words(seed=1))).abs().max() > 1e-3


def test_decoder_by_its_steps(net, images):
    with torch.no_grad():
        text = words()
        y, *skips = net.backbone.encode(images)
        for fuse, stage, skip in zip(net.hasf, net.backbone.stages, skips):
            y = stage(fuse(y, text), skip)
        assert_close(net.features(images, text), y)
        assert_close(net(images, text), net.out(y))


def test_prompt_of_each_image(net, images):
    text = words(3, index=torch.tensor([2, 0]))
    own = TextFeatures(text.states[[2, 0]], text.mask[[2, 0]], text.level_rank[[2, 0]])
    with torch.no_grad():
        assert_close(net(images, text), net(images, own), atol=1e-5, rtol=1e-5)


def test_sides_that_32_does_not_divide(net):
    with pytest.raises(ValueError, match='divisible'):
        net(torch.randn(1, 1, 60, 96), text=False)


# --- backbone


def test_encoder_gives_bottleneck_and_skips(images):
    shapes = [tuple(t.shape[1:]) for t in SwinBackbone(5).encode(images)]
    skips = [(96, 4, 6), (48, 8, 12), (24, 16, 24), (12, 32, 48), (12, 64, 96)]
    assert shapes == [(192, 2, 3), *skips]


def test_width_and_channels():
    backbone = SwinBackbone(5, 24)
    assert backbone.channels == [384, 192, 96, 48, 24]
    assert backbone.out.conv.conv.weight.shape[:2] == (5, 24)
    assert SwinBackbone(5, in_channels=2).encoder1.layer.conv1.conv.weight.shape[1] == 2


def test_plain_decoder():
    backbone = SwinBackbone(5, stage=PlainUp)
    assert [type(stage) for stage in backbone.stages] == [PlainUp] * 5
    sizes = [tuple(stage.conv.weight.shape) for stage in backbone.stages]
    assert sizes == [
        (96, 192, 3, 3),
        (48, 96, 3, 3),
        (24, 48, 3, 3),
        (12, 24, 3, 3),
        (12, 24, 3, 3),
    ]


@pytest.mark.slow
def test_graph_answers_as_the_network(net, images):
    "`torch.export` writes down the path of the image, the text features being an input"

    class Exported(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, images, states, mask, level_rank):
            return self.net(images, TextFeatures(states, mask, level_rank))

    def tensors(text):
        return text.states, text.mask, text.level_rank

    graph = torch.export.export(Exported(), (images, *tensors(words())), strict=False).module()
    with torch.no_grad():
        for text in (words(), words(seed=1)):
            assert_close(graph(images, *tensors(text)), net(images, text))
