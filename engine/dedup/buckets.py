"""Buckets of vectors: k-means in integers, so that the same items are searched in the same buckets everywhere.

Centroids are vectors of small whole numbers, and a product of an item with one is a sum below 2^24, which float32 holds
exactly: which centroid is nearest depends on no order of summation. They are trained once, on a seeded sample of the
sorted keys, and kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...sinks.signatures import Signatures
from ...sinks.signatures.columns import LEVELS
from ...sinks.signatures.files import read_file, write_file
from .near import Comparer, Index, Pairs

PROBES: Final = 4
"""Buckets in which an item is searched."""

_SAMPLE: Final = 24
"""Items for each centroid that they are trained on."""

_ROUNDS: Final = 6
_BLOCK: Final = 2048
_EXACT: Final = 1 << 24
"""Below it float32 holds every whole number."""

_WEIGHT: Final = 1 << 16


class Buckets:
    """Which buckets each item is in, and is searched in.

    Attributes:
        probes: int32 ``[n, PROBES]``, the nearest buckets of each item, the nearest first: that is the one it is in.
    """

    def __init__(self, signatures: Signatures, path: Path, pool: Executor) -> None:
        self._signatures, self._pool = signatures, pool
        kept = np.asarray(read_file(path)["centroids"]) if path.exists() else None
        if kept is not None and kept.shape[1] == signatures.vector.shape[1]:
            centroids = kept
        else:  # none, or those of the store that a job read before
            centroids = self._trained()
            write_file(path, {"centroids": centroids})
        self.probes = self._nearest(np.arange(len(signatures)), centroids, min(PROBES, len(centroids)))

    def _trained(self) -> NDArray[np.int8]:
        """int8 ``[k, D]``: about 4 sqrt(n) centroids."""
        n = len(self._signatures)
        k = max(1, min(n, round(4 * n**0.5)))
        random = np.random.default_rng(0)
        sample = np.sort(random.permutation(n)[: _SAMPLE * k])
        most = min(LEVELS, (_EXACT - 1) // (LEVELS * self._signatures.vector.shape[1]))
        centroids = _scaled(
            self._signatures.vector[sample[random.permutation(len(sample))[:k]]].astype(np.float64), most
        )
        for _ in range(_ROUNDS):
            nearest = self._nearest(sample, centroids, 1)[:, 0]
            centroids = self._means(sample, nearest, centroids, most)
        return centroids

    def _means(
        self, sample: Index, nearest: NDArray[np.int32], before: NDArray[np.int8], most: int
    ) -> NDArray[np.int8]:
        """The direction of the items of each bucket; of an empty one that of before."""
        order = np.argsort(nearest, kind="stable")
        ends = np.searchsorted(nearest[order], np.arange(len(before) + 1))
        sums = before.astype(np.float64)
        for bucket in np.flatnonzero(np.diff(ends)).tolist():
            items = sample[order[ends[bucket] : ends[bucket + 1]]]
            # Whole numbers below 2^53: exact in any order.
            weights = np.rint(_WEIGHT / np.sqrt(np.maximum(self._signatures.norm[items], 1).astype(np.float64)))
            sums[bucket] = weights @ self._signatures.vector[items].astype(np.float64)
        return _scaled(sums, most)

    def _nearest(self, items: Index, centroids: NDArray[np.int8], count: int) -> NDArray[np.int32]:
        """The nearest centroids of each item, the nearest first."""
        theirs = np.ascontiguousarray(centroids.T.astype(np.float32))
        lengths = np.sqrt(np.maximum((centroids.astype(np.int64) ** 2).sum(1), 1))
        shares = (1 / lengths).astype(np.float32)

        def nearest(first: int) -> NDArray[np.int32]:
            vectors = self._signatures.vector[items[first : first + _BLOCK]].astype(np.float32)
            scores = vectors @ theirs
            scores *= shares
            some = np.argpartition(scores, -count, axis=1)[:, -count:]
            order = np.argsort(-np.take_along_axis(scores, some, 1), axis=1, kind="stable")
            return np.take_along_axis(some, order, 1).astype(np.int32)

        found = list(self._pool.map(nearest, range(0, len(items), _BLOCK)))
        return np.concatenate(found) if found else np.empty((0, count), np.int32)


def _scaled(vectors: NDArray[np.float64], most: int) -> NDArray[np.int8]:
    """Directions in whole numbers up to `most`."""
    peak = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1)
    return np.asarray(np.rint(vectors * (most / peak)), np.int8)


class BucketNeighbours:
    """Compares each item with those of its nearest buckets; see `survivors.Neighbours`."""

    def __init__(self, comparer: Comparer, buckets: Buckets, pool: Executor, block: int = 1 << 15) -> None:
        self._comparer, self._probes, self._pool = comparer, buckets.probes, pool
        self.block = block
        self._members: dict[int, list[Index]] = {}

    def add(self, items: Index) -> None:
        """See `survivors.Neighbours`."""
        for bucket, some in _by_bucket(self._probes[items, 0], items):
            self._members.setdefault(bucket, []).append(some)

    def kept(self, items: Index) -> Pairs:
        """See `survivors.Neighbours`."""
        wanted = [
            (some, members)
            for bucket, some in self._searched(items)
            if (members := self._members.get(bucket)) is not None
        ]
        return self._joined([(some, np.concatenate(members)) for some, members in wanted])

    def among(self, items: Index) -> Pairs:
        """See `survivors.Neighbours`."""
        home = dict(_by_bucket(self._probes[items, 0], items))
        return self._joined([(some, home[bucket]) for bucket, some in self._searched(items) if bucket in home])

    def _searched(self, items: Index) -> Iterator[tuple[int, Index]]:
        """Each bucket with the items that are searched in it."""
        return _by_bucket(self._probes[items].reshape(-1), np.repeat(items, self._probes.shape[1]))

    def _joined(self, tasks: list[tuple[Index, Index]]) -> Pairs:
        def pairs(task: tuple[Index, Index]) -> Pairs:
            return Pairs.joined(list(self._comparer.pairs(*task)))

        return Pairs.joined([found for found in self._pool.map(pairs, tasks) if len(found)])


def _by_bucket(buckets: NDArray[np.int32], items: Index) -> Iterator[tuple[int, Index]]:
    order = np.argsort(buckets, kind="stable")
    numbers, begin = np.unique(buckets[order], return_index=True)
    ends = [*begin.tolist(), len(order)][1:]
    for number, first, last in zip(numbers.tolist(), begin.tolist(), ends, strict=True):
        yield number, items[order[first:last]]
