"benchmarks/gpu_check.py: a toy of it on a CPU, and how it judges what it finds"

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from conftest import ROOT

SCRIPT = ROOT / 'benchmarks' / 'gpu_check.py'


@pytest.fixture(scope='module')
def gpu_check():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location('gpu_check', SCRIPT)
        module = importlib.util.module_from_spec(spec)
        sys.modules['gpu_check'] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(SCRIPT.parent))
        sys.modules.pop('gpu_check', None)


def script(*args, timeout=600):
    command = [sys.executable, str(SCRIPT), *map(str, args)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout)


# --- a toy of it


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    file = tmp_path_factory.mktemp('toy') / 'gpu.json'
    r = script('--short', '--device', 'cpu', '--minutes', 9, '--json', file)
    assert r.returncode == 0, r.stdout + r.stderr
    return r.stdout, json.loads(file.read_text(encoding='utf-8'))


@pytest.mark.slow
def test_what_a_cpu_can_run_is_run(toy):
    states = {name: case['state'] for name, case in toy[1]['cases'].items()}
    assert states == {
        'data and encoder': 'ok',
        'fp32': 'ok',
        'bf16': 'ok',
        'fp16': 'ok',
        'channels-last': 'ok',
        'resume': 'ok',
        'inference': 'ok',
        'as on the CPU': 'not run',
        'two ranks': 'not run',
        'compile': 'not run',
    }


@pytest.mark.slow
def test_what_is_not_run_says_why(toy):
    why = {n: c['why'] for n, c in toy[1]['cases'].items() if c['state'] == 'not run'}
    assert all(why.values())
    assert 'NCCL needs GPUs' in why['two ranks']
    assert all(reason in toy[0] for reason in why.values())


@pytest.mark.slow
def test_figures_of_a_toy(toy):
    cases = toy[1]['cases']
    for name in ('fp32', 'bf16', 'fp16', 'channels-last'):
        c = cases[name]
        assert len(c['losses']) == 4
        assert c['losses'][-1] < c['losses'][0]
        assert c['images_a_second'] == pytest.approx(2 / c['seconds_a_step'])
        assert c['peak_gb'] is None or c['peak_gb'] > 0.1
    assert cases['bf16']['losses'] != cases['fp32']['losses']  # it was fewer bits
    assert cases['channels-last']['losses'][0] == pytest.approx(cases['fp32']['losses'][0], 1e-4)
    assert cases['resume']['gap'] <= 1e-5
    assert (cases['inference']['slices'], cases['inference']['inference_seconds'] > 0) == (3, True)


@pytest.mark.slow
def test_the_record_says_where_it_was_made(toy):
    text, result = toy
    for package in ('torch', 'monai', 'atm_net'):
        assert f'{package} {result["machine"]["versions"][package]}' in text
    assert 'GPUs: 0' in text
    assert '| fp32 | ok |' in text


@pytest.mark.slow
def test_two_ranks_by_gloo(tmp_path):
    "The same losses as in one process, on half a batch each"
    r = script('--short', '--device', 'cpu', '--cases', 'fp32,two ranks')
    assert r.returncode == 0, r.stdout + r.stderr
    assert '| two ranks | ok |' in r.stdout


# --- one fault does not stop the others


def nothing(*_):
    return dict(seconds=1.0)


def slow(*_):
    time.sleep(1.5)
    return nothing()


def fault(*_):
    raise RuntimeError('CUDA out of memory\nand a long story')


def crash(*_):
    os._exit(9)


def hang(*_):
    time.sleep(60)


