"""One run of a job on videos: what ``penstock videos`` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ... import Report
from ...config.model import ServiceConfig
from ..common.drive import Interrupt, Watcher
from ..common.memory_estimate import MemoryEstimate
from ..common.run import run
from .runner import VideoRunner


def run_videos(
    config: ServiceConfig,
    source: Iterable[Any],
    *,
    watcher: Watcher | None = None,
    interrupt: Interrupt | None = None,
    begins: Callable[[MemoryEstimate, int | None], None] = lambda *_: None,
) -> Report:
    """Mine the videos of a source; see `run`. What its report counts are videos; their frames are in ``videos``."""
    return run(VideoRunner, config, source, watcher=watcher, interrupt=interrupt, begins=begins)
