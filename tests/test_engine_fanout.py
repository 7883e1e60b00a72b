"""Fan-out and gather: children travel alone and come back as one value, and all of them are accounted for."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import pytest

from penstock import ConfigError, PipelineFailure
from penstock.engine import (
    Feedback,
    Gathered,
    ItemFailure,
    Outcome,
    PipelineBuilder,
    PlainValues,
    Retry,
)
from penstock.errors import ChildrenFailedError
from penstock.tests.running import run
from penstock.tests.threads import threads_of
from penstock.tests.waiting import DEADLINE, wait_until


def three(page: int) -> list[int]:
    """The patches of a page."""
    return [10 * page, 10 * page + 1, 10 * page + 2]


def by_parent(items: Sequence[Gathered]) -> list[Gathered]:
    return sorted(items, key=lambda item: item.value)


def fails_at(*values: int) -> Callable[[int], int]:
    def op(value: int) -> int:
        if value in values:
            raise ValueError(value)
        return -value

    return op


# -- there and back ---------------------------------------------------------------------------------------------------


def test_children_come_back_as_one_value_in_their_order() -> None:
    """Whatever the order in which they were done: here the last one of all is done first."""
    last = threading.Event()

    def op(patch: int) -> int:
        if patch == 2:
            last.set()
        else:
            assert last.wait(DEADLINE)
        return -patch

    items, pipeline = run(PipelineBuilder().add_source([0]).fanout(three).pipe(op, concurrency=3).gather(), 3)
    assert items == [Gathered(0, [0, -1, -2], [0, 1, 2], {}, [])]
    report = pipeline.report()
    assert (report.accounting.read, report.accounting.created) == (1, 3)
    assert (report.accounting.delivered, report.accounting.merged) == (1, 3)


def test_it_says_which_children_failed_and_which_were_dropped() -> None:
    """By index; they are counted where they failed and were dropped, and the parent comes back all the same."""

    def op(patch: int) -> int | None:
        return None if patch % 10 == 1 else fails_at(12, 20, 21)(patch)

    items, pipeline = run(PipelineBuilder().add_source([0, 1, 2]).fanout(three).pipe(op, name="op").gather())
    assert [(item.results, item.indices, list(item.errors), item.dropped) for item in by_parent(items)] == [
        ([0, -2], [0, 2], [], [1]),
        ([-10], [0], [2], [1]),
        ([-22], [2], [0], [1]),
    ]
    assert isinstance(by_parent(items)[1].errors[2], ValueError)
    fanout, op_, gather = pipeline.report().stages[1:-1]
    assert (fanout.items_in, fanout.created, fanout.items_out) == (3, 9, 12)
    assert (op_.items_in, op_.items_out, op_.failed, op_.dropped) == (9, 4, 2, 3)
    assert (gather.items_in, gather.merged, gather.items_out) == (3 + 4, 4, 3)


async def three_async(page: int) -> list[int]:
    await asyncio.sleep(0)
    return three(page)


def three_each(page: int) -> Iterator[int]:
    yield from three(page)


async def three_each_async(page: int) -> AsyncIterator[int]:
    for patch in three(page):
        yield patch


@pytest.mark.parametrize(
    ("op", "where"),
    [
        *((three, where) for where in ("threads", "hub", "executor")),
        *((three_each, where) for where in ("threads", "hub", "executor")),
        *((three_async, "loop"), (three_each_async, "loop")),
    ],
)
def test_any_operation_can_make_children(op: Callable[..., Any], where: str) -> None:
    """Functions that return them all, generators that give one after the other; wherever they run."""
    with ThreadPoolExecutor(2) as threads:
        builder = PipelineBuilder().add_source(range(4))
        builder.fanout(
            op,
            concurrency=2,
            executor=threads if where == "executor" else None,
            kind="green" if where == "hub" else None,
            output_order="input",
        )
        items, _ = run(builder.gather())
    assert [(item.value, item.results) for item in by_parent(items)] == [(page, three(page)) for page in range(4)]


def test_a_value_without_children_is_gathered_at_once() -> None:
    """Nothing of it travels."""
    items, _ = run(PipelineBuilder().add_source([1, 2]).fanout(lambda page: []).pipe(str).gather())
    assert items == [Gathered(1, [], [], {}, []), Gathered(2, [], [], {}, [])]


def test_none_is_no_child() -> None:
    """Nor is an Outcome of None; the parent is not dropped for that."""

    def some(page: int) -> Iterator[Any]:
        yield from (None, page, Outcome(None))

    items, pipeline = run(PipelineBuilder().add_source([1, 2]).fanout(some).gather())
    assert [(item.results, item.indices, item.dropped) for item in items] == [([1], [0], []), ([2], [0], [])]
    accounting = pipeline.report().accounting
    assert (accounting.created, accounting.dropped) == (2, 0)


def test_a_child_may_become_several() -> None:
    """All of them are results of it; it has ended when the last of them has."""

    def twice(patch: int) -> Iterator[int]:
        yield patch
        yield -patch

    items, _ = run(PipelineBuilder().add_source([1]).fanout(three).pipe(twice).pipe(fails_at(11)).gather())
    assert (items[0].results, items[0].indices) == ([-10, 10, 11, -12, 12], [0, 0, 1, 2, 2])
    assert list(items[0].errors) == [1]


def test_children_are_tried_again() -> None:
    """What is transient is no failure of theirs."""
    seen = Counter[int]()

    def op(patch: int) -> int:
        seen[patch] += 1
        if seen[patch] == 1:
            raise ConnectionResetError
        return patch

    items, _ = run(PipelineBuilder().add_source([1]).fanout(three).pipe(op, on_failure=Retry(2, first=0.0)).gather())
    assert (items[0].results, items[0].errors) == (three(1), {})


# -- batches of children ----------------------------------------------------------------------------------------------


def test_children_of_several_parents_travel_in_batches() -> None:
    """An aggregate, an operation on lists, a disaggregate: each result is that of its own child."""
    sizes: list[int] = []

    def on_batch(patches: list[int]) -> list[int | None]:
        sizes.append(len(patches))
        return [None if patch % 10 == 1 else -patch for patch in patches]

    builder = PipelineBuilder().add_source(range(5)).fanout(three).aggregate(4).pipe(on_batch).disaggregate()
    items, _ = run(builder.pipe(fails_at(-22)).gather())
    assert sizes == [4, 4, 4, 3]
    assert [(item.results, list(item.errors), item.dropped) for item in by_parent(items)] == [
        ([10 * page, 10 * page + 2] if page != 2 else [20], [] if page != 2 else [2], [1]) for page in range(5)
    ]


def test_a_batch_that_fails_is_a_failure_of_each_child_in_it() -> None:
    """Of whatever parents they are."""

    def on_batch(patches: list[int]) -> list[int]:
        if 10 in patches:
            raise ValueError(patches)
        return patches

    builder = PipelineBuilder().add_source(range(3)).fanout(three).aggregate(2).pipe(on_batch).disaggregate()
    items, pipeline = run(builder.gather())
    assert [list(item.errors) for item in by_parent(items)] == [[2], [0], []]
    assert pipeline.report().accounting.failed == 1


def test_members_of_a_batch_may_fail_alone() -> None:
    """An Outcome in the place of a member says so."""

    def on_batch(patches: list[int]) -> list[Any]:
        wrong = Outcome(failures=(ItemFailure("patch 11", ValueError("blank")),))
        return [wrong if patch == 11 else patch for patch in patches]

    builder = PipelineBuilder().add_source([1]).fanout(three).aggregate(3).pipe(on_batch).disaggregate().gather()
    items, pipeline = run(builder)
    assert (items[0].results, items[0].indices, list(items[0].errors)) == ([10, 12], [0, 2], [1])
    assert pipeline.report().accounting.failed == 1


@pytest.mark.parametrize("made", [[1, 2], [1, 2, 3, 4]])
def test_a_batch_that_comes_back_with_another_length_is_an_error_of_the_program(made: list[int]) -> None:
    """It cannot be told whose child is missing."""
    builder = PipelineBuilder().add_source([1]).fanout(three).aggregate(3).pipe(lambda _: made).disaggregate()
    with pytest.raises(PipelineFailure) as caught:
        run(builder.gather())
    assert f"a list of 3 children came here as {len(made)} values" in str(caught.value.exceptions[0])


def test_lists_of_lists_of_children() -> None:
    """As many disaggregates as aggregates."""
    builder = PipelineBuilder().add_source(range(4)).fanout(three).aggregate(2).aggregate(2).disaggregate()
    items, _ = run(builder.disaggregate().gather())
    assert [item.results for item in by_parent(items)] == [three(page) for page in range(4)]


def test_the_rest_of_a_batch_may_be_dropped() -> None:
    """`drop_last` drops children, and their parent says which."""
    builder = PipelineBuilder().add_source([1]).fanout(three).aggregate(2, drop_last=True).disaggregate().gather()
    items, _ = run(builder)
    assert (items[0].results, items[0].dropped) == ([10, 11], [2])


# -- loops and nests --------------------------------------------------------------------------------------------------


def test_children_go_round_in_a_loop() -> None:
    """A child is not back before all its passes are over; with a batch in the loop, too."""
    seen = Counter[int]()

    def again(patch: int) -> Any:
        seen[patch] += 1
        return Feedback(patch) if seen[patch] < 3 else patch

    builder = PipelineBuilder().add_source(range(4)).fanout(three).aggregate(2, name="batch").disaggregate()
    builder.pipe(lambda patch: patch, name="head").pipe(again, feedback="head").gather()
    items, _ = run(builder)
    assert [item.results for item in by_parent(items)] == [three(page) for page in range(4)]
    assert set(seen.values()) == {3}


@pytest.mark.parametrize("count", [1, 5])
def test_a_loop_may_lead_around_fanout_and_gather(count: int) -> None:
    """A parent whose children failed is sent back as a whole, and the end comes when nothing goes round any more."""
    failed = set[int]()

    def op(patch: int) -> int:
        if patch % 10 == 1 and patch not in failed:
            failed.add(patch)
            raise ValueError(patch)
        return patch

    def judge(page: Gathered) -> Any:
        return Feedback(page.value) if page.errors else page

    builder = PipelineBuilder().add_source(range(count)).pipe(lambda page: page, name="head").fanout(three)
    builder.aggregate(4).disaggregate().pipe(op, concurrency=2).gather().pipe(judge, feedback="head")
    items, _ = run(builder)
    assert [item.results for item in by_parent(items)] == [three(page) for page in range(count)]


def test_children_may_have_children() -> None:
    """A fan-out inside of another one: the inner ones are gathered first."""
    builder = PipelineBuilder().add_source([1, 2]).fanout(lambda book: [10 * book, 10 * book + 1], name="pages")
    builder.fanout(three, name="patches").aggregate(4).disaggregate().pipe(fails_at(201), concurrency=2)
    items, _ = run(builder.gather(name="page", child_failures=0).gather(name="book"))
    books = by_parent(items)
    assert [[page.value for page in book.results] for book in books] == [[10, 11], [21]]
    assert [page.results for page in books[0].results] == [[-100, -101, -102], [-110, -111, -112]]
    assert isinstance(books[1].errors[0], ChildrenFailedError)


# -- failing parents --------------------------------------------------------------------------------------------------


class Letters(PlainValues):
    """Dead letters, and what is given back."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, Any, Exception]] = []
        self.discarded = Counter[Any]()

    def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> Callable[[], object] | None:
        self.letters += [(stage, value, failure.error) for failure in failures]
        return None

    def discard(self, value: Any) -> None:
        if isinstance(value, Gathered):
            self.discarded[value.value] += 1
            value = value.results
        self.discarded.update(value if isinstance(value, list) else [value])


