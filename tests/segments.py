"""Shared memory of the dead: what a test may have left behind. Segments that somebody owns are other tests'."""

from __future__ import annotations

import threading
import time

from penstock.shm import orphans
from penstock.tests.waiting import patient


def abandoned() -> set[str]:
    """Paths of penstock's segments that nobody owns."""
    return {orphan.path for orphan in orphans()}


def left_since(before: set[str], seconds: float = patient(5.0)) -> set[str]:
    """Those that came later and are not swept within that time: tests beside this one kill owners, too."""
    pause, deadline = threading.Event(), time.monotonic() + seconds
    while (new := abandoned() - before) and time.monotonic() < deadline:
        pause.wait(0.05)
    return new
