"""Hooks around stages and tasks: what they see of each kind of operation, what they may do, and how they end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn

import gevent
import pytest

from penstock import ConfigError, PipelineFailure, WorkerPool
from penstock.engine import (
    Pipeline,
    PipelineBuilder,
    PlainValues,
    Retry,
    StageInfo,
    TaskHook,
    TaskPerfStats,
    TaskStatsHook,
    green,
)
from penstock.tests.threads import threads_of
from penstock.tests.waiting import DEADLINE, wait_until

KINDS = ("blocking", "async", "green", "executor")


class Watch(TaskHook):
    """Writes down what it sees."""

    def __init__(self, name: str = "", seen: list[tuple[Any, ...]] | None = None) -> None:
        self.name = name
        self.seen: list[tuple[Any, ...]] = [] if seen is None else seen

    def note(self, *what: Any) -> None:
        self.seen.append((self.name, *what) if self.name else what)

    @asynccontextmanager
    async def stage_hook(self) -> AsyncGenerator[None]:
        self.note("stage begins")
        try:
            yield
        except BaseException as error:
            self.note("stage fails", type(error))
            raise
        self.note("stage ends")

    @asynccontextmanager
    async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
        self.note("begins", input_item)
        try:
            yield
        except BaseException as error:
            self.note("fails", input_item, type(error))
            raise
        self.note("ends", input_item)


def run(
    op: Callable[..., Any],
    hooks: Sequence[TaskHook],
    source: Any = range(3),
    *,
    kind: str = "blocking",
    values: PlainValues | None = None,
    **knobs: Any,
) -> tuple[list[Any], Pipeline]:
    """All that comes out of one stage."""
    with ThreadPoolExecutor(2) as threads:
        builder = PipelineBuilder(values).add_source(source)
        builder.pipe(
            op,
            name="op",
            kind="green" if kind == "green" else None,
            executor=threads if kind == "executor" else None,
            **knobs,
        )
        pipeline = builder.add_sink().build(num_threads=2, task_hook_factory=lambda _: hooks)
        with pipeline.auto_stop():
            items = list(pipeline.get_iterator(timeout=DEADLINE))
        pipeline.report().check(ended=True)
        return items, pipeline


def odd_fails(x: int) -> int:
    if x % 2:
        raise ValueError(x)
    return 10 * x


async def odd_fails_later(x: int) -> int:
    await asyncio.sleep(0)
    return odd_fails(x)


def operation(kind: str) -> Callable[..., Any]:
    return odd_fails_later if kind == "async" else odd_fails


# -- what they see ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_sees_each_task_begin_end_and_fail(kind: str) -> None:
    """Whatever the operation is and wherever it runs."""
    hook = Watch()
    items, pipeline = run(operation(kind), [hook], kind=kind)
    assert items == [0, 20]
    assert hook.seen == [
        ("stage begins",),
        ("begins", 0),
        ("ends", 0),
        ("begins", 1),
        ("fails", 1, ValueError),
        ("begins", 2),
        ("ends", 2),
        ("stage ends",),
    ]
    assert pipeline.report().accounting.failed == 1


@pytest.mark.slow
def test_a_hook_sees_tasks_in_processes() -> None:
    """The hook itself stays here: it need not be pickled."""
    hook = Watch()
    with WorkerPool(1) as pool:
        builder = PipelineBuilder().add_source([0, 1]).pipe(odd_fails, executor=pool)
        pipeline = builder.add_sink().build(num_threads=1, task_hook_factory=lambda _: [hook])
        with pipeline.auto_stop():
            assert list(pipeline) == [0]
    assert hook.seen[1:-1] == [("begins", 0), ("ends", 0), ("begins", 1), ("fails", 1, ValueError)]


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_are_entered_in_order_and_left_in_the_reverse_one(kind: str) -> None:
    """The first one is the outermost."""
    seen: list[tuple[Any, ...]] = []
    run(operation(kind), [Watch("a", seen), Watch("b", seen)], [0], kind=kind)
    assert [(name, what) for name, what, *_ in seen] == [
        *(("a", "stage begins"), ("b", "stage begins")),
        *(("a", "begins"), ("b", "begins"), ("b", "ends"), ("a", "ends")),
        *(("b", "stage ends"), ("a", "stage ends")),
    ]


def three(x: int) -> Iterator[int]:
    yield from (x, x + 1, x + 2)


async def three_later(x: int) -> AsyncIterator[int]:
    for each in three(x):
        yield each


@pytest.mark.parametrize("kind", KINDS)
def test_each_value_of_a_generator_is_a_task(kind: str) -> None:
    """The last one makes no value; an executor gives all values at once, in one task."""
    hook = Watch()
    items, _ = run(three_later if kind == "async" else three, [hook], [5], kind=kind)
    assert items == [5, 6, 7]
    ends = 1 if kind == "executor" else 3
    ended = [] if kind == "executor" else [("begins", 5), ("fails", 5, StopAsyncIteration)]
    assert hook.seen[1:-1] == [("begins", 5), ("ends", 5)] * ends + ended


def test_each_attempt_is_a_task() -> None:
    """Trying again is seen as it is."""
    hook, left = Watch(), iter([ConnectionResetError(), None])

    def op(x: int) -> int:
        if (error := next(left)) is not None:
            raise error
        return x

    items, _ = run(op, [hook], [7], on_failure=Retry(2, first=0.0))
    assert items == [7]
    assert hook.seen[1:-1] == [("begins", 7), ("fails", 7, ConnectionResetError), ("begins", 7), ("ends", 7)]


def test_hooks_live_on_the_loop_and_in_the_task_of_an_async_operation() -> None:
    """A context variable that a hook sets is there in the coroutine: as tracing wants it."""
    trace = contextvars.ContextVar("trace", default="none")
    where: set[int] = set()

    class Trace(Watch):
        @asynccontextmanager
        async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
            where.add(threading.get_ident())
            token = trace.set(f"trace {input_item}")
            yield
            trace.reset(token)

    async def op(x: int) -> str:
        where.add(threading.get_ident())
        return trace.get()

    assert run(op, [Trace()], concurrency=3)[0] == ["trace 0", "trace 1", "trace 2"]
    assert len(where) == 1


def test_without_hooks_there_is_no_loop() -> None:
    """A stage without hooks, of plain functions, costs what it did before."""
    go = threading.Event()

    def wait(x: int) -> int:
        assert go.wait(DEADLINE)
        return x

    builder = PipelineBuilder().add_source([1]).pipe(wait).add_sink()
    factories: list[Callable[[StageInfo], list[TaskHook]] | None] = [None, lambda _: []]
    for factory in factories:
        go.clear()
        pipeline = builder.build(num_threads=1, task_hook_factory=factory)
        with pipeline.auto_stop():
            wait_until(lambda pipeline=pipeline: len(threads_of(pipeline)) > 1)  # type: ignore[misc]
            assert not [name for name in threads_of(pipeline) if "asyncio" in name]
            go.set()
            assert list(pipeline) == [1]


def test_the_factory_is_told_which_stage_it_is_for() -> None:
    """One call for each pipe; source, sink and aggregates have no operations."""
    infos: list[StageInfo] = []

    def factory(info: StageInfo) -> list[TaskHook]:
        infos.append(info)
        return []

    builder = PipelineBuilder().add_source([1]).pipe(str, concurrency=2).aggregate(2).pipe(len, name="measure")
    builder.add_sink().build(num_threads=1, task_hook_factory=factory)
    assert [(each.stage_id, each.stage_name, each.concurrency) for each in infos] == [
        ("1", "str", 2),
        ("3", "measure", 1),
    ]
    assert str(infos[0]) == f"{infos[0].pipeline_id}:1:str[2]"


# -- what they may do -------------------------------------------------------------------------------------------------


class Raises(TaskHook):
    """Raises around the items it is told to."""

    def __init__(self, before: int | None = None, after: int | None = None) -> None:
        self.before = before
        self.after = after

    @asynccontextmanager
    async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
        if input_item == self.before:
            raise KeyError(f"before {input_item}")
        yield
        if input_item == self.after:
            raise KeyError(f"after {input_item}")


class Gone(PlainValues):
    """Remembers what was given back."""

    def __init__(self) -> None:
        self.values = Counter[Any]()

    def discard(self, value: Any) -> None:
        self.values[value] += 1


async def ten_times_later(x: int) -> int:
    return 10 * x


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_raises_fails_its_item_and_no_other(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Before the operation, which does not run then, or after it: what it made is given back, once."""
    tried: list[int] = []

    def op(x: int) -> int:
        tried.append(x)
        return 10 * x

    async def op_later(x: int) -> int:
        return op(x)

    gone = Gone()
    items, pipeline = run(op_later if kind == "async" else op, [Raises(1, 2)], range(4), kind=kind, values=gone)
    assert items == [0, 30]
    assert tried == [0, 2, 3]
    assert gone.values == {1: 1, 20: 1}
    assert pipeline.report().accounting.failed == 2
    assert "before 1" in caplog.text
    assert "after 2" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_stays_one_where_a_hook_does_not_let_it_pass(kind: str) -> None:
    """Hooks look on: an item that failed is not delivered by them, nor is a generator's end put off."""

    class Swallows(TaskHook):
        @asynccontextmanager
        async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
            with suppress(BaseException):
                yield

    items, pipeline = run(operation(kind), [Swallows()], kind=kind)
    assert items == [0, 20]
    assert pipeline.report().accounting.failed == 1
    assert run(three_later if kind == "async" else three, [Swallows()], [5], kind=kind)[0] == [5, 6, 7]


