"""The runner of a job on videos: worker processes that decode, and the graph over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from ....errors import ConfigError
from ... import NOTHING, Outcome, Report
from ...config.model import ServiceConfig
from ...config.videos import VideoConfig
from ...machine.resources import usable_cores
from ...sources import Broken, Filtered, Item
from ...workers.videos import VideoPool
from ..common.checkpoint import JobCheckpoint
from ..common.drive import Interrupt, Watcher
from ..common.plan import FACTORY, Plan
from ..common.runner import Runner
from .accounting import VideoValues
from .books import VideoBooks
from .graph import video_graph
from .side_tables import VideoTable
from .values import Finished, Video, VideoFailure


class VideoRunner(Runner[VideoPool]):
    """Runs the graph of a job on videos; see `Runner`.

    Args:
        config: what to do.

    Raises:
        ConfigError: a setting is wrong, or pixels and embedder do not fit.
    """

    def __init__(self, config: ServiceConfig) -> None:
        if not isinstance(config, VideoConfig):
            raise ConfigError("a job on videos is configured by VideoConfig")
        super().__init__(config, video_pool)
        self._table = VideoTable(config)
        self._books = VideoBooks(self._table)

    def close(self) -> None:
        """See `Runner.close`."""
        with ExitStack() as stack:
            stack.callback(self._table.close)
            stack.callback(super().close)

    def values_of(self, source: Iterable[Any], entries: Iterable[Any]) -> Iterator[Any]:
        """Videos, or why there are none; see `Runner.values_of`."""
        del source
        for entry in entries:
            match entry:
                case Item() if entry.path is not None:
                    yield Video(entry.key, entry.path, entry.ordinal, metadata=entry.metadata)
                case Filtered():
                    yield Outcome(NOTHING, dropped=1)
                case Broken():
                    yield Outcome(NOTHING, failures=[VideoFailure(entry.key, entry.error, ordinal=entry.ordinal)])
                case _:
                    raise ConfigError(f"videos are files of this machine, not {entry!r:.200}")

    def stream(
        self,
        source: Iterable[Any],
        *,
        watcher: Watcher | None = None,
        interrupt: Interrupt | None = None,
        checkpoint: JobCheckpoint | None = None,
    ) -> Report:
        """Run the graph over videos, to the end; see `Runner.stream`. The report counts videos."""
        self._table.begin()
        values = VideoValues(self._dead, self._books, checkpoint)

        def collect(value: Finished) -> None:
            self._books.finished(value)
            if checkpoint:
                checkpoint.written([value.video.ordinal])

        with self.workers(self.config) as pool:
            graph = partial(video_graph, pool=pool, embedder=self.plan.embedder, books=self._books)
            try:
                report = self.run(
                    *(source, graph, values, None, 2),
                    collect=collect,
                    figures=lambda: {"videos": self._books.figures},
                    before_flush=self._table.sync,
                    watcher=watcher,
                    interrupt=interrupt,
                    checkpoint=checkpoint,
                )
            finally:
                if self.report:
                    self.report = replace(self.report, accounting=self._books.accounting(self.report))
        self._books.check(report, interrupt is not None and interrupt.requested)
        return replace(report, accounting=self._books.accounting(report))

    def rows_written(self) -> int:
        """Rows of the frames of the videos that are written; see `Runner.rows_written`."""
        return self._table.frames_written

    def finish_store(self) -> bool:
        """See `Runner.finish_store`."""
        if not self._table.is_published:
            self._table.publish()
        return super().finish_store()

    def finish_stores(self) -> None:
        """See `Runner.finish_stores`; the tables of videos are written, too."""
        super().finish_stores()
        self._table.publish()


def video_pool(plan: Plan, config: ServiceConfig) -> VideoPool:
    """The worker processes of a plan, not started. An embedder that runs elsewhere must be open, for its dimension."""
    assert isinstance(config, VideoConfig)
    embedder = plan.embedder
    in_worker = embedder.runs == "worker"
    workers = config.workers or usable_cores()
    limits = {"max_duration_s": config.max_duration, "max_frames": config.max_frames}
    if config.max_pixels is not None:
        limits["max_pixels"] = config.max_pixels
    return VideoPool(
        *(plan.spec, config.every, limits),
        workers=workers,
        batch_size=config.batch_size,
        slots=plan.slots(config, workers),
        embedder=(FACTORY, embedder.spec) if in_worker else None,
        dimension=embedder.dimension if embedder.knows_dimension or not in_worker else 0,
        filters=config.filter,
        neighbours=config.dedup != "off",
        item_timeout=config.item_timeout,
        video_timeout=config.video_timeout,
        named=embedder.runs == "green",
    )
