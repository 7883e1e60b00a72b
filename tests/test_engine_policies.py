"""What a stage does about failures: leave out, end, try again; wherever its operation runs, and in both orders."""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from penstock.engine import Fail, Feedback, Pipeline, PipelineBuilder, PlainValues, Policy, Retry, Skip
from penstock.engine.core.definitions import Order
from penstock.engine.workers.callables import WorkerPool
from penstock.errors import ConfigError, PipelineFailure, ReadError, SinkUnavailableError
from penstock.tests.flaky import NEVER, SOON, Flaky, RecordingValues, built, finish, op_of
from penstock.tests.waiting import DEADLINE, wait_until

KINDS = ["blocking", "async", "green", "executor", "generator", "async generator", "executor generator"]
ORDERS: list[Order] = ["completion", "input"]

every_kind = pytest.mark.parametrize("kind", KINDS)
both_orders = pytest.mark.parametrize("order", ORDERS)


def piped(builder: PipelineBuilder, op: Flaky, kind: str, stack: ExitStack, **settings: Any) -> PipelineBuilder:
    """A stage named op that runs there."""

    async def later(item: Any) -> Any:
        return op(item)

    def many(item: Any) -> Iterator[Any]:
        yield op(item)

    async def many_later(item: Any) -> AsyncIterator[Any]:
        yield op(item)

    made = {"async": later, "generator": many, "async generator": many_later, "executor generator": many}.get(kind, op)
    if kind.startswith("executor"):
        settings["executor"] = stack.enter_context(ThreadPoolExecutor(2))
    return builder.pipe(made, name="op", kind="green" if kind == "green" else None, **settings)


# -- the three policies -----------------------------------------------------------------------------------------------


@both_orders
@every_kind
def test_what_is_transient_is_tried_again_and_goes_on(kind: str, order: Order) -> None:
    """Every third item fails twice; all arrive, in their order where that is kept, and nothing failed."""
    op, model = Flaky(lambda item: 2 * (item % 3 == 0)), RecordingValues()
    with ExitStack() as stack:
        builder = PipelineBuilder(model).add_source(range(10))
        pipeline = built(piped(builder, op, kind, stack, concurrency=3, output_order=order, on_failure=SOON))
        found = finish(pipeline)
    assert found == list(range(10)) if order == "input" else sorted(found) == list(range(10))
    stage = op_of(pipeline)
    assert (stage.retried, stage.failed, stage.retrying, model.failures) == (8, 0, 0, [])
    assert op.calls == {item: 3 if item % 3 == 0 else 1 for item in range(10)}


@pytest.mark.parametrize(("asked", "calls"), [(0.05, 2), (1e6, 1)])
def test_what_a_server_asks_for_is_obeyed_or_the_item_is_given_up(asked: float, calls: int) -> None:
    """It is never asked again before that."""
    began: list[float] = []

    def ask(item: int) -> int:
        began.append(monotonic())
        if len(began) == 1:
            busy = ReadError("HTTP 429")
            busy.errno, busy.retry_after = errno.ETIMEDOUT, asked
            raise busy
        return item

    policy = Retry(within=DEADLINE, first=0.001, longest=0.001)
    found = finish(built(PipelineBuilder(RecordingValues()).add_source([1]).pipe(ask, name="op", on_failure=policy)))
    assert (len(began), found) == (calls, [1] * (calls - 1))
    assert all(later - earlier >= asked for earlier, later in itertools.pairwise(began))


@both_orders
@every_kind
def test_what_stays_is_left_out_after_all_attempts(kind: str, order: Order) -> None:
    """It is a failure that says how often it was tried; the value is given back once."""
    op, model = Flaky(lambda item: 99 * (item == 4)), RecordingValues()
    with ExitStack() as stack:
        builder = PipelineBuilder(model).add_source(range(10))
        pipeline = built(piped(builder, op, kind, stack, concurrency=3, output_order=order, on_failure=SOON))
        assert sorted(finish(pipeline)) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert (op.calls[4], model.failures, model.discarded) == (3, [(4, 3)], [4])
    assert (op_of(pipeline).retried, op_of(pipeline).failed) == (2, 1)


@pytest.mark.parametrize("policy", [SOON, Skip(), None])
@every_kind
def test_what_is_not_transient_is_tried_once(kind: str, policy: Policy | None) -> None:
    """A wrong picture stays wrong."""
    op, model = Flaky(lambda item: 99 * (item == 4), ValueError), RecordingValues()
    with ExitStack() as stack:
        builder = PipelineBuilder(model).add_source(range(6))
        pipeline = built(piped(builder, op, kind, stack, on_failure=policy))
        assert sorted(finish(pipeline)) == [0, 1, 2, 3, 5]
    assert (op.calls[4], model.failures, op_of(pipeline).retried) == (1, [(4, 1)], 0)


