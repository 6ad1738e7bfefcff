"Diagrams: light and dark, readable on a telephone, and the files in the repository are theirs"

import re

import matplotlib.pyplot as plt
import pytest
from conftest import ROOT

from atm_net.diagrams import DARK, DIAGRAMS, LIGHT, WIDTH, write_diagrams

PHONE = 360  # px, width of the narrowest screen
LEAST = 8  # px, height of the smallest letters on it
FOLDER = ROOT / 'nbs' / 'images'


@pytest.fixture(params=[(n, dark) for n in DIAGRAMS for dark in (False, True)], ids=str)
def figure(request):
    name, dark = request.param
    fig = DIAGRAMS[name](dark=dark)
    yield fig, dark
    plt.close(fig)


def luminance(color: str) -> float:
    "Relative luminance of '#rrggbb' (WCAG 2)"
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    line = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * line[0] + 0.7152 * line[1] + 0.0722 * line[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_wcag():
    assert contrast('#000000', '#ffffff') == pytest.approx(21)
    assert contrast('#777777', '#ffffff') == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize('look', [LIGHT, DARK], ids=['light', 'dark'])
def test_letters_stand_out(look):
    "4.5 to 1, as WCAG asks, on every ground"
    grounds = [look[k] for k in ('paper', 'image', 'text', 'both', 'loss', 'plain')]
    assert min(contrast(look['ink'], g) for g in grounds) >= 4.5
    assert contrast(look['faint'], look['paper']) >= 4.5


def test_letters_are_large_and_inside(figure):
    fig, dark = figure
    assert fig.get_figwidth() == WIDTH
    assert fig.get_facecolor()[0] < 0.5 if dark else fig.get_facecolor()[0] == 1
    fig.draw_without_rendering()
    page = fig.bbox
    for t in fig.axes[0].texts:
        if not t.get_text():
            continue
        assert t.get_fontsize() * PHONE / (72 * WIDTH) >= LEAST, t.get_text()
        box = t.get_window_extent()
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1
        assert inside, f'{t.get_text()!r} leaves the page'


def test_files_are_the_diagrams(tmp_path):
    "`python docs/diagrams.py` was run; each file is light"
    for path in write_diagrams(tmp_path):
        kept = FOLDER / path.name
        assert kept.read_bytes() == path.read_bytes(), f'{path.name}: python docs/diagrams.py'
        assert kept.stat().st_size < 150_000
    linked = re.findall(r'nbs/images/([\w-]+\.svg)', (ROOT / 'README.md').read_text('utf-8'))
    assert {'network-light.svg', 'network-dark.svg'} <= {*linked}
