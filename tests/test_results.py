"results/: each page says what its study.json says, and the verdicts follow from the intervals"

import copy
import runpy
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from atm_net.config import Config
from atm_net.core import read_json
from atm_net.study import study_markdown
from atm_net.study_grid import Run
from atm_net.study_scores import BY_CONSTRUCTION
from atm_net.study_tables import label_rows, verdict

HOME = Path(__file__).parents[1]
RESULTS = HOME / 'results'
STUDIES = sorted(RESULTS.glob('*/study.json'))


def test_there_are_results():
    assert {f.parent.name for f in STUDIES} == {'ablation', 'networks', 'readings'}


def test_the_site_has_them_all():
    pages = runpy.run_path(str(HOME / 'docs' / 'build.py'))
    assert {f'results/{f.parent.name}/study.md' for f in STUDIES} == set(pages['STUDIES']) and set(
        pages['STUDIES']
    ) < set(pages['TEXTS'])


@pytest.mark.parametrize('f', STUDIES, ids=lambda f: f.parent.name)
def test_a_page_is_what_its_json_says(f):
    d = read_json(f)
    assert (f.parent / 'study.md').read_text(encoding='utf-8') == study_markdown(d)
    assert not d['failed'] and all(
        'evaluate' in r['seconds'] and min(r['seconds'].values()) > 0 for r in d['runs'].values()
    )  # a training that `atm_train` made has no time there
    claims = [c for qs in d['claims'].values() for cs in qs.values() for c in cs]
    assert all(c['verdict'] in (verdict(c['difference']), BY_CONSTRUCTION) for c in claims)


def labelled_again(d: dict) -> tuple:  # tables, claims
    "Those of a study.json, labelled by the configurations that lie there"
    d = copy.deepcopy(d)
    known = {f.name for f in fields(Config)}
    runs = []
    for name, r in d['runs'].items():
        cfg = Config(**{k: v for k, v in r['config'].items() if k in known})
        runs.append(Run(name, cfg, tuple(map(tuple, r['rows']))))
    label_rows(d['tables'], d['claims'], runs)
    return d['tables'], d['claims']


def rows_of(tables: dict) -> list:
    return [r for by_protocol in tables.values() for rows in by_protocol.values() for r in rows]


@pytest.mark.parametrize('f', STUDIES, ids=lambda f: f.parent.name)
def test_what_is_true_by_construction_is_marked(f):
    "By the configurations of the runs; and there the scores are the same to the last bit"
    d = read_json(f)
    tables, claims = labelled_again(d)
    marks, again = (
        [r.get('by_construction', False) for r in rows_of(t)] for t in (d['tables'], tables)
    )
    assert (marks, d['claims']) == (again, claims)
    marked = [r for r in rows_of(d['tables']) if r.get('by_construction')]
    assert bool(marked) == (f.parent.name == 'readings')
    same = dict(mean=0.0, low=0.0, high=0.0)
    for r in marked:
        d = r['scores']['penalised']['dsc']['difference']
        assert {k: d[k] for k in same} == same


@pytest.mark.parametrize('f', STUDIES, ids=lambda f: f.parent.name)
def test_results_are_small_and_name_no_machine(f):
    "A study's numbers travel; its folders do not"
    d = read_json(f)
    assert not Path(d['cache']).is_absolute() and all('/' not in w for w in d['runs'])
    assert sum(p.stat().st_size for p in f.parent.rglob('*') if p.is_file()) < 2e6


TEXT_USED, PAGE = (
    runpy.run_path(str(HOME / 'benchmarks' / 'text_used.py')),
    (HOME / 'benchmarks' / 'README.md').read_text(encoding='utf-8'),
)


def table_again(folder, out):
    """The table that follows from the scores in a folder of results, which is the one that lies
    beside them"""
    shutil.copy(folder / 'scores.json', out)
    text = TEXT_USED['write_table'](out)
    assert text == (folder / 'table.md').read_text(encoding='utf-8')
    return text


def cells(text, name):
    return [
        [c.strip() for c in line.split('|')]
        for line in text.splitlines()
        if line.startswith(f'| {name} |')
    ]


def test_the_table_of_texts_is_what_its_scores_say(tmp_path):
    """results/text_used: the table follows from the scores that lie beside it, and its numbers
    are what the page of benchmarks quotes"""
    for folder, name in (('.', 'two decoders'), ('one_decoder', 'one decoder')):
        rows = [
            line
            for line in table_again(RESULTS / 'text_used' / folder, tmp_path).splitlines()
            if line.startswith(
                ('| plain |', f'| {name} |', '| with the sacrum |', '| without it |')
            )
        ]
        assert len(rows) == 6 and all(line in PAGE for line in rows)


def test_without_words_two_decoders_are_the_plain_network():
    """The page says so of networks that were trained apart: the Dice of each volume and
    structure is the same, and with words it is not"""
    runs = read_json(RESULTS / 'text_used' / 'scores.json')['runs']
    assert set(runs['two decoders']) == set(runs['plain']) == {'0', '1', '2'}
    for seed, plain in runs['plain'].items():
        two = runs['two decoders'][seed]['dice']
        assert two['generic'] == plain['dice']['none'] != two['oracle']


