"Small functions and data that several tests share"

import locale
from inspect import signature

import numpy as np
import SimpleITK as sitk
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


def slice_tags(k: int, spacing, place: tuple) -> dict:  # place: x, y, z of the first pixel, mm
    "The DICOM tags of a sagittal slice"
    return {
        '0008|0060': 'MR',
        '0008|0016': '1.2.840.10008.5.1.4.1.1.4',
        '0020|000e': '1.2.3.4',
        '0020|000d': '1.2.3',
        '0008|0018': f'1.2.3.4.{k + 1}',
        '0020|0037': '0\\1\\0\\0\\0\\-1',
        '0020|0032': '\\'.join(f'{x:g}' for x in place),
        '0018|0050': f'{spacing[0]:g}',
        '0020|0013': str(k + 1),
    }


def write_series(
    folder,
    data,  # (s, h, w)
    spacing,  # (3,) mm
    places=None,  # of the slices, counted in slices; None: one beside the other
):
    "A DICOM file for each sagittal slice, as a scanner exports them, names in disorder"
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    was = locale.setlocale(locale.LC_ALL)  # the writer sets it to C for the whole process
    for k, place in enumerate(range(len(data)) if places is None else places):
        image = sitk.GetImageFromArray(data[k : k + 1].astype(np.int16))
        image.SetSpacing((*map(float, spacing[:0:-1]), float(spacing[0])))
        for tag, value in slice_tags(k, spacing, (place * spacing[0], -20, 75)).items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f'{(k * 3) % len(data)}.dcm'))
        writer.Execute(image)
    locale.setlocale(locale.LC_ALL, was)
