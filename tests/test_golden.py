"""What the commands answer is what they answered before: data, prompts, reports, scores, options.

The values are in `tests/golden`; `golden_tools.py` says how they are compared and written anew.
Everything goes through console commands; the few functions are found by name with `find`.
"""

import csv
import inspect
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import ROOT, call, complaint, console_scripts, done, function_of
from golden_tools import check, digest, find

from atm_net.cli import read_command

SEEDS = (0, 11, 4242)
LAYOUTS = ('folder', 'mrspineseg', 'spider')
COORDINATES = 1e-4  # relative tolerance of lengths that a file holds as float32
SCORE = 1e-4  # relative tolerance of scores of fixed masks: exact but for the order of sums


def read_array(path) -> np.ndarray:
    "The voxels of a file as they lie in it"
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def read_rows(path) -> list[dict]:
    "A CSV as text"
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def read_json(path):
    "A JSON file"
    return json.loads(path.read_text(encoding='utf-8'))


# --- phantoms


def block_means(image: np.ndarray) -> list[float]:
    "Mean grey level of 4 x 4 x 4 blocks"
    pieces = [image]
    for axis in range(3):
        quarters = [np.array_split(piece, 4, axis) for piece in pieces]
        pieces = list(itertools.chain.from_iterable(quarters))
    return [round(piece.mean(), 1) for piece in pieces]


def image_facts(path) -> dict:
    """Grey levels of an image, by blocks and overall.

    No hash: the texture comes from float32 exponentials and Fourier transforms, whose last digit
    depends on the vector unit of the CPU; one voxel that rounds to the next whole number would
    change it. Means move by less than a thousandth then.
    """
    image = read_array(path).astype(float)
    percentiles = np.percentile(image, (1, 25, 50, 75, 99))
    return {
        'overall': [image.mean(), image.std(), *percentiles],
        'blocks': block_means(image),
    }


def label_facts(path) -> dict:
    """Hash and voxels of each value of a mask.

    The hash is exact: labels come from the sign of distances in mm, so a change in the last digit
    moves a voxel only where a surface passes through its centre. The counts say what has changed.
    """
    labels = read_array(path)
    values, counts = np.unique(labels, return_counts=True)
    return {
        'hash': digest(labels.astype(np.uint16)),
        'voxels': dict(zip(map(str, values.tolist()), counts.tolist(), strict=True)),
    }


def geometry(path) -> dict:
    "Size, spacing, origin and direction of a file, for numbers of float32"
    image = sitk.ReadImage(str(path))
    return {
        'size': list(image.GetSize()),
        'spacing': list(image.GetSpacing()),
        'origin': list(image.GetOrigin()),
        'direction': list(image.GetDirection()),
    }


def volumes(folder) -> list:
    "Image and mask files of a cohort, those of one scan at one place"
    files = [path for path in sorted(folder.rglob('*')) if path.name.endswith(('.mha', '.nii.gz'))]
    masks = [path for path in files if 'mask' in str(path.relative_to(folder)).lower()]
    images = [path for path in files if path not in masks]
    return list(zip(images, masks, strict=True))


def text_files(folder) -> dict:
    "The tables beside the volumes, line by line"
    files = [path for path in sorted(folder.iterdir()) if path.suffix in ('.csv', '.yaml')]
    return {path.name: path.read_text(encoding='utf-8').splitlines() for path in files}


def check_cohort(part: str, folder):
    "Compare a synthetic cohort"
    exact = {'texts': text_files(folder), 'phantom': read_json(folder / 'phantom.json')}
    rounded = {}
    for image, mask in volumes(folder):
        name = str(image.relative_to(folder))
        exact[name] = {'mask': str(mask.relative_to(folder)), **label_facts(mask)}
        rounded[name] = {'geometry': geometry(mask), **image_facts(image)}
        assert sitk.ReadImage(str(image)).GetSize() == sitk.ReadImage(str(mask)).GetSize()
    check('phantoms', f'{part}, masks', exact)
    check('phantoms', f'{part}, images', rounded, rtol=1e-3, atol=0.5)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('seed', SEEDS)
