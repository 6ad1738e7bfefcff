"""Report sentences with the answers of a reader who saw the conventions of `32_reports` and no code

They were given before the parser was tuned."""

import json
import re

import pytest
from conftest import ROOT

from atm_net.anatomy import LUMBAR
from atm_net.reports import parse_prompt, read_report, say_findings
from atm_net.user_prompts import report_prompt
from atm_net.wording import FINDINGS, Finding, fill, fill_words, find_findings, read_asset

ITEMS = json.loads((ROOT / 'tests' / 'reports.json').read_text(encoding='utf-8'))


def test_the_collection():
    assert (
        len(ITEMS) >= 80
        and len({x['text'] for x in ITEMS}) == len(ITEMS)
        and sum(not x['findings'] for x in ITEMS) >= 10
    )
    assert (
        all(f['level'] in (*LUMBAR.names, None) for x in ITEMS for f in x['findings'])
        and sum(f['negated'] for x in ITEMS for f in x['findings']) >= 50
    )


def misread(items):
    "(text, levels invented, levels lost) where the reader disagrees"
    pairs = [
        (
            x['text'],
            {(f.level, f.negated) for f in read_report(x['text'], LUMBAR)},
            {(f['level'], f['negated']) for f in x['findings']},
        )
        for x in items
    ]
    return [(text, g - w, w - g) for text, g, w in pairs if g != w]


def test_every_sentence_is_read():
    "Each set was scored unseen when it was collected; now all of them are kept right"
    assert misread(ITEMS) == [] and len(misread([dict(text='Fracture of L1.', findings=[])])) == 1


def test_all_in_one_report():
    "Reports are longer than sentences: joined line by line, each line is read as alone"
    together = [
        (f.finding, f.level, f.negated)
        for f in read_report('\n'.join(x['text'] for x in ITEMS), LUMBAR)
    ]
    assert set(together) == {
        (f.finding, f.level, f.negated) for x in ITEMS for f in read_report(x['text'], LUMBAR)
    }


@pytest.mark.parametrize('option', (1, 2, 3, 4))
def test_every_report_gives_a_prompt(option):
    for x in ITEMS:
        p = report_prompt(x['text'], LUMBAR, option=option)
        back = parse_prompt(str(p), LUMBAR)
        assert (set(back.structures), set(back.findings)) == (set(p.structures), set(p.findings)), (
            x['text']
        )


def test_only_a_level_that_is_out_of_view_takes_nothing():
    for text in (
        'Disc bulge at L4/L5 and the sacrum is not included.',
        'At L4/L5 the facet joints were not assessed and a disc bulge is seen.',
        'At L4/L5 the exit foramen is not visible, and there is a disc bulge.',
        'The L4/L5 level is not included in the fusion. There is a disc bulge at this level.',
        'Scan shows all discs are well hydrated except L4/L5. There is a bulge at the same level.',
    ):
        assert read_report(text, LUMBAR) == [Finding('disc bulging', 'L4/L5')], text


def test_a_level_that_is_named_for_being_well_takes_nothing():
    for text, level in {
        'L4/5 bulge and L5/S1 normal.': 'L4/L5',
        'At L3/4 disc bulge but L4/5 is normal.': 'L3/L4',
        'L4/5 shows a herniation whereas L5/S1 is normal.': 'L4/L5',
    }.items():
        assert [(f.level, f.negated) for f in read_report(text, LUMBAR)] == [(level, False)], text


RULES = read_asset('findings.yaml')
PATTERNS = [
    (name, pattern, example)
    for name, entry in RULES['findings'].items()
    for pattern, example in entry['found by'].items()
]
NOT_YET = {  # earlier findings of the table take these words
    'myelomalacia': 'tumour',
    'psoas collection': 'collection',
}


@pytest.mark.parametrize('name, pattern, example', PATTERNS)
def test_each_pattern_of_a_finding_finds_its_example(name, pattern, example):
    whole = fill(pattern, fill_words(RULES['words'])) + RULES['findings'][name].get('ending', '')
    found = re.search(rf'\b(?:{whole})', example, re.I)
    assert found, (pattern, example)
    by_all = re.search(rf'\b(?:{name}|{FINDINGS[name].pattern})', example, re.I)
    assert by_all.span() == found.span()  # no pattern before it takes the words
    assert NOT_YET.get(example, name) in {h.finding for h in find_findings(example)}


