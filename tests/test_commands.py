"Every console command does its work on a synthetic cohort"

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import call, console_scripts, done, function_of, has_module, shell, tree
from helpers import write_series

from atm_net.anatomy import LUMBAR
from atm_net.cli import make_parser, read_command
from atm_net.data import Cache
from atm_net.volumes import read_labels, read_volume


def needs(module):
    "Skip while a module is not built, and name it"
    return pytest.mark.skipif(not has_module(module), reason=f'{module} does not exist yet')


def commands():
    return [pytest.param(c, marks=needs(m)) for c, (m, _) in console_scripts().items()]


def geometry(path):
    im = sitk.ReadImage(str(path))
    return im.GetSize(), im.GetSpacing(), im.GetOrigin(), im.GetDirection()


def same_geometry(a, b):
    (n, *x), (m, *y) = geometry(a), geometry(b)
    assert n == m, f'{a} {n}, {b} {m}'
    for p, q in zip(x, y):
        np.testing.assert_allclose(p, q, atol=1e-5)


def is_png(path):
    return path.read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'


# help


@pytest.mark.parametrize('command', commands())
def test_help(command):
    "Each parameter is an argument or an option, and is explained"
    import inspect

    r = done(shell(command, '--help', timeout=60))
    f = inspect.unwrap(function_of(command))
    assert r.err == ''
    assert ' '.join(f.__doc__.split()[:3]) in ' '.join(r.out.split())
    source = Path(inspect.getsourcefile(f)).read_text(encoding='utf-8')
    actions = make_parser(read_command(source, command))._actions
    helps = {action.dest: action.help for action in actions}
    options = [name for action in actions for name in action.option_strings or [action.dest]]
    for name, p in inspect.signature(f).parameters.items():
        want = name.replace('_', '-')
        want = f'--no-{want}' if p.default is True else want
        assert want in options or f'--{want}' in options
        assert want in r.out, f'{command} --help says nothing of {want}'
        assert re.search('[a-z]{3}', helps[name]), f'{command} --help does not explain {name}'


def test_help_names_all_networks():
    from atm_net.weights import NETWORKS

    said = done(shell('atm_train', '--help', timeout=60)).out
    assert [name for name in NETWORKS if not re.search(rf'\b{name}\b', said)] == []


def test_help_is_fast():
    "Slow libraries are imported only when they are needed"
    import subprocess
    import sys

    code = """
import sys
sys.argv = ['atm_train', '--help']
try:
    from atm_net.train import atm_train
finally:
    print(sorted({'torch', 'monai', 'transformers'} & set(sys.modules)))
"""
    assert (
        subprocess.run(
            [sys.executable, '-c', code], check=False, capture_output=True, text=True, timeout=60
        ).stdout.strip()
        == '[]'
    )


# phantoms and audits


@pytest.mark.parametrize(
    'layout,images,labels',
    [
        ('spider', 'images', 'spider'),
        pytest.param('mrspineseg', 'train/MR', 'mrspineseg', marks=pytest.mark.slow),
    ],
)
def test_phantom_layouts(home, layout, images, labels):
    r = done(call('atm_phantom', home / layout, '--layout', layout, '--patients', 3, '--seed', 5))
    assert str(home / layout) in r.out
    files = sorted((home / layout / images).iterdir())
    masks = sorted(
        (home / layout / images.replace('images', 'masks').replace('MR', 'Mask')).iterdir()
    )
    assert len(files) == len(masks) >= 3
    for i, m in zip(files, masks):
        same_geometry(i, m)
    scheme = LUMBAR.scheme(labels)
    values = set(np.unique(read_labels(masks[0]).data).tolist())
    assert (
        {0, scheme.values['L4'], scheme.values['L3/L4']} <= values <= {0, *scheme.values.values()}
    )
    a = done(call('atm_audit', home / layout, '--json', home / f'{layout}.json'))
    assert (
        layout in a.out
        and json.loads((home / f'{layout}.json').read_text(encoding='utf-8'))['layout'] == layout
    )


