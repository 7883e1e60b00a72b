"""One worker of the pool, as the parent sees it: its process, its ring, its slots, what it is doing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from gevent.lock import Semaphore
from gevent.socket import wait_read, wait_write

from ..errors import WorkerError, WorkerStartError
from ..shm import (
    Child,
    FrameReader,
    Grant,
    Place,
    Ring,
    SlotLayout,
    SlotState,
    SlotTable,
    SlotView,
    Zygote,
    frame_pieces,
    recv_frame,
    send_frame_fds,
)
from .protocol import (
    DONE,
    HUNG,
    LAYOUT,
    RING,
    Done,
    Source,
    decode_done,
    decode_hung,
    decode_json,
    encode_json,
    encode_task,
    kind_of,
)
from .settings import WorkerSettings

logger = logging.getLogger("penstock.preprocess")

QUEUED = 2
"""Tasks a worker holds at once: the one it does and the one whose files it reads ahead."""

_DEATHS = 8
"""Deaths in a row, without a batch done in between, after which a worker is given up. More than an item's three."""

_START_TIMEOUT = 120.0
_STOP_TIMEOUT = 2.0


class Lost(Exception):  # noqa: N818  (a message between the pool's own parts, never seen by users)
    """A task came to nothing because its worker left.

    Attributes:
        worker: e.g. ``worker 1 (pid 4711)``; ``how``: e.g. ``was killed by signal 9 (SIGKILL)``.
        begun: whether the worker had begun this task; ``row``: the item it was decoding, if it was decoding.
        hung: whether the worker left because that item was over its deadline.
    """

    def __init__(self, worker: str, how: str, *, begun: bool, row: int | None, hung: bool) -> None:
        super().__init__(f"{worker} {how}")
        self.worker = worker
        self.how = how
        self.begun = begun
        self.row = row
        self.hung = hung