@pytest.mark.parametrize(("policy", "calls"), [(Fail(), 1), (Retry(3, first=0.001, then=Fail()), 3)])
@both_orders
@every_kind
def test_the_first_failure_can_end_it_all(kind: str, order: Order, policy: Policy, calls: int) -> None:
    """The item is named, what came before it is delivered; it is no failure but stays in flight, to be done again."""
    op, model = Flaky(lambda item: 99 * (item == "item-4")), RecordingValues()
    with ExitStack() as stack:
        builder = PipelineBuilder(model).add_source(f"item-{number}" for number in itertools.count())
        pipeline = built(piped(builder, op, kind, stack, concurrency=3, output_order=order, on_failure=policy))
        found: list[str] = []
        with pytest.raises(PipelineFailure, match=r"stage 'op': item 'item-4' failed.*on_failure is fail") as failure:
            found.extend(pipeline)
        pipeline.stop()
    (cause,) = failure.value.exceptions
    assert any("item-4" in note for note in cause.__notes__)
    first = [f"item-{number}" for number in range(4)]
    assert found == first if order == "input" else {*first} <= {*found} - {"item-4"}
    assert (op.calls["item-4"], model.failures, op_of(pipeline).failed) == (calls, [], 0)
    assert op_of(pipeline).in_flight >= 1


@both_orders
def test_a_time_outlives_what_passes(order: Order) -> None:
    """As many attempts as there is time for; then all is well."""
    op, policy = Flaky(lambda item: 9 * (item == 2)), Retry(within=DEADLINE, first=0.001, longest=0.001)
    builder = PipelineBuilder(RecordingValues()).add_source(range(5))
    pipeline = built(builder.pipe(op, name="op", concurrency=2, output_order=order, on_failure=policy))
    assert sorted(finish(pipeline)) == [0, 1, 2, 3, 4]
    assert (op.calls[2], op_of(pipeline).retried) == (10, 9)


@both_orders
def test_where_nothing_passes_only_the_first_items_take_their_time(order: Order) -> None:
    """So that a stage whose every item fails of something transient ends; what is not transient is tried once."""
    op, policy = Flaky(lambda _: 1e9), Retry(within=0.2, first=0.001, longest=0.001)
    builder = PipelineBuilder(RecordingValues()).add_source(range(40))
    pipeline = built(builder.pipe(op, name="op", concurrency=2, output_order=order, on_failure=policy))
    assert finish(pipeline) == []
    assert max(op.calls[0], op.calls[1]) > 3
    assert [op.calls[item] for item in range(4, 40)] == [3] * 36


def test_the_last_attempt_is_told_to_the_model() -> None:
    """Before it begins, for each item that comes to it."""

    class Last(RecordingValues):
        def last_attempt(self, value: Any) -> None:
            last.append((value, op.calls[value]))

    last: list[tuple[int, int]] = []
    op = Flaky(lambda item: 99 * (item == 1))
    finish(built(PipelineBuilder(Last()).add_source(range(3)).pipe(op, name="op", on_failure=SOON)))
    assert last == [(1, 2)]


def test_a_process_tells_what_it_met(tmp_path: Path) -> None:
    """An error that comes from a worker process is judged like one of this process."""
    with WorkerPool(1) as pool:
        builder = PipelineBuilder().add_source([str(tmp_path / "a"), str(tmp_path / "b")])
        pipeline = built(builder.pipe(fail_twice, name="op", executor=pool, on_failure="retry:3"))
        assert len(finish(pipeline)) == 2
    assert op_of(pipeline).retried == 4


def fail_twice(path: str) -> str:
    """Keeps count in a file, because the process may be another one each time."""
    with open(path, "a+", encoding="ascii") as file:
        file.write("x")
        if file.tell() <= 2:
            raise ConnectionRefusedError("not yet")
    return path


@pytest.mark.parametrize(
    ("policy", "fatal"),
    [
        (Skip(2), True),
        (Skip(3), False),
        (Skip(Fraction(1, 100)), True),
        (Skip(Fraction(1, 2)), False),
        ("skip:2", True),
        (Retry(2, first=0.001, then=Skip(2)), True),
        (Retry(2, first=0.001, then=Skip(3)), False),
        (Retry(2, first=0.001), False),  # the build's
    ],
)
def test_a_policy_may_say_how_many_failures_there_may_be(policy: Policy | str, fatal: bool) -> None:
    """A count or a rate, instead of the build's; an item that was tried twice is one failure."""
    op = Flaky(lambda item: 99 * (item < 3))
    builder = PipelineBuilder().add_source(range(300)).pipe(op, name="op", on_failure=policy)
    pipeline = built(builder, max_failures=3)
    if fatal:
        with pytest.raises(PipelineFailure, match="max_failures"):
            finish(pipeline)
    else:
        assert len(finish(pipeline)) == 297


