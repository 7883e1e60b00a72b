"""The calls of a `WorkerPool`, from a user's thread to its workers and back.

The pool of workers lives on a hub, so there is a thread here that has one, with a fiber for each worker, which makes
one call after the other. What a death, a hang or a deadline means is the pool's.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from concurrent.futures import Future
from typing import Any, TypeVar

from ...errors import PenstockError, WorkerError
from ...shm import refuse_fork
from ..core.hub import Event, Fiber, Hub, Mailbox, Waiter
from ..core.threads import daemon, join_threads
from .pickle_codec import PickledCall, Returned, load_answer
from .pool import SlotPool

_T = TypeVar("_T")

_EXIT_SECONDS = 2.0
"""Seconds the interpreter's exit waits for a pool that nobody shut down."""


class TimedFuture(Future[_T]):
    """A future that knows how long the call itself took, without the queue.

    Attributes:
        seconds: None until it is known.
    """

    seconds: float | None = None


class CallQueue:
    """Calls that wait for a worker, and the thread with the hub on which they are made.

    Attributes:
        pool: the workers.
    """

    def __init__(self, pool: SlotPool[PickledCall, Returned]) -> None:
        self.pool = pool
        self._calls: deque[tuple[PickledCall, TimedFuture[Any]]] = deque()
        self._lock = threading.RLock()  # a finalizer may close it from inside of `put`
        self._thread: threading.Thread | None = None
        self._owner = 0
        self._closed = False
        self._hub = Hub()
        self._mailbox = Mailbox()
        self._idle: deque[Waiter] = deque()
        self._fibers: set[Fiber] = set()

    # -- from any thread ----------------------------------------------------------------------------------------------

    def put(self, call: PickledCall, future: TimedFuture[Any]) -> None:
        """Have the next free worker do it.

        Raises:
            RuntimeError: it is closed.
            WorkerStartError: this process is a fork of the one whose workers they are.
        """
        if self._owner:
            refuse_fork(self._owner)
        with self._lock:
            if self._closed:
                raise RuntimeError("this WorkerPool has been shut down: make another one")
            if self._thread is None:
                self._owner = os.getpid()
                atexit.register(self._at_exit)
                self._thread = daemon(self._run, "penstock-calls")
            self._calls.append((call, future))
        if self._idle:  # else whoever becomes idle looks for calls afterwards
            self._mailbox.post(self._wake)

    def close(self, cancel: bool = False) -> None:
        """Accept no more; workers leave when the waiting calls are done, or at once with `cancel`. Does not wait."""
        if self._owner not in (0, os.getpid()):
            return
        with self._lock:
            self._closed = True
            while cancel and self._calls:
                _, future = self._calls.popleft()
                if future.cancel():
                    future.set_running_or_notify_cancel()  # wakes whoever waits for it
        self._mailbox.post(self._wake_all)

    def kill(self) -> None:
        """As `close` with `cancel`, and end the workers in the middle of what they do. Does not wait."""
        self.close(cancel=True)
        if self._owner == os.getpid():
            self._mailbox.post(self._abandon)

    def join(self, seconds: float | None = None) -> None:
        """Wait until all have left."""
        if self._thread is not None and self._owner == os.getpid():
            join_threads([self._thread], seconds)

    def _at_exit(self) -> None:
        if self._owner == os.getpid():
            self._mailbox.post(self._abandon)
            self.join(_EXIT_SECONDS)

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._hub.open()
        try:
            self._mailbox.open(self._hub)
            waiter = Waiter(self._hub)
            while not self._closed or self._calls:
                if self._calls:
                    self._serve()
                else:
                    self._wait(waiter)
        finally:
            with self._lock:
                self._closed = True
            self._refuse(WorkerError("the thread of this WorkerPool has ended unexpectedly"))
            self._mailbox.close()
            self._hub.destroy()
            atexit.unregister(self._at_exit)

    def _serve(self) -> None:
        """Have workers make calls until no more come, or these cannot be kept alive: then the next call has others."""
        try:
            self.pool.start()  # which blocks: nobody else is on this hub
        except Exception as error:  # noqa: BLE001  (whatever it is, there are no workers)
            self._refuse(error)
            return
        over = Event(self._hub)

        def ended() -> None:
            self._fibers = {fiber for fiber in self._fibers if not fiber.dead}
            self._wake_all()
            if not self._fibers:
                over.set()

        self.pool.start_in_hub()
        self._fibers = {self._hub.spawn(self._attend, ended) for _ in range(self.pool.capacity)}
        over.wait()
        self.pool.stop_in_hub(patience=0.0)
        self.pool.close()

    def _attend(self) -> None:
        waiter = Waiter(self._hub)
        while not self.pool.is_broken and (not self._closed or self._calls):
            if self._calls:
                self._make()
            else:
                self._wait(waiter)

    def _make(self) -> None:
        """One call, by as many workers as it takes. Whatever goes wrong is the future's."""
        try:
            call, future = self._calls.popleft()
        except IndexError:  # it has just been cancelled
            return
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = self.pool.run([call])
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
            return
        except BaseException:  # this fiber is being killed
            future.set_exception(WorkerError("the workers of this pool have been ended"))
            raise
        if result.answer is None:
            future.set_exception(result.failures[0][1])
        else:
            _resolve(future, result.answer.answer)

    def _wait(self, waiter: Waiter) -> None:
        """Wait until there may be a call, or whatever else has changed."""
        self._idle.append(waiter)
        if not self._calls and not self._closed:  # else it came when nobody was idle, and wakes nobody
            waiter.park()
        if waiter in self._idle:
            self._idle.remove(waiter)

    def _wake(self) -> None:
        if self._idle:
            self._idle.popleft().resume()

    def _wake_all(self) -> None:
        for _ in range(len(self._idle)):
            self._wake()

    def _refuse(self, error: Exception) -> None:
        while self._calls:
            _, future = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _abandon(self) -> None:
        """End it at once: the interpreter exits, or nobody wants a call any more."""
        self._closed = True
        self._calls.clear()
        for fiber in self._fibers:
            self._hub.kill(fiber)
        self._wake_all()


def _resolve(future: TimedFuture[Any], answer: memoryview) -> None:
    try:
        result, error, future.seconds = load_answer(answer)
    except Exception as broken:  # noqa: BLE001  (a class that pickles but does not unpickle)
        failure = PenstockError(f"a worker's result cannot be unpickled here: {type(broken).__name__}: {broken}")
        failure.__cause__ = broken
        future.set_exception(failure)
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
