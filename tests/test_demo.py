"The demo as a newcomer runs it"

import re
import time

import pytest
from conftest import done, shell


@pytest.mark.slow
def test_demo_in_ten_minutes(tmp_path):
    """The command of `make demo`, in full: the page and all that is behind it; the limit is the
    promise of the README, not a benchmark"""
    start = time.time()
    r = done(shell('atm_demo', '--out', tmp_path / 'demo', timeout=900))
    minutes = (time.time() - start) / 60
    page = (tmp_path / 'demo' / 'report.html').read_text(encoding='utf-8')
    assert minutes < 10, f'{minutes:.1f} minutes'
    assert page.count('data:image/png;base64,') == 5 and not re.search(r'(src|href)="https?:', page)
    for name in ('phantoms', 'cache', 'masks', 'scores', 'practice', 'training'):
        assert (tmp_path / 'demo' / name).is_dir(), name
    assert 'open' in r.out and len(page) < 6e6
