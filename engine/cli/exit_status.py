"""How a command ends: its exit status, one paragraph for what went wrong, and the two Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

import click

from ...errors import ConfigError, FailureBudgetError, PenstockError, PipelineFailure
from ...formatting import printable

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_SHOWN = 3
"""Causes of a failure to print; they are alike most of the time."""


class Interruptible(Protocol):
    """What can be asked to finish early."""

    def request(self) -> None:
        """Ask for it; called in a signal handler."""
        ...


def run_command(command: Callable[[], object], debug: bool) -> int:
    """Run a click command to its exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        status = command()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        complain("interrupted")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  (the outermost frame: nothing may end in a traceback without being asked)
        if debug:
            traceback.print_exc()
        complain(explained(error, debug))
        return USAGE if _is_usage(error) else FAILED
    return status if isinstance(status, int) else OK


def explained(error: BaseException, debug: bool = False) -> str:
    """What went wrong, in one paragraph."""
    if isinstance(error, FailureBudgetError):
        return ". ".join([f"the job failed: {error.message}", *getattr(error, "__notes__", ())])
    leaves = list(_leaves(error))
    expected = debug or all(isinstance(leaf, (PenstockError, OSError)) for leaf in leaves)
    shown = [_line(leaf) for leaf in leaves[:_SHOWN]]
    more = f"; and {len(leaves) - _SHOWN} more" if len(leaves) > _SHOWN else ""
    text = f"{'; '.join(shown)}{more}{'' if expected else ' (--debug shows where)'}"
    if isinstance(error, PipelineFailure):
        text = ". ".join([f"the job failed: {text}", *getattr(error, "__notes__", ())])
    return text


def complain(text: str) -> None:
    """A message on standard error; hostile names in it are escaped, its own lines stay lines."""
    for line in text.split("\n"):
        print(f"penstock: {printable(line)}", file=sys.stderr)
    sys.stderr.flush()


def say(text: str) -> None:
    """A result on standard output. If nobody reads it any more (``| head``), the work is done all the same."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The interpreter flushes at exit and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def draining(interrupt: Interruptible, announce: Callable[[str], None]) -> Generator[None]:
    """While the block runs, the first SIGINT or SIGTERM asks to finish what is in flight, the second leaves at once.

    Args:
        interrupt: what is asked.
        announce: says so to the user; called in the signal handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del number, frame
        if asked:
            _leave()
        asked = True
        interrupt.request()
        announce("penstock: finishing what is in flight; once more (Ctrl-C) to leave at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave() -> None:
    """At once: workers see the end of their sockets and go, the next start sweeps what is left of shared memory."""
    if os.isatty(2):
        os.write(2, b"\x1b[?25h\n")  # the live table hides the cursor, and has it at the end of its last line
    os._exit(INTERRUPTED)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error


def _line(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    named = text if isinstance(error, PenstockError) else f"{type(error).__name__}: {text}"
    notes = [note for note in getattr(error, "__notes__", ()) if "\n" not in note]
    return f"{named} ({', '.join(notes)})" if notes else named


def _is_usage(error: BaseException) -> bool:
    return all(isinstance(leaf, ConfigError) for leaf in _leaves(error))
