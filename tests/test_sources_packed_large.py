"""Ten gigabytes of pictures in a tar and in a table: what reading them takes does not depend on how many there are."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

SIZE = 1_000_000
"""Bytes of a picture."""

READ = f"""
import re, sys
from penstock.engine.sources import Item, open_source
from penstock.fetch import Fetchers
source, fetchers = open_source(sys.argv[1:]), Fetchers(1 << 30)
nbytes = 0
for item in source.loaded(source, 1 << 30):
    nbytes += len(item.data if item.data is not None else fetchers.read(item.reference))
# not ru_maxrss, which begins with what the process had that this one was forked from
print(nbytes // {SIZE}, re.search("VmHWM:[^0-9]*([0-9]+)", open("/proc/self/status").read())[1])
"""


def most_memory(path: Path, count: int) -> int:
    """KiB that a process has at most that lists the pictures and reads each."""
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
    read, most = map(int, done.stdout.split())
    assert read == count
    return most


def tar(path: Path, count: int) -> None:
    """Of zeros, of which the disk holds nothing."""
    with path.open("wb") as file:
        for number in range(count):
            info = tarfile.TarInfo(f"{number:06}.jpg")
            info.size = SIZE
            file.write(info.tobuf())
            file.seek(-(-SIZE // 512) * 512 - 1, 1)
            file.write(b"\0")
        file.write(bytes(1024))


def parquet(path: Path, count: int) -> None:
    """One group of rows, in pages of 16, of zeros that hardly take room."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    schema = pa.schema([("image", pa.binary())])
    rows = pa.table({"image": [bytes(SIZE)] * 100}, schema)
    options = {"compression": "zstd", "use_dictionary": False, "write_batch_size": 16}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for _ in range(count // 100):
            writer.write_batch(rows.to_batches()[0], row_group_size=count)


@pytest.mark.parametrize("pack", [tar, parquet])
def test_memory_is_flat_over_ten_gigabytes(pack: Callable[[Path, int], None], tmp_path: Path) -> None:
    """A tenth of it takes as much, but for some bytes for each name in a tar."""
    most = {}
    for count in (1_000, 10_000):
        path = tmp_path / f"{count}.{pack.__name__}"
        pack(path, count)
        most[count] = most_memory(path, count)
    assert most[10_000] < most[1_000] + 8 * 1024
