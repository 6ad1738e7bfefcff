"""The picture and the numbers of the README, from a demo that was run: `make front`.

`python docs/picture.py runs/demo` draws nbs/images/words.png, the opening of the demo's page, and
keeps its numbers in results/demo/found.json."""

import shutil
import sys
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use('agg')
import matplotlib.pyplot as plt
from PIL import Image

from atm_net.core import read_json
from atm_net.data import Cache
from atm_net.panels import answers, answers_figure, fullest
from atm_net.predict import load_predictor, weights_id

ROOT = Path(__file__).parents[1]
OUT = ROOT / 'nbs' / 'images' / 'words.png'
KEPT = ROOT / 'results' / 'demo' / 'found.json'


def levels_said(prompt, anatomy) -> str:
    "The part of a sentence that names vertebrae"
    named = [n for n in prompt.structures if n in anatomy.bodies]
    return f'“... it shows {", ".join(named)} ...”' if named else f'“{prompt}”'


def draw(demo: Path):  # -> Figure
    "The slice that the demo opens with, its answers, and what each of them read"
    predictor = load_predictor()
    s = fullest(Cache(demo / 'cache'), read_json(demo / 'found.json')['opening']['case'])
    found = answers(predictor, s)
    fig = answers_figure(s, predictor.scheme, found)
    for ax, a in zip(fig.axes[1:], found):
        text = textwrap.fill(levels_said(a.prompt, predictor.anatomy), 32)
        ax.set_xlabel(text, fontsize=10, loc='left')
    return fig


def main():
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / 'runs' / 'demo')
    weights = read_json(demo / 'found.json')['weights']
    if weights != weights_id()['sha256']:
        sys.exit(f'{demo}: was made with other weights than those that ship: run atm_demo again')
    fig = draw(demo)
    fig.savefig(OUT, dpi=130)
    plt.close(fig)
    picture = Image.open(OUT).convert('P', palette=Image.Palette.ADAPTIVE, colors=128)
    picture.save(OUT, optimize=True)
    KEPT.parent.mkdir(exist_ok=True)
    shutil.copy(demo / 'found.json', KEPT)
    print(OUT, OUT.stat().st_size)
    print(KEPT)


if __name__ == '__main__':
    main()
