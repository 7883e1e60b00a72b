"""Random graphs, what their operations do with each value, and an independent model of what must come out.

Values are whole numbers: what a stage emits for a value tells where it comes from and from which branch, so that a
value that is lost, doubled or mixed up is seen. Lists are made by `aggregate` and opened by `disaggregate`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn
from zlib import crc32

from hypothesis import strategies as st

from penstock.engine import Feedback, Lane, PipelineBuilder, Retry, StageReport

Kind = Literal["blocking", "async", "green", "executor", "aggregate", "disaggregate"]
Act = Literal["pass", "drop", "raise", "many", "back"]

ERRORS: Sequence[type[BaseException]] = (
    ValueError,
    SystemExit,
    KeyboardInterrupt,
    StopIteration,
    StopAsyncIteration,
    GeneratorExit,
    asyncio.CancelledError,
    CancelledError,
)
"""What an operation may raise: whatever it is, it is the failure of one item."""

LANES = {"slow": 1, "fast": 2}

_DEEP = 1 << 14
"""Numbers above that have been around often enough."""


@dataclass(frozen=True, slots=True)
class Step:
    """One random stage; what it does with a value depends on the value alone.

    Attributes:
        many: its operation is a generator function.
        acts: one of these for each value.
        back: how many stages before this one its feedback edge leads to; None: it has none.
        lane: whether it emits into the lanes of the next stage, which has two of them then.
        stumbles: whether some values fail at the first attempt, of something transient, and are tried again.
        loose: the order of what comes in is not known here, so that what becomes of a list may not depend on what is in
            it.
    """

    kind: Kind
    many: bool = False
    ordered: bool = False
    concurrency: int = 1
    buffer: int = 2
    acts: tuple[Act, ...] = ("pass",)
    back: int | None = None
    lane: bool = False
    stumbles: bool = False
    loose: bool = False

    @property
    def is_operation(self) -> bool:
        """Whether it is a pipe."""
        return self.kind not in ("aggregate", "disaggregate")

    # -- what it does: the operations themselves ----------------------------------------------------------------------

    def act(self, value: Any) -> Act:
        if isinstance(value, list) and self.loose:
            return "pass"
        chosen = self.acts[crc32(repr(value).encode()) % len(self.acts)]
        if chosen == "back" and (self.back is None or isinstance(value, list) or value > _DEEP):
            return "pass"
        return chosen

    def made(self, value: Any) -> Iterator[Any]:
        """What the operation emits for a value; None is dropped. Raises where it is to fail."""
        act = self.act(value)
        if act == "raise":
            self.fail(value)
        if act == "drop":
            yield None
        elif act == "back":
            yield Feedback(4 * value)
        else:
            for branch in range(3 if act == "many" and self.many else 1):
                yield self._marked(value if isinstance(value, list) else 4 * value + 1 + branch)
            if act == "many" and self.many:
                yield None

    def _marked(self, value: Any) -> Any:
        return Lane("fast", value) if self.lane and self.is_fast(value) else value

    def is_fast(self, value: Any) -> bool:
        """Which of two lanes it emits a value into."""
        return crc32(repr(value).encode()) % 2 == 1 and not (isinstance(value, list) and self.loose)

    def fail(self, value: Any) -> NoReturn:
        raise ERRORS[crc32(repr(value).encode()) // 7 % len(ERRORS)](f"on purpose: {value}")

    def one(self, value: Any) -> Any:
        if self.act(value) == "raise":
            self.fail(value)  # not in a generator, where Python would make another error of a StopIteration
        return next(self.made(value))

    async def one_later(self, value: Any) -> Any:
        await asyncio.sleep(0)
        return self.one(value)

    async def each_later(self, value: Any) -> AsyncIterator[Any]:
        await asyncio.sleep(0)
        for made in self.made(value):
            yield made

    def stumbling(self) -> Callable[..., Any]:
        """The operation of a pipeline of its own: what has failed there once does not fail again."""
        seen: set[str] = set()

        def stumble(value: Any) -> None:
            mark = repr(value)
            if mark not in seen:
                seen.add(mark)
                if crc32(mark.encode()) % 3 == 0:
                    raise ConnectionResetError(mark)

        def one(value: Any) -> Any:
            stumble(value)
            return self.one(value)

        async def one_later(value: Any) -> Any:
            stumble(value)
            return await self.one_later(value)

        return one_later if self.kind == "async" else one

    def declare(self, builder: PipelineBuilder, index: int, lanes: bool, executor: Executor | None) -> None:
        """Add the stage to a pipeline; `lanes` where the one before emits into them."""
        if self.kind == "aggregate":
            drop_last = self.ordered and not self.loose
            builder.aggregate(len(self.acts) + 1, drop_last=drop_last, lanes=LANES if lanes else None)
            return
        if self.kind == "disaggregate":
            builder.disaggregate()
            return
        operations: dict[tuple[bool, bool], Callable[..., Any]] = {
            (False, False): self.one,
            (False, True): self.made,
            (True, False): self.one_later,
            (True, True): self.each_later,
        }
        builder.pipe(
            self.stumbling() if self.stumbles else operations[self.kind == "async", self.many],
            name=f"stage {index}",
            executor=executor if self.kind == "executor" else None,
            concurrency=self.concurrency,
            output_order="input" if self.ordered else "completion",
            kind="green" if self.kind == "green" else None,
            buffer_size=self.buffer,
            lanes=LANES if lanes else None,
            feedback=None if self.back is None else f"stage {index - self.back}",
            on_failure=Retry(2, first=0.0) if self.stumbles else None,
        )


# -- which graphs -----------------------------------------------------------------------------------------------------

operations = st.builds(
    Step,
    st.sampled_from(["blocking", "async", "green", "executor"]),
    many=st.booleans(),
    ordered=st.booleans(),
    concurrency=st.integers(1, 4),
    buffer=st.integers(1, 3),
    acts=st.lists(st.sampled_from(["pass", "pass", "drop", "raise", "many", "back"]), min_size=1, max_size=5).map(
        tuple
    ),
    back=st.one_of(st.none(), st.none(), st.integers(0, 2)),
    lane=st.sampled_from([False, False, True]),
    stumbles=st.sampled_from([False, False, True]),
)
others = st.builds(
    Step,
    st.sampled_from(["aggregate", "disaggregate"]),
    ordered=st.booleans(),
    acts=st.lists(st.just("pass"), min_size=1, max_size=4).map(tuple),
)
graphs = st.lists(st.one_of(operations, operations, others), min_size=1, max_size=6).map(lambda steps: fitted(steps))


def fitted(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps without what cannot be: edges to where no operation is, or around an aggregate."""
    found: list[Step] = []
    loose = False
    for index, step in enumerate(steps):
        inside = steps[index - (step.back or 0) : index + 1]
        loop = step.back is not None and step.back <= index and all(each.is_operation for each in inside)
        following = steps[index + 1] if index + 1 < len(steps) else None
        lane = step.lane and following is not None and following.kind != "disaggregate"
        # The lists of one lane are known where the order of all values is, but not which lane's list comes next.
        sorted_out = step.kind == "aggregate" and bool(found) and found[-1].lane
        if loop:  # whatever lies on a loop gets values in an order that nobody knows
            found[index - (step.back or 0) :] = [
                replace(each, loose=True) for each in found[index - (step.back or 0) :]
            ]
            loose = True
        stumbles = step.stumbles and not step.many
        found.append(replace(step, back=step.back if loop else None, lane=lane, stumbles=stumbles, loose=loose))
        mixes = lane and following is not None and following.is_operation
        overtakes = step.is_operation and step.concurrency > 1 and not step.ordered
        loose = loose or mixes or overtakes or sorted_out
    return tuple(found)


