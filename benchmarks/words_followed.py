"""How far does a network act on its prompt? Pixel by pixel, each name as the network says it.

    atm_phantom near --labels joint --view 160 --patients 40 --seed 4711
    atm_prepare near near_cache
    python benchmarks/words_followed.py near_cache [--weights NAME] [--guidance W] [--json]

All parts of the cache are scored, in two halves: the sacrum is in the field of view of a volume or
not. Figures are mean Dice by exact level, in points, over the structures whose name is at stake:
vertebrae and discs, not the sacrum, not the canal. A list goes the way of `oracle-levels`: every
slice reads it in a first pass, then its own part of it.

generic, self
    Dice under these protocols
oracle
    under the true list of the volume
overlap
    masks under the generic prompt, named by the truth that they overlap: the upper bound
gap_closed
    (oracle - generic) / (overlap - generic), a share
follow, resist
    under a list one level off, up or down at random: Dice against what the list calls the bodies,
    and against the truth; sacrum and canal keep their names; no structure may leave the table
shuffle_cost
    oracle minus Dice under the same sentences with the levels in random order
cut_cost
    oracle minus Dice under the list without the uppermost body and what lies above the next one
cut_cost_named
    the same, over the structures that the cut list still names

Intervals are over patients. Volumes that have no such list are left out of a figure. Several
weights (--guidance 0,1,4) are scored side by side, on one encoding of each image."""

import argparse
import json
import os
import sys
from dataclasses import dataclass, field

os.environ.setdefault('HF_HUB_OFFLINE', '1')

import numpy as np

from atm_net.anatomy import convert
from atm_net.cli import progress
from atm_net.core import InputError
from atm_net.metrics import (
    bootstrap_ci,
    draw_patients,
    drawn_headlines,
    exclude,
    interval,
    patient_sums,
    relabel_matched,
)
from atm_net.prompts import (
    LEVEL_KINDS,
    move_labels,
    present_structures,
    reordered,
    shift_levels,
)
from atm_net.protocols import own_part, protocol_prompts
from atm_net.show import table_md
from atm_net.voting import volume_prompts

HALVES = ('in_view', 'out_of_view')  # is the sacrum in the field of view?
DICE_KEYS = ('generic', 'self', 'oracle', 'overlap', 'follow', 'resist')
COSTS = {  # key -> (from this, take away that)
    'shuffle_cost': ('oracle', 'shuffled'),
    'cut_cost': ('oracle', 'cut'),
    'cut_cost_named': ('oracle_named', 'cut_named'),
}
KEYS = (*DICE_KEYS[:4], 'gap_closed', *DICE_KEYS[4:], *COSTS)
DRAWS = 2000


# --- Dice of one volume


def at_stake(scheme) -> list:  # of names
    "The structures whose name is at stake"
    return [n for n in scheme.names if scheme.anatomy[n].kind in LEVEL_KINDS]


def dice_row(
    pred: np.ndarray,  # (s, h, w) channels
    truth: np.ndarray,  # (s, h, w) channels
    scheme,
    names=None,  # structures that count; None: all
) -> np.ndarray:  # (k,) for `at_stake`, NaN where a structure is in neither or does not count
    "Dice by exact level; a missed or invented structure counts 0"
    n = scheme.channels
    both = np.bincount(truth[pred == truth].ravel(), minlength=n)
    total = np.bincount(pred.ravel(), minlength=n) + np.bincount(truth.ravel(), minlength=n)
    levels = at_stake(scheme)
    channels = [scheme.channel(name) for name in levels]
    counts = np.array([names is None or name in names for name in levels])
    shares = 2 * both[channels] / np.maximum(total[channels], 1)
    return np.where(counts & (total[channels] > 0), shares, np.nan)


# --- lists


