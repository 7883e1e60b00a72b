"""``startup``: how long until the first batch is in the consumer's hands, and until a search has answered."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from .chains import BATCH, pixels
from .child import Measure, Measures
from .harness import SPAWNED, Child, Options, Variant, run_rounds
from .pictures import make_set
from .result import Goal, Result, tabulate
from .stream import WORKERS

if TYPE_CHECKING:
    from ..engine.jobs.images.preprocess_stream import StreamingMultiprocessPreprocessor

_COLD = "new process, empty cache"
_CACHED = "new process, warm cache"
_WARM = "new pool, forkserver and cache warm"
_SEARCH = "penstock search"

_ROWS = 43
"""Pictures in the store that is searched."""

_STEPS = ("workers are asked for", "workers are there", "first batch")
"""Of a new process with a warm cache, each with the seconds until then."""

_CLI = (sys.executable, "-m", "penstock")


def run(options: Options) -> Result:
    """Measure the first batch from cold to warm.

    Raises:
        WorkerError: a variant broke down.
    """
    paths = make_set("imagenet500", options.data, options.n or 4 * BATCH)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-cache-") as cache:
        variants = [
            Variant(_COLD, "startup:new_process", {"paths": paths, "cache": None}, fresh=True),
            Variant(_CACHED, "startup:new_process", {"paths": paths, "cache": cache}, fresh=True),
            Variant(_WARM, "startup:new_pool", {"paths": paths, "cache": cache}),
            Variant("warm pool", "startup:warm_pool", {"paths": paths, "cache": cache}),
            Variant(_SEARCH, "startup:search", {"paths": make_set("imagenet500", options.data, _ROWS), "cache": cache}),
        ]
        with Child(variants[1]) as filling:
            filling.measure()
        samples = run_rounds(variants, options.rounds or 5)
    table = tabulate(
        f"Seconds to the first batch of {BATCH}, {WORKERS} workers",
        "s",
        samples.of("seconds"),
        goals=[
            Goal(_COLD, 2.0, at_most=True),
            Goal(_CACHED, 0.8, at_most=True),
            Goal(_WARM, 0.5, at_most=True),
        ],
    )
    steps = tabulate(
        f"{_CACHED}: seconds until", "s", {step: samples.of(step)[_CACHED] for step in _STEPS if samples.of(step)}
    )
    search = tabulate(
        f"Seconds of one search of {_ROWS} rows in Milvus Lite, warm cache",
        "s",
        {_SEARCH: samples.of("answered")[_SEARCH], "its CPU, all processes": samples.of("cpu")[_SEARCH]},
        goals=[Goal(_SEARCH, 1.5, at_most=True)],
    )
    notes = (
        "new process: from the start of the Python interpreter, imports included; the file cache of the disk is warm",
    )
    return Result("startup", (table, steps, search), samples.skipped, notes)


@contextmanager
def new_process(paths: Sequence[str], cache: str | None) -> Generator[Measure, None, None]:
    """Everything from the interpreter's start on; ``cache`` None is an empty compilation cache."""
    with ExitStack() as stack:
        _use_cache(cache or stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-cache-")))

        def since() -> float:
            return time.monotonic() - float(os.environ[SPAWNED])

        def measure() -> Measures:
            stream = _preprocessor()
            asked = since()
            stack.enter_context(stream)
            there = since()
            next(stream.preprocess_stream(paths))
            seconds = since()
            return {"seconds": seconds, **dict(zip(_STEPS, (asked, there, seconds), strict=True))}

        yield measure


@contextmanager
def search(paths: Sequence[str], cache: str) -> Generator[Measure, None, None]:
    """The whole command, from the start of its interpreter to its end, on a store made once."""
    _use_cache(cache)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-store-") as folder:
        store = f"{folder}/rows.db"
        _run("embed", *paths, "--to", store, "--progress", "none")

        def measure() -> Measures:
            start, before = time.monotonic(), _cpu()
            _run("search", store, paths[0])
            return {"answered": time.monotonic() - start, "cpu": _cpu() - before}

        yield measure


def _run(*arguments: str) -> None:
    subprocess.run([*_CLI, *arguments], check=True, stdout=subprocess.DEVNULL)


def _cpu() -> float:
    """Seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def new_pool(paths: Sequence[str], cache: str) -> Generator[Measure, None, None]:
    """Another pool in a process that keeps the fork server."""
    from ..engine.workers import warm_start

    _use_cache(cache)

    def measure() -> Measures:
        start = time.monotonic()
        with _preprocessor() as stream:
            next(stream.preprocess_stream(paths))
            return {"seconds": time.monotonic() - start}

    with warm_start():
        yield measure


@contextmanager
def warm_pool(paths: Sequence[str], cache: str) -> Generator[Measure, None, None]:
    """Another stream from a pool that is running."""
    _use_cache(cache)
    with _preprocessor() as stream:

        def measure() -> Measures:
            start = time.monotonic()
            batches = stream.preprocess_stream(paths)
            next(batches)
            seconds = time.monotonic() - start
            for _ in batches:  # leave the pool idle for the next round
                pass
            return {"seconds": seconds}

        yield measure


def _use_cache(folder: str) -> None:
    os.environ["XDG_CACHE_HOME"] = folder


def _preprocessor() -> StreamingMultiprocessPreprocessor:
    from ..engine.jobs.images.preprocess_stream import StreamingMultiprocessPreprocessor

    return StreamingMultiprocessPreprocessor(num_workers=WORKERS, batch_size=BATCH, spec=pixels("float32"))
