"""Driving a job's pipeline from the user's thread: collect what is written, show progress, stop when asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from ... import Pipeline, Report

_TICK = 0.25
"""Seconds between two looks at the clock while nothing arrives."""

_CHECK_SECONDS = 1.0
"""Seconds between two checks that every item is accounted for."""

DRAIN_SECONDS = 30.0
"""How long what is in flight may take to finish after the first Ctrl-C."""


class Watcher(Protocol):
    """Who is told how the job goes; ``observe.progress`` has some."""

    interval: float

    def update(self, report: Report) -> None: ...


class WithFigures:
    """A watcher whose reports have further figures, too.

    Args:
        watcher: gets the reports.
        figures: for ``extra`` of a report, by name; asked for at each report.
    """

    def __init__(self, watcher: Watcher, figures: Callable[[], Mapping[str, Any]]) -> None:
        self.interval = watcher.interval
        self._watcher, self._figures = watcher, figures

    def update(self, report: Report) -> None:
        """Pass a report on."""
        self._watcher.update(replace(report, extra={**report.extra, **self._figures()}))


class Interrupt:
    """A wish to stop early, from a signal handler or another thread: what is in flight is finished, no more begun."""

    def __init__(self) -> None:
        self._wish = threading.Event()

    def request(self) -> None:
        """Ask for it. Safe in a signal handler."""
        self._wish.set()

    @property
    def wish(self) -> threading.Event:
        """Set when it is requested, for those who wait."""
        return self._wish

    @property
    def requested(self) -> bool:
        return self._wish.is_set()


def drive(
    pipeline: Pipeline,
    collect: Callable[[Any], None],
    watcher: Watcher | None = None,
    interrupt: Interrupt | None = None,
    beat: Callable[[], None] | None = None,
    look: Callable[[Report], None] | None = None,
) -> Report:
    """Run a pipeline to its end, and keep checking its books.

    Args:
        pipeline: built, not started.
        collect: called with each value that reaches the end.
        watcher: told the figures at its interval.
        interrupt: looked at between values.
        beat: called several times a second.
        look: shown the figures about once a second.

    Returns:
        The final report; its books have been checked.

    Raises:
        PipelineFailure: a stage could not go on, or its failure budget is spent.
        AccountingError: items are missing, at a stage or in the whole.
    """
    due = checked = 0.0
    draining = False
    with pipeline.auto_stop():
        while True:
            try:
                collect(pipeline.get_item(timeout=_TICK))
            except TimeoutError:
                pass
            except EOFError:
                break
            if beat:
                beat()
            if time.monotonic() >= checked + _CHECK_SECONDS:
                report = pipeline.snapshot()
                report.check()
                if look:
                    look(report)
                checked = time.monotonic()
            if watcher and time.monotonic() >= due:
                watcher.update(pipeline.snapshot())
                due = time.monotonic() + watcher.interval
            if interrupt and interrupt.requested and not draining:
                draining = True
                pipeline.drain(timeout=DRAIN_SECONDS)
    report = pipeline.report()
    report.check(ended=not draining)
    return report