def test_phantom_folder(cohort, home):
    assert (cohort / 'labels.yaml').exists()
    rows = list(csv.DictReader((cohort / 'cases.csv').open(encoding='utf-8')))
    assert len({r['patient'] for r in rows}) == 6
    done(call('atm_phantom', home / 'again', '--patients', 1, '--seed', 3))
    name = rows[0]['case']
    for kind in ('images', 'masks'):
        np.testing.assert_array_equal(
            read_volume(home / 'again' / kind / f'{name}.nii.gz').data,
            read_volume(cohort / kind / f'{name}.nii.gz').data,
        )
    done(call('atm_phantom', home / 'other', '--patients', 1, '--seed', 4))
    a, b = (read_volume(home / d / 'images' / f'{name}.nii.gz').data for d in ('again', 'other'))
    assert a.shape != b.shape or (a != b).any()


def test_phantom_options(home):
    done(
        call(
            'atm_phantom',
            home / 'whole',
            '--patients',
            1,
            '--seed',
            3,
            '--vertebra',
            'whole',
            '--labels',
            'mrspineseg',
        )
    )
    done(call('atm_phantom', home / 'body', '--patients', 1, '--seed', 3, '--labels', 'mrspineseg'))
    whole, body = (
        read_labels(next((home / d / 'masks').iterdir())).data for d in ('whole', 'body')
    )
    s = LUMBAR.scheme('mrspineseg').values
    assert (whole == s['L4']).sum() > 1.1 * (body == s['L4']).sum() and max(
        body.max(), whole.max()
    ) <= 19
    np.testing.assert_array_equal(whole == s['L4/L5'], body == s['L4/L5'])


def test_audit(cohort, tmp_path):
    r = done(call('atm_audit', cohort, '--json', tmp_path / 'a.json'))
    d = json.loads((tmp_path / 'a.json').read_text(encoding='utf-8'))
    assert d['layout'] == 'folder' and d['cases'] == d['patients'] == 6 and 'L4' in r.out
    before = tree(cohort)
    done(call('atm_audit', cohort))
    assert tree(cohort) == before
    bad = tmp_path / 'bad'
    (bad / 'images').mkdir(parents=True)
    (bad / 'masks').mkdir()
    (bad / 'labels.yaml').write_bytes((cohort / 'labels.yaml').read_bytes())
    for k in ('images', 'masks'):
        (bad / k / 'case0001.nii.gz').write_bytes((cohort / k / 'case0001.nii.gz').read_bytes())
    (bad / 'images' / 'broken.nii.gz').write_bytes(b'no image')
    (bad / 'images' / 'alone.nii.gz').write_bytes(
        (cohort / 'images' / 'case0002.nii.gz').read_bytes()
    )
    r = done(call('atm_audit', bad))
    assert 'broken' in r.out and 'alone' in r.out


# preparation


def test_prepare_small(cache):
    c = Cache(cache)
    parts = {p: set(c.cases(p)) for p in ('train', 'val', 'test')}
    assert all(parts.values()) and sum(map(len, parts.values())) == 6 and c.scheme.channels == 21
    for i in c.cases():
        assert (
            c.image(i).shape[1:] == c.labels(i).shape[1:] == (64, 64)
            and c.image(i).dtype == np.float16
        )
    m = json.loads((cache / 'manifest.json').read_text(encoding='utf-8'))
    assert m['grid']['size'] == 64 and m['skipped'] == [] and m['crop'] == 'fov'


def test_prepare_tiny_annotated_resumed(cohort, home, tmp_path):
    """2 mm pixels; what a case annotates goes into the manifest and the labels; a second call
    changes nothing"""
    from atm_net.anatomy import IGNORE

    rows = list(csv.DictReader((cohort / 'cases.csv').open(encoding='utf-8')))
    s = LUMBAR.scheme('joint').values
    keep = [s[n] for n in ('L5', 'L4', 'L4/L5')]
    (tmp_path / 'annotated.csv').write_text(
        'case,labels\n'
        + ''.join(
            f'{r["case"]},{" ".join(map(str, keep if r["case"] == "case0002" else s.values()))}\n'
            for r in rows
        ),
        encoding='utf-8',
    )
    args = (cohort, home / 'tiny', '--annotated', tmp_path / 'annotated.csv', '--seed', 1)
    first = done(call('atm_prepare', *args))
    before = tree(home / 'tiny')
    assert 'train' in first.out
    c = Cache(home / 'tiny')
    assert c.grid.spacing == 2.0 and c.meta('case0002')['grid_spacing'][1] == pytest.approx(
        2, abs=0.1
    )
    assert set(c.row('case0002')['annotated']) == {'L5', 'L4', 'L4/L5'}
    found = set(np.unique(c.labels('case0002')).tolist())
    assert (
        c.scheme.channel('L4') in found
        and found <= {0, IGNORE, *(c.scheme.channel(n) for n in ('L5', 'L4', 'L4/L5'))}
        and (np.asarray(c.labels('case0002')) == IGNORE).any()
    )
    (home / 'tiny' / 'meta' / 'case0003.json').unlink()
    done(call('atm_prepare', *args))
    assert tree(home / 'tiny') == before


