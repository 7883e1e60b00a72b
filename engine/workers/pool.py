"""The worker pool: processes that turn batches of items into slots of a ring, seen from the parent's hub.

The parent owns every slot's state (``shm.SlotTable``) and grants a worker a slot together with its task; the worker
answers that the slot is ready. A worker's death is the end of its socket: its granted slots go back, its tasks are done
again, and a new process takes its place on the same ring. Nothing here blocks the hub: greenlets wait, threads start
processes. What the work is, its `WorkerKind` says.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Self

import gevent
from gevent.event import AsyncResult

from ...errors import ItemError, WorkerError
from ...shm import SlotLayout, SlotState, Zygote, require_room
from .credit import Credit
from .hub_steps import HubSteps
from .kind import A, I, WorkerKind
from .lease import SlotLease
from .poison import PoisonFinder, WorkerLost
from .pool_worker import PoolWorker


@dataclass(slots=True)
class Result(Generic[A]):
    """What became of a batch.

    Attributes:
        answer: of the worker that did what could be done; None if every item failed.
        positions: which items of the batch that worker was given; the answer counts among these.
        failures: ``(position, error)`` of the others.
        lease: the slot with the rows; None if there are none.
    """

    answer: A | None
    positions: Sequence[int]
    failures: Sequence[tuple[int, ItemError]]
    lease: SlotLease | None


@dataclass(slots=True, eq=False)
class _Waiter:
    """Who waits for a slot.

    Attributes:
        home: the worker that it must be of; None: any.
        result: hears of it.
    """

    home: int | None
    result: AsyncResult[SlotLease] = field(default_factory=AsyncResult)


class SlotPool(Generic[I, A]):
    """Worker processes with a shared-memory ring each. A batch goes in, a slot full of what was made of it comes out.

    ``start`` and ``close`` may be called from any thread; ``run`` from greenlets of the hub between ``start_in_hub``
    and ``stop_in_hub``. A pool can serve one pipeline after another and stays warm in between.

    Args:
        kind: what the workers do.
        workers: processes.
        slots: slots per worker. Two keep a worker busy (one written, one read); each more hides jitter of their user.
            Shared memory in all: ``workers * slots`` times the bytes of the layout.
        named: keep the segments' names so that another process (Triton) can map them; else they are unlinked at once
            and nothing can stay behind.
    """

    def __init__(self, kind: WorkerKind[I, A], *, workers: int, slots: int = 3, named: bool = False) -> None:
        self.kind = kind
        self.slots = slots
        self._zygote: Zygote | None = None
        self._workers = [PoolWorker(index, kind, slots, named) for index in range(workers)]
        self._credit = Credit(workers, workers * slots)
        self._waiting: deque[_Waiter] = deque()
        self._urgent: deque[_Waiter] = deque()
        self._queued: set[Any] = set()
        self._steps = HubSteps()
        self._layout: SlotLayout | None = None
        self._broken: WorkerError | None = None

    @property
    def workers(self) -> int:
        """Number of worker processes."""
        return len(self._workers)

    @property
    def capacity(self) -> int:
        """Batches in the pool or in use at once, at most: the ``concurrency`` of a stage that calls ``run``."""
        return self.workers * self.slots

    @property
    def layout(self) -> SlotLayout:
        """What a slot looks like. Known once the pool is started.

        Raises:
            RuntimeError: the pool is not started.
        """
        if self._layout is None:
            raise RuntimeError("the pool is not started: its layout is not known yet")
        return self._layout

    @property
    def states(self) -> Mapping[SlotState, int]:
        """How many slots are in each state, over all workers."""
        total: Counter[SlotState] = Counter()
        for worker in self._workers:
            total.update(worker.slots.counts)
        return total

    @property
    def is_broken(self) -> bool:
        """Whether its workers could not be kept alive; only `close` helps then."""
        return self._broken is not None

    @property
    def credit(self) -> int:
        """How many slots may be in use at the moment; it follows who uses them. See ``credit.Credit``."""
        return self._credit.limit

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.pid for worker in self._workers]

    @property
    def running(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [worker.pid for worker in self._workers if worker.is_running]

    @property
    def family(self) -> frozenset[int]:
        """Process ids of the workers and of the fork server."""
        return frozenset((*self.pids, self._zygote.pid if self._zygote else 0))

    def state(self) -> list[str]:
        """What each worker does, a line each; from any thread."""
        return [worker.state() for worker in self._workers]

    def keeps_waiting(self, fiber: object) -> bool:
        """Whether this greenlet waits for a slot; from any thread."""
        return fiber in self._queued

    def prepare(self) -> Zygote:
        """Have the fork server start, if it is not there yet, and go on: it imports meanwhile. Idempotent.

        Raises:
            WorkerStartError: the interpreter cannot be executed.
        """
        if self._zygote is None:
            self._zygote = self.kind.fork_server.acquire()
        return self._zygote

    def start(self) -> None:
        """Start the workers and give each its ring. Idempotent. Returns when they have said what their slots look like.

        Raises:
            ConfigError: a worker cannot do what it was set to.
            WorkerStartError: a worker cannot start.
            SharedMemoryFullError: /dev/shm has no room for the rings.
        """
        if self._layout is not None:
            return
        self._broken = None
        zygote = self.prepare()
        threads = ThreadPoolExecutor(2 * self.workers, "penstock-start")
        try:
            for worker in self._workers:
                worker.open(zygote)
            rings = self._rings_ahead(threads)
            layouts = list(threads.map(PoolWorker.handshake, self._workers))
            for ring in rings:
                ring.result()
            if not rings:
                require_room(sum(layout.ring_bytes(self.slots) for layout in layouts))
            list(threads.map(PoolWorker.give_ring, self._workers, layouts))
        except BaseException:
            self.close()  # before the threads are waited for: they wait for a start, which comes to nothing by this
            raise
        finally:
            threads.shutdown()
        self._layout = layouts[0]

    def _rings_ahead(self, threads: Executor) -> Sequence[Future[None]]:
        """Have the rings made now if their layout is known: the kernel clears 2 GB/s, and here nobody waits for that.

        Raises:
            SharedMemoryFullError: /dev/shm has no room for them.
        """
        layout = self.kind.layout
        if layout is None:
            return ()
        require_room(self.workers * layout.ring_bytes(self.slots))
        return [threads.submit(worker.make_ring, layout) for worker in self._workers]

    def close(self) -> None:
        """End the workers and give the memory back. Idempotent."""
        for worker in self._workers:
            worker.leave()
        for worker in self._workers:
            worker.close()
        zygote, self._zygote = self._zygote, None
        if zygote:
            self.kind.fork_server.release(zygote)
        self._layout = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- on the hub ---------------------------------------------------------------------------------------------------

    def start_in_hub(self) -> None:
        """Begin to listen to the workers from the calling thread's hub.

        Raises:
            ConfigError: another hub listens to them.
        """
        self._steps.open()
        for worker in self._workers:
            worker.listen(self._serve, self._fail)

    def stop_in_hub(self, patience: float = 2.0) -> None:
        """Stop listening; batches that are still being made have `patience` seconds, or their workers are replaced."""
        self._refuse(WorkerError("the worker pool is being stopped"))
        try:
            gevent.joinall([gevent.spawn(worker.stop_listening, patience) for worker in self._workers])
        finally:
            self._steps.close()

    def run(self, items: Sequence[I], home: int | None = None) -> Result[A]:
        """Have one batch done. To be called in a greenlet; returns when the slot is ready.

        Args:
            items: as many as the layout has rows, at most.
            home: the number of the worker that is to do it, because it has done what came before; one that died is
                replaced. None: whichever has least to do.

        Returns:
            The slot, if there are rows, with what became of each item. Release it when done with.

        Raises:
            WorkerError: workers die faster than they work; nothing can be done with this pool any more.
        """
        finder = PoisonFinder(len(items), self.kind.item, self.kind.item_timeout)
        again = False
        while finder.live:
            lease = self._lease(again, home)
            live = list(finder.part)
            try:
                done = lease.worker.run(lease.grant, [items[position] for position in live])
            except WorkerLost as lost:
                finder.on_worker_lost(lost)
                again = True
                continue
            except BaseException:
                self._serve()  # its slot may be free again
                raise
            ready = lease if done.rows else None
            if finder.on_ok():
                if ready:
                    ready.release()
                continue
            if ready:
                self._credit.became_ready(self._ready)
            failures = [*finder.failures, *[(live[at], error) for at, error in done.failures]]
            return Result(done, live, failures, ready)
        return Result(None, (), finder.failures, None)

    def _lease(self, again: bool, home: int | None) -> SlotLease:
        """A free slot of the least busy worker, or of the one that is asked for, granted; waits for one.

        A batch that is done again goes before all others: where order is kept, they may hold every slot and
        wait for it.
        """
        if self._broken:
            raise self._broken
        queue = self._urgent if again else self._waiting
        lease = None if queue else self._grant(urgent=again, home=home)
        if lease is None:
            waiter = _Waiter(home)
            queue.append(waiter)
            self._queued.add(gevent.getcurrent())
            try:
                if home is not None:  # those before may wait for other workers
                    self._serve()
                lease = waiter.result.get()
            except BaseException:
                self._leave_queue(queue, waiter)
                raise
            finally:
                self._queued.discard(gevent.getcurrent())
        assert lease is not None
        return lease

    def _leave_queue(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        """Who waited is being killed: out of the queue, or back with the slot that has just been found."""
        if waiter in queue:
            queue.remove(waiter)
        elif waiter.result.successful():
            lease = waiter.result.get()
            assert lease is not None
            lease.worker.take_back(lease.grant)
            self._serve()

    def _grant(self, *, urgent: bool, home: int | None) -> SlotLease | None:
        workers = sorted(self._workers, key=lambda worker: len(worker.tasks))
        # Nobody works: the slots in use may wait for the turn of whoever asks for one.
        idle = not workers[-1].tasks
        if not (urgent or idle or self._credit.allows(self._used)):
            return None
        for worker in workers if home is None else (self._workers[home],):
            grant = worker.grant()
            if grant is not None:
                return SlotLease(worker, grant, self._in_books)
        return None

    def _serve(self) -> None:
        """Something has become free: serve who waits, first come, first served; of each worker for itself."""
        for queue in (self._urgent, self._waiting):
            for waiter in list(queue):
                lease = self._grant(urgent=queue is self._urgent, home=waiter.home)
                if lease is not None:
                    queue.remove(waiter)
                    waiter.result.set(lease)
                elif waiter.home is None:
                    return

    def _fail(self, error: WorkerError) -> None:
        """Workers cannot be kept alive: whoever waits, and whoever comes, hears it."""
        self._broken = error
        self._refuse(error)

    def _refuse(self, error: WorkerError) -> None:
        for queue in (self._urgent, self._waiting):
            for waiter in queue:
                waiter.result.set_exception(error)
            queue.clear()

    def _used(self) -> int:
        return sum([worker.slots.used for worker in self._workers])

    def _ready(self) -> int:
        return sum([worker.slots.ready for worker in self._workers])

    def _in_books(self, step: Callable[[], None]) -> None:
        """A step about a slot that may become free by it; from any thread."""
        self._steps.run(partial(self._given_back, step))

    def _given_back(self, step: Callable[[], None]) -> None:
        step()
        self._credit.given_back(self._ready)
        self._serve()
