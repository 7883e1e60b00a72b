"""Starting, leaving and stopping a pipeline in a coroutine: the loop goes on, and nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
import pytest

from penstock import PipelineFailure
from penstock.engine import Pipeline, PipelineBuilder
from penstock.engine.core.latch import Latch
from penstock.tests.coroutines import numbers, readers, until, waiting_for
from penstock.tests.threads import elsewhere, threads_of
from penstock.tests.waiting import DEADLINE, wait_until

# -- leaving early ----------------------------------------------------------------------------------------------------


def endless() -> Pipeline:
    return (
        PipelineBuilder()
        .add_source(itertools.count())
        .pipe(lambda x: x, concurrency=2)
        .add_sink(2)
        .build(num_threads=2)
    )


async def by_break(pipeline: Pipeline) -> None:
    async with pipeline.auto_stop():
        async for _ in pipeline:
            break


async def by_an_exception(pipeline: Pipeline) -> None:
    with suppress(ZeroDivisionError):
        async with pipeline.auto_stop():
            async for _ in pipeline:
                raise ZeroDivisionError


async def by_cancelling_the_task(pipeline: Pipeline) -> None:
    reads = asyncio.Event()

    async def read() -> None:
        async with pipeline.auto_stop():
            async for _ in pipeline:
                reads.set()

    task = asyncio.create_task(read())
    await reads.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_cancelling_the_task_while_it_stops(pipeline: Pipeline) -> None:
    """The end is not waited for then, but it comes."""
    async with pipeline.auto_stop():
        await anext(aiter(pipeline))
        stopping = asyncio.create_task(pipeline.astop())
        await asyncio.sleep(0)
        stopping.cancel()
        with suppress(asyncio.CancelledError):
            await stopping


@pytest.mark.parametrize(
    "leave", [by_break, by_an_exception, by_cancelling_the_task, by_cancelling_the_task_while_it_stops]
)
def test_leaving_the_loop_early_stops_everything_and_keeps_what_is_in_the_sink(
    leave: Callable[[Pipeline], Any],
) -> None:
    """No thread is left when the block has been left; what was done is readable, from anywhere, and then the end."""
    pipeline = endless()
    asyncio.run(leave(pipeline))
    assert threads_of(pipeline) == []
    left = pipeline.report().stages[-1].in_flight
    assert len(list(pipeline)) == left
    pipeline.report().check()


def test_a_loop_may_end_while_a_task_of_it_waits_for_an_item() -> None:
    """`asyncio.run` cancels it; the pipeline goes on, and is read by others."""
    go = threading.Event()
    pipeline = PipelineBuilder().add_source(waiting_for(go)).add_sink().build(num_threads=1)

    async def main() -> None:
        assert await pipeline.aget_item() == 1
        task = asyncio.create_task(pipeline.aget_item())
        await until(lambda: readers(pipeline))
        assert not task.done()

    asyncio.run(main())
    assert readers(pipeline) == 0
    go.set()
    assert list(pipeline) == [2]


def test_a_loop_that_is_closed_under_a_reader_does_not_harm_the_engine() -> None:
    """Nobody cancelled its task: what it waited for is there for others."""
    go = threading.Event()
    pipeline = PipelineBuilder().add_source(waiting_for(go)).add_sink().build(num_threads=1)
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(pipeline.aget_item()) == 1
    reader = pipeline.aget_item()
    task = loop.create_task(reader)
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    assert readers(pipeline) == 1
    loop.close()
    go.set()
    assert list(pipeline) == [2]
    assert readers(pipeline) == 0
    reader.close()
    with suppress(RuntimeError):
        task.cancel()  # or it complains of having been forgotten


def test_a_pipeline_that_is_forgotten_after_async_for_ends() -> None:
    """Neither the loop nor the engine keeps it."""

    async def main() -> tuple[str, weakref.ref[Pipeline]]:
        pipeline = endless()
        async for item in pipeline:
            if item > 2:
                break
        return pipeline._runtime.label, weakref.ref(pipeline)  # pyright: ignore[reportPrivateUsage]

    label, forgotten = asyncio.run(main())
    gc.collect()
    assert forgotten() is None
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == label or t.name.startswith(f"{label}-")])


# -- stopping ---------------------------------------------------------------------------------------------------------


def test_the_loop_goes_on_while_a_stop_is_awaited() -> None:
    """An operation that gets its time to end is ended by another task of the same loop."""
    inside, go = threading.Event(), threading.Event()

    def op(x: int) -> int:
        inside.set()
        assert go.wait(DEADLINE)
        return x

    async def main() -> None:
        pipeline = PipelineBuilder().add_source([1]).pipe(op).add_sink().build(num_threads=1)
        await pipeline.astart()
        await until(inside.is_set)
        stop = asyncio.create_task(pipeline.astop(timeout=DEADLINE))
        await until(lambda: pipeline._runtime._over.is_set)  # pyright: ignore[reportPrivateUsage]
        go.set()
        await stop
        assert threads_of(pipeline) == []
        await pipeline.astop()

    asyncio.run(main())


def test_an_awaited_stop_raises_a_failure_nobody_has_seen_once() -> None:
    """As the plain one."""

    def op(x: int) -> int:
        raise ValueError(x)

    async def main() -> None:
        pipeline = PipelineBuilder().add_source([1]).pipe(op, max_failures=0).add_sink().build(num_threads=1)
        await pipeline.astart()
        await until(lambda: pipeline._runtime.closed.is_set)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(PipelineFailure):
            await pipeline.astop()
        await pipeline.astop()
        with pytest.raises(RuntimeError, match="started already"):
            await pipeline.astart()

    asyncio.run(main())


def test_a_block_that_raises_has_the_failure_as_a_note() -> None:
    """What the block raised is what one sees."""

    def op(x: int) -> int:
        raise ValueError("a wheel came off")

    async def main() -> None:
        builder = PipelineBuilder().add_source([1]).pipe(op, max_failures=0)
        async with builder.add_sink().build(num_threads=1).auto_stop() as pipeline:
            await until(lambda: pipeline._runtime.closed.is_set)  # pyright: ignore[reportPrivateUsage]
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        asyncio.run(main())
    assert "a wheel came off" in caught.value.__notes__[0]


def test_a_pipeline_that_was_stopped_before_it_began_gives_nothing() -> None:
    """No thread is started for it."""

    async def main() -> None:
        pipeline = numbers()
        await pipeline.astop()
        assert [item async for item in pipeline] == []

    asyncio.run(main())


# -- starting ---------------------------------------------------------------------------------------------------------


class Slow:
    """A resource that starts when it may."""

    def __init__(self, *, fails: bool = False) -> None:
        self.go = threading.Event()
        self.fails = fails
        self.stopped = False

    def start_in_hub(self) -> None:
        while not self.go.is_set():
            gevent.sleep(0.001)
        if self.fails:
            raise OSError("no such device")

    def stop_in_hub(self) -> None:
        self.stopped = True


def on(resource: Slow) -> Pipeline:
    return PipelineBuilder().add_resource(resource).add_source(range(3)).add_sink().build(num_threads=1)


def start(pipeline: Pipeline, timeout: float | None) -> None:
    """In a thread."""
    pipeline.start(timeout=timeout)


def astart(pipeline: Pipeline, timeout: float | None) -> None:
    """In a loop."""
    asyncio.run(pipeline.astart(timeout=timeout))


both = pytest.mark.parametrize("begin", [start, astart])


@both
def test_a_start_with_a_timeout_waits_until_the_resources_have_started(begin: Callable[..., None]) -> None:
    """Without one it does not wait."""
    resource, done = Slow(), threading.Event()
    pipeline = on(resource)

    def run() -> None:
        begin(pipeline, DEADLINE)
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: pipeline._runtime.opened._bells)  # pyright: ignore[reportPrivateUsage]
    assert not done.is_set()
    resource.go.set()
    assert done.wait(DEADLINE)
    thread.join(DEADLINE)
    assert list(pipeline) == [0, 1, 2]
    assert resource.stopped

    other = on(Slow())
    begin(other, None)
    other.stop()


@both
def test_a_start_that_takes_too_long_names_what_has_not_started_and_ends(begin: Callable[..., None]) -> None:
    """It is over then: it cannot be started again, nothing comes out of it, no thread stays."""
    pipeline = on(Slow())
    with pytest.raises(TimeoutError, match=r"did not run within 0\.01 s.*Slow has not started"):
        begin(pipeline, 0.01)
    with pytest.raises(RuntimeError):
        pipeline.start()
    assert list(pipeline) == []
    pipeline.stop()
    assert threads_of(pipeline) == []


@both
def test_a_resource_that_cannot_start_is_told_by_the_start_that_waits(begin: Callable[..., None]) -> None:
    """The stop afterwards is silent: it has been seen."""
    resource = Slow(fails=True)
    resource.go.set()
    pipeline = on(resource)
    with pytest.raises(PipelineFailure) as caught:
        begin(pipeline, DEADLINE)
    assert "no such device" in str(caught.value.exceptions[0])
    pipeline.stop()


def test_a_wait_that_is_given_up_leaves_nothing_behind() -> None:
    """Of a thread or of a task."""
    latch = Latch()
    assert not latch.wait(0.001)
    assert not asyncio.run(latch.wait_async(0.001))
    assert not latch._bells  # pyright: ignore[reportPrivateUsage]


def test_a_start_from_a_thread_beside_a_running_loop(caplog: pytest.LogCaptureFixture) -> None:
    """The engine never uses the caller's loop."""

    async def main() -> list[int]:
        pipeline = numbers(5)
        await asyncio.to_thread(pipeline.start, timeout=DEADLINE)
        return [item async for item in pipeline]

    with caplog.at_level(logging.WARNING):
        assert elsewhere(lambda: asyncio.run(main())) == list(range(5))
    assert not caplog.records
