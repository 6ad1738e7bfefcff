"""What networks answer is what they answered before: logits, masks, losses, a resumed run, tables.

The values are in `tests/golden`; `golden_tools.py` says how they are compared and written anew.
Tolerances allow for the rounding of another CPU; a changed computation is far outside of them.
"""

import csv
import dataclasses
import json
import shutil
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import ROOT, call, done
from golden_tools import FOLDER, check, check_labels, compare, find, is_writing

SHIPPED = 'atm_net_tiny'  # weights by name, as every command takes them
RESUME = FOLDER / 'resume'
LOGITS = {'rtol': 1e-3, 'atol': 2e-3}  # logits are about 1 to 20
LOSSES = {'rtol': 1e-3, 'atol': 1e-4}
CONTRAST = {'rtol': 5e-3}  # after ten steps it is 0.2 % off on a CPU without AVX
TABLES = {'rtol': 0.01, 'atol': 0.005}  # scores of predicted masks: a few pixels may differ
SAME_PIXELS = 0.999
SAME_COUNT = 0.01  # relative, of each structure


@pytest.fixture(scope='module')
def scan(slab):
    "Image and mask of five slices of the first patient"
    return slab / 'images' / 'case0001.nii.gz', slab / 'masks' / 'case0001.nii.gz'


# --- logits


def logits_of(predictor, path, **given) -> np.ndarray:
    "What the network gives out while a volume is segmented: (slices, channels, rows, columns)"
    seen = []

    def keep(module, inputs, output):
        seen.append(output.float().cpu().numpy())

    hook = predictor.model.register_forward_hook(keep)
    predictor.predict(find('read_volume')(path), **given)
    hook.remove()
    return np.concatenate(seen)


def plain_logits(predictor, path) -> np.ndarray:
    "The same without words: the fusion is passed over. The one place that knows this argument"
    import torch

    network = predictor.model
    images = []

    def keep(module, inputs):
        images.append(inputs[0])

    hook = network.register_forward_pre_hook(keep)
    predictor.predict(find('read_volume')(path), protocol='generic')
    hook.remove()
    with torch.inference_mode():
        return network(torch.cat(images), text=False).float().cpu().numpy()


def logit_facts(logits: np.ndarray) -> dict:
    "Mean and spread of each channel, and a coarse grid of the third slice"
    slice_ = logits[2]
    grid = slice_[:, 4::24, 4::24]
    rows = {f'channel {k}': grid[k].round(4).ravel().tolist() for k in range(len(grid))}
    return {
        'shape': list(logits.shape),
        'mean': slice_.mean((1, 2)),
        'std': slice_.std((1, 2)),
        **rows,
    }


def test_logits(scan):
    predictor = find('load_predictor')(SHIPPED, one_name_per_level=False)
    words = 'A sagittal MRI with L2, L3, L4 and L5.'
    check('logits', 'no text', logit_facts(plain_logits(predictor, scan[0])), **LOGITS)
    generic = logits_of(predictor, scan[0], protocol='generic')
    check('logits', 'generic prompt', logit_facts(generic), **LOGITS)
    typed = logits_of(predictor, scan[0], protocol='user', prompt=words)
    check('logits', 'typed prompt', logit_facts(typed), **LOGITS)


# --- masks

ASKED = {
    'self': ('--protocol', 'self'),
    'self, pixelwise': ('--protocol', 'self', '--pixelwise'),
    'generic': (),  # the default
    'oracle': ('--protocol', 'oracle', '--mask', 'MASK'),
    'user': ('--prompt', 'The lumbar spine from L2 down to L5, without the canal.'),
}


@pytest.mark.parametrize('asked', ASKED)
def test_masks(asked, scan, tmp_path):
    image, mask = scan
    args = [mask if arg == 'MASK' else arg for arg in ASKED[asked]]
    out = done(call('atm_predict', image, tmp_path / 'm.nii.gz', '--labels', 'joint', *args)).out
    said = out.strip().removeprefix(f'{tmp_path / "m.nii.gz"}: ')
    check('predictions', asked, {'said': said}, atol=0.02)  # it may end with an agreement
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / 'm.nii.gz')))
    names = {value: name for name, value in find('LUMBAR').scheme('joint').values.items()}
    check_labels(asked, labels, names, SAME_PIXELS, SAME_COUNT)


# --- training


def run_rows(run) -> dict:
    "Losses of each step, as the log of a run has them"
    with open(run / 'log.csv', newline='', encoding='utf-8') as file:
        rows = [row for row in csv.DictReader(file) if row['loss']]
    return {row['step']: losses_of(row) for row in rows}


def losses_of(row: dict) -> dict:
    "The losses of one row; the Dice of a batch is left out: it jumps with single pixels"
    return {name: float(row[name]) for name in ('loss', 'seg', 'contrast', 'lr') if row[name]}


