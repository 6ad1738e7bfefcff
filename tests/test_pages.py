"Pages: read as a browser does, with every number in its place and nothing fetched"

import base64
import io
import re
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import close

from atm_net.anatomy import IGNORE, LUMBAR
from atm_net.cache import prepare
from atm_net.charts import protocol_bars
from atm_net.cli import run_command
from atm_net.cohort import open_cohort
from atm_net.core import InputError, read_json, write_json
from atm_net.evaluate import Entry
from atm_net.evaluation_tables import overall_rows, write_evaluation
from atm_net.grid import Grid
from atm_net.mask_scores import score
from atm_net.pages import (
    LIMIT,
    LIMITS,
    build_page,
    figures_html,
    image_html,
    provenance_html,
    section,
    slug,
    text_html,
)
from atm_net.phantom_cohort import write_cohort
from atm_net.report import (
    _drawn,
    atm_evaluate,
    demo_page,
    evaluation_report,
    headline,
    read_evaluation,
    worst_of,
    wrong_slice,
)
from atm_net.show import save_figure
from atm_net.weights import build_network, save_weights

joint = LUMBAR.scheme('joint')


class Reader(HTMLParser):
    "Text by tag, ids, links and pictures; raises on wrong nesting"

    def __init__(self, text):
        super().__init__()
        self.stack, self.text, self.ids, self.links, self.images = [], {}, [], [], []
        self.feed(text)
        assert not self.stack, self.stack

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids += [a['id']] if 'id' in a else []
        self.links += [a['href']] if 'href' in a else []
        self.images += [a['src']] if 'src' in a else []
        if tag not in ('meta', 'img', 'br', 'link'):
            self.stack.append(tag)
            self.text.setdefault(tag, []).append('')

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, f'{tag} closed out of order'

    def handle_data(self, data):
        for t in self.stack:
            self.text[t][-1] += data


def test_reader_fails_on_wrong_nesting():
    r = Reader('<p id="a">one <b>two</b></p><table><tr><td>3</td><td>4</td></tr></table>')
    assert (r.text['p'], r.text['td'], r.ids) == (['one two'], ['3', '4'], ['a'])
    with pytest.raises(AssertionError, match='out of order'):
        Reader('<p><b></p></b>')


def test_sections():
    r = Reader(
        section(
            'Dice, by structure',
            text_html('A prompt with `L4 < L5` & **more**.\n\nSecond.'),
            '<p>raw</p>',
        )
    )
    assert (r.ids, r.text['h2'], r.text['p']) == (
        ['dice-by-structure'],
        ['Dice, by structure'],
        ['A prompt with L4 < L5 & more.', 'Second.', 'raw'],
    )
    assert (r.text['code'], r.text['strong']) == (['L4 < L5'], ['more'])
    assert Reader(text_html(['a', 'b'])).text['p'] == ['a', 'b']
    assert text_html('') == ''
    assert [slug(t) for t in ('L4/L5: Größe', '§')] == ['l4-l5-gr-e', 'section']
    assert Reader(section('<b>', '')).text['h2'] == ['<b>']
    assert 'id="x"' in section('T', anchor='x')


def test_provenance():
    r = Reader(
        provenance_html(
            dict(
                weights=dict(steps=1500, dice=0.71234, note=None),
                seeds=[1, 2],
                commands=['make demo', 'atm_predict <scan> out/'],
                empty=None,
            )
        )
    )
    assert (r.text['dt'], r.text['dd']) == (
        ['weights', 'seeds', 'empty'],
        ['steps 1500; dice 0.712; note –', '1, 2', '–'],
    )
    assert r.text['pre'] == ['make demo\natm_predict <scan> out/']
    assert Reader(provenance_html(dict(commands='a\nb'))).text == {
        'p': ['To repeat it:'],
        'pre': ['a\nb'],
    }


def noise(seed, n=90):
    f, ax = plt.subplots(figsize=(3, 2))
    ax.imshow(np.random.default_rng(seed).random((n, n)), interpolation='nearest')
    plt.close(f)
    return f


