"""Operations that fail for a while, and pipelines of them: for the tests of failure policies."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.engine import ItemFailure, Pipeline, PipelineBuilder, PlainValues, Retry, StageReport

SOON = Retry(3, first=0.001)
NEVER = Retry(3, first=1e8, longest=1e8)
"""Its first wait is over within a test only if one is unlucky in a million."""


@dataclass
class Flaky:
    """Fails for each item as often as `plan` says, with `error`; counts its calls."""

    plan: Callable[[Any], float]
    error: Callable[[], BaseException] = ConnectionResetError
    calls: Counter[Any] = field(default_factory=Counter[Any])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, item: Any) -> Any:
        with self.lock:
            self.calls[item] += 1
            if self.calls[item] <= self.plan(item):
                raise self.error()
        return item


@dataclass
class RecordingValues(PlainValues):
    """A value model that remembers failures and what was given back."""

    failures: list[tuple[Any, int]] = field(default_factory=list[Any])
    discarded: list[Any] = field(default_factory=list[Any])

    def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> None:
        self.failures += [(failure.key or value, failure.attempts) for failure in failures]

    def discard(self, value: Any) -> None:
        self.discarded.append(value)


def built(builder: PipelineBuilder, num_threads: int = 2, **knobs: Any) -> Pipeline:
    return builder.add_sink(100).build(num_threads=num_threads, **knobs)


def finish(pipeline: Pipeline) -> list[Any]:
    """All its values; the books balance at the end."""
    with pipeline.auto_stop():
        found = list(pipeline)
    pipeline.report().check()
    return found


def op_of(pipeline: Pipeline) -> StageReport:
    """The figures of the stage named op; the books balance at any moment."""
    report = pipeline.report()
    report.check()
    return next(stage for stage in report.stages if stage.name == "op")
