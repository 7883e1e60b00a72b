"""One run of a job on videos: what ``penstock videos`` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from ... import Report
from ...config.model import ServiceConfig
from ...config.videos import VideoConfig
from ..common.drive import Interrupt, Watcher
from ..common.memory_estimate import MemoryEstimate
from ..common.run import run
from .runner import VideoRunner

_IN_TURN: Final = {"workers": 1, "slots": 1, "downloads": 1, "per_host": 1}
"""What a job is without overlapping: a batch of frames is decoded when the one before has been embedded."""


def run_videos(
    config: ServiceConfig,
    source: Iterable[Any],
    *,
    watcher: Watcher | None = None,
    interrupt: Interrupt | None = None,
    begins: Callable[[MemoryEstimate, int | None], None] = lambda *_: None,
) -> Report:
    """Mine the videos of a source; see `run`. What its report counts are videos; their frames are in ``videos``."""
    if isinstance(config, VideoConfig) and not config.async_mode:
        config = config.model_copy(update=_IN_TURN)
    return run(VideoRunner, config, source, watcher=watcher, interrupt=interrupt, begins=begins)
