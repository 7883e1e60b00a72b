"""Nothing is lost silently: the books balance at any moment, for any graph, and each value ends in exactly one way."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine import (
    NOTHING,
    Accounting,
    ItemFailure,
    Outcome,
    Pipeline,
    PipelineBuilder,
    PlainValues,
    Report,
    StageReport,
)
from penstock.errors import AccountingError, PipelineFailure
from penstock.tests.waiting import DEADLINE


def check_stages(report: Report) -> None:
    """Each stage's own books, and what leaves one enters the next."""
    for stage in report.stages:
        left = stage.items_out + stage.dropped + stage.failed + stage.merged + stage.in_flight
        assert stage.items_in + stage.created == left, stage
    for before, after in itertools.pairwise(report.stages):
        assert before.items_out == after.items_in
    report.accounting.check()


# -- random graphs ----------------------------------------------------------------------------------------------------

Behaviour = Literal["pass", "drop", "raise", "many", "none"]


@dataclass(frozen=True)
class Step:
    """One random stage: what it does with an item depends on the item's number."""

    kind: Literal["blocking", "async", "green", "aggregate", "disaggregate"]
    order: Literal["completion", "input"]
    concurrency: int
    pattern: tuple[Behaviour, ...]

    def behaviour(self, value: Any) -> Behaviour:
        return self.pattern[crc32(str(value).encode()) % len(self.pattern)]

    def one(self, value: Any) -> Any:
        match self.behaviour(value):
            case "raise":
                raise ValueError(value)
            case "drop" | "none":
                return None
            case _:
                return value

    async def one_later(self, value: Any) -> Any:
        await asyncio.sleep(0)
        return self.one(value)

    def many(self, value: Any) -> Iterator[Any]:
        behaviour = self.behaviour(value)
        if behaviour == "none":
            return
        yield value
        if behaviour == "raise":
            raise ValueError(value)
        if behaviour == "many":
            yield from (value, None, value)

    def declare(self, builder: PipelineBuilder) -> None:
        if self.kind == "aggregate":
            builder.aggregate(len(self.pattern), drop_last=self.order == "input")
        elif self.kind == "disaggregate":
            builder.disaggregate()
        else:
            op: Any = self.one_later if self.kind == "async" else self.many if "many" in self.pattern else self.one
            builder.pipe(
                op,
                concurrency=self.concurrency,
                output_order=self.order,
                kind="green" if self.kind == "green" else None,
                buffer_size=self.concurrency,
            )


steps = st.builds(
    Step,
    st.sampled_from(["blocking", "async", "green", "aggregate", "disaggregate"]),
    st.sampled_from(["completion", "input"]),
    st.integers(1, 3),
    st.lists(st.sampled_from(["pass", "drop", "raise", "many", "none"]), min_size=1, max_size=4).map(tuple),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=4), st.integers(0, 20), st.integers(1, 3), st.one_of(st.none(), st.integers(0, 6)))
def test_the_books_of_any_graph_balance(graph: list[Step], n: int, sink: int, stop_after: int | None) -> None:
    """Random stages, failures, drops and early stops: every unit is in exactly one place, at any time."""
    builder = PipelineBuilder().add_source(range(n))
    for step in graph:
        step.declare(builder)
    pipeline = builder.add_sink(sink).build(num_threads=2)
    check_stages(pipeline.report())
    delivered = 0
    with pipeline.auto_stop():
        for _ in itertools.islice(pipeline.get_iterator(timeout=DEADLINE), stop_after):
            delivered += 1
            check_stages(pipeline.report())
    report = pipeline.report()
    check_stages(report)
    assert report.accounting.delivered == delivered
    if stop_after is None:
        assert report.accounting.in_flight == 0
        assert report.accounting.read == n


def test_a_report_can_be_had_at_any_time() -> None:
    """Before the start, while it runs, after the end; always balanced, while everything moves."""
    pipeline = (
        PipelineBuilder()
        .add_source(range(3000))
        .pipe(lambda x: x or None, concurrency=2)
        .add_sink()
        .build(num_threads=2)
    )
    assert pipeline.report().accounting == Accounting()
    stop = threading.Event()
    seen: list[Report] = []

    def watch() -> None:
        while not stop.is_set():
            seen.append(pipeline.snapshot())

    watcher = threading.Thread(target=watch)
    with pipeline.auto_stop():
        watcher.start()
        assert len(list(pipeline)) == 2999
        stop.set()
        watcher.join(DEADLINE)
    assert len(seen) > 3
    for report in seen:
        check_stages(report)
    final = pipeline.report().accounting
    assert (final.read, final.delivered, final.dropped, final.failed, final.in_flight) == (3000, 2999, 1, 0, 0)
    assert (final.created, final.merged) == (0, 0)


def test_missing_items_are_an_error_that_says_how_many() -> None:
    """The check can fail."""
    Accounting(read=3, delivered=1, failed=1, in_flight=1).check()
    with pytest.raises(AccountingError, match="2 missing"):
        Accounting(read=5, delivered=1, failed=1, in_flight=1).check()
    with pytest.raises(AccountingError, match="1 too many"):
        Accounting(read=5, delivered=6).check()


