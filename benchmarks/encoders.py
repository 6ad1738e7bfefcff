"""What the text encoder is worth: one network and recipe with different encoders.

    atm_phantom near --view 160 --patients 160 --seed 4100
    atm_prepare near cache --split 4:1:1
    python benchmarks/encoders.py cache out --encoders spine_bert_tiny,random --seeds 2 --steps 1000

Scores are given by source of the words. `random` is a BERT of the size and with the tokenizer of
spine_bert_tiny that was never trained; other names are those of `atm_train --encoder`. Resumable;
out/table.md holds the table."""

import argparse
import os
import sys

os.environ.setdefault('HF_HUB_OFFLINE', '1')
from pathlib import Path

PROTOCOLS = ['self', 'generic', 'oracle-levels', 'oracle', 'shuffled']


CLINICAL_BERT = dict(  # the shape of Bio-ClinicalBERT, for `random_bert`
    vocab_size=28996,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=512,
)


def random_bert(folder, shape=None):  # shape: of `BertConfig`; None: that of spine_bert_tiny
    "An untrained BERT with the tokenizer of spine_bert_tiny, made once"
    import torch
    from transformers import BertConfig, BertModel

    from atm_net.spine_bert import spine_bert
    from atm_net.text import load_encoder

    if (Path(folder) / 'config.json').exists():
        return str(folder)
    tok = load_encoder('spine_bert_tiny').tokenizer
    torch.manual_seed(0)
    bert = BertModel(BertConfig(**shape)) if shape else spine_bert(len(tok))
    bert.save_pretrained(folder)
    tok.save_pretrained(folder)
    return str(folder)


def arguments():
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
    return a.parse_args()


def trained_scores(args, cache, name, seed) -> dict:  # protocol -> `Scores`
    "One run with an encoder, and its scores"
    from atm_net.study_grid import Row, Run, run_name, study_config
    from atm_net.study_runs import score_run, train_run

    encoder = random_bert(args.out / 'random_bert') if name == 'random' else name
    row = Row(name, dict(encoder=encoder, windows=(args.windows,)))
    cfg = study_config(row, 'tiny', seed, steps=args.steps, batch=args.batch)
    run = Run(run_name(cfg), cfg, ())
    folder = args.out / 'runs' / run.name
    print(f'{name}, seed {seed}: {folder}', file=sys.stderr)
    train_run(run, folder, cache)
    return score_run(run, folder, cache, PROTOCOLS, on='cache')


def table(scores, seeds) -> str:
    "Markdown: a row for each protocol and encoder"
    from atm_net.show import table_md
    from atm_net.study_scores import cell_text, compare, difference_text

    rows = []
    for protocol, by_encoder in scores.items():
        for name, c in compare(by_encoder).items():
            values = ', '.join(f'{v:.3f}' for v in c['values'])
            difference = difference_text(c['difference'], seeds)
            rows.append([protocol, name, cell_text(c), difference, values])
    return table_md(rows, ('words from', 'encoder', 'Dice', 'minus the first', 'by seed'))


def main():
    args = arguments()
    from atm_net.core import write_text
    from atm_net.data import Cache

    cache = Cache(args.cache)
    scores = {}
    for seed in range(args.seeds):
        for name in (n.strip() for n in args.encoders.split(',')):
            for protocol, s in trained_scores(args, cache, name, seed).items():
                scores.setdefault(protocol, {}).setdefault(name, {})[seed] = s
    how = f'{args.steps} steps of {args.batch} windows of {args.windows} px'
    what = f'{len(cache.cases("test"))} test volumes; Dice by exact level'
    spread = 'mean ± spread over seeds [95 % interval over patients]'
    text = f'{how}, {what}, {spread}\n\n{table(scores, args.seeds)}'
    write_text(args.out / 'table.md', text)
    print(text)


if __name__ == '__main__':
    main()
