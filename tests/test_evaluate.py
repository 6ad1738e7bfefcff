"Evaluate: pairs of files, label schemes of two sides, runs with known answers, tables and files"

import io
import re
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import close

from atm_net.anatomy import LUMBAR, Scheme, convert
from atm_net.cache import prepare
from atm_net.cli import run_command
from atm_net.cohort import open_cohort
from atm_net.core import InputError, read_json, write_json, write_text
from atm_net.data import Cache
from atm_net.evaluate import (
    Entry,
    _complete,
    case_data,
    evaluate_case,
    evaluate_runs,
    parse_protocols,
    partner_of,
    run_protocols,
    shuffled_partner,
)
from atm_net.evaluation_tables import (
    FORM,
    OVERALL,
    PAPER,
    by_protocol,
    difference_rows,
    dsc_by_structure,
    evaluate_into,
    form_cell,
    form_rows,
    form_structures,
    overall_rows,
    overall_table,
    paper_data,
    run_config,
    run_names,
    structure_table,
    table_tex,
    write_evaluation,
)
from atm_net.geometry import new_geometry
from atm_net.grid import Grid
from atm_net.mask_scores import (
    HEADER,
    _id,
    atm_score,
    collect,
    common_scheme,
    mask_key,
    pair_masks,
    read_scores,
    score_folders,
    score_schemes,
    scores_dict,
    scores_markdown,
    structure_rows,
)
from atm_net.metrics import METRICS, POLICIES, bootstrap_ci, summarise
from atm_net.predict import Predictor
from atm_net.prediction import Prediction
from atm_net.show import read_rows
from atm_net.volumes import write_labels, write_volume

joint, spider, mrs = (LUMBAR.scheme(n) for n in ('joint', 'spider', 'mrspineseg'))
ch = joint.channel


def tower(names, shape=(4, 44, 19), at=2):
    lab = np.zeros(shape, np.uint8)
    for i, n in enumerate(names):
        lab[1:3, at + 7 * i : at + 7 * i + 6, 5:13] = ch(n)
    return lab


levels = ['L3', 'L3/L4', 'L4', 'L4/L5', 'L5']
truth = tower(levels)
mm = (4.0, 1.5, 0.8)
g = new_geometry(truth.shape, mm)
full = truth.copy()
full[1:3, :, 16] = ch('SC')
sacral = full.copy()
sacral[1:3, 38:43, 5:13] = ch('S')
vertebrae = np.where(np.isin(truth, [ch(n) for n in ('L3', 'L4', 'L5')]), truth, 0)


def write(d, n, lab, sch):
    return write_labels(sch.decode(convert(lab, joint, sch)[0]), g, d / f'{n}.mha')


def fails(f, *args, contains, **kw):
    with pytest.raises(InputError, match=re.escape(contains)):
        f(*args, **kw)


# mask files


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    "Three cases: perfect, without L5, and named one level too low"
    tmp = tmp_path_factory.mktemp('scores')
    lost = np.where(truth == ch('L5'), 0, truth).astype(np.uint8)
    low = tower(['L4', 'L4/L5', 'L5', 'L5/S', 'S'])
    P, T = tmp / 'pred', tmp / 'truth'
    for i, (p, codes) in enumerate(((truth, 'LIP'), (lost, 'RSA'), (low, 'PIR')), 1):
        write_labels(joint.decode(p), new_geometry(truth.shape, mm, codes), P / f'V{i}.nii.gz')
        write_labels(
            joint.decode(truth), new_geometry(truth.shape, mm, 'LPS'), T / f'mask_v{i}.mha'
        )
    return P, T


@pytest.fixture(scope='module')
def scored(folders):
    return score_folders(*folders, LUMBAR)[0]


def test_pairs_of_files(tmp_path):
    tmp = tmp_path
    for f, names in dict(
        p=('Case10.mha', 'Case2.nii.gz'), t=('mask_case2.nii', 'mask_CASE10.nii.gz')
    ).items():
        (tmp / f).mkdir()
        [(tmp / f / n).touch() for n in names]
    (tmp / 'p' / 'png').mkdir()
    assert [(i, p.name, t.name) for i, p, t in pair_masks(tmp / 'p', tmp / 't')] == [
        ('Case2', 'Case2.nii.gz', 'mask_case2.nii'),
        ('Case10', 'Case10.mha', 'mask_CASE10.nii.gz'),
    ]
    assert (
        pair_masks(tmp / 'p' / 'Case2.nii.gz', tmp / 't' / 'mask_CASE10.nii.gz')[0][0] == 'Case2'
    )  # two files are a pair by being named
    assert (mask_key('Mask_Case7.NII.GZ'), _id('mask_Case7.mha', 'mask_case7.nii')) == (
        'case7',
        'Case7',
    )
    (tmp / 'p' / 'Case3.mha').touch()
    with pytest.raises(InputError, match=re.escape('Case3.mha: no partner')):
        pair_masks(tmp / 'p', tmp / 't')
    (tmp / 't' / 'CASE3.nii').touch()
    (tmp / 't' / 'Case4.nii').touch()
    with pytest.raises(InputError, match=re.escape('Case4.nii: no partner')):
        pair_masks(tmp / 'p', tmp / 't')
    (tmp / 't' / 'mask_case4.mha').touch()
    with pytest.raises(InputError, match='keep one'):
        pair_masks(tmp / 'p', tmp / 't')
    with pytest.raises(InputError, match='two files or two folders'):
        pair_masks(tmp / 'p', tmp / 't' / 'Case4.nii')
    with pytest.raises(InputError, match='holds no mask'):
        pair_masks(tmp / 'p' / 'png', tmp / 't')
    with pytest.raises(InputError, match='no such file'):
        pair_masks(tmp / 'x', tmp / 't')


