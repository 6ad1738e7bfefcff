"Report sentences with the answers that a reader gave before the parser was tuned, who saw the conventions of `05_prompts` and no code"
import json
import pytest
from conftest import ROOT
from atm_net.anatomy import LUMBAR
from atm_net.prompts import parse_prompt, read_report, report_prompt

ITEMS = json.loads((ROOT/'tests'/'reports.json').read_text(encoding='utf-8'))

def counts(pairs):
    "Right, invented and lost (level, denied) pairs over (got, wanted) sets"
    return [sum(map(len, x)) for x in ([g&w for g,w in pairs], [g-w for g,w in pairs], [w-g for g,w in pairs])]

def test_the_collection():
    assert len(ITEMS)>=80 and len({x['text'] for x in ITEMS})==len(ITEMS) and sum(not x['findings'] for x in ITEMS)>=10
    assert all(f['level'] in (*LUMBAR.names,None) for x in ITEMS for f in x['findings']) and sum(f['negated'] for x in ITEMS for f in x['findings'])>=50
    assert counts([({1,2},{2,3,4}), (set(),{1})])==[1,1,3]

def test_precision_and_recall_by_level():
    right,invented,lost = counts([({(f.level,f.negated) for f in read_report(x['text'])}, {(f['level'],f['negated']) for f in x['findings']}) for x in ITEMS])
    print(f'precision {right/(right+invented):.3f}, recall {right/(right+lost):.3f} over {right+lost} expected')
    assert right/(right+invented)>=.95 and right/(right+lost)>=.95

def test_all_in_one_report():
    "Reports are longer than sentences: joined line by line, each line is read as alone"
    together = [(f.finding,f.level,f.negated) for f in read_report('\n'.join(x['text'] for x in ITEMS))]
    assert set(together)=={(f.finding,f.level,f.negated) for x in ITEMS for f in read_report(x['text'])}

@pytest.mark.parametrize('option', (1,2,3,4))
def test_every_report_gives_a_prompt(option):
    for x in ITEMS:
        p = report_prompt(x['text'], option=option); back = parse_prompt(str(p))
        assert (set(back.structures), set(back.findings))==(set(p.structures), set(p.findings)), x['text']
