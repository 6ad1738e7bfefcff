"How the small encoder is trained, and what its scores mean"

import re
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForMaskedLM

from atm_net import spine_bert as module
from atm_net.anatomy import LUMBAR, get_anatomy
from atm_net.core import InputError
from atm_net.corpus import level_tokens, spine_tokenizer, vocabulary_corpus
from atm_net.prompts import class_prompt
from atm_net.spine_bert import (
    class_states,
    cosines,
    fill_gap,
    fit_spine_bert,
    gap_accuracy,
    mask_tokens,
    negation,
    separation,
    spine_bert,
    train_spine_bert,
)
from atm_net.text import ENCODERS, load_encoder

SHIPPED = ENCODERS['spine_bert_tiny']


@pytest.fixture(scope='module')
def mlm():
    return AutoModelForMaskedLM.from_pretrained(SHIPPED, dtype=torch.float32).eval()


@pytest.fixture(scope='module')
def card():
    "The scores of the shipped model card"
    text = (Path(SHIPPED) / 'README.md').read_text(encoding='utf-8')
    return {k: float(v) for k, v in re.findall(r'^\| (.+?) \| ([\d.]+) \|$', text, re.M)}


# Masking


@pytest.fixture(scope='module')
def masked():
    "(vocabulary size, ids, is_level, run) for 4000 copies of one sentence"
    tok = spine_tokenizer(vocabulary_corpus(LUMBAR), LUMBAR)
    ids = torch.tensor(tok(['L3 lies directly above L4.'] * 4000)['input_ids'])
    levels = torch.tensor(tok.convert_tokens_to_ids(list(level_tokens(LUMBAR).values())))

    def run(**how):
        return mask_tokens(ids, levels, len(tok), torch.Generator().manual_seed(0), **how)

    return len(tok), ids, torch.isin(ids, levels), run


def test_what_is_not_hidden_stays(masked):
    _, ids, _, run = masked
    seen, want = run()
    assert seen.shape == want.shape == ids.shape
    assert ((want == -100) | (want == ids)).all()
    assert (seen[want == -100] == ids[want == -100]).all()


def test_levels_are_hidden_more_often_and_marks_never(masked):
    _, _, _, run = masked
    _, want = run()
    share = (want != -100).float().mean(0)
    assert share[[0, -1]].tolist() == [0, 0]
    assert share[[1, 2]].tolist() == pytest.approx([0.4, 0.15], abs=0.03)


def test_eight_of_ten_become_a_mask_and_one_another_token(masked):
    n, ids, _, run = masked
    seen, want = run()
    hidden = want != -100
    assert (seen[hidden] == 4).float().mean().item() == pytest.approx(0.8, abs=0.02)
    other = seen[hidden & (seen != 4) & (seen != ids)]
    assert len(other) / hidden.sum().item() == pytest.approx(0.1, abs=0.02)
    assert other.min() >= 5 and other.max() < n


def test_one_hides_exactly_one_level(masked):
    _, _, is_level, run = masked
    _, want = run(one=True, p=0.05)
    hidden = want != -100
    assert ((hidden & is_level).sum(1) == 1).all()
    assert hidden[:, 2].float().mean().item() == pytest.approx(0.05, abs=0.02)


# Training


@pytest.mark.slow
def test_same_seed_same_weights():
    a, b, c = (
        fit_spine_bert(LUMBAR, 3, seed=seed, tokens=100)[1].state_dict() for seed in (5, 5, 6)
    )
    for name in a:
        assert_close(a[name], b[name], rtol=0, atol=0)
    name = 'bert.embeddings.word_embeddings.weight'
    assert not torch.equal(a[name], c[name])


def test_training_leaves_the_random_numbers_of_torch_alone():
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    _, model, rows = fit_spine_bert(LUMBAR, 2, seed=1, tokens=100, dim=24, layers=1)
    assert_close(torch.rand(3), want, rtol=0, atol=0)
    assert not model.training
    assert [row['step'] for row in rows] == [1, 2]


def test_an_anatomy_without_levels_is_refused():
    structures = [dict(name='femur', kind='bone'), dict(name='PCL', kind='ligament')]
    knee = dict(name='knee', image='MRI', structures=structures, top_down=['femur', 'PCL'])
    with pytest.raises(InputError, match='it has bone, ligament'):
        fit_spine_bert(get_anatomy(knee), 1)


def test_the_trained_encoder_is_saved_with_its_card(tmp_path):
    rows, scores = train_spine_bert(
        tmp_path / 'mini', LUMBAR, steps=3, tokens=100, dim=24, layers=1
    )
    assert len(rows) == 3
    text = (tmp_path / 'mini' / 'README.md').read_text(encoding='utf-8')
    command = "train_spine_bert('spine_bert_tiny', steps=3, seed=0, tokens=100, dim=24, layers=1)"
    assert command in text
    assert all(f'| {name} | {value:.3f} |' in text for name, value in scores.items())
    mini = load_encoder(tmp_path / 'mini')
    assert (mini.dim, mini.tokenizer.tokenize('L4-5')) == (24, ['l4/l5'])


