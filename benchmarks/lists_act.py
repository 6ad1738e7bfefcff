"""Which training makes a network act on its prompt? Recipes side by side, several seeds of each.

    atm_phantom train --view 160 --patients 200 --seed 4100 && atm_prepare train train_cache
    atm_phantom near --view 160 --patients 40 --seed 4712 && atm_prepare near near_cache
    python benchmarks/lists_act.py train_cache near_cache out --seeds 0,1,2 --steps 1500 [--json]
    python benchmarks/lists_act.py --table out

A recipe is what it changes in preset `tiny` on a small SegResNet; all train the
same steps on the same windows. What is scored, and how, is told by `words_followed.py --help`: Dice
pixel by pixel under no list, the true list, a list one level off and lists that are cut, with the
sacrum in the field of view and without. Intervals draw seeds as well as patients. Two recipes are
controls: the list as bits through FiLM, and an encoder that was never trained. Resumable:
OUT/scores.json holds what is finished, and is all that `--table` needs."""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')

import numpy as np
from encoders import CLINICAL_BERT, random_bert
from words_followed import (
    COSTS,
    DICE_KEYS,
    DRAWS,
    HALVES,
    KEYS,
    Found,
    combined,
    cost,
    figure_text,
    gap_share,
    in_points,
    load_case,
    measure,
    scored,
    tables,
)

from atm_net.cli import progress
from atm_net.core import InputError, read_json, write_json, write_text
from atm_net.metrics import draw_patients, drawn_headlines, interval, patient_sums
from atm_net.show import table_md

BASE = dict(
    backbone='segresnet',
    swin='v1',
    feature_size=8,
    w_generic=0.5,
    ccae=False,
    alpha=0.1,
    gain=1.0,
    batch=4,
    windows=(96,),
    val_cases=2,
)
MOVED = dict(p_moved=0.5, p_wrong=0.0)
CUT = dict(p_cut=0.3, p_incomplete=0.1, p_wrong=0.0, code='ends')
RANDOM = 'random_bert'  # in OUT: the shape of Bio-ClinicalBERT, never trained
FILM = dict(encoder='atm_net.level_bits:LevelBits', fusion='film', code='2d')
RECIPES = {  # name -> fields of `Config` beside `BASE`
    'plain': dict(network='segresnet', hasf=False, backbone='swin_unetr'),
    'HASF': {},
    'HASF, CCAE projected': dict(ccae=True, contrast='projected', lambda_2=0.2),
    'HASF, CCAE pixels': dict(ccae=True, contrast='pixels', lambda_2=0.2),
    'counterfactual levels': MOVED,
    'counterfactual levels, CCAE projected': MOVED
    | dict(ccae=True, contrast='projected', lambda_2=0.2),
    'lists cut, counted from both ends': CUT,
    'counterfactual levels, lists cut, both ends': MOVED | CUT,
    'counterfactual levels, words by FiLM': MOVED | dict(fusion='film', code='2d'),
    'counterfactual levels, bits by FiLM': MOVED | FILM,
    'counterfactual levels, random BERT': MOVED | dict(encoder=RANDOM),
}


# --- training and scoring


def config_of(name: str, seed: int, steps: int, out: Path = Path()):
    "The configuration of a recipe"
    from atm_net.study_grid import Row, study_config

    fields = BASE | RECIPES[name]
    if fields.get('encoder') == RANDOM:
        fields |= dict(encoder=random_bert(out / RANDOM, CLINICAL_BERT))
    return study_config(Row(name, fields), 'tiny', seed, steps=steps)


def measure_plain(predictor, cache) -> list:  # of `Found`
    "A network without text: its Dice alone"
    sacrum = predictor.scheme.channel(predictor.anatomy.of_kind('sacrum')[0])
    out = []
    for name in progress(cache.cases(None), 'plain'):
        case = load_case(predictor, cache, name)
        prompts = predictor.words_for(case.images, 'none')[0]
        seen = bool((case.truth == sacrum).any())
        dice = {'generic': scored(predictor, case, prompts)}
        out.append(Found(cache.row(name)['patient'], seen, dice))
    return out


