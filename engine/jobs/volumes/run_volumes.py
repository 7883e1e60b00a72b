"""A job over many volumes: what ``penstock volumes`` runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from functools import partial

from ....durable import write_text
from ....errors import ConfigError
from ....messages import redact
from ... import Report
from ...config.volumes import PARQUET, PipelineConfig
from ...observe.contact_sheet import check_sheet_path
from ...observe.report_files import check_report_path, write_report
from ..common.drive import Interrupt, Watcher, WithFigures, drive
from ..common.memory_estimate import MemoryEstimate
from ..common.memory_monitor import MemoryMonitor, warn_if_scarce
from ..common.output_paths import report_paths
from .batcher import GpuBatcher
from .books import Books
from .contact_sheet import ContactSheet
from .decoder import Decoder
from .embedding import PatchEmbedder
from .graph import Inspects
from .job import Stages, VolumeJob
from .memory import estimate_volumes
from .prefetcher import Prefetcher
from .s3_context import S3Context
from .transform import TransformController

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
        watcher: shown the figures at its interval.
        interrupt: lets another thread, or a signal handler, end it early; where it was requested nothing is begun.
        begins: called before anything is read, with the most memory that will be taken, and how many pages remain,
            where that is known.
        html: a file for a contact sheet of what this run has done: the first pages of each volume, before and after.

    Returns:
        The report; of a job that was finished already one without stages. A volume that somebody else has published
        has an ``error`` in it, and the others are published.

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
        cfg = cfg.model_copy(update={"to": f"{PARQUET}{cfg.destination}", "s3_bucket": None})
        transform = TransformController(cfg)
        sheet = None if html is None else ContactSheet(transform)
        stages = _stages(cfg, sheet or transform)
        books = Books(cfg, specs, stages.batcher)
        stack.callback(books.close)
        books.open(interrupt)
        if interrupt and interrupt.requested:
            return Report(extra=books.figures)
        if books.checkpoint and books.is_finished:
            return Report(extra=books.figures)
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
    books: Books,
    watcher: Watcher | None,
    interrupt: Interrupt | None,
    pages: Iterable[Callable[[], None]],
) -> Report:
    """Run it, and report on it however it ends; `pages` write what else there is to show of it."""
    cause: BaseException | None = None
    pipeline = job.open()
    shown = WithFigures(watcher, lambda: {"volumes": books.volumes.counts}) if watcher else None
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
