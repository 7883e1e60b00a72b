"""A value of which some items failed: the good part goes on at once, the rest is tried again and goes on by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine import NOTHING, Fail, ItemFailure, Outcome, PipelineBuilder, Retry
from penstock.engine.core.definitions import Order
from penstock.errors import PipelineFailure
from penstock.tests.flaky import NEVER, SOON, Flaky, RecordingValues, built, finish, op_of
from penstock.tests.waiting import DEADLINE


class Lists(RecordingValues):
    """Values are tuples of items; a part of one is a tuple, too."""

    def units(self, value: Any) -> int:
        return len(value)

    def part(self, value: Any, failures: Sequence[ItemFailure]) -> Any:
        wanted = {failure.key for failure in failures}
        return tuple(item for item in value if item in wanted)


def each_alone(op: Callable[[Any], Any]) -> Callable[[tuple[str, ...]], Outcome]:
    """An operation on tuples that tells which items failed."""

    def batch(items: tuple[str, ...]) -> Outcome:
        done: list[str] = []
        failures: list[ItemFailure] = []
        for item in items:
            try:
                done.append(op(item))
            except Exception as error:
                failures.append(ItemFailure(item, error))
        return Outcome(tuple(done) if done else NOTHING, failures=failures)

    return batch


def test_the_good_part_goes_on_at_once_and_the_rest_as_a_value_of_its_own() -> None:
    """Three of five are waited for; the books hold meanwhile."""
    op = Flaky(lambda item: item in "abc")
    builder = PipelineBuilder(Lists()).add_source([tuple("abcde")])
    pipeline = built(builder.pipe(each_alone(op), name="op", on_failure=NEVER))
    pipeline.start()
    assert pipeline.get_item(timeout=DEADLINE) == ("d", "e")
    stage = op_of(pipeline)
    assert (stage.items_out, stage.in_flight, stage.retrying, stage.failed) == (2, 3, 3, 0)
    pipeline.drain()
    assert list(pipeline) == [("a", "b", "c")]
    assert (op_of(pipeline).retried, op.calls["a"], op.calls["d"]) == (3, 2, 1)
    pipeline.stop()


def test_each_part_has_its_own_end_in_the_books() -> None:
    """Of three items two become one at the first attempt, and the third is dropped and given back at the second."""

    def op(items: tuple[str, ...]) -> Outcome | None:
        return Outcome(("bc",), failures=[ItemFailure("a", ConnectionResetError())]) if len(items) == 3 else None

    model = Lists()
    pipeline = built(PipelineBuilder(model).add_source([("a", "b", "c")]).pipe(op, name="op", on_failure=SOON))
    assert finish(pipeline) == [("bc",)]
    stage = op_of(pipeline)
    assert (stage.items_in, stage.items_out, stage.merged, stage.dropped, stage.created) == (3, 1, 1, 1, 0)
    assert model.discarded == [("a",)]


def test_a_model_that_knows_no_parts_leaves_failures_as_they_are() -> None:
    """The whole is not done twice for one item's sake."""
    op, model = Flaky(lambda item: 99 * (item == "b")), RecordingValues()
    builder = PipelineBuilder(model).add_source([("a", "b")]).pipe(each_alone(op), name="op", on_failure=SOON)
    assert finish(built(builder)) == [("a",)]
    assert (model.failures, op.calls["b"]) == ([("b", 1)], 1)


def test_a_part_that_fails_can_end_it_all() -> None:
    """What was good is delivered; what was not is named, and stays in flight with the others that failed."""
    model = Lists()
    builder = PipelineBuilder(model).add_source([tuple("abcde"), ("f",)])
    op = each_alone(Flaky(lambda item: 99 * (item in "bd")))
    pipeline = built(builder.pipe(op, name="op", on_failure=Retry(2, first=0.001, then=Fail())))
    pipeline.start()
    assert pipeline.get_item(timeout=DEADLINE) == ("a", "c", "e")
    with pytest.raises(PipelineFailure, match="item b failed at attempt 2"):
        list(pipeline)
    assert (op_of(pipeline).failed, op_of(pipeline).in_flight >= 2, model.failures) == (0, True, [])


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), max_size=6),
    st.sampled_from(["completion", "input"]),
    st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_every_item_arrives_once_or_fails_once(plan: list[list[int]], order: Order, concurrency: int) -> None:
    """However often each fails: it arrives if it is well within three attempts, else it is a failure of three."""
    batches = [
        tuple((number, position, times) for position, times in enumerate(batch)) for number, batch in enumerate(plan)
    ]
    op, model = Flaky(lambda item: item[2]), Lists()
    places: dict[str, Any] = {"concurrency": concurrency, "output_order": order}
    builder = PipelineBuilder(model).add_source(batches)
    pipeline = built(builder.pipe(each_alone(op), name="op", on_failure=Retry(3, first=0.0001), **places))
    found = [item for batch in finish(pipeline) for item in batch]
    everything = [item for batch in batches for item in batch]
    assert sorted(found) == [item for item in everything if item[2] < 3]
    assert sorted(model.failures) == [(item, 3) for item in everything if item[2] >= 3]
    assert op_of(pipeline).retried == sum(min(item[2], 2) for item in everything)
    if order == "input":
        assert [item[0] for item in found] == sorted(item[0] for item in found)
