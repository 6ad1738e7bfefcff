"The page of an evaluation and the figures, as files"

import json
import re
from html.parser import HTMLParser

import pytest
from conftest import call, done


class Sources(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.heads, self._in = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [v for k, v in attrs if k in ('src', 'href')]
        self._in = tag == 'h2'

    def handle_data(self, data):
        self.heads += [data] if self._in else []

    def handle_endtag(self, tag):
        self._in = False


@pytest.fixture(scope='module')
def figures(cache, run, tmp_path_factory):
    "A folder of figures of one case"
    out = tmp_path_factory.mktemp('figures')
    options = ['--protocols', 'generic', '--cases', 1, '--slices', 6, '--perplexity', 5]
    done(call('atm_figures', cache, run.path, *options, '--out', out))
    return out


@pytest.fixture(scope='module')
def evaluation(cache, run, figures, tmp_path_factory):
    "An evaluation of the same run, with those figures"
    out = tmp_path_factory.mktemp('evaluation')
    options = ['--protocols', 'generic,oracle', '--grid', 'cache', '--figures', figures]
    done(call('atm_evaluate', cache, run.path, *options, '--out', out))
    return out


def test_every_figure_is_there_in_two_formats(figures):
    files = json.loads((figures / 'figures.json').read_text(encoding='utf-8'))['files']
    kinds = 'qualitative words confusion levels size calibration tsne curves'
    assert {f.split('-')[0] for f in files} == set(kinds.split())
    svg = [f for f in files if f.endswith('.svg')]
    assert [f for f in files if f.endswith('.png')] == [f.replace('.svg', '.png') for f in svg]
    assert any(f.startswith('tsne-seeds') for f in files)


def test_one_page_with_all_in_it(evaluation):
    """One file below 3 MB, nothing fetched, with worst cases, configuration and provenance"""
    page = (evaluation / 'report.html').read_text(encoding='utf-8')
    s = Sources(page)
    assert len(page.encode()) < 3_000_000 and '<script' not in page
    assert all(v.startswith(('data:image/', '#')) for v in s.found)
    assert {
        'Overall',
        'By structure',
        'Worst cases',
        'Configuration',
        'Where this came from',
        'By size',
        'Is its confidence right?',
    } <= set(s.heads)
    worst = json.loads((evaluation / 'worst.json').read_text(encoding='utf-8'))
    assert worst[0]['entry'] == 'run: generic', 'worst cases are of the row that reads no mask'


def test_tables_in_tex(evaluation):
    "Six whole tables, each row as wide as its head; no number of the paper beside other data"
    tex = (evaluation / 'tables.tex').read_text(encoding='utf-8')
    page = (evaluation / 'report.html').read_text(encoding='utf-8')
    assert tex.count(r'\begin{tabular}') == tex.count(r'\end{tabular}') == 6
    assert "paper's own" not in tex + page
    blocks = re.findall(r'\\begin\{tabular\}\{(l r*|lr*)\}(.*?)\\end\{tabular\}', tex, re.S)
    for columns, body in blocks:
        rows = [line for line in body.splitlines() if line.endswith(r'\\')]
        assert {line.count(' & ') + 1 for line in rows} == {len(columns)}


def test_study_plan(cache, tmp_path):
    "What a study costs, before it begins"
    r = done(
        call(
            'atm_study',
            'table4,table5',
            cache,
            tmp_path / 's',
            '--seeds',
            3,
            '--steps',
            100,
            '--plain',
            0.5,
            '--plan',
        )
    )
    assert (
        '18 runs, 1050 steps; without sharing 1800.' in r.out
        and r.out.count('shared plain stage') == 3
        and not (tmp_path / 's').exists()
    )
