"""Bad input: status 2, one line that names file, field and remedy, no traceback, nothing
half-written"""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import call, complaint, done, shell, tree

from atm_net.anatomy import LUMBAR


def spoil(path, change, geometry=None):
    "Rewrite an image with its array changed"
    im = sitk.ReadImage(str(path))
    a = change(sitk.GetArrayFromImage(im))
    out = sitk.GetImageFromArray(a)
    if out.GetDimension() == im.GetDimension():
        out.CopyInformation(im)
    if geometry:
        geometry(out)
    sitk.WriteImage(out, str(path))


def truncated(f):
    f.write_bytes(f.read_bytes()[: f.stat().st_size // 2])


def text_as_mha(f):
    f.with_name('image.mha').write_text('This is no image.\n', encoding='utf-8')
    f.unlink()


def with_nan(f):
    spoil(
        f, lambda a: np.where(np.arange(a.size).reshape(a.shape) == 7, np.nan, a).astype(np.float32)
    )


def constant(f):
    spoil(f, lambda a: a * 0 + 5)


def four_d(f):
    im = sitk.ReadImage(str(f))
    sitk.WriteImage(sitk.JoinSeries([im, im]), str(f))


def axial(f):
    spoil(
        f,
        lambda a: a,
        lambda im: im.SetSpacing([1.0, 1.0, 6.0]) or im.SetDirection(np.eye(3).ravel().tolist()),
    )


def empty_file(f):
    f.write_bytes(b'')


def missing(f):
    f.unlink()


IMAGES = [
    (truncated, 'truncated'),
    (text_as_mha, 'image.mha'),
    (with_nan, 'NaN'),
    (constant, 'constant'),
    (four_d, '4-D'),
    (axial, 'axial'),
    (empty_file, 'image.nii.gz'),
    (missing, 'no such file'),
]


@pytest.mark.parametrize('fault,words', IMAGES, ids=lambda x: getattr(x, '__name__', None) or '')
def test_predict_refuses_an_image(run, scratch, fault, words):
    f = scratch / 'image.nii.gz'
    fault(f)
    f = f if fault is missing or f.exists() else scratch / 'image.mha'
    before = tree(scratch)
    line = complaint(
        call(
            'atm_predict', f, scratch / 'out.nii.gz', '--weights', run.path, '--protocol', 'generic'
        )
    )
    assert words in line and str(f) in line and tree(scratch) == before


@pytest.mark.slow
def test_predict_refuses_a_truncated_file_as_a_process(run, scratch):
    truncated(scratch / 'image.nii.gz')
    before = tree(scratch)
    line = complaint(
        shell(
            'atm_predict', scratch / 'image.nii.gz', scratch / 'out.nii.gz', '--weights', run.path
        )
    )
    assert line.startswith('atm_predict:') and 'truncated' in line and tree(scratch) == before


def one_case(scratch, folder):
    "A plain folder of the spoilt case and three good ones"
    (folder / 'images').mkdir(parents=True)
    (folder / 'masks').mkdir()
    (folder / 'labels.yaml').write_text(
        ''.join(f'{v}: {n}\n' for n, v in LUMBAR.scheme('joint').values.items()), encoding='utf-8'
    )
    for kind, name in (('images', 'image'), ('masks', 'mask')):
        for f in scratch.glob(f'{name}.*'):
            shutil.copy(f, folder / kind / f'bad{f.name[len(name) :]}')
    return folder


def shifted(im):
    im.SetOrigin([x + 9 for x in im.GetOrigin()])


def mask_gone(d):
    (d / 'mask.nii.gz').unlink()


def mask_shape(d):
    sitk.WriteImage(sitk.ReadImage(str(d / 'mask.nii.gz'))[:, 1:, :], str(d / 'mask.nii.gz'))


def mask_moved(d):
    spoil(d / 'mask.nii.gz', lambda a: a, shifted)


def mask_value(d):
    spoil(d / 'mask.nii.gz', lambda a: np.where(a == 3, 77, a).astype(np.uint8))


def mask_float(d):
    spoil(d / 'mask.nii.gz', lambda a: a * 0.5)


def mask_empty(d):
    spoil(d / 'mask.nii.gz', lambda a: a * 0)


MASKS = [
    (mask_gone, 'mask missing'),
    (mask_shape, 'shape'),
    (mask_moved, 'geometry differs'),
    (mask_value, '77'),
    (mask_float, 'whole numbers'),
    (mask_empty, 'no structure'),
    (lambda d: truncated(d / 'image.nii.gz'), 'truncated'),
    (lambda d: with_nan(d / 'image.nii.gz'), 'NaN'),
    (lambda d: axial(d / 'image.nii.gz'), 'axial'),
]


@pytest.mark.parametrize('fault,words', MASKS, ids=[w for _, w in MASKS])
def test_prepare_strict_refuses_and_plain_skips(scratch, cohort, tmp_path, fault, words):
    "--strict stops with status 2; without it the case is listed and the rest is prepared"
    fault(scratch)
    d = one_case(scratch, tmp_path / 'bad')
    line = complaint(call('atm_prepare', d, tmp_path / 'c1', '--size', 64, '--strict'))
    assert words in line and 'bad' in line
    assert not (tmp_path / 'c1' / 'manifest.json').exists() and not list(
        (tmp_path / 'c1').rglob('bad*')
    )
    line = complaint(call('atm_prepare', d, tmp_path / 'c2', '--size', 64))
    assert 'nothing left' in line and words in line
    for k in ('images', 'masks'):
        for n in ('case0001', 'case0002', 'case0003'):
            shutil.copy(cohort / k / f'{n}.nii.gz', d / k)
    r = done(call('atm_prepare', d, tmp_path / 'c3', '--size', 64))
    assert 'skipped bad' in r.out and words in r.out
    m = json.loads((tmp_path / 'c3' / 'manifest.json').read_text(encoding='utf-8'))
    assert [s['case'] for s in m['skipped']] == ['bad'] and len(m['cases']) == 3


def test_audit_reports_what_prepare_refuses(scratch, tmp_path):
    mask_value(scratch)
    r = done(call('atm_audit', one_case(scratch, tmp_path / 'bad')))
    assert '77' in r.out
    assert 'nowhere' in complaint(call('atm_audit', tmp_path / 'nowhere'))


@pytest.mark.parametrize(
    'args,words',
    [
        (('--preset', 'huge'), 'huge'),
        (('--crop', 'middle'), 'middle'),
        (('--labels', 'nope'), 'nope'),
        (('--layout', 'odd'), 'odd'),
        (('--size', 'x'), 'size'),
        (('--size', 0), '--size'),
        (('--size', -4), '--size'),
        (('--split', 'odd'), 'odd'),
        (('--nonsense', '1'), 'nonsense'),
    ],
)
def test_prepare_refuses_an_option(cohort, tmp_path, args, words):
    assert (
        words in complaint(call('atm_prepare', cohort, tmp_path / 'c', *args))
        and not (tmp_path / 'c').exists()
    )


def test_prepare_refuses_folders(cohort, cache, tmp_path):
    assert 'nowhere' in complaint(shell('atm_prepare', tmp_path / 'nowhere', tmp_path / 'c'))
    (tmp_path / 'empty').mkdir()
    assert 'not a dataset folder' in complaint(
        call('atm_prepare', tmp_path / 'empty', tmp_path / 'c')
    )
    before = tree(cache)
    assert (
        'other settings' in complaint(call('atm_prepare', cohort, cache, '--size', 96))
        and tree(cache) == before
    )
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'notes.txt').write_text('mine', encoding='utf-8')
    assert 'not empty' in complaint(call('atm_prepare', cohort, tmp_path / 'full'))
    assert not (tmp_path / 'c').exists()


def test_prepare_refuses_another_localiser(cohort, run, unet, tmp_path):
    "Boxes of two networks in one cache would be mixed pixels"
    args = ('atm_prepare', cohort, tmp_path / 'c', '--size', 64, '--crop', 'self', '--weights')
    done(call(*args, run.path))
    before = tree(tmp_path / 'c')
    line = complaint(call(*args, unet))
    assert 'localiser' in line and 'best.safetensors' in line and tree(tmp_path / 'c') == before
    done(call(*args, run.path / 'best.safetensors'))
    assert (
        json.loads((tmp_path / 'c' / 'manifest.json').read_text(encoding='utf-8'))['localiser'][
            'file'
        ]
        == 'best.safetensors'
    )


# weights


def altered(run, path, change):
    "The run's weights with their description changed"
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(run.path / 'last.safetensors', 'pt') as f:
        meta, state = (
            json.loads(f.metadata()['atm_net']),
            {k: f.get_tensor(k) for k in sorted(f.keys())},
        )
    change(meta, state)
    save_file(state, path, metadata=dict(atm_net=json.dumps(meta)))
    return path


def test_a_pickle_is_never_opened(scan, tmp_path):
    "Weights that would run code when unpickled: refused, and the code does not run"
    import pickle

    class Bomb:
        def __reduce__(self):
            import os

            return os.system, (f'touch {tmp_path}/boom',)

    for name in ('w.safetensors', 'w.pt'):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        assert name in complaint(
            call('atm_predict', scan.image, tmp_path / 'o.nii.gz', '--weights', tmp_path / name)
        )
    assert {p.name for p in tmp_path.iterdir()} == {'w.safetensors', 'w.pt'}


def test_weights_of_another_kind(run, scan, cache, tmp_path):
    def say(w, *more):
        return complaint(
            call('atm_predict', scan.image, tmp_path / 'o.nii.gz', '--weights', w, *more)
        )

    assert 'no such weights' in say(tmp_path / 'no.safetensors') and 'train it first' in say(
        tmp_path
    )
    assert 'do not fit' in say(
        altered(
            run,
            tmp_path / 'a.safetensors',
            lambda m, s: m.update(out_channels=7, values=dict(list(m['values'].items())[:6])),
        )
    )
    assert 'do not fit' in say(
        altered(run, tmp_path / 'b.safetensors', lambda m, s: s.pop('out.conv.conv.weight'))
    )
    assert 'revision' in say(
        altered(run, tmp_path / 'c.safetensors', lambda m, s: m.update(encoder_revision='another'))
    )
    assert 'vit_giant' in say(
        altered(run, tmp_path / 'd.safetensors', lambda m, s: m.update(network='vit_giant'))
    )
    import torch
    from safetensors.torch import save_file

    save_file(dict(x=torch.zeros(2)), tmp_path / 'e.safetensors')
    assert 'not written by atm_net' in say(tmp_path / 'e.safetensors')
    assert not list(tmp_path.glob('o*'))


def test_weights_of_another_scheme(run, scan, home, tmp_path):
    """The weights' channels and their names must agree, and a cache of another anatomy is no
    test for them"""
    line = complaint(
        call(
            'atm_predict',
            scan.image,
            tmp_path / 'o.nii.gz',
            '--weights',
            altered(
                run,
                tmp_path / 'a.safetensors',
                lambda m, s: m.update(values=dict(list(m['values'].items())[:6])),
            ),
        )
    )
    assert 'a.safetensors' in line and not list(tmp_path.glob('o*'))


def test_another_encoder(run, scan, tmp_path):
    "An encoder that is not there, and one with other weights than the run was trained with"
    from pathlib import Path

    from safetensors.torch import load_file, save_file

    import atm_net

    assert 'nowhere' in complaint(
        call(
            'atm_predict',
            scan.image,
            tmp_path / 'o.nii.gz',
            '--weights',
            run.path,
            '--encoder',
            tmp_path / 'nowhere',
        )
    )
    src = Path(atm_net.__file__).parent / 'assets' / 'spine_bert_tiny'
    shutil.copytree(src, tmp_path / 'enc')
    w = load_file(tmp_path / 'enc' / 'model.safetensors')
    k = next(iter(w))
    w[k] = w[k] + 1
    save_file(w, tmp_path / 'enc' / 'model.safetensors', metadata=dict(format='pt'))
    assert (
        'revision'
        in complaint(
            call(
                'atm_predict',
                scan.image,
                tmp_path / 'o.nii.gz',
                '--weights',
                run.path,
                '--encoder',
                tmp_path / 'enc',
            )
        )
        and not (tmp_path / 'o.nii.gz').exists()
    )


# prompts

PROMPTS = [
    (('--prompt', ' '), 'empty'),
    (('--prompt', ''), 'empty'),
    (('--report', ''), '--report: empty'),
    (('--mask', ''), '--mask: empty'),
    (('--prompt', 'L4', '--protocol', 'self'), 'does not read'),
    (('--mask', 'MASK'), 'choose oracle'),
    (('--mask', 'MASK', '--protocol', 'generic'), '--mask'),
    (('--prompt', 'L4', '--mask', 'MASK'), '--mask'),
    (('--report', 'MASK', '--protocol', 'generic'), 'choose report'),
    (('--protocol', ''), 'unknown'),
    (('--prompt', 'An MRI with L4 and L9.'), 'L9'),
    (('--verbatim', '--prompt', 'L4 ' + 'and the vertebra L4 ' * 90), 'token'),
    (('--protocol', 'user'), '--prompt'),
    (('--protocol', 'oracle'), '--mask'),
    (('--protocol', 'report'), '--report'),
    (('--protocol', 'wizard'), 'wizard'),
    (('--labels', 'nope'), 'nope'),
    (('--protocol', 'none'), 'none'),
]


@pytest.mark.parametrize('args,words', PROMPTS, ids=[w for _, w in PROMPTS])
def test_predict_refuses_words(run, scan, tmp_path, args, words):
    line = complaint(
        call(
            'atm_predict',
            scan.image,
            tmp_path / 'o.nii.gz',
            '--weights',
            run.path,
            *(scan.mask if a == 'MASK' else a for a in args),
        )
    )
    assert words.lower() in line.lower() and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'args',
    [
        ('--prompt', 'L4'),
        ('--protocol', 'user', '--prompt', 'L4'),
        ('--protocol', 'oracle', '--mask', 'MASK'),
    ],
    ids=lambda a: a[-2],
)
def test_predict_refuses_words_for_a_network_without_text(unet, scan, tmp_path, args):
    line = complaint(
        call(
            'atm_predict',
            scan.image,
            tmp_path / 'o.nii.gz',
            '--weights',
            unet,
            *(scan.mask if a == 'MASK' else a for a in args),
        )
    )
    assert 'no text' in line and not list(tmp_path.iterdir())


