"""The streaming machine: declare a graph with `PipelineBuilder`, run it, read it, have it account for every item."""

from .builder import PipelineBuilder
from .pipeline import Pipeline
from .report import (
    Accounting,
    Bottleneck,
    ChannelReport,
    LaneReport,
    MemoryReport,
    Report,
    StageReport,
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

__all__ = [
    "NOTHING",
    "Accounting",
    "Bottleneck",
    "ChannelReport",
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
    "Report",
    "StageReport",
    "ValueModel",
    "green",
]
