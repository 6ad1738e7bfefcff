"Lesson tools: checks, marks, rehearsal, both editions and slides, on a lesson of the smallest size"

import contextlib
import io
import re
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from atm_net.anatomy import InputError
from atm_net.show import run_command
from atm_net.workshop import (
    Outcome,
    Role,
    _shown,
    atm_workshop,
    check,
    check_lesson,
    draw_maths,
    exercises,
    formula,
    instructor,
    length,
    minutes,
    promised,
    quiz,
    rehearse,
    role,
    seal,
    slide_types,
    slides,
    student,
    unsolved,
    weight,
)


def test_unsolved():
    assert [unsolved(a) for a in (..., (1, ...), dict(a=[...]), 0, 'a', (1, 2), None)] == [
        True,
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_check():
    rules = [
        (lambda a: isinstance(a, int), 'Give a whole number.'),
        (lambda a: a == 5, 'Count the bodies from L1 to L5.'),
    ]
    tried = dict(
        stub=lambda: ...,
        word=lambda: 'five',
        off=lambda: 4,
        right=lambda: 5,
        nothing=lambda: None,
        broken=lambda: [1][2],
        unheard=lambda: not_there,  # noqa: F821
        half=lambda: 2 * ...,
    )
    got = {
        k: check('count', f, *rules, right='Five, in nearly everybody.') for k, f in tried.items()
    }
    assert {k: o.status for k, o in got.items()} == dict(
        stub='unsolved',
        word='wrong',
        off='wrong',
        right='right',
        nothing='wrong',
        broken='wrong',
        unheard='unsolved',
        half='unsolved',
    )
    assert (got['word'].text, got['off'].text, got['right'].text) == (
        'Give a whole number.',
        'Count the bodies from L1 to L5.',
        'Five, in nearly everybody.',
    )
    assert 'IndexError: list index out of range' in got['broken'].text
    assert 'not_there' in got['unheard'].text
    assert 'None' in got['nothing'].text
    assert check('x', lambda: 'a', (lambda a: a / 2 > 1, 'Halve it.')).text.startswith(
        'Halve it. (Comparing it stopped with TypeError'
    )
    assert '<b>✔ count: right.</b> Five' in got['right']._repr_html_()
    assert '&lt;' in Outcome('<', 'wrong', '')._repr_html_()
    assert check('x', lambda: 3, right=lambda a: f'{a} it is.').text == '3 it is.'


def test_quiz():
    assert seal('b', 1) == seal(' B', 1)
    assert len({seal(x, i) for x in 'abc' for i in range(4)}) == 12
    keys = (seal('b', 1), 'Think of L5.'), (seal('a', 2), 'Think of the canal.')

    def ask(*a):
        return quiz('quiz', lambda: a, *keys)

    assert [
        ask(*a).status for a in ((..., ...), ('b', ...), ('b', 'c'), ('b', 'a'), ('b',), (1, 2))
    ] == ['unsolved', 'unsolved', 'wrong', 'right', 'wrong', 'wrong']
    assert (ask('b', 'c').text, ask('a', 'b').text) == (
        'Question 2: Think of the canal.',
        'Question 1: Think of L5. Question 2: Think of the canal.',
    )
    assert ask('b').text == 'Give 2 letters.'


def test_length(monkeypatch):
    monkeypatch.delenv('ATM_NET_WORKSHOP', raising=False)
    assert length(300, 30) == 300
    monkeypatch.setenv('ATM_NET_WORKSHOP', 'short')
    assert length(300, 30) == 30


def cell(source, kind='code'):
    return dict(cell_type=kind, source=source)


def test_roles():
    assert role(cell('#| exercise level predict\na = ...')) == Role(
        'exercise', 'level', 'predict', 0, 'a = ...'
    )
    assert role(cell('#| check level')) == Role('check', 'level')
    assert role(cell('<!-- minutes: 6 -->\n## One', 'markdown')) == Role(
        'minutes', minutes=6, source='## One'
    )
    assert role(cell('<!-- notes -->\nSay', 'markdown')).role == 'notes'
    assert role(cell('x = 1')) == Role(source='x = 1')
    assert role(cell('#| exercise a predict', 'markdown')).role == ''


def tiny():
    "A lesson with one exercise"
    md, code = new_markdown_cell, new_code_cell
    seen = new_output('display_data', {'image/png': 'iVBORw0KGgo=', 'text/plain': '<Figure>'})
    return new_notebook(
        cells=[
            md('# Counting\n\n> How many?\n\n| | |\n|---|---|\n| time | 5 minutes |'),
            code('#| setup\nfrom atm_net.workshop import check'),
            md('<!-- minutes: 2 -->\n## Look\n\nA spine.'),
            code('n = 5', outputs=[seen], execution_count=1),
            md('**What to look for.** Five bodies.'),
            md('<!-- notes -->\nLet them count aloud.'),
            md('<!-- minutes: 3 -->\n## Count\n\nHow many?'),
            code('#| exercise count predict\ncount = ...'),
            code('#| wrong count\ncount = 4'),
            code('#| solution count\ncount = 5'),
            code("#| check count\ncheck('count', lambda: count, (lambda a: a==n, 'Begin at L1.'))"),
            md('<!-- answer -->\nFive.'),
        ]
    )


def test_lessons_that_lack_a_piece():
    nb = tiny()
    check_lesson(nb, 'tiny')
    assert exercises(nb) == {'count': 'predict'}
    assert minutes(nb) == [('Look', 2), ('Count', 3)]
    assert promised(nb) == 5
    less = tiny()
    del less.cells[8]
    with pytest.raises(
        InputError,
        match="exercise 'count' has the cells exercise, solution, check: it needs exercise, wrong, "
        'solution, check',
    ):
        check_lesson(less, 'tiny')
    less = tiny()
    less.cells[7].source = '#| exercise count guess\ncount = ...'
    with pytest.raises(InputError, match="'count' is of no known kind: use predict"):
        check_lesson(less, 'tiny')
    less = tiny()
    less.cells[2].source = less.cells[2].source.replace('2', '4', 1)
    with pytest.raises(InputError, match='parts take 7 minutes, its first cell promises 5'):
        check_lesson(less, 'tiny')


def test_rehearsal():
    got = rehearse(tiny())
    assert {k: v.status for k, v in got['count'].items()} == dict(
        exercise='unsolved', wrong='wrong', solution='right'
    )
    assert got['count']['wrong'].text == 'Begin at L1.'
    silent = tiny()
    silent.cells[10].source = '#| check count\nprint(count)'
    with pytest.raises(
        InputError, match="check 'count': end its cell with a call of check or quiz"
    ):
        rehearse(silent)


def test_student_edition():
    nb = tiny()
    s = student(nb)
    text = ''.join(c.source for c in s.cells)
    nbformat.validate(s)
    assert [
        c in text
        for c in (
            'count = ...',
            'check(',
            'Begin at L1',
            'count = 5',
            'count = 4',
            'Five.',
            'aloud',
            '#|',
            '<!--',
        )
    ] == [True, True, True] + [False] * 6
    assert [c.get('outputs') for c in s.cells if c.cell_type == 'code'] == [[]] * 4
    assert s.cells[6].metadata.atm_net == dict(role='exercise', name='count', kind='predict')
    assert [c.source for c in nb.cells] == [
        c.source for c in tiny().cells
    ]  # the source is left alone


def test_instructor_edition():
    t = instructor(tiny())
    nbformat.validate(t)
    text = '\n'.join(c.source for c in t.cells)
    assert [
        c in text
        for c in (
            '## Count (3 min)',
            '| 2 | Count | 3 |',
            '> **For the instructor**',
            '> Let them count aloud.',
            '> Five.',
            '> count = 4',
            '# Solution of count\ncount = 5',
            '#|',
            '<!--',
        )
    ] == [True] * 7 + [False] * 2
    assert [
        c.metadata.atm_net.role
        for c in t.cells
        if c.cell_type == 'code' and 'atm_net' in c.metadata
    ] == ['setup', 'exercise', 'solution', 'check']
    assert len(t.cells[4].outputs) == 1


def test_where_slides_begin():
    nb = tiny()
    assert slide_types(nb.cells) == [
        'slide',
        'skip',
        'slide',
        '-',
        '-',
        'notes',
        'slide',
        '-',
        'skip',
        'skip',
        'skip',
        'skip',
    ]
    long = [new_markdown_cell('## A'), *(new_markdown_cell('word ' * 170) for _ in range(4))]
    assert slide_types(long) == ['slide', '-', 'subslide', 'subslide', 'subslide']
    assert [
        weight(c) for c in (new_markdown_cell('a\n\nb'), nb.cells[3], new_code_cell('a\nb'))
    ] == [2, 15, 2]


def test_formulas():
    assert draw_maths('cost `$x$` and 5$') == 'cost `$x$` and 5$'
    assert draw_maths('$a$ b').count('<img') == 1
    assert 'text-align:center' in draw_maths('$$f_m = f_v + \\alpha\\,x$$')
    with pytest.raises(InputError, match='matplotlib cannot draw it'):
        formula('\\nosuchthing{a}')


def test_slides():
    nb = tiny()
    page = slides(nb)
    assert page.count('<section') == 6
    plain = re.sub('<[^>]*>', '', page) + page
    assert [
        w in plain
        for w in (
            'Counting',
            'count = ...',
            'Let them count aloud',
            'data:image/png',
            'n = 5',
            'Begin at L1',
            'count = 4',
        )
    ] == [True] * 4 + [False] * 3
    assert re.findall('(?:src|href)="(?!data:|#)[^"]*"|url\\(["\\\']?https?:', page) == []
    assert '<script src' not in page
    assert 'Let them' not in slides(nb, notes=False)


def live(text):
    return new_output(
        'display_data',
        {'application/vnd.jupyter.widget-view+json': {'model_id': 'x'}, 'text/plain': text},
    )


def test_a_progress_bar_is_no_widget():
    shown = _shown(
        new_code_cell(
            'slider',
            outputs=[live('IntSlider(value=3)'), live('  0%|          | 0/6 [00:00<?, ?it/s]')],
        ),
        '-',
    )['outputs']  # a progress bar is no widget to show
    assert [o['data'] for o in shown] == [{'text/plain': 'a widget: it lives in the notebook'}]


def shell(*args):
    "status, output, error of the command"
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_command(atm_workshop.__wrapped__, [str(a) for a in args])
        except SystemExit as e:
            status = e.code or 0
    return status, out.getvalue(), err.getvalue()


def test_the_command():
    with tempfile.TemporaryDirectory() as d:
        src, out = Path(d) / 'src', Path(d) / 'out'
        src.mkdir()
        nbformat.write(tiny(), src / '01_count.ipynb')
        nbformat.write(tiny(), src / '02_more.ipynb')
        assert shell(out, '--source', src)[::2] == (0, '')
        assert sorted(p.name for p in out.iterdir()) == ['01_count.ipynb', '02_more.ipynb']
        assert 'count = 5' not in (out / '01_count.ipynb').read_text(encoding='utf-8')
        status, said, _ = shell(
            out / 'i', '--source', src, '--edition', 'instructor', '--lesson', 2, '--slides'
        )
        assert (status, said.count('\n')) == (0, 2)
        assert sorted(p.name for p in (out / 'i').iterdir()) == [
            '02_more.ipynb',
            '02_more.slides.html',
        ]
        assert 'count = 5' in (out / 'i' / '02_more.ipynb').read_text(encoding='utf-8')
        assert 'count aloud' in (out / 'i' / '02_more.slides.html').read_text(encoding='utf-8')
        shell(out / 's', '--source', src, '--slides')
        assert 'count aloud' not in (out / 's' / '01_count.slides.html').read_text(encoding='utf-8')
        (src / '03_bad.ipynb').write_text('{', encoding='utf-8')
        for args, word in {
            (out, '--edition', 'teacher'): "'teacher' is unknown: use student or instructor",
            (out, '--lesson', 9): 'there are the lessons 1, 2, 3',
            (out, '--lesson', 3): '03_bad.ipynb: is not a notebook',
            (src,): 'holds the source',
        }.items():
            status, said, err = shell(*args, '--source', src)
            assert (status, said, err.count('\n'), word in err) == (2, '', 1, True)
        status, _, err = shell(out, '--source', Path(d) / 'none')
        assert (status, 'no lessons there' in err) == (2, True)
