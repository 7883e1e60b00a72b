"""The main job: pictures from a source, through worker processes, into the store. What ``penstock embed`` runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, cast

from ... import Report
from ...config.model import ServiceConfig
from ..common.drive import Interrupt, Watcher
from .entries import Given, config_of, job_source
from .run_job import run_job

_logger = logging.getLogger(__name__)


def embed_images(
    source: Given,
    *,
    to: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
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
        to: where the vectors go, e.g. ``photos.db`` (also as a Path) or ``http://host:19530``; several for all of them.
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
    chosen = config_of(config, settings)
    if to is not None:
        chosen = chosen.model_copy()
        chosen.to = cast("str", to)  # checked there, and a path becomes text
    given = job_source(chosen, source, "embed_images", stable_keys=stable_keys)
    report = run_job(chosen, given, watcher=watcher, interrupt=interrupt)
    if said := report.extra.get("nothing_written"):
        _logger.warning("%s", said)
    return report
