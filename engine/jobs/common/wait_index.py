"""After the last row: waiting for the store's index, shown like the job itself."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

from ....sinks import IndexState
from ... import Report
from .drive import Interrupt, Watcher
from .runner import Runner


def wait_for_index(
    runner: Runner[Any],
    report: Report,
    extra: dict[str, Any],
    watcher: Watcher | None,
    interrupt: Interrupt | None,
) -> None:
    """Wait until the index of each store that asks for it covers every row, or the job is interrupted.

    Args:
        runner: whose job has ended.
        report: of that job; the watcher is told it again, with ``extra["index"]``.
        extra: gets ``index``: rows and indexed, of the store that was waited for last, and seconds, of all.
        watcher: see `drive.drive`; likewise interrupt.

    Raises:
        SinkError: it is not done in time; the rows are in the store.
    """
    due = before = 0.0

    def on_progress(state: IndexState) -> None:
        nonlocal due
        extra["index"] = asdict(replace(state, seconds=before + state.seconds))
        if watcher and time.monotonic() >= due:
            watcher.update(replace(report, extra={**report.extra, **extra}))
            due = time.monotonic() + watcher.interval

    for sink, seconds in runner.indexes():
        before += sink.wait_index(seconds, on_progress, interrupt.wish if interrupt else None).seconds
