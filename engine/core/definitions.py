"""What the user declares, as plain data: checked at once, built as often as wanted, picklable if the operations are."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Literal

from ...errors import ConfigError
from .budget import Budget, Tally, check_budget
from .hooks import TaskHookFactory
from .operations import Operation, look_at
from .policies import Fail, Policy, Retry, Skip, tolerated
from .values import HubResource, PlainValues, ValueModel

Order = Literal["completion", "input"]


@dataclass(frozen=True, slots=True)
class PipeDef:
    """An operation with its stage's settings; see `PipelineBuilder.pipe`."""

    op: Any
    name: str | None
    concurrency: int
    parallelism: int | None
    executor: Executor | None
    output_order: Order
    max_failures: Budget | None
    on_failure: Policy
    kind: Literal["green"] | None
    buffer_size: int
    buffer_bytes: int | None
    lanes: Mapping[str, int] | None
    feedback: str | None
    makes_children: bool = False

    def __post_init__(self) -> None:
        at_least("concurrency", self.concurrency, 1)
        if self.parallelism is not None:
            at_least("parallelism", self.parallelism, 1)
        at_least("buffer_size", self.buffer_size, 1)
        if self.buffer_bytes is not None:
            at_least("buffer_bytes", self.buffer_bytes, 1)
        if self.output_order not in ("completion", "input"):
            raise ConfigError(f"output_order={self.output_order!r} must be 'completion' or 'input'")
        self._check_failures()
        check_lanes(self.lanes)
        self._check_place(look_at(self.op))

    @property
    def last_resort(self) -> Skip | Fail:
        """What becomes of an item that failed and is not tried again."""
        return self.on_failure.then if isinstance(self.on_failure, Retry) else self.on_failure

    @property
    def budget(self) -> Budget | None:
        """How many failures the stage tolerates; None: as many as others."""
        own = tolerated(self.on_failure)
        return self.max_failures if own is None else own

    def _check_failures(self) -> None:
        if self.max_failures is None:
            return
        check_budget(self.max_failures)
        last = self.last_resort
        if isinstance(last, Fail) or last.max_failures is not None:
            raise ConfigError(
                f"max_failures={self.max_failures} and on_failure={str(self.on_failure)!r} exclude one another: "
                "the policy says how many failures there may be"
            )

    def _check_place(self, op: Operation) -> None:
        if self.kind not in (None, "green"):
            raise ConfigError(f"kind={self.kind!r} must be 'green' or None")
        green = op.is_green or self.kind == "green"
        if self.executor is not None and (op.is_async or green):
            what = "an async operation runs on the asyncio loop" if op.is_async else "a green operation runs on the hub"
            raise ConfigError(f"executor= does not go with {op.name}: {what}; leave executor out")
        if green and op.is_async:
            raise ConfigError(
                f"kind='green' does not go with the async operation {op.name}: it runs on the asyncio loop"
            )


@dataclass(frozen=True, slots=True)
class AggregateDef:
    """See `PipelineBuilder.aggregate`."""

    n: int
    drop_last: bool
    max_wait: float | None
    max_bytes: int | None = None
    lanes: Mapping[str, int] | None = None
    name: str | None = None
    buffer_size: int = 2

    def __post_init__(self) -> None:
        at_least("aggregate(n)", self.n, 1)
        at_least("buffer_size", self.buffer_size, 1)
        if self.max_bytes is not None:
            at_least("max_bytes", self.max_bytes, 1)
        check_lanes(self.lanes)
        if self.max_wait is not None and self.max_wait <= 0:
            raise ConfigError(f"max_wait={self.max_wait} must be more than 0 seconds, or None")


@dataclass(frozen=True, slots=True)
class DisaggregateDef:
    """See `PipelineBuilder.disaggregate`."""


@dataclass(frozen=True, slots=True)
class GatherDef:
    """See `PipelineBuilder.gather`."""

    name: str | None
    child_failures: Budget

    def __post_init__(self) -> None:
        check_budget(self.child_failures, "child_failures")


StageDef = PipeDef | AggregateDef | DisaggregateDef | GatherDef


