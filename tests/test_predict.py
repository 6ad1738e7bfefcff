"Predictor: weights, devices, prompts of a volume, and masks on the pixels of their source"

from unittest.mock import patch

import numpy as np
import pytest
import torch

from atm_net.anatomy import LUMBAR
from atm_net.column import Naming
from atm_net.core import InputError
from atm_net.geometry import new_geometry, new_volume
from atm_net.grid import crop_oracle
from atm_net.paper_figures import class_features
from atm_net.predict import (
    SHIPPED,
    Predictor,
    guided,
    load_predictor,
    localise,
    segment,
    weights_file,
)
from atm_net.prediction import levels_note, prediction_figure
from atm_net.protocols import check_anchor, protocol_prompts
from atm_net.slices import Slices, pad32, pick_device, slice_probs
from atm_net.text import load_encoder
from atm_net.weights import build_network, model_card, save_weights
from atm_net.word_maps import read_slice

JOINT = LUMBAR.scheme('joint')


# --- slices, weights, devices


def test_pad32():
    assert pad32(torch.ones(1, 1, 33, 64)).shape == (1, 1, 64, 64)
    assert pad32(torch.ones(1, 2, 32, 64)).shape == (1, 2, 32, 64)
    padded = pad32(torch.ones(1, 1, 31, 30))[0, 0]
    assert padded[:31, :30].all() and padded.sum() == 31 * 30


def test_slices_come_in_order_whatever_the_batch():
    class Echo(torch.nn.Module):
        def forward(self, x):
            return torch.cat([-x, x * 0, x], 1)

    images = np.random.default_rng(0).normal(size=(5, 17, 23)).astype(np.float32)
    for batch in (2, 8):
        probs = dict(slice_probs(Echo(), images, batch=batch))
        assert list(probs) == [0, 1, 2, 3, 4]
        for k in range(5):
            logits = torch.as_tensor(np.stack([-images[k], images[k] * 0, images[k]]))
            torch.testing.assert_close(probs[k], logits.softmax(0))


def device_with(n: int, device):
    "What `pick_device` says on a machine with n GPUs"
    with patch.multiple(torch.cuda, is_available=lambda: n > 0, device_count=lambda: n):
        return pick_device(device)


def test_auto_is_a_gpu_where_there_is_one():
    assert [device_with(0, d) for d in ('cpu', 'auto')] == ['cpu', 'cpu']
    assert [device_with(2, d) for d in ('cpu', 'auto')] == ['cpu', 'cuda']
    assert [device_with(2, d) for d in ('cuda', 'cuda:1')] == ['cuda', 'cuda:1']


@pytest.mark.parametrize('device', ['tpu', '', 'CUDA', 'cuda:x', 'cpu:0', None])
def test_unknown_devices(device):
    with pytest.raises(InputError, match='use cpu, cuda, mps or auto'):
        load_predictor(device=device)


@pytest.mark.parametrize(
    ('n', 'device', 'words'),
    [(0, 'cuda', 'no GPU'), (0, 'cuda:0', 'no GPU'), (2, 'cuda:2', 'the last of 2')],
)
def test_devices_that_are_not_there(n, device, words):
    with pytest.raises(InputError, match=words):
        device_with(n, device)


def test_weights_by_name_folder_and_file(tmp_path):
    assert weights_file('atm_net_tiny') == weights_file() == weights_file('') == SHIPPED
    with pytest.raises(InputError, match='no such weights'):
        weights_file('atm_net_huge')
    with pytest.raises(InputError, match='train it first'):
        weights_file(tmp_path)
    for name in ('last', 'best'):  # the best, once there is one
        (tmp_path / f'{name}.safetensors').touch()
        assert weights_file(tmp_path).stem == name
    assert weights_file(tmp_path / 'last.safetensors').stem == 'last'


# --- a network whose answer is known


class Bright(torch.nn.Module):
    "Logits for channel 6, L1, where the image is brighter than half"

    def forward(self, x):
        z = torch.full((len(x), 21, *x.shape[2:]), -9.0)
        z[:, :1] = (0.5 - x) * 9
        z[:, 6:7] = (x - 0.5) * 9
        return z


META = dict(scheme='joint', values=JOINT.values, grid=dict(spacing=2.0, size=None), network='fake')


