"Lesson tools: checks, marks, rehearsal, both editions and slides, on a lesson of the smallest size"

import contextlib
import io
import json
import re
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from atm_net.cli import run_command
from atm_net.core import InputError
from atm_net.exercises import (
    Outcome,
    check,
    expect,
    expect_letters,
    judge,
    length,
    letters,
    seal,
    unsolved,
)
from atm_net.lesson_slides import _shown, draw_maths, formula, slide_types, slides, weight
from atm_net.lessons import (
    Role,
    check_lesson,
    exercises,
    instructor,
    minutes,
    promised,
    rehearse,
    role,
    student,
)
from atm_net.workshop import atm_workshop, class_table, exercise_table, grade, grade_folder


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


RULES = [
    (lambda a: isinstance(a, int), 'Give a whole number.'),
    (lambda a: a == 5, 'Count the bodies from L1 to L5.'),
]


def test_judge():
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
        k: judge('count', f, *RULES, right='Five, in nearly everybody.') for k, f in tried.items()
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
    assert judge('x', lambda: 'a', (lambda a: a / 2 > 1, 'Halve it.')).text.startswith(
        'Halve it. (Comparing it stopped with TypeError'
    )
    assert '<b>✔ count: right.</b> Five' in got['right']._repr_html_()
    assert '&lt;' in Outcome('<', 'wrong', '')._repr_html_()
    assert judge('x', lambda: 3, right=lambda a: f'{a} it is.').text == '3 it is.'


def test_check_finds_the_rules_by_name():
    expect('count', *RULES, right='Five.')
    assert [check('count', a).status for a in (..., 4, 5)] == ['unsolved', 'wrong', 'right']
    assert check('count', 5).text == 'Five.'
    expect('count', (lambda a: a == 6, 'Six, this time.'))  # another lesson uses the same name
    assert check('count', 5).text == 'Six, this time.'
    nobody = check('never stated', 5)
    assert nobody.status == 'unsolved' and 'run the cells above' in nobody.text


def test_several_values_are_a_tuple():
    expect('two', (lambda a: a == (1, 2), 'One and two.'))
    assert [check('two', *a).status for a in ((1, 2), (2, 1), (1, ...))] == [
        'right',
        'wrong',
        'unsolved',
    ]


def test_an_answer_is_tried():
    "A function is called, a box is read; what it raises becomes a hint"
    expect('double', (lambda a: a == 4, 'Twice 2.'), tried=lambda f: f(2))

    def stub(x):
        return ...

    def fails(x):
        return [][x]

    functions = (stub, fails, abs, lambda x: 2 * x)
    assert [check('double', f).status for f in functions] == [
        'unsolved',
        'wrong',
        'wrong',
        'right',
    ]
    assert 'IndexError' in check('double', fails).text


def test_letters():
    assert seal('b', 1) == seal(' B', 1)
    assert len({seal(x, i) for x in 'abc' for i in range(4)}) == 12
    expect_letters('quiz', (seal('b', 1), 'Think of L5.'), (seal('a', 2), 'Think of the canal.'))

    def ask(*a):
        return check('quiz', *a)

    given = ((..., ...), ('b', ...), ('b', 'c'), ('b', 'a'), ('b',), (1, 2))
    wanted = ['unsolved', 'unsolved', 'wrong', 'right', 'wrong', 'wrong']
    assert [ask(*a).status for a in given] == wanted
    assert [ask(a).status for a in given] == wanted  # as one tuple
    assert [ask(text).status for text in ('ba', 'b, a', 'B A', 'bc', 'b')] == [
        'right',
        'right',
        'right',
        'wrong',
        'wrong',
    ]
    assert (ask('b', 'c').text, ask('ab').text) == (
        'Question 2: Think of the canal.',
        'Question 1: Think of L5. Question 2: Think of the canal.',
    )
    assert ask('b').text == 'Give 2 letters.'


