"""Is the text used? Trains recipes side by side and scores them in a narrow field of view, with and without the sacrum in it.

    atm_phantom full --patients 300 --seed 2026 && atm_prepare full full_cache
    atm_phantom near --view 160 --patients 40 --seed 77 && atm_prepare near near_cache
    python benchmarks/text_used.py full_cache near_cache out --recipes 'plain;tiny' --seeds 0,1,2 --steps 2000

A recipe is what it changes in preset `tiny`; all train the same number of steps. Resumable; out/table.md and out/table.json hold all that is finished."""
import argparse, os, sys
os.environ.setdefault('HF_HUB_OFFLINE', '1')
from dataclasses import replace
from pathlib import Path

ONCE = dict(paired=False, p_generic=.5)                   # each image read once, half of them with words
OLD = ONCE | dict(swin='v1', lambda_2=.2)                 # of all recipes before Swin UNETR-V2
STAGED = OLD | dict(plain=.2, p_generic=.25)
MIXED = STAGED | dict(tokens='mixed', code='2d')
RECIPES = { # name -> fields of `Config`
    'plain': dict(network='swin_unetr', hasf=False, ccae=False),
    'tiny': {}, # words + order, one stage, each image read twice (without words three times the weight), Swin UNETR-V2, light contrast
    'tiny, readings alike': dict(w_generic=.5),
    'tiny, read once': ONCE,
    'tiny, read once, no CCAE': ONCE | dict(ccae=False),
    'tiny, read once, generic .7': ONCE | dict(p_generic=.7, p_incomplete=.15, p_wrong=.05),
    'plain, v1': dict(network='swin_unetr', hasf=False, ccae=False, swin='v1'),
    'tiny, read once, v1': OLD,
    'mixed': MIXED,
    'mixed, one stage': MIXED | dict(plain=0.),
    'mixed, half plain': MIXED | dict(plain=.5),
    'mixed, generic .5': MIXED | dict(p_generic=.5),
    'mixed, half plain, generic .5': MIXED | dict(plain=.5, p_generic=.5),
    'mixed, no CCAE': MIXED | dict(ccae=False),
    'mixed, nothing wrong or incomplete': MIXED | dict(p_wrong=0., p_incomplete=0.),
    'mixed, plain decoder': MIXED | dict(decoder='plain'),
    'mixed, position 1d': MIXED | dict(code='1d'),
    'mixed, grid contrast': MIXED | dict(contrast='grid'),
    'mixed, sigmoid focal': MIXED | dict(focal='sigmoid'),
    'words': STAGED | dict(code='2d'),
    'words, generic .5': STAGED | dict(code='2d', p_generic=.5),
    'words + order': STAGED,
    'words + order, .6 plain, generic .5': OLD | dict(plain=.6),
    'plain, v1, two stages': dict(network='swin_unetr', hasf=False, ccae=False, swin='v1', plain=.2),
}
PROTOCOLS = ['generic', 'self', 'oracle', 'shuffled']
GAPS = dict(oracle_generic=('oracle', 'generic'), generic_shuffled=('generic', 'shuffled'), self_generic=('self', 'generic'), generic_plain=('generic', 'plain'))


def peer(recipe): return 'plain, v1' if RECIPES[recipe].get('swin')=='v1' else 'plain'


def halves(cache):
    "Cases by what their field of view shows"
    out = {'with the sacrum': [], 'without it': []}
    for c in cache.cases(None): out['with the sacrum' if (cache.labels(c) == cache.scheme.names.index('S')+1).any() else 'without it'].append(c)
    return out


def only(scores, cases):
    "The scores of some volumes"
    from atm_net.study import Scores
    return Scores({c: scores.volumes[c] for c in cases}, {c: scores.patients[c] for c in cases}, {})


def gap(a, b):
    "Paired difference of two columns {seed: `Scores`}: mean, low, high over patients"
    from atm_net.study import compare
    seeds = sorted(set(a) & set(b))
    return compare(dict(b={s: b[s] for s in seeds}, a={s: a[s] for s in seeds}))['a']['difference'] if seeds else None


