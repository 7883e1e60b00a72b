"""Channels: bounds in items and bytes, weighted lanes, feedback edges."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest

from penstock.engine import Feedback, Lane, Outcome, Pipeline, PipelineBuilder, PlainValues, green
from penstock.engine.core.channel import Channel, Closed, Entry
from penstock.engine.core.hub import Hub
from penstock.engine.core.metrics import Stopwatch
from penstock.tests.running import run
from penstock.tests.waiting import DEADLINE, wait_until

# -- bounds -----------------------------------------------------------------------------------------------------------


class Sizes(PlainValues):
    """Values are their own size in bytes."""

    def nbytes(self, value: Any) -> int:
        return int(value)


def stuck(builder: PipelineBuilder) -> tuple[Pipeline, threading.Event]:
    """A pipeline whose last stage takes one value and waits."""
    go = threading.Event()

    def wait(x: int) -> int:
        assert go.wait(DEADLINE)
        return x

    return builder.pipe(wait, name="wait", buffer_size=100, buffer_bytes=1000).add_sink().build(num_threads=1), go


def test_a_channel_is_bounded_in_bytes() -> None:
    """With 300 bytes each, three fit into 1000."""
    pipeline, go = stuck(PipelineBuilder(Sizes()).add_source(itertools.repeat(300, 50)))
    with pipeline.auto_stop():
        wait_until(lambda: pipeline.report().stages[1].in_flight == 4)  # one being worked on, three waiting
        channel = pipeline.report().stages[1].channel
        assert channel is not None
        assert (channel.items, channel.bytes, channel.capacity, channel.capacity_bytes) == (3, 900, 100, 1000)
        go.set()
        assert len(list(pipeline)) == 50


def test_a_value_larger_than_the_byte_bound_passes_alone() -> None:
    """It waits until the channel is empty, and nothing joins it."""
    pipeline, go = stuck(PipelineBuilder(Sizes()).add_source([1, 5000, 1, 1]))
    with pipeline.auto_stop():
        wait_until(lambda: pipeline.report().stages[1].in_flight == 2)
        channel = pipeline.report().stages[1].channel
        assert channel is not None
        assert (channel.items, channel.bytes) == (1, 5000)
        go.set()
        assert list(pipeline) == [1, 5000, 1, 1]


@pytest.mark.parametrize("size", [1, 4])
def test_a_channel_is_bounded_in_items(size: int) -> None:
    """`buffer_size` values wait in front of a stage, no more."""
    go = threading.Event()

    def wait(x: int) -> int:
        assert go.wait(DEADLINE)
        return x

    pipeline = PipelineBuilder().add_source(range(50)).pipe(wait, buffer_size=size).add_sink().build(num_threads=1)
    with pipeline.auto_stop():
        wait_until(lambda: pipeline.report().stages[1].in_flight == size + 1)
        wait_until(lambda: pipeline.report().stages[0].in_flight == 1)
        assert pipeline.report().stages[1].in_flight == size + 1
        go.set()
        assert list(pipeline) == list(range(50))


# -- lanes ------------------------------------------------------------------------------------------------------------


def test_saturated_lanes_share_by_weight_and_none_starves(hub: Hub) -> None:
    """Three to one over ten thousand, evenly spread: nobody waits more than four turns."""
    channel = Channel(hub, 10, lanes={"first": 1, "reprocess": 3})
    turns: list[str] = []
    for _ in range(10_000):
        for lane in ("first", "reprocess"):
            while channel.lanes[lane].items < 10:
                channel.put(Entry(lane, 1, 0), lane)
        turns.append(channel.get(Stopwatch()).value)
    shares = Counter(turns)
    assert Fraction(shares["reprocess"], shares["first"]) == pytest.approx(3.0, abs=0.15)
    for lane in shares:
        at = [turn for turn, name in enumerate(turns) if name == lane]
        assert max(after - before for before, after in itertools.pairwise(at)) <= 4


def test_a_lane_is_first_in_first_out_and_an_empty_one_costs_nothing(hub: Hub) -> None:
    """Order inside a lane is kept; one lane alone gets every turn."""
    channel = Channel(hub, 10, lanes={"a": 1, "b": 5})
    for value in range(6):
        channel.put(Entry(value, 1, 0), "a")
    assert [channel.get(Stopwatch()).value for _ in range(6)] == list(range(6))


def test_an_idle_lane_saves_no_turns_up(hub: Hub) -> None:
    """Who was away comes back to its share, not to what it missed."""
    channel = Channel(hub, 100, lanes={"a": 1, "b": 1})
    for _ in range(50):
        channel.put(Entry("a", 1, 0), "a")
        channel.get(Stopwatch())
    for _ in range(4):
        channel.put(Entry("a", 1, 0), "a")
        channel.put(Entry("b", 1, 0), "b")
    assert Counter(channel.get(Stopwatch()).value for _ in range(4)) == {"a": 2, "b": 2}


def test_a_closed_channel_gives_what_is_left_and_then_says_so(hub: Hub) -> None:
    """Closing loses nothing."""
    channel = Channel(hub, 2)
    channel.put(Entry(1, 1, 0))
    channel.close()
    assert channel.get(Stopwatch()).value == 1
    with pytest.raises(Closed):
        channel.get(Stopwatch())


def test_producers_choose_lanes() -> None:
    """`Lane(name, value)` goes there, what is not marked goes to the first; sources and Outcomes may choose, too."""
    go, inside = threading.Event(), threading.Event()

    def wait(x: str) -> str:
        inside.set()
        assert go.wait(DEADLINE)
        return x

    def source() -> Iterator[Any]:
        yield "head"
        assert inside.wait(DEADLINE)
        yield from [Lane("fast", "f1"), "s1", Outcome(Lane("fast", "f2")), Lane("slow", "s2"), Lane("fast", "f3")]

    builder = PipelineBuilder().add_source(source()).pipe(wait, buffer_size=9, lanes={"slow": 1, "fast": 100})
    pipeline = builder.add_sink().build(num_threads=1)
    with pipeline.auto_stop():
        wait_until(lambda: pipeline.report().stages[1].in_flight == 6)
        channel = pipeline.report().stages[1].channel
        assert channel is not None
        assert {name: lane.items for name, lane in channel.lanes.items()} == {"slow": 2, "fast": 3}
        assert channel["lanes"]["fast"]["weight"] == 100
        go.set()
        assert list(pipeline) == ["head", "f1", "f2", "f3", "s1", "s2"]


def test_a_full_lane_does_not_keep_others_out() -> None:
    """Each lane has its own bound."""
    go = threading.Event()

    def wait(x: int) -> int:
        assert go.wait(DEADLINE)
        return x

    builder = PipelineBuilder().add_source(range(30))
    builder.pipe(lambda x: Lane("odd" if x % 2 else "even", x), concurrency=4, kind="green")
    builder.pipe(wait, buffer_size=2, lanes={"even": 1, "odd": 1})
    pipeline = builder.add_sink().build(num_threads=1)
    with pipeline.auto_stop():
        wait_until(lambda: pipeline.report().stages[2].in_flight == 5)
        go.set()
        assert sorted(pipeline) == list(range(30))


# -- feedback ---------------------------------------------------------------------------------------------------------


class Passes:
    """Sends each value round so many times before it lets it go."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.seen: Counter[int] = Counter()
        self.lock = threading.Lock()

    def __call__(self, x: int) -> Any:
        with self.lock:
            self.seen[x] += 1
            return Feedback(x) if self.seen[x] < self.times else x


