"""benchmarks/words_followed.py on a tiny cohort, with networks whose answer is known: one that
does what its list says, one that ignores it, one that goes by the order of the list"""

import json
import runpy
import sys

import numpy as np
import pytest
from conftest import ROOT

from atm_net.anatomy import LUMBAR
from atm_net.cache import prepare
from atm_net.cohort import open_cohort
from atm_net.core import InputError
from atm_net.geometry import new_geometry
from atm_net.grid import Grid
from atm_net.predict import Predictor
from atm_net.volumes import write_labels, write_volume

sys.path.insert(0, str(ROOT / 'benchmarks'))
import words_followed as wf

JOINT = LUMBAR.scheme('joint')
LOW = ('L3', 'L3/L4', 'L4', 'L4/L5', 'L5', 'L5/S', 'S')  # in view of the sacrum
HIGH = ('T12', 'T12/L1', 'L1', 'L1/L2', 'L2')  # out of view
SHOWN = {'a': LOW, 'b': LOW, 'c': HIGH, 'd': HIGH}
H = 8  # rows of a structure


def drawn(names) -> np.ndarray:  # (3, 64, 20) channels
    labels = np.zeros((3, 64, 20), np.uint8)
    for i, name in enumerate(names):
        labels[:, i * H : i * H + H, 4:14] = JOINT.channel(name)
    return labels


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    "Four patients, two with the sacrum; the image shows structures, not their levels"
    from atm_net.data import Cache

    root = tmp_path_factory.mktemp('cohort')
    for case, names in SHOWN.items():
        labels = drawn(names)
        geometry = new_geometry(labels.shape, (4.0, 2.0, 2.0))
        shade = np.add.outer(np.arange(64) % 2, np.arange(20))  # no row or column of one value
        image = np.where(labels > 0, 100.0, 10.0) + shade
        write_volume(image, geometry, root / 'd' / 'images' / f'{case}.nii.gz')
        write_labels(JOINT.decode(labels), geometry, root / 'd' / 'masks' / f'{case}.nii.gz')
    grid = Grid(spacing=2.0)
    prepare(open_cohort(root / 'd', LUMBAR, labels='joint'), root / 'c', grid)
    return Cache(root / 'c')


class StandIn(Predictor):
    "Finds all masks, from top to bottom; a subclass names them"

    def __init__(self, grid):
        self.anatomy = LUMBAR
        self.scheme = JOINT
        self.grid = grid
        self.option = 3
        self.has_text = True
        self.guidance = 1.0

    def predict_with_confidence(self, images, prompts=None, labeler=None, known_levels=()):
        count = 7 if self.bright(images) > 5 * H else 5
        labels = np.zeros(images.shape, np.uint8)
        for i, name in enumerate(self.names(count, str(prompts[1]))):
            labels[:, i * H : i * H + H, 4:14] = JOINT.channel(name)
        return labels, 0.5

    def bright(self, slices) -> int:
        "Rows with a structure"
        return int((slices.images[1, :, 6] > 0.5).sum())

    def listed(self, text) -> list:
        "Bodies and discs in the order of the sentence"
        words = text.replace(',', ' ').replace('.', ' ').split()
        return [w for w in words if w in JOINT.names and w != 'SC']


WRONG = {
    7: ('L2', 'L2/L3', 'L3', 'L3/L4', 'L4', 'L4/L5', 'S'),
    5: ('T11', 'T11/T12', 'T12', 'T12/L1', 'L1'),
}


class Deaf(StandIn):
    "Names as it thinks, one level too high, whatever the list says"

    def names(self, count, text):
        return WRONG[count]


class Obedient(StandIn):
    "Without a list as `Deaf`; with one, by what it says, from the lower end, and no others"

    def names(self, count, text):
        said = LUMBAR.order(self.listed(text))
        if not said:
            return WRONG[count]
        unnamed = count - len(said)
        return ('SC',) * unnamed + said if unnamed >= 0 else said[-count:]


class ByPlace(StandIn):
    "The first name of the sentence goes to the top"

    def names(self, count, text):
        return tuple(self.listed(text)[:count]) or WRONG[count]


def figures(network, cache) -> dict:
    found = wf.measure(network(cache.grid), cache)[1.0]
    return wf.result_of(found, 'stand-in', 1.0)


def means(result, half) -> dict:
    return {key: result[key][half]['mean'] for key in wf.KEYS}


def test_a_network_that_ignores_its_list(cache):
    """No structure lies where the network calls it, so all is 0 but what overlap names. A list one
    level up is what it says anyway; in view of the sacrum no other list is possible"""
    result = figures(Deaf, cache)
    seen = means(result, 'in_view')
    assert (seen['generic'], seen['oracle'], seen['overlap']) == (0, 0, 100)
    assert (seen['shuffle_cost'], seen['cut_cost'], seen['gap_closed']) == (0, 0, 0)
    assert (seen['follow'], seen['resist']) == (100, 0)


