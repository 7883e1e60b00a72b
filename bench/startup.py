"""``startup``: how long until the first batch is in the consumer's hands, and until a search has answered."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from .child import Measure, Measures
from .first_batch import STEPS, use_cache
from .harness import Child, Options, Variant, run_rounds
from .pictures import make_set
from .result import Goal, Result, tabulate
from .workload import BATCH, WORKERS

_COLD = "new process, empty cache"
_CACHED = "new process, warm cache"
_WARM = "new pool, forkserver and cache warm"
_SEARCH = "penstock search"

_ROWS = 43
"""Pictures in the store that is searched."""

_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""Environment: modules are compiled once, as where they were installed, whatever holds for the benchmark's process."""

_CLI = (sys.executable, "-m", "penstock")


def run(options: Options) -> Result:
    """Measure the first batch from cold to warm.

    Raises:
        WorkerError: a variant broke down.
    """
    paths = make_set("imagenet500", options.data, options.n or 4 * BATCH)
    searched = make_set("imagenet500", options.data, _ROWS)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-cache-") as cache:
        variants = [
            Variant(_COLD, "first_batch:new_process", {"paths": paths, "cache": None}, fresh=True, env=_COMPILED),
            Variant(_CACHED, "first_batch:new_process", {"paths": paths, "cache": cache}, fresh=True, env=_COMPILED),
            Variant(_WARM, "first_batch:new_pool", {"paths": paths, "cache": cache}),
            Variant("warm pool", "first_batch:warm_pool", {"paths": paths, "cache": cache}),
            Variant(_SEARCH, "startup:search", {"paths": searched, "cache": cache}, env=_COMPILED),
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
        f"{_CACHED}: seconds until", "s", {step: samples.of(step)[_CACHED] for step in STEPS if samples.of(step)}
    )
    search = tabulate(
        f"Seconds of one search of {_ROWS} rows in Milvus Lite, warm cache",
        "s",
        {_SEARCH: samples.of("answered")[_SEARCH], "its CPU, all processes": samples.of("cpu")[_SEARCH]},
        goals=[Goal(_SEARCH, 1.5, at_most=True)],
    )
    notes = (
        "new process: from the interpreter's start, with all that penstock imports; the file cache of the disk is warm",
    )
    return Result("startup", (table, steps, search), samples.skipped, notes)


@contextmanager
def search(paths: Sequence[str], cache: str) -> Generator[Measure, None, None]:
    """The whole command, from the start of its interpreter to its end, on a store made once."""
    use_cache(cache)
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