@pytest.mark.parametrize(
    'layout,labels,lack',
    [
        ('spider', None, 'S'),
        pytest.param('mrspineseg', None, 'SC', marks=pytest.mark.slow),
        pytest.param('mrspineseg', 'joint', None, marks=pytest.mark.slow),
    ],
)
def test_prepare_joint(tmp_path, layout, labels, lack):
    """A joint cache of a dataset with other file values: every case is in it, and what its files
    never draw is not annotated"""
    done(
        call(
            'atm_phantom',
            tmp_path / 'd',
            '--layout',
            layout,
            '--patients',
            3,
            '--seed',
            7,
            *(('--labels', labels) if labels else ()),
        )
    )
    r = done(call('atm_prepare', tmp_path / 'd', tmp_path / 'c', '--size', 64, '--labels', 'joint'))
    c = Cache(tmp_path / 'c')
    s = c.scheme
    assert s.name == 'joint' and c.manifest['skipped'] == [] and 'skipped' not in r.out
    assert {
        tuple(n for n, on in zip(s.names, c.annotated(i)[1:]) if not on) for i in c.cases()
    } == {(lack,) if lack else ()} and (f'never hold {lack}' in r.out) == bool(lack)
    for i in c.cases():
        m = c.meta(i)
        drawn = {
            c.file_scheme.names[list(c.file_scheme.values.values()).index(v)]
            for v in np.unique(read_labels(m['mask']).data).tolist()
            if v
        }
        assert set(m['levels']) == drawn and 'L4' in drawn and lack not in drawn
    assert labels or c.file_scheme.name == layout


@pytest.mark.slow
def test_prepare_crops(cohort, run, home):
    done(call('atm_prepare', cohort, home / 'oracle', '--size', 64, '--crop', 'oracle'))
    c = Cache(home / 'oracle')
    assert c.crop == 'oracle' and all(c.meta(i)['box'] for i in c.cases())
    done(
        call(
            'atm_prepare',
            cohort,
            home / 'found',
            '--size',
            64,
            '--crop',
            'self',
            '--weights',
            run.path,
        )
    )
    assert Cache(home / 'found').crop == 'self'


# training


def test_train(run):
    d = json.loads((run.path / 'config.json').read_text(encoding='utf-8'))
    names = {p.name for p in run.path.iterdir()}
    assert {
        'config.json',
        'log.csv',
        'curves.png',
        'last.safetensors',
        'best.safetensors',
        'checkpoints',
    } <= names
    assert (
        {v['source'] for v in d['config'].values()} == {'paper', 'assumed', 'ours'}
        and d['config']['steps']['value'] == 3
        and d['processes'] == 1
    )
    rows = list(csv.DictReader((run.path / 'log.csv').open(encoding='utf-8')))
    losses = [float(r['loss']) for r in rows if r['loss']]
    assert (
        losses
        and all(np.isfinite(losses))
        and int(rows[-1]['step']) == 3
        and any(r['contrast'] for r in rows)
        and any(r['val_self'] for r in rows)
    )
    assert is_png(run.path / 'curves.png') and 'done' in run.out


def test_train_resume_of_a_finished_run(run, cache):
    before = {
        k: v
        for k, v in tree(run.path).items()
        if k.startswith(('last', 'best', 'log', 'config', 'checkpoints'))
    }
    r = done(call('atm_train', cache, run.path, '--steps', 3, '--batch', 2, '--resume'))
    assert 'finished already' in r.err
    assert {k: v for k, v in tree(run.path).items() if k in before} == before


