"The words of a report: findings in lists, and slips"

import pytest

from atm_net.wording import find_findings, respell


def names(text):
    return [hit.finding for hit in find_findings(text)]


@pytest.mark.parametrize(
    'text, found',
    (
        (
            'compressing the thecal sac and the left exit neural canal',
            ['nerve compression', 'foraminal stenosis'],
        ),
        (
            'compressing the left exit canal with the L5 nerve root',
            ['foraminal stenosis', 'nerve compression'],
        ),
        (
            'compressing the cauda equina, nerve roots & exit canals',
            ['nerve compression', 'nerve compression', 'foraminal stenosis'],
        ),
        ('compressing the thecal sac, the nerve roots are normal', ['nerve compression']),
        ('compressing the thecal sac without exit canals', ['nerve compression']),
        ('the thecal sac and the nerve roots', []),
        ('desiccated disc material', ['disc degeneration']),
        ('disc material', []),
    ),
)
def test_lists_behind_a_verb_of_pressing(text, found):
    assert names(text) == found


@pytest.mark.parametrize(
    'slip, meant',
    (
        ('spondylolithesis', 'spondylolisthesis'),
        ('heniation', 'herniation'),
        ('ligamnetum', 'ligamentum'),
        ('hyperatrophy', 'hypertrophy'),
        ('Modec', 'modic'),
        ('tehcal', 'thecal'),
        ('amnd', 'and'),
        ('Evidnece', 'evidence'),
    ),
)
def test_slips_are_mended(slip, meant):
    assert respell(f'a {slip},') == f'a {meant},'


@pytest.mark.parametrize(
    'word',
    (
        'never',
        'signal',
        'conclusion',
        'fibrosis',
        'injections',
        'callus',
        'exostosis',
        'inflection',
        'destination',
        'joints',
        'protrusions',
        'mildly',
        'L4',
        'and',
        'hand',
        'confusion',
        'fats',
        'spondylosis',
        'spondylolysis',
    ),
)
def test_right_words_stay(word):
    assert respell(word) == word
