"The page of an evaluation and the figures, as files"

import json
import re
from html.parser import HTMLParser

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


def test_one_page_with_all_in_it(cache, run, tmp_path):
    """Figures, then the evaluation: one file below 3 MB, nothing fetched, with worst cases,
    configuration and provenance"""
    done(
        call(
            'atm_figures',
            cache,
            run.path,
            '--protocols',
            'generic',
            '--cases',
            1,
            '--slices',
            6,
            '--perplexity',
            5,
            '--out',
            tmp_path / 'f',
        )
    )
    d = json.loads((tmp_path / 'f' / 'figures.json').read_text(encoding='utf-8'))
    assert {f.split('-')[0] for f in d['files']} == {
        'qualitative',
        'words',
        'confusion',
        'levels',
        'size',
        'calibration',
        'tsne',
        'curves',
    }
    assert [f for f in d['files'] if f.endswith('.png')] == [
        f.replace('.svg', '.png') for f in d['files'] if f.endswith('.svg')
    ] and any(f.startswith('tsne-seeds') for f in d['files'])
    done(
        call(
            'atm_evaluate',
            cache,
            run.path,
            '--protocols',
            'generic,oracle',
            '--grid',
            'cache',
            '--figures',
            tmp_path / 'f',
            '--out',
            tmp_path / 'e',
        )
    )
    page = (tmp_path / 'e' / 'report.html').read_text(encoding='utf-8')
    s = Sources(page)
    assert (
        len(page.encode()) < 3_000_000
        and all(v.startswith(('data:image/', '#')) for v in s.found)
        and '<script' not in page
    )
    assert {
        'Overall',
        'By structure',
        'Worst cases',
        'Configuration',
        'Where this came from',
        'By size',
        'Is it sure?',
    } <= set(s.heads)
    assert (
        json.loads((tmp_path / 'e' / 'worst.json').read_text(encoding='utf-8'))[0]['entry']
        == 'run: generic'
    ), 'worst cases are those of the row that reads no mask'
    tex = (tmp_path / 'e' / 'tables.tex').read_text(encoding='utf-8')
    assert (
        tex.count(r'\begin{tabular}') == tex.count(r'\end{tabular}') == 6
        and "paper's own" not in tex + page
    )
    for block in re.findall(r'\\begin\{tabular\}\{(l r*|lr*)\}(.*?)\\end\{tabular\}', tex, re.S):
        assert {
            line.count(' & ') + 1 for line in block[1].splitlines() if line.endswith(r'\\')
        } == {len(block[0])}


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
