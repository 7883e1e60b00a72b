"""One worker of the pool, as the parent sees it: its ring and slots, its tasks, and what its death means for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

import gevent
from gevent.event import AsyncResult, Event
from gevent.lock import Semaphore

from ...errors import ConfigError, StaleSlotError, WorkerError, WorkerStartError
from ...shm import Grant, SlotLayout, Zygote, frame_pieces
from ...shm.protocol import Hung, decode_answer
from .hang_detector import Diagnosis, HangDetector
from .kind import A, I, WorkerKind
from .poison import WorkerLost
from .process import in_memory
from .slots import WorkerSlots
from .supervisor import WorkerSupervisor

logger = logging.getLogger("penstock.preprocess")

QUEUED = 2
"""Tasks a worker holds at once: the one it does and the one whose files it reads ahead."""

_DEATHS = 16
"""Deaths in a row, without a batch done in between, after which a worker is given up. More than it takes to find the
one item of a large batch that ends its worker: two, and one for each halving. A start that fails counts as one; a death
while the worker was at an item does not: it is that item's, which is given up after some."""

_PAUSE = 0.25
"""Seconds after a start that failed: what it lacked (memory, mostly) may be there again."""

_STOP_TIMEOUT = 2.0


@dataclass(slots=True)
class _Task(Generic[I, A]):
    """What a granted slot is for, until it has been done or has come to nothing.

    Attributes:
        result: for whoever waits for it; None when nobody does any more.
        items: what is to be done; nothing before they are sent.
    """

    result: AsyncResult[A] | None = field(default_factory=AsyncResult)
    items: Sequence[I] = ()