def test_the_card_names_the_module_that_made_it():
    text = (Path(SHIPPED) / 'README.md').read_text(encoding='utf-8')
    line = re.search(r'`from (atm_net\.\w+) import (\w+);', text)
    assert line.groups() == (module.__name__, 'train_spine_bert')


# What the shipped encoder knows


def test_the_card_has_every_score(card):
    gaps = ('gap, direct', 'gap, between', 'gap, list')
    said = ('gap, presence', 'gap, presence: a denied one', "negation, from the word's state")
    kinds = ('classes', 'nearest classes', 'contains / does not')
    assert set(card) == {*gaps, *said, *(f'{w}: {k}' for w in ('word', 'sentence') for k in kinds)}


@pytest.mark.parametrize(
    'text, token',
    [
        ('L3 lies directly above [MASK].', 'l4'),
        ('[MASK] lies directly above L1.', 't12'),
        ('L3/L4 lies between [MASK] and L4.', 'l3'),
        ('lumbar vertebra L5 is immediately inferior to lumbar vertebra [MASK].', 'l4'),
    ],
)
def test_gaps_are_filled_rightly(encoder, mlm, text, token):
    answers = fill_gap(encoder.tokenizer, mlm, text, k=2)
    assert [len(answers), answers[0][0]] == [2, token]
    assert answers[0][1] > answers[1][1]


@pytest.mark.parametrize('text', ['no gap', '[MASK] and [MASK]'])
def test_fill_gap_wants_one_gap(encoder, mlm, text):
    with pytest.raises(InputError, match='exactly one'):
        fill_gap(encoder.tokenizer, mlm, text)


def test_gap_accuracy_is_that_of_the_card(encoder, mlm, card):
    shares = gap_accuracy(encoder.tokenizer, mlm, LUMBAR)
    for kind, share in shares.items():  # one answer of 200 may turn on another machine
        assert share == pytest.approx(card[f'gap, {kind}'], abs=6e-3)
    assert shares['direct'] > 0.8 and shares['list'] > 0.8  # chance is 1 in 19


def test_an_untrained_model_knows_nothing(encoder):
    torch.manual_seed(0)
    blank = spine_bert(len(encoder.tokenizer)).eval()
    assert max(gap_accuracy(encoder.tokenizer, blank, LUMBAR).values()) < 0.3


def test_negation_is_that_of_the_card(encoder, mlm, card):
    shares = negation(encoder, mlm, LUMBAR)
    for name, share in shares.items():
        assert share == pytest.approx(card[name], abs=1e-2)
    assert shares['gap, presence'] > 2 * shares['gap, presence: a denied one']


def test_signs_of_a_statement():
    text = 'It does not contain thoracic vertebra T9 and disc L4/L5. It contains the vertebra L4.'
    assert module._signs(text, LUMBAR) == [('T9', False), ('L4/L5', False), ('L4', True)]


def test_the_gap_of_a_statement_is_after_present():
    text = (
        'It contains disc L4/L5 and vertebra L4. It does not contain vertebra T9. '
        'Absent: vertebra T9. Present: disc L4/L5 and vertebra L4.'
    )
    gap, token, denied = module._presence_gap(text, LUMBAR)
    assert gap.endswith('Present: disc [MASK] and vertebra L4.')
    assert gap.count('L4/L5') == 1
    assert (token, denied) == ('l4/l5', ['t9'])
    assert module._presence_gap('It contains the spinal canal SC. Present: SC.', LUMBAR) is None


def test_separation_is_that_of_the_card(encoder, card):
    shares = separation(encoder, LUMBAR)
    for name, cosine in shares.items():
        assert cosine == pytest.approx(card[name], abs=6e-4)
    assert shares['word: classes'] < 0.6
    assert shares['word: nearest classes'] < 0.95
    assert shares['sentence: contains / does not'] < 0.95


def test_cosine_by_hand_in_float64(encoder):
    at = encoder.words('It contains lumbar vertebra L4.').tokens.index('l4')
    u, v = (encoder.states(class_prompt(name, True, LUMBAR))[at].double() for name in ('L3', 'L4'))
    by_hand = u @ v / (u.norm() * v.norm())
    own, whole = class_states(encoder, ['L3', 'L4'], LUMBAR)
    assert_close(by_hand.float(), cosines(own[:1], own)[0, 1])
    assert own.shape == whole.shape == (2, 128)
    assert_close(whole[1], encoder.states(class_prompt('L4', True, LUMBAR)).mean(0))
