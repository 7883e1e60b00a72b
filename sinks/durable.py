"""Bytes and names on the medium, where a power failure leaves them."""

from __future__ import annotations

import os
from pathlib import Path


def sync_path(path: Path) -> None:
    """Back only when the bytes of a file, or the names in a folder, are on the medium.

    Raises:
        OSError: the disk refuses, or nothing is there.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put(unfinished: Path, target: Path) -> None:
    """Give a complete file its name. Its bytes and its name are on the medium when it returns.

    Raises:
        OSError: the disk refuses.
    """
    sync_path(unfinished)
    unfinished.replace(target)
    sync_path(target.parent)
