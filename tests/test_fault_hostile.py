"""Thousands of hostile files through a real worker: none ends it, each is a row or a typed error, memory stays flat."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import numpy as np
import psutil
import pytest
from PIL import Image

from penstock.engine.workers import PreprocessPool
from penstock.errors import DecodeError
from penstock.preprocess import Preprocessor, preset
from penstock.tests.waiting import DEADLINE

pytestmark = pytest.mark.slow

SPEC = preset("clip", size=64)
FILES, BATCH, WARM = 2000, 8, 500
MIB = 2**20

MAGICS = [
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\0\0\0\0WEBPVP8X",
    b"BM",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"\xff\xd8\xff\xe0",
    b"%!PS-Adobe-3.0 EPSF",
    b"8BPS\0\x01",
    b"BLP2",
    b"DDS |",
    b"%PDF-1.7",
    b"<html><body>404</body></html>",
]


def hostile(originals: list[bytes], draw: random.Random) -> bytes:
    """One picture with something wrong with it, or seldom nothing."""
    data = bytearray(draw.choice(originals))
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(data)) if data else 0
        match draw.randrange(6):
            case 0:
                del data[at:]
            case 1:
                for place in draw.choices(range(len(data) or 1), k=min(len(data), draw.randrange(1, 30))):
                    data[place] ^= 1 << draw.randrange(8)
            case 2:
                magic = draw.choice(MAGICS)
                data[: len(magic)] = magic
            case 3:
                data[at : at + draw.randrange(1, 4096)] = b""
            case 4:
                data[at : at + 512] = bytes(512)
            case _:
                data[at:at] = draw.randbytes(draw.randrange(1, 200))
        if not data:
            break
    return bytes(data)


@pytest.fixture
def pool() -> Iterator[PreprocessPool]:
    """One worker: each file meets what all before it have left behind."""
    with PreprocessPool(SPEC, workers=1, batch_size=BATCH, slots=2, item_timeout=10.0) as made:
        made.start_in_hub()
        yield made
        made.stop_in_hub()


def originals(photos: list[Path]) -> list[bytes]:
    """Real photographs, and small ones of them in every format there is a plugin for."""
    found = [path.read_bytes() for path in photos[:6]]
    for name in ("PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG"):
        for path in photos[:3]:
            with Image.open(path) as image, io.BytesIO() as file:
                image.resize((96, 64)).save(file, name)
                found.append(file.getvalue())
    return found


def test_a_flipped_bit_of_a_png_is_noticed() -> None:
    """Four hundred of them: refused, or the same pixels; but for one at the end, where the rows are full before the
    checksum comes."""
    picture = Image.fromarray(np.random.default_rng(7).integers(0, 256, (96, 96, 3), np.uint8))
    with io.BytesIO() as file:
        picture.save(file, "PNG")
        whole = file.getvalue()
    local = Preprocessor(SPEC, 1)
    truth = pixels(local, whole)
    draw, unseen = random.Random(5), 0
    for place in draw.sample(range(8 * len(whole)), 400):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        try:
            unseen += not np.array_equal(pixels(local, bytes(data)), truth)
        except DecodeError:
            continue
    assert unseen <= 1


def pixels(local: Preprocessor, data: bytes) -> np.ndarray[Any, Any]:
    """What becomes of a picture, in this process."""
    local.load(0, data)
    out = np.zeros((1, *SPEC.pixel_shape()), SPEC.pixel_dtype())
    local.run(out, [0])
    return out


def test_two_thousand_hostile_files_through_one_worker(pool: PreprocessPool, photos: list[Path]) -> None:
    """No death, no file unaccounted for, every refusal a DecodeError with words, and no memory that grows."""
    draw, some = random.Random(20261124), originals(photos)
    files = [hostile(some, draw) for _ in range(FILES)]
    (pid,) = pool.pids
    worker = psutil.Process(pid)
    ends: Counter[str] = Counter()
    warm = 0
    for start in range(0, FILES, BATCH):
        with gevent.Timeout(DEADLINE):
            slot = pool.process(files[start : start + BATCH])
        ends["row"] += len(slot.rows)
        for _, error in slot.failures:
            assert isinstance(error, DecodeError), repr(error)
            assert str(error)
            ends[type(error).__name__] += 1
        slot.release()
        if start == WARM - WARM % BATCH:
            warm = worker.memory_info().rss
    assert pool.pids == [pid], "the worker was replaced"
    assert ends.total() == FILES
    assert min(ends["row"], ends["UnreadableError"], ends["TruncatedError"], ends["UnsupportedFormatError"]) > 20, ends
    assert worker.memory_info().rss - warm < 24 * MIB