def test_figures_within_a_budget(tmp_path):
    pair = [('one & two', noise(0)), ('three', noise(1))]
    fine, coarse = figures_html(pair, dpis=(130, 60)), figures_html(pair, dpis=(60,))

    def size(o):
        return sum(map(len, o))

    r = Reader(''.join(fine))
    assert (r.text['figcaption'], len(r.images)) == (['one & two', 'three'], 2)
    assert size(fine) > size(coarse)
    assert (
        figures_html(pair, budget=size(coarse) + 10, dpis=(130, 60)) == coarse
    )  # too large when fine: coarse
    with pytest.raises(InputError, match='leave some out'):
        figures_html(pair, budget=1000)
    assert figures_html([]) == []
    noise(2).savefig(tmp_path / 'a.png')
    (tmp_path / 'b.png').write_text('<svg/>', encoding='utf-8')
    r = Reader(image_html(tmp_path / 'a.png', 'a > b'))
    assert r.text['figcaption'] == ['a > b']
    assert base64.b64decode(r.images[0].split(',')[1]) == (tmp_path / 'a.png').read_bytes()
    for f, why in (('b.png', 'is no PNG'), ('c.png', 'cannot be read')):
        with pytest.raises(InputError, match=why):
            image_html(tmp_path / f)


def test_page():
    t = build_page(
        'A <page>',
        'One.\n\nTwo.',
        [('Figures', '<p>x</p>'), ('Tables & more', '<p>y</p>'), ('Figures', '<p>z</p>')],
    )
    r = Reader(t)
    assert r.links == ['#figures', '#tables-more', '#figures-2']
    assert r.ids == [link[1:] for link in r.links] + ['limits']  # every link has its target
    assert (r.text['h1'], r.text['h2']) == (['A <page>'], ['Figures', 'Tables & more', 'Figures'])
    assert LIMITS in r.text['p']
    assert [
        w for w in ('http://', 'https://', '<script', '@import', 'url(') if w in t
    ] == []  # nothing is fetched
    with pytest.raises(InputError, match='3 MB are allowed'):
        build_page('big', '', [('x', 'y' * LIMIT)])


def row(protocol, v, d, mask='no'):
    "A row of `overall_rows` in short"
    ci = dict(penalised_dsc=v, penalised_dsc_low=v - d, penalised_dsc_high=v + d)
    return dict(run='toy', protocol=protocol, reads_mask=mask) | ci


@pytest.fixture
def demo():
    "Panels and tables, two of them of one title"
    rows = [
        row('self', 0.71, 0.06),
        row('generic', 0.69, 0.05),
        row('oracle', 0.82, 0.04, 'this slice'),
    ]
    who = 'Who writes the prompt'
    panels = [
        ('One slice', 'Truth, and what the network found.', noise(1)),
        (who, 'Dice with 95 % interval; hatched bars read a true mask.', protocol_bars(rows)),
        ('By structure', 'Dice from head to feet.', noise(2)),
    ]
    lines = [[r['protocol'], r['penalised_dsc'], r['reads_mask']] for r in rows]
    note = 'Rows marked `this slice` read a prompt made from the **true mask**.'
    per = [['L3', 0.6], ['L4', 0.8], ['SC', None]]
    tables = [
        (who, lines, ['protocol', 'Dice', 'reads a true mask'], note),
        ('By structure', per, ['structure', 'Dice'], ''),
    ]
    return dict(lead=['First sentence.', 'Second.'], panels=panels, tables=tables)


def test_page_of_a_demo(demo, tmp_path):
    out = tmp_path / 'demo' / 'report.html'
    prov = dict(weights='toy', versions=dict(torch='2.13.0'), seed=0, commands=['make demo'])
    assert demo_page(out, provenance=prov, **demo) == out
    text = out.read_text(encoding='utf-8')
    r = Reader(text)
    assert r.text['h2'] == [
        'One slice',
        'Who writes the prompt',
        'By structure',
        'Where this came from',
    ]
    assert len(r.images) == 3
    assert all(i.startswith('data:image/png;base64,') for i in r.images)
    bars = r.text['section'][1]
    order = [bars.index(v) for v in ('true mask', 'hatched', 'oracle')]
    assert order == sorted(order)  # note, figure, table
    assert len(text) < 3_000_000
    assert r.text['td'][-2:] == ['SC', '–']
    assert [p.name for p in out.parent.iterdir()] == ['report.html']  # no half-written file


