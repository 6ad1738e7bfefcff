"Small functions and data that several tests share"

from inspect import signature

import numpy as np
import torch


def close(a, b, eps=1e-5):
    "Equal up to `eps`, element by element"
    np.testing.assert_allclose(a, b, rtol=0, atol=eps)


def defaults(f) -> dict:
    "Parameters that have a default, with it"
    parameters = signature(f).parameters
    return {k: p.default for k, p in parameters.items() if p.default is not p.empty}


def contrast_batch() -> tuple:  # (3, 6, 16, 24) softmax output; (3, 6, 128); (3, 6) bool
    "Probabilities, pooled class prompts and presence of three images and six classes"
    torch.manual_seed(0)
    probs = torch.randn(3, 6, 16, 24).double().softmax(1)
    return probs, torch.randn(3, 6, 128).double(), torch.rand(3, 6) > 0.3


def box(shape, lo, size):
    "A box of `size` voxels with its first corner at `lo`"
    m = np.zeros(shape, bool)
    m[tuple(slice(i, i + n) for i, n in zip(lo, size))] = True
    return m


def monai_hd_asd(a, b, spacing):
    "HD95 and ASSD by MONAI, for masks of two or three dimensions"
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    x, y = (torch.from_numpy(m)[None, None].float() for m in (a, b))
    kw = dict(include_background=True, spacing=list(spacing))
    hd = compute_hausdorff_distance(x, y, percentile=95, **kw)
    asd = compute_average_surface_distance(x, y, symmetric=True, **kw)
    return hd.item(), asd.item()
