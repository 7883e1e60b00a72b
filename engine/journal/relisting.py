"""A new listing of the source takes over what the old one's entries came to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .entries import Entry
from .listing_diff import ListingDiff, merge
from .snapshot import Snapshot
from .states import Outcome, States


class Relisting:
    """One pass over both listings, in constant memory but for a byte for each new entry.

    Args:
        old: the snapshot so far.
        states: of its ordinals.
        order: of both listings; see `listing_diff`.
    """

    def __init__(self, old: Snapshot, states: States, order: str) -> None:
        self._old, self._before, self._order = old, states, order
        self._codes = bytearray()
        self._same = self._new = self._changed = self._gone = 0

    @property
    def changes(self) -> ListingDiff:
        """How many differ, of those that have passed."""
        return ListingDiff(self._same, self._new, self._changed, self._gone)

    def entries(self, fresh: Iterable[Entry]) -> Iterator[Entry]:
        """The new listing as it is, while the outcomes are taken over.

        Raises:
            SourceOrderError: the two cannot be compared.
        """
        ordinal = 0
        for before, now in merge(self._old, fresh, self._order):
            if now is None:
                self._gone += 1
            else:
                self._codes.append(self._outcome(before, now, ordinal))
                yield now
            ordinal += before is not None

    def states(self) -> States:
        """The outcome of each new ordinal, once all have passed."""
        return States(np.frombuffer(self._codes, np.uint8))

    def _outcome(self, before: Entry | None, now: Entry, ordinal: int) -> Outcome:
        if before == now:
            self._same += 1
            return self._before[ordinal]
        if before is None:
            self._new += 1
        else:
            self._changed += 1
        return Outcome.UNDONE