@pytest.mark.parametrize("order", ["completion", "input"])
@pytest.mark.parametrize("kind", [None, "green"])
def test_what_is_fed_back_comes_round_and_then_the_end_comes(kind: Any, order: Any) -> None:
    """The end is when nothing is in flight any more."""
    passes = Passes(4)
    builder = PipelineBuilder().add_source(range(40)).pipe(lambda x: x, name="gpu", concurrency=2, kind=kind)
    builder.pipe(passes, concurrency=3, kind=kind, output_order=order, feedback="gpu")
    items, pipeline = run(builder)
    assert sorted(items) == list(range(40))
    assert set(passes.seen.values()) == {4}
    report = pipeline.report()
    assert report.stages[1].items_in == 160
    assert (report.accounting.created, report.accounting.merged) == (0, 0)


def test_a_stage_may_feed_itself() -> None:
    """An edge from a stage to its own input."""
    items, _ = run(PipelineBuilder().add_source(range(10)).pipe(Passes(3), name="again", feedback="again"))
    assert sorted(items) == list(range(10))


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_a_feedback_edge_does_not_stand_still_when_everything_is_full(capacity: int) -> None:
    """All channels full, all operations feeding back: the producer of a feedback edge never waits, so it goes on.

    The lane it feeds stays bounded: over its bound it is served before first passes, so at most what was under way
    joins it.
    """
    passes, most = Passes(20), 0
    builder = PipelineBuilder().add_source(range(60))
    builder.pipe(green(lambda x: x), name="gpu", buffer_size=capacity, lanes={"first": 1, "again": 3})
    builder.pipe(green(lambda x: x), buffer_size=capacity, concurrency=2)
    builder.pipe(passes, concurrency=2, buffer_size=capacity, feedback="gpu")
    pipeline = builder.add_sink(1).build(num_threads=2)
    got: list[int] = []
    with pipeline.auto_stop():
        for item in pipeline.get_iterator(timeout=DEADLINE):
            got.append(item)
            channel = pipeline.report().stages[1].channel
            assert channel is not None
            most = max(most, channel.lanes["again"].items)
    assert sorted(got) == list(range(60))
    assert most <= capacity + (1 + capacity + 2 + capacity + 2)
    pipeline.report().accounting.check()


