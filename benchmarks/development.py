"""Score weights on the development sets of real scans, the ones that may be looked at often.

    for NAME in real_lumbar, real_t1ffe, real_discs:
    atm_prepare SETS/NAME caches/NAME --annotated SETS/NAME/cases.csv --labels joint --split test
    python benchmarks/development.py caches --slices SETS/spider_slices --weights A,B [--json]

No set is part of the kit, and nothing trains on one. For each cache in the folder, mean Dice in
points over what it annotates:

exact, any
    generic prompt, each level of a volume named once: by exact level; of all vertebrae together
off
    volumes that are named a level off, of all
volume
    voxels of all vertebrae, predicted over true, the mean of the volumes
pixel, pixel off
    generic prompt, pixel by pixel: Dice by exact level, volumes a level off
typed, typed off
    the same under a list that a person types (--prompt)
mended
    of the volumes that are off pixel by pixel: how many the list puts right
complete, complete off, mended complete
    the same three where the list claims to be all that is visible; a typed one says 'at least'

Slices come with a table `slices.csv` (file, row_mm, column_mm, vertebrae, discs). Each is stacked
three times at 4 mm, and a structure counts from 60 mm² in the middle one. *discs right*: as many
discs as the table says; *sacrum*: it was found."""

import argparse
import csv
import json
import os
import sys
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')

import numpy as np
from words_followed import dice_row, load_case

from atm_net.cli import progress
from atm_net.column import ColumnLabeler
from atm_net.core import InputError
from atm_net.metrics import dice, exclude, level_shift
from atm_net.prompts import holistic
from atm_net.protocols import own_part, protocol_prompts
from atm_net.show import table_md

COUNTED_MM2 = 60  # area from which a structure of a slice counts
STACK, GAP = 3, 4.0  # copies of a slice, mm apart
MEASURED = ('exact', 'any', 'off', 'volume', 'pixel', 'pixel off')
MEASURED += ('typed', 'typed off', 'complete', 'complete off')
SET_KEYS = (*MEASURED[:8], 'mended', *MEASURED[8:], 'mended complete')


def off_by_a_level(labels, case, scheme) -> bool:
    "Is most of the column named a level off? Where no vertebra is annotated: is hardly any right?"
    shifted = level_shift(labels, case.truth, scheme, case.annotated)['shifted']
    if shifted is None:
        pred, truth = exclude(labels, case.truth, scheme, case.annotated)
        return bool(np.nanmean(dice_row(pred, truth, scheme, case.annotated)) < 0.2)
    return bool(shifted)


def exact_dice(labels, case, scheme) -> float:
    pred, truth = exclude(labels, case.truth, scheme, case.annotated)
    return float(np.nanmean(dice_row(pred, truth, scheme, case.annotated)))


def vertebrae(labels, case, scheme) -> tuple:  # predicted, true: (s, h, w) bool
    "Voxels of any vertebra, where the case annotates some"
    channels = [scheme.channel(n) for n in scheme.of_kind('vertebra')]
    pred, truth = (np.isin(x, channels) for x in (labels, case.truth))
    inside = np.zeros_like(truth)
    for k, rows in enumerate(truth.any(2)):
        found = np.flatnonzero(rows)
        if len(found):  # nothing is said above the uppermost and below the lowest true body
            inside[k, found[0] : found[-1] + 1] = True
    return pred & inside, truth


def complete_list(predictor, case, prompt: str) -> list:  # one `Prompt` per slice
    "What a person typed, as a list that claims to be all that is visible"
    n, option = len(case.images), predictor.option
    typed = protocol_prompts('user', n, predictor.scheme, option, prompt=prompt)
    anatomy = predictor.anatomy
    said = [holistic(p.structures, anatomy, option, p.position, True, 'user') for p in typed]
    return own_part(predictor, case.images, said)


def volume_figures(predictor, cache, name: str, prompt: str) -> dict:
    "One volume under no list and under a typed one"
    case, scheme = load_case(predictor, cache, name), predictor.scheme
    generic = predictor.words_for(case.images, 'generic')[0]
    typed = predictor.words_for(case.images, 'user', prompt=prompt)[0]
    claimed = predictor.grid_labels(case.images, complete_list(predictor, case, prompt))
    spacing = tuple(cache.meta(name)['grid_spacing'])
    named = predictor.grid_labels(case.images, generic, ColumnLabeler(scheme, spacing))
    pixels = predictor.grid_labels(case.images, generic)
    listed = predictor.grid_labels(case.images, typed)
    pred, truth = vertebrae(named, case, scheme)
    return {
        'exact': exact_dice(named, case, scheme),
        'any': dice(pred, truth) if truth.any() else float('nan'),
        'off': off_by_a_level(named, case, scheme),
        'volume': pred.sum() / truth.sum() if truth.any() else float('nan'),
        'pixel': exact_dice(pixels, case, scheme),
        'pixel off': off_by_a_level(pixels, case, scheme),
        'typed': exact_dice(listed, case, scheme),
        'typed off': off_by_a_level(listed, case, scheme),
        'complete': exact_dice(claimed, case, scheme),
        'complete off': off_by_a_level(claimed, case, scheme),
    }


