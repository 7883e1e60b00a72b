"""Who is whose child between a fan-out and its gather: counts what is left of a value that became several.

Every entry in between says of which child it is: what an operation makes of it is of the same, a list is of those of
its members. A child has ended when no entry of it is in flight any more, and its parent when all its children have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Union


@dataclass(slots=True, eq=False)
class Child:
    """One of the values that a fan-out made of one.

    Attributes:
        index: its position among its siblings.
        in_flight: entries of it.
    """

    parent: Parent
    index: int
    in_flight: int = 0


Family = Union[Child, tuple["Family", ...], None]  # noqa: UP007  (a type that refers to itself)
"""Of which child an entry is; of which ones, for a list; None outside of a fan-out."""


class Parent:
    """A value that became several.

    Args:
        ended: called once, when all its children have ended and there will be no more of them.

    Attributes:
        count: children it has had.
        errors: why those of them failed that did, by index.
    """

    __slots__ = ("_ended", "_in_flight", "_is_complete", "count", "errors")

    def __init__(self, ended: Callable[[], object]) -> None:
        self._ended = ended
        self._in_flight = 0
        self._is_complete = False
        self.count = 0
        self.errors: dict[int, Exception] = {}

    def add(self) -> Child:
        """One more child. It has not ended before it was in flight."""
        self._in_flight += 1
        self.count += 1
        return Child(self, self.count - 1)

    def complete(self) -> None:
        """There will be no more children."""
        self._is_complete = True
        self._look()

    def child_ended(self) -> None:
        """Nothing of one of them is in flight any more."""
        self._in_flight -= 1
        self._look()

    def _look(self) -> None:
        if self._is_complete and not self._in_flight:
            self._ended()


def hold(family: Family) -> None:
    """One more entry is in flight."""
    for child in _children(family):
        child.in_flight += 1


def release(family: Family) -> None:
    """One is no more."""
    for child in _children(family):
        child.in_flight -= 1
        if not child.in_flight:
            child.parent.child_ended()


def blame(family: Family, error: Exception) -> None:
    """One has failed. Of several errors of a child the first one counts."""
    for child in _children(family):
        child.parent.errors.setdefault(child.index, error)


def _children(family: Family) -> Iterator[Child]:
    if isinstance(family, tuple):
        for each in family:
            yield from _children(each)
    elif family is not None:
        yield family