@pytest.mark.parametrize("kind", [None, "green"])
@pytest.mark.parametrize("n", range(1, 9))
def test_an_aggregate_inside_a_loop_is_let_go_at_the_end(n: int, kind: Any) -> None:
    """It waits for more values that only its own could become: the short list goes on."""
    builder = PipelineBuilder().add_source(range(n)).pipe(lambda x: x, name="head", concurrency=2)
    builder.aggregate(4).disaggregate().pipe(Passes(3), feedback="head", kind=kind)
    items, _ = run(builder)
    assert sorted(items) == list(range(n))


def test_an_aggregate_inside_a_loop_may_drop_its_last() -> None:
    """With `drop_last` what cannot become a whole list is dropped, and the end comes."""
    builder = PipelineBuilder().add_source(range(5)).pipe(lambda x: x, name="head")
    builder.aggregate(4, drop_last=True).disaggregate().pipe(Passes(2), feedback="head")
    pipeline = builder.add_sink().build(num_threads=2)
    with pipeline.auto_stop():
        items = list(pipeline.get_iterator(timeout=DEADLINE))
    accounting = pipeline.report().accounting
    accounting.check()
    assert accounting.in_flight == 0
    assert len(items) + accounting.dropped == 5
    assert accounting.dropped > 0


def test_loops_may_overlap() -> None:
    """Two edges that cross: each end is decided for itself."""
    builder = PipelineBuilder().add_source(range(12)).pipe(lambda x: x, name="a").pipe(lambda x: x, name="b")
    builder.pipe(Passes(2), name="c", feedback="a").pipe(Passes(3), name="d", feedback="b")
    items, _ = run(builder)
    assert sorted(items) == list(range(12))


def test_a_value_may_come_back_by_the_edges_of_two_loops() -> None:
    """From behind the outer loop by the inner edge, and then by the outer one: it is not past the outer before."""
    steps = {"b": iter([1, Feedback(2), 3]), "c": iter([Feedback(1), 3])}
    builder = PipelineBuilder().add_source([1]).pipe(lambda x: x, name="a")
    builder.pipe(lambda _: next(steps["b"]), name="b", feedback="a")
    items, _ = run(builder.pipe(lambda _: next(steps["c"]), name="c", feedback="b"))
    assert items == [3]


def test_failures_and_drops_inside_a_loop_do_not_keep_the_end_away() -> None:
    """What is in flight is counted, whatever becomes of it."""
    passes = Passes(3)

    def op(x: int) -> Any:
        if x % 5 == 0:
            raise ValueError(x)
        return None if x % 5 == 1 else passes(x)

    builder = PipelineBuilder().add_source(range(25)).pipe(lambda x: x, name="head", concurrency=2)
    items, pipeline = run(builder.pipe(op, concurrency=2, feedback="head"))
    assert len(items) == 15
    assert (pipeline.report().accounting.failed, pipeline.report().accounting.dropped) == (5, 5)


def test_an_early_stop_in_the_middle_of_a_loop() -> None:
    """What goes round for ever can be stopped."""
    builder = PipelineBuilder().add_source(itertools.count()).pipe(lambda x: x, name="head")
    pipeline = builder.pipe(Feedback, feedback="head", kind="green").add_sink().build(num_threads=1)
    with pipeline.auto_stop():
        wait_until(lambda: pipeline.report().stages[1].items_in > 100)
    pipeline.report().accounting.check()