def test_the_table_of_findings():
    assert {rule.site for rule in FINDINGS.values()} == {'disc', 'vertebra', 'spine'}
    for name, rule in FINDINGS.items():
        assert [h.finding for h in find_findings(name)] == [name]  # each by its own name
        assert not re.search(r'<(?![=!])', re.sub(r'\(\?<[=!]', '', rule.pattern)), name


def said(text):
    return [f'{f.finding} {f.level}{" no" if f.negated else ""}' for f in read_report(text, LUMBAR)]


SENTENCES = {
    'L3/4 and L4/5: bulges. Stenosis.': [
        'disc bulging L3/L4',
        'disc bulging L4/L5',
        'canal stenosis L3/L4',
        'canal stenosis L4/L5',
    ],
    'Bulge at L1/2 without stenosis, L3/4, L4/5 protrusion.': [
        'disc bulging L1/L2',
        'canal stenosis L1/L2 no',
        'disc herniation L3/L4',
        'disc herniation L4/L5',
    ],
    'L3/4 bulge, no stenosis, L4/5 slip, L5/S1 small protrusion.': [
        'disc bulging L3/L4',
        'canal stenosis L3/L4 no',
        'spondylolisthesis L4/L5',
        'disc herniation L5/S',
    ],
    'No fracture at L1, old wedging of T12.': ['fracture L1 no', 'fracture T12'],
    'No fracture at L1, slip at L4/5 or stenosis at L3/4.': [
        'fracture L1 no',
        'spondylolisthesis L4/L5 no',
        'canal stenosis L3/L4 no',
    ],
    'Herniation, fissure and stenosis have resolved at L4/5.': [
        'disc herniation L4/L5 no',
        'annular tear L4/L5 no',
        'canal stenosis L4/L5 no',
    ],
    'Fracture of L1, slip of L4 on L5 and of L3 on L4.': [
        'fracture L1',
        'spondylolisthesis L4/L5',
        'spondylolisthesis L3/L4',
    ],
    'Stenosis is severe at L4-5, moderate at L3-4 and absent at L2-3.': [
        'canal stenosis L4/L5',
        'canal stenosis L3/L4',
        'canal stenosis L2/L3 no',
    ],
    'Bulges at multiple levels, most marked at L4/5.': ['disc bulging L4/L5'],
    'Bulges at all levels from L1-2 to L3-4.': [
        'disc bulging L1/L2',
        'disc bulging L2/L3',
        'disc bulging L3/L4',
    ],
    'No herniation at any level except L4/5, where there is a protrusion.': [
        'disc herniation None no',
        'disc herniation L4/L5',
    ],
    'The third to fifth lumbar vertebrae are fractured.': [
        'fracture L3',
        'fracture L4',
        'fracture L5',
    ],
    'The lumbosacral disc is dehydrated.': ['disc degeneration L5/S'],
    'Fracture of the First lumbar vertebra.': ['fracture L1'],
    'Modic type II change at L4/5, Pfirrmann grade IV at L5/S1.': [
        'Modic type 2 L4/L5',
        'Pfirrmann grade 4 L5/S',
    ],
    'Pfirrmann III at L1/2. Modic I at L2/3. Pfirrmann V at L3/4.': [
        'Pfirrmann grade 3 L1/L2',
        'Modic type 1 L2/L3',
        'Pfirrmann grade 5 L3/L4',
    ],
    'Bulges L4 to L5.': ['disc bulging L4/L5'],
    'Bulge at L1/2, stenosis, L3/4 and L4/5 protrusion, L5/S1 slip.': [
        'disc bulging L1/L2',
        'canal stenosis L1/L2',
        'disc herniation L3/L4',
        'disc herniation L4/L5',
        'spondylolisthesis L5/S',
    ],
    'Bulge at L1/2, L3/4, L4/5 and stenosis at L2/3.': [
        'disc bulging L1/L2',
        'disc bulging L3/L4',
        'disc bulging L4/L5',
        'canal stenosis L2/L3',
    ],
    'Prolapse LWK 4/5, in LWK 5/SWK 1 no stenosis; fracture of BWK 12.': [
        'disc herniation L4/L5',
        'canal stenosis L5/S no',
        'fracture T12',
    ],
    'L1 shows approx. 40 % loss of height.': ['vertebral height loss L1'],
    'Loss of height at L1/2.': ['disc narrowing L1/L2'],
    'Tarlov cyst at S2.': ['cyst S'],
    'Canal stenosis.': ['canal stenosis SC'],
    'Metastases from T11 to L1, sparing L2.': ['tumour T11', 'tumour T12', 'tumour L1'],
    'Bulge L4/5; compressing the thecal sac.': ['disc bulging L4/L5', 'nerve compression L4/L5'],
    'L4/5: no fusion hardware.': [],
    'No previous surgery at L4/5.': ['postoperative change L4/L5 no'],
    'Degenerative scoliosis, bulge at L4/5.': ['scoliosis None', 'disc bulging L4/L5'],
    'Scoliosis at L2/3.': ['scoliosis L2/L3'],
    'Pedicle screws L4 to S1.': [
        'postoperative change L4',
        'postoperative change L5',
        'postoperative change S',
    ],
    'Bulge at L3/4. At this level also stenosis.': ['disc bulging L3/L4', 'canal stenosis L3/L4'],
    'Bulge at L3/4. Stenosis at other levels.': ['disc bulging L3/L4', 'canal stenosis None'],
    'A bulge at L3/4 and a small one at L4/5.': ['disc bulging L3/L4', 'disc bulging L4/L5'],
    'Bulge L3/4 on the left and L4/5 on the right.': ['disc bulging L3/L4', 'disc bulging L4/L5'],
    'The lowest two discs bulge.': ['disc bulging L4/L5', 'disc bulging L5/S'],
    'Fragment migrated behind L5, protrusion L4/5.': ['disc herniation L4/L5'],
}