def check_losses(part: str, rows: dict):
    "Compare losses; the contrast apart, which looks at rare structures and is less stable"
    contrast = {step: row.pop('contrast') for step, row in rows.items() if 'contrast' in row}
    check('training', f'{part}, losses', rows, **LOSSES)
    check('training', f'{part}, contrast', contrast, **CONTRAST)


def train(cache, run, config, **options):
    "Train a configuration with a row in the log for each step. The one place that knows `train`"
    find('train')(cache, run, config, device='cpu', every=1, val_every=1000, **options)


def configuration(preset: str, **changes):
    "A preset with changes"
    return dataclasses.replace(find('PRESETS')[preset], val_cases=1, **changes)


def tensors(path) -> dict:
    "Type and shape of each tensor of a safetensors file"
    from safetensors import safe_open

    facts = {}
    with safe_open(path, 'pt') as file:
        for key in sorted(file.keys()):
            held = file.get_slice(key)
            shape = 'x'.join(map(str, held.get_shape()))
            facts[key] = f'{held.get_dtype()} {shape}'.strip()
    return facts


def moment_shape(moment: str, shape: str) -> str:
    "Shape and type of what AdamW keeps of a parameter, after its shape and type"
    return 'F32' if moment == 'step' else shape


def model_and_moments(run) -> dict:
    "Tensors of the network in a checkpoint; a star marks those with a full set of moments"
    found = tensors(sorted(run.glob('checkpoints/*.safetensors'))[-1])
    moments = ('exp_avg', 'exp_avg_sq', 'step')
    facts = {'*': ', '.join(moments)}
    names = [key.removeprefix('model.') for key in found if key.startswith('model.')]
    for name in names:
        shape = found.pop(f'model.{name}')
        kept = [found.pop(f'opt.{name}.{moment}', None) for moment in moments]
        is_full = kept == [moment_shape(moment, shape) for moment in moments]
        facts[name] = f'{shape} *' if is_full else shape
    return facts | found


def module_norms(path) -> dict:
    "Root mean square of the weights of each module of a network"
    from safetensors.torch import load_file

    squares = {}
    for key, tensor in load_file(path).items():
        if tensor.is_floating_point():
            squares.setdefault(key.split('.')[0], []).append(tensor.double().square().mean().item())
    return {name: float(np.sqrt(np.mean(values))) for name, values in squares.items()}


TRAINED = {
    'tiny': {'preset': 'tiny', 'steps': 10, 'batch': 2, 'warmup': 1},
    'paper': {
        'preset': 'paper',
        'steps': 10,
        'batch': 2,
        'feature_size': 12,
        'windows': (64,),
        'encoder': 'spine_bert_tiny',
    },
}


@pytest.mark.parametrize('name', TRAINED)
def test_training(name, slab_cache, tmp_path):
    "Ten steps: losses, weights of each module, and names and shapes in the checkpoint"
    train(slab_cache, tmp_path / 'run', configuration(**TRAINED[name]))
    check_losses(name, run_rows(tmp_path / 'run'))
    norms = module_norms(tmp_path / 'run' / 'last.safetensors')
    check('training', f'{name}, weights', norms, rtol=1e-3)
    check('tensors', name, model_and_moments(tmp_path / 'run'))


# --- resuming


def shortened(config: dict) -> dict:
    "A run's configuration without the path of its cache"
    return {**config, 'cache': {**config['cache'], 'path': 'cache'}}


def keep_configuration(run, folder):
    "Store a run's configuration"
    folder.mkdir(parents=True)
    config = json.loads((run / 'config.json').read_text(encoding='utf-8'))
    write_json(folder / 'config.json', shortened(config))


def write_json(path, value):
    "Store a value as JSON"
    path.write_text(json.dumps(value, indent=1) + '\n', encoding='utf-8')


UNET = {
    'preset': 'tiny',
    'network': 'unet',
    'hasf': False,
    'ccae': False,
    'text_decoder': True,  # as the preset had it at that time
    'feature_size': 2,
    'steps': 6,
    'batch': 2,
    'windows': (64,),
    'warmup': 0,
}


def keep_checkpoint(run, folder):
    "Store what a resumed run needs after step 3, and the losses that came next"
    keep_configuration(run, folder)
    checkpoint = folder / 'checkpoints' / 'step-0000003.safetensors'
    checkpoint.parent.mkdir()
    checkpoint.write_bytes((run / 'checkpoints' / checkpoint.name).read_bytes())
    later = {step: row for step, row in run_rows(run).items() if int(step) > 3}
    write_json(folder / 'losses.json', later)