@pytest.fixture(scope='module')
def labels():
    "L1 in all slices, and a second bright piece below it in one"
    out = np.zeros((5, 90, 70), np.uint8)
    out[:, 20:55, 15:50] = 6
    out[2, 60:80, 5:60] = 6
    return out


@pytest.fixture(scope='module')
def volume(labels):
    geometry = new_geometry(labels.shape, (4.0, 1.3, 0.9), 'PIR')
    return new_volume(1000.0 * (labels > 0) + 7, geometry)


@pytest.fixture(scope='module')
def bright():
    return Predictor(Bright(), META)


@pytest.fixture(scope='module')
def found(bright, volume):
    return bright.predict(volume, one_name_per_level=False)


def test_a_mask_returns_to_the_pixels_of_its_source(found, labels):
    assert (found.protocol, found.prompts, found.trace) == ('none', [], [])
    assert found.labels.shape == labels.shape and set(np.unique(found.labels)) == {0, 6}
    for got, want in zip(found.labels == 6, labels == 6):
        assert (got & want).sum() / (got | want).sum() > 0.9


def test_levels_named_once(bright, volume, found):
    "There is no second L1"
    once = bright.predict(volume).labels
    assert set(np.unique(once[2, 60:80])) == {0, JOINT.channel('L2')}
    np.testing.assert_array_equal(once[:, :57], found.labels[:, :57])


def test_the_predictors_own_setting_holds_unless_told_otherwise(volume, found):
    predictor = Predictor(Bright(), META, one_name_per_level=False)
    np.testing.assert_array_equal(predictor.predict(volume).labels, found.labels)
    once = predictor.predict(volume, one_name_per_level=True).labels
    assert JOINT.channel('L2') in once


def test_nothing_is_found_outside_the_box(bright, volume, found):
    box = (10, 5, 60, 65)
    boxed = bright.predict(volume, box=box, one_name_per_level=False).labels
    assert not boxed[2, 60:].any()
    assert (boxed[0] == found.labels[0]).mean() > 0.97


def test_the_spacing_of_a_boxed_labeler(bright, volume):
    spacing = bright.column_labeler(volume, (10, 5, 60, 65), True).spacing
    assert spacing[0] == volume.spacing[0]
    np.testing.assert_allclose(spacing[1:], bright.grid.pixel((50, 60), volume.spacing[1:]))
    assert bright.column_labeler(volume, one_name_per_level=False) is None


def test_localise_boxes_what_was_found(bright, volume, found):
    want = crop_oracle(found.labels, volume.spacing[1:], 9.0)
    assert localise(bright, volume, 9.0) == want
    dark = new_volume(np.zeros(volume.shape), volume.geometry)
    assert localise(bright, dark) == (0, 0, *volume.shape[1:])


def test_crop_self_finds_its_own_box(bright, volume):
    own = Predictor(Bright(), META | dict(crop='self'))
    want = bright.predict(volume, box=localise(bright, volume)).labels
    # the border is left out before, so the box begins at another part of a pixel
    assert (own.predict(volume).labels == want).mean() > 0.99
    assert (own.predict(volume).labels > 0).sum() > 1000


def test_crop_oracle_needs_a_box(volume):
    oracle = Predictor(Bright(), META | dict(crop='oracle'))
    with pytest.raises(InputError, match='give the box'):
        oracle.predict(volume)
    assert oracle.predict(volume, box=(0, 0, 90, 70)).labels.any()


@pytest.mark.parametrize(
    'given',
    [
        dict(prompt='L4'),
        dict(report='Bulge at L4/5.'),
        dict(protocol='oracle', truth='mask'),
        dict(other=[]),
    ],
)
def test_a_network_without_text_drops_no_words_in_silence(bright, volume, given):
    with pytest.raises(InputError, match='no text'):
        bright.predict(volume, **given)


def test_confidence_is_the_mean_of_what_was_found(bright):
    images = np.zeros((2, 32, 32), np.float32)
    images[0, 8:16, 8:16] = 1
    labels, confidence = bright.predict_with_confidence(images)
    z = torch.full((21,), -9.0)
    z[0], z[6] = -4.5, 4.5
    p = z.softmax(0)[6].item()
    assert labels[0, 10, 10] == 6 and not labels[1].any()
    assert confidence == pytest.approx(p / 2)  # a slice with nothing counts 0


