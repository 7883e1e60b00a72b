"""The stages that make lists of values, and values of lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .budget import FailureBudget
from .channel import Channel, Closed, Entry, Nudged
from .operations import Operation
from .policies import Skip
from .stage import Emitter, Engine, Job
from .stage_pipe import Pipe


class Aggregate(Emitter):
    """Collects entries into lists of at least `n` units.

    Args:
        drop_last: drop what is left at the end instead of emitting a short list.
        max_wait: seconds after which a short list is emitted, from its first entry on.
    """

    kind = "aggregate"

    def __init__(
        self, engine: Engine, name: str, channel: Channel, n: int, drop_last: bool, max_wait: float | None
    ) -> None:
        super().__init__(engine, name, channel, FailureBudget(-1))
        self._channel = channel
        self._n = n
        self._drop_last = drop_last
        self._max_wait = max_wait
        self._entries: list[Entry] = []
        self._units = 0
        self._due = False
        self._cancel: Callable[[], None] | None = None

    @property
    def has_entries(self) -> bool:
        """Whether it holds entries that wait for more."""
        return bool(self._entries)

    def flush(self) -> None:
        """Nothing more can come but by what is held here: let go of it."""
        self._channel.nudge()

    def _work(self) -> None:
        try:
            while True:
                self._one()
                if self.in_circle:  # also when it only took something in: that may have been the last thing to move
                    self._engine.settled(self)
        except Closed:
            self._finish()
            raise
        finally:
            self._stop_clock()
            for entry in self._entries:
                self._values.discard(entry.value)

    def _one(self) -> None:
        try:
            entry = self._channel.get(self.meter.wait_in)
        except Nudged:
            if self._due:
                self._emit_list()
            else:
                self._finish()
            return
        self.held += entry.units
        self._units += entry.units
        self._entries.append(entry)
        if self._units >= self._n:
            self._emit_list()
        elif self._max_wait is not None and self._cancel is None:
            self._cancel = self._engine.hub.timer(self._max_wait, self._ring)

    def _ring(self) -> None:
        self._due = True
        self._channel.nudge()

    def _stop_clock(self) -> None:
        self._due = False
        if self._cancel is not None:
            self._cancel()
            self._cancel = None

    def _finish(self) -> None:
        """The end: what is held is too little for a whole list."""
        if not self._drop_last:
            self._emit_list()
            return
        entries, units = self._take()
        self.meter.dropped += units
        self.held -= units
        for entry in entries:
            self._values.discard(entry.value)

    def _take(self) -> tuple[list[Entry], int]:
        self._stop_clock()
        entries, self._entries = self._entries, []
        units, self._units = self._units, 0
        return entries, units

    def _emit_list(self) -> None:
        entries, units = self._take()
        if not entries:
            return
        self.held -= units  # the job holds them from here on
        job = Job(self, Entry([entry.value for entry in entries], units, 0), 0)
        try:
            self._emit(job, job.entry.value)
        except BaseException:
            self.active -= 1
            raise
        self._leave(job)


class Disaggregate(Pipe):
    """Emits the members of each entry."""

    def __init__(self, engine: Engine, name: str, channel: Channel, budget: FailureBudget) -> None:
        each = Operation(_each, is_async=False, is_many=True, is_green=True, name=name)
        super().__init__(engine, name, channel, budget, op=each, policy=Skip(), kind="disaggregate")

    def _give_up(self, job: Job) -> None:
        """The members that were not reached are ours to give back, too."""
        super()._give_up(job)
        for member in job.made if job.emitted else ():
            self._values.discard(member)


def _each(values: Iterable[Any]) -> Iterable[Any]:
    """A generator, so that a value that is not iterable is that value's failure."""
    yield from values
