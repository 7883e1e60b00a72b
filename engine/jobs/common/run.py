"""One run of a job over the items of a source, from its configuration to its report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

from ....errors import ConfigError
from ....messages import redact
from ....sinks import read_dead_letters
from ... import Report
from ...config.model import ServiceConfig
from ...machine.resources import shared_memory_room
from ...observe.report_files import check_report_path, write_report
from ...sources import Source
from .checkpoint import JobCheckpoint
from .drive import Interrupt, Watcher
from .filtered import FilteredList, Passing, nothing_written
from .largest import tell_cramped
from .memory_estimate import MemoryEstimate
from .memory_monitor import warn_if_scarce
from .metadata import Metadata
from .output_paths import dead_letters_path, report_paths
from .runner import Runner
from .wait_index import wait_for_index


def run(
    make_runner: Callable[[ServiceConfig], Runner[Any]],
    config: ServiceConfig,
    source: Iterable[Any],
    *,
    watcher: Watcher | None = None,
    interrupt: Interrupt | None = None,
    begins: Callable[[MemoryEstimate, int | None], None] = lambda *_: None,
) -> Report:
    """Run a job over items of a source (``engine.sources``), or over what its runner takes for such.

    The report files are written whether the job succeeds or fails; a job that was finished already leaves those that
    are there. ``seconds`` is the whole time, starting included.

    Args:
        make_runner: of the kind of job that it is.
        config: what to do.
        source: a ``Source``, or items that are in memory.
        watcher: told how it goes.
        interrupt: lets another thread, or a signal handler, end it early; where it was requested before there are
            workers, none are started.
        begins: told, before there are workers, the most memory that will be taken, and how many entries remain, where
            that is known.
    """
    begin = time.monotonic()
    with config.spelled(), ExitStack() as stack:
        _check_options(config)
        if isinstance(source, Source) and source.locator is not None:
            source.locator.check()
        runner = stack.enter_context(closing(make_runner(config)))
        checkpoint = None
        if _can_be_resumed(source, config):
            checkpoint = stack.enter_context(JobCheckpoint(config, runner.plan, source, interrupt))
        stack.callback(runner.close)  # before the checkpoint: what a store does when it is closed belongs to the job
        run = _Run(runner, source, checkpoint, watcher, interrupt, begin)
        run.prepare()
        if interrupt and interrupt.requested:
            return Report(seconds=time.monotonic() - begin, extra=run.job)
        run.check_store()
        listing = None
        if config.list_filtered is not None:
            listing = stack.enter_context(closing(FilteredList(config.list_filtered)))
            if checkpoint:
                stack.callback(_list, checkpoint, listing)  # however the run ends
        if checkpoint and checkpoint.finished:
            checkpoint.judge(config)  # before: what has failed is not published
            return run.finish()
        if checkpoint:
            checkpoint.starts()
        begins(runner.ceiling, checkpoint.remaining if checkpoint else None)
        tell_cramped(runner.ceiling.cramped)
        warn_if_scarce(runner.ceiling)
        metadata = None
        if config.metadata:
            fields = {name: kind for store in config.stores for name, kind in store.config.fields.items()}
            metadata = stack.enter_context(closing(Metadata(config.metadata, fields)))
        return run.embed(metadata, listing)


@dataclass
class _Run:
    """What belongs to one run.

    Attributes:
        begin: when it began, by the monotonic clock.
        extra: what its report says besides the engine's figures.
        complete: whether the whole listing has been done, by this run alone.
    """

    runner: Runner[Any]
    source: Iterable[Any]
    checkpoint: JobCheckpoint | None
    watcher: Watcher | None
    interrupt: Interrupt | None
    begin: float
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    complete: bool = False

    @property
    def config(self) -> ServiceConfig:
        return self.runner.config

    @property
    def job(self) -> dict[str, Any]:
        """For the report, where there is a checkpoint."""
        return {"job": self.checkpoint.summary()} if self.checkpoint else {}

    def prepare(self) -> None:
        """Places to write to, and settings that fit. Dead letters of before step aside where this run says all anew."""
        config, checkpoint = self.config, self.checkpoint
        for path in config.report:
            check_report_path(path)
        if config.job is not None:
            config.job.mkdir(parents=True, exist_ok=True)
        letters = dead_letters_path(config)
        if letters.exists() and not checkpoint:
            letters.replace(letters.with_suffix(".previous.jsonl"))
        if not (checkpoint and checkpoint.finished):
            entries, dead = (checkpoint.counts.total, checkpoint.counts.dead) if checkpoint else (None, 0)
            self.runner.fit(self.source, entries, dead, shared_memory_room())
        if checkpoint and checkpoint.begun:
            self.runner.keep_rows()
        if checkpoint and checkpoint.accepted_pixels:
            self.runner.accept_pixels()

    def check_store(self) -> None:
        """Hold the store against the books of earlier runs."""
        if self.checkpoint and self.checkpoint.has_rows:
            stores = self.config.stores
            for number, found in self.runner.look().items():
                store = stores[number]
                where = f"{redact(store.address)}, collection {store.config.collection!r}"
                self.checkpoint.check_store(found, where, number, self.runner.rows_written())

    def embed(self, metadata: Metadata | None, listing: FilteredList | None) -> Report:
        """Do what there is to do, and report on it however it ends."""
        cause: BaseException | None = None
        try:
            self._stream(metadata, Passing(None if self.checkpoint else listing))
        except BaseException as error:
            cause = error
            raise
        finally:
            if metadata:
                self.extra["metadata"] = metadata.report(self.complete)
            report = self._final_report()
            _write_reports(report, report_paths(self.config), cause)
        return report

    def _stream(self, metadata: Metadata | None, passing: Passing) -> None:
        checkpoint, interrupt = self.checkpoint, self.interrupt
        some = passing(checkpoint.entries() if checkpoint else self.source)
        known = metadata(some) if metadata else some
        report = self.runner.stream(
            self.runner.values_of(self.source, known),
            watcher=self.watcher,
            interrupt=interrupt,
            checkpoint=checkpoint,
        )
        interrupted = interrupt is not None and interrupt.requested
        self.complete = not interrupted and (checkpoint is None or checkpoint.is_full_run)
        if checkpoint:
            checkpoint.check(report, interrupted=interrupted)
        self.extra["filtered"] = dict(passing.reasons)
        if not (interrupted or report.accounting.in_flight):  # else something is left for a later run
            self.runner.finish_stores()
            self.extra.update(self._said_of_nothing(report, passing))
            self._wait_index(report)

    def finish(self) -> Report:
        """Do what an earlier run left undone behind its last row. Nothing is embedded, and no worker started."""
        self.extra.update(self.job, **self._said_of_nothing(Report(), Passing()))
        if self.runner.finish_store():
            self.extra["finished_store"] = True
        self._wait_index(Report())
        report = Report(seconds=time.monotonic() - self.begin, extra=self.extra)
        _write_reports(report, [path for path in self.config.report if not path.exists()], None)
        return report

    def _wait_index(self, report: Report) -> None:
        wait_for_index(self.runner, report, self.extra, self.watcher, self.interrupt)

    def _said_of_nothing(self, report: Report, passed: Passing) -> Mapping[str, str]:
        """For the report, what there is to say if the whole job has written no row."""
        counts = self.checkpoint.counts if self.checkpoint else report.accounting
        numbers = {name: getattr(counts, name) for name in ("written", "filtered", "dead")}
        if numbers["written"]:
            return {}
        letter = next(read_dead_letters(self.runner.dead_letters), None) if numbers["dead"] else None
        said = nothing_written(numbers, passed, self.source, letter.message if letter else "")
        return {"nothing_written": said} if said else {}

    def _final_report(self) -> Report:
        """The engine's report, with the time it took to start it and what else there is to say."""
        report, seconds = self.runner.report or Report(), time.monotonic() - self.begin
        extra = {
            **report.extra,
            **self.extra,
            **self.job,
            "memory_ceiling": self.runner.ceiling.to_dict(),
            "startup_seconds": seconds - report.seconds - self.extra.get("index", {}).get("seconds", 0.0),
            "dead_letters": self.runner.dead_letters if report.accounting.dead else None,
        }
        rate = report.accounting.written / seconds if seconds > 0 else 0.0
        return replace(report, seconds=seconds, items_per_second=rate, extra=extra)


def _check_options(config: ServiceConfig) -> None:
    """Refuse what is about the books of a job where there are none, and what contradicts itself there."""
    for name in ("update", "redo", "accept_store"):
        if getattr(config, name) and config.job is None:
            raise ConfigError(
                f"{name}: is about the books of a job, and there are none; they are kept with job=DIR (--job)"
            )
    if config.redo and config.accept_store:
        raise ConfigError("redo: forgets what accept_store (--accept-store) believes: they exclude one another")


def _can_be_resumed(source: Iterable[Any], config: ServiceConfig) -> TypeGuard[Source]:
    """A job in a folder of its own, about a source that can be listed."""
    return config.job is not None and isinstance(source, Source)


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
