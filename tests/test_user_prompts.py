"What people write: typed prompts, reports, grading tables; our own sentences are read back"

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from drawn import joint, knee
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reports import REPORT

from atm_net.anatomy import LUMBAR, get_anatomy
from atm_net.core import InputError
from atm_net.prompts import MIN_PIXELS, POSITIONS, atpg, class_facts, class_prompt, holistic
from atm_net.reports import SAY, _neural, parse_prompt, read_report
from atm_net.user_prompts import (
    _nearest,
    _typo,
    check_prompt,
    find_anchor,
    positional_note,
    read_gradings,
    report_levels,
    report_prompt,
    reword,
    unheard,
    unrecognised,
    user_prompt,
)
from atm_net.wording import FINDINGS, Finding


@pytest.mark.parametrize('name', LUMBAR.names)
def test_our_own_sentences_are_never_refused(name):
    check_prompt(class_prompt(name, True, LUMBAR), LUMBAR)
    check_prompt(holistic([name], LUMBAR, 3, 'upper').text, LUMBAR)


@pytest.mark.parametrize(
    'text',
    (
        holistic(LUMBAR.names, LUMBAR, 3, 'lower', False).text,
        'normal signal; cranial, prevertebral, paravertebral, presacral and discal findings; '
        'discuss the spinal canal',
        ' '.join(FINDINGS) + ' at L4/5',
        'prevertebral tissue at L3',
        'asacral tissue at L3',
    ),
)
def test_words_that_only_look_misspelt(text):
    assert check_prompt(text, LUMBAR) == text