def test_a_network_that_follows_its_list(cache):
    result = figures(Obedient, cache)
    for half in wf.HALVES:
        seen = means(result, half)
        assert (seen['generic'], seen['oracle'], seen['overlap']) == (0, 100, 100)
        assert (seen['gap_closed'], seen['shuffle_cost']) == (1, 0)
        assert (seen['follow'], seen['resist']) == (100, 0)
        assert seen['cut_cost_named'] == 0


def test_the_cut_costs_what_is_not_named_any_more(cache):
    "By hand: two of six structures at stake (T12 and its disc: two of five) are not named"
    result = figures(Obedient, cache)
    assert means(result, 'in_view')['cut_cost'] == pytest.approx(200 / 6)
    assert means(result, 'out_of_view')['cut_cost'] == pytest.approx(200 / 5)


def test_a_network_that_goes_by_place(cache):
    "Right under the true list, wrong under a shuffled one and one that is cut at the top"
    result = figures(ByPlace, cache)
    for half in wf.HALVES:
        seen = means(result, half)
        assert seen['oracle'] == 100
        assert seen['shuffle_cost'] > 30
        assert seen['cut_cost_named'] == 100


def test_keys_and_intervals(cache, capsys):
    result = json.loads(json.dumps(figures(Obedient, cache)))
    assert set(wf.KEYS) < set(result)
    assert result['volumes'] == {'in_view': 2, 'out_of_view': 2}
    for key in wf.KEYS:
        for half in wf.HALVES:
            f = result[key][half]
            assert f['low'] <= f['mean'] <= f['high'] and f['n'] == 2
    assert '| gap_closed | 1.00 [1.00, 1.00] |' in wf.markdown(result)


def test_seeds_are_fixed(cache):
    assert figures(ByPlace, cache) == figures(ByPlace, cache)


def test_a_network_without_text_is_refused(cache):
    network = Deaf(cache.grid)
    network.has_text = False
    with pytest.raises(InputError, match='no text'):
        wf.measure(network, cache)


def test_lists():
    rng = np.random.default_rng(0)
    moved, by = wf.moved_list(LOW, LUMBAR, rng)
    assert (moved, by) == (('L2', 'L2/L3', 'L3', 'L3/L4', 'L4', 'L4/L5', 'S'), -1)
    assert {wf.moved_list(HIGH, LUMBAR, rng)[1] for _ in range(20)} == {-1, 1}
    assert wf.moved_list(('T9', 'S'), LUMBAR, rng) == ((), 0)
    assert wf.cut_list(LOW, LUMBAR) == ('L4', 'L4/L5', 'L5', 'L5/S', 'S')
    assert wf.cut_list(('L5/S', 'S', 'SC'), LUMBAR) == ()


def test_dice_by_hand():
    truth = np.array([[[1, 2, 2, 0]]], np.uint8)  # S, L5, L5, nothing
    pred = np.array([[[1, 2, 3, 3]]], np.uint8)  # S, L5, L4, L4
    row = dict(zip(wf.at_stake(JOINT), wf.dice_row(pred, truth, JOINT)))
    assert 'S' not in row and 'SC' not in row
    assert row['L5'] == pytest.approx(2 / 3) and row['L4'] == 0 and np.isnan(row['L3'])


def test_weights_side_by_side(cache):
    found = wf.measure(Obedient(cache.grid), cache, (1.0, 4.0))
    results = [wf.result_of(each, 'stand-in', weight) for weight, each in found.items()]
    assert '| in_view | follow | 100.0 | 100.0 |' in wf.side_by_side(results)


def test_the_page_says_what_was_measured():
    "results/guidance: the tables of results/README follow from the JSON beside it"
    import typed_list

    folder = ROOT / 'results' / 'guidance'
    page = (ROOT / 'results' / 'README.md').read_text(encoding='utf-8')
    results = json.loads((folder / 'phantoms.json').read_text(encoding='utf-8'))
    assert [r['guidance'] for r in results] == [0, 1, 2, 4, 8, 24]
    assert wf.side_by_side(results).strip() in page
    scans = sorted(folder.glob('development_*.json'))
    assert scans
    for file in scans:
        found = json.loads(file.read_text(encoding='utf-8'))
        assert typed_list.markdown(found).strip() in page


def test_the_command_refuses(tmp_path, monkeypatch, capsys):
    script = str(ROOT / 'benchmarks' / 'words_followed.py')
    monkeypatch.setattr(sys, 'argv', [script, str(tmp_path), '--guidance', '-1'])
    with pytest.raises(SystemExit) as e:
        runpy.run_path(script, run_name='__main__')
    assert e.value.code == 2 and 'must be 0 or more' in capsys.readouterr().err
