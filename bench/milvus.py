"""``milvus``: rows into a Milvus server. A bare pymilvus loop at its best setting against the insert stage of a job."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import gevent
import numpy as np

from ..engine import PipelineBuilder, green
from ..engine.config.model import ServiceConfig
from ..engine.jobs.images.batches import JobValues, Picture, Rows
from ..engine.jobs.images.graphs import ImageParts, insert_into
from ..engine.servers import MilvusLiteServer, MilvusServer, ServerUnavailableError
from ..sinks import DeadLetters, MilvusSink, RowBatch, row_key
from .child import Measure, Measures
from .harness import Options, Samples, Variant, run_rounds
from .result import Goal, Result, Table, tabulate

DIMENSION = 512
_BATCH = 32
"""Rows that the embed stage hands on at once, as in a job with default settings."""

_INSERT_ROWS = 128
"""Rows of one write, as in a job with default settings."""

_BARE = ((250, 2), (500, 4), (1000, 2), (1000, 4), (2000, 4))
"""Rows of a call and threads of the bare loop: the best of 100 to 5,000 rows by 1 to 8 threads, and neighbours."""

_FEW = 2_000
"""With fewer rows the settings do not differ: one is enough for a look whether all works."""

_INDEX = "FLAT"
"""Costs nothing while rows are written; others are built meanwhile, at times of their own."""

_TICK = 0.002
_SINK = "insert stage"
_FIGURES = (
    ("gap_p99", "99 % of the gaps of the hub are at most", "ms"),
    ("gap_max", "the longest gap", "ms"),
    ("rows_per_call", "what the sink found best", "rows a call"),
    ("in_flight", "what the sink found best", "calls in flight"),
)


def run(options: Options) -> Result:
    """Compare them on Milvus Lite's server and, where it can run, on the full one.

    Raises:
        ServerError: a server does not start.
        WorkerError: a variant broke down.
    """
    tables: list[Table] = []
    skipped: dict[str, str] = {}
    kinds: tuple[type[MilvusLiteServer | MilvusServer], ...] = (MilvusLiteServer, MilvusServer)
    for kind in kinds:
        with ExitStack() as stack:
            server = kind()
            try:
                stack.enter_context(server)
            except ServerUnavailableError as reason:
                skipped[kind.name] = str(reason)
                continue
            tables += _compared(kind.name, server.uri, options)
    return Result(
        "milvus", tuple(tables), skipped, ("the gaps are those of a greenlet on the hub that wakes every 2 ms",)
    )


def _compared(server: str, uri: str, options: Options) -> list[Table]:
    count = options.n or 12_000
    args = {"uri": uri, "count": count}
    bare = [
        Variant(f"bare, {rows} x {threads}", "milvus:bare", {**args, "rows": rows, "threads": threads})
        for rows, threads in (_BARE if count >= _FEW else _BARE[:1])
    ]
    samples = run_rounds([*bare, Variant(_SINK, "milvus:stage", args)], options.rounds or 5)
    best = _best(samples)
    title = f"{server}: {count:,} new rows of {DIMENSION} floats; bare pymilvus upserts, rows x threads"
    rate = tabulate(title, "rows/s", samples.of("rate"), baseline=best, goals=[Goal(_SINK, 0.9, best)])
    others = [tabulate(f"{server}: {text}", unit, samples.of(figure)) for figure, text, unit in _FIGURES]
    return [rate, *others]


def _best(samples: Samples) -> str:
    rates = samples.of("rate", prefix="bare")
    return max(rates, key=lambda name: median(rates[name]))


@contextmanager
def bare(uri: str, count: int, rows: int, threads: int) -> Generator[Measure, None, None]:
    """What one would write by hand: dictionaries into ``MilvusClient.upsert``, from so many threads."""
    from pymilvus import MilvusClient

    name = f"bare_{rows}_{threads}"
    vectors, keys = _vectors(count), [row_key(str(number)) for number in range(count)]
    client = MilvusClient(uri, dedicated=True)

    def upsert(begin: int) -> None:
        numbers = range(begin, min(begin + rows, count))
        client.upsert(name, [{"key": keys[n], "vector": vectors[n], **_columns(n)} for n in numbers])

    def measure() -> Measures:
        with MilvusSink(uri, name, DIMENSION, index=_INDEX) as sink:  # the same collection, made by the same hand
            start = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(upsert, range(0, count, rows)))
            seconds = time.perf_counter() - start
            assert sink.count() == count
            sink.drop()
        return {"rate": count / seconds}

    yield measure
    client.close()


@contextmanager
def stage(uri: str, count: int) -> Generator[Measure, None, None]:
    """The insert stage of a job on its engine, fed with embedded batches that are there already."""
    batches = list(_batches(count))
    with MilvusSink(uri, "stage", DIMENSION, index=_INDEX) as sink, tempfile.TemporaryDirectory() as folder:
        dead = DeadLetters(Path(folder) / "dead_letters.jsonl")

        def measure() -> Measures:
            sink.open()
            before = sink.stats()
            ticks: list[float] = []
            start = time.perf_counter()
            written = _insert(batches, sink, dead, ticks)
            seconds = time.perf_counter() - start
            ticks += [start + seconds] * (len(ticks) < 2)  # so few rows, for a look whether all works
            assert written == count == sink.count()
            sink.drop()
            return {"rate": count / seconds, **_gaps(ticks), **_limiter(before, sink.stats())}

        yield measure


def _insert(batches: list[Rows], sink: MilvusSink, dead: DeadLetters, ticks: list[float]) -> int:
    def tick() -> None:
        while True:
            ticks.append(time.perf_counter())
            gevent.sleep(_TICK)

    ticker: list[Any] = []

    @green
    def watched(value: Rows) -> Rows:
        if not ticker:
            ticker.append(gevent.spawn(tick))
        return value

    with ThreadPoolExecutor(sink.threads) as writers:
        parts = ImageParts(batches, sink, writers, JobValues(dead), _INSERT_ROWS, ServiceConfig().policies)
        builder = PipelineBuilder(values=parts.values).add_source(batches).pipe(watched)
        pipeline = insert_into(builder, parts).build(num_threads=1)
        with pipeline.auto_stop():
            return sum(len(value.ordinals) for value in pipeline.get_iterator())


def _gaps(ticks: list[float]) -> dict[str, float]:
    gaps = sorted(1000 * (after - before) for before, after in pairwise(ticks))
    return {"gap_p99": gaps[int(0.99 * len(gaps))], "gap_max": gaps[-1]}


def _limiter(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    rows = [stats["rows_per_call"] * stats["calls"] for stats in (before, after)]
    return {"rows_per_call": (rows[1] - rows[0]) / (after["calls"] - before["calls"]), "in_flight": after["in_flight"]}


def _vectors(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((count, DIMENSION), np.float32)


def _columns(number: int) -> dict[str, Any]:
    return {"path": f"/photos/{number}.jpg", "width": 500, "height": 375}


def _batches(count: int) -> Generator[Rows, None, None]:
    vectors = _vectors(count)
    for begin in range(0, count, _BATCH):
        numbers = range(begin, min(begin + _BATCH, count))
        pictures = [Picture(str(number), number, b"", f"/photos/{number}.jpg") for number in numbers]
        keys = [row_key(str(number)) for number in numbers]
        rows = RowBatch(keys, vectors[numbers.start : numbers.stop].copy(), [_columns(number) for number in numbers])
        yield Rows(pictures, rows)
