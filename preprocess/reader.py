"""Reading ahead: a worker's thread pool that hides the wait for slow storage, and steps aside when there is none.

Files in the page cache are read in tens of microseconds; threads would only take the GIL from the decoder (measured: a
decode pool inside a worker gains nothing and costs 1-10 % when data is in memory). So the number of threads follows the
measured read wait: none while reading is cheap, up to ``threads`` when a read takes a noticeable share of the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from .protocol import Source

_SLOW_READ = 200e-6
"""Seconds a file. Above this a read is worth a thread switch (about 50 us) many times over."""

_SMOOTHING = 0.1


@dataclass(slots=True)
class ReadAhead:
    """The reads of one task: done ahead in threads, or left to the moment they are needed."""

    sources: Sequence[Source]
    pending: list[Future[bytes]] = field(default_factory=list[Future[bytes]])


class Reader:
    """Turns the items of tasks into bytes.

    Args:
        read: reads a whole file; raises ``ReadError``.
        threads: how many reads may be in flight ahead of the decoder.
    """

    def __init__(self, read: Callable[[str], bytes], threads: int) -> None:
        self._read = read
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._mean = 0.0

    @property
    def ahead(self) -> bool:
        """Whether reads are slow enough to be done ahead."""
        return self._threads > 0 and self._mean > _SLOW_READ

    def start(self, sources: Sequence[Source]) -> ReadAhead:
        """Begin reading a task's files if reading is what the worker waits for."""
        task = ReadAhead(sources)
        if self.ahead:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, "penstock-read")
            task.pending = [self._pool.submit(self._timed, source) for source in sources if isinstance(source, str)]
            task.pending.reverse()
        return task

    def take(self, task: ReadAhead, position: int) -> Source:
        """The bytes of one item; positions are asked for in order, each once.

        Raises:
            ReadError: the file cannot be read.
        """
        source = task.sources[position]
        if not isinstance(source, str):
            return source
        return task.pending.pop().result() if task.pending else self._timed(source)

    def _timed(self, path: str) -> bytes:
        begin = time.perf_counter()
        try:
            return self._read(path)
        finally:
            self._mean += _SMOOTHING * (time.perf_counter() - begin - self._mean)