def test_phantoms(layout, seed, tmp_path):
    folder = tmp_path / 'cohort'
    done(call('atm_phantom', folder, '--layout', layout, '--patients', 1, '--seed', seed))
    check_cohort(f'{layout} {seed}', folder)


OPTIONS_OF_PHANTOMS = {
    'whole': ('--vertebra', 'whole', '--labels', 'mrspineseg'),
    'view': ('--view', 180),
    'thoracic': ('--anatomy', 'thoracic'),
}


@pytest.mark.parametrize('name', OPTIONS_OF_PHANTOMS)
def test_phantom_options(name, tmp_path):
    options = OPTIONS_OF_PHANTOMS[name]
    done(call('atm_phantom', tmp_path / 'c', '--patients', 1, '--seed', 2, *options))
    check_cohort(name, tmp_path / 'c')


# --- caches

MACHINE = ('version', 'root', 'atm_net')  # fields of a manifest that depend on where and when


def cache_facts(cache) -> dict:
    "Manifest of a cache, and what its arrays hold"
    manifest = read_json(cache / 'manifest.json')
    facts = {key: value for key, value in manifest.items() if key not in MACHINE}
    facts['arrays'] = {row['id']: array_facts(cache, row['id']) for row in manifest['cases']}
    return facts


def array_facts(cache, case: str) -> dict:
    "Shape, pixels of each channel, and grey levels of a case on the grid"
    image = np.load(cache / 'images' / f'{case}.npy').astype(float)
    labels = np.load(cache / 'labels' / f'{case}.npy')
    levels = read_json(cache / 'meta' / f'{case}.json')
    return {
        'shape': list(labels.shape),
        'pixels': np.bincount(labels.ravel()).tolist(),
        'grey': [image.mean(), image.std()],
        'spacing': levels['grid_spacing'],
        'levels': levels['levels'],
        'box': levels['box'],
    }


def check_cache(part: str, cache):
    "Compare a cache: whole numbers exactly, means of float16 images to a thousandth"
    check('caches', part, cache_facts(cache), rtol=1e-3)


def test_cache_of_a_fixed_size(cache):
    check_cache('size 64', cache)


def test_cache_of_fixed_pixels(slab_cache):
    check_cache('2 mm', slab_cache)


def test_cache_of_oracle_crops(slab, tmp_path):
    done(call('atm_prepare', slab, tmp_path / 'c', '--crop', 'oracle', '--size', 96, '--seed', 1))
    check_cache('oracle crop', tmp_path / 'c')


@pytest.mark.slow
def test_cache_of_spider(tmp_path):
    done(call('atm_phantom', tmp_path / 'd', '--layout', 'spider', '--patients', 3, '--seed', 7))
    rules = ('--labels', 'joint', '--partial', 'ignore', '--split', '1:1:1', '--size', 64)
    done(call('atm_prepare', tmp_path / 'd', tmp_path / 'c', *rules))
    check_cache('spider', tmp_path / 'c')
    done(call('atm_audit', tmp_path / 'd', '--json', tmp_path / 'audit.json'))
    audit = read_json(tmp_path / 'audit.json')
    check('caches', 'audit of spider', without_root(audit), rtol=COORDINATES)


def without_root(audit: dict) -> dict:
    "An audit without the folder that it looked at"
    return {key: value for key, value in audit.items() if key != 'root'}


# --- prompts

LEVELS = ('T11', 'T12', 'L1', 'L2', 'L3', 'L4', 'L5', 'S')
JOINT = {'S': 1, 'L5': 2, 'L4': 3, 'L3': 4, 'L2': 5, 'L1': 6, 'T12': 7, 'T11': 8}
CHEST = {'T7': 1, 'T8': 2, 'T9': 3, 'T10': 4, 'T11': 5, 'T12': 6}  # values in file order


def write_mask(labels: np.ndarray, path):
    "Store (slice, row, column), from the patient's right, head and front, as an LPS file"
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels[:, ::-1].transpose(1, 2, 0)))
    image.SetSpacing((4.0, 1.0, 1.0))
    sitk.WriteImage(image, str(path))


