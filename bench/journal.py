"""``journal``: what it costs to keep the books of a job, and how soon a large one can be resumed."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..engine.journal import Disk, Entry, JobFolder, Kind, Outcome
from ..engine.journal.blocks import BlockKind, pack, title
from ..engine.journal.entries import BLOCK_ENTRIES, encode
from ..engine.journal.log import Log, of_records
from ..engine.journal.reading import Head
from ..engine.journal.snapshot import write_snapshot
from ..engine.journal.states import RECORD
from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .result import Goal, Result, tabulate
from .workload import peak_bytes

_ITEMS = 100_000_000
_RANGE = 32
_BATCH = 128
_RATE = 1_300
"""Pictures a second of the main job on two cores: what the cost is set against."""

_ENTRIES = 200_000
_APPENDS = 5_000
_SYNCS = 20
_PLANS = ("as appended", "compacted")


def run(options: Options) -> Result:
    """Resume a job of 10^8 entries (``--n``: of so many), and keep one.

    Raises:
        WorkerError: a variant broke down.
    """
    items = options.n or _ITEMS
    rounds = options.rounds or 3
    with tempfile.TemporaryDirectory(prefix="penstock-bench-journal-") as folder:
        jobs = {"as appended": f"{folder}/long", "compacted": f"{folder}/short"}
        _make_job(jobs["as appended"], items)
        shutil.copytree(jobs["as appended"], jobs["compacted"])
        with JobFolder.create_or_open(jobs["compacted"]) as job:
            job.compact()
        plans = [Variant(name, "journal:plan", {"job": path}, fresh=True) for name, path in jobs.items()]
        planned = run_rounds(plans, rounds)
    kept = run_rounds([Variant("journal", "journal:keep"), Variant("snapshot", "journal:list_source")], rounds)
    what = f"{items:,} entries, done in ranges of {_RANGE}, 0.1 % dead"
    goals = [Goal(name, 10.0, at_most=True) for name in _PLANS]
    sizes = [Goal(name, 200.0, at_most=True) for name in _PLANS]
    tables = [
        tabulate(f"From opening to the first remaining range: {what}", "s", planned.of("seconds"), goals=goals),
        tabulate("The same: peak memory of a new process, interpreter included", "MB", planned.of("mb"), goals=sizes),
        tabulate(f"Recording a batch of {_BATCH}", "us", kept.of("append_us")),
        tabulate("Sync after ten batches: waiting for this disk", "ms", kept.of("sync_ms")),
        tabulate(
            f"CPU of both at {_RATE:,} pictures/s and a sync a second",
            "% of a core",
            kept.of("percent"),
            goals=[Goal("journal", 1.0, at_most=True)],
        ),
        tabulate("Listing the source", "entries/s", kept.of("written"), goals=[Goal("snapshot", 300_000)]),
        tabulate("Reading the list", "entries/s", kept.of("read"), goals=[Goal("snapshot", 300_000)]),
        tabulate("The list on disk", "bytes/entry", kept.of("bytes"), goals=[Goal("snapshot", 25, at_most=True)]),
    ]
    return Result("journal", tables, {**planned.skipped, **kept.skipped})


@contextmanager
def plan(job: str) -> Generator[Measure, None, None]:
    """Open a job and ask what is left. Opening shortens a long journal: each round has a copy."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-journal-") as folder:
        copy = shutil.copytree(job, f"{folder}/job")

        def measure() -> Measures:
            start = time.monotonic()
            with JobFolder.create_or_open(copy) as opened:
                first = next(opened.remaining())
                seconds = time.monotonic() - start
                assert first.stop > first.start
            return {"seconds": seconds, "mb": peak_bytes() / 1e6}

        yield measure


