"""`PipelineBuilder`: declare a graph. Names and behaviour follow SPDL's; where that is loose, this is strict."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, Literal, Protocol, Self

from ...errors import ConfigError
from ..core.budget import Budget, Tally
from ..core.definitions import (
    AggregateDef,
    DisaggregateDef,
    GatherDef,
    GraphDef,
    Order,
    PipeDef,
    StageDef,
    at_least,
    check_source,
    unique_names,
)
from ..core.hooks import TaskHookFactory
from ..core.policies import Policy, Skip, parse_policy
from ..core.values import HubResource, PlainValues, ValueModel
from .pipeline import Pipeline


class Container(Protocol):
    """What can be indexed."""

    def __getitem__(self, key: Any, /) -> Any: ...


class PipelineBuilder:
    """Declares a pipeline: source, stages, sink. Methods chain; `build` may be called several times.

    Example:
        >>> builder = PipelineBuilder().add_source(range(3)).pipe(lambda x: 2 * x, name="double").add_sink()
        >>> with builder.build(num_threads=1).auto_stop() as pipeline:
        ...     print(list(pipeline))
        [0, 2, 4]

    Args:
        values: what the engine should know about values; default: each is one item of unknown size.
    """

    def __init__(self, values: ValueModel | None = None) -> None:
        self._values = values
        self._source: Iterable[Any] | AsyncIterable[Any] | None = None
        self._stages: list[StageDef] = []
        self._sink: int | None = None
        self._resources: list[HubResource] = []

    def add_source(self, source: Iterable[Any] | AsyncIterable[Any]) -> Self:
        """Say where values come from: iterated in a thread of its own, or on the asyncio loop, a few values ahead.

        Raises:
            ConfigError: there is a source already, or `source` is not iterable.
        """
        if self._source is not None:
            raise ConfigError("add_source: this pipeline has a source already")
        check_source(source)
        self._source = source
        return self

    def pipe(
        self,
        op: Callable[..., Any] | Container,
        /,
        *,
        concurrency: int = 1,
        executor: Executor | None = None,
        name: str | None = None,
        output_order: Order = "completion",
        max_failures: Budget | None = None,
        on_failure: Policy | str | None = None,
        kind: Literal["green"] | None = None,
        parallelism: int | None = None,
        buffer_size: int = 2,
        buffer_bytes: int | None = None,
        lanes: Mapping[str, int] | None = None,
        feedback: str | None = None,
    ) -> Self:
        """Add an operation on each value.

        Args:
            op: a callable of one argument, or a container (the value is the key). A plain function runs in the
                pipeline's thread pool, a coroutine function on its asyncio loop, a `green` one on its hub. Generators
                and async generators emit each value at once. Returning None drops the value.
            concurrency: operations of this stage at once, at most, in both orders. Plain functions of all stages share
                the `num_threads` of `build`.
            executor: run `op` there instead: a `concurrent.futures.Executor` or penstock's `WorkerPool`.
            name: for logs, reports and `feedback`; repeated names are numbered.
            output_order: ``"completion"``, or ``"input"``: results (drops, failures) come in the order of arrival.
            max_failures: overrides `build(max_failures=)` for this stage.
            on_failure: `Skip` (the default): an item that fails is left out; `Fail`: the first one ends the pipeline;
                `Retry`: what is transient is tried again first, holding its place. Or their spelling, see
                `parse_policy`. A generator is started again only if it raised before it had emitted anything. Of an
                executor of processes only the error itself is known, not its causes. Not together with `max_failures`,
                where the policy says how many failures there may be.
            kind: ``"green"`` for an operation that is cooperative by itself and never blocks the hub.
            parallelism: how many operations can really work at once, where that is less than `concurrency` (say, three
                slots for each of two workers). Only for the busy figure.
            buffer_size: values that may wait in front of this stage, in each lane.
            buffer_bytes: bytes that may wait there, in each lane; a larger value passes alone. Needs a `ValueModel`.
            lanes: names and weights of this stage's input lanes, shared out by weighted round robin. The stage before
                chooses by emitting `Lane(name, value)`; what is not marked takes the first.
            feedback: name of this stage or an earlier one, to whose input this one may send `Feedback(value)`.

        Raises:
            ConfigError: a setting is wrong; the message names it.
        """
        self._stages.append(
            PipeDef(
                op=op,
                name=name,
                concurrency=concurrency,
                parallelism=parallelism,
                executor=executor,
                output_order=output_order,
                max_failures=max_failures,
                on_failure=_policy(on_failure),
                kind=kind,
                buffer_size=buffer_size,
                buffer_bytes=buffer_bytes,
                lanes=None if lanes is None else dict(lanes),
                feedback=feedback,
            )
        )
        return self

    def fanout(
        self,
        op: Callable[..., Any] | Container,
        /,
        *,
        concurrency: int = 1,
        executor: Executor | None = None,
        name: str | None = None,
        output_order: Order = "completion",
        max_failures: Budget | None = None,
        on_failure: Policy | str | None = None,
        kind: Literal["green"] | None = None,
        parallelism: int | None = None,
        buffer_size: int = 2,
        buffer_bytes: int | None = None,
        lanes: Mapping[str, int] | None = None,
    ) -> Self:
        """Make children of each value. They travel alone, in any order, until `gather` makes one value of them again.

        Stages in between work on children as on any values: they may fail, be dropped, become several, go round in
        loops, and be collected by `aggregate` with those of other parents if a `disaggregate` follows (an operation
        on such a list returns one value for each member, None for those to leave out). Another fanout with its gather
        may lie between. The parent itself waits for its children at the gather.

        Args:
            op: as for `pipe`: a generator function, whose values go on at once, or a function that returns an iterable.
                None drops the value; no children at all is a value that is gathered at once.
            concurrency: as for `pipe`, as are all others. Failures are the parent's: of children it had made by then
                nothing comes back.
            executor: see `pipe`.
            name: see `pipe`.
            output_order: see `pipe`.
            max_failures: see `pipe`.
            on_failure: see `pipe`.
            kind: see `pipe`.
            parallelism: see `pipe`.
            buffer_size: see `pipe`.
            buffer_bytes: see `pipe`.
            lanes: see `pipe`.

        Raises:
            ConfigError: a setting is wrong; the message names it.
        """
        self.pipe(
            op,
            concurrency=concurrency,
            executor=executor,
            name=name,
            output_order=output_order,
            max_failures=max_failures,
            on_failure=on_failure,
            kind=kind,
            parallelism=parallelism,
            buffer_size=buffer_size,
            buffer_bytes=buffer_bytes,
            lanes=lanes,
        )
        pipe = self._stages.pop()
        assert isinstance(pipe, PipeDef)
        self._stages.append(replace(pipe, makes_children=True))
        return self

    def gather(self, *, child_failures: Budget = -1, name: str | None = None) -> Self:
        """Make one `Gathered` of each value that the last `fanout` made children of, when all are accounted for.

        Values come in the order in which they are complete. Only those are held that have a child in flight, so their
        number is bounded by the children there is room for between the two stages; of each the results are held.

        Args:
            child_failures: children of a value that may fail: a number (-1: any), or a `Fraction` of them. With more of
                them the value itself has failed here, with a `ChildrenFailedError`, as an item of a `pipe` does.
            name: for logs and reports.

        Raises:
            ConfigError: `child_failures` is neither.
        """
        self._stages.append(GatherDef(name, child_failures))
        return self

    def aggregate(
        self,
        n: int,
        /,
        *,
        drop_last: bool = False,
        max_wait: float | None = None,
        max_bytes: int | None = None,
        lanes: Mapping[str, int] | None = None,
        name: str | None = None,
        buffer_size: int = 2,
    ) -> Self:
        """Collect values into lists of `n` (with a `ValueModel`: of at least `n` units).

        Args:
            n: values of a list.
            drop_last: drop a short list at the end (of each lane) instead of emitting it.
            max_wait: seconds after which a short list is emitted, counted from its first value.
            max_bytes: bytes a list may hold; a larger value makes a list of its own. Needs a `ValueModel`.
            lanes: names and weights of this stage's input lanes, as for `pipe`. Each list is filled from one lane, and
                lanes fill theirs side by side, so this holds up to a list of each.
            name: for reports and `feedback`: an aggregate may be where a feedback edge leads to.
            buffer_size: values that may wait in front of this stage, in each lane. Lanes have their shares while they
                hold something: where what comes before is no slower, give room for a list.

        Raises:
            ConfigError: a setting is wrong; the message names it.
        """
        stage = AggregateDef(
            n, drop_last, max_wait, max_bytes, None if lanes is None else dict(lanes), name, buffer_size
        )
        self._stages.append(stage)
        return self

    def disaggregate(self) -> Self:
        """Emit the members of each value one by one. A value that is not iterable is a failure."""
        self._stages.append(DisaggregateDef())
        return self

    def add_sink(self, buffer_size: int = 3) -> Self:
        """End the pipeline in a buffer of so many values, from which the user reads.

        Raises:
            ConfigError: there is a sink already, or `buffer_size` is less than 1.
        """
        if self._sink is not None:
            raise ConfigError("add_sink: this pipeline has a sink already")
        at_least("add_sink(buffer_size)", buffer_size, 1)
        self._sink = buffer_size
        return self

    def add_resource(self, resource: HubResource) -> Self:
        """Have something started on the engine's hub before the first value is read, and stopped after the last one.

        Resources start in the order of adding and stop in the reverse one, also after a failure or an early stop.
        """
        self._resources.append(resource)
        return self

    def build(
        self,
        *,
        num_threads: int,
        max_failures: Budget = -1,
        earlier: Mapping[str, Tally] | None = None,
        log_interval: float | None = None,
        sample_memory: float | None = None,
        stall_after: float | None = 60.0,
        task_hook_factory: TaskHookFactory | None = None,
    ) -> Pipeline:
        """Make a pipeline that can be run once.

        Args:
            num_threads: threads that plain operations of all stages share.
            max_failures: failures that each stage tolerates: a number (-1: any), or a `Fraction` of its items, judged
                after 100 of them, and when the stage has ended, whatever their number.
            earlier: what earlier runs of the same work did in each stage, by its name: a `Fraction` is one of all runs
                together.
            log_interval: seconds between log lines on every stage; None for none.
            sample_memory: seconds between samples of the process tree's memory; None for none.
            stall_after: seconds without progress after which a stage that stands still is named in a warning, with its
                items and stacks, and in the report; None for never.
            task_hook_factory: called with the `StageInfo` of each pipe, returns a list of `TaskHook`s for it, which see
                each of its tasks begin, end and fail.

        Raises:
            ConfigError: a setting is wrong; the message names it.
            RuntimeError: there is no source, or no sink.
            TypeError: an operation cannot be called with one argument.
        """
        if self._source is None:
            raise RuntimeError("this pipeline has no source: call add_source first")
        if self._sink is None:
            raise RuntimeError("this pipeline has no sink: call add_sink first")
        stages = tuple(self._stages)
        return Pipeline(
            GraphDef(
                source=self._source,
                stages=stages,
                names=unique_names(stages),
                sink_size=self._sink,
                num_threads=num_threads,
                max_failures=max_failures,
                earlier={} if earlier is None else dict(earlier),
                values=PlainValues() if self._values is None else self._values,
                resources=tuple(self._resources),
                log_interval=log_interval,
                sample_memory=sample_memory,
                stall_after=stall_after,
                task_hook_factory=task_hook_factory,
            )
        )


def _policy(said: Policy | str | None) -> Policy:
    try:
        return Skip() if said is None else parse_policy(said)
    except ValueError as error:
        raise ConfigError(f"on_failure={said!r} {error}") from None
