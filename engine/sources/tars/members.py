"""The members of a tar: where the data of each lies, found by its headers alone.

``tarfile`` understands the headers (GNU and PAX, long names, large sizes); the walk from one to the next is ours, since
``tarfile`` takes a damaged header behind the first for the end of the archive, and would keep all members in memory.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Literal
from zlib import crc32

from ....errors import ReadError

BLOCK: Final = tarfile.BLOCKSIZE

_LONGEST: Final = 1 << 20
"""Bytes of a header with a long name or PAX records. A larger one is an attack on our memory."""

_PADDING: Final = 1 << 20
"""Bytes behind the end of an archive in which another may begin, as ``cat a.tar b.tar`` makes it."""

_END: Final = bytes(BLOCK)

Kind = Literal["file", "sparse", "other"]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a tar.

    Attributes:
        name: as it is written there; bytes that are not UTF-8 are surrogates. A label, never a path to be opened.
        kind: a file; one stored with holes, whose data are not in one piece; or a link, a device...
        offset: of its data.
        size: bytes of its data.
        header: the checksum of the header right before its data.
    """

    name: str
    kind: Kind
    offset: int
    size: int
    header: int


def members_of(file: BinaryIO, size: int) -> Iterator[Member]:
    """The members that are files or something like it, in their order; folders are passed by. Constant memory.

    Args:
        file: the archive; is read at the headers, and sought in between.
        size: bytes of the archive.

    Raises:
        ReadError: it is no tar, or damaged, or cut short, from here on.
        OSError: it cannot be read.
    """
    headers = _Headers(file)
    try:
        tar = tarfile.TarFile(fileobj=headers, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
    except tarfile.TarError as error:
        raise ReadError(f"is no tar: {error}") from None
    tar.offset = 0
    while (at := _next(file, tar.offset, size)) is not None:
        try:
            file.seek(at)
            tar.offset = at
            info = tarfile.TarInfo.fromtarfile(tar)
        except (tarfile.TarError, RecursionError, ValueError, OverflowError) as error:
            raise ReadError(f"is damaged at byte {at:,}: {error}; what follows cannot be found") from None
        if tar.offset <= at or info.size < 0:
            raise ReadError(f"is damaged at byte {at:,}: a size below zero; what follows cannot be found")
        if (end := info.offset_data + info.size) > size and info.isreg():
            raise ReadError(f"is cut short: it ends at byte {size:,}, within {info.name!r}, which goes on to {end:,}")
        if not info.isdir():
            yield Member(info.name, _kind(info), info.offset_data, info.size, headers.last)


def _kind(info: tarfile.TarInfo) -> Kind:
    if info.issparse():
        return "sparse"
    return "file" if info.isreg() else "other"


def _next(file: BinaryIO, at: int, size: int) -> int | None:
    """Where the next header is; None at the end of the archive."""
    file.seek(min(at, size))
    block = file.read(BLOCK)
    if not block:
        raise ReadError(f"is cut short: it ends at byte {size:,}, without the mark of its end")
    if block != _END:
        return at
    for behind in range(at + BLOCK, min(size, at + _PADDING), BLOCK):
        block = file.read(BLOCK)
        if block != _END[: len(block)]:
            return behind if block[257:262] == b"ustar" else None
    return None


class _Headers:
    """The file as `tarfile` reads headers from it, with the checksum of the last block."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.last = 0

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        data = self._file.read(size)
        if size == BLOCK:
            self.last = crc32(data)
        return data

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)