def test_grid_labels_are_those_of_the_labeler(bright):
    images = np.zeros((2, 32, 32), np.float32)

    def labeler(probabilities, known_levels, copy):
        assert (
            probabilities.dtype == np.float32
            and not copy
            and probabilities.shape == (2, 21, 32, 32)
        )
        assert known_levels == {'L4'}
        return np.roll(probabilities, 3, axis=1)

    assert (bright.grid_labels(images, None, labeler, {'L4'}) == 3).all()


def test_prediction_figure_shows_the_asked_slices(volume, found):
    fig = prediction_figure(volume, found, n=2)
    titles = [ax.get_title() for ax in fig.axes]
    assert [t for t in titles if t] == ['slice 2 of 5', 'slice 4 of 5']
    assert fig._suptitle.get_text() == 'none: no text'


# --- a network with text


@pytest.fixture(scope='module')
def reader(tmp_path_factory):
    "Weights of an untrained network that reads; it says which protocol it followed"
    encoder = load_encoder('spine_bert_tiny')
    kwargs = dict(hasf=True, ccae=False, text_dim=encoder.dim, length=128, attention='pooled')
    meta = dict(
        scheme='joint',
        values=JOINT.values,
        grid=dict(spacing=None, size=64),
        network='atm_net',
        out_channels=21,
        feature_size=12,
        kwargs=kwargs,
        encoder=encoder.name,
        encoder_revision=encoder.revision,
        length=128,
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'reader.safetensors'
    save_weights(path, build_network('atm_net', 21, 12, **kwargs), meta)
    return path


@pytest.mark.parametrize(
    ('given', 'protocol', 'structures'),
    [
        (dict(prompt='I see L3 and L4.'), 'user', ('L3', 'L4')),
        (dict(report='Disc bulging at L4/5.'), 'report', ('L4', 'L4/L5', 'L5')),
        (dict(protocol='generic'), 'generic', ()),
    ],
)
def test_segment_follows_the_protocol(reader, volume, given, protocol, structures):
    prediction = segment(volume, reader, verbatim=True, **given)
    assert (prediction.protocol, prediction.prompts[0].structures) == (protocol, structures)


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        (dict(prompt=''), 'empty'),
        (dict(prompt='L3', protocol='self'), 'does not read it'),
        (dict(prompt='L3', report='Bulge at L4/5.'), '--report'),
        (dict(truth='mask'), 'choose oracle'),
        (dict(report=''), 'report is empty'),
    ],
)
def test_segment_refuses_words_that_would_not_be_read(reader, volume, given, words):
    with pytest.raises(InputError, match=words):
        segment(volume, reader, **given)


def test_each_sentence_is_encoded_once(reader):
    predictor = load_predictor(reader)
    text = predictor.features(['a', 'b', 'b', 'a', 'b'])
    assert (len(text.states), text.prompt_index.tolist()) == (2, [0, 1, 1, 0, 1])


# --- one encoding for several prompts, and the weight of the prompt


@pytest.fixture
def grid_images():
    "Three slices, more than a batch holds"
    return np.random.default_rng(0).random((3, 33, 64), np.float32)


def typed(predictor, count):
    return protocol_prompts('user', count, predictor.scheme, prompt='I see L3 and L4.')


def stacked(predictor, images, prompts):
    return np.stack(list(predictor.probs(images, prompts)))


def test_shared_slices_give_the_same_bits(reader, grid_images):
    predictor = load_predictor(reader)
    slices = predictor.shared(grid_images)
    generic = protocol_prompts('generic', 3, predictor.scheme)
    for prompts in (typed(predictor, 3), generic, typed(predictor, 3)):
        together = stacked(predictor, slices, prompts)
        assert np.array_equal(together, stacked(predictor, grid_images, prompts))
    assert predictor.shared(slices) is slices