def is_loose(graph: Sequence[Step]) -> bool:
    """Whether the order of what comes out is not known."""
    last = graph[-1]
    sorted_out = last.kind == "aggregate" and len(graph) > 1 and graph[-2].lane
    return last.loose or sorted_out or (last.is_operation and last.concurrency > 1 and not last.ordered)


# -- what must come out -----------------------------------------------------------------------------------------------

FIGURES = ("items_in", "items_out", "dropped", "failed", "created", "merged")


def figures(stage: StageReport) -> Counter[str]:
    """The books of a stage, as the model keeps them."""
    return Counter({name: stage[name] for name in FIGURES if stage[name]})


def model(graph: Sequence[Step], values: Sequence[Any]) -> tuple[list[Any], list[Counter[str]]]:
    """What a graph delivers for these values, in order as far as there is one, and the books of each stage."""
    waiting: list[list[Any]] = [list(values), *([] for _ in graph)]
    books = [Counter[str]() for _ in graph]
    index = 0
    while index < len(graph):
        step, taken = graph[index], waiting[index]
        waiting[index] = []
        books[index]["items_in"] += len(taken)
        if step.kind == "aggregate":
            for lane in _lanes(graph[:index], taken):
                waiting[index + 1] += _collected(step, lane, books[index])
        else:
            back = waiting[index - (step.back or 0)]
            for value in taken:
                _apply(step, value, waiting[index + 1], back, books[index])
            if back:  # around again
                index -= step.back or 0
                continue
        index += 1
    return waiting[-1], [+each for each in books]