def test_a_checkpoint_of_the_old_code_resumes(slab_cache, tmp_path):
    "Steps 4 to 6 from the stored checkpoint of step 3; the losses are those of the whole run"
    config, stored, run = configuration(**UNET), RESUME / 'unet', tmp_path / 'run'
    if is_writing() and not stored.exists():
        train(slab_cache, tmp_path / 'whole', config, save_every=3)
        keep_checkpoint(tmp_path / 'whole', stored)
    shutil.copytree(stored, run)
    train(slab_cache, run, config, resume=True)
    later = json.loads((stored / 'losses.json').read_text(encoding='utf-8'))
    compare('resume/unet/losses.json', later, run_rows(run), **LOSSES)


ATM_NET = {
    'preset': 'tiny',
    'steps': 5,
    'batch': 2,
    'windows': (64,),
    'warmup': 0,
}


def made_up_moments(name: str, tensor) -> dict:
    "What AdamW keeps of a parameter after three steps: the same numbers for the same name"
    import torch

    chance = np.random.default_rng(zlib.crc32(name.encode()))
    first = 1e-3 * chance.standard_normal(tuple(tensor.shape), np.float32)
    return {
        f'opt.{name}.step': torch.tensor(3.0),
        f'opt.{name}.exp_avg': torch.from_numpy(np.asarray(first, np.float32)),
        f'opt.{name}.exp_avg_sq': torch.full(tuple(tensor.shape), 1e-5),
    }


def write_old_checkpoint(path):
    """A checkpoint of an ATM-Net after three steps in the form that the old code wrote.

    The weights are those that ship, the moments are made up: a real one would be 25 MB large.
    """
    from safetensors.torch import load_file, save_file

    shipped = load_file(ROOT / 'atm_net' / 'assets' / SHIPPED / 'weights.safetensors')
    held = {}
    for name, tensor in shipped.items():
        is_parameter = tensor.is_floating_point()
        held[f'model.{name}'] = tensor.float() if is_parameter else tensor
        held |= made_up_moments(name, tensor) if is_parameter else {}
    state = {'best': 0.25, 'scaler': {}, 'step': 3}
    path.parent.mkdir(parents=True)
    save_file(held, path, metadata={'state': json.dumps(state)})


def test_an_atm_net_of_the_old_code_resumes(slab_cache, tmp_path):
    "Weights and moments of each parameter are found again by the names that the old code gave"
    config, stored, run = configuration(**ATM_NET), RESUME / 'atm_net', tmp_path / 'run'
    if is_writing() and not stored.exists():
        train(slab_cache, tmp_path / 'start', config)
        keep_configuration(tmp_path / 'start', stored)
    shutil.copytree(stored, run)
    write_old_checkpoint(run / 'checkpoints' / 'step-0000003.safetensors')
    train(slab_cache, run, config, resume=True)
    check_losses('atm_net, resumed', run_rows(run))
    norms = module_norms(run / 'last.safetensors')
    check('training', 'atm_net, resumed, weights', norms, rtol=1e-3)


# --- evaluation


def csv_facts(path, names: tuple[str, ...]) -> dict:
    "Rows of a CSV by what names them"
    with open(path, newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    return {' '.join(row[name] for name in names): cells(row, names) for row in rows}


def cells(row: dict, names: tuple[str, ...]) -> dict:
    "All other cells of a row"
    return {key: number_or_text(text) for key, text in row.items() if key not in names}


def number_or_text(text: str):
    "A float where the text is one"
    try:
        return float(text)
    except ValueError:
        return text


def evaluate(cache, out, *args):
    "Score the weights that ship"
    done(call('atm_evaluate', cache, SHIPPED, *args, '--out', out))
    return (out / 'tables.md').read_text(encoding='utf-8').splitlines()


def check_tables(part: str, folder, **names: tuple[str, ...]):
    "Compare CSV files, their rows by the columns that name them"
    for name, keys in names.items():
        facts = csv_facts(folder / f'{name}.csv', keys)
        check('evaluation', f'{part}, {name}', facts, **TABLES)


def test_evaluation_on_the_grid(slab_cache, tmp_path):
    args = ('--protocols', 'generic,shuffled', '--split', 'train', '--grid', 'cache')
    lines = evaluate(slab_cache, tmp_path, *args)
    check('evaluation', 'grid, tables', {'lines': lines}, **TABLES)
    names = {
        'overall': ('run', 'protocol'),
        'structures': ('run', 'protocol', 'policy', 'structure'),
        'differences': ('entry', 'against'),
    }
    check_tables('grid', tmp_path, **names)


def test_evaluation_on_the_source(slab_cache, tmp_path):
    lines = evaluate(slab_cache, tmp_path, '--protocols', 'self,oracle')
    check('evaluation', 'source, tables', {'lines': lines}, **TABLES)
    check_tables('source', tmp_path, overall=('run', 'protocol'))
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*.*'))
    check('evaluation', 'source, files', {'names': files})
