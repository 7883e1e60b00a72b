"""Jobs that publish a Parquet data set, and what readers see of it: for tests that stop them anywhere.

Run as a program it is such a job, which kills itself at one moment: ``publishing.py FOLDER|URL STEP before|after``.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

from penstock.errors import CollectionMismatchError, PublishConflictError
from penstock.sinks import RowBatch, SinkOptions, make_sink
from penstock.sinks.parquet.place import PartFile, Place, Sealed
from penstock.sinks.parquet.places import parquet_place
from penstock.sinks.parquet.sink import ParquetSink
from penstock.testing.sinks import DIMENSION, make_rows

AnyPlace = TypeVar("AnyPlace", bound=Place)

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


def watched(place: AnyPlace, told: Callable[[str, str], object]) -> AnyPlace:
    """The same place, which tells of each step, before it is done and after."""

    def step(name: str, do: Callable[..., Any], *arguments: Any) -> Any:
        told(name, "before")
        done = do(*arguments)
        told(name, "after")
        return done

    def delete(names: Iterable[str], do: Callable[..., Any] = place.delete) -> None:
        for name in list(names):
            step(f"delete {Path(name).name}", do, [name])

    def begin(job: str, name: str, do: Callable[..., PartFile] = place.begin) -> PartFile:
        told("begin", "before")
        part = do(job, name)
        setattr(part, "seal", partial(step, "seal", part.seal))  # noqa: B010  (no subclass: of each place its own)
        return part

    def complete(job: str, part: Sealed, do: Callable[..., Any] = place.complete) -> None:
        step(f"complete {part.name.rpartition('-')[2]}", do, job, part)

    def named(what: str) -> Callable[..., Any]:
        do = getattr(place, what)
        return lambda name, *rest: step(f"{what} {Path(name).name}", do, name, *rest)

    instead = {"delete": delete, "begin": begin, "complete": complete}
    instead |= {what: named(what) for what in ("put", "create", "replace")}
    for name, method in instead.items():
        setattr(place, name, method)
    return place


def searched(steps: Sequence[tuple[str, str]], first: int = 0, *, every: bool) -> list[int]:
    """Numbers of the steps to fail at, from this one on: each, or the first of its kind and the last part's.

    A step whose answer is lost leaves what is there before the next one: only of those that one of two jobs gets are
    both in the sample.
    """
    kinds: dict[tuple[str, str], list[int]] = {}
    for number, (name, at) in [*enumerate(steps)][first:]:
        if at == "before" or name.startswith(("create", "replace")):
            kinds.setdefault((re.sub(r"\d[0-9a-f-]*", "", name), at), []).append(number)
    ends = [numbers[-1] for (name, _), numbers in kinds.items() if name.startswith("complete")]
    return [*range(first, len(steps))] if every else sorted({*ends, *(numbers[0] for numbers in kinds.values())})


def sink_on(place: Place, job: str = JOB, **more: Any) -> ParquetSink:
    """One for a job."""
    return ParquetSink(place, DIMENSION, job=job, note="recipe", part_bytes=PART, **more)


def run(place: Place, job: str = JOB, batches: Sequence[int] = range(ROWS // BATCH)) -> None:
    """A whole job; or what remains of one."""
    with sink_on(place, job) as sink:
        for number in batches:
            sink.write(batch(number))
        sink.finish()


class PublishingSink(ParquetSink):
    """Publishes whenever it is closed."""

    def close(self) -> None:
        if self._hold is not None:
            self.finish()
        super().close()


def publish_at_once(place: Callable[[], Place]) -> str:
    """Four jobs publish in one place, each through a `place` of its own, all of which have begun before one is done;
    the one that wins.
    """
    barrier = Barrier(4)

    def publish(job: str) -> str | None:
        with sink_on(place(), job) as sink:
            sink.write(batch(int(job[0], 16) % 4))
            barrier.wait()
            try:
                sink.finish()
            except PublishConflictError:
                return None
            return job

    with ThreadPoolExecutor(4) as pool:
        (winner,) = filter(None, pool.map(publish, [digit * 32 for digit in "abcd"]))
    return winner


def seen(where: Path | str) -> int | None:
    """Rows that a reader finds, all of which it has read; None where there is no data set for it."""
    sink = make_sink(f"parquet:{where}", SinkOptions())
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

    run(watched(parquet_place(f"parquet:{folder}"), told))


if __name__ == "__main__":
    main(*sys.argv[1:])
