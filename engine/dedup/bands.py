"""Hashes that differ in few bits, found without comparing all: by bands.

Two hashes of 16 bands that differ in at most 31 bits have a band in which they differ in at most one: every pair is
found by looking each band up as it is and with each of its bits flipped. Nothing is missed (31 < 2 x 16).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...preprocess.pdq import hamming
from ...sinks.signatures import Signatures
from .near import Index, Pairs
from .rules import Rule

BANDS: Final = 16
MOST: Final = 2 * BANDS - 1
"""Bits in which two hashes may differ for every such pair to be found."""

_FLIPS: Final = np.array([0, *(1 << bit for bit in range(16))], np.uint16)
_FEW: Final = 2048
"""Items up to which all are compared: that is faster, and cannot explode where most are alike."""

_QUERIES: Final = 64
_CANDIDATES: Final = 1 << 21
"""Pairs that are looked at together, about."""


class BandComparer:
    """By the distance of PDQ hashes alone; items whose hash is no evidence are near nothing."""

    def __init__(self, signatures: Signatures, rule: Rule) -> None:
        assert rule.pdq is not None
        assert rule.pdq <= MOST
        self._signatures, self._most, self._quality = signatures, rule.pdq, rule.quality

    def pairs(self, a: Index, b: Index) -> Iterator[Pairs]:
        """See `Comparer`."""
        a, b = self._telling(a), self._telling(b)
        if not (len(a) and len(b)):
            return
        yield from self._all(a, b) if len(b) <= _FEW else self._by_bands(a, b)

    def _telling(self, items: Index) -> Index:
        return items[self._signatures.quality[items] >= self._quality]

    def _all(self, a: Index, b: Index) -> Iterator[Pairs]:
        theirs = self._signatures.pdq[b]
        for first in range(0, len(a), _QUERIES):
            some = a[first : first + _QUERIES]
            away = hamming(self._signatures.pdq[some][:, None], theirs)
            row, column = np.nonzero(away <= self._most)
            if len(row):
                yield Pairs(some[row], b[column], _similarity(away[row, column]))

    def _by_bands(self, a: Index, b: Index) -> Iterator[Pairs]:
        theirs, ours = _words(self._signatures.pdq[b]), _words(self._signatures.pdq[a])
        order = np.argsort(theirs, axis=0, kind="stable")
        sorted_words = np.take_along_axis(theirs, order, axis=0)
        starts = np.stack([np.searchsorted(sorted_words[:, band], np.arange(65537)) for band in range(BANDS)])
        wanted = ours[:, :, None] ^ _FLIPS  # [a, band, flip]
        band = np.arange(BANDS)[None, :, None]
        begin, end = starts[band, wanted], starts[band, wanted.astype(np.int64) + 1]
        lengths = (end - begin).reshape(len(a), -1)
        for rows in _chunks(lengths.sum(1)):
            some = lengths[rows].reshape(-1)
            at = np.repeat(begin[rows].reshape(-1) - (np.cumsum(some) - some), some) + np.arange(int(some.sum()))
            of_band = np.repeat(np.broadcast_to(band, begin[rows].shape).reshape(-1), some)
            found = order[at, of_band]
            query = np.repeat(np.arange(rows.start, rows.stop), lengths[rows].sum(1))
            pair = np.unique(query * len(b) + found)
            query, found = np.divmod(pair, len(b))
            away = hamming(self._signatures.pdq[a[query]], self._signatures.pdq[b[found]])
            near = away <= self._most
            if near.any():
                yield Pairs(a[query[near]], b[found[near]], _similarity(away[near]))


def _words(pdq: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Each band as a number, ``[n, 16]``."""
    return np.ascontiguousarray(pdq).view(">u2").astype(np.uint16)


def _chunks(sizes: NDArray[np.int64]) -> Iterator[slice]:
    """Rows that together have about as many candidates as fit; at least one."""
    total = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = int(total[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(total, before + _CANDIDATES, "right")))
        yield slice(first, last)
        first = last


def _similarity(away: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of bits that are equal."""
    return np.asarray(1 - away / 256, np.float64)
