"""What a list that a person types is worth, at several weights of the prompt, pixel by pixel.

    atm_prepare real_t1ffe cache --annotated real_t1ffe/cases.csv
    python benchmarks/typed_list.py cache --guidance 0,1,2,4,8,24 [--prompt TEXT] [--json]

Mean Dice by exact level over the vertebrae and discs that the cache annotates, in points, with its
interval over patients; and how many volumes are named a level off. All parts of the cache are
scored. Volumes that are off under the generic prompt (weight 0), and those that are right there,
have a line each: a typed list has something to mend only in the former."""

import json
import os
import sys

os.environ.setdefault('HF_HUB_OFFLINE', '1')

import numpy as np
from words_followed import DRAWS, dice_row, figure_text, in_points, load_case, parser_of

from atm_net.cli import progress
from atm_net.core import InputError
from atm_net.metrics import bootstrap_ci, exclude, level_shift
from atm_net.show import table_md

GROUPS = ('all', 'off', 'right')


def scored_volume(predictor, case, prompts) -> dict:  # dice: (k,); off: by a level or more?
    "One volume under some prompts"
    scheme = predictor.scheme
    labels = predictor.grid_labels(case.images, prompts)
    pred, truth = exclude(labels, case.truth, scheme, case.annotated)
    off = level_shift(labels, case.truth, scheme, case.annotated)
    is_off = off['shifted']
    if is_off is None:  # no vertebra is annotated: go by what any level is worth
        is_off = bool(np.nanmean(dice_row(pred, truth, scheme, case.annotated)) < 0.2)
    return {'dice': dice_row(pred, truth, scheme, case.annotated), 'off': is_off}


def measure(predictor, cache, prompt: str, weights) -> dict:  # case -> weight -> scores
    "Every volume of the cache; weight 0 is the generic prompt"
    out = {}
    for name in progress(cache.cases(None), 'typed list'):
        case = load_case(predictor, cache, name)
        out[name] = {'patient': cache.row(name)['patient']}
        for weight in dict.fromkeys((0.0, *weights)):
            predictor.guidance = weight
            prompts = predictor.words_for(case.images, 'user', prompt=prompt)[0]
            out[name][weight] = scored_volume(predictor, case, prompts)
    return out


def group(volumes: dict, name: str) -> list:
    "All volumes, or those that the generic prompt gets wrong or right"
    each = list(volumes.values())
    if name == 'all':
        return each
    return [v for v in each if v[0.0]['off'] == (name == 'off')]


def figures(volumes: dict, weights, seed: int = 0) -> dict:  # group -> weight -> Dice, off
    "Mean Dice and volumes off, by group and weight"
    out = {}
    for name in GROUPS:
        chosen = group(volumes, name)
        out[name] = {}
        for weight in weights:
            by = {}
            for v in chosen:
                by.setdefault(v['patient'], []).append(v[weight]['dice'])
            tables = {p: np.array(rows) for p, rows in by.items()}
            ci = in_points(bootstrap_ci(tables, seed, DRAWS)) if tables else None
            off = sum(v[weight]['off'] for v in chosen)
            out[name][f'{weight:g}'] = {'dice': ci, 'off': off, 'volumes': len(chosen)}
    return out


def markdown(found: dict) -> str:
    "A line for each group"
    weights = list(found['all'])
    rows = []
    for name, by_weight in found.items():
        cells = []
        for f in by_weight.values():
            dice = figure_text(f['dice'], 1) if f['dice'] else '–'
            cells.append(f'{dice}, {f["off"]} off')
        rows.append([f'{name}: {by_weight[weights[0]]["volumes"]}', *cells])
    return table_md(rows, ('volumes', *(f'w {w}' for w in weights)))


def arguments():
    a = parser_of(__doc__)
    a.add_argument('--prompt', default='I see T12 to S.', help='what a person types')
    a.add_argument('--guidance', default='0,1,2,4,8,24', help='weights, with commas')
    return a.parse_args()


def main():
    from atm_net.data import Cache
    from atm_net.predict import check_guidance, load_predictor

    args = arguments()
    try:
        weights = [float(w) for w in args.guidance.split(',')]
        predictor = load_predictor(args.weights)
        for weight in weights:
            check_guidance(weight, predictor.has_text)
        volumes = measure(predictor, Cache(args.cache), args.prompt, weights)
    except (InputError, ValueError) as e:
        print(f'typed_list: {e}', file=sys.stderr)
        sys.exit(2)
    found = figures(volumes, weights)
    print(json.dumps(found, indent=1) if args.json else markdown(found))


if __name__ == '__main__':
    main()
