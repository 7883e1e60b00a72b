"""Videos: frames taken, left out, embedded and written; and stages over videos of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_exports

_JOB = (
    *("AsyncPipelineOrchestrator", "BaseStageWorker", "DedupCollector", "DownloadWorker", "ExtractWorker"),
    *("FilterWorker", "PipelineMetrics", "StageMessage", "VideoMiner", "default_stages"),
)

if TYPE_CHECKING:
    from .engine.config.videos import VideoConfig
    from .engine.jobs.videos import (
        AsyncPipelineOrchestrator,
        BaseStageWorker,
        DedupCollector,
        DownloadWorker,
        ExtractWorker,
        FilterWorker,
        PipelineMetrics,
        StageMessage,
        VideoMiner,
        default_stages,
    )
else:
    __getattr__, __dir__ = lazy_exports(
        __name__, {".engine.config.videos": ("VideoConfig",), ".engine.jobs.videos": _JOB}
    )

__all__ = [
    "AsyncPipelineOrchestrator",
    "BaseStageWorker",
    "DedupCollector",
    "DownloadWorker",
    "ExtractWorker",
    "FilterWorker",
    "PipelineMetrics",
    "StageMessage",
    "VideoConfig",
    "VideoMiner",
    "default_stages",
]