class PoolWorker(Generic[I, A]):
    """A worker process and its ring. The ring and its books outlive the process; a replacement maps the same ring.

    Attributes:
        tasks: what it has and has not answered, in the order in which it will.
    """

    def __init__(self, index: int, kind: WorkerKind[I, A], slots: int, named: bool) -> None:
        self.index = index
        self._kind = kind
        self.slots = WorkerSlots(slots, named)
        self.tasks: dict[Grant, _Task[I, A]] = {}
        self._supervisor = WorkerSupervisor(index, kind.entry, kind.settings(index))
        self._lock = threading.Lock()  # of the ring: `close` may come from any thread
        self._sending = Semaphore()
        self._idle = Event()
        self._listener: Any = None
        self._watcher: Any = None
        self._hung = False
        self._diagnosis: Diagnosis | None = None
        self._deaths = 0
        self._alive = False

    @property
    def is_running(self) -> bool:
        """Whether there is a process, which takes tasks; from any thread."""
        return self._alive

    @property
    def pid(self) -> int:
        """The process id, until there is a new one; 0 before the first."""
        return self._supervisor.process.pid

    def __str__(self) -> str:
        return str(self._supervisor.process)

    def state(self) -> str:
        """What the process does, in a line; from any thread."""
        if not self._alive:
            return f"{self}: not running"
        doing = [self._doing(grant, task) for grant, task in list(self.tasks.items()) if task.items]
        return f"{self}: {'; '.join(doing) or ('hears of a batch' if self.tasks else 'idle')}"

    def _doing(self, grant: Grant, task: _Task[I, A]) -> str:
        begun, row = self._progress(grant, task)
        if row is None:
            return f"a batch of {len(task.items)}, {'begun' if begun else 'not begun'}"
        kind = self._kind
        return f"{kind.item} {row + 1} of {len(task.items)}: {kind.codec.describe(task.items[row])}"

    def _progress(self, grant: Grant, task: _Task[I, A]) -> tuple[bool, int | None]:
        """Whether the worker has begun it, and which item it is at. What it marks may be anything."""
        begun, row = self.slots.progress(grant)
        if self._kind.marks_steps and row is not None:
            row = 0
        return begun, row if row is not None and row < len(task.items) else None

    # -- process: blocking, never on the hub --------------------------------------------------------------------------

    def open(self, zygote: Zygote) -> None:
        """From now on, until it is told to leave, there may be a process, forked from this fork server."""
        self._deaths = 0
        self._supervisor.open(zygote)

    def handshake(self) -> SlotLayout:
        """Start the process and hear what its slots must look like.

        Raises:
            ConfigError: it says that it cannot do what it was set to.
            WorkerStartError: it cannot start, or does not speak in time.
            WorkerError: the pool has been closed meanwhile.
        """
        return self._supervisor.handshake()

    def make_ring(self, layout: SlotLayout) -> None:
        """Make the ring before the process has said that it is this one. Nothing once it has been told to leave.

        Raises:
            SharedMemoryFullError: /dev/shm has no room for it.
        """
        with self._lock:
            if self._supervisor.is_open:
                self.slots.make(layout)

    def give_ring(self, layout: SlotLayout) -> None:
        """Hand the ring to the process; make it if there is none of this layout.

        Raises:
            SharedMemoryFullError: /dev/shm has no room for it.
            WorkerStartError: the pool has been closed meanwhile.
        """
        with self._lock:
            self._supervisor.process.refuse_closed()
            self._supervisor.process.give(self.slots.make(layout))
            self._alive = True

    def leave(self) -> None:
        """Tell the process to go; it does when it has done its task. A start that is under way comes to nothing."""
        self._alive = False
        self._supervisor.close()

    def close(self) -> None:
        """End the process and give the ring back."""
        self.leave()
        with self._lock:
            self.slots.close()
        self.tasks.clear()

    def grant(self) -> Grant | None:
        """A free slot for a task, if the worker can take one more."""
        if not self._alive or len(self.tasks) >= QUEUED:
            return None
        grant = self.slots.grant()
        if grant is not None:
            self.tasks[grant] = _Task()
        return grant

    # -- on the hub ---------------------------------------------------------------------------------------------------

    def run(self, grant: Grant, items: Sequence[I]) -> A:
        """Have one task done in a granted slot.

        Raises:
            WorkerLost: the worker left before it was done; the slot has gone back.
            SharedMemoryFullError: there is no memory for the items that are to be sent.
        """
        task = self.tasks.get(grant)
        if task is None or task.result is None:  # it died between the grant and now
            raise WorkerLost(str(self), "has left", begun=False, row=None, hung=False)
        result = task.result
        try:
            message = self._kind.codec.encode(grant.slot, grant.generation, items)
            payload = in_memory(message.payload) if message.payload else None
            pieces = frame_pieces(message.frame)
        except BaseException:
            self.take_back(grant)
            raise
        if not result.ready():  # else it died meanwhile
            task.items = items
            self._idle.clear()
        try:
            with self._sending:
                if not result.ready():  # else it died while others were sending: its replacement must not get this
                    self.tasks[grant] = self.tasks.pop(grant)  # in the order in which they will be done
                    self._supervisor.process.send(pieces, [payload.fd] if payload else [])
        except OSError:
            pass  # it is leaving; the listener sees the end of the socket and tells us below
        finally:
            if payload:
                payload.close()
        try:
            done: A | None = result.get()
        except WorkerLost:
            raise
        except BaseException:  # the caller is being killed
            answer = result.value if result.successful() else None
            if answer is not None and answer.rows:  # it came at the same time
                self.slots.release(grant)
            task.result = None  # else the worker still writes: the slot is free when it answers
            raise
        assert done is not None
        return done

    def take_back(self, grant: Grant) -> None:
        """A slot that was granted and will not be used."""
        if self.tasks.pop(grant, None) is not None:
            self.slots.take_back(grant)

    def listen(self, changed: Callable[[], None], failed: Callable[[WorkerError], None]) -> None:
        """Hear the worker's answers from this hub. ``changed`` is called when it can take more."""
        self._sending = Semaphore()
        self._idle = Event()
        self._idle.set()
        self._listener = gevent.spawn(self._listen, changed, failed)
        timeout = self._kind.item_timeout
        if timeout is not None:
            detector = HangDetector(timeout, watches_itself=self._kind.watches_itself)
            self._watcher = gevent.spawn(self._watch, detector)

    def stop_listening(self, patience: float) -> None:
        """Give the worker so many seconds for what it does, or replace it at the next start; then fall silent.

        A replacement that is being started is not wanted any more: the next start makes one.
        """
        if not self._idle.wait(patience):
            self._supervisor.process.kill()
            self._idle.wait(_STOP_TIMEOUT)
        for greenlet in (self._listener, self._watcher):
            if greenlet:
                greenlet.kill()
        self._listener = self._watcher = None

    def _watch(self, detector: HangDetector) -> None:
        """Kill the process when it stands still; that is a death like any other."""
        while True:
            gevent.sleep(detector.interval)
            if not self._alive:
                continue
            grant, task = next(iter(self.tasks.items()), (None, None))  # the oldest: tasks are done in order
            begun, row = self._progress(grant, task) if grant and task else (False, None)
            doing = (grant, begun, self.slots.progress(grant)) if grant else None
            diagnosis = detector.poll(self.pid, doing, at_item=row is not None)
            if diagnosis:
                self._diagnosis = diagnosis
                self._supervisor.process.kill()

    def _listen(self, changed: Callable[[], None], failed: Callable[[WorkerError], None]) -> None:
        try:
            while True:
                if not self._supervisor.process.closed:
                    self._on_exit(self._converse(changed))
                self._replace()
                changed()
        except WorkerError as error:
            failed(error)
        except Exception as error:
            failed(WorkerError(f"{self} cannot be listened to any more: {error!r}"))
            for task in self.tasks.values():
                if task.result is not None:
                    task.result.set_exception(WorkerLost(str(self), "is not heard", begun=False, row=None, hung=False))
            raise

    def _converse(self, changed: Callable[[], None]) -> str | None:
        """Hear the process until it leaves; or until it says what it should not: then why it must be killed."""
        try:
            for frames in self._supervisor.process.frames():
                for frame in frames:
                    self._hear(frame)
                changed()
        except (WorkerError, StaleSlotError) as error:
            return f"was killed because it answered wrongly: {error}"
        return None

    def _hear(self, frame: bytes) -> None:
        answer = decode_answer(frame, self._kind.codec.decode)
        if isinstance(answer, Hung):
            self._hung = True
            return
        grant = Grant(answer.slot, answer.generation)
        task = self.tasks.get(grant)
        if task is None:
            raise WorkerError(f"an answer for slot {grant.slot} under generation {grant.generation}, which it has not")
        answer.check(len(task.items))
        rows = len(answer.rows)
        if rows:
            self.slots.check(grant, rows)
        self._deaths = 0
        del self.tasks[grant]
        if rows and task.result is not None:
            self.slots.mark_ready(grant, rows)
        else:
            self.slots.take_back(grant)
        if task.result is not None:
            task.result.set(answer)
        if not self.tasks:
            self._idle.set()

    def _on_exit(self, why: str | None) -> None:
        """The process is gone: its granted slots go back, whoever waits for its tasks is told."""
        self._alive = False
        # Its socket has ended; until the process has, it might write to its slots.
        ended = self._supervisor.process.reap()
        who, how = str(self), why or (self._diagnosis.value if self._diagnosis else ended)
        logger.warning("%s %s; its %d unfinished batches are done again", who, how, len(self.tasks))
        named = False
        for grant in self.slots.reclaim():
            task = self.tasks.pop(grant)
            begun, row = self._progress(grant, task)
            named = named or (begun and row is not None)
            hung = begun and (self._hung or self._diagnosis is Diagnosis.HUNG)
            if task.result is not None:
                task.result.set_exception(WorkerLost(who, how, begun=begun, row=row, hung=hung))
        self._deaths += not named
        self._hung, self._diagnosis = False, None
        self._supervisor.process.close()
        self._idle.set()

    def _replace(self) -> None:
        """A new process for the same ring. One that cannot start is a death like any other.

        Raises:
            WorkerError: one after the other dies; or the pool has been closed.
        """
        ring = self.slots.ring
        if ring is None:
            raise WorkerError(f"{self}: its pool has been closed")
        failure: Exception | None = None
        while self._deaths <= _DEATHS:
            try:
                self._supervisor.replace(ring)
            except (ConfigError, WorkerStartError, OSError) as error:
                failure = error
                self._deaths += 1
                logger.warning("%s; another one is started", error)
                gevent.sleep(_PAUSE)
            else:
                self._alive = True
                return
        raise WorkerError(f"{self} died {self._deaths} times in a row; see the tracebacks above") from failure