def test_scores_of_a_known_cohort(folders):
    scored, scheme = score_folders(*folders, LUMBAR)
    assert (list(scored), scheme.name) == (['V1', 'V2', 'V3'], 'joint')
    assert [scored[v].exact['L5']['status'] for v in scored] == ['found', 'missed', 'found']
    assert [scored[v].exact['L4']['dsc'] for v in scored] == [1.0, 1.0, 0.0]
    assert [scored[v].matched['L4']['dsc'] for v in scored] == [1.0, 1.0, 1.0]
    assert [scored[v].shift['shifted'] for v in scored] == [False, False, True]
    close(scored['V2'].exact['L5']['hd95_px'], np.hypot(44, 19), 1e-09)
    close(scored['V2'].any_vertebra, 2 * 2 / (2 + 3), 1e-09)


def test_two_geometries_are_refused(folders, tmp_path):
    T, bad = folders[1], tmp_path
    write_labels(joint.decode(truth), new_geometry(truth.shape, (4.0, 1.5, 0.9)), bad / 'V1.nii.gz')
    with pytest.raises(InputError, match='geometry differs'):
        score_folders(bad / 'V1.nii.gz', T / 'mask_v1.mha', LUMBAR)
    write_labels(joint.decode(truth[:, :-1]), new_geometry((4, 43, 19), mm), bad / 'V1.nii.gz')
    with pytest.raises(InputError, match='shape'):
        score_folders(bad / 'V1.nii.gz', T / 'mask_v1.mha', LUMBAR)
    write_labels(truth + 60, g, bad / 'V1.nii.gz')
    with pytest.raises(InputError, match='--labels'):
        score_folders(bad / 'V1.nii.gz', T / 'mask_v1.mha', LUMBAR)
    with pytest.raises(InputError, match=re.escape('V1.nii.gz: label value(s)')):
        score_folders(bad / 'V1.nii.gz', T / 'mask_v1.mha', LUMBAR, 'mrspineseg')


def test_partly_visible_vertebrae_of_spider(tmp_path):
    bad = tmp_path
    sp = spider.decode(convert(truth, joint, spider)[0]).astype(np.uint16)
    a = sp.copy()
    a[a == 1] = 101
    a[1:3, 0:2, 5:13] = 12
    write_labels(sp, g, bad / '7_t1.mha')
    write_labels(a, g, bad / '7_t1_truth.mha')
    s, sch = score_folders(bad / '7_t1.mha', bad / '7_t1_truth.mha', LUMBAR)
    assert (sch.name, s['7_t1'].patient, s['7_t1'].exact['L5']['dsc']) == ('spider', '7', 1.0)
    assert sum(r['status'] == 'found' for r in s['7_t1'].exact.values()) == 5
    with pytest.raises(
        InputError, match=re.escape('7_t1_truth.mha: label value(s) 12, 101')
    ):  # that is leave for a truth only
        score_folders(bad / '7_t1_truth.mha', bad / '7_t1.mha', LUMBAR)


@pytest.fixture
def two_schemes(tmp_path):
    "The same cases as MRSpineSeg's and as SPIDER's numbers"
    M, S = tmp_path / 'm', tmp_path / 's'
    for n in ('a', 'b'):
        write(M, n, sacral, mrs)
        write(S, n, full, spider)
    return M, S


def test_two_schemes(two_schemes):
    M, S = two_schemes
    with pytest.raises(
        InputError,
        match="predictions are of scheme 'mrspineseg', those of the truths of 'spider': if that is "
        'so use --labels mrspineseg,spider',
    ):
        score_folders(M, S, LUMBAR)
    with pytest.raises(InputError, match='--labels spider,mrspineseg'):
        score_folders(S, M, LUMBAR)
    with pytest.raises(InputError, match=re.escape('a.mha: label value(s)')):
        score_folders(M, S, LUMBAR, 'spider')
    with pytest.raises(InputError, match='PRED,TRUTH'):
        score_folders(M, S, LUMBAR, 'joint,spider,joint')
    for p, t, names in ((M, S, 'mrspineseg,spider'), (S, M, ' spider , mrspineseg')):
        two, sch = score_folders(p, t, LUMBAR, names)
        assert (sch.name, len(sch.names), set(sch.names) & {'S', 'SC'}) == (
            names.replace(' ', '').replace(',', '/'),
            18,
            set(),
        )
        for v in two.values():
            assert {
                n: r['dsc'] for n, r in v.exact.items() if r['status'] != 'absent'
            } == dict.fromkeys(levels, 1.0)
            assert not v.shift['shifted']  # neither the sacrum nor the canal counts against anyone
    assert score_folders(M, M, LUMBAR)[1].name == 'joint'
    with pytest.raises(InputError, match='no structure in common'):
        common_scheme(Scheme('x', {'L1': 1}), Scheme('y', {'L2': 1}))


