"""Golden values: what the package answered before it was rewritten, in small JSON files.

A test computes a value and hands it to `check`, which compares it with `tests/golden/TOPIC.json`.
`python tests/golden_tools.py --write` computes all of them anew; name tests behind it to write only
theirs. Files under `tests/golden/resume` are never overwritten: a checkpoint, configurations and
losses of the code as it was; remove them by hand if they shall be made again.
"""

import base64
import hashlib
import importlib
import json
import math
import os
import re
import sys
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / 'golden'
SWITCH = 'ATM_NET_GOLDEN'  # environment variable; 'write' stores in place of comparing
NUMBER = re.compile(r'(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?')
SHOWN = 12  # differences that a failure lists


def find(name: str):
    "A public name of the package, in whatever module it lives now"
    modules = importlib.import_module('atm_net._modidx').d['syms']
    for module, symbols in modules.items():
        if f'{module}.{name}' in symbols:
            return getattr(importlib.import_module(module), name)
    for module in modules:  # constants are not in the index
        loaded = importlib.import_module(module)
        if hasattr(loaded, name):
            return getattr(loaded, name)
    raise LookupError(f'no module of atm_net has a public name {name!r}')


def digest(array: np.ndarray) -> str:
    "Twelve digits that tell whole numbers, their shape included"
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()[:12]


def pack_labels(labels: np.ndarray) -> dict:
    "A label volume as text"
    packed = zlib.compress(labels.astype(np.uint8).tobytes(), 9)
    return {'shape': list(labels.shape), 'labels': base64.b64encode(packed).decode()}


def unpack_labels(stored: dict) -> np.ndarray:
    "The label volume of `pack_labels`"
    flat = np.frombuffer(zlib.decompress(base64.b64decode(stored['labels'])), np.uint8)
    return flat.reshape(stored['shape'])


def plain(value):
    "The value as JSON reads it back: floats with six digits, no NaN, keys as text"
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f'{value:.6g}') if math.isfinite(value) else None
    return value


def numbers_apart(text: str) -> tuple[str, list[float]]:
    "A text with # in place of its numbers, and the numbers"
    return NUMBER.sub('#', text), [float(number) for number in NUMBER.findall(text)]


def is_close(old: float, new: float, rtol: float, atol: float) -> bool:
    "Within the tolerance, which is measured on the stored value"
    return abs(new - old) <= atol + rtol * abs(old)


def same_leaf(old, new, rtol: float, atol: float) -> bool:
    "Numbers within the tolerance, text with its numbers within the tolerance, all else equal"
    if old == new:
        return type(old) is type(new) or isinstance(old, (int, float))
    if isinstance(old, float) and isinstance(new, (int, float)) and not isinstance(new, bool):
        return is_close(old, new, rtol, atol)
    if isinstance(old, str) and isinstance(new, str) and (rtol or atol):
        (words, a), (other, b) = numbers_apart(old), numbers_apart(new)
        return words == other and all(is_close(x, y, rtol, atol) for x, y in zip(a, b, strict=True))
    return False


def differences(old, new, rtol: float, atol: float, key: str = ''):
    "Lines that name each key whose value has changed, is gone or is new"
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f'{key}.{name}' if key else name
            if name not in new:
                yield f'{inner}: was {old[name]!r}, is gone'
            elif name not in old:
                yield f'{inner}: is new, {new[name]!r}'
            else:
                yield from differences(old[name], new[name], rtol, atol, inner)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f'{key}: had {len(old)} items, has {len(new)}'
        for index, (a, b) in enumerate(zip(old, new, strict=False)):
            yield from differences(a, b, rtol, atol, f'{key}[{index}]')
    elif not same_leaf(old, new, rtol, atol):
        yield f'{key}: was {old!r}, is {new!r}'


def compact(value) -> str:
    "JSON with one line for each item of the two outermost levels"
    rows = []
    for part, item in value.items():
        if isinstance(item, dict):
            inner = ',\n'.join(f'  {json.dumps(k)}: {json.dumps(v)}' for k, v in item.items())
            rows.append(f' {json.dumps(part)}: {{\n{inner}\n }}')
        else:
            rows.append(f' {json.dumps(part)}: {json.dumps(item)}')
    return '{\n' + ',\n'.join(rows) + '\n}\n'


def is_writing() -> bool:
    "Are values stored in place of compared?"
    return os.environ.get(SWITCH) == 'write'


def store(path: Path, part: str, value):
    "Put one part into a golden file"
    whole = json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}
    whole[part] = value
    path.parent.mkdir(exist_ok=True)
    path.write_text(compact(dict(sorted(whole.items()))), encoding='utf-8')


def recall(topic: str, part: str):
    "The stored value; fails where there is none"
    path = FOLDER / f'{topic}.json'
    assert path.exists(), f'{path.name} is missing: python tests/golden_tools.py --write'
    whole = json.loads(path.read_text(encoding='utf-8'))
    assert part in whole, f'{path.name} has no part {part!r}'
    return whole[part]


def compare(title: str, old, new, rtol: float = 0.0, atol: float = 0.0):
    "Fail with the keys that changed"
    found = list(differences(old, plain(new), rtol, atol))
    more = [f'... and {len(found) - SHOWN} more'] if len(found) > SHOWN else []
    message = [f'{title}: {len(found)} values changed', *found[:SHOWN], *more]
    assert not found, '\n'.join(message)


def check(topic: str, part: str, value, rtol: float = 0.0, atol: float = 0.0):
    "Compare a value with the stored one, or store it"
    if is_writing():
        store(FOLDER / f'{topic}.json', part, plain(value))
    else:
        compare(f'{topic}.json, {part}', recall(topic, part), value, rtol, atol)


def check_labels(part: str, labels: np.ndarray, names: dict[int, str], least: float, slack: float):
    "Compare a mask pixel by pixel and structure by structure (pixels, relative, at least 5)"
    if is_writing():
        store(FOLDER / 'masks.json', part, pack_labels(labels))
        return
    old = unpack_labels(recall('masks', part))
    assert old.shape == labels.shape, f'{part}: shape {old.shape} became {labels.shape}'
    same = float((old == labels).mean())
    assert same >= least, f'masks.json, {part}: only {same:.5f} of the pixels agree'
    was, now = (np.bincount(mask.ravel(), minlength=256).tolist() for mask in (old, labels))
    for value, name in names.items():
        allowed = max(5, slack * was[value])
        said = f'masks.json, {part}.{name}: {was[value]} pixels became {now[value]}'
        assert abs(was[value] - now[value]) <= allowed, said


def main(names: list[str]) -> int:
    "Write all golden values anew, or those of the tests that are named"
    import pytest

    os.environ[SWITCH] = 'write'
    if not names:
        for old in FOLDER.glob('*.json'):
            old.unlink()
    files = sorted(str(path) for path in Path(__file__).parent.glob('test_golden*.py'))
    chosen = ['-k', ' or '.join(names)] if names else []
    return pytest.main(['-q', *files, *chosen])


if __name__ == '__main__':
    if sys.argv[1:2] != ['--write']:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[2:]))
