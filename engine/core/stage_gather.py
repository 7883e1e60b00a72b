"""The stages that make children of a value, and one value of them again when all are accounted for."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from ...errors import ChildrenFailedError, ConfigError
from .budget import Budget, FailureBudget
from .channel import Channel, Closed, Entry, Woken
from .family import Child, Parent, release
from .hub import Waiter
from .stage import Emitter, Engine, Job
from .stage_pipe import Pipe
from .values import NOTHING, Feedback, Gathered, ItemFailure, Outcome

_MOST_READY = 2
"""Parents that may wait to be emitted by a gather before its fan-out begins no more of them."""


class _Open(Parent):
    """A parent whose children are on their way.

    Attributes:
        arrived: what has come back, with the child it is of.
        entry: its own value, once the fan-out is done with it; None where it failed there.
    """

    __slots__ = ("arrived", "entry", "is_lost")

    def __init__(self, gather: Gather) -> None:
        super().__init__(lambda: gather.ended(self))
        self.arrived: list[tuple[int, Entry]] = []
        self.entry: Entry | None = None
        self.is_lost = False


class Fanout(Pipe):
    """An operation whose values are the children of what it was called with.

    Attributes:
        gather: where they come together again, and where their parent waits for them.
    """

    consumes = False
    gather: Gather

    def __init__(self, *args: Any, **knobs: Any) -> None:
        super().__init__(*args, **knobs)
        self._parents: dict[Job, _Open] = {}

    def _work(self) -> None:
        while True:
            self.gather.wait_for_room()
            self._one(self._channel.get(self.meter.wait_in))

    def _parent(self, job: Job) -> _Open:
        parent = self._parents.get(job)
        if parent is None:
            parent = self._parents[job] = self.gather.open()
        return parent

    def _single(self, job: Job) -> bool:
        """Many of one at once; None drops the parent."""
        answer = self._run(self._op.call, job.entry.value, job)
        if answer.error is not None:
            return self._raised(job, answer.error)
        if answer.result is None:
            self._parent(job).is_lost = True
        self._settle_all(job, deque(answer.result or ()))
        return False

    def _made(self, result: Any) -> list[Any]:
        """See `Pipe`: without a generator all children come at once."""
        if result is None or self._op.is_many:
            return super()._made(result)
        return [plain for each in result for plain in super(Fanout, self)._made(each)]

    def _settle(self, job: Job, value: Any) -> None:
        """A child goes on; None is none."""
        if isinstance(value, Outcome) and value.value is None:
            value = replace(value, value=NOTHING)
        if value is not None:
            super()._settle(job, value)

    def _emit(self, job: Job, value: Any) -> None:
        """A child is created; its parent stays as it is."""
        if isinstance(value, Feedback):
            raise ConfigError(f"stage {self.name!r} emitted Feedback: a fanout only makes children")
        entry = self._put(value, self._parent(job).add())
        self.meter.created += entry.units
        self.meter.emitted(entry.units)

    def _fail(self, job: Job, failures: Sequence[ItemFailure], units: int) -> None:
        """The parent has failed: it does not come back, whatever becomes of the children it has by now."""
        self._parent(job).is_lost = True
        super()._fail(job, failures, units)

    def _leave(self, job: Job) -> None:
        """The parent has all its children; it goes to the gather by itself."""
        parent = self._parent(job)
        del self._parents[job]
        if parent.is_lost:
            super()._leave(job)
        else:
            parent.entry = job.entry._replace(units=job.left)
            job.spend(parent.entry.units)
            self.meter.emitted(parent.entry.units)
            self.active -= 1
            self.gather.adopt(parent.entry.units)
        parent.complete()

    def _give_up(self, job: Job) -> None:
        """See `Pipe`: the parent stays open for ever, and in flight here."""
        super()._give_up(job)
        self._parents.pop(job, None)


class Gather(Emitter):
    """Collects children, and emits their parent with them when all have ended.

    Args:
        child_failures: how many children of a parent may fail: a number (-1: any), or a share of them.
    """

    kind = "gather"

    def __init__(
        self, engine: Engine, name: str, channel: Channel, budget: FailureBudget, child_failures: Budget
    ) -> None:
        super().__init__(engine, name, channel, budget)
        self._channel = channel
        self._child_failures = child_failures
        self._open: dict[_Open, None] = {}
        self._ready: deque[_Open] = deque()
        self._waiting: deque[Waiter] = deque()

    @property
    def is_idle(self) -> bool:
        """See `Node`."""
        return not self._ready and super().is_idle

    # -- for the fan-out ----------------------------------------------------------------------------------------------

    def wait_for_room(self) -> None:
        """Wait until there are few parents to emit: without children in flight nothing else would bound them."""
        while len(self._ready) >= _MOST_READY:
            waiter = Waiter(self._engine.hub)
            self._waiting.append(waiter)
            try:
                waiter.park()
            finally:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)

    def open(self) -> _Open:
        """A value that is about to have children."""
        parent = _Open(self)
        self._open[parent] = None
        return parent

    def adopt(self, units: int) -> None:
        """A parent's own units are here from now on."""
        self.meter.items_in += units
        self.held += units

    def ended(self, parent: _Open) -> None:
        """All its children have ended."""
        self._ready.append(parent)
        self._channel.wake()

    # -- its own fiber ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while True:
                self._one()
                if self.in_loop:
                    self._engine.settled(self)
        except Closed:
            self._emit_ready()
            raise
        finally:
            for parent in self._open:
                self._discard(parent)

    def _one(self) -> None:
        try:
            entry = self._channel.get(self.meter.wait_in)
        except Woken:
            self._emit_ready()
            return
        child = entry.family
        assert isinstance(child, Child)  # `GraphDef` sees to it
        assert isinstance(child.parent, _Open)
        self.held += entry.units
        child.parent.arrived.append((child.index, entry))
        release(child)

    def _emit_ready(self) -> None:
        while self._ready and not self._channel.is_shut:
            parent = self._ready.popleft()
            del self._open[parent]
            while self._waiting:
                self._waiting.popleft().unpark()
            self._close(parent)

    def _close(self, parent: _Open) -> None:
        """A parent goes on with its children, or has failed."""
        children = sum(entry.units for _, entry in parent.arrived)
        self.held -= children
        own = parent.entry
        if own is None:
            self.meter.dropped += children
            self._discard(parent)
            return
        self.held -= own.units  # the job holds them from here on
        job = Job(self, own, 0)
        try:
            if self._is_too_many(len(parent.errors), parent.count):
                self.meter.dropped += children
                self._discard(parent, keep=own)
                self._fail(job, (ItemFailure("", _error(parent)),), own.units)
            else:
                self.meter.merged += children
                self._emit(job, _gathered(own.value, parent))
        except BaseException:
            self.active -= 1
            if not job.emitted:
                self._values.discard(own.value)
            raise
        self._leave(job)
        self.budget.count(own.units)
        self._judge()

    def _is_too_many(self, failed: int, of: int) -> bool:
        limit = self._child_failures
        return failed > limit * of if isinstance(limit, Fraction) else 0 <= limit < failed

    def _discard(self, parent: _Open, keep: Entry | None = None) -> None:
        for _, entry in parent.arrived:
            self._values.discard(entry.value)
        if parent.entry is not None and parent.entry is not keep:
            self._values.discard(parent.entry.value)


def _gathered(value: Any, parent: _Open) -> Gathered:
    arrived = sorted(parent.arrived, key=lambda each: each[0])
    indices = [index for index, _ in arrived]
    gone = set(range(parent.count)) - set(indices) - parent.errors.keys()
    errors = dict(sorted(parent.errors.items()))
    return Gathered(value, [entry.value for _, entry in arrived], indices, errors, sorted(gone))


def _error(parent: _Open) -> ChildrenFailedError:
    index, first = min(parent.errors.items())
    error = ChildrenFailedError(
        f"{len(parent.errors)} of {parent.count} children failed; the first, {index}: {type(first).__name__}: {first}"
    )
    error.__cause__ = first
    return error
