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


def test_the_table_of_speed_is_what_was_measured(speed):
    "results/speed: the page of benchmarks quotes the ratios that lie there"
    from atm_net.show import read_json

    home = Path(__file__).parents[1]
    rows = {
        (r['what'], r['network'], r['side']): r
        for r in read_json(home / 'results' / 'speed' / 'speed.json')['rows']
    }
    page = (home / 'benchmarks' / 'README.md').read_text(encoding='utf-8')

    def cell(r):
        return f'{r["ratio"]:.2f} [{r["low"]:.2f}, {r["high"]:.2f}]'

    for what, network in (
        *(('training', n) for n in speed.NETS if n != 'plain'),
        ('inference', 'HASF, pooled'),
        ('inference', 'HASF, pooled, mixed keys'),
        ('inference', 'HASF, exact'),
        ('inference', 'the whole preset'),
    ):
        assert (
            f'| {network} | {what} | '
            + ' | '.join(cell(rows[what, network, s]) for s in (96, 128, 192, 384))
            + ' |'
            in page
        )
    for network in speed.NETS:
        if network != 'plain':
            assert (
                f'| {network} | '
                + ' | '.join(
                    f'{rows["training", network, s]["memory_ratio"]:.2f}'
                    for s in (96, 128, 192, 384)
                )
                + ' |'
                in page
            )
    paper = {
        (r['what'], r['network']): r
        for r in read_json(home / 'results' / 'speed' / 'paper.json')['rows']
    }
    for (what, network), r in paper.items():
        if network != 'plain':
            assert f'| {network} | {what} | {cell(r)} | {r["memory_ratio"]:.2f} |' in page

    def seen(what, network):
        return rows[what, network, 128]

    pooled, ccae, exact = 'HASF, pooled', 'HASF, pooled, and CCAE', 'HASF, exact'
    for aim, text, figure in (
        (1.15, 'training 1.15, pooled attention', seen('training', pooled)['ratio']),
        (1.1, 'inference 1.10, pooled attention', seen('inference', pooled)['ratio']),
        (2.2, 'training 2.2, exact attention', seen('training', exact)['ratio']),
        (1.2, 'memory 1.2, pooled attention', seen('training', pooled)['memory_ratio']),
    ):
        line = next(row for row in page.splitlines() if row.startswith(f'| {text} | {figure:.2f}'))
        assert ('**missed**' in line) == (figure > aim)
    assert (
        f'{paper["training", exact]["ratio"]:.2f} at the size of preset' in page
        and f'with CCAE {seen("training", ccae)["memory_ratio"]:.2f}' in page
    )


def test_the_profile_is_what_was_measured():
    "results/speed/profile.md: each kind of kernel has its four shares on the page"
    home = Path(__file__).parents[1]
    page = (home / 'benchmarks' / 'README.md').read_text(encoding='utf-8')
    shares = {}
    for row in (
        (home / 'results' / 'speed' / 'profile.md').read_text(encoding='utf-8').splitlines()[2:]
    ):
        if row:
            c = [x.strip() for x in row.strip('|').split('|')]
            shares.setdefault(c[1], []).extend((c[4], c[6]))
    assert len(shares) == 7
    for t_pooled, t_whole, i_pooled, i_whole in shares.values():
        assert (
            ' | '.join(x[1:].replace('%', ' %') for x in (t_pooled, i_pooled, t_whole, i_whole))
            + ' |'
            in page
        )


def test_peak_memory_is_that_of_the_step_alone(speed):
    """Three times the images take about three times the memory to learn from, however large the
    process that asks is"""
    small, large = (speed.peak('plain', 64, b, 'training') for b in (4, 12))
    assert 2 < large / small < 3.5
