"""The engine by itself: a graph of your own functions, blocking, async and generating ones mixed.

    python examples/pipeline_builder.py

Reads the example photographs, asks an (imagined) remote service about each, and prints what every stage did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

import penstock

PHOTOS = Path(__file__).parent / "photos"


def sizes(path: Path) -> tuple[str, int, int] | None:
    """Blocking: runs in the pipeline's threads. None drops the item."""
    with Image.open(path) as image:
        return (path.name, *image.size) if image.width > image.height else None


async def ask(photo: tuple[str, int, int]) -> tuple[str, int]:
    """A coroutine: runs on the pipeline's asyncio loop, many at once."""
    await asyncio.sleep(0.01)
    name, width, height = photo
    return name, width * height


def words(answer: tuple[str, int]) -> Iterator[str]:
    """A generator: one item becomes several."""
    name, pixels = answer
    yield from name.removesuffix(".jpg").split("-")
    yield f"{pixels} pixels"


def main() -> None:
    pipeline = (
        penstock.PipelineBuilder()
        .add_source(sorted(PHOTOS.glob("*.jpg")))
        .pipe(sizes, concurrency=2)
        .pipe(ask, concurrency=8, output_order="input")
        .pipe(words)
        .aggregate(10)
        .add_sink()
        .build(num_threads=2, max_failures=3)
    )
    with pipeline.auto_stop():
        for batch in pipeline:
            print(*batch, sep=" | ")
    report = pipeline.report()
    for stage in report.stages:
        print(f"{stage.name:14} in {stage.items_in:4} out {stage.items_out:4} dropped {stage.dropped}")


if __name__ == "__main__":
    main()
