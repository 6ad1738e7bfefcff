"Protocols: the table, which one is meant, one prompt per slice, and the rules of `self`"

import numpy as np
import pytest

from atm_net.anatomy import LUMBAR, get_anatomy
from atm_net.core import InputError
from atm_net.prompts import SOURCES, holistic
from atm_net.protocols import (
    INPUTS,
    PAPER_PROTOCOL,
    PROTOCOLS,
    SIDE_BY_SIDE,
    WITHOUT_TEXT,
    Vote,
    agreement,
    choose_protocol,
    evaluable,
    find_protocol,
    own_part,
    protocol_prompts,
    self_prompts,
    vote_figure,
)

JOINT = LUMBAR.scheme('joint')
FEW = ('L2', 'L2/L3', 'L3')
MORE = (*FEW, 'L3/L4', 'L4')


def structures(prompts):
    return [p.structures for p in prompts]


# --- the table


def test_every_name_of_a_prompts_source_is_a_protocol():
    assert tuple(PROTOCOLS)[:-1] == SOURCES and tuple(PROTOCOLS)[-1] == 'none'


def test_the_table_is_consistent():
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name and protocol.words
        assert protocol.needs in ('', 'prediction', *INPUTS)
        assert protocol.scope in ('slice', 'volume', 'any image', '')
        assert (protocol.reads_truth == 'no') == (protocol.needs not in ('truth', 'other'))


def test_oracles_say_so_in_their_name():
    assert [p.name for p in PROTOCOLS.values() if p.is_oracle] == ['oracle', 'oracle-levels']


def test_whose_mask_is_read():
    assert [p.name for p in PROTOCOLS.values() if p.borrows] == ['shuffled']
    reads = [p.name for p in PROTOCOLS.values() if p.reads_mask]
    assert reads == ['oracle', 'oracle-levels', 'shuffled']


def test_lists_of_protocols_hold_protocols():
    assert all(name in evaluable() for name in SIDE_BY_SIDE.split(','))
    assert PROTOCOLS[PAPER_PROTOCOL].reads_truth == 'this slice'
    assert PROTOCOLS[WITHOUT_TEXT].scope == ''


def test_what_needs_a_persons_text():
    assert [p.name for p in PROTOCOLS.values() if p.needs_text] == ['user', 'report']


def test_evaluable_protocols_begin_with_those_without_truth():
    assert evaluable() == ('self', 'generic', 'none', 'oracle', 'oracle-levels', 'shuffled')


def test_find_protocol():
    assert find_protocol('self').needs == 'prediction'
    with pytest.raises(InputError, match="'magic' is unknown: use one of self, generic, user"):
        find_protocol('magic')


# --- which one is meant


@pytest.mark.parametrize(
    ('given', 'want'),
    [
        ({}, 'generic'),
        ({'prompt': 'L4'}, 'user'),
        ({'prompt': ''}, 'user'),
        ({'report': 'Bulge at L4/5.'}, 'report'),
        ({'prompt': None, 'truth': None}, 'generic'),
    ],
)
def test_what_is_given_decides(given, want):
    assert choose_protocol(True, **given) == want


@pytest.mark.parametrize('name', list(PROTOCOLS)[:-1])
def test_a_network_without_text_answers_as_none(name):
    assert choose_protocol(True, name) == name
    assert choose_protocol(False, name) == 'none'


@pytest.mark.parametrize('name', [n for n, p in PROTOCOLS.items() if p.needs in INPUTS])
def test_a_protocol_takes_what_it_needs(name):
    assert choose_protocol(True, name, **{PROTOCOLS[name].needs: 'x'}) == name


@pytest.mark.parametrize(
    ('has_text', 'name', 'given', 'words'),
    [
        (True, 'self', 'prompt', "'self' does not read it: choose user"),
        (True, 'generic', 'report', 'choose report'),
        (True, None, 'truth', 'choose oracle or oracle-levels'),
        (True, 'oracle', 'other', 'choose shuffled'),
        (True, 'user', 'truth', '--mask'),
        (False, None, 'prompt', 'no text'),
        (False, 'oracle', 'truth', 'no text'),
    ],
)
def test_what_would_not_be_read_is_refused(has_text, name, given, words):
    with pytest.raises(InputError, match=words):
        choose_protocol(has_text, name, **{given: 'x'})


