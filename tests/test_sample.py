"One scan out of a large archive: only its bytes are asked for, and what is damaged is refused"

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import call, complaint, done
from file_server import QuietFiles, serving

SCAN = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
MASK = b'mask' * 1000


class Ranges(QuietFiles):
    "A file server that answers range requests, and counts the bytes that it sends"

    sent = 0

    def do_GET(self):
        file = Path(self.translate_path(self.path))
        if not file.exists():
            self.send_error(404)
            return
        data = file.read_bytes()
        first, last = self.headers['Range'].removeprefix('bytes=').split('-')
        start = int(first) if first else max(len(data) - int(last), 0)
        stop = int(last) + 1 if first and last else len(data)
        self.send_response(206)
        self.send_header('Content-Range', f'bytes {start}-{stop - 1}/{len(data)}')
        self.send_header('Content-Length', str(stop - start))
        self.end_headers()
        Ranges.sent += stop - start  # before the client can go on
        self.wfile.write(data[start:stop])


@pytest.fixture
def archives(tmp_path):
    "Two archives like SPIDER's, with other cases around the one that is asked for"
    folder = tmp_path / 'server'
    folder.mkdir()
    for part, content in dict(images=SCAN, masks=MASK).items():
        with zipfile.ZipFile(folder / f'{part}.zip', 'w') as z:
            z.writestr(f'{part}/1_t1.mha', bytes(2_000_000))
            z.writestr(f'{part}/42_t2.mha', content)
            z.writestr(f'{part}/47_t2.mha', bytes(2_000_000))
    return folder


@pytest.fixture
def address(archives):
    with serving(archives, Ranges) as at:
        yield at


def test_the_scan_comes_without_the_archive(address, tmp_path):
    Ranges.sent = 0
    said = done(call('atm_sample', tmp_path / 'out', '--address', address)).out
    assert (tmp_path / 'out' / 'images' / '42_t2.mha').read_bytes() == SCAN
    assert (tmp_path / 'out' / 'masks' / '42_t2.mha').read_bytes() == MASK
    assert len(SCAN) < Ranges.sent < len(SCAN) + 300_000  # of more than 8 MB
    assert 'CC BY 4.0' in said and 'van der Graaf' in said and '42_t2.mha' in said
    assert hashlib.sha256(SCAN).hexdigest()[:16] in said


def test_source_and_checksums_are_written(address, tmp_path):
    done(call('atm_sample', tmp_path / 'out', '--address', address))
    text = (tmp_path / 'out' / 'SOURCE.txt').read_text(encoding='utf-8')
    assert 'CC BY 4.0' in text and '10.5281/zenodo.10159290' in text
    assert f'{hashlib.sha256(SCAN).hexdigest()}  images/42_t2.mha' in text


def test_what_is_there_is_not_fetched_again(address, tmp_path):
    done(call('atm_sample', tmp_path / 'out', '--address', address))
    Ranges.sent = 0
    done(call('atm_sample', tmp_path / 'out', '--address', address))
    assert Ranges.sent == 0


def refused(tmp_path, *args) -> str:
    "The complaint of the command, which leaves nothing behind"
    said = complaint(call('atm_sample', tmp_path / 'out', *args))
    assert not [p for p in (tmp_path / 'out').rglob('*') if p.is_file()]
    return said


def test_offline(tmp_path):
    said = refused(tmp_path, '--address', 'http://127.0.0.1:9')
    assert 'cannot be fetched' in said and 'Are you online?' in said and 'by hand' in said


def test_unknown_case(address, tmp_path):
    said = refused(tmp_path, '--address', address, '--case', '999_t2')
    assert 'holds no 999_t2.mha' in said and 'one of its 3 cases' in said and '1_t1' in said


def test_no_such_archive(address, tmp_path):
    assert '404' in refused(tmp_path, '--address', f'{address}/elsewhere')


def test_a_server_without_ranges(archives, tmp_path):
    with serving(archives) as at:
        assert 'sends whole files only' in refused(tmp_path, '--address', at)


def test_damaged_bytes_are_refused(archives, address, tmp_path):
    "The archive's checksum does not fit what arrived"
    file = archives / 'images.zip'
    data = bytearray(file.read_bytes())
    at = data.find(SCAN[:64])
    data[at + 100] ^= 1
    file.write_bytes(bytes(data))
    assert 'arrived damaged' in refused(tmp_path, '--address', address)
