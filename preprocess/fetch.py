"""Bytes of one item from a path, with the refusals that keep a reader thread from hanging or filling memory."""

from __future__ import annotations

import os
import stat
from typing import Final

from ..errors import ItemError, ReadError, TooLargeError
from ..messages import kind_of_path

_FOLDER: Final = "a directory; whole folders are for embed_images, or penstock embed"


def read_file(path: str, max_bytes: int) -> bytes:
    """The whole content of a regular file, read once.

    Anything else is refused without being opened: opening a FIFO waits for a writer for ever, and opening a device can
    do things. (Opened non-blocking all the same, for what is swapped in between.)

    Args:
        path: Symbolic links are followed.
        max_bytes: Larger files are refused unread.

    Raises:
        ReadError: Not there, not readable, not a regular file. Its `errno` is the system's, if it was the system.
        TooLargeError: More than `max_bytes`.
    """
    try:
        _check_regular(path, os.stat(path), max_bytes)  # noqa: PTH116  (once per item, and surrogates must pass)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            _check_regular(path, found, max_bytes)
            return _read_all(fd, found.st_size)
        finally:
            os.close(fd)
    except ItemError:
        raise
    except OSError as error:
        told = ReadError(f"{path!r} cannot be read: {error.strerror or error}")
        told.errno = error.errno  # says whether it may be read another time
        raise told from error
    except ValueError as error:  # a NUL byte in the name
        raise ReadError(f"{path!r} is not a possible file name: {error}") from error


def _check_regular(path: str, found: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _FOLDER if stat.S_ISDIR(found.st_mode) else kind_of_path(found.st_mode)
        raise ReadError(f"{path!r} is not a regular file but {kind}")
    if found.st_size > max_bytes:
        raise TooLargeError(f"{path!r} has {found.st_size} bytes; max_file_bytes allows {max_bytes}")


def _read_all(fd: int, size: int) -> bytes:
    data = os.read(fd, size)
    if len(data) == size:  # one call for anything on a local disk
        return data
    parts = [data]
    while parts[-1] and (left := size - sum(map(len, parts))) > 0:
        parts.append(os.read(fd, left))
    return b"".join(parts)
