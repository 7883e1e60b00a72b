"""Reading ahead: a worker's thread pool that hides the wait for slow storage, and steps aside when there is none.

Files in the page cache are read in tens of microseconds; threads would only take the GIL from the decoder (measured: a
decode pool inside a worker gains nothing and costs 1-10 % when data is in memory). So the number of threads follows the
measured read wait: none while reading is cheap, up to ``threads`` when a read takes a noticeable share of the work.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ...references import Reference
from .protocol import Loaded, Source

FILE_THREADS: Final = 2
REMOTE_THREADS: Final = 32
"""Reads in flight where nobody says how many: of files, and of what lies elsewhere, where each takes a while."""

AHEAD_BYTES: Final = 64 * 2**20
"""What files that are read ahead may take in memory, all together. A larger file is read when it is needed."""

_SLOW_READ = 200e-6
"""Seconds a file. Above this a read is worth a thread switch (about 50 us) many times over."""

_REMOTE_READ = 10 * _SLOW_READ
"""What is taken for the time of a read of what lies elsewhere, until some have been timed."""

_SMOOTHING = 0.1


@dataclass(slots=True, eq=False)
class _Read:
    """What is to be read ahead; `wanted` once somebody waits for it, `outcome` once it is done."""

    source: str | Reference
    wanted: bool = False
    outcome: bytes | BaseException | None = None


@dataclass(slots=True)
class ReadAhead:
    """The reads of one task: done ahead in threads, or left to the moment they are needed."""

    sources: Sequence[Source]
    pending: list[_Read] = field(default_factory=list[_Read])


class Reader:
    """Turns the items of tasks into bytes.

    Args:
        read: reads a whole file, at a path or by reference; raises ``ItemError``.
        threads: how many reads may be in flight ahead of the decoder; None: `FILE_THREADS`, or from the first reference
            on `REMOTE_THREADS`.
        room: bytes that may lie read and not taken.
    """

    def __init__(self, read: Callable[[str | Reference], bytes], threads: int | None, room: int = AHEAD_BYTES) -> None:
        self._read = read
        self._threads = FILE_THREADS if threads is None else threads
        self._remote_threads = REMOTE_THREADS if threads is None else threads
        self._room = room
        self._remote = False
        self._mean = 0.0
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # there is something to read, and room for it
        self._done = threading.Condition(self._lock)  # what is waited for has been read
        self._queue: deque[_Read] = deque()
        self._started = self._idle = 0
        self._held = 0
        self._full = False

    @property
    def ahead(self) -> bool:
        """Whether reads are slow enough to be done ahead."""
        return self._threads > 0 and self._mean > _SLOW_READ

    def start(self, sources: Sequence[Source]) -> ReadAhead:
        """Begin reading a task's files if reading is what the worker waits for."""
        task = ReadAhead(sources)
        if not self._remote and any(isinstance(source, Reference) for source in sources):
            self._remote, self._threads = True, self._remote_threads
            self._mean = max(self._mean, _REMOTE_READ)  # or a whole batch would be read one by one to find that out
        if self.ahead:
            reads = [_Read(source) for source in sources if isinstance(source, (str, Reference))]
            task.pending = reads[::-1]
            with self._lock:
                self._queue.extend(reads)
                self._fill()
        return task

    def take(self, task: ReadAhead, position: int) -> Loaded:
        """The bytes of one item; positions are asked for in order, each once, of one task after the other.

        Raises:
            ItemError: it cannot be read.
        """
        source = task.sources[position]
        if not isinstance(source, (str, Reference)):
            return source
        if not task.pending:
            return self._timed(source)
        read = task.pending.pop()
        with self._lock:
            read.wanted = True
            waits = read in self._queue  # there was no room for it
            if waits:
                self._queue.remove(read)
        if waits:
            read.outcome = self._outcome(source)
        with self._lock:
            while read.outcome is None:
                self._done.wait()
            if isinstance(read.outcome, bytes) and not waits:
                self._held -= len(read.outcome)
            self._full = False
            self._fill()
        if isinstance(read.outcome, BaseException):
            raise read.outcome
        return read.outcome

    def _fill(self) -> None:
        """Wake as many threads as have something to do. Lock held."""
        if self._full or not self._queue:
            return
        for _ in range(min(self._threads - self._started, len(self._queue) - self._idle)):
            self._started += 1
            threading.Thread(target=self._read_on, name=f"penstock-read-{self._started}", daemon=True).start()
        if self._idle:
            self._work.notify(len(self._queue))

    def _read_on(self) -> None:
        """A thread: one read after the other. Our own, for an executor costs three times as much a read."""
        while True:
            with self._lock:
                while self._full or not self._queue:
                    self._idle += 1
                    self._work.wait()
                    self._idle -= 1
                read = self._queue.popleft()
            self._ahead(read)

    def _ahead(self, read: _Read) -> None:
        size = _size(read.source)
        with self._lock:
            if not read.wanted and self._held + size > self._room:  # back in line, until something has been taken
                self._queue.appendleft(read)
                self._full = True
                return
            self._held += size
        outcome = self._outcome(read.source)
        with self._lock:
            self._held += (len(outcome) if isinstance(outcome, bytes) else 0) - size
            read.outcome = outcome
            if read.wanted:
                self._done.notify()

    def _outcome(self, source: str | Reference) -> bytes | BaseException:
        """The bytes, or what is to be raised where the item is taken."""
        try:
            return self._timed(source)
        except BaseException as error:  # noqa: BLE001
            return error

    def _timed(self, source: str | Reference) -> bytes:
        begin = time.perf_counter()
        try:
            return self._read(source)
        finally:
            self._mean += _SMOOTHING * (time.perf_counter() - begin - self._mean)


def _size(source: str | Reference) -> int:
    """Bytes that are to be read, as far as that is known; 0 where it is not."""
    if isinstance(source, Reference):
        return max(0, source.version.size)
    try:
        return os.stat(source).st_size  # noqa: PTH116  (as text: surrogates must pass)
    except (OSError, ValueError):
        return 0  # reading it says what is wrong
