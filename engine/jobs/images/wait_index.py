"""After the last row: waiting for the store's index, shown like the job itself."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

from ....sinks import IndexState
from ... import Report
from ..common.drive import Interrupt, Watcher
from .runner import JobRunner


def wait_for_index(
    runner: JobRunner,
    seconds: float,
    report: Report,
    extra: dict[str, Any],
    watcher: Watcher | None,
    interrupt: Interrupt | None,
) -> None:
    """Wait until the index covers every row, or the job is interrupted.

    Args:
        runner: whose job has ended.
        seconds: to wait at most.
        report: of that job; the watcher is told it again, with ``extra["index"]``.
        extra: gets ``index``: rows, indexed, seconds.
        watcher: see `drive.drive`; likewise interrupt.

    Raises:
        SinkError: it is not done in time; the rows are in the store.
    """
    due = 0.0

    def on_progress(state: IndexState) -> None:
        nonlocal due
        extra["index"] = asdict(state)
        if watcher and time.monotonic() >= due:
            watcher.update(replace(report, extra={**report.extra, **extra}))
            due = time.monotonic() + watcher.interval

    runner.sink_to_read().wait_index(seconds, on_progress, interrupt.wish if interrupt else None)
