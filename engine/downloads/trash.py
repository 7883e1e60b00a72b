"""Deleting below one folder and nowhere else: names are moved into its trash at once, and go from there by and by."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

TRASH: Final = ".trash"

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened(root: int, parts: Sequence[str]) -> Generator[int]:
    """A descriptor of a folder below another one, by a way without links.

    Args:
        root: descriptor of the upper one.
        parts: names on the way.

    Raises:
        OSError: there is no such folder, or a link on the way (ELOOP, ENOTDIR).
        ValueError: a part is no name: it would lead elsewhere.
    """
    folder = os.dup(root)
    try:
        for part in parts:
            _check_name(part)
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def discard(root: int, parts: Sequence[str]) -> int:
    """Delete a file, or a folder with all that is in it. A link is deleted itself, what it leads to is never touched.

    It is gone for everybody in one step, and a process that dies in the middle leaves what `empty` takes away.

    Args:
        root: descriptor of the folder that it must lie below.
        parts: names on the way to it; at least one.

    Returns:
        Bytes that it had; 0 where nothing was.

    Raises:
        OSError: it cannot be deleted.
        ValueError: a part is no name.
    """
    with suppress(FileExistsError):
        os.mkdir(TRASH, 0o700, dir_fd=root)
    name = secrets.token_hex(8)
    try:
        with opened(root, parts[:-1]) as folder, opened(root, [TRASH]) as trash:
            _check_name(parts[-1])
            os.rename(parts[-1], name, src_dir_fd=folder, dst_dir_fd=trash)
            return _delete(trash, name)
    except FileNotFoundError:
        return 0


def empty(root: int) -> int:
    """Delete what lies in the trash; returns its bytes.

    Raises:
        OSError: it cannot be deleted.
    """
    try:
        with opened(root, [TRASH]) as trash:
            return sum(_delete(trash, name) for name in names(trash))
    except FileNotFoundError:
        return 0


def names(folder: int) -> list[str]:
    """What lies in a folder, sorted."""
    with os.scandir(folder) as found:
        return sorted(each.name for each in found)


def nbytes(folder: int, name: str) -> int:
    """Bytes of a file, or of all files in a folder, links not followed; 0 where nothing is."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return 0
    if not stat.S_ISDIR(found.st_mode):
        return found.st_size
    with suppress(FileNotFoundError), opened(folder, [name]) as inner:
        return sum(nbytes(inner, each) for each in names(inner))
    return 0


def _delete(folder: int, name: str) -> int:
    size = nbytes(folder, name)
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        shutil.rmtree(name, dir_fd=folder)  # by descriptors, without following links
    else:
        os.unlink(name, dir_fd=folder)
    return size


def _check_name(part: str) -> None:
    if part in ("", ".", "..") or "/" in part:
        raise ValueError(f"{part!r} is no name of a file")
