"""Damaged and hostile files: each reader says what is wrong in one line, soon, in little memory

Files are sound ones with some bytes, fields or lengths replaced. The examples are the same in each
run."""

import contextlib
import copy
import gzip
import io
import json
import resource
import struct
import time
import warnings
import zlib

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage

from atm_net.anatomy import LUMBAR, get_anatomy
from atm_net.cohort import find_schemes, open_cohort, read_annotated, read_table
from atm_net.config import PRESETS, read_fields
from atm_net.core import InputError, made_here, read_json, read_yaml
from atm_net.data import Cache
from atm_net.geometry import new_geometry, new_volume
from atm_net.mask_files import levels_path, levels_record_of
from atm_net.mask_scores import read_scores
from atm_net.plain_text import language_note, plain_text
from atm_net.report import evaluation_report, read_evaluation
from atm_net.run_folder import lengthened, note_steps, open_run
from atm_net.user_prompts import report_prompt, report_text, user_prompt
from atm_net.volumes import is_volume, list_volumes, read_labels, read_volume, write_volume

SECONDS = 20  # of a core, for one example
MEMORY = 2**30  # bytes more than before, for all examples of a test


def few(n: int):
    "Settings: so many examples, the same ones each time"
    return settings(
        max_examples=n,
        derandomize=True,
        database=None,
        deadline=None,  # processor time is looked at instead
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def in_little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**35, hard))  # rather an error than a dead machine
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MEMORY, f'{grown / 1e9:.1f} GB more'


def said(f, *args, **kwargs):
    "What a reader returns, or its `InputError` as text; no other error, and soon"
    began = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return f(*args, **kwargs)
    except InputError as e:
        assert str(e).strip(), 'an empty message'
        return str(e)
    finally:
        assert time.process_time() - began < SECONDS, 'too long'


# --- what is put in place of something

NUMBERS = [0, -1, 1, 2, 255, 2**15, 2**31 - 1, -(2**31), 10**12, 0.5, float('nan'), float('inf')]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-3, 300), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


BYTES = [b'\0', b'\xff', b'\x7f', b'\xff\xff\xff\x7f', b'\0\0\0\0', b'9']


@st.composite
def patched(draw, raw: bytes, until: int = None):
    "The bytes with some of the first ones replaced, and perhaps an end that is missing"
    out = bytearray(raw)
    until = min(until or len(raw), len(raw))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, until - 1))
        new = draw(
            st.sampled_from([b'\0', b'\xff', b'\x7f', b'\xff\xff\xff\x7f', b'\0\0\0\0', b'9'])
        )
        out[at : at + len(new)] = new
    if draw(st.booleans()):
        del out[draw(st.integers(0, len(out))) :]
    return bytes(out)


def places(tree, path=()) -> list:
    "All paths to a value in nested lists and dicts"
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    out = []
    for k, v in items:
        out.append((*path, k))
        if isinstance(v, (dict, list)):
            out += places(v, (*path, k))
    return out


@st.composite
def changed(draw, tree):
    "The tree with a value or two replaced or removed"
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        found = places(tree)
        if not found:
            break
        *way, last = draw(st.sampled_from(found))
        node = tree
        for k in way:
            node = node[k]
        if draw(st.booleans()):
            node[last] = draw(VALUES)
        else:
            del node[last]
    return tree


def write(path, tree):
    path.write_text(json.dumps(tree), encoding='utf-8')


# --- images


@pytest.fixture(scope='module')
def tmp(tmp_path_factory):
    return tmp_path_factory.mktemp('fuzz')


@pytest.fixture(scope='module')
def volume():
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    return new_volume(data, new_geometry(data.shape, (4.0, 1.0, 1.0), 'LPS'))


def image_of(volume, tmp, name) -> bytes:
    write_volume(volume.data, volume, tmp / name)
    return (tmp / name).read_bytes()


def read_both(path):
    said(read_volume, path)
    said(read_labels, path)


FIELDS = dict(  # of NIfTI-1: offset, form
    sizeof_hdr=(0, '<i'),
    ndim=(40, '<h'),
    dim1=(42, '<h'),
    dim2=(44, '<h'),
    dim3=(46, '<h'),
    dim4=(48, '<h'),
    datatype=(70, '<h'),
    bitpix=(72, '<h'),
    pixdim0=(76, '<f'),
    pixdim1=(80, '<f'),
    vox_offset=(108, '<f'),
    scl_slope=(112, '<f'),
    scl_inter=(116, '<f'),
    units=(123, '<b'),
    qform=(252, '<h'),
    sform=(254, '<h'),
    quatern=(256, '<f'),
    srow=(280, '<f'),
)
EXTREME = dict(
    h=[0, -1, 1, 2, 7, 8, 16, 32767, -32768],
    i=[0, -1, 348, 540, 2**31 - 1],
    b=[0, 1, 3, 127, -1],
    f=[0.0, -1.0, 1e-40, 1e30, 3.4e38, float('nan'), float('inf'), -float('inf')],
)


