"""The sink: a bounded handover from the hub to threads and asyncio tasks that read. It outlives the engine's thread.

Readers are interrupted by Ctrl-C at any point. So there is no `threading.Condition` here: a KeyboardInterrupt inside of
its ``__enter__`` or ``wait`` can leave its lock taken, and the hub would hang in the next put. A ``with`` on the lock
itself, which is implemented in C, cannot be torn; taking an item is one `popleft`, and what is delivered follows from
what is left.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any

from ...errors import ConfigError
from .channel import Entry
from .hub import Hub, Mailbox, Waiter
from .metrics import Pace, Stopwatch
from .stage import Node

ENDED = object()
"""What `OutputQueue.take` returns when nothing will come any more."""
NOT_YET = object()
"""What `OutputQueue.poll` returns when nothing is here yet."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What is still to be done about items that failed. It comes out between the values; see `ValueModel.failed`.

    Attributes:
        node: the stage in which they failed.
        units: how many.
        work: may wait.
    """

    node: Node
    units: int
    work: Callable[[], object]


_LOOK_UP = 0.5
"""Seconds a reader waits before it looks up again: a signal that comes just before a wait does not interrupt it."""


class OutputQueue:
    """Holds up to `size` values until they are read.

    Attributes:
        full: time during which it was full: readers were what one waited for.
        last_take: when an item was last read.
        pace: of what is delivered.
    """

    def __init__(self, size: int, hub: Hub, mailbox: Mailbox) -> None:
        self.size = size
        self._hub = hub
        self._mailbox = mailbox
        self._items: deque[Entry] = deque()
        self._lock = threading.RLock()
        self._readers: set[Callable[[], object]] = set()  # each is called to wake the reader that waits
        self._putters: deque[Waiter] = deque()
        self._unrecorded: Counter[str] = Counter()
        self._ended = False
        self._accepted = 0
        self._discarded = 0
        self.full = Stopwatch()
        self.pace = Pace()
        self._full_since: float | None = None
        self._area = 0.0
        self._since = self._began = perf_counter()
        self.last_take = 0.0

    # -- on the hub ---------------------------------------------------------------------------------------------------

    def put(self, entry: Entry, lane: str | None = None) -> None:
        """Put an entry, waiting for room in the current fiber; those who wait are served in turn.

        Raises:
            ConfigError: a lane was named; the sink has none.
        """
        if lane is not None:
            raise ConfigError(f"there is no lane {lane!r}: the last stage emits into the sink, which has no lanes")
        if not self._putters and self._offer(entry):
            return
        waiter = Waiter(self._hub)
        self._putters.append(waiter)
        try:
            while self._putters[0] is not waiter or not self._offer(entry):
                waiter.park()
        finally:
            self._putters.remove(waiter)
            if self._putters:
                self._putters[0].unpark()

    def _offer(self, entry: Entry) -> bool:
        with self._lock:
            if len(self._items) >= self.size:
                return False
            self._tick()
            self._items.append(entry)
            self._accepted += entry.units
            if isinstance(entry.value, Record):
                self._unrecorded[entry.value.node.name] += entry.value.units
            if len(self._items) == self.size:
                self._full_since = perf_counter()
                self.full.begin(self._full_since)
            self._wake_readers()
        return True

    def end(self) -> None:
        """Nothing will come any more; what is here stays readable."""
        with self._lock:
            self._ended = True
            self._wake_readers()

    @property
    def has_ended(self) -> bool:
        """Whether nothing will come any more."""
        return self._ended

    def discard(self, give_back: Callable[[Any], object]) -> None:
        """Nobody will read what is here: give it back. In the books it stays in flight. From any thread."""
        while (entry := self._next_unread()) is not None:
            if not isinstance(entry.value, Record):
                give_back(entry.value)

    def _next_unread(self) -> Entry | None:
        with self._lock:
            if not self._items:
                return None
            self._tick()
            entry = self._items.popleft()
            self._discarded += entry.units
            return entry

    def _room(self) -> None:
        if self._putters:
            self._putters[0].unpark()

    @property
    def is_full(self) -> bool:
        """Whether there is no room, as far as one can tell from another thread."""
        return len(self._items) >= self.size

    # -- in readers' threads ------------------------------------------------------------------------------------------

    def take(self, timeout: float | None) -> Any:
        """The next value, or `ENDED`.

        Raises:
            TimeoutError: nothing came within `timeout` seconds. What comes later is not lost.
        """
        if (value := self.poll()) is not NOT_YET:
            return value
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            bell = threading.Lock()
            bell.acquire()
            if (value := self.poll(bell.release)) is not NOT_YET:
                return value
            try:
                remaining = _LOOK_UP if deadline is None else deadline - monotonic()
                if remaining <= 0:
                    raise TimeoutError(f"no item arrived within {timeout} s; it is not lost: read again")
                bell.acquire(timeout=min(remaining, _LOOK_UP))
            finally:
                self.forget(bell.release)

    def poll(self, ring: Callable[[], object] | None = None) -> Any:
        """The next value, or `ENDED`, or `NOT_YET`: then `ring` is called, in any thread, when there is more to see.

        Whoever looks no more takes `ring` back with `forget`.
        """
        with self._lock:
            if self._items:
                return self._pop().value
            if self._ended:
                return ENDED
            if ring is not None:
                self._readers.add(ring)
            return NOT_YET

    def forget(self, ring: Callable[[], object]) -> None:
        """Do not call `ring` any more."""
        with self._lock:
            self._readers.discard(ring)

    def _wake_readers(self) -> None:
        # All of them: one may be leaving, and its news must not be lost with it.
        while self._readers:
            self._readers.pop()()

    def _pop(self) -> Entry:
        self._tick()
        was_full = len(self._items) == self.size
        entry = self._items.popleft()
        self.last_take = perf_counter()
        if was_full:
            if self._full_since is not None:
                self.full.end(self._full_since, self.last_take)
                self._full_since = None
            self._mailbox.post(self._room)
        return entry

    def recorded(self, record: Record) -> None:
        """The work of a record is done."""
        with self._lock:
            self._unrecorded[record.node.name] -= record.units

    # -- figures ------------------------------------------------------------------------------------------------------

    @property
    def unrecorded(self) -> Mapping[str, int]:
        """Units of each stage that have failed and are not recorded yet. One consistent view, any thread."""
        with self._lock:
            return self._unrecorded.copy()

    def _tick(self) -> None:
        now = perf_counter()
        self._area += len(self._items) * (now - self._since)
        self._since = now

    def sample(self, now: float) -> None:
        """Remember what is delivered by now, for the rates."""
        self.pace.sample(now, self.books()[1])

    def books(self) -> tuple[int, int, int, int, float]:
        """Units accepted, delivered and in flight; items waiting; mean fill (0..1). One consistent view, any thread."""
        with self._lock:
            waiting = sum(entry.units for entry in self._items) + self._discarded
            now = perf_counter()
            area = self._area + len(self._items) * (now - self._since)
            fill = min(area / max(now - self._began, 1e-9) / self.size, 1.0)
            return self._accepted, self._accepted - waiting, waiting, len(self._items), fill