class Member:
    """A worker process and its ring. The ring and its books outlive the process; a replacement maps the same ring."""

    def __init__(self, index: int, settings: WorkerSettings, slots: int, named: bool) -> None:
        self.index = index
        self._zygote: Zygote | None = None
        self._settings = settings
        self._slots = slots
        self._named = named
        self._table = SlotTable(slots)
        self._tasks: dict[Grant, AsyncResult[Done] | None] = {}
        self._child: Child | None = None
        self._ring: Ring | None = None
        self._reader = FrameReader()
        self._sending = Semaphore()
        self._idle = Event()
        self._listener: Any = None
        self._hung: int | None = None
        self._deaths = 0
        self._alive = False

    @property
    def queued(self) -> int:
        """Tasks the worker has and has not answered."""
        return len(self._tasks)

    @property
    def pid(self) -> int:
        """The process id; 0 while there is no process."""
        return self._child.pid if self._child else 0

    def __str__(self) -> str:
        return f"worker {self.index} (pid {self.pid})"

    # -- process: blocking, never on the hub --------------------------------------------------------------------------

    def introduce(self, zygote: Zygote) -> SlotLayout:
        """Fork the process and hear what its slots must look like.

        Raises:
            WorkerStartError: it cannot start, or does not speak in time.
        """
        self._zygote = zygote
        self._reader = FrameReader()
        self._child = zygote.fork("penstock.preprocess.worker:main", self._settings.to_json())
        self._child.socket.settimeout(_START_TIMEOUT)
        try:
            frame = recv_frame(self._child.socket)
        except OSError as error:
            raise WorkerStartError(f"{self} said nothing for {_START_TIMEOUT:.0f} s: {error}") from error
        if frame is None or kind_of(frame) != LAYOUT:
            raise WorkerStartError(f"{self} {self._child.describe_exit()} before it was ready; see its traceback above")
        return SlotLayout.from_json(decode_json(frame))

    def give_ring(self, layout: SlotLayout) -> None:
        """Make the ring, or take the one there is, and hand it to the process.

        Raises:
            SharedMemoryFullError: /dev/shm has no room for it.
        """
        assert self._child is not None
        if self._ring is None:
            self._ring = Ring.create(layout, self._slots)
            if not self._named:
                self._ring.unlink()
        send_frame_fds(self._child.socket, encode_json(RING, {"slots": self._slots}), [self._ring.fd])
        self._child.socket.setblocking(False)
        self._alive = True

    def leave(self) -> None:
        """Tell the process to go; it does when it has done its task."""
        self._alive = False
        if self._child:
            self._child.close()

    def close(self) -> None:
        """End the process and give the ring back."""
        self.leave()
        if self._ring:
            self._ring.unlink()
            self._ring.close()
            self._ring = None
        self._table = SlotTable(self._slots)

    # -- slots --------------------------------------------------------------------------------------------------------

    def grant(self) -> Grant | None:
        """A free slot for a task, if the worker can take one more."""
        if not self._alive or self.queued >= QUEUED:
            return None
        grant = self._table.grant()
        if grant is not None:
            self._tasks[grant] = AsyncResult()
        return grant

    def view(self, grant: Grant) -> SlotView:
        """The slot's memory."""
        assert self._ring is not None
        return self._ring.view(grant.slot)

    def check(self, grant: Grant, rows: int) -> None:
        """Raise StaleSlotError unless the slot still holds this grant's rows."""
        assert self._ring is not None
        self._ring.check(grant.slot, grant.generation, rows)

    def place(self, grant: Grant) -> Place | None:
        """Where the slot lies for a process that maps the ring by its name, if it keeps one."""
        return self._ring.place(grant.slot) if self._ring is not None and self._named else None

    def lend(self, grant: Grant) -> None:
        """Another process uses the slot from now on."""
        self._table.embedding(grant)

    def release(self, grant: Grant) -> None:
        """The slot is free again."""
        if self._ring is not None:
            self._table.release(grant)

    def quarantine(self, grant: Grant) -> None:
        """The slot is not needed any more, but another process may still use it."""
        if self._ring is not None:
            self._table.quarantine(grant)

    def lift(self, grant: Grant) -> None:
        """The other process is done with a slot in quarantine: it is free again."""
        if self._ring is not None:
            self._table.lift(grant.slot)

    @property
    def counts(self) -> Mapping[SlotState, int]:
        """Slots in each state."""
        return self._table.counts()

    @property
    def ready(self) -> int:
        """Slots that lie ready."""
        return self._table.ready_slots

    @property
    def used(self) -> int:
        """Slots that are not free."""
        return len(self._table) - self._table.free

    # -- on the hub ---------------------------------------------------------------------------------------------------

    def run(self, grant: Grant, sources: Sequence[Source]) -> Done:
        """Have one task done in a granted slot.

        Raises:
            Lost: the worker left before it was done; the slot has gone back.
            StaleSlotError: the slot was written by somebody else.
        """
        result = self._tasks.get(grant)
        if result is None:  # it died between the grant and now
            raise Lost(str(self), "has left", begun=False, row=None, hung=False)
        self._idle.clear()
        try:
            with self._sending:
                self._send(frame_pieces(encode_task(grant.slot, grant.generation, sources)))
        except OSError:
            pass  # it is leaving; the listener sees the end of the socket and tells us below
        try:
            done: Done | None = result.get()
        except Lost:
            raise
        except (
            BaseException
        ):  # the caller is being killed; the worker still writes, so the slot is free when it answers
            self._tasks[grant] = None
            raise
        assert done is not None
        self.check(grant, len(done.rows))
        return done

    def take_back(self, grant: Grant) -> None:
        """A slot that was granted and will not be used."""
        if self._tasks.pop(grant, None) is not None:
            self._table.ready(grant, 0)
            self._table.release(grant)

    def _send(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        assert self._child is not None
        sock = self._child.socket
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                try:
                    rest = rest[sock.send(rest) :]
                except BlockingIOError:
                    wait_write(sock.fileno())

    def listen(self, changed: Callable[[], None], failed: Callable[[WorkerError], None]) -> None:
        """Hear the worker's answers from this hub. ``changed`` is called when it can take more."""
        self._sending = Semaphore()
        self._idle = Event()
        self._idle.set()
        self._listener = gevent.spawn(self._listen, changed, failed)

    def stop_listening(self) -> None:
        """Let the worker finish what it does, or replace it at the next start; then fall silent."""
        if not self._idle.wait(_STOP_TIMEOUT) and self._child:
            self._child.kill()
            self._idle.wait(_STOP_TIMEOUT)
        if self._listener:
            self._listener.kill()
            self._listener = None

    def _listen(self, changed: Callable[[], None], failed: Callable[[WorkerError], None]) -> None:
        while True:
            data = self._receive()
            if data:
                for frame in self._reader.feed(data):
                    self._hear(frame)
            else:
                self._bury()
                if self._deaths > _DEATHS:
                    failed(WorkerError(f"{self} died {self._deaths} times in a row; see the tracebacks above"))
                    return
                try:
                    self._replace()
                except WorkerError as error:
                    failed(error)
                    return
            changed()

    def _receive(self) -> bytes:
        assert self._child is not None
        sock = self._child.socket
        while True:
            try:
                return sock.recv(1 << 16)
            except BlockingIOError:
                wait_read(sock.fileno())
            except ConnectionError:
                return b""

    def _hear(self, frame: bytes) -> None:
        kind = kind_of(frame)
        if kind == DONE:
            done = decode_done(frame)
            self._deaths = 0
            grant = Grant(done.slot, done.generation)
            self._table.ready(grant, len(done.rows))
            waiter = self._tasks.pop(grant)
            if waiter is None:
                self._table.release(grant)
            else:
                waiter.set(done)
        elif kind == HUNG:
            self._hung = decode_hung(frame).row
        if not self._tasks:
            self._idle.set()

    def _bury(self) -> None:
        """The process is gone: its granted slots go back, whoever waits for its tasks is told."""
        assert self._child is not None
        assert self._ring is not None
        self._alive = False
        self._deaths += 1
        self._child.kill()  # its socket has ended; until the process has, it might still write to its slots
        wait_read(self._child.pidfd)
        who, how = str(self), self._child.describe_exit()
        logger.warning("%s %s; its %d unfinished batches are done again", who, how, len(self._tasks))
        for grant in self._table.reclaim():
            begun, row = self._ring.progress(grant.slot, grant.generation)
            lost = Lost(who, how, begun=begun, row=row, hung=begun and self._hung is not None)
            waiter = self._tasks.pop(grant)
            if waiter is not None:
                waiter.set_exception(lost)
        self._hung = None
        self._idle.set()

    def _replace(self) -> None:
        """A new process for the same ring; forking waits in a thread."""
        assert self._child is not None
        assert self._zygote is not None
        zygote = self._zygote
        self._child.close()
        gevent.get_hub().threadpool.apply(lambda: self.give_ring(self.introduce(zygote)))
