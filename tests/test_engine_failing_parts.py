"""Failures of what is around the operations: sources, executors, resources."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any, Literal

import gevent
import pytest

from penstock.engine import ItemFailure, Outcome, Pipeline, PipelineBuilder
from penstock.engine.workers.callables import WorkerPool
from penstock.errors import PenstockError, PipelineFailure, WorkerDiedError
from penstock.tests.waiting import DEADLINE, wait_until

pytestmark = pytest.mark.filterwarnings("error")


class Odd(BaseException):
    """Neither an Exception nor anything known."""


ODDITIES: dict[str, BaseException | type[BaseException]] = {
    "ValueError": ValueError("odd"),
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "BaseException": Odd("odd"),
    "StopIteration": StopIteration(7),
    "StopAsyncIteration": StopAsyncIteration(),
    "asyncio.CancelledError": asyncio.CancelledError(),
    "futures.CancelledError": CancelledError(),
    "GeneratorExit": GeneratorExit(),
    "GreenletExit": gevent.GreenletExit(),
    "TimeoutError": TimeoutError(),
    "EOFError": EOFError(),
    "MemoryError": MemoryError(),
    "ExceptionGroup": ExceptionGroup("group", [ValueError()]),
    "BaseExceptionGroup": BaseExceptionGroup("group", [SystemExit()]),
}


ORDERS: list[Literal["completion", "input"]] = ["completion", "input"]


def build(builder: PipelineBuilder, num_threads: int = 2, **settings: Any) -> Pipeline:
    return builder.add_sink().build(num_threads=num_threads, **settings)


def _collect(pipeline: Pipeline, into: list[Any]) -> None:
    """Read to the end; `into` has what came before a failure."""
    into.extend(pipeline.get_iterator(timeout=DEADLINE))


def fail_below(n: int) -> Callable[[int], int]:
    def op(x: int) -> int:
        if x < n:
            raise ValueError(x)
        return x

    return op


# -- sources ----------------------------------------------------------------------------------------------------------


class Raising:
    """Raises from its `__next__`, where a generator would turn a StopIteration into a RuntimeError."""

    def __init__(self, error: BaseException | type[BaseException]) -> None:
        self.error, self.given = error, 0

    def __iter__(self) -> Raising:
        return self

    def __next__(self) -> int:
        self.given += 1
        if self.given > 3:
            raise self.error
        return self.given


class RaisingLater(Raising):
    """The same for an async iterable."""

    __iter__ = None  # type: ignore[assignment]

    def __aiter__(self) -> RaisingLater:
        return self

    async def __anext__(self) -> int:
        return self.__next__()


class NotEvenIterable:
    def __iter__(self) -> Iterator[int]:
        raise SystemExit(1)


@pytest.mark.parametrize("odd", sorted(ODDITIES.keys() - {"StopIteration"}))
def test_whatever_a_source_raises_is_a_failure_after_its_items(odd: str) -> None:
    """A failing source: its items arrive, then PipelineFailure with the original within reach."""
    original = ODDITIES[odd]
    pipeline = build(PipelineBuilder().add_source(Raising(original)).pipe(lambda x: x))
    got: list[int] = []
    with pytest.raises(PipelineFailure) as caught, pipeline.auto_stop():
        _collect(pipeline, got)
    assert got == [1, 2, 3]
    (cause,) = caught.value.exceptions
    assert original in (cause, cause.__cause__)
    assert any("source" in note for note in cause.__notes__)


@pytest.mark.parametrize("odd", sorted(ODDITIES.keys() - {"StopAsyncIteration", "StopIteration"}))
def test_whatever_an_async_source_raises_is_a_failure_after_its_items(odd: str) -> None:
    """The same for a source on the asyncio loop."""
    original = ODDITIES[odd]
    pipeline = build(PipelineBuilder().add_source(RaisingLater(original)).pipe(lambda x: x))
    got: list[int] = []
    with pytest.raises(PipelineFailure) as caught, pipeline.auto_stop():
        _collect(pipeline, got)
    assert got == [1, 2, 3]
    assert original in (caught.value.exceptions[0], caught.value.exceptions[0].__cause__)


def test_a_source_that_cannot_be_iterated_after_all_is_a_failure() -> None:
    """`__iter__` itself raises."""
    pipeline = build(PipelineBuilder().add_source(NotEvenIterable()))
    with pytest.raises(PipelineFailure) as caught, pipeline.auto_stop():
        list(pipeline)
    assert isinstance(caught.value.exceptions[0], PenstockError)
    assert isinstance(caught.value.exceptions[0].__cause__, SystemExit)


def test_a_generator_that_raises_stop_iteration_is_a_failing_source() -> None:
    """Python turns it into a RuntimeError; it is not taken for the end."""

    def source() -> Iterator[int]:
        yield 1
        raise StopIteration

    pipeline = build(PipelineBuilder().add_source(source()))
    with pytest.raises(PipelineFailure) as caught, pipeline.auto_stop():
        list(pipeline)
    assert isinstance(caught.value.exceptions[0], RuntimeError)


def test_a_sources_own_failures_have_the_builds_budget() -> None:
    """A source may report broken items; too many of them are fatal."""
    broken = [Outcome(failures=[ItemFailure(str(x), ValueError())]) for x in range(3)]
    with build(PipelineBuilder().add_source([1, *broken, 2])).auto_stop() as pipeline:
        assert list(pipeline) == [1, 2]
    assert pipeline.report().accounting.failed == 3
    strict = build(PipelineBuilder().add_source([1, *broken, 2]), max_failures=2)
    with pytest.raises(PipelineFailure), strict.auto_stop():
        list(strict)
    strict.report().accounting.check()


def test_a_failure_beside_the_blocks_own_error_is_a_note_on_that() -> None:
    """Neither is lost, and one is raised: the block's."""
    pipeline = build(PipelineBuilder().add_source([1]).pipe(fail_below(9), max_failures=0))

    def fail_once_it_has_failed() -> None:
        with pipeline.auto_stop():
            wait_until(lambda: pipeline.report().accounting.failed)
            raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        fail_once_it_has_failed()
    assert caught.value.__notes__ == ["the pipeline had failed, too: ValueError: 1"]


