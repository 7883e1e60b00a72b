"""Steps about the pool's slots, handed in by any thread and done one at a time, on the hub while there is one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent

from ...errors import ConfigError


class HubSteps:
    """A queue of steps that the hub's thread does; while there is no hub, whoever hands one in.

    A step is queued first and the hub woken then, so none is lost whatever comes in between: a hub that is going down
    does what is queued before it goes, and afterwards there is nothing left to wake.
    """

    def __init__(self) -> None:
        self._queue: deque[Callable[[], None]] = deque()
        # Reentrant: a garbage collection may give a slot back in the middle of anything.
        self._lock = threading.RLock()
        self._waker: Any = None
        self._thread = 0

    def open(self) -> None:
        """From now on the calling thread's hub does the steps.

        Raises:
            ConfigError: another one does.
        """
        with self._lock:
            if self._waker is not None:
                raise ConfigError(
                    "this worker pool serves another pipeline: let that end, or stop it, first; or make a second pool"
                )
            self._waker = gevent.get_hub().loop.async_()
            self._waker.start(self._run_all)
            self._thread = threading.get_ident()

    def close(self) -> None:
        """The hub does no more of them, those that are queued first. In its thread."""
        with self._lock:
            waker, self._waker, self._thread = self._waker, None, 0
            self._run_all()
        if waker is not None:
            waker.stop()
            waker.close()

    def run(self, step: Callable[[], None]) -> None:
        """Have a step done, which must not wait: at once in the hub's thread or where there is no hub, else soon."""
        if self._thread == threading.get_ident():
            if self._queue:
                self._run_all()
            step()
            return
        self._queue.append(step)
        with self._lock:
            if self._waker is None:
                self._run_all()
            else:
                self._waker.send()

    def _run_all(self) -> None:
        while self._queue:
            self._queue.popleft()()