def test_values_that_fit_two_schemes(two_schemes, tmp_path):
    M, S = two_schemes
    V = tmp_path / 'v'

    def both(p, t, **kw):
        return score_schemes([('x', p, t)], LUMBAR, **kw)

    write(V, 'm', vertebrae, mrs)
    write(V, 's', vertebrae, spider)
    write(V, 'empty', vertebrae * 0, mrs)
    p, t, note = both(V / 'm.mha', V / 's.mha')
    assert (p.name, t.name, note) == (
        'joint',
        'joint',
        'the values fit joint and spider alike, read as joint',
    )  # vertebrae alone: nobody can tell, so it is said
    assert [
        s.shift['shifted'] for s in score_folders(V / 'm.mha', V / 's.mha', LUMBAR)[0].values()
    ] == [True]
    assert [
        s.shift['shifted']
        for s in score_folders(V / 'm.mha', V / 's.mha', LUMBAR, 'mrspineseg,spider')[0].values()
    ] == [False]
    for a, b in ((V / 'm.mha', S / 'a.mha'), (S / 'a.mha', V / 'm.mha')):
        with pytest.raises(
            InputError, match='--labels'
        ):  # one side alone is sure, and the default of the other is another
            both(a, b)
    assert [s.name for s in both(V / 's.mha', S / 'a.mha', labels='spider')[:2]] == ['spider'] * 2
    for a, b, want in (
        (V / 'empty.mha', S / 'a.mha', 'spider'),
        (S / 'a.mha', V / 'empty.mha', 'spider'),
        (V / 'empty.mha', V / 'empty.mha', 'joint'),
    ):
        assert [s.name for s in both(a, b)[:2]] == [want] * 2
    write(S, 'c', vertebrae, spider)
    write(M, 'c', vertebrae, mrs)
    write(M, 'd', sacral, mrs)
    write(S, 'd', full, spider)
    two, _ = score_folders(M, S, LUMBAR, 'mrspineseg,spider')
    assert {s.shift['shifted'] for s in two.values()} == {False}
    with pytest.raises(
        InputError, match='spider,mrspineseg'
    ):  # all files of a side decide, so its vertebrae-only file is no longer in doubt
        score_folders(S, M, LUMBAR)
    write(S, 'd', full, joint)
    with pytest.raises(InputError, match="'spider'"):  # files of two schemes on one side
        score_folders(M, S, LUMBAR)


def test_partly_annotated(folders, tmp_path):
    P, T = folders
    tmp = tmp_path
    (tmp / 'ann.csv').write_text(
        'case,patient,labels\nv1,A,2 3 4 12 13\nV2,A,L4 L5\nmask_V3,,2 3\n', encoding='utf-8'
    )
    part, _ = score_folders(P, T, LUMBAR, annotated=tmp / 'ann.csv')
    assert sorted({r['status'] for n, r in part['V3'].exact.items() if n not in ('L4', 'L5')}) == [
        'ignored'
    ]
    assert [s.patient for s in part.values()] == [
        'A',
        'A',
        'V3',
    ]  # who is who comes from the CSV, else each case is a patient
    assert (
        part['V1'].exact['L3']['dsc'],
        part['V1'].exact['SC']['status'],
        part['V2'].exact['L5']['status'],
    ) == (1.0, 'ignored', 'missed')
    (tmp / 'ann2.csv').write_text('case,labels\nv1,2\nv2,2\n', encoding='utf-8')
    with pytest.raises(InputError, match="no line for case 'V3'"):
        score_folders(P, T, LUMBAR, annotated=tmp / 'ann2.csv')


def test_summary(scored):
    c = collect(scored)
    h = c['exact']['penalised']['headline']
    close(c['exact']['penalised']['structures']['L4']['dsc'], 2 / 3, 1e-12)
    assert (c['level_shift'], c['volumes']) == (dict(shifted=1, n=3, rate=1 / 3), 3)
    close(c['any_vertebra']['dsc'], (1 + 0.8 + 2 * 2 / (2 + 3)) / 3, 1e-09)
    v = c['any_vertebra']
    close(
        (v['dsc'], v['low'], v['high']),
        [
            bootstrap_ci({i: np.array([s.any_vertebra]) for i, s in scored.items()})[k]
            for k in ('mean', 'low', 'high')
        ],
        1e-12,
    )
    assert v['low'] < v['dsc'] < v['high']
    assert c['matched']['penalised']['headline']['dsc'] > h['dsc']
    close(c['intervals']['penalised']['dsc']['mean'], h['dsc'], 1e-12)
    assert (
        c['intervals']['penalised']['dsc']['low']
        < h['dsc']
        < c['intervals']['penalised']['dsc']['high']
    )
    d = scores_dict(scored, joint)
    assert (set(d), set(d['volumes']['V2']['L5'])) == ({'volumes', 'summary'}, set(METRICS))
    assert (d['volumes']['V1']['T9'], d['volumes']['V2']['L5']['dsc']) == (
        dict.fromkeys(METRICS),
        0.0,
    )


