"The picture of the README: `python docs/picture.py` -> nbs/images/words.png. One phantom slice, the weights that ship, two sentences"

import textwrap
from pathlib import Path

import matplotlib

matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import label

from atm_net.anatomy import LUMBAR
from atm_net.explorer import demo_cases, make_ready, narrow, run_slice, slice_dice
from atm_net.predict import load_predictor
from atm_net.prompts import atpg, holistic, shift_levels
from atm_net.show import overlay, show_slice

OUT = Path(__file__).parents[1] / 'nbs' / 'images' / 'words.png'


def names_on(ax, labels, scheme, spacing, least=150):
    "Write the name of each vertebra and of the sacrum on its largest piece"
    for c in np.unique(labels[labels > 0]):
        name = scheme.names[c - 1]
        pieces, n = label(labels == c)
        if '/' in name or name == 'SC':
            continue
        size = np.bincount(pieces.ravel())[1:]
        at = np.argwhere(pieces == size.argmax() + 1).mean(0) * spacing
        if size.max() * spacing[0] * spacing[1] >= least:
            ax.text(
                at[1],
                at[0],
                name,
                ha='center',
                va='center',
                fontsize=10,
                weight='bold',
                bbox=dict(boxstyle='round,pad=.15', fc='w', ec='none', alpha=0.8),
            )


def draw():
    "The slice, and what the network makes of it under each sentence"
    predictor = load_predictor()
    scan = narrow(
        demo_cases(1, seed=33, slices=(9, 6.0), around=('T12', 'L3'))[0], 150
    )  # the explorer's first case
    ready = make_ready(predictor, scan)
    v = scan.volume
    k = len(ready.images) // 2
    mm = v.spacing[1:]
    right = atpg(ready.truth[k], predictor.scheme, k, len(ready.images))
    edited = holistic(shift_levels(right.structures, 1), 3, right.position)
    fig, axs = plt.subplots(1, 3, figsize=(9.6, 5.15))
    fig.subplots_adjust(left=0.005, right=0.995, top=0.94, bottom=0.185, wspace=0.02)
    show_slice(v.data[k], axs[0], mm, ticks=False)
    axs[0].set_title('a slice without the sacrum', fontsize=11)
    fig.text(
        0.005,
        0.17,
        textwrap.fill(
            'Which vertebra is which? The picture alone hardly says. A synthetic spine, which the network has not seen.',
            44,
        ),
        fontsize=9,
        va='top',
    )
    for i, (title, sentence) in enumerate(
        {'oracle, from the true mask': right, 'the same, one level lower': edited}.items(), 1
    ):
        m = run_slice(predictor, ready.images[k], sentence, v.shape[1:], mm, ready.box)[0]
        overlay(v.data[k], m, predictor.scheme, axs[i], mm, ticks=False)
        names_on(axs[i], m, predictor.scheme, mm)
        dice = np.mean([*slice_dice(m, ready.truth[k], predictor.scheme, ready.known).values()])
        axs[i].set_title(f'{title}: Dice {dice:.2f}', fontsize=11)
        bodies = [s for s in sentence.structures if LUMBAR[s].kind == 'vertebra']
        fig.text(
            0.005 + 0.333 * i,
            0.17,
            textwrap.fill(
                f'“... From superior to inferior it shows {", ".join(LUMBAR[b].phrase for b in bodies)} ...”',
                46,
            ),
            fontsize=9,
            va='top',
        )
    at = np.argwhere(ready.truth[k] > 0)[:, 1].mean() * mm[1]
    for ax in axs:
        ax.set_xlim(at - 62, at + 48)
    return fig


if __name__ == '__main__':
    fig = draw()
    OUT.parent.mkdir(exist_ok=True)
    fig.savefig(OUT, dpi=100)
    plt.close(fig)
    from PIL import Image

    Image.open(OUT).convert('P', palette=Image.Palette.ADAPTIVE, colors=128).save(
        OUT, optimize=True
    )
    print(OUT, OUT.stat().st_size)
