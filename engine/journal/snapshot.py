"""The snapshot: what the source held, in its order. The position of an entry is its ordinal.

::

    title line | block of 1024 entries | ... | index block | offset of the index block u64, end mark 8 bytes

The index: count of entries u64, offset u64 of each block and of the index.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...errors import JournalDamagedError
from .blocks import BlockKind, check_title, pack, title, unpack
from .disk import Disk, reading, replace_file, shut
from .entries import BLOCK_ENTRIES, Entry, decode, encode

_WHAT: Final = "snapshot"
_COUNT: Final = struct.Struct("<Q")
_END: Final = struct.Struct("<Q8s")
_END_MARK: Final = b"snap-end"
_PIECE: Final = 1 << 18
"""Bytes gathered for one write."""


def write_snapshot(disk: Disk, path: str, entries: Iterable[Entry]) -> Snapshot:
    """Write one, in constant memory (8 bytes for 1024 entries). Its name is durable after `Disk.sync_folder`.

    Raises:
        JournalDiskError: the disk refused; what is at the path then is not to be used.
    """
    return Snapshot(disk, path, replace_file(disk, path, snapshot_pieces(entries)))


class Snapshot:
    """A snapshot on disk. Reads what it is asked for and keeps one block.

    One thread at a time, but any number of iterators; they end when it is closed.

    Args:
        disk: where it lies.
        path: its file.
        fd: an open descriptor of it, which it then owns; None: it opens the file.

    Raises:
        JournalDamagedError: it is not a whole snapshot.
        JournalVersionError: it has another format.
        JournalDiskError: it cannot be read.
    """

    def __init__(self, disk: Disk, path: str, fd: int | None = None) -> None:
        self.path = path
        self._disk = disk
        with reading(path):
            self._fd = disk.open(path, os.O_RDONLY) if fd is None else fd
        self._kept: tuple[int, list[Entry]] = (-1, [])
        try:
            check_title(path, self._read(64, 0), _WHAT)
            self._count, self._offsets = self._read_index()
        except BaseException:
            shut(disk, self._fd)
            raise

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        return self.entries()

    def __getitem__(self, ordinal: int) -> Entry:
        if not 0 <= ordinal < self._count:
            raise IndexError(f"ordinal {ordinal}: the snapshot has {self._count} entries")
        number, place = divmod(ordinal, BLOCK_ENTRIES)
        if self._kept[0] != number:
            self._kept = (number, self._block(number))
        return self._kept[1][place]

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """The entries of ordinals ``start`` to ``stop`` (excluded), in order; nothing before them is read.

        Raises:
            JournalDamagedError: a block is not what was written.
            JournalDiskError: it cannot be read.
        """
        stop = self._count if stop is None else min(stop, self._count)
        while start < stop:
            number, skip = divmod(start, BLOCK_ENTRIES)
            found = self._block(number)[skip : skip + stop - start]
            yield from found
            start += len(found)

    def numbered(self, spans: Iterable[range]) -> Iterator[tuple[int, Entry]]:
        """The entries of these ranges of ordinals, each with its ordinal. Raises as `entries` does."""
        for span in spans:
            yield from zip(span, self.entries(span.start, span.stop), strict=True)

    def close(self) -> None:
        """Close the file. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            shut(self._disk, fd)

    def _read(self, size: int, offset: int) -> bytes:
        with reading(self.path):
            return self._disk.read(self._fd, size, offset)

    def _read_index(self) -> tuple[int, NDArray[np.uint64]]:
        with reading(self.path):
            size = self._disk.size(self._fd)
        end = self._read(_END.size, max(0, size - _END.size))
        if len(end) == _END.size and end.endswith(_END_MARK):
            at = min(_END.unpack(end)[0], size)
            payload = unpack(self._read(max(0, size - at - _END.size), at), BlockKind.INDEX) or b""
            offsets = np.frombuffer(payload, "<u8")
            if offsets.size and offsets.size == 2 + -(-int(offsets[0]) // BLOCK_ENTRIES):
                return int(offsets[0]), offsets[1:]
        raise JournalDamagedError(
            f"{self.path}: its index is damaged; restore it from a backup or start a new job folder"
        )

    def _block(self, number: int) -> list[Entry]:
        start, stop = self._offsets[number : number + 2].tolist()
        payload = unpack(self._read(stop - start, start), BlockKind.ENTRIES)
        if payload is None:
            first = number * BLOCK_ENTRIES
            last = min(first + BLOCK_ENTRIES, self._count) - 1
            raise JournalDamagedError(
                f"{self.path}: entries {first} to {last} are damaged (byte {start}); "
                "restore the file from a backup or start a new job folder"
            )
        return list(decode(payload))


def snapshot_pieces(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The bytes of a snapshot's file, in pieces worth a write."""
    piece = bytearray(title(_WHAT))
    index, written, count = array("Q"), 0, 0
    remaining = iter(entries)
    while block := list(islice(remaining, BLOCK_ENTRIES)):
        index.append(written + len(piece))
        piece += pack(BlockKind.ENTRIES, encode(block))
        count += len(block)
        if len(piece) >= _PIECE:
            yield bytes(piece)
            written += len(piece)
            piece.clear()
    at = written + len(piece)
    index.append(at)
    piece += pack(BlockKind.INDEX, _COUNT.pack(count) + np.asarray(index, "<u8").tobytes())
    yield bytes(piece) + _END.pack(at, _END_MARK)
