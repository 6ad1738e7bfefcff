"""Report sentences with the answers that a reader gave before the parser was tuned, who saw the
conventions of `30_prompts` and no code"""

import json

import pytest
from conftest import ROOT

from atm_net.anatomy import LUMBAR
from atm_net.prompts import parse_prompt, read_report, report_prompt

ITEMS = json.loads((ROOT / 'tests' / 'reports.json').read_text(encoding='utf-8'))


def test_the_collection():
    assert (
        len(ITEMS) >= 80
        and len({x['text'] for x in ITEMS}) == len(ITEMS)
        and sum(not x['findings'] for x in ITEMS) >= 10
    )
    assert (
        all(f['level'] in (*LUMBAR.names, None) for x in ITEMS for f in x['findings'])
        and sum(f['negated'] for x in ITEMS for f in x['findings']) >= 50
    )


def misread(items):
    "(text, levels invented, levels lost) where the reader disagrees"
    pairs = [
        (
            x['text'],
            {(f.level, f.negated) for f in read_report(x['text'])},
            {(f['level'], f['negated']) for f in x['findings']},
        )
        for x in items
    ]
    return [(text, g - w, w - g) for text, g, w in pairs if g != w]


def test_every_sentence_is_read():
    """Each set was scored unseen when it was collected (the closing notes say how well); now all
    of them are kept right"""
    assert misread(ITEMS) == [] and len(misread([dict(text='Fracture of L1.', findings=[])])) == 1


def test_all_in_one_report():
    "Reports are longer than sentences: joined line by line, each line is read as alone"
    together = [
        (f.finding, f.level, f.negated) for f in read_report('\n'.join(x['text'] for x in ITEMS))
    ]
    assert set(together) == {
        (f.finding, f.level, f.negated) for x in ITEMS for f in read_report(x['text'])
    }


@pytest.mark.parametrize('option', (1, 2, 3, 4))
def test_every_report_gives_a_prompt(option):
    for x in ITEMS:
        p = report_prompt(x['text'], option=option)
        back = parse_prompt(str(p))
        assert (set(back.structures), set(back.findings)) == (set(p.structures), set(p.findings)), (
            x['text']
        )


def test_what_is_printed_of_a_report(tmp_path):
    from conftest import call, done

    f = tmp_path / 'r.txt'
    f.write_text('Disc herniation at L4/L5. No fracture of L1.\n', encoding='utf-8')
    out = done(call('atm_prompt', '--report', f)).out
    assert (
        'no fracture at L1' in out
        and 'disc herniation at L4/L5' in out
        and 'no disc herniation' not in out
    )


def test_lastly_is_said_of_the_canal_alone():
    from atm_net.prompts import holistic

    assert (
        'lastly' not in holistic(['L3', 'L3/L4', 'L4'], 3).text
        and 'lastly' in holistic(['L3', 'L4', 'SC'], 3).text
    )


def test_a_prompt_of_one_slice_lists_that_slice(tmp_path):
    import json

    import numpy as np
    from conftest import call, done

    from atm_net.anatomy import LUMBAR
    from atm_net.volumes import new_geometry, write_labels

    s = LUMBAR.scheme('joint')
    y = np.zeros((3, 40, 30), np.uint8)
    y[0, 2:14, 4:20] = s.values['L3']
    y[1, 2:14, 4:20] = s.values['L3']
    y[1, 20:32, 4:20] = s.values['L4']
    write_labels(y, new_geometry(y.shape, (4.0, 1.0, 1.0)), tmp_path / 'm.nii.gz')

    def said(*a):
        return set(
            json.loads(
                done(
                    call('atm_prompt', tmp_path / 'm.nii.gz', '--json', '--labels', 'joint', *a)
                ).out
            )['structures']
        )

    assert (said('--slice', 0, '--option', 1), said('--option', 1), said('--slice', 0), said()) == (
        {'L3'},
        {'L3', 'L4'},
        {'L3'},
        {'L3', 'L4'},
    )


def test_one_structure_is_never_left_out():
    import numpy as np

    from atm_net.prompts import drop_words, holistic

    one = holistic(['L3'], 3)
    assert drop_words(one, np.random.default_rng(0), 0.0, 1.0, 0.0) == one


def test_what_a_misspelt_word_is_taken_for():
    """One letter before 'canal' is a slip; before a longer word it makes another word, as in
    'prevertebral'; a level of the neck is nearest to the body with its number"""
    from atm_net.anatomy import InputError
    from atm_net.prompts import check_prompt

    def said(text):
        with pytest.raises(InputError) as e:
            check_prompt(text)
        return str(e.value)

    assert "'acanal' (did you mean 'canal'?)" in said(
        'the acanal at L3'
    ) and "'C1' (did you mean 'L1'?)" in said('C1 and L2')
    for word in ('prevertebral', 'asacral'):
        assert check_prompt(f'{word} tissue at L3')


def test_a_level_that_is_named_for_being_well_takes_nothing():
    for text, level in {
        'L4/5 bulge and L5/S1 normal.': 'L4/L5',
        'At L3/4 disc bulge but L4/5 is normal.': 'L3/L4',
        'L4/5 shows a herniation whereas L5/S1 is normal.': 'L4/L5',
    }.items():
        assert [(f.level, f.negated) for f in read_report(text)] == [(level, False)], text


def test_specks_of_single_slices_make_no_structure(tmp_path):
    """Nine pixels in each of two slices: too few in either to be named in a sentence, so the
    sentence of the volume does not name it either"""
    import json

    import numpy as np
    from conftest import call, done

    from atm_net.volumes import new_geometry, write_labels

    s = LUMBAR.scheme('joint')
    y = np.zeros((3, 40, 30), np.uint8)
    y[:, 2:14, 4:20] = s.values['L3']
    y[:2, 20:23, 4:7] = s.values['L4']
    write_labels(y, new_geometry(y.shape, (4.0, 1.0, 1.0)), tmp_path / 'm.nii.gz')
    for option in (2, 3):
        assert json.loads(
            done(
                call(
                    'atm_prompt',
                    tmp_path / 'm.nii.gz',
                    '--json',
                    '--labels',
                    'joint',
                    '--option',
                    option,
                )
            ).out
        )['structures'] == ['L3']