def test_scores_come_back(scored, tmp_path):
    tmp = tmp_path
    c, d = collect(scored), scores_dict(scored, joint)
    write_json(tmp / 'o' / 'scores.json', d)
    back = read_scores(tmp / 'o')
    for p in POLICIES:
        assert summarise(back, p) == c['exact'][p]
    write_json(tmp / 'o2.json', dict(volumes=dict(a={}), summary={}))
    assert read_scores(tmp / 'o2.json') == dict(a={})
    write_json(tmp / 'o3.json', dict(volumes=dict(a=dict(L4=dict(dsc=1))), summary={}))
    with pytest.raises(InputError, match=re.escape('not a scores.json')):
        read_scores(tmp / 'o3.json')
    rows = structure_rows(c['exact']['penalised'])
    assert [r[0] for r in rows] == ['S', 'L5', 'L4', 'L3', 'L5/S', 'L4/L5', 'L3/L4', 'mean']
    assert {len(r) for r in rows} == {len(HEADER)}
    md = scores_markdown(c, joint)
    assert 'policy paper' in md and 'shifted by a level: 1 of 3' in md


@pytest.fixture
def files(folders, tmp_path):
    atm_score(str(folders[0]), str(folders[1]), out=str(tmp_path / 'scores'))
    return tmp_path / 'scores'


def test_files_of_atm_score(files, scored):
    assert sorted(f.name for f in files.iterdir()) == ['scores.csv', 'scores.json', 'scores.md']
    assert read_json(files / 'scores.json')['volumes'] == scores_dict(scored, joint)['volumes']
    lines = (files / 'scores.csv').read_text(encoding='utf-8').splitlines()
    assert len(lines) == 1 + 3 * 20
    assert lines[0].split(',')[:4] == ['volume', 'structure', 'status', 'dsc']


def typed(f, *args):  # -> status, stdout, stderr
    "A command with the words that a person types"
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            run_command(f, [str(a) for a in args])
            status = 0
        except SystemExit as e:
            status = e.code
    return status, out.getvalue(), err.getvalue()


def test_atm_score_as_typed(folders, two_schemes, tmp_path):
    (P, T), (M, S) = folders, two_schemes
    tmp, V = tmp_path, tmp_path / 'v'
    write(V, 'm', vertebrae, mrs)
    status, out, _ = typed(atm_score, P / 'V2.nii.gz', T / 'mask_v2.mha', '--labels', 'mrspineseg')
    assert (status, 'labels mrspineseg/mrspineseg.' in out) == (0, True)
    status, out, err = typed(atm_score, M, S, '--labels', 'mrspineseg,spider')
    assert (status, 'labels mrspineseg/spider.' in out, err) == (
        0,
        True,
        'atm_score: S, SC left out: not in both schemes\n',
    )
    status, out, err = typed(atm_score, V / 'm.mha', V / 'm.mha', '--out', tmp / 'vs')
    assert (status, 'labels joint/joint.' in out, err) == (
        0,
        True,
        'atm_score: the values fit joint and spider alike, read as joint: --labels decides\n',
    )
    assert read_json(tmp / 'vs' / 'scores.json')['summary']['files'] == dict(
        pred='joint', truth='joint'
    )
    assert typed(atm_score, V / 'm.mha', V / 'm.mha', '--labels', 'spider')[2] == ''
    status, _, err = typed(atm_score, M, S)
    assert (status, len(err.splitlines()), 'mrspineseg,spider' in err) == (2, 1, True)
    status, _, err = typed(atm_score, P, T / 'mask_v2.mha')
    assert (status, len(err.splitlines()), 'two folders' in err) == (2, 1, True)


def test_a_bad_mask_does_not_stop_the_others(folders, tmp_path):
    "It is named, the others are scored, and the status is 2"
    P, T = (shutil.copytree(f, tmp_path / f.name) for f in folders)
    shutil.copy(T / 'mask_v1.mha', P / 'V1.mha')
    (P / 'V1.nii.gz').unlink()
    (P / 'V2.nii.gz').write_bytes(b'no mask')
    write_labels(truth * 0 + 77, new_geometry(truth.shape, mm), P / 'V3.nii.gz')
    status, out, err = typed(atm_score, P, T, '--out', tmp_path / 's')
    assert status == 2 and '1 volumes of 1 patients' in out
    lines = err.splitlines()
    assert f'{P / "V2.nii.gz"}: ' in lines[0] and lines[0].endswith('going on with the others')
    assert f'{P / "V3.nii.gz"}: ' in lines[1] and '77' in lines[1]
    assert '2 of 3 pairs were not scored: ' in lines[-1]
    written = read_json(tmp_path / 's' / 'scores.json')
    assert list(written['volumes']) == ['V1']
    assert set(written['summary']['failed']) == {'V2', 'V3'}
    (P / 'V1.mha').write_bytes(b'')
    status, out, err = typed(atm_score, P, T, '--out', tmp_path / 'none')
    assert (status, out, (tmp_path / 'none').exists()) == (2, '', False)
    assert '3 of 3 pairs' in err.splitlines()[-1]


def test_geometry_that_differs_stops_one_pair(folders, tmp_path):
    P, T = (shutil.copytree(f, tmp_path / f.name) for f in folders)
    write_labels(joint.decode(truth), new_geometry(truth.shape, (4, 1.5, 0.9)), P / 'V1.nii.gz')
    status, out, err = typed(atm_score, P, T, '--labels', 'joint')
    assert status == 2 and '2 volumes of 2 patients' in out and 'geometry differs' in err


