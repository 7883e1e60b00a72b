"""What is different between the snapshot and the source as it is now: a merge, in constant memory.

A walk goes folder by folder, each in the order of its names' bytes: so paths come in the order of their parts, part by
part. That is the order of the whole path's bytes with ``/`` taken for the least byte, within each root of the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...errors import SourceOrderError
from .entries import Entry

Key = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class ListingDiff:
    """How many entries differ, and how many do not."""

    same: int = 0
    new: int = 0
    changed: int = 0
    gone: int = 0


def merge(old: Iterable[Entry], fresh: Iterable[Entry]) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Both listings side by side, in order: entries of the same name together, the others with None.

    Both are read once; neither is kept. Those in another order than a walk's (a list of paths) can be compared as long
    as one is the beginning of the other.

    Args:
        old: a snapshot.
        fresh: the source's entries now, their ``part`` counted in the same way.

    Raises:
        SourceOrderError: they differ in the middle and are not in the order of a walk.
    """
    left, right = _Side(old, "the snapshot"), _Side(fresh, "the source")
    while (before := left.head) is not None and (now := right.head) is not None:
        if before.name == now.name and before.part == now.part:
            yield before, now
            left.advance()
            right.advance()
        elif left.rely() < right.rely():
            yield before, None
            left.advance()
        else:
            yield None, now
            right.advance()
    while (rest := left.head) is not None:
        yield rest, None
        left.advance()
    while (rest := right.head) is not None:
        yield None, rest
        right.advance()


def order_of(entry: Entry) -> Key:
    """What entries are in the order of, if they come from a walk."""
    try:
        name = entry.name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no path of this system: any fixed order does
        name = entry.name.encode("utf-8", "surrogatepass")
    return entry.part, name.replace(b"/", b"\0")


class _Side:
    """One listing, read one entry ahead. To be out of order is an error only once the order is relied on."""

    def __init__(self, entries: Iterable[Entry], what: str) -> None:
        self._entries = iter(entries)
        self._what = what
        self._relied = False
        self._wrong: tuple[Entry, Entry] | None = None
        self._key: Key = (0, b"")
        self.head: Entry | None = None
        self.advance()

    def rely(self) -> Key:
        """Where the head stands in the order, which must hold for the whole listing from now on."""
        self._relied = True
        self._check()
        return self._key

    def advance(self) -> None:
        before, key = self.head, self._key
        self.head = next(self._entries, None)
        if self.head is None:
            return
        self._key = order_of(self.head)
        if before is not None and self._key < key and self._wrong is None:
            self._wrong = before, self.head
        self._check()

    def _check(self) -> None:
        if self._relied and self._wrong is not None:
            first, second = self._wrong
            raise SourceOrderError(
                f"{self._what} has {second.name!r} after {first.name!r}, which is not the order of a walk, and it has "
                "changed elsewhere than at its end: the two cannot be compared; start a new job for the new list"
            )
