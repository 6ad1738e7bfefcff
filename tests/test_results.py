"results/: each page says what its study.json says, and the verdicts follow from the intervals"
from pathlib import Path
import pytest
from atm_net.show import read_json
from atm_net.study import study_markdown, verdict

HOME = Path(__file__).parents[1]; RESULTS = HOME/'results'
STUDIES = sorted(RESULTS.glob('*/study.json'))


def test_there_are_results(): assert {f.parent.name for f in STUDIES} == {'ablation', 'networks', 'readings'}


def test_the_site_has_them_all(): text = (HOME/'docs'/'build.py').read_text(encoding='utf-8'); assert all(f"'results/{f.parent.name}/study.md'" in text and f"'results/{f.parent.name}/study'" in text for f in STUDIES)


@pytest.mark.parametrize('f', STUDIES, ids=lambda f: f.parent.name)
def test_a_page_is_what_its_json_says(f):
    d = read_json(f); assert (f.parent/'study.md').read_text(encoding='utf-8') == study_markdown(d)
    assert not d['failed'] and all(r['seconds']['train'] > 0 for r in d['runs'].values())
    assert all(c['verdict'] == verdict(c['difference']) for qs in d['claims'].values() for cs in qs.values() for c in cs)


@pytest.mark.parametrize('f', STUDIES, ids=lambda f: f.parent.name)
def test_results_are_small_and_name_no_machine(f):
    "A study's numbers travel; its folders do not"
    d = read_json(f); assert not Path(d['cache']).is_absolute() and all('/' not in w for w in d['runs'])
    assert sum(p.stat().st_size for p in f.parent.rglob('*') if p.is_file()) < 2e6


def test_the_table_of_texts_is_what_its_scores_say(tmp_path):
    "results/text_used: the table follows from the scores that lie beside it, and its numbers are what the page of benchmarks quotes"
    import runpy, shutil
    shutil.copy(RESULTS/'text_used'/'scores.json', tmp_path); tools = runpy.run_path(str(HOME/'benchmarks'/'text_used.py')); text = tools['write_table'](tmp_path)
    assert text == (RESULTS/'text_used'/'table.md').read_text(encoding='utf-8')
    page = (HOME/'benchmarks'/'README.md').read_text(encoding='utf-8'); rows = [l for l in text.splitlines() if l.startswith(('| plain |','| tiny |','| with the sacrum |','| without it |'))]
    assert len(rows) == 6 and all(l in page for l in rows)
    shutil.copy(RESULTS/'text_used'/'fresh'/'scores.json', tmp_path); text = tools['write_table'](tmp_path); assert text == (RESULTS/'text_used'/'fresh'/'table.md').read_text(encoding='utf-8')
    cells = lambda name: [[c.strip() for c in l.split('|')] for l in text.splitlines() if l.startswith(f'| {name} |')]
    for half, plain, tiny in zip(('in view', 'out of view'), cells('plain'), cells('tiny'), strict=True): assert f'| {half} | '+' | '.join([plain[3], *tiny[4:-1]])+' |' in page
    shutil.copy(RESULTS/'text_used'/'shipped'/'scores.json', tmp_path); text = tools['write_table'](tmp_path); assert text == (RESULTS/'text_used'/'shipped'/'table.md').read_text(encoding='utf-8')
    for name, row in zip(('in view', 'out of view'), (l for l in text.splitlines() if l.startswith('| atm_net_tiny |')), strict=True): assert f'| {name} | '+' | '.join(c.strip() for c in row.split('|')[4:-2])+' |' in page


def test_the_card_is_of_the_weights_that_ship():
    "Hash, size and number of parameters in the card are those of the file, which is as small as promised"
    import hashlib, re
    from atm_net.predict import SHIPPED, load_predictor
    card = (SHIPPED.parent/'README.md').read_text(encoding='utf-8'); size = SHIPPED.stat().st_size; n = sum(p.numel() for p in load_predictor().model.parameters())
    assert hashlib.sha256(SHIPPED.read_bytes()).hexdigest() in card and f'{size/1e6:.1f} MB' in card and f'{n/1e6:.2f} million parameters' in card and size < 8e6


def test_an_interval_that_draws_seeds_is_wider_where_they_differ():
    "By hand: one structure, patients alike, seeds .2 apart: 0 to .2 for one column of two networks, 0 where both columns are of the same networks"
    import runpy
    tools = runpy.run_path(str(HOME/'benchmarks'/'text_used.py')); patients = dict(v1='a', v2='b', v3='c'); col = lambda *ds: {s: tools['long']({v: dict(L3=d) for v in patients}, patients) for s, d in enumerate(ds)}
    drawn = tools['seeds_drawn']; same, own = drawn(col(.4, .6), col(.3, .5)), drawn(col(.4, .6), col(.5, .5), False)
    assert same == pytest.approx((.1, .1)) and own == pytest.approx((-.1, .1)) and drawn(col(.4), col(.3)) is None


def test_the_table_of_readings_is_what_was_measured():
    "results/README quotes Dice and difference of each reading that is not the preset's"
    tables = read_json(RESULTS/'readings'/'study.json')['tables']['readings']; page = (RESULTS/'README.md').read_text(encoding='utf-8')
    row = lambda q, n: next(r for r in tables[q] if r['method'] == n)['scores']['penalised']['dsc']; of = lambda c: f"{100*c['mean']:.1f}, {100*c['difference']['mean']:+.1f} [{100*c['difference']['low']:+.1f}, {100*c['difference']['high']:+.1f}]"
    for n in ('plain decoder', 'grid contrast', 'sigmoid focal', 'words, 2d', 'mixed keys, 2d', 'mixed keys, 1d', 'exact attention'): assert any(l.startswith(f'| {n} in place of ') and l.endswith(f"| {of(row('generic', n))} | {of(row('oracle', n))} |") for l in page.splitlines()), n
