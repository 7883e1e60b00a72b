"""A job about near-duplicates: what `penstock dedup` runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ....errors import ConfigError
from ... import Report
from ...config.dedup import DedupConfig
from ...dedup import Decision, Rule, decide
from ...machine.resources import usable_cores
from ..common.drive import Interrupt, Watcher
from ..common.memory_estimate import MemoryEstimate
from ..images.run_job import run_job
from .table import check_table_path, write_duplicates

_SIGNATURES: Final = "signatures"


@dataclass(frozen=True, slots=True)
class Deduplicated:
    """What a run has done.

    Attributes:
        report: of reading the pictures.
        decision: None of a run that was interrupted before it was made.
    """

    report: Report
    decision: Decision | None


class _InterruptedError(Exception):
    """The decision was asked to end."""


@contextmanager
def run_dedup(
    config: DedupConfig,
    source: Iterable[Any],
    *,
    watcher: Watcher | None = None,
    interrupt: Interrupt | None = None,
    begins: Callable[[MemoryEstimate, int | None], None] = lambda *_: None,
    decides: Callable[[int, int], None] = lambda *_: None,
) -> Generator[Deduplicated]:
    """Find near-duplicates among pictures, and list them in a file. What is yielded is good while the block runs.

    Args:
        config: what to do.
        source: a ``Source``, or pictures.
        watcher: told how reading the pictures goes; see `images.run_job`. Likewise interrupt, begins.
        decides: hears, when all have been read, how many of how many items have been decided on.

    Raises:
        ConfigError: a setting is wrong.
        PipelineFailure: the job could not go on, or its failure budget is spent.
    """
    interrupt = interrupt or Interrupt()
    with config.spelled():
        rule = Rule.parse(config.rule)
        if rule.cosine is not None and not rule.needs_pictures:
            raise ConfigError(
                f"rule: {rule.name} is about vectors that a store holds, as in penstock dedup photos.db --rule"
                f" {rule.name}; for pictures there are default and strict"
            )
        check_table_path(config.duplicates)
    with _signatures_of(config) as folder:
        report = run_job(signing(config, folder), source, watcher=watcher, interrupt=interrupt, begins=begins)
        decision = None if interrupt.requested else _decided(config, rule, folder, interrupt, decides)
        if decision is not None:
            write_duplicates(decision.duplicates(), config.duplicates)
        yield Deduplicated(report, decision)


def signing(config: DedupConfig, folder: Path) -> DedupConfig:
    """The configuration of the job that makes signatures into a folder."""
    return config.model_copy(update={"to": f"signatures:{folder}", "embedder": "signature", "collection": "duplicates"})


@contextmanager
def _signatures_of(config: DedupConfig) -> Generator[Path]:
    """Where signatures lie: in the job's folder, or for this run alone."""
    if config.job is not None:
        yield config.job / _SIGNATURES
        return
    with tempfile.TemporaryDirectory(prefix="penstock-dedup-") as folder:
        yield Path(folder) / _SIGNATURES


def _decided(
    config: DedupConfig, rule: Rule, folder: Path, interrupt: Interrupt, decides: Callable[[int, int], None]
) -> Decision | None:
    def on_progress(done: int, total: int) -> None:
        if interrupt.requested:
            raise _InterruptedError
        decides(done, total)

    try:
        return decide(
            folder, rule, anew=config.rededup, workers=config.workers or usable_cores(), on_progress=on_progress
        )
    except _InterruptedError:
        return None
