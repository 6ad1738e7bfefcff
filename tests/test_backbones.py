"The edges of other backbones: steps, sizes, two decoders, weights, import paths, refusals, names"

import copy
import json
from dataclasses import replace

import pytest
import torch
from conftest import call, complaint, done
from monai.networks.nets import BasicUNet, SegResNet
from torch import nn
from torch.testing import assert_close

from atm_net.anatomy import LUMBAR
from atm_net.backbones import (
    BACKBONE_TITLES,
    BACKBONES,
    check_backbone,
    find_backbone,
    make_backbone,
    network_label,
    network_slug,
    stage_strides,
)
from atm_net.config import PRESETS, check_config, from_options, network_kwargs, other_backbone
from atm_net.core import InputError
from atm_net.model import ATMNet
from atm_net.study_grid import essential, grid, run_name, train_command
from atm_net.study_tables import study_title
from atm_net.text import TextFeatures
from atm_net.variants import forward_repeated, logits_and_word_maps, stage_names
from atm_net.weights import (
    build_network,
    class_axes,
    class_bias,
    init_from,
    load_network,
    save_weights,
)

TINY = PRESETS['tiny']
OTHERS = ('segresnet', 'basic_unet')
SMALL = {'text_dim': 7, 'length': 11}
other = pytest.mark.parametrize('name', OTHERS)


