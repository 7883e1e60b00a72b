"""Order, concurrency and bounds, for every kind of operation."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Literal

import gevent
import pytest

from penstock.engine import Pipeline, PipelineBuilder
from penstock.engine.workers.callables import WorkerPool
from penstock.tests.waiting import DEADLINE, wait_until

KINDS = ["blocking", "async", "green", "executor"]
Order = Literal["completion", "input"]
ORDERS: list[Order] = ["completion", "input"]


class Gate:
    """An operation of any kind that waits until it is let go on, and knows how many are inside."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.inside: list[Any] = []
        self.most = 0
        self.open: set[Any] = set()
        self.all_open = False

    def enter(self, x: Any) -> None:
        with self.lock:
            self.inside.append(x)
            self.most = max(self.most, len(self.inside))
            self.lock.notify_all()

    def may_leave(self, x: Any) -> bool:
        with self.lock:
            return self.all_open or x in self.open

    def leave(self, x: Any) -> Any:
        with self.lock:
            self.inside.remove(x)
            self.lock.notify_all()
        return x

    def let(self, *items: Any) -> None:
        with self.lock:
            self.open.update(items)
            self.all_open = not items
            self.lock.notify_all()

    def wait_inside(self, count: int) -> None:
        with self.lock:
            assert self.lock.wait_for(lambda: len(self.inside) >= count, DEADLINE)

    def blocking(self, x: Any) -> Any:
        self.enter(x)
        with self.lock:
            assert self.lock.wait_for(lambda: self.all_open or x in self.open, DEADLINE)
        return self.leave(x)

    async def asynchronous(self, x: Any) -> Any:
        self.enter(x)
        while not self.may_leave(x):  # noqa: ASYNC110  (the gate is opened from other threads)
            await asyncio.sleep(0.001)
        return self.leave(x)

    def green(self, x: Any) -> Any:
        self.enter(x)
        while not self.may_leave(x):
            gevent.sleep(0.001)
        return self.leave(x)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test has opened."""
    with ExitStack() as stack:
        yield stack


def gated(gate: Gate, kind: str, stack: ExitStack, **settings: Any) -> dict[str, Any]:
    """Arguments of `pipe` for a gate of some kind."""
    op: Callable[[Any], Any] = {"async": gate.asynchronous, "green": gate.green}.get(kind, gate.blocking)
    executor = stack.enter_context(ThreadPoolExecutor(8)) if kind == "executor" else None
    return {"op": op, "executor": executor, "kind": "green" if kind == "green" else None, **settings}


def pipe(builder: PipelineBuilder, op: Any, **settings: Any) -> PipelineBuilder:
    return builder.pipe(op, **settings)


# -- order and concurrency --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_completion_order_by_default(kind: str, stack: ExitStack) -> None:
    """What is done first comes out first."""
    gate = Gate()
    settings = gated(gate, kind, stack, concurrency=3)
    builder = pipe(PipelineBuilder().add_source(range(3)), settings.pop("op"), **settings).add_sink()
    with builder.build(num_threads=3).auto_stop() as pipeline:
        gate.wait_inside(3)
        for x in (2, 0, 1):
            gate.let(x)
            assert pipeline.get_item(timeout=DEADLINE) == x


@pytest.mark.parametrize("kind", KINDS)
def test_input_order_on_request(kind: str, stack: ExitStack) -> None:
    """What is done early waits for its turn."""
    gate = Gate()
    settings = gated(gate, kind, stack, concurrency=3, output_order="input")
    builder = pipe(PipelineBuilder().add_source(range(6)), settings.pop("op"), **settings).add_sink()
    with builder.build(num_threads=3).auto_stop() as pipeline:
        gate.wait_inside(3)
        gate.let(2, 1)
        with pytest.raises(TimeoutError):
            pipeline.get_item(timeout=0.02)
        gate.let()
        assert list(pipeline) == list(range(6))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_never_more_than_concurrency_operations_at_once(kind: str, order: Order, stack: ExitStack) -> None:
    """The bound is strict in both orders, also while the head is stuck and others are done."""
    gate = Gate()
    settings = gated(gate, kind, stack, concurrency=3, output_order=order)
    builder = pipe(PipelineBuilder().add_source(range(20)), settings.pop("op"), **settings).add_sink()
    with builder.build(num_threads=8).auto_stop() as pipeline:
        gate.wait_inside(3)
        gate.let(1, 2)  # the head is still inside
        if order == "input":
            wait_until(lambda: gate.inside == [0])
            with pytest.raises(TimeoutError):
                pipeline.get_item(timeout=0.02)
            assert gate.inside == [0]
        gate.let()
        assert sorted(pipeline) == list(range(20))
    assert gate.most == 3


def double_in_process(x: int) -> int:
    return 2 * x


@pytest.fixture(scope="module")
def workers() -> Iterator[WorkerPool]:
    """One pool of processes for this module."""
    with WorkerPool(2) as pool:
        yield pool


@pytest.mark.parametrize("order", ORDERS)
def test_processes_keep_order_when_asked(order: Order, workers: WorkerPool) -> None:
    """A stage in processes has the same two orders."""
    builder = PipelineBuilder().add_source(range(30))
    builder.pipe(double_in_process, executor=workers, concurrency=4, output_order=order).add_sink()
    with builder.build(num_threads=1).auto_stop() as pipeline:
        items = list(pipeline)
    assert (items if order == "input" else sorted(items)) == [2 * x for x in range(30)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["blocking", "async", "green", "executor", "process"])
def test_generators_work_in_both_orders(kind: str, order: Order, workers: WorkerPool, stack: ExitStack) -> None:
    """One to many in input order: all of one item's values, then all of the next one's."""
    executor: Executor | None = {"process": workers}.get(kind)
    if kind == "executor":
        executor = stack.enter_context(ThreadPoolExecutor(4))
    builder = (
        PipelineBuilder()
        .add_source(range(8))
        .pipe(
            thrice_later if kind == "async" else thrice,
            executor=executor,
            kind="green" if kind == "green" else None,
            concurrency=3,
            output_order=order,
        )
    )
    with builder.add_sink().build(num_threads=3).auto_stop() as pipeline:
        items = list(pipeline)
    expected = [(x, part) for x in range(8) for part in range(3)]
    assert (items if order == "input" else sorted(items)) == expected


def thrice(x: int) -> Iterator[tuple[int, int]]:
    for part in range(3):
        yield x, part


async def thrice_later(x: int) -> AsyncIterator[tuple[int, int]]:
    for part in range(3):
        await asyncio.sleep(0)
        yield x, part


def test_a_generators_values_go_on_at_once() -> None:
    """The first value is delivered before the second one is made."""
    go = threading.Event()

    def op(x: int) -> Iterator[int]:
        yield x
        assert go.wait(DEADLINE)
        yield x + 1

    with PipelineBuilder().add_source([1]).pipe(op).add_sink().build(num_threads=1).auto_stop() as pipeline:
        assert pipeline.get_item(timeout=DEADLINE) == 1
        go.set()
        assert pipeline.get_item(timeout=DEADLINE) == 2


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_blocking_operations_of_all_stages_share_the_threads(num_threads: int) -> None:
    """However many stages: at most `num_threads` plain operations run at once."""
    gate = Gate()
    builder = PipelineBuilder().add_source(range(12))
    for _ in range(3):
        builder.pipe(gate.blocking, concurrency=4)
    with builder.add_sink().build(num_threads=num_threads).auto_stop() as pipeline:
        gate.wait_inside(num_threads)
        gate.let()
        assert sorted(pipeline) == list(range(12))
    assert gate.most == num_threads


def test_async_operations_are_not_limited_by_threads() -> None:
    """Sixteen coroutines at once with one thread."""
    gate = Gate()
    builder = PipelineBuilder().add_source(range(16)).pipe(gate.asynchronous, concurrency=16).add_sink()
    with builder.build(num_threads=1).auto_stop() as pipeline:
        gate.wait_inside(16)
        gate.let()
        assert sorted(pipeline) == list(range(16))


def test_async_operations_run_on_a_real_asyncio_loop_with_the_threads_as_executor() -> None:
    """`asyncio.to_thread` uses the pipeline's threads, which the source does not."""

    async def op(x: int) -> tuple[str, str]:
        here = threading.current_thread().name
        there = await asyncio.to_thread(lambda: threading.current_thread().name)
        return here, there

    with PipelineBuilder().add_source(range(4)).pipe(op).add_sink().build(num_threads=1).auto_stop() as pipeline:
        names = set(pipeline)
    assert len(names) == 1
    here, there = names.pop()
    assert here.endswith("-asyncio")
    assert there.endswith("-op-0")


