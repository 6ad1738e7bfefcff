"The edges of networks by name, of weights on disk, and of a start from other weights"

import dataclasses

import pytest
import torch
from monai.networks.nets import SwinUNETR
from torch.testing import assert_close

from atm_net.anatomy import LUMBAR
from atm_net.baselines import BASELINES
from atm_net.contrast import ChannelContrast
from atm_net.core import InputError
from atm_net.fusion import SelfEnhance, SineCosine, TextFusion, TextProjection
from atm_net.model import ATMNet, PlainUp, SwinBackbone
from atm_net.variants import (
    LevelFusion,
    PooledSelfEnhance,
    ProjectedContrast,
    RowByRow,
    TwoDecoders,
    WordProjection,
)
from atm_net.weights import (
    _LARGEST,
    NETWORKS,
    ATMNetOptions,
    _checked_meta,
    build_network,
    class_axes,
    current_name,
    init_from,
    load_network,
    read_weights,
    reads_text,
    save_weights,
)

SMALL = {'text_dim': 7, 'length': 11}


def atm_net(**kwargs):
    return build_network('atm_net', 5, **SMALL, **kwargs)


# --- options


def test_defaults_never_change():
    "Files that leave an option out rely on them"
    assert dataclasses.asdict(ATMNetOptions()) == {
        'hasf': True,
        'fusion': 'attention',
        'ccae': True,
        'text_dim': 128,
        'length': 128,
        'n_tokens': 32,
        'heads': 4,
        'attention': 'pooled',
        'pool': 8,
        'tokens': 'mixed',
        'alpha': 0.1,
        'gain': 1.0,
        'code': '2d',
        'decoder': 'residual',
        'contrast': 'projected',
        'tau': 0.07,
        'use_v2': False,
        'text_decoder': False,
        'in_channels': 1,
        'backbone': 'swin_unetr',
    }


def test_options_become_objects():
    net = atm_net(attention='exact', contrast='grid', tau=0.2)
    stage = net.hasf[0]
    assert type(net) is ATMNet and type(net.backbone) is SwinBackbone
    assert type(stage.enhance) is SelfEnhance and type(stage.fuse) is TextFusion
    assert type(stage.project) is TextProjection and type(stage.fuse.position) is SineCosine
    assert type(net.ccae) is ChannelContrast and net.ccae.tau == 0.2

    net = atm_net(pool=3, tokens='words', code='order', use_v2=True, decoder='plain', tau=0.3)
    stage = net.hasf[1]
    assert type(net.backbone) is SwinBackbone and net.backbone.swinViT.use_v2
    assert {type(up) for up in net.backbone.stages} == {PlainUp}
    assert type(stage.enhance) is PooledSelfEnhance and stage.enhance.pool == 3
    assert type(stage.fuse) is LevelFusion and type(stage.enhance.position) is SineCosine
    assert type(stage.project) is WordProjection
    assert type(net.ccae) is ProjectedContrast and net.ccae.tau == 0.3

    stage = atm_net(code='1d', tokens='words').hasf[0]
    assert type(stage.enhance.position) is type(stage.fuse.position) is RowByRow
    assert type(atm_net(text_decoder=True)) is TwoDecoders
    assert type(atm_net(text_decoder=True, hasf=False)) is ATMNet


def test_numbers_reach_their_modules():
    net = atm_net(n_tokens=5, alpha=0.3, gain=0.5, heads=[4, 4, 4, 2, 1], tokens='mixed')
    assert net.hasf[0].project.mix.weight.shape == (5, 11, 1)
    assert {round(stage.fuse.alpha.item(), 6) for stage in net.hasf} == {0.3}
    assert all((stage.enhance.norm.weight == 0.5).all() for stage in net.hasf)
    assert [stage.enhance.att.heads for stage in net.hasf] == [4, 4, 4, 2, 1]
    assert [stage.fuse.att.heads for stage in net.hasf] == [4, 4, 4, 2, 1]
    net = atm_net(tokens='words', code='order', heads=2)
    assert [stage.fuse.stride for stage in net.hasf] == [32, 16, 8, 4, 2]
    assert [stage.fuse.att.heads for stage in net.hasf] == [2] * 5
    assert build_network('atm_net', 5, in_channels=2).encoder1.layer.conv1.conv.in_channels == 2


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'attention': 'linear'}, "attention 'linear' is unknown: use 'exact' or 'pooled'"),
        ({'tokens': 'all'}, "tokens 'all' is unknown: use 'mixed' or 'words'"),
        ({'code': '3d'}, "position encoding '3d' is unknown: use '2d' or '1d'"),
        ({'decoder': 'unet'}, "decoder 'unet' is unknown: use 'residual' or 'plain'"),
        (
            {'contrast': 'gap'},
            "contrast 'gap' is unknown: use 'grid' or 'projected' or 'prototypes'",
        ),
        ({'code': 'order'}, "code 'order' needs the words themselves as keys: tokens 'words'"),
        ({'heads': [2, 1]}, r'heads \[2, 1\]: give a number, or one for each of the 5 stages'),
        ({'heads': 5}, '192 channels are not divisible by 5 heads'),
        ({'colour': 1}, "network 'atm_net' takes no colour"),
    ],
)
def test_wrong_options(kwargs, message):
    with pytest.raises(InputError, match=message):
        atm_net(**kwargs)


