"""`WorkerPool`: an executor whose calls are made in worker processes, of which the dead are replaced.

Calls are a kind of work of the pool of workers: `pickle_codec` says how they travel, `call_queue` brings them to the
hub that the pool lives on.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from ...errors import ConfigError
from ..core.definitions import at_least
from ..core.hub import refuse_patched_threads
from .call_queue import CallQueue, TimedFuture
from .kind import WorkerKind
from .pickle_codec import ENTRY, LAYOUT, CallCodec, dump_call, refuse_while_loading
from .pool import SlotPool
from .shared_fork_server import SharedForkServer

_P = ParamSpec("_P")
_T = TypeVar("_T")


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
        ConfigError: `num_workers` is less than 1, `item_timeout` is not above 0, a worker runs this because the
            main script has no ``if __name__ == "__main__"`` guard, or the process is monkey-patched.
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
        refuse_patched_threads()
        self.num_workers = num_workers
        server = SharedForkServer([*preload, CallCodec.__module__], lambda: env or {})
        kind = WorkerKind(ENTRY, lambda _: b"", CallCodec(), LAYOUT, server, item_timeout, "call")
        # One slot for each: a call that waits would rather be made by whichever worker is free first.
        self._queue = CallQueue(SlotPool(kind, workers=num_workers, slots=1))
        # The queue does not know the pool, so that a forgotten one is collected and its workers leave.
        weakref.finalize(self, CallQueue.close, self._queue).atexit = False

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return self._queue.pool.running

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Run ``fn(*args, **kwargs)`` in a worker.

        Raises:
            ConfigError: `fn` cannot be sent to another process: it must be importable, no lambda or local function.
            RuntimeError: the pool has been shut down.
            WorkerStartError: its workers are those of another process, of which this one is a fork.
        """
        future: TimedFuture[_T] = TimedFuture()
        try:
            call = dump_call(fn, args, kwargs)
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001  (this item cannot travel; others may)
            future.set_exception(error)
            return future
        self._queue.put(call, future)
        return future

    def kill_workers(self) -> None:
        """Accept no more calls, cancel those that wait, and end the workers at once: calls under way fail with
        `WorkerError`. Does not wait; see `shutdown`."""
        self._queue.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; the workers leave after those that were accepted.

        Args:
            wait: return when they have left.
            cancel_futures: cancel the calls that have not begun.
        """
        self._queue.close(cancel_futures)
        if wait:
            self._queue.join()
