"""A job over many volumes: what ``penstock volumes`` runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ....durable import write_text
from ....errors import ConfigError, SourceError
from ....messages import redact
from ....sinks import DeadLetters
from ... import NOTHING, Outcome, Report
from ...config.volumes import PARQUET, PipelineConfig
from ...journal import Kind
from ...journal import Outcome as Fate
from ...observe.contact_sheet import check_sheet_path
from ...observe.report_files import check_report_path, write_report
from ...sources import Broken, Filtered, Item
from ...sources.entries import Entry
from ..common.checkpoint import JobCheckpoint
from ..common.drive import Interrupt, Watcher, drive
from ..common.memory_estimate import MemoryEstimate
from ..common.memory_monitor import MemoryMonitor, warn_if_scarce
from ..common.output_paths import report_paths
from .batcher import GpuBatcher
from .contact_sheet import ContactSheet
from .decoder import Decoder
from .embedding import PatchEmbedder
from .graph import Inspects
from .job import Stages, VolumeJob
from .letters import letters_path
from .memory import estimate_volumes
from .pages import ImageTask, PageFailure
from .places import store_options
from .prefetcher import Prefetcher
from .s3_context import S3Context
from .source import VolumeRoot, VolumeSource, failed_task, task_of
from .transform import TransformController
from .volumes import Volumes
from .writer import writer_for

_logger = logging.getLogger(__name__)


def run_volumes(
    cfg: PipelineConfig,
    specs: Sequence[str],
    *,
    watcher: Watcher | None = None,
    interrupt: Interrupt | None = None,
    begins: Callable[[MemoryEstimate, int | None], None] = lambda *_: None,
    html: str | None = None,
) -> Report:
    """Do volumes, each published as soon as it is whole. With `job` it can be killed at any moment and goes on.

    Args:
        cfg: what to do; with `to` or `out_prefix`.
        specs: folders or prefixes, or patterns of them; see `VolumeSource`.
        watcher: told how it goes.
        interrupt: lets another thread, or a signal handler, end it early; where it was requested nothing is begun.
        begins: told, before anything is read, the most memory that will be taken, and how many pages remain, where that
            is known.
        html: a file for a contact sheet of what this run has done: the first pages of each volume, before and after.

    Returns:
        The report; of a job that was finished already one without stages.

    Raises:
        ConfigError: a setting is wrong.
        SourceError: there is no such volume, or it cannot be listed.
        PipelineFailure: the job could not go on, or its failure budget is spent.
        SinkError: a volume cannot be published.
    """
    with cfg.spelled(), ExitStack() as stack:
        if cfg.destination is None:
            raise ConfigError("to is missing: where are the volumes published? For example to=parquet:out")
        for path in cfg.report:
            check_report_path(path)
        if html is not None:
            check_sheet_path(html)
        cfg = cfg.model_copy(update={"to": f"{PARQUET}{cfg.destination}"})
        transform = TransformController(cfg)
        sheet = None if html is None else ContactSheet(transform)
        stages = _stages(cfg, sheet or transform)
        books = _Books(cfg, specs, stages.batcher)
        stack.callback(books.close)
        books.open(interrupt)
        if interrupt and interrupt.requested:
            return Report(extra=books.said)
        if books.checkpoint and books.is_finished:
            return Report(extra=books.said)
        ceiling = estimate_volumes(cfg, stages.batcher.plan)
        begins(ceiling, books.checkpoint.remaining if books.checkpoint else None)
        warn_if_scarce(ceiling)
        job = stack.enter_context(
            closing(
                VolumeJob(cfg, stages, books.volumes, books.tasks(), letters=books.letters, checkpoint=books.checkpoint)
            )
        )
        shown = redact(", ".join(specs))
        pages = [] if sheet is None or html is None else [lambda: write_text(html, sheet.html(shown))]
        return _driven(cfg, job, books, watcher, interrupt, pages)


def _driven(
    cfg: PipelineConfig,
    job: VolumeJob,
    books: _Books,
    watcher: Watcher | None,
    interrupt: Interrupt | None,
    pages: Iterable[Callable[[], None]],
) -> Report:
    """Run it, and report on it however it ends; `pages` write what else is told of it."""
    cause: BaseException | None = None
    pipeline = job.open()
    shown = _WithVolumes(watcher, books.volumes) if watcher else None
    try:
        report = drive(
            pipeline, job.collect, shown, interrupt, job.beat, MemoryMonitor(job.ceiling, frozenset[int]).look
        )
        job.publish()
        if books.checkpoint:
            books.checkpoint.check(report, interrupted=interrupt is not None and interrupt.requested)
    except BaseException as error:
        cause = error
        raise
    finally:
        report = job.report(pipeline.report())
        _write_all([*(partial(write_report, report, path) for path in report_paths(cfg)), *pages], cause)
    return report


def _write_all(files: Iterable[Callable[[], None]], cause: BaseException | None) -> None:
    """A disk that takes no report must not hide the cause for which the job is failing."""
    for write in files:
        try:
            write()
        except (OSError, ConfigError) as error:
            if cause is None:
                raise
            cause.add_note(f"no report: {error}")


def _stages(cfg: PipelineConfig, transform: Inspects) -> Stages:
    batcher = GpuBatcher(cfg, embedder=PatchEmbedder(cfg))
    return Stages(Prefetcher(S3Context(cfg)), Decoder(cfg), batcher, transform)


class _Books:
    """Which volumes and pages there are, and what is done of them; with a job's folder or without.

    Args:
        cfg: of the job.
        specs: of its volumes.
        batcher: says what the vectors are made by.

    Attributes:
        volumes: how far each is.
        checkpoint: None where no books are kept.
        letters: where dead letters go.
    """

    def __init__(self, cfg: PipelineConfig, specs: Sequence[str], batcher: GpuBatcher) -> None:
        self._cfg, self._batcher = cfg, batcher
        self.volumes = Volumes(lambda name: writer_for(cfg, name, self._job_id, batcher.recipe))
        self.source = VolumeSource(specs, self.volumes.look, store_options(cfg))
        self.checkpoint: JobCheckpoint | None = None
        self._job_id = ""
        path = letters_path(cfg)
        assert path is not None
        self.letters = DeadLetters(path)

    def open(self, interrupt: Interrupt | None) -> None:
        """List the volumes; in a job's folder once, and take over what is done."""
        if self._cfg.job is None:
            self._remove_old_letters()
            _ = self.source.roots  # says at once what is not there
            return
        self.checkpoint = JobCheckpoint(self._cfg, self._batcher.plan, self.source, interrupt)
        self._job_id = self.checkpoint.job_id
        self.volumes.close()  # what was looked at while listing had no job yet
        self._take_over()

    @property
    def is_finished(self) -> bool:
        """Whether nothing remains, and all that can be published is. What was left unpublished is published here."""
        assert self.checkpoint is not None
        if not self.checkpoint.finished:
            return False
        self.volumes.publish()
        return True

    @property
    def said(self) -> dict[str, Any]:
        """For the report of a run without stages."""
        job = {"job": self.checkpoint.summary()} if self.checkpoint else {}
        return {"volumes": self.volumes.figures, **job}

    def tasks(self) -> Iterator[ImageTask | Outcome]:
        """What is to be done, in order."""
        return self._remaining(self.checkpoint) if self.checkpoint else self._all()

    def close(self) -> None:
        """Close the books."""
        self.volumes.close()
        self.letters.close()
        if self.checkpoint:
            self.checkpoint.__exit__(None, None, None)

    def _remove_old_letters(self) -> None:
        path = self.letters.path
        if path.exists():
            path.replace(path.with_suffix(".previous.jsonl"))

    def _take_over(self) -> None:
        """What earlier runs have done, volume by volume."""
        assert self.checkpoint is not None
        found: dict[str, _Tally] = {}
        for _, entry, fate in self.checkpoint.listing():
            if entry.kind is not Kind.FILTERED:
                tally = found.setdefault(self.source.root_of(entry.name).name, _Tally())
                tally.pages += 1
                tally.done += fate in (Fate.WRITTEN, Fate.DEAD)
                tally.dead += fate is Fate.DEAD
        for name, tally in found.items():
            self.volumes.has(name, tally.pages, tally.done, tally.dead)
            if tally.done == tally.pages:
                self.volumes.look(name)

    def _remaining(self, checkpoint: JobCheckpoint) -> Iterator[ImageTask | Outcome]:
        places = self._places(checkpoint)
        for entry in checkpoint.entries():
            if isinstance(entry, Filtered):
                yield Outcome(NOTHING, dropped=1)
                continue
            ordinal, root, page = next(place for place in places if place[0] == entry.ordinal)
            yield _task(replace(entry, ordinal=ordinal), root, page)

    def _places(self, checkpoint: JobCheckpoint) -> Iterator[tuple[int, VolumeRoot, int]]:
        """The ordinal of each page, its volume, and its number in it."""
        root, page = VolumeRoot("", ""), 0
        for ordinal, entry, _ in checkpoint.listing():
            if entry.kind is not Kind.FILTERED:
                here = self.source.root_of(entry.name)
                root, page = here, page + 1 if here == root else 0
                yield ordinal, root, page

    def _all(self) -> Iterator[ImageTask | Outcome]:
        roots, pages, seen = self.source.roots, dict[str, int](), -1
        for number, entry in self.source.parts():
            if number != seen and seen >= 0:
                self.volumes.has(roots[seen].name, pages.get(roots[seen].name, 0))
            seen, root = number, roots[number]
            if isinstance(entry, Filtered):
                yield Outcome(NOTHING, dropped=1)
                continue
            pages[root.name] = pages.get(root.name, 0) + 1
            yield _task(entry, root, pages[root.name] - 1)
        if seen >= 0:
            self.volumes.has(roots[seen].name, pages.get(roots[seen].name, 0))
        if not pages and not any(volume.is_closed for volume in self.volumes.all.values()):
            raise SourceError(self.source.emptiness())


@dataclass(slots=True)
class _Tally:
    pages: int = 0
    done: int = 0
    dead: int = 0


def _task(entry: Entry, root: VolumeRoot, page: int) -> ImageTask | Outcome:
    if isinstance(entry, Item):
        return task_of(entry, root, page)
    assert isinstance(entry, Broken)
    failure = PageFailure(entry.key, entry.error, task=failed_task(entry, root, page))
    return Outcome(NOTHING, failures=[failure])


class _WithVolumes:
    """A watcher that is told how many volumes are done, too: as ``extra["volumes"]`` of each report."""

    def __init__(self, watcher: Watcher, volumes: Volumes) -> None:
        self.interval = watcher.interval
        self._watcher, self._volumes = watcher, volumes

    def update(self, report: Report) -> None:
        """Tell it."""
        self._watcher.update(replace(report, extra={**report.extra, "volumes": self._volumes.figures}))
