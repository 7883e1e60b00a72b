"""Jobs that publish a Parquet data set, and what readers see of it: for tests that stop them anywhere.

Run as a program it is such a job, which kills itself at one moment: ``publishing.py FOLDER STEP before|after``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from penstock.errors import CollectionMismatchError
from penstock.sinks import RowBatch, SinkOptions, make_sink
from penstock.sinks.parquet.folder import FolderPlace
from penstock.sinks.parquet.place import PartFile, Sealed
from penstock.sinks.parquet.sink import ParquetSink
from penstock.testing.sinks import DIMENSION, make_rows

JOB, OTHER = "a" * 32, "b" * 32
PART = 14_000
"""Bytes of a part before compression: some three of `ROWS`."""
ROWS, BATCH = 300, 100


def batch(number: int) -> RowBatch:
    """The n-th write: rows that are not in order."""
    first = number * BATCH
    rows = make_rows(BATCH, first)
    order = sorted(range(BATCH), key=lambda row: (row * 7) % BATCH)
    columns = [rows.columns[row] for row in order]
    return RowBatch([rows.keys[row] for row in order], rows.vectors[order], columns, [first + row for row in order])


class Watched(FolderPlace):
    """A folder that tells of each step, before it is done and after."""

    def __init__(self, folder: Path, told: Callable[[str, str], object]) -> None:
        super().__init__(folder)
        self.told = told

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        self.told(name, "before")
        done = do()
        self.told(name, "after")
        return done

    def put(self, name: str, data: Any) -> None:
        self.step(f"put {Path(name).name}", lambda: super(Watched, self).put(name, data))

    def create(self, name: str, data: bytes) -> bool:
        return bool(self.step(f"create {name}", lambda: super(Watched, self).create(name, data)))

    def replace(self, name: str, data: bytes, was: bytes | None) -> bool:
        return bool(self.step(f"replace {name}", lambda: super(Watched, self).replace(name, data, was)))

    def delete(self, names: Any) -> None:
        for name in list(names):
            self.step(f"delete {Path(name).name}", partial(super().delete, [name]))

    def complete(self, job: str, part: Sealed) -> None:
        number = part.name.rpartition("-")[2]
        self.step(f"complete {number}", lambda: super(Watched, self).complete(job, part))

    def begin(self, job: str, name: str) -> PartFile:
        self.told("begin", "before")
        part = super().begin(job, name)
        seal = part.seal
        part.seal = lambda rows: self.step("seal", lambda: seal(rows))  # type: ignore[method-assign]
        return part


def sink_on(place: FolderPlace, job: str = JOB, **more: Any) -> ParquetSink:
    """One for a job."""
    return ParquetSink(place, DIMENSION, job=job, note="recipe", part_bytes=PART, **more)


def run(place: FolderPlace, job: str = JOB, batches: Sequence[int] = range(ROWS // BATCH)) -> None:
    """A whole job; or what remains of one."""
    with sink_on(place, job) as sink:
        for number in batches:
            sink.write(batch(number))
        sink.finish()


def seen(folder: Path) -> int | None:
    """Rows that a reader finds, all of which it has read; None where there is no data set for it."""
    sink = make_sink(f"parquet:{folder}", SinkOptions())
    with suppress(CollectionMismatchError), sink:
        reader = sink.reader()
        assert reader is not None
        hits = reader.search(make_rows(1).vectors[0], 10 * ROWS)
        assert len({hit.key for hit in hits}) == len(hits) == sink.count()
        return len(hits)
    return None


def digests(folder: Path) -> dict[str, bytes]:
    """Every file of a folder that is no lock: name -> bytes, but for what tells of the time."""
    return {path.name: path.read_bytes() for path in folder.rglob("*.parquet")}


def main(folder: str, step: str, when: str) -> None:
    """Run a job, and be killed."""

    def told(name: str, at: str) -> None:
        if (name, at) == (step, when):
            os.kill(os.getpid(), signal.SIGKILL)

    run(Watched(Path(folder), told))


if __name__ == "__main__":
    main(*sys.argv[1:])
