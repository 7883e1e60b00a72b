"""What a stage measures: times, waiting, rates, occupancy, bottleneck, memory; and what measuring costs."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import statistics
import threading
from collections.abc import Callable
from time import perf_counter, sleep
from typing import Any

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine import Outcome, PipelineBuilder, Report, StageReport, green
from penstock.engine.core.metrics import Histogram, Meter, Stopwatch
from penstock.engine.observe.report_builder import find_bottleneck
from penstock.tests.waiting import DEADLINE, patient


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_percentile_is_right_within_a_bucket(times: list[float], share: float) -> None:
    """Constant memory costs at most 9 % of precision."""
    histogram = Histogram()
    for seconds in times:
        histogram.add(seconds)
    exact = sorted(times)[math.ceil(share * len(times)) - 1]
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.09)
    assert histogram.mean == pytest.approx(statistics.fmean(times))


@pytest.mark.parametrize("seconds", [0.0, 1e-12, 1e-9, 1e5, 1e9])
def test_the_histogram_takes_any_duration(seconds: float) -> None:
    """What is off the scale lands in its first or last bucket."""
    histogram = Histogram()
    histogram.add(seconds)
    assert histogram.count == 1
    assert histogram.quantile(0.5) > 0


def test_an_empty_histogram_says_zero() -> None:
    """No events, no times."""
    assert Histogram().quantile(0.99) == Histogram().mean == 0.0


def test_a_stopwatch_counts_running_spans() -> None:
    """Two spans that overlap, one of them unfinished, and one known from elsewhere."""
    watch = Stopwatch()
    watch.begin(10.0)
    watch.begin(11.0)
    assert watch.seconds(12.0) == pytest.approx(3.0)
    watch.end(10.0, 12.0)
    assert watch.seconds(13.0) == pytest.approx(4.0)
    watch.end(11.0, 14.0, seconds=0.5)
    watch.add(1.0)
    assert watch.seconds(99.0) == pytest.approx(3.5)


def test_rates_are_since_the_first_output_and_over_the_last_two_seconds() -> None:
    """The first output pays for the warm-up; the present rate forgets what is long ago."""
    meter = Meter()
    assert meter.rate(1.0) == meter.rate_now(1.0) == 0.0
    now = perf_counter()
    meter.emitted(100)
    meter.sample(now)
    for second in range(1, 11):
        meter.emitted(10)
        meter.sample(now + second)
    assert meter.rate(now + 10) == pytest.approx(10, rel=0.01)
    meter.items_out += 90
    assert meter.rate_now(now + 11) == pytest.approx((4 * 10 + 90) / 5)


def test_the_sink_has_a_present_rate_and_its_mean_leaves_out_the_start() -> None:
    """It is the rate that people read first: rows a second, now and since the first of them."""
    pipeline = PipelineBuilder().add_source(range(100)).pipe(lambda value: value).add_sink().build(num_threads=1)
    with pipeline.auto_stop():
        for _ in range(10):
            pipeline.get_item()
        output = pipeline._runtime.output  # pyright: ignore[reportPrivateUsage]
        now = perf_counter()
        output.sample(now - 2)
        for _ in range(40):
            pipeline.get_item()
        sink = pipeline.snapshot().stages[-1]
    assert sink.items_out == 50
    assert 0 < sink.rate_now <= 20
    assert 0 < sink.rate <= 20


@pytest.mark.slow
def test_an_event_costs_at_most_three_microseconds() -> None:
    """Counting, timing and sorting one operation into its bucket."""
    meter, times = Meter(), [random.random() for _ in range(1000)]
    best = math.inf
    for _ in range(20):
        began = perf_counter()
        for seconds in times:
            meter.busy.begin(seconds)
            meter.busy.end(seconds, seconds)
            meter.times.add(seconds)
            meter.emitted(1)
        best = min(best, (perf_counter() - began) / len(times))
    print(f"one event: {1e6 * best:.2f} us")
    assert best < patient(3e-6)  # 1.1-1.6 us on a quiet core


def finish(builder: PipelineBuilder, num_threads: int = 2, **knobs: Any) -> Report:
    pipeline = builder.add_sink().build(num_threads=num_threads, **knobs)
    with pipeline.auto_stop():
        for _ in pipeline:
            pass
    return pipeline.report()


def nap(_: int) -> int:
    sleep(0.01)
    return 1


async def nap_later(_: int) -> int:
    await asyncio.sleep(0.01)
    return 1


@green
def nap_green(_: int) -> int:
    gevent.sleep(0.01)
    return 1


@pytest.mark.parametrize("op", [nap, nap_later, nap_green])
def test_times_and_busy_share_of_a_stage(op: Callable[[int], Any]) -> None:
    """Ten milliseconds an operation, hardly anything else to do."""
    report = finish(PipelineBuilder().add_source(range(30)).pipe(op, name="nap"))
    stage = report.stages[1]
    for figure in (stage.mean_ms, stage.p50_ms, stage.p90_ms, stage.p99_ms):
        assert 9 < figure < 1000 * report.seconds
    assert stage.p50_ms <= stage.p90_ms <= stage.p99_ms
    assert 0.27 < stage.busy * report.seconds <= report.seconds  # on a busy machine the rest of it takes long, too
    assert stage.busy + stage.wait_in < 1.01
    assert report.bottleneck is not None
    assert report.bottleneck.stage == "nap"
    assert report.bottleneck.gain > 1.0
    assert "nap" in report.bottleneck.reason


def test_waiting_is_seen_on_both_sides_of_the_slow_stage() -> None:
    """The stage before it waits for room, the one behind it for input, and its channel is full."""
    builder = PipelineBuilder().add_source(range(40)).pipe(abs, kind="green", name="before")
    report = finish(builder.pipe(nap, name="slow").pipe(abs, kind="green", name="behind"))
    before, slow, behind = report.stages[1:4]
    assert before.wait_out > before.busy + before.wait_in
    assert behind.wait_in > behind.busy + behind.wait_out
    assert slow.channel is not None
    assert behind.channel is not None
    assert slow.channel.occupancy > 2 * behind.channel.occupancy


def test_waiting_for_a_thread_is_not_work() -> None:
    """Two stages that share one thread work for no longer than there is: with waiting it would be eight times that."""
    builder = PipelineBuilder().add_source(range(30))
    report = finish(builder.pipe(nap, name="a", concurrency=4).pipe(nap, name="b", concurrency=4), num_threads=1)
    stages = report.stages[1:3]
    assert all(stage.items_out * stage.mean_ms >= 270 for stage in stages)
    assert sum(stage.items_out * stage.mean_ms for stage in stages) < 1010 * report.seconds


def test_a_slow_consumer_is_named_as_the_bottleneck() -> None:
    """When the sink is full all the time, it is the reader one waits for."""
    pipeline = PipelineBuilder().add_source(range(30)).pipe(abs).add_sink(2).build(num_threads=1)
    with pipeline.auto_stop():
        for _ in pipeline:
            sleep(0.01)
    bottleneck = pipeline.report().bottleneck
    assert bottleneck is not None
    assert bottleneck.stage == "sink"
    assert "consumer" in bottleneck.reason


def test_a_slow_source_is_named_as_the_bottleneck() -> None:
    """The source's busy share is the time one waited for it."""
    bottleneck = finish(PipelineBuilder().add_source(map(nap, range(30))).pipe(abs)).bottleneck
    assert bottleneck is not None
    assert bottleneck.stage == "source"


