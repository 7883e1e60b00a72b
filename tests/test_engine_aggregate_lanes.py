"""Lanes in `aggregate`: each list from one lane, none starves, all come to an end, and each is accounted for."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from penstock import ConfigError, PipelineFailure
from penstock.engine import Feedback, Lane, LaneReport, Pipeline, PipelineBuilder, PlainValues
from penstock.engine.core.channel import Channel, Entry
from penstock.engine.core.definitions import AggregateDef
from penstock.engine.core.hub import Hub
from penstock.engine.core.stage_aggregate import Aggregate
from penstock.errors import AccountingError
from penstock.tests.running import run
from penstock.tests.waiting import DEADLINE, wait_until

LANES = {"first": 3, "reprocess": 1}


def lane_of(value: int) -> str:
    return "reprocess" if value < 0 else "first"


def marked(values: Sequence[int]) -> list[Lane]:
    return [Lane(lane_of(value), value) for value in values]


def lanes_of(pipeline: Pipeline, stage: int = 1) -> dict[str, LaneReport]:
    channel = pipeline.report().stages[stage].channel
    assert channel is not None
    return channel.lanes


# -- what a list is made of -------------------------------------------------------------------------------------------


def test_each_list_is_of_one_lane_and_in_its_order() -> None:
    """Also the rests, which come at the end."""
    values = [1, -1, 2, 3, -2, 4, 5, -3, -4, -5, 6, 7]
    lists, pipeline = run(PipelineBuilder().add_source(marked(values)).aggregate(3, lanes=LANES))
    by_lane = {lane: [group for group in lists if {lane_of(value) for value in group} == {lane}] for lane in LANES}
    assert by_lane == {"first": [[1, 2, 3], [4, 5, 6], [7]], "reprocess": [[-1, -2, -3], [-4, -5]]}
    assert len(lists) == 5
    assert {name: (lane.units_in, lane.units_out, lane.units) for name, lane in lanes_of(pipeline).items()} == {
        "first": (7, 7, 0),
        "reprocess": (5, 5, 0),
    }


def test_what_is_not_marked_takes_the_first_lane() -> None:
    """As in a pipe."""
    lists, _ = run(PipelineBuilder().add_source([1, Lane("reprocess", -1), 2]).aggregate(9, lanes=LANES))
    assert lists == [[1, 2], [-1]]


def test_the_last_ones_of_each_lane_may_be_dropped() -> None:
    """`drop_last` is about each lane's short list."""
    builder = PipelineBuilder().add_source(marked([1, -1, 2, -2, 3])).aggregate(2, lanes=LANES, drop_last=True)
    lists, pipeline = run(builder)
    assert sorted(lists) == [[-1, -2], [1, 2]]
    assert pipeline.report().accounting.dropped == 1


def aggregate(hub: Hub, n: int, max_wait: float | None = None) -> tuple[Aggregate, Channel, list[str]]:
    """One with the lanes, what lies in front of it, and the lanes of the lists it has emitted."""
    channel = Channel(hub, 10, lanes=LANES)
    engine: Any = SimpleNamespace(hub=hub, values=PlainValues())
    lists: list[str] = []
    port: Any = SimpleNamespace(put=lambda entry, lane: lists.append(entry.value[0]))
    node = Aggregate(engine, "batch", channel, AggregateDef(n, False, max_wait, lanes=LANES))
    node.port = port
    return node, channel, lists


def test_saturated_lanes_get_lists_by_weight_and_none_starves(hub: Hub) -> None:
    """Three to one over a thousand lists; whoever waits for a list waits for no more than seven others."""
    node, channel, lists = aggregate(hub, 4)
    while len(lists) < 1000:
        for lane in LANES:
            while channel.lanes[lane].items < 10:
                channel.put(Entry(lane, 1, 0), lane)
        node._one()  # pyright: ignore[reportPrivateUsage]
    shares = Counter(lists)
    assert shares["first"] / shares["reprocess"] == pytest.approx(3.0, abs=0.05)
    for lane in LANES:
        at = [turn for turn, name in enumerate(lists) if name == lane]
        assert max(after - before for before, after in itertools.pairwise(at)) <= 7


# -- when a list goes -------------------------------------------------------------------------------------------------


