"""What a snapshot holds of each thing in the source, and how a block of them is written."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import starmap
from typing import Any, Final, NamedTuple

BLOCK_ENTRIES: Final = 1024
"""Entries of a block; only the last may have fewer, so a block is found by division."""

_LEVEL: Final = 1
"""Of zlib. Camera names with sizes and times: levels 1, 3, 6 take 15.9, 16.0, 15.2 bytes an entry; 6 costs half more"""


class Kind(IntEnum):
    """What the source said of an entry."""

    ITEM = 0
    """A candidate."""
    FILTERED = 1
    """No picture, and not meant to be one."""
    BROKEN = 2
    """Asked for, and cannot even become a candidate."""


class Entry(NamedTuple):
    """One thing in the source. A named tuple, as there are 10^8: making a dataclass takes three times as long.

    Attributes:
        name: its path as the operating system knows it (bytes that are not UTF-8 are surrogates), or its key. Any text.
        kind: what the source said of it.
        size: bytes; -1 where unknown.
        mtime_ns: nanoseconds since 1970 of its last change; 0 where unknown.
        tag: of an item its version where there is one (an etag); of the others why, in a phrase.
        part: which of the source's roots it comes from, in the order they were given. Never decreases.
    """

    name: str
    kind: Kind = Kind.ITEM
    size: int = -1
    mtime_ns: int = 0
    tag: str = ""
    part: int = 0


_KINDS: Final[Sequence[Kind]] = tuple(Kind)


def encode(entries: Iterable[Entry]) -> bytes:
    """The payload of a block: the columns as JSON, deflated.

    That is smaller and faster than front-coded paths and varints done in Python, takes any text and any integer, and is
    read by any tool.
    """
    columns = list(zip(*entries, strict=True))
    # surrogates pass as they are: escaped, two that stand side by side would be read as one character
    text = json.dumps(columns, ensure_ascii=False, separators=(",", ":"))
    return zlib.compress(text.encode("utf-8", "surrogatepass"), _LEVEL)


def decode(payload: bytes) -> Iterator[Entry]:
    """The entries of a block."""
    columns: list[list[Any]] = json.loads(zlib.decompress(payload).decode("utf-8", "surrogatepass"))
    columns[1] = [_KINDS[code] for code in columns[1]]
    return starmap(Entry, zip(*columns, strict=True))