def column_of_bodies(values: list[int], first_disc: int, canal: int) -> np.ndarray:
    "Six slices of boxes: bodies, discs between them, a canal; the outer slices hold less"
    labels = np.zeros((6, 20 * len(values) + 10, 60), np.uint8)
    for index, value in enumerate(values):
        top = 5 + 20 * index
        labels[:, top : top + 14, 20:36] = value
        if index:
            labels[1:5, top - 5 : top - 1, 20:36] = first_disc + len(values) - 1 - index
    labels[2:4, 5:-5, 40:46] = canal
    labels[0, :25] = 0  # the uppermost body is missing at the patient's right
    labels[5] = 0
    labels[5, 50, 20:29] = values[2]  # nine pixels: too few to be named
    labels[5, 90, 20:30] = values[4]  # ten pixels: just enough
    return labels


@pytest.fixture(scope='module')
def boxes(tmp_path_factory):
    "Label volumes drawn by hand: one of the lumbar, one of the thoracic spine, and a report"
    folder = tmp_path_factory.mktemp('boxes')
    write_mask(column_of_bodies([JOINT[n] for n in LEVELS], 11, 20), folder / 'lumbar.nii.gz')
    write_mask(column_of_bodies(list(CHEST.values()), 7, 12), folder / 'thoracic.nii.gz')
    report = 'Disc herniation at L4/L5 and L5/S1. No fracture of L1. Modic type 2 changes at L3/4.'
    (folder / 'report.txt').write_text(report + '\n', encoding='utf-8')
    return folder


ANATOMIES = {'lumbar': ('--labels', 'joint'), 'thoracic': ('--anatomy', 'thoracic')}
ASKED = {
    'option 1': ('--option', 1),
    'option 2': ('--option', 2),
    'option 3': ('--option', 3),
    'slice 0': ('--slice', 0),
    'slice 2': ('--slice', 2, '--classwise'),
    'slice 5': ('--slice', 5, '--option', 2),
    'classwise': ('--classwise',),
}


def prompt(*args):
    "What `atm_prompt` prints as JSON"
    return json.loads(done(call('atm_prompt', *args, '--json')).out)


@pytest.mark.parametrize('anatomy', ANATOMIES)
@pytest.mark.parametrize('asked', ASKED)
def test_prompts_of_a_mask(anatomy, asked, boxes):
    args = (boxes / f'{anatomy}.nii.gz', *ANATOMIES[anatomy], *ASKED[asked])
    check('prompts', f'{anatomy}, {asked}', prompt(*args))


@pytest.mark.parametrize('option', (1, 2, 3, 4))
def test_prompts_of_a_report(option, boxes):
    args = ('--report', boxes / 'report.txt', '--option', option)
    check('prompts', f'report, option {option}', prompt(*args))


def test_prompts_of_a_report_beside_a_mask(boxes):
    args = (boxes / 'lumbar.nii.gz', '--labels', 'joint', '--report', boxes / 'report.txt')
    check('prompts', 'report and mask', prompt(*args, '--option', 4))


def test_prompts_as_printed(boxes):
    args = (boxes / 'lumbar.nii.gz', '--labels', 'joint', '--report', boxes / 'report.txt')
    out = done(call('atm_prompt', *args, '--option', 4, '--classwise')).out
    check('prompts', 'printed', {'lines': out.splitlines()})


def test_slice_positions():
    slice_position = find('slice_position')
    thirds = {n: [slice_position(k, n) for k in range(n)] for n in range(1, 17)}
    check('prompts', 'slice positions', {n: ' '.join(names) for n, names in thirds.items()})


TYPED = (
    'A sagittal MRI with L3, L4 and L5.',
    'L1 to L4',
    'the discs between L2 and S1, but no L3',
    'Only the spinal canal, please',
    'nothing that I know',
    'L4-5, 5-1 and the sacrum',
    'This is a sagittal MRI of the lumbar spine. It shows at least L4.',
)


