"""Blocks: how both files of a job are made up. A block is whole or it is seen not to be.

A file begins with one line of text (what it is, and the version of its format), then come blocks::

    crc32 u32 | mark 3 bytes | kind u8 | length u32 | payload

little-endian; the checksum covers all that follows it. The mark makes blocks findable behind damage.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final
from zlib import crc32

from ...errors import JournalDamagedError, JournalVersionError

FORMAT: Final = 2
"""Version of everything in a job folder that is written. Any change of what is on disk takes the next number."""

KNOWN: Final = (1, FORMAT)
"""What is read. Format 1 has no acknowledgements of single sinks."""

MAX_PAYLOAD: Final = 1 << 20
"""Bytes; of blocks in a journal. What promises more is no block."""

MARK: Final = b"\xf5PJ"  # 0xf5 is in no UTF-8 text, so not in the JSON of events

_HEADER: Final = struct.Struct("<I3sBI")
_COVERED: Final = struct.Struct("<3sBI")
HEADER_SIZE: Final = _HEADER.size


class BlockKind(IntEnum):
    """What a block holds."""

    HEAD = 0
    """JSON: whose file this is. The first block of a journal."""
    RANGES = 1
    """Outcomes: `RECORD` after `RECORD`; see ``states``."""
    EVENT = 2
    """JSON: something worth knowing later."""
    SYNCED = 3
    """u64: all bytes of this file before that offset were on the medium when this block was written."""
    ENTRIES = 4
    """Entries of a snapshot; see ``entries``."""
    INDEX = 5
    """Where a snapshot's blocks are; see ``snapshot``."""


def pack(kind: BlockKind, payload: bytes) -> bytes:
    """One block."""
    covered = _COVERED.pack(MARK, kind, len(payload)) + payload
    return crc32(covered).to_bytes(4, "little") + covered


def unpack(buffer: bytes, kind: BlockKind) -> bytes | None:
    """The payload of the one block that the buffer begins with; None if there is no whole block of that kind."""
    ranges: list[bytes] = []
    others: list[tuple[int, bytes]] = []
    split(buffer, ranges, others, limit=1)
    if kind is BlockKind.RANGES and ranges:
        return ranges[0]
    return others[0][1] if others and others[0][0] == kind else None


def split(buffer: bytes, ranges: list[bytes], others: list[tuple[int, bytes]], limit: int = -1) -> int:
    """Take whole blocks off the front of a buffer.

    Args:
        buffer: begins at a block.
        ranges: payloads of `BlockKind.RANGES` are added here: a list of their own, because there are millions.
        others: kind and payload of all other blocks are added here.
        limit: blocks to take at most; -1 for all.

    Returns:
        Bytes taken: where the first block begins that is not whole, or not valid.
    """
    view, end, offset = memoryview(buffer), len(buffer), 0
    read = _HEADER.unpack_from
    while offset + HEADER_SIZE <= end and limit:
        crc, mark, kind, length = read(buffer, offset)
        after = offset + HEADER_SIZE + length
        if after > end or mark != MARK or crc32(view[offset + 4 : after]) != crc:
            break
        payload = buffer[offset + HEADER_SIZE : after]
        if kind == BlockKind.RANGES:
            ranges.append(payload)
        else:
            others.append((kind, payload))
        offset = after
        limit -= 1
    return offset


def title(what: str) -> bytes:
    """The first line of a file."""
    return f"penstock {what} {FORMAT}\n".encode()


def check_title(path: str, start: bytes, what: str) -> tuple[int, int]:
    """Whether a file is what its name says, in a format that this version knows.

    Args:
        path: for the message.
        start: its first bytes, 64 are enough.
        what: ``journal`` or ``snapshot``.

    Returns:
        Bytes of the first line, and the format.

    Raises:
        JournalDamagedError: it is something else.
        JournalVersionError: it has another format.
    """
    line, end, _ = start.partition(b"\n")
    words = line.split(b" ")
    if not end or words[:2] != [b"penstock", what.encode()] or len(words) != 3 or not words[2].isdigit():
        raise JournalDamagedError(f"{path}: is not a {what} of a job; restore it from a backup or start a new job")
    check_format(path, int(words[2]))
    return len(line) + 1, int(words[2])


def check_format(path: str, version: object) -> None:
    """Refuse a format that this version does not know.

    Raises:
        JournalVersionError: it is not among `KNOWN`.
    """
    if version not in KNOWN:
        raise JournalVersionError(
            f"{path}: has format {version!r}, this penstock knows {' and '.join(map(str, KNOWN))}; "
            "use the version of penstock that began the job, or start a new job"
        )
