"""The lessons: every solution passes its check, every stub and every plausible mistake gets a
hint; both editions, and the slides"""

import os
import re
import subprocess
import sys
import time

import pytest
from conftest import ROOT, call, complaint, done
from notebooks import LESSONS
from test_house import lines_of_code

from atm_net.lessons import (
    EXERCISE_KINDS,
    exercises,
    minutes,
    promised,
    read_lesson,
    rehearse,
    role,
    student,
)

lessons = pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.stem)
# lesson 6 trains: a minute even in the short form; 2 and 5 take a quarter of a minute and more
LONG_LESSONS = ('02', '05', '06')
quick_lessons = pytest.mark.parametrize(
    'path',
    [pytest.param(p, marks=[pytest.mark.slow] * p.stem.startswith(LONG_LESSONS)) for p in LESSONS],
    ids=lambda p: p.stem,
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    "An empty folder to run a lesson in, as lessons write beside themselves"
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    yield tmp_path
    plt.close('all')


def assert_checks(found: dict, names):
    "Each check tells the three cells of its exercise apart, and says something"
    assert sorted(found) == sorted(names)
    for name, o in found.items():
        for when in ('solution', 'again'):  # and once more after the last cell
            assert o[when].status == 'right', f'{name}, {when}: {o[when]}'
        assert o['exercise'].status in ('unsolved', 'wrong') and o['wrong'].status == 'wrong', (
            f'{name}: {o}'
        )
        for k in ('exercise', 'wrong'):
            assert (
                len(o[k].text) > 20
                and 'Traceback' not in o[k].text
                and 'stopped with' not in o[k].text
            ), f'{name}, {k}: {o[k]}'


def test_there_are_lessons():
    assert [f.name[:2] for f in LESSONS] == [
        f'{i:02d}' for i in range(1, len(LESSONS) + 1)
    ] and LESSONS


@lessons
def test_lesson_is_whole(path):
    "Opening, kinds of exercises, quiz, figures explained, summary with the paper, minutes, notes"
    nb = read_lesson(path)
    kinds = exercises(nb)
    text = [c.source for c in nb.cells if c.cell_type == 'markdown']
    assert set(kinds.values()) == set(EXERCISE_KINDS) and len(kinds) >= 5, kinds
    assert 20 <= promised(nb) <= 40 and all(m > 0 for _, m in minutes(nb))
    assert (
        all(f'| {w} |' in text[0] for w in ('goal', 'time', 'you need'))
        and 'Not a medical device' in text[0]
    )
    assert (
        '**In the paper.**' in text[-1] and 'Sec.' in text[-1] and text[-1].startswith('## Summary')
    )
    roles = [role(c).role for c in nb.cells]
    assert (
        roles.count('answer') == 1 and roles.count('notes') >= 2 and roles.count('setup') == 2
    )  # what a bare machine lacks, and the imports
    for i, c in enumerate(nb.cells):
        if c.cell_type == 'code' and any('image/png' in o.get('data', {}) for o in c.outputs):
            assert '**What to look for.**' in nb.cells[i + 1].source, (
                f'cell {i}: a figure that nobody explains'
            )
    shown = [c for c in nb.cells if role(c).role in ('', 'exercise', 'notes', 'answer', 'minutes')]
    share = sum(c.cell_type == 'markdown' for c in shown) / len(shown)
    assert share > 0.4, f'{share:.0%} of the cells are prose'
    assert (
        sum(any('image/png' in o.get('data', {}) for o in c.get('outputs', ())) for c in nb.cells)
        >= 2
        and path.stat().st_size < 800_000
    )


def open_cells(nb) -> list:  # of sources
    "The code that a student sees: neither folded nor gone from the edition"
    code = [c for c in student(nb).cells if c.cell_type == 'code']
    return [c.source for c in code if not c.metadata.get('jupyter', {}).get('source_hidden')]


@lessons
def test_students_see_short_cells(path):
    sizes = {text.split('\n')[0]: lines_of_code(text) for text in open_cells(read_lesson(path))}
    assert {head: n for head, n in sizes.items() if n > 15} == {}


@lessons
def test_a_check_is_one_call(path):
    "And its hints stand in a folded cell"
    nb = read_lesson(path)
    for c in nb.cells:
        r = role(c)
        if r.role == 'check':
            assert re.fullmatch(rf"check\('{r.name}', [\w, ]+\)", r.source), r.source
        if r.role == 'rules':
            assert c.metadata.jupyter.source_hidden
            assert r.source not in '\n'.join(open_cells(nb))


@quick_lessons
def test_checks_in_the_short_form(path, place, monkeypatch):
    monkeypatch.setenv('ATM_NET_WORKSHOP', 'short')
    nb = read_lesson(path)
    assert_checks(rehearse(nb), exercises(nb))


def scan_file(kind, folder):
    "Another phantom on disk, as a volume or as a picture of its middle slice -> path, spacing"
    from PIL import Image

    from atm_net.phantom import make_phantom
    from atm_net.volumes import write_volume

    phantom = make_phantom(5, codes='LPS', contrast='t1', slices=(5, 9.0))
    v = phantom.volume
    if kind == 'volume':
        write_volume(v.data, v.geometry, folder / 'mine.nii.gz')
        return folder / 'mine.nii.gz', None
    grey = 255 * (v.data[2] / v.data[2].max())
    Image.fromarray(grey.astype('uint8')).save(folder / 'mine.png')
    return folder / 'mine.png', float(v.spacing[1])


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['volume', 'picture'])
def test_lesson_8_asks_about_any_scan(kind, place, monkeypatch):
    monkeypatch.setenv('ATM_NET_WORKSHOP', 'short')
    nb = read_lesson(LESSONS[7])
    path, spacing = scan_file(kind, place)
    cell = next(c for c in nb.cells if c.source.startswith('my_scan = None'))
    cell.source = f'my_scan = {str(path)!r}\nmy_spacing = {spacing}'
    found = rehearse(nb)
    assert {name: o['solution'].status for name, o in found.items()} == dict.fromkeys(
        exercises(nb), 'right'
    )