def test_a_subset_is_scored_if_asked_for(folders, tmp_path):
    P, T = (shutil.copytree(f, tmp_path / f.name) for f in folders)
    (P / 'V1.nii.gz').unlink()
    status, _, err = typed(atm_score, P, T)
    assert status == 2 and 'mask_v1.mha: no partner' in err and '--subset' in err
    (T / 'mask_v3.mha').unlink()
    status, out, err = typed(atm_score, P, T, '--subset')
    assert status == 0 and '1 volumes of 1 patients' in out
    assert 'left out: V3.nii.gz' in err and 'left out: mask_v1.mha' in err
    (P / 'V2.nii.gz').unlink()
    assert 'no partner' in typed(atm_score, P, T, '--subset')[2]  # nothing is left to score


def test_scores_end_with_their_summary(folders):
    out = typed(atm_score, *folders)[1]
    assert out.index('policy paper') < out.index('## Summary')
    assert 'shifted by a level: 1 of 3' in out.splitlines()[-1]


def test_annotations_pair_by_the_name_of_the_truth(folders, tmp_path):
    "A prediction may have any name"
    P, T = folders
    shutil.copy(P / 'V3.nii.gz', tmp_path / 'result.nii.gz')
    (tmp_path / 'ann.csv').write_text('case,patient,labels\nv3,Ann,L4 L5\n', encoding='utf-8')
    files = tmp_path / 'result.nii.gz', T / 'mask_v3.mha'
    scored, _ = score_folders(*files, LUMBAR, annotated=tmp_path / 'ann.csv')
    assert scored['result'].patient == 'Ann'
    assert scored['result'].exact['L3']['status'] == 'ignored'


# runs


def test_protocols():
    assert parse_protocols('self, oracle,self,') == ['self', 'oracle']
    for t, words in (('user', 'atm_score'), ('orakle', 'did you mean'), (' ,', 'empty')):
        with pytest.raises(InputError, match=re.escape(words)):
            parse_protocols(t)
    assert run_protocols('a', True, ['none', 'self']) == (['self'], '')
    assert run_protocols('b', False, ['self', 'oracle'])[0] == ['none']
    assert 'no text' in run_protocols('b', False, ['self'])[1]
    with pytest.raises(InputError, match='generic'):
        run_protocols('a', True, ['none'])


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    "Six cases whose grey levels are their labels; two are of one patient"
    tmp = tmp_path_factory.mktemp('toy')
    toy = tmp / 'toy'
    toy.mkdir()
    for i in range(1, 7):
        names = levels if i % 2 else levels[2:]
        lab = tower(names, (4, 48, 26), at=2 + i)
        lab[1:3, :, 16:19] = ch('SC')
        g = new_geometry(lab.shape, (4.0, 1.5, 1.5), ('LPS', 'PIR')[i % 2])
        s = f'C{i}'
        write_volume(
            (lab * 10 + np.random.default_rng(i).normal(0, 0.5, lab.shape)).astype(np.float32),
            g,
            toy / 'images' / f'{s}.mha',
        )
        write_labels(joint.decode(lab), g, toy / 'masks' / f'{s}.mha')
    write_text(toy / 'labels.yaml', '\n'.join(f'{v}: {n}' for n, v in joint.values.items()))
    write_text(
        toy / 'cases.csv', 'case,patient\n' + ''.join(f'C{i},P{min(i, 5)}\n' for i in range(1, 7))
    )
    prepare(open_cohort(toy, LUMBAR), tmp / 'cache', Grid(spacing=1.5))
    return Cache(tmp / 'cache')


class Known:
    "What `Predictor` offers, with answers read off the grey levels"

    anatomy, scheme, option, crop, grid, words_for = (
        LUMBAR,
        joint,
        3,
        'fov',
        Grid(spacing=1.5),
        Predictor.words_for,
    )

    def __init__(self, has_text):
        self.has_text, self.asked = has_text, []

    def shared(self, images):
        return images

    def _find(self, grey, prompts):
        lab = np.rint(grey).astype(np.uint8)
        out = lab * 0
        for k in range(len(lab)):
            named = (
                [n for n in joint.names if n != 'L5']
                if not self.has_text
                else prompts[k].structures or ('L4', 'SC')
            )
            out[k] = np.where(np.isin(lab[k], [ch(n) for n in named]), lab[k], 0)
        return out

    def grid_labels(self, images, prompts=None, labeler=None, known_levels=()):
        return self._find(self.truth, prompts)

    def predict_with_confidence(self, images, prompts=None, labeler=None, known_levels=()):
        return self.grid_labels(images, prompts), 1.0

    def predict(self, volume, protocol=None, truth=None, other=None, complete=True, box=None, **kw):
        self.asked.append((protocol, None if truth is None else truth.shape, complete))
        self.truth = volume.data / 10
        prompts = self.words_for(
            volume.data,
            'generic' if protocol == 'self' else protocol,
            truth=truth,
            other=other,
            complete=complete,
        )[0]
        return Prediction(self._find(volume.data / 10, prompts), joint, protocol, prompts)


@pytest.fixture
def listener():
    return Known(True)


@pytest.fixture(scope='module')
def run(cache):
    "Entries, notes and the two networks"
    listener, mute = Known(True), Known(False)
    protocols = ['generic', 'oracle', 'oracle-levels', 'shuffled']
    return *evaluate_runs(cache, dict(listener=listener, mute=mute), protocols, 'all'), listener


@pytest.fixture(scope='module')
def tables(run):
    sums = [collect(e.scored, n=300) for e in run[0]]
    return run[0], sums, overall_rows(run[0], sums)