# --- registry


def test_wrong_names():
    with pytest.raises(InputError, match="'unett' is unknown.*'unet'.*known: atm_net, swin_unetr"):
        build_network('unett', 7)
    for name in ('unet', 'spineparsenet', 'swin_unetr'):
        with pytest.raises(InputError, match=f"network '{name}' takes no alpha"):
            build_network(name, 6, alpha=1)
    with pytest.raises(InputError, match='takes no alpha, colour'):
        build_network('swin_unetr', 6, use_v2=True, alpha=1, colour=2)
    with pytest.raises(InputError, match="'atm_net' takes no colour"):
        class_axes('atm_net', kwargs={'colour': 1})


def test_all_networks():
    assert list(NETWORKS) == ['atm_net', 'swin_unetr', *BASELINES]
    for name in NETWORKS[1:]:
        assert not reads_text(build_network(name, 7))
    assert reads_text(atm_net())
    assert not reads_text(atm_net(hasf=False))


def test_swin_unetr_is_monai():
    for v2 in (False, True):
        ours = build_network('swin_unetr', 5, use_v2=v2)
        sizes = {'in_channels': 1, 'out_channels': 5, 'feature_size': 12}
        theirs = SwinUNETR(**sizes, spatial_dims=2, use_v2=v2)
        assert list(ours.state_dict()) == list(theirs.state_dict())


def test_arguments_of_the_graph():
    net = build_network('spineparsenet', 6, 4, edges=[[1, 2]])
    assert net.adjacency[1, 2] > 0
    assert build_network('spineparsenet', 6, 4).adjacency.equal(torch.eye(6))


# --- files

HEADER = {'network': 'atm_net', 'out_channels': 5, 'feature_size': 12, 'kwargs': SMALL}


@pytest.fixture(scope='module')
def net():
    torch.manual_seed(0)
    return atm_net().eval()


def test_save_and_load(net, tmp_path):
    path = tmp_path / 'w.safetensors'
    save_weights(path, net, HEADER)
    again, meta = load_network(path)
    assert meta == HEADER and not again.training
    assert_close(again.state_dict(), net.state_dict(), atol=0, rtol=0)
    assert oct(path.stat().st_mode)[-3:] == '644'
    assert [p.name for p in tmp_path.iterdir()] == ['w.safetensors']


