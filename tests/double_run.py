"""A training run in float64, as one process or under torchrun (used by test_torchrun):
`double_run.py CACHE RUN BATCH STEPS [PARTS]`; goes on if RUN is there already"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from atm_net import trainer
from atm_net.config import PRESETS
from atm_net.train import train


class Doubles(trainer.SliceDataset):
    "Slices in float64"

    def __getitem__(self, key):
        d = super().__getitem__(key)
        return d | dict(image=d['image'].double())


class DoublePrompts(trainer.PromptBatcher):
    "Prompt features in float64"

    def holistic(self, batch):
        text = super().holistic(batch)
        return replace(text, states=text.states.double())


if __name__ == '__main__':
    cache, run, batch, steps, parts = (*sys.argv[1:], 1)[:5]
    torch.set_default_dtype(torch.float64)
    trainer.SliceDataset = Doubles
    trainer.PromptBatcher = DoublePrompts
    trainer.Trainer.validate = lambda self, log: {}  # validation is in float32
    cfg = replace(PRESETS['tiny'], batch=int(batch), steps=int(steps), warmup=0, plain=0.5)
    train(
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
