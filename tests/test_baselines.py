"The networks of Table 2 against the papers, MONAI and their own steps"

from inspect import signature

import pytest
import torch
import torch.nn.functional as F
from monai.networks import nets
from monai.networks.blocks import ResidualUnit
from torch.testing import assert_close

from atm_net.anatomy import LUMBAR
from atm_net.baselines import (
    BASELINES,
    AttentionRefinement,
    ModifiedBiSeNet,
    MultiScaleAttention,
    SpineParseNet,
    StripPooling,
    UBiSeNet,
    WindowUNETR,
    attention_unet,
    column_edges,
    region_pool,
    region_unpool,
    segresnet,
    unet,
    widths,
)
from atm_net.core import InputError

WIDTHS = [12, 24, 48, 96, 192]
COMMON = {'spatial_dims': 2, 'in_channels': 1, 'out_channels': 5}


def layout(module) -> dict:
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


@pytest.fixture(scope='module')
def x():
    return torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))


# --- MONAI's


def test_monai_networks_are_monais():
    theirs = nets.UNet(**COMMON, channels=WIDTHS, strides=[2] * 4, num_res_units=2)
    assert layout(unet(5)) == layout(theirs)
    theirs = nets.AttentionUnet(**COMMON, channels=WIDTHS, strides=[2] * 4)
    assert layout(attention_unet(5)) == layout(theirs)
    sizes = {'feature_size': 12, 'hidden_size': 144, 'mlp_dim': 576, 'num_heads': 6}
    theirs = nets.UNETR(1, 5, 128, **sizes, spatial_dims=2)
    assert layout(WindowUNETR(5)) == layout(theirs)
    for f, filters in ((7, 8), (8, 8), (12, 8), (16, 16)):
        theirs = nets.SegResNet(**COMMON, init_filters=filters)
        assert layout(segresnet(5, f)) == layout(theirs)


def test_widths_and_names():
    assert widths(3) == [3, 6, 12, 24, 48]
    for network in BASELINES.values():
        assert signature(network).parameters['feature_size'].default == 12
    assert list(BASELINES) == [
        'unet',
        'attention_unet',
        'unetr',
        'segresnet',
        'modified_bisenet',
        'u_bisenet',
        'spineparsenet',
    ]


def test_unetr_takes_any_size():
    net = WindowUNETR(5).eval()
    with torch.no_grad():
        for side in ((128, 128), (160, 128), (96, 144)):
            assert net(torch.randn(1, 1, *side)).shape == (1, 5, *side)


# --- parts of the BiSeNets


