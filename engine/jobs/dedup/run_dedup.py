"""A job about near-duplicates: what `penstock dedup` runs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ....durable import DISK, write_text
from ....errors import ConfigError
from ....sinks import Sink
from ....sinks.signatures.columns import encoded
from ....sinks.signatures.files import key_hash
from ... import Report
from ...config.dedup import DedupConfig
from ...dedup import Decision, Rule, decide
from ...journal import JobFolder, Outcome
from ...journal.lock import Lock
from ...machine.resources import usable_cores
from ...observe.contact_sheet import check_sheet_path
from ...observe.duplicates_sheet import duplicates_sheet
from ...observe.report_files import check_report_path, write_report
from ...sources import Source, key_of
from ..common.drive import Interrupt, Watcher
from ..common.memory_estimate import MemoryEstimate
from ..common.shown_frames import show_frames
from ..common.sink_factory import sink_to_scan
from ..images.run_job import run_job
from .stores import check_disposal, check_rule, delete_rows, flag_rows, paths_in, scan_into
from .table import check_table_path, write_duplicates

_SIGNATURES: Final = "signatures"


@dataclass(frozen=True, slots=True)
class Deduplicated:
    """What a run has done.

    Attributes:
        report: of reading the pictures, or the store.
        decision: None of a run that was interrupted before it was made.
        left: rows that were to be deleted or flagged, and are as they were: changed meanwhile, or refused.
    """

    report: Report
    decision: Decision | None
    left: int = 0


class _InterruptedError(Exception):
    """It was asked to end."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who may end a run, and who hears how it goes."""

    interrupt: Interrupt
    tells: Callable[[str, int, int | None], None]

    def step(self, what: str) -> Callable[[int, int | None], None]:
        """Tells of a step, and ends it where that was asked for."""

        def on_progress(done: int, total: int | None) -> None:
            if self.interrupt.requested:
                raise _InterruptedError
            self.tells(what, done, total)

        return on_progress


@contextmanager
def dedup_pictures(
    config: DedupConfig,
    source: Iterable[Any],
    *,
    watcher: Watcher | None = None,
    interrupt: Interrupt | None = None,
    begins: Callable[[MemoryEstimate, int | None], None] = lambda *_: None,
    tells: Callable[[str, int, int | None], None] = lambda *_: None,
) -> Generator[Deduplicated]:
    """Find near-duplicates among pictures, and list them in a file. What is yielded is good while the block runs.

    Args:
        config: what to do.
        source: a ``Source``, or pictures.
        watcher: told how reading the pictures goes; see `images.run_job`. Likewise begins.
        interrupt: ends it early.
        tells: hears, when all have been read, ``"compared"`` and how many of how many.

    Raises:
        ConfigError: a setting is wrong.
        PipelineFailure: the job could not go on, or its failure budget is spent.
    """
    asked = _Asked(interrupt or Interrupt(), tells)
    with config.spelled():
        rule = _checked(config)
        if not rule.needs_pictures:
            raise ConfigError(
                f"rule: {rule.name} is about vectors that a store holds, as in penstock dedup photos.db --rule"
                f" {rule.name}; for pictures there are default and strict"
            )
        for name in ("delete", "flag"):
            if getattr(config, name):
                raise ConfigError(f"{name}: is about rows of a store; files of pictures are never touched, but listed")
    with _signatures_of(config) as folder:
        report = run_job(signing(config, folder), source, watcher=watcher, interrupt=asked.interrupt, begins=begins)
        with _listed(config, source) as only:
            decision = _decided(config, rule, folder, asked, only=only)
        yield Deduplicated(report, decision)