def test_one_of_two_texts_would_go_unread():
    with pytest.raises(InputError, match=r'a report \(--report\) is given'):
        choose_protocol(True, prompt='L4', report='Bulge.')


def test_unknown_names_are_refused():
    for has_text, name in ((False, 'wizard'), (True, ''), (True, 'Self')):
        with pytest.raises(InputError, match='unknown'):
            choose_protocol(has_text, name)


def test_none_is_for_networks_without_text():
    with pytest.raises(InputError, match="use 'generic'"):
        choose_protocol(True, 'none')


# --- one prompt per slice


@pytest.fixture
def truth():
    "L4, its disc and L5 in four slices, the first without L5"
    labels = np.zeros((4, 30, 9), np.uint8)
    for i, name in enumerate(('L4', 'L4/L5', 'L5')):
        labels[:, i * 10 : i * 10 + 10] = JOINT.channel(name)
    labels[0, 20:] = 0
    return labels


ALL = ('L4', 'L4/L5', 'L5')
FREE = 'I see L3 and L4.'


def test_generic_names_nothing():
    prompts = protocol_prompts('generic', 3, JOINT)
    assert structures(prompts) == [()] * 3 and {p.source for p in prompts} == {'generic'}


def test_oracle_speaks_of_each_slice(truth):
    prompts = protocol_prompts('oracle', 4, JOINT, truth=truth)
    assert structures(prompts) == [ALL[:2], ALL, ALL, ALL]


def test_oracle_levels_speak_of_the_volume(truth):
    prompts = protocol_prompts('oracle-levels', 4, JOINT, truth=truth)
    assert structures(prompts) == [ALL] * 4
    assert {p.source for p in prompts} == {'oracle-levels'}


def test_incomplete_truth_is_said_as_at_least(truth):
    for protocol in ('oracle', 'oracle-levels'):
        whole = protocol_prompts(protocol, 4, JOINT, truth=truth)[1]
        part = protocol_prompts(protocol, 4, JOINT, truth=truth, complete=False)[1]
        assert 'at least' in str(part) and 'at least' not in str(whole)


def test_shuffled_spreads_the_other_patients_prompts(truth):
    oracle = protocol_prompts('oracle', 4, JOINT, truth=truth)
    assert protocol_prompts('shuffled', 2, JOINT, other=oracle) == [oracle[0], oracle[3]]
    assert protocol_prompts('shuffled', 1, JOINT, other=oracle) == [oracle[0]]
    many = protocol_prompts('shuffled', 7, JOINT, other=oracle)
    assert many == [oracle[i] for i in (0, 0, 1, 2, 2, 2, 3)]


def test_user_is_reworded_unless_verbatim():
    typed = protocol_prompts('user', 2, JOINT, prompt=FREE, verbatim=True)
    assert [str(p) for p in typed] == [FREE] * 2
    said = protocol_prompts('user', 3, JOINT, 2, prompt=FREE)
    assert [str(p) for p in said] == [
        str(holistic(('L3', 'L3/L4', 'L4'), LUMBAR, 2, None, False))
    ] * 3


def test_user_knows_the_position_of_a_slice():
    prompts = protocol_prompts('user', 3, JOINT, prompt=FREE)
    assert [p.position for p in prompts] == ['upper', 'middle', 'lower']


def test_report_names_the_neighbours_of_a_disc():
    prompts = protocol_prompts('report', 3, JOINT, report='Disc bulging at L4/5.')
    assert structures(prompts) == [ALL] * 3
    assert [p.position for p in prompts] == ['upper', 'middle', 'lower']