def moved_list(names, anatomy, rng) -> tuple:  # names, step; ((), 0) if no list stays in the table
    "The list one level up (-1) or down (+1), at random where both are possible"
    levels = [n for n in names if anatomy[n].kind in LEVEL_KINDS]
    steps = []
    for by in (-1, 1):
        stay = len(shift_levels(levels, by, anatomy)) == len(levels)
        past_sacrum = by > 0 and any(anatomy[n].kind == 'sacrum' for n in names)
        if levels and stay and not past_sacrum:
            steps.append(by)
    if not steps:
        return (), 0
    by = int(rng.choice(steps))
    return shift_levels(names, by, anatomy), by


def cut_list(names, anatomy) -> tuple:  # names; () if a single body is left
    "The list from its second body on"
    bodies = [n for n in anatomy.order(names) if anatomy[n].kind in ('vertebra', 'sacrum')]
    if len(bodies) < 2:
        return ()
    ordered = anatomy.order(names)
    return ordered[ordered.index(bodies[1]) :]


# --- predictions of one volume


@dataclass
class Case:
    "A volume of the cache"

    images: np.ndarray  # (s, h, w), or `Slices`
    truth: np.ndarray  # (s, h, w) channels of the network's scheme
    annotated: tuple | None  # names; None: all
    complete: bool  # does the truth label all that the network knows?


@dataclass
class Found:
    "What was found in a volume: Dice of each structure at stake, by what the network was told"

    patient: str
    sacrum: bool  # is it in the field of view?
    dice: dict = field(default_factory=dict)  # name -> (k,), absent where there is no such list


def load_case(predictor, cache, case: str) -> Case:
    "Images and truth as the network knows them"
    annotated = cache.row(case)['annotated']
    knows = set(predictor.scheme.names)
    complete = annotated is None and knows <= set(cache.file_scheme.names)
    labels = np.asarray(cache.labels(case))
    truth = convert(labels, cache.scheme, predictor.scheme)[0]
    images = predictor.shared(np.asarray(cache.image(case), np.float32))
    return Case(images, truth, annotated, complete)


def of_list(predictor, case: Case, names) -> list:  # one `Prompt` per slice
    "The prompts of a list of the volume, as `oracle-levels` makes them"
    n = len(case.images)
    said = volume_prompts(
        names, n, predictor.scheme, predictor.option, case.complete, 'oracle-levels'
    )
    return own_part(predictor, case.images, said)


def scored(predictor, case: Case, prompts, by: int = 0, names=None) -> np.ndarray:
    "Dice under some prompts, against the truth that is moved `by` levels"
    scheme = predictor.scheme
    labels = predictor.grid_labels(case.images, prompts)
    pred, truth = exclude(labels, case.truth, scheme, case.annotated)
    counted = case.annotated
    if by and counted is not None:
        counted = shift_levels(counted, by, scheme.anatomy)
    if names is not None:
        counted = set(names) & set(scheme.names if counted is None else counted)
    return dice_row(pred, move_labels(truth, scheme, by), scheme, counted)


def score_plain(predictor, case: Case) -> dict:  # key -> (k,)
    "Without a list: generic, self, and what overlap would name"
    scheme = predictor.scheme
    generic = protocol_prompts('generic', len(case.images), scheme)
    labels = predictor.grid_labels(case.images, generic)
    named = relabel_matched(labels, case.truth, scheme, case.annotated)[0]
    pred, truth = exclude(named, case.truth, scheme, case.annotated)
    own = predictor.words_for(case.images, 'self')[0]
    return {
        'generic': scored(predictor, case, generic),
        'self': scored(predictor, case, own),
        'overlap': dice_row(pred, truth, scheme, case.annotated),
    }


