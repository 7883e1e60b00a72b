"""What is to be done about a failure, and may wait, is done by whoever reads the pipeline; the hub goes on."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from penstock.engine import ItemFailure, Outcome, Pipeline, PipelineBuilder, PlainValues, Report
from penstock.errors import PipelineFailure
from penstock.tests.threads import threads_of
from penstock.tests.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("error")


@dataclass
class Written(PlainValues):
    """A value model that writes down what failed, where one may wait."""

    items: list[str] = field(default_factory=list[str])
    threads: set[str] = field(default_factory=set[str])
    discarded: list[Any] = field(default_factory=list[Any])
    refuses: Callable[[str], bool] = lambda _: False

    def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> Callable[[], object]:
        return partial(self.write, stage, [failure.key or str(value) for failure in failures])

    def write(self, stage: str, keys: Sequence[str]) -> None:
        self.threads.add(threading.current_thread().name)
        if any(map(self.refuses, keys)):
            raise OSError(28, "No space left on device")
        self.items += [f"{stage} {key}" for key in keys]

    def discard(self, value: Any) -> None:
        self.discarded.append(value)


def odd_fails(x: int) -> int:
    if x % 2:
        raise ValueError(x)
    return x


def build(values: Written, source: Any, op: Any = odd_fails, sink: int = 4, **knobs: Any) -> Pipeline:
    return PipelineBuilder(values).add_source(source).pipe(op, name="op", **knobs).add_sink(sink).build(num_threads=2)


def figures(report: Report) -> tuple[int, int, int]:
    """Read, failed and in flight; the books balance."""
    report.check()
    return report.accounting.read, report.accounting.failed, report.accounting.in_flight


def test_failures_are_written_in_the_readers_thread() -> None:
    """All of them, before the end is told."""
    values = Written()
    pipeline = build(values, range(10))
    with pipeline.auto_stop():
        assert list(pipeline) == [0, 2, 4, 6, 8]
    assert values.threads == {threading.current_thread().name}
    assert values.items == [f"op {x}" for x in range(1, 10, 2)]
    assert figures(pipeline.report()) == (10, 5, 0)


def test_what_nobody_has_written_down_is_in_flight() -> None:
    """Failed is what is written; until then, also after a stop, it is in flight. It stays readable as values do."""
    values = Written()
    pipeline = build(values, [1, 3])
    pipeline.start()
    wait_until(lambda: pipeline.report().stages[-1].channel["items"] == 2)  # type: ignore[index]
    assert figures(pipeline.report()) == (2, 0, 2)
    pipeline.stop()
    assert values.items == []
    assert figures(pipeline.report()) == (2, 0, 2)
    assert list(pipeline) == []
    assert values.items == ["op 1", "op 3"]
    assert figures(pipeline.report()) == (2, 2, 0)


def test_failures_that_nobody_reads_hold_the_source_up() -> None:
    """They take the room of values: memory is bounded where every item fails."""
    drawn = itertools.count(1)

    def endless() -> Iterator[int]:
        return (2 * next(drawn) + 1 for _ in itertools.count())

    pipeline = build(Written(), endless(), sink=2)
    with pipeline.auto_stop():
        wait_until(lambda: pipeline.report().stages[1].wait_out > 0)
        full = pipeline.report().stages[-1].channel
        assert full is not None
        assert full.items == 2
        assert next(drawn) < 30
    read, failed, in_flight = figures(pipeline.report())
    assert failed == 0
    assert read == in_flight


def test_reading_ends_in_time_though_failures_keep_coming() -> None:
    """Whoever reads with a timeout gets to look at the clock."""
    pipeline = build(Written(), (1 for _ in itertools.count()))
    with pipeline.auto_stop():
        wait_until(lambda: pipeline.report().stages[1].wait_out > 0)
        with pytest.raises(TimeoutError):
            pipeline.get_item(timeout=0.05)
        report = pipeline.report()
    report.check()
    assert report.accounting.failed


@pytest.mark.parametrize("ended", [False, True])
def test_a_failure_that_cannot_be_written_ends_the_pipeline(ended: bool) -> None:
    """With its error and its stage, whether the stages have ended meanwhile or not; the items stay in flight."""
    values = Written(refuses=lambda key: key == "3")
    source: Any = range(6) if ended else itertools.count()
    pipeline = build(values, source, sink=10 if ended else 1)
    pipeline.start()
    if ended:
        wait_until(lambda: not threads_of(pipeline))
    got: list[int] = []
    with pytest.raises(PipelineFailure, match="stage 'op': stopped") as caught:
        got.extend(pipeline)
    (cause,) = caught.value.exceptions
    assert isinstance(cause, OSError)
    assert cause.__notes__ == ["penstock stage: op"]
    assert got[:3] == [0, 2, 4] if ended else got[:2] == [0, 2]
    assert "op 3" not in values.items
    pipeline.stop()
    report = pipeline.report()
    report.check()
    assert report.accounting.in_flight >= 1
    assert report.accounting.failed == len(values.items)


@pytest.mark.parametrize("place", ["source", "op"])
def test_a_value_whose_failures_find_no_room_is_given_back(place: str) -> None:
    """A stop comes while a part's failures wait for room; the rest of it could not go on yet."""
    values = Written()

    def op(x: int) -> Outcome:
        return Outcome(-x, failures=[ItemFailure(str(x), ValueError(x))])

    source: Any = map(op, itertools.count(1)) if place == "source" else itertools.count(1)
    pipeline = build(values, source, (lambda x: x) if place == "source" else op, sink=1)
    pipeline.start()
    stage = 0 if place == "source" else 1
    wait_until(lambda: pipeline.report().stages[stage].wait_out > 0)
    pipeline.stop()
    made = [value for value in values.discarded if isinstance(value, int) and value < 0]
    assert len(made) == len(set(made)) >= 1
    pipeline.report().check()


def test_a_stage_that_keeps_the_order_fails_in_it() -> None:
    """Also where the failures have to wait for room."""
    values = Written()
    pipeline = build(values, range(40), sink=1, concurrency=4, output_order="input")
    with pipeline.auto_stop():
        assert list(pipeline) == list(range(0, 40, 2))
    assert values.items == [f"op {x}" for x in range(1, 40, 2)]