def test_assert_checks_notices():
    from atm_net.exercises import Outcome

    good = dict(
        exercise=Outcome('a', 'unsolved', 'Replace the dots above, please.'),
        wrong=Outcome('a', 'wrong', 'That is the number of rows.'),
        solution=Outcome('a', 'right', ''),
        again=Outcome('a', 'right', ''),
    )
    assert_checks(dict(a=good), ['a'])
    for bad in (
        dict(solution=good['wrong']),
        dict(again=good['wrong']),
        dict(exercise=good['solution']),
        dict(wrong=good['solution']),
        dict(wrong=Outcome('a', 'wrong', '')),
        dict(wrong=Outcome('a', 'wrong', 'Your code stopped with TypeError')),
    ):
        with pytest.raises(AssertionError):
            assert_checks(dict(a=good | bad), ['a'])


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    "Both editions with slides, as the command writes them"
    out = tmp_path_factory.mktemp('workshop')
    for edition in ('student', 'instructor'):
        done(
            call(
                'atm_workshop',
                out / edition,
                '--edition',
                edition,
                '--slides',
                '--source',
                ROOT / 'nbs' / 'workshop',
            )
        )
    return out


def read(path):
    import nbformat

    nb = nbformat.read(path, as_version=4)
    nbformat.validate(nb)
    return nb


@lessons
def test_student_edition_holds_no_answer(path, written):
    source, nb = read_lesson(path), read(written / 'student' / path.name)
    text = '\n'.join(c.source for c in nb.cells)
    for c in source.cells:
        r = role(c)
        lines = [line for line in r.source.split('\n') if len(line.strip()) > 15]
        if r.role in ('notes', 'answer'):
            assert not any(line in text for line in lines), lines
        if r.role == 'solution':
            assert r.source not in text and '#| solution' not in text
    code = [c for c in nb.cells if c.cell_type == 'code']
    assert all(c.outputs == [] and c.execution_count is None for c in code)

    def kept(k):
        return [
            c.metadata.atm_net.name for c in code if c.metadata.get('atm_net', {}).get('role') == k
        ]

    assert (
        kept('exercise') == kept('check') == list(exercises(source))
        and kept('solution') == kept('wrong') == []
    )


