"""Files that are there whole or not at all, also after a power failure."""

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


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file so that nobody ever sees half of it.

    Raises:
        OSError: the disk refuses; names the file.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        put(beside, target)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written ({error.strerror}); free some space", str(target)) from error
    finally:
        beside.unlink(missing_ok=True)