def along(z, kernel, axis):
    "Depthwise correlation along one axis, by shifting"
    n = len(kernel)
    pad = F.pad(z, (n // 2, n // 2, 0, 0) if axis == 1 else (0, 0, n // 2, n // 2))
    size = z.shape[axis]
    return sum(kernel[i] * pad.narrow(axis, i, size) for i in range(n))


def test_multi_scale_attention():
    torch.manual_seed(5)
    v = torch.randn(2, 4, 6, 9).double()
    module = MultiScaleAttention(4, (3, 7)).double()
    near = module.near(v)
    mixed = near.clone()
    for horizontal, vertical in module.strips:
        for b in range(2):
            for c in range(4):
                row = along(near[b, c], horizontal.weight[c, 0, 0], 1) + horizontal.bias[c]
                mixed[b, c] = mixed[b, c] + along(row, vertical.weight[c, 0, :, 0], 0)
                mixed[b, c] = mixed[b, c] + vertical.bias[c]
    weight = torch.einsum('oc,bchw->bohw', module.mix.weight[:, :, 0, 0], mixed)
    assert_close(module(v), v * (weight + module.mix.bias[:, None, None]))
    assert [s[0].kernel_size[1] for s in MultiScaleAttention(4).strips] == [7, 11, 21]


def test_strip_pooling():
    torch.manual_seed(5)
    v = torch.randn(2, 4, 6, 9).double()
    module = StripPooling(4).double()
    rows, columns = F.pad(v.mean(3), (1, 1)), F.pad(v.mean(2), (1, 1))
    of_rows = module.rows.bias[:, None] + sum(
        torch.einsum('oc,bch->boh', module.rows.weight[:, :, i, 0], rows[:, :, i : i + 6])
        for i in range(3)
    )
    of_columns = module.cols.bias[:, None] + sum(
        torch.einsum('oc,bcw->bow', module.cols.weight[:, :, 0, i], columns[:, :, i : i + 9])
        for i in range(3)
    )
    both = (of_rows[..., None] + of_columns[:, :, None]).clamp_min(0)
    weight = torch.einsum('oc,bchw->bohw', module.mix.weight[:, :, 0, 0], both)
    assert_close(module(v), v * torch.sigmoid(weight + module.mix.bias[:, None, None]))


def test_attention_refinement_has_one_weight_a_channel():
    v = torch.randn(2, 4, 6, 9)
    scale = AttentionRefinement(4)(v) / v
    assert_close(scale, scale[:, :, :1, :1].expand_as(scale))


# --- the three spine networks


def up(small, conv, skip):
    large = F.interpolate(small, scale_factor=2, mode='bilinear')
    return conv(torch.cat([large, skip], 1))


def test_modified_bisenet(x):
    net = ModifiedBiSeNet(5).eval()
    units = [
        ResidualUnit(2, i, o, strides=2, subunits=2, act='relu', norm='batch')
        for i, o in zip([1, *WIDTHS], WIDTHS)
    ]
    assert [layout(stage) for stage in net.stages] == [layout(unit) for unit in units]
    assert [tuple(a.gate.weight.shape[:2]) for a in net.refine] == [(c, c) for c in WIDTHS]
    names = [type(module).__name__ for module in net.spatial]
    assert names == ['Convolution', 'MultiScaleAttention'] * 2
    with torch.no_grad():
        maps, y = [], x
        for stage, refine in zip(net.stages, net.refine):
            y = stage(y)
            maps.append(refine(y))
        assert [m.shape[2] for m in maps] == [32, 16, 8, 4, 2]
        y = maps[-1]
        for conv, skip in zip(net.decoder.convs, maps[-2::-1]):
            y = up(y, conv, skip)
        logits = net.out(net.fuse(y, net.spatial(x)))
        assert_close(net(x), F.interpolate(logits, scale_factor=2, mode='bilinear'))


def test_u_bisenet(x):
    net = UBiSeNet(5).eval()
    body = net.body
    assert [len(getattr(body, f'layer{i}')) for i in (1, 2, 3, 4)] == [3, 4, 6, 3]
    assert tuple(body.conv1.weight.shape) == (12, 1, 7, 7)
    assert [type(module).__name__ for module in net.spatial] == ['Convolution', 'StripPooling'] * 2
    with torch.no_grad():
        maps = [F.relu(body.bn1(body.conv1(x)))]
        y = F.max_pool2d(maps[0], 3, 2, 1)
        for layer in (body.layer1, body.layer2, body.layer3, body.layer4):
            y = layer(y)
            maps.append(y)
        shapes = [(12, 32, 48), (12, 16, 24), (24, 8, 12), (48, 4, 6), (96, 2, 3)]
        assert [tuple(m.shape[1:]) for m in maps] == shapes
        for conv, skip in zip(net.decoder.convs, maps[-2::-1]):
            y = up(y, conv, skip)
        logits = net.out(net.fuse(y, net.spatial(x)))
        assert_close(net(x), F.interpolate(logits, scale_factor=2, mode='bilinear'))


def test_batch_norm_has_the_bias():
    for net in (ModifiedBiSeNet(5), UBiSeNet(5)):
        names = [name for name, _ in net.spatial[0].named_parameters()]
        assert not any(name.endswith('conv.bias') for name in names)


def test_spineparsenet(x):
    net = SpineParseNet(5, edges=[[1, 2]]).eval()
    for module, i, o in ((net.body, 1, 24), (net.refine, 6, 5)):
        assert layout(module) == layout(nets.UNet(2, i, o, WIDTHS, [2] * 4, num_res_units=2))
    assert [tuple(layer.weight.shape) for layer in net.graph] == [(24, 24)] * 2
    with torch.no_grad():
        y = F.relu(net.body(x))
        p = net.regions(y).softmax(1)
        back = region_unpool(net.evolve(region_pool(y, p)), p)
        coarse = net.coarse(torch.cat([y, back], 1))
        probs = coarse.exp() / coarse.exp().sum(1, keepdim=True)
        assert_close(net(x), coarse + net.refine(torch.cat([x, probs], 1)))


def test_edges_of_the_graph():
    net = SpineParseNet(6, 4, edges=[[1, 2], [2, 3]])
    degree = torch.tensor([1.0, 2, 3, 2, 1, 1])
    assert_close(net.adjacency[1, 2], (degree[1] * degree[2]) ** -0.5)
    assert_close(net.adjacency.diagonal(), 1 / degree)
    assert net.adjacency[1, 3] == 0
    assert SpineParseNet(6, 4).adjacency.equal(torch.eye(6))
    assert 'adjacency' not in net.state_dict()
    for edge in ([1, 4], [-1, 2]):
        with pytest.raises(InputError, match='is not between two of 4 channels'):
            SpineParseNet(4, edges=[edge])


def test_column_edges():
    assert len(column_edges(LUMBAR.scheme('mrspineseg'))) == 18  # without a canal
    joint = LUMBAR.scheme('joint')
    edges = column_edges(joint)
    assert len(edges) == 18 + 19
    pairs = (('L4', 'L4/L5'), ('L4/L5', 'L5'), ('SC', 'L3'), ('L4', 'L5'))
    assert [[joint.channel(n) for n in pair] in edges for pair in pairs] == [
        True,
        True,
        True,
        False,
    ]
