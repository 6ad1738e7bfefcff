"""Is the text used? Trains recipes side by side and scores them in a narrow field of view, with and
without the sacrum in it.

    atm_phantom full --patients 300 --seed 2026 && atm_prepare full full_cache
    atm_phantom near --view 160 --patients 40 --seed 79 && atm_prepare near near_cache
    python benchmarks/text_used.py full_cache near_cache out \\
        --recipes 'plain;one decoder' --seeds 0,1,2 --steps 2000

    python benchmarks/text_used.py --table results/text_used

    python benchmarks/text_used.py near_cache out --weights atm_net_tiny

The last trains nothing and scores weights, by name, file or run, in the same two halves. A recipe
is what it changes in preset `tiny`; all train the same number of steps. Resumable. OUT/scores.json
holds what is finished, Dice by volume and structure, and is all that `--table` needs; OUT/table.md
says it."""

import argparse
import json
import os
import sys

os.environ.setdefault('HF_HUB_OFFLINE', '1')
from dataclasses import asdict
from pathlib import Path

# one pass of each image, half of them with words
ONCE = dict(paired=False, p_generic=0.5)
OLD = ONCE | dict(swin='v1', lambda_2=0.2)  # of all recipes before Swin UNETR-V2
STAGED = OLD | dict(plain=0.2, p_generic=0.25)
MIXED = STAGED | dict(tokens='mixed', code='2d')
RECIPES = {  # name -> fields of `Config`
    'plain': dict(network='swin_unetr', hasf=False, ccae=False),
    # preset `tiny`: words + order, one stage, two passes of each image, without words with three
    # times the weight, Swin UNETR-V2, light contrast
    'one decoder': {},
    'two decoders': dict(text_decoder=True),
    'one decoder, passes alike': dict(w_generic=0.5),
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
    from atm_net.study_scores import Scores

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
    from atm_net.study_scores import Scores

    return Scores({c: scores.volumes[c] for c in cases}, {c: scores.patients[c] for c in cases}, {})


def gap(a, b, same=True):
    """Paired difference of two columns {seed: `Scores`}: mean, low, high over patients, the mean
    of each seed, and the interval of `seeds_drawn`; None where no seed is in both"""
    from atm_net.study_scores import compare

    def difference(seeds):
        columns = dict(b={s: b[s] for s in seeds}, a={s: a[s] for s in seeds})
        return compare(columns)['a']['difference']

    seeds = sorted(set(a) & set(b))
    if not seeds:
        return None
    by_seed = [difference([s])['mean'] for s in seeds]
    return difference(seeds) | dict(by_seed=by_seed, drawn=seeds_drawn(a, b, same))


def seeds_drawn(a, b, same=True, n=4000, seed=0):
    """95 % interval (low, high) of a difference where networks are drawn as well as patients;
    columns of the `same` networks draw the same ones; None for a single one"""
    import numpy as np

    from atm_net.metrics import by_patient, draw_patients
    from atm_net.study_scores import headlines

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


def cut_to(by_seed, ids) -> dict:  # protocol -> {seed: `Scores`}
    "The scores of some volumes, of the runs that have a protocol"
    return {
        q: {s: only(x[q], ids) for s, x in by_seed.items() if q in x} for q in ('none', *PROTOCOLS)
    }


def table_row(recipe, columns, plain) -> dict:  # protocol or gap -> column or difference
    "What is said of a recipe in one half; `plain` is the column of its plain peer"
    from atm_net.study_scores import compare

    row = {q: compare({q: c})[q] for q, c in columns.items() if c}
    for k, (a, b) in GAPS.items():
        row[k] = gap(columns[a], plain if b == 'plain' else columns[b], b != 'plain')
    return row


def table(done, cases):
    """{half: {recipe: {protocol: column, gap: difference}}} of what is finished: {recipe: {seed:
    {protocol: `Scores`}}}"""
    out = {}
    for half, ids in cases.items():
        cut = {recipe: cut_to(by_seed, ids) for recipe, by_seed in done.items()}
        out[half] = {
            recipe: table_row(recipe, columns, cut.get(peer(recipe), {}).get('none', {}))
            for recipe, columns in cut.items()
        }
    return {half: rows for half, rows in out.items() if rows}


# --- the table in words


def points(x, sign=''):
    "A share in points"
    return f'{100 * x:{sign}.1f}'


def interval(low, high) -> str:
    return f'[{points(low, "+")}, {points(high, "+")}]'


def mean_text(c) -> str:
    "Mean ± standard deviation over seeds"
    if not c or c['mean'] is None:
        return '–'
    spread = f' ± {points(c["sd"])}' if c.get('sd') else ''
    return points(c['mean']) + spread


def gap_text(c) -> str:
    "Difference with its interval over patients, and seed by seed"
    if not c or c['mean'] is None:
        return '–'
    text = f'{points(c["mean"], "+")} {interval(c["low"], c["high"])}'
    if len(c['by_seed']) > 1:
        text += f' ({", ".join(points(x, "+") for x in c["by_seed"])})'
    return text


GAP_NAMES = [f'{a} - {b}' for a, b in GAPS.values()]


def half_lines(half, rows, result) -> list:
    "The table of one half of the volumes"
    from atm_net.show import table_md

    body = []
    for recipe, c in rows.items():
        means = [mean_text(c.get(q)) for q in ('none', *PROTOCOLS)]
        gaps = [gap_text(c[k]) for k in GAPS]
        body.append([recipe, ', '.join(result['seeds'][recipe]), *means, *gaps])
    head = ('recipe', 'seeds', 'no text', *PROTOCOLS, *GAP_NAMES)
    return [f'### {half}: {len(result["cases"][half])} volumes', '', table_md(body, head)]


def drawn_lines(halves) -> list:
    "The table of the intervals in which seeds are drawn too, of those that have several"
    from atm_net.show import table_md

    body = []
    for half, rows in halves.items():
        for recipe, c in rows.items():
            drawn = [c[k]['drawn'] if c[k] else None for k in GAPS]
            if any(drawn):
                body.append([half, recipe, *(interval(*d) if d else '–' for d in drawn)])
    if not body:
        return []
    title = '### Intervals where seeds are drawn as well as patients'
    return [title, '', table_md(body, ('half', 'recipe', *GAP_NAMES))]


def markdown(result) -> str:
    "OUT/table.md"
    how = ''
    if 'steps' in result:
        how = f'Training: {result["steps"]} steps of 8 images, windows {result["windows"]} px. '
    volumes = sum(map(len, result['cases'].values()))
    lines = [
        f'{how}Test: {result["slices"]} slices of {volumes} volumes. '
        'Scores are the Dice by exact level in points, averaged over structures: '
        'mean ± standard deviation over seeds. '
        'Differences have a 95 % interval over patients, and the value of each seed in brackets.',
        '',
    ]
    for half, rows in result['halves'].items():
        lines += half_lines(half, rows, result)
    return '\n'.join(lines + drawn_lines(result['halves']))


def write_table(out):
    "out/table.md from out/scores.json"
    from atm_net.core import read_json, write_text

    d = read_json(out / 'scores.json')
    done = {}
    for recipe, by_seed in d['runs'].items():
        done[recipe] = {}
        for seed, run in by_seed.items():
            scores = {q: long(dice, d['patients']) for q, dice in run['dice'].items()}
            done[recipe][seed] = scores
    seeds = {recipe: list(by_seed) for recipe, by_seed in done.items()}
    text = markdown(d | dict(seeds=seeds, halves=table(done, d['cases'])))
    write_text(out / 'table.md', text)
    return text


def cohort(near):
    "What is scored: hash, slices, halves, patients"
    from atm_net.run_folder import cache_hash

    return dict(
        near=cache_hash(near),
        slices=sum(len(near.labels(c)) for c in near.cases(None)),
        cases=halves(near),
        patients={c: near.meta(c)['patient'] for c in near.cases(None)},
    )


def score_weights(weights, near, out):
    "Weights as they are, in both halves: OUT/scores.json and OUT/table.md"
    from atm_net.core import write_json
    from atm_net.evaluate import evaluate_runs
    from atm_net.mask_scores import scores_dict
    from atm_net.predict import load_predictor, weights_id
    from atm_net.study_scores import load_scores

    of = weights_id(weights)['sha256']
    entries, _ = evaluate_runs(near, {weights: load_predictor(weights)}, PROTOCOLS, 'all', 'cache')
    dice = {}
    for e in entries:
        file = out / f'{e.protocol}.json'
        write_json(file, scores_dict(e.scored, near.scheme))
        dice[e.protocol] = short(load_scores(file))
    write_json(out / 'scores.json', cohort(near) | dict(runs={weights: {of: dict(dice=dice)}}))
    return write_table(out)


# --- the command


def arguments():
    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a.add_argument(
        'folders',
        nargs='+',
        type=Path,
        help='TRAIN NEAR OUT: cache to train on, cache to score on, folder to write; '
        'NEAR OUT with --weights; OUT alone with --table',
    )
    known = '; '.join(RECIPES)
    a.add_argument(
        '--recipes',
        default='plain;one decoder',
        help=f'with semicolons: {known}'.replace('%', '%%'),
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
    args.names = [n.strip() for n in args.recipes.split(';')]
    args.windows = [int(w) for w in args.windows.split(',')]
    args.out = args.folders[-1]
    args.error = a.error
    check(a, args, known)
    return args


def check(parser, args, known):
    "Leave with a message where the arguments do not go together"
    if bad := [n for n in args.names if n not in RECIPES]:
        parser.error(f'unknown recipe {bad[0]!r}; known: {known}')
    wanted = 3
    if args.table:
        wanted = 1
    elif args.weights:
        wanted = 2
    if len(args.folders) != wanted:
        parser.error('give TRAIN NEAR OUT, NEAR OUT with --weights, or OUT alone with --table')
    file = args.out / 'scores.json'
    if args.table and not file.is_file():
        parser.error(f'{file}: nothing is finished there')
    if args.weights and not args.table and file.exists():
        parser.error(f'{file}: there are scores already: choose another folder')


def begun(args, train, near) -> dict:
    "What OUT/scores.json holds, or its beginning; of the same caches and steps"
    from atm_net.core import read_json
    from atm_net.run_folder import cache_hash

    file = args.out / 'scores.json'
    head = dict(steps=args.steps, windows=args.windows, train=cache_hash(train)) | cohort(near)
    found = read_json(file) if file.is_file() else head | dict(runs={})
    if odd := [k for k in head if found[k] != head[k]]:
        was = str(found[odd[0]])[:40]
        args.error(f'{file}: of other {odd[0]} ({was}): choose another folder')
    return found


def config_of(name, seed, args):
    "The configuration of a recipe"
    from atm_net.study_grid import Row, study_config

    fields = dict(windows=tuple(args.windows), val_cases=2) | RECIPES[name]
    return study_config(Row(name, fields), 'tiny', int(seed), steps=args.steps)


def trained_scores(name, seed, cfg, args, train, near) -> dict:  # protocol -> Dice
    "Train a recipe and score it"
    from atm_net.study_grid import Run, run_name
    from atm_net.study_runs import score_run, train_run

    run = Run(run_name(cfg), cfg, ())
    folder = args.out / 'runs' / run.name
    print(f'{name}, seed {seed}: {folder}', file=sys.stderr)
    train_run(run, folder, train, 'cpu')
    protocols = PROTOCOLS if cfg.network == 'atm_net' else ['none']
    scores = score_run(run, folder, near, protocols, 'all', 'cache')
    return {q: short(s) for q, s in scores.items()}


def train_all(args, train, near) -> str:
    "Every recipe with every seed, as far as it is not finished; returns the table"
    from atm_net.core import write_json

    found = begun(args, train, near)
    for seed in args.seeds.split(','):
        for name in args.names:
            cfg = config_of(name, seed, args)
            config = json.loads(json.dumps(asdict(cfg)))
            old = found['runs'].get(name, {}).get(seed)
            if old and old['config'] == config:
                print(f'{name}, seed {seed}: finished already', file=sys.stderr)
                continue
            dice = trained_scores(name, seed, cfg, args, train, near)
            found['runs'].setdefault(name, {})[seed] = dict(config=config, dice=dice)
            write_json(args.out / 'scores.json', found)
            write_table(args.out)
    return write_table(args.out)


def main():
    args = arguments()
    if args.table:
        print(write_table(args.out))
        return
    from atm_net.data import Cache

    caches = [Cache(f) for f in args.folders[:-1]]
    if args.weights:
        args.out.mkdir(parents=True, exist_ok=True)
        print(score_weights(args.weights, *caches, args.out))
    else:
        print(train_all(args, *caches))


if __name__ == '__main__':
    main()