@pytest.mark.slow
def test_train_flags(cache, home, run):
    "Both modules off: Swin UNETR's own weights only; each flag brings its module"
    from safetensors.torch import load_file

    keys = {}
    for name, flags in dict(
        neither=('--no-hasf', '--no-ccae'), hasf=('--no-ccae',), ccae=('--no-hasf',)
    ).items():
        done(call('atm_train', cache, home / name, '--steps', 1, '--batch', 1, *flags))
        keys[name] = set(load_file(home / name / 'last.safetensors'))
    keys['both'] = set(load_file(run.path / 'last.safetensors'))
    assert (
        keys['neither'] < keys['hasf'] < keys['both']
        and keys['neither'] < keys['ccae'] < keys['both']
    )
    from monai.networks.nets import SwinUNETR

    assert keys['neither'] == set(
        SwinUNETR(1, 21, feature_size=12, spatial_dims=2, use_v2=True).state_dict()
    )
    done(
        call(
            'atm_train',
            cache,
            home / 'first',
            '--steps',
            1,
            '--batch',
            1,
            '--model',
            'swin_unetr',
            '--swin',
            'v1',
        )
    )
    assert set(load_file(home / 'first' / 'last.safetensors')) == set(
        SwinUNETR(1, 21, feature_size=12, spatial_dims=2).state_dict()
    )
    r = call('atm_train', cache, home / 'none', '--model', 'unet', '--swin', 'v1')
    assert r.status == 2 and '--swin' in r.err


@pytest.mark.slow
def test_train_init(cache, home, run):
    r = done(
        call('atm_train', cache, home / 'tuned', '--steps', 1, '--batch', 1, '--init', run.path)
    )
    assert 'taken over' in r.err and 'fresh: nothing' in r.err


@pytest.mark.slow
def test_init_without_text_in_its_own_process(cache, home, run):
    "A process that never loads a text encoder"
    options = ('--steps', 1, '--batch', 1, '--model', 'swin_unetr', '--init', run.path)
    r = done(shell('atm_train', cache, home / 'plain', *options))
    assert 'fresh: nothing' in r.err


# prediction


def test_predict_file(run, scan, tmp_path):
    out = tmp_path / 'mask.nii.gz'
    r = done(shell('atm_predict', scan.image, out, '--weights', run.path))
    same_geometry(scan.image, out)
    assert 'protocol generic' in r.out and is_png(tmp_path / 'mask.png')
    values = set(np.unique(read_labels(out).data).tolist())
    assert values <= {0, *LUMBAR.scheme('joint').values.values()}
    assert {p.name for p in tmp_path.iterdir()} == {
        'mask.nii.gz',
        'mask.nii.gz.json',
        'mask.png',
    }
    done(
        call(
            'atm_predict',
            scan.image,
            tmp_path / 'again.nii.gz',
            '--weights',
            run.path / 'best.safetensors',
        )
    )
    np.testing.assert_array_equal(
        read_labels(out).data, read_labels(tmp_path / 'again.nii.gz').data
    )


def test_predict_folder(run, scan, cohort, home, tmp_path):
    src = tmp_path / 'in'
    src.mkdir()
    (src / scan.image.name).write_bytes(scan.image.read_bytes())
    im = sitk.ReadImage(str(scan.image))
    turned = sitk.PermuteAxes(im, (2, 0, 1))
    turned.SetOrigin((7.0, -8.0, 9.0))
    sitk.WriteImage(turned, str(src / 'other.mha'))
    r = done(
        call(
            'atm_predict',
            src,
            tmp_path / 'out',
            '--weights',
            run.path,
            '--protocol',
            'generic',
            '--labels',
            'mrspineseg',
        )
    )
    for p in src.iterdir():
        same_geometry(p, tmp_path / 'out' / p.name)
    assert (
        sorted(p.name for p in (tmp_path / 'out' / 'png').iterdir())
        == sorted([f'{scan.case}.png', 'other.png'])
        and 'protocol generic' in r.out
    )
    assert read_labels(tmp_path / 'out' / 'other.mha').data.max() <= 19
    a, b = (read_labels(tmp_path / 'out' / n).data for n in (scan.image.name, 'other.mha'))
    assert a.shape == b.shape  # the canonical frame
    assert (a == b).mean() > 0.99, 'the answer depends on the order of the axes in the file'


PROTOCOLS = [
    ('generic', ()),
    ('self', ()),
    ('oracle', ('--mask', 'MASK')),
    ('oracle-levels', ('--mask', 'MASK')),
    ('user', ('--prompt', 'A sagittal MRI with L3, L4 and L5.')),
    ('report', ('--report', 'REPORT')),
]