@pytest.mark.parametrize('text, wanted', SENTENCES.items())
def test_what_a_sentence_says(text, wanted):
    assert said(text) == wanted


REPORT = """Sagittal T2-weighted MRI of the lumbar spine.
T12-L1 to L2/3: no disc herniation or stenosis.
L3-4: mild disc bulge, no canal stenosis. Facet hypertrophy.
At L4/5 there is a broad protrusion with severe spinal stenosis and grade 1 anterolisthesis.
Disc desiccation at L4/5 and L5/S1. No compression fracture. Haemangioma of L2."""


def test_a_whole_report():
    found = read_report(REPORT, LUMBAR)

    def levels(finding):
        return {(f.level, f.negated) for f in found if f.finding == finding}

    upper = {('T12/L1', True), ('L1/L2', True), ('L2/L3', True)}
    assert levels('disc herniation') == upper | {('L4/L5', False)}
    assert levels('canal stenosis') == upper | {('L3/L4', True), ('L4/L5', False)}
    assert levels('disc bulging') == {('L3/L4', False)}
    assert levels('facet arthropathy') == {('L3/L4', False)}  # from the start of its line
    assert levels('disc degeneration') == {('L4/L5', False), ('L5/S', False)}
    assert levels('spondylolisthesis') == {('L4/L5', False)}
    assert levels('fracture') == {(None, True)}
    assert levels('haemangioma') == {('L2', False)}


def read(text):
    return [(f.finding, f.level, f.negated) for f in read_report(text, LUMBAR)]