@contextmanager
def dedup_store(
    config: DedupConfig,
    *,
    interrupt: Interrupt | None = None,
    tells: Callable[[str, int, int | None], None] = lambda *_: None,
) -> Generator[Deduplicated]:
    """Find near-duplicates among the rows of the store ``config.to``, list them, and delete or flag them if asked to.

    Args:
        config: what to do.
        interrupt: ends it early; rows are deleted or flagged when all is decided.
        tells: hears ``"read"`` and how many rows, then ``"compared"`` and how many of how many.

    Raises:
        ConfigError: a setting is wrong, or the store cannot do what is asked.
        SinkError: the store cannot be asked.
        JobLockedError: another process runs this job.
    """
    asked, begin = _Asked(interrupt or Interrupt(), tells), time.monotonic()
    with config.spelled():
        rule = _checked(config)
        check_rule(rule, config.shown_to)
        for path in config.report:
            check_report_path(path)
        sink = sink_to_scan(config)
    with _locked(config), _signatures_of(config) as folder, sink:
        with config.spelled():
            check_disposal(config, sink)
        decision = None
        try:
            on_rows = asked.step("read")
            scan_into(folder, sink, lambda rows: on_rows(rows, None))
            decision = _decided(config, rule, folder, asked, paths=partial(paths_in, sink))
        except _InterruptedError:
            pass
        figures: dict[str, Any] = {}
        left = 0
        if decision is not None:
            left = _dispose(config, decision, sink)
            figures = {"dedup": {**decision.figures, "rule": rule.name, "left": left}}
        report = Report(seconds=time.monotonic() - begin, extra=figures)
        for path in config.report:
            write_report(report, path)
        yield Deduplicated(report, decision, left)


def signing(config: DedupConfig, folder: Path) -> DedupConfig:
    """The configuration of the job that makes signatures into a folder; its books name files as any folder can."""
    own: dict[str, Any] = {"to": f"signatures:{folder}", "embedder": "signature", "collection": "duplicates"}
    files = {"duplicates": config.duplicates, "html": config.html}
    return config.model_copy(update={**own, **{name: path.absolute() for name, path in files.items() if path}})


def _checked(config: DedupConfig) -> Rule:
    check_table_path(config.duplicates)
    if config.html is not None:
        check_sheet_path(config.html)
    return Rule.parse(config.rule)


@contextmanager
def _signatures_of(config: DedupConfig) -> Generator[Path]:
    """Where signatures lie: in the job's folder, or for this run alone."""
    if config.job is not None:
        yield config.job / _SIGNATURES
        return
    with tempfile.TemporaryDirectory(prefix="penstock-dedup-") as folder:
        yield Path(folder) / _SIGNATURES


@contextmanager
def _locked(config: DedupConfig) -> Generator[None]:
    """The job's folder, for this process alone."""
    if config.job is None:
        yield
        return
    config.job.mkdir(parents=True, exist_ok=True)
    if (config.job / "job.json").exists():
        raise ConfigError(f"job: {str(config.job)!r} is the folder of another job")
    lock = Lock(DISK, str(config.job / "lock"))
    try:
        yield
    finally:
        lock.close()


@contextmanager
def _listed(config: DedupConfig, source: Iterable[Any]) -> Generator[NDArray[np.uint64] | None]:
    """What of a job's signatures is of pictures that are in its listing still: who is gone is nobody's keeper.

    While the block runs the job's folder is this process' alone.
    """
    if config.job is None or not isinstance(source, Source):
        yield None
        return
    with JobFolder.create_or_open(config.job) as job:
        keys = (key_hash(encoded(key_of(entry.name))) for _, entry in job.entries(Outcome.WRITTEN))
        yield np.sort(np.fromiter(keys, np.uint64))


def _decided(
    config: DedupConfig,
    rule: Rule,
    folder: Path,
    asked: _Asked,
    only: NDArray[np.uint64] | None = None,
    paths: Callable[[Sequence[str]], Mapping[str, str]] = lambda _: {},
) -> Decision | None:
    """Decide, and write down what was decided; None where that was interrupted."""
    workers = config.workers or usable_cores()
    try:
        on_progress = asked.step("compared")
        on_progress(0, 0)
        decision = decide(folder, rule, anew=config.rededup, workers=workers, only=only, on_progress=on_progress)
    except _InterruptedError:
        return None
    write_duplicates(decision.duplicates(), config.duplicates)
    if config.html is not None:
        page = duplicates_sheet(decision.duplicates(), decision.rule.name, paths, show_frames=show_frames)
        write_text(config.html, page)
    return decision


def _dispose(config: DedupConfig, decision: Decision, sink: Sink) -> int:
    """Delete or flag the rows that go; how many of them could not be."""
    if config.delete:
        return delete_rows(sink, decision)
    return flag_rows(sink, decision) if config.flag else 0
