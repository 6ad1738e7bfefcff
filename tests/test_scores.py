"Scores against closed forms and against MONAI, on many random masks"

import warnings

import numpy as np
import pytest
from scipy import ndimage

from atm_net.anatomy import LUMBAR
from atm_net.core import InputError
from atm_net.distances import VARIANTS, assd, hd95, surface_distances, variant_distances
from atm_net.metrics import dice, jaccard, structure_scores, volume_scores


def masks(seed, n=2):
    "Random masks of odd sizes, none empty"
    r = np.random.default_rng(seed)
    shape = r.integers(2, 14, 3)
    out = []
    while len(out) < n:
        m = ndimage.gaussian_filter(r.random(shape), 0.7) > r.uniform(0.4, 0.55)
        if m.any():
            out.append(m)
    return out, tuple(r.uniform(0.3, 5, 3))


@pytest.mark.parametrize('seed', range(25))
def test_random_masks_agree_with_monai(seed):
    import torch
    from monai.metrics import (
        DiceMetric,
        MeanIoU,
        compute_average_surface_distance,
        compute_hausdorff_distance,
    )

    (a, b), mm = masks(seed)
    x, y = (torch.from_numpy(m)[None, None].float() for m in (a, b))
    kw = dict(include_background=True, spacing=list(mm))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        hd, asd = (
            compute_hausdorff_distance(x, y, percentile=95, **kw).item(),
            compute_average_surface_distance(x, y, symmetric=True, **kw).item(),
        )
    d = surface_distances(a, b, mm)
    np.testing.assert_allclose((hd95(*d), assd(*d)), (hd, asd), rtol=1e-6, atol=1e-6)
    assert dice(a, b) == pytest.approx(DiceMetric()(x, y).item(), abs=1e-6) and jaccard(
        a, b
    ) == pytest.approx(MeanIoU()(x, y).item(), abs=1e-6)


@pytest.mark.parametrize('axis', (0, 1, 2))
def test_a_moved_plate_is_as_far_as_it_moved(axis):
    "A box one voxel thick, moved by k along its thin axis: every distance is k times the spacing"
    mm = (4.0, 0.7, 1.3)
    size = [5, 6, 7]
    size[axis] = 1
    a = np.zeros((16, 17, 18), bool)
    a[tuple(slice(3, 3 + n) for n in size)] = True
    for k in (1, 4):
        b = np.roll(a, k, axis)
        r = structure_scores(b, a, mm)
        assert (
            r['hd95_mm'] == pytest.approx(k * mm[axis], abs=1e-6)
            and r['asd_mm'] == pytest.approx(k * mm[axis], abs=1e-6)
            and r['dsc'] == 0
        )


@pytest.mark.parametrize('mm', ((1, 1, 1), (3, 1, 1), (1.5, 0.6, 0.8)))
def test_spheres_within_a_voxel(mm):
    grid = np.meshgrid(*(np.arange(-20, 20.01, s) for s in mm), indexing='ij')

    def ball(r):
        return sum(g**2 for g in grid) <= r**2

    d = surface_distances(ball(10), ball(16), mm)
    assert abs(hd95(*d) - 6) <= max(mm) and abs(assd(*d) - 6) <= max(mm)


@pytest.mark.parametrize('variant', VARIANTS)
def test_variants_are_symmetric_where_they_say_so(variant):
    (a, b), mm = masks(3)
    ab, ba = variant_distances(a, b, mm, variant), variant_distances(b, a, mm, variant)
    assert (
        ab[0] == pytest.approx(ba[0])
        and (ab[1] == pytest.approx(ba[1])) == (variant != 'directed')
        and variant_distances(a, a, mm, variant) == (0, 0)
    )
    with pytest.raises(InputError, match='unknown variant'):
        variant_distances(a, b, mm, variant + 'x')


def test_dropping_nan_rewards_a_miss():
    s = LUMBAR.scheme('joint')
    t = np.zeros((3, 20, 20), np.uint8)
    t[:, 4:12, 4:12] = s.channel('T12')
    p = np.roll(t, 3, 1)
    none = np.zeros_like(t)
    from atm_net.metrics import summarise

    def head(preds, policy):
        return summarise(
            {str(i): volume_scores(q, t, (4, 1, 1), s) for i, q in enumerate(preds)}, policy
        )['headline']['hd95_mm']

    assert head([t, none], 'paper') == 0 < head([t, p], 'paper') and head(
        [t, none], 'penalised'
    ) > head([t, p], 'penalised')