def monai(name: str, out_channels: int, feature_size: int, in_channels: int = 1) -> nn.Module:
    "The network as MONAI's users write it"
    if name == 'segresnet':
        blocks = {'blocks_down': (1, 2, 2, 4, 4), 'blocks_up': (1, 1, 1, 1)}
        return SegResNet(2, feature_size // 8 * 8, in_channels, out_channels, **blocks)
    widths = [feature_size * m for m in (1, 2, 4, 8, 16, 1)]
    return BasicUNet(2, in_channels, out_channels, widths)


def network(name: str, **kwargs) -> ATMNet:
    torch.manual_seed(0)
    return build_network('atm_net', 5, 12, backbone=name, **SMALL, **kwargs)


def features_of(n: int, seed: int = 1, named: bool = True) -> TextFeatures:
    "Random token states of `n` prompts, each with four levels"
    generator = torch.Generator().manual_seed(seed)
    rank = torch.zeros(n, 11).long()
    rank[:, 2:6] = torch.arange(1, 5) * named
    states = torch.randn(n, 11, 7, generator=generator)
    return TextFeatures(states, torch.ones(n, 11).bool(), rank)


def images_of(n: int, h: int = 48, w: int = 80) -> torch.Tensor:
    return torch.randn(n, 1, h, w, generator=torch.Generator().manual_seed(2))


# --- the backbone alone


@other
@pytest.mark.parametrize(('feature_size', 'in_channels'), [(12, 1), (20, 2)])
def test_flags_off_is_monai(name, feature_size, in_channels):
    theirs = monai(name, 5, feature_size, in_channels).eval()
    flags = {'hasf': False, 'ccae': False, 'in_channels': in_channels}
    ours = build_network('atm_net', 5, feature_size, backbone=name, **flags).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(3, in_channels, 48, 80)
    with torch.no_grad():
        assert ours(images).equal(theirs(images))
        assert ours.backbone(images).equal(theirs(images))


@other
def test_the_same_seed_gives_the_weights_of_monai(name):
    torch.manual_seed(4)
    theirs = monai(name, 5, 16).state_dict()
    torch.manual_seed(4)
    ours = build_network('atm_net', 5, 16, backbone=name, hasf=False, ccae=False).state_dict()
    assert all(ours[key].equal(theirs[key]) for key in theirs)


@other
def test_steps(name):
    backbone = BACKBONES[name](5, 16)
    encoded = backbone.encode(images_of(2))
    assert len(backbone.stages) == len(backbone.channels) == 4
    assert [tuple(f.shape[2:]) for f in encoded] == [(3, 5), (6, 10), (12, 20), (24, 40), (48, 80)]
    assert stage_strides(backbone) == [16, 8, 4, 2]
    features, *skips = encoded
    for stage, skip, channels in zip(backbone.stages, skips, backbone.channels):
        assert features.shape[1] == channels
        features = stage(features, skip)
    assert backbone.out(features).shape == (2, 5, 48, 80)


def test_segresnet_names_a_wrong_size():
    with pytest.raises(InputError, match='image of 50 x 64 px: both sides must be multiples of 16'):
        network('segresnet')(images_of(1, 50, 64), features_of(1))


def test_basic_unet_takes_odd_sizes_as_monai_does():
    images, net = images_of(2, 37, 53), network('basic_unet', ccae=False).eval()
    theirs = monai('basic_unet', 5, 12).eval()
    net.load_state_dict(theirs.state_dict(), strict=False)
    with torch.no_grad():
        assert net(images, text=False).equal(theirs(images))
        assert net(images, features_of(2)).shape == (2, 5, 37, 53)


@other
def test_a_copy_is_whole(name):
    net = network(name, ccae=False).eval()
    again = copy.deepcopy(net)
    for p in again.backbone.out.parameters():
        nn.init.zeros_(p)
    images, text = images_of(2), features_of(2)
    with torch.no_grad():
        assert not again(images, text).any() and net(images, text).all()
    assert not any(key.startswith(('backbone', 'stages')) for key in net.state_dict())


@pytest.mark.parametrize('name', BACKBONES)
def test_training_mode_reaches_the_backbone(name):
    net = network(name)
    assert net.backbone.training
    assert not net.eval().backbone.training
    assert net.train().backbone.training


# --- with text


@other
@pytest.mark.parametrize('code', ['2d', 'order'])
def test_both_modules_act(name, code):
    net = network(name, alpha=0.5, tokens='words', code=code)
    images, text = images_of(2), features_of(2)
    logits = net(images, text)
    present = torch.ones(2, 5).bool()
    contrast = net.ccae(logits.softmax(1), torch.randn(2, 5, 7), present)
    (logits.square().mean() + contrast).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert (net(images, features_of(2, seed=9)) - logits).abs().max() > 1e-3


@other
def test_text_can_be_added_without_a_jolt(name):
    net = network(name, alpha=0.0, gain=0.0).eval()
    theirs = monai(name, 5, 12).eval()
    net.load_state_dict(theirs.state_dict(), strict=False)
    with torch.no_grad():
        assert net(images_of(2), features_of(2)).equal(theirs(images_of(2)))
    with pytest.raises(InputError, match='this model reads text'):
        net(images_of(2))


@other
def test_equation_3_by_hand(name):
    net = network(name, alpha=0.7).double().eval()
    images, text = images_of(2).double(), features_of(2)
    text = replace(text, states=text.states.double())
    features, *skips = net.backbone.encode(images)
    for fuse, skip, i in zip(net.hasf, skips, range(4)):
        read = fuse(features, text)
        if name == 'segresnet':
            features = net.up_layers[i](net.up_samples[i](read) + skip)
        else:
            step = getattr(net, f'upcat_{4 - i}')
            features = step.convs(torch.cat([skip, step.upsample(read)], 1))
    last = net.conv_final if name == 'segresnet' else net.final_conv
    assert_close(net(images, text), last(features))


@other
def test_several_texts_of_an_image(name):
    net = network(name, alpha=0.5).eval()
    images, text = images_of(2), features_of(6)
    with torch.no_grad():
        assert_close(forward_repeated(net, images, text), net(images.repeat(3, 1, 1, 1), text))


@other
@pytest.mark.parametrize('text_decoder', [False, True])
def test_word_maps(name, text_decoder):
    net = network(name, tokens='words', code='order', text_decoder=text_decoder).eval()
    images, text = images_of(2), features_of(2)
    with torch.no_grad():
        logits, maps = logits_and_word_maps(net, images, text)
        assert logits.equal(net(images, text))
    assert [tuple(m.shape) for m in maps] == [
        (2, 11, h, w) for h, w in ((3, 5), (6, 10), (12, 20), (24, 40))
    ]
    assert all((m.sum(1) - 1).abs().max() < 1e-5 for m in maps)
    assert [stage.fuse.stride for stage in net.hasf] == [16, 8, 4, 2]


def test_heads_of_a_preset_serve_fewer_stages():
    net = network('segresnet', heads=[4, 4, 4, 2, 1])
    assert [stage.fuse.att.heads for stage in net.hasf] == [4, 4, 4, 2]
    with pytest.raises(InputError, match=r'heads \[4, 4\]: give a number.*each of the 4 stages'):
        network('segresnet', heads=[4, 4])


# --- two decoders


@other
def test_two_decoders(name):
    net = network(name, alpha=0.5, text_decoder=True)
    images, text = images_of(3), features_of(3)
    logits = net.forward_paired(images, text)
    plain = net.backbone.out(net.decode(net.backbone.encode(images)))
    assert logits.shape == (6, 5, 48, 80)
    assert_close(logits[3:], plain)

    logits[:3].square().mean().backward()  # what text teaches
    moved = [n for n, p in net.named_parameters() if p.grad is not None and p.grad.any()]
    reached = {n.split('.')[0] for n in moved}
    assert reached == {'hasf', 'text_decoder'}
    net.eval()
    with torch.no_grad():
        unnamed = net(images, features_of(3, named=False))
        assert_close(unnamed, net(images, text=False))


@pytest.mark.parametrize('name', BACKBONES)
def test_the_decoder_of_the_text_is_a_copy(name):
    net = network(name, text_decoder=True)
    names, state = net.plain_names(), net.state_dict()
    assert set(names) == {key for key in state if key.startswith('text_decoder.')}
    assert len(set(names.values())) == len(names)
    assert all(state[key].equal(state[plain]) for key, plain in names.items())

    for plain in names.values():
        state[plain].add_(1.0)
    net.start_text_decoder()
    assert all(state[key].equal(state[plain]) for key, plain in names.items())


@other
def test_a_plain_network_starts_both_decoders(name):
    structures = ('L4', 'L5', 'SC', 'S')
    old = network(name, hasf=False, ccae=False)
    kwargs = dict(SMALL, backbone=name, text_decoder=True)
    torch.manual_seed(5)
    new = build_network('atm_net', 5, 12, **kwargs)
    info = init_from(
        new, old.state_dict(), structures, structures, class_axes('atm_net', 12, kwargs)
    )
    assert {key.split('.')[0] for key in info.fresh} == {'hasf', 'ccae'}
    state = new.state_dict()
    assert all(state[key].equal(state[plain]) for key, plain in new.plain_names().items())


# --- classes


@other
def test_the_last_bias(name):
    axes = class_axes('atm_net', 12, dict(SMALL, backbone=name))
    net = network(name)
    bias = class_bias(net, axes)
    images = images_of(1)
    with torch.no_grad():
        before = net.eval()(images, text=False)
        bias[3] += 2.0
        change = net(images, text=False) - before
    assert_close(change, torch.tensor([0, 0, 0, 2.0, 0])[:, None, None].expand_as(change))
    with pytest.raises(InputError, match='no bias with a place for each class'):
        class_bias(net, {})


# --- weights


def header(**kwargs) -> dict:
    sizes = {'network': 'atm_net', 'out_channels': 5, 'feature_size': 12}
    return sizes | {'kwargs': SMALL | kwargs}


@other
def test_weights_come_back(name, tmp_path):
    net = network(name, text_decoder=True).eval()
    save_weights(tmp_path / 'w.safetensors', net, header(backbone=name, text_decoder=True))
    again, meta = load_network(tmp_path / 'w.safetensors')
    assert meta['kwargs']['backbone'] == name and type(again.backbone) is BACKBONES[name]
    with torch.no_grad():
        assert again(images_of(2), features_of(2)).equal(net(images_of(2), features_of(2)))


def test_weights_of_another_backbone_do_not_fit(tmp_path):
    save_weights(tmp_path / 'w.safetensors', network('segresnet'), header())
    with pytest.raises(InputError, match='w.safetensors: weights do not fit'):
        load_network(tmp_path / 'w.safetensors')


# --- from outside

MODULE = """
import torch
from torch import nn


class Up(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv = nn.Conv2d(c_in + c_out, c_out, 3, padding=1)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, features, skip):
        large = nn.functional.interpolate(features, scale_factor=2)
        return self.norm(self.conv(torch.cat([large, skip], 1))).relu()


class Net(nn.Module):
    stride = 4

    def __init__(self, out_channels, feature_size):
        super().__init__()
        f = feature_size
        self.channels = [3 * f, 2 * f]
        self.stem = nn.Conv2d(1, f, 3, padding=1)
        self.downs = nn.ModuleList([nn.Conv2d(f, 2 * f, 2, 2), nn.Conv2d(2 * f, 3 * f, 2, 2)])
        self.ups = nn.ModuleList([Up(3 * f, 2 * f), Up(2 * f, f)])
        self.stages = list(self.ups)
        self.head = nn.Conv2d(f, out_channels, 1)
        self.out = self.head

    def encode(self, images):
        scales = [self.stem(images)]
        for down in self.downs:
            scales.append(down(scales[-1]).relu())
        return scales[::-1]


def function(out_channels, feature_size):
    return Net(out_channels, feature_size)


class Fails(Net):
    def __init__(self, out_channels):
        super().__init__(out_channels, 8)
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    "A package on the path with a backbone of its own -> its import path"
    (tmp_path / 'path' / 'spinepack').mkdir(parents=True)
    (tmp_path / 'path' / 'spinepack' / 'nets.py').write_text(MODULE, encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path / 'path')
    yield 'spinepack.nets:Net'
    import sys

    for module in [m for m in sys.modules if m.split('.')[0] == 'spinepack']:
        del sys.modules[module]


def test_a_backbone_from_outside(outside, tmp_path, monkeypatch):
    options = {'backbone': outside, 'tokens': 'words', 'code': 'order', 'text_decoder': True}
    net = network(**{'name': outside, **{k: v for k, v in options.items() if k != 'backbone'}})
    assert stage_names(net.backbone) == ['stage0', 'stage1']
    assert [stage.fuse.stride for stage in net.hasf] == [4, 2]
    assert len(net.plain_names()) == 2 * 7  # of each stage: a convolution, a batch norm
    net.forward_paired(images_of(2), features_of(2))  # moves the running means
    net.eval()
    save_weights(tmp_path / 'w.safetensors', net, header(**options))
    again, _ = load_network(tmp_path / 'w.safetensors')
    with torch.no_grad():
        assert again(images_of(2), features_of(2)).equal(net(images_of(2), features_of(2)))

    import sys

    monkeypatch.setattr(sys, 'path', [p for p in sys.path if str(tmp_path) not in p])
    for module in [m for m in sys.modules if m.split('.')[0] == 'spinepack']:
        del sys.modules[module]
    with pytest.raises(
        InputError,
        match=r"w.safetensors: backbone 'spinepack.nets:Net': there is no module 'spinepack",
    ):
        load_network(tmp_path / 'w.safetensors')


def test_the_trial_leaves_no_trace(outside):
    backbone = find_backbone(outside)(5, 8)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    torch.manual_seed(3)
    check_backbone(backbone, 5, outside)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert drawn.equal(torch.rand(1)) and backbone.training
    assert all(value.equal(before[key]) for key, value in backbone.state_dict().items())


def direct(net):
    net.scale = nn.Parameter(torch.ones(1))


def taken(net):
    net.features = nn.Conv2d(1, 1, 1)


def text(net):
    net.hasf = nn.Conv2d(1, 1, 1)


def foreign(net):
    net.stages = [copy.deepcopy(net.stages[0]), net.stages[1]]


def functions(net):
    net.stages = [lambda features, skip: features] * 2


def one_more(net):
    net.encode = lambda images: [*type(net).encode(net, images), images]


def broken(net):
    net.encode = lambda images: images.nothing()


def setter(**values):
    def change(net):
        for key, value in values.items():
            setattr(net, key, value)

    return change


FAULTS = [
    (lambda net: delattr(net, 'channels'), r'lacks channels \(of the features into each stage'),
    (setter(stages=[]), 'has 0 stages and 2 numbers of channels'),
    (setter(stride=12), 'stride 12 must be 1, 2, 4, 8, 16 or 32'),
    (setter(stride=64), 'stride 64 must be'),
    (setter(stride=1), 'has 2 stages that double the size, but its stride is 1'),
    (setter(stride=8), r'stage 0: its features have shape \(1, 24, 4, 6\), not \(1, 24, 2, 3\)'),
    (setter(channels=[24, 17]), r'stage 1: its features have shape \(1, 16, 4, 6\), not'),
    (direct, 'holds scale itself: put it into a module of its own'),
    (taken, 'calls a part features, which means another one here'),
    (text, 'calls a part hasf, which'),
    (foreign, 'stages or out have weights that are not among its parameters'),
    (functions, 'stages and out must be modules of PyTorch'),
    (one_more, 'encode gives 4 feature maps for 2 stages'),
    (broken, "encode fails: AttributeError: 'Tensor' object has no attribute 'nothing'"),
]


@pytest.mark.parametrize(('spoil', 'message'), FAULTS)
def test_faults_of_a_backbone(spoil, message, outside):
    backbone = find_backbone(outside)(5, 8)
    spoil(backbone)
    with pytest.raises(InputError, match=f"backbone '{outside}': {message}"):
        check_backbone(backbone, 5, outside)


def test_a_wrong_number_of_classes(outside):
    with pytest.raises(InputError, match=r'out: the logits have shape \(1, 5, 8, 12\), not'):
        check_backbone(find_backbone(outside)(5, 8), 6, outside)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('segresnett', "backbone 'segresnett' is unknown.*'segresnet'.*or an import path"),
        ('spinepack.nets', "backbone 'spinepack.nets' is unknown: use swin_unetr, segresnet"),
        ('no_such.nets:Net', "'no_such.nets:Net': there is no module 'no_such': install"),
        ('spinepack.nets:Nett', "has no 'Nett', did you mean 'Net'"),
        (':Net', "':Net' is unknown: use swin_unetr, segresnet"),
        ('spinepack.nets:function', "'spinepack.nets:function' is not a class of modules"),
        ('builtins:int', "'builtins:int' is not a class of modules"),
        ('spinepack.nets:Fails', r"'spinepack.nets:Fails': Fails\(5, 12\) fails: TypeError"),
    ],
)
def test_names_that_lead_nowhere(name, message, outside):
    with pytest.raises(InputError, match=message):
        make_backbone(name, 5)


def test_images_of_several_channels_are_for_known_backbones(outside):
    with pytest.raises(InputError, match='takes images of one channel, not 2'):
        make_backbone(outside, 5, in_channels=2)


# --- options


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(network='unet'), '--model unet has no use for --backbone: leave it out'),
        (dict(network='swin_unetr'), '--model swin_unetr has no use for --backbone: leave it out'),
        (dict(swin='v2'), '--backbone segresnet has no use for --swin: leave it out'),
        (dict(decoder='plain'), '--backbone segresnet has no use for --decoder: leave it out'),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        from_options('tiny', dict(options, backbone='segresnet'))


def test_the_configuration():
    assert TINY.backbone == PRESETS['paper'].backbone == 'swin_unetr'
    cfg = from_options('tiny', dict(backbone='basic_unet'))
    assert other_backbone(cfg) and not other_backbone(TINY)
    assert not other_backbone(replace(cfg, network='unet'))
    kwargs = network_kwargs(cfg, 128, LUMBAR.scheme('joint'))
    assert (kwargs['backbone'], kwargs['use_v2']) == ('basic_unet', False)
    assert network_kwargs(replace(cfg, network='unet'), 128, None) == {}
    with pytest.raises(InputError, match="backbone 'resnet' is unknown"):
        check_config(replace(TINY, backbone='resnet'))
    with pytest.raises(InputError, match='--decoder plain is of swin_unetr alone'):
        check_config(replace(cfg, decoder='plain'))
    check_config(replace(TINY, network='unet', backbone='resnet'))  # it does not act


@pytest.mark.parametrize('option', [{'decoder': 'plain'}, {'use_v2': True}])
def test_options_of_swin_unetr_are_refused(option):
    with pytest.raises(InputError, match="backbone 'segresnet' takes no"):
        network('segresnet', **option)


# --- names


def test_names():
    assert set(BACKBONE_TITLES) == set(BACKBONES)
    own = {'backbone': 'my_pack.nets:MyNet', 'hasf': True, 'ccae': False}
    assert network_label('atm_net', own) == 'HASF on MyNet'
    assert network_slug('atm_net', own) == 'hasf_mynet'
    plain = {'backbone': 'basic_unet', 'hasf': False, 'ccae': False}
    assert network_label('atm_net', plain) == 'BasicUNet alone'
    assert network_slug('atm_net', plain) == 'basic_unet_alone'
    assert network_label('unet', {}) == network_slug('unet', own) == 'unet'
    assert network_slug('atm_net', {}) == network_label('atm_net', {}) == 'atm_net'


def test_runs_of_a_study():
    names = [run.name.rsplit('-', 2)[0] for run in grid('table4,table5', backbone='segresnet')]
    assert names == [
        'segresnet_alone',
        'ccae_segresnet',
        'hasf_segresnet',
        'hasf_ccae_segresnet',
        'hasf_segresnet-option1',
        'hasf_segresnet-option2',
    ]
    with pytest.raises(InputError, match='--backbone segresnet: study table2 is about ATM-Net'):
        grid('table4,table2', backbone='segresnet')
    assert study_title('table4', 'segresnet').endswith('on SegResNet')


def test_what_acts():
    "Backbones act on network atm_net alone; without modules they are one run, and not Swin UNETR"
    other = replace(TINY, backbone='segresnet')
    off = replace(other, hasf=False, ccae=False)
    assert run_name(off) == run_name(replace(off, option=1, encoder='x', swin='v1', tau=1.0))
    assert run_name(off) != run_name(replace(off, backbone='swin_unetr'))
    assert run_name(other) == run_name(replace(other, swin='v1'))
    unet = replace(TINY, network='unet')
    assert essential(replace(unet, backbone='segresnet')) == essential(unet)
    assert train_command(off, 'C', 'R').split()[3:] == (
        ['--preset', 'tiny', '--no-hasf', '--no-ccae', '--backbone', 'segresnet']
    )


def test_runs_of_earlier_versions_keep_their_names():
    earlier = replace(TINY, steps=50, warmup=5, text_decoder=True)
    assert run_name(earlier) == 'atm_net-seed0-e77f4356'


# --- commands


def test_train_and_predict(cache, scan, tmp_path):
    from atm_net.predict import load_predictor
    from atm_net.weights import model_card

    run = tmp_path / 'run'
    done(call('atm_train', cache, run, '--backbone', 'segresnet', '--steps', 2, '--batch', 2))
    config = json.loads((run / 'config.json').read_text(encoding='utf-8'))['config']
    assert config['backbone'] == {'value': 'segresnet', 'source': 'ours'}
    predictor = load_predictor(run)
    assert type(predictor.model.backbone) is BACKBONES['segresnet']
    assert '| network | HASF and CCAE on SegResNet |' in model_card(predictor)
    assert 'ATM-Net' not in model_card(predictor)
    done(call('atm_predict', scan.image, tmp_path / 'mask.nii.gz', '--weights', run))
    assert (tmp_path / 'mask.nii.gz').is_file()

    # a resumed run keeps its backbone; another network can start from its weights
    again = call('atm_train', cache, run, '--steps', 2, '--batch', 2, '--resume')
    assert 'was started with backbone segresnet, not swin_unetr' in complaint(again)
    new = tmp_path / 'new'
    start = ('--init', run, '--backbone', 'basic_unet', '--steps', 1, '--batch', 2)
    assert done(call('atm_train', cache, new, *start)).status == 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--backbone', 'segresnet', '--model', 'unet'), '--model unet has no use for --backbone'),
        (('--backbone', 'segresnet', '--swin', 'v2'), 'has no use for --swin'),
        (('--backbone', 'basic_unet', '--decoder', 'plain'), 'has no use for --decoder'),
        (('--backbone', 'segresnett'), "backbone 'segresnett' is unknown"),
        (('--backbone', 'no_such:Net'), "backbone 'no_such:Net': there is no module 'no_such'"),
        (('--backbone', 'json:JSONDecoder'), 'is not a class of modules of PyTorch'),
    ],
)
def test_refusals(options, message, cache, tmp_path):
    result = call('atm_train', cache, tmp_path / 'run', *options, '--steps', 1)
    assert message in complaint(result)
    assert not (tmp_path / 'run').exists()