def test_runs_with_known_answers(run):
    entries, notes, listener = run
    assert [e.name for e in entries] == [
        'listener: generic',
        'listener: oracle',
        'listener: oracle-levels',
        'listener: shuffled',
        'mute: none',
    ]
    assert notes == ["mute has no text: scored once, as 'none'"]
    assert {len(e.scored) for e in entries} == {6}
    dsc = {e.protocol: collect(e.scored)['exact']['penalised'] for e in entries}
    assert (dsc['oracle']['headline']['dsc'], dsc['oracle-levels']['headline']['dsc']) == (1.0, 1.0)
    assert [dsc['generic']['structures'][n]['dsc'] for n in ('L4', 'SC', 'L5')] == [1.0, 1.0, 0.0]
    assert (dsc['none']['structures']['L5']['dsc'], dsc['none']['structures']['L3']['dsc']) == (
        0.0,
        1.0,
    )
    assert (
        dsc['generic']['headline']['dsc'] < dsc['shuffled']['headline']['dsc'] < 1
    )  # words of another patient: some levels are not named
    assert {a[1] is None for a in listener.asked if a[0] in ('generic', 'shuffled')} == {
        True
    }  # only oracles see this case's truth


def test_grid_of_the_cache_gives_the_same(cache, listener):
    mute = Known(False)

    def grid_score(case, protocol):
        data = case_data(cache, case, 'cache')
        listener.truth = data[1]
        return evaluate_case(listener, cache, case, protocol, data, 'cache', 'C2').exact

    source = case_data(cache, 'C1', 'source')
    for q in ('generic', 'self', 'oracle', 'oracle-levels', 'shuffled'):
        src = evaluate_case(listener, cache, 'C1', q, source, 'source', 'C2').exact
        on_grid = grid_score('C1', q)
        assert {n: r['status'] for n, r in on_grid.items()} == {
            n: r['status'] for n, r in src.items()
        }
        close(on_grid['L4']['hd95_mm'], src['L4']['hd95_mm'], 1e-6)
    mute.truth = cache.labels('C1')
    data = case_data(cache, 'C1', 'cache')
    assert evaluate_case(mute, cache, 'C1', 'none', data, 'cache').exact['L3']['dsc'] == 1.0


def test_shuffled_borrows_from_another_patient(cache):
    part = ['C4', 'C5', 'C6']
    assert [shuffled_partner(cache, c, part) for c in part] == ['C5', 'C4', 'C4']
    assert cache.row(shuffled_partner(cache, 'C5', ['C5', 'C6']))['patient'] != 'P5'
    assert partner_of('shuffled', cache, part[0], part) == 'C5'
    assert partner_of('oracle', cache, part[0], part) is None


def test_a_truth_that_labels_a_part_is_incomplete(cache, listener):
    def like(annotated, scheme):
        return SimpleNamespace(row=lambda case: dict(annotated=annotated), file_scheme=scheme)

    assert _complete(listener, cache, 'C1')
    assert not _complete(listener, like(['L4'], joint), 'C1')
    assert not _complete(listener, like(None, spider), 'C1')


def test_runs_that_do_not_fit_the_cache(cache, listener):
    listener.crop = 'oracle'
    with pytest.raises(InputError, match='--crop oracle'):
        evaluate_runs(cache, dict(a=listener), ['self'])
    listener.crop = 'fov'
    listener.grid = Grid(size=384)
    with pytest.raises(InputError, match='--grid source'):
        evaluate_runs(cache, dict(a=listener), ['self'], grid='cache')
    listener.grid = cache.grid
    with pytest.raises(InputError, match='source or cache'):
        evaluate_runs(cache, dict(a=listener), ['self'], grid='fine')
    with pytest.raises(InputError, match="part 'best'"):
        evaluate_runs(cache, dict(a=listener), ['self'], 'best')
    assert Entry('a', 'self', 'oracle').name == 'a: self (oracle crop)'


# tables and files


def test_rows(tables):
    entries, sums, rows = tables
    close(
        [r['penalised_dsc'] for r in rows],
        [c['exact']['penalised']['headline']['dsc'] for c in sums],
        1e-12,
    )
    assert rows[0]['patients'] == 5
    assert [r['reads_mask'] for r in rows] == [
        'no',
        'this slice',
        'this volume',
        'another patient',
        'no',
    ]
    st = structure_table(entries, sums)
    assert len(st) == 5 * 2 * 20
    assert [
        r['dsc']
        for r in st
        if (r['run'], r['policy'], r['structure']) == ('mute', 'penalised', 'L5')
    ] == [0.0]
    df = difference_rows(entries)
    assert len(df) == 4
    close(df[0]['difference'], rows[1]['penalised_dsc'] - rows[0]['penalised_dsc'], 1e-12)
    assert df[0]['low'] > 0


def test_tables_as_people_read_them(tables):
    entries, sums, rows = tables
    assert {len(r) for r in overall_table(rows)} == {len(OVERALL)}
    t, h = dsc_by_structure(entries, sums)
    assert [r[0] for r in t] == ['L5', 'L4', 'L3', 'L4/L5', 'L3/L4', 'SC']
    assert {len(r) for r in t} == {len(h)}


