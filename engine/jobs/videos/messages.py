"""What travels between stages of videos that are written by users, and what a stage is to them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import Report


@dataclass(frozen=True, slots=True)
class StageMessage:
    """A video on its way: where its files lie, never what is in them.

    Attributes:
        video_id: 20 hex digits, a digest of its key.
        input_path: what the stage before has left: a URL, a file, or a folder with a manifest.
        metadata: what stages know of it; ``key`` is its path or URL.
        timestamp: when the message was made, in seconds since 1970.
    """

    video_id: str
    input_path: str | Path
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    timestamp: float = field(default_factory=time.time)

    def followed(self, input_path: str | Path, **metadata: Any) -> StageMessage:
        """The message to the next stage about the same video.

        Args:
            input_path: of it.
            **metadata: what is known now, besides what was.
        """
        return StageMessage(self.video_id, input_path, {**self.metadata, **metadata})


class BaseStageWorker(ABC):
    """A stage of `AsyncPipelineOrchestrator`. Subclasses say what is done with a message.

    Args:
        name: of the stage, in reports; default: of the class.
        concurrency: messages that are processed at once, in threads.
    """

    def __init__(self, *, name: str | None = None, concurrency: int = 1) -> None:
        self.name = name or type(self).__name__
        self.concurrency = concurrency

    @abstractmethod
    def process(self, msg: StageMessage) -> StageMessage | None:
        """Process one message; in a thread, and up to `concurrency` at once.

        Returns:
            The message to the next stage; None: the video is left out.

        Raises:
            ItemError: the video cannot be done: it is among the errors, and all others go on.
        """

    def open(self) -> None:  # noqa: B027  (most need nothing)
        """Called before the first message."""

    def close(self) -> None:  # noqa: B027
        """Called when all is over, however it ended. May be called twice."""


@dataclass(frozen=True, slots=True)
class PipelineMetrics:
    """How stages do, from the engine's own report.

    Attributes:
        stage_counts: what each has processed: videos, and behind a fan-out frames.
        stage_latencies: mean seconds of one operation.
        queue_depths: what waits in front of each now.
        errors: the id of each video that failed, and why; of many the first thousand.
    """

    stage_counts: dict[str, int]
    stage_latencies: dict[str, float]
    queue_depths: dict[str, int]
    errors: list[tuple[str, str]]

    @classmethod
    def of(cls, report: Report, errors: list[tuple[str, str]]) -> PipelineMetrics:
        """The metrics in a report, of a run that has ended or goes on."""
        stages = [stage for stage in report.stages if stage.kind not in ("source", "sink")]
        return cls(
            {stage.name: stage.items_out for stage in stages},
            {stage.name: stage.mean_ms / 1000 for stage in stages},
            {stage.name: stage.channel.items if stage.channel else 0 for stage in stages},
            list(errors),
        )
