"""Files that hold many pictures, such as tars and tables: found by name, and read at offsets, wherever they lie."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from typing import BinaryIO, Final, NamedTuple, Self
from urllib.parse import quote, unquote

from ...durable import DISK
from ...errors import ItemError, ReadError
from .paths import look, reason

BLOCK: Final = 4 << 20
"""Bytes of a request while a container is read from one end to the other: 80 MB/s where an answer takes 50 ms."""


class Known(NamedTuple):
    """What is known of a file's content; of another content something differs. As text it holds no colon or space.

    Attributes:
        size: bytes.
        modified_ns: time of the last change in ns since 1970.
        etag: of an object; empty for a file.
    """

    size: int
    modified_ns: int
    etag: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of its text.

        Raises:
            ValueError: it is none.
        """
        size, modified_ns, etag = text.split(".", 2)
        return cls(int(size), int(modified_ns), unquote(etag))

    def __str__(self) -> str:
        return f"{self.size}.{self.modified_ns}.{quote(self.etag, safe='')}"


class Container(ABC):
    """One file that holds many pictures. Threads may share it.

    Attributes:
        name: its path or URL.
        known: what was known of it when it was opened, or before; nothing else of that name is read.
    """

    name: str
    known: Known

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """So many bytes of it.

        Raises:
            ReadError: it has changed, ends before, or cannot be read.
        """

    def read_two(self, offset: int, first: int, second: int) -> tuple[bytes, bytes]:
        """So many bytes, and so many behind them; by one request, where a request takes long."""
        data = self.read(offset, first + second)
        return data[:first], data[first:]

    @abstractmethod
    def check(self) -> None:
        """Look whether it still is what was known of it, where nothing else says so with each read.

        Raises:
            ReadError: it is not.
        """

    @abstractmethod
    def file(self, block: int = BLOCK) -> BinaryIO:
        """It as a file, for one thread: to be read and sought in. The caller closes it.

        Args:
            block: bytes that are read at once; 0: as many as are asked for.

        Raises:
            ReadError: it cannot be opened. So do its reads, or an OSError.
        """

    @abstractmethod
    def close(self) -> None:
        """Give it up. Idempotent."""


_LOCAL_BLOCK: Final = 8 << 10


class LocalContainer(Container):
    """A file of this machine. Opening and reading it are told of in the same words as files are.

    Args:
        path: absolute.
        known: what it must be; by default what it is now.

    Raises:
        ReadError: it is no regular file, or cannot be opened.
    """

    def __init__(self, path: str, known: Known | None = None) -> None:
        self._fd = -1
        found = look(path)
        if found.problem or found.folder:
            raise found.problem or ReadError("is a folder")
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ReadError(f"cannot be read: {reason(error)}") from error
        self.name, self.known = path, known or self._now()

    def __del__(self) -> None:
        self.close()

    def read(self, offset: int, size: int) -> bytes:
        """By a positioned read; the file is looked at each time."""
        try:
            self.check()
            data = DISK.read(self._fd, size, offset)
        except OSError as error:
            raise ReadError(f"{self.name!r} cannot be read: {reason(error)}") from error
        if len(data) < size:
            raise ReadError(f"{self.name!r} ends before byte {offset + size:,}")
        return data

    def read_two(self, offset: int, first: int, second: int) -> tuple[bytes, bytes]:
        """By two reads, which is no copy."""
        return self.read(offset, first), self.read(offset + first, second)

    def check(self) -> None:
        """By its size, and the time of its last change."""
        if self._now() != self.known:
            raise changed(self.name)

    def file(self, block: int = BLOCK) -> BinaryIO:
        """Opened anew, with a position of its own."""
        self.check()
        return open(f"/proc/self/fd/{self._fd}", "rb", buffering=min(block, _LOCAL_BLOCK))

    def close(self) -> None:
        """Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _now(self) -> Known:
        found = os.fstat(self._fd)
        return Known(found.st_size, found.st_mtime_ns)


def may_pass(error: Exception) -> bool:
    """Whether a store was busy, or away: then nothing is known of what is there, and another run may find it."""
    return getattr(error, "errno", None) == errno.ETIMEDOUT


def settled(error: ItemError) -> ItemError:
    """An error as the end of its item: whoever could try again has done so."""
    if isinstance(error, ReadError):
        error.errno = None
    return error.with_traceback(None)


def changed(name: str) -> ReadError:
    """What is said of something that is not what was listed any more."""
    return ReadError(f"{name!r} has changed since it was listed: --update takes it as it is now")
