"Contrasts that must see the image: by hand in float64, their edges, and the test that they pass"

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from atm_net.anatomy import IGNORE, LUMBAR
from atm_net.batches import PromptBatcher
from atm_net.config import PRESETS, network_kwargs
from atm_net.contrast import ChannelContrast
from atm_net.core import InputError
from atm_net.model import ATMNet
from atm_net.shortcut import (
    ShortcutLosses,
    blind_loss,
    fit_contrast,
    mean_loss,
    moved,
    network_contexts,
    seen_by,
    shortcut_losses,
    swapped,
    true_prompts,
    windows_by_list,
)
from atm_net.step import logits_and_contrast, step_loss
from atm_net.variants import (
    AreaContrast,
    ContrastContext,
    OutputContrast,
    PixelContrast,
    ProjectedContrast,
    PrototypeContrast,
    class_vectors,
    contrast_of,
    every_step,
)
from atm_net.weights import CONTRASTS, build_network, load_network, save_weights

JOINT = LUMBAR.scheme('joint')
B, K, D, C, E, H, W = 3, 6, 7, 4, 5, 16, 24  # all different
TAU = 0.3


@pytest.fixture
def context():
    "Random labels, of which class 2 is nowhere, 4 not annotated in image 1, 5 small in image 2"
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 3, 4, 5])[torch.randint(0, 5, (B, H, W))]
    labels[2][labels[2] == 5] = 0
    labels[2, 1] = 0
    labels[2, 1, :9] = 5
    labels[0, :2] = IGNORE
    known = torch.ones(B, K).bool()
    known[1, 4] = False
    classes = torch.arange(K)
    present = torch.stack([torch.isin(classes, one) for one in labels]) & known
    features = [torch.randn(B, c, H // s, W // s) for s, c in ((8, 9), (4, 8), (2, C), (1, 3))]
    return ContrastContext(
        text=torch.randn(B, K, D).double(),
        present=present,
        known=known,
        target=labels,
        probs=torch.randn(B, K, H, W).double().softmax(1),
        features=tuple(f.double() for f in features),
    )


def of_kind(kind, scale=2, **kwargs):
    channels = {1: 3, 2: C, 4: 8, 8: 9}[scale]
    return kind(D, channels, scale=scale, dim=E, tau=TAU, **kwargs).double()


def part(context, rows):
    "Some images of a context"
    fields = {k: v[rows] for k, v in vars(context).items() if k != 'features'}
    return ContrastContext(**fields, features=tuple(f[rows] for f in context.features))


def usable_by_hand(context, b, least=10) -> list:
    pixels = [int((context.target[b] == c).sum()) for c in range(K)]
    known = context.known[b]
    return [c for c in range(1, K) if pixels[c] >= least and known[c]]


def unit(vectors):
    "Centred over the classes, of length 1"
    x = torch.stack(vectors)
    return F.normalize(x - x.mean(0), dim=-1)


# --- prototypes


def prototypes_by_hand(contrast, context, b):
    "Eq. 7 of one image with loops over pixels and classes"
    weight, s = contrast.visual.weight[:, :, 0, 0], contrast.scale
    classes = usable_by_hand(context, b)
    means = []
    for c in classes:
        pixels = (context.target[b] == c).nonzero().tolist()
        features = context.at_scale(s)[b]
        means.append(sum(weight @ features[:, y // s, x // s] for y, x in pixels) / len(pixels))
    f_o, f_c = unit(means), unit([contrast.textual.weight @ context.text[b, c] for c in classes])
    cosine = f_o @ f_c.T / TAU
    asks = [cosine.log_softmax(d).diagonal() for d in (0, 1)]
    return -(asks[0] + asks[1]).mean() / 2


@pytest.mark.parametrize('scale', [1, 2, 4])
def test_prototypes_by_hand(context, scale):
    contrast = of_kind(PrototypeContrast, scale)
    by_hand = sum(prototypes_by_hand(contrast, context, b) for b in range(B)) / B
    assert_close(contrast(context), by_hand)
    assert usable_by_hand(context, 1) == [1, 3, 5] and usable_by_hand(context, 2) == [1, 3, 4]


# --- pixels


def pixels_by_hand(contrast, context, b):
    "Mean over classes of the mean over their sampled pixels"
    f_c = [contrast.textual.weight @ context.text[b, c] for c in range(1, K) if context.known[b, c]]
    names = [c for c in range(1, K) if context.known[b, c]]
    f_c = unit(f_c)
    features = context.at_scale(2)[b]
    losses = {c: [] for c in usable_by_hand(context, b)}
    for y in range(H // 2):
        for x in range(W // 2):
            c = int(context.target[b, 2 * y + 1, 2 * x + 1])
            if c in losses:
                phi = F.normalize(contrast.visual.weight[:, :, 0, 0] @ features[:, y, x], dim=0)
                losses[c].append(-(f_c @ phi / TAU).log_softmax(0)[names.index(c)])
    means = [sum(x) / len(x) for x in losses.values() if x]
    return sum(means) / len(means)


def test_pixels_by_hand(context):
    contrast = of_kind(PixelContrast)
    by_hand = sum(pixels_by_hand(contrast, context, b) for b in range(B)) / B
    assert_close(contrast(context), by_hand)


# --- area


def test_area_by_hand(context):
    "The classes that are annotated in all images and vary: 5, which one image lacks"
    present = context.present.clone()
    present[0, 5] = False
    context = replace(context, present=present)
    area = context.probs.mean((2, 3)).T
    stated = present.double().T
    f_o, f_c = (F.normalize(x - x.mean(1, keepdim=True), dim=1) for x in (area, stated))
    known = [1, 2, 3, 5]
    cosine = (f_o @ f_c.T)[known][:, known] / TAU
    asks = [cosine.log_softmax(d)[3, 3] for d in (0, 1)]
    assert_close(AreaContrast(TAU)(context), -sum(asks) / 2)


def test_area_of_one_image_has_nothing_to_compare(context):
    alone = part(context, slice(1))
    alone = replace(alone, probs=alone.probs.clone().requires_grad_())
    loss = AreaContrast()(alone)
    assert loss == 0
    loss.backward()


# --- edges that prototypes and pixels share


KINDS = [PrototypeContrast, PixelContrast]


@pytest.mark.parametrize('kind', KINDS)
def test_gradient_reaches_features_and_both_projections(kind, context):
    contrast = of_kind(kind)
    features = [f.clone().requires_grad_() for f in context.features]
    contrast(replace(context, features=tuple(features))).backward()
    assert [f.grad is not None for f in features] == [False, False, True, False]
    for p in (features[2], *contrast.parameters()):
        assert p.grad.abs().max() > 0


@pytest.mark.parametrize('kind', KINDS)
def test_small_classes_are_left_out(kind, context):
    "Nine pixels are below ATPG's ten"
    two = part(context, slice(2, 3))
    few, all_ = of_kind(kind), of_kind(kind, least=9)
    all_.load_state_dict(few.state_dict())
    assert few.usable(two)[0].tolist() == [True, False, True, True, False]
    assert all_.usable(two)[0].tolist() == [True, False, True, True, True]
    assert few(two) != all_(two)


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_not_annotated_takes_no_part(kind, context):
    one = part(context, slice(1, 2))
    contrast = of_kind(kind)
    text = one.text.clone()
    text[:, 4] += 9
    assert_close(contrast(replace(one, text=text)), contrast(one))


@pytest.mark.parametrize('kind', KINDS)
def test_no_class_gives_zero_with_gradient(kind, context):
    contrast = of_kind(kind)
    empty = torch.full_like(context.target, IGNORE)
    loss = contrast(replace(context, target=empty))
    assert loss == 0
    loss.backward()
    assert all(p.grad.isfinite().all() for p in contrast.parameters())


@pytest.mark.parametrize('kind', KINDS)
def test_parts_of_a_batch_agree_with_the_whole(kind, context):
    "So several processes, and accumulation, train as one"
    contrast = of_kind(kind)
    parts = [contrast(part(context, slice(b, b + 1))) for b in range(B)]
    assert_close(torch.stack(parts).mean(), contrast(context))


@pytest.mark.parametrize('kind', KINDS)
def test_half_precision(kind, context):
    contrast = of_kind(kind).float()
    half = {k: getattr(context, k).half() for k in ('text', 'probs')}
    features = tuple(f.half() for f in context.features)
    with torch.autocast('cpu', torch.bfloat16):
        loss = contrast(replace(context, **half, features=features))
    assert loss.dtype == torch.float32
    assert_close(loss.double(), contrast.double()(context), atol=0.02, rtol=0.02)


def test_a_scale_that_the_decoder_lacks(context):
    with pytest.raises(InputError, match='no features at 1/16'):
        context.at_scale(16)


@pytest.mark.parametrize('kind', KINDS)
def test_the_ideal_answer_knows_its_labels(kind, context):
    "True labels cost next to nothing, a swap costs"
    blocks = torch.arange(K).repeat_interleave(4).expand(B, H, W)
    context = replace(context, target=blocks, known=torch.ones(B, K).bool())
    context = replace(context, present=torch.ones(B, K).bool())
    contrast = of_kind(kind)
    wrong = torch.tensor([0, 2, 1, 3, 4, 5])[blocks]
    losses = [contrast.compare(contrast.ideal(x, context), context) for x in (blocks, wrong)]
    best = contrast.compare(contrast.ideal(blocks, context) * 5, context)
    assert_close(best, losses[0])  # length counts for nothing
    assert losses[1] > losses[0] + 0.5


# --- in the network


def test_the_door_for_all(context):
    grid, projected = ChannelContrast(grid=4), ProjectedContrast(D, grid=4).double()
    for contrast in (grid, projected):
        args = context.probs, context.text, context.present, context.known
        assert_close(contrast_of(contrast, context), contrast(*args))
        assert_close(OutputContrast(contrast)(context), contrast(*args))


@pytest.fixture(scope='module')
def batch():
    torch.manual_seed(0)
    labels = torch.randint(0, 21, (2, 8, 12)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    sizes = dict(n=9, epoch=0, annotated=torch.ones(21).bool())
    return [
        sizes | dict(k=k, index=k, label=label, image=torch.rand(1, 64, 96))
        for k, label in zip((2, 5), labels)
    ]


@pytest.mark.parametrize('contrast', CONTRASTS)
@pytest.mark.parametrize('text_decoder', [True, False])
def test_a_training_step(contrast, text_decoder, batch, encoder):
    "With one decoder and with two; loss and gradient by hand from a second pass"
    cfg = replace(PRESETS['tiny'], windows=(64,), alpha=0.5, gain=1.0, contrast=contrast)
    cfg = replace(cfg, text_decoder=text_decoder, lambda_2=1.0)
    torch.manual_seed(0)
    net = build_network('atm_net', 21, 12, **network_kwargs(cfg, encoder.dim, JOINT)).eval()
    prompts = PromptBatcher(cfg, JOINT, encoder)
    seen = []

    def model(*args):
        seen.append(args)
        return logits_and_contrast(net, *args)

    out = step_loss(model, cfg, batch, prompts, True)
    out['loss'].backward()
    images, text, classes = seen[0]
    assert len(classes.text) == (2 if text_decoder else 4)
    with torch.no_grad():
        context = seen_by(net, images, text, classes)
        assert_close(contrast_of(net.ccae, context), out['contrast'])
    assert [n for n, p in net.ccae.named_parameters() if not p.grad.abs().max() > 0] == []


def test_features_of_the_text_decoder(batch, encoder):
    "The contrast of two decoders sees the one that reads"
    cfg = replace(PRESETS['tiny'], text_decoder=True, alpha=0.5, gain=1.0, contrast='prototypes')
    torch.manual_seed(0)
    net = build_network('atm_net', 21, 12, **network_kwargs(cfg, encoder.dim, JOINT)).eval()
    with torch.no_grad():
        for p in net.text_decoder.parameters():
            p.add_(0.05 * torch.randn_like(p))
    text = PromptBatcher(cfg, JOINT, encoder).holistic(batch)
    images = torch.stack([item['image'] for item in batch])
    with torch.no_grad():
        logits, steps = every_step(net, images, text)
        assert_close(net.backbone.out(steps[-1]), logits[:2])
        plain = net.decode_steps(net.backbone.encode(images))
    assert [len(s) for s in steps] == [2] * 5
    assert (steps[3] - plain[3]).abs().max() > 1e-3
    assert [s.shape[-1] for s in steps] == [6, 12, 24, 48, 96]


def test_weights_keep_their_contrast(tmp_path):
    kwargs = dict(text_dim=7, length=11, contrast='prototypes', tau=0.2)
    net = build_network('atm_net', 5, 12, **kwargs)
    header = dict(network='atm_net', out_channels=5, feature_size=12, kwargs=kwargs)
    save_weights(tmp_path / 'w.safetensors', net, header)
    again = load_network(tmp_path / 'w.safetensors')[0]
    assert type(again.ccae) is PrototypeContrast and again.ccae.tau == 0.2
    shapes = {k: tuple(v.shape) for k, v in again.ccae.state_dict().items()}
    assert shapes == {'visual.weight': (64, 12, 1, 1), 'textual.weight': (64, 7)}


def test_names_of_contrasts():
    small = dict(text_dim=7, length=11)
    kinds = {c: type(build_network('atm_net', 5, 12, contrast=c, **small).ccae) for c in CONTRASTS}
    assert kinds == dict(
        grid=ChannelContrast,
        projected=ProjectedContrast,
        prototypes=PrototypeContrast,
        pixels=PixelContrast,
        area=AreaContrast,
    )


# --- the test that the image is seen


def stripes(n, seed, tops=1):
    "Label maps of four structures, one below the other, at different heights; one of `tops` lists"
    rng = torch.Generator().manual_seed(seed)
    names = LUMBAR.run('T11', 'L4')
    start = names.index('L2')
    labels = torch.zeros(n, 96, 32, dtype=torch.long)
    for one in labels:
        top = int(torch.randint(0, 56, (), generator=rng))
        first = start - 2 * int(torch.randint(0, tops, (), generator=rng))
        for i, name in enumerate(names[first : first + 4]):
            one[top + 10 * i : top + 10 * i + 10, 8:24] = JOINT.channel(name)
    return labels


@pytest.fixture(scope='module')
def seen(encoder):
    "Contexts of stripes whose features are noise"
    vectors = class_vectors(encoder, JOINT)
    torch.manual_seed(0)
    contexts = []
    for seed in range(4):
        prompts = true_prompts(stripes(8, seed, tops=4), vectors)
        probs = torch.full((8, 21, 96, 32), 1 / 21)
        features = (torch.randn(8, C, 48, 16),)
        contexts.append(ContrastContext(**vars(prompts), probs=probs, features=features))
    return contexts


def true_loss(contrast, contexts):
    ideals = [contrast.ideal(c.target, c) for c in contexts]
    return mean_loss(contrast, ideals, contexts)


@pytest.mark.parametrize('kind', KINDS)
def test_no_blind_answer_is_right(kind, seen):
    "The place of a structure is open, so an answer that does not look must miss"
    torch.manual_seed(0)
    contrast = kind(128, C, dim=16)
    assert blind_loss(contrast, seen, False, 40) > true_loss(contrast, seen) + 0.8


def test_channels_give_their_class_away(seen):
    "The shortcut of grid and projected: as the truth or better, without an image"
    torch.manual_seed(0)
    for contrast in map(OutputContrast, (ChannelContrast(), ProjectedContrast(128))):
        assert blind_loss(contrast, seen, False, 40) < true_loss(contrast, seen)


def test_a_prompt_that_says_the_place_is_enough(seen):
    "One tensor for each prompt: right where the prompt leaves nothing open, else not"
    torch.manual_seed(0)
    contrast = PrototypeContrast(128, C, dim=16)
    same = [seen[0]] * 2
    assert blind_loss(contrast, same, True, 40) < true_loss(contrast, same) + 0.1
    assert blind_loss(contrast, seen, False, 40) > true_loss(contrast, seen) + 0.8


def test_moved_and_swapped():
    labels = stripes(2, 0)
    labels[0, 0, 0] = IGNORE
    labels[0, 0, 1] = JOINT.channel('S')
    labels[0, 0, 2] = JOINT.channel('SC')
    up = moved(labels, JOINT)
    for name, above in {'L2': 'L1', 'L2/L3': 'L1/L2', 'L3': 'L2', 'S': 'S', 'SC': 'SC'}.items():
        assert (up[labels == JOINT.channel(name)] == JOINT.channel(above)).all()
    assert up[0, 0, 0] == 0
    assert moved(torch.tensor([[[JOINT.channel('T9')]]]), JOINT).item() == 0
    other = swapped(labels, JOINT)
    two, three = JOINT.channel('L2'), JOINT.channel('L3')
    assert ((other == two) == (labels == three)).all() and (
        (other == three) == (labels == two)
    ).all()
    assert (other == labels)[(labels != two) & (labels != three)].all()


def test_true_prompts(encoder):
    vectors = class_vectors(encoder, JOINT)
    prompts = true_prompts(stripes(2, 0), vectors)
    here = [JOINT.names[c - 1] for c in prompts.present[0].nonzero()[:, 0].tolist() if c]
    assert set(here) == {'L2', 'L2/L3', 'L3', 'L3/L4'}
    batcher = PromptBatcher(PRESETS['tiny'], JOINT, encoder)
    assert_close(batcher.class_features(prompts.present), prompts.text)


def test_windows_take_turns():
    "Each batch has one window of each list, and not too many from one slice"
    slices = [(one.float().numpy(), one.numpy().astype('uint8')) for one in stripes(6, 3)]
    windows = windows_by_list(slices, JOINT, side=32, lists=3, each=4, of_one=2)
    assert windows.images.shape == (12, 1, 32, 32) and len(windows.batches()) == 4
    for batch in windows.batches():
        for label, names in zip(batch.labels, windows.structures):
            pixels = label.flatten().bincount(minlength=21)
            assert {JOINT.channel(n) for n in names} == {c for c in range(1, 21) if pixels[c] >= 10}
    with pytest.raises(InputError, match='too few for 9 lists'):
        windows_by_list(slices[:1], JOINT, side=32, lists=9, each=2)


def test_all_keys(encoder):
    "Own, blank and other of a fresh network, and what they are compared with"
    torch.manual_seed(0)
    net = ATMNet(21, text_dim=128, length=128, ccae=PrototypeContrast(128, 12)).eval()
    labels = F.pad(stripes(6, 3), (16, 16, 0, 0))
    slices = [(one.float().numpy(), one.numpy().astype('uint8')) for one in labels]
    windows = windows_by_list(slices, JOINT, side=64, lists=2, each=3)
    contexts = network_contexts(net, windows, JOINT, encoder, 128)
    before = mean_loss(net.ccae, [net.ccae.answer(c) for c in contexts['own']], contexts['own'])
    fit_contrast(net.ccae, contexts['own'], 20)
    losses = shortcut_losses(net.ccae, contexts, JOINT, steps=5)
    assert losses.own < before
    assert losses.own != losses.blank != losses.other
    assert losses.true < losses.shifted and losses.true < losses.swapped


def test_what_passes():
    good = dict(true=0.1, blind=1.0, blind_with_prompt=0.95, shifted=1, swapped=1, other_prompt=1)
    rest = dict(own=0, blank=0, other=0)
    assert ShortcutLosses(**good, **rest).failures() == []
    for key, bad in dict(blind=0.8, blind_with_prompt=0.2, shifted=0.1, other_prompt=0).items():
        assert ShortcutLosses(**(good | {key: bad}), **rest).failures() == [key]


def test_free_numbers_become_probabilities(context):
    "An answer of the contrasts on the output is a probability for each pixel, over the classes"
    numbers = torch.randn(B, K, H, W).double()
    answer = AreaContrast().as_answer(numbers)
    assert_close(answer.sum(1), torch.ones(B, H, W).double())
    by_hand = numbers[1, :, 2, 3].exp()
    assert_close(answer[1, :, 2, 3], by_hand / by_hand.sum())


def test_every_step_without_text_is_the_plain_network():
    net = build_network('atm_net', K, 12, hasf=False, ccae=False).eval()
    images = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        logits, steps = every_step(net, images, None)
        assert_close(logits, net(images))
        assert_close(logits, net.backbone.out(steps[-1]))
