"""Is the text used? Trains recipes side by side and scores them in a narrow field of view, with and without the sacrum in it.

    atm_phantom full --patients 300 --seed 2026 && atm_prepare full full_cache
    atm_phantom near --view 160 --patients 40 --seed 79 && atm_prepare near near_cache
    python benchmarks/text_used.py full_cache near_cache out --recipes 'plain;tiny' --seeds 0,1,2 --steps 2000

    python benchmarks/text_used.py --table results/text_used

    python benchmarks/text_used.py near_cache out --weights atm_net_tiny

The last trains nothing and scores weights, by name, file or run, in the same two halves. A recipe is what it changes in preset `tiny`; all train the same number of steps. Resumable. OUT/scores.json holds what is finished, Dice by volume and structure, and is all that `--table` needs; OUT/table.md says it."""

import argparse
import json
import os
import sys

os.environ.setdefault('HF_HUB_OFFLINE', '1')
from dataclasses import asdict
from pathlib import Path

ONE = dict(
    text_decoder=False
)  # both readings by one decoder, without words with three times the weight
ONCE = ONE | dict(paired=False, p_generic=0.5)  # each image read once, half of them with words
OLD = ONCE | dict(swin='v1', lambda_2=0.2)  # of all recipes before Swin UNETR-V2
STAGED = OLD | dict(plain=0.2, p_generic=0.25)
MIXED = STAGED | dict(tokens='mixed', code='2d')
RECIPES = {  # name -> fields of `Config`
    'plain': dict(network='swin_unetr', hasf=False, ccae=False),
    'tiny': {},  # words + order, one stage, each image read twice, the words by a decoder of their own, Swin UNETR-V2, light contrast
    'one decoder': ONE,
    'one decoder, readings alike': ONE | dict(w_generic=0.5),
    'read once': ONCE,
    'read once, no CCAE': ONCE | dict(ccae=False),
    'read once, generic .7': ONCE | dict(p_generic=0.7, p_incomplete=0.15, p_wrong=0.05),
    'plain, v1': dict(network='swin_unetr', hasf=False, ccae=False, swin='v1'),
    'read once, v1': OLD,
    'mixed': MIXED,
    'mixed, one stage': MIXED | dict(plain=0.0),
    'mixed, half plain': MIXED | dict(plain=0.5),
    'mixed, generic .5': MIXED | dict(p_generic=0.5),
    'mixed, half plain, generic .5': MIXED | dict(plain=0.5, p_generic=0.5),
    'mixed, no CCAE': MIXED | dict(ccae=False),
    'mixed, nothing wrong or incomplete': MIXED | dict(p_wrong=0.0, p_incomplete=0.0),
    'words': STAGED | dict(code='2d'),
    'words, generic .5': STAGED | dict(code='2d', p_generic=0.5),
    'words + order': STAGED,
    'words + order, .6 plain, generic .5': OLD | dict(plain=0.6),
    'plain, v1, two stages': dict(
        network='swin_unetr', hasf=False, ccae=False, swin='v1', plain=0.2
    ),
}
PROTOCOLS = ['generic', 'self', 'oracle', 'shuffled']
GAPS = dict(
    oracle_generic=('oracle', 'generic'),
    generic_shuffled=('generic', 'shuffled'),
    self_generic=('self', 'generic'),
    generic_plain=('generic', 'plain'),
)


def short(scores):
    "Dice alone: {volume: {structure: Dice, or None where it is nowhere}}"
    return {
        c: {n: r['dsc'] if r['dsc'] is None else round(r['dsc'], 4) for n, r in v.items()}
        for c, v in scores.volumes.items()
    }


def long(dice, patients):
    "`Scores` of what `short` left"
    from atm_net.metrics import METRICS
    from atm_net.study import Scores

    return Scores(
        {
            c: {n: dict.fromkeys(METRICS) | dict(dsc=d) for n, d in v.items()}
            for c, v in dice.items()
        },
        patients,
        {},
    )


def peer(recipe):
    return 'plain, v1' if RECIPES.get(recipe, {}).get('swin') == 'v1' else 'plain'


def halves(cache):
    "Cases by what their field of view shows"
    out = {'with the sacrum': [], 'without it': []}
    for c in cache.cases(None):
        out[
            'with the sacrum'
            if (cache.labels(c) == cache.scheme.names.index('S') + 1).any()
            else 'without it'
        ].append(c)
    return out


def only(scores, cases):
    "The scores of some volumes"
    from atm_net.study import Scores

    return Scores({c: scores.volumes[c] for c in cases}, {c: scores.patients[c] for c in cases}, {})


def gap(a, b, same=True):
    "Paired difference of two columns {seed: `Scores`}: mean, low, high over patients, the mean of each seed, and the interval of `seeds_drawn`"
    from atm_net.study import compare

    seeds = sorted(set(a) & set(b))

    def both(ss):
        return compare(dict(b={s: b[s] for s in ss}, a={s: a[s] for s in ss}))['a']['difference']

    return (
        both(seeds)
        | dict(by_seed=[both([s])['mean'] for s in seeds], drawn=seeds_drawn(a, b, same))
        if seeds
        else None
    )


