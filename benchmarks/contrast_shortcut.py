"""Does CCAE look at the image? Losses of each contrast on outputs that see it and that do not.

    python benchmarks/contrast_shortcut.py --weights atm_net_tiny --json
    python benchmarks/contrast_shortcut.py --train 150 --json

`nbs/4_network/48_shortcut.ipynb` says what is measured. With --weights the network stays as it is;
a contrast that it was not trained with gets its projections fitted on windows of other phantoms.
With --train preset `tiny` is trained with each contrast in turn (batches of 4 windows of 96 px),
and measured on phantoms that it has not seen. --cost measures the time of a training step instead,
with each contrast over that without CCAE, in turns."""

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
from run import silent

TEST = 910_000  # first seed of the phantoms that are measured on
FIT = 920_000  # of those that projections are fitted on
TRAIN = 930  # of the cohort that is trained on


def windows(first_seed, args):
    "Windows of phantoms by their lists of structures"
    from atm_net.anatomy import LUMBAR
    from atm_net.shortcut import phantom_slices, windows_by_list

    scheme = LUMBAR.scheme('joint')
    slices = phantom_slices(range(first_seed, first_seed + args.patients), scheme)
    return windows_by_list(slices, scheme, lists=args.lists, each=args.each, seed=args.seed)


def measure(net, meta, contrasts, args) -> dict:  # name -> losses
    "The test on one network, for contrasts by name; the network's own is taken as it was trained"
    import torch

    from atm_net.anatomy import LUMBAR
    from atm_net.shortcut import fit_contrast, network_contexts, shortcut_losses
    from atm_net.text import load_encoder
    from atm_net.weights import ATMNetOptions, build_contrast

    scheme, encoder = LUMBAR.scheme('joint'), load_encoder('spine_bert_tiny')
    options = ATMNetOptions(**meta['kwargs'])
    given = (scheme, encoder, options.length)
    contexts = network_contexts(net, windows(TEST, args), *given)
    fitting = None
    rows = {}
    for name in contrasts:
        contrast = net.ccae
        if name != options.contrast:
            fitting = fitting or network_contexts(net, windows(FIT, args), *given)['own']
            torch.manual_seed(args.seed)
            contrast = build_contrast(replace(options, contrast=name), net.backbone.channels)
            fit_contrast(contrast, fitting, args.fit)
        losses = shortcut_losses(contrast, contexts, scheme, args.blind)
        rows[name] = asdict(losses) | dict(failures=losses.failures())
        print(name, rows[name], file=sys.stderr, flush=True)
    return rows


def trained(name, cache, folder, args):
    "Preset `tiny` after some steps with a contrast: network, header"
    from atm_net.config import PRESETS
    from atm_net.train import train
    from atm_net.weights import load_network

    how = dict(windows=(96,), batch=4, val_cases=1, warmup=min(20, args.train // 10))
    how |= dict(steps=args.train, contrast=name, seed=args.seed)
    cfg = replace(PRESETS['tiny'], **how)
    run = folder / name
    silent(train, cache, run, cfg, device='cpu', val_every=args.train)
    return load_network(run / 'last.safetensors')


def measure_trained(args) -> dict:
    "Train with each contrast, then measure it"
    from atm_net.grid import Grid
    from atm_net.long_demo import cohort_of

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        cache = silent(cohort_of, folder, args.patients, TRAIN, Grid(2.0))
        rows = {}
        for name in args.contrasts:
            rows |= measure(*trained(name, cache, folder, args), [name], args)
        return rows


def cost(args, side=128, batch=8, repeats=7) -> dict:  # name -> time over that without CCAE
    "Median ratio of the time of a training step"
    import torch
    from speed import batch_of, config, rivals, training

    from atm_net.config import network_kwargs
    from atm_net.weights import build_network

    base = config('HASF, pooled, and CCAE')
    settings = {'none': replace(base, ccae=False)}
    settings |= {name: replace(base, contrast=name) for name in args.contrasts}
    data = batch_of(batch, side, 'HASF, pooled, and CCAE')
    steps = []
    for cfg in settings.values():
        torch.manual_seed(0)
        net = build_network('atm_net', 21, cfg.feature_size, **network_kwargs(cfg, 128, None))
        steps.append(training(net, data))
    plain, *others = rivals(steps, repeats)
    return {
        name: statistics.median(t / p for t, p in zip(times, plain))
        for name, times in zip(args.contrasts, others)
    }


def table(rows) -> str:
    "Markdown"
    from atm_net.show import table_md

    keys = [key for key in next(iter(rows.values())) if key != 'failures']
    body = [
        (name, *(f'{r[k]:.2f}' for k in keys), ', '.join(r['failures']) or 'passes')
        for name, r in rows.items()
    ]
    return table_md(body, ('contrast', *(f'`{key}`' for key in keys), 'fails by'))


def arguments():
    from atm_net.weights import CONTRASTS

    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = a.add_mutually_exclusive_group()
    what.add_argument('--weights', default='atm_net_tiny', help='a name, a file or a run')
    what.add_argument('--train', type=int, default=0, help='steps of training with each contrast')
    what.add_argument('--cost', action='store_true', help='time of a training step')
    a.add_argument('--contrasts', default=','.join(CONTRASTS), help='with commas')
    a.add_argument('--patients', type=int, default=24, help='phantoms of each kind')
    a.add_argument('--lists', type=int, default=3, help='different lists of structures')
    a.add_argument('--each', type=int, default=12, help='windows of each list')
    a.add_argument('--fit', type=int, default=200, help='steps that fit projections')
    a.add_argument('--blind', type=int, default=40, help='steps of a blind answer')
    a.add_argument('--seed', type=int, default=0)
    a.add_argument('--json', action='store_true', help='JSON in place of a table')
    args = a.parse_args()
    args.contrasts = args.contrasts.split(',')
    if odd := [name for name in args.contrasts if name not in CONTRASTS]:
        a.error(f'unknown contrast {odd[0]!r}; known: {", ".join(CONTRASTS)}')
    return args


def main():
    args = arguments()
    if args.cost:
        print(json.dumps(cost(args), indent=1))
        return
    if args.train:
        rows = measure_trained(args)
    else:
        from atm_net.predict import weights_file
        from atm_net.weights import load_network

        rows = measure(*load_network(weights_file(args.weights)), args.contrasts, args)
    print(json.dumps(rows, indent=1) if args.json else table(rows))


if __name__ == '__main__':
    main()
