"""Which of some items are near which of others: found by floats, decided by integers.

Vectors are compared by a product of float32 unit vectors whose order of summation is the library's, so its last bits
depend on the machine and on the number of threads. What comes within `_SLACK` of the threshold is computed again in
integers, whose results are the same everywhere; so are the cosines in the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ...preprocess.pdq import hamming
from ...sinks.signatures import Signatures
from .rules import Rule

Index = NDArray[np.int64]

_SLACK: Final = 1e-4
"""More than a product of float32 unit vectors is off by, up to some thousand dimensions; 2e-7 for each further one."""

_PAIRS: Final = 4096
"""Pairs whose vectors are looked at together: 2 MB for 512 dimensions."""

_COLUMNS: Final = 4096
"""Items that others are compared with at once."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of items that are near-duplicates by a rule.

    Attributes:
        a, b: int64 ``[n]``, items by their number.
        similarity: float64 ``[n]``.
    """

    a: Index
    b: Index
    similarity: NDArray[np.float64]

    @classmethod
    def none(cls) -> Pairs:
        """No pairs."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))

    @classmethod
    def joined(cls, some: list[Pairs]) -> Pairs:
        """All of several, in their order."""
        if not some:
            return cls.none()
        return cls(*(np.concatenate([getattr(each, name) for each in some]) for name in ("a", "b", "similarity")))

    def __len__(self) -> int:
        return len(self.a)

    def where(self, mask: NDArray[np.bool_] | Index) -> Pairs:
        """Some of them, by a mask or by their numbers."""
        return Pairs(self.a[mask], self.b[mask], self.similarity[mask])


class Comparer(Protocol):
    """Finds near-duplicates among items that are given by their numbers."""

    def pairs(self, a: Index, b: Index) -> Iterator[Pairs]:
        """Every pair of one of `a` with one of `b`, in any order; also of an item with itself."""
        ...


class VectorComparer:
    """By the cosine of vectors, and the distance of hashes where the rule has one."""

    def __init__(self, signatures: Signatures, rule: Rule) -> None:
        assert rule.cosine is not None
        self._signatures, self._rule, self._cosine = signatures, rule, rule.cosine
        width = signatures.vector.shape[1]
        self._least = np.float32(rule.cosine - _SLACK - 2e-7 * width)

    def pairs(self, a: Index, b: Index) -> Iterator[Pairs]:
        """See `Comparer`."""
        ours = unit_vectors(self._signatures, a)
        for first in range(0, len(b), _COLUMNS):
            some = b[first : first + _COLUMNS]
            near = ours @ unit_vectors(self._signatures, some).T >= self._least
            row, column = np.divmod(np.flatnonzero(near), len(some))
            for at in range(0, len(row), 16 * _PAIRS):
                part = slice(at, at + 16 * _PAIRS)
                found = self._judged(a[row[part]], some[column[part]])
                if len(found):
                    yield found

    def _judged(self, a: Index, b: Index) -> Pairs:
        """Those that the rule is about, by integers."""
        rule, signatures = self._rule, self._signatures
        if rule.pdq is not None:
            close = hamming(signatures.pdq[a], signatures.pdq[b]) <= rule.pdq
            a, b = a[close], b[close]
        similarity = cosines(signatures, a, b)
        return Pairs(a, b, similarity).where(similarity >= self._cosine)


def unit_vectors(signatures: Signatures, items: Index) -> NDArray[np.float32]:
    """float32 ``[n, D]`` of length one; zero stays zero."""
    length = np.sqrt(np.maximum(signatures.norm[items], 1).astype(np.float32))
    found = signatures.vector[items].astype(np.float32)
    found /= length[:, None]
    return found


def cosines(signatures: Signatures, a: Index, b: Index) -> NDArray[np.float64]:
    """Of each pair, by integers: the same on every machine. float64 ``[n]``; 0 for a vector of zeros."""
    dots = np.empty(len(a), np.int64)
    for first in range(0, len(a), _PAIRS):
        part = slice(first, first + _PAIRS)
        ours, theirs = signatures.vector[a[part]].astype(np.int32), signatures.vector[b[part]].astype(np.int32)
        dots[part] = np.einsum("nd,nd->n", ours, theirs)
    lengths = np.sqrt(signatures.norm[a].astype(np.float64) * signatures.norm[b].astype(np.float64))
    return np.asarray(np.divide(dots, lengths, out=np.zeros(len(a)), where=lengths > 0), np.float64)
