"Commands: parameters and comments of a function become a parser; what it says of bad input"

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr

import pytest
from conftest import ROOT, call, complaint, done

from atm_net import __version__
from atm_net.cli import COMMANDS, make_parser, progress, read_command

SOURCE = '''
@command
def shout(
    word: str,  # what to shout
    # how often,
    # at most 100 %
    times: int = 1,
    mood: Literal['glad', 'cross'] = 'glad',  # of the voice
    echo: bool = True,  # sound comes back
    loud: bool = False,  # with full voice
    set: list[str] = None,  # a setting
    rest: Argument = None,  # more
):
    """Shout a word

    shout ah --times 3
    """
'''


@pytest.fixture(scope='module')
def command():
    return read_command(SOURCE, 'shout')


@pytest.fixture(scope='module')
def parser(command):
    return make_parser(command)


def refused(parser, *words) -> str:
    "The line on stderr"
    said = io.StringIO()
    with redirect_stderr(said), pytest.raises(SystemExit) as end:
        parser.parse_args(words)
    assert end.value.code == 2 and len(said.getvalue().splitlines()) == 1
    return said.getvalue()


def test_comments_are_the_help(command):
    said = {p.name: p.help for p in command.parameters}
    assert said['word'] == 'what to shout' and said['mood'] == 'of the voice'
    assert said['times'] == 'how often, at most 100 %'  # lines above, and no comment is taken twice


def test_what_is_typed(parser):
    typed = ['ah', 'oh', '--times', '3', '--no-echo', '--loud', '--set', 'a=1', '--set', 'b=2']
    assert vars(parser.parse_args(typed)) == dict(
        word='ah', rest='oh', times=3, mood='glad', echo=False, loud=True, set=['a=1', 'b=2']
    )
    usual = dict(word='ah', rest=None, times=1, mood='glad', echo=True, loud=False, set=None)
    assert vars(parser.parse_args(['ah'])) == usual


def test_hyphens_and_underscores():
    parser = make_parser(read_command('def f(at_most: int = 1, a_b: bool = True): "F"', 'f'))
    assert '--at-most' in parser.format_help() and '--no-a-b' in parser.format_help()
    for words in (['--at-most=3', '--no-a-b'], ['--at_most', '3', '--no-a_b']):
        assert vars(parser.parse_args(words)) == dict(at_most=3, a_b=False)


def test_one_or_more():
    parser = make_parser(read_command('def f(runs: list[str]):\n    "F"\n', 'f'))
    assert parser.parse_args(['a', 'b']).runs == ['a', 'b']
    assert 'runs' in refused(parser)


def test_bad_words_are_named(parser):
    assert "shout: --mood: 'glat' is unknown, did you mean 'glad'?: use glad or cross" in refused(
        parser, 'ah', '--mood', 'glat'
    )
    assert '--times: invalid int' in refused(parser, 'ah', '--times', 'x')
    assert 'unrecognized arguments: --tim' in refused(parser, 'ah', '--tim', '3')
    assert 'shout --help' in refused(parser)


def test_help_says_all(parser):
    text = ' '.join(parser.format_help().split())
    assert 'sound comes back (on by default, this switches it off)' in text
    assert 'with full voice (off by default)' in text and 'at most 100 % (default: 1)' in text
    assert 'examples: shout ah --times 3' in text and 'exit status: 0 done; 2' in text


def test_types_that_no_command_takes():
    with pytest.raises(TypeError, match='bytes'):
        read_command('def f(a: bytes): ...', 'f')
    with pytest.raises(LookupError, match='no function g'):
        read_command(SOURCE, 'g')


def start(command: str, *words) -> subprocess.CompletedProcess:
    "A command as the shell starts it; which large libraries were loaded comes last on stdout"
    code = f"""
import sys
from atm_net.cli import main
try:
    main([{command!r}, *{words!r}])
finally:
    print(sorted({{'numpy', 'torch', 'SimpleITK', 'matplotlib'}} & set(sys.modules)))
"""
    ask = [sys.executable, '-c', code]
    return subprocess.run(ask, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize('command', sorted(COMMANDS))
def test_help_loads_nothing(command):
    r = start(command, '--help')
    assert r.returncode == 0 and r.stdout.splitlines()[-1] == '[]'
    assert 'exit status' in r.stdout and r.stdout.startswith(f'usage: {command}')


def test_help_takes_half_a_second():
    "Of this process' own time: others may use the machine"
    before = os.times()
    start('atm_train', '--help')
    after = os.times()
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 0.5


@pytest.mark.parametrize(
    'words',
    [
        ('atm_train', 'c', 'r', '--model', 'nosuch'),
        ('atm_train', 'c', 'r', '--presett', 'tiny'),
        ('atm_predict', 'a', 'b', '--protocol', 'orakle'),
        ('atm_evaluate', 'cache'),
    ],
)
def test_wrong_options_load_nothing(words):
    r = start(*words)
    assert r.returncode == 2 and r.stdout.splitlines()[-1] == '[]'
    assert len(r.stderr.splitlines()) == 1 and r.stderr.startswith(f'{words[0]}: ')


@pytest.mark.parametrize(
    'words',
    [
        ('atm_train', 'nowhere', 'r'),
        ('atm_train', 'nowhere', 'r', '--set', 'tau=sharp'),
        ('atm_train', 'nowhere', 'r', '--device', 'gpu'),
        ('atm_predict', 'nowhere', 'b', '--device', 'gpu'),
    ],
)
def test_bad_values_are_refused_without_pytorch(words):
    r = start(*words)
    assert r.returncode == 2 and 'torch' not in r.stdout.splitlines()[-1]


def test_version():
    assert done(call('atm_predict', '--version')).out == f'atm_net {__version__}\n'


CHOOSE = ('atm_train', 'atm_predict', 'atm_prepare', 'atm_evaluate', 'atm_study', 'atm_prompt')


@pytest.mark.parametrize('command', CHOOSE)
def test_choices_are_choices(command):
    "A help that lists words after the type str would let any word pass"
    source = (ROOT / 'atm_net' / f'{COMMANDS[command]}.py').read_text(encoding='utf-8')
    for p in read_command(source, command).parameters:
        lists = re.match(r'[\w-]+(, [\w-]+)* or [\w-]+\b', p.help)
        assert not lists or p.choices or p.name in ('device', 'labels'), f'{p.name}: {p.help}'


def test_networks_to_choose_from_are_those_there_are():
    from atm_net.config import FOCAL
    from atm_net.losses import FOCAL_LOSSES
    from atm_net.weights import NETWORKS

    line = complaint(call('atm_train', 'nowhere', 'r', '--model', 'x'))
    assert [name for name in NETWORKS if name not in line] == []
    assert set(FOCAL) == set(FOCAL_LOSSES)


def test_lines_of_progress_where_there_is_no_terminal():
    said = io.StringIO()
    with redirect_stderr(said):
        assert list(progress([1, 2, 3], 'score', pause=0)) == [1, 2, 3]
        assert list(progress(iter('ab'), 'quick')) == ['a', 'b']  # soon done: silent
    assert said.getvalue().splitlines() == [f'score: {k} of 3 done' for k in (1, 2, 3)]