def test_nifti(volume, tmp):
    raw = image_of(volume, tmp, 'a.nii')

    @few(250)
    @given(st.data())
    def run(data):
        out = bytearray(raw)
        for name in data.draw(st.lists(st.sampled_from(list(FIELDS)), min_size=1, max_size=4)):
            at, form = FIELDS[name]
            struct.pack_into(form, out, at, data.draw(st.sampled_from(EXTREME[form[1]])))
        out = bytes(out)
        if data.draw(st.booleans()):
            out = data.draw(patched(out, 352))
        packed = data.draw(st.booleans())
        path = tmp / ('b.nii.gz' if packed else 'b.nii')
        path.write_bytes(gzip.compress(out, 1) if packed else out)
        read_both(path)

    run()


def test_nifti_that_claims_a_million_million_voxels(volume, tmp):
    "In a few bytes, plain and packed; and one that unpacks to far more than it says"
    raw = bytearray(image_of(volume, tmp, 'a.nii'))
    bomb = bytes(raw) + bytes(2**27)
    struct.pack_into('<3h', raw, 42, 10_000, 10_000, 10_000)
    for name, content in (('c.nii', bytes(raw)), ('c.nii.gz', gzip.compress(bytes(raw)))):
        (tmp / name).write_bytes(content)
        assert 'truncated' in said(read_volume, tmp / name)
    (tmp / 'd.nii.gz').write_bytes(gzip.compress(bomb, 1))
    assert 'far more data' in said(read_volume, tmp / 'd.nii.gz')


WORDS = st.sampled_from(
    [
        '',
        '0',
        '-1',
        '3',
        '1e12',
        'nan',
        'inf',
        'a',
        '1 2',
        '3 4 5',
        '4000000000 4000000000 4000000000',
    ]
    + ['100000 100000 100', 'left', '(1,0,0) (0,1,0)', 'none', 'MET_DOUBLE', 'float', 'gzip', 'raw']
    + ['True', 'LIST', '/dev/zero', '/dev/null', 'gone.raw', 'x%d.raw 1 3 1', '9' * 400]
)


@pytest.mark.parametrize('name', ['a.nrrd', 'a.mha'])
def test_text_headers(volume, tmp, name):
    raw = image_of(volume, tmp, name)
    end = raw.index(b'\n\n') if name == 'a.nrrd' else raw.index(b'LOCAL') + 5
    lines = raw[:end].split(b'\n')
    mark = b': ' if name == 'a.nrrd' else b' = '

    @few(120)
    @given(st.data())
    def run(data):
        new = list(lines)
        for _ in range(data.draw(st.integers(1, 3))):
            k = data.draw(st.integers(1, len(new) - 1))
            key = new[k].partition(mark)[0]
            new[k] = key + mark + data.draw(WORDS).encode()
        content = b'\n'.join(new) + raw[end:]
        if data.draw(st.booleans()):
            content = data.draw(patched(content, end))
        (tmp / f'b{name}').write_bytes(content)
        read_both(tmp / f'b{name}')

    run()
    claim = b'\n'.join(
        mark.join([line.partition(mark)[0], b'10000 10000 10000'])
        if line.lower().startswith((b'sizes', b'dimsize'))
        else line
        for line in lines
    )
    (tmp / f'c{name}').write_bytes(claim + raw[end:])
    assert 'truncated' in said(read_volume, tmp / f'c{name}')


def dicom_bytes(syntax=ExplicitVRLittleEndian) -> bytes:
    "A slice of 4 x 5 pixels"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, '1.2.3'
    meta.TransferSyntaxUID = syntax
    d = FileDataset(None, {}, file_meta=meta, preamble=b'\0' * 128)
    d.SOPClassUID, d.SOPInstanceUID = MRImageStorage, '1.2.3'
    d.StudyInstanceUID, d.SeriesInstanceUID, d.Modality = '1.2', '1.2.1', 'MR'
    d.SeriesDescription, d.SeriesNumber, d.InstanceNumber = 't2 sag', 1, 1
    d.Rows, d.Columns, d.BitsAllocated, d.BitsStored, d.HighBit = 4, 5, 16, 16, 15
    d.PixelRepresentation, d.SamplesPerPixel = 0, 1
    d.PhotometricInterpretation = 'MONOCHROME2'
    d.NumberOfFrames = 1
    d.ImagePositionPatient, d.ImageOrientationPatient = [0, 0, 0], [0, 1, 0, 0, 0, -1]
    d.PixelSpacing, d.SliceThickness = [1, 1], 4
    d.PixelData = bytes(40)
    file = io.BytesIO()
    pydicom.dcmwrite(file, d, enforce_file_format=True)
    return file.getvalue()


