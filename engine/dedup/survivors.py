"""Who stays: items in the order of their rank, each dropped if one that stays is near it.

That is the lexicographically first maximal independent set: no two that stay are near one another, and each that is
dropped is near its keeper itself, never through a third. So items have to be compared with those only that stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from .near import Comparer, Index, Pairs

CAP: Final = 1000
"""Neighbours of one item that are looked at; those of the first ranks. How often there were more is counted."""


class Neighbours(Protocol):
    """Where near-duplicates are looked for."""

    block: int
    """Items to ask about at once."""

    def add(self, items: Index) -> None:
        """These stay: they are found from now on. In the order of ranks."""
        ...

    def kept(self, items: Index) -> Pairs:
        """Pairs of each of the items with those that stay."""
        ...

    def among(self, items: Index) -> Pairs:
        """Pairs of the items with one another, each in both directions or in one."""
        ...


class AllNeighbours:
    """Compares all with all."""

    def __init__(self, comparer: Comparer, pool: Executor, block: int, columns: int) -> None:
        self._comparer, self._pool, self._columns = comparer, pool, columns
        self.block = block
        self._kept: list[Index] = [np.empty(0, np.int64)]

    def add(self, items: Index) -> None:
        """See `Neighbours`."""
        for first in range(0, len(items), self._columns):
            room = self._columns - len(self._kept[-1])
            some = items[first : first + self._columns]
            self._kept[-1] = np.concatenate([self._kept[-1], some[:room]])
            if len(some) >= room:
                self._kept.append(some[room:])

    def kept(self, items: Index) -> Pairs:
        """See `Neighbours`."""
        found = self._pool.map(lambda some: Pairs.joined(list(self._comparer.pairs(items, some))), self._kept)
        return Pairs.joined(list(found))

    def among(self, items: Index) -> Pairs:
        """See `Neighbours`."""
        return Pairs.joined(list(self._comparer.pairs(items, items)))


@dataclass(slots=True)
class Survivors:
    """What became of n items.

    Attributes:
        keeper: int64 ``[n]``: whom each is a duplicate of; -1 for those that stay.
        similarity: float64 ``[n]``: of the two; 0 for those that stay.
        capped: how many items had more neighbours than are looked at.
    """

    keeper: Index
    similarity: NDArray[np.float64]
    capped: int = 0


def choose(
    found: Survivors,
    rank: Index,
    order: Index,
    neighbours: Neighbours,
    *,
    on_progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Decide on items.

    Args:
        found: gets what becomes of them.
        rank: int64 ``[n]``, of each item; less goes first.
        order: the items to decide on, by rank.
        neighbours: knows those that stay whatever comes.
        on_progress: hears how many have been decided on, and may raise.
    """
    for first in range(0, len(order), neighbours.block):
        on_progress(first)
        block = order[first : first + neighbours.block]
        _drop(found, rank, neighbours.kept(block))
        rest = block[found.keeper[block] < 0]
        inner = neighbours.among(rest)
        inner, capped = _first_ranks(inner.where(rank[inner.b] < rank[inner.a]), rank)
        found.capped += capped
        _walk(found, inner)
        neighbours.add(rest[found.keeper[rest] < 0])
    on_progress(len(order))


def _drop(found: Survivors, rank: Index, pairs: Pairs) -> None:
    """Drop items that are near one that stays; their keeper is the first of them by rank."""
    order = np.lexsort((rank[pairs.b], pairs.a))
    items, at = np.unique(pairs.a[order], return_index=True)
    found.keeper[items] = pairs.b[order][at]
    found.similarity[items] = pairs.similarity[order][at]


def _first_ranks(pairs: Pairs, rank: Index) -> tuple[Pairs, int]:
    """Pairs by the ranks of both, of each item at most `CAP`; and how many items had more."""
    pairs = pairs.where(ranked((rank[pairs.a], rank[pairs.b])))
    _, begin, counts = np.unique(rank[pairs.a], return_index=True, return_counts=True)
    if not (counts > CAP).any():
        return pairs, 0
    nth = np.arange(len(pairs)) - np.repeat(begin, counts)
    return pairs.where(nth < CAP), int((counts > CAP).sum())


def _walk(found: Survivors, pairs: Pairs) -> None:
    """Go through pairs of undecided items by the ranks of both: who is not dropped when its turn is over stays."""
    keeper = {int(item): -1 for item in pairs.a}
    similarity: dict[int, float] = {}
    for a, b, how in zip(pairs.a.tolist(), pairs.b.tolist(), pairs.similarity.tolist(), strict=True):
        if keeper[a] < 0 and keeper.get(b, -1) < 0:
            keeper[a], similarity[a] = b, how
    for item, how in similarity.items():
        found.keeper[item], found.similarity[item] = keeper[item], how


def ranked(columns: Iterable[NDArray[np.generic]]) -> Index:
    """The order of items by several columns, the first of which counts most; ties by their number."""
    return np.lexsort(tuple(columns)[::-1]).astype(np.int64)
