"Text encoders: what they load, refuse and remember, and the features that networks read"

import os
import pickle
import time

import pytest
import torch
from torch.testing import assert_close
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizerFast

from atm_net import text as module
from atm_net.anatomy import LUMBAR, get_anatomy
from atm_net.core import InputError
from atm_net.prompts import POSITIONS, class_prompts, holistic
from atm_net.text import TextEncoder, TextFeatures, column, load_encoder, locate
from atm_net.user_prompts import report_prompt
from atm_net.wording import FINDINGS, Finding

WORDS = '[PAD] [UNK] [CLS] [SEP] [MASK] it contains lumbar ver ##te ##bra l 4 ##4 ##5 / . It L'
TEXT = 'It contains lumbar vertebra L4.'
SIZES = dict(
    vocab_size=19,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=17,
)


def save(folder, model, safe=True):
    "A folder as on the hub: config, weights in either format, bare vocab.txt"
    folder.mkdir()
    model.config.save_pretrained(folder)
    if safe:
        model.save_pretrained(folder)
    else:
        torch.save(model.state_dict(), folder / 'pytorch_model.bin')
    (folder / 'vocab.txt').write_text('\n'.join(WORDS.split()) + '\n', encoding='utf-8')
    return folder


@pytest.fixture(scope='module')
def bert():
    torch.manual_seed(0)
    return BertModel(BertConfig(**SIZES)).eval()


@pytest.fixture(scope='module')
def saved(bert, tmp_path_factory):
    return save(tmp_path_factory.mktemp('encoders') / 'safe', bert)


@pytest.fixture
def encoder(saved):
    return load_encoder(saved)


@pytest.fixture(scope='module')
def spine():
    return load_encoder('spine_bert_tiny')


# Loading


@pytest.mark.parametrize('safe', [True, False], ids=['safetensors', 'bin'])
def test_states_are_those_of_transformers_to_the_last_bit(bert, tmp_path, safe):
    encoder = load_encoder(save(tmp_path / 'x', bert, safe))
    ids = torch.tensor([encoder.ids(TEXT)])
    n = ids.shape[1]
    with torch.no_grad():
        want = bert(input_ids=ids).last_hidden_state
    states, mask = encoder([TEXT, 'it contains'], length=13)
    assert (states.shape, states.dtype) == ((2, 13, 24), torch.float32)
    assert (mask.shape, mask.dtype) == ((2, 13), torch.bool)
    assert_close(states[:1, :n], want, rtol=0, atol=0)
    assert mask.sum(1).tolist() == [n, 4]
    assert not states[~mask].any()


def test_encoder_is_frozen(encoder):
    states, _ = encoder(TEXT)
    assert not states.requires_grad
    assert not any(p.requires_grad for p in encoder.model.parameters())
    assert not any(m.training for m in encoder.model.modules())
    assert (encoder.dim, encoder.max_length) == (24, 17)


def test_both_formats_have_one_revision(bert, encoder, tmp_path):
    assert load_encoder(save(tmp_path / 'bin', bert, False)).revision == encoder.revision


def test_revision_knows_every_weight_but_the_pooler(bert, encoder, tmp_path):
    other = BertModel(bert.config)
    other.load_state_dict(bert.state_dict())
    other.pooler.dense.weight.data += 1
    assert module.weights_hash(other) == encoder.revision
    other.encoder.layer[1].output.dense.bias.data[3] += 1
    assert module.weights_hash(other) != encoder.revision


def test_a_head_on_top_is_left_out(bert, encoder, tmp_path):
    headed = BertForMaskedLM(bert.config)
    headed.bert.load_state_dict(bert.state_dict(), strict=False)
    states, _ = load_encoder(save(tmp_path / 'headed', headed, False))(TEXT)
    assert_close(states, encoder(TEXT)[0], rtol=0, atol=0)


def test_a_missing_weight_is_an_error(bert, tmp_path):
    folder = save(tmp_path / 'holed', bert, False)
    weights = bert.state_dict()
    weights.pop('encoder.layer.1.output.dense.weight')
    torch.save(weights, folder / 'pytorch_model.bin')
    with pytest.raises(InputError, match='encoder.layer.1.output.dense.weight'):
        load_encoder(folder)


@pytest.mark.parametrize('file', ['pytorch_model.bin', 'model.safetensors'])
def test_a_pickle_that_runs_code_is_refused(bert, tmp_path, file):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / 'pwned'),))

    folder = save(tmp_path / 'evil', bert, file.endswith('tensors'))
    (folder / file).write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(InputError, match='cannot be loaded'):
        load_encoder(folder)
    assert not (tmp_path / 'pwned').exists()


