"Pictures, pages, tables, whole files and commands: the edges"

import io
import os
from contextlib import redirect_stderr
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import pytest

from atm_net.anatomy import IGNORE, LUMBAR
from atm_net.cli import progress, run_command
from atm_net.core import InputError, atomic_path, read_json, write_json, write_text
from atm_net.show import (
    _border,
    colors,
    figure_html,
    legend_html,
    overlay,
    page,
    picture_html,
    plot_curves,
    read_rows,
    save_figure,
    table_html,
    table_md,
    thumbnail,
)

JOINT = LUMBAR.scheme('joint')


@pytest.fixture
def spine():
    "A noisy slice (60, 48) with three bodies and two discs, nine rows each"
    img = np.random.default_rng(0).normal(size=(60, 48))
    lab = np.zeros((60, 48), np.uint8)
    for i, name in enumerate(('L3', 'L3/L4', 'L4', 'L4/L5', 'L5')):
        lab[4 + i * 10 : 13 + i * 10, 15:33] = JOINT.channel(name)
    return img, lab


def stumble(path, *files):
    "What comes of an OSError about some file while `path` is written"
    try:
        with atomic_path(path) as unfinished:
            named = [unfinished if file is None else file for file in files]
            raise OSError(28, 'No space left on device', *named)
    except OSError as e:
        return e.filename
    except InputError as e:
        return str(e).split(' (')[0]


def test_whose_fault_a_failed_write_is(tmp_path):
    path = tmp_path / 'a.json'
    for files in ((), (None,), (path,), (str(path),)):  # no name, the temporary file, the target
        assert stumble(path, *files) == f'{path}: cannot be written'
    for other in ('/elsewhere/b.json', 'source.csv'):  # another file's trouble
        assert stumble(path, other) == other
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_or_read(tmp_path):
    path = tmp_path / 'a.json'
    with pytest.raises(ValueError):
        write_json(path, float('nan'))
    path.write_text('{', encoding='utf-8')
    with pytest.raises(InputError, match='is not JSON'):
        read_json(path)
    with pytest.raises(InputError, match='cannot be made'):  # a file where a folder should be
        write_text(path / 'below' / 'b.txt', 'x')


def shout(
    word: str,  # what to shout
    times: int = 1,  # how often
):
    "Shout a word"
    if times < 1:
        raise InputError(f'--times: {times} is not positive')


def status(*argv):
    "Exit status and stderr of `shout` as a console command"
    err = io.StringIO()
    with redirect_stderr(err):
        try:
            run_command(shout, list(argv))
        except SystemExit as e:
            return e.code, err.getvalue()
    return 0, err.getvalue()


def test_a_command_answers_with_one_line():
    assert status('ah', '--times', '2') == (0, '')
    assert status('ah', '--times', '0') == (2, 'shout: --times: 0 is not positive\n')
    words = 'shout: unrecognized arguments: --tims 2 (see shout --help)\n'
    assert status('ah', '--tims', '2') == (2, words)
    assert list(progress(range(3))) == [0, 1, 2]


@pytest.mark.parametrize('asked, found', [(None, 'PASSIVE'), ('ACTIVE', 'ACTIVE')])
def test_threads_that_wait_sleep_unless_asked_otherwise(asked, found):
    with patch.dict(os.environ):
        os.environ.pop('OMP_WAIT_POLICY', None)
        if asked:
            os.environ['OMP_WAIT_POLICY'] = asked
        status('ah')
        assert os.environ['OMP_WAIT_POLICY'] == found


def test_names_stand_in_the_middle_of_the_largest_piece(spine):
    img, lab = spine
    lab[50:53, 2:8] = JOINT.channel('L3')  # a second, smaller L3 moves no name
    lab[54:, 40:44] = JOINT.channel('T9')  # a small T9 gets none
    named = overlay(img, lab, JOINT, spacing=(2.0, 1.5), names=7)
    places = {text.get_text(): text.get_position() for text in named.texts}
    assert places == {'L5': (36.0, 97.0), 'L4': (36.0, 57.0), 'L3': (36.0, 17.0)}  # mm