@pytest.mark.parametrize("policy", ["fail", "retry,fail", "skip:3", Retry(then=Skip(3))])
def test_two_words_about_the_same_are_refused(policy: Policy | str) -> None:
    """The policy says how many failures there may be, or max_failures does."""
    with pytest.raises(ConfigError, match=r"max_failures=3 and on_failure=.* exclude one another"):
        PipelineBuilder().pipe(str, on_failure=policy, max_failures=3)
    PipelineBuilder().pipe(str, on_failure="retry", max_failures=3)
    with pytest.raises(ConfigError, match="on_failure='again' must be skip"):
        PipelineBuilder().pipe(str, on_failure="again")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_generator_that_has_made_something_is_not_started_again(asynchronous: bool) -> None:
    """What has gone on cannot be taken back: the rest is a failure."""
    op, model = Flaky(lambda item: item == "late"), RecordingValues()

    def many(item: str) -> Iterator[str]:
        yield item
        yield op("late")

    async def many_later(item: str) -> AsyncIterator[str]:
        for each in many(item):
            yield each

    builder = PipelineBuilder(model).add_source(["a"])
    assert finish(built(builder.pipe(many_later if asynchronous else many, on_failure=SOON))) == ["a"]
    assert (op.calls["late"], model.failures) == (1, [("a", 1)])


def test_a_store_out_of_reach_ends_the_job_after_all_attempts() -> None:
    """It says nothing about the items, so they stay in flight; it is the one error of this kind that is tried again."""
    op, model = Flaky(lambda _: 99, lambda: SinkUnavailableError("no answer")), RecordingValues()
    pipeline = built(PipelineBuilder(model).add_source(range(3)).pipe(op, name="op", on_failure=SOON))
    with pytest.raises(PipelineFailure, match="cannot go on"):
        finish(pipeline)
    assert (op.calls[0], op_of(pipeline).failed, model.failures) == (3, 0, [])


# -- while it waits ---------------------------------------------------------------------------------------------------


def waiting(order: Order, op: Callable[[Any], Any], model: PlainValues) -> Pipeline:
    """A started pipeline whose stage waits to try item 1 again; with one fiber where no order is asked for."""
    concurrency = 3 if order == "input" else 1
    builder = PipelineBuilder(model).add_source(range(6))
    pipeline = built(builder.pipe(op, name="op", concurrency=concurrency, output_order=order, on_failure=NEVER))
    pipeline.start()
    wait_until(lambda: op_of(pipeline).retrying == 1)
    return pipeline


@both_orders
def test_an_entry_that_waits_keeps_its_place(order: Order) -> None:
    """It is in flight; no more entries are begun than the stage has places, and none overtakes where order is kept."""
    op = Flaky(lambda item: item == 1)
    pipeline = waiting(order, op, PlainValues())
    places = 1 if order == "completion" else 3
    wait_until(lambda: len(op.calls) == 1 + places)
    assert pipeline.get_item(timeout=DEADLINE) == 0
    with pytest.raises(TimeoutError):
        pipeline.get_item(timeout=0.05)
    stage = op_of(pipeline)
    assert (stage.retrying, stage.retried, len(op.calls)) == (1, 0, 1 + places)
    assert stage.in_flight >= places
    pipeline.stop()


@both_orders
def test_a_stop_ends_the_waiting_at_once(order: Order) -> None:
    """No thread waits, nothing is tried again, the value is given back and stays in the books."""
    op, model = Flaky(lambda item: 99 * (item == 1)), RecordingValues()
    pipeline = waiting(order, op, model)
    began = monotonic()
    pipeline.stop(timeout=DEADLINE)
    assert monotonic() - began < DEADLINE / 2
    assert (op.calls[1], model.discarded.count(1), model.failures) == (1, 1, [])
    assert (op_of(pipeline).retrying, op_of(pipeline).failed) == (0, 0)


@both_orders
def test_a_drain_has_it_tried_once_more_at_once(order: Order) -> None:
    """What is well now goes on, and so does everything behind it."""
    op = Flaky(lambda item: item == 1)
    pipeline = waiting(order, op, PlainValues())
    pipeline.drain()
    found = list(pipeline)
    assert (found[:2], op.calls[1], op_of(pipeline).in_flight) == ([0, 1], 2, 0)
    pipeline.stop()


