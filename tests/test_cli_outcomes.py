"""How a command ends: its exit status, and what it says of failures, interrupts and readers that go away.

The job itself is replaced here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from penstock.engine import Accounting, Report
from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.images import run_job as images
from penstock.engine.sources import Entry
from penstock.errors import (
    AccountingError,
    ConfigError,
    DeadlineError,
    DecodeError,
    FailureBudgetError,
    PipelineFailure,
    PoisonItemError,
    ReadError,
    SinkUnavailableError,
    SourceError,
    TooLargeError,
    TruncatedError,
    UnreadableError,
)
from penstock.sinks import DeadLetters
from penstock.tests.waiting import DEADLINE
from penstock.tests.whole_jobs import draw_folder

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_folder(tmp_path / "pictures", 2)


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Replaces the job by one that raises."""

    def run_job(*args: Any, **how: Any) -> Report:
        raise error

    monkeypatch.setattr(images, "run_job", run_job)


# -- statuses and messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [{}, {"nothing_written": "nothing was read: the folder 'pictures' has no files"}])
def test_a_job_that_wrote_nothing_is_no_failure_but_is_said(
    monkeypatch: pytest.MonkeyPatch, pictures: Path, extra: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A nightly job over a folder without news must not alarm anybody."""
    monkeypatch.setattr(images, "run_job", lambda *_, **__: Report(extra=extra))
    assert main(["embed", str(pictures), "--to", "a.db", "--progress", "none"]) == 0
    assert "".join(extra.values()) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("books", "status"),
    [
        ({"written": 0, "dead": 2, "filtered": 7, "remaining": 0, "entries": 9}, 1),
        ({"written": 1, "dead": 2, "filtered": 0, "remaining": 0, "entries": 3}, 0),
        (None, 1),
    ],
)
def test_a_job_in_which_every_item_died_fails(
    monkeypatch: pytest.MonkeyPatch, pictures: Path, books: dict[str, int] | None, status: int
) -> None:
    """Of the whole job, where it keeps books: a retry that heals nothing is no failure of what was written before."""
    report = Report(Accounting(read=2, failed=2), extra={"job": books} if books else {})
    monkeypatch.setattr(images, "run_job", lambda *_, **__: report)
    assert main(["embed", str(pictures), "--to", "a.db", "--progress", "none"]) == status


def test_dead_letters_are_counted_by_kind_and_located(
    monkeypatch: pytest.MonkeyPatch, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user learns what went wrong without opening a file, and where the file is."""

    def run_job(config: ServiceConfig, source: Iterable[Entry], **how: Any) -> Report:
        with DeadLetters("a.dead-letters.jsonl") as dead:
            dead.write("x\n.jpg", "preprocess", UnreadableError("no picture"))
            dead.write("y.jpg", "preprocess", UnreadableError("no picture"))
        return Report(Accounting(read=3, delivered=1, failed=2))

    monkeypatch.setattr(images, "run_job", run_job)
    assert main(["embed", str(pictures), "--to", "a.db"]) == 0
    assert "2 dead letters in a.dead-letters.jsonl: UnreadableError 2" in capsys.readouterr().out


def test_kinds_of_dead_letters_that_are_not_named_are_counted(
    monkeypatch: pytest.MonkeyPatch, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures of the line add up to the number it begins with."""
    kinds = [UnreadableError, ReadError, TruncatedError, TooLargeError, DecodeError, DeadlineError, PoisonItemError]

    def run_job(config: ServiceConfig, source: Iterable[Entry], **how: Any) -> Report:
        with DeadLetters("a.dead-letters.jsonl") as dead:
            for number, kind in enumerate(kinds):
                for _ in range(8 - number):
                    dead.write("x.jpg", "preprocess", kind("no"))
        return Report(Accounting(read=36, delivered=1, failed=35))

    monkeypatch.setattr(images, "run_job", run_job)
    assert main(["embed", str(pictures), "--to", "a.db"]) == 0
    line = "35 dead letters in a.dead-letters.jsonl: UnreadableError 8, ReadError 7, TruncatedError 6, "
    assert f"{line}TooLargeError 5, DecodeError 4, and 5 of 2 other kinds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (PipelineFailure("stopped", [OSError("disk full")]), 1, "the job failed: OSError: disk full"),
        (PipelineFailure("stopped", [ValueError(str(n)) for n in range(9)]), 1, "and 6 more"),
        (FailureBudgetError("stage 'embed': 6 of 6 items failed", [OSError("x")]), 1, "failed: stage 'embed': 6 of 6"),
        (SinkUnavailableError("http://h:19530 does not answer: is it running?"), 1, "does not answer"),
        (AccountingError("the books do not balance"), 1, "the books do not balance"),
        (SourceError("the list went away"), 1, "the list went away"),
        (ConfigError("preset: 'x' is not known"), 2, "preset: 'x' is not known"),
        (PipelineFailure("stopped", [ConfigError("transform: no such module")]), 2, "transform"),
        (RuntimeError("a bug"), 1, "RuntimeError: a bug (--debug shows where)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_failed_job_ends_with_its_status_and_one_paragraph(
    monkeypatch: pytest.MonkeyPatch,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    words: str,
) -> None:
    """No traceback unless it is asked for."""
    failing(monkeypatch, error)
    assert main(["embed", str(pictures), "--to", "a.db", "--progress", "none"]) == status
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
    assert len(message.strip().splitlines()) == 1


def test_the_stage_of_a_failure_is_named(
    monkeypatch: pytest.MonkeyPatch, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The engine notes it on each cause; what was lost until then is located too."""
    cause = OSError("disk full")
    cause.add_note("stage insert")
    failing(monkeypatch, PipelineFailure("stopped", [cause]))
    with DeadLetters("a.dead-letters.jsonl") as dead:
        dead.write("x.jpg", "preprocess", UnreadableError("no picture"))
    main(["embed", str(pictures), "--to", "a.db", "--progress", "none"])
    message = capsys.readouterr().err
    assert "disk full (stage insert)" in message
    assert "listed in a.dead-letters.jsonl" in message


@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_traceback_is_shown_on_request(
    monkeypatch: pytest.MonkeyPatch, pictures: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    """By option or by variable."""
    failing(monkeypatch, RuntimeError("a bug"))
    if way == "variable":
        monkeypatch.setenv("PENSTOCK_DEBUG", "1")
    before = ["--debug"] if way == "option" else []
    assert main([*before, "embed", str(pictures), "--to", "a.db", "--progress", "none"]) == 1
    assert "Traceback" in capsys.readouterr().err


# -- signals and pipes: in processes of their own ------------------------------------------------------------

_PRELUDE = """
import os, signal, sys, threading, time
from penstock.engine import Accounting, Report
from penstock.engine.cli import main
from penstock.engine.jobs.images import run_job as images
from penstock.engine.jobs.common.memory_estimate import estimate_memory
from penstock.engine.jobs.common.plan import make_plan

def run_job(config, things, watcher, interrupt, begins):
    os.kill(os.getpid(), signal.{first})
    assert interrupt.requested
    {then}
    return Report(Accounting(read=2, delivered=2))

images.run_job = run_job
sys.exit(main(["embed", {folder!r}, "--to", "a.db", "--progress", "none"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_the_first_interrupt_lets_the_job_finish_what_it_holds(pictures: Path, first: str) -> None:
    """The report is printed, and the status says that it was interrupted."""
    code = _PRELUDE.format(first=first, then="pass", folder=str(pictures))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 130
    assert "finishing what is in flight" in done.stderr
    assert "the same command does all of it again" in done.stderr
    assert "read 2 = written 2" in done.stdout


@pytest.mark.slow
def test_the_second_interrupt_leaves_at_once(pictures: Path) -> None:
    """Also while something does not come to its end."""
    then = "os.kill(os.getpid(), signal.SIGINT); threading.Event().wait()"
    code = _PRELUDE.format(first="SIGINT", then=then, folder=str(pictures))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 130
    assert done.stdout == ""


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_failure(pictures: Path) -> None:
    """``penstock embed ... | head -1``: the work is done, and nobody wants a traceback."""
    code = _PRELUDE.replace("os.kill(os.getpid(), signal.{first})\n    assert interrupt.requested\n    {then}", "pass")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write) as out:
        done = subprocess.run(
            [sys.executable, "-c", code.format(folder=str(pictures))],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
