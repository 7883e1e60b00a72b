"""The stages that make lists of values, and values of lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ...errors import ConfigError
from .budget import FailureBudget
from .channel import Channel, Closed, Entry, Woken
from .definitions import AggregateDef
from .family import release
from .operations import Operation
from .policies import Skip
from .runners import StageBroken
from .stage import Emitter, Engine, Job
from .stage_pipe import Pipe

_WRONG_LENGTH = (
    "a list of {} children came here as {} values, so that it cannot be told which is of which child: between fanout "
    "and gather an operation on a list returns one value for each, None for those to leave out"
)


class _Batch:
    """What an aggregate has collected of one lane, and still holds."""

    __slots__ = ("cancel", "entries", "is_due", "nbytes", "units")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.units = 0
        self.nbytes = 0
        self.is_due = False
        self.cancel: Callable[[], None] | None = None

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.units += entry.units
        self.nbytes += entry.nbytes


class Aggregate(Emitter):
    """Collects entries into lists of at least `n` units, each from one lane.

    Args:
        definition: its settings; where no lanes are declared, lists are made of all that comes.
    """

    kind = "aggregate"

    def __init__(self, engine: Engine, name: str, channel: Channel, definition: AggregateDef) -> None:
        super().__init__(engine, name, channel, FailureBudget(-1))
        self._channel = channel
        self._n, self._max_bytes, self._max_wait = definition.n, definition.max_bytes, definition.max_wait
        self._drop_last = definition.drop_last
        self._per_lane = definition.lanes is not None
        self._batches = {lane: _Batch() for lane in (definition.lanes or [""])}

    @property
    def has_entries(self) -> bool:
        """Whether it holds entries that wait for more."""
        return any(batch.entries for batch in self._batches.values())

    def held_in(self, lane: str) -> tuple[int, int]:
        """Entries and units of a lane that it holds."""
        batch = self._batches.get(lane)
        return (len(batch.entries), batch.units) if batch is not None else (0, 0)

    def flush(self) -> None:
        """Nothing more can come but by what is held here: let go of it."""
        self._channel.wake()

    def _work(self) -> None:
        try:
            while True:
                self._one()
                if self.in_loop:  # also when it only took something in: that may have been the last thing to move
                    self._engine.settled(self)
        except Closed:
            self._finish()
            raise
        finally:
            for batch in self._batches.values():
                self._stop_clock(batch)
                for entry in batch.entries:
                    self._values.discard(entry.value)

    def _one(self) -> None:
        try:
            lane, entry = self._channel.get_with_lane(self.meter.wait_in)
        except Woken:
            due = [batch for batch in self._batches.values() if batch.is_due]
            for batch in due:
                self._emit_list(batch)
            if not due:
                self._finish()
            return
        self._collect(self._batches[lane if self._per_lane else ""], entry)

    def _collect(self, batch: _Batch, entry: Entry) -> None:
        limit = self._max_bytes
        self.held += entry.units
        if limit is not None and batch.entries and batch.nbytes + entry.nbytes > limit:
            try:
                self._emit_list(batch)
            finally:
                batch.add(entry)
        else:
            batch.add(entry)
        if batch.units >= self._n or (limit is not None and batch.nbytes >= limit):
            self._emit_list(batch)
        elif self._max_wait is not None and batch.cancel is None:
            batch.cancel = self._engine.hub.timer(self._max_wait, partial(self._ring, batch))

    def _ring(self, batch: _Batch) -> None:
        batch.is_due = True
        self._channel.wake()

    @staticmethod
    def _stop_clock(batch: _Batch) -> None:
        batch.is_due = False
        if batch.cancel is not None:
            batch.cancel()
            batch.cancel = None

    def _finish(self) -> None:
        """The end: what is held of each lane is too little for a whole list."""
        for batch in self._batches.values():
            if self._drop_last:
                entries, units = self._take(batch)
                self.meter.dropped += units
                self.held -= units
                for entry in entries:
                    self._values.discard(entry.value)
                    release(entry.family)
            else:
                self._emit_list(batch)

    def _take(self, batch: _Batch) -> tuple[list[Entry], int]:
        self._stop_clock(batch)
        entries, units = batch.entries, batch.units
        batch.entries, batch.units, batch.nbytes = [], 0, 0
        return entries, units

    def _emit_list(self, batch: _Batch) -> None:
        entries, units = self._take(batch)
        if not entries:
            return
        self.held -= units  # the job holds them from here on
        family = tuple(entry.family for entry in entries) if entries[0].family is not None else None
        job = Job(self, Entry([entry.value for entry in entries], units, 0, family), 0)
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

    def _many(self, job: Job) -> bool:
        """A list made of children is theirs again, one by one, whatever an operation has made of it in between.

        Raises:
            StageBroken: it cannot be told which member is of which child.
        """
        if isinstance(job.entry.family, tuple):
            try:
                members = list(job.entry.value)
            except BaseException as error:  # noqa: BLE001  (whatever it raises is its own failure)
                return self._raised(job, error)
            if len(members) != len(job.entry.family):
                raise StageBroken(ConfigError(_WRONG_LENGTH.format(len(job.entry.family), len(members))))
            job.entry = job.entry._replace(value=members)
        return super()._many(job)

    def _settle(self, job: Job, value: Any) -> None:
        """See `Pipe`."""
        if isinstance(job.entry.family, tuple):
            job.family = job.entry.family[job.position]
            job.position += 1
        super()._settle(job, value)

    def _give_up(self, job: Job) -> None:
        """The members that were not reached are ours to give back, too."""
        super()._give_up(job)
        for member in job.made if job.emitted else ():
            self._values.discard(member)


def _each(values: Iterable[Any]) -> Iterable[Any]:
    """A generator, so that a value that is not iterable is that value's failure."""
    yield from values