def test_what_a_hook_makes_of_an_error_is_the_items_error(caplog: pytest.LogCaptureFixture) -> None:
    """With the original one as its cause."""

    class Explains(TaskHook):
        @asynccontextmanager
        async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
            try:
                yield
            except ValueError as error:
                raise OSError(f"item {input_item} is odd") from error

    run(odd_fails, [Explains()])
    assert "OSError: item 1 is odd" in caplog.text


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_is_seen_by_the_hooks_of_what_is_under_way(kind: str) -> None:
    """CancelledError in the task and in the stage; no thread stays, and the books hold."""
    inside, go, hook = threading.Event(), threading.Event(), Watch()

    def op(x: int) -> int:
        inside.set()
        assert go.wait(DEADLINE)
        return x

    async def op_later(x: int) -> int:
        inside.set()
        await asyncio.sleep(3600)
        return x

    @green
    def op_green(x: int) -> int:
        inside.set()
        gevent.sleep(3600)
        return x

    with ThreadPoolExecutor(1) as threads:
        builder = PipelineBuilder().add_source([1])
        builder.pipe(
            {"async": op_later, "green": op_green}.get(kind, op), executor=threads if kind == "executor" else None
        )
        pipeline = builder.add_sink().build(num_threads=1, task_hook_factory=lambda _: [hook])
        with pipeline.auto_stop(timeout=DEADLINE):
            assert inside.wait(DEADLINE)
            pipeline._runtime.request_stop()  # pyright: ignore[reportPrivateUsage]
            wait_until(lambda: ("fails", 1, asyncio.CancelledError) in hook.seen)
            go.set()
    assert hook.seen[-1] == ("stage fails", asyncio.CancelledError)
    assert threads_of(pipeline) == []
    pipeline.report().check()
    assert pipeline.report().accounting.in_flight == 1