@pytest.mark.parametrize(
    'text, message',
    (
        ('  ', 'prompt is empty'),
        (None, 'prompt is empty'),
        ('It shows L4 and L6.', "'L6' (did you mean 'L"),
        ('disc L3/L5', "'L3/L5' (did you mean 'L"),
        ('the sacrun and T13', "'sacrun' (did you mean 'sacrum'?)"),
        ('the sacrun and T13', "'T13' (did you mean 'T1"),
        ('L1/L2/L4', "'L1/L2/L4' (did you mean"),
        ('vertebrae L1, 2 and 9', "'9' (did you mean"),
        ('the acanal at L3', "'acanal' (did you mean 'canal'?)"),
        ('C1 and L2', "'C1' (known: T9 to S)"),
    ),
)
def test_what_is_refused(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_prompt(text, LUMBAR)


@pytest.mark.parametrize(
    'typed, meant',
    dict(
        sacrun='sacrum',
        sarcum='sacrum',
        sacrm='sacrum',
        canel='canal',
        cannal='canal',
        spnal='spinal',
        lumbr='lumbar',
        thorasic='thoracic',
        vertbra='vertebra',
        verterba='vertebra',
        vertebre='vertebra',
        intrvertebral='intervertebral',
        dsics='discs',
    ).items(),
)
def test_misspelt_words(typed, meant):
    assert _typo(typed) == meant


@pytest.mark.parametrize('typed', ('ganal', 'dish', 'tisc'))
def test_another_first_letter_or_a_short_word_is_no_slip(typed):
    assert _typo(typed) is None


def test_the_region_is_believed_the_number_is_not():
    nearest = [_nearest(s, LUMBAR) for s in ('L9', 'T14', 'L0', 'L5-L6', 'T13/L1')]
    assert nearest == ['L5', 'T12', 'L1', 'L5/S', 'T12/L1']


def test_a_typed_prompt_stays_as_typed():
    p = user_prompt(' L4 and the disc below it, L4/5. ', LUMBAR)
    assert (p.structures, p.source) == (('L4', 'L4/L5'), 'user')
    assert p.text == 'L4 and the disc below it, L4/5.'
    assert unrecognised(p) == ''


def test_reword():
    r = reword(user_prompt('L4 and the disc below it, L4/5.', LUMBAR), LUMBAR, position='upper')
    assert (r.structures, r.complete, r.source) == (('L4', 'L4/L5'), False, 'user')
    assert str(r) == str(holistic(('L4', 'L4/L5'), LUMBAR, 3, 'upper', False))


def test_reword_keeps_what_a_person_says():
    "The place, discs between, and what is denied"
    typed = user_prompt('From the middle third: T12, L1 and L2, but not L3; the canal too', LUMBAR)
    wanted = holistic((*LUMBAR.run('T12', 'L2'), 'SC'), LUMBAR, 3, 'middle', False)
    assert str(reword(typed, LUMBAR, position='upper')) == str(wanted)


@pytest.mark.parametrize('names', ((), ('L3', 'L4', 'S')))
@pytest.mark.parametrize('option', (1, 2, 3))
@pytest.mark.parametrize('complete', (True, False))
def test_reword_leaves_our_own_sentences(names, option, complete):
    p = holistic(names, LUMBAR, option, 'lower' if option == 3 else None, complete)
    assert reword(replace(p, source='user'), LUMBAR, 3, 'upper').text == p.text


def test_reword_of_words_about_nothing():
    p = user_prompt('a nice picture', LUMBAR)
    assert reword(p, LUMBAR, 3, 'upper') == replace(holistic((), LUMBAR, 1), source='user')
    assert 'no structure' in unrecognised(p)
    assert 'no structure' in unrecognised(report_prompt('Normal.', LUMBAR))


def test_reword_keeps_findings():
    said = SAY + 'disc herniation at L4/L5.'
    assert str(reword(parse_prompt('I see L4.' + said, LUMBAR), LUMBAR)) == (
        str(holistic(('L4',), LUMBAR, 3, None, False)) + said
    )


def stated(fact) -> tuple:
    "What reading a class prompt back must give: its structure if it is there"
    return (fact.name,) if fact.present and fact.name != 'background' else ()


def test_class_prompts_there_and_back():
    for p in class_facts(('T12', 'L4/L5', 'SC'), joint):
        assert parse_prompt(str(p), LUMBAR).structures == stated(p)
    for n in LUMBAR.names:
        assert parse_prompt(class_prompt(n, True, LUMBAR), LUMBAR).structures == (n,)
        assert parse_prompt(class_prompt(n, False, LUMBAR), LUMBAR).structures == ()


def test_the_prompt_of_a_report():
    r = report_prompt(REPORT, LUMBAR, position='middle')
    assert r.structures == (*LUMBAR.run('T12', 'S'), 'SC')
    assert (r.source, r.complete, r.position) == ('report', False, 'middle')
    assert report_prompt('Bulge at L3/4.', LUMBAR).structures == ('L3', 'L3/L4', 'L4')
    normal = report_prompt('Normal.', LUMBAR)
    assert (str(normal), normal.source) == (str(holistic((), LUMBAR, 1)), 'report')
    with pytest.raises(InputError, match='report is empty'):
        report_prompt(' ', LUMBAR)


def test_a_finding_is_said_once_and_where_it_is():
    p = report_prompt('Herniation at L4/5. The herniation is large. No fracture.', LUMBAR, option=4)
    assert p.findings == (Finding('disc herniation', 'L4/L5'),)
    p = report_prompt('No fracture of L1. There is a fracture.', LUMBAR, option=4)
    assert p.findings == (Finding('fracture', None),)


@pytest.mark.parametrize(
    'text', (REPORT, 'Scoliosis. No fracture at L1.', 'No bulge at L1/2.'), ids=range(3)
)
def test_option_4_is_read_back(text):
    p = report_prompt(text, LUMBAR, option=4, position='lower')
    r = parse_prompt(str(p), LUMBAR)
    wanted = (p.structures, p.findings, p.option, p.position)
    assert (r.structures, r.findings, r.option, r.position) == wanted


@pytest.mark.parametrize(
    'text, levels',
    (
        ('T11 is not visible. Fracture of T12, bulge at L1/2.', LUMBAR.run('T12', 'L2')),
        ('Bulge at L4/5. The sacrum is cut off.', LUMBAR.run('L4', 'L5')),
        ('Bulge at L5/S1; the sacrum is cut off.', ('L5', 'L5/S')),  # the disc alone
        ('Bulge at L1/2, no herniation at L4/5.', LUMBAR.run('L1', 'L5')),
        ('At L4/5 herniation is not seen.', ('L4', 'L4/L5', 'L5')),  # about findings: in view
    ),
)
def test_levels_of_a_report(text, levels):
    assert report_levels(text, LUMBAR, read_report(text, LUMBAR)) == levels


TABLE = """\
Patient,IVD label,Modic,UP endplate,LOW endplate,Spondylolisthesis,Disc herniation,\
Disc narrowing,Disc bulging,Pfirrman grade
1,1,0,1,0,0,1,0,1,4
1,2,2,0,0,0,0,0,0,2
12,3,0,0,0,1,0,0,0,5
"""


@pytest.fixture
def gradings(tmp_path):
    def write(text=TABLE):
        f = tmp_path / 'radiological_gradings.csv'
        f.write_text(text, encoding='utf-8')
        return f

    return write


def test_gradings(gradings):
    g = read_gradings(gradings(), 1, LUMBAR)
    assert len(g) == 16 and Finding('Modic type 2', 'L4/L5') in g
    at_s1 = [f.finding for f in g if f.level == 'L5/S' and not f.negated]
    assert at_s1 == [
        'upper endplate changes',
        'disc herniation',
        'disc bulging',
        'Pfirrmann grade 4',
    ]
    assert [f for f in read_gradings(gradings(), '12', LUMBAR) if not f.negated] == [
        Finding('spondylolisthesis', 'L3/L4'),
        Finding('Pfirrmann grade 5', 'L3/L4'),
    ]
    assert report_prompt('', LUMBAR, g).structures == (
        'L4',
        'L4/L5',
        'L5',
        'L5/S',
        'S',
    )


@pytest.mark.parametrize(
    'text, patient, message',
    (
        (TABLE, 2, "no '2'"),
        ('a,b\n1,2\n', 1, 'IVD label'),
        (TABLE.replace('\n1,1,', '\n1,0,', 1), 1, "IVD label '0'"),
        (TABLE.replace('\n1,1,', '\n1,10,', 1), 1, "IVD label '10' is not 1 to 9"),
        (TABLE.replace('\n1,1,', '\n1,x,', 1), 1, "IVD label 'x'"),
        (TABLE.replace('1,2,2,', '1,30,2,'), 1, "'30'"),
        (TABLE.replace('1,2,2,', '1,2,bad,'), 1, r"Modic 'bad' is not a number \(patient 1, IVD"),
    ),
    ids=range(7),
)
def test_gradings_that_are_wrong(gradings, text, patient, message):
    with pytest.raises(InputError, match=message):
        read_gradings(gradings(text), patient, LUMBAR)


def test_gradings_that_do_not_exist(tmp_path):
    with pytest.raises(InputError, match='none.csv'):
        read_gradings(tmp_path / 'none.csv', 1, LUMBAR)


def test_an_unknown_level_of_a_knee():
    with pytest.raises(InputError, match="'L4'"):
        check_prompt('the femur and L4', knee())
    p = holistic(['tibia', 'PCL', 'femur'], knee())
    assert parse_prompt(p.text, knee()).structures == p.structures


LISTS = (LUMBAR.names, ('S',), ('L4', 'L4/L5'), ('T9', 'T9/T10', 'T10', 'SC'), ())


@pytest.mark.parametrize('names', LISTS, ids=range(5))
@pytest.mark.parametrize('option', (1, 2, 3))
@pytest.mark.parametrize('position', (None, *POSITIONS))
@pytest.mark.parametrize('complete', (True, False))
def test_every_form_is_read_back(names, option, position, complete):
    p = holistic(names, LUMBAR, option, position, complete)
    r = parse_prompt(p.text, LUMBAR)
    wanted = (p.structures, p.position, p.complete, p.text)
    assert (r.structures, r.position, r.complete, r.text) == wanted
    if len(names) > 1 or (position and option == 3):
        assert r.option == p.option


# Masks that nobody would draw. Order and third are worked out by other means than the code's:
# from the numbers in the names, and from exact fractions.

THORAX, KNEE = get_anatomy('thoracic'), knee()


def height(name):
    "Top-down rank of a structure, from its name"
    if name in KNEE.top_down:
        return ('femur', 'PCL', 'tibia').index(name)
    if name in ('cord', 'SC'):
        return 100 + (name == 'SC')
    top = name.split('/')[0]
    body = 18 if top == 'S' else int(top[1:]) + 12 * (top[0] == 'L')
    return 2 * body + ('/' in name)


def third(k, n):
    at = Fraction(2 * k + 1, 2 * n)  # the centre of slice k, as a share of the axis
    return POSITIONS[(at >= Fraction(1, 3)) + (at >= Fraction(2, 3))]


@st.composite
def labelled(draw):
    "(anatomy, scheme, slice, k, n, names that count)"
    anatomy = draw(st.sampled_from((LUMBAR, THORAX, KNEE)))
    scheme = anatomy.scheme(draw(st.sampled_from(sorted(anatomy.schemes))))
    n = draw(st.integers(1, 40))
    names = draw(st.sets(st.sampled_from(scheme.names)))
    rest = sorted(set(scheme.names) - names)
    small = draw(st.sets(st.sampled_from(rest))) if rest else set()
    lab = np.zeros((len(scheme.names) + 1, 31), np.uint8)
    lab[-1, :] = 255
    rows = draw(st.permutations(range(len(scheme.names))))  # the prompt goes by label, not place
    for row, name in zip(rows, scheme.names):
        pixels = 0
        if name in names:
            pixels = draw(st.integers(MIN_PIXELS, 31))
        elif name in small:
            pixels = draw(st.integers(1, MIN_PIXELS - 1))
        lab[row, :pixels] = scheme.channel(name)
    return anatomy, scheme, lab, draw(st.integers(0, n - 1)), n, names


ENGLISH = re.compile(
    r'This is a sagittal MRI of the [a-z ]+?'
    r'(?: from the (?:upper|middle|lower) third of the slices,'
    r' counted from the right side of the patient)?\.'
    r'(?: It shows none of its labelled structures\.'
    r'| (?:From superior to inferior it|It) shows (?:at least )?[^.]*[^.,\s]\.)?'
)


def joints(text):
    "How many commas and 'and's join the structures of a sentence"
    n = text.count(',') + text.count(' and ')
    return n - (', counted' in text) - (', and ' in text)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(labelled(), st.sampled_from((1, 2, 3)), st.booleans())
def test_atpg_there_and_back(case, option, complete):
    anatomy, scheme, lab, k, n, names = case
    p = atpg(lab, scheme, k, n, option, complete)
    text = str(p)
    r = parse_prompt(text, anatomy)
    assert set(r.structures) == set(p.structures) == (names if option > 1 else set())
    if option == 3:
        assert r.structures == tuple(sorted(names, key=height)) and r.position == third(k, n)
    if option > 1 and (complete or names):
        assert r.complete == complete
    assert ENGLISH.fullmatch(text) and text.isascii()
    assert not re.search(r'\b(\w+) \1\b|  | ,|,,', text), text
    if option > 1 and names:
        assert joints(text) == len(names) - 1
    for c in class_facts(p.structures, scheme):
        assert parse_prompt(str(c), anatomy).structures == stated(c)
        assert re.fullmatch(r'It (contains|does not contain) [^.]+\.', str(c))
    check_prompt(text, anatomy)


def sited(finding):
    "A finding with a level where it can be"
    kind = 'disc' if FINDINGS[finding].site == 'disc' else 'vertebra'
    levels = [n for n in LUMBAR.names if LUMBAR[n].kind == kind]
    elsewhere = 'SC' if _neural.search(finding) else None
    return st.tuples(st.just(finding), st.sampled_from([*levels, elsewhere]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sets(st.sampled_from(sorted(FINDINGS)).flatmap(sited), min_size=1, max_size=12),
    st.sampled_from((None, *POSITIONS)),
)
def test_findings_there_and_back(found, position):
    found = [Finding(*f) for f in sorted(found, key=str)]
    p = report_prompt('', LUMBAR, found, 4, position)
    r = parse_prompt(str(p), LUMBAR)
    with_level = {f.finding for f in found if f.level}
    assert set(r.findings) == {f for f in found if f.level or f.finding not in with_level}
    assert (r.structures, r.position, r.option) == (p.structures, position, 4)


# --- levels that some people have, and the lowest one


@pytest.mark.parametrize(
    ('text', 'names'),
    [
        ('the disc L5/L6', ['L6']),
        ('L5-6 and L6/S1', ['L6']),
        ('at l 6', ['L6']),
        ('Th13, T13 and T12/13', ['T13']),
        ('L6 below a T13', ['L6', 'T13']),
        ('L5, 6 mm; L65; L6.5; XL6; L4/5; T12/L1; T1', []),
    ],
)
def test_levels_beyond_the_table_are_answered(text, names):
    note = positional_note(text, LUMBAR)
    assert [n for n in ('L6', 'T13') if f'{n}: ' in note] == names
    assert ('labels are positional' in note) == bool(names)
    assert positional_note(text, knee()) == ''


@pytest.mark.parametrize(
    ('text', 'name'),
    [('L5', 'L5'), (' l4 ', 'L4'), ('Th12', 'T12'), ('S1', 'S'), ('the sacrum', 'S')],
)
def test_the_lowest_vertebra_as_typed(text, name):
    assert find_anchor(text, LUMBAR.scheme('joint')) == name


@pytest.mark.parametrize('text', ['', 'L4/L5', 'L4 and L5', 'SC', 'hip', 'L6', 'T8'])
def test_what_is_no_lowest_vertebra(text):
    with pytest.raises(InputError, match='is no vertebra of scheme joint: use one of T9, '):
        find_anchor(text, LUMBAR.scheme('joint'))


def test_a_scheme_without_a_sacrum_has_no_such_anchor():
    with pytest.raises(InputError, match='scheme spider'):
        find_anchor('S', LUMBAR.scheme('spider'))


@pytest.mark.parametrize(
    'said',
    [
        'Sacrum not imaged.',
        'The sacrum is not imaged.',
        'Sacrum not included.',
        'No sacrum visible.',
        'There is no sacrum seen.',
        'The sacrum was not covered.',
    ],
)
def test_what_a_report_does_not_see_is_not_named(said):
    prompt = report_prompt(f'Disc herniation at L4/5. Normal L1 to L3. {said}', LUMBAR)
    assert 'L5' in prompt.structures and not {'S', 'L5/S'} & {*prompt.structures}


@pytest.mark.parametrize(
    ('report', 'bodies'),
    [
        ('L1 to L5 are seen and the sacrum is not included.', 'L1 L2 L3 L4 L5'),
        ('L1 to L4 are imaged and L5 is cut off.', 'L1 L2 L3 L4'),
        ('Small bulge at L4/L5 with the sacrum not included.', 'L4 L5'),
        ('L4 is seen. L5 and the sacrum are not included.', 'L4'),
        ('L3/L4 and L5/S1 are normal. The L5 nerve root is not visible.', 'L3 L4 L5 S'),
        ('Normal L4/L5 and L5/S1. The right S1 root is not seen.', 'L4 L5 S'),
        ('Images of L1 to L5 without the sacrum.', 'L1 L2 L3 L4 L5'),
        ('The scan includes L1 to L5, excluding the sacrum.', 'L1 L2 L3 L4 L5'),
        ('All from T12 to L5 is imaged except the sacrum.', 'T12 L1 L2 L3 L4 L5'),
        ('L2 to L5 are normal. Not visible: sacrum.', 'L2 L3 L4 L5'),
        ('L1 to L4 are normal. Absent: L5.', 'L1 L2 L3 L4'),
        ('L1 to L4 are normal. Neither L5 nor the sacrum is seen.', 'L1 L2 L3 L4'),
        ('L3 and L4 are normal. L5 is excluded from the field of view.', 'L3 L4'),
        ('L3 and L4 are normal. The sacrum lies beyond the field of view.', 'L3 L4'),
        ('L3 and L4 are normal. L5 was not assessed.', 'L3 L4'),
        ('L1 to L5: no disc bulge except at L4/L5.', 'L1 L2 L3 L4 L5'),
        ('All discs are normal except L5/S1. L3 is normal.', 'L3 L4 L5 S'),
        ('L3 to L5 without fracture. L5/S1 without narrowing.', 'L3 L4 L5 S'),
        ('L1 to L5 are included but not the sacrum.', 'L1 L2 L3 L4 L5'),
        ('L1 to L4 are normal. Neither L5 nor S1 were included.', 'L1 L2 L3 L4'),
        ('The scan covers L1 to S1, all discs are normal except L4/L5.', 'L1 L2 L3 L4 L5 S'),
        ('All imaged discs are normal apart from L4/L5.', 'L4 L5'),
        ('Normal L1 to L4 without L5 abnormality.', 'L1 L2 L3 L4 L5'),
        ('At L4/L5 the facet joints were not assessed.', 'L4 L5'),
        ('The L4/L5 level is not included in the fusion.', 'L4 L5'),
    ],
)
def test_what_one_half_of_a_sentence_does_not_see(report, bodies):
    prompt = report_prompt(report, LUMBAR)
    assert [n for n in prompt.structures if '/' not in n and n != 'SC'] == bodies.split()


@pytest.mark.parametrize(
    ('typed', 'is_all'),
    [
        ('only L4 and L5', True),
        ('L4 and L5 and nothing else', True),
        ('L4 and L5', False),
        ('at least L4 and L5, only part of L3', False),
        ('L4 is not the only vertebra, also L5', False),
        ('L3 to L5 with no other abnormality', False),
        ('L3 to L5, only the upper third', False),
        ('only L3 and L5', False),
    ],
)
def test_a_list_that_says_it_is_all(typed, is_all):
    assert reword(user_prompt(typed, LUMBAR), LUMBAR).complete == is_all


@pytest.mark.parametrize(
    ('typed', 'denied'),
    [
        ('L4 and L5, no sacrum', 'S: left out'),
        ('L4 and L5', ''),
        ('The image shows L4 and L5. Findings: disc bulging at L5/S.', ''),
        ('hello', 'no structure is recognised'),
        ('L1 to L5, this is from the scan of last year', ''),
        ('L1 to L5 are not evaluated yet, segment them', ''),
        ('L4 is below the image centre', ''),
    ],
)
def test_what_the_network_is_not_told(typed, denied):
    note = unheard(user_prompt(typed, LUMBAR), LUMBAR)
    assert note.startswith(denied) and bool(note) == bool(denied)
