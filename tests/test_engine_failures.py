"""What goes wrong, and what then happens: budgets, fatal failures, and everything that can be raised."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from contextlib import ExitStack
from fractions import Fraction
from typing import Any, Literal

import gevent
import pytest

from penstock.engine import Feedback, Lane, Pipeline, PipelineBuilder
from penstock.engine.core.budget import FailureBudget, Tally
from penstock.engine.workers.callables import WorkerPool
from penstock.errors import ConfigError, EmbedderError, EmbedError, FailureBudgetError, PipelineFailure
from penstock.tests.waiting import DEADLINE

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


def raise_odd(name: str) -> Any:
    """An operation that raises what its item names."""
    if name in ODDITIES:
        raise ODDITIES[name]
    return name


async def raise_odd_later(name: str) -> Any:
    await asyncio.sleep(0)
    return raise_odd(name)


def raise_odd_many(name: str) -> Iterator[Any]:
    yield name + "!"
    raise_odd(name)


async def raise_odd_many_later(name: str) -> AsyncIterator[Any]:
    yield name + "!"
    raise_odd(name)


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    """One pool of processes for this module."""
    with WorkerPool(1) as pool:
        yield pool


KINDS = ["blocking", "async", "green", "executor", "process"]
ORDERS: list[Literal["completion", "input"]] = ["completion", "input"]


def place(kind: str, pool: WorkerPool, stack: ExitStack) -> dict[str, Any]:
    """Arguments of `pipe` for a kind of stage."""
    executors: dict[str, Executor] = {"process": pool}
    if kind == "executor":
        executors["executor"] = stack.enter_context(ThreadPoolExecutor(2))
    return {"executor": executors.get(kind), "kind": "green" if kind == "green" else None}


def build(builder: PipelineBuilder, **settings: Any) -> Pipeline:
    knobs: dict[str, Any] = {"num_threads": 2, **settings}
    return builder.add_sink().build(**knobs)


# -- one item's failure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", ODDITIES)
def test_whatever_an_operation_raises_is_that_items_failure(
    odd: str, kind: str, order: Literal["completion", "input"], pool: WorkerPool
) -> None:
    """Nothing that is raised hangs the consumer, ends a thread, a loop or a hub, or takes other items with it."""
    with ExitStack() as stack:
        builder = (
            PipelineBuilder()
            .add_source(["a", odd, "b", odd, "c"])
            .pipe(
                raise_odd_later if kind == "async" else raise_odd,
                concurrency=2,
                output_order=order,
                **place(kind, pool, stack),
            )
        )
        with build(builder).auto_stop() as pipeline:
            items = list(pipeline.get_iterator(timeout=DEADLINE))
    assert (items if order == "input" else sorted(items)) == ["a", "b", "c"]
    accounting = pipeline.report().accounting
    assert (accounting.failed, accounting.delivered, accounting.in_flight) == (2, 3, 0)


@pytest.mark.parametrize("kind", ["blocking", "async", "green", "executor"])
@pytest.mark.parametrize("odd", ODDITIES)
def test_whatever_a_generator_raises_is_that_items_failure(odd: str, kind: str, pool: WorkerPool) -> None:
    """What a generator has yielded before it raised has gone on."""
    with ExitStack() as stack:
        builder = (
            PipelineBuilder()
            .add_source(["a", odd, "b"])
            .pipe(raise_odd_many_later if kind == "async" else raise_odd_many, **place(kind, pool, stack))
        )
        with build(builder).auto_stop() as pipeline:
            items = list(pipeline.get_iterator(timeout=DEADLINE))
    # across an executor the values of one item travel together, so those of a failed one do not arrive
    assert items == (["a!", "b!"] if kind == "executor" else ["a!", odd + "!", "b!"])
    assert pipeline.report().accounting.failed == 1
    pipeline.report().accounting.check()


def test_a_failure_is_logged_with_stage_message_and_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The log says where, what and how."""

    def careless(x: int) -> float:
        return 1 / x

    pipeline = build(PipelineBuilder().add_source([0, 1]).pipe(careless, name="divide"))
    with caplog.at_level(logging.ERROR, "penstock"), pipeline.auto_stop():
        assert list(pipeline) == [1.0]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "divide" in record.getMessage()
    assert "division by zero" in record.getMessage()
    assert "careless" in caplog.text  # in the traceback


