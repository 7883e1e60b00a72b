"""Entries with children: a video and its frames, a volume and its pages. An entry is done when all of them are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ....errors import AccountingError


def child_key(key: str, number: int) -> str:
    """The key of an entry's child, the same in every run: what is written again writes over itself.

    Args:
        key: of the entry.
        number: of the child within it, from 0.
    """
    return f"{key}#{number}"


@dataclass(slots=True)
class _Family:
    waiting: int = 0
    died: bool = False
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """Entries of which nothing is under way any more.

    Attributes:
        written: all of their children are acknowledged.
        dead: at least one child has a dead letter. A retry does the whole entry again, over what is there.
    """

    written: list[int]
    dead: list[int]


class Children:
    """Counts, for each entry that was begun, the children that are still under way. Kept in memory only.

    An entry is recorded once, when it is done, so a process that dies does its unfinished entries again as a whole.
    An entry that was never begun is its own only child. One thread at a time.
    """

    def __init__(self) -> None:
        self._families: dict[int, _Family] = {}

    @property
    def under_way(self) -> int:
        """Entries that were begun and are not done."""
        return len(self._families)

    def is_begun(self, entry: int) -> bool:
        """Whether children of this entry are under way."""
        return entry in self._families

    def begin(self, entry: int) -> None:
        """Children of this entry come, nobody knows yet how many.

        Raises:
            AccountingError: it was begun already.
        """
        if entry in self._families:
            raise AccountingError(f"entry {entry} was begun twice")
        self._families[entry] = _Family()

    def add(self, entry: int, children: int = 1) -> None:
        """So many more children of an entry that was begun are under way.

        Raises:
            AccountingError: it was not begun, or has all its children.
        """
        family = self._families.get(entry)
        if family is None or family.closed:
            raise AccountingError(f"entry {entry} takes no children: it was {'closed' if family else 'not begun'}")
        family.waiting += children

    def close(self, entry: int) -> Done:
        """No more children of this entry come. One without any is written: there was nothing to write.

        Raises:
            AccountingError: it was not begun.
        """
        family = self._families.get(entry)
        if family is None:
            raise AccountingError(f"entry {entry} was closed, but not begun")
        family.closed = True
        return self._ended([entry])

    def written(self, entries: Iterable[int]) -> Done:
        """A child of each of these is acknowledged; an entry may be there as often as it has children.

        Raises:
            AccountingError: an entry has no child under way.
        """
        return self._settled(entries, died=False)

    def dead(self, entries: Iterable[int]) -> Done:
        """The same for children that have a dead letter."""
        return self._settled(entries, died=True)

    def _settled(self, entries: Iterable[int], died: bool) -> Done:
        entries = list(entries)
        if not self._families:
            return Done([], entries) if died else Done(entries, [])
        for entry in entries:
            if family := self._families.get(entry):
                if not family.waiting:
                    raise AccountingError(f"entry {entry} has no child under way")
                family.waiting -= 1
                family.died |= died
        return self._ended(entries, died)

    def _ended(self, entries: Iterable[int], died: bool = False) -> Done:
        done = Done([], [])
        for entry in dict.fromkeys(entries):
            family = self._families.get(entry)
            if family is None:
                (done.dead if died else done.written).append(entry)
            elif family.closed and not family.waiting:
                del self._families[entry]
                (done.dead if family.died else done.written).append(entry)
        return done
