"""Where something is: the stacks of threads, fibers and coroutines as lines of text, from any thread.

Nothing here waits for what it looks at, and nothing stops it: what is under way may have moved on when it is read.
"""

from __future__ import annotations

import linecache
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any

from ...formatting import printable
from ..core import runners
from ..core import source_reader as reader
from ..core.hub import Fiber
from ..core.operations import advance

_INNERMOST = 20
"""Frames shown of a stack: those nearest to where it stands."""

_MACHINE = frozenset({reader.__file__, runners.__file__})
"""Files that call what users wrote: what is outside of such a call is the same in every stack."""

_Line = tuple[CodeType, int]


def of_thread(ident: int) -> list[str]:
    """The stack of a thread of this process, innermost last; nothing where it has ended."""
    return _text(list(_outwards(_frames().get(ident))))


def of_fiber(fiber: Fiber, thread: int) -> list[str]:
    """The stack of a fiber: its own where it waits, else that of the thread whose hub it runs on."""
    frame = fiber.gr_frame
    return of_thread(thread) if frame is None else _text(list(_outwards(frame)))


def of_coroutine(coroutine: object) -> list[str]:
    """Where a coroutine waits, through all that it awaits."""
    return _text(list(_inwards(coroutine))[::-1])


def of_call(place: object, executor: Executor | None) -> tuple[str, list[str]]:
    """Where an operation outside the hub is, in words, and its stack.

    Args:
        place: see `runners.Call`.
        executor: the stage's, if it has one: a future does not know who works on it.
    """
    match place:
        case int():
            return f"in thread {_names().get(place, place)}", of_thread(place)
        case Future():
            return _in_executor(place, executor), []
        case None:
            return "waiting for a free thread", []
        case _:
            return "on the asyncio loop", of_coroutine(place)


def of_all_threads() -> list[str]:
    """The stacks of all threads of this process, each under its name."""
    names, lines = _names(), list[str]()
    for ident, frame in _frames().items():
        lines.append(f"thread {names.get(ident, ident)}")
        lines += indented(_text(list(_outwards(frame)), whole=True))
    return lines


def indented(lines: list[str]) -> list[str]:
    """The same, two spaces to the right."""
    return [f"  {line}" for line in lines]


def _in_executor(future: Future[Any], executor: Executor | None) -> str:
    name = type(executor).__name__
    if not (future.running() or future.done()):
        return f"waiting for a worker of its {name}"
    pids = getattr(executor, "pids", None) or list(getattr(executor, "_processes", None) or ())
    return f"in its {name}" + (f" of {', '.join(f'pid {pid}' for pid in pids)}" if pids else "")


def _frames() -> dict[int, FrameType]:
    return sys._current_frames()  # pyright: ignore[reportPrivateUsage]  (public but for its name)


def _names() -> dict[int, str]:
    return {thread.ident: printable(thread.name) for thread in threading.enumerate() if thread.ident is not None}


def _outwards(frame: FrameType | None) -> Iterator[_Line]:
    """From the innermost frame on."""
    while frame is not None:
        yield frame.f_code, frame.f_lineno
        frame = frame.f_back


def _inwards(awaited: object) -> Iterator[_Line]:
    """From the outermost coroutine to the one that waits for something else."""
    while True:
        match awaited:
            case CoroutineType():
                frame, inner = awaited.cr_frame, awaited.cr_await
            case AsyncGeneratorType():
                frame, inner = awaited.ag_frame, awaited.ag_await
            case GeneratorType():
                frame, inner = awaited.gi_frame, awaited.gi_yieldfrom
            case _:
                return
        if frame is None:
            return
        yield frame.f_code, frame.f_lineno
        # What `anext` returns does not say which generator it is about.
        awaited = frame.f_locals["iterator"] if frame.f_code is advance.__code__ else inner


def _text(stack: list[_Line], whole: bool = False) -> list[str]:
    """Lines for a stack that is given innermost first; what is outside of a user's function only with `whole`."""
    ours = next((index for index, (code, _) in enumerate(stack) if code.co_filename in _MACHINE), 0)
    if ours and not whole:
        stack = stack[:ours]
    shown = [
        f"{printable(code.co_filename)}:{number} in {printable(code.co_name)}: {_source(code, number)}"
        for code, number in reversed(stack[:_INNERMOST])
    ]
    return [f"... {len(stack) - _INNERMOST} more outside", *shown] if len(stack) > _INNERMOST else shown


def _source(code: CodeType, number: int) -> str:
    return printable(linecache.getline(code.co_filename, number).strip())