def test_predict_spares_its_inputs(run, scratch):
    """A mask never takes the place of a scan, of a true mask or of a report, however the path is
    spelt"""
    (scratch / 'scans').mkdir()
    shutil.copy(scratch / 'image.nii.gz', scratch / 'scans' / 'a.nii.gz')
    (scratch / 'link').symlink_to(scratch / 'scans')
    before = tree(scratch)
    f, d = scratch / 'image.nii.gz', scratch / 'scans'
    for volume, out, more in (
        (f, f, ()),
        (f, scratch, ()),
        (f, d / '..' / 'image.nii.gz', ()),
        (d, d, ()),
        (d, scratch / 'link', ()),
        (scratch / 'link' / 'a.nii.gz', d, ()),
        (f, scratch / 'mask.nii.gz', ('--protocol', 'oracle', '--mask', scratch / 'mask.nii.gz')),
    ):
        line = complaint(call('atm_predict', volume, out, '--weights', run.path, *more))
        assert (
            'would be overwritten by its mask' in line
            and 'another folder' in line
            and tree(scratch) == before
        ), (volume, out)
    line = complaint(
        shell('atm_predict', 'scans/a.nii.gz', 'scans', '--weights', run.path, cwd=scratch)
    )
    assert (
        line.startswith('atm_predict: scans') and 'overwritten' in line and tree(scratch) == before
    )