def test_parallelism_says_how_many_operations_really_work() -> None:
    """Six greenlets that wait for two workers are not idle two thirds of the time."""

    @green
    def op(_: int) -> Outcome:
        gevent.sleep(0.03)
        return Outcome(1, seconds=0.01)

    builder = PipelineBuilder().add_source(range(60)).pipe(op, concurrency=6, parallelism=2, name="op")
    report = finish(builder)
    assert (
        0.29 < report.stages[1].busy * report.seconds < 0.31 + 0.01 * report.seconds
    )  # 60 times 10 ms, by two workers


def stage(name: str, busy: float, kind: str = "blocking") -> StageReport:
    return StageReport(name, kind, items_in=1, busy=busy)


def test_the_gain_of_lifting_the_bottleneck_is_bounded_by_the_next_busiest() -> None:
    """A stage at 90 % next to one at 45 %: at most twice as fast."""
    bottleneck = find_bottleneck([stage("source", 0.1, "source"), stage("a", 0.45), stage("b", 0.9), stage("c", 0.2)])
    assert bottleneck is not None
    assert bottleneck.stage == "b"
    assert bottleneck.gain == pytest.approx(2.0)
    alone = find_bottleneck([stage("a", 0.001), stage("b", 0.9)])
    assert alone is not None
    assert "up to 100 times as fast" in alone.reason
    assert find_bottleneck([]) is None
    assert find_bottleneck([StageReport("source", "source", busy=0.5)]) is None


