"""A volume worker with parts of one's own: decoder, patch function, transform and writer.

    python examples/volume_parts.py

The photographs stand for the pages of two volumes, which are done side by side under one asyncio loop and share its
semaphore. Pages are decoded as negatives; of each patch the contrast is computed; pages of little contrast are
stretched and go round once, by the lane for second passes; and records go into a file of JSON lines, which appears
when its volume is complete. Whatever is not replaced is as ever: reading, batches, lanes, accounting, the end.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.volumes import (
    DecodedFrame,
    Decoder,
    GpuBatcher,
    ImageTask,
    PageLook,
    PipelineConfig,
    Record,
    S3Context,
    VolumeWorker,
)

PHOTOS = Path(__file__).parent / "photos"


class Negatives(Decoder):
    """A decoder has one method."""

    def decode(self, task: ImageTask, data: bytes) -> DecodedFrame:
        """The page with black and white exchanged."""
        frame = super().decode(task, data)
        return replace(frame, pixels=255 - frame.pixels)


def contrast(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A patch function: uint8 [batch, 512, 512] in, a row for each patch out. JAX, Torch or NumPy will do."""
    return np.asarray(patches.astype(np.float32).std((1, 2)))


class Stretch:
    """A transform has one method, which gives the page back to be looked at again, or its record."""

    def inspect(self, page: PageLook) -> DecodedFrame | Record:
        """Pages of little contrast are stretched, once."""
        frame, task = page.frame, page.frame.task
        found = float(np.mean(page.features))
        if found < 50 and frame.passes == 0:
            low, high = np.percentile(frame.pixels, [1, 99])
            pixels = np.clip((frame.pixels - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
            return replace(frame, pixels=pixels, passes=1, before=found)
        return Record(
            *(task.key, task.volume_id, task.page, task.etag, task.size, frame.width, frame.height),
            quality=frame.before or found,
            quality_after=found if frame.passes else None,
            passes=frame.passes,
            patches=len(page.features),
            vector=page.vector,
        )


class JsonLines:
    """A writer has four methods."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.with_suffix(".unfinished").open("w")

    def published(self) -> Mapping[str, Any] | None:
        """Something, where this volume was done before: then it is not done again."""
        return {"path": str(self.path)} if self.path.exists() else None

    def write(self, records: Sequence[Record]) -> None:
        """Take some records, in the order in which their pages were done."""
        for record in records:
            line = {"page": record.page, "key": record.key, "passes": record.passes, "contrast": record.quality}
            print(json.dumps(line), file=self._file)

    def publish(self, pages: int, dead: int) -> Mapping[str, Any] | None:
        """All pages are done: let others see the records."""
        self._file.close()
        Path(self._file.name).rename(self.path)
        return {"pages": pages, "dead": dead}

    def close(self) -> None:
        """Let go, published or not."""
        self._file.close()


async def main(out: Path) -> None:
    cfg = PipelineConfig(s3_bucket=PHOTOS.parent.as_uri(), batch_size=8, embedder="gist:32")
    names = sorted(path.name for path in PHOTOS.glob("*.jpg"))
    semaphore = asyncio.Semaphore(cfg.s3_max_inflight_global)
    workers = [
        VolumeWorker(
            cfg,
            S3Context(cfg, semaphore),
            volume,
            [ImageTask(key=f"photos/{name}", volume_id=volume) for name in names[start::2]],
            decoder=Negatives(cfg),
            batcher=GpuBatcher(cfg, contrast),
            transform=Stretch(),
            writer=JsonLines(out / f"{volume}.jsonl"),
        )
        for start, volume in enumerate(["even", "odd"])
    ]
    reports = await asyncio.gather(*(worker.run() for worker in workers))
    for worker, report in zip(workers, reports, strict=True):
        lines = [json.loads(line) for line in (out / f"{worker.volume_id}.jsonl").read_text().splitlines()]
        again = sum(line["passes"] for line in lines)
        print(f"{worker.volume_id}: {report.accounting.written} pages, {again} of them stretched and looked at again")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
