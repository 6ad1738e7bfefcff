"""What the text encoder is worth: the same network and recipe with different encoders, scored by source of the words.

    atm_phantom near --view 160 --patients 160 --seed 4100 && atm_prepare near cache --split 4:1:1
    python benchmarks/encoders.py cache out --encoders spine_bert_tiny,random --seeds 2 --steps 1000

`random` is a BERT of the size and with the tokenizer of spine_bert_tiny that was never trained; other names are those of `atm_train --encoder`. Resumable; out/table.md holds the table."""

import argparse
import os
import sys

os.environ.setdefault('HF_HUB_OFFLINE', '1')
from pathlib import Path

PROTOCOLS = ['self', 'generic', 'oracle-levels', 'oracle', 'shuffled']


def random_bert(folder):
    "An untrained BERT with the tokenizer of spine_bert_tiny, made once"
    import torch

    from atm_net.text import load_encoder
    from atm_net.spine_bert import spine_bert

    if (Path(folder) / 'config.json').exists():
        return str(folder)
    tok = load_encoder('spine_bert_tiny').tokenizer
    torch.manual_seed(0)
    spine_bert(len(tok)).save_pretrained(folder)
    tok.save_pretrained(folder)
    return str(folder)


def main():
    a = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a.add_argument('cache')
    a.add_argument('out', type=Path)
    a.add_argument(
        '--encoders',
        default='spine_bert_tiny,random',
        help='with commas; the first is the one that the others are held against',
    )
    a.add_argument('--seeds', type=int, default=2)
    a.add_argument('--steps', type=int, default=1000)
    a.add_argument('--batch', type=int, default=4)
    a.add_argument('--windows', type=int, default=96, help='px')
    args = a.parse_args()
    from atm_net.data import Cache
    from atm_net.show import table_md, write_text
    from atm_net.study import (
        Row,
        Run,
        cell_text,
        compare,
        difference_text,
        run_name,
        score_run,
        study_config,
        train_run,
    )

    cache, scores = Cache(args.cache), {}
    for seed in range(args.seeds):
        for name in (n.strip() for n in args.encoders.split(',')):
            encoder = random_bert(args.out / 'random_bert') if name == 'random' else name
            cfg = study_config(
                Row(name, dict(encoder=encoder, windows=(args.windows,))),
                'tiny',
                seed,
                steps=args.steps,
                batch=args.batch,
            )
            run = Run(run_name(cfg), cfg, ())
            folder = args.out / 'runs' / run.name
            print(f'{name}, seed {seed}: {folder}', file=sys.stderr)
            train_run(run, folder, cache)
            for q, s in score_run(run, folder, cache, PROTOCOLS, on='cache').items():
                scores.setdefault(q, {}).setdefault(name, {})[seed] = s
    rows = []
    for q, by in scores.items():
        for name, c in compare(by).items():
            rows.append(
                [
                    q,
                    name,
                    cell_text(c),
                    difference_text(c['difference'], args.seeds),
                    ', '.join(f'{v:.3f}' for v in c['values']),
                ]
            )
    text = (
        f'{args.steps} steps of {args.batch} windows of {args.windows} px, {len(cache.cases("test"))} test volumes; Dice by exact level, mean ± spread over seeds [95 % interval over patients]\n\n'
        + table_md(rows, ('words from', 'encoder', 'Dice', 'minus the first', 'by seed'))
    )
    write_text(args.out / 'table.md', text)
    print(text)


if __name__ == '__main__':
    main()