@pytest.mark.parametrize(
    "make",
    [
        lambda x: Lane("nowhere", x),
        lambda x: Feedback(x),
        lambda x: EmbedderError("the model is gone") if x is None else _raise(EmbedderError("the model is gone")),
    ],
    ids=["lane", "feedback", "job"],
)
def test_an_error_of_the_program_or_the_job_is_fatal_whatever_the_budget(make: Callable[[Any], Any]) -> None:
    """An unknown lane, or a penstock error that is not an ItemError, is not one item's failure."""
    with (
        pytest.raises(PipelineFailure) as caught,
        build(PipelineBuilder().add_source([1, 2]).pipe(make)).auto_stop() as p,
    ):
        list(p)
    assert isinstance(caught.value.exceptions[0], ConfigError | EmbedderError)


def _raise(error: Exception) -> Any:
    raise error


def test_an_item_error_is_one_items_failure() -> None:
    """`ItemError` says something about one item."""

    def op(x: int) -> int:
        if x == 1:
            raise EmbedError("not this one")
        return x

    with build(PipelineBuilder().add_source(range(3)).pipe(op)).auto_stop() as pipeline:
        assert list(pipeline) == [0, 2]


# -- budgets ----------------------------------------------------------------------------------------------------------


def fail_below(n: int) -> Callable[[int], int]:
    def op(x: int) -> int:
        if x < n:
            raise ValueError(x)
        return x

    return op


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("budget", "failures", "fatal"), [(0, 0, False), (0, 1, True), (2, 2, False), (2, 3, True), (-1, 50, False)]
)
def test_so_many_failures_are_tolerated_and_one_more_is_fatal(
    budget: int, failures: int, fatal: bool, order: Literal["completion", "input"]
) -> None:
    """`max_failures=n`: n are tolerated, n + 1 is fatal, -1 is unlimited."""
    builder = PipelineBuilder().add_source(range(60))
    builder.pipe(fail_below(failures), max_failures=budget, concurrency=2, output_order=order)
    pipeline = build(builder)
    if not fatal:
        with pipeline.auto_stop():
            assert sorted(pipeline) == list(range(failures, 60))
        return
    with pytest.raises(PipelineFailure) as caught, pipeline.auto_stop():
        list(pipeline)
    assert len(caught.value.exceptions) >= 1
    assert "max_failures" in str(caught.value)
    pipeline.report().accounting.check()


def test_dropped_items_do_not_count_as_failures() -> None:
    """None is not a failure."""
    with build(PipelineBuilder().add_source(range(9)).pipe(lambda _: None), max_failures=0).auto_stop() as pipeline:
        assert list(pipeline) == []


def test_the_builds_budget_applies_to_each_stage_separately() -> None:
    """Two failures in each of two stages are within two."""
    builder = PipelineBuilder().add_source(range(9)).pipe(fail_below(2)).pipe(fail_below(4))
    with build(builder, max_failures=2).auto_stop() as pipeline:
        assert list(pipeline) == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(("own", "whole", "fatal"), [(3, 0, False), (0, 3, True), (-1, 0, False), (0, -1, True)])
def test_a_stages_own_budget_overrides_the_builds_both_ways(own: int, whole: int, fatal: bool) -> None:
    """What is said nearer counts."""
    pipeline = build(PipelineBuilder().add_source(range(9)).pipe(fail_below(2), max_failures=own), max_failures=whole)
    if fatal:
        with pytest.raises(PipelineFailure), pipeline.auto_stop():
            list(pipeline)
    else:
        with pipeline.auto_stop():
            assert len(list(pipeline)) == 7


