"""The stage that runs an operation on each entry."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic, perf_counter
from typing import Any, NoReturn

from ...errors import ItemError, PenstockError
from ...formatting import printable
from .budget import FailureBudget
from .channel import Channel, Entry
from .hub import Event, Waiter
from .operations import END, ListOf, Operation, advance, is_arity_error, step
from .patience import Patience
from .policies import Fail, Policy, Retry, asked_wait, is_transient
from .runners import Answer, Runner, StageBroken
from .stage import Emitter, Engine, Job, as_exception
from .values import NOTHING, Feedback, ItemFailure, Lane, Outcome

_logger = logging.getLogger(__name__)


class Pipe(Emitter):
    """An operation on each entry.

    Args:
        op: what to run.
        policy: what an item's failure leads to.
        runner: where.
        concurrency: fibers, and so operations at once.
        ordered: emit (drop, fail) in the order of arrival: a fiber that is done early waits for its turn and holds its
            place, so there are never more than `concurrency` entries here.

    Attributes:
        consumes: whether an entry becomes what its operation returns, so that it is not given back besides.
    """

    consumes = True

    def __init__(
        self,
        engine: Engine,
        name: str,
        channel: Channel,
        budget: FailureBudget,
        *,
        op: Operation,
        policy: Policy,
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
        self._retry = policy if isinstance(policy, Retry) else None
        self._fails = isinstance(self._retry.then if self._retry else policy, Fail)
        self._patience = Patience(self._retry, concurrency) if self._retry else None
        self._flush = Event(engine.hub)
        self.ordered = ordered and concurrency > 1
        self._taken = 0
        self._serving = 0
        self._queue: dict[int, Waiter] = {}

    def _work(self) -> None:
        while True:
            self._one(self._channel.get(self.meter.wait_in))

    def flush_retries(self) -> None:
        """The pipeline is being drained: what waits to be tried again is tried now, and then no more."""
        self._flush.set()

    def _one(self, entry: Entry) -> None:
        job = Job(self, entry, self._taken)
        self._taken += 1
        try:
            done = self._attempt(job)
        except StageBroken as broken:
            self._give_up(job)
            self._engine.fatal(self, [broken.error], broken.why)
            return
        except BaseException:
            self._give_up(job)
            raise
        if done:
            self.meter.times.add(job.seconds)
            self._leave(job)
            self.budget.count(entry.units)
            self._judge()
        else:
            self._give_up(job)
        self._next_turn(job)
        if self.in_loop:
            self._engine.settled(self)

    def _run(self, fn: Callable[[Any], Any], argument: Any, job: Job) -> Answer:
        """Run a function where the stage runs, and time it."""
        busy, began = self.meter.busy, perf_counter()
        busy.begin(began)
        job.begin(began)
        seconds = None
        try:
            answer = self.runner.run(fn, argument, job)
            result = answer.result
            known = result.seconds if isinstance(result, Outcome) else None
            seconds = answer.seconds if known is None else known
            job.seconds += seconds
        finally:
            job.end()
            busy.end(began, perf_counter(), seconds)
        if answer.error is not None and answer.result is not None:  # a hook raised afterwards
            self._lose(job, *self._made(answer.result))
        return answer

    def _attempt(self, job: Job) -> bool:
        """Run the operation, again if need be. False: a drain came between two attempts, and the entry stays."""
        once = self._many if self._op.is_many else self._single
        self._count(job)
        while once(job):
            if self._flush.is_set:
                self._wait_turn(job)  # whoever goes passes the turn on
                return False
            self._pause(job)
            self.meter.retried += job.entry.units
            self._count(job)
        if self._patience and job.attempts > 1:
            self._patience.learn(job.in_vain)
        return True

    def _count(self, job: Job) -> None:
        """One more attempt begins; its value is told if it is the last one."""
        job.attempts += 1
        waited = monotonic() - job.failed_at if job.failed_at else 0.0
        if self._patience and self._patience.is_last(job.attempts, waited):
            job.is_last = True
            self._values.last_attempt(job.entry.value)

    def _single(self, job: Job) -> bool:
        """One value of one; says whether the entry, or what is left of it, is to be done again."""
        answer = self._run(self._op.call, job.entry.value, job)
        if answer.error is not None:
            return self._raised(job, answer.error, begun=job.emitted)
        value, rest = answer.result, None
        if isinstance(value, Outcome) and value.failures:
            value, rest = self._divided(job, value)
        try:
            self._settle(job, value)
        except BaseException:
            self._lose(job, rest)
            raise
        if rest is None:
            return False
        entry = self.entry(rest, job.entry.family)
        self._let_go(job, job.left - entry.units)
        job.entry, job.emitted = entry, False
        return True

    def _many(self, job: Job) -> bool:
        """Each value of a generator goes on at once; its next one is made only when there was room for it.

        It is started again as long as it has made nothing: what has gone on cannot be taken back.
        """
        value, fn = job.entry.value, self._op.call
        if self.runner.collects:
            answer = self._run(ListOf(fn), value, job)
            if answer.error is not None:
                return self._raised(job, answer.error, begun=job.emitted)
            self._settle_all(job, deque(answer.result))
            return False
        job.made = iterator = fn(value)
        forward: Callable[[Any], Any] = advance if self._op.is_async else step
        begun = False
        while (answer := self._run(forward, iterator, job)).result is not END:
            if answer.error is not None:
                return self._raised(job, answer.error, begun or job.emitted)
            self._settle(job, answer.result)
            begun = True
        self._wait_turn(job)
        return False

    def _settle_all(self, job: Job, values: deque[Any]) -> None:
        """What an operation elsewhere made of one value, at once."""
        try:
            self._wait_turn(job)
            while values:
                self._settle(job, values.popleft())
        except BaseException:
            for value in values:
                self._lose(job, value)
            raise

    def _settle(self, job: Job, value: Any) -> None:
        """What an operation returned goes where it belongs, in its turn."""
        failures: Sequence[ItemFailure] = ()
        try:
            self._wait_turn(job)
            if isinstance(value, Outcome):
                failures = value.failures if self._fails else ()
                self._tell(job, replace(value, failures=()) if failures else value)
        except BaseException:
            self._lose(job, value)
            raise
        if isinstance(value, Outcome):
            value = value.value
        if value is not None and value is not NOTHING:
            self._emit(job, value)
        elif self._op.is_many and value is None:  # for one value `_leave` sees to it
            self.meter.dropped += 1
            job.spend(1)
        if failures:
            item = failures[0].key or self._values.describe(job.entry.value)
            self._end(job, item, as_exception(failures[0].error))

    # -- order --------------------------------------------------------------------------------------------------------

    def _wait_turn(self, job: Job) -> None:
        if self.ordered and job.ticket != self._serving:
            waiter = self._queue[job.ticket] = Waiter(self._engine.hub)
            began = perf_counter()
            self.meter.wait_out.begin(began)
            try:
                waiter.park()
            finally:
                self.meter.wait_out.end(began, perf_counter())

    def _next_turn(self, job: Job) -> None:
        if self.ordered:
            self._serving = job.ticket + 1
            waiter = self._queue.pop(self._serving, None)
            if waiter is not None:
                waiter.unpark()

    # -- when it goes wrong -------------------------------------------------------------------------------------------

    def _raised(self, job: Job, error: BaseException, begun: bool = False) -> bool:
        """What an operation raised: one item's failure, unless it is to be tried again, which this says.

        Raises:
            StageBroken: it is the program's failure or the job's.
        """
        if not begun and self._is_worth(job, error):
            return True
        self._wait_turn(job)
        if is_arity_error(error, self._op) or (isinstance(error, PenstockError) and not isinstance(error, ItemError)):
            raise StageBroken(as_exception(error))
        cause = as_exception(error)
        if self._fails:
            self._end(job, self._values.describe(job.entry.value), cause)
        _logger.error("stage %s: an item failed: %s: %s", self.name, type(error).__name__, error, exc_info=error)
        self._fail(job, (ItemFailure("", cause, job.attempts),), job.entry.units)
        return False

    def _end(self, job: Job, item: str, error: Exception) -> NoReturn:
        """A failure that ends the whole. Its item stays in flight: no dead letter, and a job does it again.

        Raises:
            StageBroken: always.
        """
        tried = f" at attempt {job.attempts}" if job.attempts > 1 else ""
        why = f"item {printable(item)} failed{tried}, and on_failure is fail"
        error.add_note(why)
        raise StageBroken(error, why)

    # -- trying again -------------------------------------------------------------------------------------------------

    def _is_worth(self, job: Job, error: BaseException) -> bool:
        """Whether what failed so is to be tried again."""
        if self._patience is None or not is_transient(error):
            return False
        job.failed_at = job.failed_at or monotonic()
        job.asked = max(job.asked, asked_wait(error))
        job.in_vain = job.is_last or not self._patience.can_wait(job.asked, monotonic() - job.failed_at)
        return not job.in_vain

    def _divided(self, job: Job, outcome: Outcome) -> tuple[Outcome, Any]:
        """An Outcome without the failures that are to be tried again, and the part of the input they are about."""
        earlier = job.attempts - 1
        counted = [replace(failure, attempts=failure.attempts + earlier) for failure in outcome.failures]
        again = [failure for failure in counted if self._is_worth(job, failure.error)]
        rest = self._values.part(job.entry.value, again) if again else None
        stays = counted if rest is None else [each for each in counted if not self._is_worth(job, each.error)]
        return replace(outcome, failures=stays), rest

    def _pause(self, job: Job) -> None:
        """Wait until it is time for the next attempt; a drain, a stop or a fatal failure ends the waiting."""
        assert self._patience is not None
        seconds, job.asked = self._patience.pause(job.attempts, monotonic() - job.failed_at, job.asked), 0.0
        item = printable(self._values.describe(job.entry.value))
        _logger.info("stage %s: %s: attempt %d failed, again in %.2f s", self.name, item, job.attempts, seconds)
        self.retrying.add(job)
        try:
            self._flush.wait(seconds)
        finally:
            self.retrying.discard(job)

    # -- the end of an entry ------------------------------------------------------------------------------------------

    def _lose(self, job: Job, *made: Any) -> None:
        """What was made of an entry cannot go on; the entry, which became that, is not ours."""
        for each in made:
            if (value := _plain(each)) is not None:
                job.emitted = job.emitted or self.consumes
                self._values.discard(value)

    def _give_up(self, job: Job) -> None:
        """The entry stays in the books as in flight; give its value back when nobody can be using it any more."""
        self.active -= 1
        value, emitted = job.entry.value, job.emitted

        def late(answer: Answer) -> None:
            made = self._made(answer.result)
            for each in made:
                self._values.discard(each)
            if not emitted and not (made and self.consumes):
                self._values.discard(value)

        if job.call is not None:
            self._engine.abandon(self, job.call, late)
        elif not emitted:
            self._values.discard(value)

    def _made(self, result: Any) -> list[Any]:
        """The values in what an operation, or one step of it, returned."""
        results = result if result is not None and self._op.is_many and self.runner.collects else [result]
        return [plain for each in results if (plain := _plain(each)) is not None]


def _plain(made: Any) -> Any:
    """The value inside what an operation returned; None for no value."""
    if isinstance(made, Outcome):
        made = made.value
    if isinstance(made, Lane | Feedback):
        made = made.value
    return None if made is END or made is NOTHING else made
