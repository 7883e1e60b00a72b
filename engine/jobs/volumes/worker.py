"""``VolumeWorker``: one volume of scanned pages, from an object store to a published data set."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ....errors import ConfigError
from ....sinks import DeadLetters
from ... import Report
from ...config.volumes import PipelineConfig
from ..common.drive import Interrupt, Watcher, drive
from .batcher import GpuBatcher
from .decoder import Decoder
from .graph import Decodes, Inspects
from .job import Stages, VolumeJob, in_thread
from .letters import letters_path
from .pages import ImageTask
from .prefetcher import Prefetcher
from .s3_context import S3Context
from .transform import TransformController
from .volumes import Volumes, Writes
from .writer import RecordList, writer_for


class VolumeWorker:
    """Reads, decodes, looks at, straightens and writes the pages of one volume, and publishes them at once.

    Any number of workers may run in a process, under one asyncio loop or in threads; each runs once. What a page fails
    of is in `failures`, and a dead letter; the volume is published with the others. A volume that is published already
    is not done again.

    Args:
        cfg: what to do. Without `out_prefix` (or `to`) the records stay in memory: see `records`.
        s3: where pages are read from.
        volume_id: the name of the volume, and of the folder that it is published in.
        tasks: its pages.
        prefetcher: reads them; default: a `Prefetcher`.
        decoder: makes pixels of them; default: a `Decoder`.
        batcher: computes their patches; default: a `GpuBatcher`, which may have a patch function of yours.
        transform: straightens them; default: a `TransformController`.
        writer: takes their records; default: a `RecordList`.

    Raises:
        ConfigError: a setting is wrong, a task is of another volume, or a key that is to be published is there twice.
    """

    def __init__(
        self,
        cfg: PipelineConfig,
        s3: S3Context,
        volume_id: str,
        tasks: Iterable[ImageTask],
        *,
        prefetcher: Prefetcher | None = None,
        decoder: Decodes | None = None,
        batcher: GpuBatcher | None = None,
        transform: Inspects | None = None,
        writer: Writes | None = None,
    ) -> None:
        if cfg.job is not None:
            raise ConfigError("job: the books of volumes are kept by penstock volumes; a worker has none")
        if cfg.report:
            raise ConfigError("report: a worker returns its report; penstock volumes writes it into files")
        self.volume_id = volume_id
        self._cfg = cfg
        self._tasks = _numbered(tasks, volume_id)
        if cfg.destination is not None:
            _check_distinct(self._tasks)
        with cfg.spelled():
            self._stages = Stages(
                Prefetcher(s3) if prefetcher is None else prefetcher,
                Decoder(cfg) if decoder is None else decoder,
                GpuBatcher(cfg) if batcher is None else batcher,
                TransformController(cfg) if transform is None else transform,
            )
            recipe = self._stages.batcher.recipe
            self._writer = writer_for(cfg, volume_id, recipe=recipe) if writer is None else writer
        self._ran = False
        self.failures: dict[str, Exception] = {}
        self.report: Report | None = None

    @property
    def records(self) -> RecordList:
        """The records of a volume that was published nowhere, in the order in which pages were done.

        Raises:
            ConfigError: they were written elsewhere.
        """
        if not isinstance(self._writer, RecordList):
            raise ConfigError("records: they are where the volume is published; leave out_prefix out to keep them")
        return self._writer

    async def run(self) -> Report:
        """Do it, under the running asyncio loop, which goes on meanwhile. Cancelling stops all and publishes nothing.

        Returns:
            The report; of a volume that was published before, one without stages.

        Raises:
            PipelineFailure: it could not go on, or its failure budget is spent. Nothing is published then.
            SinkError: somebody else has published the volume, or the store refuses.
            RuntimeError: it has run before.
        """
        with self._once() as (volumes, job):
            try:
                if await in_thread(volumes.look, self.volume_id):
                    return self._kept(job.report(Report()))
                pipeline = await in_thread(job.open, asyncio.get_running_loop())
                async with pipeline.auto_stop(discard=True):
                    try:
                        async for written in pipeline:
                            await in_thread(job.collect, written)
                    finally:
                        job.abandon_reads()
                return self._kept(await in_thread(self._finish, job, pipeline.report()))
            finally:
                await in_thread(job.close)

    def run_sync(self, *, watcher: Watcher | None = None, interrupt: Interrupt | None = None) -> Report:
        """`run` without asyncio: in the calling thread.

        Args:
            watcher: shown the figures at its interval; see ``penstock.engine.observe.progress``.
            interrupt: lets another thread, or a signal handler, end it early; then nothing is published.

        Raises:
            PipelineFailure, SinkError, RuntimeError: as `run`.
        """
        with self._once() as (volumes, job):
            try:
                if volumes.look(self.volume_id):
                    return self._kept(job.report(Report()))
                report = drive(job.open(), job.collect, watcher, interrupt, job.beat)
                if interrupt and interrupt.requested:
                    return self._kept(job.report(report))
                return self._kept(self._finish(job, report))
            finally:
                job.close()

    @contextmanager
    def _once(self) -> Generator[tuple[Volumes, VolumeJob]]:
        if self._ran:
            raise RuntimeError("this volume worker has run already: make another one")
        self._ran = True
        volumes = Volumes(lambda _: self._writer, self._cfg.max_failures)
        volumes.has(self.volume_id, len(self._tasks))
        letters = DeadLetters(path) if (path := letters_path(self._cfg)) else None
        own: dict[str, Any] = {"letters": letters, "on_failure": self._remember, "early": False}
        job = VolumeJob(self._cfg, self._stages, volumes, self._tasks, **own)
        with self._cfg.spelled():
            yield volumes, job

    def _finish(self, job: VolumeJob, report: Report) -> Report:
        report.check(ended=True)
        job.publish()
        for error in job.errors:
            raise error
        return job.report(report)

    def _kept(self, report: Report) -> Report:
        self.report = report
        return report

    def _remember(self, task: ImageTask, error: Exception) -> None:
        self.failures[task.key] = error


def _numbered(tasks: Iterable[ImageTask], volume_id: str) -> list[ImageTask]:
    """The pages of a volume, each with its number in it."""
    numbered: list[ImageTask] = []
    for number, task in enumerate(tasks):
        if task.volume_id not in ("", volume_id):
            raise ConfigError(f"tasks: {task.key!r} is of the volume {task.volume_id!r}, not of {volume_id!r}")
        page = number if task.page < 0 else task.page
        numbered.append(replace(task, volume_id=volume_id, page=page))
    return numbered


def _check_distinct(tasks: Iterable[ImageTask]) -> None:
    """A data set has a row for each key."""
    seen: set[str] = set()
    for task in tasks:
        if task.key in seen:
            raise ConfigError(f"tasks: {task.key!r} is there twice: a volume that is published has a row for each key")
        seen.add(task.key)
