"""The streaming machine: declare a graph with `PipelineBuilder`, run it, read it, have it account for every item."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_exports

if TYPE_CHECKING:
    from .builder import PipelineBuilder
    from .pipeline import Pipeline
    from .policies import Fail, Policy, Retry, Skip
    from .report import (
        Accounting,
        Bottleneck,
        ChannelReport,
        LaneReport,
        MemoryReport,
        Report,
        StageReport,
        Stall,
    )
    from .values import (
        NOTHING,
        Feedback,
        HubResource,
        ItemFailure,
        Lane,
        Nothing,
        Outcome,
        PlainValues,
        ValueModel,
        green,
    )
else:
    # A worker process wants the embedders beside this machine, not the machine (0.1 s).
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "builder": ("PipelineBuilder",),
            "pipeline": ("Pipeline",),
            "policies": ("Fail", "Policy", "Retry", "Skip"),
            "report": (
                "Accounting",
                "Bottleneck",
                "ChannelReport",
                "LaneReport",
                "MemoryReport",
                "Report",
                "StageReport",
                "Stall",
            ),
            "values": (
                "NOTHING",
                "Feedback",
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
    "StageReport",
    "Stall",
    "ValueModel",
    "green",
]