def test_a_report_reads_like_an_object_and_like_a_mapping() -> None:
    """Attributes, keys, aliases of jobs, and plain data for JSON."""
    with PipelineBuilder().add_source(range(4)).pipe(abs).add_sink().build(num_threads=1).auto_stop() as pipeline:
        list(pipeline)
    report = pipeline.report()
    assert report["accounting"]["read"] == report.accounting.read == 4
    assert report.accounting.written == report["accounting"]["written"] == 4
    assert (report.accounting.filtered, report.accounting.dead) == (0, 0)
    assert report.images_per_second == report.items_per_second > 0
    assert [stage["name"] for stage in report["stages"]] == ["source", "abs", "sink"]
    assert dict(report.accounting) == report.to_dict()["accounting"]
    assert json.loads(json.dumps(report.to_dict()))["stages"][1]["items_in"] == 4
    for wrong in ("nothing", "_private"):
        with pytest.raises(KeyError):
            report[wrong]
    assert StageReport("a", "green") == StageReport("a", "green")


# -- values that stand for many ---------------------------------------------------------------------------------------


@dataclass
class Batch:
    """Some items that travel together."""

    items: list[int]
    name: str = ""


@dataclass
class Books(PlainValues):
    """A value model that writes everything down, and knows which values live."""

    failures: list[tuple[str, tuple[int, ...], list[str]]] = field(default_factory=list[Any])
    discarded: list[int] = field(default_factory=list[int])
    threads: set[str] = field(default_factory=set[str])

    def units(self, value: Any) -> int:
        self.threads.add(threading.current_thread().name)
        return sum(map(self.units, value)) if isinstance(value, list) else len(value.items)

    def nbytes(self, value: Any) -> int:
        return 100 * self.units(value)

    def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> None:
        self.threads.add(threading.current_thread().name)
        self.failures.append((stage, tuple(value.items), [failure.key for failure in failures]))

    def discard(self, value: Any) -> None:
        self.threads.add(threading.current_thread().name)
        if isinstance(value, list):
            for each in value:
                self.discard(each)
        else:
            self.discarded.append(id(value))


def batches(sizes: Sequence[int]) -> list[Batch]:
    return [Batch(list(range(size))) for size in sizes]


def finish(builder: PipelineBuilder, num_threads: int = 2, **knobs: Any) -> tuple[list[Any], Report, Pipeline]:
    pipeline = builder.add_sink().build(num_threads=num_threads, **knobs)
    with pipeline.auto_stop():
        items = list(pipeline)
    report = pipeline.report()
    check_stages(report)
    return items, report, pipeline


def test_all_counts_are_in_units() -> None:
    """A batch of five counts as five, wherever it is."""
    items, report, _ = finish(PipelineBuilder(Books()).add_source(batches([5, 3, 2])).pipe(lambda b: b))
    assert len(items) == 3
    assert [stage.items_in for stage in report.stages] == [10, 10, 10]
    assert report.accounting.read == report.accounting.delivered == 10


def test_the_model_is_asked_in_the_engines_thread_only() -> None:
    """A model needs no locks."""
    books = Books()
    finish(PipelineBuilder(books).add_source(batches([1, 2])).pipe(lambda b: b if len(b.items) > 1 else None))
    assert len(books.threads) == 1
    assert books.threads.pop().startswith("penstock-")


def test_an_operation_that_raises_fails_all_units_of_its_value() -> None:
    """One call to the model, with the error, and the value given back."""
    books, source = Books(), batches([4, 2])

    def op(batch: Batch) -> Batch:
        if len(batch.items) == 4:
            raise ValueError("all four")
        return batch

    _, report, _ = finish(PipelineBuilder(books).add_source(source).pipe(op, name="op"))
    assert report.accounting.failed == 4
    assert books.failures == [("op", (0, 1, 2, 3), [""])]
    assert books.discarded == [id(source[0])]


def test_an_outcome_fails_and_drops_parts_of_a_batch() -> None:
    """The rest goes on as another value; the parts are booked one by one."""
    books, source = Books(), batches([6])

    def op(batch: Batch) -> Outcome:
        failures = [ItemFailure("a", ValueError()), ItemFailure("b", ValueError(), attempts=3)]
        return Outcome(Batch(batch.items[3:]), failures=failures, dropped=1, seconds=2.0, details={"read": 0.5})

    items, report, _ = finish(PipelineBuilder(books).add_source(source).pipe(op, name="op"))
    assert items == [Batch([3, 4, 5])]
    accounting = report.accounting
    assert (accounting.read, accounting.failed, accounting.dropped, accounting.delivered) == (6, 2, 1, 3)
    assert (accounting.created, accounting.merged) == (0, 0)
    assert books.failures == [("op", (0, 1, 2, 3, 4, 5), ["a", "b"])]
    assert books.discarded == []
    assert report.stages[1].mean_ms == pytest.approx(2000)
    assert report.stages[1].details == {"read": 0.5}


