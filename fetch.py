"""Bytes of one item, from a path or by reference, with what keeps a reader thread from hanging or filling memory."""

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import Final

from .errors import ConfigError, ItemError, ReadError, TooLargeError
from .messages import kind_of_path, redact
from .references import Fetcher, Locator, Reference

_FOLDER: Final = "a directory; whole folders are for embed_images, or penstock embed"


class Fetchers:
    """Reads what lies elsewhere than in the task: files, and references by the fetcher that their locator makes.

    A fetcher is made when its first reference is read, and kept. Any thread may read.

    Args:
        max_bytes: of one picture; more are refused.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._open: dict[Locator, Fetcher] = {}
        self._lock = threading.Lock()

    def read(self, source: str | Reference) -> bytes:
        """The whole content of a file, or of what a reference is about.

        Raises:
            ItemError: it cannot be had. What is no ItemError of the fetcher's own is a ReadError with its words; of
                an OSError with its `errno`, which says whether it may be read another time.
        """
        if isinstance(source, str):
            return read_file(source, self._max_bytes)
        if source.version.size > self._max_bytes:
            raise too_large(source.ref, source.version.size, self._max_bytes)
        try:
            data = bytes(self._fetcher(source.locator).read(source.ref, source.version, self._max_bytes))
        except ItemError:
            raise
        except Exception as error:
            said = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
            refused = ReadError(redact(f"{source.ref!r} cannot be read: {said}"))
            refused.errno = _errno(error)
            raise refused from error
        if len(data) > self._max_bytes:
            raise too_large(source.ref, len(data), self._max_bytes)
        return data

    def _fetcher(self, locator: Locator) -> Fetcher:
        found = self._open.get(locator)
        if found is None:
            with self._lock:
                found = self._open.get(locator)
                if found is None:
                    found = self._open[locator] = locator.open()
        return found


def _errno(error: Exception) -> int | None:
    if isinstance(error, TimeoutError):
        return error.errno or errno.ETIMEDOUT
    if isinstance(error, ConnectionError):
        return error.errno or errno.ECONNRESET
    return error.errno if isinstance(error, OSError) else None


def too_large(name: str, nbytes: int, max_bytes: int) -> TooLargeError:
    """What is said of a picture with more bytes than are allowed."""
    return TooLargeError(f"{name!r} has {nbytes} bytes; max_file_bytes allows {max_bytes}")


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
        refused = ReadError(f"{path!r} cannot be read: {error.strerror or error}")
        refused.errno = error.errno  # says whether it may be read another time
        raise refused from error
    except ValueError as error:  # a NUL byte in the name
        raise ReadError(f"{path!r} is not a possible file name: {error}") from error


def _check_regular(path: str, found: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _FOLDER if stat.S_ISDIR(found.st_mode) else kind_of_path(found.st_mode)
        raise ReadError(f"{path!r} is not a regular file but {kind}")
    if found.st_size > max_bytes:
        raise too_large(path, found.st_size, max_bytes)


def _read_all(fd: int, size: int) -> bytes:
    data = os.read(fd, size)
    if len(data) == size:  # one call for anything on a local disk
        return data
    parts = [data]
    while parts[-1] and (left := size - sum(map(len, parts))) > 0:
        parts.append(os.read(fd, left))
    return b"".join(parts)
