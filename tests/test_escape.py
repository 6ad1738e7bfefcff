"""Whatever a file, a run, a structure or a sentence is called: a page shows it and runs nothing"""

import ast
import csv
import json
import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from conftest import ROOT, call, done
from matplotlib.figure import Figure

from atm_net.anatomy import get_anatomy
from atm_net.demo import GrowingPage, next_html
from atm_net.exercises import Outcome
from atm_net.explorer_controls import card_html
from atm_net.explorer_pictures import change_html, picture_with_text, renamed_html, words_changed
from atm_net.pages import build_page, image_html, provenance_html, section, text_html
from atm_net.panels import marked_text
from atm_net.prompts import Prompt
from atm_net.report import demo_page
from atm_net.show import figure_html, legend_html, page, picture_html, table_html

EVIL = """<blink onclick=alert(1)>&"'`"""  # no '/', so that a file may have the name
TAG = '</title></style><script>alert(1)</script>' + EVIL


class Page(HTMLParser):
    "Elements, handlers and text of a page"

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.handlers, self.text = set(), [], ''
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.handlers += [k for k, _ in attrs if k.startswith('on')]

    def handle_data(self, data):
        self.text += data


def harmless(html: str, shown: str = EVIL) -> bool:
    "No element and no handler of the name; the name stands in the text, letter by letter"
    p = Page(html)
    assert not p.tags & {'blink', 'script'} and not p.handlers, (p.tags, p.handlers)
    return shown in p.text


def test_this_test_would_notice():
    with pytest.raises(AssertionError):
        harmless(f'<p>{EVIL}</p>')
    assert not harmless('<p></p>') and harmless(text_html(EVIL.replace('`', '')), EVIL[:-1])


def figure():
    "A figure that pyplot does not keep"
    return Figure(figsize=(0.3, 0.3))


ANATOMY = dict(
    name='evil',
    image='sagittal MRI',
    structures=[dict(name=EVIL, kind='vertebra', color='#0072B2')],
    top_down=[EVIL],
)


def prompt_of(names) -> Prompt:
    return Prompt(tuple(names), 1, None, False, TAG)


def test_parts_of_pages(tmp_path):
    "Each function that makes HTML from words"
    import numpy as np

    scheme = get_anatomy(ANATOMY).scheme('joint')
    rgb = np.zeros((2, 2, 3), np.uint8)
    fig = figure()
    fig.savefig(tmp_path / 'a.png')
    parts = (
        page(TAG, lead=TAG),
        section(TAG),
        provenance_html({TAG: TAG, 'd': {TAG: TAG}, 'commands': [TAG]}),
        provenance_html({'commands': TAG}),
        figure_html(fig, TAG),
        picture_html(rgb, TAG),
        image_html(tmp_path / 'a.png', TAG),
        legend_html(scheme),
        table_html([[TAG, 1.0]], [TAG, 'b']),
        build_page(TAG, TAG.replace('`', ''), [(TAG, '')]),
        words_changed('a b', TAG),
        words_changed(TAG, 'a b'),
        renamed_html([(TAG, EVIL, 3)]),
        change_html([(TAG, 0.1, 0.2, 0.1)]),
        card_html(TAG),
        picture_with_text(b'', TAG, TAG),
        Outcome(TAG, 'wrong', TAG)._repr_html_(),
        marked_text(prompt_of([EVIL]), [TAG]),
        marked_text(prompt_of([EVIL]), ['L4']),
    )
    for i, html in enumerate(parts):
        assert harmless(html, EVIL[:-1]), (i, html)


