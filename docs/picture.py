"""The picture of the README: `python docs/picture.py` -> nbs/images/words.png.

One phantom slice, the weights that ship, two sentences."""

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
QUESTION = (
    'Which vertebra is which? The image alone hardly says. '
    'A synthetic spine, which the network has not seen.'
)
BOX = dict(boxstyle='round,pad=.15', fc='w', ec='none', alpha=0.8)


def largest_piece(where):
    "Pixels of the largest connected piece of a mask, and its middle"
    pieces, _ = label(where)
    size = np.bincount(pieces.ravel())[1:]
    return size.max(), np.argwhere(pieces == size.argmax() + 1).mean(0)


def names_on(ax, labels, scheme, spacing, least=150):
    "Write the name of each vertebra and of the sacrum on its largest piece, from `least` mm2 on"
    for c in np.unique(labels[labels > 0]):
        name = scheme.names[c - 1]
        if '/' in name or name == 'SC':
            continue
        size, middle = largest_piece(labels == c)
        if size * spacing[0] * spacing[1] >= least:
            y, x = middle * spacing
            ax.text(x, y, name, ha='center', va='center', fontsize=10, weight='bold', bbox=BOX)


def note(fig, column, text, width):
    "A few lines of text below one of the three panels"
    wrapped = textwrap.fill(text, width)
    fig.text(0.005 + 0.333 * column, 0.17, wrapped, fontsize=9, va='top')


def sentences(truth, scheme, slices):
    "The title of a panel and its prompt: the true levels, and all one lower"
    right = atpg(truth, scheme, slices // 2, slices)
    edited = holistic(shift_levels(right.structures, 1, LUMBAR), LUMBAR, 3, right.position)
    return {'oracle, from the true mask': right, 'the same, one level lower': edited}


def show_result(ax, title, prompt, predictor, ready, scan):
    "The mask that the network makes of the middle slice under a prompt"
    volume = scan.volume
    k = len(ready.images) // 2
    mm = volume.spacing[1:]
    size = volume.shape[1:]
    mask = run_slice(predictor, ready.images[k], prompt, size, mm, ready.box)[0]
    overlay(volume.data[k], mask, predictor.scheme, ax, mm, ticks=False)
    names_on(ax, mask, predictor.scheme, mm)
    dice = np.mean([*slice_dice(mask, ready.truth[k], predictor.scheme, ready.known).values()])
    ax.set_title(f'{title}: Dice {dice:.2f}', fontsize=11)


def draw():
    "The slice, and what the network makes of it under each sentence"
    predictor = load_predictor()
    # the explorer's first case
    case = demo_cases(1, seed=33, slices=(9, 6.0), around=('T12', 'L3'))[0]
    scan = narrow(case, 150)
    ready = make_ready(predictor, scan)
    k = len(ready.images) // 2
    mm = scan.volume.spacing[1:]
    fig, axs = plt.subplots(1, 3, figsize=(9.6, 5.15))
    fig.subplots_adjust(left=0.005, right=0.995, top=0.94, bottom=0.185, wspace=0.02)
    show_slice(scan.volume.data[k], axs[0], mm, ticks=False)
    axs[0].set_title('a slice without the sacrum', fontsize=11)
    note(fig, 0, QUESTION, 44)
    prompts = sentences(ready.truth[k], predictor.scheme, len(ready.images))
    for i, (title, prompt) in enumerate(prompts.items(), 1):
        show_result(axs[i], title, prompt, predictor, ready, scan)
        bodies = [s for s in prompt.structures if LUMBAR[s].kind == 'vertebra']
        said = ', '.join(LUMBAR[b].phrase for b in bodies)
        note(fig, i, f'“... From superior to inferior it shows {said} ...”', 46)
    middle = np.argwhere(ready.truth[k] > 0)[:, 1].mean() * mm[1]
    for ax in axs:
        ax.set_xlim(middle - 62, middle + 48)
    return fig


def main():
    from PIL import Image

    fig = draw()
    OUT.parent.mkdir(exist_ok=True)
    fig.savefig(OUT, dpi=100)
    plt.close(fig)
    picture = Image.open(OUT).convert('P', palette=Image.Palette.ADAPTIVE, colors=128)
    picture.save(OUT, optimize=True)
    print(OUT, OUT.stat().st_size)


if __name__ == '__main__':
    main()
