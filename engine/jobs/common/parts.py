"""What every graph of a job begins and ends with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ....sinks import Sink
from ... import Outcome, PipelineBuilder
from ...config.types import Stage
from ...core.policies import Policy
from ...core.values import ValueModel

V = TypeVar("V", bound=ValueModel)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class JobParts(Generic[V]):
    """What every graph of a job begins and ends with.

    Attributes:
        source: values, or Outcomes that say what was filtered or broken.
        sink: opened.
        writers: threads that write to the sink.
        values: what the engine is told of them.
        insert_rows: rows of one call to the sink.
        policies: what a failure leads to, for each stage.
    """

    source: Iterable[Any]
    sink: Sink
    writers: Executor
    values: V
    insert_rows: int
    policies: Mapping[Stage, Policy]


def add_insert(builder: PipelineBuilder, parts: JobParts[Any], insert: Callable[[list[R]], Outcome]) -> PipelineBuilder:
    """The graph so far, whose collected rows are written by the sink's threads."""
    return builder.pipe(
        insert,
        concurrency=parts.sink.writes_at_once(parts.insert_rows),
        executor=parts.writers,
        name="insert",
        on_failure=parts.policies["insert"],
    )
