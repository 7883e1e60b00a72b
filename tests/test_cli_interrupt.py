"""Ctrl-C on a terminal: what it says stays on the screen, and nothing of the table does."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from penstock.engine.observe.progress import LiveTable, make_progress
from penstock.tests.screen import Terminal, halfway, shown

ANSWER = "penstock: finishing what is in flight; once more (Ctrl-C) to leave at once"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    return Terminal()


def table_of(terminal: io.StringIO) -> LiveTable:
    made = make_progress("auto", stream=terminal)
    assert isinstance(made, LiveTable)
    return made


def is_table(line: str) -> bool:
    return line.startswith(("stage", "source", "sink", "5.0 s"))


def test_what_is_announced_stays_above_the_table_at_once_and_after(terminal: Terminal) -> None:
    """It is not painted over, and no line of an older table stays behind."""
    progress = table_of(terminal)
    progress.update(halfway())
    before = len(shown(terminal.getvalue()))
    progress.announce(ANSWER)
    assert shown(terminal.getvalue())[0] == ANSWER
    for _ in range(3):
        progress.update(halfway())
    lines = shown(terminal.getvalue())
    assert lines[0] == ANSWER
    assert len(lines) == before + 1
    progress.close()
    assert shown(terminal.getvalue()) == [ANSWER]


def test_what_is_announced_in_the_middle_of_painting_is_said_behind_it(terminal: Terminal) -> None:
    """A signal comes whenever it likes; the terminal is not entered twice."""
    progress = table_of(terminal)
    progress.update(halfway())
    signals = [ANSWER]

    def write(text: str) -> int:
        if signals:
            progress.announce(signals.pop())
            assert ANSWER not in terminal.getvalue()
        return io.StringIO.write(terminal, text)

    terminal.write = write  # type: ignore[method-assign]
    progress.update(halfway())
    assert shown(terminal.getvalue())[0] == ANSWER
    progress.close()
    assert shown(terminal.getvalue()) == [ANSWER]


def test_a_terminal_that_cannot_be_written_to_now_is_told_later(terminal: Terminal) -> None:
    """The signal may have come amid another print, whose buffer cannot be entered again."""
    progress = table_of(terminal)
    progress.update(halfway())
    failures = [RuntimeError("reentrant call")]

    def write(text: str) -> int:
        if failures:
            raise failures.pop()
        return io.StringIO.write(terminal, text)

    terminal.write = write  # type: ignore[method-assign]
    progress.announce(ANSWER)
    assert not failures
    progress.update(halfway())
    progress.close()
    assert shown(terminal.getvalue()).count(ANSWER) == 1


_JOB = """
import os, signal, sys
from penstock.engine.cli import main
from penstock.engine.jobs.images import run_job as images
from penstock.tests.screen import halfway

def run_job(config, things, watcher, interrupt, begins):
    watcher.update(halfway())
    os.kill(os.getpid(), signal.SIGINT)
    assert interrupt.requested
    watcher.update(halfway())
    {then}
    return halfway()

images.run_job = run_job
sys.exit(main(["embed", {pictures!r}, "--to", "a.db"]))
"""


_SHELL = '"$@"; status=$?; printf "$ "; exit $status'


def on_a_terminal(code: str) -> tuple[int, list[str]]:
    """Exit status, and what the terminal shows in the end above the shell's prompt, which has a line of its own."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    command = ["sh", "-c", _SHELL, "sh", sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        with os.fdopen(ours, "rb", buffering=0) as reader:
            try:
                while said := reader.read(65536):
                    written += said
            except OSError:  # Linux says so at the end
                pass
    *lines, prompt = shown(written.decode())
    assert prompt == "$"
    return process.returncode, lines


@pytest.mark.slow
def test_the_answer_to_ctrl_c_is_there_to_read(tmp_path: Path) -> None:
    """Above the report, with nothing of the table; and the end says truly what the same command would do."""
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    status, lines = on_a_terminal(_JOB.format(pictures=str(tmp_path), then="pass"))
    assert status == 130
    assert lines[0] == ANSWER
    assert lines[1].startswith("480 pictures in")
    assert lines[-1].startswith("penstock: interrupted: the same command does all of it again")
    assert lines[-1].endswith("add --job DIR to go on where it was")


@pytest.mark.slow
def test_leaving_at_once_leaves_the_prompt_a_line_of_its_own(tmp_path: Path) -> None:
    """And the answer to the first Ctrl-C."""
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    then = "os.kill(os.getpid(), signal.SIGINT)"
    status, lines = on_a_terminal(_JOB.format(pictures=str(tmp_path), then=then))
    assert status == 130
    assert lines[0] == ANSWER
    assert is_table(lines[-1])