def test_predict_goes_on_after_a_damaged_file(run, scratch):
    "The other volumes of a folder are segmented; the damaged one is named, and the status is 2"
    d = scratch / 'scans'
    d.mkdir()
    [shutil.copy(scratch / 'image.nii.gz', d / f'{n}.nii.gz') for n in 'abc']
    truncated(d / 'b.nii.gz')
    (d / 'notes.txt').write_text('all fasted', encoding='utf-8')
    (d / '.hidden').write_text('', encoding='utf-8')
    r = call('atm_predict', d, scratch / 'out', '--weights', run.path, '--protocol', 'generic')
    assert (
        r.status == 2
        and '1 of 3 volumes were not segmented' in r.err
        and 'b.nii.gz' in r.err
        and 'Traceback' not in r.err
        and 'going on with the others' in r.err
    )
    assert 'passed over, not a volume: notes.txt\n' in r.err
    written = [f.name for f in (scratch / 'out').rglob('*') if f.is_file()]
    assert sorted(name for name in written if not name.startswith('labels_')) == [
        'a.nii.gz',
        'a.nii.gz.json',
        'a.png',
        'c.nii.gz',
        'c.nii.gz.json',
        'c.png',
    ]


def test_predict_says_that_words_name_nothing(run, scan, tmp_path):
    "A sentence without a level is run, with a note"
    r = done(
        call(
            'atm_predict',
            scan.image,
            tmp_path / 'o.nii.gz',
            '--weights',
            run.path,
            '--prompt',
            'a nice picture',
        )
    )
    assert 'no structure is recognised' in r.err and (tmp_path / 'o.nii.gz').is_file()
    (tmp_path / 'r.txt').write_text('Normal spine.', encoding='utf-8')
    r = done(
        call(
            'atm_predict',
            scan.image,
            tmp_path / 'p.nii.gz',
            '--weights',
            run.path,
            '--report',
            tmp_path / 'r.txt',
        )
    )
    assert 'r.txt: no structure is recognised' in r.err
    assert (
        'recognised'
        not in done(
            call(
                'atm_predict',
                scan.image,
                tmp_path / 'q.nii.gz',
                '--weights',
                run.path,
                '--prompt',
                'L4',
            )
        ).err
    )


