"""The stage that runs an operation on each entry."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any

from ..errors import ItemError, PenstockError
from .budget import FailureBudget
from .channel import Channel, Entry
from .hub import Seat
from .nodes import Emitter, Engine, Job, as_exception
from .ops import END, Collect, Operation, advance, is_arity_error, step
from .runners import Answer, ExecutorRunner, Runner, StageBroken
from .values import NOTHING, Feedback, ItemFailure, Lane, Outcome

_logger = logging.getLogger(__name__)


class Pipe(Emitter):
    """An operation on each entry.

    Args:
        op: what to run.
        runner: where.
        concurrency: fibers, and so operations at once.
        ordered: emit (drop, fail) in the order of arrival: a fiber that is done early waits for its turn and holds its
            place, so there are never more than `concurrency` entries here.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        channel: Channel,
        budget: FailureBudget,
        *,
        op: Operation,
        kind: str,
        concurrency: int = 1,
        parallelism: int | None = None,
        ordered: bool = False,
    ) -> None:
        super().__init__(engine, name, channel, budget)
        self.kind = kind
        self.concurrency = concurrency
        self.parallelism = parallelism or concurrency
        self.runner: Runner
        self._channel = channel
        self._op = op
        self.ordered = ordered and concurrency > 1
        self._taken = 0
        self._serving = 0
        self._queue: dict[int, Seat] = {}

    def _work(self) -> None:
        while True:
            self._one(self._channel.get(self.meter.wait_in))

    def _one(self, entry: Entry) -> None:
        job = Job(self, entry, self._taken)
        self._taken += 1
        try:
            if self._op.is_many:
                self._many(job)
            else:
                self._settle(job, self._run(self._op.call, entry.value, job))
        except StageBroken as broken:
            self._give_up(job)
            self._engine.fatal(self, [broken.args[0]], "cannot go on")
            return
        except BaseException:
            self._give_up(job)
            raise
        self.meter.times.add(job.seconds)
        self._leave(job)
        self.budget.count(entry.units)
        self._judge()
        self._next_turn(job)
        if self.in_circle:
            self._engine.settled(self)

    def _run(self, fn: Callable[[Any], Any], argument: Any, job: Job) -> Answer:
        """Run a function where the stage runs, and time it."""
        busy, began = self.meter.busy, perf_counter()
        busy.begin(began)
        seconds = None
        try:
            answer = self.runner.run(fn, argument, job)
            result = answer.result
            known = result.seconds if isinstance(result, Outcome) else None
            seconds = answer.seconds if known is None else known
            job.seconds += seconds
        finally:
            busy.end(began, perf_counter(), seconds)
        return answer

    def _settle(self, job: Job, answer: Answer) -> None:
        """What an operation returned goes where it belongs, in its turn."""
        self._wait_turn(job)
        if answer.error is not None:
            self._fail(job, answer.error)
            return
        value = answer.result
        if isinstance(value, Outcome):
            self._tell(job, value)
            value = value.value
        if value is not None and value is not NOTHING:
            self._emit(job, value)
        elif self._op.is_many and value is None:  # for one value `_leave` sees to it
            self.meter.dropped += 1
            job.spend(1)

    def _many(self, job: Job) -> None:
        """Each value of a generator goes on at once; its next one is made only when there was room for it."""
        value, fn = job.entry.value, self._op.call
        if isinstance(self.runner, ExecutorRunner):
            answer = self._run(Collect(fn), value, job)
            self._settle(job, Answer(NOTHING, answer.error, 0.0))
            for made in answer.result or ():
                self._settle(job, Answer(made, None, 0.0))
            return
        job.made = iterator = fn(value)
        forward: Callable[[Any], Any] = advance if self._op.is_async else step
        while (answer := self._run(forward, iterator, job)).result is not END:
            self._settle(job, answer)
            if answer.error is not None:
                return
        self._wait_turn(job)

    # -- order --------------------------------------------------------------------------------------------------------

    def _wait_turn(self, job: Job) -> None:
        if self.ordered and job.ticket != self._serving:
            seat = self._queue[job.ticket] = Seat(self._engine.hub)
            began = perf_counter()
            self.meter.wait_out.begin(began)
            try:
                seat.sit()
            finally:
                self.meter.wait_out.end(began, perf_counter())

    def _next_turn(self, job: Job) -> None:
        if self.ordered:
            self._serving = job.ticket + 1
            seat = self._queue.pop(self._serving, None)
            if seat is not None:
                seat.call()

    # -- when it goes wrong -------------------------------------------------------------------------------------------

    def _fail(self, job: Job, error: BaseException) -> None:
        """One item's failure, unless it is the program's or the job's.

        Raises:
            StageBroken: it is.
        """
        if is_arity_error(error, self._op) or (isinstance(error, PenstockError) and not isinstance(error, ItemError)):
            raise StageBroken(error)
        units = job.entry.units
        _logger.error("stage %s: an item failed: %s: %s", self.name, type(error).__name__, error, exc_info=error)
        cause = as_exception(error)
        job.spend(units)
        self.meter.failed += units
        self.budget.count(0, units)
        self.budget.errors.append(cause)
        self._values.failed(self.name, job.entry.value, (ItemFailure("", cause),))

    def _give_up(self, job: Job) -> None:
        """The entry stays in the books as in flight; give its value back when nobody can be using it any more."""
        self.active -= 1
        value, emitted = job.entry.value, job.emitted

        def late(answer: Answer) -> None:
            collected = self._op.is_many and isinstance(self.runner, ExecutorRunner)
            made = [
                plain
                for each in (answer.result if collected else [answer.result])
                if (plain := _plain(each)) is not None
            ]
            for each in made:
                self._values.discard(each)
            if not made and not emitted:
                self._values.discard(value)

        if job.call is not None:
            self._engine.abandon(self, job.call, late)
        elif not emitted:
            self._values.discard(value)


def _plain(made: Any) -> Any:
    """The value inside what an operation returned; None for no value."""
    if isinstance(made, Outcome):
        made = made.value
    if isinstance(made, Lane | Feedback):
        made = made.value
    return None if made is END or made is NOTHING else made