def test_half_precision(net, tmp_path):
    whole, half = tmp_path / 'w.safetensors', tmp_path / 'h.safetensors'
    save_weights(whole, net, HEADER)
    save_weights(half, net, HEADER, half=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    state, _ = read_weights(half)
    assert {t.dtype for t in state.values() if t.is_floating_point()} == {torch.float32}
    assert_close(state, dict(net.state_dict()), atol=1e-3, rtol=1e-3)


def test_files_that_are_refused(net, tmp_path):
    path = tmp_path / 'w.safetensors'
    save_weights(path, net, HEADER | {'out_channels': 4})
    with pytest.raises(InputError, match='do not fit the network they name'):
        load_network(path)
    torch.save(net.state_dict(), tmp_path / 'w.pt')
    with pytest.raises(InputError, match='pickled checkpoints are never loaded'):
        load_network(tmp_path / 'w.pt')
    with pytest.raises(InputError, match='no such weights file'):
        load_network(tmp_path / 'no.safetensors')
    with pytest.raises(ValueError, match="lacks .'network', 'out_channels', 'feature_size'"):
        save_weights(path, net, {})


def test_safetensors_of_others(tmp_path):
    from safetensors.torch import save_file

    save_file({'a': torch.zeros(1)}, tmp_path / 'w.safetensors')
    with pytest.raises(InputError, match='were not written by atm_net'):
        read_weights(tmp_path / 'w.safetensors')


def test_names_of_old_files(tmp_path):
    "Both BiSeNets had another name for their decoder"
    assert current_name('climb.convs.0.weight') == 'decoder.convs.0.weight'
    assert current_name('opt.climb.convs.0.weight.exp_avg') == 'opt.decoder.convs.0.weight.exp_avg'
    assert current_name('model.climb.convs.0.weight') == 'model.decoder.convs.0.weight'
    assert current_name('body.climb.0') == 'body.climb.0'
    torch.manual_seed(0)
    net = build_network('u_bisenet', 5)
    header = HEADER | {'network': 'u_bisenet', 'kwargs': {}}

    class Old(torch.nn.Module):
        def state_dict(self):
            return {k.replace('decoder.', 'climb.', 1): v for k, v in net.state_dict().items()}

    save_weights(tmp_path / 'w.safetensors', Old(), header)
    again, _ = load_network(tmp_path / 'w.safetensors')
    assert_close(again.state_dict(), net.state_dict(), atol=0, rtol=0)


# --- start from other weights

OLD, NEW = ('S', 'L5', 'L4'), ('L5', 'SC', 'L4', 'S')


@pytest.mark.parametrize('name', NETWORKS[1:])
def test_classes_answer_as_before(name):
    "Whatever a network's last layers are called"
    torch.manual_seed(4)
    x = torch.randn(1, 1, 64, 96)
    old, new = build_network(name, 4).eval(), build_network(name, 5).eval()
    info = init_from(new, old.state_dict(), NEW, OLD, class_axes(name))
    assert (info.fresh, info.new_structures) == ([], ['SC'])
    assert info.taken == len(new.state_dict())
    if name in ('unet', 'spineparsenet'):
        return  # their last units mix the classes once more: the new one joins in
    with torch.no_grad():
        assert_close(new(x)[:, [0, 1, 3, 4]], old(x)[:, [0, 2, 3, 1]], atol=1e-4, rtol=1e-4)


def test_a_permutation_of_classes():
    torch.manual_seed(4)
    x = torch.randn(1, 1, 64, 96)
    old, new = build_network('unet', 4).eval(), build_network('unet', 4).eval()
    init_from(new, old.state_dict(), ('L4', 'S', 'L5'), OLD, class_axes('unet'))
    with torch.no_grad():
        assert_close(new(x), old(x)[:, [0, 3, 1, 2]], atol=1e-4, rtol=1e-4)


def test_text_is_added_to_a_plain_network():
    torch.manual_seed(3)
    old, new = build_network('swin_unetr', 4), atm_net()
    before = torch.get_rng_state()
    axes = class_axes('atm_net', kwargs=SMALL)
    assert torch.equal(before, torch.get_rng_state())  # asking draws no numbers
    info = init_from(new, old.state_dict(), NEW, OLD, axes)
    assert torch.equal(
        new.out.conv.conv.weight[[0, 1, 3, 4]], old.out.conv.conv.weight[[0, 2, 3, 1]]
    )
    assert torch.equal(new.swinViT.patch_embed.proj.weight, old.swinViT.patch_embed.proj.weight)
    assert {key.split('.')[0] for key in info.fresh} == {'hasf', 'ccae'}
    assert len(info.fresh) > 100
    assert info.new_structures == ['SC']


def test_text_starts_with_the_decoder_that_is_there():
    torch.manual_seed(3)
    names = LUMBAR.scheme('joint').names
    kwargs = {'text_dim': 7, 'length': 11, 'tokens': 'words', 'text_decoder': True}
    plain, new = build_network('swin_unetr', 21), build_network('atm_net', 21, **kwargs)
    info = init_from(new, plain.state_dict(), names, names, class_axes('atm_net', kwargs=kwargs))
    for name in new.backbone.STAGES:
        own, copied = getattr(plain, name).state_dict(), new.text_decoder[name].state_dict()
        assert_close(copied, own, atol=0, rtol=0)
    assert {key.split('.')[0] for key in info.fresh} == {'hasf', 'ccae'}


def test_weights_of_another_width_start_fresh():
    names = tuple('abcd')
    old, new = build_network('swin_unetr', 5), build_network('swin_unetr', 5, 24)
    info = init_from(new, old.state_dict(), names, names, class_axes('swin_unetr', 24))
    assert info.taken > 0
    assert 'swinViT.patch_embed.proj.weight' in info.fresh
    assert info.new_structures == []


def test_weights_of_another_rank_are_not_taken():
    names, net = tuple('abcd'), build_network('swin_unetr', 5)
    state = {'out.conv.conv.bias': torch.zeros(5, 1)}
    assert init_from(net, state, names, names, class_axes('swin_unetr')).taken == 0


def test_axes_of_the_graph_do_not_need_its_edges():
    axes = class_axes('spineparsenet', kwargs={'edges': [[1, 20]]})
    assert axes['refine.model.2.1.conv.unit0.conv.weight'] == [0, 1]
    assert class_axes('swin_unetr') == {'out.conv.conv.weight': [0], 'out.conv.conv.bias': [0]}


@pytest.mark.parametrize('field', ['out_channels', 'feature_size', 'length'])
def test_the_largest_size_of_a_header(field):
    "65,536 may be a size; more is a damaged header"
    meta = dict(out_channels=3, feature_size=4, kwargs=dict(length=5))

    def with_size(size):
        if field == 'length':
            return meta | dict(kwargs=dict(length=size))
        return meta | {field: size}

    assert _LARGEST == 65_536 and _checked_meta(with_size(65_536))
    with pytest.raises(ValueError, match='too large'):
        _checked_meta(with_size(65_537))