def test_letters_can_be_clicked():
    expect_letters('quiz', (seal('b', 1), 'Think of L5.'), (seal('a', 2), 'Think of the canal.'))
    buttons = letters(2)
    assert check('quiz', buttons).status == 'unsolved'
    buttons.children[0].value = 'b'
    assert check('quiz', buttons).status == 'unsolved'
    buttons.children[1].value = 'c'
    assert check('quiz', buttons).text == 'Question 2: Think of the canal.'
    buttons.children[1].value = 'a'
    assert check('quiz', buttons).status == 'right'
    assert [row.description for row in buttons.children] == ['1.', '2.']


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
            code('#| setup\nfrom atm_net.exercises import check, expect'),
            md('<!-- minutes: 2 -->\n## Look\n\nA spine.'),
            code('n = 5', outputs=[seen], execution_count=1),
            md('**What to look for.** Five bodies.'),
            md('<!-- notes -->\nLet them count aloud.'),
            md('<!-- minutes: 3 -->\n## Count\n\nHow many?'),
            code("#| rules count\nexpect('count', (lambda a: a == n, 'Begin at L1.'))"),
            code('#| exercise count predict\ncount = ...'),
            code('#| wrong count\ncount = 4'),
            code('#| solution count\ncount = 5'),
            code("#| check count\ncheck('count', count)"),
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
    del less.cells[9]
    with pytest.raises(
        InputError,
        match="exercise 'count' has the cells rules, exercise, solution, check: it needs rules, "
        'exercise, wrong, solution, check',
    ):
        check_lesson(less, 'tiny')
    less = tiny()
    less.cells[8].source = '#| exercise count guess\ncount = ...'
    with pytest.raises(InputError, match="'count' is of no known kind: use predict"):
        check_lesson(less, 'tiny')
    less = tiny()
    less.cells[2].source = less.cells[2].source.replace('2', '4', 1)
    with pytest.raises(InputError, match='parts take 7 minutes, its first cell promises 5'):
        check_lesson(less, 'tiny')


def test_rehearsal():
    got = rehearse(tiny())
    assert {k: v.status for k, v in got['count'].items()} == dict(
        exercise='unsolved', wrong='wrong', solution='right', again='right'
    )
    assert got['count']['wrong'].text == 'Begin at L1.'
    silent = tiny()
    silent.cells[11].source = '#| check count\nprint(count)'
    with pytest.raises(InputError, match="check 'count': end its cell with a call of check"):
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
    assert [c.get('outputs') for c in s.cells if c.cell_type == 'code'] == [[]] * 5
    assert s.cells[7].metadata.atm_net == dict(role='exercise', name='count', kind='predict')
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
    ] == ['setup', 'rules', 'exercise', 'solution', 'check']
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
        'skip',
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


def folded(nb) -> list:  # of roles
    "The cells whose code an edition folds"
    hidden = [c for c in nb.cells if c.metadata.get('jupyter', {}).get('source_hidden')]
    return [c.metadata.atm_net.role for c in hidden]


def test_rules_and_imports_are_folded():
    assert folded(student(tiny())) == folded(instructor(tiny())) == ['setup', 'rules']
    seen = [c.source for c in student(tiny()).cells if 'jupyter' not in c.metadata]
    assert 'Begin at L1' not in ''.join(seen)  # no hint stands open
    assert "check('count', count)" in seen


def test_formulas():
    assert draw_maths('cost `$x$` and 5$') == 'cost `$x$` and 5$'
    assert draw_maths('$a$ b') == '<math display="inline"><mrow><mi>a</mi></mrow></math> b'
    assert 'display="block"' in draw_maths('$$f_m = f_v + \\alpha\\,x$$')
    assert not set('*_|') & set(draw_maths('$a_1 * b_1 | c_1$'))  # signs that Markdown reads
    assert '<img' not in draw_maths('$a$')
    with pytest.raises(InputError, match=r'does not know \\nosuchthing$'):
        formula('\\nosuchthing{a}')
    with pytest.raises(InputError, match='cannot be read'):
        formula('a^')


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


def solved(name, outcome, exercise_ran=1, check_ran=2, kind='predict'):
    "The cells of one exercise, as a student saved them"
    seen = new_output('execute_result', {'text/plain': outcome}, execution_count=check_ran)
    exercise = new_code_cell(f'{name} = 5', execution_count=exercise_ran)
    checked = new_code_cell(f"check('{name}', {name})", execution_count=check_ran)
    checked.outputs = [seen] if outcome else []
    exercise.metadata.atm_net = dict(role='exercise', name=name, kind=kind)
    checked.metadata.atm_net = dict(role='check', name=name)
    return [exercise, checked]