def test_a_line_per_stage_is_logged_at_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    """On request only."""
    with caplog.at_level(logging.INFO, "penstock"):
        finish(PipelineBuilder().add_source(range(30)).pipe(nap, name="nap"), log_interval=0.05)
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("nap:") and "bottleneck" in line for line in lines)
    assert any(line.startswith("source:") for line in lines)
    caplog.clear()
    with caplog.at_level(logging.INFO, "penstock"):
        finish(PipelineBuilder().add_source(range(3)).pipe(nap))
    assert not caplog.records


def test_memory_is_sampled_on_request() -> None:
    """PSS of the process tree, now and at its peak."""
    pipeline = PipelineBuilder().add_source(itertools.repeat(1)).add_sink().build(num_threads=1, sample_memory=0.01)
    assert pipeline.report().memory is None
    deadline = perf_counter() + DEADLINE
    with pipeline.auto_stop():
        for _ in pipeline:
            memory = pipeline.report().memory
            assert perf_counter() < deadline
            if memory is not None and memory.samples >= 2:
                break
    memory = pipeline.report().memory
    assert memory is not None
    assert memory.peak >= memory.now > 1_000_000
    assert memory.processes >= 1
    assert memory.measure in ("pss", "rss")


@pytest.mark.slow
def test_the_hub_stays_responsive_under_load() -> None:
    """While items rush through, a report comes in milliseconds."""
    builder = PipelineBuilder().add_source(itertools.count()).pipe(lambda x: x, concurrency=4).pipe(abs, kind="green")
    pipeline = builder.add_sink().build(num_threads=4)
    reader = threading.Thread(target=lambda: list(pipeline))
    with pipeline.auto_stop():
        reader.start()
        waits: list[float] = []
        for _ in range(50):
            began = perf_counter()
            pipeline.snapshot()
            waits.append(perf_counter() - began)
    reader.join(DEADLINE)
    print(f"a report under load: median {1e3 * statistics.median(waits):.1f} ms, worst {1e3 * max(waits):.1f} ms")
    assert statistics.median(waits) < patient(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("op", "most"), [(lambda x: x, 100e-6), (green(lambda x: x), 30e-6)], ids=["blocking", "green"]
)
def test_what_a_stage_costs_an_item(op: Callable[[int], int], most: float) -> None:
    """At most 100 us in a thread, 30 us on the hub; five stages against one, the best of some rounds."""

    def once(stages: int) -> float:
        builder = PipelineBuilder().add_source(range(2000))
        for _ in range(stages):
            builder.pipe(op, concurrency=4)
        began = perf_counter()
        finish(builder, num_threads=4)
        return (perf_counter() - began) / 2000

    cost = min(once(5) for _ in range(4)) - min(once(1) for _ in range(4))
    print(f"an item costs {1e6 * cost / 4:.0f} us a stage")
    assert cost / 4 < patient(most)