@pytest.mark.parametrize("value", [None, NOTHING])
def test_an_outcome_without_a_value_gives_the_whole_value_back(value: Any) -> None:
    """What is neither failed nor emitted is dropped."""
    books, source = Books(), batches([3])

    def op(_: Batch) -> Outcome:
        return Outcome(value, failures=[ItemFailure("a", ValueError())])

    _, report, _ = finish(PipelineBuilder(books).add_source(source).pipe(op))
    assert (report.accounting.failed, report.accounting.dropped) == (1, 2)
    assert books.discarded == [id(source[0])]


def test_units_that_appear_or_vanish_are_created_or_merged() -> None:
    """An operation may make more of a value, or less; the books say so."""
    builder = PipelineBuilder(Books()).add_source(batches([2, 4]))
    _, report, _ = finish(builder.pipe(lambda b: Batch(b.items * 3)).pipe(lambda b: Batch(b.items[:1])))
    assert (report.accounting.created, report.accounting.merged, report.accounting.delivered) == (12, 16, 2)


def test_a_source_may_say_what_was_filtered_or_broken() -> None:
    """Outcomes of a source count as read."""
    source = [
        Outcome(Batch([1, 2]), dropped=3, failures=[ItemFailure("x", OSError())]),
        Outcome(dropped=2),
        Batch([3]),
    ]
    items, report, _ = finish(PipelineBuilder(Books()).add_source(source).pipe(lambda b: b))
    assert len(items) == 2
    accounting = report.accounting
    assert (accounting.read, accounting.dropped, accounting.failed, accounting.delivered) == (9, 5, 1, 3)
    assert report.stages[0].dropped == 5


def test_aggregate_counts_units_with_a_model() -> None:
    """Lists are emitted when their units reach n; the books stay in units."""
    items, report, _ = finish(PipelineBuilder(Books()).add_source(batches([3, 3, 1, 5, 2])).aggregate(5))
    assert [[len(batch.items) for batch in group] for group in items] == [[3, 3], [1, 5], [2]]
    assert (report.accounting.created, report.accounting.merged) == (0, 0)
    assert report.accounting.delivered == 14


def test_aggregate_waits_no_longer_than_max_wait() -> None:
    """A short list goes on when its first value has waited long enough."""
    go = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        yield 2
        assert go.wait(DEADLINE)
        yield 3

    builder = PipelineBuilder().add_source(source()).aggregate(100, max_wait=0.02).add_sink()
    with builder.build(num_threads=1).auto_stop() as pipeline:
        first = pipeline.get_item(timeout=DEADLINE)
        go.set()
        rest = [value for group in pipeline for value in group]
    assert [*first, *rest] == [1, 2, 3]
    check_stages(pipeline.report())


def test_a_short_list_that_is_dropped_is_given_back() -> None:
    """`drop_last` drops units, and says so."""
    books, source = Books(), batches([2, 2, 1])
    _, report, _ = finish(PipelineBuilder(books).add_source(source).aggregate(4, drop_last=True))
    assert report.accounting.dropped == 1
    assert books.discarded == [id(source[2])]


@pytest.mark.parametrize("kind", ["blocking", "async", "green"])
@pytest.mark.parametrize("stop_after", [None, 0, 3])
def test_each_value_is_either_emitted_or_given_back_exactly_once(kind: str, stop_after: int | None) -> None:
    """Also after an early stop, wherever the values are at that moment."""
    books, source = Books(), batches([1, 2, 3, 4, 5] * 8)

    def op(batch: Batch) -> Batch | None:
        if len(batch.items) == 4:
            raise ValueError
        return None if len(batch.items) == 2 else batch

    async def later(batch: Batch) -> Batch | None:
        await asyncio.sleep(0)
        return op(batch)

    drawn: list[Batch] = []

    def draw() -> Iterator[Batch]:
        for batch in source:
            drawn.append(batch)
            yield batch

    builder = PipelineBuilder(books).add_source(draw())
    for _ in range(2):
        builder.pipe(later if kind == "async" else op, kind="green" if kind == "green" else None, concurrency=3)
    builder.aggregate(7).disaggregate()
    pipeline = builder.add_sink().build(num_threads=3)
    with pipeline.auto_stop():
        got = list(itertools.islice(pipeline, stop_after))
    got.extend(pipeline)  # what was left in the sink
    emitted = Counter(id(batch) for batch in got)
    discarded = Counter(books.discarded)
    assert set((emitted + discarded).values()) <= {1}
    assert emitted + discarded == Counter(id(batch) for batch in drawn)
    check_stages(pipeline.report())


def test_a_model_that_raises_stops_the_pipeline() -> None:
    """Without its books a pipeline cannot go on."""

    class Broken(Books):
        def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> None:
            raise OSError("the dead letters cannot be written")

    pipeline = PipelineBuilder(Broken()).add_source(batches([1])).pipe(lambda _: 1 // 0).add_sink().build(num_threads=1)
    with pytest.raises(PipelineFailure) as caught, pipeline.auto_stop():
        list(pipeline)
    assert isinstance(caught.value.exceptions[0], OSError)
