"""Sources that end whoever reads them early: by an error of their own, and by Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.tests.waiting import DEADLINE


def failing(paths: Iterable[Path]) -> Iterator[Path]:
    """All of them, then an error."""
    yield from paths
    raise OSError("the camera is gone")


@contextmanager
def interrupted(paths: Iterable[Path]) -> Generator[Iterator[Path]]:
    """A source for the block to read: all of them, then Ctrl-C while the next one is waited for, which ends it."""
    go = threading.Event()

    def source() -> Iterator[Path]:
        yield from paths
        os.kill(os.getpid(), signal.SIGINT)
        go.wait(DEADLINE)

    try:
        with pytest.raises(KeyboardInterrupt):
            yield source()
    finally:
        go.set()