def score_lists(predictor, case: Case, rng) -> dict:  # key -> (k,)
    "Under the true list, and what is made from it"
    anatomy = predictor.anatomy
    names = anatomy.order(present_structures(case.truth, predictor.scheme))
    true = of_list(predictor, case, names)
    out = {'oracle': scored(predictor, case, true)}
    order = [n for n in names if anatomy[n].kind != 'canal']
    rng.shuffle(order)
    mixed = [reordered(prompt, order, anatomy) for prompt in true]
    out['shuffled'] = scored(predictor, case, mixed)
    if rest := cut_list(names, anatomy):
        cut = of_list(predictor, case, rest)
        out['cut'] = scored(predictor, case, cut)
        out['cut_named'] = scored(predictor, case, cut, names=rest)
        out['oracle_named'] = scored(predictor, case, true, names=rest)
    moved, by = moved_list(names, anatomy, rng)
    if by:
        off = of_list(predictor, case, moved)
        out['follow'] = scored(predictor, case, off, by)
        out['resist'] = scored(predictor, case, off)
    return out


def check(predictor, cache):
    "Can this network be asked, on this cache? Raises `InputError`"
    if not predictor.has_text:
        raise InputError('this network has no text: there is nothing to follow')
    sacrum = predictor.anatomy.of_kind('sacrum')
    if not sacrum or sacrum[0] not in cache.scheme.names:
        raise InputError(f'{cache.path}: does not label the sacrum, which halves its volumes')
    if predictor.grid != cache.grid:
        raise InputError(f'{cache.path}: holds {cache.grid}, the network sees {predictor.grid}')


def measure_case(predictor, cache, name: str, weights, seed: int) -> dict:  # weight -> `Found`
    "One volume of the cache"
    case = load_case(predictor, cache, name)
    sacrum = predictor.anatomy.of_kind('sacrum')[0]
    seen = bool((case.truth == predictor.scheme.channel(sacrum)).any())
    out = {}
    for weight in weights:
        predictor.guidance = weight
        rng = np.random.default_rng((seed, cache.cases(None).index(name)))
        dice = score_plain(predictor, case) | score_lists(predictor, case, rng)
        out[weight] = Found(cache.row(name)['patient'], seen, dice)
    return out


def measure(predictor, cache, weights=(1.0,), seed: int = 0) -> dict:  # weight -> `Found`s
    "Every volume of the cache; raises `InputError`"
    check(predictor, cache)
    out = {weight: [] for weight in weights}
    for name in progress(cache.cases(None), 'words followed'):
        for weight, found in measure_case(predictor, cache, name, weights, seed).items():
            out[weight].append(found)
    return out


# --- over volumes


def tables(found: list, *keys) -> list:  # a dict patient -> (volumes, k) for each key
    "Dice of the volumes that have all of these keys"
    out = [{} for _ in keys]
    for f in found:
        if all(key in f.dice for key in keys):
            for table, key in zip(out, keys):
                table.setdefault(f.patient, []).append(f.dice[key])
    return [{p: np.array(rows) for p, rows in table.items()} for table in out]


def empty() -> dict:
    return {'mean': None, 'low': None, 'high': None, 'n': 0}


def combined(by: list, how, seed: int) -> dict:  # mean, low, high, n: patients
    "A figure made from several mean Dice: `how(*headlines)`, with its interval over patients"
    if not by[0]:
        return empty()
    n = len(by[0])
    sums = [patient_sums(table.values()) for table in by]
    everyone = np.ones((1, n), int)
    mean = float(how(*(drawn_headlines(s, everyone) for s in sums))[0])
    if not np.isfinite(mean):
        return empty() | {'n': n}
    out = {'mean': mean, 'low': None, 'high': None, 'n': n}
    if n > 1:
        weights = draw_patients(n, DRAWS, seed)
        drawn = how(*(drawn_headlines(s, weights) for s in sums))
        out |= interval(mean, drawn[np.isfinite(drawn)])
    return out


def gap_share(oracle, generic, overlap):
    "What the true list closes of the gap; NaN where there is none"
    gap = overlap - generic
    return np.divide(oracle - generic, gap, out=np.full(gap.shape, np.nan), where=gap > 0)


def cost(a, b):
    return a - b


def in_points(ci: dict) -> dict:
    "Shares in points; counts stay"
    return {k: 100 * v if k != 'n' and v is not None else v for k, v in ci.items()}


