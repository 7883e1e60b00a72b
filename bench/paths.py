"""``paths``: what it costs to list a job's source where its files are named one by one, against a folder of them."""

from __future__ import annotations

import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..engine.jobs.common.listing import entries_of
from ..engine.jobs.images.entries import batches_of
from ..engine.jobs.images.inputs import pictures_of
from ..engine.journal import Disk
from ..engine.journal.snapshot import write_snapshot
from ..engine.sources import FileSource
from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .result import Goal, Result, tabulate

_FILES = 100_000
_PER_FOLDER = 1_000
_BATCH = 32
_WAYS = ("folder", "list", "list of other names", "@list", "generator")
_LISTS = ("list", "list of other names")


def run(options: Options) -> Result:
    """Plan and list 100,000 empty files (``--n``: so many).

    Raises:
        WorkerError: a variant broke down.
    """
    n = options.n or _FILES
    folder = options.data / f"paths-{n}"
    _make_files(folder, n)
    own = {"folder": str(folder), "n": n}
    timed = run_rounds([Variant(way, "paths:planned", {**own, "way": way}) for way in _WAYS], options.rounds or 3)
    held = run_rounds([Variant(way, "paths:held", {**own, "way": way}, fresh=True) for way in _WAYS], 1)
    what = f"{n:,} files in folders of {_PER_FOLDER:,}"
    tables = [
        tabulate(
            f"Planned and listed (a generator: made into batches), CPU time: {what}",
            "us/path",
            timed.of("us"),
            baseline="folder",
            goals=[
                *(Goal(way, 1.2, "folder", at_most=True) for way in (*_LISTS, "@list", "generator")),
                Goal("list", 60, at_most=True),
            ],
        ),
        tabulate(
            "The most that was held at one time, without the user's own list",
            "bytes/path",
            held.of("bytes"),
            goals=[Goal(way, 300, at_most=True) for way in _LISTS],
        ),
        tabulate("The same in all", "MiB", held.of("mib"), goals=[Goal("generator", 50, at_most=True)]),
    ]
    return Result("paths", tables, {**timed.skipped, **held.skipped})


@contextmanager
def planned(folder: str, n: int, way: str) -> Generator[Measure, None, None]:
    """The CPU time of one listing: names are in the cache, so it waits for nothing but its neighbours."""
    with _way(folder, n, way) as work:

        def measure() -> Measures:
            start = time.process_time()
            work()
            return {"us": (time.process_time() - start) / n * 1e6}

        yield measure


@contextmanager
def held(folder: str, n: int, way: str) -> Generator[Measure, None, None]:
    """The memory of one listing; what there was before it does not count."""
    with _way(folder, n, way) as work:

        def measure() -> Measures:
            tracemalloc.start()
            work()
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return {"bytes": most / n, "mib": most / 2**20}

        yield measure


@contextmanager
def _way(folder: str, n: int, way: str) -> Generator[Callable[[], None], None, None]:
    """A way to name the files; the function lists them as a job does that keeps books, or makes batches of them."""
    os.chdir(folder)
    paths = list(_paths(Path(folder), n)) if way == "list" else list(_paths(Path("./"), n)) if way in _LISTS else []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-paths-") as place:
        specs = {"folder": [folder], "@list": [f"@{place}/list"]}.get(way, paths)
        if way == "@list":
            Path(place, "list").write_text("\n".join(_paths(Path(folder), n)))

        def listed() -> None:
            snapshot = write_snapshot(Disk(), f"{place}/snapshot-1", entries_of(FileSource(specs), lambda: False))
            assert len(snapshot) == n
            snapshot.close()

        def batched() -> None:
            pictures = pictures_of(_paths(Path(folder), n), None, None, "embed_images")
            assert sum(len(outcome.value.pictures) for outcome in batches_of(pictures, _BATCH)) == n

        yield batched if way == "generator" else listed


def _paths(folder: Path, n: int) -> Iterator[str]:
    return (f"{folder}/{number // _PER_FOLDER:04d}/IMG_{number:07d}.jpg" for number in range(n))


def _make_files(folder: Path, n: int) -> None:
    done = folder.with_suffix(".done")
    if done.exists():
        return
    for number, path in enumerate(map(Path, _paths(folder, n))):
        if number % _PER_FOLDER == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    done.touch()
