"""`WorkerPool`: an executor of processes that replaces the dead and does their items again.

One daemon thread per worker sends it one call at a time and waits for the answer; the end of the worker's socket is its
death, whatever the reason, so nothing can be missed and nothing has to be polled.
What travels between them is made in `remote`.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from ...errors import ConfigError, PenstockError
from ...shm import Child, Zygote, recv_frame, send_frame
from ..core.definitions import at_least
from ..core.threads import daemon, join_threads
from .pickle_codec import ENTRY, dump_call, load_answer, refuse_while_loading
from .poison import PoisonFinder, WorkerLost

_logger = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")


class TimedFuture(Future[_T]):
    """A future that knows how long the call itself took, without the queue.

    Attributes:
        seconds: None until it is known.
    """

    seconds: float | None = None


@dataclass(slots=True)
class _Call:
    """A pickled call and who waits for it."""

    future: TimedFuture[Any]
    request: bytes


class WorkerPool(Executor):
    """Processes that run importable functions; for `PipelineBuilder.pipe(executor=)` and on its own.

    A worker that dies (``kill -9``, a crash in C, out of memory) costs nothing: its item is done again by a new worker,
    up to three times, then that item alone fails with `PoisonItemError`. Workers start with the first call, in
    milliseconds once `preload` is imported; Ctrl-C does not reach them. They end with the pool, and with this process,
    however it ends.

    Args:
        num_workers: processes.
        preload: names of modules to import once, before the workers are forked.
        env: environment variables for the workers, over those of this process.
        item_timeout: seconds one call may take, loading its module included; then its worker is killed and replaced,
            and the call fails with `DeadlineError`. None: as long as it likes.

    Raises:
        ConfigError: `num_workers` is less than 1, `item_timeout` is not above 0, or a worker runs this because the
            main script has no ``if __name__ == "__main__"`` guard.
    """

    runs_processes = True

    def __init__(
        self,
        num_workers: int,
        *,
        preload: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        item_timeout: float | None = None,
    ) -> None:
        at_least("num_workers", num_workers, 1)
        if item_timeout is not None and item_timeout <= 0:
            raise ConfigError(f"item_timeout must be above 0 seconds, or None for no limit: {item_timeout}")
        refuse_while_loading()
        self.num_workers = num_workers
        self._crew = _Crew(num_workers, Zygote([*preload, __name__], env), item_timeout)
        # The crew's threads do not know the pool, so that a forgotten one is collected and its workers leave.
        weakref.finalize(self, _Crew.dismiss, self._crew)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [child.pid for child in list(self._crew.children.values())]

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Run ``fn(*args, **kwargs)`` in a worker.

        Raises:
            ConfigError: `fn` cannot be sent to another process: it must be importable, no lambda or local function.
            RuntimeError: the pool has been shut down.
        """
        future: TimedFuture[_T] = TimedFuture()
        try:
            request = dump_call(fn, args, kwargs)
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001  (this item cannot travel; others may)
            future.set_exception(error)
            return future
        self._crew.post(_Call(future, request))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; the workers leave after those that were accepted.

        Args:
            wait: return when they have left.
            cancel_futures: cancel the calls that have not begun.
        """
        self._crew.dismiss(cancel_futures)
        if wait:
            self._crew.join()


class _Crew:
    """The workers, and one thread for each."""

    def __init__(self, size: int, zygote: Zygote, item_timeout: float | None) -> None:
        self.children: dict[int, Child] = {}
        self._item_timeout = item_timeout
        self._zygote = zygote
        self._size = size
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._guard = threading.RLock()  # a finalizer may dismiss the crew from inside of `post`
        self._threads: list[threading.Thread] = []
        self._free = 0  # threads that wait for a call, less the calls that wait for a thread
        self._present = 0  # threads that have not left
        self._closed = False
        self._owner = os.getpid()

    def post(self, call: _Call) -> None:
        """Have the next free worker do it."""
        with self._guard:
            if self._closed:
                raise RuntimeError("this WorkerPool has been shut down: make another one")
            self._free -= 1
            if self._free < 0 and len(self._threads) < self._size:
                self._free += 1
                self._present += 1
                index = len(self._threads)
                self._threads.append(daemon(lambda: self._attend(index), f"penstock-worker-{index}"))
            self._calls.put(call)

    def dismiss(self, cancel: bool = False) -> None:
        """Let every worker leave when the waiting calls are done, or at once with `cancel`. Does not wait."""
        with self._guard:
            if self._closed or os.getpid() != self._owner:
                return
            self._closed = True
            while cancel and not self._calls.empty():
                call = self._calls.get_nowait()
                if call is not None and call.future.cancel():
                    call.future.set_running_or_notify_cancel()  # wakes whoever waits for it
            for _ in self._threads:
                self._calls.put(None)
            if not self._threads:
                self._zygote.close()

    def join(self) -> None:
        """Wait until all have left."""
        join_threads(self._threads, None)

    # -- in a worker's thread -----------------------------------------------------------------------------------------

    def _attend(self, index: int) -> None:
        while (call := self._calls.get()) is not None:
            if call.future.set_running_or_notify_cancel():
                self._do(index, call)
            del call  # it would keep its request alive while this thread waits
            with self._guard:
                self._free += 1
        self._part(index)
        with self._guard:
            self._present -= 1
            last = not self._present
        if last:
            self._zygote.close()

    def _do(self, index: int, call: _Call) -> None:
        """One call, on as many workers as it takes. Whatever goes wrong is the future's."""
        finder = PoisonFinder(1, item_timeout=self._item_timeout)
        while finder.live:
            try:
                answer = self._exchange(index, call.request)
            except WorkerLost as lost:
                _logger.warning("%s; its item is done again, or given up", lost)
                finder.on_worker_lost(lost)
            except Exception as error:  # noqa: BLE001
                call.future.set_exception(error)
                return
            else:
                _resolve(call.future, answer)
                return
        call.future.set_exception(finder.failures[0][1])

    def _exchange(self, index: int, request: bytes) -> bytes:
        """Send a call to a worker and wait for its answer.

        Raises:
            WorkerLost: it died; or it did not go on, may be stopped or stuck anywhere, and was killed.
            WorkerStartError: there is none, and none can be started.
        """
        child = self._hire(index)
        try:
            send_frame(child.socket, request)
            answer = recv_frame(child.socket)
        except TimeoutError:
            child.kill()
            raise self._lost(index, child, "was killed", hung=True) from None
        except OSError:
            answer = None
        if answer is None:
            raise self._lost(index, child, child.describe_exit(), hung=False)
        return answer

    def _lost(self, index: int, child: Child, how: str, *, hung: bool) -> WorkerLost:
        self._part(index)
        return WorkerLost(f"worker {index} (pid {child.pid})", how, begun=True, row=0, hung=hung)

    def _hire(self, index: int) -> Child:
        child = self.children.get(index)
        if child is not None and not child.alive:  # it died of nobody's item, and counts for none
            self._part(index)
            child = None
        if child is None:
            child = self._zygote.fork(ENTRY)
            child.socket.settimeout(self._item_timeout)
            self.children[index] = child
        return child

    def _part(self, index: int) -> None:
        child = self.children.pop(index, None)
        if child is not None:
            child.close()


def _resolve(future: TimedFuture[Any], answer: bytes) -> None:
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