def no_gpu():
    import torch

    return not torch.cuda.is_available()


@pytest.mark.parametrize(
    'device,words',
    [
        ('tpu', 'tpu'),
        pytest.param(
            'cuda', 'no GPU', marks=pytest.mark.skipif('not no_gpu()', reason='there is a GPU')
        ),
    ],
)
def test_a_device_that_is_not_there(cache, run, scan, tmp_path, device, words):
    for args in (
        ('atm_predict', scan.image, tmp_path / 'o.nii.gz', '--weights', run.path),
        ('atm_evaluate', cache, run.path, '--out', tmp_path / 'e'),
    ):
        line = complaint(call(*args, '--device', device))
        assert words in line and 'cpu' in line and not list(tmp_path.iterdir())


def test_predict_refuses_companions(run, scratch, tmp_path):
    args = ('atm_predict', scratch / 'image.nii.gz', scratch / 'o.nii.gz', '--weights', run.path)
    assert 'no.txt' in complaint(call(*args, '--report', scratch / 'no.txt'))
    (scratch / 'r.txt').write_text(' \n', encoding='utf-8')
    assert 'r.txt' in complaint(call(*args, '--report', scratch / 'r.txt'))
    mask_moved(scratch)
    assert 'geometry differs' in complaint(
        call(*args, '--protocol', 'oracle', '--mask', scratch / 'mask.nii.gz')
    )
    assert not (scratch / 'o.nii.gz').exists()
    assert 'o.jpg' in complaint(
        call('atm_predict', scratch / 'image.nii.gz', scratch / 'o.jpg', '--weights', run.path)
    )
    (scratch / 'none').mkdir()
    assert (
        'none'
        in complaint(call('atm_predict', scratch / 'none', scratch / 'out', '--weights', run.path))
        and not (scratch / 'out').exists()
    )


