"""How a running job is shown: a live table, lines, JSON lines, or nothing. Always on standard error.

Standard output is left to the result, so ``penstock embed ... --progress json > report.json`` does what it seems to.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, TextIO

from ...formatting import count, duration, percent, plural, printable, rate, size
from .render_text import mean_rate, report_json
from .report import Report, StageReport

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_ECHO: Final = 4
"""Columns left free behind the live table, where the terminal shows the ^C that is typed, twice: in a line of its own
it would keep a line of the table from being wiped."""

Total = Callable[[], int | None]
Mode = Literal["auto", "plain", "json", "none"]


class Progress(Protocol):
    """Who is told how a job goes.

    Attributes:
        interval: seconds between two calls of ``update`` that make sense.
    """

    interval: float

    def update(self, report: Report) -> None:
        """Show how things are."""
        ...

    def announce(self, text: str) -> None:
        """Say something that stays, now. May be called by a signal handler in the middle of ``update``."""
        ...

    def close(self, report: Report | None = None) -> None:
        """The job is over, well or not; idempotent. The terminal is as it was."""
        ...


def make_progress(mode: Mode, total: Total = lambda: None, stream: TextIO | None = None) -> Progress:
    """The way to show progress.

    Args:
        mode: auto is a live table on a terminal and plain lines elsewhere.
        total: how many items there will be, if that is known by now.
        stream: standard error by default.
    """
    out = stream or sys.stderr
    match mode:
        case "none":
            return Quiet(out, total)
        case "json":
            return JsonLines(out, total)
        case "auto" if out.isatty():
            return LiveTable(out, total)
        case _:
            return PlainLines(out, total)


def done(report: Report) -> int:
    """Items whose fate is known."""
    books = report.accounting
    return books.written + books.filtered + books.dead


def eta(report: Report, total: int | None) -> float | None:
    """Seconds to go, at the rate since the first result; None while there is nothing to tell it by."""
    finished, last = done(report), report.stages[-1] if report.stages else None
    if total is None or last is None or last.rate <= 0 or not report.accounting.written:
        return None
    # What is filtered costs next to nothing: only the share that gets written takes time.
    return max(0, total - finished) * (report.accounting.written / finished) / last.rate


class _OnStream:
    """Progress on a stream. What holds no part of the screen lets whatever else is said be written beside it."""

    def __init__(self, stream: TextIO, total: Total) -> None:
        self._stream = stream
        self._total = total

    def announce(self, text: str) -> None:
        """A line of its own, past every buffer: the signal may have come in the middle of a ``print``."""
        os.write(2, f"\n{text}\n".encode())


class Quiet(_OnStream):
    """Nothing."""

    interval: float = 60.0

    def update(self, report: Report) -> None:
        """Show nothing."""

    def close(self, report: Report | None = None) -> None:
        """Show nothing."""


class PlainLines(_OnStream):
    """One line every few seconds, for logs."""

    interval: float = 5.0

    def update(self, report: Report) -> None:
        """A line with the whole and the slowest stage: short enough for the width of a log."""
        if report.accounting.read:
            print(self._line(report), file=self._stream, flush=True)

    def close(self, report: Report | None = None) -> None:
        """The report says the rest."""

    def _line(self, report: Report) -> str:
        slowest = [
            f" | slowest: {printable(stage.name)} {rate(stage.rate_now)} {percent(stage.busy)} busy{_waiting(stage)}"
            for stage in report.stages
            if report.bottleneck and stage.name == report.bottleneck.stage
        ]
        return f"[{duration(report.seconds)}] {summary(report, self._total())}{''.join(slowest[:1])}"


class JsonLines(_OnStream):
    """One JSON object a second, for machines: the report so far, with ``event``, ``total`` and ``eta_seconds``."""

    interval: float = 1.0

    def update(self, report: Report) -> None:
        """A line."""
        total = self._total()
        line: dict[str, Any] = {"event": "progress", "total": total, "eta_seconds": eta(report, total)}
        print(json.dumps(line | report_json(report)), file=self._stream, flush=True)

    def close(self, report: Report | None = None) -> None:
        """The report is the last object, on standard output."""


class LiveTable(_OnStream):
    """A table that is painted over, and gone at the end. What is announced stands above it, and stays."""

    interval: float = 0.25
    _COLUMNS: ClassVar = ("stage", "done", "now", "mean", "busy", "waiting", "failed")

    def __init__(self, stream: TextIO, total: Total) -> None:
        super().__init__(stream, total)
        self._live: Live | None = None
        self._painting = False
        self._announced: list[str] = []

    def update(self, report: Report) -> None:
        """Paint."""
        with self._paints():
            if self._live is None:
                from rich.console import Console
                from rich.live import Live

                self._live = Live(console=Console(file=self._stream), auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(self._picture(report, self._live.console.width - _ECHO), refresh=True)

    def announce(self, text: str) -> None:
        """Above the table: at once, or when what is being painted just now is there."""
        if self._painting:
            self._announced.append(text)
        elif self._live is None:
            super().announce(text)
        else:
            with self._paints():
                self._announced.append(text)

    def close(self, report: Report | None = None) -> None:
        """Wipe."""
        del report  # it is printed by whoever asked for the job
        with self._paints():
            pass  # what could not be said before
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    @contextmanager
    def _paints(self) -> Generator[None]:
        """The terminal is ours while the block runs; behind it, what was announced is said."""
        self._painting = True
        try:
            yield
            # A signal amid another print on this terminal: rich keeps its text for the next one.
            with suppress(RuntimeError):
                self._say()
        finally:
            self._painting = False

    def _say(self) -> None:
        while self._announced and self._live is not None:
            from rich.text import Text

            self._live.console.print(Text(self._announced.pop(0)))

    def _picture(self, report: Report, width: int) -> RenderableType:
        from rich.console import Group
        from rich.constrain import Constrain
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for index, name in enumerate(self._COLUMNS):
            table.add_column(name, justify="left" if index == 0 else "right", header_style="dim")
        slow = report.bottleneck.stage if report.bottleneck else None
        for stage in report.stages:
            # Text, not str: a name with [brackets] must not be taken for markup.
            cells = [Text(cell) for cell in _live_cells(stage, stage.name == slow)]
            table.add_row(*cells, style="bold" if stage.name == slow else "")
        return Constrain(Group(Text(f"{duration(report.seconds)}  {summary(report, self._total())}"), table), width)


def summary(report: Report, total: int | None) -> str:
    """The job in one line: done of total, rates, ETA, failures, memory."""
    finished, last = done(report), report.stages[-1] if report.stages else None
    parts = [count(finished) + (f" of {count(total)} ({percent(finished / total)})" if total else "")]
    if last is not None and last.items_out:
        parts.append(f"{rate(last.rate_now)} now, {rate(last.rate)} since warm-up")
    seconds = eta(report, total)
    if seconds is not None:
        parts.append(f"{duration(seconds)} to go")
    if report.accounting.dead:
        parts.append(f"dead {count(report.accounting.dead)}")
    if report.accounting.filtered:
        parts.append(f"filtered {count(report.accounting.filtered)}")
    if report.memory:
        parts.append(size(report.memory.now))
    if volumes := report.extra.get("volumes"):
        parts.append(f"{count(volumes['published'])} of {plural(volumes['all'], 'volume')}")
    if videos := report.extra.get("videos"):
        pace = f", {videos['seconds'] / report.seconds:.3g} s each second" if report.seconds else ""
        parts.append(f"{plural(videos['frames']['created'], 'frame')} of {duration(videos['seconds'])} of video{pace}")
        if videos.get("downloads"):
            parts.append(f"{plural(len(videos['downloads']), 'download')}, {size(videos['disk'])} on disk")
    store = report.extra.get("store") or {}
    if store.get("waiting", 0) >= 1:
        behind = f", {plural(int(store['behind']), 'row')} behind the others" if store.get("behind") else ""
        parts.append(f"waiting for the store, {store['waiting']:.0f} of {store['retry_for']:g} s{behind}")
    if index := report.extra.get("index"):
        parts.append(f"index covers {count(index['indexed'])} of {count(index['rows'])} rows")
    return ", ".join(parts)


def _live_cells(stage: StageReport, slow: bool) -> list[str]:
    channel = stage.channel
    return [
        printable(stage.name) + (" <- slowest" if slow else ""),
        count(stage.items_out),
        rate(stage.rate_now),
        mean_rate(stage),
        percent(stage.busy),
        f"{channel.items}/{channel.capacity}" if channel else "",
        count(stage.failed) if stage.failed else "",
    ]


def _waiting(stage: StageReport) -> str:
    return f" {stage.channel.items}/{stage.channel.capacity} waiting" if stage.channel else ""