READ = {
    'The patient walked in.': [],
    'Bulging discs L3 to L5.': [
        ('disc bulging', 'L3/L4', False),
        ('disc bulging', 'L4/L5', False),
    ],
    'At L4/5 bulge and herniation at L5/S1.': [
        ('disc bulging', 'L4/L5', False),
        ('disc herniation', 'L5/S', False),
    ],
    'Fracture of L1; no fracture of L2.': [('fracture', 'L1', False), ('fracture', 'L2', True)],
    'No fracture at L1, L2 fracture is acute.': [
        ('fracture', 'L1', True),
        ('fracture', 'L2', False),
    ],
    'Disruption of the posterior longitudinal ligament at L2/3.': [('injury', 'L2/L3', False)],
    'No herniation, mild bulge at L5-S1.': [
        ('disc herniation', 'L5/S', True),
        ('disc bulging', 'L5/S', False),
    ],
    # after something found, 'no other' is said of elsewhere; after a denial it goes on
    'Oedema at L4, no other fracture.': [('oedema', 'L4', False), ('fracture', None, True)],
    'No oedema at L4, no other fracture.': [('oedema', 'L4', True), ('fracture', 'L4', True)],
    'No cyst at S1 and no other lesion.': [('cyst', 'S', True), ('tumour', 'S', True)],
    'Cyst at S1, no other lesion.': [('cyst', 'S', False), ('tumour', None, True)],
    # the heading of a line holds for what is found, not for what is denied
    'L2: Normal signal. Compression fracture.': [('fracture', 'L2', False)],
    'L2: Oedema. No fracture.': [('oedema', 'L2', False), ('fracture', None, True)],
    'L2: Haemangioma. No fracture.': [('haemangioma', 'L2', False), ('fracture', None, True)],
    'L4-5: bulge, larger than at L5-S1. Stenosis.': [
        ('disc bulging', 'L5/S', False),
        ('canal stenosis', 'L4/L5', False),
    ],
    'Stenosis is severe at L4-5 and absent at L3-4, with a cyst at L2.': [
        ('canal stenosis', 'L4/L5', False),
        ('cyst', 'L2', False),
        ('canal stenosis', 'L3/L4', True),
    ],
    # from a body to a disc is no range; the nearest of a range slips; L7 is no level
    'L4 to L4/5 bulging.': [('disc bulging', 'L4/L5', False)],
    'Slip of L3 to L4 on L5.': [('spondylolisthesis', 'L4/L5', False)],
    'Cyst at L7.': [('cyst', None, False)],
    # the levels right behind a finding are its own, whatever opens the clause
    'L3/4 with bulge L4/5.': [('disc bulging', 'L4/L5', False)],
}


@pytest.mark.parametrize('text, wanted', READ.items())
def test_where_the_words_stand_decides(text, wanted):
    assert read(text) == wanted


def test_findings_in_any_order():
    assert ('disc herniation', 'L4/L5', False) in read(
        'There is no fracture, L4/5 herniation is large.'
    )
    assert read('L2: low signal. Haemangioma.')[-1] == ('haemangioma', 'L2', False)
    text = 'Stenosis is severe at L4-5 and moderate at L3-4, bulge at L2-3.'
    assert set(read(text)) == {
        ('canal stenosis', 'L4/L5', False),
        ('canal stenosis', 'L3/L4', False),
        ('disc bulging', 'L2/L3', False),
    }


@pytest.mark.parametrize(
    'text',
    (
        'No herniation, stenosis or fracture is seen at L4/5.',
        'No mild, moderate or severe stenosis.',
    ),
)
def test_all_of_a_list_is_denied(text):
    assert {f.negated for f in read_report(text, LUMBAR)} == {True}


@pytest.mark.parametrize(
    'gap, finding',
    (
        ('clearly rather', 'ligamentum flavum thickening'),
        ('clearly rather more', 'hypertrophy'),
    ),
)
def test_two_words_between_a_ligament_and_its_thickening(gap, finding):
    assert read(f'Ligamentum flavum {gap} thickened at L4-5.') == [(finding, 'L4/L5', False)]


@pytest.mark.parametrize(
    'first, second, most, finding',
    (
        ('Ligamentum flavum', 'thickening', 2, 'ligamentum flavum thickening'),
        ('Compression of', 'thecal sac', 5, 'nerve compression'),
        ('Thickening of', 'ligamentum flavum', 2, 'ligamentum flavum thickening'),
        ('Nerve root', 'displacement', 3, 'nerve compression'),
        ('Narrowing of', 'foramina', 4, 'foraminal stenosis'),
        ('narrowed', 'foramina', 7, 'foraminal stenosis'),
        ('foramina', 'narrowing', 3, 'foraminal stenosis'),
        ('foraminal and', 'stenosis', 3, 'foraminal stenosis'),
    ),
)
def test_how_many_words_may_stand_between(first, second, most, finding):
    words = ['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight']

    def found(n):
        text = f'{first} {" ".join(words[:n])} {second} at L4/5.'
        return finding in [f.finding for f in read_report(text, LUMBAR)]

    assert found(most) and not found(most + 1)


