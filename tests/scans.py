"""Volumes of drawn pages, and parts of a volume worker that are quick, or watched."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from penstock import Report
from penstock.bench.page_renderer import Layout, UInt8, draw, turn
from penstock.engine.jobs.volumes.batcher import FIRST, REPROCESS
from penstock.engine.jobs.volumes.pages import Patch, PatchResult
from penstock.tests.waiting import DEADLINE
from penstock.volumes import GpuBatcher, ImageTask, PipelineConfig, Record, S3Context, VolumeWorker

SMALL = Layout(width=700, height=1000, size=20)
"""A page of four patches, with text enough to go by."""


def page(seed: int, angle: float = 0.0, layout: Layout = SMALL) -> UInt8:
    """A page of text, turned by so many degrees."""
    straight, _ = draw(layout, seed)
    return turn(straight, angle) if angle else straight


def write_pages(folder: Path, pages: Mapping[str, NDArray[Any] | bytes]) -> None:
    """Files of pages; bytes are written as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in pages.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            Image.fromarray(content).save(folder / name)


def tasks_in(folder: Path, volume: str) -> list[ImageTask]:
    """A task for each file of a volume's folder, by name."""
    return [ImageTask(f"{volume}/{path.name}", volume_id=volume) for path in sorted((folder / volume).iterdir())]


def config(folder: Path | None = None, **settings: Any) -> PipelineConfig:
    """A configuration with small batches and a quick embedder, over a folder of volumes."""
    quick: dict[str, Any] = {
        "batch_size": 4,
        "embedder": "python:penstock.tests.scans:mean_of_pixels",
        "image_size": 16,
        "dtype": "uint8",
        "on_failure": {"preprocess": "skip"},
    }
    if folder is not None:
        quick["s3_bucket"] = folder.as_uri()
    return PipelineConfig(**{**quick, **settings})


def worker(
    folder: Path, cfg: PipelineConfig | None = None, *, tasks: Sequence[ImageTask] | None = None, **parts: Any
) -> VolumeWorker:
    """A worker over the volume ``vol`` of a folder, which keeps its records."""
    cfg = cfg or config(folder)
    return VolumeWorker(cfg, S3Context(cfg), "vol", tasks_in(folder, "vol") if tasks is None else tasks, **parts)


def mean_of_pixels(pixels: UInt8) -> NDArray[np.float32]:
    """A vector of three numbers: ``[n, 3, h, w]`` -> ``[n, 3]``."""
    return np.asarray(pixels.astype(np.float32).mean((2, 3)))


def jax_means(pixels: Any) -> Any:
    """The same, also of a JAX array."""
    return pixels.astype("float32").mean((2, 3))


def darkness(patches: UInt8) -> NDArray[np.float32]:
    """A patch function: the mean of each patch, ``[n]``."""
    return np.asarray(patches.astype(np.float32).mean((1, 2)))


class WatchedBatcher(GpuBatcher):
    """Keeps, of each batch, its lane and its number of patches, in order; may be held.

    Args:
        cfg: see `GpuBatcher`.
        function: see `GpuBatcher`.
    """

    def __init__(self, cfg: PipelineConfig, function: Any = darkness) -> None:
        super().__init__(cfg, function)
        self.batches: list[tuple[str, int]] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.began = threading.Event()
        self.closed = 0

    def run(self, patches: list[Patch]) -> list[PatchResult]:
        """See `GpuBatcher`."""
        lanes = {REPROCESS if patch.frame.passes else FIRST for patch in patches}
        assert len(lanes) == 1
        self.batches.append((lanes.pop(), len(patches)))
        self.began.set()
        self.may_run.wait()
        return super().run(patches)

    def close(self) -> None:
        """See `GpuBatcher`."""
        self.closed += 1
        super().close()


@asynccontextmanager
async def in_a_batch(done: VolumeWorker, batcher: WatchedBatcher) -> AsyncGenerator[asyncio.Task[Report]]:
    """A worker under this loop that stands in its first batch, until `batcher` lets it go on."""
    batcher.may_run.clear()
    async with asyncio.timeout(DEADLINE):
        running = asyncio.create_task(done.run())
        await asyncio.to_thread(batcher.began.wait)
        yield running


async def cancel_in_a_batch(done: VolumeWorker, batcher: WatchedBatcher) -> None:
    """Cancel a worker in the middle of its first batch, and wait for its end."""
    async with in_a_batch(done, batcher) as running:
        running.cancel()
        batcher.may_run.set()  # what has begun is let end
        with pytest.raises(asyncio.CancelledError):
            await running


def by_page(done: VolumeWorker) -> list[Record]:
    """What became of each page, in the volume's order."""
    return sorted(done.records, key=lambda record: record.page)
