"""``calls``: what a call of a function in a worker process costs, when there is next to nothing to do in it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager

from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .result import Goal, Result, tabulate
from .workload import WORKERS

_PEER = "ProcessPoolExecutor"
_IN_FLIGHT = {"one at a time": 1, "four in flight": 4}


def run(options: Options) -> Result:
    """Compare `WorkerPool` with the standard library's pool, which starts nothing anew when a worker dies.

    Raises:
        WorkerError: a variant broke down.
    """
    tables = []
    skipped: dict[str, str] = {}
    for name, in_flight in _IN_FLIGHT.items():
        args = {"calls": options.n or 5000, "in_flight": in_flight}
        variants = [
            Variant(_PEER, "calls:standard", args),
            Variant("WorkerPool", "calls:penstock", args),
        ]
        samples = run_rounds(variants, options.rounds or 7)
        title = f"Calls of a function that does nothing, {WORKERS} workers, {name}"
        tables += [
            tabulate(
                f"{title}: CPU time of the parent for a call",
                "us",
                samples.of("parent_us"),
                baseline=_PEER,
                goals=[Goal("WorkerPool", 1.0, _PEER, at_most=True)],
            ),
            tabulate(title, "calls/s", samples.of("rate"), baseline=_PEER, goals=[Goal("WorkerPool", 1.0, _PEER)]),
        ]
        skipped |= samples.skipped
    return Result("calls", tuple(tables), skipped)


@contextmanager
def standard(calls: int, in_flight: int) -> Generator[Measure, None, None]:
    """``concurrent.futures.ProcessPoolExecutor``."""
    with ProcessPoolExecutor(WORKERS) as pool:
        yield lambda: _measure(pool, calls, in_flight)


@contextmanager
def penstock(calls: int, in_flight: int) -> Generator[Measure, None, None]:
    """`WorkerPool`."""
    from ..engine.workers import WorkerPool

    with WorkerPool(WORKERS) as pool:
        yield lambda: _measure(pool, calls, in_flight)


def _same(number: int) -> int:
    return number


def _measure(pool: Executor, calls: int, in_flight: int) -> Measures:
    under_way: deque[Future[int]] = deque()
    begin, cpu = time.perf_counter(), time.process_time()
    for number in range(calls):
        under_way.append(pool.submit(_same, number))
        if len(under_way) == in_flight:
            under_way.popleft().result()
    for future in under_way:
        future.result()
    parent = (time.process_time() - cpu) / calls
    return {"parent_us": parent * 1e6, "rate": calls / (time.perf_counter() - begin)}