def test_grades_are_read_from_the_outcomes():
    cells = [
        *solved('a', '✔ a: right. Five.'),
        *solved('b', '✘ b: not yet right. Six?'),
        *solved('c', '… c: not solved yet.'),
        *solved('d', '✔ d: right.', exercise_ran=3),
        *solved('e', ''),
        *solved('f', 'Outcome'),
        *solved('g', ''),
    ]
    cells[-1].outputs = [new_output('error', ename='NameError', evalue='g', traceback=[])]
    del cells[9]  # the check of e
    found = {g.exercise: g.status for g in grade(new_notebook(cells=cells))}
    first = dict(a='right', b='wrong', c='unsolved', d='changed', e='not run', f='not run')
    assert found == first | dict(g='error')
    text = exercise_table(grade(new_notebook(cells=cells), '01_x'))
    assert '| 01_x | a | predict | right | solved |' in text and '1 of 7 solved' in text
    assert '| 01_x | b | predict | wrong | Six? |' in text


def test_a_class(tmp_path):
    "A folder for each student; a row for each in the table"
    for name, outcome in dict(Ada='✔ a: right.', Ben='✘ a: not yet right.').items():
        (tmp_path / name).mkdir()
        cells = [*solved('a', outcome), *solved('b', '✔ b: right.')]
        nbformat.write(new_notebook(cells=cells), tmp_path / name / '01_x.ipynb')
    nbformat.write(new_notebook(cells=solved('c', '')), tmp_path / 'Ada' / '02_y.ipynb')
    (tmp_path / 'Ada' / '.ipynb_checkpoints').mkdir()
    (tmp_path / 'Ada' / '.ipynb_checkpoints' / '01_x.ipynb').write_text('', encoding='utf-8')
    table = class_table(grade_folder(tmp_path))
    assert table.splitlines()[0] == '| student | 01_x | 02_y |'
    assert table.splitlines()[2:] == ['| Ada | 2/2 | not run |', '| Ben | 1/2 | - |']


def test_a_class_with_damaged_files(tmp_path):
    "The others are in the table, who handed in nothing too, and a renamed upload is its lesson"
    for name in ('Ada', 'Ben', 'Cem', 'Edi'):
        (tmp_path / 'class' / name).mkdir(parents=True)
    lesson = new_notebook(cells=solved('a', '✔ a: right.'))
    nbformat.write(lesson, tmp_path / 'class' / 'Ada' / '01_reading_mri.ipynb')
    nbformat.write(lesson, tmp_path / 'class' / 'Cem' / '01_reading_mri-cem (1).ipynb')
    (tmp_path / 'class' / 'Ben' / '01_reading_mri.ipynb').write_text('{', encoding='utf-8')
    status, said, err = shell(tmp_path / 'out', '--check-all', tmp_path / 'class')
    assert said.splitlines()[0] == '| student | 01_reading_mri |'
    rows = ['| Ada | 1/1 |', '| Ben | - |', '| Cem | 1/1 |', '| Edi | - |']
    assert said.splitlines()[2:6] == rows
    assert (status, err.count('\n')) == (2, 1)
    assert '1 file(s) could not be checked' in err and 'Ben/01_reading_mri.ipynb' in err
    assert len((tmp_path / 'out' / 'checks.csv').read_text(encoding='utf-8').splitlines()) == 3


def test_uploads_of_a_class(tmp_path):
    "Folders in folders, a lesson handed in twice, other names, a notebook of one's own"
    old, new = solved('a', '✘ a: not yet right. Six?'), solved('a', '✔ a: right.')
    renamed = new_notebook(cells=new, metadata=dict(atm_net=dict(lesson='02_words')))
    files = {
        'Ada/01_reading_mri.ipynb': new_notebook(cells=old),
        'Ada/again/lessons/ada 01_reading_mri.ipynb': new_notebook(cells=new),
        'Ben/my homework.ipynb': renamed,
        'Ben/scratch.ipynb': new_notebook(cells=[new_code_cell('1 + 1')]),
    }
    files |= {
        'group/Cem/01_reading_mri.ipynb': new_notebook(cells=new),
        'group/Edi/01_reading_mri.ipynb': new_notebook(cells=old),
        'Ben/2024_scratch.ipynb': new_notebook(cells=[new_code_cell('2')]),
    }
    for name, nb in files.items():
        path = tmp_path / 'class' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, path)
    (tmp_path / 'class' / 'Ben' / 'gone.ipynb').symlink_to(tmp_path / 'nowhere.ipynb')
    status, said, err = shell(tmp_path / 'out', '--check-all', tmp_path / 'class')
    assert status == 2 and 'gone.ipynb: cannot be read' in err
    assert 'handed in twice; the file with more right counts' in err
    assert said.splitlines()[0] == '| student | 01_reading_mri | 02_words |'
    rows = ['| Ada | 1/1 | - |', '| Ben | - | 1/1 |']
    rows += ['| group/Cem | 1/1 | - |', '| group/Edi | 0/1 | - |']
    assert said.splitlines()[2:6] == rows


