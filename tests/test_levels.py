"Levels in text: every spelling, and what is said not to be there"

import re

import pytest

from atm_net.anatomy import LUMBAR
from atm_net.levels import (
    find_levels,
    inside,
    level_groups,
    negated_spans,
    plain_levels,
    site_mentions,
    stated_levels,
)
from atm_net.wording import cue, fill, fill_words, read_asset

CUES = read_asset('cues.yaml')


def parts():
    "All that a name in angle brackets can stand for"
    return fill_words(CUES['words']) | {name: cue(name).pattern for name in CUES['cues']}


@pytest.mark.parametrize('name', CUES['cues'])
def test_each_pattern_of_a_cue_finds_its_example(name):
    entry = CUES['cues'][name]
    for pattern, example in entry['any'].items():
        whole = fill(entry.get('form', '<any>'), {'any': f'(?:{fill(pattern, parts())})'})
        assert '<' not in re.sub(r'\(\?<[=!]', '', whole), whole  # no name is left
        assert re.search(whole, example, re.I), (pattern, example)
        assert cue(name).search(example)


def test_fill():
    assert fill('a<upto 3>b', {}) == r'a(?:[\w/\-]+\s+){0,3}?b'
    assert fill_words(dict(be='is are', x='<be>x')) == dict(be='(?:is|are)', x='(?:(?:is|are)x)')


def read(text):
    return tuple(n for m in find_levels(text, LUMBAR) for n in m.names)


SPELLINGS = {
    ('L4/L5',): ('L4/5', 'L4-5', 'L4-L5', 'l4/l5', 'disc between L4 and L5', 'L4 / L5'),
    ('L5/S',): ('L5/S1', 'L5-S', 'L5/1', 'L5-S1', 'between L5 and the sacrum'),
    ('T12',): ('D12', 'Th12', 'T12 vertebra', 't12'),
    ('L1', 'L2', 'L3', 'L4'): (
        'L1 to L4',
        'L1-L4',
        'from L1 through lumbar vertebra L4',
        'L4 up to L1',
    ),
    ('L1/L2', 'L2/L3', 'L3/L4'): ('discs L1 to L4', 'discs L1/2 to L3/4'),
    ('T12/L1', 'SC', 'S', 'S'): ('T12-L1 and the spinal canal, S1, S',),
    (): ("T2-weighted and T1 images of the patient's spine", 'T1/T2'),
    ('L1/L2', 'L2/L3'): ('L1/L2/L3', 'discs L1/2/3', 'L1-L2-L3', 'L1 / 2 / 3'),
    ('T11/T12', 'T12/L1'): ('T11/12/1',),
    ('L4/L5', 'L5/S'): ('L4/5/S1',),
    ('L1', 'L2', 'L3'): (
        'vertebrae L1/2/3',
        'vertebrae L1, 2 and 3',
        'the L1, 2 and 3 vertebrae',
        'L1, 2 and 3',
        'vertebral bodies L1-3',
        'L1 to 3',
    ),
    ('L1/L2', 'L3/L4'): ('levels L1-2, 3-4', 'the L1/2 and 3/4 discs'),
}


@pytest.mark.parametrize(
    'names, text', [(names, text) for names, texts in SPELLINGS.items() for text in texts]
)
def test_spellings(names, text):
    assert read(text) == names


def test_between_without_a_letter():
    assert read('between L4 and 5') == ('L4/L5',)


@pytest.mark.parametrize('text', ('L4/5, 2-3 mm', 'L4/5 and 2 other discs', 'L4/5, grade 2'))
def test_numbers_behind_a_disc_are_no_levels(text):
    assert read(text) == ('L4/L5',)


@pytest.mark.parametrize('text', ('L4, 2 mm', 'L4, 2 nodules', 'L4, 2.5 cm', 'L4, 50% loss'))
def test_numbers_behind_a_body_are_no_levels(text):
    assert read(text) == ('L4',)


def test_what_looks_like_a_level_is_kept_without_a_name():
    found = [(m.names, m.raw) for m in find_levels('L6 and L3/L5', LUMBAR)]
    assert found == [((), 'L6'), ((), 'L3/L5')]
    assert [(m.names, m.raw) for m in find_levels('L6/L7', LUMBAR)] == [((), 'L6/L7')]
    unknown = {
        'L1/L2/L4': 'L1/L2/L4',
        'L1, 2 and 9': '9',
        'levels L1-2, 3-9': '3-9',
        'L5/S1/S2': 'L5/S1/S2',
    }
    for text, raw in unknown.items():
        assert [m.raw for m in find_levels(text, LUMBAR) if not m.names] == [raw]


def test_a_body_and_a_disc_are_no_range():
    assert read('L4 to L4/5') == ('L4', 'L4/L5')
    assert read('L4/5 to L5') == ('L4/L5', 'L5')
    assert read('L4 to the canal') == ('L4', 'SC')
    assert read('L3/4 to L5/S1') == ('L3/L4', 'L4/L5', 'L5/S')
    mentions = [m.names for m in find_levels('from L1 to L3/4; L1/2 to L3/4', LUMBAR)]
    assert mentions == [('L1',), ('L3/L4',), ('L1/L2', 'L2/L3', 'L3/L4')]