def test_text_knows_how_high_the_images_are(reader, grid_images):
    "33 px are padded to 64; whoever runs the network says so to its fusions"
    predictor = load_predictor(reader)
    seen = []
    predictor.model.hasf[0].project.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].image_rows)
    )
    prompts = typed(predictor, 3)
    features = predictor.features(prompts)
    labels = np.ones(grid_images.shape, np.uint8)
    ways = (
        lambda: stacked(predictor, grid_images, prompts),
        lambda: stacked(predictor, predictor.shared(grid_images), prompts),
        lambda: class_features(predictor.model, grid_images, labels, features),
        lambda: read_slice(predictor, grid_images[0], prompts[0]),
    )
    for way in ways:
        seen.clear()
        way()
        assert set(seen) == {33}


def test_the_encoder_sees_each_slice_once(reader, grid_images):
    predictor = load_predictor(reader)
    seen = []
    encode = predictor.model.backbone.encode
    predictor.model.backbone.encode = lambda x: seen.append(len(x)) or encode(x)
    predictor.guidance = 3.0
    slices = predictor.shared(grid_images)
    for prompts in (typed(predictor, 3), protocol_prompts('generic', 3, predictor.scheme)):
        stacked(predictor, slices, prompts)
    assert seen == [3]


def test_slices_without_room_are_read_anew(reader, grid_images):
    predictor = load_predictor(reader)
    poor = Slices(grid_images, room=1000)
    found = stacked(predictor, poor, typed(predictor, 3))
    assert np.array_equal(found, stacked(predictor, grid_images, typed(predictor, 3)))
    assert (poor.kept, poor.room) == ({}, 1000)


def test_a_network_without_text_reads_kept_slices_too(grid_images):
    "`Slices` are read once, whatever the prompts say"
    predictor = Predictor(build_network('unet', JOINT.channels, 8).eval(), META)
    slices = predictor.shared(grid_images)
    found = [predictor.grid_labels(slices, [text] * len(slices)) for text in ('L4', 'L5')]
    assert np.array_equal(found[0], predictor.grid_labels(grid_images, ['L4'] * len(slices)))
    assert np.array_equal(*found)
    assert all(isinstance(key, int) for key in slices.kept)


def test_self_names_the_levels_of_a_pass_once(reader, volume):
    "The last pass of `self` repeats an earlier one: its levels are named already"
    calls = []

    class Labeler:
        spacing = (4.0, 2.0, 2.0)

        def __call__(self, probabilities, known_levels=(), copy=True):
            calls.append(known_levels)
            return probabilities.astype(np.float32)

    predictor = load_predictor(reader)
    slices = predictor.shared(predictor.to_grid(volume))
    for _ in range(2):
        predictor.probs(slices, typed(predictor, 5), Labeler())
    predictor.probs(slices, typed(predictor, 5), Labeler(), {'L4'})
    assert calls == [(), {'L4'}]


def logits(predictor, images, text):
    "By the network itself, slice by slice, in float64"
    net = predictor.model
    with torch.inference_mode():
        z = net(pad32(torch.as_tensor(images)[:, None]), text)
    return z[..., : images.shape[1], : images.shape[2]].double()


@pytest.mark.parametrize('weight', [0.0, 0.5, 4.0])
def test_guidance_is_its_equation(reader, grid_images, weight):
    "Against generic + w (prompted - generic) and the softmax by hand, in float64"
    predictor = load_predictor(reader, guidance=weight)
    told, generic = typed(predictor, 3), protocol_prompts('generic', 3, predictor.scheme)
    z_p, z_0 = (logits(predictor, grid_images, predictor.features(p)) for p in (told, generic))
    assert (z_p - z_0).abs().max() > 1e-3
    z = z_0 * (1 - weight) + z_p * weight
    by_hand = z.exp() / z.exp().sum(1, keepdim=True)
    found = torch.as_tensor(stacked(predictor, grid_images, told)).double()
    torch.testing.assert_close(found, by_hand, atol=1e-5, rtol=1e-4)


def test_guidance_of_zero_is_the_generic_prompt(reader, grid_images):
    predictor = load_predictor(reader, guidance=0)
    generic = protocol_prompts('generic', 3, predictor.scheme)
    found = stacked(predictor, grid_images, typed(predictor, 3))
    predictor.guidance = 1
    assert np.array_equal(found, stacked(predictor, grid_images, generic))


def test_guidance_of_one_computes_no_generic_pass(reader, grid_images):
    "Bit for bit what it was, at the same price"
    predictor = load_predictor(reader, guidance=1)
    asked = []
    features = predictor.features
    predictor.features = lambda prompts: asked.append(str(prompts[0])) or features(prompts)
    told = typed(predictor, 3)
    stacked(predictor, predictor.shared(grid_images), told)
    assert asked == [str(told[0])]