def half_figures(found: list, seed: int) -> dict:  # key -> mean, low, high, n
    "All figures of some volumes"
    out = {}
    for key in DICE_KEYS:
        (by,) = tables(found, key)
        out[key] = in_points(bootstrap_ci(by, seed, DRAWS)) if by else empty()
    gap = tables(found, 'oracle', 'generic', 'overlap')
    out['gap_closed'] = combined(gap, gap_share, seed)
    for key, pair in COSTS.items():
        out[key] = in_points(combined(tables(found, *pair), cost, seed))
    return out


def figures(found: list, seed: int = 0) -> dict:  # key -> half -> mean, low, high, n: patients
    "All figures of the two halves"
    halves = {
        'in_view': half_figures([f for f in found if f.sacrum], seed),
        'out_of_view': half_figures([f for f in found if not f.sacrum], seed),
    }
    return {key: {half: halves[half][key] for half in HALVES} for key in KEYS}


# --- the command


def figure_text(ci: dict, digits: int) -> str:
    if ci['mean'] is None:
        return '–'
    text = f'{ci["mean"]:.{digits}f}'
    if ci['low'] is not None:
        text += f' [{ci["low"]:.{digits}f}, {ci["high"]:.{digits}f}]'
    return text


def markdown(result: dict) -> str:
    "The figures as a table"
    rows = []
    for key in KEYS:
        digits = 2 if key == 'gap_closed' else 1
        rows.append([key, *(figure_text(result[key][half], digits) for half in HALVES)])
    counts = ', '.join(f'{half}: {result["volumes"][half]}' for half in HALVES)
    head = f'{result["weights"]}, guidance {result["guidance"]:g}; volumes {counts}\n\n'
    return head + table_md(rows, ('', *HALVES))


def side_by_side(results: list, keys=KEYS) -> str:
    "Means of several weights of the prompt, a column each"
    rows = []
    for half in HALVES:
        for key in keys:
            digits = 2 if key == 'gap_closed' else 1
            means = [r[key][half]['mean'] for r in results]
            cells = ['–' if mean is None else f'{mean:.{digits}f}' for mean in means]
            rows.append([half, key, *cells])
    return table_md(rows, ('', '', *(f'w {r["guidance"]:g}' for r in results)))


def result_of(found: list, weights: str, guidance: float, seed: int = 0) -> dict:
    "What `--json` prints of one weight of the prompt"
    seen = sum(f.sacrum for f in found)
    head = {
        'weights': weights,
        'guidance': guidance,
        'seed': seed,
        'volumes': {'in_view': seen, 'out_of_view': len(found) - seen},
    }
    return head | figures(found, seed)


def parser_of(about: str):  # about: what the script does
    "The options of a benchmark that tries weights on a cache"
    a = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a.add_argument('cache', help='folder of atm_prepare')
    a.add_argument('--weights', help='name, file or run (default: the weights that ship)')
    a.add_argument('--json', action='store_true', help='figures as JSON')
    return a


def arguments():
    a = parser_of(__doc__)
    a.add_argument('--guidance', default='1', help='weight of the prompt, or several with commas')
    a.add_argument('--seed', type=int, default=0, help='of orders, steps and draws')
    return a.parse_args()


def main():
    from atm_net.data import Cache
    from atm_net.predict import check_guidance, load_predictor

    args = arguments()
    name = args.weights or 'atm_net_tiny'
    try:
        guidance = [float(w) for w in args.guidance.split(',')]
        predictor = load_predictor(args.weights)
        for weight in guidance:
            check_guidance(weight, predictor.has_text)
        found = measure(predictor, Cache(args.cache), guidance, args.seed)
    except (InputError, ValueError) as e:
        print(f'words_followed: {e}', file=sys.stderr)
        sys.exit(2)
    results = [result_of(each, name, weight, args.seed) for weight, each in found.items()]
    if args.json:
        print(json.dumps(results[0] if len(results) == 1 else results, indent=1))
    else:
        print(markdown(results[0]) if len(results) == 1 else side_by_side(results))


if __name__ == '__main__':
    main()
