"ATPG: the sentences of a mask, and prompts that are wrong on purpose"

import numpy as np
import pytest
from drawn import draw, joint, knee, spider, truth

from atm_net.anatomy import LUMBAR
from atm_net.core import InputError
from atm_net.prompts import (
    POSITIONS,
    Prompt,
    atpg,
    class_facts,
    class_prompt,
    class_prompts,
    drop_words,
    holistic,
    join_words,
    movable,
    move_labels,
    reordered,
    shift_levels,
    slice_position,
)


def test_a_source_that_does_not_exist():
    with pytest.raises(InputError, match='oracle'):
        Prompt((), 1, None, False, 'x', source='mask')


def test_lists_of_every_length():
    assert [join_words(w) for w in ([], ['a'], ['a', 'b'])] == ['', 'a', 'a and b']
    assert join_words(iter('abc')) == 'a, b and c'


def test_thirds_of_nine_slices():
    at = [slice_position(k, 9) for k in (2, 3, 5, 6)]
    assert at == ['upper', 'middle', 'middle', 'lower']


@pytest.mark.parametrize('n', range(1, 12))
def test_thirds_are_symmetric(n):
    thirds = [POSITIONS.index(slice_position(k, n)) for k in range(n)]
    assert thirds == [2 - t for t in thirds[::-1]]


@pytest.mark.parametrize('k', (-1, 7))
def test_a_slice_that_does_not_exist(k):
    with pytest.raises(InputError, match='0 to 6'):
        slice_position(k, 7)


def test_sentences_word_by_word():
    demo = ('L4', 'L3', 'L3/L4', 'SC')
    assert holistic(demo, LUMBAR, 1).text == 'This is a sagittal MRI of the lumbar spine.'
    assert holistic(demo, LUMBAR, 3, 'middle').text == (
        'This is a sagittal MRI of the lumbar spine from the middle third of the slices, '
        'counted from the right side of the patient. From superior to inferior it shows '
        'lumbar vertebra L3, intervertebral disc L3/L4, lumbar vertebra L4, '
        'and lastly the spinal canal SC.'
    )


def listed(names, *args, **options):
    return holistic(names, LUMBAR, *args, **options).text.split('. ', 1)[1]


def test_none_one_and_many():
    assert listed(()) == 'It shows none of its labelled structures.'
    assert listed(['S']) == 'It shows the sacrum S.'
    assert listed(['L1'], complete=False) == 'It shows at least lumbar vertebra L1.'
    two = 'From superior to inferior it shows thoracic vertebra T12 and lumbar vertebra L1.'
    assert listed(['T12', 'L1']) == two


def test_lastly_is_said_of_the_canal_alone():
    assert 'lastly' not in holistic(['L3', 'L3/L4', 'L4'], LUMBAR, 3).text
    assert 'lastly' not in holistic(['L3', 'SC'], LUMBAR, 3).text
    assert 'lastly' in holistic(['L3', 'L4', 'SC'], LUMBAR, 3).text


@pytest.mark.parametrize(
    'args, message', ((['L6'], 'L6'), (['L5', 4], '1, 2 or 3'), (['L5', 3, 'left'], 'upper'))
)
def test_what_holistic_refuses(args, message):
    with pytest.raises(InputError, match=message):
        holistic([args[0]], LUMBAR, *args[1:])


def test_class_prompts_by_channel():
    assert class_prompt('L1', True, LUMBAR) == 'It contains lumbar vertebra L1.'
    assert class_prompt('T10', False, LUMBAR) == 'It does not contain thoracic vertebra T10.'
    sentences = class_prompts(['L5', 'SC'], spider)
    assert sentences[0] == 'It contains the background.'
    assert sentences[spider.channel('SC')] == 'It contains the spinal canal SC.'
    present = [p.name for p in class_facts(['L5', 'SC'], spider) if p.present]
    assert present == ['background', *(n for n in spider.names if n in ('L5', 'SC'))]


def test_pixels_that_do_not_count():
    lab = draw((*LUMBAR.run('T12', 'L3'), 'SC'))
    lab[lab == joint.channel('L3')] = 0
    lab[60, :9] = joint.channel('L3')
    assert 'L3' not in atpg(lab, joint, 5, 11).structures
    assert 'L3' in atpg(lab, joint, 5, 11, min_pixels=9).structures
    lab[lab == joint.channel('SC')] = 255  # ignored
    assert 'SC' not in atpg(lab, joint, 5, 11).structures


def test_ten_pixels_are_enough():
    lab = np.zeros((5, 31), np.uint8)
    lab[1, :10] = joint.channel('L3')
    assert atpg(lab, joint, 0, 1).structures == ('L3',)


def test_shift_levels():
    moved = shift_levels(('L4', 'L4/L5', 'L5', 'L5/S', 'S', 'SC'), -1, LUMBAR)
    assert moved == ('L3', 'L3/L4', 'L4', 'L4/L5', 'S', 'SC')
    assert shift_levels(('T9', 'L5'), 1, LUMBAR) == ('T10',)  # what leaves the anatomy is dropped
    assert shift_levels(truth, 0, LUMBAR) == truth
    assert shift_levels(('femur', 'tibia'), 1, knee()) == ('femur', 'tibia')


PROMPT = atpg(draw(truth), joint, 5, 11)


def kind(q):
    "What `drop_words` did"
    if q == PROMPT:
        return 'same'
    if q.option == 1:
        return 'generic'
    return 'wrong' if q.complete else 'incomplete'


@pytest.fixture(scope='module')
def dropped():
    return [drop_words(PROMPT, np.random.default_rng(i), LUMBAR) for i in range(2000)]


