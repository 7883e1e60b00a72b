"""Makes a `Report` of a run. On the hub while it runs, so that the figures belong together; anywhere after its end."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

from ..core.channel import Channel
from ..core.graph import Graph
from ..core.metrics import Histogram
from ..core.output_queue import OutputQueue
from ..core.stage import Node
from .report import Accounting, Bottleneck, ChannelReport, LaneReport, MemoryReport, Report, StageReport, Stall

_MAX_GAIN = 100.0
_KNOBS = {
    "source": "read ahead, or from faster storage",
    "sink": "make the consumer faster, or read from several threads",
    "blocking": "raise its concurrency and num_threads, or give it an executor of processes",
    "async": "raise its concurrency",
    "green": "raise its concurrency, or the number of workers behind it",
    "process": "raise its concurrency and the number of workers",
}


class Run(Protocol):
    """What a report is made of."""

    graph: Graph
    output: OutputQueue
    began: float | None
    finished: float | None


def make_report(run: Run, memory: MemoryReport | None, stalls: Sequence[Stall] = ()) -> Report:
    """The figures of a run as they stand."""
    now = perf_counter() if run.finished is None else run.finished
    began = now if run.began is None else run.began
    elapsed = now - began
    sink = _sink(run, elapsed, now)
    unrecorded = run.output.unrecorded
    stages = [_stage(node, unrecorded.get(node.name, 0), elapsed, now) for node in run.graph.nodes] + [sink]
    accounting = Accounting(
        read=run.graph.source.meter.items_in,
        delivered=sink.items_out,
        dropped=sum(stage.dropped for stage in stages),
        failed=sum(stage.failed for stage in stages),
        in_flight=sum(stage.in_flight for stage in stages),
        created=sum(stage.created for stage in stages),
        merged=sum(stage.merged for stage in stages),
    )
    seconds = max(elapsed, run.output.last_take - began)
    rate = accounting.delivered / seconds if seconds > 0 else 0.0
    return Report(accounting, stages, find_bottleneck(stages), seconds, rate, memory, stalls=list(stalls))


def _stage(node: Node, unrecorded: int, elapsed: float, now: float) -> StageReport:
    meter, times = node.meter, node.meter.times
    fibers = max(elapsed * node.concurrency, 1e-9)
    return StageReport(
        name=node.name,
        kind=node.kind,
        concurrency=node.concurrency,
        items_in=meter.items_in,
        items_out=meter.items_out,
        dropped=meter.dropped,
        failed=meter.failed - unrecorded,
        in_flight=node.in_flight + unrecorded,
        created=meter.created,
        merged=meter.merged,
        retried=meter.retried,
        retrying=sum(job.left for job in node.retrying.copy()),
        rate_now=meter.rate_now(now),
        rate=meter.rate(now),
        busy=_share(meter.busy.seconds(now), max(elapsed * node.parallelism, 1e-9)),
        wait_in=_share(meter.wait_in.seconds(now), fibers),
        wait_out=_share(meter.wait_out.seconds(now), fibers),
        channel=None if node.channel is None else _channel(node, node.channel, now),
        details=dict(meter.details),
        **_milliseconds(times),
    )


def _milliseconds(times: Histogram) -> dict[str, float]:
    quantiles = {f"p{percent}_ms": 1e3 * times.quantile(percent / 100) for percent in (50, 90, 99)}
    return {"mean_ms": 1e3 * times.mean, **quantiles}


def _share(seconds: float, of: float) -> float:
    return min(max(seconds / of, 0.0), 1.0)


def _channel(node: Node, channel: Channel, now: float) -> ChannelReport:
    lanes: dict[str, LaneReport] = {}
    for name, lane in channel.lanes.items():
        items, units = node.held_in(name)
        lanes[name] = LaneReport(
            lane.weight, lane.items + items, lane.units + units, lane.units_in, lane.units_out - units
        )
    return ChannelReport(
        channel.count, channel.capacity, channel.nbytes, channel.nbytes_limit, channel.occupancy(now), lanes
    )


def _sink(run: Run, elapsed: float, now: float) -> StageReport:
    accepted, delivered, waiting, items, fill = run.output.books()
    pace = run.output.pace
    return StageReport(
        name="sink",
        kind="sink",
        items_in=accepted,
        items_out=delivered,
        in_flight=waiting,
        rate_now=pace.rate_now(now, delivered),
        # A run too short for two looks at it has but its whole time to tell a rate by.
        rate=pace.rate(now, delivered) or (delivered / elapsed if elapsed > 0 else 0.0),
        busy=_share(run.output.full.seconds(now), max(elapsed, 1e-9)),
        channel=ChannelReport(items, run.output.size, occupancy=fill),
    )


def find_bottleneck(stages: Sequence[StageReport]) -> Bottleneck | None:
    """The busiest stage, and what it would be worth to lift it. None while nothing has been worked on."""
    ranked = sorted((stage for stage in stages if stage.kind in _KNOBS), key=lambda stage: -stage.busy)
    if not ranked or not ranked[0].busy or not stages[0].items_in:
        return None
    first = ranked[0]
    second = ranked[1] if len(ranked) > 1 else None
    gain = min(first.busy / max(second.busy, 1e-9), _MAX_GAIN) if second is not None else _MAX_GAIN
    return Bottleneck(first.name, first.busy, _reason(first, second, gain), gain)


def _reason(first: StageReport, second: StageReport | None, gain: float) -> str:
    if first.kind == "sink":
        what = f"the consumer keeps the sink full {first.busy:.0%} of the time"
    else:
        each = f"p50 {first.p50_ms:.3g} ms, concurrency {first.concurrency}"
        what = f"{first.name} works {first.busy:.0%} of the time ({each})"
    then = f"; next is {second.name} with {second.busy:.0%}" if second is not None else ""
    return f"{what}{then}. Without it the whole could be up to {gain:.3g} times as fast: {_KNOBS[first.kind]}"
