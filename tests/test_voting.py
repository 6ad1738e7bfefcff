"All slices vote on one ordered list of levels"

from dataclasses import replace

import numpy as np
import pytest
from drawn import draw, joint, knee, spider, truth

from atm_net.anatomy import LUMBAR
from atm_net.prompts import holistic, present_structures, slice_position
from atm_net.reports import say_findings
from atm_net.voting import (
    _chain,
    _rows,
    best_run,
    slice_part,
    support,
    supported_levels,
    volume_prompts,
)
from atm_net.wording import Finding


def first_pass():
    "(11, 90, 31) labels: an island of T9, a piece of L2 called L4, L3 lost in most slices"
    empty = np.zeros((90, 31), np.uint8)
    out = np.stack([empty] * 2 + [draw(truth)] * 7 + [empty] * 2)
    out[4, 80:87, 2:12] = joint.channel('T9')
    out[2:5, 22:25, 6:10] = joint.channel('L4')
    for k in (2, *range(4, 9)):
        out[k][out[k] == joint.channel('L3')] = 0
    return out


BAD = first_pass()


def voted(labels, scheme, *threshold):
    "The levels that the slices of a volume vote for"
    return supported_levels(support(labels, scheme), scheme, *threshold)


def test_areas_and_median_rows():
    small = np.zeros((2, 5, 3), np.uint8)
    small[1, 1:4, 0] = 7
    small[1, 4] = 255
    area, rows = _rows(small, 9)
    assert (area[1, 7], rows[1, 7], area[0, 7], area[1].sum()) == (3, 2, 0, 12)


def test_the_heaviest_chain():
    assert _chain([5, 9, 2, 14], [10, 10, 3, 10]) == [0, 1, 3]
    assert _chain([5, 9, 2, 14], [10, 10, 99, 10]) == [2, 3]
    assert _chain([5, 5], [10, 20]) == [1]  # rows increase strictly
    assert _chain([5, 20, 9], [10, 10, 11]) == [0, 2]  # the lowest body of a chain counts
    assert _chain([], []) == []


def test_best_run_against_trying_every_run():
    rng = np.random.default_rng(3)
    for _ in range(50):
        gains = rng.normal(size=7)
        i, j = best_run(gains)
        best = max(gains[a : b + 1].sum() for a in range(7) for b in range(a, 7))
        np.testing.assert_allclose(gains[i : j + 1].sum(), best)
    assert best_run([-0.1, -0.2]) is None and best_run([]) is None


def test_a_perfect_mask_and_an_empty_one():
    empty = np.zeros((90, 31), np.uint8)
    assert voted(np.stack([empty, draw(truth), draw(truth), empty]), joint) == truth
    assert voted(np.zeros((3, 7, 5), np.uint8), joint) == ()


def test_the_vote_mends_a_first_pass():
    assert set(present_structures(BAD, joint)) - set(truth) == {'T9'}
    assert voted(BAD, joint) == truth
    sup = support(BAD, joint)
    np.testing.assert_allclose([sup[n] for n in ('L2', 'L3', 'T9')], [1, 1 / 7, 0])


@pytest.mark.parametrize('pixels, votes', ((16, 1), (15, 0)))
def test_a_fifth_of_the_median_body_votes(pixels, votes):
    "The other bodies have 77 pixels"
    lab = draw(LUMBAR.run('L1', 'L5'))
    lab[lab == joint.channel('L5')] = 0
    lab[70, 6 : 6 + pixels] = joint.channel('L5')
    assert support(lab[None], joint)['L5'] == votes


def test_a_disc_beyond_the_last_body_if_voted():
    vol = np.stack([draw(truth, scheme=spider)] * 3)
    vol[:, 70:73, 6:17] = spider.channel('L5/S')
    assert voted(vol, spider) == (*truth[:-1], 'L5/S', 'SC')


def test_one_list_for_all_slices():
    ps = volume_prompts(voted(BAD, joint), len(BAD), joint)
    assert {(p.complete, p.option, p.source, p.structures) for p in ps} == {
        (True, 3, 'self', truth)
    }
    assert [p.position for p in ps] == [slice_position(k, len(BAD)) for k in range(len(BAD))]
    assert {p.option for p in volume_prompts((), 4, joint)} == {1}


def test_each_slice_says_its_own_part():
    part = volume_prompts(voted(BAD, joint), len(BAD), joint, labels=BAD)
    shown = [present_structures(of_slice, joint) for of_slice in BAD]
    assert [p.structures for p in part] == [tuple(n for n in truth if n in s) for s in shown]
    assert part[0].option == 1 and str(part[0]) == str(holistic((), LUMBAR, 1))  # an empty slice


def test_slice_part():
    at = holistic(('L3', 'L3/L4', 'L4', 'SC'), LUMBAR, 3, 'upper', False, source='report')
    wanted = holistic(('L4', 'SC'), LUMBAR, 3, 'upper', False, source='report')
    assert slice_part(at, ('L4', 'SC', 'S'), LUMBAR) == wanted
    assert slice_part(at, ('T9',), LUMBAR).text == 'This is a sagittal MRI of the lumbar spine.'
    assert slice_part(at, LUMBAR.names, LUMBAR) is at


def test_slice_part_says_the_findings_of_its_levels():
    found = (Finding('fracture', 'L3'), Finding('fracture', 'L4'), Finding('scoliosis', None))
    p = holistic(('L3', 'L4'), LUMBAR, 3, None, False, source='report')
    p = replace(p, option=4, text=p.text + say_findings(found, LUMBAR), findings=found)
    part = slice_part(p, ('L4',), LUMBAR)
    assert (part.option, part.findings) == (4, found[1:])
    assert part.text.endswith(' Findings: scoliosis; fracture at L4.')


def test_a_knee_is_voted_structure_by_structure():
    scheme = knee().scheme('joint')
    vol = np.zeros((9, 7, 11), np.uint8)
    vol[1:, :2] = 1
    vol[1:, 5:] = 2
    vol[4, 3, :10] = 3  # the ligament in 1 of 8 slices
    vol[2, 4, :9] = 3  # and too small in another
    assert voted(vol, scheme) == ('femur', 'tibia')
    assert voted(vol, scheme, 0.1) == ('femur', 'PCL', 'tibia')
    assert voted(vol * 0, scheme) == ()
    ps = volume_prompts(('femur', 'tibia'), 9, scheme)
    assert [p.structures for p in ps] == [('femur', 'tibia')] * 9