def test_prompt_refuses(scan, scratch):
    def say(*a):
        return complaint(call('atm_prompt', *a))

    assert (
        '--report' in say()
        and 'option' in say(scan.mask, '--option', 4)
        and 'no such file' in say(scratch / 'no.nii.gz')
    )
    assert 'slice' in say(scan.mask, '--slice', 999, '--labels', 'joint')
    mask_value(scratch)
    assert '77' in say(scratch / 'mask.nii.gz')
    (scratch / 'e.txt').write_text('\n', encoding='utf-8')
    assert 'empty' in say('--report', scratch / 'e.txt')
    (scratch / 'b.txt').write_bytes(b'\xff\xfe\x00L4')
    assert 'b.txt' in say('--report', scratch / 'b.txt')
    assert '--report' in complaint(shell('atm_prompt'))


# scores and measures


def test_score_refuses(scan, scratch):
    def say(*a):
        return complaint(call('atm_score', *a, '--out', scratch / 's'))

    m = scratch / 'mask.nii.gz'
    assert 'no such' in say(scratch / 'no.nii.gz', m) and 'nope' in say(
        m, scan.mask, '--labels', 'nope'
    )
    a, b = scratch / 'a', scratch / 'b'
    a.mkdir()
    b.mkdir()
    assert 'holds no mask' in say(a, b)
    shutil.copy(m, a / 'x.nii.gz')
    shutil.copy(m, b / 'y.nii.gz')
    assert 'no partner' in say(a, b) and 'two folders' in say(a, m)
    mask_moved(scratch)
    assert 'geometry differs' in say(m, scan.mask)
    mask_value(scratch)
    assert '77' in say(m, scan.mask, '--labels', 'joint')
    truncated(m)
    assert 'truncated' in say(m, scan.mask)
    assert not (scratch / 's').exists()