@pytest.mark.parametrize('blanks, names', ((1, ('L1', 'L2')), (31, ('L1', 'L2')), (32, ('L1/L2',))))
def test_vertebrae_counts_within_40_characters(blanks, names):
    assert read('vertebrae' + ' ' * blanks + 'L1-2') == names


def gone(text):
    return [m.raw for m in find_levels(text, LUMBAR) if inside(m.start, negated_spans(text))]


@pytest.mark.parametrize(
    'text',
    (
        'L5 is not visible; L4 is.',
        'L5 not visible, L4 visible.',
        'It does not show L5, L4 is visible.',
        "L5 isn't visible, L4 is.",
        'L4 is seen, L5 is not.',
        'I have not seen L5, L4 is visible.',
        'Present: L4. Absent: L5.',
        'Not visible: L5.',
    ),
)
def test_l5_alone_is_denied(text):
    assert gone(text) == ['L5']


@pytest.mark.parametrize(
    'text, names',
    (
        ('It shows L1 and L2, but not L3, L4 and the sacrum.', ['L3', 'L4', 'sacrum']),
        ('Without T11, the slice shows T12.', ['T11']),
        ('T12, L1 and L2 are absent. L3 follows.', ['T12', 'L1', 'L2']),
        ('It shows T12, L1 and L2, L3 and L4 are cut off.', ['L3', 'L4']),
        ('No L4, L5 or S1 is visible.', ['L4', 'L5', 'S1']),
        ("It doesn't contain L4. It contains L5.", ['L4']),
        ('It shows not only L4 but also L5.', []),
    ),
)
def test_denied_levels(text, names):
    assert gone(text) == names


def test_stated_levels_in_the_order_of_mention():
    assert stated_levels('It shows L5 and L4.', LUMBAR) == ('L5', 'L4')
    assert stated_levels(
        'L1 to L3 and the discs between them, but not the discs between L1', LUMBAR
    ) == (
        'L1',
        'L2',
        'L3',
        'L1/L2',
        'L2/L3',
    )


def test_levels_said_in_words():
    assert plain_levels('the lumbosacral disc', LUMBAR) == 'the L5/S1 disc'
    assert plain_levels('third to fifth lumbar vertebrae', LUMBAR) == 'L3 to L5 vertebrae'
    assert plain_levels('LWK 4, BWK 12, SWK 1', LUMBAR) == 'L4, T12, S1'
    assert plain_levels('sacral cyst, sacral pain', LUMBAR) == 'sacrum cyst, sacral pain'


def sites(text):
    return [m.names for m in site_mentions(text, LUMBAR)]


def test_levels_that_findings_can_have():
    assert sites('L4 on L5') == [('L4/L5',)]
    assert sites('the L5 nerve root, the canal') == []
    assert sites('Tarlov cyst at S2') == [('S',)]
    assert sites('the lowest two discs') == [('L4/L5', 'L5/S')]
    assert sites('conus ends at L1, bulge at L4/5') == [('L4/L5',)]


def test_groups_of_levels():
    text = 'L3/4, L4/5 and L5/S1; L1 and L2'
    groups = level_groups(find_levels(text, LUMBAR), text)
    assert [len(g) for g in groups] == [3, 2]


def mentions(text):
    return [(m.names, m.raw) for m in find_levels(text, LUMBAR)]


def test_the_letter_of_a_pair_is_the_last_one():
    assert read('T12/L1, 2/3 and 3/4') == ('T12/L1', 'L2/L3', 'L3/L4')
    assert read('T12 to L2, 3 and 4') == ('T12', 'L1', 'L2', 'L3', 'L4')


def test_a_chain_with_an_unknown_level_names_nothing():
    assert mentions('L3/L9/5') == [((), 'L3/L9/5')]


def test_a_place_within_another_counts_once():
    assert mentions('L5 / S, L4') == [(('L5/S',), 'L5 / S'), (('L4',), 'L4')]


@pytest.mark.parametrize('number', ['four', '4'])
def test_lowest_discs(number):
    found = site_mentions(f'narrow lowest {number} discs', LUMBAR)
    assert [(m.names, m.raw) for m in found] == [
        (('L2/L3', 'L3/L4', 'L4/L5', 'L5/S'), f'lowest {number} discs')
    ]


def test_mentions_are_values():
    first, again = (find_levels('L4', LUMBAR)[0] for _ in range(2))
    assert len({first, again}) == 1


@pytest.mark.parametrize('hyphen', '\u2010\u2011\u2012\u2013\u2014\u2212\uff0d')
def test_every_hyphen_is_one(hyphen):
    assert read(f'L4{hyphen}5') == ('L4/L5',)
    assert find_levels(f'L4{hyphen}5', LUMBAR)[0].end == 4  # places in the text as written


@pytest.mark.parametrize(
    'written, plain',
    (
        ('L 4 / 5 and L 5 / S 1', 'L4 / 5 and L5 / S1'),
        ('L4_L5, L4_5', 'L4/L5, L4/5'),
        ('slip of L4 on 5', 'slip of L4 on L5'),
        ('L4 on 5 mm slices', 'L4 on 5 mm slices'),
        ('Lt L 5 mm', 'Lt L 5 mm'),
        ('at L5 leve:l', 'at L5 level'),
        ('Level: L4', 'Level: L4'),
    ),
)
def test_spelling_of_levels(written, plain):
    assert plain_levels(written, LUMBAR) == plain
