"""A thread pool whose threads never keep the interpreter alive.

`concurrent.futures.thread` joins its workers at interpreter exit: one blocked operation of an abandoned pipeline would
hang the host's exit for ever. Here threads are daemons, and a pipeline joins them itself, with a deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from time import monotonic
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class DaemonThreads(ThreadPoolExecutor):
    """At most `num_threads` daemon threads, started when needed.

    A subclass because asyncio accepts nothing else as a loop's default executor; everything that matters is its own.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        super().__init__(num_threads)
        self._limit = num_threads
        self._name = name
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._guard = threading.Lock()
        self._free = 0  # threads that wait, less the jobs that wait for them
        self._team: list[threading.Thread] = []
        self._closed = False

    def post(self, job: Callable[[], object]) -> None:
        """Run `job`, which must not raise, in one of the threads.

        Raises:
            RuntimeError: the pool is shut down, or the interpreter is.
        """
        with self._guard:
            if self._closed:
                raise RuntimeError("this pipeline's threads have been shut down")
            self._free -= 1
            if self._free < 0 and len(self._team) < self._limit:
                self._free += 1
                self._team.append(daemon(self._work, f"{self._name}-{len(self._team)}"))
        self._jobs.put(job)

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """As `concurrent.futures.Executor.submit`: what `asyncio.to_thread` uses."""
        future: Future[_T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  (whatever it is belongs to who waits)
                future.set_exception(error)

        self.post(job)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more jobs; threads end after the waiting jobs. Those cannot be cancelled here."""
        del cancel_futures
        with self._guard:
            if not self._closed:
                self._closed = True
                for _ in self._team:
                    self._jobs.put(None)
        if wait:
            self.join(None)

    def join(self, seconds: float | None) -> list[str]:
        """Wait for the threads to end after `shutdown`; returns the names of those that still run."""
        return join_threads(self._team, seconds)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # it would keep its value alive while this thread waits
            with self._guard:
                self._free += 1


def join_threads(threads: list[threading.Thread], seconds: float | None) -> list[str]:
    """Join threads within one deadline; returns the names of those that still run."""
    deadline = None if seconds is None else monotonic() + seconds
    for thread in threads:
        if thread is not threading.current_thread() and thread.ident is not None:
            thread.join(None if deadline is None else max(deadline - monotonic(), 0.0))
    return [thread.name for thread in threads if thread.is_alive()]


def daemon(work: Callable[[], None], name: str) -> threading.Thread:
    """Start a daemon thread.

    Raises:
        RuntimeError: the interpreter is shutting down.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread
