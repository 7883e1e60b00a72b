"""How a pipeline ends early: what is closed, what is cancelled, how long it takes and that nothing remains."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import Any

import gevent
import pytest

from penstock.engine import Pipeline, PipelineBuilder, green
from penstock.tests.threads import threads_of
from penstock.tests.waiting import DEADLINE, wait_until


def endless(closed: threading.Event) -> Iterator[int]:
    """Numbers from a generator that tells when it is closed."""
    try:
        yield from itertools.count()
    finally:
        closed.set()


def test_no_thread_remains_after_a_stop_while_the_pipeline_is_referenced() -> None:
    """Engine, source, operations, loop, sampler: all end."""

    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x

    builder = (
        PipelineBuilder().add_source(itertools.count()).pipe(lambda x: x, concurrency=3).pipe(later, concurrency=2)
    )
    pipeline = builder.add_sink().build(num_threads=3, sample_memory=0.01)
    with pipeline.auto_stop():
        assert sorted(itertools.islice(pipeline, 5))
        assert len(threads_of(pipeline)) >= 4
    assert threads_of(pipeline) == []


def test_no_thread_remains_after_the_natural_end() -> None:
    """Nobody has to stop what has ended."""
    pipeline = PipelineBuilder().add_source(range(5)).pipe(str).add_sink().build(num_threads=2)
    assert len(list(pipeline)) == 5
    wait_until(lambda: not threads_of(pipeline))
    pipeline.stop()


def test_an_early_stop_closes_a_generator_source() -> None:
    """`finally` blocks of the source run."""
    closed = threading.Event()
    with PipelineBuilder().add_source(endless(closed)).add_sink().build(num_threads=1).auto_stop() as pipeline:
        pipeline.get_item(timeout=DEADLINE)
    assert closed.is_set()


def test_a_stop_leaves_an_iterator_that_is_not_a_generator_alone() -> None:
    """A file that is the source is the user's to close."""

    class Lines:
        closed = False

        def __iter__(self) -> Lines:
            return self

        def __next__(self) -> int:
            return 1

        def close(self) -> None:
            self.closed = True

    lines = Lines()
    with PipelineBuilder().add_source(lines).add_sink().build(num_threads=1).auto_stop() as pipeline:
        pipeline.get_item(timeout=DEADLINE)
    assert not lines.closed


def test_an_early_stop_closes_an_async_generator_source_that_waits() -> None:
    """What it waits for is cancelled, and its `finally` blocks run."""
    waiting, closed = threading.Event(), threading.Event()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            waiting.set()
            await asyncio.sleep(3600)
        finally:
            closed.set()

    began = monotonic()
    pipeline = PipelineBuilder().add_source(source()).add_sink().build(num_threads=1)
    with pipeline.auto_stop(timeout=DEADLINE):
        assert pipeline.get_item(timeout=DEADLINE) == 1
        assert waiting.wait(DEADLINE)
    assert closed.is_set()
    assert monotonic() - began < DEADLINE / 2
    pipeline.report().accounting.check()


def test_an_early_stop_cancels_async_operations() -> None:
    """A coroutine that waits for ever gets a CancelledError."""
    inside, cancelled = threading.Event(), threading.Event()

    async def op(x: int) -> int:
        inside.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return x

    began = monotonic()
    builder = PipelineBuilder().add_source(range(5)).pipe(op, concurrency=2).add_sink()
    with builder.build(num_threads=1).auto_stop(timeout=DEADLINE) as pipeline:
        assert inside.wait(DEADLINE)
    assert cancelled.is_set()
    assert monotonic() - began < DEADLINE / 2
    assert threads_of(pipeline) == []


def test_an_early_stop_ends_green_operations() -> None:
    """A greenlet that waits for ever is ended, and its `finally` blocks run."""
    inside, ended = threading.Event(), threading.Event()

    @green
    def op(x: int) -> int:
        inside.set()
        try:
            gevent.sleep(3600)
        finally:
            ended.set()
        return x

    began = monotonic()
    builder = PipelineBuilder().add_source(range(5)).pipe(op).add_sink()
    with builder.build(num_threads=1).auto_stop(timeout=DEADLINE):
        assert inside.wait(DEADLINE)
    assert ended.is_set()
    assert monotonic() - began < DEADLINE / 2


def test_a_stop_waits_shortly_for_blocking_operations() -> None:
    """An operation that ends soon is waited for, so that nothing of it goes on after the stop."""
    inside, done = threading.Event(), threading.Event()

    def op(x: int) -> int:
        inside.set()
        threading.Event().wait(0.1)
        done.set()
        return x

    with PipelineBuilder().add_source([1]).pipe(op).add_sink().build(num_threads=1).auto_stop() as pipeline:
        assert inside.wait(DEADLINE)
    assert done.is_set()
    assert threads_of(pipeline) == []


def test_a_stop_abandons_a_blocked_operation_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """An operation that hangs costs the grace, not the program."""
    inside, go = threading.Event(), threading.Event()

    def stuck(x: int) -> int:
        inside.set()
        go.wait(DEADLINE)
        return x

    pipeline = PipelineBuilder().add_source([1, 2]).pipe(stuck, name="stuck").add_sink().build(num_threads=1)
    began = monotonic()
    with caplog.at_level(logging.WARNING, "penstock"), pipeline.auto_stop(timeout=0.1):
        assert inside.wait(DEADLINE)
    assert monotonic() - began < DEADLINE / 2
    assert "stage stuck" in caplog.text
    assert pipeline.report().accounting.in_flight == 2
    go.set()
    wait_until(lambda: not threads_of(pipeline))


def test_a_stop_abandons_a_source_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """A source that never gives its next value does not keep the program."""
    inside, go, closed = threading.Event(), threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        try:
            yield 1
            inside.set()
            go.wait(DEADLINE)
            yield 2
        finally:
            closed.set()

    pipeline = PipelineBuilder().add_source(source()).add_sink().build(num_threads=1)
    began = monotonic()
    with caplog.at_level(logging.WARNING, "penstock"), pipeline.auto_stop(timeout=0.1):
        assert inside.wait(DEADLINE)
    assert monotonic() - began < DEADLINE / 2
    assert "source" in caplog.text
    go.set()
    assert closed.wait(DEADLINE)
    wait_until(lambda: not threads_of(pipeline))


def test_a_blocked_reader_hears_of_a_stop() -> None:
    """`get_item` in one thread ends when another one stops the pipeline."""
    go = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        go.wait(DEADLINE)

    pipeline = PipelineBuilder().add_source(source()).add_sink().build(num_threads=1)
    outcome: list[Any] = []

    def read() -> None:
        pipeline.get_item()
        try:
            pipeline.get_item()
        except EOFError as error:
            outcome.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: pipeline.report().accounting.delivered == 1)
    go.set()
    pipeline.stop()
    reader.join(DEADLINE)
    assert isinstance(outcome[0], EOFError)


def test_a_forgotten_pipeline_stops_when_it_is_collected() -> None:
    """Nothing of the engine keeps the user's object alive."""
    closed = threading.Event()
    pipeline = PipelineBuilder().add_source(endless(closed)).pipe(lambda x: x).add_sink().build(num_threads=1)
    assert pipeline.get_item(timeout=DEADLINE) == 0
    label = pipeline._runtime._thread.name  # pyright: ignore[reportPrivateUsage]
    alive = weakref.ref(pipeline)
    del pipeline
    gc.collect()
    assert alive() is None
    assert closed.wait(DEADLINE)
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith(f"{label}-")])


def test_a_pipeline_may_be_stopped_from_its_own_operations() -> None:
    """Whoever stops it, it stops."""
    for kind in ("blocking", "green"):
        holder: list[Pipeline] = []

        def op(x: int, holder: list[Pipeline] = holder) -> int:
            if x == 3:
                holder[0].stop(timeout=0.2)
            return x

        builder = PipelineBuilder().add_source(itertools.count())
        builder.pipe(op, kind="green" if kind == "green" else None).add_sink()
        pipeline = builder.build(num_threads=1)
        holder.append(pipeline)
        items = list(pipeline.get_iterator(timeout=DEADLINE))  # an endless source, and yet there is an end
        assert items == list(range(len(items)))
        pipeline.stop()
        wait_until(lambda pipeline=pipeline: not threads_of(pipeline))  # type: ignore[misc]