def test_the_source_uses_none_of_the_threads() -> None:
    """A source that waits does not keep operations from running."""
    done = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        assert done.wait(DEADLINE)
        yield 2

    def op(x: int) -> int:
        done.set()
        return x

    with PipelineBuilder().add_source(source()).pipe(op).add_sink().build(num_threads=1).auto_stop() as pipeline:
        assert list(pipeline) == [1, 2]


def test_an_async_source() -> None:
    """An async iterable runs on the asyncio loop, and is closed there."""
    closed = threading.Event()

    async def source() -> AsyncIterator[int]:
        try:
            for x in itertools.count():
                await asyncio.sleep(0)
                yield x
        finally:
            closed.set()

    with (
        PipelineBuilder().add_source(source()).pipe(lambda x: x).add_sink().build(num_threads=1).auto_stop() as pipeline
    ):
        assert list(itertools.islice(pipeline, 5)) == [0, 1, 2, 3, 4]
    assert closed.is_set()


# -- bounds -----------------------------------------------------------------------------------------------------------


class Counted:
    """An endless source that knows how much was pulled."""

    def __init__(self) -> None:
        self.pulled = 0

    def __iter__(self) -> Iterator[int]:
        for x in itertools.count():
            self.pulled += 1
            yield x


def settle(pipeline: Pipeline, source: Counted) -> int:
    """How much is pulled when nothing moves any more."""
    before = -1
    while before != source.pulled:
        before = source.pulled
        threading.Event().wait(0.05)
        pipeline.report()
    return before


