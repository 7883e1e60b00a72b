"""What became of every item, in memory: one byte for each ordinal, counts kept with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...errors import AccountingError

RECORD: Final = np.dtype([("code", "u1"), ("start", "<u8"), ("stop", "<u8")])
"""Ordinals ``start`` to ``stop`` (excluded) came to this. Packed: 17 bytes. A later record wins.

The lower two bits of a code are the `Outcome`. Where that is UNDONE, the others say which of several sinks have
acknowledged the row already: sink ``n`` by the bit ``4 << n``.
"""

MOST_SINKS: Final = 6
"""So many have a bit. A further one writes its rows again."""

_OUTCOME: Final = 3

_CHUNK: Final = 1 << 20
"""Ordinals looked at at once: the temporary arrays stay in the cache's reach."""


class Outcome(IntEnum):
    """What became of an item; the codes are on disk."""

    UNDONE = 0
    """Not done yet, or to be done again."""
    WRITTEN = 1
    """Every sink has acknowledged its row."""
    FILTERED = 2
    """Left out on purpose."""
    DEAD = 3
    """Its dead letter is written."""


Ordinals = Iterable[int | range] | NDArray[np.integer]
"""Positions in the snapshot: numbers, ranges (of step 1), both mixed, in any order; or one range."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many entries came to what: ``total == written + filtered + dead + remaining``."""

    total: int
    written: int
    filtered: int
    dead: int
    remaining: int


