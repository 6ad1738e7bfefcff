"A report's markup, signs, language, and which lines belong together"

import pytest

from atm_net.plain_text import language_note, language_of, plain_text, report_lines


def test_html():
    page = (
        '<html><head><title>x</title><style>p {color: red}</style></head><body>'
        '<p>No <b>herniation</b> at L4&#8209;5.</p>'
        '<p>Bulge&nbsp;L5/S1<br/>5 &lt; 6</p></body></html>'
    )
    lines = [line for line in plain_text(page).splitlines() if line]
    assert lines == ['No herniation at L4-5.', 'Bulge L5/S1', '5 < 6']
    assert plain_text('L4&#8209;5 &amp; L5') == 'L4-5 & L5'
    assert plain_text('height < 50 % and L4 > L5') == 'height < 50 % and L4 > L5'


def test_rtf():
    document = (
        r'{\rtf1\ansi\uc1{\fonttbl{\f0 Arial;}{\f1 Times;}}{\*\generator Word;}'
        r'{\info{\author A}}'
        '\r\n'
        r'\pard\f0\fs20 No h\'e4matoma\tab at L4\u8209?5.\par '
        r'{\b Bulge\b0} L5\_S1 \{a\}\line b\par}'
    )
    assert plain_text(document) == 'No h\xe4matoma at L4-5.\nBulge L5-S1 {a}\nb\n'


def test_odd_signs():
    assert plain_text('L4\u20115 L4\u22125 L4\u00ad5 her\u00adnia\u200b \u201315') == (
        'L4-5 L4-5 L4-5 hernia \u201315'
    )
    assert plain_text('bulge./// L5-S1: slip') == 'bulge.\nL5-S1: slip'


def test_no_sentence_is_endless():
    "A full stop after 1,000 characters, between words if a word ends soon; words stay whole"
    text = 'bulge at L4/5, ' * 400
    plain = plain_text(text)
    assert plain.replace('.\n', '').split() == text.split()
    assert 1000 <= max(map(len, plain.splitlines())) < 1070
    assert max(map(len, plain_text('x' * 5000).splitlines())) < 1070
    usual = 'Bulge at L4/5, no stenosis. ' * 60
    assert plain_text(usual) == usual


@pytest.mark.parametrize(
    'language, text',
    (
        ('English', 'No fracture.'),
        ('English', 'Prolapse LWK 4/5, in LWK 5/SWK 1 no stenosis.'),
        ('English', 'Disc protrusion at L4/5 de novo.'),
        ('German', 'Kein Nachweis einer Stenose.'),
        ('French', 'Absence de hernie discale, pas de fracture.'),
        ('Spanish', 'Sin hernia discal en L4-L5.'),
        ('Italian', 'Non segni di ernia discale.'),
        ('Portuguese', 'Sem sinais de fratura.'),
        ('another script', '\u041d\u0435\u0442 \u0433\u0440\u044b\u0436\u0438 L4/5'),
    ),
)
def test_language(language, text):
    assert language_of(text) == language
    assert (language_note(text) == '') == (language == 'English')
    assert language in language_note(text) or language == 'English'


def said(text):
    return [line.text for line in report_lines(text) if line.text]


@pytest.mark.parametrize(
    'text',
    (
        'No\ndisc herniation.',
        'No evidence of\nDisc herniation.',
        'Bulge at L4/5\nMildly compressing the sac',
        'Bulge at L4/5\nWith stenosis',
        'There is no stenosis, fracture,\nHerniation',
        'no spinal canal\nstenosis is seen',
    ),
)
def test_lines_that_belong_together(text):
    assert said(text) == [text.replace('\n', ' ')]


@pytest.mark.parametrize(
    'text',
    (
        'No disc herniation noted\nmild bulge at L4/5',
        'No disc bulge at L3/4\nprotrusion at L4/5',
        'No fracture.\nof note a bulge',
        'Stenosis: No\nFracture: No',
        'No bulge\n\nstenosis',
        'LSS MRI with contrast\nWith contrast: no bulge',
    ),
)
def test_lines_that_do_not(text):
    assert said(text) == [line for line in text.split('\n') if line]


def test_bullets():
    assert said('-Bulge\n1. Slip\n.Stenosis\n- no cyst') == ['Bulge', 'Slip', 'Stenosis', 'no cyst']
    assert said('L4-L5: bulge') == ['L4-L5: bulge']


def asked(text):
    return [line.text for line in report_lines(text) if line.asked]


def test_the_question():
    assert asked('Clinical question: fracture?\nBulge at L4/5.') == ['Clinical question: fracture?']
    assert asked('INDICATION:\nPain\nFINDINGS: bulge') == ['INDICATION:', 'Pain']
    assert asked('History: fall. L4-5: bulge. Impression: bulge.') == ['History: fall.']
    assert asked('History of operations. Bulge at L4/5.') == []


def regions(text):
    return [line.region for line in report_lines(text) if line.text]


def test_titles():
    assert regions('C.SPINE MRI :\nBulge\nLSS MRI\nBulge') == ['C', 'C', 'L', 'L']
    assert regions('RT KNEE MRI:\nTear') == ['other', 'other']
    assert regions('LSS AND C. SPINE MRI\nBulge') == ['L', 'L']
    assert regions('Bulge.\nMild effusion of the hip') == ['', '']
    assert regions('Features of spasm noted in the cervical spine: all') == ['']