def test_a_fault_does_not_stop_the_others(gpu_check, monkeypatch, capsys, tmp_path):
    jobs = dict(make=nothing, train=fault, resume=crash, predict=hang, agree=nothing)
    cases = tuple(
        replace(c, limit=1) for c in gpu_check.CASES if c.name in ('fp32', 'resume', 'inference')
    )
    cases += (gpu_check.Case('last', 'agree'),)
    monkeypatch.setattr(gpu_check, 'JOBS', jobs)
    monkeypatch.setattr(gpu_check, 'CASES', cases)
    monkeypatch.setattr(gpu_check, 'load_libraries', lambda: None)
    file = tmp_path / 'x.json'
    assert gpu_check.main(['--device', 'cpu', '--json', str(file)]) == 1
    found = json.loads(file.read_text(encoding='utf-8'))['cases']
    assert {n: c['state'] for n, c in found.items()} == {
        'data and encoder': 'ok',
        'fp32': 'failed',
        'resume': 'failed',
        'inference': 'failed',
        'last': 'ok',
    }
    assert found['fp32']['why'] == 'RuntimeError: CUDA out of memory'
    assert found['resume']['why'] == 'its process ended with status 9'
    assert found['inference']['why'] == 'took longer than 1 s'
    assert 'CUDA out of memory' in capsys.readouterr().out


def test_without_data_nothing_is_run(gpu_check, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, 'JOBS', dict(gpu_check.JOBS, make=fault))
    monkeypatch.setattr(gpu_check, 'load_libraries', lambda: None)
    assert gpu_check.main(['--device', 'cpu', '--cases', 'fp32']) == 1
    assert '| fp32 | not run |' in capsys.readouterr().out


def test_cases_beyond_the_time_are_not_run(gpu_check, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, 'JOBS', dict.fromkeys(gpu_check.JOBS, slow))
    monkeypatch.setattr(gpu_check, 'load_libraries', lambda: None)
    assert gpu_check.main(['--device', 'cpu', '--minutes', '0.1']) == 0
    assert 'the 0.1 minutes are used up' in capsys.readouterr().out


def test_bad_input(gpu_check, capsys):
    for args in (['--cases', 'fp64'], ['--batch', '3'], ['--device', 'cuda:99']):
        with pytest.raises(SystemExit) as e:
            gpu_check.main(args)
        assert e.value.code == 2
    assert 'no case fp64' in capsys.readouterr().err


# --- how it judges


REFERENCE = [1.0, 0.8, 0.5]


@pytest.mark.parametrize(
    'losses, words',
    [
        ([1.0, 0.8, 0.5], ''),
        ([1.019, 0.8, 0.549], ''),
        ([1.021, 0.8, 0.5], 'the first loss is 1.0210, that of fp32 is 1.0000: more than 2%'),
        ([1.0, 0.8, 0.551], 'the last loss is 0.5510'),
        ([1.0, 0.8, 1.0], 'does not fall'),
        ([1.0, math.nan, 0.5], 'not finite'),
    ],
)
def test_losses_are_judged(gpu_check, losses, words):
    said = gpu_check.wrong_losses(losses, REFERENCE)
    assert words in said if words else said == ''


def test_a_training_with_wrong_losses_has_failed(gpu_check):
    found = dict(state='ok', why='', losses=[1.0, 1.1])
    assert gpu_check.judged(gpu_check.Case('x'), found, None)['state'] == 'failed'
    other = gpu_check.Case('x', 'resume')
    assert gpu_check.judged(other, found, None) == found


def test_reasons_not_to_run(gpu_check, monkeypatch):
    import torch

    by_name = {c.name: c for c in gpu_check.CASES}

    def why(name, device, gpus, named=()):
        return gpu_check.why_not(by_name[name], device, gpus, named)

    assert why('two ranks', 'cuda', 1) == 'needs 2 GPUs, here is 1'
    assert why('two ranks', 'cuda', 2) == why('compile', 'cuda', 1) == ''
    assert why('two ranks', 'cpu', 0, ['two ranks']) == ''
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda: False)
    assert why('bf16', 'cuda', 1) == 'this GPU has no bfloat16'
    assert why('fp16', 'cuda', 1) == why('bf16', 'cpu', 0) == ''