def test_another_order(demo, tmp_path):
    out = tmp_path / 'report.html'
    demo_page(out, provenance={}, order=['By structure', 'One slice'], **demo)
    heads = Reader(out.read_text(encoding='utf-8')).text['h2']
    assert heads[:3] == ['By structure', 'One slice', 'Who writes the prompt']
    with pytest.raises(InputError, match="section 'Nowhere'"):
        demo_page(out, provenance={}, order=['Nowhere'], **demo | dict(panels=[]))


lab = np.zeros((3, 40, 12), np.uint8)
for i, n in enumerate(('L3', 'L3/L4', 'L4', 'L4/L5', 'L5')):
    lab[:, i * 8 : i * 8 + 8, 2:9] = joint.channel(n)
off = lab.copy()
off[lab == joint.channel('L3')] = joint.channel('L2')
off[:, 39] = 0
good = lab.copy()
good[:, 39] = 0


def entry(protocol, preds):
    return Entry(
        'toy',
        protocol,
        scored={
            f'c{i}': score(p, lab, (4.0, 2.0, 1.5), joint, patient=f'P{i}')
            for i, p in enumerate(preds)
        },
    )


@pytest.fixture(scope='module')
def ev(tmp_path_factory):
    "An evaluation of three protocols on three volumes"
    ev = tmp_path_factory.mktemp('report') / 'evaluation'
    entries = [
        entry('self', [off, good, off]),
        entry('generic', [off, off, off]),
        entry('oracle', [good, lab, good]),
    ]
    more = dict(split='test', grid='source', cache='toy', runs=dict(toy='toy'), notes=[])
    write_evaluation(entries, ev, joint, info='3 volumes, a toy', **more)
    return ev


@pytest.fixture
def rows(ev):
    d, entries, sums = read_evaluation(ev)
    assert [e.name for e in entries] == ['toy: self', 'toy: generic', 'toy: oracle']
    return overall_rows(entries, sums)


def test_headline(rows):
    best = rows[0]
    assert best['protocol'] == 'self'
    assert f'**{best["penalised_dsc"]:.3f}** (95 % interval' in headline(rows)
    assert 'the same network gets' in headline(rows)
    assert headline(rows[2:]).startswith('Every row reads')
    # another network's oracle is no comparison
    assert 'true level names' not in headline([best | dict(run='plain', protocol='none'), rows[2]])


def test_files_that_are_no_evaluation(tmp_path):
    (tmp_path / 'evaluation.json').write_text('{"entries":[{"run":"x"}]}', encoding='utf-8')
    with pytest.raises(InputError, match="field 'summary' missing"):
        read_evaluation(tmp_path)
    with pytest.raises(InputError, match='evaluation.json'):
        read_evaluation(tmp_path / 'no')


def test_worst_cases():
    def rec(d, s='found'):
        return dict(dsc=d, status=s)

    w = worst_of(
        dict(
            a=dict(L4=rec(0.9), L5=rec(0.7)),
            b=dict(L4=rec(0.0, 'missed'), L5=rec(0.6)),
            c=dict(L4=rec(None, 'absent')),
            d=dict(L4=rec(0.8), L5=rec(0.0, 'false positive')),
        ),
        2,
    )
    assert [(c, m, i) for c, _, m, i in w] == [('b', ['L4'], []), ('d', [], ['L5'])]
    close([x[1] for x in w], [0.3, 0.4], 1e-12)
    t = np.zeros((3, 4, 5), np.uint8)
    t[1] = 3
    t[2] = IGNORE
    p = np.zeros_like(t)
    p[0, 0] = 1
    assert (wrong_slice(p, t), wrong_slice(t, t), wrong_slice(np.where(t == 3, 3, p), t)) == (
        1,
        0,
        0,
    )