def test_typed_prompts():
    "What is read from words of a person, and the sentence that the network gets"
    user_prompt, reword = find('user_prompt'), find('reword')
    lumbar = find('LUMBAR')
    said = {}
    for text in TYPED:
        read = user_prompt(text, lumbar)
        sentences = [str(reword(read, lumbar, option, 'middle')) for option in (1, 2, 3)]
        said[text] = {'structures': list(read.structures), 'sentences': sentences}
    check('prompts', 'typed', said)


# --- reports

REPORTS = json.loads((ROOT / 'tests' / 'reports.json').read_text(encoding='utf-8'))


def in_short(finding: dict) -> str:
    "'no fracture @ L1'"
    denied = 'no ' if finding['negated'] else ''
    return f'{denied}{finding["finding"]} @ {finding["level"]}'


def report_facts(path) -> str:
    "Findings, structures and a hash of the sentence with its findings, in one line"
    said = prompt('--report', path, '--option', 4)
    findings = '; '.join(in_short(finding) for finding in said['findings'])
    sentence = digest(np.frombuffer(said['sentence'].encode(), np.uint8))
    return f'{findings} | {" ".join(said["structures"])} | {sentence[:6]}'


def test_reports(tmp_path):
    facts = {}
    for report in REPORTS:
        path = tmp_path / 'report.txt'
        path.write_text(report['text'], encoding='utf-8')
        facts[report['id']] = report_facts(path)
    check('reports', 'findings | structures | hash of the prompt', facts)


# --- scores


def shifted(labels: np.ndarray) -> np.ndarray:
    "Two rows towards the head, one column back"
    return np.roll(labels, (2, 1), (1, 2))


def one_level_off(labels: np.ndarray) -> np.ndarray:
    "Each body and disc has the name of the one above it"
    moved = labels.copy()
    for value in (*range(1, 10), *range(11, 19)):
        moved[labels == value] = value + 1
    return moved


def incomplete(labels: np.ndarray) -> np.ndarray:
    "L3 is missing, the canal is thinner, T9 is where nothing is"
    spoilt = np.where(labels == JOINT['L3'], 0, labels)
    spoilt[:, ::3][spoilt[:, ::3] == 20] = 0
    spoilt[1:3, 2:9, 2:9] = 10
    return spoilt


def unchanged(labels: np.ndarray) -> np.ndarray:
    "A perfect prediction"
    return labels


def empty(labels: np.ndarray) -> np.ndarray:
    "Nothing was found"
    return np.zeros_like(labels)


FAULTS = (shifted, one_level_off, incomplete, unchanged, shifted, empty)  # one for each patient


@pytest.fixture(scope='module')
def predictions(slab, tmp_path_factory):
    "Masks of the slab, each with its fault"
    folder = tmp_path_factory.mktemp('predictions')
    for path, fault in zip(sorted((slab / 'masks').iterdir()), FAULTS, strict=True):
        image = sitk.ReadImage(str(path))
        # an array as it is stored counts (from the feet, from the front, from the right)
        labels = fault(sitk.GetArrayFromImage(image).transpose(2, 0, 1))
        changed = sitk.GetImageFromArray(np.ascontiguousarray(labels.transpose(1, 2, 0)))
        changed.CopyInformation(image)
        sitk.WriteImage(changed, str(folder / path.name))
    return folder


def volume_facts(scores: dict) -> dict:
    "The six metrics of each structure, in the order of the file"
    facts = {}
    for case, structures in scores['volumes'].items():
        for name, record in structures.items():
            facts[f'{case} {name}'] = list(record.values())
            facts['metrics'] = list(record)
    return facts


def level_facts(detail: dict) -> dict:
    "What is said of each volume as a whole, and how each structure was found"
    facts = {}
    for case, found in detail.items():
        status = {name: record['status'] for name, record in found['structures'].items()}
        rest = {key: value for key, value in found.items() if key != 'structures'}
        facts[case] = {**rest, 'status': status}
    return facts


