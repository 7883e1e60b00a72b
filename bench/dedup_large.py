"""Signatures in numbers, made up around those of real pictures: how long they take, and what buckets miss."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from ..engine.dedup import Rule, decide
from ..engine.dedup.buckets import Buckets
from ..engine.dedup.near import VectorComparer
from ..sinks.signatures import Signatures, SignatureWriter, merge, parts_in
from .child import Measure, Measures
from .workload import peak_bytes

SAMPLE: Final = 2000
"""Items whose pairs are all looked for, to see which of them buckets find."""

_PART: Final = 20_000


@contextmanager
def large(data: str, n: int, times: int) -> Generator[Measure, None, None]:
    """Decide on many signatures; where they are in buckets, see which pairs those miss."""
    folder = synthetic_folder(Path(data), times * n)
    is_in_buckets = times > 10

    def measure() -> Measures:
        start, work = time.perf_counter(), time.process_time()
        decide(folder, Rule.parse("default"), anew=True, workers=2, all_pairs=0 if is_in_buckets else times * n)
        found = {
            "seconds": time.perf_counter() - start,
            "cpu": time.process_time() - work,
            "mib": peak_bytes() / 2**20,
        }
        return {**found, "recall": _recall(folder)} if is_in_buckets else found

    yield measure


def synthetic_folder(data: Path, count: int) -> Path:
    """Where so many of them lie."""
    return data / f"dedup-synthetic-{count}"


def make_synthetic(data: Path, pictures: Path, count: int) -> None:
    """Make them, if they are not there.

    Args:
        data: where they go.
        pictures: signatures of pictures.
        count: how many.
    """
    folder = synthetic_folder(data, count)
    if not folder.exists():
        unfinished = folder.with_suffix(".tmp")
        _synthetic(unfinished, pictures, count)
        unfinished.rename(folder)


def _synthetic(folder: Path, pictures: Path, count: int) -> None:
    """Signatures around those of real pictures, and to every fifth a near one with a hash that is near, too."""
    random = np.random.default_rng(0)
    real = merge(parts_in(pictures), pictures / "merged.set")
    writer = SignatureWriter(folder)
    for first in range(0, count, _PART):
        size = min(_PART, count - first)
        a, b = random.integers(0, len(real), (2, size))
        share = random.uniform(0.75, 1, (size, 1))
        vectors = real.vector[a] * share / np.sqrt(real.norm[a])[:, None]
        vectors += real.vector[b] * (1 - share) / np.sqrt(real.norm[b])[:, None]
        vectors *= 1 + 0.25 * random.standard_normal(vectors.shape)  # of one picture two have a cosine of 0.94
        pdq = random.integers(0, 256, (size, 32), np.uint8)
        copies = np.arange(0, size - 1, 5)
        noise = random.standard_normal((len(copies), vectors.shape[1])) * random.random((len(copies), 1))
        vectors[copies + 1] = vectors[copies] * (1 + 0.25 * noise)
        pdq[copies + 1] = pdq[copies]
        pdq[copies + 1, :8] ^= random.integers(0, 256, (len(copies), 8), np.uint8)
        keys = [f"{number:09}" for number in random.permutation(np.arange(first, first + size))]
        sides = random.integers(200, 2000, size)
        writer.write(
            f"{first:09}",
            Signatures.of(keys, vectors.astype(np.float32), pdq=pdq, quality=np.full(size, 90), short_side=sides),
        )


def _recall(folder: Path) -> float:
    """Of the pairs of a sample with all others the share that is in buckets that are searched."""
    signatures = merge(parts_in(folder), folder / "merged.set")
    sample = np.sort(np.random.default_rng(1).permutation(len(signatures))[:SAMPLE])
    with ThreadPoolExecutor(2) as pool:
        probes = Buckets(signatures, folder / "centroids.set", pool).probes
    found = total = 0
    for pairs in VectorComparer(signatures, Rule.parse("default")).pairs(sample, np.arange(len(signatures))):
        others = pairs.a != pairs.b
        total += int(others.sum())
        found += int((probes[pairs.a[others]] == probes[pairs.b[others], 0][:, None]).any(1).sum())
    return found / max(1, total)