@pytest.mark.parametrize(
    ("rate", "bad", "fatal"), [(Fraction(1, 10), 10, False), (Fraction(1, 10), 20, True), (Fraction(1), 100, False)]
)
@pytest.mark.parametrize("n", [10, 60, 100])
def test_a_rate_is_judged_at_the_end_of_its_stage(rate: Fraction, bad: int, fatal: bool, n: int) -> None:
    """Whatever the number of items; what went well is delivered all the same."""
    bad = bad * n // 100
    pipeline = build(PipelineBuilder().add_source(range(n)).pipe(fail_below(bad), max_failures=rate))
    got: list[int] = []
    if fatal:
        with pytest.raises(FailureBudgetError, match=f"{bad} of {n} items failed"), pipeline.auto_stop():
            got.extend(pipeline)
    else:
        with pipeline.auto_stop():
            got.extend(pipeline)
    assert sorted(got) == list(range(bad, n))


def test_a_rate_ends_a_stage_after_a_hundred() -> None:
    """Up to 99 say nothing; at the hundredth the share counts, and an endless source is read no further."""
    pipeline = build(PipelineBuilder().add_source(itertools.count()).pipe(fail_below(99), max_failures=Fraction(1, 2)))
    message = "99 of 100 items failed, more than max_failures=50% allows"
    with pytest.raises(FailureBudgetError, match=message), pipeline.auto_stop():
        list(pipeline)


def test_a_drain_is_no_end_to_be_judged() -> None:
    """Whoever interrupts wants no verdict on the few that were done."""
    pipeline = build(PipelineBuilder().add_source(itertools.count()).pipe(fail_below(5), max_failures=Fraction(1, 2)))
    with pipeline.auto_stop():
        assert pipeline.get_item() == 5
        pipeline.drain()
        list(pipeline)


@pytest.mark.parametrize(("earlier", "fatal"), [(Tally(100, 0), False), (Tally(20, 15), True), (Tally(0, 0), False)])
def test_a_rate_is_one_of_all_runs_together(earlier: Tally, fatal: bool) -> None:
    """What earlier runs did counts, both ways: of 10 here 5 fail."""
    builder = PipelineBuilder().add_source(range(10)).pipe(fail_below(5), name="op", max_failures=Fraction(1, 2))
    pipeline = build(builder, earlier={"op": earlier})
    if fatal:
        with pytest.raises(FailureBudgetError, match="'op': 20 of 30 items failed"), pipeline.auto_stop():
            list(pipeline)
    else:
        with pipeline.auto_stop():
            assert len(list(pipeline)) == 5


def test_failures_of_earlier_runs_alone_can_be_too_many() -> None:
    """The last run did well, and there were not enough items left to make up for it."""
    builder = PipelineBuilder().add_source(range(10)).pipe(fail_below(0), name="op", max_failures=Fraction(1, 2))
    pipeline = build(builder, earlier={"op": Tally(20, 19)})
    with pytest.raises(FailureBudgetError, match="19 of 30 items failed"), pipeline.auto_stop():
        list(pipeline)


def test_a_spent_budget_names_the_first_items_with_their_reasons() -> None:
    """The stage, how many of how many, the limit as people write it, and three of them."""
    pipeline = build(PipelineBuilder().add_source("abcdefgh").pipe(int, name="parse"), max_failures=4)
    with pytest.raises(FailureBudgetError) as caught, pipeline.auto_stop():
        list(pipeline)
    assert caught.value.message.startswith("stage 'parse': 5 of 5 items failed, more than max_failures=4 allows; the ")
    assert "first: 'a' (ValueError: invalid literal for int() with base 10: 'a'), 'b' (" in caught.value.message
    assert "'d'" not in caught.value.message


def test_of_a_long_name_in_a_spent_budget_the_end_is_shown() -> None:
    """Lines of a list may be anything; of a path the end tells it from others."""
    budget = FailureBudget(0)
    budget.fail(1)
    budget.record(ValueError("w" * 999), "/folder/" + "x" * 999 + ".jpg", str)
    assert ".jpg (ValueError: " in str(budget)
    assert len(str(budget)) < 600


