"""The diagrams: `python docs/diagrams.py` -> nbs/images/NAME-light.svg and NAME-dark.svg."""

from pathlib import Path

import matplotlib

matplotlib.use('agg')

from atm_net.diagrams import write_diagrams

FOLDER = Path(__file__).parents[1] / 'nbs' / 'images'


def main():
    for path in write_diagrams(FOLDER):
        print(path.name, path.stat().st_size)


if __name__ == '__main__':
    main()