def trained(name: str, seed: int, args, train_cache, near_cache) -> list:  # of dicts
    "Train a recipe with a seed, and what `words_followed` finds in it"
    from atm_net.predict import load_predictor
    from atm_net.study_grid import Run, run_name
    from atm_net.study_runs import train_run

    cfg = config_of(name, seed, args.steps, args.out)
    run = Run(run_name(cfg), cfg, ())
    folder = args.out / 'runs' / run.name
    print(f'{name}, seed {seed}: {folder}', file=sys.stderr)
    train_run(run, folder, train_cache, 'cpu')
    predictor = load_predictor(folder)
    if not predictor.has_text:
        found = measure_plain(predictor, near_cache)
    else:
        found = measure(predictor, near_cache)[1.0]
    return [as_json(f) for f in found]


def as_json(found: Found) -> dict:
    "Dice in ten thousandths, None where a structure is nowhere"
    dice = {}
    for key, row in found.dice.items():
        dice[key] = [None if np.isnan(v) else round(float(v), 4) for v in row]
    return dict(patient=found.patient, sacrum=found.sacrum, dice=dice)


def from_json(d: dict) -> Found:
    dice = {key: np.array(row, float) for key, row in d['dice'].items()}
    return Found(d['patient'], d['sacrum'], dice)


# --- figures over seeds and patients


def drawn_figure(by_seed: list, keys, how, seed: int = 0) -> dict:  # mean, low, high, n; seeds
    "A figure made of several mean Dice: mean over seeds, interval over seeds and patients"
    each = [tables(found, *keys) for found in by_seed]
    means = [combined(by, how, seed)['mean'] if by[0] else None for by in each]
    each = [by for by, mean in zip(each, means) if mean is not None]
    if not each:  # a share of a gap, say, where there is none
        return dict(mean=None, low=None, high=None, n=0, seeds=[])
    means = [mean for mean in means if mean is not None]
    mean = float(np.mean(means))
    patients = list(each[0][0])
    weights = draw_patients(len(patients), DRAWS, seed)
    drawn = []
    for by in each:
        sums = [patient_sums([table[p] for p in patients]) for table in by]
        drawn.append(how(*(drawn_headlines(s, weights) for s in sums)))
    drawn = np.array(drawn)  # (seeds, draws)
    chosen = np.random.default_rng(seed).integers(0, len(drawn), drawn.shape)
    over_both = np.take_along_axis(drawn, chosen, 0).mean(0)
    ends = interval(mean, over_both[np.isfinite(over_both)])
    return dict(mean=mean) | ends | dict(n=len(patients), seeds=means)


def itself(a):
    return a


def half_figures(by_seed: list) -> dict:  # key -> mean, low, high, n, seeds
    "All figures of a recipe in one half"
    out = {key: points(drawn_figure(by_seed, (key,), itself)) for key in DICE_KEYS}
    out['gap_closed'] = drawn_figure(by_seed, ('oracle', 'generic', 'overlap'), gap_share)
    for key, pair in COSTS.items():
        out[key] = points(drawn_figure(by_seed, pair, cost))
    return out


def points(figure: dict) -> dict:
    "Shares in points"
    seeds = [100 * v for v in figure['seeds']]
    rest = {k: v for k, v in figure.items() if k != 'seeds'}
    return in_points(rest) | dict(seeds=seeds)


def figures(runs: dict) -> dict:  # recipe -> half -> key -> mean, low, high, n, seeds
    "All figures of what is finished: {recipe: {seed: [found, ...]}}"
    out = {}
    for name, by_seed in runs.items():
        found = [[from_json(d) for d in volumes] for volumes in by_seed.values()]
        out[name] = {}
        for half in HALVES:
            cut = [[f for f in one if f.sacrum == (half == 'in_view')] for one in found]
            out[name][half] = half_figures(cut)
    return out


def cell(figure: dict, digits: int) -> str:
    "Mean with its interval, and seed by seed"
    text = figure_text(figure, digits)
    if len(figure['seeds']) > 1:
        text += f' ({", ".join(f"{v:.{digits}f}" for v in figure["seeds"])})'
    return text


