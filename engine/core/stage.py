"""What all stages are made of: fibers that take from a channel and put into the next one, and the books on it.

The books of every stage balance at any moment: items_in + created == items_out + dropped + failed + merged + in flight,
where in flight is counted for itself (what lies in the channel, and what the fibers hold). Nothing between two switches
of fibers leaves them unbalanced, so a report taken on the hub is always consistent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Protocol

from ...errors import ConfigError, PenstockError
from .budget import FailureBudget
from .channel import Channel, Closed, Entry
from .family import Family, blame, hold, release
from .hub import Fiber, Hub, Killed, current_fiber
from .metrics import Meter
from .runners import Answer, Call
from .values import Feedback, ItemFailure, Lane, Outcome, ValueModel


class Port(Protocol):
    """Where a stage puts what it made: the next channel, or the sink."""

    def put(self, entry: Entry, lane: str | None = None) -> None: ...


class Engine(Protocol):
    """What a stage tells the machine it is part of."""

    hub: Hub
    values: ValueModel

    def fatal(self, stage: Node, errors: Sequence[Exception], why: str, *, spent: bool = False) -> None:
        """The stage cannot go on; `spent`: because its failure budget is."""
        ...

    def settled(self, stage: Node) -> None:
        """The stage is done with one more entry."""
        ...

    def ended(self, stage: Node) -> None:
        """The stage's last fiber has ended."""
        ...

    def abandon(self, stage: Node, call: Call, late: Callable[[Answer], None]) -> None:
        """An operation is not waited for any more."""
        ...

    def record(self, stage: Node, units: int, work: Callable[[], object]) -> None:
        """What is to be done about units that failed goes to whoever reads, when there is room for it."""
        ...


