"""Reading members of tars at their offsets, in whichever process: the fetcher behind a tar's references."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final
from zlib import crc32

from ....errors import ReadError, TooLargeError
from ....references import Locator, Reference, Version
from .members import BLOCK
from .place import Place, check_of

LOCATOR: Final = Locator("penstock.engine.sources.tars.reader:open_tars")

_OPEN: Final = 16
"""Tars that are kept open. Pictures come in the order of their tars."""


class TarReader:
    """Reads members by their place in a listing. Several threads at once; a tar is opened once for all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()

    def read(self, ref: str, version: Version, max_bytes: int) -> bytes:
        """The data of a member, if it still is what was listed.

        Raises:
            ReadError: it is not, or cannot be read.
            TooLargeError: it has more bytes.
        """
        place = Place.of(ref, version)
        if version.size > max_bytes:
            raise TooLargeError(f"{ref!r} has {version.size} bytes; max_file_bytes allows {max_bytes}")
        with self._file(ref[: place.path]) as file:
            file.check(ref, place.whole, version.mtime_ns)
            header = os.pread(file.fd, BLOCK, place.offset - BLOCK)
            if check_of(crc32(header), ref[place.path :]) != place.check:
                raise _changed(ref)
            return file.read(ref, place.offset, version.size)

    def piece(self, reference: Reference, place: Place, offset: int, size: int) -> bytes:
        """Some of the tar that a picture lies in.

        Raises:
            ReadError: it has changed since it was listed, or ends before.
            OSError: it cannot be read.
        """
        with self._file(reference.ref[: place.path]) as file:
            file.check(reference.ref, place.whole, reference.version.mtime_ns)
            return file.read(reference.ref, offset, size)

    @contextmanager
    def _file(self, path: str) -> Generator[_File]:
        """The tar, which stays open for as long as the block runs."""
        with self._lock:
            file = self._files.pop(path, None) or _File(path)
            self._files[path] = file
            file.users += 1
            self._trim()
        try:
            yield file
        finally:
            with self._lock:
                file.users -= 1
                self._trim()

    def _trim(self) -> None:
        idle = [path for path, file in self._files.items() if not file.users]
        for path in idle[: max(0, len(self._files) - _OPEN)]:
            self._files.pop(path).close()


class _File:
    """An open tar."""

    def __init__(self, path: str) -> None:
        self.users = 0
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def check(self, ref: str, size: int, mtime_ns: int) -> None:
        """Whether it is the tar that was listed."""
        found = os.fstat(self.fd)
        if (found.st_size, found.st_mtime_ns) != (size, mtime_ns):
            raise _changed(ref)

    def read(self, ref: str, offset: int, size: int) -> bytes:
        """So many bytes."""
        data = os.pread(self.fd, size, offset)
        if len(data) < size:
            data += b"".join(self._rest(offset + len(data), size - len(data)))
        if len(data) < size:
            raise ReadError(f"{ref!r} cannot be read: its tar ends before it does")
        return data

    def _rest(self, offset: int, size: int) -> Generator[bytes]:
        while size and (piece := os.pread(self.fd, size, offset)):
            yield piece
            offset += len(piece)
            size -= len(piece)


def open_tars(_: str) -> TarReader:
    """What a worker calls."""
    return TarReader()


def _changed(ref: str) -> ReadError:
    return ReadError(f"{ref!r} has changed since it was listed: --update takes it as it is now")