@pytest.mark.parametrize('name', [n for n, p in PROTOCOLS.items() if p.needs in INPUTS])
def test_what_is_needed_must_be_given(name):
    with pytest.raises(InputError, match=f"'{name}' needs {INPUTS[PROTOCOLS[name].needs].missing}"):
        protocol_prompts(name, 2, JOINT)


def test_no_prompts_without_data():
    for name in ('self', 'none'):
        with pytest.raises(InputError, match='from a prediction, not from data'):
            protocol_prompts(name, 2, JOINT)
    with pytest.raises(InputError, match='unknown'):
        protocol_prompts('magic', 2, JOINT)


# --- self


class StandIn:
    "Finds what `answer` says to the structures that the words name, and remembers these"

    anatomy = LUMBAR
    scheme = JOINT
    option = 3

    def __init__(self, answer, confidence=lambda words: 0.5):
        self.answer = answer
        self.confidence = confidence
        self.heard = []

    def predict_with_confidence(self, images, prompts, labeler=None):
        words = prompts[2].structures
        self.heard.append(words)
        self.labeler = labeler
        labels = np.zeros(images.shape, np.uint8)
        for i, name in enumerate(self.answer(words)):
            labels[:, 2 + i * 9 : 10 + i * 9, 5:20] = JOINT.channel(name)
        return labels, self.confidence(words)


def listens(words):
    return MORE if 'L3' in words else FEW


def wavers(words):
    return ('L4', 'L4/L5', 'L5') if 'L3' in words else FEW


def asked(answer, rounds, *confidence):
    "Words heard, names voted, structures and sources of the last words; the trace"
    network = StandIn(answer, *confidence)
    images = np.zeros((5, 50, 30))
    prompts, trace, confirmed = self_prompts(network, images, rounds)
    assert len(prompts) == 5
    heard = list(network.heard)
    again, _ = network.predict_with_confidence(images, prompts)
    np.testing.assert_array_equal(confirmed[-1], again)
    voted = [vote.names for vote in trace]
    return (heard, voted, set(structures(prompts)), {p.source for p in prompts}), trace


def outcomes(trace):
    return [vote.outcome for vote in trace]


def test_self_goes_on_while_confirmed_words_change():
    "Three passes, not nine"
    got, trace = asked(listens, 9)
    assert got == ([(), FEW, MORE], [FEW, MORE, MORE], {MORE}, {'self'})
    assert outcomes(trace) == ['confirmed', 'confirmed', 'settled']
    assert [vote.agreement for vote in trace] == [1.0, 1.0, None]
    assert trace[0].support['L2'] == 1.0


def test_self_obeys_the_number_of_rounds():
    assert asked(listens, 2)[0] == ([(), FEW], [FEW], {FEW}, {'self'})
    assert asked(listens, 1)[0] == ([()], [], {()}, {'generic'})


def test_a_network_that_ignores_the_words_confirms_them():
    assert asked(lambda words: FEW, 9)[0] == ([(), FEW], [FEW, FEW], {FEW}, {'self'})


def test_the_generic_prompt_stays_if_names_move():
    got, trace = asked(wavers, 9)
    assert got == ([(), FEW], [FEW], {()}, {'generic'})
    assert [(vote.outcome, vote.agreement) for vote in trace] == [('not confirmed', 0.0)]


def test_the_generic_prompt_stays_if_the_words_blind():
    got, _ = asked(lambda words: () if words else FEW, 9)
    assert got == ([(), FEW], [FEW], {()}, {'generic'})


def test_nothing_found_is_a_round():
    got, trace = asked(lambda words: (), 9)
    assert got == ([()], [()], {()}, {'generic'})
    assert outcomes(trace) == ['nothing found']


def test_words_that_cost_confidence_are_dropped():
    got, trace = asked(listens, 9, lambda words: 0.5 - 0.1 * len(words))
    assert got == ([(), FEW], [FEW], {()}, {'generic'})
    assert outcomes(trace) == ['less confident']


