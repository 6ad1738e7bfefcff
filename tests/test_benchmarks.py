"What the benchmarks count"
import importlib.util
from pathlib import Path
import pytest

@pytest.fixture(scope='module')
def speed():
    spec = importlib.util.spec_from_file_location('speed', Path(__file__).parents[1]/'benchmarks'/'speed.py'); m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m); return m

def test_attention_is_counted(speed):
    "Exact against pooled at 128 pixels: two products of n x n in place of n x p, and keys and values of all places"
    d = speed.batch_of(3, 128); pooled,exact = (speed.flops(speed.build(n), d) for n in ('HASF, pooled','HASF, exact'))
    more = sum(4*n*(n-64)*c+4*c*c*(n-64) for n,c in ((64**2,12),(32**2,24),(16**2,48)))      # the two stages below have 64 places or fewer
    assert exact-pooled==3*more
