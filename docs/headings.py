"Notebooks as they are read, and the targets of their headings"

import functools
import re
from pathlib import Path

import nbformat
from notebooks import NBS

FENCE = re.compile(r'(```.*?```)', re.S)


@functools.cache
def read(path):
    return nbformat.read(path, as_version=4)


def split_code(text: str) -> list:  # of (text, is it code?)
    "Markdown in pieces: between fences, and the fenced code"
    return [(piece, i % 2 == 1) for i, piece in enumerate(FENCE.split(text))]


def headings(text: str) -> list:  # of (depth, words)
    "The headings of a Markdown text, code left out"
    prose = FENCE.sub('', text)
    found = re.finditer(r'^(#{1,6}) +(.+)$', prose, re.M)
    return [(len(m[1]), m[2].strip()) for m in found]


def sections(nb) -> dict:  # cell id -> (end of the target, words of the heading)
    "The last heading at or before each cell"
    now = ('', '')
    out = {}
    for c in nb.cells:
        found = headings(c.source) if c.cell_type == 'markdown' else []
        if found:
            now = (f'{c.id}-{len(found) - 1}', found[-1][1])
        out[c.id] = now
    return out


def label(path: Path, at: str) -> str:
    "The target of a heading: a notebook and what `sections` says"
    stem = path.relative_to(NBS).with_suffix('').as_posix()
    return f'sec-{stem.replace("/", "-")}-{at}'.lower()


def heading_target(path: Path, words: str) -> str:
    "The target of the heading with these words"
    for c in read(path).cells:
        if c.cell_type == 'markdown':
            for i, (_, heading) in enumerate(headings(c.source)):
                if heading == words:
                    return label(path, f'{c.id}-{i}')
    raise LookupError(f'{path.name}: no heading {words!r}')


def with_targets(text: str, path: Path, cell: str) -> str:
    "Markdown with a target before each heading"
    count = iter(range(99))

    def one(m):
        return f'\n({label(path, f"{cell}-{next(count)}")})=\n{m[0]}'

    return ''.join(
        piece if is_code else re.sub(r'^#{1,6} +.+$', one, piece, flags=re.M)
        for piece, is_code in split_code(text)
    )
