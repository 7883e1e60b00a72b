"""Fan-out and gather: a photograph becomes patches, which are embedded in batches and come back as one value.

    python examples/fanout_gather.py

Each photograph is cut into patches. Patches of all photographs travel together in batches of 32, are described by their
colours, and come back to their photograph when all of them are done. Flat patches are left out, and the photograph says
which; one of which more than half of the patches are overexposed fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import penstock
from penstock.engine import Gathered

PHOTOS = Path(__file__).parent / "photos"
PATCH = 64


def patches(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The patches of a photograph, from left to right and from top to bottom."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    for top in range(0, pixels.shape[0] - PATCH + 1, PATCH):
        for left in range(0, pixels.shape[1] - PATCH + 1, PATCH):
            yield pixels[top : top + PATCH, left : left + PATCH]


def check(patch: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Patches with nothing on them are dropped; those that are white all over are failures."""
    if patch.min() == 255:
        raise ValueError("overexposed")
    return patch if patch.std() > 4 else None


def describe(batch: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Mean and spread of the colours of each patch: [n, 6]. One row for each, in the same order."""
    pixels = np.stack(batch).reshape(len(batch), -1, 3).astype(np.float32)
    return np.concatenate([pixels.mean(axis=1), pixels.std(axis=1)], axis=1)


def pool(photo: Gathered) -> tuple[str, NDArray[np.float32], Gathered]:
    """One vector for the photograph, of those of its patches."""
    return photo.value.name, np.mean(photo.results or [np.zeros(6, np.float32)], axis=0), photo


def main() -> None:
    pipeline = (
        penstock.PipelineBuilder()
        .add_source(sorted(PHOTOS.glob("*.jpg")))
        .fanout(patches, concurrency=2)
        .pipe(check)
        .aggregate(32)
        .pipe(describe)
        .disaggregate()
        .gather(child_failures=Fraction(1, 2))
        .pipe(pool)
        .add_sink()
        .build(num_threads=2)
    )
    with pipeline.auto_stop():
        photos = sorted(pipeline, key=lambda each: each[0])
    for name, vector, photo in photos[:5]:
        counts = f"{len(photo.results)} patches, {len(photo.dropped)} flat, {len(photo.errors)} failed"
        print(f"{name:20} {counts}: {np.round(vector).astype(int).tolist()}")
    accounting = pipeline.report().accounting
    print(f"{accounting.delivered} photographs of {accounting.read}, {accounting.created} patches: {accounting}")


if __name__ == "__main__":
    main()
