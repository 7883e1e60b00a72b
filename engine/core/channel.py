"""Channels: bounded in items and bytes, with weighted lanes. Hub only, so there are no locks.

Bounds hold for each lane by itself, so that a full lane never keeps out the work of another. A value larger than the
byte bound passes alone. Only a feedback edge may put more than the bound (its producer must never wait, or a full
loop would stand still for ever); a lane over its bound is then served before all others until it is back, so it grows
by no more than what is under way between the two ends of the edge.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

from ...errors import ConfigError
from .family import Family
from .hub import Hub, Waiter
from .metrics import Stopwatch


class Entry(NamedTuple):
    """A value on its way, with what it stands for."""

    value: Any
    units: int
    nbytes: int
    family: Family = None


class Closed(Exception):  # noqa: N818  (a state of the world, not an error)
    """The channel is empty and nothing will ever come."""


class Woken(Exception):  # noqa: N818  (a state of the world, not an error)
    """Somebody wants the reader to look up although nothing has come."""


@dataclass(frozen=True, slots=True)
class LaneFill:
    """How full a lane is: its weight, items and units waiting, and the units that ever came in and were taken out."""

    weight: int
    items: int
    units: int
    units_in: int
    units_out: int


class _Lane:
    """One lane: a queue, those who wait to put into it, and its standing in the round robin."""

    __slots__ = ("credit", "items", "name", "nbytes", "putters", "units", "units_in", "units_out", "weight")

    def __init__(self, name: str, weight: int) -> None:
        self.name = name
        self.weight = weight
        self.credit = 0
        self.items: deque[Entry] = deque()
        self.putters: deque[Waiter] = deque()
        self.units = self.units_in = self.units_out = 0
        self.nbytes = 0


class Channel:
    """What lies between two stages.

    Args:
        hub: the hub everybody here lives on.
        size: items a lane may hold.
        nbytes: bytes a lane may hold; None for no limit.
        lanes: weight of each lane by name; the first one takes what is not marked.
    """

    def __init__(self, hub: Hub, size: int, nbytes: int | None = None, lanes: Mapping[str, int] | None = None) -> None:
        self._hub = hub
        self.size = size
        self.nbytes_limit = nbytes
        self._lanes = {name: _Lane(name, weight) for name, weight in (lanes or {"": 1}).items()}
        self._default = next(iter(self._lanes.values()))
        self._last = next(reversed(self._lanes))
        self._getters: deque[Waiter] = deque()
        self._nudged = False
        self._shut = False
        self.closed = False
        self.on_put: Callable[[int], None] = _ignore
        self.count = 0  # items in all lanes
        self._area = 0.0  # integral of `count` over time
        self._since = self._began = perf_counter()

    # -- for producers ------------------------------------------------------------------------------------------------

    def put(self, entry: Entry, lane: str | None = None) -> None:
        """Put an entry, waiting for room; those who wait are served in turn.

        Raises:
            ConfigError: there is no such lane.
        """
        place = self._default if lane is None else self._named(lane)
        if place.putters or not self._has_room(place, entry):
            self._wait_for_room(place, entry)
        self._append(place, entry)

    def put_feedback(self, entry: Entry, lane: str | None) -> None:
        """Put an entry that came along a feedback edge: never waits. `lane` None is the last one declared.

        Raises:
            ConfigError: there is no such lane.
        """
        self._append(self._named(self._last if lane is None else lane), entry)

    def close(self) -> None:
        """Nothing will come any more; readers get what is left."""
        self.closed = True
        self._call_all()

    def _named(self, lane: str) -> _Lane:
        try:
            return self._lanes[lane]
        except KeyError:
            known = ", ".join(map(repr, self._lanes)) if len(self._lanes) > 1 else "none"
            raise ConfigError(
                f"there is no lane {lane!r} in the next stage's channel (declared with lanes=: {known})"
            ) from None

    def _has_room(self, lane: _Lane, entry: Entry) -> bool:
        if len(lane.items) >= self.size:
            return False
        return self.nbytes_limit is None or not lane.items or lane.nbytes + entry.nbytes <= self.nbytes_limit

    def _wait_for_room(self, lane: _Lane, entry: Entry) -> None:
        waiter = Waiter(self._hub)
        lane.putters.append(waiter)
        try:
            while lane.putters[0] is not waiter or not self._has_room(lane, entry):
                waiter.park()
        except BaseException:
            lane.putters.remove(waiter)
            if lane.putters:
                lane.putters[0].unpark()
            raise
        lane.putters.popleft()

    def _append(self, lane: _Lane, entry: Entry) -> None:
        lane.items.append(entry)
        lane.units += entry.units
        lane.units_in += entry.units
        lane.nbytes += entry.nbytes
        self._tick(1)
        self.on_put(entry.units)
        if self._getters:
            self._getters.popleft().unpark()
        if lane.putters:
            lane.putters[0].unpark()

    # -- for the stage that reads -------------------------------------------------------------------------------------

    def get(self, waiting: Stopwatch) -> Entry:
        """The next entry by the lanes' weights; waits for one, which `waiting` measures.

        Raises:
            Closed: there is none and there will be none.
            Woken: `wake` was called.
        """
        return self._take(self._next_lane(waiting))

    def get_with_lane(self, waiting: Stopwatch) -> tuple[str, Entry]:
        """The same, and the lane it lay in.

        Raises:
            Closed, Woken: as `get`.
        """
        lane = self._next_lane(waiting)
        return lane.name, self._take(lane)

    def _next_lane(self, waiting: Stopwatch) -> _Lane:
        while not self.count or self._nudged or self._shut:
            if self._shut or (self.closed and not self.count):
                raise Closed
            if self._nudged:
                self._nudged = False
                raise Woken
            self._wait_for_entry(waiting)
        return self._default if len(self._lanes) == 1 else self._pick()

    @property
    def is_shut(self) -> bool:
        """Whether readers get nothing more."""
        return self._shut

    def close_read(self) -> None:
        """Readers get nothing more, whatever is left."""
        self._shut = True
        self._call_all()

    def wake(self) -> None:
        """Make the reader (a stage with a single one) look up with `Woken`."""
        self._nudged = True
        if self._getters:
            self._getters.popleft().unpark()

    def _call_all(self) -> None:
        for waiter in self._getters:
            waiter.unpark()
        self._getters.clear()

    def _wait_for_entry(self, waiting: Stopwatch) -> None:
        waiter = Waiter(self._hub)
        self._getters.append(waiter)
        began = perf_counter()
        waiting.begin(began)
        try:
            waiter.park()
        except BaseException:
            if waiter in self._getters:
                self._getters.remove(waiter)
            elif self.count and self._getters:  # our call was meant for anybody: pass it on
                self._getters.popleft().unpark()
            raise
        finally:
            waiting.end(began, perf_counter())

    def _pick(self) -> _Lane:
        """Smooth weighted round robin over the lanes that hold something: spreads turns evenly, starves nobody."""
        waiting: list[_Lane] = []
        for lane in self._lanes.values():
            if not lane.items:
                lane.credit = 0  # an idle lane saves nothing up
            elif self._is_over(lane):
                return lane
            else:
                waiting.append(lane)
        for lane in waiting:
            lane.credit += lane.weight
        best = max(waiting, key=lambda lane: lane.credit)
        best.credit -= sum(lane.weight for lane in waiting)
        return best

    def _is_over(self, lane: _Lane) -> bool:
        if len(lane.items) > self.size:
            return True
        return self.nbytes_limit is not None and lane.nbytes > self.nbytes_limit and len(lane.items) > 1

    def _take(self, lane: _Lane) -> Entry:
        entry = lane.items.popleft()
        lane.units -= entry.units
        lane.units_out += entry.units
        lane.nbytes -= entry.nbytes
        self._tick(-1)
        if lane.putters:
            lane.putters[0].unpark()
        return entry

    # -- figures ------------------------------------------------------------------------------------------------------

    def _tick(self, change: int) -> None:
        now = perf_counter()
        self._area += self.count * (now - self._since)
        self._since = now
        self.count += change

    @property
    def units(self) -> int:
        """Units waiting here."""
        return sum(lane.units for lane in self._lanes.values())

    @property
    def nbytes(self) -> int:
        """Bytes waiting here."""
        return sum(lane.nbytes for lane in self._lanes.values())

    @property
    def lanes(self) -> dict[str, LaneFill]:
        """The declared lanes by name; none for a plain channel."""
        if len(self._lanes) == 1:
            return {}
        return {
            name: LaneFill(lane.weight, len(lane.items), lane.units, lane.units_in, lane.units_out)
            for name, lane in self._lanes.items()
        }

    @property
    def capacity(self) -> int:
        """Items that all lanes may hold together."""
        return self.size * len(self._lanes)

    def occupancy(self, now: float) -> float:
        """Mean number of items here, as a share of what may be here."""
        elapsed = now - self._began
        area = self._area + self.count * (now - self._since)
        return min(area / elapsed / self.capacity, 1.0) if elapsed > 0 else 0.0

    def leftovers(self) -> Iterator[Entry]:
        """What is still here. The books keep it as in flight."""
        for lane in self._lanes.values():
            yield from lane.items


def _ignore(units: int) -> None:
    del units