@pytest.mark.parametrize('protocol,args', PROTOCOLS)
def test_predict_protocols(run, scan, tmp_path, protocol, args):
    report = tmp_path / 'report.txt'
    report.write_text('Disc bulge at L4/L5. No fracture of L1.\n', encoding='utf-8')
    args = [dict(MASK=scan.mask, REPORT=report).get(a, a) for a in args]
    r = done(
        call(
            'atm_predict',
            scan.image,
            tmp_path / 'm.mha',
            '--weights',
            run.path,
            '--protocol',
            protocol,
            *args,
        )
    )
    same_geometry(scan.image, tmp_path / 'm.mha')
    assert f'protocol {protocol}' in r.out


def test_predict_without_text(unet, scan, tmp_path):
    r = done(call('atm_predict', scan.image, tmp_path / 'm.nii', '--weights', unet))
    assert 'protocol none' in r.out
    same_geometry(scan.image, tmp_path / 'm.nii')


def test_words_reach_the_mask_file(run, scan, tmp_path):
    """With a fusion gain that is not small, another sentence writes another mask, and the same
    sentence the same (rule 3, through the command)"""
    import torch

    from atm_net.predict import weights_file
    from atm_net.weights import load_network, save_weights

    model, meta = load_network(weights_file(run.path))
    gains = [
        w
        for n, w in model.named_parameters()
        if n.endswith('alpha') or n.startswith('hasf') and 'norm' in n and n.endswith('weight')
    ]
    assert len(gains) > 2
    for w in gains:
        torch.nn.init.constant_(w, 3.0)
    torch.nn.init.zeros_(
        model.out.conv.conv.bias
    )  # else one training step leaves all to the background
    save_weights(tmp_path / 'loud.safetensors', model, meta)
    masks = []
    for k, text in enumerate(('An MRI with L1.', 'An MRI with L5 and S.', 'An MRI with L1.')):
        r = done(
            call(
                'atm_predict',
                scan.image,
                tmp_path / f'{k}.nii.gz',
                '--weights',
                tmp_path / 'loud.safetensors',
                '--prompt',
                text,
            )
        )
        assert 'protocol user' in r.out
        masks.append(read_labels(tmp_path / f'{k}.nii.gz').data)
    assert (masks[0] != masks[1]).any()
    np.testing.assert_array_equal(masks[0], masks[2])


# scores, evaluation, measures, prompts


def test_score(scan, cohort, tmp_path):
    pred, truth = tmp_path / 'p', tmp_path / 't'
    pred.mkdir()
    truth.mkdir()
    (pred / 'Case1.nii.gz').write_bytes(scan.mask.read_bytes())
    (truth / 'mask_case1.nii.gz').write_bytes(scan.mask.read_bytes())
    r = done(call('atm_score', pred, truth, '--out', tmp_path / 's'))
    d = json.loads((tmp_path / 's' / 'scores.json').read_text(encoding='utf-8'))
    assert (
        set(d) == {'volumes', 'summary'}
        and list(d['volumes']) == ['Case1']
        and set(d['volumes']['Case1']['L4'])
        == {'dsc', 'jaccard', 'hd95_px', 'hd95_mm', 'asd_px', 'asd_mm'}
    )
    assert (
        d['volumes']['Case1']['L4']
        == dict(dsc=1, jaccard=1, hd95_px=0, hd95_mm=0, asd_px=0, asd_mm=0)
        and 'penalised' in r.out
        and 'paper' in r.out
    )


