"""What processes write to standard error while somebody waits for it."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def kept_in(file: Path) -> Generator[None]:
    """While the block runs, all that this process and its children write to standard error goes into a file.

    For a test that waits for words. pytest's `capfd` is for what has been written: it empties its file after each
    reading, and what is written in between is lost. No fixture, since pytest points the descriptor elsewhere between a
    test's set-up and its call.
    """
    before = os.dup(2)
    with file.open("ab") as opened:
        os.dup2(opened.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
