"""Tells when a worker stands still: stopped, or stuck where its own watch cannot see it.

A worker may end by itself when an item is over its deadline. That takes a thread that runs, so it says nothing about a
process that was stopped, a decoder that keeps the interpreter to itself, or a kernel that waits for what never comes.
The parent therefore looks at what each worker is doing, and at the processor time it uses. Looks are counted, not
seconds: a host that was stopped itself, and goes on, does not blame its workers for it.
"""

from __future__ import annotations

import time
from enum import Enum

_BUSY = 0.02
"""Share of one processor above which a process is doing something; its watching threads take less."""

_CPUCLOCK_SCHED = 2
"""Which of a process's clocks, in the way Linux numbers them: processor time, as the scheduler counts it."""

Activity = tuple[object, ...]


class Diagnosis(Enum):
    """What is wrong with a worker."""

    IDLE = "did nothing for longer than item_timeout (was it stopped?) and was killed"
    HUNG = "was killed because an item took longer than item_timeout"


class HangDetector:
    """Looks at one worker, every ``interval`` seconds.

    Attributes:
        interval: seconds between looks.

    Args:
        timeout: seconds one item may take.
        watches_itself: see `WorkerKind`. The worker's own watch comes first, by half a second.
    """

    def __init__(self, timeout: float, *, watches_itself: bool) -> None:
        self.interval = min(1.0, timeout / 4)
        self._watches_itself = watches_itself
        self._limit = 1 + round((timeout + self.interval + 0.5 * watches_itself) / self.interval)
        self._doing: Activity | None = None
        self._used = 0.0
        self._same = self._idle = 0

    def poll(self, pid: int, doing: Activity | None, *, at_item: bool) -> Diagnosis | None:
        """Look once.

        Args:
            pid: the worker's process.
            doing: equal for as long as it is at the same thing; None while it has nothing to do.
            at_item: whether that thing is a single item, which has a deadline. A whole batch, in a kernel or in an
                embedder, has none while it uses the processor: compiling takes as long as it takes.

        Returns:
            What is wrong with it, if it is.
        """
        used = _processor_seconds(pid)
        busy = used - self._used >= _BUSY * self.interval
        self._used = used
        if doing is None or doing != self._doing:
            self._doing, self._same, self._idle = doing, 0, 0
            return None
        self._same += 1
        self._idle = 0 if busy else self._idle + 1
        if self._idle >= self._limit and (self._watches_itself or not at_item):
            return Diagnosis.IDLE
        return Diagnosis.HUNG if at_item and self._same >= self._limit else None


def _processor_seconds(pid: int) -> float:
    """Processor time a process has used; nothing if it is gone, which others will notice."""
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return 0.0