class States:
    """The outcome of each of ``total`` ordinals. Not thread-safe; at most one writer."""

    def __init__(self, codes: NDArray[np.uint8]) -> None:
        self._codes = codes
        self._counts = [0] * len(Outcome)
        self.recount()

    @classmethod
    def undone(cls, total: int) -> States:
        """Nothing done yet."""
        return cls(np.zeros(total, np.uint8))

    def __len__(self) -> int:
        return self._codes.size

    def __getitem__(self, ordinal: int) -> Outcome:
        return Outcome(int(self._codes[ordinal]) & _OUTCOME)

    def acknowledged_by(self, ordinal: int) -> int:
        """The sinks that have acknowledged the row of an undone ordinal, sink ``n`` by the bit ``1 << n``."""
        return int(self._codes[ordinal]) >> 2

    def acknowledged(self, sink: int | None = None) -> Iterator[range]:
        """The longest ranges of undone ordinals whose rows this sink has acknowledged; None: any sink."""
        bits = 0xFC if sink is None else 4 << sink & 0xFC
        return self._ranges(lambda chunk: (chunk & bits) != 0)

    @property
    def counts(self) -> Counts:
        """How many came to what. Costs nothing."""
        remaining, written, filtered, dead = self._counts
        return Counts(len(self), written, filtered, dead, remaining)

    def records(self, code: int, ordinals: Ordinals) -> NDArray[np.void]:
        """Records (`RECORD`) that say so of an `Outcome`, or another code; neighbours joined. Changes nothing.

        Raises:
            AccountingError: an ordinal that is not in the snapshot.
        """
        ranges = _joined(ordinals)
        if ranges.size and (ranges[0, 0] < 0 or ranges[-1, 1] > len(self)):
            raise self._beyond(code, int(ranges[0, 0]), int(ranges[-1, 1]))
        found = np.empty(len(ranges), RECORD)
        found["code"], found["start"], found["stop"] = code, ranges[:, 0], ranges[:, 1]
        return found

    def acknowledgements(self, sink: int, ordinals: Ordinals) -> NDArray[np.void]:
        """Records that say that this sink, too, has acknowledged the rows of these; of those that are undone.

        Raises:
            AccountingError: an ordinal that is not in the snapshot.
        """
        ranges = self.records(Outcome.UNDONE, ordinals)
        if sink >= MOST_SINKS or not ranges.size:
            return ranges[:0]
        every = np.concatenate([np.arange(start, stop) for _, start, stop in ranges.tolist()])
        codes = self._codes[every]
        undone = (codes & _OUTCOME) == Outcome.UNDONE
        every, codes = every[undone], codes[undone] | (4 << sink)
        found = [self.records(code, every[codes == code]) for code in np.unique(codes).tolist()]
        return np.concatenate(found) if found else ranges[:0]

    def apply(self, records: NDArray[np.void]) -> None:
        """Take over a few records, from `records`; the counts follow."""
        for code, start, stop in records.tolist():
            codes = self._codes[start:stop]
            for old, number in enumerate(np.bincount(codes & _OUTCOME, minlength=len(Outcome)).tolist()):
                self._counts[old] -= number
            self._counts[code & _OUTCOME] += stop - start
            codes[:] = code

    def load(self, records: NDArray[np.void]) -> bool:
        """Take over millions of records from a file; `recount` afterwards. False if one of them is none.

        Raises:
            AccountingError: one is about an ordinal that is not in the snapshot.
        """
        codes, starts, stops = records["code"], records["start"], records["stop"]
        if np.any(((codes > _OUTCOME) & (codes & _OUTCOME != Outcome.UNDONE)) | (starts >= stops)):
            return False
        if records.size and stops.max() > len(self):
            code, start, stop = records[stops.argmax()].tolist()
            raise self._beyond(code, start, stop)
        own = self._codes
        for code, start, stop in zip(codes.tolist(), starts.tolist(), stops.tolist(), strict=True):
            own[start:stop] = code
        return True

    def recount(self) -> None:
        """Count anew."""
        self._counts = [0] * len(Outcome)
        for _, chunk in self._chunks():
            for code in Outcome:
                self._counts[code] += int(np.count_nonzero((chunk & _OUTCOME) == code))

    def check(self) -> None:
        """Whether the counts that were kept are the true ones.

        Raises:
            AccountingError: they are not.
        """
        kept = self.counts
        self.recount()
        if kept != self.counts or sum(self._counts) != len(self):
            raise AccountingError(f"the journal's counts were kept as {kept} and are {self.counts}")

    def runs(self) -> Iterator[NDArray[np.void]]:
        """All that is not undone, or is acknowledged by some sinks, as records, a chunk at a time, in order."""
        for base, chunk in self._chunks():
            edges = np.flatnonzero(chunk[1:] != chunk[:-1]) + 1
            starts = np.concatenate(([0], edges))
            found = np.empty(len(starts), RECORD)
            found["code"], found["start"] = chunk[starts], starts + base
            found["stop"] = np.append(edges, len(chunk)) + base
            yield found[found["code"] != Outcome.UNDONE]

    def ranges(self, outcome: Outcome = Outcome.UNDONE) -> Iterator[range]:
        """The longest ranges with this outcome, in order, as they are when they are reached."""
        return self._ranges(lambda chunk: (chunk & _OUTCOME) == outcome)

    def _ranges(self, wanted: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]) -> Iterator[range]:
        start = stop = 0
        for base, chunk in self._chunks():
            inside = np.concatenate(([False], wanted(chunk), [False]))
            edges = (np.flatnonzero(inside[1:] != inside[:-1]) + base).tolist()
            for begin, end in zip(edges[::2], edges[1::2], strict=True):
                if begin != stop:
                    if start < stop:
                        yield range(start, stop)
                    start = begin
                stop = end
        if start < stop:
            yield range(start, stop)

    def _beyond(self, code: int, start: int, stop: int) -> AccountingError:
        return AccountingError(
            f"ordinals {start} to {stop - 1} were recorded as {Outcome(code & _OUTCOME).name}, "
            f"the snapshot has {len(self)} entries: they belong to another source"
        )

    def _chunks(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for base in range(0, len(self), _CHUNK):
            yield base, self._codes[base : base + _CHUNK]


def _joined(ordinals: Ordinals) -> NDArray[np.int64]:
    """Sorted ranges ``[n, 2]`` that neither touch nor overlap."""
    ranges = _ranges(ordinals)
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    if len(ranges) < 2:
        return ranges
    reach = np.maximum.accumulate(ranges[:, 1])
    first = np.concatenate(([True], ranges[1:, 0] > reach[:-1]))
    last = np.concatenate((first[1:], [True]))
    return np.stack((ranges[first, 0], reach[last]), axis=1)


def _ranges(ordinals: Ordinals) -> NDArray[np.int64]:
    if isinstance(ordinals, range):
        ordinals = [ordinals]
    if isinstance(ordinals, np.ndarray):
        starts = ordinals.astype(np.int64)
        return np.stack((starts, starts + 1), axis=1)
    pairs = [(one.start, one.stop) if isinstance(one, range) else (one, one + 1) for one in ordinals]
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[found[:, 0] < found[:, 1]]