SHORT = ('generic', 'oracle', 'follow', 'resist', 'shuffle_cost', 'cut_cost_named')


def short_table(result: dict, half: str) -> str:
    "What acts in one half of the volumes, without the seeds"
    rows = []
    for name, by_half in figures(result['runs']).items():
        cells = [figure_text(by_half[half][key], 1) for key in SHORT]
        rows.append([name, len(result['runs'][name]), *cells])
    return table_md(rows, ('recipe', 'seeds', *SHORT))


def markdown(result: dict) -> str:
    "The figures as two tables"
    lines = [f'{result["steps"]} steps; mean, interval over seeds and patients, seed by seed', '']
    for half in HALVES:
        rows = []
        for name, by_half in figures(result['runs']).items():
            cells = [cell(by_half[half][k], 2 if k == 'gap_closed' else 1) for k in KEYS]
            rows.append([name, ', '.join(result['runs'][name]), *cells])
        lines += [f'### {half}', '', table_md(rows, ('recipe', 'seeds', *KEYS)), '']
    return '\n'.join(lines)


# --- the command


def arguments():
    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folders = 'TRAIN NEAR OUT: caches to train on and to score on, folder to write; OUT: --table'
    a.add_argument('folders', nargs='+', type=Path, help=folders)
    a.add_argument('--recipes', default=';'.join(RECIPES), help='with semicolons (default: all)')
    a.add_argument('--seeds', default='0,1,2', help='with commas')
    a.add_argument('--steps', type=int, default=1500)
    a.add_argument('--table', action='store_true', help='train nothing, show what is finished')
    a.add_argument('--short', action='store_true', help='fewer figures, for a page')
    a.add_argument('--json', action='store_true', help='figures as JSON')
    args = a.parse_args()
    args.names = [name.strip() for name in args.recipes.split(';')]
    args.seeds = [int(s) for s in args.seeds.split(',')]
    args.out = args.folders[-1]
    unknown = [name for name in args.names if name not in RECIPES]
    if unknown:
        a.error(f'unknown recipe {unknown[0]!r}; known: {"; ".join(RECIPES)}')
    if len(args.folders) != (1 if args.table else 3):
        a.error('give TRAIN NEAR OUT, or OUT alone with --table')
    if args.table and not (args.out / 'scores.json').is_file():
        a.error(f'{args.out / "scores.json"}: nothing is finished there')
    return args


def begun(args, train_cache, near_cache) -> dict:
    "What OUT/scores.json holds, or its beginning; raises `InputError` for other caches or steps"
    from atm_net.run_folder import cache_hash

    head = dict(steps=args.steps, train=cache_hash(train_cache), near=cache_hash(near_cache))
    file = args.out / 'scores.json'
    found = read_json(file) if file.is_file() else head | dict(runs={})
    other = [k for k in head if found[k] != head[k]]
    if other:
        raise InputError(f'{file}: of other {other[0]}: choose another folder')
    return found


def train_all(args) -> dict:
    "Every recipe with every seed, seed by seed, as far as it is not finished"
    from atm_net.data import Cache

    train_cache, near_cache = (Cache(folder) for folder in args.folders[:2])
    result = begun(args, train_cache, near_cache)
    for seed in args.seeds:
        for name in args.names:
            by_seed = result['runs'].setdefault(name, {})
            if str(seed) not in by_seed:
                by_seed[str(seed)] = trained(name, seed, args, train_cache, near_cache)
                write_json(args.out / 'scores.json', result)
                write_text(args.out / 'table.md', markdown(result))
    return result


def main():
    args = arguments()
    try:
        result = read_json(args.out / 'scores.json') if args.table else train_all(args)
    except InputError as e:
        print(f'lists_act: {e}', file=sys.stderr)
        sys.exit(2)
    if args.json:
        print(json.dumps(figures(result['runs']), indent=1))
    elif args.short:
        print('\n\n'.join(short_table(result, half) for half in HALVES))
    else:
        print(markdown(result))


if __name__ == '__main__':
    main()