# -- fatal failures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_past_a_fatal_failure_is_delivered_first(kind: str, pool: WorkerPool) -> None:
    """The items before the failure arrive, then the failure; the note names the stage."""
    with ExitStack() as stack:
        builder = (
            PipelineBuilder()
            .add_source(["a", "b", "c", "ValueError", "d", "e"])
            .pipe(
                raise_odd_later if kind == "async" else raise_odd,
                name="odd",
                max_failures=0,
                **place(kind, pool, stack),
            )
        )
        pipeline = build(builder.pipe(lambda x: x))
        got: list[str] = []
        with pytest.raises(PipelineFailure) as caught, pipeline.auto_stop():
            _collect(pipeline, got)
    assert got == ["a", "b", "c"]
    (cause,) = caught.value.exceptions
    assert isinstance(cause, ValueError)
    assert any("odd" in note for note in cause.__notes__)
    pipeline.report().accounting.check()


def _collect(pipeline: Pipeline, into: list[Any]) -> None:
    """Read to the end; `into` has what came before a failure."""
    into.extend(pipeline.get_iterator(timeout=DEADLINE))


def test_in_input_order_exactly_the_items_before_the_failure_are_delivered() -> None:
    """Whatever is done earlier or later: drops, failures and results come in order."""
    late = threading.Event()

    def op(x: int) -> int:
        if x == 2:
            raise ValueError(x)
        if x < 2:
            assert late.wait(DEADLINE)
        else:
            late.set()
        return x

    builder = PipelineBuilder().add_source(range(9)).pipe(op, concurrency=4, output_order="input", max_failures=0)
    pipeline = build(builder, num_threads=4)
    got: list[int] = []
    with pytest.raises(PipelineFailure), pipeline.auto_stop():
        _collect(pipeline, got)
    assert got == [0, 1]


def test_a_failure_is_raised_at_every_further_read_but_by_stop_only_if_unseen() -> None:
    """Reading raises it again and again; `stop` once, if nobody has seen it."""
    pipeline = build(PipelineBuilder().add_source([1]).pipe(fail_below(9), max_failures=0))
    for _ in range(2):
        with pytest.raises(PipelineFailure):
            pipeline.get_item(timeout=DEADLINE)
        with pytest.raises(PipelineFailure):
            list(pipeline)
    pipeline.stop()
    unseen = build(PipelineBuilder().add_source([1]).pipe(fail_below(9), max_failures=0))
    unseen.start()
    assert unseen._runtime.join(DEADLINE)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(PipelineFailure):
        unseen.stop()
    unseen.stop()
    with pytest.raises(PipelineFailure):
        unseen.get_item()


def test_an_exception_in_the_with_block_is_not_masked_by_a_failure() -> None:
    """What the user's own code raises comes out."""
    pipeline = build(PipelineBuilder().add_source([1]).pipe(fail_below(9), max_failures=0))
    with pytest.raises(KeyError), pipeline.auto_stop():
        _raise(KeyError("mine") if pipeline._runtime.join(DEADLINE) else TimeoutError())  # pyright: ignore[reportPrivateUsage]


def test_a_stage_behind_may_fail_while_the_pipeline_is_failing() -> None:
    """Two fatal failures are one PipelineFailure, with both causes."""
    builder = (
        PipelineBuilder()
        .add_source(range(10))
        .pipe(lambda x: x if x < 5 else 1 // 0, name="first", max_failures=0)
        .pipe(lambda x: x if x < 4 else int(""), name="second", max_failures=0)
    )
    got: list[int] = []
    pipeline = build(builder)
    with pytest.raises(PipelineFailure), pipeline.auto_stop():
        _collect(pipeline, got)
    assert got == [0, 1, 2, 3]


def test_a_stuck_source_does_not_keep_a_fatal_failure() -> None:
    """The source waits for its next value for ever; the failure comes all the same."""
    go = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        go.wait(DEADLINE)

    pipeline = build(PipelineBuilder().add_source(source()).pipe(fail_below(9), max_failures=0))
    with pytest.raises(PipelineFailure), pipeline.auto_stop(timeout=0.1):
        pipeline.get_item(timeout=DEADLINE)
    go.set()
