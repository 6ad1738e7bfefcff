"""A training run in float64, as one process or under torchrun (used by test_torchrun):
`double_run.py CACHE RUN BATCH STEPS [PARTS]`; goes on if RUN is there already"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from atm_net import train as T


class Doubles(T.SliceDataset):
    "Slices in float64"

    def __getitem__(self, key):
        d = super().__getitem__(key)
        return d | dict(image=d['image'].double())


class DoubleWords(T.Words):
    "Prompt features in float64"

    def holistic(self, batch):
        g, mask = super().holistic(batch)
        return g.double(), mask


if __name__ == '__main__':
    cache, run, batch, steps, parts = (*sys.argv[1:], 1)[:5]
    torch.set_default_dtype(torch.float64)
    T.SliceDataset, T.Words = Doubles, DoubleWords
    T.Trainer.validate = lambda self, log: {}  # validation is in float32
    cfg = replace(T.PRESETS['tiny'], batch=int(batch), steps=int(steps), warmup=0, plain=0.5)
    T.train(
        cache,
        run,
        cfg,
        resume=Path(run).exists(),
        device='cpu',
        every=1,
        val_every=int(steps),
        save_every=2,
        accumulate=int(parts),
    )
