"""What a run has done: frozen figures that can be read as attributes or like a mapping.

``report.accounting.read`` and ``report["accounting"]["read"]`` are the same; ``to_dict()`` is plain data for JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import pairwise
from typing import Any

from ...errors import AccountingError
from ...formatting import count


class Readable:
    """Mapping-style reading for dataclasses."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        """A field or a property by its name.

        Raises:
            KeyError: there is none.
        """
        if name.startswith("_") or not hasattr(self, name):
            raise KeyError(name)
        return getattr(self, name)

    def keys(self) -> list[str]:
        """Names of the fields."""
        return [each.name for each in fields(self)]  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, nested."""
        return {name: _plain(getattr(self, name)) for name in self.keys()}


def _plain(value: Any) -> Any:
    if isinstance(value, Readable):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return value


@dataclass(frozen=True, slots=True)
class Accounting(Readable):
    """Where every item is. read + created == delivered + dropped + failed + in_flight + merged.

    Attributes:
        read: units the source gave.
        delivered: units the consumer has taken.
        dropped: units filtered out (an operation returned None).
        failed: units whose operation failed.
        in_flight: units in channels, operations and the sink. After an early stop: what was left.
        created: units made by operations that emit more than they took.
        merged: units that went up in larger values (`aggregate` without a value model).
    """

    read: int = 0
    delivered: int = 0
    dropped: int = 0
    failed: int = 0
    in_flight: int = 0
    created: int = 0
    merged: int = 0

    def __str__(self) -> str:
        """``read 1,000 = written 990 + filtered 5 + dead 5 + in flight 0``: in the words of jobs."""
        read = f"read {count(self.read)}" + (f" + created {count(self.created)}" if self.created else "")
        parts = {"written": self.written, "filtered": self.filtered, "dead": self.dead, "in flight": self.in_flight}
        if self.merged:
            parts["merged"] = self.merged
        return f"{read} = " + " + ".join(f"{name} {count(number)}" for name, number in parts.items())

    @property
    def written(self) -> int:
        """What jobs call `delivered`."""
        return self.delivered

    @property
    def filtered(self) -> int:
        """What jobs call `dropped`."""
        return self.dropped

    @property
    def dead(self) -> int:
        """What jobs call `failed`."""
        return self.failed

    def check(self) -> None:
        """Check that nothing is missing.

        Raises:
            AccountingError: something is; the message has all figures and the difference.
        """
        _balance("", {"read": self.read, "created": self.created}, {"delivered": self.delivered, **_fates(self)})


def _fates(books: Accounting | StageReport) -> dict[str, int]:
    """What else may have become of units than to have gone on."""
    return {"dropped": books.dropped, "failed": books.failed, "in flight": books.in_flight, "merged": books.merged}


def _balance(of: str, inside: Mapping[str, int], outside: Mapping[str, int]) -> None:
    """Check that two sides of the books are the same.

    Raises:
        AccountingError: they are not; the message has all figures and the difference.
    """
    difference = sum(inside.values()) - sum(outside.values())
    if difference:
        wrong = f"{abs(difference)} {'missing' if difference > 0 else 'too many'}"
        raise AccountingError(f"the books{of} do not balance: {_sum(inside)}, but {_sum(outside)}: {wrong}")


def _sum(figures: Mapping[str, int]) -> str:
    terms = " + ".join(f"{name} {number}" for name, number in figures.items())
    return terms if len(figures) == 1 else f"{terms} = {sum(figures.values())}"


@dataclass(frozen=True, slots=True)
class LaneReport(Readable):
    """A lane in front of a stage. units_in == units_out + units.

    Attributes:
        weight: its share.
        items: waiting in it; for an aggregate also what is held until its list is full.
        units: the same in units.
        units_in: units that ever came.
        units_out: units that have been taken out of it, by an operation or in a list.
    """

    weight: int
    items: int
    units: int
    units_in: int = 0
    units_out: int = 0


@dataclass(frozen=True, slots=True)
class ChannelReport(Readable):
    """The channel in front of a stage.

    Attributes:
        items: waiting now, `capacity` at most.
        bytes: waiting now, `capacity_bytes` at most (None: no limit).
        occupancy: mean fill since the start, 0..1.
        lanes: by name; empty for a plain channel.
    """

    items: int = 0
    capacity: int = 0
    bytes: int = 0
    capacity_bytes: int | None = None
    occupancy: float = 0.0
    lanes: dict[str, LaneReport] = field(default_factory=dict[str, LaneReport])


