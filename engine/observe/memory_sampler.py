"""Memory of the process tree, sampled in a thread: reading PSS takes milliseconds a process, too long for the hub."""

from __future__ import annotations

import threading
import time

import psutil

from ..core.threads import daemon, join_threads
from .report import MemoryReport

_SHARE = 0.003
"""The most of a core that sampling may take."""


class MemorySampler:
    """Samples from construction to `stop`.

    Args:
        seconds: between two samples, at least; more where a sample is dear (many processes on the machine).
        name: of the thread.
    """

    def __init__(self, seconds: float, name: str) -> None:
        self._seconds = seconds
        self._over = threading.Event()
        self.report: MemoryReport | None = None
        self._thread = daemon(self._run, name)

    def stop(self) -> list[str]:
        """End the thread; returns its name if it does not end soon."""
        self._over.set()
        return join_threads([self._thread], 1.0)

    def _run(self) -> None:
        while True:
            begin = time.thread_time()
            self._sample()
            cost = time.thread_time() - begin
            if self._over.wait(max(self._seconds, cost / _SHARE)):
                return

    def _sample(self) -> None:
        own = psutil.Process()
        each: dict[int, int] = {}
        measure = "pss"
        for process in [own, *own.children(recursive=True)]:
            try:
                memory = process.memory_full_info()
                pss = getattr(memory, "pss", 0)
                if not pss:
                    measure = "rss"
                each[process.pid] = pss or memory.rss
            except psutil.Error:
                continue  # it has ended meanwhile, or is not ours to read
        before, total = self.report, sum(each.values())
        peak = max(total, before.peak if before else 0)
        self.report = MemoryReport(total, peak, len(each), before.samples + 1 if before else 1, measure, each)