def test_scores(slab, predictions, tmp_path):
    args = (predictions, slab / 'masks', '--labels', 'joint', '--out', tmp_path)
    out = done(call('atm_score', *args)).out
    scores = read_json(tmp_path / 'scores.json')
    check('scores', 'volumes', volume_facts(scores), rtol=SCORE, atol=1e-6)
    detail = scores['summary'].pop('detail')
    check('scores', 'summary', scores['summary'], rtol=SCORE, atol=1e-6)
    check('scores', 'levels', level_facts(detail), rtol=SCORE, atol=1e-6)
    assert out == (tmp_path / 'scores.md').read_text(encoding='utf-8')
    check('scores', 'tables', {'lines': out.splitlines()}, rtol=SCORE, atol=1e-3)
    rows = read_rows(tmp_path / 'scores.csv')
    check('scores', 'columns of the csv', {'names': list(rows[0]), 'rows': len(rows)})


def test_measures(slab, tmp_path):
    path = sorted((slab / 'masks').iterdir())[0]
    done(call('atm_measure', path, '--labels', 'joint', '--out', tmp_path / 'm.json'))
    rows = {row['structure']: row for row in read_json(tmp_path / 'm.json')}
    check('scores', 'measures', rows, rtol=1e-3, atol=1e-3)


# --- options and exit status of the commands


def parameter_facts(parameter) -> str:  # of `read_command`
    "Type, default and what else argparse gets; there must be a help text, in any wording"
    assert parameter.help, f'{parameter.name} has no help'
    facts = [parameter.kind.__name__]
    if not parameter.positional:
        facts.append(f'default {parameter.default!r}')
    if parameter.many:
        facts.append('many')
    if parameter.choices:
        facts.append(f'choices {" ".join(map(str, parameter.choices))}')
    return ', '.join(facts)


@pytest.mark.parametrize('command', sorted(console_scripts()))
def test_options(command):
    source = inspect.getsource(inspect.unwrap(function_of(command)))
    parameters = read_command(source, command).parameters
    check('commands', command, {p.name: parameter_facts(p) for p in parameters})


def test_commands():
    check('commands', 'all', {'names': sorted(console_scripts())})


BAD_INPUT = {  # NOWHERE and OUT are paths that do not exist
    'atm_phantom': ('OUT', '--layout', 'odd'),
    'atm_audit': ('NOWHERE',),
    'atm_prompt': ('--option', 7),
    'atm_prepare': ('NOWHERE', 'OUT'),
    'atm_predict': ('NOWHERE', 'OUT'),
    'atm_measure': ('NOWHERE',),
    'atm_train': ('NOWHERE', 'OUT'),
    'atm_score': ('NOWHERE', 'NOWHERE'),
    'atm_evaluate': ('NOWHERE', 'NOWHERE'),
    'atm_figures': ('NOWHERE', 'NOWHERE'),
    'atm_study': ('odd', 'NOWHERE', 'OUT'),
    'atm_demo': ('--patients', 2),
    'atm_nnunet': ('NOWHERE', 'OUT'),
    'atm_sample': ('OUT', '--address', 'http://127.0.0.1:9'),
    'atm_workshop': ('OUT', '--edition', 'odd'),
}


@pytest.mark.parametrize('command', sorted(console_scripts()))
def test_exit_status(command, tmp_path):
    "0 for help; 2 and one line for an unknown option and for bad input; nothing is written"
    paths = {'NOWHERE': tmp_path / 'nowhere', 'OUT': tmp_path / 'out'}
    bad_input = [paths.get(arg, arg) for arg in BAD_INPUT[command]]
    assert done(call(command, '--help')).status == 0
    for args in (('--no-such-option',), bad_input):
        assert complaint(call(command, *args)).startswith(f'{command}: ')
    assert not any(tmp_path.iterdir())


# --- imports


def test_prediction_is_imported_without_torch():
    "The module of the predictions loads neither MONAI nor PyTorch until it predicts"
    code = 'import sys, atm_net.predict; print(sorted({"monai", "torch"} & set(sys.modules)))'
    ask = [sys.executable, '-c', code]
    fresh = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=True)
    assert fresh.stdout.strip() == '[]', fresh.stdout + fresh.stderr
