"""Videos: frames taken, left out, embedded and written; and stages over videos of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_exports

if TYPE_CHECKING:
    from .engine.config.videos import VideoConfig
    from .engine.jobs.videos.messages import BaseStageWorker, PipelineMetrics, StageMessage
    from .engine.jobs.videos.miner import VideoMiner
    from .engine.jobs.videos.orchestrator import AsyncPipelineOrchestrator, default_stages
    from .engine.jobs.videos.stages import DedupCollector, DownloadWorker, ExtractWorker, FilterWorker
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            ".engine.config.videos": ("VideoConfig",),
            ".engine.jobs.videos.messages": ("BaseStageWorker", "PipelineMetrics", "StageMessage"),
            ".engine.jobs.videos.miner": ("VideoMiner",),
            ".engine.jobs.videos.orchestrator": ("AsyncPipelineOrchestrator", "default_stages"),
            ".engine.jobs.videos.stages": ("DedupCollector", "DownloadWorker", "ExtractWorker", "FilterWorker"),
        },
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