def test_a_fatal_failure_is_seen_by_the_hook_of_its_stage() -> None:
    """Others, whose work is done, see their end."""
    hooks: dict[str, Watch] = {}

    def factory(info: StageInfo) -> list[TaskHook]:
        hooks[info.stage_name] = Watch()
        return [hooks[info.stage_name]]

    builder = PipelineBuilder().add_source([1]).pipe(odd_fails, name="fails", max_failures=0).pipe(str, name="next")
    with pytest.raises(PipelineFailure):
        list(builder.add_sink().build(num_threads=1, task_hook_factory=factory))
    assert hooks["fails"].seen[-1] == ("stage fails", ValueError)
    assert hooks["next"].seen == [("stage begins",), ("stage ends",)]


@pytest.mark.parametrize("when", ["enter", "leave"])
def test_a_stage_hook_that_raises_fails_the_pipeline(when: str) -> None:
    """With the stage's name; what had been delivered by then stays so."""

    class Broken(Watch):
        @asynccontextmanager
        async def stage_hook(self) -> AsyncGenerator[None]:
            if when == "enter":
                raise OSError("no log file")
            yield
            raise OSError("no log file")

    builder = PipelineBuilder().add_source([1]).pipe(str, name="write").add_sink()
    pipeline = builder.build(num_threads=1, task_hook_factory=lambda _: [Broken()])
    got: list[str] = []
    with pytest.raises(PipelineFailure, match="'write': its stage_hook raised") as caught:
        got.extend(pipeline)
    assert got == ([] if when == "enter" else ["1"])
    assert caught.value.exceptions[0].__notes__ == ["penstock stage: write"]
    assert threads_of(pipeline) == []