def test_a_folder_that_is_not_there_or_empty(tmp_path):
    with pytest.raises(InputError, match='no folder'):
        load_encoder(tmp_path / 'nowhere')
    with pytest.raises(InputError, match='config.json, weights, tokenizer missing'):
        load_encoder(tmp_path)


def test_locate_tells_a_folder_from_the_hub(saved, tmp_path, monkeypatch):
    monkeypatch.delenv('ATM_NET_BIO_CLINICAL_BERT', raising=False)
    assert locate(saved) == (str(saved), True)
    assert locate('nobody/no-such-model') == ('nobody/no-such-model', False)
    assert locate('bio_clinical_bert') == ('emilyalsentzer/Bio_ClinicalBERT', False)
    monkeypatch.setenv('ATM_NET_BIO_CLINICAL_BERT', str(saved))
    assert locate('bio_clinical_bert') == (str(saved), True)


def test_our_own_bugs_are_not_blamed_on_the_file(saved, monkeypatch):
    def broken(*a):
        raise TypeError('a bug')

    monkeypatch.setattr(module, '_pretrained', broken)
    with pytest.raises(TypeError, match='a bug'):
        load_encoder(saved)


def test_without_the_hub_the_answer_comes_at_once(monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    start = time.time()
    with pytest.raises(InputError, match='cannot be reached: download .* and give its path'):
        load_encoder('nobody/no-such-model')
    assert time.time() - start < 10


def test_names_for_files_and_messages(saved, spine):
    assert load_encoder(saved).name == 'safe'
    assert spine.name == 'spine_bert_tiny'
    assert 'dim 128, at most 256 tokens' in repr(spine)


def test_lower_case_overrules_the_tokenizer(saved):
    assert load_encoder(saved).tokenizer.tokenize('It L4') == ['it', 'l', '##4']
    assert load_encoder(saved, lower_case=False).tokenizer.tokenize('It L4') == ['It', 'L', '##4']


# What is refused


@pytest.mark.parametrize(
    'text, length, message',
    [
        ('it contains disc L4', None, "cannot read 'disc'"),
        ('it ' * 16, None, '18 tokens, 1 more than the 17'),
        ('it it it', 4, '5 tokens, 1 more than the 4'),
    ],
)
def test_what_cannot_be_read_is_an_error(encoder, text, length, message):
    with pytest.raises(InputError, match=message):
        encoder(text, length)
    with pytest.raises(InputError, match=message):
        encoder.features(text, length, LUMBAR)


def test_spine_bert_reads_ascii_and_refuses_the_rest(spine):
    for text in ['Please look at L6 & the d\u00e9formity (T2-w); 3.5 mm?', *FINDINGS]:
        assert len(spine.ids(text)) > 2
    with pytest.raises(InputError, match='cannot read'):
        spine.ids('\u6f22 spine')


# The cache


def count_calls(encoder):
    calls = []
    encoder.model.register_forward_hook(lambda *a: calls.append(1))
    return calls


def test_a_text_is_computed_once(encoder):
    calls = count_calls(encoder)
    one, _ = encoder(TEXT)
    two, _ = encoder([TEXT, TEXT], length=15)
    assert len(calls) == 1
    assert_close(one[0], two[1, : one.shape[1]], rtol=0, atol=0)


def test_features_on_disk_survive_the_process(saved, tmp_path):
    first = load_encoder(saved, cache=tmp_path / 'features')
    want = first.states(TEXT)
    second = load_encoder(saved, cache=tmp_path / 'features')
    calls = count_calls(second)
    assert_close(second.states(TEXT), want, rtol=0, atol=0)
    assert calls == []
    assert [p.stem for p in (tmp_path / 'features').iterdir()] == [first.key(TEXT)]


def test_key_knows_text_and_tokenizer(saved, encoder):
    assert encoder.key(TEXT) == load_encoder(saved).key(TEXT)
    assert encoder.key(TEXT) != encoder.key(TEXT + ' ')
    assert encoder.key(TEXT) != load_encoder(saved, lower_case=False).key(TEXT)


def test_a_spoilt_file_is_named(saved, tmp_path):
    encoder = load_encoder(saved, cache=tmp_path)
    path = tmp_path / f'{encoder.key(TEXT)}.safetensors'
    path.write_bytes(b'rubbish')
    with pytest.raises(InputError, match='delete it'):
        encoder.states(TEXT)


def test_nobody_can_spoil_the_cache(encoder):
    first = encoder.states(TEXT)
    keep = first.clone()
    first.zero_()
    again = encoder.states(TEXT)
    assert_close(again, keep, rtol=0, atol=0)
    again.zero_()
    assert_close(encoder.states(TEXT), keep, rtol=0, atol=0)


def test_the_least_recently_used_text_leaves_first(saved):
    encoder = load_encoder(saved)
    encoder.max_bytes = 3 * 3 * 24 * 4  # three texts of three tokens
    for text in ('it', 'contains', 'lumbar', 'it', 'l'):
        encoder.states(text)
    assert list(encoder._memory) == ['lumbar', 'it', 'l']
    assert encoder._bytes == sum(x.nbytes for x in encoder._memory.values())


# Words and level ranks


def test_words_hold_their_tokens(encoder):
    text = 'It contains lumbar vertebra L4/L4.'
    cut = encoder.words(text)
    assert len(cut.tokens) == len(encoder.ids(text))
    assert cut.tokens[0] == '[CLS]'
    words = ['It', 'contains', 'lumbar', 'vertebra', 'L4/L4', '.']
    assert [word for word, _ in cut.words] == words
    pieces = [cut.tokens[i] for i in dict(cut.words)['L4/L4']]
    assert pieces == ['l', '##4', '/', 'l', '##4']


def ranked(encoder, text):
    "token -> level rank, of the tokens that have one"
    rank = encoder.level_rank(text, LUMBAR)
    return {t: k for t, k in zip(encoder.words(text).tokens, rank.tolist()) if k}


def test_level_rank_counts_from_the_top(spine):
    text = holistic(['T12', 'L1', 'T12/L1', 'SC'], LUMBAR, 3, 'upper').text
    assert ranked(spine, text) == {'t12': 1, 't12/l1': 2, 'l1': 3}  # the canal has none
    rank = spine.level_rank(text, LUMBAR)
    assert rank.dtype == torch.int64
    assert len(rank) == len(spine.ids(text))
    assert ranked(spine, 'L5 and L4, but no S.') == {'l4': 1, 'l5': 2}


def test_level_rank_is_a_copy(spine):
    spine.level_rank('L5 and L4.', LUMBAR).zero_()
    assert ranked(spine, 'L5 and L4.') == {'l4': 1, 'l5': 2}


def test_kept_ranks_have_a_bound(spine):
    spine._ranks.update(dict.fromkeys(range(4096)))
    assert ranked(spine, 'L3 alone.') == {'l3': 1}
    assert len(spine._ranks) == 1


def test_column_leaves_out_what_has_no_level():
    assert column(['SC', 'L5', 'L4'], LUMBAR) == ('L4', 'L5')
    bones = [dict(name='femur', kind='bone'), dict(name='tibia', kind='bone')]
    knee = dict(name='knee', image='MRI', structures=bones, top_down=['femur', 'tibia'])
    assert column(['tibia', 'femur'], get_anatomy(knee)) == ('femur', 'tibia')


# TextFeatures: p = 3 prompts, b = 5 images, l = 7 tokens, d = 4 channels


def toy_features(prompt_index=(2, 0, 2, 1, 0)):
    states = torch.arange(3 * 7 * 4.0).reshape(3, 7, 4)
    mask = torch.arange(7) < torch.tensor([[5], [7], [3]])
    rank = torch.arange(21).reshape(3, 7) % 3 * mask
    index = None if prompt_index is None else torch.tensor(prompt_index)
    return TextFeatures(states, mask, rank, index)


def test_rows_of_the_images_are_kept():
    text = toy_features()
    assert (text.image_rows, text.for_images([0, 3]).image_rows) == (None, None)
    padded = text.for_images([0, 3], 80)
    assert (padded.image_rows, padded.to('cpu').image_rows) == (80, 80)
    assert padded.for_images([1]).image_rows == 80


def test_features_hold_each_sentence_once(spine):
    a, b, c = 'L5 and L4.', 'S.', 'An MRI with T12.'
    features = spine.features([b, a, b, c, a], 11, LUMBAR)
    assert features.states.shape == (3, 11, 128)
    assert features.prompt_index.tolist() == [0, 1, 0, 2, 1]
    assert (features.mask.dtype, features.level_rank.dtype) == (torch.bool, torch.int64)
    for p, text in enumerate((b, a, c)):
        n = len(spine.ids(text))
        assert_close(features.states[p, :n], spine.states(text), rtol=0, atol=0)
        assert features.mask[p].tolist() == [True] * n + [False] * (11 - n)
        assert features.level_rank[p, :n].tolist() == spine.level_rank(text, LUMBAR).tolist()
    assert not features.states[~features.mask].any()
    assert not features.level_rank[~features.mask].any()


def test_features_are_as_long_as_the_longest_prompt(spine):
    features = spine.features(['S.', 'L5 and L4.'], None, LUMBAR)
    assert features.states.shape[1] == len(spine.ids('L5 and L4.'))
    assert spine.features('S.', None, LUMBAR).prompt_index.tolist() == [0]


@pytest.mark.parametrize(
    'images, chosen',
    [
        (slice(1, 4), [1, 2, 3]),
        (slice(2, 3), [2]),
        ([4, 1], [4, 1]),
        (torch.tensor([3, 0]), [3, 0]),
        (torch.tensor([True, False, True, False, False]), [0, 2]),
    ],
)
def test_for_images_keeps_what_each_image_reads(images, chosen):
    features = toy_features()
    part = features.for_images(images)
    assert len(part.states) == len({features.prompt_index[i].item() for i in chosen})
    for name in ('states', 'mask', 'level_rank'):
        want = getattr(features, name)[features.prompt_index[chosen]]
        assert_close(getattr(part, name)[part.prompt_index], want, rtol=0, atol=0)


def test_for_images_where_each_image_has_its_own_prompt():
    features = toy_features(None)
    part = features.for_images(slice(1, 3))
    assert part.prompt_index.tolist() == [0, 1]
    assert_close(part.states, features.states[1:])
    assert_close(part.level_rank, features.level_rank[1:])


def test_features_move_as_a_whole():
    moved = vars(toy_features().for_images([0], 80).to('meta'))
    assert moved.pop('image_rows') == 80
    assert {t.device.type for t in moved.values()} == {'meta'}
    assert toy_features(None).to('meta').prompt_index is None


# No sentence becomes [UNK]


def characters(tmp_path):
    "The hardest case: an encoder that knows single characters, as every BERT does, and no more"
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = [*WORDS.split()[:5], *letters, *('##' + c for c in letters)]
    file = tmp_path / 'vocab.txt'
    file.write_text('\n'.join(vocabulary), encoding='utf-8')
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    tokenizer = BertTokenizerFast(str(file), do_lower_case=False, model_max_length=512)
    return TextEncoder(tokenizer, BertModel(config), 'characters')


def assert_readable(encoder, text):
    "No unknown token; a text that is too long says by how much"
    n = len(encoder.tokenizer(text)['input_ids'])
    if n <= encoder.max_length:
        assert encoder.tokenizer.unk_token_id not in encoder.ids(text)
    else:
        with pytest.raises(InputError, match=f'{n} tokens, {n - encoder.max_length} more than'):
            encoder.ids(text)


def test_every_prompt_is_readable(spine, tmp_path):
    from hypothesis import given, settings
    from hypothesis import strategies as st

    encoders = [spine, characters(tmp_path)]
    site = st.sampled_from([*(n for n in LUMBAR.names if n != 'SC'), None])
    finding = st.builds(Finding, st.sampled_from(sorted(FINDINGS)), site)
    position = st.sampled_from((None, *POSITIONS))
    names = st.sets(st.sampled_from(LUMBAR.names))

    @settings(max_examples=75, deadline=None, derandomize=True)
    @given(names, st.sampled_from((1, 2, 3)), position, st.booleans())
    def holistic_prompts(names, option, position, complete):
        for encoder in encoders:
            assert_readable(encoder, str(holistic(names, LUMBAR, option, position, complete)))

    @settings(max_examples=75, deadline=None, derandomize=True)
    @given(st.lists(finding, max_size=6), position)
    def prompts_with_findings(findings, position):
        for encoder in encoders:
            assert_readable(
                encoder,
                str(report_prompt('', LUMBAR, findings, 4, position)),
            )

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(names, st.sampled_from(sorted(LUMBAR.schemes)))
    def class_wise_prompts(names, scheme):
        for text in class_prompts(names, LUMBAR.scheme(scheme)):
            for encoder in encoders:
                assert_readable(encoder, text)

    holistic_prompts()
    prompts_with_findings()
    class_wise_prompts()


def test_what_would_be_unknown_is_an_error(tmp_path):
    with pytest.raises(InputError, match='cannot read'):
        characters(tmp_path).ids('L4 \u2192 L5')
