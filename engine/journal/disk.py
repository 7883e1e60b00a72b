"""What the disk refuses a job's books, in words; and the writes and reads of their files."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import partial
from typing import Final

from ... import durable
from ...durable import TEMPORARY, Disk, shut
from ...errors import JournalDiskError

__all__ = ["TEMPORARY", "Disk", "read_file", "reading", "replace_file", "shut", "writing"]

_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT})
"""Errors of a place that is the wrong one, and of no disk that is full or broken."""


@contextmanager
def writing(path: str) -> Generator[None]:
    """What the disk refuses becomes an error that says where, why, and that nothing is lost.

    Raises:
        JournalDiskError: the block met an OSError.
    """
    try:
        yield
    except JournalDiskError:
        raise
    except OSError as error:
        raise _refused(error, f"{path}: cannot be written: {error.strerror or error}; {_way_on(error)}") from error


@contextmanager
def reading(path: str) -> Generator[None]:
    """What the disk does not give becomes an error that says where and why.

    Raises:
        JournalDiskError: the block met an OSError.
    """
    try:
        yield
    except JournalDiskError:
        raise
    except OSError as error:
        raise _refused(error, f"{error.filename or path}: cannot be read: {error.strerror or error}") from error


def _way_on(error: OSError) -> str:
    if error.errno in _FORBIDDEN:
        return "the books of a job need a folder that may be written to: another --job folder, or other permissions"
    return "what was recorded before is safe: free some space or mend the disk, then run the job again and it resumes"


def _refused(error: OSError, message: str) -> JournalDiskError:
    refused = JournalDiskError(message)
    refused.errno = error.errno
    return refused


def read_file(disk: Disk, path: str) -> bytes:
    """A small file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    fd = disk.open(path, os.O_RDONLY)
    try:
        return disk.read(fd, disk.size(fd), 0)
    finally:
        shut(disk, fd)


def replace_file(disk: Disk, path: str, pieces: Iterable[bytes]) -> int:
    """Write a file of the job so that it is there whole or not at all; see `durable.replace_file`.

    Raises:
        JournalDiskError: the disk refused; what had the name still has it.
    """
    return durable.replace_file(path, pieces, disk=disk, refused=partial(writing, path))