def test_drain_finishes_what_is_in_flight() -> None:
    """After a drain everything that was read comes out, and then the end."""
    pipeline = PipelineBuilder().add_source(itertools.count()).pipe(lambda x: x, concurrency=2).aggregate(4).add_sink()
    running = pipeline.build(num_threads=2)
    with running.auto_stop():
        first = running.get_item(timeout=DEADLINE)
        running.drain()
        rest = list(running.get_iterator(timeout=DEADLINE))
    items = [*first, *(item for group in rest for item in group)]
    accounting = running.report().accounting
    assert sorted(items) == list(range(accounting.read))
    assert accounting.in_flight == 0


@pytest.mark.slow
def test_drain_does_not_wait_for_a_source_that_hangs() -> None:
    """The source may be waiting for a value that never comes."""
    go, inside = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 1
        inside.set()
        go.wait(DEADLINE)

    with (
        PipelineBuilder()
        .add_source(source())
        .pipe(str)
        .add_sink()
        .build(num_threads=1)
        .auto_stop(timeout=0.1) as pipeline
    ):
        assert inside.wait(DEADLINE)
        pipeline.drain()
        assert list(pipeline.get_iterator(timeout=DEADLINE)) == ["1"]
        go.set()


def test_drain_with_a_timeout_stops_what_does_not_finish() -> None:
    """What is stuck stays in the books as in flight."""
    inside, go = threading.Event(), threading.Event()

    def stuck(x: int) -> int:
        inside.set()
        go.wait(DEADLINE)
        return x

    with (
        PipelineBuilder().add_source([1]).pipe(stuck).add_sink().build(num_threads=1).auto_stop(timeout=0.1) as pipeline
    ):
        assert inside.wait(DEADLINE)
        pipeline.drain(timeout=0.05)
        threading.Timer(0.2, go.set).start()
        assert list(pipeline.get_iterator(timeout=DEADLINE)) == []
    assert pipeline.report().accounting.in_flight == 1


def test_a_stop_right_after_the_start_is_quick_and_clean() -> None:
    """Whatever has begun by then, fibers that never took a step included."""
    for _ in range(30):
        pipeline = (
            PipelineBuilder().add_source(itertools.count()).pipe(abs, kind="green").add_sink().build(num_threads=1)
        )
        began = monotonic()
        pipeline.start()
        pipeline.stop(timeout=DEADLINE)
        assert monotonic() - began < DEADLINE / 2  # less than the grace: nothing was waited for in vain
        assert threads_of(pipeline) == []


def test_a_drain_right_after_the_start_is_not_lost() -> None:
    """The engine's thread may not even have begun."""
    for _ in range(10):
        pipeline = PipelineBuilder().add_source(itertools.count()).add_sink().build(num_threads=1)
        pipeline.start()
        pipeline.drain()
        items = list(pipeline.get_iterator(timeout=DEADLINE))
        assert items == list(range(len(items)))
        pipeline.stop()
        assert pipeline.report().accounting.in_flight == 0


def test_a_ctrl_c_while_the_engine_starts_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread runs by then, whatever the one that started it is told."""
    closed = threading.Event()
    pipeline = PipelineBuilder().add_source(endless(closed)).add_sink().build(num_threads=1)
    thread = pipeline._runtime._thread  # pyright: ignore[reportPrivateUsage]
    start = thread.start

    def interrupted() -> None:
        start()
        wait_until(lambda: pipeline.report().accounting.read > 0)
        raise KeyboardInterrupt

    monkeypatch.setattr(thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), pipeline.auto_stop():
        pass
    assert closed.is_set()
    assert threads_of(pipeline) == []