def test_score_of_a_changed_mask(scan, tmp_path):
    "Half of L4 gives Dice 2/3; L3 missed gives 0; one pair of files is enough"
    s = LUMBAR.scheme('joint').values
    im = sitk.ReadImage(str(scan.mask))
    a = sitk.GetArrayFromImage(im)
    where = np.flatnonzero(a == s['L4'])
    b = a.copy()
    b.flat[where[::2]] = 0
    b[b == s['L3']] = 0
    out = sitk.GetImageFromArray(b)
    out.CopyInformation(im)
    sitk.WriteImage(out, str(tmp_path / 'p.nii.gz'))
    done(
        call('atm_score', tmp_path / 'p.nii.gz', scan.mask, '--labels', 'joint', '--out', tmp_path)
    )
    v = next(
        iter(json.loads((tmp_path / 'scores.json').read_text(encoding='utf-8'))['volumes'].values())
    )
    n = len(where)
    assert (
        v['L4']['dsc'] == pytest.approx(2 * (n // 2) / (n + n // 2), abs=1e-6)
        and v['L3']['dsc'] == 0
        and v['L5']['dsc'] == 1
    )


@pytest.fixture(scope='session')
def evaluation(cache, run, unet, home):
    r = done(
        call(
            'atm_evaluate',
            cache,
            run.path,
            unet,
            '--protocols',
            'generic,self,oracle',
            '--out',
            home / 'evaluation',
        )
    )
    return home / 'evaluation', r.out


def test_evaluate(evaluation):
    out, text = evaluation
    d = json.loads((out / 'evaluation.json').read_text(encoding='utf-8'))
    assert [(e['run'], e['protocol']) for e in d['entries']] == [
        ('run', 'generic'),
        ('run', 'self'),
        ('run', 'oracle'),
        ('unet', 'none'),
    ]
    for n in ('overall.csv', 'structures.csv', 'tables.md', 'report.html'):
        assert (out / n).stat().st_size > 100
    rows = list(csv.DictReader((out / 'overall.csv').open(encoding='utf-8')))
    assert {r['protocol']: r['reads_mask'] for r in rows} == dict(
        generic='no', self='no', oracle='this slice', none='no'
    )
    assert all(0 <= float(r['penalised_dsc']) <= 1 for r in rows) and 'once' in text
    html = (out / 'report.html').read_text(encoding='utf-8')
    assert (
        'oracle' in html
        and 'data:image/png;base64' in html
        and 'http' not in re.sub(r'http://www\.w3\.org\S*', '', html)
    )


def test_evaluate_agrees_with_predict_and_score(evaluation, run, scan, tmp_path):
    "The table's Dice is that of the written mask"
    out, _ = evaluation
    done(
        call(
            'atm_predict',
            scan.image,
            tmp_path / 'm.nii.gz',
            '--weights',
            run.path,
            '--protocol',
            'generic',
        )
    )
    done(
        call('atm_score', tmp_path / 'm.nii.gz', scan.mask, '--labels', 'joint', '--out', tmp_path)
    )
    a = json.loads((out / 'scores' / 'run-generic.json').read_text(encoding='utf-8'))['volumes'][
        scan.case
    ]
    b = next(
        iter(json.loads((tmp_path / 'scores.json').read_text(encoding='utf-8'))['volumes'].values())
    )
    assert a == b


def test_evaluate_on_the_grid(cache, unet, tmp_path):
    done(call('atm_evaluate', cache, unet, '--grid', 'cache', '--split', 'val', '--out', tmp_path))
    assert json.loads((tmp_path / 'evaluation.json').read_text(encoding='utf-8'))['grid'] == 'cache'


def test_own_scan_from_dicom(tmp_path):
    """A folder from the hospital becomes a mask, a picture and a table, with the weights that
    ship; the same as from a file"""
    from atm_net.measures import measure
    from atm_net.phantom import make_phantom
    from atm_net.volumes import write_volume

    ph = make_phantom(1 << 40, contrast='t2', slices=(7, 6.0))
    (tmp_path / 'dicom').mkdir()
    write_series(tmp_path / 'dicom', ph.volume.data, ph.volume.spacing)
    write_volume(ph.volume.data, ph.volume.geometry, tmp_path / 'scan.mha')
    for scan, out in (('dicom', 'a.nii.gz'), ('scan.mha', 'b.nii.gz')):
        done(call('atm_predict', tmp_path / scan, tmp_path / out, '--labels', 'joint'))
    a, b = (read_labels(tmp_path / n) for n in ('a.nii.gz', 'b.nii.gz'))
    assert (a.data == b.data).mean() > 0.999
    np.testing.assert_allclose(a.spacing, ph.volume.spacing, atol=1e-3)
    assert is_png(tmp_path / 'a.png')
    np.testing.assert_allclose(
        a.geometry.affine, read_volume(tmp_path / 'dicom').geometry.affine, atol=1e-3
    )
    done(
        call(
            'atm_measure', tmp_path / 'a.nii.gz', '--labels', 'joint', '--out', tmp_path / 'm.json'
        )
    )
    got = {r['structure']: r for r in json.loads((tmp_path / 'm.json').read_text(encoding='utf-8'))}
    truth = {
        r['structure']: r for r in measure(ph.labels, ph.volume.spacing, LUMBAR.scheme('joint'))
    }
    near = [
        abs(got[n]['height_middle_mm'] - truth[n]['height_middle_mm'])
        for n in ('L1', 'L2', 'L3', 'L4')
        if n in got and got[n]['height_middle_mm']
    ]
    assert len(near) >= 3 and np.median(near) < 4 and got['L3']['canal_mm'] > 5


def test_measure(scan, tmp_path):
    r = done(call('atm_measure', scan.mask, '--out', tmp_path / 'm.csv'))
    rows = list(csv.DictReader((tmp_path / 'm.csv').open(encoding='utf-8')))
    assert any('L4' in r.values() for r in rows) and 'L4' in r.out
    done(call('atm_measure', scan.mask, '--out', tmp_path / 'm.json'))
    assert len(json.loads((tmp_path / 'm.json').read_text(encoding='utf-8'))) > 0


def test_prompt(scan, tmp_path):
    r = done(call('atm_prompt', scan.mask, '--json', '--labels', 'joint'))
    d = json.loads(r.out)
    s = LUMBAR.scheme('joint')
    from atm_net.prompts import MIN_PIXELS

    y = read_labels(scan.mask).data
    present = {
        v for v in np.unique(y).tolist() if v and (y == v).sum((1, 2)).max() >= MIN_PIXELS
    }  # less in every slice is not said
    assert (
        {s.values[n] for n in d['structures']} == present
        and d['structures'][-1] == 'SC'
        and d['structures'] == list(LUMBAR.order(d['structures']))
        and LUMBAR['L4'].phrase in d['sentence']
    )
    r = done(call('atm_prompt', scan.mask, '--slice', 0, '--option', 1, '--labels', 'joint'))
    assert LUMBAR['L4'].phrase not in r.out
    r = done(call('atm_prompt', scan.mask, '--slice', 0, '--classwise', '--labels', 'joint'))
    said = {
        n: re.search(
            rf'It (contains|does not contain) (the )?{re.escape(LUMBAR[n].phrase)}\.', r.out
        )
        for n in s.names
    }
    area = np.bincount(read_labels(scan.mask).data[0].ravel(), minlength=21)
    assert not all(area[v] >= MIN_PIXELS for v in present), (
        'the outermost slice was meant to lack a structure'
    )
    for n, m in said.items():
        assert m and (m[1] == 'contains') == (area[s.values[n]] >= MIN_PIXELS), f'{n}: {m}'


def test_prompt_of_a_report(tmp_path):
    f = tmp_path / 'r.txt'
    f.write_text(
        'Disc herniation at L4/L5. No fracture of L1. Vertebrae L1 to L5 are seen.\n',
        encoding='utf-8',
    )
    d = json.loads(done(call('atm_prompt', '--report', f, '--json')).out)
    by = {x['level']: x for x in d['findings']}
    assert (
        by['L4/L5']['negated'] is False
        and by['L1']['negated'] is True
        and all(set(x) == {'finding', 'level', 'negated'} for x in d['findings'])
        and 'L4' in d['sentence']
    )


# figures, studies, demo


@pytest.mark.slow
@needs('atm_net.figures')
def test_figures(cache, run, unet, tmp_path):
    done(
        call(
            'atm_figures',
            cache,
            run.path,
            unet,
            '--protocols',
            'generic',
            '--cases',
            1,
            '--slices',
            6,
            '--out',
            tmp_path,
        )
    )
    d = json.loads((tmp_path / 'figures.json').read_text(encoding='utf-8'))
    assert all((tmp_path / f).stat().st_size > 500 for f in d['files'])
    for kind in ('qualitative', 'words', 'confusion', 'tsne', 'curves'):
        assert any(f.startswith(kind) and f.endswith('.png') for f in d['files']), f'no {kind}'
    assert all(is_png(tmp_path / f) for f in d['files'] if f.endswith('.png'))


@needs('atm_net.study')
def test_study_help_names_the_tables():
    r = done(shell('atm_study', '--help'))
    assert re.search(r'table', r.out, re.I)
