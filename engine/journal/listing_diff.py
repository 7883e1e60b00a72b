"""What is different between the snapshot and the source as it is now: a merge, in constant memory.

It takes the order that the source promises, within each of its roots:

- ``path``: a walk goes folder by folder, each in the order of its names' bytes. So paths come in the order of their
  parts: that of the whole path's bytes with ``/`` taken for the least byte. A listing that says nothing is in it.
- ``bytes``: names in the plain order of their bytes, as object stores list keys (``a-b`` before ``a/b``).
- ``sorted``: the same, by ourselves: the source came in no order, and need not.
- ``given``: no order is promised; then two listings may differ in place, and at their end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ...errors import SourceOrderError
from .entries import Entry

Key = tuple[int, bytes]

WALK: Final = "path"
"""The order of a listing that says nothing of it."""

GIVEN: Final = "given"
"""The order of a listing that promises none."""

SORTED: Final = "sorted"
"""The order of a listing that was sorted here."""

_ORDERS: Final = {WALK: "the order of a walk", **dict.fromkeys(("bytes", SORTED), "the order of their bytes")}
"""What can be relied on, and its name for people."""


@dataclass(frozen=True, slots=True)
class ListingDiff:
    """How many entries differ, and how many do not."""

    same: int = 0
    new: int = 0
    changed: int = 0
    gone: int = 0


def merge(
    old: Iterable[Entry], fresh: Iterable[Entry], order: str = WALK
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Both listings side by side, in order: entries of the same name together, the others with None.

    Both are read once; neither is kept. Those that are not in the order (a list of paths) can be compared as long as
    one is the beginning of the other.

    Args:
        old: a snapshot.
        fresh: the source's entries now, their ``part`` counted in the same way.
        order: of both; see the module.

    Raises:
        SourceOrderError: they differ in the middle and are not in the order.
    """
    left, right = _Side(old, "the snapshot", order), _Side(fresh, "the source", order)
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


def common_order(one: str, other: str) -> str:
    """The order that two listings have in common."""
    return one if one == other else GIVEN


def order_of(entry: Entry, order: str = WALK) -> Key:
    """What entries are in the order of, if they keep the one that is promised."""
    try:
        name = entry.name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no path of this system: any fixed order does
        name = entry.name.encode("utf-8", "surrogatepass")
    return entry.part, name.replace(b"/", b"\0") if order == WALK else name


class _Side:
    """One listing, read one entry ahead. To be out of order is an error only once the order is relied on."""

    def __init__(self, entries: Iterable[Entry], what: str, order: str) -> None:
        self._entries = iter(entries)
        self._what = what
        self._order = order
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
        self._key = order_of(self.head, self._order)
        if before is not None and self._key < key and self._wrong is None:
            self._wrong = before, self.head
        self._check()

    def _check(self) -> None:
        if not self._relied:
            return
        promised = _ORDERS.get(self._order)
        if promised is None:
            assert self.head is not None
            why = f"{self._what} has {self.head.name!r} where the other has something else"
        elif self._wrong is not None:
            first, second = self._wrong
            why = f"{self._what} has {second.name!r} after {first.name!r}, which is not {promised}"
        else:
            return
        raise SourceOrderError(
            f"{why}, and it has changed elsewhere than at its end: the two cannot be compared; start a new job for the"
            " new list"
        )