def test_the_held_out_tables_are_what_their_scores_say(tmp_path):
    halves, fresh, ships = (
        ('in the field of view', 'outside the field of view'),
        table_again(RESULTS / 'text_used' / 'fresh', tmp_path),
        table_again(RESULTS / 'text_used' / 'shipped', tmp_path),
    )
    for half, plain, tiny in zip(
        halves, cells(fresh, 'plain'), cells(fresh, 'one decoder'), strict=True
    ):
        assert f'| {half} | ' + ' | '.join([plain[3], *tiny[4:-1]]) + ' |' in PAGE
    for half, row in zip(halves, cells(ships, 'atm_net_tiny'), strict=True):
        assert f'| {half} | ' + ' | '.join(row[4:-2]) + ' |' in PAGE


def test_the_card_is_of_the_weights_that_ship():
    """Hash, size and number of parameters in the card are those of the file, which is as small
    as promised"""
    import hashlib

    from atm_net.predict import SHIPPED, load_predictor

    card = (SHIPPED.parent / 'README.md').read_text(encoding='utf-8')
    size = SHIPPED.stat().st_size
    n = sum(p.numel() for p in load_predictor().model.parameters())
    assert (
        hashlib.sha256(SHIPPED.read_bytes()).hexdigest() in card
        and f'{size / 1e6:.1f} MB' in card
        and f'{n / 1e6:.2f} million parameters' in card
        and size < 8e6
    )


def test_an_interval_that_draws_seeds_is_wider_where_they_differ():
    """By hand: one structure, patients alike, seeds .2 apart: .1 for certain where both columns
    are of the same networks, -.1 to .1 where one is of its own"""
    patients = dict(v1='a', v2='b', v3='c')

    def col(*ds):
        return {
            s: TEXT_USED['long']({v: dict(L3=d) for v in patients}, patients)
            for s, d in enumerate(ds)
        }

    drawn = TEXT_USED['seeds_drawn']
    same, own = drawn(col(0.4, 0.6), col(0.3, 0.5)), drawn(col(0.4, 0.6), col(0.5, 0.5), False)
    assert (
        same == pytest.approx((0.1, 0.1))
        and own == pytest.approx((-0.1, 0.1))
        and drawn(col(0.4), col(0.3)) is None
    )


def test_the_table_of_interpretations_is_what_was_measured():
    "results/README quotes Dice and difference of each interpretation that is not the preset's"
    tables = read_json(RESULTS / 'readings' / 'study.json')['tables']['readings']
    page = (RESULTS / 'README.md').read_text(encoding='utf-8')

    def row(q, n):
        found = next(r for r in tables[q] if r['method'] == n)
        return found['scores']['penalised']['dsc']

    preset = 'words in order'

    def seeds(form, values):
        return ', '.join(f'{100 * v:{form}}' for v in values)

    def beside(column, other):
        d = column['difference']
        apart = [a - b for a, b in zip(column['values'], other['values'], strict=True)]
        low_high = f'[{100 * d["low"]:+.1f}, {100 * d["high"]:+.1f}]'
        change = f'{100 * d["mean"]:+.1f} {low_high} ({seeds("+.1f", apart)})'
        return f'{100 * column["mean"]:.1f}, {change}'

    own = [row(q, preset) for q in ('generic', 'oracle')]
    quoted = [f'{100 * c["mean"]:.1f} ({seeds(".1f", c["values"])})' for c in own]
    assert ' and '.join(quoted) in page
    for n in (
        'plain decoder',
        'grid contrast',
        'sigmoid focal',
        'words, 2d',
        'mixed keys, 2d',
        'mixed keys, 1d',
        'exact attention',
    ):
        shown = ' | '.join(beside(row(q, n), row(q, preset)) for q in ('generic', 'oracle'))
        lines = [text for text in page.splitlines() if text.startswith(f'| {n} in place of ')]
        assert any(text.endswith(f' | {shown} |') for text in lines), n


def test_without_words_their_interpretation_changes_nothing():
    """Three seeds, each trained by itself: keys, code, attention and contrast meet the words
    alone"""
    rows = {
        r['method']: r['scores']['penalised']
        for r in read_json(RESULTS / 'readings' / 'study.json')['tables']['readings']['generic']
    }
    for n in ('grid contrast', 'words, 2d', 'mixed keys, 2d', 'mixed keys, 1d', 'exact attention'):
        assert rows[n]['dsc']['values'] == rows['words in order']['dsc']['values']
    assert (
        rows['plain decoder']['dsc']['values']
        != rows['words in order']['dsc']['values']
        != rows['sigmoid focal']['dsc']['values']
    )


def test_the_tables_of_recipes_are_what_their_scores_say(monkeypatch):
    "results/lists/acts: both tables of the page follow from the scores"
    monkeypatch.syspath_prepend(str(HOME / 'benchmarks'))
    import lists_act

    page = (RESULTS / 'README.md').read_text(encoding='utf-8')
    result = read_json(RESULTS / 'lists' / 'acts' / 'scores.json')
    for half in lists_act.HALVES:
        assert lists_act.short_table(result, half).strip() in page


def test_the_default_prompt_is_the_one_that_was_not_beaten():
    "The rule: generic, unless self wins on 60 fresh phantoms"
    from atm_net.protocols import choose_protocol

    found = read_json(RESULTS / 'self_or_generic.json')
    wins = found['self_minus_generic']['low'] > 0
    assert choose_protocol(True) == ('self' if wins else 'generic')
    page = (RESULTS / 'README.md').read_text(encoding='utf-8')
    for name, d in found['dice'].items():
        assert f'| `{name}` | {d["mean"]} [{d["low"]}, {d["high"]}] |' in page
