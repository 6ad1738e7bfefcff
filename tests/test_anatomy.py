"""Another anatomy runs through every command without a change in code: from the phantom, and
from a folder of images that nobody here has heard of"""

import json

import numpy as np
import pytest
from conftest import call, complaint, done

from atm_net.anatomy import LUMBAR, get_anatomy
from atm_net.data import Cache
from atm_net.geometry import new_geometry
from atm_net.volumes import read_labels, write_labels, write_volume

KNEE = """name: knee
image: sagittal MRI of the knee
structures:
- {name: patella, kind: bone}
- {name: femur, kind: bone}
- {name: tibia, kind: bone}
- {name: PCL, kind: ligament}
top_down: [patella, femur, PCL, tibia]
"""


def draw_knee(seed):
    "An image and its labels (s, h, w): four ellipses that move and differ from case to case"
    rng = np.random.default_rng(seed)
    s, h, w = 5, 90, 70
    y, x = np.mgrid[:h, :w]
    lab = np.zeros((s, h, w), np.uint8)
    for v, cy, cx, ry, rx in (
        (2, 30, 40, 16, 12),
        (3, 66, 40, 14, 13),
        (1, 24, 18, 9, 5),
        (4, 48, 50, 6, 4),
    ):
        for k in range(s):
            lab[k][
                ((y - cy - rng.normal(0, 1)) / ry) ** 2 + ((x - cx - rng.normal(0, 1)) / rx) ** 2
                < 1
            ] = v
    img = np.array([0.2, 0.9, 0.6, 0.7, 0.1])[lab] + rng.normal(0, 0.05, lab.shape)
    return (1000 * img).astype(np.int16), lab


@pytest.fixture(scope='module')
def knees(tmp_path_factory):
    root = tmp_path_factory.mktemp('knee') / 'data'
    (root / 'images').mkdir(parents=True)
    (root / 'masks').mkdir()
    (root / 'knee.yaml').write_text(KNEE, encoding='utf-8')
    (root / 'labels.yaml').write_text('1: patella\n2: femur\n3: tibia\n4: PCL\n', encoding='utf-8')
    for i in range(5):
        img, lab = draw_knee(i)
        g = new_geometry(img.shape, (4.0, 2.0, 2.0), 'LPS')
        write_volume(img, g, root / 'images' / f'knee{i}.nii.gz')
        write_labels(lab, g, root / 'masks' / f'knee{i}.nii.gz')
    return root, root / 'knee.yaml'


@pytest.fixture(scope='module')
def chests(tmp_path_factory):
    root = tmp_path_factory.mktemp('chest') / 'data'
    done(call('atm_phantom', root, '--anatomy', 'thoracic', '--patients', 4, '--seed', 2))
    return root, 'thoracic'


@pytest.mark.slow
@pytest.mark.parametrize('what', ['knees', 'chests'])
def test_from_images_to_scores(what, request, tmp_path):
    """audit, prepare, train, predict, figures, scores: all with the structures of the file and
    none of the lumbar spine"""
    root, anatomy = request.getfixturevalue(what)
    names = get_anatomy(str(anatomy)).names
    audit = tmp_path / 'a.json'
    r = done(call('atm_audit', root, '--anatomy', anatomy, '--json', audit))
    assert 'would skip' not in r.out
    found = json.loads(audit.read_text(encoding='utf-8'))['structures']
    assert set(found) == set(names) and sum(v['volumes'] > 0 for v in found.values()) >= 4

    folder, run = tmp_path / 'cache', tmp_path / 'run'
    done(call('atm_prepare', root, folder, '--anatomy', anatomy, '--size', 64))
    cache = Cache(folder)
    assert cache.scheme.names == names and cache.anatomy != LUMBAR
    done(call('atm_train', folder, run, '--steps', 3, '--batch', 2))

    case = cache.cases('test')[0]
    image, mask = (root / k / f'{case}.nii.gz' for k in ('images', 'masks'))
    made = tmp_path / 'out.nii.gz'
    options = ['--weights', run, '--protocol', 'oracle', '--mask', mask]
    done(call('atm_predict', image, made, *options))
    assert read_labels(made).shape == read_labels(mask).shape

    figures = tmp_path / 'figures'
    done(call('atm_figures', folder, run, '--perplexity', 5, '--out', figures))
    assert list(figures.rglob('*.png'))
    options = ['--protocols', 'generic,oracle', '--out', tmp_path / 'eval']
    assert names[0] in done(call('atm_evaluate', folder, run, *options)).out


def test_prompt_in_its_own_words(knees, chests):
    root, yaml = knees
    out = done(
        call('atm_prompt', root / 'masks' / 'knee0.nii.gz', '--anatomy', yaml, '--slice', 2)
    ).out
    assert (
        'sagittal MRI of the knee' in out
        and out.index('patella') < out.index('femur') < out.index('tibia')
        and 'vertebra' not in out
    )
    root, _ = chests
    said = done(
        call(
            'atm_prompt',
            sorted((root / 'masks').iterdir())[0],
            '--anatomy',
            'thoracic',
            '--slice',
            6,
        )
    ).out
    assert (
        'thoracic spine' in said
        and 'thoracic vertebra T9' in said
        and 'L4' not in said
        and said.index('T8,') < said.index('T11,')
    )


def test_labels_of_the_phantom(chests):
    "The chest's field of view holds the chest, and a structure keeps its number"
    root, _ = chests
    chest = get_anatomy('thoracic')
    seen = set()
    for m in sorted((root / 'masks').iterdir()):
        lab = read_labels(m).data
        here = set(np.unique(lab).tolist()) - {0}
        seen |= here
        rows = [
            np.argwhere(lab == chest[n].id)[:, 1].mean()
            for n in chest.top_down
            if n not in ('SC', 'cord') and chest[n].id in here
        ]
        assert rows == sorted(rows) and len(rows) >= 5
    assert seen == set(range(1, 14))


def test_what_is_refused(knees, tmp_path):
    _, yaml = knees
    assert 'phantom draws none of its bodies' in complaint(
        call('atm_phantom', tmp_path / 'a', '--anatomy', yaml)
    )
    assert 'dataset of the lumbar spine' in complaint(
        call('atm_phantom', tmp_path / 'b', '--layout', 'spider', '--anatomy', 'thoracic')
    )
    assert 'cannot be read as an anatomy' in complaint(
        call('atm_phantom', tmp_path / 'c', '--anatomy', 'thorax')
    )
    assert not any(tmp_path.iterdir())
