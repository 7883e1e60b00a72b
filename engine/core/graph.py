"""A declared graph turned into stages, joined by channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace

from .budget import Budget, FailureBudget
from .channel import Channel
from .definitions import AggregateDef, DisaggregateDef, GatherDef, GraphDef, PipeDef, StageDef
from .feedback import FeedbackLoop
from .hooks import StageInfo, TaskHook, make_hooks
from .operations import ListOf, ListOfAsync, Operation, check_arity, look_at
from .output_queue import OutputQueue
from .stage import Engine, Node
from .stage_aggregate import Aggregate, Disaggregate
from .stage_gather import Fanout, Gather
from .stage_pipe import Pipe
from .stage_source import Source
from .values import ValueModel

_CHANNEL_SIZE = 2
"""Entries between two stages where the user says nothing."""
_FEEDBACK_LANE = "feedback"


@dataclass(frozen=True, slots=True)
class Placed:
    """A pipe, the executor it was declared with, and its hooks."""

    node: Pipe
    executor: Executor | None
    hooks: Sequence[TaskHook] = ()


class Graph:
    """All stages of a pipeline in their order, the source first.

    Args:
        number: of the pipeline in this process, for hooks.

    Raises:
        TypeError: an operation cannot be called with one argument.
    """

    def __init__(self, engine: Engine, definition: GraphDef, output: OutputQueue, number: int) -> None:
        self._engine = engine
        self._number = number
        self._definition = definition
        self.source = Source(engine, self._budget("source"))
        self.pipes: list[Placed] = []
        self._fanouts: list[Fanout] = []  # those whose gather is still to come
        self.nodes: list[Node] = [self.source]
        for index, stage in enumerate(definition.stages):
            channel = self._channel(index)
            self.nodes[-1].port = channel
            self.nodes.append(self._node(stage, definition.names[index], channel))
        self.nodes[-1].port = output
        self.loops = self._loops()

    def _channel(self, index: int) -> Channel:
        stage, name = self._definition.stages[index], self._definition.names[index]
        if isinstance(stage, DisaggregateDef | GatherDef):
            return Channel(self._engine.hub, _CHANNEL_SIZE)
        lanes = stage.lanes
        fed_back = any(isinstance(other, PipeDef) and other.feedback == name for other in self._definition.stages)
        if fed_back and lanes is None:
            lanes = {"": 1, _FEEDBACK_LANE: 1}
        if isinstance(stage, AggregateDef):
            return Channel(self._engine.hub, stage.buffer_size, stage.max_bytes, lanes)
        return Channel(self._engine.hub, stage.buffer_size, stage.buffer_bytes, lanes)

    def _node(self, stage: StageDef, name: str, channel: Channel) -> Node:
        match stage:
            case PipeDef():
                return self._pipe(stage, name, channel)
            case AggregateDef():
                return Aggregate(self._engine, name, channel, stage)
            case GatherDef():
                gather = Gather(self._engine, name, channel, self._budget(name), stage.child_failures)
                self._fanouts.pop().gather = gather
                return gather
            case DisaggregateDef():
                node = Disaggregate(self._engine, name, channel, self._budget(name))
                self.pipes.append(Placed(node, None))
                return node

    def _pipe(self, stage: PipeDef, name: str, channel: Channel) -> Pipe:
        op = look_at(stage.op)
        check_arity(op, name)
        if stage.makes_children and not op.is_many:
            op = replace(op, call=ListOfAsync(op.call) if op.is_async else ListOf(op.call))
        node = (Fanout if stage.makes_children else Pipe)(
            self._engine,
            name,
            channel,
            self._budget(name, stage.budget),
            op=op,
            policy=stage.on_failure,
            kind=_kind(stage, op),
            concurrency=stage.concurrency,
            parallelism=stage.parallelism or min(stage.concurrency, self._hands(stage)),
            ordered=stage.output_order == "input",
        )
        if isinstance(node, Fanout):
            self._fanouts.append(node)
        self.pipes.append(Placed(node, stage.executor, self._hooks(name, stage.concurrency)))
        return node

    def _hooks(self, name: str, concurrency: int) -> Sequence[TaskHook]:
        factory = self._definition.task_hook_factory
        if factory is None:
            return ()
        return make_hooks(factory, StageInfo(self._number, str(len(self.nodes)), name, concurrency))

    def _budget(self, name: str, own: Budget | None = None) -> FailureBudget:
        limit = self._definition.max_failures if own is None else own
        return FailureBudget(limit, self._definition.earlier.get(name))

    def _hands(self, stage: PipeDef) -> int:
        """How many operations of a stage can work at once, whatever its concurrency."""
        if stage.executor is not None:
            return getattr(stage.executor, "num_workers", stage.concurrency)
        return self._definition.num_threads if _kind(stage, look_at(stage.op)) == "blocking" else stage.concurrency

    def _loops(self) -> list[FeedbackLoop]:
        """One loop per fed-back stage: up to the furthest stage from which something may come back to it."""
        ends: dict[int, int] = {}
        for index, stage in enumerate(self._definition.stages, start=1):
            if isinstance(stage, PipeDef) and stage.feedback is not None:
                head = self._definition.names.index(stage.feedback) + 1
                ends[head] = index
                self.nodes[index].feedback = self.nodes[head].channel
        for head, end in ends.items():
            for node in self.nodes[head : end + 1]:
                node.in_loop = True
        return [FeedbackLoop(self.nodes[head : _reach(head, ends) + 1]) for head in ends]

    @property
    def has_begun(self) -> bool:
        """Whether the source was ever iterated."""
        return hasattr(self.source, "reader")

    def before(self, node: Node) -> Sequence[Node]:
        """The stages before this one."""
        return self.nodes[: self.nodes.index(node)]

    def after(self, node: Node) -> Node | None:
        """The next stage, if this is not the last."""
        index = self.nodes.index(node) + 1
        return self.nodes[index] if index < len(self.nodes) else None

    def loop_at(self, node: Node) -> FeedbackLoop | None:
        """The loop that begins with this stage."""
        return next((loop for loop in self.loops if loop.head is node), None)

    def discard_leftovers(self, values: ValueModel) -> None:
        """Give back what lies in the channels."""
        for node in self.nodes:
            if node.channel is not None:
                for entry in node.channel.leftovers():
                    values.discard(entry.value)


def _reach(head: int, ends: Mapping[int, int]) -> int:
    """The last stage of the loop that begins at `head`: where loops overlap, a value comes back by two edges."""
    end = ends[head]
    while (further := max(ends[other] for other in ends if head <= other <= end)) > end:
        end = further
    return end


def _kind(stage: PipeDef, op: Operation) -> str:
    if stage.executor is not None:
        # An executor says by `runs_processes` that it is one of processes; the standard one is known.
        processes = isinstance(stage.executor, ProcessPoolExecutor) or getattr(stage.executor, "runs_processes", False)
        return "process" if processes else "blocking"
    if op.is_async:
        return "async"
    return "green" if op.is_green or stage.kind == "green" else "blocking"
