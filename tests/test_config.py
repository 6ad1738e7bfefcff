"Configurations of training: what is refused, what an option changes, where a value comes from"

from dataclasses import replace

import pytest

from atm_net.anatomy import LUMBAR
from atm_net.config import (
    PRESETS,
    Config,
    check_config,
    clamp_warmup,
    configure,
    from_options,
    learning_rate,
    network_kwargs,
    provenance,
    read_fields,
    said_fields,
    set_fields,
    sources,
    stage_border,
    window_sides,
)
from atm_net.core import InputError, write_json

TINY, PAPER = PRESETS['tiny'], PRESETS['paper']
STAGED = replace(TINY, plain=0.2)


def test_every_value_has_a_source():
    assert set(sources(PAPER).values()) == {'paper', 'assumed', 'ours'}
    assert sources(TINY)['batch'] == 'paper'
    assert provenance(TINY)['lambda_2'] == dict(value=0.02, source='ours')
    assert list(provenance(TINY)) == list(sources(Config()))


def test_the_cosine_runs_once_per_stage():
    border = stage_border(STAGED)
    assert (stage_border(PAPER), stage_border(TINY), border) == (0, 0, 80)
    assert learning_rate(PAPER, 50_000) == pytest.approx(1e-6)
    assert learning_rate(STAGED, border - 1) < 2e-5
    assert learning_rate(STAGED, border + STAGED.warmup) > 9e-4


def test_the_warm_up_is_linear():
    first = [learning_rate(TINY, s) / learning_rate(replace(TINY, warmup=0), s) for s in range(22)]
    assert first == pytest.approx([(s + 1) / 21 for s in range(21)] + [1])


@pytest.mark.parametrize(
    'faulty,word',
    [
        (dict(windows=(96, 100)), '100'),
        (dict(windows=()), 'none'),
        (dict(windows=(0,)), '0'),
        (dict(amp='int4'), 'int4'),
        (dict(lr=1e-9), '--lr'),
        (dict(steps=0), '--steps'),
        (dict(batch=-1), '--batch'),
        (dict(focal='x'), '--focal'),
        (dict(option=4), '--option'),
        (dict(swin='v3'), '--swin'),
        (dict(paired=False, text_decoder=True), 'text_decoder needs paired'),
        (dict(w_generic=1.5), 'w_generic 1.5'),
        (
            dict(w_generic=0.3, text_decoder=True),
            'no effect, because each pass has a decoder of its own',
        ),
        (dict(w_generic=0.3, hasf=False), 'no effect, because the network reads no text'),
        (dict(w_generic=0.3, paired=False), 'no effect, because each image'),
    ],
)
def test_what_cannot_work_is_refused(faulty, word):
    with pytest.raises(InputError, match=word):
        check_config(replace(TINY, **faulty))


def test_the_presets_are_accepted():
    check_config(TINY)
    check_config(PAPER)


def test_the_weight_of_the_pass_without_prompt_acts_on_one_decoder():
    check_config(replace(TINY, text_decoder=False, w_generic=0.3))
    check_config(replace(TINY, text_decoder=False, paired=False))  # the preset's own, idle


def test_windows_on_the_command_line():
    assert window_sides('96,128') == (96, 128)
    with pytest.raises(InputError, match="--windows '96 px'"):
        window_sides('96 px')


def test_mixed_tokens_take_the_position_code_of_the_image():
    assert configure('tiny', tokens='mixed').code == '2d'
    assert configure('tiny', tokens='mixed', code='1d').code == '1d'
    assert configure('tiny', seed=3).code == 'order'
    assert configure('paper', tokens='mixed', code='order').code == 'order'


def test_warm_up_of_a_short_run():
    assert clamp_warmup(TINY, 50).warmup == 5
    assert clamp_warmup(TINY, 4000).warmup == TINY.warmup
    assert clamp_warmup(replace(PAPER, warmup=30), 50).warmup == 30


def test_options_that_were_not_given_change_nothing():
    assert from_options('tiny', dict(lr=None, windows=None)) == TINY
    assert from_options('paper', dict(hasf=True)) == PAPER


def test_a_network_without_text_has_neither_module():
    cfg = from_options('tiny', dict(network='unet', hasf=True, ccae=True))
    assert (cfg.hasf, cfg.ccae) == (False, False)