def set_figures(volumes: list) -> dict:
    "Means in points, counts as they are"
    out = {'volumes': len(volumes)}
    for key in MEASURED:
        values = np.array([float(v[key]) for v in volumes])
        if 'off' in key:
            out[key] = int(values.sum())
        elif np.isnan(values).all():
            out[key] = None
        else:
            out[key] = float(np.nanmean(values) * (1 if key == 'volume' else 100))
    off = [v for v in volumes if v['pixel off']]
    out['mended'] = sum(not v['typed off'] for v in off)
    out['mended complete'] = sum(not v['complete off'] for v in off)
    return out


def slice_counts(predictor, path: Path, row: dict) -> tuple:  # discs found; was the sacrum?
    "What is found in a slice"
    from PIL import Image

    from atm_net.geometry import new_geometry, new_volume

    pixels = np.asarray(Image.open(path).convert('F'))
    stack = np.stack([pixels] * STACK)
    spacing = (GAP, float(row['row_mm']), float(row['column_mm']))
    volume = new_volume(stack, new_geometry(stack.shape, spacing))
    labels = predictor.predict(volume, 'generic', one_name_per_level=False).labels
    scheme = predictor.scheme
    labels = scheme.encode(labels)[STACK // 2]
    area = np.bincount(labels.ravel(), minlength=scheme.channels) * spacing[1] * spacing[2]
    seen = [n for n in scheme.names if area[scheme.channel(n)] >= COUNTED_MM2]
    kinds = [scheme.anatomy[n].kind for n in seen]
    return kinds.count('disc'), 'sacrum' in kinds


def slices_figures(predictor, folder: Path) -> dict:
    "Over all slices of a table"
    rows = list(csv.DictReader((folder / 'slices.csv').open(encoding='utf-8')))
    right = found = 0
    for row in progress(rows, 'slices'):
        discs, sacrum = slice_counts(predictor, folder / row['file'], row)
        right += discs == int(row['discs'])
        found += sacrum
    return {'slices': len(rows), 'discs right': right, 'sacrum': found}


def measure(weights: str, caches: Path, slices: Path | None, prompt: str) -> dict:
    "All sets with one file of weights"
    from atm_net.data import Cache
    from atm_net.predict import load_predictor

    predictor = load_predictor(weights)
    out = {}
    for folder in sorted(p.parent for p in caches.glob('*/manifest.json')):
        cache = Cache(folder)
        names = progress(cache.cases(None), folder.name)
        volumes = [volume_figures(predictor, cache, name, prompt) for name in names]
        out[folder.name] = set_figures(volumes)
    if slices:
        out[slices.name] = slices_figures(predictor, slices)
    return out


def shown(value) -> str:
    if value is None:
        return '–'
    return f'{value:.2f}' if isinstance(value, float) and value < 5 else f'{value:.1f}'


def markdown(results: dict) -> str:
    "A line for each file of weights and set"
    rows, counts = [], []
    for weights, sets in results.items():
        for name, f in sets.items():
            if 'slices' in f:
                counts.append([weights, f['discs right'], f['sacrum'], f['slices']])
                continue
            cells = [str(f[k]) if isinstance(f[k], int) else shown(f[k]) for k in SET_KEYS]
            rows.append([weights, f'{name}: {f["volumes"]}', *cells])
    out = table_md(rows, ('weights', 'set', *SET_KEYS))
    if counts:
        out += '\n\n' + table_md(counts, ('weights', 'discs right', 'sacrum', 'slices'))
    return out


def arguments():
    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a.add_argument('caches', type=Path, help='folder of folders of atm_prepare')
    a.add_argument('--slices', type=Path, help='folder with slices.csv and its pictures')
    a.add_argument('--weights', default='atm_net_tiny', help='names, files or runs, with commas')
    a.add_argument('--prompt', default='I see T12 to S.', help='what a person types')
    a.add_argument('--json', action='store_true', help='figures as JSON')
    return a.parse_args()


def main():
    args = arguments()
    try:
        names = [w.strip() for w in args.weights.split(',')]
        found = {w: measure(w, args.caches, args.slices, args.prompt) for w in names}
    except (InputError, OSError) as e:
        print(f'development: {e}', file=sys.stderr)
        sys.exit(2)
    print(json.dumps(found, indent=1) if args.json else markdown(found))


if __name__ == '__main__':
    main()