def test_dicom(tmp):
    raw = dicom_bytes()
    folder = tmp / 'dicom'
    folder.mkdir()
    (folder / 'a.dcm').write_bytes(raw)
    assert said(read_volume, folder).shape == (1, 4, 5)

    @few(200)
    @given(st.data())
    def run(data):
        content = data.draw(patched(raw))
        (folder / 'a.dcm').write_bytes(content)
        said(is_volume, folder)
        said(list_volumes, tmp)
        said(read_volume, folder)
        said(read_volume, folder / 'a.dcm')
        said(read_volume, folder / 'a.dcm', '0.7')

    run()


@pytest.mark.parametrize('tag', ['NumberOfFrames', 'Rows', 'PixelSpacing', 'SeriesNumber'])
@pytest.mark.parametrize('text', [b'999999999999', b'-1', b'abc', b'', b'1e99', b'\\\\'])
def test_dicom_values(tmp, tag, text):
    raw = dicom_bytes(ImplicitVRLittleEndian)
    number = pydicom.datadict.tag_for_keyword(tag)
    at = raw.index(struct.pack('<2H', number >> 16, number & 0xFFFF)) + 4
    length = struct.unpack_from('<I', raw, at)[0]
    value = text + b' ' * (len(text) % 2)
    new = raw[:at] + struct.pack('<I', len(value)) + value + raw[at + 4 + length :]
    (tmp / 'value.dcm').write_bytes(new)
    read_both(tmp / 'value.dcm')
    said(read_volume, tmp / 'value.dcm', '0.7')
    said(list_volumes, tmp)
    (tmp / 'value.dcm').unlink()


def picture(kind: str) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'BMP', 'TIFF'])
def test_pictures(tmp, kind):
    raw = picture(kind)
    path = tmp / f'a.{kind.lower()}'

    @few(60)
    @given(patched(raw))
    def run(content):
        path.write_bytes(content)
        said(read_volume, path, '0.7')
        said(read_labels, path)

    run()


@pytest.mark.parametrize('size', [(10**6, 10**6), (2**31 - 1, 1), (0, 5), (12_000, 12_000)])
def test_a_picture_that_claims_to_be_huge(tmp, size):
    raw = bytearray(picture('PNG'))
    raw[16:24] = struct.pack('>2I', *size)
    raw[29:33] = struct.pack('>I', zlib.crc32(raw[12:29]))
    (tmp / 'huge.png').write_bytes(raw)
    assert isinstance(said(read_volume, tmp / 'huge.png', '0.7'), str)


# --- tables and texts


@few(120)
@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda s: s.encode('utf-8', 'replace')))
def read_anything(path, content):
    path.write_bytes(content)
    said(read_json, path)
    said(read_yaml, path)
    said(made_here, path, 'a')
    said(read_table, path)
    said(read_annotated, path, LUMBAR.scheme('joint'))
    said(read_scores, path)
    said(read_fields, path)
    said(get_anatomy, path)
    text = said(report_text, path)
    report(text)


def test_anything(tmp):
    read_anything(tmp / 'anything')


@pytest.mark.parametrize('what', ['[' * 100_000, '{"a":' * 100_000, '"\\ud800"', '9' * 5000])
def test_json_that_is_deep_or_long(tmp, what):
    path = tmp / 'deep'
    path.write_text(what, encoding='utf-8')
    for reader in (read_json, read_yaml, get_anatomy, read_fields, read_scores):
        said(reader, path)
    said(made_here, path, 'a')


YAML = [
    '!!int ""',
    '!!timestamp x',
    '2001-13-45: a',
    '{[]: 1}',
    '&a [*a]',
    '- !!binary x',
    'a: b: c',
]


@pytest.mark.parametrize('text', YAML)
def test_yaml_that_its_library_trips_over(tmp, text):
    cohort = tmp / 'yaml'
    (cohort / 'images').mkdir(parents=True, exist_ok=True)
    (cohort / 'labels.yaml').write_text(text, encoding='utf-8')
    for reader in (read_yaml, get_anatomy, read_fields):
        said(reader, cohort / 'labels.yaml')
    said(find_schemes, cohort, 'folder', None, LUMBAR)