@pytest.mark.parametrize(("allowed", "gone"), [(0, [1, 2]), (1, [2]), (Fraction(1, 3), [2]), (2, []), (-1, [])])
def test_a_parent_fails_of_too_many_children(allowed: Any, gone: list[int]) -> None:
    """It is a dead letter of the gather; its other children are given back, each once."""
    letters = Letters()
    builder = PipelineBuilder(letters).add_source([0, 1, 2]).fanout(three).pipe(fails_at(10, 21, 22), name="op")
    items, pipeline = run(builder.gather(child_failures=allowed))
    assert [item.value for item in by_parent(items)] == [page for page in range(3) if page not in gone]
    assert sorted(value for stage, value, _ in letters.letters if stage == "gather") == gone
    results = [-value for value in (11, 12, 20) if value // 10 in gone]
    assert letters.discarded == Counter([10, 21, 22, *gone, *results])
    assert pipeline.report().accounting.failed == 3 + len(gone)
    if gone:
        error = next(error for stage, value, error in letters.letters if value == 2 and stage == "gather")
        assert isinstance(error, ChildrenFailedError)
        assert str(error) == "2 of 3 children failed; the first, 1: ValueError: 21"
        assert isinstance(error.__cause__, ValueError)


def test_failed_parents_count_against_the_budget() -> None:
    """`build(max_failures=)` is about them as about items of other stages: the end comes when it is spent."""
    builder = PipelineBuilder().add_source(range(1000)).fanout(three).pipe(fails_at(10, 40), max_failures=-1)
    pipeline = builder.gather(child_failures=0).add_sink().build(num_threads=2, max_failures=1)
    with pytest.raises(PipelineFailure, match="gather"):
        list(pipeline)
    assert pipeline.report().accounting.read < 1000


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_fanout_that_fails_in_the_middle_fails_the_parent(after: int) -> None:
    """The children it has made by then are given back when they arrive; others go on."""
    letters = Letters()

    def broken(page: int) -> Iterator[int]:
        yield from three(page)[: after if page == 1 else 3]
        if page == 1:
            raise OSError("a page is torn")

    builder = PipelineBuilder(letters).add_source([0, 1, 2]).fanout(broken, name="cut").pipe(lambda patch: -patch)
    items, pipeline = run(builder.gather())
    assert [item.value for item in items] == [0, 2]
    assert [(stage, value) for stage, value, _ in letters.letters] == [("cut", 1)]
    assert letters.discarded == Counter([1, *(-patch for patch in three(1)[:after])])
    assert (pipeline.report().accounting.failed, pipeline.report().accounting.dropped) == (1, after)


def test_a_fanout_may_drop_a_value() -> None:
    """None instead of children."""
    items, pipeline = run(
        PipelineBuilder().add_source([0, 1]).fanout(lambda page: three(page) if page else None).gather()
    )
    assert [item.value for item in items] == [1]
    assert pipeline.report().accounting.dropped == 1


def test_what_is_not_iterable_is_a_failure_of_the_parent() -> None:
    """As anything else the operation does."""
    builder = PipelineBuilder().add_source([0, 1]).fanout(lambda page: three(page) if page else 7)
    items, pipeline = run(builder.gather())
    assert [item.value for item in items] == [1]
    assert pipeline.report().accounting.failed == 1


# -- bounds and ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["pass", "drop", "none"])
def test_memory_is_bounded_where_nobody_reads(fate: str) -> None:
    """Also where all children are dropped, and where there are none."""

    def op(patch: int) -> int | None:
        return None if fate == "drop" else patch

    builder = PipelineBuilder().add_source(itertools.count()).fanout(lambda page: [] if fate == "none" else three(page))
    pipeline = builder.pipe(op, concurrency=2).gather().add_sink(2).build(num_threads=2)
    with pipeline.auto_stop():
        for _ in range(20):
            assert isinstance(pipeline.get_item(timeout=DEADLINE), Gathered)
            wait_until(lambda: pipeline.report().stages[-1].in_flight == 2)
            report = pipeline.report()
            report.check()
            assert report.accounting.in_flight <= 60


def test_a_short_batch_at_the_end_keeps_no_parent_waiting() -> None:
    """The aggregate lets go of it when the fan-out has ended."""
    items, _ = run(PipelineBuilder().add_source([1]).fanout(three).aggregate(100).disaggregate().gather())
    assert items[0].results == three(1)


def test_an_early_stop_gives_everything_back_once() -> None:
    """Parents that wait, children on their way, results that have arrived; and the accounting holds."""
    letters, go, inside = Letters(), threading.Event(), threading.Event()

    def op(patch: int) -> int:
        if patch == 12:
            inside.set()
            go.wait(DEADLINE)
        return patch + 1000

    builder = PipelineBuilder(letters).add_source([0, 1, 2]).fanout(three).pipe(op).gather()
    pipeline = builder.add_sink(1).build(num_threads=1)
    with pipeline.auto_stop(discard=True):
        assert inside.wait(DEADLINE)
        assert pipeline.get_item(timeout=DEADLINE).value == 0
        wait_until(lambda: pipeline.report().accounting.read == 3)
        go.set()
        pipeline._runtime.request_stop()  # pyright: ignore[reportPrivateUsage]
    assert threads_of(pipeline) == []
    report = pipeline.report()
    report.check()
    assert report.accounting.delivered == 1
    gone = letters.discarded
    assert max(gone.values()) == 1
    for page in (1, 2):
        assert gone[page] == 1
        for patch in three(page):
            assert gone[patch] + gone[patch + 1000] <= 1
    assert gone[1010] == gone[1011] == 1


def test_a_fatal_failure_delivers_the_parents_that_are_past_it() -> None:
    """Those with children before it are in flight."""
    builder = (
        PipelineBuilder().add_source(range(9)).fanout(three).pipe(fails_at(40), max_failures=0, output_order="input")
    )
    pipeline = builder.gather().add_sink(50).build(num_threads=1)
    got: list[Gathered] = []
    with pytest.raises(PipelineFailure):
        got.extend(pipeline)
    assert [item.value for item in got] == [0, 1, 2, 3]
    report = pipeline.report()
    report.check()
    assert report.accounting.in_flight > 0


# -- wrong ones -------------------------------------------------------------------------------------------------------


def pages() -> PipelineBuilder:
    return PipelineBuilder().add_source([])


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (pages().gather(), "'gather': there is no fanout before this gather"),
        (pages().fanout(three), "fanout 'three' has no gather behind it"),
        (pages().fanout(three).gather().gather(), "'gather#2': there is no fanout"),
        (pages().fanout(three).fanout(three_each).gather(), "fanout 'three' has no gather"),
        (pages().fanout(three).aggregate(2).gather(), "would gather lists"),
        (
            pages().pipe(str, name="a").fanout(three).pipe(str, feedback="a").gather(),
            "feedback='a' of stage 'str' leads across a fanout",
        ),
        (pages().fanout(three).pipe(str, feedback="three").gather(), "leads across a fanout"),
        (
            pages().fanout(three).pipe(str, name="a").aggregate(2).pipe(len, feedback="a").disaggregate().gather(),
            "leads across",
        ),
    ],
)
def test_what_cannot_be_gathered_is_refused_at_build(builder: PipelineBuilder, message: str) -> None:
    """By the names of the stages."""
    with pytest.raises(ConfigError, match=message):
        builder.add_sink().build(num_threads=1)


def test_wrong_settings_are_refused_by_name() -> None:
    """At once."""
    with pytest.raises(ConfigError, match="child_failures=-2"):
        PipelineBuilder().gather(child_failures=-2)
    with pytest.raises(ConfigError, match="concurrency=0"):
        PipelineBuilder().fanout(three, concurrency=0)


def test_a_fanout_makes_children_only() -> None:
    """It has no feedback edge."""
    builder = PipelineBuilder().add_source([1]).fanout(lambda page: [Feedback(page)]).gather()
    with pytest.raises(PipelineFailure) as caught:
        run(builder)
    assert "a fanout only makes children" in str(caught.value.exceptions[0])