def table(done, cases):
    "{half: {recipe: {protocol: column, gap: difference}}} of what is finished: {recipe: {seed: {protocol: `Scores`}}}"
    from atm_net.study import compare
    out = {}
    for half, ids in cases.items():
        cut = {r: {q: {s: only(x[q], ids) for s, x in by.items() if q in x} for q in ('none', *PROTOCOLS)} for r, by in done.items()}
        for r, cols in cut.items():
            row = {q: compare({q: c})[q] for q, c in cols.items() if c}
            for k, (a, b) in GAPS.items(): other = cut.get(peer(r), {}).get('none', {}) if b == 'plain' else cols[b]; row[k] = gap(cols[a], other)
            out.setdefault(half, {})[r] = row
    return out


def markdown(result):
    from atm_net.show import table_md
    cell = lambda c: '–' if not c or c['mean'] is None else f"{100*c['mean']:.1f}"+(f" ± {100*c['sd']:.1f}" if c.get('sd') else '')
    diff = lambda c: '–' if not c or c['mean'] is None else f"{100*c['mean']:+.1f} [{100*c['low']:+.1f}, {100*c['high']:+.1f}]"
    lines = [f"{result['steps']} steps of 8 images, windows {result['windows']} px, seeds {result['seeds']}; {result['slices']} slices of {result['volumes']} volumes; mean Dice of structures by exact level, in points; intervals over patients.", '']
    for half, rows in result['halves'].items():
        body = [[r, *[cell(c.get(q)) for q in ('none', *PROTOCOLS)], *[diff(c[k]) for k in GAPS]] for r, c in rows.items()]
        lines += [f"### {half}: {len(result['cases'][half])} volumes", '', table_md(body, ('recipe', 'no text', *PROTOCOLS, 'oracle - generic', 'generic - shuffled', 'self - generic', 'generic - plain')), '']
    return '\n'.join(lines)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('train'); a.add_argument('near'); a.add_argument('out', type=Path)
    a.add_argument('--recipes', default='plain;tiny', help=f"with semicolons: {'; '.join(RECIPES)}".replace('%', '%%')); a.add_argument('--seeds', default='0', help='with commas')
    a.add_argument('--steps', type=int, default=1500); a.add_argument('--windows', default='96', help='px, with commas'); a.add_argument('--table', action='store_true', help='train nothing, write the table of what is there')
    args = a.parse_args(); names = [n.strip() for n in args.recipes.split(';')]
    if bad := [n for n in names if n not in RECIPES]: a.error(f"unknown recipe {bad[0]!r}; known: {'; '.join(RECIPES)}")
    from atm_net.data import Cache
    from atm_net.show import write_json, write_text
    from atm_net.study import Run, run_name, score_run, study_config, Row, train_run
    train, near = Cache(args.train), Cache(args.near); seeds, windows = [int(s) for s in args.seeds.split(',')], tuple(int(w) for w in args.windows.split(','))
    done, cases = {}, halves(near)

    def write():
        result = dict(steps=args.steps, windows=windows, seeds=seeds, volumes=len(near.cases(None)), slices=sum(len(near.labels(c)) for c in near.cases(None)), cases=cases, halves=table(done, cases))
        write_json(args.out/'table.json', result); write_text(args.out/'table.md', markdown(result))

    for seed in seeds:
        for name in names:
            cfg = study_config(Row(name, dict(windows=windows, val_cases=2) | RECIPES[name]), 'tiny', seed, steps=args.steps)
            run = Run(run_name(cfg), cfg, ()); folder = args.out/'runs'/run.name
            if args.table and not (folder/'last.safetensors').exists(): continue
            print(f'{name}, seed {seed}: {folder}', file=sys.stderr)
            if not args.table: train_run(run, folder, train, 'cpu')
            done.setdefault(name, {})[seed] = score_run(run, folder, near, PROTOCOLS if cfg.network == 'atm_net' else ['none'], 'all', 'cache')
            write()
    write(); print((args.out/'table.md').read_text(encoding='utf-8'))


if __name__ == '__main__': main()