def test_shares_of_dropped_words(dropped):
    wanted = dict(same=0.55, generic=0.15, incomplete=0.25, wrong=0.05)
    for name, share in wanted.items():
        assert abs(sum(kind(q) == name for q in dropped) / 2000 - share) < 0.03, name


def test_what_dropped_words_say(dropped):
    names = PROMPT.structures
    for q in dropped:
        if kind(q) == 'incomplete':
            assert set(q.structures) < set(names) and len(q.structures) >= len(names) // 2
            assert 'at least' in q.text
        if kind(q) == 'wrong':
            assert q.structures in (shift_levels(names, 1, LUMBAR), shift_levels(names, -1, LUMBAR))
        if kind(q) == 'generic':
            assert q.source == 'generic'


def test_an_incomplete_list_may_begin_or_end_as_the_whole(dropped):
    names = PROMPT.structures
    parts = [q.structures for q in dropped if kind(q) == 'incomplete']
    assert any(p[0] == names[0] for p in parts) and any(p[-1] == names[-1] for p in parts)


def test_dropped_words_follow_the_generator():
    a, b = (drop_words(PROMPT, np.random.default_rng(4), LUMBAR) for _ in range(2))
    assert a == b


def test_a_part_is_at_least_half_and_never_all():
    five = holistic(['L1', 'L2', 'L3', 'L4', 'L5'], LUMBAR, 3)
    parts = [drop_words(five, np.random.default_rng(i), LUMBAR, 0, 1, 0) for i in range(60)]
    assert {len(q.structures) for q in parts} == {3, 4}


def test_prompts_are_values():
    "Equal ones are one key of a cache"
    assert len({PROMPT, atpg(draw(truth), joint, 5, 11)}) == 1
    assert len({*class_facts(['L3'], joint), *class_facts(['L3'], joint)}) == joint.channels


def test_wrong_goes_up_and_down():
    wrong = {
        drop_words(PROMPT, np.random.default_rng(i), LUMBAR, 0, 0, 1).structures for i in range(40)
    }
    assert wrong == {
        shift_levels(PROMPT.structures, 1, LUMBAR),
        shift_levels(PROMPT.structures, -1, LUMBAR),
    }


def test_one_structure_is_never_left_out():
    one = holistic(['L3'], LUMBAR, 3)
    assert drop_words(one, np.random.default_rng(0), LUMBAR, 0.0, 1.0, 0.0) == one


def test_a_knee():
    q = holistic(['tibia', 'PCL', 'femur'], knee())
    assert q.structures == ('femur', 'PCL', 'tibia')
    scheme = knee().scheme('joint')
    assert class_prompts(['PCL'], scheme)[-1] == 'It contains the ligament PCL.'
    assert drop_words(q, np.random.default_rng(0), knee(), 0, 0, 1) == q


def cut(seed):
    prompt = holistic(LUMBAR.run('T12', 'L3'), LUMBAR, 3, 'middle')
    return drop_words(prompt, np.random.default_rng(seed), LUMBAR, 0, 0, 0, 1.0)


def test_a_list_is_cut_at_one_end():
    whole = LUMBAR.run('T12', 'L3')
    lists = [cut(seed).structures for seed in range(400)]
    assert {len(names) for names in lists} == set(range((len(whole) + 1) // 2, len(whole)))
    at_top = [names == tuple(whole[-len(names) :]) for names in lists]
    at_end = [names == tuple(whole[: len(names)]) for names in lists]
    assert all(a != b for a, b in zip(at_top, at_end))
    assert np.mean(at_top) == pytest.approx(0.75, abs=0.06)


def test_half_of_the_cut_lists_claim_to_be_complete():
    claims = [cut(seed).complete for seed in range(400)]
    assert np.mean(claims) == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize(
    'names, by, answer',
    [
        (('L1', 'L1/L2', 'SC'), 1, True),
        (('L1', 'L1/L2', 'SC'), -1, True),
        (('L5', 'SC'), 1, False),  # nothing below L5
        (('T9',), -1, False),
        (('L4', 'S'), -1, False),  # the sacrum gives the count away
        (('SC',), 1, False),  # nothing to move
    ],
)
def test_which_levels_may_be_moved(names, by, answer):
    assert movable(names, by, LUMBAR) is answer


def test_moved_labels_pixel_by_pixel():
    labels = np.array([['L4', 'L3/L4', 'SC'], ['T9', 'S', 'L5']])
    channels = np.vectorize(joint.channel)(labels).astype(np.uint8)
    up = move_labels(channels, joint, -1)
    names = ('background', *joint.names)
    assert [[names[c] for c in row] for row in up] == [
        ['L3', 'L2/L3', 'SC'],
        ['background', 'S', 'L4'],
    ]
    ignored = np.full((2, 3), 255, np.uint8)
    assert (move_labels(ignored, joint, 1) == 255).all()


def test_a_reordered_sentence_says_the_same_in_another_order():
    prompt = holistic(('L3', 'L3/L4', 'L4', 'SC'), LUMBAR, 3, 'middle')
    mixed = reordered(prompt, ['L4', 'L3', 'L3/L4'], LUMBAR)
    at = [mixed.index(word) for word in ('L4,', 'L3,', 'L3/L4,', 'lastly')]
    assert at == sorted(at) and len(mixed) == len(str(prompt))


def test_reordered_with_nothing_to_move():
    generic = holistic((), LUMBAR, 1)
    assert reordered(generic, ['L4', 'L3'], LUMBAR) == str(generic)
