"""The streaming machine: declare a graph with `PipelineBuilder`, run it, read it, have it account for every item."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_exports

if TYPE_CHECKING:
    from .core.hooks import StageInfo, TaskHook, TaskPerfStats, TaskStatsHook
    from .core.policies import Fail, Policy, Retry, Skip
    from .core.values import (
        NOTHING,
        Feedback,
        Gathered,
        HubResource,
        ItemFailure,
        Lane,
        Nothing,
        Outcome,
        PlainValues,
        ValueModel,
        green,
    )
    from .observe.report import (
        Accounting,
        Bottleneck,
        ChannelReport,
        LaneReport,
        MemoryReport,
        Report,
        StageReport,
        Stall,
    )
    from .pipeline.builder import PipelineBuilder
    from .pipeline.pipeline import Pipeline
else:
    # A worker process wants the embedders beside this machine, not the machine (0.1 s).
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "pipeline.builder": ("PipelineBuilder",),
            "pipeline.pipeline": ("Pipeline",),
            "core.hooks": ("StageInfo", "TaskHook", "TaskPerfStats", "TaskStatsHook"),
            "core.policies": ("Fail", "Policy", "Retry", "Skip"),
            "observe.report": (
                "Accounting",
                "Bottleneck",
                "ChannelReport",
                "LaneReport",
                "MemoryReport",
                "Report",
                "StageReport",
                "Stall",
            ),
            "core.values": (
                "NOTHING",
                "Feedback",
                "Gathered",
                "HubResource",
                "ItemFailure",
                "Lane",
                "Nothing",
                "Outcome",
                "PlainValues",
                "ValueModel",
                "green",
            ),
        },
    )

__all__ = [
    "NOTHING",
    "Accounting",
    "Bottleneck",
    "ChannelReport",
    "Fail",
    "Feedback",
    "Gathered",
    "HubResource",
    "ItemFailure",
    "Lane",
    "LaneReport",
    "MemoryReport",
    "Nothing",
    "Outcome",
    "Pipeline",
    "PipelineBuilder",
    "PlainValues",
    "Policy",
    "Report",
    "Retry",
    "Skip",
    "StageInfo",
    "StageReport",
    "Stall",
    "TaskHook",
    "TaskPerfStats",
    "TaskStatsHook",
    "ValueModel",
    "green",
]
