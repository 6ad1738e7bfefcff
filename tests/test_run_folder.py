"The run folder: log, TensorBoard, progress"

import importlib.util

import pytest

from atm_net.core import InputError
from atm_net.run_folder import Log, Progress, board_class, duration, training_curves
from atm_net.show import read_rows


def text(path):
    return path.read_text(encoding='utf-8')


def test_rows_and_columns(tmp_path):
    log = Log(tmp_path / 'log.csv', 0)
    log.add(step=1, loss=0.123456789)
    log.add(step=2, val_self=0.5)
    assert text(tmp_path / 'log.csv').split() == [
        'step,loss,seg,contrast,dice,lr,seconds,val_generic,val_self,val_none',
        '1,0.123457,,,,,,,,',
        '2,,,,,,,,0.5,',
    ]


def test_a_resume_keeps_the_rows_before_it(tmp_path):
    path = tmp_path / 'log.csv'
    log = Log(path, 0)
    for step in (1, 2, 3):
        log.add(step=step, loss=float(step))
    before = text(path)
    with open(path, 'a', encoding='utf-8') as f:
        f.write('1')  # step 12, cut off after its first digit
    Log(path, 2)
    assert text(path).split() == before.split()[:3]
    Log(path, 0)
    assert text(path).split() == before.split()[:1]


class Board:
    def __init__(self):
        self.seen = []

    def add_scalar(self, *a):
        self.seen.append(a)

    def close(self):
        self.seen.append('closed')


def test_a_copy_for_tensorboard(tmp_path):
    board = Board()
    log = Log(tmp_path / 'log.csv', 0, board)
    log.add(step=3, loss=1.5, dice=0.25)
    log.close()
    assert board.seen == [('loss', 1.5, 3), ('dice', 0.25, 3), 'closed']
    Log(tmp_path / 'log.csv', 0).close()


def test_tensorboard_is_optional():
    if importlib.util.find_spec('tensorboard') is None:
        with pytest.raises(InputError, match='pip install tensorboard'):
            board_class()
    else:
        assert board_class().__name__ == 'SummaryWriter'


def test_a_log_that_cannot_be_written(tmp_path):
    log = Log(tmp_path / 'log.csv', 0)
    (tmp_path / 'log.csv').unlink()
    (tmp_path / 'log.csv').mkdir()
    with pytest.raises(InputError, match='make room, then go on with --resume'):
        log.add(step=1)


def test_curves(tmp_path):
    log = Log(tmp_path / 'log.csv', 0)
    for step in (1, 2, 3):
        log.add(step=step, loss=1.0, seg=1.0, dice=0.1)
        if step > 1:
            log.add(step=step, contrast=2.0, val_self=0.2, val_generic=0.1)
    fig = training_curves(read_rows(tmp_path / 'log.csv'), 'a run')
    assert [len(a.lines) for a in fig.axes] == [3, 1, 2]
    assert list(fig.axes[0].lines[2].get_xdata()) == [2, 3]


def test_lines_of_progress(capsys):
    p = Progress(200, 20, True, pause=30.0)
    p.began -= 60
    p.bar.disable = True
    for _ in range(2):  # the second line comes too soon
        p.row(50, dict(loss=1.25, dice=0.5))
    p.close()
    said = capsys.readouterr().err
    assert said.count('step 50/200') == 1
    assert 'step 50/200: loss 1.250, Dice 0.50, 2.00 s a step, 5 min left' in said


def test_the_other_processes_are_silent(capsys):
    p = Progress(200, 20, False)
    p.step(dict(loss=1.0, dice=None))
    p.close()
    assert capsys.readouterr().err == ''


def test_durations():
    said = [duration(s) for s in (7, 89.6, 90, 600, 89 * 60, 90 * 60, 3600 * 30 + 120)]
    assert said == ['7 s', '90 s', '2 min', '10 min', '89 min', '1 h 30 min', '30 h 2 min']