def report(text: str):
    "What is done with a report or a prompt"
    for f in (plain_text, language_note):
        said(f, text).encode('utf-8')  # no half signs
    said(report_prompt, text, LUMBAR)
    said(user_prompt, text, LUMBAR)


PIECES = st.sampled_from(
    ['L4', 'L3-4', 'L5/S1', 'T12 to S1', ' disc ', ' no ', 'fracture', '.', '\n', ': ', '//', '-']
    + ['{\\rtf1 ', '{', '}', '\\u', '\\u55357?', '\\u-10179?', "\\'ff", '\\par ', '\\*', '\\bin99']
    + [
        '<p>',
        '</p>',
        '</style>',
        '<script>',
        '<!',
        '<![if',
        '<!DOCTYPE',
        '&#x110000;',
        '&#0;',
        '&lt;',
    ]
    + ['\u00ad', '\u200b', '\ud7ff', '\U0001f600', '\u0660', 'L' * 60, '1' * 60, ' ' * 60, 'Ａ']
)


@few(150)
@given(st.lists(PIECES, max_size=14).map(''.join) | st.text(max_size=60))
def test_reports(text):
    report(text)


def cpu_seconds(f, *args):
    began = time.process_time()
    f(*args)
    return time.process_time() - began


@pytest.mark.parametrize(
    'piece', ['L4-', '<p', '{\\rtf1{', 'no disc ', 'L3/4 and ', '&#', ' /', 'a.', 'migrat ']
)
def test_long_reports(piece):
    "Nonsense of many pages is no hang: four times the text takes about four times as long"
    report_prompt(piece, LUMBAR)
    for f, short in ((plain_text, 20_000), (lambda text: report_prompt(text, LUMBAR), 2_000)):
        texts = [piece * (n // len(piece) + 1) for n in (short, 4 * short)]
        little, much = [min(cpu_seconds(f, text) for _ in range(2)) for text in texts]
        assert much < 10 * little + 0.5, (little, much)


# --- what the kit itself wrote


def use_cache(path):
    "What training and scoring ask of a cache"
    c = Cache(path)
    c.cases('train'), c.slices('train'), c.slices('test')
    for case in c.cases():
        c.annotated(case), c.use(case), c.image(case).shape, c.labels(case).shape
        c.meta(case)['grid_spacing']
        with contextlib.suppress(InputError):  # the source is not there
            c.source(case)


@pytest.fixture(scope='module')
def toy_cache(tmp):
    "Three patients of boxes"
    from atm_net.cache import prepare
    from atm_net.grid import Grid
    from atm_net.phantom_cohort import write_toy_case

    for k in range(3):
        write_toy_case(tmp / 'toys', 'folder', f'c{k}', seed=k)
    values = LUMBAR.scheme('joint').values
    text = ''.join(f'{v}: {n}\n' for n, v in values.items())
    (tmp / 'toys' / 'labels.yaml').write_text(text, encoding='utf-8')
    prepare(open_cohort(tmp / 'toys', LUMBAR), tmp / 'cache', Grid(size=32))
    return tmp / 'cache'


@pytest.mark.parametrize('file', ['manifest.json', 'cache.json', 'meta/c0.json'])
def test_cache(toy_cache, file):
    from atm_net.cache import prepare
    from atm_net.grid import Grid

    path = toy_cache / file
    kept = path.read_bytes()

    @few(60)
    @given(changed(json.loads(kept)))
    def run(tree):
        write(path, tree)
        said(use_cache, toy_cache)

    run()
    path.write_bytes(kept)
    use_cache(toy_cache)
    if file == 'cache.json':
        write(path, [])
        cohort = open_cohort(toy_cache.parent / 'toys', LUMBAR)
        assert isinstance(said(prepare, cohort, toy_cache, Grid(size=32)), str)
        path.write_bytes(kept)


def test_arrays_of_a_cache(toy_cache):
    path = toy_cache / 'images' / 'c0.npy'
    kept = path.read_bytes()

    @few(60)
    @given(patched(kept, 128))
    def run(content):
        path.write_bytes(content)
        said(use_cache, toy_cache)

    run()
    path.write_bytes(kept)


PHANTOM = dict(layout='folder', labels='joint', patients=3, seed=1, anatomy='x', finished=True)


@few(60)
@given(changed(PHANTOM) | VALUES)
def check_phantom(tmp, tree):
    write(tmp / 'toys' / 'phantom.json', tree)
    said(get_anatomy, None, tmp / 'toys' / 'images')
    said(find_schemes, tmp / 'toys', 'spider', None, LUMBAR)
    said(open_cohort, tmp / 'toys', LUMBAR)


def test_phantom_json(toy_cache, tmp):
    check_phantom(tmp)
    (tmp / 'toys' / 'phantom.json').unlink()


def test_config_of_a_run(toy_cache, tmp):
    from dataclasses import replace

    from atm_net.config import provenance
    from atm_net.evaluation_tables import run_config

    run_folder = tmp / 'run'
    run_folder.mkdir()
    cfg = replace(PRESETS['tiny'], steps=9)
    cache = Cache(toy_cache)
    told = dict(path='c', hash='1', split={}, split_hash='2')
    whole = dict(config=provenance(cfg), versions={}, init=None, cache=told, how={}, processes=1)

    @few(80)
    @given(changed(whole))
    def run(tree):
        write(run_folder / 'config.json', tree)
        for resume in (False, True):
            said(open_run, run_folder, cfg, cache, resume, True)
        said(lengthened, run_folder, replace(cfg, steps=10))
        said(note_steps, run_folder, cfg) if made_here(run_folder / 'config.json', 'config') else 0
        said(read_fields, run_folder / 'config.json')
        said(run_config, run_folder)

    run()


@few(40)
@given(VALUES | st.just(dict(entries=[])) | st.just(dict(entries=[dict(run='a', protocol='b')])))
def check_evaluation(tmp, tree):
    folder = tmp / 'evaluation'
    folder.mkdir(exist_ok=True)
    write(folder / 'evaluation.json', tree)
    write(folder / 'worst.json', tree)
    said(read_evaluation, folder)
    said(evaluation_report, folder, LUMBAR)
    write(levels_path(folder / 'evaluation.json'), tree)
    said(levels_record_of, folder / 'evaluation.json')


def test_evaluation(tmp):
    check_evaluation(tmp)


# --- weights


@pytest.fixture(scope='module')
def weights(toy_cache, tmp):
    "A small U-Net after a step, and its checkpoint, in a run folder"
    from dataclasses import replace

    import torch

    from atm_net.checkpoint import save_checkpoint
    from atm_net.run_folder import run_meta
    from atm_net.weights import build_network, save_weights

    cfg, cache = replace(PRESETS['tiny'], network='unet', feature_size=4), Cache(toy_cache)
    meta = run_meta(cfg, cache, None)
    net = build_network('unet', cache.scheme.channels, cfg.feature_size, **meta['kwargs'])
    opt = torch.optim.AdamW(net.parameters())
    sum(p.sum() for p in net.parameters()).backward()
    opt.step()
    save_weights(tmp / 'trained' / 'last.safetensors', net, meta | dict(steps=1))
    save_checkpoint(tmp / 'trained', 1, net, opt, dict(best=0.1, scaler={}))
    return tmp / 'trained'


def header_of(raw: bytes) -> tuple:  # header as a dict, the tensors
    n = int.from_bytes(raw[:8], 'little')
    return json.loads(raw[8 : 8 + n]), raw[8 + n :]


def with_header(header: dict, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text + body


def test_weights(weights, tmp):
    from atm_net.predict import load_predictor

    raw = (weights / 'last.safetensors').read_bytes()
    header, body = header_of(raw)
    meta = json.loads(header['__metadata__']['atm_net'])
    path = tmp / 'w.safetensors'

    @few(30)
    @given(changed(meta))
    def own_fields(tree):
        text = json.dumps(tree)
        path.write_bytes(with_header(header | {'__metadata__': dict(atm_net=text)}, body))
        said(load_predictor, path)

    @few(60)
    @given(changed(header) | patched(raw, 200))
    def library(new):
        path.write_bytes(new if isinstance(new, bytes) else with_header(new, body))
        said(load_predictor, path)

    own_fields()
    library()


def test_checkpoints(weights, tmp):
    from torch import optim

    from atm_net.checkpoint import checkpoints, load_checkpoint
    from atm_net.weights import load_network

    net, _ = load_network(weights / 'last.safetensors')
    path = checkpoints(weights)[-1]
    kept = path.read_bytes()
    header, body = header_of(kept)
    state = json.loads(header['__metadata__']['state'])

    def take_up():
        found = load_checkpoint(weights, net, optim.AdamW(net.parameters()), lead=False)
        return None if found is None else (found['step'], found['best'])

    @few(40)
    @given(changed(header) | patched(kept, 200) | changed(state).map(json.dumps))
    def run(new):
        if isinstance(new, str):
            new = header | {'__metadata__': header['__metadata__'] | dict(state=new)}
        path.write_bytes(new if isinstance(new, bytes) else with_header(new, body))
        said(take_up)

    run()
    path.write_bytes(kept)
    assert take_up()[0] == 1