def test_say_findings():
    found = [
        Finding('fracture', 'L3'),
        Finding('disc herniation', 'L5/S'),
        Finding('disc herniation', 'L4/L5'),
        Finding('scoliosis', None),
        Finding('fracture', 'L1', True),
    ]
    assert say_findings(found, LUMBAR) == (
        ' Findings: scoliosis; fracture at L3; disc herniation at L4/L5 and L5/S.'
    )
    assert say_findings(found[-1:], LUMBAR) == ''


def test_sentences_that_no_generator_wrote():
    assert parse_prompt('L4 not visible, L5 visible.', LUMBAR).structures == ('L5',)
    assert parse_prompt('It does not show L4, L5 is visible.', LUMBAR).structures == ('L5',)
    assert parse_prompt('It shows L5 and L4.', LUMBAR).structures == (
        'L5',
        'L4',
    )  # order of mention
    p = parse_prompt(
        'A mid-sagittal slice with L1 to L3 and the discs between them, the canal, '
        'but without the sacrum.',
        LUMBAR,
    )
    assert p.structures == ('L1', 'L2', 'L3', 'L1/L2', 'L2/L3', 'SC')
    assert (p.option, p.position, p.complete) == (3, 'middle', True)
    p = parse_prompt('Please segment at least L4, L4-5 and l5; S1 is cut off.', LUMBAR)
    assert p.structures == ('L4', 'L4/L5', 'L5') and not p.complete
    assert parse_prompt('fluid in the lower third of the L4 body', LUMBAR).position is None
    assert parse_prompt('It shows none of its labelled structures.', LUMBAR).option == 2
    assert parse_prompt('A nice image.', LUMBAR).option == 1


def test_an_end_plate_keeps_its_side():
    found = read_report('Upper endplate changes at L4', LUMBAR)
    assert [(f.finding, f.level) for f in found] == [('upper endplate changes', 'L4')]


def test_findings_are_values():
    text = 'Disc bulge at L4/5.'
    assert len({*find_findings(text), *find_findings(text)}) == len(find_findings(text)) > 0
    assert len({*read_report(text, LUMBAR), *read_report(text, LUMBAR)}) == 1


def test_a_clause_turns_after_the_first_group():
    "Also where the first level has no finding before it"
    text = 'At L3 no fracture at L1, old wedging of T12'
    found = {(f.level, f.negated) for f in read_report(text, LUMBAR)}
    assert ('T12', False) in found


REAL_REPORTS = {
    'L4/L5 leve:l :\nDisc bulge.\n\nL5-S1\nno stenosis noted.': [
        'disc bulging L4/L5',
        'canal stenosis L5/S no',
    ],
    'L5-S1, L4-L5:\nBulges with facet hypertrophy, mainly at L4-L5.': [
        'disc bulging L5/S',
        'disc bulging L4/L5',
        'facet arthropathy L5/S',
        'facet arthropathy L4/L5',
    ],
    'L5-S1: bulge.\nmild spondylolisthesis.\nL4-L5: protrusion.\nNo stenosis.': [
        'disc bulging L5/S',
        'spondylolisthesis L5/S',
        'disc herniation L4/L5',
        'canal stenosis None no',
    ],
    'Bulge at L4/5.\nDehydrated disc at the same level.': [
        'disc bulging L4/L5',
        'disc degeneration L4/L5',
    ],
    'Bulge at L4/5 and\nL5/S1, compressing the thecal sac and exit canals.': [
        'disc bulging L4/L5',
        'disc bulging L5/S',
        'nerve compression L4/L5',
        'nerve compression L5/S',
        'foraminal stenosis L4/L5',
        'foraminal stenosis L5/S',
    ],
    'Dissicating disc materials noted.': ['disc degeneration None'],
    'Focal bulge at L4/5.': ['disc bulging L4/L5'],
    'C5/6: disc bulge.\nL4/5: protrusion.': ['disc herniation L4/L5'],
    'C.SPINE MRI:\nStenosis, cord compression.\nLSS MRI:\nBulge L4/5.': ['disc bulging L4/L5'],
    'Protrusion at L6/S1.': ['disc herniation None'],
    'Loss of L1 vertebral body height.': ['vertebral height loss L1'],
}
DENIED = (
    'Disc herniation at L4/5: none.',
    'Disc herniation L4/5: no.',
    'Disc herniation L4/5 - absent',
    'Disc herniation L4/5: no evidence.',
    'Disc herniation L4/5: [ ] yes [x] no',
    'Disc herniation (-) at L4/5.',
    '(-) disc herniation at L4/5.',
    'Nil disc herniation at L4/5.',
    'L4/5 w/o disc herniation.',
    'Disc herniation at L4/5 is unlikely.',
    'Images fail to show a disc herniation at L4/5.',
    'No\ndisc herniation at L4/5.',
    'There is no evidence of\nL4/5 disc herniation.',
    'L4/5: no disc\nherniation.',
    '<p>No disc herniation at L4&#8209;5.</p>',
    r'{\rtf1{\fonttbl{\f0 Arial;}}No disc herniation at L4\u8209?5.\par}',
    'No disc heniation at L4\u20115.',
    'Clinical question: rule out disc herniation L4/5.',
)


