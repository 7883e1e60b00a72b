"""The streaming machine: declare a graph with `PipelineBuilder`, run it, read it, have it account for every item."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "Pipeline": "pipeline",
    "PipelineBuilder": "builder",
    **dict.fromkeys(("Fail", "Policy", "Retry", "Skip"), "policies"),
    **dict.fromkeys(
        (
            "Accounting",
            "Bottleneck",
            "ChannelReport",
            "LaneReport",
            "MemoryReport",
            "Report",
            "StageReport",
            "Stall",
        ),
        "report",
    ),
    **dict.fromkeys(
        (
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
        "values",
    ),
}


def __getattr__(name: str) -> Any:
    # Imported when first used: a worker process wants the embedders beside this machine, not the machine (0.1 s).
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
