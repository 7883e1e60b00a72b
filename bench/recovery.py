"""``recovery``: a worker is killed, again and again: how soon the pool knows, how soon it is as fast as before."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Sequence
from itertools import cycle
from statistics import median, quantiles

import gevent

from ..engine.workers import PreprocessPool, warm_start
from ..errors import WorkerError
from .harness import Options
from .pictures import make_set
from .result import Goal, Result, tabulate
from .workload import BATCH, WORKERS, pixels

_STARTS = 5
_WINDOW = 1.0
"""Seconds over which a rate is taken."""
_GRACE = 1.0
"""Seconds, beside those of a start, after which the rate must be what it was."""


def run(options: Options) -> Result:
    """Kill one of the workers ``rounds`` times (default 100).

    Raises:
        WorkerError: the pool cannot go on, or did not notice a death.
    """
    paths = make_set("imagenet500", options.data, options.n or 512)
    batches = [paths[at : at + BATCH] for at in range(0, len(paths), BATCH)]
    with warm_start():
        starts = [_start(batches[0]) for _ in range(_STARTS + 1)][1:]  # the first one compiles
        with PreprocessPool(pixels("float32"), workers=WORKERS, batch_size=BATCH) as pool:
            noticed, rates = _Killing(pool, batches, median(starts)).run(options.rounds or 100)
    delays = [1e3 * seconds for seconds in noticed]
    worst = quantiles(delays, n=100)[-1] if len(delays) > 1 else delays[0]
    notice = tabulate(
        f"From the SIGKILL of one of {WORKERS} busy workers until the pool has told whoever waited for it",
        "ms",
        {"each": delays, "p99": [worst]},
        goals=[Goal("p99", 50.0, at_most=True)],
    )
    back = tabulate(
        f"Rate in the second that begins a start + {_GRACE:g} s after the SIGKILL; in the second before it",
        "pictures/s",
        {"before": [before for before, _ in rates], "after": [after for _, after in rates]},
        baseline="before",
        goals=[Goal("after", 0.95, "before")],
    )
    start = tabulate("From a new pool to its first batch (fork server and cache warm)", "s", {"start": starts})
    return Result("recovery", (notice, back, start))


def _start(batch: Sequence[str]) -> float:
    """Seconds from a new pool of one worker to its first batch."""
    begin = time.perf_counter()
    with PreprocessPool(pixels("float32"), workers=1, batch_size=BATCH) as pool:
        pool.start_in_hub()
        pool.process(batch).release()
        seconds = time.perf_counter() - begin
        pool.stop_in_hub()
    return seconds


class _Killing(logging.Handler):
    """A busy pool whose workers are killed; hears from its log when it has noticed."""

    def __init__(self, pool: PreprocessPool, batches: Sequence[Sequence[str]], start: float) -> None:
        super().__init__(logging.WARNING)
        self._pool = pool
        self._batches = cycle(batches)
        self._start = start
        self._done: list[tuple[float, int]] = []
        self._heard: list[float] = []
        self._busy = True

    def emit(self, record: logging.LogRecord) -> None:
        """A worker is gone, says the pool."""
        del record
        self._heard.append(time.monotonic())

    def run(self, kills: int) -> tuple[list[float], list[tuple[float, float]]]:
        """Seconds to notice, and the rates before and after, of each kill."""
        logger, draw = logging.getLogger("penstock.preprocess"), random.Random(1)
        logger.addHandler(self)
        self._pool.start_in_hub()
        users = [gevent.spawn(self._use) for _ in range(self._pool.capacity)]
        try:
            gevent.sleep(self._start + 2 * _WINDOW)
            found = [self._kill(draw) for _ in range(kills)]
        finally:
            self._busy = False
            gevent.joinall(users, raise_error=True)
            self._pool.stop_in_hub()
            logger.removeHandler(self)
        return [noticed for noticed, _, _ in found], [(before, after) for _, before, after in found]

    def _use(self) -> None:
        while self._busy:
            batch = self._pool.process(next(self._batches))
            self._done.append((time.monotonic(), len(batch)))
            batch.release()

    def _kill(self, draw: random.Random) -> tuple[float, float, float]:
        gevent.sleep(draw.random() * 0.1)  # anywhere in a batch
        self._heard.clear()
        killed = time.monotonic()
        os.kill(draw.choice(self._pool.pids), signal.SIGKILL)
        due = killed + self._start + _GRACE
        gevent.sleep(due + _WINDOW - time.monotonic())
        if not self._heard:
            raise WorkerError(f"a death was not noticed within {due + _WINDOW - killed:.1f} s")
        return self._heard[0] - killed, self._rate(killed - _WINDOW), self._rate(due)

    def _rate(self, begin: float) -> float:
        return sum(count for at, count in self._done if begin <= at < begin + _WINDOW) / _WINDOW