@pytest.mark.parametrize('weight', [-1.0, -1e-9, float('nan'), float('inf')])
def test_guidance_that_is_no_weight(reader, weight):
    with pytest.raises(InputError, match='--guidance .*: must be 0 or more'):
        load_predictor(reader, guidance=weight)


def test_guidance_without_text():
    with pytest.raises(InputError, match='this model has no text'):
        Predictor(Bright(), META, guidance=2.0)


def test_guided_by_hand():
    z = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)
    z_p = torch.tensor([0.0, 1.9, 1.3], dtype=torch.float64)
    want = torch.tensor([0.0, 1.6, 2.2], dtype=torch.float64)
    torch.testing.assert_close(guided(z_p, z, 4), want, atol=1e-12, rtol=0)


def test_another_encoder_is_refused(reader):
    model = load_predictor(reader).model
    meta = load_predictor(reader).meta | dict(encoder_revision='other')
    with pytest.raises(InputError, match=r'were trained with encoder .* \(revision other\)'):
        Predictor(model, meta)


def test_a_card_from_the_header(reader):
    card = model_card(load_predictor(reader))
    assert card.startswith('# reader.safetensors') and 'These weights have no card' in card
    assert 'spine_bert_tiny' in card and 'trained from' not in card
    assert model_card(load_predictor()) == (SHIPPED.parent / 'README.md').read_text(
        encoding='utf-8'
    )


# --- what a protocol says to each slice


class Narrow(Predictor):
    "Does as the words say, but finds nothing in slice 0 and L4 alone in slice 4"

    def __init__(self):
        self.anatomy = LUMBAR
        self.scheme = JOINT
        self.option = 3
        self.has_text = True
        self.passes = []

    def predict_with_confidence(self, images, prompts=None, labeler=None, known_levels=()):
        self.passes.append((labeler, known_levels))
        labels = np.zeros(images.shape, np.uint8)
        for i, name in enumerate(prompts[2].structures):
            labels[:, 2 + i * 9 : 10 + i * 9, 5:20] = JOINT.channel(name)
        labels[0] = 0
        labels[4][labels[4] != JOINT.channel('L4')] = 0
        return labels, 0.5


IMAGES = np.zeros((5, 50, 30))
FEW = ('L2', 'L2/L3', 'L3')


@pytest.fixture
def narrow():
    return Narrow()


def structures(prompts):
    return [p.structures for p in prompts]


def test_words_of_the_volume_are_divided(narrow):
    prompts, trace = narrow.words_for(IMAGES, 'user', labeler='labeler', prompt='I see L3 and L4.')
    whole = ('L3', 'L3/L4', 'L4')
    assert structures(prompts) == [(), whole, whole, whole, ('L4',)] and trace == []
    assert narrow.passes == [('labeler', set(whole))]


def test_verbatim_words_are_not_divided(narrow):
    prompts, _ = narrow.words_for(IMAGES, 'user', prompt='I see L3 and L4.', verbatim=True)
    assert structures(prompts) == [('L3', 'L4')] * 5 and narrow.passes == []


def test_oracle_levels_are_divided_and_the_oracle_is_not(narrow):
    mask = np.zeros((5, 50, 30), np.uint8)
    for i, name in enumerate(FEW):
        mask[:, i * 9 : i * 9 + 9] = JOINT.channel(name)
    levels, _ = narrow.words_for(IMAGES, 'oracle-levels', truth=mask)
    assert structures(levels) == [(), FEW, FEW, FEW, ()]
    narrow.passes.clear()
    oracle, _ = narrow.words_for(IMAGES, 'oracle', truth=mask)
    assert structures(oracle) == [FEW] * 5 and narrow.passes == []


def test_findings_go_where_their_level_is(narrow):
    text = 'Disc bulging at L4/5, fracture of L5.'
    prompts, _ = narrow.words_for(IMAGES, 'report', report=text, option=4)
    assert prompts[2].structures == ('L4', 'L4/L5', 'L5') and len(prompts[2].findings) == 2
    assert prompts[4].structures == ('L4',) and prompts[4].findings == ()


