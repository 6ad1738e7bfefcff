"The sentences that the small encoder reads, and its tokenizer"

import hashlib

import numpy as np
import pytest

from atm_net import corpus
from atm_net.anatomy import LUMBAR, get_anatomy
from atm_net.core import InputError
from atm_net.corpus import (
    KINDS,
    facts,
    held_out,
    level_tokens,
    sentences,
    spine_tokenizer,
    vocabulary_corpus,
)
from atm_net.text import load_encoder
from atm_net.user_prompts import check_prompt


def drawn_sentences(kind, n, seed, anatomy=LUMBAR, **how):
    return sentences(kind, n, np.random.default_rng(seed), anatomy, **how)


def make_anatomy(name, **kinds):
    structures = [dict(name=n, kind=kind) for n, kind in kinds.items()]
    return get_anatomy(dict(name=name, image='MRI', structures=structures, top_down=list(kinds)))


KNEE = make_anatomy('knee', femur='bone', PCL='ligament', tibia='bone')


@pytest.fixture(scope='module')
def tok():
    return spine_tokenizer(['It contains lumbar vertebra and intervertebral disc.'], LUMBAR)


def test_every_level_is_one_token(tok):
    tokens = level_tokens(LUMBAR)
    assert len(tokens) == 19
    assert (tokens['S'], tokens['L5/S']) == ('s1', 'l5/s1')
    for name, token in tokens.items():
        assert tok.tokenize(f'It contains {name}.') == ['it', 'contains', token, '.']


@pytest.mark.parametrize(
    'spelling, tokens',
    [
        ('L4-5', ['l4/l5']),
        ('L4 - L5', ['l4/l5']),
        ('l4/5', ['l4/l5']),
        ('L5-S', ['l5/s1']),
        ('L5/S1', ['l5/s1']),
        ('D12', ['t12']),
        ('Th11/12', ['t11/t12']),
        ('T12\u2013L1', ['t12/l1']),
        ('L1-L4', ['l1', '-', 'l4']),
    ],
)
def test_spellings_of_levels(tok, spelling, tokens):
    assert tok.tokenize(spelling) == tokens


def test_no_sacrum_in_a_genitive_and_no_new_level(tok):
    assert tok.tokenize("the patient's L6")[-4:] == ["'", 's', 'l', '##6']


def test_no_ascii_becomes_unknown(tok):
    everything = ''.join(map(chr, range(32, 127)))
    assert tok.unk_token_id not in tok(everything + ' Xylophone9 a_b')['input_ids']


def test_ids_do_not_depend_on_the_process(tok):
    assert tok.convert_ids_to_tokens([5, 6, 23]) == ['t9', 's1', 't10/t11']


def test_the_shipped_tokenizer_can_be_made_again():
    shipped = load_encoder('spine_bert_tiny').tokenizer
    made = spine_tokenizer(vocabulary_corpus(LUMBAR), LUMBAR)
    assert made.get_vocab() == shipped.get_vocab()
    for text in ('Severe foraminal stenosis at L4-5.', "D12's edema"):
        assert made(text)['input_ids'] == shipped(text)['input_ids']


def test_facts_are_true_and_told_once():
    all_facts = facts(LUMBAR)
    assert len(all_facts) == len(set(all_facts))
    assert ('direct', 'L3 lies directly above L4.') in all_facts
    assert ('between', 'L3/L4 lies between L3 and L4.') in all_facts
    assert ('region', 'L3 is the third lumbar vertebra.') in all_facts
    assert ('indirect', 'L5 lies above L4.') not in all_facts
    assert ('direct', 'L3 lies directly above L5.') not in all_facts


# the SHA-256 of 200 sentences drawn with seed 3, one a line, first 12 digits
DRAWN = dict(
    facts='8b87ab373d4c',
    presence='2e6f8620fcfa',
    atpg='9b9bfd868093',
    classes='5109e2d50957',
    reports='ca40dceb95eb',
)


@pytest.mark.parametrize('kind', KINDS)
def test_a_seed_draws_the_same_sentences_for_ever(kind):
    text = '\n'.join(drawn_sentences(kind, 200, 3))
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == DRAWN[kind]


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind != 'classes'])
def test_held_out_sentences_are_never_trained_on(kind):
    train = set(drawn_sentences(kind, 300, 2))
    test = set(drawn_sentences(kind, 300, 2, test=True))
    assert not train & test
    assert all(map(held_out, test))
    assert not any(map(held_out, train))


def test_one_sentence_in_ten_is_held_out():
    assert 0.07 < np.mean([held_out(fact) for _, fact in facts(LUMBAR)]) < 0.13


def test_what_the_kit_writes_the_kit_accepts():
    templates = (
        corpus._yes
        + corpus._no
        + corpus._free
        + corpus._direct
        + corpus._indirect
        + corpus._between
    )
    words = dict(f='disc protrusion', g='facet arthropathy', h='mild ')
    for template in templates:
        for a, b, d in (('L3', 'L4', 'L3/L4'), ('T12', 'L1', 'T12/L1')):
            check_prompt(template.format(a=a, b=b, d=d, l=d, **words), LUMBAR)
    for finding in (*corpus._findings['disc'], *corpus._findings['vertebra']):
        check_prompt(finding, LUMBAR)


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind != 'classes'])
@pytest.mark.parametrize(
    'anatomy',
    [
        KNEE,
        make_anatomy('bodies', L1='vertebra', L2='vertebra'),
        make_anatomy('one', L5='vertebra', disc='disc'),
        make_anatomy('discs', upper='disc', lower='disc'),
    ],
    ids=lambda a: a.name,
)
def test_sentences_about_levels_need_levels(kind, anatomy):
    with pytest.raises(InputError, match="need structures of kind 'vertebra'"):
        drawn_sentences(kind, 2, 0, anatomy=anatomy)


def test_a_body_a_sacrum_and_a_disc_are_enough():
    tail = get_anatomy(
        dict(
            name='tail',
            image='MRI',
            structures=[
                dict(name='L5', kind='vertebra'),
                dict(name='L5/S', kind='disc'),
                dict(name='S', kind='sacrum'),
            ],
            top_down=['L5', 'L5/S', 'S'],
        )
    )
    assert len(drawn_sentences('presence', 4, 0, anatomy=tail)) == 4
    assert ('between', 'L5/S lies between L5 and S.') in facts(tail)


def test_class_prompts_need_no_levels():
    assert 'femur' in ' '.join(drawn_sentences('classes', 20, 0, anatomy=KNEE))