@pytest.fixture(scope='module')
def figs(tmp_path_factory):
    "A folder of `atm_figures` with two pictures"
    figs = tmp_path_factory.mktemp('figures')
    names = ['tsne-toy-self.png', 'qualitative-worst-c0.png']
    for i, name in enumerate(names, 3):
        save_figure(noise(i), figs / name)
    write_json(figs / 'figures.json', dict(files=[names[0], 'tsne-toy-self.svg', names[1]]))
    return figs


def test_page_of_an_evaluation(ev, figs, rows):
    p = evaluation_report(
        ev, LUMBAR, figures=figs, provenance=dict(commands='atm_evaluate cache run')
    )
    assert p == ev / 'report.html'
    r = Reader(p.read_text(encoding='utf-8'))
    assert r.text['h2'] == [
        'Overall',
        'By structure',
        'Differences',
        'Cases',
        'Features',
        'All scores',
        'Where this came from',
    ]
    assert len(r.images) == 4
    assert [c.split('.')[0] for c in r.text['figcaption'][2:]] == [
        'qualitative-worst-c0',
        'tsne-toy-self',
    ]
    order = LUMBAR.order(('L2', 'L3', 'L3/L4', 'L4', 'L4/L5', 'L5'))
    assert [
        x.startswith(n) for x, n in zip([x for x in r.text['tr'] if x.startswith('L')], order)
    ] == [True] * 6  # head to feet
    assert (r.text['table'][0].count('toy'), len(r.text['summary'])) == (3, 3)
    assert f'{rows[0]["penalised_dsc"]:.3f}' in r.text['table'][0]
    assert 'atm_evaluate cache run' in r.text['pre']


def test_pictures_that_are_too_many(ev, figs):
    some = len(image_html(figs / 'qualitative-worst-c0.png')) + 400
    short = dict(_drawn(figs, some))
    assert short['Cases'].count('<img') == 1
    assert '1 more in' in short['Features']
    with pytest.raises(InputError, match=re.escape('figures.json')):
        evaluation_report(ev, LUMBAR, figures=ev)


@pytest.fixture(scope='module')
def kit(tmp_path_factory):
    "A small cohort, its cache, and a network without text"
    root = tmp_path_factory.mktemp('kit')
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        write_cohort(root / 'phantoms', 'folder', patients=3, seed=1)
        prepare(open_cohort(root / 'phantoms', LUMBAR), root / 'cache', Grid(spacing=6.0))
    save_weights(
        root / 'plain' / 'best.safetensors',
        build_network('swin_unetr', joint.channels),
        dict(
            network='swin_unetr',
            kwargs={},
            out_channels=joint.channels,
            feature_size=12,
            scheme='joint',
            values=dict(joint.values),
            grid=dict(spacing=6.0, size=None),
        ),
    )
    return root


def typed(*args):  # status, stderr of the command
    err = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(err):
        try:
            run_command(atm_evaluate.__wrapped__, [str(a) for a in args])
        except SystemExit as e:
            return e.code or 0, err.getvalue()
    return 0, err.getvalue()


def test_the_command(kit, figs):
    root = kit
    assert typed(root / 'cache', root / 'plain', '--figures', figs)[0] == 0
    r = Reader((root / 'plain' / 'evaluation' / 'report.html').read_text(encoding='utf-8'))
    assert (
        'Cases' in r.text['h2'],
        'Worst cases' in r.text['h2'],
        any('plain: none' in t for t in r.text['table']),
    ) == (True, True, True)
    ws = read_json(root / 'plain' / 'evaluation' / 'worst.json')
    assert (len(ws), ws[0]['entry'], (root / 'plain' / 'evaluation' / ws[0]['file']).is_file()) == (
        1,
        'plain: none',
        True,
    )
    assert (
        f'{ws[0]["case"]}: mean Dice {ws[0]["dice"]:.3f}' in ' '.join(r.text['figcaption'])
        and 'sha256' in ' '.join(r.text['dd'])
        and 'atm_evaluate' in r.text['pre'][0]
        and '--split test' in r.text['pre'][0]
    )
    for args, words in (
        ((root / 'cache',), 'runs'),
        ((root / 'cache', root / 'plain', '--figures', root), 'figures.json'),
    ):
        status, err = typed(*args)
        assert (status, len(err.splitlines()), words in err) == (2, 1, True)