def test_the_border_lies_on_both_sides():
    pair = np.uint8([[0, 0, 0, 0], [0, 2, 3, 0], [0, 0, 0, 0]])
    assert _border(pair).tolist() == [
        [False, True, True, False],
        [True, True, True, True],
        [False, True, True, False],
    ]
    assert not _border(pair * 0 + 3).any()


def test_thumbnails(spine):
    img, lab = spine
    small = thumbnail(img, lab, JOINT, (2.0, 1.5), side=120)
    for name in ('L3', 'L5'):  # its corner is border: the table's colour
        i, j = np.argwhere(lab == JOINT.channel(name))[0]
        color = 255 * colors(JOINT)[JOINT.channel(name)]
        np.testing.assert_allclose(small[2 * i + 1, round(1.5 * j) + 1], color, atol=1)
    plain = thumbnail(img, None, None, (2.0, 1.5), 120)
    assert (plain == plain[..., :1]).all() and (small[5, 5] == plain[5, 5]).all()
    assert thumbnail(np.full((9, 5), np.nan)).max() == 0
    assert (thumbnail(img, lab * 0 + IGNORE, JOINT) == thumbnail(img)).all()
    assert thumbnail(np.ones((3, 900))).shape == (1, 220, 3)


def test_rows_of_a_file(tmp_path):
    path = tmp_path / 'log.csv'
    write_text(path, 'step,loss,note\n0,1.5,a\n1,,b\n2,.5\n3,1,c,d\n')
    assert read_rows(path) == [
        dict(step=0.0, loss=1.5, note='a'),
        dict(step=1.0, loss=None, note='b'),
        dict(step=2.0, loss=0.5, note=None),
        dict(step=3.0, loss=1.0, note='c'),
    ]
    (tmp_path / 'bad.csv').write_bytes(b'a,b\n\xff,1\n')
    for name in ('bad.csv', 'no.csv'):
        with pytest.raises(InputError, match=f'{name}: cannot be read'):
            read_rows(tmp_path / name)


def test_panels_without_a_number_are_left_out(tmp_path):
    rows = [dict(step=i, loss=1 / (1 + i), dice=0.5, note='x') for i in range(3)]
    fig = plot_curves(rows, {'together': ('loss', 'dice', 'absent'), 'empty': ('note',)})
    assert [len(ax.lines) for ax in fig.axes] == [2]
    save_figure(fig, tmp_path / 'c.png')
    assert (tmp_path / 'c.png').read_bytes()[:4] == b'\x89PNG'
    with pytest.raises(InputError, match='no losses'):
        plot_curves([dict(step=1)])


def test_pages_escape_what_they_show(spine):
    img, lab = spine
    fig, _ = plt.subplots(figsize=(1, 1))
    whole = page('A <b>', figure_html(fig, 'cap'), style='p{x:y}')
    assert 'A &lt;b&gt;' in whole and 'p{x:y}</style>' in whole and 'http' not in whole
    assert '<img alt="cap" src="data:image/png;base64,' in whole
    picture = picture_html(thumbnail(img, lab, JOINT, (2.0, 1.5), side=120), 'a & b')
    assert (
        '<img alt="a &amp; b" width="72" height="120" src="data:image/jpeg;base64,/9j/' in picture
    )
    assert '<figcaption>a &amp; b</figcaption>' in picture and len(picture) < 8000
    assert '<td>&lt;script&gt;</td>' in table_html([('<script>',)], ('case',))


def test_tables_and_legends():
    assert table_md([('L4', 0.5)], ('name', 'Dice')) == (
        '| name | Dice |\n| --- | --- |\n| L4 | 0.500 |\n'
    )
    assert table_md([('a|b', 1)], 'xy').splitlines()[2] == '| a\\|b | 1 |'
    shown = legend_html(JOINT, ('L5', 'L3'))
    words = ('L3', 'L5', 'L4', '&#9632;', LUMBAR['L5'].color)
    assert [shown.count(word) for word in words] == [1, 1, 0, 2, 1]
