"results/: each page says what its study.json says, and the verdicts follow from the intervals"
from pathlib import Path
import pytest
from atm_net.show import read_json
from atm_net.study import study_markdown, verdict

RESULTS = Path(__file__).parents[1]/'results'
STUDIES = sorted(RESULTS.glob('*/study.json'))


def test_there_are_results(): assert {f.parent.name for f in STUDIES} == {'ablation', 'networks'}


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