@contextmanager
def keep() -> Generator[Measure, None, None]:
    """Record batches and sync, in a job of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-journal-") as folder,
        JobFolder.create_or_open(f"{folder}/job") as job,
    ):
        job.write_snapshot(Entry(str(number)) for number in range(_BATCH * (_APPENDS + 10 * _SYNCS)))
        yield lambda: _keep(job)


def _keep(job: JobFolder) -> Measures:
    starts = iter(range(0, len(job.snapshot), _BATCH))
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(_APPENDS):
        start = next(starts)
        job.written(range(start, start + _BATCH))
    append, append_cpu = (time.perf_counter() - clock) / _APPENDS, (time.process_time() - cpu) / _APPENDS
    sync = sync_cpu = 0.0
    for _ in range(_SYNCS):
        for start, _ in zip(starts, range(10), strict=False):
            job.written(range(start, start + _BATCH))
        clock, cpu = time.perf_counter(), time.process_time()
        job.sync()
        sync, sync_cpu = sync + time.perf_counter() - clock, sync_cpu + time.process_time() - cpu
    percent = 100 * (append_cpu * _RATE / _BATCH + sync_cpu / _SYNCS)
    return {"append_us": append * 1e6, "sync_ms": sync / _SYNCS * 1e3, "percent": percent}


@contextmanager
def list_source() -> Generator[Measure, None, None]:
    """Write and read a snapshot of camera names."""
    entries = list(_camera(_ENTRIES))
    with tempfile.TemporaryDirectory(prefix="penstock-bench-journal-") as folder:
        yield lambda: _list_source(f"{folder}/snapshot-1", entries)


def _list_source(path: str, entries: list[Entry]) -> Measures:
    start = time.process_time()
    snapshot = write_snapshot(Disk(), path, entries)
    written = time.process_time() - start
    start = time.process_time()
    found = sum(1 for _ in snapshot)
    read = time.process_time() - start
    snapshot.close()
    assert found == len(entries)
    return {"written": found / written, "read": found / read, "bytes": Path(path).stat().st_size / found}


def _camera(count: int) -> Iterator[Entry]:
    """Names, sizes and times as cameras give them: the two numbers are what does not compress."""
    draw = random.Random(1)
    taken = 1_709_000_000_000_000_000
    for number in range(count):
        taken += draw.randrange(1, 20_000_000_000)
        month = f"{2020 + number // 48_000}/{number // 4_000 % 12 + 1:02d}"
        yield Entry(f"/data/photos/{month}/IMG_{number:06d}.jpg", Kind.ITEM, draw.randrange(10**6, 6 * 10**6), taken)


def _make_job(path: str, items: int) -> None:
    """A job that is nearly done, as it would be on disk had each range been appended when it was done."""
    with JobFolder.create_or_open(path) as job:
        head = Head(job.manifest.job, 1)
    _write_blank_snapshot(f"{path}/snapshot-1", items)
    log = Log.create(Disk(), f"{path}/journal-2", head, (), ())
    draw = random.Random(2)
    pieces: list[bytes] = []
    for start in _out_of_order(items // _RANGE, draw):
        done = (Outcome.WRITTEN, start * _RANGE, start * _RANGE + _RANGE)
        pieces.append(of_records(np.array([done], RECORD)))
        if draw.random() < 0.001 * _RANGE:
            dead = start * _RANGE + draw.randrange(_RANGE)
            pieces.append(of_records(np.array([(Outcome.DEAD, dead, dead + 1)], RECORD)))
        if len(pieces) > 10_000:
            log.append(b"".join(pieces))
            pieces.clear()
    log.append(b"".join(pieces))
    log.close()


def _out_of_order(count: int, draw: random.Random) -> Iterator[int]:
    """All numbers but a hundredth, shuffled within a window, as workers overtake one another."""
    for base in range(0, count, 256):
        window = list(range(base, min(base + 256, count)))
        draw.shuffle(window)
        yield from window[:-2] if len(window) > 2 else ()


def _write_blank_snapshot(path: str, items: int) -> None:
    """A list of so many entries without names: to plan reads its index alone, and to write 10^8 takes minutes."""
    blocks, rest = divmod(items, BLOCK_ENTRIES)
    sizes = [BLOCK_ENTRIES] * blocks + [rest] * bool(rest)
    full, last = (pack(BlockKind.ENTRIES, encode([Entry("")] * size)) for size in (BLOCK_ENTRIES, rest or 1))
    pieces = [full if size == BLOCK_ENTRIES else last for size in sizes]
    offsets = len(title("snapshot")) + np.cumsum([0, *map(len, pieces)])
    index = pack(BlockKind.INDEX, np.array([items, *offsets], "<u8").tobytes())
    end = int(offsets[-1]).to_bytes(8, "little") + b"snap-end"
    Path(path).write_bytes(title("snapshot") + b"".join(pieces) + index + end)
