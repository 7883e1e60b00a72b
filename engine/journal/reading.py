"""Reading a journal: what is whole, where it ends, and whether what follows is a torn tail or damage."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...errors import JournalDamagedError
from .blocks import HEADER_SIZE, MARK, MAX_PAYLOAD, BlockKind, check_title, split, unpack
from .disk import Disk, shut
from .states import RECORD

WHAT: Final = "journal"
SYNCED: Final = struct.Struct("<Q")

Event = Mapping[str, Any]

_PIECE: Final = 2 * MAX_PAYLOAD
_SYNCED_SIZE: Final = HEADER_SIZE + SYNCED.size


@dataclass(frozen=True, slots=True)
class Head:
    """Whose journal it is.

    Attributes:
        job: id of the job.
        snapshot: number of the snapshot that its ordinals count; 0: there is none yet.
    """

    job: str
    snapshot: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of what a journal holds.

    Attributes:
        records: outcomes (`RECORD`), in the order they were appended.
        events: what was recorded beside outcomes among them.
    """

    records: NDArray[np.void]
    events: tuple[Event, ...]


class Reader:
    """Reads a journal once, in constant memory. The file may be growing.

    Attributes:
        head: whose it is.
        format: that it was begun in.
        end: where the last whole block that was read ends.
        torn: bytes after ``end`` that are no block, once all was read: the last write was cut off.

    Raises:
        JournalDamagedError: it is no journal.
        JournalVersionError: it has another format.
        OSError: it cannot be read.
    """

    def __init__(self, disk: Disk, path: str, fd: int) -> None:
        self._disk, self._path, self._fd = disk, path, fd
        self._size = disk.size(fd)
        start = disk.read(fd, HEADER_SIZE + 4096, 0)
        begin, self.format = check_title(path, start, WHAT)
        payload = unpack(start[begin:], BlockKind.HEAD)
        if payload is None:
            raise damaged(path, begin)
        self.head = Head(**json.loads(payload))
        self.end = begin + HEADER_SIZE + len(payload)
        self.torn = 0

    def pieces(self) -> Iterator[Piece]:
        """All there is, in order.

        Raises:
            JournalDamagedError: a block is damaged that had reached the medium.
        """
        rest, at = b"", self.end
        while at < self._size:
            data = self._disk.read(self._fd, min(_PIECE, self._size - at), at)
            at += len(data)
            buffer = rest + data
            ranges: list[bytes] = []
            others: list[tuple[int, bytes]] = []
            taken = split(buffer, ranges, others)
            self.end += taken
            rest = buffer[taken:]
            yield Piece(np.frombuffer(b"".join(ranges), RECORD), _events(others))
            if not data or (not taken and len(rest) > HEADER_SIZE + MAX_PAYLOAD):
                break
        self.torn = self._size - self.end
        if self.torn and self._was_durable(self.end):
            raise damaged(self._path, self.end)

    def _was_durable(self, offset: int) -> bool:
        """Whether a later block says that the byte there had been on the medium.

        A crash of the machine may leave a hole with valid blocks behind it, none of which was ever promised to be
        there: so a valid block behind is no proof of damage, a promise is.
        """
        sought, at = MARK + bytes([BlockKind.SYNCED]), offset
        while at < self._size:
            # not past the size that was seen: a live owner goes on, and promises what we saw half of
            data = self._disk.read(self._fd, min(_PIECE + _SYNCED_SIZE, self._size - at), at)
            place = data.find(sought, 4)
            while place >= 0:
                payload = unpack(data[place - 4 : place - 4 + _SYNCED_SIZE], BlockKind.SYNCED)
                if payload is not None and SYNCED.unpack(payload)[0] > offset:
                    return True
                place = data.find(sought, place + 1)
            at += _PIECE
        return False


def open_journal(disk: Disk, path: str, flags: int = os.O_RDONLY) -> tuple[int, Reader]:
    """Open one.

    Returns:
        The descriptor, which the caller owns, and a reader on it.

    Raises:
        JournalError, OSError: see `Reader`.
    """
    fd = disk.open(path, flags)
    try:
        return fd, Reader(disk, path, fd)
    except BaseException:
        shut(disk, fd)
        raise


def damaged(path: str, offset: int) -> JournalDamagedError:
    """The error for a block that was whole once."""
    return JournalDamagedError(
        f"{path}: damaged at byte {offset}, before records that are whole: what was done is not known; "
        "restore the file from a backup, or start a new job folder (rows already in the sink are replaced, not doubled)"
    )


def _events(others: list[tuple[int, bytes]]) -> tuple[Event, ...]:
    return tuple(json.loads(payload) for kind, payload in others if kind == BlockKind.EVENT)
