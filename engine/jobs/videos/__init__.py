"""Jobs on videos: frames are taken, left out, embedded and written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .messages import BaseStageWorker, PipelineMetrics, StageMessage
    from .miner import VideoMiner
    from .orchestrator import AsyncPipelineOrchestrator, default_stages
    from .stages import DedupCollector, DownloadWorker, ExtractWorker, FilterWorker
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "messages": ("BaseStageWorker", "PipelineMetrics", "StageMessage"),
            "miner": ("VideoMiner",),
            "orchestrator": ("AsyncPipelineOrchestrator", "default_stages"),
            "stages": ("DedupCollector", "DownloadWorker", "ExtractWorker", "FilterWorker"),
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
    "VideoMiner",
    "default_stages",
]