def test_a_short_list_waits_no_longer_than_it_may_in_each_lane() -> None:
    """The source waits until the list has come out: without `max_wait` it never would."""
    out = {lane: threading.Event() for lane in LANES}

    def source() -> Iterator[Lane]:
        yield Lane("reprocess", -1)
        assert out["reprocess"].wait(DEADLINE)
        yield Lane("first", 1)
        yield Lane("first", 2)
        assert out["first"].wait(DEADLINE)

    def see(group: list[int]) -> list[int]:
        out[lane_of(group[0])].set()
        return group

    lists, _ = run(PipelineBuilder().add_source(source()).aggregate(9, lanes=LANES, max_wait=0.01).pipe(see))
    assert lists[0] == [-1]
    assert list(itertools.chain(*lists[1:])) == [1, 2]


def test_every_short_list_has_a_time_of_its_own() -> None:
    """The source waits for each of them, behind a whole one."""
    out = threading.Semaphore(0)

    def source() -> Iterator[int]:
        yield from (1, 2)
        for value in (3, 4, 5):
            assert out.acquire(timeout=DEADLINE)
            yield value

    def see(group: list[int]) -> list[int]:
        out.release()
        return group

    lists, _ = run(PipelineBuilder().add_source(source()).aggregate(2, max_wait=0.01).pipe(see))
    assert list(itertools.chain(*lists)) == [1, 2, 3, 4, 5]


def test_a_list_whose_time_is_over_goes_alone(hub: Hub) -> None:
    """That of another lane has a time of its own."""
    node, channel, lists = aggregate(hub, 9, DEADLINE)
    for lane in LANES:
        channel.put(Entry(lane, 1, 0), lane)
        node._one()  # pyright: ignore[reportPrivateUsage]
    node._ring(node._batches["reprocess"])  # pyright: ignore[reportPrivateUsage]
    node._one()  # pyright: ignore[reportPrivateUsage]
    assert lists == ["reprocess"]


class Sizes(PlainValues):
    """Values are as many bytes as their number says, lists what is in them; it remembers what is given back."""

    def __init__(self) -> None:
        self.discarded: list[Any] = []

    def nbytes(self, value: Any) -> int:
        return sum(map(abs, value)) if isinstance(value, list) else abs(value)

    def discard(self, value: Any) -> None:
        self.discarded += value if isinstance(value, list) else [value]


def test_a_list_is_bounded_in_bytes() -> None:
    """It goes before it would be more; what is larger by itself makes a list of its own."""
    values = [40, 40, 30, 100, 101, 99, 1, -60, -60, 5]
    builder = PipelineBuilder(Sizes()).add_source(marked(values)).aggregate(9, lanes=LANES, max_bytes=100)
    lists, _ = run(builder)
    first = [group for group in lists if group[0] > 0]
    assert first == [[40, 40], [30], [100], [101], [99, 1], [5]]
    assert [group for group in lists if group[0] < 0] == [[-60], [-60]]


def test_what_is_held_is_bounded_in_bytes() -> None:
    """In each lane one list of `max_bytes` at most and as much waiting, and one list under way, at any moment."""
    limit = 1000
    source = itertools.cycle(marked([300, -250, 700, -100]))
    builder = PipelineBuilder(Sizes()).add_source(source).aggregate(50, lanes=LANES, max_bytes=limit)
    with builder.add_sink(1).build(num_threads=1).auto_stop() as pipeline:
        for _ in range(100):
            assert sum(map(abs, pipeline.get_item(timeout=DEADLINE))) <= limit
            report = pipeline.report()
            report.check()
            channel = report.stages[1].channel
            assert channel is not None
            assert channel.bytes <= len(LANES) * limit
            assert report.stages[1].in_flight <= 2 * (2 + limit // 100) + limit // 100 + 1


# -- loops ------------------------------------------------------------------------------------------------------------


def again(passes: int) -> Callable[[int], Any]:
    """Sends each value back so many times, as a negative one, to be done again."""
    seen: Counter[int] = Counter()

    def op(value: int) -> Any:
        seen[abs(value)] += 1
        return Feedback(-abs(value), "reprocess") if seen[abs(value)] <= passes else value

    return op


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50])
def test_an_aggregate_with_lanes_is_the_head_of_a_loop(n: int) -> None:
    """Lists of first passes and lists of second ones; the end comes when nothing goes round any more."""
    groups: list[list[int]] = []

    def note(group: list[int]) -> list[int]:
        groups.append(group)
        return group

    builder = PipelineBuilder().add_source(range(1, 21)).aggregate(n, lanes=LANES, name="batch").pipe(note)
    items, pipeline = run(builder.disaggregate().pipe(again(2), feedback="batch"))
    assert sorted(items) == [-value for value in range(20, 0, -1)]
    assert all(len({lane_of(value) for value in group}) == 1 for group in groups)
    lanes = lanes_of(pipeline)
    assert (lanes["first"].units_in, lanes["reprocess"].units_in) == (20, 40)


