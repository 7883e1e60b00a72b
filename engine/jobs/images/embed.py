"""The main job: pictures from a source, through worker processes, into the store. What ``penstock embed`` runs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard, cast

from ....errors import ConfigError, SharedMemoryError
from ....sinks import Hit, read_dead_letters
from ... import Report
from ...config.model import ServiceConfig
from ...machine.resources import shared_memory_room
from ...observe.report_files import check_report_path, write_report
from ...sources import Source
from ...workers import warm_start
from ..common.checkpoint import JobCheckpoint
from ..common.drive import Interrupt, Watcher
from ..common.filtered import FilteredList, Passing, nothing_written
from ..common.largest import tell_cramped
from ..common.memory_estimate import MemoryEstimate
from ..common.memory_monitor import warn_if_scarce
from ..common.output_paths import dead_letters_path, report_paths
from ..common.sink_factory import job_sink
from .entries import Given, batches_of, in_memory, things_of
from .inputs import as_source
from .metadata import Metadata
from .pipeline import ImageEmbeddingPipeline
from .runner import JobRunner
from .search import query_vector
from .wait_index import wait_for_index

_logger = logging.getLogger(__name__)


def embed_images(
    source: Given,
    *,
    to: str | os.PathLike[str] | None = None,
    config: ServiceConfig | None = None,
    watcher: Watcher | None = None,
    interrupt: Interrupt | None = None,
    stable_keys: bool = False,
    **settings: Any,
) -> Report:
    """Embed pictures and keep their vectors: the main job in one call.

    Args:
        source: a folder, a file, a glob, ``@list.txt``, or several of these; what a plugin reads (``scheme:rest``); a
            ``Source``; or an iterable of pictures (paths, bytes, PIL images, arrays).
        to: where the vectors go, e.g. ``photos.db`` (also as a Path) or ``http://host:19530``.
        config: a configuration, instead of settings.
        watcher: told how it goes; see ``penstock.engine.observe.progress``.
        interrupt: lets another thread, or a signal handler, end the job early.
        stable_keys: the source gives ``(key, picture)`` pairs, the same keys in the same order in every run, so that a
            job can keep books of them; see ``KeyedPictures``. It must be what can be read twice: a list, an object with
            ``__iter__``, or a function that makes an iterator.
        settings: fields of ``ServiceConfig``.

    Returns:
        The report: what became of every picture, what each stage did, what was slow.

    Raises:
        ConfigError: a setting is wrong.
        SourceError: a source is not there.
        PipelineFailure: the job could not go on, or its failure budget is spent.
    """
    if config is not None and settings:
        raise ConfigError(f"give a config or settings, not both (config, and {', '.join(settings)})")
    chosen = config or ServiceConfig(**settings)
    if to is not None:
        chosen = chosen.model_copy()
        chosen.to = cast("str", to)  # checked there, and a path becomes text
    report = run_job(
        chosen, things_of(chosen, source, "embed_images", stable_keys=stable_keys), watcher=watcher, interrupt=interrupt
    )
    if said := report.extra.get("nothing_written"):
        _logger.warning("%s", said)
    return report


def run_job(
    config: ServiceConfig,
    things: Iterable[Any],
    *,
    watcher: Watcher | None = None,
    interrupt: Interrupt | None = None,
    begins: Callable[[MemoryEstimate, int | None], None] = lambda *_: None,
) -> Report:
    """Run the main job over items of a source (``engine.sources``) or ``Picture``s; see ``embed_images``.

    The report files are written whether the job succeeds or fails; a job that was finished already leaves those that
    are there. ``seconds`` is the whole time, starting included.

    Args:
        config: what to do.
        things: of the source.
        watcher: see ``embed_images``; likewise interrupt.
        interrupt: where it was requested before there are workers, none are started.
        begins: told, before there are workers, the most memory that will be taken, and how many entries remain, where
            that is known.
    """
    begin = time.monotonic()
    with config.spelled(), ExitStack() as stack:
        _check_job_options(config)
        if isinstance(things, Source) and things.locator is not None:
            things.locator.check()
        runner = stack.enter_context(closing(JobRunner(config)))
        checkpoint = None
        if _keeps_checkpoint(things, config):
            checkpoint = stack.enter_context(JobCheckpoint(config, runner.plan, things, interrupt))
        stack.callback(runner.close)  # before the books: what a store does when it is closed belongs to the job
        _prepare(config, checkpoint)
        if not (checkpoint and checkpoint.finished):
            entries, letters = (checkpoint.counts.total, checkpoint.counts.dead) if checkpoint else (None, 0)
            runner.fit(entries, letters, shared_memory_room(), in_memory=in_memory(config, things))
        if checkpoint and checkpoint.begun:
            runner.keep_rows()
        if checkpoint and checkpoint.accepted_pixels:
            runner.accept_pixels()
        if interrupt and interrupt.requested:
            return Report(seconds=time.monotonic() - begin, extra={"job": checkpoint.summary()} if checkpoint else {})
        if checkpoint and checkpoint.counts.written and job_sink(config).keeps_rows:
            checkpoint.check_store(runner.look(), f"{config.shown_to}, collection {config.collection!r}")
        listing = None
        if config.list_filtered is not None:
            listing = stack.enter_context(closing(FilteredList(config.list_filtered)))
            if checkpoint:
                stack.callback(_list, checkpoint, listing)  # however the run ends
        if checkpoint and checkpoint.finished:
            report = _finish(runner, things, checkpoint, begin, watcher, interrupt)
            checkpoint.judge(config)
            return report
        if checkpoint:
            checkpoint.starts()
        begins(runner.ceiling, checkpoint.remaining if checkpoint else None)
        tell_cramped(runner.ceiling.cramped)
        warn_if_scarce(runner.ceiling)
        metadata = stack.enter_context(closing(Metadata(config.metadata, config.fields))) if config.metadata else None
        return _embed(runner, things, checkpoint, metadata, listing, begin, watcher, interrupt)


def _check_job_options(config: ServiceConfig) -> None:
    """Refuse what is about the books of a job where there are none, and what contradicts itself there."""
    for name in ("update", "redo", "accept_store"):
        if getattr(config, name) and config.job is None:
            raise ConfigError(
                f"{name}: is about the books of a job, and there are none; they are kept with job=DIR (--job)"
            )
    if config.redo and config.accept_store:
        raise ConfigError("redo: forgets what accept_store (--accept-store) believes: they exclude one another")


def _embed(
    runner: JobRunner,
    things: Iterable[Any],
    checkpoint: JobCheckpoint | None,
    metadata: Metadata | None,
    listing: FilteredList | None,
    begin: float,
    watcher: Watcher | None,
    interrupt: Interrupt | None,
) -> Report:
    """Do what there is to do, and report on it however it ends."""
    extra: dict[str, Any] = {}
    config = runner.config
    whole = False
    cause: BaseException | None = None
    passing = Passing(None if checkpoint else listing)
    try:
        some = passing(checkpoint.entries() if checkpoint else things)
        known = metadata(some) if metadata else some
        report = runner.stream(
            batches_of(runner.readable(things, known), config.batch_size, runner.batch_bytes),
            watcher=watcher,
            interrupt=interrupt,
            checkpoint=checkpoint,
        )
        interrupted = interrupt is not None and interrupt.requested
        whole = not interrupted and (checkpoint is None or checkpoint.is_full_run)
        if checkpoint:
            checkpoint.check(report, interrupted=interrupted)
        extra["filtered"] = dict(passing.reasons)
        if not interrupted:
            extra.update(_said_of_nothing(runner, report, checkpoint, passing, things))
        if config.wait_index is not None and not interrupted:
            wait_for_index(runner, config.wait_index, report, extra, watcher, interrupt)
    except BaseException as error:
        cause = error
        raise
    finally:
        if metadata:
            extra["metadata"] = metadata.report(whole)
        if checkpoint:
            extra["job"] = checkpoint.summary()
        report = _whole(runner.report or Report(), time.monotonic() - begin, runner, extra)
        _write_reports(report, report_paths(config), cause)
    return report


def _finish(
    runner: JobRunner,
    things: Iterable[Any],
    checkpoint: JobCheckpoint,
    begin: float,
    watcher: Watcher | None,
    interrupt: Interrupt | None,
) -> Report:
    """Do what an earlier run left undone behind its last row. Nothing is embedded, and no worker started."""
    config = runner.config
    extra: dict[str, Any] = {
        "job": checkpoint.summary(),
        **_said_of_nothing(runner, Report(), checkpoint, Passing(), things),
    }
    runner.finish_store()
    if config.wait_index is not None:
        wait_for_index(runner, config.wait_index, Report(), extra, watcher, interrupt)
    report = Report(seconds=time.monotonic() - begin, extra=extra)
    _write_reports(report, [path for path in config.report if not path.exists()], None)
    return report


def _said_of_nothing(
    runner: JobRunner, report: Report, checkpoint: JobCheckpoint | None, passed: Passing, things: Iterable[Any]
) -> Mapping[str, str]:
    """For the report, what there is to say if the whole job has written no row."""
    counts = checkpoint.counts if checkpoint else report.accounting
    numbers = {name: getattr(counts, name) for name in ("written", "filtered", "dead")}
    if numbers["written"]:
        return {}
    letter = next(read_dead_letters(runner.dead_letters), None) if numbers["dead"] else None
    said = nothing_written(numbers, passed, things, letter.message if letter else "")
    return {"nothing_written": said} if said else {}


def _list(checkpoint: JobCheckpoint, listing: FilteredList) -> None:
    for key, why in checkpoint.filtered():
        listing.write(key, why)


def _write_reports(report: Report, paths: Iterable[Path], cause: BaseException | None) -> None:
    """Write the report files. A disk that takes none must not hide the cause for which the job is failing."""
    for path in paths:
        try:
            write_report(report, path)
        except (OSError, ConfigError) as error:
            if cause is None:
                raise
            cause.add_note(f"no report: {error}")


def _whole(report: Report, seconds: float, runner: JobRunner, more: dict[str, Any]) -> Report:
    """The report of the whole job: the engine's, with the time it took to start it."""
    extra = {
        **report.extra,
        **more,
        "memory_ceiling": runner.ceiling.to_dict(),
        "startup_seconds": seconds - report.seconds - more.get("index", {}).get("seconds", 0.0),
        "dead_letters": runner.dead_letters if report.accounting.dead else None,
    }
    rate = report.accounting.written / seconds if seconds > 0 else 0.0
    return replace(report, seconds=seconds, items_per_second=rate, extra=extra)


