"""The graph of a volume, declared on the one engine.

::

    tasks -> prefetch -> decode -> patches =====> batch -> compute -> pages -> look -> transform -+-> rows -> write
                                      ^   2 lanes                                                 |
                                      +------------------ reprocess lane -------------------------+

A page is cut into patches, which travel alone: batches are filled from all pages, each from one lane. When the last
patch of a page is back, the page is whole again (``pages``). What is straightened goes round by the reprocess lane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from ... import Feedback, Outcome, PipelineBuilder
from ...config.types import Stage
from ...config.volumes import PipelineConfig
from ...core.policies import Policy
from .accounting import VolumeValues
from .batcher import REPROCESS, GpuBatcher
from .memory import Room, nbytes_of
from .pages import DecodedFrame, FetchedPage, ImageTask, PageLook, Record, Row, Written
from .prefetcher import Prefetcher

_ROWS_WAIT = 1.0
"""Seconds that a record waits for others to be written with."""


class Decodes(Protocol):
    """What a `Decoder` does."""

    def decode(self, task: ImageTask, data: bytes, /) -> DecodedFrame: ...


class Inspects(Protocol):
    """What a `TransformController` does."""

    def inspect(self, page: PageLook, /) -> DecodedFrame | Record: ...


@dataclass(frozen=True, slots=True)
class VolumeParts:
    """What the stages of a volume run.

    Attributes:
        prefetcher: reads; likewise decoder, batcher and transform do what they are called.
        write: takes rows for good.
        readers: threads that read, as many as reads may be under way.
        files: room for the bytes of files, from the reading until they are decoded.
        frames: room for decoded pages, until they are records.
    """

    prefetcher: Prefetcher
    decoder: Decodes
    batcher: GpuBatcher
    transform: Inspects
    write: Callable[[list[Row]], Written]
    readers: Executor
    files: Room
    frames: Room

    def fetch(self, task: ImageTask) -> FetchedPage:
        """Read a page, when there is room for it."""
        self.files.take(task, task.size or 0)
        try:
            page = self.prefetcher.fetch(task)
        except BaseException:
            self.files.give(task)
            raise
        self.files.resize(task, len(page.data))
        return page

    def decode(self, page: FetchedPage) -> DecodedFrame:
        """Decode it; it goes on when there is room for its pixels."""
        try:
            frame = self.decoder.decode(page.task, page.data)
        finally:
            self.files.give(page.task)
        self.frames.take(page.task, nbytes_of(frame.pixels.nbytes))
        return frame

    def inspect(self, page: PageLook) -> Feedback | Row:
        """What becomes of it; with its record its pixels go."""
        found = self.transform.inspect(page)
        if isinstance(found, DecodedFrame):
            return Feedback(found, REPROCESS)
        self.frames.give(page.frame.task)
        return Row(page.frame.task, found)


def volume_graph(
    source: Iterable[ImageTask | Outcome], parts: VolumeParts, cfg: PipelineConfig, values: VolumeValues
) -> PipelineBuilder:
    """The stages; what comes out of them is ``Written``, in no particular order.

    Args:
        source: tasks, or Outcomes that say what was filtered or broken.
        parts: what runs in the stages.
        cfg: sizes of queues and batches, weights, times.
        values: how the engine counts them.
    """
    policies: Mapping[Stage, Policy] = cfg.policies

    return (
        PipelineBuilder(values=values)
        .add_source(source)
        .pipe(
            parts.fetch,
            name="prefetch",
            concurrency=cfg.s3_max_inflight,
            executor=parts.readers,
            on_failure=policies["preprocess"],
        )
        .pipe(
            parts.decode,
            name="decode",
            concurrency=cfg.decode_threads,
            buffer_size=cfg.fetch_queue_size,
        )
        .fanout(
            parts.batcher.cut,
            name="patches",
            concurrency=cfg.open_pages,
            lanes=parts.batcher.lanes,
            buffer_size=cfg.frame_queue_size,
        )
        .aggregate(
            cfg.batch_size,
            max_wait=cfg.batch_timeout,
            lanes=parts.batcher.lanes,
            name="batch",
            buffer_size=cfg.batch_size,
        )
        .pipe(parts.batcher.run, name="compute", concurrency=cfg.compute_threads, on_failure=policies["embed"])
        .disaggregate()
        .gather(name="pages")
        .pipe(parts.batcher.gathered, name="look", concurrency=cfg.decode_threads)
        .pipe(parts.inspect, name="transform", concurrency=cfg.decode_threads, feedback="patches")
        .aggregate(cfg.insert_batch_size, max_wait=_ROWS_WAIT, name="rows")
        .pipe(parts.write, name="write", on_failure=policies["insert"])
        .add_sink(4)
    )


def threads_of(cfg: PipelineConfig) -> int:
    """Threads for all stages but the reading one."""
    return 2 * cfg.decode_threads + cfg.compute_threads + 2