@dataclass(frozen=True, slots=True)
class StageReport(Readable):
    """One stage. Counts are in units, rates in units a second, times in milliseconds of one operation.

    Attributes:
        kind: source, blocking, async, green, process, aggregate, disaggregate or sink.
        concurrency: operations at once.
        retried: how often units were tried again; one that was tried three times counts two.
        retrying: units that wait to be tried again, of those in flight.
        busy: share of the time that its operations ran, over all of its `parallelism`, 0..1. For the sink: share of the
            time it was full, so that the consumer was what one waited for.
        rate_now: over the last 2 s.
        rate: since the first output.
        wait_in: share of the time its fibers waited for input.
        wait_out: share of the time they waited for room behind them (or for their turn, in input order).
        channel: what waits in front of it; None for the source.
        details: named sub-timings, seconds in all.
    """

    name: str
    kind: str
    concurrency: int = 1
    items_in: int = 0
    items_out: int = 0
    dropped: int = 0
    failed: int = 0
    in_flight: int = 0
    created: int = 0
    merged: int = 0
    retried: int = 0
    retrying: int = 0
    rate_now: float = 0.0
    rate: float = 0.0
    busy: float = 0.0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0
    wait_in: float = 0.0
    wait_out: float = 0.0
    channel: ChannelReport | None = None
    details: dict[str, float] = field(default_factory=dict[str, float])

    def check(self) -> None:
        """Check that what came into the stage is somewhere.

        Raises:
            AccountingError: it is not; the message has the stage, its figures and the difference.
        """
        of = f" of stage {self.name!r}"
        _balance(of, {"in": self.items_in, "created": self.created}, {"out": self.items_out, **_fates(self)})
        lanes = self.channel.lanes if self.channel is not None else {}
        for name, lane in lanes.items():
            out = {"out": lane.units_out, "waiting": lane.units}
            _balance(f" of lane {name!r}{of}", {"in": lane.units_in}, out)
        if lanes:
            _balance(of, {"in": self.items_in}, {"by its lanes": sum(lane.units_in for lane in lanes.values())})


@dataclass(frozen=True, slots=True)
class Bottleneck(Readable):
    """The stage that holds the others up.

    Attributes:
        busy: its busy share, 0..1.
        reason: a sentence.
        gain: how many times faster the whole would be if this stage cost nothing, as far as the next busiest allows.
    """

    stage: str
    busy: float
    reason: str
    gain: float


@dataclass(frozen=True, slots=True)
class MemoryReport(Readable):
    """Memory of this process and its children, in bytes.

    Attributes:
        now: at the latest sample.
        peak: largest sample.
        processes: at the latest sample.
        samples: how many were taken.
        measure: ``pss`` (shared pages counted once), or ``rss`` where that cannot be read.
        each: of every process by its id, at the latest sample.
    """

    now: int
    peak: int
    processes: int
    samples: int
    measure: str
    each: dict[int, int] = field(default_factory=dict[int, int])


@dataclass(frozen=True, slots=True)
class Stall(Readable):
    """A time in which a stage stood still; see `observe.watchdog`.

    Attributes:
        stage: the stage; ``engine`` where something else blocked the hub.
        why: a sentence.
        items: what people know the values by that it was at, the oldest ones.
        began: seconds from the start of the run to when the stage last moved.
        seconds: how long it has stood still, or stood still in all.
        ended: seconds from the start of the run to when it went on; None while it stands still.
    """

    stage: str
    why: str
    items: list[str]
    began: float
    seconds: float
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class Report(Readable):
    """A run, while it runs or after.

    Attributes:
        stages: the source first, the sink last.
        bottleneck: None while nothing has been worked on.
        seconds: since the start, until the end.
        items_per_second: delivered, over `seconds`.
        memory: None unless it was asked for with ``build(sample_memory=)``.
        extra: what a job adds.
        stalls: times in which a stage stood still, as far as they were told; the latest 100.
        approximate: taken beside a hub that did not answer in time, so the figures may not belong together.
    """

    accounting: Accounting = field(default_factory=Accounting)
    stages: list[StageReport] = field(default_factory=list[StageReport])
    bottleneck: Bottleneck | None = None
    seconds: float = 0.0
    items_per_second: float = 0.0
    memory: MemoryReport | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    stalls: list[Stall] = field(default_factory=list[Stall])
    approximate: bool = False

    def check(self, *, ended: bool = False) -> None:
        """Check that nothing is missing: at each stage, on the way from one to the next, and in the whole.

        Figures that do not belong together (see `approximate`) prove nothing and are not judged.

        Args:
            ended: the run has come to its end by itself, so nothing may be in flight any more.

        Raises:
            AccountingError: something is; the message names the stage.
        """
        if self.approximate:
            return
        for stage in self.stages:
            stage.check()
        try:
            self.accounting.check()
        except AccountingError as error:
            # Each stage balances by itself, so it was lost between two of them.
            for before, after in pairwise(self.stages):
                if before.items_out != after.items_in:
                    gave = f"stage {before.name!r} gave {before.items_out}, stage {after.name!r} got {after.items_in}"
                    error.add_note(gave)
            raise
        if ended and self.accounting.in_flight:
            left = ", ".join(f"{stage.in_flight} at stage {stage.name!r}" for stage in self.stages if stage.in_flight)
            raise AccountingError(f"the run has ended, and of {self.accounting.read} read are in flight still: {left}")

    @property
    def images_per_second(self) -> float:
        """What jobs call `items_per_second`."""
        return self.items_per_second