def test_generic_costs_no_pass(narrow):
    assert structures(narrow.words_for(IMAGES, 'generic')[0]) == [()] * 5
    assert narrow.passes == []


def test_self_takes_no_level_for_known(narrow):
    _, trace = narrow.words_for(IMAGES, 'self', labeler='labeler')
    assert [vote.outcome for vote in trace] == ['nothing found']
    assert narrow.passes == [('labeler', ())]


def test_words_for_refuses_what_it_cannot_say(narrow):
    with pytest.raises(InputError, match='unknown'):
        narrow.words_for(IMAGES, 'magic')
    with pytest.raises(InputError, match='not from data'):
        narrow.words_for(IMAGES, 'none')


def test_the_levels_of_self_are_no_news(narrow, volume, monkeypatch):
    "The words of a person help to name the column; `self` read its words off this image"
    narrow.crop = 'fov'
    narrow.grid = load_predictor().grid
    known = {}

    def source_labels(self, images, prompts, volume, box, labeler, known_levels):
        known[prompts[2].source] = known_levels
        return np.zeros(volume.shape, np.uint8)

    def self_prompts(self, images, rounds, labeler=None):
        return [SimplePrompt()] * 5, [], []

    class SimplePrompt:
        structures = ('L3',)
        source = 'self'

    monkeypatch.setattr(Predictor, 'source_labels', source_labels)
    monkeypatch.setattr('atm_net.predict.self_prompts', self_prompts)
    narrow.predict(volume, 'self', one_name_per_level=True)
    narrow.predict(volume, 'user', prompt='L3', verbatim=True, one_name_per_level=True)
    assert known == {'self': (), 'user': {'L3'}}


# --- what is said of the counting

UP_TO_L5 = ('L3', None, 'L4', 'L5', None)
SAID = {  # levels, by the image, margin, sacrum, lowest, source -> words
    'sure': (('L5', 'S'), ('L5', 'S'), 30.0, 1.0, 'S', '', 'levels: confidence .98'),
    'no sacrum': (
        *(UP_TO_L5, UP_TO_L5, 3.0, 0.0, 'L5', ''),
        'levels uncertain: the sacrum is not clearly seen; say what the lowest visible vertebra '
        'is, --anchor LEVEL (the network says L5, confidence .28)',
    ),
    'above': (
        *(('L2', 'L3'), ('L2', 'L3'), 3.0, 0.0, 'L3', ''),
        'levels uncertain: the sacrum is not clearly seen; say what the lowest visible vertebra '
        'is, --anchor LEVEL (the network says L3, confidence .28)',
    ),
    'close': (
        *(('L5', 'S'), ('L5', 'S'), 0.0, 0.55, 'S', ''),
        'levels uncertain: all names moved by a level fit nearly as well; say what the lowest '
        'visible vertebra is, --anchor LEVEL (the network says S, confidence .76)',
    ),
    'anchor': (
        *(UP_TO_L5, UP_TO_L5, 3.0, 0.0, 'L5', 'anchor'),
        'levels: the anchor and the network agree, confidence .28',
    ),
    'list': (
        *(('L4', 'L5', None), ('L5', 'S', None), 30.0, 1.0, 'L5', 'list'),
        'levels: the list and the network disagree: the lowest body is L5 by the list, which was '
        'followed, and S by the network, confidence .98',
    ),
}


@pytest.mark.parametrize('case', SAID)
def test_what_is_said_of_the_counting(case):
    *fields, words = SAID[case]
    assert levels_note(Naming(*fields), JOINT) == words


def test_labels_without_a_sacrum_say_so():
    spider = LUMBAR.scheme('spider')
    note = levels_note(Naming(UP_TO_L5, UP_TO_L5, 3.0, 0.0, 'L5'), spider)
    assert 'label scheme spider has no sacrum to count from' in note
    assert '(the network says L5, confidence' in note
    assert levels_note(None, spider) == ''


def test_an_anchor_and_a_list_go_together():
    check_anchor(None, {'L5'}, JOINT)
    check_anchor('L5', {'L4', 'L5', 'L5/S', 'S', 'SC'}, JOINT)
    with pytest.raises(InputError, match='the words name L4, L5 below it'):
        check_anchor('L3', {'L3', 'L4', 'L5'}, JOINT)