@pytest.mark.parametrize("n", [1, 3, 50])
def test_an_aggregate_without_lanes_is_the_head_of_a_loop(n: int) -> None:
    """What comes back is mixed with what comes first."""
    builder = PipelineBuilder().add_source(range(1, 21)).aggregate(n, name="batch")
    back = again(2)

    def op(value: int) -> Any:
        made = back(value)
        return Feedback(made.value) if isinstance(made, Feedback) else made

    items, _ = run(builder.disaggregate().pipe(op, feedback="batch"))
    assert sorted(items) == [-value for value in range(20, 0, -1)]


def test_an_early_stop_gives_back_what_is_held_in_each_lane() -> None:
    """Each value once; the accounting holds for each lane after the stop, too."""
    values, go = Sizes(), threading.Event()

    def source() -> Iterator[Lane]:
        yield from marked([1, -2, 3, -4])
        go.wait(DEADLINE)

    pipeline = PipelineBuilder(values).add_source(source()).aggregate(9, lanes=LANES).add_sink().build(num_threads=1)
    with pipeline.auto_stop():
        wait_until(lambda: sum(lane.units for lane in lanes_of(pipeline).values()) == 4)
        go.set()
        pipeline._runtime.request_stop()  # pyright: ignore[reportPrivateUsage]
    held = {name: (lane.items, lane.units) for name, lane in lanes_of(pipeline).items()}
    report = pipeline.report()
    report.check()
    delivered = list(itertools.chain(*pipeline))
    assert Counter(values.discarded) + Counter(delivered) == Counter([1, -2, 3, -4])
    assert delivered or held == {"first": (2, 2), "reprocess": (2, 2)}


# -- wrong ones -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"lanes": {}}, "lanes={} must name"),
        ({"lanes": {"a": 0}}, "lanes\\['a'\\]=0"),
        ({"max_bytes": 0}, "max_bytes=0"),
        ({"max_wait": 0}, "max_wait=0"),
    ],
)
def test_wrong_settings_are_refused_by_name(knobs: dict[str, Any], message: str) -> None:
    """At once."""
    with pytest.raises(ConfigError, match=message):
        PipelineBuilder().aggregate(2, **knobs)


def test_a_lane_that_is_not_there_is_an_error_of_the_program() -> None:
    """It names those that are."""
    with pytest.raises(PipelineFailure) as caught:
        run(PipelineBuilder().add_source([Lane("second", 1)]).aggregate(2, lanes=LANES))
    assert "there is no lane 'second'" in str(caught.value.exceptions[0])
    assert "'first', 'reprocess'" in str(caught.value.exceptions[0])


def test_feedback_may_not_lead_to_a_disaggregate() -> None:
    """The message has the stages to which it may."""
    builder = (
        PipelineBuilder().add_source([]).aggregate(2, name="batch").disaggregate().pipe(str, feedback="disaggregate")
    )
    with pytest.raises(ConfigError, match="must name this stage or an earlier pipe or aggregate: batch, str"):
        builder.add_sink().build(num_threads=1)


def test_accounts_of_a_lane_that_do_not_balance_are_told() -> None:
    """By the names of lane and stage."""
    lists, pipeline = run(PipelineBuilder().add_source(marked([1, -1])).aggregate(1, lanes=LANES))
    assert len(lists) == 2
    stage = pipeline.report().stages[1]
    assert stage.channel is not None
    stage.channel.lanes["first"] = LaneReport(3, 0, 0, units_in=2, units_out=1)
    with pytest.raises(AccountingError, match=r"lane 'first' of stage 'aggregate.*in 2, but out 1.*1 missing"):
        stage.check()
    stage.channel.lanes["first"] = LaneReport(3, 0, 0, units_in=2, units_out=2)
    with pytest.raises(AccountingError, match="in 2, but by its lanes 3: 1 too many"):
        stage.check()