@pytest.mark.parametrize("kind", KINDS)
def test_with_nobody_reading_little_is_pulled(kind: str, stack: ExitStack) -> None:
    """Back pressure reaches the source through every kind of stage."""
    source, gate = Counted(), Gate()
    gate.let()
    settings = gated(gate, kind, stack, concurrency=2)
    builder = pipe(PipelineBuilder().add_source(source), settings.pop("op"), **settings).add_sink(2)
    with builder.build(num_threads=2).auto_stop() as pipeline:
        assert pipeline.get_item(timeout=DEADLINE) in (0, 1)
        pulled = settle(pipeline, source)
        report = pipeline.report()
    # read by us 1, sink 2, stage 2, channel 2, source's fiber 1, ahead of it 4 and one in the making
    assert pulled <= 13
    assert report.accounting.in_flight <= 7
    report.accounting.check()


@pytest.mark.parametrize("kind", KINDS)
def test_little_is_pulled_while_the_head_of_an_ordered_stage_is_stuck(kind: str, stack: ExitStack) -> None:
    """Input order does not collect results without bound."""
    source, gate = Counted(), Gate()
    settings = gated(gate, kind, stack, concurrency=4, output_order="input")
    builder = pipe(PipelineBuilder().add_source(source), settings.pop("op"), **settings).add_sink(2)
    with builder.build(num_threads=4).auto_stop() as pipeline:
        gate.wait_inside(4)
        gate.let(*range(1, 10_000))
        assert settle(pipeline, source) <= 13
        gate.let()
        assert list(itertools.islice(pipeline, 50)) == list(range(50))


@pytest.mark.parametrize("size", [1, 3, 10])
def test_the_sink_holds_what_it_was_told_to(size: int) -> None:
    """`buffer_size` items are finished and waiting when nobody reads."""
    with PipelineBuilder().add_source(itertools.count()).add_sink(size).build(num_threads=1).auto_stop() as pipeline:
        wait_until(lambda: pipeline.report().stages[-1].in_flight == size)
    assert len(list(pipeline)) == size