def test_score_refuses_two_schemes_as_one(scan, tmp_path):
    """A prediction in MRSpineSeg's numbers beside a truth in SPIDER's: every vertebra would be
    scored against its neighbour"""
    from atm_net.anatomy import convert
    from atm_net.volumes import read_labels, write_labels

    j = LUMBAR.scheme('joint')
    v = read_labels(scan.mask)
    lab = j.encode(v.data)
    for n in ('mrspineseg', 'spider'):
        s = LUMBAR.scheme(n)
        write_labels(s.decode(convert(lab, j, s)[0]), v, tmp_path / n / 'a.nii.gz')
    line = complaint(
        call('atm_score', tmp_path / 'mrspineseg', tmp_path / 'spider', '--out', tmp_path / 's')
    )
    assert '--labels mrspineseg,spider' in line and not (tmp_path / 's').exists()
    assert 'a.nii.gz: label value(s)' in complaint(
        call('atm_score', tmp_path / 'mrspineseg', tmp_path / 'spider', '--labels', 'spider')
    ) and 'PRED,TRUTH' in complaint(
        call(
            'atm_score',
            tmp_path / 'mrspineseg',
            tmp_path / 'spider',
            '--labels',
            'spider,joint,joint',
        )
    )
    r = done(
        call(
            'atm_score',
            tmp_path / 'mrspineseg',
            tmp_path / 'spider',
            '--labels',
            'mrspineseg,spider',
            '--out',
            tmp_path / 's',
        )
    )
    d = json.loads((tmp_path / 's' / 'scores.json').read_text(encoding='utf-8'))['volumes']['a']
    assert (
        'labels mrspineseg/spider' in r.out
        and 'S, SC left out' in r.err
        and len(d) == 18
        and {x['dsc'] for x in d.values()} - {None} == {1}
    )