def search_images(config: ServiceConfig, image: Any, k: int = 10) -> list[Hit]:
    """The ``k`` pictures of the collection nearest to ``image``; see ``ImageEmbeddingPipeline.search``.

    The query is embedded as the collection was, unless the configuration says how.
    """
    with config.spelled(), warm_start(), ImageEmbeddingPipeline(config) as pipeline:
        plan, source = pipeline.plan, as_source(image)
        said = config.model_fields_set & {"embedder", "preset", "image_size", "dtype"}
        try:
            # While the store comes up and says how the collection was made: most were made as a new one would be.
            query = query_vector(plan, pipeline.config, source, beside=(lambda: None) if said else pipeline.adopt)
            if not pipeline.plan.makes_as(plan):
                query = query_vector(pipeline.plan, pipeline.config, source)
        except SharedMemoryError:  # not even room for one batch
            if not said:
                pipeline.adopt()
            query = image
        return pipeline.search(query, k)


def _keeps_checkpoint(things: Iterable[Any], config: ServiceConfig) -> TypeGuard[Source]:
    """A job in a folder of its own, about a source that can be listed: it can be resumed."""
    return config.job is not None and isinstance(things, Source)


def _prepare(config: ServiceConfig, checkpoint: JobCheckpoint | None) -> None:
    """Places to write to. The last run's dead letters step aside where this run says anew what cannot be done."""
    for path in config.report:
        check_report_path(path)
    if config.job is not None:
        config.job.mkdir(parents=True, exist_ok=True)
    path = dead_letters_path(config)
    if path.exists() and not checkpoint:
        path.replace(path.with_suffix(".previous.jsonl"))