def test_pages_of_the_demo(tmp_path):
    lead = TAG.replace('`', '')
    panels = [(TAG, TAG, figure())]
    tables = [(TAG, [[TAG]], [TAG], lead)]
    made = demo_page(
        tmp_path / 'a.html', lead=lead, panels=panels, tables=tables, provenance={'x': TAG}
    )
    assert harmless(made.read_text(encoding='utf-8'))
    growing = GrowingPage(tmp_path / 'b.html', TAG, lead, [TAG, 'more'])
    (tmp_path / 'masks' / 'png').mkdir(parents=True)
    (tmp_path / 'masks' / 'png' / f'{EVIL}.png').touch()
    growing.add('more', text_html(lead))
    assert harmless(next_html(tmp_path))
    assert harmless((tmp_path / 'b.html').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def evil(slab, run, tmp_path_factory):
    "A cohort, a cache and a run in which everything has the name"
    home = tmp_path_factory.mktemp('evil')
    cohort = home / f'{EVIL}cohort'
    for f in [*slab.glob('images/*'), *slab.glob('masks/*')]:
        target = cohort / f.parent.name / f'{EVIL}{f.name}'
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(f, target)
    shutil.copy(slab / 'labels.yaml', cohort)
    with open(slab / 'cases.csv', newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    with open(cohort / 'cases.csv', 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(('case', 'patient'))
        writer.writerows((EVIL + r['case'], EVIL + r['patient']) for r in rows)
    shutil.copytree(run.path, home / f'{EVIL}run')
    return SimpleNamespace(home=home, cohort=cohort, run=home / f'{EVIL}run')


def test_audit_page(evil):
    spoilt = next(evil.cohort.glob('masks/*'))
    kept = spoilt.read_bytes()
    spoilt.write_bytes(b'broken')  # a problem is on the page, too
    out = evil.home / 'audit.html'
    done(call('atm_audit', evil.cohort, '--page', out))
    spoilt.write_bytes(kept)
    html = out.read_text(encoding='utf-8')
    assert harmless(html) and Page(html).text.count(EVIL) > 6


def test_evaluation_page(evil):
    "Cases, runs, notes and the command line"
    cache = evil.home / f'{EVIL}cache'
    done(call('atm_prepare', evil.cohort, cache, '--size', 64))
    out = evil.home / 'evaluation'
    drawn = evil.home / f'{EVIL}figures'
    drawn.mkdir()
    name = f'qualitative-{EVIL}.png'
    figure().savefig(drawn / name)
    (drawn / 'figures.json').write_text(json.dumps(dict(files=[name])), encoding='utf-8')
    args = ('--protocols', 'generic,oracle', '--grid', 'cache', '--out', out, '--figures', drawn)
    done(call('atm_evaluate', cache, evil.run, *args))
    html = (out / 'report.html').read_text(encoding='utf-8')
    assert harmless(html) and Page(html).text.count(EVIL) > 3


# functions that put values between tags: (module, function)
TRIED = {
    *(('audit_page', f) for f in ('_card', '_cases_html', '_list_html', '_there_html')),
    ('audit_page', 'audit_page'),
    *(('demo', f) for f in ('_link', 'next_html', '_worth_html')),
    ('exercises', '_repr_html_'),
    ('explorer', 'say'),  # in test_explorer
    ('explorer', '_changes'),
    ('explorer', '_names_said'),  # in test_explorer
    ('explorer_controls', '_repr_mimebundle_'),  # of two values that are HTML
    ('explorer_controls', 'card_html'),
    ('explorer_pictures', 'picture_with_text'),
    ('explorer_pictures', 'words_changed'),
    ('lesson_slides', '_drawn'),  # formulas of a lesson
    *(('pages', f) for f in ('text_html', 'section', 'provenance_html', 'image_html')),
    ('pages', 'build_page'),
    *(('panels', f) for f in ('marked_text', '_card', 'answer_cards')),
    *(('report', f) for f in ('_drawn', '_all_scores', '_configs')),
    *(('show', f) for f in ('_figure', 'legend_html', '_row_html', 'table_html', 'page')),
}
_TAG = re.compile(
    r'</?(p|b|i|a|div|span|td|th|tr|table|figure|h[1-6]|li|ul|details|summary|section|mark|ins|del'
    r'|br|dl|dd|dt|pre|nav|img|html|body|code|strong)[ >/]'
)


def makes_html(function: ast.FunctionDef) -> bool:
    "Does a function put values between tags?"
    for text in (n for n in ast.walk(function) if isinstance(n, ast.JoinedStr)):
        words = ''.join(str(v.value) for v in text.values if isinstance(v, ast.Constant))
        if _TAG.search(words) and any(isinstance(v, ast.FormattedValue) for v in text.values):
            return True
    return False


def test_whoever_makes_html_is_tried():
    "A new function of this kind is entered above, with a test in this file"
    found = set()
    for f in (ROOT / 'atm_net').glob('*.py'):
        tree = ast.parse(f.read_text(encoding='utf-8'))
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        found |= {(f.stem, n.name) for n in functions if makes_html(n)}
    assert found == TRIED
