"""The ceiling while a job runs: what its processes take is held against it, and told when it is more."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Set
from typing import Final

from ....formatting import size
from ... import Report
from ...machine.resources import memory_available
from ...observe.report import MemoryReport
from .memory_estimate import MemoryEstimate, Side

_logger = logging.getLogger(__name__)

_SIDES: Final[tuple[Side, ...]] = ("parent", "workers", "store")


def warn_if_scarce(ceiling: MemoryEstimate) -> None:
    """Say so if the machine has less than the job may take."""
    available = memory_available()
    if ceiling.total > available:
        _logger.warning(
            "memory: the job may take %s, but only %s can be had now; allow it less (memory, as in --memory 75%%), or "
            "lower max_pixels (--max-pixels) or max_file_bytes (--max-file-bytes)",
            size(ceiling.total),
            size(available),
        )


class MemoryMonitor:
    """Looks at each sample of a job's memory.

    Args:
        ceiling: of the job.
        workers: process ids of the workers and their fork server, as they are now.
    """

    def __init__(self, ceiling: MemoryEstimate, workers: Callable[[], Set[int]]) -> None:
        self._ceiling = ceiling
        self._workers = workers
        self._warned: set[Side] = set()

    def look(self, report: Report) -> None:
        """Warn, once for each side, that more is taken than was computed. Nothing is ended for it."""
        memory = report.memory
        if memory is None or memory.now <= self._ceiling.total:
            return
        taken = self._by_side(memory)
        side = max(_SIDES, key=lambda one: taken[one] - self._ceiling.of(one))
        if side in self._warned:
            return
        self._warned.add(side)
        besides = f"; not counted: {', '.join(self._ceiling.uncounted)}" if self._ceiling.uncounted else ""
        _logger.warning(
            "memory: %s are taken, more than the %s that were computed; most of it by the %s: %s instead of %s%s",
            *(size(memory.now), size(self._ceiling.total), side),
            *(size(taken[side]), size(self._ceiling.of(side)), besides),
        )

    def _by_side(self, memory: MemoryReport) -> dict[Side, int]:
        """Bytes of each side; what is neither this process nor a worker is taken for the store."""
        workers = self._workers()
        taken: dict[Side, int] = dict.fromkeys(_SIDES, 0)
        for pid, nbytes in memory.each.items():
            taken["parent" if pid == os.getpid() else "workers" if pid in workers else "store"] += nbytes
        return taken
