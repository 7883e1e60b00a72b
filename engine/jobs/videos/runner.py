"""The runner of a job on videos: worker processes that decode, and the graph over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Any, Final

from ....durable import write_text
from ....errors import ConfigError
from ....sinks import Found, Sink
from ... import NOTHING, Outcome, Report
from ...config.model import ServiceConfig
from ...config.videos import VideoConfig
from ...dedup import Decision
from ...detectors import parse_detector
from ...journal import Outcome as Fate
from ...machine.resources import usable_cores
from ...sources import Broken, Filtered, Item, key_of
from ...workers.videos import VideoPool
from ..common.checkpoint import JobCheckpoint
from ..common.drive import Interrupt, Watcher
from ..common.plan import FACTORY, Plan
from ..common.provenance import recipe_of
from ..common.runner import Runner
from ..common.store_check import with_id
from .accounting import VideoValues
from .books import VideoBooks
from .contact_sheet import ContactSheet
from .downloads import VideoFiles
from .graph import video_graph
from .held import HeldRows, listed
from .side_tables import VideoTable
from .values import Finished, Video, VideoFailure

_DETECTOR_FACTORY: Final = "penstock.engine.detectors:parse_detector"


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
        if config.detector is not None:
            with config.spelled(), closing(parse_detector(config.detector)) as detector:
                detector.check(config.classes)
        super().__init__(config, video_pool)
        self._held = HeldRows(config) if config.dedup == "all" else None
        self._table = VideoTable(config)
        self._books = VideoBooks(self._table)

    def close(self) -> None:
        """See `Runner.close`."""
        with ExitStack() as stack:
            if self._held:
                stack.callback(self._held.close)
            stack.callback(self._table.close)
            stack.callback(super().close)

    def values_of(self, source: Iterable[Any], entries: Iterable[Any]) -> Iterator[Any]:
        """Videos, or why there are none; see `Runner.values_of`."""
        del source
        for entry in entries:
            match entry:
                case Item() if entry.path is not None:
                    yield Video(entry.key, entry.path, entry.ordinal, metadata=entry.metadata)
                case Item() if entry.reference is not None:
                    yield Video(entry.key, "", entry.ordinal, source=entry.reference.ref, metadata=entry.metadata)
                case Filtered():
                    yield Outcome(NOTHING, dropped=1)
                case Broken():
                    yield Outcome(NOTHING, failures=[VideoFailure(entry.key, entry.error, ordinal=entry.ordinal)])
                case _:
                    raise ConfigError(f"videos are files and URLs, not {entry!r:.200}")

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
        assert isinstance(self.config, VideoConfig)
        files = VideoFiles(self.config, checkpoint.job_id if checkpoint else "a job without books")
        if checkpoint:
            undone = (entry for _, entry, fate in checkpoint.listing() if fate is Fate.UNDONE)
            files.drop_done(key_of(entry.name) for entry in undone)
        sheet = ContactSheet() if self.config.html else None
        values = VideoValues(self._dead, self._books, checkpoint, files.spent)

        def collect(value: Finished) -> None:
            self._books.finished(value)
            if checkpoint:
                checkpoint.written([value.video.ordinal])
            if sheet:
                sheet.add(value.video)
            files.spent(value.video)

        with closing(files), self.workers(self.config) as pool:
            graph = partial(
                video_graph,
                pool=pool,
                embedder=self.plan.embedder,
                books=self._books,
                files=files,
                hashed=self._held is not None,
            )
            try:
                report = self.run(
                    *(source, graph, values, None, 2),
                    collect=collect,
                    figures=lambda: {"videos": {**self._books.figures, **files.figures}},
                    before_flush=self._table.sync,
                    behind_flush=files.tidy,
                    watcher=watcher,
                    interrupt=interrupt,
                    checkpoint=checkpoint,
                )
            finally:
                if self.report:
                    self.report = replace(self.report, accounting=self._books.accounting(self.report))
            files.tidy()
        if sheet and self.config.html:
            write_text(self.config.html, sheet.html(self.config.shown_to))
        self._books.check(report, interrupt is not None and interrupt.requested)
        return replace(report, accounting=self._books.accounting(report))

    def rows_written(self) -> int:
        """Rows of the frames of the videos that are written; see `Runner.rows_written`."""
        if self._held and not self._held.is_held:
            return self._held.survivors
        return self._table.frames_written - (self._held.frames if self._held else 0)

    def keep_rows(self) -> None:
        """See `Runner.keep_rows`; what is in the stores is this job's once rows have been copied."""
        if self._held is None or self._held.is_copied:
            super().keep_rows()

    def sink(self, name: str | None = None) -> Sink:
        """See `Runner.sink`: as long as rows are held back, where they are."""
        if self._held:
            return self._held.sink(self.dimension, with_id(recipe_of(self.plan), self._held.id))
        return super().sink(name)

    def look(self) -> dict[int, Found | None]:
        """See `Runner.look`."""
        if self._held and self._held.is_held:
            return {0: self._held.look()}
        found = super().look()
        return {number: self._held.vouched(each) for number, each in found.items()} if self._held else found

    def _release(self) -> Decision | None:
        """Decide on the rows that are held back, and copy those that stay into the stores; None: there are none."""
        if self._held is None or not self._held.is_held:
            return None
        self.sink()
        decision = self._held.release(super().sink(), self._table.frames_written)
        if self.report:
            videos = {**self.report.extra.get("videos", {}), "near_duplicates": decision.figures}
            self.report = replace(self.report, extra={**self.report.extra, "videos": videos})
        return decision

    def finish_store(self) -> bool:
        """See `Runner.finish_store`."""
        if self._held and self._held.is_held:
            self.finish_stores()
            return True
        if not self._table.is_published:
            self._table.publish()
        return super().finish_store()

    def finish_stores(self) -> None:
        """See `Runner.finish_stores`; the tables of videos are written, too."""
        decision = self._release()
        super().finish_stores()
        if decision is None:
            self._table.publish()
        else:
            self._table.publish(listed(decision.duplicates()), decision.same_videos().keepers)
        if self._held:
            self._held.drop()


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
        thresholds=config.thresholds,
        neighbours=config.dedup != "off",
        detector=None if config.detector is None else (_DETECTOR_FACTORY, parse_detector(config.detector).spec),
        classes=config.classes,
        item_timeout=config.item_timeout,
        video_timeout=config.video_timeout,
        named=embedder.runs == "green",
    )
