"A drawn spine for tests: each structure a rectangle, top-down, the canal behind"

import numpy as np

from atm_net.anatomy import LUMBAR, Anatomy, Scheme, Structure

joint, spider = LUMBAR.scheme('joint'), LUMBAR.scheme('spider')
truth = (*LUMBAR.run('T12', 'L5'), 'SC')


def draw(names, shape=(90, 31), scheme=joint):
    "A (h, w) slice with the structures of `names` stacked from the top"
    out = np.zeros(shape, np.uint8)
    top = 4
    for n in LUMBAR.order(names):
        if n == 'SC':
            out[2:-2, 20:24] = scheme.channel(n)
            continue
        height = 2 if '/' in n else 7
        out[top : top + height, 6:17] = scheme.channel(n)
        top += height
    return out


def knee():
    "An anatomy without vertebrae"
    kinds = dict(femur='bone', tibia='bone', PCL='ligament')
    structures = tuple(Structure(n, i, kind) for i, (n, kind) in enumerate(kinds.items(), 1))
    scheme = Scheme('joint', dict(femur=1, tibia=2, PCL=3))
    order = ('femur', 'PCL', 'tibia')
    return Anatomy('knee', 'sagittal MRI of the knee', structures, order, {'joint': scheme})