def seeds_drawn(a, b, same=True, n=4000, seed=0):
    "95 % interval (low, high) of a difference where networks are drawn as well as patients; columns of the `same` networks draw the same ones; None for a single one"
    import numpy as np

    from atm_net.metrics import by_patient, draw_patients
    from atm_net.study import headlines

    if min(len(a), len(b)) < 2:
        return None
    tables = [[by_patient(x.volumes, x.patients) for x in c.values()] for c in (a, b)]
    order = list(tables[0][0])
    w = draw_patients(len(order), n, seed)
    rng = np.random.default_rng(seed)
    ha, hb = (headlines([{p: t[p] for p in order} for t in ts], w) for ts in tables)  # (n, seeds)
    i = rng.integers(0, ha.shape[1], ha.shape)
    j = i if same else rng.integers(0, hb.shape[1], hb.shape)
    d = np.take_along_axis(ha, i, 1).mean(1) - np.take_along_axis(hb, j, 1).mean(1)
    return tuple(float(x) for x in np.quantile(d, (0.025, 0.975)))


def table(done, cases):
    "{half: {recipe: {protocol: column, gap: difference}}} of what is finished: {recipe: {seed: {protocol: `Scores`}}}"
    from atm_net.study import compare

    out = {}
    for half, ids in cases.items():
        cut = {
            r: {
                q: {s: only(x[q], ids) for s, x in by.items() if q in x}
                for q in ('none', *PROTOCOLS)
            }
            for r, by in done.items()
        }
        for r, cols in cut.items():
            row = {q: compare({q: c})[q] for q, c in cols.items() if c}
            for k, (a, b) in GAPS.items():
                other = cut.get(peer(r), {}).get('none', {}) if b == 'plain' else cols[b]
                row[k] = gap(cols[a], other, b != 'plain')
            out.setdefault(half, {})[r] = row
    return out


def markdown(result):
    from atm_net.show import table_md

    def points(x, sign=''):
        return f'{100 * x:{sign}.1f}'

    def cell(c):
        return (
            '–'
            if not c or c['mean'] is None
            else points(c['mean']) + (f' ± {points(c["sd"])}' if c.get('sd') else '')
        )

    def seeds(c):
        return (
            f' ({", ".join(points(x, "+") for x in c["by_seed"])})' if len(c['by_seed']) > 1 else ''
        )

    def diff(c):
        return (
            '–'
            if not c or c['mean'] is None
            else f'{points(c["mean"], "+")} [{points(c["low"], "+")}, {points(c["high"], "+")}]{seeds(c)}'
        )

    how = (
        f'{result["steps"]} steps of 8 images, windows {result["windows"]} px, '
        if 'steps' in result
        else ''
    )
    lines = [
        f'{how}{result["slices"]} slices of {sum(map(len, result["cases"].values()))} volumes; mean Dice of structures by exact level, in points, mean ± standard deviation over seeds; differences with their 95 % interval over patients (and seed by seed).',
        '',
    ]
    for half, rows in result['halves'].items():
        body = [
            [
                r,
                ', '.join(result['seeds'][r]),
                *[cell(c.get(q)) for q in ('none', *PROTOCOLS)],
                *[diff(c[k]) for k in GAPS],
            ]
            for r, c in rows.items()
        ]
        lines += [
            f'### {half}: {len(result["cases"][half])} volumes',
            '',
            table_md(
                body,
                (
                    'recipe',
                    'seeds',
                    'no text',
                    *PROTOCOLS,
                    'oracle - generic',
                    'generic - shuffled',
                    'self - generic',
                    'generic - plain',
                ),
            ),
        ]
    drawn = [
        [
            half,
            r,
            *[
                f'[{points(c[k]["drawn"][0], "+")}, {points(c[k]["drawn"][1], "+")}]'
                if c[k] and c[k]['drawn']
                else '–'
                for k in GAPS
            ],
        ]
        for half, rows in result['halves'].items()
        for r, c in rows.items()
        if any(c[k] and c[k]['drawn'] for k in GAPS)
    ]
    if drawn:
        lines += [
            '### Intervals where seeds are drawn as well as patients',
            '',
            table_md(
                drawn,
                (
                    'half',
                    'recipe',
                    'oracle - generic',
                    'generic - shuffled',
                    'self - generic',
                    'generic - plain',
                ),
            ),
        ]
    return '\n'.join(lines)


def write_table(out):
    "out/table.md from out/scores.json"
    from atm_net.show import read_json, write_text

    d = read_json(out / 'scores.json')
    done = {
        r: {s: {q: long(x, d['patients']) for q, x in run['dice'].items()} for s, run in by.items()}
        for r, by in d['runs'].items()
    }
    text = markdown(
        d | dict(seeds={r: list(by) for r, by in done.items()}, halves=table(done, d['cases']))
    )
    write_text(out / 'table.md', text)
    return text