def test_idle_options_are_refused():
    assert from_options('tiny', dict(network='swin_unetr', swin='v1')).swin == 'v1'
    with pytest.raises(InputError, match='--model unet has no use for --option, --swin: leave'):
        from_options('tiny', dict(network='unet', swin='v1', option=2))
    with pytest.raises(InputError, match='--model swin_unetr has no use for --code: leave'):
        from_options('tiny', dict(network='swin_unetr', swin='v1', code='2d'))
    with pytest.raises(InputError, match="--preset 'big' is unknown: use paper or tiny"):
        from_options('big', {})


def test_arguments_of_the_networks():
    scheme = LUMBAR.scheme('joint')
    swin = replace(TINY, network='swin_unetr')
    assert network_kwargs(swin, 128, scheme) == dict(use_v2=True)
    graph = network_kwargs(replace(TINY, network='spineparsenet'), 128, scheme)
    assert list(graph) == ['edges']


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(p_cut=0.6, p_incomplete=0.3, p_wrong=0.2), 'sum to 1 at most'),
        (dict(p_cut=-0.1), 'not negative'),
        (dict(p_moved=1.2), 'p_moved 1.2'),
        (dict(p_unordered=-0.5), 'p_unordered -0.5'),
        (dict(p_moved=0.5, paired=False, text_decoder=False), 'p_moved needs paired'),
    ],
)
def test_shares_of_changed_prompts(changes, message):
    with pytest.raises(InputError, match=message):
        check_config(replace(PRESETS['tiny'], **changes))


# --set and --config


def test_every_kind_of_field_can_be_set():
    pairs = ['tau=0.1', 'steps=50', 'paired=no', 'windows=64,96', 'heads=4,2', 'code=ends']
    assert set_fields(pairs) == dict(
        tau=0.1, steps=50, paired=False, windows=(64, 96), heads=(4, 2), code='ends'
    )
    assert set_fields(['heads=8', 'lr=1e-4']) == dict(heads=8, lr=1e-4)


@pytest.mark.parametrize(
    ('pair', 'said'),
    [
        ('tua=0.1', "no such hyper-parameter, did you mean 'tau'"),
        ('tau', 'FIELD=VALUE'),
        ('tau=sharp', 'must be float'),
        ('steps=1.5', 'must be int'),
        ('paired=perhaps', 'true or false'),
        ('heads=a', 'whole numbers'),
        ('network=unet', 'use --model'),
        ('lr=1e-3', 'given twice'),
    ],
)
def test_what_cannot_be_set(pair, said):
    with pytest.raises(InputError, match=said):
        set_fields([pair], taken=('lr',))


def test_fields_of_a_file(tmp_path):
    "Lines of YAML, or the config.json of a run; an option wins over the file"
    (tmp_path / 'a.yaml').write_text('tau: 0.1\nlr: 1e-4\nheads: [4, 2]\n', encoding='utf-8')
    found = read_fields(tmp_path / 'a.yaml')
    assert found == dict(tau=0.1, lr=1e-4, heads=(4, 2))
    assert from_options('tiny', dict(tau=0.2), found).tau == 0.2
    plain = configure('tiny', network='unet', hasf=False, ccae=False, batch=4)
    write_json(tmp_path / 'config.json', dict(config=provenance(plain)))
    found = read_fields(tmp_path / 'config.json')
    assert from_options(found.pop('preset'), {}, found) == plain


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('tau: [1', 'cannot be read as YAML'),
        ('- tau', 'holds no hyper-parameters'),
        ('tau: sharp', "tau 'sharp': must be float"),
        ('steps: true', 'must be int'),
        ('tua: 1', "did you mean 'tau'"),
    ],
)
def test_files_that_cannot_be_taken(text, said, tmp_path):
    (tmp_path / 'a.yaml').write_text(text, encoding='utf-8')
    with pytest.raises(InputError, match=said) as caught:
        read_fields(tmp_path / 'a.yaml')
    assert 'a.yaml' in str(caught.value)
    with pytest.raises(InputError, match='cannot be read'):
        read_fields(tmp_path / 'none.yaml')


def test_set_fields_are_said_with_their_source():
    cfg = configure('tiny', tau=0.1, lambda_1=2.0)
    said = said_fields(cfg, ('tau', 'lambda_1', 'lr'))
    assert said == 'tau 0.1 (assumed; preset tiny: 0.07), lambda_1 2.0 (ours; preset tiny: 1.0)'
