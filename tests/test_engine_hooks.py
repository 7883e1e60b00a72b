"""Hooks around stages and tasks: what they see of each kind of operation, and their statistics."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock import WorkerPool
from penstock.engine import (
    PipelineBuilder,
    Retry,
    StageInfo,
    TaskHook,
    TaskPerfStats,
    TaskStatsHook,
)
from penstock.tests.hooked import KINDS, Watch, odd_fails, operation, run, three, three_later
from penstock.tests.threads import threads_of
from penstock.tests.waiting import DEADLINE, wait_until

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
    reports: list[TaskPerfStats] = []
    go = threading.Event()

    class Export(TaskStatsHook):
        async def interval_stats_callback(self, stats: TaskPerfStats) -> None:
            reports.append(stats)
            if len(reports) == 1:
                raise OSError("the database is away")

    def source() -> Iterator[int]:
        yield from range(5)
        assert go.wait(DEADLINE)

    builder = PipelineBuilder().add_source(source()).pipe(odd_fails).add_sink()
    pipeline = builder.build(num_threads=1, task_hook_factory=lambda info: [Export(info, interval=0.01)])
    with pipeline.auto_stop():
        assert [pipeline.get_item(timeout=DEADLINE) for _ in range(3)] == [0, 20, 40]
        wait_until(lambda: len(reports) > 1 and sum(each.num_tasks for each in reports) >= 5)
        go.set()
    assert (sum(each.num_tasks for each in reports), sum(each.num_failures for each in reports)) == (5, 2)
    assert "the database is away" in caplog.text