@both_orders
def test_what_is_still_transient_in_a_drain_stays_in_flight(order: Order) -> None:
    """It is not given up because somebody wants to leave: the next run does it. What is behind it is not held up."""
    op, model = Flaky(lambda item: 99 * (item == 1)), RecordingValues()
    pipeline = waiting(order, op, model)
    pipeline.drain()
    found = list(pipeline)
    assert found[0] == 0
    assert 1 not in found
    assert len(found) == pipeline.report().accounting.read - 1
    assert (op.calls[1], op_of(pipeline).in_flight, model.failures, model.discarded) == (2, 1, [], [1])
    pipeline.stop()


def test_what_was_made_and_waits_for_its_turn_is_given_back_at_a_stop() -> None:
    """It may hold a slot of shared memory; its input is not ours any more, because it became that."""
    op, model = Flaky(lambda item: 99 * (item == 0)), RecordingValues()
    made: list[int] = []

    def make(item: int) -> str:
        op(item)
        made.append(item)
        return f"made of {item}"

    builder = PipelineBuilder(model).add_source(range(4))
    builder.pipe(make, kind="green", name="op", concurrency=4, output_order="input", on_failure=NEVER)
    pipeline = built(builder)
    pipeline.start()
    wait_until(lambda: len(made) == 3 and op_of(pipeline).retrying == 1)
    pipeline.stop()
    assert sorted(map(str, model.discarded)) == ["0", "made of 1", "made of 2", "made of 3"]


def test_values_made_elsewhere_at_once_are_given_back_at_a_stop() -> None:
    """All of those that did not get out, of a generator in an executor."""
    model = RecordingValues()

    def four(item: int) -> Iterator[str]:
        for number in range(4):
            yield f"{number} of {item}"

    with ThreadPoolExecutor(1) as executor:
        builder = PipelineBuilder(model).add_source([7]).pipe(four, executor=executor, name="op")
        pipeline = builder.add_sink(1).build(num_threads=1)
        pipeline.start()
        wait_until(lambda: op_of(pipeline).items_out >= 1)
        assert pipeline.get_item(timeout=DEADLINE) == "0 of 7"
        wait_until(lambda: op_of(pipeline).items_out >= 2)
        pipeline.stop()
    assert {"2 of 7", "3 of 7"} >= set(model.discarded) >= {"3 of 7"}


def test_a_failure_elsewhere_ends_the_waiting_before_it_and_not_behind_it() -> None:
    """What is past the stage that failed is delivered, however long it takes."""
    before, behind = Flaky(lambda item: 99 * (item == 3)), Flaky(lambda item: 2 * (item == 0))
    go = threading.Event()

    def breaks(item: int) -> int:
        if item:
            assert go.wait(DEADLINE)
            raise ConfigError("the whole is wrong")
        return item

    builder = PipelineBuilder().add_source(range(9)).pipe(before, name="op", on_failure=NEVER)
    builder.pipe(breaks, name="breaks").pipe(behind, name="behind", on_failure=Retry(3, first=0.2))
    pipeline = built(builder)
    pipeline.start()
    wait_until(lambda: op_of(pipeline).retrying == 1)
    go.set()
    assert pipeline.get_item(timeout=DEADLINE) == 0
    with pytest.raises(PipelineFailure, match="breaks"):
        pipeline.get_item(timeout=DEADLINE)
    assert (before.calls[3], behind.calls[0]) == (1, 3)


def test_a_loop_stays_open_for_what_is_tried_again() -> None:
    """An entry that waits is in flight inside it."""
    flaky = Flaky(lambda item: 2 * (item == 2))

    def op(item: int) -> Any:
        return Feedback(flaky(item) + 1) if flaky(item) < 3 else item

    builder = PipelineBuilder().add_source([0]).pipe(op, name="op", feedback="op", on_failure=SOON)
    assert finish(built(builder)) == [3]


def test_a_drain_between_two_attempts_keeps_the_turn_of_the_others() -> None:
    """The last of three, in input order, is let go of before the others are done: they come out all the same."""
    go, values = threading.Event(), RecordingValues()

    def op(item: int) -> int:
        if item == 2:
            raise ConnectionResetError
        assert go.wait(DEADLINE)
        return item

    builder = PipelineBuilder(values).add_source(range(3))
    builder.pipe(op, name="op", concurrency=3, output_order="input", on_failure=NEVER)
    pipeline = built(builder, num_threads=3)
    with pipeline.auto_stop():
        wait_until(lambda: op_of(pipeline).retrying == 1)
        pipeline.drain()
        wait_until(lambda: not op_of(pipeline).retrying)
        go.set()
        assert list(pipeline.get_iterator(timeout=DEADLINE)) == [0, 1]
    assert pipeline.report().accounting.in_flight == 1