def test_remarks_in_the_table_are_kept(tmp_path):
    (tmp_path / 'class' / 'Ada').mkdir(parents=True)
    nb = new_notebook(cells=solved('a', '✔ a: right.'))
    nbformat.write(nb, tmp_path / 'class' / 'Ada' / '01_x.ipynb')
    call = (tmp_path / 'out', '--check-all', tmp_path / 'class')
    table = tmp_path / 'out' / 'checks.csv'
    assert shell(*call)[0] == 0 and shell(*call)[0] == 0
    table.write_text(table.read_text(encoding='utf-8') + 'Ada was ill\n', encoding='utf-8')
    status, _, err = shell(*call)
    assert status == 2 and 'checks.csv: exists' in err and 'Ada was ill' in table.read_text('utf-8')
    assert shell(*call, '--force')[0] == 0 and 'ill' not in table.read_text('utf-8')


def edit(path, old, new):
    path.write_text(path.read_text(encoding='utf-8').replace(old, new), encoding='utf-8')


def test_check_writes_json_and_csv(tmp_path):
    source = tmp_path / 'src'
    source.mkdir()
    nbformat.write(tiny(), source / '01_count.ipynb')
    shell(tmp_path / 'class' / 'Ada', '--source', source)
    lesson = tmp_path / 'class' / 'Ada' / '01_count.ipynb'
    status, said, _ = shell('--check', lesson)
    assert (status, '0 of 1 solved' in said, 'not run' in said) == (0, True, True)
    edit(lesson, 'count = ...', 'count = 5')
    status, said, _ = shell('--check', lesson, '--run')
    assert (status, '1 of 1 solved' in said) == (0, True)
    assert shell(tmp_path / 'out', '--check-all', tmp_path / 'class', '--run')[0] == 0
    rows = json.loads((tmp_path / 'out' / 'checks.json').read_text(encoding='utf-8'))
    assert rows == [
        dict(
            student='Ada',
            lesson='01_count',
            exercise='count',
            kind='predict',
            status='right',
            hint='',
        )
    ]
    text = (tmp_path / 'out' / 'checks.csv').read_text(encoding='utf-8')
    assert text == 'student,lesson,exercise,kind,status,hint\nAda,01_count,count,predict,right,\n'
    assert grade(nbformat.read(lesson, 4))[0].status == 'not run'  # the file is left alone


def test_what_cannot_be_checked(tmp_path):
    nbformat.write(new_notebook(), tmp_path / 'empty.ipynb')
    (tmp_path / '01_bad.ipynb').write_text('{', encoding='utf-8')
    for args, word in {
        ('--check', tmp_path / 'none.ipynb'): 'none.ipynb: cannot be read',
        ('--check', tmp_path / 'empty.ipynb'): 'empty.ipynb: holds no exercises',
        ('--check-all', tmp_path / 'none'): 'none: is not a folder',
        ('--check-all', tmp_path): '01_bad.ipynb: is not a notebook',
        ('--check', 'a', '--check-all', 'b'): 'exclude each other',
        ('--check', tmp_path): 'is a folder: give a notebook, or use --check-all',
        ('--check-all', tmp_path, '--lesson', 1): 'with --check, name the notebook instead',
        (): 'name a folder for the lessons',
    }.items():
        status, said, err = shell(*args)
        assert (status, said, err.count('\n'), word in err) == (2, '', 1, True), err


def test_work_is_never_overwritten(tmp_path):
    source, out = tmp_path / 'src', tmp_path / 'out'
    source.mkdir()
    nbformat.write(tiny(), source / '01_count.ipynb')
    nbformat.write(tiny(), source / '02_more.ipynb')
    shell(out, '--source', source, '--lesson', 1)
    work = out / '01_count.ipynb'
    edit(work, 'count = ...', 'count = 5')
    before = work.read_bytes()
    status, said, err = shell(out, '--source', source)
    assert (status, said, err.count('\n')) == (2, '', 1)
    assert '01_count.ipynb: exists' in err and '--force' in err
    assert work.read_bytes() == before and not (out / '02_more.ipynb').exists()
    assert shell(out, '--source', source, '--force')[0] == 0
    assert b'count = 5' not in work.read_bytes()


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
