"""Lanes in `aggregate`: first passes and second ones, each in batches of their own.

    python examples/lanes_in_aggregate.py

Photographs are measured in batches, a NumPy array each, so all pictures of a batch must have one size. All are measured
at 64 pixels first; those about which that says little come back and are measured at 192, in batches of such. The lane
for second passes has the smaller weight, a batch waits at most 50 ms, and holds at most a megabyte.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import penstock
from penstock.engine import Feedback, Lane, PlainValues

PHOTOS = Path(__file__).parent / "photos"
PASSES = {"first": 64, "second": 192}


@dataclass(frozen=True)
class Photo:
    """A photograph at the size of its pass, and what has been measured of it."""

    path: Path
    lane: str
    pixels: NDArray[np.float32]
    detail: float = 0.0


class Sizes(PlainValues):
    """Tells the engine how many bytes a photograph is."""

    def nbytes(self, value: object) -> int:
        return value.pixels.nbytes if isinstance(value, Photo) else 0


def load(path: Path, lane: str = "first") -> Photo:
    """A photograph in grey, at the size of a pass."""
    with Image.open(path) as image:
        pixels = image.convert("L").resize((PASSES[lane], PASSES[lane]))
    return Photo(path, lane, np.asarray(pixels, np.float32) / np.float32(255))


def measure(batch: list[Photo]) -> list[Photo]:
    """How much detail each has, all of them at once: the mean of the gradients."""
    stacked = np.stack([photo.pixels for photo in batch])  # raises if sizes are mixed
    vertical, horizontal = np.gradient(stacked, axis=(1, 2))
    details = np.hypot(vertical, horizontal).mean(axis=(1, 2))
    return [replace(photo, detail=float(detail)) for photo, detail in zip(batch, details, strict=True)]


def judge(photo: Photo) -> Photo | Feedback:
    """Photographs with little detail at the first look are looked at again, more closely."""
    if photo.lane == "first" and photo.detail < 0.05:
        return Feedback(load(photo.path, "second"), lane="second")
    return photo


def main() -> None:
    pipeline = (
        penstock.PipelineBuilder(Sizes())
        .add_source(sorted(PHOTOS.glob("*.jpg")))
        .pipe(lambda path: Lane("first", load(path)), name="load", concurrency=2)
        .aggregate(8, lanes={"first": 3, "second": 1}, max_wait=0.05, max_bytes=1 << 20, name="batch")
        .pipe(measure)
        .disaggregate()
        .pipe(judge, feedback="batch")
        .add_sink()
        .build(num_threads=2)
    )
    with pipeline.auto_stop():
        photos = sorted(pipeline, key=lambda photo: photo.detail)
    for photo in (*photos[:3], *photos[-3:]):
        print(f"{photo.detail:.3f} at {PASSES[photo.lane]:3} pixels  {photo.path.name}")
    batch = pipeline.report().stages[2]
    assert batch.channel is not None
    for name, lane in batch.channel.lanes.items():
        print(f"{name}: {lane.units_in} in, {lane.units_out} measured")


if __name__ == "__main__":
    main()
