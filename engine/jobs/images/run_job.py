"""One run of the image job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ... import Report
from ...config.model import ServiceConfig
from ..common.drive import Interrupt, Watcher
from ..common.memory_estimate import MemoryEstimate
from ..common.run import run
from .runner import JobRunner


def run_job(
    config: ServiceConfig,
    source: Iterable[Any],
    *,
    watcher: Watcher | None = None,
    interrupt: Interrupt | None = None,
    begins: Callable[[MemoryEstimate, int | None], None] = lambda *_: None,
) -> Report:
    """Run the main job over items of a source (``engine.sources``) or ``Picture``s; see ``embed_images`` and `run`."""
    return run(JobRunner, config, source, watcher=watcher, interrupt=interrupt, begins=begins)