@dataclass(frozen=True, slots=True)
class GraphDef:
    """A whole pipeline, declared and named.

    Attributes:
        names: one per stage, unique.
        earlier: what earlier runs did in each stage, by its name.
    """

    source: Iterable[Any] | AsyncIterable[Any]
    stages: tuple[StageDef, ...]
    names: tuple[str, ...]
    sink_size: int
    num_threads: int
    max_failures: Budget = -1
    earlier: Mapping[str, Tally] = field(default_factory=dict[str, Tally])
    values: ValueModel = field(default_factory=PlainValues)
    resources: tuple[HubResource, ...] = ()
    log_interval: float | None = None
    sample_memory: float | None = None
    stall_after: float | None = None
    task_hook_factory: TaskHookFactory | None = None

    def __post_init__(self) -> None:
        at_least("num_threads", self.num_threads, 1)
        check_budget(self.max_failures)
        for name in ("log_interval", "sample_memory", "stall_after"):
            seconds = getattr(self, name)
            if seconds is not None and seconds <= 0:
                raise ConfigError(f"{name}={seconds} must be more than 0 seconds, or None")
        regions = find_regions(self.stages, self.names)
        for index, stage in enumerate(self.stages):
            if isinstance(stage, PipeDef) and stage.feedback is not None:
                self._check_feedback(index, stage.feedback)
                if regions[self.names.index(stage.feedback)] != regions[index]:
                    raise ConfigError(
                        f"feedback={stage.feedback!r} of stage {self.names[index]!r} leads across a fanout or gather, "
                        "or an aggregate or disaggregate between them: what is fed back must be what was there before"
                    )

    def _check_feedback(self, index: int, target: str) -> None:
        heads = [
            name
            for name, stage in zip(self.names[: index + 1], self.stages, strict=False)
            if isinstance(stage, PipeDef | AggregateDef)
        ]
        if target not in heads:
            raise ConfigError(
                f"feedback={target!r} of stage {self.names[index]!r} must name this stage or an earlier pipe or "
                f"aggregate: {', '.join(heads)}"
            )


def unique_names(stages: tuple[StageDef, ...]) -> tuple[str, ...]:
    """A name for each stage: the given one, or that of its operation; repeated ones are numbered."""
    names: list[str] = []
    for stage in stages:
        match stage:
            case PipeDef():
                name = stage.name or look_at(stage.op).name
            case AggregateDef():
                name = stage.name or f"aggregate({stage.n})"
            case DisaggregateDef():
                name = "disaggregate"
            case GatherDef():
                name = stage.name or "gather"
        seen = sum(known == name or known.startswith(f"{name}#") for known in names)
        names.append(f"{name}#{seen + 1}" if seen else name)
    return tuple(names)


def find_regions(stages: Sequence[StageDef], names: Sequence[str]) -> list[tuple[tuple[int, int], ...]]:
    """In which fan-outs each stage lies, the outermost first, and in how many lists its values are there.

    Raises:
        ConfigError: a fanout or a gather has no partner, or lists of children would be gathered.
    """
    regions: list[tuple[tuple[int, int], ...]] = []
    inside: list[tuple[int, int]] = []
    for index, stage in enumerate(stages):
        regions.append(tuple(inside))
        match stage:
            case PipeDef(makes_children=True):
                inside.append((index, 0))
            case AggregateDef() if inside:
                inside[-1] = (inside[-1][0], inside[-1][1] + 1)
            case DisaggregateDef() if inside and inside[-1][1]:
                inside[-1] = (inside[-1][0], inside[-1][1] - 1)
            case GatherDef() if not inside:
                raise ConfigError(f"stage {names[index]!r}: there is no fanout before this gather")
            case GatherDef():
                if inside.pop()[1]:
                    raise ConfigError(
                        f"stage {names[index]!r} would gather lists: an aggregate between fanout and gather needs a "
                        "disaggregate behind it"
                    )
            case _:
                pass
    if inside:
        raise ConfigError(f"fanout {names[inside[-1][0]]!r} has no gather behind it")
    return regions


def check_lanes(lanes: Mapping[str, int] | None) -> None:
    """Check the lanes of a stage.

    Raises:
        ConfigError: there are none, or a weight is no int of at least 1.
    """
    if lanes is not None and not lanes:
        raise ConfigError("lanes={} must name at least one lane, or be None")
    for name, weight in (lanes or {}).items():
        at_least(f"lanes[{name!r}]", weight, 1)


def at_least(knob: str, value: object, least: int) -> None:
    """Check a whole number.

    Raises:
        ConfigError: `value` is no int, or less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{knob}={value!r} must be an int of at least {least}")


def check_source(source: object) -> None:
    """Check that something can be iterated.

    Raises:
        ConfigError: it cannot.
    """
    if not (isinstance(source, Iterable | AsyncIterable) or hasattr(type(source), "__getitem__")):
        raise ConfigError(f"add_source: {source!r} is neither an iterable nor an async iterable")
