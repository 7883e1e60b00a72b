"""What a stage measures of itself: counts, times in a fixed amount of memory, waiting, rates.

Written by the engine's thread only. An event costs well under 3 us (`tests/test_engine_metrics.py` prints the figure).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import frexp
from time import perf_counter

_STEPS = 8
"""Buckets per doubling: a percentile is right within 9 %."""
_LOWEST = -20
"""The first doubling: 2**-20 s, about 1 us."""
_DOUBLINGS = 34
"""Up to 2**14 s, about 4.5 hours."""
_WINDOW = 5
"""Samples kept for the present rate: at `SAMPLE_SECONDS` apart the rate is over the last 2 s."""

SAMPLE_SECONDS = 0.5
"""How often `Meter.sample` is to be called."""


class Histogram:
    """Durations in log-scaled buckets: constant memory, whatever the number of events."""

    __slots__ = ("_buckets", "count", "total")

    def __init__(self) -> None:
        self._buckets = [0] * (_STEPS * _DOUBLINGS)
        self.count = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one event."""
        self.count += 1
        self.total += seconds
        mantissa, exponent = frexp(seconds)  # seconds = mantissa * 2**exponent, 0.5 <= mantissa < 1
        index = (exponent - 1 - _LOWEST) * _STEPS + int((mantissa - 0.5) * (2 * _STEPS))
        last = len(self._buckets) - 1
        self._buckets[0 if index < 0 else min(index, last)] += 1

    @property
    def mean(self) -> float:
        """Mean in seconds; 0 without events."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Seconds below which `share` (0..1) of the events lie: the middle of a bucket; 0 without events."""
        rank, seen = share * self.count, 0
        for index, count in enumerate(self._buckets):
            seen += count
            if count and seen >= rank:
                doubling, step = divmod(index, _STEPS)
                return float(2.0 ** (doubling + _LOWEST) * (1 + (step + 0.5) / _STEPS))
        return 0.0


class Stopwatch:
    """Total time of overlapping spans, of which some may be running still."""

    __slots__ = ("_begun", "_running", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._running = 0
        self._begun = 0.0  # sum of the beginnings of the running spans

    def begin(self, now: float) -> None:
        """A span begins."""
        self._running += 1
        self._begun += now

    def end(self, began: float, now: float, seconds: float | None = None) -> None:
        """The span that began at `began` ends; `seconds` where its length is known better."""
        self._running -= 1
        self._begun -= began
        self._total += now - began if seconds is None else seconds

    def add(self, seconds: float) -> None:
        """A span that has ended, measured elsewhere."""
        self._total += seconds

    @property
    def running(self) -> int:
        """Spans that have not ended."""
        return self._running

    def seconds(self, now: float) -> float:
        """All spans together, running ones up to `now`."""
        return self._total + self._running * now - self._begun


class Pace:
    """How fast a count of units grows: since it began to, and now."""

    __slots__ = ("_samples", "first", "first_units")

    def __init__(self) -> None:
        self.first: float | None = None
        self.first_units = 0
        self._samples: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def begin(self, now: float, units: int) -> None:
        """The first units are there."""
        self.first, self.first_units = now, units

    def sample(self, now: float, units: int) -> None:
        """Remember where the count stands, for `rate_now`."""
        self._samples.append((now, units))
        if units and self.first is None:
            self.begin(now, units)

    def rate_now(self, now: float, units: int) -> float:
        """Units a second over the last 2 s (less at the beginning)."""
        if not self._samples:
            return self.rate(now, units)
        when, before = self._samples[0]
        return (units - before) / (now - when) if now > when else 0.0

    def rate(self, now: float, units: int) -> float:
        """Units a second since the first ones, which are not counted: they paid for the warm-up."""
        if self.first is None or now <= self.first:
            return 0.0
        return (units - self.first_units) / (now - self.first)


class Meter:
    """The books and clocks of one stage. Counts are in units (see `ValueModel`)."""

    __slots__ = (
        "busy",
        "created",
        "details",
        "dropped",
        "failed",
        "items_in",
        "items_out",
        "merged",
        "pace",
        "retried",
        "times",
        "wait_in",
        "wait_out",
    )

    def __init__(self) -> None:
        self.items_in = self.items_out = self.dropped = self.failed = self.created = self.merged = 0
        self.retried = 0
        self.times = Histogram()
        self.busy, self.wait_in, self.wait_out = Stopwatch(), Stopwatch(), Stopwatch()
        self.details: dict[str, float] = {}
        self.pace = Pace()

    def emitted(self, units: int) -> None:
        """Something has left the stage."""
        self.items_out += units
        if self.pace.first is None:
            self.pace.begin(perf_counter(), units)

    def detail(self, details: Mapping[str, float]) -> None:
        """Add named sub-timings."""
        for name, seconds in details.items():
            self.details[name] = self.details.get(name, 0.0) + seconds

    def sample(self, now: float) -> None:
        """Remember where the output stands, for `rate_now`."""
        self.pace.sample(now, self.items_out)

    def rate_now(self, now: float) -> float:
        """Units a second over the last 2 s (less at the beginning)."""
        return self.pace.rate_now(now, self.items_out)

    def rate(self, now: float) -> float:
        """Units a second since the first output, which is not counted: it paid for the warm-up."""
        return self.pace.rate(now, self.items_out)
