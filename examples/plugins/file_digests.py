"""A kind of work in one file: workers that hash files, several at once, into slots of shared memory.

    python examples/plugins/file_digests.py FILE...

A worker that a file stops, hangs or kills costs that file only.
"""

from __future__ import annotations

import hashlib
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gevent
from numpy.typing import NDArray

from penstock.engine.workers import SlotPool, WorkerKind
from penstock.engine.workers.items import ItemsDone, item_kind, serve_items
from penstock.errors import ReadError
from penstock.shm import ArraySpec, SlotLayout

LAYOUT = SlotLayout(64, (ArraySpec("sha256", (32,), "uint8"), ArraySpec("nbytes", (), "int64")))


def kind() -> WorkerKind[Any, ItemsDone]:
    """Items are paths; a row has the file's sha256 and its size."""
    return item_kind("file_digests:main", LAYOUT, item="file")


def main(sock: socket.socket, _argument: bytes, _fds: list[int]) -> None:
    """A worker."""
    serve_items(sock, LAYOUT, digest)


def digest(path: str, row: Mapping[str, NDArray[Any]]) -> None:
    """Fill the row of one file.

    Raises:
        ReadError: it cannot be read.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ReadError(f"{path!r} cannot be read: {error.strerror}") from error
    row["sha256"][...] = list(hashlib.sha256(data).digest())
    row["nbytes"][...] = len(data)


def run(paths: list[str]) -> None:
    """Print what two workers make of the files."""
    batches = [paths[at : at + LAYOUT.rows] for at in range(0, len(paths), LAYOUT.rows)]
    with SlotPool(kind(), workers=2) as pool:
        pool.start_in_hub()
        for batch, job in [(batch, gevent.spawn(pool.run, batch)) for batch in batches]:
            result = job.get()
            for position, error in result.failures:
                print(f"{batch[position]}: {error}")
            if result.answer is not None and result.lease is not None:
                digests, sizes = result.lease.arrays["sha256"], result.lease.arrays["nbytes"]
                for row, position in enumerate(result.answer.rows):
                    path = batch[result.positions[position]]
                    print(digests[row].tobytes().hex(), sizes[row], path)
                result.lease.release()
        pool.stop_in_hub()


if __name__ == "__main__":
    run(sys.argv[1:])