class Node(ABC):
    """What all stages have: books, fibers, and the way they end.

    Attributes:
        active: entries its fibers hold.
        working: those of them whose operation is under way; may be copied from any thread.
        held: units its fibers hold; with the channel's units, what is in flight here.
        cancelled: told to end at once.
        retrying: entries of it that wait to be tried again.
    """

    kind: str = ""
    concurrency = 1
    parallelism = 1
    ordered = False

    def __init__(self, engine: Engine, name: str, channel: Channel | None, budget: FailureBudget) -> None:
        self.name = name
        self.channel = channel
        self.port: Port
        self.feedback: Channel | None = None
        self.meter = Meter()
        self.budget = budget
        self.active = 0
        self.working: set[Job] = set()
        self.held = 0
        self.cancelled = False
        self.in_loop = False
        self.retrying: set[Job] = set()
        self._engine = engine
        self._values = engine.values
        self._fibers: list[Fiber] = []
        self._running = 0
        if channel is not None:
            channel.on_put = self._entered

    def _entered(self, units: int) -> None:
        self.meter.items_in += units

    @property
    def in_flight(self) -> int:
        """Units that have come in and have not left."""
        return self.held + (self.channel.units if self.channel is not None else 0)

    def held_in(self, lane: str) -> tuple[int, int]:
        """Entries and units that it has taken out of a lane and that still wait."""
        del lane
        return 0, 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing here can still become something."""
        return not self.active and (self.channel is None or not self.channel.count)

    @property
    def is_running(self) -> bool:
        """Whether a fiber of it lives."""
        return self._running > 0

    def begin(self) -> None:
        """Start its fibers."""
        self._running = self.concurrency
        self._fibers = [self._engine.hub.spawn(self._live, self._on_fiber_exit) for _ in range(self.concurrency)]

    def kill(self) -> None:
        """End its fibers at once; what they hold is given back."""
        self.cancelled = True
        for fiber in self._fibers:
            if not fiber.dead:
                self._engine.hub.kill(fiber)

    def stop_input(self) -> None:
        """Take nothing more from the channel; what is being worked on is finished."""
        if self.channel is not None:
            self.channel.close_read()

    def close_input(self) -> None:
        """Nothing more will come in; it ends when it has worked off what is there."""
        if self.channel is not None:
            self.channel.close()

    def _live(self) -> None:
        try:
            self._work()
        except Closed:
            pass
        except BaseException as error:  # noqa: BLE001
            # A fiber must not die unheard: whoever waits for what it held would wait for ever.
            if not (isinstance(error, Killed) and self.cancelled):
                self._engine.fatal(self, [as_exception(error)], "stopped")

    def _on_fiber_exit(self) -> None:
        self._running -= 1
        if not self._running:
            self._engine.ended(self)

    @abstractmethod
    def _work(self) -> None:
        """What each of its fibers does until it raises `Closed` or is killed."""

    def entry(self, value: Any, family: Family = None) -> Entry:
        """A value with what it stands for."""
        return Entry(value, self._values.units(value), self._values.nbytes(value), family)


class Job:
    """One entry while a stage works on it.

    Attributes:
        ticket: its place in the order of arrival.
        left: units of it that have become nothing else yet.
        emitted: whether something of it has gone on, so that it is not ours to give back.
        attempts: how often its operation has been run.
        failed_at: when that first failed of something transient (`monotonic`); 0 before.
        asked: seconds that a server asked for before the next attempt.
        is_last: whether this attempt is the last one; `in_vain`: and it has failed of something transient.
        call: the operation under way outside the hub, if any.
        fiber: the one that works on it, and since when its operation is under way.
        made: the generator that makes its values, where its operation makes many.
        seconds: what its operation took.
        family: of which child what it makes now is; position: how many of a list's members have been seen to.
    """

    __slots__ = (
        *("asked", "attempts", "call", "emitted", "entry", "failed_at", "family", "fiber", "in_vain", "is_last"),
        *("left", "made", "node", "position", "seconds", "since", "ticket"),
    )

    def __init__(self, node: Node, entry: Entry, ticket: int) -> None:
        self.node = node
        self.entry = entry
        self.ticket = ticket
        self.left = entry.units
        self.emitted = False
        self.attempts = 0
        self.failed_at = 0.0
        self.asked = 0.0
        self.is_last = False
        self.in_vain = False
        self.call: Call | None = None
        self.made: Any = None
        self.seconds = 0.0
        self.since = 0.0
        self.fiber: Fiber | None = None
        self.family = entry.family
        self.position = 0
        node.active += 1
        node.held += entry.units

    @property
    def cancelled(self) -> bool:
        """See `runners.Job`."""
        return self.node.cancelled

    def begin(self, now: float) -> None:
        """Its operation begins, in the current fiber."""
        self.since = now
        self.fiber = current_fiber()
        self.node.working.add(self)

    def end(self) -> None:
        """Its operation has ended, whatever the result."""
        self.node.working.discard(self)
        self.fiber = None  # it refers back to the job

    def spend(self, units: int) -> None:
        """So many units of it (or more: then the rest was created) have become something else."""
        used = min(self.left, units)
        self.left -= used
        self.node.held -= used
        self.node.meter.created += units - used


class Emitter(Node):
    """A node whose entries become other entries: the part that pipes and the source share."""

    def _emit(self, job: Job, value: Any) -> None:
        """The entry becomes this, or this among others."""
        job.emitted = True
        entry = self._put(value, job.family)
        job.spend(entry.units)
        self.meter.emitted(entry.units)

    def _put(self, value: Any, family: Family) -> Entry:
        """Put a value where it belongs, waiting for room."""
        lane, back = None, False
        if isinstance(value, Lane):
            lane, value = value.name, value.value
        elif isinstance(value, Feedback):
            lane, back, value = value.lane, True, value.value
        entry = self.entry(value, family)
        if family is not None:
            hold(family)
        began = perf_counter()
        self.meter.wait_out.begin(began)
        try:
            if back:
                self._feedback_channel().put_feedback(entry, lane)
            else:
                self.port.put(entry, lane)
        except BaseException:
            self._values.discard(value)
            raise
        finally:
            self.meter.wait_out.end(began, perf_counter())
        return entry

    def _feedback_channel(self) -> Channel:
        if self.feedback is None:
            raise ConfigError(f"stage {self.name!r} emitted Feedback but was declared without feedback=")
        return self.feedback

    def _tell(self, job: Job, outcome: Outcome) -> None:
        """Book what an Outcome says besides its value."""
        if outcome.details:
            self.meter.detail(outcome.details)
        if outcome.dropped:
            self.meter.dropped += outcome.dropped
            job.spend(outcome.dropped)
        if outcome.failures:
            self._fail(job, outcome.failures, len(outcome.failures))

    def _fail(self, job: Job, failures: Sequence[ItemFailure], units: int) -> None:
        """So many units of the entry have failed. They are in flight until there is room for what is to be done."""
        work = self._values.failed(self.name, job.entry.value, failures)
        if work is not None:
            began = perf_counter()
            self.meter.wait_out.begin(began)
            try:
                self._engine.record(self, units, work)
            finally:
                self.meter.wait_out.end(began, perf_counter())
        self.meter.failed += units
        job.spend(units)
        if job.family is not None:
            blame(job.family, as_exception(failures[0].error))
        for failure in failures:
            self.budget.record(as_exception(failure.error), failure.key, lambda: self._values.describe(job.entry.value))
        self.budget.fail(units)

    def _judge(self) -> None:
        if self.budget.is_spent:
            self._engine.fatal(self, list(self.budget.errors), str(self.budget), spent=True)

    def _leave(self, job: Job) -> None:
        """The entry is done with."""
        self._let_go(job, job.left)
        self.active -= 1
        if not job.emitted:
            self._values.discard(job.entry.value)
        if job.entry.family is not None:
            release(job.entry.family)

    def _let_go(self, job: Job, units: int) -> None:
        """Units that have become nothing else are merged, or dropped where nothing went on."""
        if units > 0:
            if job.emitted:
                self.meter.merged += units
            else:
                self.meter.dropped += units
            job.spend(units)


def as_exception(error: BaseException) -> Exception:
    """The error as an `Exception`, which is all that a group may hold: `SystemExit` and its like are wrapped."""
    if isinstance(error, Exception):
        return error
    wrapped = PenstockError(f"{type(error).__name__} was raised: {error}")
    wrapped.__cause__ = error
    return wrapped
