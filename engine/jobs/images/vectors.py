"""``embed``: the main job without a store. Pictures in, vectors to whoever iterates."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ....errors import ConfigError, PipelineFailure
from ... import Report
from ...config.model import ServiceConfig
from ...config.sections import SECTIONS
from ...machine.resources import shared_memory_room
from .batches import JobValues, Rows
from .entries import batches_of, config_of, job_source
from .graphs import embedding
from .inputs import pictures_of
from .runner import JobRunner

Vector = NDArray[np.float32]

_NOWHERE: Final = "null:"
"""The sink of a job whose vectors somebody else takes."""

_BOOKS: Final = ("job", "update", "accept_changes", "redo", "accept_store", "report", "metadata", "list_filtered")
_REFUSED: Final = {*SECTIONS["sink"].values(), *_BOOKS} - {"insert_batch_size"}
"""Settings of a store, and of what is written to files; that one may be a profile's."""

_TICK: Final = 0.05
"""Seconds for which failures may come alone before they are handed over: what bounds how many are held."""


def embed(
    things: str | os.PathLike[str] | Iterable[Any],
    *,
    keys: Iterable[str] | None = None,
    config: ServiceConfig | None = None,
    **settings: Any,
) -> Generator[tuple[str, Vector | Exception], None, Report]:
    """Embed pictures in worker processes, without a store: vectors as they are made, in bounded memory.

    Nothing is read before it is needed, and no more than what the workers and the embedder have in hand lies between
    them and you. It may be left at any point (``break``, an exception, `close()`). Workers are started for each call;
    the first vectors come after 1-2 s.

    Args:
        things: what ``embed_images`` takes: a folder, a file, a glob, ``@list.txt``, or several of these; a plugin's
            ``scheme:rest``; a ``Source``; or an iterable of pictures (paths, bytes, PIL images, arrays).
        keys: of an iterable of pictures one for each, to know them by. Default: the path, or a hash of the content.
        config: a configuration, instead of settings.
        settings: fields of ``ServiceConfig``, but those about a store, books and reports.

    Yields:
        ``(key, vector)``, float32 ``[D]``, your own to keep; or ``(key, error)`` for a picture that could not be used,
        mostly an ``ItemError``. Each picture once, in no particular order; what is no picture is passed by.

    Returns:
        The report, as the ``value`` of StopIteration.

    Raises:
        ConfigError: a setting is wrong, or about a store; at once.
        SourceError: a source is not there; at once.
        PipelineFailure: from ``next``: the job could not go on, or its failure budget is spent.
    """
    chosen = config_of(config, settings)
    if said := sorted(chosen.model_fields_set & _REFUSED):
        raise ConfigError(
            f"{said[0]}: embed() hands the vectors to you and writes nothing; embed_images(..., to=...) has a store"
        )
    with chosen.spelled():
        given = _source(chosen, things, keys)
        runner = JobRunner(chosen.model_copy(update={"to": _NOWHERE}))
        runner.fit(given, room=shared_memory_room())
    return _vectors(runner, given)


def _source(config: ServiceConfig, source: Any, keys: Iterable[str] | None) -> Iterable[Any]:
    return job_source(config, source, "embed") if keys is None else pictures_of(source, keys, None, "embed")


class _Failures(deque[tuple[str, Exception]]):
    """What could not be done and is not handed over yet; stands where a job has its dead letters."""

    def write(self, key: str, stage: str, error: Exception, *, attempts: int, **details: Any) -> None:
        """An item could not be done."""
        del attempts, details
        error.add_note(f"in the stage {stage}")
        self.append((key, error))

    def taken(self) -> Iterator[tuple[str, Exception]]:
        """All of them; they are gone then."""
        while self:
            yield self.popleft()


def _vectors(runner: JobRunner, source: Iterable[Any]) -> Generator[tuple[str, Vector | Exception], None, Report]:
    config, failures = runner.config, _Failures()
    with config.spelled(), closing(runner), runner.workers(config) as pool:
        batches = batches_of(runner.readable(source, source), config.batch_size, runner.batch_bytes)
        pipeline = (
            embedding(batches, JobValues(failures), config.policies, pool, runner.plan.embedder)
            .add_sink(2)
            .build(num_threads=2, max_failures=config.max_failures, stall_after=config.stall_after or None)
        )
        with pipeline.auto_stop(discard=True):
            while True:
                try:
                    rows: Rows | None = pipeline.get_item(timeout=_TICK)
                except TimeoutError:
                    rows = None
                except EOFError:
                    break
                except PipelineFailure:
                    yield from failures.taken()
                    raise
                yield from failures.taken()
                if rows is not None:
                    for picture, vector in zip(rows.pictures, rows.rows.vectors, strict=True):
                        yield picture.key, vector.copy()  # a view would keep those of the whole batch
        yield from failures.taken()
        report = pipeline.report()
        report.check()
    return report
