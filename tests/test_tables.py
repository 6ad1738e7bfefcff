"Tables by structure hold every structure of the run's own anatomy, in its order from head to feet"

from types import SimpleNamespace

import numpy as np
import pytest

from atm_net import evaluation_tables
from atm_net.anatomy import get_anatomy
from atm_net.evaluate import Entry
from atm_net.evaluation_tables import (
    dsc_by_structure,
    evaluate_into,
    form_structures,
    form_tables,
    overall_rows,
    structure_table,
)
from atm_net.mask_scores import collect, score, structure_rows
from atm_net.metrics import METRICS
from atm_net.show import read_rows
from atm_net.study_grid import grid
from atm_net.study_scores import Scores
from atm_net.study_tables import form_files, study_tables

CHEST = get_anatomy('thoracic')
SCHEME = CHEST.scheme('joint')
DICE = {n: (i + 1) / 20 for i, n in enumerate(CHEST.top_down)}  # .05 for T7 to .65 for the canal
MEAN = 100 * sum(DICE.values()) / 13


def entries():
    "One run under one protocol: two volumes, in which all 13 structures are found"
    shape = (3, 4, 5)
    truth = np.resize(np.arange(1, 14, dtype=np.uint8), shape)
    scored = {
        f'c{i}': score(truth, truth, (4.0, 2.0, 1.5), SCHEME, patient=f'P{i}') for i in range(2)
    }
    for s in scored.values():
        for name, record in s.exact.items():
            record['dsc'] = DICE[name]
    return [Entry('toy', 'generic', scored=scored)]


def check(rows):
    "Name and per cent of a table in the form of the paper's Table 3"
    assert [r[0] for r in rows] == [*CHEST.top_down, 'mean']
    numbers = [float(r[1]) for r in rows]
    assert numbers == pytest.approx([*(100 * DICE[n] for n in CHEST.top_down), MEAN], abs=0.01)


def test_form_of_structures():
    rows, header = form_structures({'toy': DICE}, CHEST)
    assert header == ['structure', 'toy']
    check(rows)


def test_tables_of_an_evaluation():
    runs = entries()
    sums = [collect(e.scored, n=20) for e in runs]
    rows = overall_rows(runs, sums)
    forms = {name: table for name, _, table, _ in form_tables(runs, rows, sums, anatomy=CHEST)}
    check(forms['structures-generic'])
    assert sorted(r[0] for r in dsc_by_structure(runs, sums)[0]) == sorted(CHEST.names)
    assert len(structure_rows(sums[0]['exact']['penalised'])) == 13 + 1
    assert len(structure_table(runs, sums)) == 2 * 13


PREDICTOR = SimpleNamespace(meta=dict(network='atm_net', kwargs={}))


def test_evaluation_of_a_cache(monkeypatch, tmp_path):
    "`evaluate_into` goes by the anatomy of the cache"
    cache = SimpleNamespace(
        anatomy=CHEST,
        scheme=SCHEME,
        manifest=dict(layout='folder', root=str(tmp_path)),
    )
    monkeypatch.setattr(evaluation_tables, 'Cache', lambda path: cache)
    monkeypatch.setattr(evaluation_tables, 'evaluate_runs', lambda *a: (entries(), []))
    monkeypatch.setattr(evaluation_tables, 'load_predictor', lambda *a, **k: PREDICTOR)
    monkeypatch.setattr(evaluation_tables, 'weights_id', lambda path: {})
    out, text = evaluate_into('cache', [tmp_path / 'toy'], 'generic', tmp_path / 'out')
    table = [r for r in read_rows(out / 'tables.csv') if r['table'] == 'structures-generic']
    check([(r['method'], r['value']) for r in table])
    assert all(f'\n| {n} | {100 * DICE[n]:.2f} |' in text for n in CHEST.names)


def test_tables_of_a_study():
    "Table 3 of each row has all structures, with every network of the study"
    record = dict.fromkeys((*METRICS, 'hd95_px_found', 'asd_px_found')) | dict(status='found')
    volumes = {
        f'c{i}': {n: record | dict(dsc=DICE[n], jaccard=DICE[n]) for n in CHEST.names}
        for i in range(2)
    }
    scores = Scores(volumes, {i: i for i in volumes}, {})
    runs = grid('table4')
    results = {r.name: dict(self=scores, none=scores) for r in runs}
    tables = study_tables(['table4'], runs, results, ['self'], 1)
    files = form_files(runs, results, tables, seeds=1, anatomy=CHEST)
    _, rows, header = files['table4-structures-self'][0]
    assert header == ['structure', 'neither', 'CCAE', 'HASF', 'HASF and CCAE']
    check(rows)
    assert all(len(set(r[1:])) == 1 for r in rows)