def _lanes(before: Sequence[Step], taken: list[Any]) -> list[list[Any]]:
    """What an aggregate gets, by lane."""
    if not before or not before[-1].lane:
        return [taken]
    return [[value for value in taken if before[-1].is_fast(value) is fast] for fast in (False, True)]


def _collected(step: Step, taken: list[Any], books: Counter[str]) -> Iterator[list[Any]]:
    size = len(step.acts) + 1
    for start in range(0, len(taken), size):
        group = taken[start : start + size]
        if len(group) < size and step.ordered and not step.loose:
            books["dropped"] += len(group)
        else:
            books["items_out"] += 1
            books["merged"] += len(group) - 1
            yield group


def _apply(step: Step, value: Any, forward: list[Any], back: list[Any], books: Counter[str]) -> None:
    """One value through one operation."""
    made, failed = results_of(step, value)
    kept = [each for each in made if each is not None]
    books["items_out"] += len(kept)
    books["dropped"] += len(made) - len(kept)
    books["failed"] += failed
    became = len(made) + failed
    books["created"] += max(0, became - 1)
    for each in kept:
        (back if isinstance(each, Feedback) else forward).append(
            each.value if isinstance(each, Feedback | Lane) else each
        )


def results_of(step: Step, value: Any) -> tuple[list[Any], bool]:
    if step.kind == "disaggregate":
        return (list(value), False) if isinstance(value, list) else ([], True)
    if step.act(value) == "raise":
        return [], True
    made = list(step.made(value))
    return (made, False) if step.many else (made[:1], False)


def leaves(values: Sequence[Any]) -> Iterator[Any]:
    """The numbers in lists of lists."""
    for value in values:
        if isinstance(value, list):
            yield from leaves(value)
        else:
            yield value


def check_delivered(graph: Sequence[Step], got: Sequence[Any], expected: Sequence[Any]) -> None:
    """Exactly these, in this order where it is kept; else the same numbers, and as many lists of each length."""
    if is_loose(graph):
        assert Counter(leaves(got)) == Counter(leaves(expected))
        assert _lengths(got) == _lengths(expected)
    else:
        assert list(got) == list(expected)


def _lengths(values: Sequence[Any]) -> Counter[int]:
    return Counter(len(value) if isinstance(value, list) else 0 for value in values)