def cohort(near):
    "What is scored: hash, slices, halves, patients"
    from atm_net.train import cache_hash

    return dict(
        near=cache_hash(near),
        slices=sum(len(near.labels(c)) for c in near.cases(None)),
        cases=halves(near),
        patients={c: near.meta(c)['patient'] for c in near.cases(None)},
    )


def score_weights(weights, near, out):
    "Weights as they are, in both halves: OUT/scores.json and OUT/table.md"
    from atm_net.evaluate import evaluate_runs, scores_dict
    from atm_net.predict import load_predictor, weights_id
    from atm_net.show import write_json
    from atm_net.study import load_scores

    of = weights_id(weights)['sha256']
    entries, _ = evaluate_runs(near, {weights: load_predictor(weights)}, PROTOCOLS, 'all', 'cache')
    dice = {}
    for e in entries:
        file = out / f'{e.protocol}.json'
        write_json(file, scores_dict(e.scored, near.scheme))
        dice[e.protocol] = short(load_scores(file))
    write_json(out / 'scores.json', cohort(near) | dict(runs={weights: {of: dict(dice=dice)}}))
    return write_table(out)


def main():
    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a.add_argument(
        'folders',
        nargs='+',
        type=Path,
        help='TRAIN NEAR OUT: cache to train on, cache to score on, folder to write; NEAR OUT with --weights; OUT alone with --table',
    )
    a.add_argument(
        '--recipes',
        default='plain;tiny',
        help=f'with semicolons: {"; ".join(RECIPES)}'.replace('%', '%%'),
    )
    a.add_argument('--seeds', default='0', help='with commas')
    a.add_argument('--steps', type=int, default=1500)
    a.add_argument('--windows', default='64,96', help='px, with commas')
    a.add_argument(
        '--table', action='store_true', help='train nothing, write the table of what is there'
    )
    a.add_argument(
        '--weights', help='train nothing, score these: a name such as atm_net_tiny, a file, a run'
    )
    args = a.parse_args()
    names = [n.strip() for n in args.recipes.split(';')]
    if bad := [n for n in names if n not in RECIPES]:
        a.error(f'unknown recipe {bad[0]!r}; known: {"; ".join(RECIPES)}')
    if len(args.folders) != (1 if args.table else 2 if args.weights else 3):
        a.error('give TRAIN NEAR OUT, NEAR OUT with --weights, or OUT alone with --table')
    if args.table:
        if not (args.folders[0] / 'scores.json').is_file():
            a.error(f'{args.folders[0] / "scores.json"}: nothing is finished there')
        print(write_table(args.folders[0]))
        return
    from atm_net.data import Cache

    if args.weights and (args.folders[1] / 'scores.json').exists():
        a.error(
            f'{args.folders[1] / "scores.json"}: there are scores already: choose another folder'
        )
    if args.weights:
        args.folders[1].mkdir(parents=True, exist_ok=True)
        print(score_weights(args.weights, Cache(args.folders[0]), args.folders[1]))
        return
    from atm_net.show import read_json, write_json
    from atm_net.study import Row, Run, run_name, score_run, study_config, train_run
    from atm_net.train import cache_hash

    train, near, out = Cache(args.folders[0]), Cache(args.folders[1]), args.folders[2]
    windows = [int(w) for w in args.windows.split(',')]
    file = out / 'scores.json'
    head = dict(steps=args.steps, windows=windows, train=cache_hash(train)) | cohort(near)
    d = read_json(file) if file.is_file() else head | dict(runs={})
    if odd := [k for k in head if d[k] != head[k]]:
        a.error(f'{file}: of other {odd[0]} ({str(d[odd[0]])[:40]}): choose another folder')
    for seed in args.seeds.split(','):
        for name in names:
            cfg = study_config(
                Row(name, dict(windows=tuple(windows), val_cases=2) | RECIPES[name]),
                'tiny',
                int(seed),
                steps=args.steps,
            )
            config = json.loads(json.dumps(asdict(cfg)))
            if (old := d['runs'].get(name, {}).get(seed)) and old['config'] == config:
                print(f'{name}, seed {seed}: finished already', file=sys.stderr)
                continue
            run = Run(run_name(cfg), cfg, ())
            folder = out / 'runs' / run.name
            print(f'{name}, seed {seed}: {folder}', file=sys.stderr)
            train_run(run, folder, train, 'cpu')
            scores = score_run(
                run,
                folder,
                near,
                PROTOCOLS if cfg.network == 'atm_net' else ['none'],
                'all',
                'cache',
            )
            d['runs'].setdefault(name, {})[seed] = dict(
                config=config, dice={q: short(s) for q, s in scores.items()}
            )
            write_json(file, d)
            write_table(out)
    print(write_table(out))


if __name__ == '__main__':
    main()