def test_the_papers_figures():
    assert {d: {t: len(r) for t, r in ts.items()} for d, ts in PAPER.items()} == {
        d: dict(table2=10, table4=4, table5=4) for d in ('mrspineseg', 'spider')
    }
    for d in PAPER.values():  # the paper repeats itself, as it must
        assert d['table2']['Swin UNETR'] == d['table4']['neither']
        assert d['table4']['neither'] == d['table5']['no text']
        assert d['table2']['ATM-Net'] == d['table4']['HASF and CCAE']
        assert d['table4']['HASF'] == d['table5']['Option 3']
    assert (
        PAPER['mrspineseg']['table2']['ATM-Net'],
        PAPER['spider']['table2']['ATM-Net'],
        PAPER['spider']['table5']['Option 2'],
    ) == ((81.72, 72.25, 9.6, 2.15), (79.39, 70.56, 9.91, 2.77), (71.64, 64.04, 9.61, 2.78))


def shelf(layout='mrspineseg', n=172, skipped=(), root='/nowhere', annotated=None, files=None):
    "A cache as `paper_data` sees one"
    return SimpleNamespace(
        manifest=dict(layout=layout, skipped=list(skipped), root=root, file_scheme=files or layout),
        anatomy=LUMBAR,
        scheme=joint,
        cases=lambda: list(range(n)),
        row=lambda i: dict(annotated=annotated),
    )


def test_data_of_the_paper(cache, tmp_path):
    (tmp_path / 'phantom.json').write_text('{}', encoding='utf-8')
    assert [paper_data(shelf()), paper_data(shelf('spider', 447))] == ['mrspineseg', 'spider']
    lookalikes = [
        shelf(n=171),
        shelf(skipped=['x']),
        shelf(root=tmp_path),
        shelf(annotated=('L4',)),
        shelf('folder'),
        shelf(files='joint'),
        shelf('spider'),
        cache,
    ]
    assert [paper_data(s) for s in lookalikes] == [None] * 8


def ci(mean, low=None, high=None, **more):
    return dict(mean=mean, low=low, high=high, **more)


def four(m):
    return {k: ci(m * (1 if k in ('dsc', 'jaccard') else 10), m * 0.5, m * 2) for k in FORM}


def test_form_of_the_paper():
    assert (
        form_cell(ci(0.8172, 0.8, 0.83), 'dsc'),
        form_cell(ci(9.6), 'hd95_px'),
        form_cell(ci(None), 'dsc'),
        form_cell(ci(0.5, 0.4, 0.6, sd=0.012), 'jaccard'),
    ) == ('81.72 [80.00, 83.00]', '9.60', '–', '50.00 ± 1.20 [40.00, 60.00]')
    r, h = form_rows(dict(A=four(0.5), B=four(0.25)))
    assert (r[0][:2], len(h), [x[0] for x in r]) == (['A', '50.00 [25.00, 100.00]'], 5, ['A', 'B'])
    r, h = form_rows(dict(HASF=four(0.5), mine=four(0.25)), PAPER['spider']['table4'])
    assert (r[0][5:], r[1][5:], h[5]) == (
        ['73.00', '64.04', '12.07', '3.54'],
        ['–'] * 4,
        "paper's DSC, %",
    )
    r, h = form_structures(
        dict(A={'L5': 0.5, 'L4': 0.7, 'T9': None}, B={'L5': 0.25, 'L4': None}), LUMBAR
    )
    assert (r, h) == (
        [['L4', '70.00', '–'], ['L5', '50.00', '25.00'], ['mean', '60.00', '25.00']],
        ['structure', 'A', 'B'],
    )


def test_latex():
    tex = table_tex(
        [['a_b & c', 0.51234, '60.00 ± 1.00'], ['✓', None, '5 %']],
        ['method', 'DSC, %', 'x'],
        'One # two',
    )
    body = [x for x in tex.splitlines() if x.endswith(r'\\')]
    assert body == [
        'method & DSC, \\% & x \\\\',
        'a\\_b \\& c & 0.512 & 60.00 $\\pm$ 1.00 \\\\',
        '$\\surd$ & -- & 5 \\% \\\\',
    ]
    assert (
        tex.count('\\begin'),
        tex.count('\\end'),
        '\\caption{One \\# two}' in tex,
        '{lrr}' in tex,
    ) == (2, 2, True, True)


def test_groups_by_protocol():
    g = by_protocol(
        [
            dict(run='r', protocol='self'),
            dict(run='r', protocol='oracle'),
            dict(run='p', protocol='none'),
        ]
    )
    assert {q: [x['run'] for x in v] for q, v in g.items()} == dict(
        self=['r', 'p'], oracle=['r', 'p']
    )
    assert list(by_protocol([dict(protocol='none')])) == ['none']


