"""From signatures in a folder to what goes and what stays, the same whatever the order in which they came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...sinks.signatures import Signatures, merge, parts_in, sweep
from .bands import BandComparer
from .buckets import BucketNeighbours, Buckets
from .near import Index, VectorComparer
from .outcome import Outcome, digests_of, matched
from .rules import EXACT, Rule
from .survivors import AllNeighbours, Neighbours, Survivors, choose, ranked
from .videos import SameVideos, same_videos

ALL_PAIRS: Final = 200_000
"""Items up to which all are compared with all."""

_MERGED: Final = "merged"


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An item that goes.

    Attributes:
        key: what it is known by.
        duplicate_of: the key of the item that stays and that it is near itself.
        similarity: cosine of the vectors, or under a rule about hashes alone the share of equal bits; 1 of equal
            contents.
        rule: ``exact``, or the name of the rule.
    """

    key: str
    duplicate_of: str
    similarity: float
    rule: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What goes and what stays.

    Attributes:
        rule: by which.
        signatures: of all items, by key.
        outcome: of each.
    """

    rule: Rule
    signatures: Signatures
    outcome: Outcome

    @property
    def items(self) -> int:
        """How many there are."""
        return len(self.signatures)

    @property
    def dropped(self) -> int:
        """How many of them go."""
        return int((self.outcome.keeper >= 0).sum())

    @property
    def exact(self) -> int:
        """How many of those because the contents are the same."""
        return int(self.outcome.is_exact.sum())

    @property
    def capped(self) -> int:
        """How many items had more neighbours than are looked at."""
        return int(self.outcome.capped[0])

    @property
    def figures(self) -> dict[str, int]:
        """All of these by name, for a report."""
        return {"items": self.items, "duplicates": self.dropped, "exact": self.exact, "capped": self.capped}

    def duplicates(self) -> Iterator[Duplicate]:
        """Every item that goes, by key."""
        keys, outcome = self.signatures.keys, self.outcome
        for item in np.flatnonzero(outcome.keeper >= 0).tolist():
            rule = EXACT if outcome.is_exact[item] else self.rule.name
            similarity = float(outcome.similarity[item])
            yield Duplicate(keys.text(item), keys.text(int(outcome.keeper[item])), similarity, rule)

    def same_videos(self) -> SameVideos:
        """Videos that are the same, by their frames; see `videos.same_videos`."""
        return same_videos(self.signatures, self.outcome.keeper, self.outcome.generation)


def decide(
    folder: Path,
    rule: Rule,
    *,
    anew: bool = False,
    workers: int = 1,
    all_pairs: int = ALL_PAIRS,
    only: NDArray[np.uint64] | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Decision:
    """Find the near-duplicates among all signatures of a folder.

    The result is a function of the signatures, and of which of them were there in earlier decisions by the same rule.

    Args:
        folder: with parts (`SignatureWriter`), to which nobody writes; what is decided is kept there, too.
        rule: when two items are near-duplicates.
        anew: forget earlier decisions; else who stayed stays, and only what is new is judged.
        workers: threads.
        all_pairs: items up to which all are compared with all; above, buckets are searched.
        only: of the keys that are wanted, see `sinks.signatures.merge`; None: all.
        on_progress: hears how many of how many items have been decided on; may raise to end it.

    Raises:
        SinkError: a file is no file of signatures, or they are of vectors of different lengths.
        OSError: the disk refuses.
    """
    sweep(folder)
    signatures = merge(parts_in(folder), folder / f"{_MERGED}.set", only)
    path = folder / f"decided-{rule.name.replace(':', '-')}.set"
    before = None if anew else Outcome.read(path)
    own = digests_of(signatures)
    generation, earlier = _earlier(signatures, own, before)
    found = Survivors(earlier.keeper.copy(), earlier.similarity.copy())
    rank = _ranks(signatures, generation)
    with ThreadPoolExecutor(workers, "penstock-dedup") as pool:
        is_exact = earlier.is_exact.copy()
        twins = _twins(signatures, rank)
        order = np.argsort(rank)
        stays = order[earlier.is_decided[order] & (earlier.keeper[order] < 0)]
        asked = order[~earlier.is_decided[order] & (twins[order] < 0)]
        neighbours = _neighbours(signatures, rule, pool, all_pairs, folder)
        neighbours.add(stays)
        choose(found, rank, asked, neighbours, on_progress=lambda done: on_progress(done, len(asked)))
    _resolve_twins(found, is_exact, twins, earlier.is_decided)
    outcome = Outcome(
        signatures.keys, own, generation, found.keeper, found.similarity, is_exact, np.array([found.capped])
    )
    outcome.write(path)
    return Decision(rule, signatures, outcome)


@dataclass(frozen=True, slots=True)
class _Earlier:
    """What earlier decisions have left for each item."""

    is_decided: NDArray[np.bool_]
    keeper: Index
    similarity: NDArray[np.float64]
    is_exact: NDArray[np.uint8]


def _earlier(
    signatures: Signatures, own: NDArray[np.uint8], before: Outcome | None
) -> tuple[NDArray[np.int32], _Earlier]:
    """Generations, and decisions that hold: of items that are as they were, and whose keeper is, too."""
    n = len(signatures)
    found = _Earlier(np.zeros(n, bool), np.full(n, -1, np.int64), np.zeros(n), np.zeros(n, np.uint8))
    if before is None or not len(before.keys):
        return np.zeros(n, np.int32), found
    generation = np.full(n, int(before.generation.max()) + 1, np.int32)
    here, there = matched(signatures.keys, before.keys)
    same = (own[here] == before.signature[there]).all(1)
    here, there = here[same], there[same]
    now = np.full(len(before.keys), -1, np.int64)
    now[there] = here
    generation[here] = before.generation[there]
    keeper = np.where(before.keeper[there] >= 0, now[before.keeper[there]], -1)
    holds = (before.keeper[there] < 0) | (keeper >= 0)
    found.is_decided[here[holds]] = True
    found.keeper[here[holds]] = keeper[holds]
    found.similarity[here[holds]] = before.similarity[there][holds]
    found.is_exact[here[holds]] = before.is_exact[there][holds]
    return generation, found


def _ranks(signatures: Signatures, generation: NDArray[np.int32]) -> Index:
    """The place of each item in the order in which they are decided on: the best ones first."""
    best = (-signatures.short_side.astype(np.int64), -signatures.quality.astype(np.int64), -signatures.sharpness)
    rank = np.empty(len(signatures), np.int64)
    rank[ranked((generation, *best))] = np.arange(len(signatures))  # ties: by key
    return rank


def _twins(signatures: Signatures, rank: Index) -> Index:
    """Of each item the first one by rank that has the same content; -1 of those that are the first, or alone."""
    found = np.full(len(signatures), -1, np.int64)
    known = np.flatnonzero(signatures.digest.any(1))
    halves = np.ascontiguousarray(signatures.digest[known]).view(np.uint64)
    order = known[np.lexsort((rank[known], halves[:, 1], halves[:, 0]))]
    if len(order):
        is_first = np.ones(len(order), bool)
        is_first[1:] = (signatures.digest[order[1:]] != signatures.digest[order[:-1]]).any(1)
        firsts = order[is_first][np.cumsum(is_first) - 1]
        found[order] = np.where(is_first, -1, firsts)
    return found


def _resolve_twins(found: Survivors, is_exact: NDArray[np.uint8], twins: Index, is_decided: NDArray[np.bool_]) -> None:
    """What has the content of another item goes with it: to that one if it stays, else to whom that one is near."""
    items = np.flatnonzero((twins >= 0) & ~is_decided)
    first = twins[items]
    stays = found.keeper[first] < 0
    found.keeper[items] = np.where(stays, first, found.keeper[first])
    found.similarity[items] = np.where(stays, 1.0, found.similarity[first])
    is_exact[items] = np.where(stays, 1, is_exact[first])


def _neighbours(
    signatures: Signatures, rule: Rule, pool: ThreadPoolExecutor, all_pairs: int, folder: Path
) -> Neighbours:
    """Where to look for duplicates: among all hashes by bands; among all vectors, or above `all_pairs` in buckets."""
    if rule.cosine is None:
        return AllNeighbours(BandComparer(signatures, rule), pool, 8192, 1 << 16)
    comparer = VectorComparer(signatures, rule)
    if len(signatures) <= all_pairs:
        return AllNeighbours(comparer, pool, 1024, 4096)
    return BucketNeighbours(comparer, Buckets(signatures, folder / "centroids.set", pool), pool)
