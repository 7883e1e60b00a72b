"""Progress: what is shown where, at which moment, and that the terminal is left as it was."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest

from penstock.engine import Accounting, Report, StageReport
from penstock.engine.observe.progress import (
    JsonLines,
    LiveTable,
    PlainLines,
    Progress,
    Quiet,
    eta,
    make_progress,
    summary,
)
from penstock.tests.screen import Terminal, halfway


@pytest.mark.parametrize(
    ("mode", "stream", "kind"),
    [
        ("auto", Terminal(), LiveTable),
        ("auto", io.StringIO(), PlainLines),
        ("plain", Terminal(), PlainLines),
        ("json", Terminal(), JsonLines),
        ("none", Terminal(), Quiet),
    ],
)
def test_the_mode_decides_and_auto_looks_at_the_stream(mode: str, stream: io.StringIO, kind: type[Progress]) -> None:
    """A live table would fill a log file with escape sequences."""
    made = make_progress(mode, stream=stream)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert isinstance(made, kind)
    assert made.interval > 0


def test_a_plain_line_names_rates_failures_and_the_slowest_stage() -> None:
    """All on one line of a log's width, whatever a stage is called."""
    stream = io.StringIO()
    make_progress("plain", lambda: 1000, stream).update(halfway())
    (line,) = stream.getvalue().splitlines()
    for words in (
        "500 of 1,000 (50 %)",
        "97/s now, 100/s since warm-up",
        "4.8 s to go",
        "dead 10",
        "filtered 10",
        "slowest: [red]prep\\x1b[0m 98/s 97 % busy 2/4 waiting",
    ):
        assert words in line
    assert len(line) < 160


def test_nothing_is_said_before_anything_was_read() -> None:
    """A log needs no line that says nothing."""
    stream = io.StringIO()
    make_progress("plain", stream=stream).update(Report())
    assert stream.getvalue() == ""


def test_no_rate_is_told_before_the_first_result() -> None:
    """While workers start, 0.0/s looks broken."""
    starting = Report(Accounting(read=64, in_flight=64), [StageReport("sink", "sink")], seconds=0.5)
    volumes = replace(starting, extra={"volumes": {"published": 1, "all": 3}})
    assert summary(volumes, 1000) == "0 of 1,000 (0 %), 1 of 3 volumes"
    assert summary(starting, 1000) == "0 of 1,000 (0 %)"


def test_json_lines_are_objects_with_the_report_so_far() -> None:
    """One per update, readable while it is written."""
    stream = io.StringIO()
    progress = make_progress("json", lambda: 1000, stream)
    progress.update(Report())
    progress.update(halfway())
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["eta_seconds"]) == ("progress", None)
    assert second["accounting"]["dead"] == 10
    assert second["total"] == 1000
    assert second["eta_seconds"] == pytest.approx(4.8)


def test_a_live_table_shows_each_stage_and_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are text, not markup; the cursor is back at the end; closing twice is harmless."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    progress = make_progress("auto", lambda: None, stream)
    progress.update(halfway())
    progress.update(halfway())
    shown = stream.getvalue()
    assert "[red]prep\\x1b[0m <- slowest" in shown
    assert "2/4" in shown
    progress.close(halfway())
    progress.close()
    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l")


def test_a_live_table_leaves_room_for_what_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a narrow terminal, too: an echoed ^C that wraps moves the table down, and a line of it would stay for good."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "50")
    stream = Terminal()
    progress = make_progress("auto", lambda: 1000, stream)
    progress.update(halfway())
    progress.close()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).splitlines()
    assert 40 < max(map(len, lines)) <= 46


def test_a_live_table_that_never_painted_can_be_closed() -> None:
    """A job may fail before its first figure."""
    stream = Terminal()
    make_progress("auto", stream=stream).close()
    assert stream.getvalue() == ""


def test_quiet_says_nothing() -> None:
    """At no time."""
    stream = Terminal()
    progress = make_progress("none", stream=stream)
    progress.update(halfway())
    progress.close(halfway())
    assert stream.getvalue() == ""


def test_the_time_to_go_is_told_only_when_it_can_be() -> None:
    """Not without a total, not before the first result, and never negative."""
    assert eta(halfway(), None) is None
    assert eta(Report(), 1000) is None
    assert eta(halfway(), 1000) == pytest.approx(500 * (480 / 500) / 100)
    assert eta(halfway(), 100) == 0
