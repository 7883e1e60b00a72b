"""The first stage: the source."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from .budget import FailureBudget
from .channel import Entry
from .hub import Killed
from .operations import END
from .runners import Answer
from .source_reader import SourceReader
from .stage import Emitter, Engine, Job, as_exception
from .values import NOTHING, Lane, Outcome


class Source(Emitter):
    """Draws values and puts them into the first channel.

    Attributes:
        reader: set before `begin`.
    """

    kind = "source"

    def __init__(self, engine: Engine, budget: FailureBudget) -> None:
        super().__init__(engine, "source", None, budget)
        self.reader: SourceReader

    def kill(self) -> None:
        """See `Node`."""
        self.reader.stop()
        super().kill()

    def stop_input(self) -> None:
        """Draw no more; what has been drawn goes on."""
        self.reader.stop()

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
            drawn = self.reader.draw(waiting)
        except BaseException as error:
            if waiting.call is not None:
                self._engine.abandon(self, waiting.call, self._late)
            if isinstance(error, Killed) and self.cancelled:
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