def test_files_of_an_evaluation(tables, tmp_path):
    tmp = tmp_path
    entries, sums, rows = tables
    md = write_evaluation(entries, tmp / 'ev', joint, 'toy cohort', split='all')
    assert sorted(f.name for f in (tmp / 'ev').iterdir()) == [
        'differences.csv',
        'evaluation.json',
        'overall.csv',
        'scores',
        'structures.csv',
        'tables.csv',
        'tables.md',
        'tables.tex',
    ]
    ev = read_json(tmp / 'ev' / 'evaluation.json')
    assert (ev['split'], len(ev['entries']), ev['entries'][4]['protocol']) == ('all', 5, 'none')
    assert (
        summarise(read_scores(tmp / 'ev' / 'scores' / 'mute-none.json'))['headline']
        == sums[4]['exact']['penalised']['headline']
    )
    assert (
        'listener' in md and md.count('\n## ') == 2 + 3 * 4
    )  # four protocols: both policies, and the structures

    tex = (tmp / 'ev' / 'tables.tex').read_text(encoding='utf-8')
    assert tex.count('\\begin{tabular}') == 12
    flat = read_rows(tmp / 'ev' / 'tables.csv')
    assert {r['method'] for r in flat if r['table'] == 'metrics-oracle-penalised'} == {
        'listener',
        'mute',
    }
    head = next(r for r in rows if r['protocol'] == 'oracle')
    assert [
        r['value']
        for r in flat
        if (r['table'], r['method'], r['column'])
        == ('metrics-oracle-penalised', 'listener', 'DSC, %')
    ][0].startswith(f'{100 * head["penalised_dsc"]:.2f} [')
    assert "paper's own" not in md + tex  # a toy is not the paper's data
    write_evaluation(entries, tmp / 'same', joint, paper='spider')
    assert (
        'own figures for spider' in (tmp / 'same' / 'tables.md').read_text(encoding='utf-8')
        and '79.39' in (tmp / 'same' / 'tables.tex').read_text(encoding='utf-8')
        and '81.72' not in (tmp / 'same' / 'tables.tex').read_text(encoding='utf-8')
    )


def test_names_of_runs():
    assert list(run_names(['runs/a', 'runs/b/best.safetensors', 'x/a'])) == ['a', 'b-best', 'x-a']
    assert list(run_names(['best.safetensors', 'x/a'])) == [f'{Path.cwd().name}-best', 'a']
    for twice in (['r/a', 'r/a'], ['r/a', 'x/b', 'r/../r/a'], ['r/a', Path.cwd() / 'r/a']):
        with pytest.raises(InputError, match='named twice'):
            run_names(twice)
    with pytest.raises(InputError, match='b-a'):
        run_names(['x/a', 'y/b/a', 'z/b/a'])


def test_what_is_refused_before_scoring(cache, tmp_path):
    tmp = tmp_path
    for args, words in (
        ((tmp / 'none', ['r'], 'self'), 'no such cache'),
        ((cache.path, [tmp / 'r'], 'orakle'), "did you mean 'oracle'"),
        ((cache.path, [tmp / 'r'], 'self'), 'no such'),
        ((cache.path, [tmp / 'r'], 'self', None, 'test', 'source', 'tpu'), "'tpu' is unknown"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            evaluate_into(*args)


def test_networks_end_to_end(cache, tmp_path):
    import torch

    from atm_net.text import load_encoder
    from atm_net.weights import build_network, save_weights

    tmp = tmp_path
    enc = load_encoder('spine_bert_tiny')
    shared = dict(
        scheme='joint',
        values=dict(joint.values),
        grid=dict(spacing=1.5, size=None),
        crop='fov',
        out_channels=joint.channels,
        feature_size=12,
        network='atm_net',
    )
    for name, kw in (
        ('plain', dict(hasf=False, ccae=False)),
        ('reader', dict(hasf=True, ccae=False, text_dim=enc.dim, length=128, attention='pooled')),
    ):
        torch.manual_seed(0)
        meta = (
            shared
            | dict(kwargs=kw)
            | (
                dict(encoder=enc.name, encoder_revision=enc.revision, length=128, option=3)
                if name == 'reader'
                else {}
            )
        )
        save_weights(
            tmp / 'runs' / name / 'best.safetensors',
            build_network('atm_net', joint.channels, 12, **kw),
            meta,
        )
    out, md = evaluate_into(
        cache.path, [tmp / 'runs' / 'reader', tmp / 'runs' / 'plain'], 'self,shuffled', grid='cache'
    )
    assert out == tmp / 'runs' / 'reader' / 'evaluation'
    print(md.split('## Diff')[0])
    ev = read_json(out / 'evaluation.json')
    assert {
        n: (set(w) >= {'file', 'sha256', 'encoder'}, set(ev['configs']))
        for n, w in ev['weights'].items()
    } == dict(reader=(True, set()), plain=(False, set()))
    assert (
        ev['versions']['torch'] == torch.__version__.split('+')[0]
        if '+' not in ev['versions']['torch']
        else torch.__version__
    )
    (tmp / 'runs' / 'reader' / 'config.json').write_text(
        '{"config":{"steps":{"value":3,"source":"ours"}}}', encoding='utf-8'
    )
    assert [
        run_config(tmp / 'runs' / n) for n in ('reader', 'reader/best.safetensors', 'plain')
    ] == [dict(steps=dict(value=3, source='ours'))] * 2 + [None]
    assert [e['protocol'] for e in read_json(out / 'evaluation.json')['entries']] == [
        'self',
        'shuffled',
        'none',
    ]
    with pytest.raises(InputError, match='or use --grid source'):
        evaluate_into(
            cache.path, [tmp / 'runs' / 'plain'], 'self', tmp / 'both', grid='cache', column=True
        )
    assert not (tmp / 'both').exists()
    out, _ = evaluate_into(cache.path, [tmp / 'runs' / 'plain'], 'self', tmp / 'plain')
    assert (out, (out / 'tables.md').exists()) == (tmp / 'plain', True)