def test_a_stage_hook_that_does_not_end_is_left_behind_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The end of a run is bounded."""

    class Hangs(Watch):
        @asynccontextmanager
        async def stage_hook(self) -> AsyncGenerator[None]:
            yield
            await asyncio.sleep(3600)

    builder = PipelineBuilder().add_source([1]).pipe(str, name="hangs").add_sink()
    pipeline = builder.build(num_threads=1, task_hook_factory=lambda _: [Hangs()])
    with pipeline.auto_stop(timeout=0.1):
        assert pipeline.get_item(timeout=DEADLINE) == "1"
    assert "stage_hook did not end in time: hangs" in caplog.text
    assert threads_of(pipeline) == []


def test_a_hook_that_hangs_is_in_the_dump() -> None:
    """A stage that stands still in a hook shows where."""

    class Hangs(TaskHook):
        @asynccontextmanager
        async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
            await asyncio.sleep(3600)
            yield

    builder = PipelineBuilder().add_source([1]).pipe(str, name="hangs").add_sink()
    with builder.build(num_threads=1, task_hook_factory=lambda _: [Hangs()]).auto_stop() as pipeline:
        wait_until(lambda: "await asyncio.sleep(3600)" in pipeline.dump())


# -- wrong ones -------------------------------------------------------------------------------------------------------


def build(factory: Callable[[StageInfo], Any]) -> Pipeline:
    return PipelineBuilder().add_source([1]).pipe(str).add_sink().build(num_threads=1, task_hook_factory=factory)


@pytest.mark.parametrize("made", [None, Watch(), 3, [3], [Watch]])
def test_a_factory_that_makes_no_hooks_is_refused(made: Any) -> None:
    """At build, by name."""
    with pytest.raises(ConfigError, match="task_hook_factory must return"):
        build(lambda _: made)


def test_a_task_hook_that_cannot_be_given_the_item_is_refused() -> None:
    """Rather than failing each item."""

    class Old(TaskHook):
        @asynccontextmanager
        async def task_hook(self) -> AsyncGenerator[None]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
            yield

    with pytest.raises(TypeError, match=r"Old\.task_hook cannot be called with the input item"):
        build(lambda _: [Old()])


def test_a_task_hook_that_is_no_context_manager_is_an_error_of_the_program() -> None:
    """Not one of the first item, and the next one, and the next one."""

    class Bare(TaskHook):
        async def task_hook(self, input_item: Any = None) -> NoReturn:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
            raise AssertionError

    with pytest.raises(PipelineFailure, match="cannot go on") as caught:
        list(build(lambda _: [Bare()]))
    assert "decorate it with contextlib.asynccontextmanager" in str(caught.value.exceptions[0])


# -- statistics -------------------------------------------------------------------------------------------------------


def test_task_stats_are_counted_and_logged_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """Failures count, their times do not; a generator's end is no task."""
    made: list[TaskStatsHook] = []

    def factory(info: StageInfo) -> list[TaskStatsHook]:
        made.append(TaskStatsHook(info))
        return [made[-1]]

    builder = PipelineBuilder().add_source(range(5)).pipe(odd_fails, name="op").pipe(three, name="many").add_sink()
    with caplog.at_level(logging.INFO, "penstock.engine"):
        assert len(list(builder.build(num_threads=1, task_hook_factory=factory))) == 9
    first, second = made
    assert (first.num_tasks, first.num_success, first.num_failures) == (5, 3, 2)
    assert (second.num_tasks, second.num_failures) == (9, 0)
    assert first.ave_time > 0
    assert f"[{first.info}] completed 5 tasks (2 failed)" in caplog.text


def test_the_callback_gets_what_is_new_at_intervals(caplog: pytest.LogCaptureFixture) -> None:
    """All intervals together are the whole; a callback that raises is told and called again."""
    told: list[TaskPerfStats] = []
    calls, go = threading.Semaphore(0), threading.Event()

    class Export(TaskStatsHook):
        async def interval_stats_callback(self, stats: TaskPerfStats) -> None:
            told.append(stats)
            calls.release()
            if len(told) == 1:
                raise OSError("the database is away")

    def source() -> Iterator[int]:
        yield from range(5)
        assert go.wait(DEADLINE)

    builder = PipelineBuilder().add_source(source()).pipe(odd_fails).add_sink()
    pipeline = builder.build(num_threads=1, task_hook_factory=lambda info: [Export(info, interval=0.01)])
    with pipeline.auto_stop():
        assert [pipeline.get_item(timeout=DEADLINE) for _ in range(3)] == [0, 20, 40]
        for _ in range(3):
            assert calls.acquire(timeout=DEADLINE)
        go.set()
    assert (sum(each.num_tasks for each in told), sum(each.num_failures for each in told)) == (5, 2)
    assert "the database is away" in caplog.text