def test_confidence_is_compared_with_the_last_confirmed_pass():
    got, trace = asked(listens, 9, lambda words: 0.6 if words == FEW else 0.5)
    assert got == ([(), FEW, MORE], [FEW, MORE], {FEW}, {'self'})
    assert outcomes(trace) == ['confirmed', 'less confident']


def test_trust_is_a_share_of_the_pixels():
    images = np.zeros((5, 50, 30))
    trace = self_prompts(StandIn(wavers), images, trust=0.0)[1]
    assert outcomes(trace)[0] == 'confirmed'


def test_the_labeler_reaches_every_pass():
    network = StandIn(listens)
    self_prompts(network, np.zeros((5, 50, 30)), labeler='labeler')
    assert network.labeler == 'labeler'


def test_agreement_counts_bodies_of_both_passes():
    a = np.array([[1, 2, 3, 0, 11, 6]])
    b = np.array([[1, 2, 4, 5, 12, 0]])
    assert agreement(a, b, JOINT) == pytest.approx(2 / 3)  # S and L5 kept, L4 not
    assert agreement(a, 0 * a, JOINT) == 0.0


def test_agreement_without_vertebrae_counts_all_structures(tmp_path):
    text = 'name: knee\nimage: knee\nstructures:\n' + ''.join(
        f'- {{name: {n}, kind: bone}}\n' for n in ('femur', 'tibia')
    )
    (tmp_path / 'knee.yaml').write_text(text + 'top_down: [femur, tibia]\n', encoding='utf-8')
    scheme = get_anatomy(tmp_path / 'knee.yaml').scheme('joint')
    assert agreement(np.array([1, 2, 0]), np.array([1, 1, 2]), scheme) == 0.5


def test_a_vote_says_what_came_of_it():
    assert str(Vote((), {}, 'nothing found')) == 'nothing (nothing found)'
    assert str(Vote(('L4', 'L5'), {}, 'confirmed', 0.9)) == 'L4, L5 (confirmed, agreement 0.90)'


def test_vote_figure_hatches_what_was_left_out():
    vote = Vote(('L4',), {'L4': 1.0, 'L5': 0.1, 'L4/L5': 1.0}, 'not confirmed', 0.5)
    ax = vote_figure([vote], LUMBAR).axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ['L4', 'L5']
    assert [bar.get_hatch() for bar in ax.patches] == ['', '////']
    assert ax.get_title() == 'vote 1: not confirmed (agreement 0.50, needed 0.85)'


def test_vote_figure_without_votes():
    assert vote_figure([], LUMBAR).axes[0].texts[0].get_text() == 'no vote: one pass only'


# --- words of the volume


class Narrow(StandIn):
    "Does as the words say, but finds nothing in slice 0 and L4 alone in slice 4"

    def grid_labels(self, images, prompts, labeler=None, known_levels=()):
        self.known_levels = known_levels
        labels = self.predict_with_confidence(images, prompts, labeler)[0]
        labels[0] = 0
        labels[4][labels[4] != JOINT.channel('L4')] = 0
        return labels


def test_each_slice_reads_its_own_part():
    network = Narrow(lambda words: words)
    images = np.zeros((5, 50, 30))
    typed = protocol_prompts('user', 5, JOINT, prompt=FREE)
    parts = own_part(network, images, typed, 'labeler')
    whole = ('L3', 'L3/L4', 'L4')
    assert structures(parts) == [(), whole, whole, whole, ('L4',)]
    assert network.known_levels == set(whole)  # the first pass takes the whole list for visible
    assert network.labeler == 'labeler'
    assert str(parts[0]) == str(holistic((), LUMBAR, 1))
    assert str(parts[4]) == str(holistic(('L4',), LUMBAR, 3, 'lower', False))
    assert parts[4].source == 'user'


def test_no_pass_where_there_is_nothing_to_divide():
    network = Narrow(lambda words: words)
    generic = protocol_prompts('generic', 5, JOINT)
    assert own_part(network, np.zeros((5, 50, 30)), generic) == generic
    assert network.heard == []