# -- executors and resources ------------------------------------------------------------------------------------------


def kill_self(x: int) -> int:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_a_broken_executor_is_loud_whatever_the_budget(order: Literal["completion", "input"]) -> None:
    """A killed worker of the standard pool: PipelineFailure with stage and exit codes, never a hang or silence."""
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        executor.submit(abs, 1).result(DEADLINE)
        builder = PipelineBuilder().add_source(range(50))
        builder.pipe(kill_self, name="kill", executor=executor, concurrency=2, output_order=order)
        pipeline = build(builder, max_failures=-1)
        with pytest.raises(PipelineFailure) as caught, pipeline.auto_stop():
            list(pipeline.get_iterator(timeout=DEADLINE))
    (cause,) = caught.value.exceptions
    assert isinstance(cause, WorkerDiedError)
    assert "pid" in str(cause)
    assert any("kill" in note for note in cause.__notes__)
    pipeline.report().accounting.check()


def test_an_executor_that_is_shut_down_is_loud() -> None:
    """Nothing can run there, so nothing is dropped."""
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    pipeline = build(PipelineBuilder().add_source([1, 2]).pipe(abs, executor=executor))
    with pytest.raises(PipelineFailure), pipeline.auto_stop():
        list(pipeline)


def test_an_operation_that_cannot_travel_is_loud() -> None:
    """A lambda in a process pool is an error of the program."""
    with WorkerPool(1) as pool:
        pipeline = build(PipelineBuilder().add_source([1, 2]).pipe(lambda x: x, executor=pool))
        with pytest.raises(PipelineFailure) as caught, pipeline.auto_stop():
            list(pipeline)
    assert "importable" in str(caught.value.exceptions[0]) or "top of a module" in str(caught.value.exceptions[0])


class Resource:
    """Writes down what is done to it; may refuse."""

    def __init__(self, log: list[str], name: str, *, refuse: str = "") -> None:
        self.log, self.name, self.refuse = log, name, refuse

    def start_in_hub(self) -> None:
        gevent.sleep(0)
        self._note("start")

    def stop_in_hub(self) -> None:
        gevent.sleep(0)
        self._note("stop")

    def _note(self, what: str) -> None:
        if what == self.refuse:
            raise OSError(f"{self.name} does not {what}")
        self.log.append(f"{what} {self.name}")


@pytest.mark.parametrize("end", ["natural", "early", "failure"])
def test_resources_live_exactly_as_long_as_the_run(end: str) -> None:
    """Started in order before the first item, stopped in reverse after the last, however it ends."""
    log: list[str] = []

    def source() -> Iterator[int]:
        log.append("source")
        yield from itertools.count() if end == "early" else range(3)

    builder = PipelineBuilder().add_source(source()).add_resource(Resource(log, "a")).add_resource(Resource(log, "b"))
    pipeline = build(builder.pipe(fail_below(9 if end == "failure" else 0), max_failures=0))
    try:
        with pipeline.auto_stop():
            list(pipeline if end != "early" else itertools.islice(pipeline, 3))
    except PipelineFailure:
        assert end == "failure"
    assert log == ["start a", "start b", "source", "stop b", "stop a"]


@pytest.mark.parametrize("refuse", ["start", "stop"])
def test_a_resource_that_fails_fails_the_pipeline(refuse: str) -> None:
    """What was started is stopped; the failure is told."""
    log: list[str] = []
    builder = PipelineBuilder().add_source([1]).add_resource(Resource(log, "a"))
    pipeline = build(builder.add_resource(Resource(log, "b", refuse=refuse)))
    with pytest.raises(PipelineFailure) as caught, pipeline.auto_stop():
        list(pipeline)
    assert f"does not {refuse}" in str(caught.value.exceptions[0])
    assert log == (["start a", "stop a"] if refuse == "start" else ["start a", "start b", "stop a"])
