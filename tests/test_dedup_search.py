"""Where near-duplicates are looked for: bands of hashes, buckets of vectors, the cap on neighbours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from penstock.engine.dedup import Rule, Signatures, SignatureWriter, decide, survivors
from penstock.engine.dedup import bands as banded
from penstock.engine.dedup.bands import BandComparer
from penstock.engine.dedup.buckets import Buckets
from penstock.engine.dedup.near import VectorComparer
from penstock.preprocess.pdq import hamming

WIDTH = 32
STRICT, DEFAULT = Rule.parse("strict"), Rule.parse("default")


def hashes(count: int) -> Signatures:
    """Hashes of which many are near others: by 31 bits, and by 32."""
    random = np.random.default_rng(0)
    pdq = random.integers(0, 256, (count, 32), np.uint8)
    for row in range(count // 2):
        bits = np.zeros(256, np.uint8)
        bits[random.permutation(256)[: 31 + row % 2]] = 1
        pdq[count // 2 + row] = pdq[row] ^ np.packbits(bits)
    return signatures(random.standard_normal((count, WIDTH)), pdq)


def signatures(vectors: np.ndarray[tuple[int, ...], np.dtype[np.float64]], pdq: object = None) -> Signatures:
    keys = [f"{number:06}" for number in range(len(vectors))]
    return Signatures.of(keys, vectors.astype(np.float32), pdq=pdq, quality=[90] * len(keys))


def clustered(count: int) -> Signatures:
    """Vectors in clusters, with near copies of each other among them, that have the same hash."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((40, WIDTH))
    vectors = centres[random.integers(0, 40, count)] + 0.5 * random.standard_normal((count, WIDTH))
    vectors[1::4] = vectors[::4][: len(vectors[1::4])] + 0.03 * random.standard_normal(vectors[1::4].shape)
    return signatures(vectors, np.zeros((count, 32), np.uint8))


def test_bands_find_every_pair_within_31_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as comparing all with all, and not one of 32 bits."""
    monkeypatch.setattr(banded, "_FEW", 10)
    monkeypatch.setattr(banded, "_CANDIDATES", 500)
    some = hashes(400)
    items = np.arange(400)
    found = {
        (a, b)
        for pairs in BandComparer(some, STRICT).pairs(items, items)
        for a, b in zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)
    }
    away = np.array([hamming(some.pdq[row], some.pdq) for row in range(400)])
    assert found == set(map(tuple, np.argwhere(away <= 31).tolist()))
    assert len(found) == 400 + 2 * 100


@pytest.mark.slow
def test_buckets_find_nearly_all_pairs_and_no_others(tmp_path: Path) -> None:
    """98 of a hundred, in four buckets of about 220."""
    some = clustered(3000)
    items = np.arange(len(some))
    with ThreadPoolExecutor(2) as pool:
        probes = Buckets(some, tmp_path / "centroids.set", pool).probes
    total = found = 0
    for pairs in VectorComparer(some, DEFAULT).pairs(items, items):
        total += len(pairs)
        found += int((probes[pairs.a] == probes[pairs.b, 0][:, None]).any(1).sum())
    assert total > 3000 + 2 * 700
    assert found >= 0.98 * total


@pytest.mark.slow
def test_what_buckets_give_depends_on_nothing_but_the_items(tmp_path: Path) -> None:
    """One thread or four, parts in any order: the same list; centroids are kept, and never trained again."""
    some = clustered(1200)
    lists = []
    for workers in (1, 4):
        folder = tmp_path / str(workers)
        order = np.random.default_rng(workers).permutation(len(some))
        for part, rows in enumerate(np.array_split(order, workers)):
            keys = [some.keys.text(int(row)) for row in rows]
            columns = {"pdq": some.pdq[rows], "quality": some.quality[rows]}
            SignatureWriter(folder).write(
                f"{part}", Signatures.of(keys, some.vector[rows].astype(np.float32), **columns)
            )
        lists.append(list(decide(folder, DEFAULT, workers=workers, all_pairs=100).duplicates()))
        centroids = (folder / "centroids.set").read_bytes()
        assert list(decide(folder, DEFAULT, anew=True, all_pairs=100).duplicates()) == lists[-1]
        assert (folder / "centroids.set").read_bytes() == centroids
    assert lists[0] == lists[1]
    assert len(lists[0]) > 250


def test_of_very_many_neighbours_those_of_the_first_ranks_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many items had more is told; all of them go all the same, since the first stays."""
    monkeypatch.setattr(survivors, "CAP", 5)
    SignatureWriter(tmp_path).write("0", signatures(np.ones((20, WIDTH))))
    decision = decide(tmp_path, DEFAULT)
    assert (decision.dropped, decision.capped) == (19, 14)
    assert {each.duplicate_of for each in decision.duplicates()} == {"000000"}


def test_a_decision_can_be_ended_between_two_blocks(tmp_path: Path) -> None:
    """By whoever hears how it goes; nothing is decided then."""
    SignatureWriter(tmp_path).write("0", clustered(50))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt(f"{done} of {total}")

    with pytest.raises(KeyboardInterrupt, match="0 of 50"):
        decide(tmp_path, DEFAULT, on_progress=stop)
    assert not list(tmp_path.glob("decided*"))