@lessons
def test_instructor_edition_holds_everything(path, written):
    source, nb = read_lesson(path), read(written / 'instructor' / path.name)
    text = '\n'.join(c.source for c in nb.cells)
    for c in source.cells:
        r = role(c)
        if r.role in ('notes', 'answer', 'wrong'):
            assert all(f'> {line}'.rstrip() in text for line in r.source.split('\n'))
        if r.role == 'solution':
            assert r.source in text
    assert all(
        f'| {h} | {m} |' in text and f'{h} ({m} min)' in text for h, m in minutes(source)
    ) and any(c.get('outputs') for c in nb.cells)


@lessons
def test_slides_load_nothing_and_tell_nothing(path, written):
    page = (written / 'student' / f'{path.stem}.slides.html').read_text(encoding='utf-8')
    plain = re.sub('<[^>]+>', '', page)
    assert (
        page.count('<section') >= 12
        and page.count('data:image/png') >= 2
        and '\\frac' not in re.sub('alt="[^"]*"', '', page)
    )
    assert not re.findall(r'<script[^>]+src=|<link[^>]+href=|url\(["\']?https?:', page)
    assert '<aside class="notes"' not in page and '<aside class="notes"' in (
        written / 'instructor' / f'{path.stem}.slides.html'
    ).read_text(encoding='utf-8')
    assert [
        line
        for c in read_lesson(path).cells
        if role(c).role == 'answer'
        for line in re.findall(r'[A-Za-z ,]{40,}', role(c).source)
        if line in plain
    ] == []


def test_bad_input(tmp_path):
    assert 'student or instructor' in complaint(
        call(
            'atm_workshop',
            tmp_path / 'a',
            '--edition',
            'teacher',
            '--source',
            ROOT / 'nbs' / 'workshop',
        )
    )
    assert 'there are the lessons 1' in complaint(
        call(
            'atm_workshop', tmp_path / 'a', '--lesson', '99', '--source', ROOT / 'nbs' / 'workshop'
        )
    )
    assert 'no lessons there' in complaint(
        call('atm_workshop', tmp_path / 'a', '--source', tmp_path)
    )
    assert 'holds the source' in complaint(
        call('atm_workshop', ROOT / 'nbs' / 'workshop', '--source', ROOT / 'nbs' / 'workshop')
    )
    (tmp_path / 'file').write_text('', encoding='utf-8')
    assert 'is a file: name a folder' in complaint(
        call(
            'atm_workshop',
            tmp_path / 'file',
            '--lesson',
            '1',
            '--source',
            ROOT / 'nbs' / 'workshop',
        )
    )
    assert not (tmp_path / 'a').exists()


def test_command_as_a_process(tmp_path):
    "It finds the lessons of its clone from any folder"
    r = subprocess.run(
        [sys.executable, '-m', 'atm_net.workshop', str(tmp_path / 'out'), '--lesson', '1'],
        check=False,
        cwd=tmp_path,
        env=os.environ | dict(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert r.returncode == 0 and [p.name for p in (tmp_path / 'out').iterdir()] == [
        LESSONS[0].name
    ], r.stderr


# --- the long ones


@pytest.mark.slow
@lessons
def test_checks_at_full_length(path, place, monkeypatch):
    monkeypatch.delenv('ATM_NET_WORKSHOP', raising=False)
    nb = read_lesson(path)
    t = time.time()
    assert_checks(rehearse(nb), exercises(nb))
    seconds = time.time() - t
    assert seconds < 300, f'{seconds:.0f} s of machine time'


@pytest.mark.slow
@pytest.mark.parametrize('edition,status', [('student', ('…', '✘')), ('instructor', ('✔',))])
@lessons
def test_edition_in_a_kernel(path, edition, status, written, place, monkeypatch):
    """As a person runs it: no error in any cell; the checks of a student who did nothing all
    give a hint, the instructor's are all right"""
    from nbclient import NotebookClient

    monkeypatch.setenv('ATM_NET_WORKSHOP', 'short')
    nb = read(written / edition / path.name)
    NotebookClient(
        nb, timeout=300, kernel_name='python3', resources={'metadata': {'path': str(place)}}
    ).execute()
    said = [
        ''.join(o.data['text/plain'])
        for c in nb.cells
        if c.get('metadata', {}).get('atm_net', {}).get('role') == 'check'
        for o in c.outputs
        if 'data' in o
    ]
    assert len(said) == len(exercises(read_lesson(path))) and all(
        s.startswith(status) for s in said
    ), said
