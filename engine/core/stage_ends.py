"""The stages that are not operations: the source, and aggregation both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

from .budget import FailureBudget
from .channel import Channel, Closed, Entry, Nudged
from .hub import Killed
from .operations import END, Operation
from .policies import Skip
from .runners import Answer
from .source_reader import Intake
from .stage import Emitter, Engine, Job, as_exception
from .stage_pipe import Pipe
from .values import NOTHING, Lane, Outcome


class Source(Emitter):
    """Draws values and puts them into the first channel.

    Attributes:
        intake: set before `begin`.
    """

    kind = "source"

    def __init__(self, engine: Engine, budget: FailureBudget) -> None:
        super().__init__(engine, "source", None, budget)
        self.intake: Intake

    def kill(self) -> None:
        """See `Node`."""
        self.intake.stop()
        super().kill()

    def retire(self) -> None:
        """Draw no more; what has been drawn goes on."""
        self.intake.stop()

    def leftover(self, values: list[Any]) -> None:
        """Values that were drawn and never taken: read, and in flight for ever."""
        for value in values:
            units = self._values.units(value)
            self.meter.items_in += units
            self.held += units
            self._values.discard(value)

    def _work(self) -> None:
        while self._one():
            pass

    def _one(self) -> bool:
        """Draw a value and pass it on; a frame of its own, so that nothing holds it while the next one is awaited."""
        waiting = Job(self, Entry(None, 0, 0), 0)
        waiting.begin(perf_counter())
        try:
            drawn = self.intake.draw(waiting)
        except BaseException as error:
            if waiting.call is not None:
                self._engine.abandon(self, waiting.call, self._late)
            if isinstance(error, Killed) and self.doomed:
                raise
            self._engine.fatal(self, [as_exception(error)], "raised")
            return False
        finally:
            waiting.end()
            self.active -= 1
        if drawn is None:
            return False
        self.meter.busy.add(drawn.seconds)
        self.meter.times.add(drawn.seconds)
        self._pass_on(drawn.value)
        return True

    def _late(self, answer: Answer) -> None:
        if answer.error is None and answer.result is not END:
            self.leftover([answer.result])

    def _pass_on(self, value: Any) -> None:
        outcome = value if isinstance(value, Outcome) else None
        if outcome is not None:
            value = outcome.value
        nothing = outcome is not None and (value is None or value is NOTHING)
        units = 0 if nothing else self._values.units(value.value if isinstance(value, Lane) else value)
        if outcome is not None:
            units += outcome.dropped + len(outcome.failures)
        self.meter.items_in += units
        job = Job(self, Entry(value, units, 0), 0)
        job.emitted = True  # from here on whoever fails to put it gives it back
        if outcome is not None:
            try:
                self._tell(job, outcome)
            except BaseException:
                if not nothing:
                    self._values.discard(value.value if isinstance(value, Lane) else value)
                raise
        if not nothing:
            self._emit(job, value)
        self._leave(job)
        self.budget.count(units)
        self._judge()


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