@pytest.mark.parametrize('text', REAL_REPORTS)
def test_reports_as_they_are_written(text):
    assert said(text) == REAL_REPORTS[text]


@pytest.mark.parametrize('text', DENIED)
def test_denied(text):
    assert said(text) == ['disc herniation L4/L5 no']


@pytest.mark.parametrize(
    'text',
    (
        'Clinical question: disc herniation L4/5?',
        'Indication: L4/5 herniation, back pain.',
        'Disc herniation at L4/5? Fracture of L1?',
        'Keine Protrusion L5/S1.',
        'Pas de protrusion discale L4-L5.',
        'RT KNEE MRI:\nOedema and a cyst.',
    ),
)
def test_not_asserted(text):
    assert said(text) == []


def test_an_answer_denies_its_own_finding_alone():
    assert said('Stenosis: none. Bulge L4/5: yes.') == [
        'canal stenosis None no',
        'disc bulging L4/L5',
    ]
    assert said('Stenosis: No\nBulge: Yes') == ['canal stenosis None no', 'disc bulging None']
    assert said('Stenosis (-), bulge (+).') == ['canal stenosis None no', 'disc bulging None']
    assert said('L4/5 bulge: no stenosis.') == ['disc bulging L4/L5', 'canal stenosis L4/L5 no']


# --- real notes

NOTES = ROOT.parent / 'shared' / 'data' / 'lumbar_notes' / 'notes.jsonl'
ANNOTATED = json.loads((ROOT / 'tests' / 'lumbar_notes.json').read_text(encoding='utf-8'))
ENDPLATES = ('upper endplate changes', 'lower endplate changes')
GRADED = {'Modic type': 'Modic changes', 'Pfirrmann grade': 'disc degeneration'}


def entry(finding):
    "(finding without its grade, level, denied)"
    name = 'endplate changes' if finding.finding in ENDPLATES else finding.finding
    for graded, plain in GRADED.items():
        name = plain if name.startswith(graded) else name
    return name, finding.level, finding.negated


def precision_and_recall(part):
    notes = {
        n['id']: n['text'] for n in map(json.loads, NOTES.read_text(encoding='utf-8').splitlines())
    }
    right = read = annotated = 0
    for number, entries in ANNOTATED[part].items():
        found = {entry(f) for f in read_report(notes[number], LUMBAR)}
        wanted = {tuple(e) for e in entries}
        right += len(found & wanted)
        read += len(found)
        annotated += len(wanted)
    return right / read, right / annotated


@pytest.mark.skipif(not NOTES.is_file(), reason='no notes at ../shared/data/lumbar_notes')
@pytest.mark.parametrize('part', ('tuning', 'held back'))
def test_notes_of_radiologists(part):
    "By finding, level and denial; the notes are CC BY 4.0, and are no part of the repository"
    assert min(precision_and_recall(part)) >= 0.97


def test_the_halves_share_no_note():
    tuning, held = ANNOTATED['tuning'], ANNOTATED['held back']
    assert len(tuning) == len(held) == 50 and not {*tuning} & {*held}
