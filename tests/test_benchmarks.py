"What the benchmarks count"

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope='module')
def speed():
    spec = importlib.util.spec_from_file_location(
        'speed', Path(__file__).parents[1] / 'benchmarks' / 'speed.py'
    )
    m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    return m


def test_attention_is_counted(speed):
    """Exact against pooled at 128 pixels: two products of n x n in place of n x p, and keys and
    values of all places"""
    d = speed.batch_of(3, 128)
    pooled, exact = (speed.flops(speed.build(n), d) for n in ('HASF, pooled', 'HASF, exact'))
    more = sum(
        4 * n * (n - 64) * c + 4 * c * c * (n - 64)
        for n, c in ((64**2, 12), (32**2, 24), (16**2, 48))
    )  # the two stages below have 64 places or fewer
    assert exact - pooled == 3 * more


HOME = Path(__file__).parents[1]
PAGE = (HOME / 'benchmarks' / 'README.md').read_text(encoding='utf-8')
SIDES = (96, 128, 192, 384)


def measured(name) -> dict:  # (what, network, side) -> row
    "A file of results/speed"
    from atm_net.core import read_json

    rows = read_json(HOME / 'results' / 'speed' / f'{name}.json')['rows']
    return {(r['what'], r['network'], r['side']): r for r in rows}


def ratio_text(r):
    return f'{r["ratio"]:.2f} [{r["low"]:.2f}, {r["high"]:.2f}]'


def on_page(*cells):
    return f'| {" | ".join(cells)} |' in PAGE


def test_the_table_of_speed_is_what_was_measured(speed):
    "results/speed: the page of benchmarks quotes the ratios of time that lie there"
    rows = measured('speed')
    inference = ['HASF, pooled', 'HASF, pooled, mixed keys', 'HASF, exact', 'two decoders']
    shown = [('training', n) for n in speed.NETS if n != 'plain']
    shown += [('inference', n) for n in inference]
    for what, network in shown:
        ratios = [ratio_text(rows[what, network, side]) for side in SIDES]
        assert on_page(network, what, *ratios)


def test_the_table_of_memory_is_what_was_measured(speed):
    rows = measured('speed')
    for network in speed.NETS:
        if network != 'plain':
            ratios = [rows['training', network, side]['memory_ratio'] for side in SIDES]
            assert on_page(network, *(f'{r:.2f}' for r in ratios))


def test_the_table_of_preset_paper_is_what_was_measured():
    for (what, network, _), r in measured('paper').items():
        if network != 'plain':
            assert on_page(network, what, ratio_text(r), f'{r["memory_ratio"]:.2f}')


def test_the_aims_are_judged_by_what_was_measured():
    "An aim that a figure does not reach is called missed"
    rows = measured('speed')

    def seen(what, network):
        return rows[what, network, 128]

    pooled, ccae, exact = 'HASF, pooled', 'HASF, pooled, and CCAE', 'HASF, exact'
    for aim, text, figure in (
        (1.15, 'training 1.15, pooled attention', seen('training', pooled)['ratio']),
        (1.1, 'inference 1.10, pooled attention', seen('inference', pooled)['ratio']),
        (2.2, 'training 2.2, exact attention', seen('training', exact)['ratio']),
        (1.2, 'memory 1.2, pooled attention', seen('training', pooled)['memory_ratio']),
    ):
        row = next(x for x in PAGE.splitlines() if x.startswith(f'| {text} | {figure:.2f}'))
        assert ('**missed**' in row) == (figure > aim)
    paper = next(
        r for (what, n, _), r in measured('paper').items() if (what, n) == ('training', exact)
    )
    assert f'{paper["ratio"]:.2f} at the size of preset' in PAGE
    assert f'with CCAE {seen("training", ccae)["memory_ratio"]:.2f}' in PAGE


def test_the_profile_is_what_was_measured():
    "results/speed/profile.md: each kind of kernel has its four shares on the page"
    text = (HOME / 'results' / 'speed' / 'profile.md').read_text(encoding='utf-8')
    shares = {}
    for row in filter(None, text.splitlines()[2:]):
        c = [x.strip() for x in row.strip('|').split('|')]
        shares.setdefault(c[1], []).extend((c[4], c[6]))
    assert len(shares) == 7
    for t_pooled, t_whole, i_pooled, i_whole in shares.values():
        four = [x[1:].replace('%', ' %') for x in (t_pooled, i_pooled, t_whole, i_whole)]
        assert ' | '.join(four) + ' |' in PAGE


@pytest.mark.slow
def test_peak_memory_is_that_of_the_step_alone(speed):
    """Three times the images take about three times the memory to learn from, however large the
    process that asks is"""
    small, large = (speed.peak('plain', 64, b, 'training') for b in (4, 12))
    assert 2 < large / small < 3.5