def test_measure_refuses(scratch):
    m = scratch / 'mask.nii.gz'
    assert 'm.txt' in complaint(call('atm_measure', m, '--out', scratch / 'm.txt'))
    mask_empty(scratch)
    assert (
        'nothing to measure' in complaint(call('atm_measure', m, '--out', scratch / 'm.csv'))
        and not (scratch / 'm.csv').exists()
    )


# runs


@pytest.mark.parametrize(
    'args,words',
    [
        (('--preset', 'huge'), 'huge'),
        (('--model', 'vgg'), 'vgg'),
        (('--decoder', 'odd'), 'odd'),
        (('--contrast', 'odd'), 'odd'),
        (('--focal', 'odd'), 'odd'),
        (('--attention', 'odd'), 'odd'),
        (('--tokens', 'odd'), 'odd'),
        (('--option', '4'), '4'),
        (('--steps', '0'), '0'),
        (('--batch', '0'), '0'),
        (('--device', 'tpu'), 'tpu'),
        (('--encoder', 'no/such/encoder'), 'no/such/encoder'),
        (('--init', 'no.safetensors'), 'no.safetensors'),
        (('--steps', 'many'), 'many'),
    ],
)
def test_train_refuses_an_option_and_leaves_no_run(cache, tmp_path, args, words):
    line = complaint(
        call(
            'atm_train',
            cache,
            tmp_path / 'r',
            *(() if '--steps' in args else ('--steps', 1)),
            *(() if '--batch' in args else ('--batch', 1)),
            *args,
        )
    )
    assert words in line and not (tmp_path / 'r').exists()


def test_train_refuses_folders(cache, run, tmp_path):
    before = tree(run.path)
    line = complaint(shell('atm_train', cache, run.path, '--steps', 3, '--batch', 2))
    assert 'holds a finished run' in line
    assert (
        'batch'
        in complaint(call('atm_train', cache, run.path, '--steps', 3, '--batch', 1, '--resume'))
        and tree(run.path) == before
    )
    assert (
        'no such cache' in complaint(call('atm_train', tmp_path / 'no', tmp_path / 'r'))
        and not (tmp_path / 'r').exists()
    )


def test_resume_on_another_cache(cohort, run, home, tmp_path):
    done(call('atm_prepare', cohort, tmp_path / 'c', '--size', 64, '--labels', 'mrspineseg'))
    before = tree(run.path)
    assert (
        'another cache'
        in complaint(
            call('atm_train', tmp_path / 'c', run.path, '--steps', 3, '--batch', 2, '--resume')
        )
        and tree(run.path) == before
    )


@pytest.mark.parametrize(
    'args,words',
    [
        (('--protocols', 'wizard'), 'wizard'),
        (('--protocols', ','), 'empty'),
        (('--protocols', 'user'), 'user'),
        (('--grid', 'odd'), 'odd'),
        (('--split', 'odd'), 'odd'),
    ],
)
def test_evaluate_refuses(cache, run, tmp_path, args, words):
    assert (
        words in complaint(call('atm_evaluate', cache, run.path, *args, '--out', tmp_path / 'e'))
        and not (tmp_path / 'e').exists()
    )


def test_phantom_refuses(cohort, tmp_path):
    for a, w in (
        (('--layout', 'odd'), 'odd'),
        (('--patients', 0), 'patients'),
        (('--vertebra', 'odd'), 'odd'),
        (('--labels', 'odd'), 'odd'),
        (('--patients', 'x'), 'patients'),
    ):
        assert (
            w in complaint(call('atm_phantom', tmp_path / 'p', *a))
            and not (tmp_path / 'p').exists()
        )
    before = tree(cohort)
    assert (
        'finished cohort' in complaint(call('atm_phantom', cohort, '--patients', 1))
        and tree(cohort) == before
    )
