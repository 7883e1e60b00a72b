"""Runs a penstock command and tells what its hub's thread waited for; in a process of its own.

    python -m penstock.tests.hub_witness TOLD.json embed ...

What counts is what may wait for a disk or for another process: opening, reading, writing and renaming files, imports,
asking for the end of a process, polling and sleeping. Sockets, pipes and the loop's own wake-ups do not.
"""

from __future__ import annotations

import builtins
import fcntl
import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import psutil

_HUB = re.compile(r"penstock-\d+")
_BY_DESCRIPTOR = ("read", "write", "pread", "pwrite", "readv", "writev", "fsync", "fdatasync", "ftruncate")
_WAITING: dict[Any, tuple[str, ...]] = {
    os: ("open", "stat", "lstat", "waitpid", "waitid", "wait", "posix_fallocate", "sync", "listdir", "scandir"),
    builtins: ("open",),
    select: ("select", "epoll"),
    time: ("sleep",),
    fcntl: ("flock", "lockf"),
    subprocess: ("Popen",),
}
_FRAMES = 8
_EVENTS = re.compile(
    r"open|import|os\.(listdir|scandir|mkdir|rename|remove|rmdir|truncate|fork|exec|posix_spawn|system)"
)

waits: dict[str, str] = {}
"""What the hub's thread did, and where (the innermost frames) it did it first."""


def note(what: str) -> None:
    """Remember it, if this is the hub's thread."""
    if _HUB.fullmatch(threading.current_thread().name) and what not in waits:
        waits[what] = _whence()


def _whence() -> str:
    """Where we are, the innermost last. Without source lines: those would have to be read."""
    frame: FrameType | None = sys._getframe(3)  # pyright: ignore[reportPrivateUsage]
    lines: list[str] = []
    while frame is not None and len(lines) < _FRAMES:
        lines.append(f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return "\n".join(reversed(lines))


def _watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*arguments: Any, **named: Any) -> Any:
        note(name)
        return function(*arguments, **named)

    return watched


def _watched_file(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def watched(fd: int, *arguments: Any) -> Any:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode) or not stat.S_IFMT(mode)):  # an eventfd has no type
            note(name)
        return function(fd, *arguments)

    return watched


class _Poll:
    """As `select.poll()` makes them; to look without waiting is no wait."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        if timeout is None or timeout > 0:
            note("poll")
        found: list[tuple[int, int]] = self._made.poll(timeout)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def watch() -> None:
    """From now on what the hub's thread does is remembered."""
    make_poll = select.poll
    setattr(select, "poll", lambda: _Poll(make_poll()))  # noqa: B010  (it is declared as a function)
    for name in _BY_DESCRIPTOR:
        setattr(os, name, _watched_file(f"os.{name}", getattr(os, name)))
    for module, names in _WAITING.items():
        for name in names:
            setattr(module, name, _watched(f"{module.__name__}.{name}", getattr(module, name)))
    sys.addaudithook(lambda event, arguments: note(event) if _EVENTS.fullmatch(event) else None)


def flat(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A model: the same vector for every picture."""
    return np.ones((len(pixels), 4), np.float32)


_killed = threading.Event()


def flat_and_deadly(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same; the first call about pictures kills a worker."""
    workers = [child for child in psutil.Process().children(recursive=True) if child.name() == "penstock-worker"]
    if workers and not _killed.is_set():
        _killed.set()
        workers[0].send_signal(signal.SIGKILL)
    return flat(pixels)


def main(path: Path, command: list[str]) -> int:
    """Run it, and write down what was told."""
    watch()
    from ..engine.cli import main as run

    try:
        return run(command)
    finally:
        path.write_text(json.dumps(waits))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
