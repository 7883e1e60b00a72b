"""One run over one or several volumes: its graph, its books, and what is published of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from ....errors import FailureBudgetError, ItemError, PenstockError
from ....sinks import DeadLetters
from ... import ItemFailure, Outcome, Pipeline, Report
from ...config.volumes import PipelineConfig
from ...core.threads import DaemonThreads
from ..common.checkpoint import JobCheckpoint
from .accounting import VolumeValues
from .batcher import GpuBatcher
from .graph import Decodes, Inspects, VolumeParts, threads_of, volume_graph
from .memory import Room, estimate_volumes, room_for_pages
from .pages import ImageTask, Written
from .prefetcher import Prefetcher
from .volumes import Volumes

_logger = logging.getLogger(__name__)

_READ_SECONDS: Final = 0.5
"""Seconds that reads get to end after a pipeline that was stopped; it has given them a second before."""


@dataclass(frozen=True, slots=True)
class Stages:
    """The parts of a run that a user may have brought: see `VolumeWorker`."""

    prefetcher: Prefetcher
    decoder: Decodes
    batcher: GpuBatcher
    transform: Inspects


class VolumeJob:
    """A run over volumes; once. To be closed.

    Args:
        cfg: what to do.
        stages: who does it.
        volumes: where records go, and how far each volume is.
        source: tasks, or Outcomes that say what was filtered or broken.
        letters: where dead letters go; None: nowhere.
        checkpoint: the books of a job; None for one that keeps none.
        on_failure: called for each page that fails, too.
        early: whether a volume is published as soon as it is whole; else by `publish` alone.

    Attributes:
        ceiling: the most memory that it takes.

    Raises:
        ConfigError: that is more than `memory` allows.
    """

    def __init__(
        self,
        cfg: PipelineConfig,
        stages: Stages,
        volumes: Volumes,
        source: Iterable[ImageTask | Outcome],
        *,
        letters: DeadLetters | None = None,
        checkpoint: JobCheckpoint | None = None,
        on_failure: Callable[[ImageTask, Exception], None] = lambda *_: None,
        early: bool = True,
    ) -> None:
        self._cfg, self._stages, self._volumes = cfg, stages, volumes
        self._source = source
        self._letters, self._checkpoint, self._on_failure = letters, checkpoint, on_failure
        self._begin = time.monotonic()
        # Nobody waits for them for ever: a store that does not answer must not keep the interpreter's exit.
        self._readers = DaemonThreads(cfg.s3_max_inflight, "penstock-read")
        self.ceiling = estimate_volumes(cfg, stages.batcher.plan)
        self._files, self._frames = Room(cfg.fetch_queue_bytes), Room(room_for_pages(cfg, stages.batcher.plan))
        self._opened, self._early = False, early

    def open(self, loop: asyncio.AbstractEventLoop | None = None) -> Pipeline:
        """Load models and declare the graph; the pipeline is not started.

        Args:
            loop: of the caller, where there is one.

        Raises:
            EmbedderError: the embedder does not work at all.
            ConfigError: a setting is wrong.
        """
        stages, cfg = self._stages, self._cfg
        self._opened = True
        stages.prefetcher.open(loop)
        stages.batcher.open()
        parts = VolumeParts(
            *(stages.prefetcher, stages.decoder, stages.batcher, stages.transform, self._volumes.write, self._readers),
            files=self._files,
            frames=self._frames,
        )
        values = VolumeValues(self._failed, gone=self._gone, keeps_books=self._checkpoint is not None)
        return volume_graph(self._source, parts, cfg, values).build(
            num_threads=threads_of(cfg),
            max_failures=cfg.max_failures,
            earlier=self._checkpoint.earlier(cfg.stages) if self._checkpoint else None,
            sample_memory=1.0,
            stall_after=cfg.stall_after or None,
        )

    def collect(self, written: Written) -> None:
        """Pages have been written: record them, and publish what is whole."""
        if self._checkpoint:
            self._checkpoint.written([task.ordinal for task in written.tasks])
        self._volumes.done(written.tasks)
        if self._early:
            self.publish()

    def publish(self) -> None:
        """Publish what is whole; what keeps a single volume from it is in its `Volume.error`.

        Raises:
            SinkError: the place refuses.
        """
        for volume in self._volumes.publish():
            dead = f", {volume.dead} of them dead letters" if volume.dead else ""
            if volume.manifest is not None:
                _logger.info("volume %s: published, %d pages%s", volume.name, volume.pages, dead)

    @property
    def errors(self) -> list[PenstockError | FailureBudgetError]:
        """Why volumes could not be published though all of their pages are done."""
        return self._volumes.errors

    def beat(self) -> None:
        """Called several times a second, in the thread that reads."""
        if self._checkpoint and self._letters:
            self._checkpoint.flush(self._letters)
        if self._early:
            self.publish()

    def abandon_reads(self) -> None:
        """Nobody waits for pages any more: in any thread, before the pipeline is stopped early."""
        self._stages.prefetcher.close()
        for room in (self._files, self._frames):
            room.close()

    def report(self, report: Report) -> Report:
        """A run's report, with what is known of its volumes."""
        extra: dict[str, Any] = {"volumes": self._volumes.figures, "memory_ceiling": self.ceiling.to_dict()}
        if self._checkpoint:
            extra["job"] = self._checkpoint.summary()
        return replace(report, seconds=time.monotonic() - self._begin, extra={**report.extra, **extra})

    def close(self) -> None:
        """Let go of threads, models and writers. May be called twice."""
        with ExitStack() as stack:  # what does not close does not keep the others open
            stack.callback(self._volumes.close)
            if self._letters:
                stack.callback(self._letters.close)
            if self._opened:
                stack.callback(self._stages.batcher.close)
            stack.callback(self._join)
            stack.callback(self.abandon_reads)

    def _join(self) -> None:
        self._readers.shutdown(wait=False)
        if late := self._readers.join(_READ_SECONDS):
            _logger.warning("prefetch: abandoned reads that did not end in time: %s", ", ".join(late))

    def _gone(self, task: ImageTask) -> None:
        self._files.give(task)
        self._frames.give(task)

    def _failed(self, stage: str, task: ImageTask, failure: ItemFailure) -> None:
        error, earlier = failure.error, 0
        if self._checkpoint:
            earlier = self._checkpoint.attempts(task.key)
        if self._letters:
            sha256 = error.sha256 if isinstance(error, ItemError) else None
            known = {"sha256": sha256} if sha256 else {}
            volume = {"volume": task.volume_id, "page": task.page}
            self._letters.write(task.key, stage, error, attempts=earlier + failure.attempts, **volume, **known)
        if self._checkpoint:
            self._checkpoint.dead([task.ordinal])
        self._on_failure(task, error)
        self._volumes.done([task], dead=True)


async def in_thread(work: Callable[..., Any], /, *arguments: Any) -> Any:
    """What work returns, done in a thread and to its end: whoever is cancelled meanwhile waits for it first."""
    done = asyncio.get_running_loop().run_in_executor(None, partial(work, *arguments))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait([done])
        raise
