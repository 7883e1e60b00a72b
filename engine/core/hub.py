"""The only place that touches gevent: fibers (greenlets), parking, timers and the bridge from other threads.

Nothing is patched. A hub belongs to the thread that made it; only `Mailbox.post` may be called from elsewhere.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

import gevent
import gevent.monkey
from gevent import GreenletExit, getcurrent

from ...errors import ConfigError

_logger = logging.getLogger(__name__)

Killed: type[BaseException] = GreenletExit
"""Raised inside a fiber that is told to end."""


class Fiber(Protocol):
    """The part of a greenlet that the engine uses."""

    @property
    def dead(self) -> bool: ...

    @property
    def gr_frame(self) -> FrameType | None:
        """Where it waits; None while it runs, before it has begun and after its end."""
        ...

    def kill(self, *, block: bool) -> object: ...


def current_fiber() -> Fiber:
    """The fiber that runs in this thread."""
    return getcurrent()  # type: ignore[no-any-return]


class Hub:
    """The scheduler of one thread, opened for one run and destroyed after it."""

    __slots__ = ("_hub", "_soon", "_timers", "thread_ident", "wait")

    def __init__(self) -> None:
        self.thread_ident = 0
        self._timers: set[Any] = set()

    def open(self) -> None:
        """From now on it is the hub of the calling thread."""
        self._hub: Any = gevent.get_hub()
        self.thread_ident = threading.get_ident()
        self.wait: Callable[[], object] = self._hub.switch
        self._soon: Callable[..., object] = self._hub.loop.run_callback

    def spawn(self, work: Callable[[], None], ended: Callable[[], None]) -> Fiber:
        """Run `work`, which must not raise, in a fiber of its own; then, from the hub, `ended`, which must not wait.

        `ended` also runs for a fiber that is killed before its first step, when nothing inside of `work` does.
        """
        fiber: Any = gevent.Greenlet(work)
        fiber.rawlink(lambda _: ended())
        fiber.start()
        return fiber  # type: ignore[no-any-return]

    def soon(self, work: Callable[[], object]) -> None:
        """Run `work`, which must not wait, from the hub itself."""
        self._soon(work)

    def kill(self, fiber: Fiber) -> None:
        """Raise `Killed` inside a fiber, soon."""
        fiber.kill(block=False)

    def timer(self, seconds: float, work: Callable[[], object], *, every: bool = False) -> Callable[[], None]:
        """Run `work` (must not wait) from the hub after `seconds`, or all `seconds`; returns what cancels it."""
        watcher: Any = self._hub.loop.timer(seconds, seconds if every else 0.0, ref=False)
        self._timers.add(watcher)
        watcher.start(work)
        return lambda: self._cancel(watcher)

    def _cancel(self, watcher: Any) -> None:
        if watcher in self._timers:
            self._timers.remove(watcher)
            watcher.stop()
            watcher.close()

    def watcher(self) -> Any:
        """A watcher that other threads can signal."""
        return self._hub.loop.async_()

    def destroy(self) -> None:
        """End it. To be called in the hub's own thread, from outside of any fiber."""
        for watcher in list(self._timers):
            self._cancel(watcher)
        self._hub.destroy(destroy_loop=True)
        # destroy() leaves the hub's greenlet suspended in its run(), which would keep itself, this thread's other
        # greenlets and all they refer to for ever (seen with gevent 26.9: 40 kB and 2 hubs a run). So end it.
        self._hub.throw(Killed)


class Waiter:
    """Where one fiber waits to be woken. Wake-ups that come late, twice or after a kill do nothing.

    A bare `switch` scheduled for a fiber that has meanwhile moved on would resume it somewhere inside a user's
    operation; that is why every wake-up goes through a waiter.
    """

    __slots__ = ("_fiber", "_hub", "_woken")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._fiber: Any = None
        self._woken = False

    def park(self) -> None:
        """Wait in the current fiber until woken (or killed)."""
        self._fiber = getcurrent()
        self._woken = False
        try:
            self._hub.wait()
        finally:
            self._fiber = None

    def unpark(self) -> None:
        """Let the fiber that is parked here go on, soon."""
        if not self._woken:
            self._woken = True
            self._hub.soon(self.resume)

    def resume(self) -> None:
        """Let it go on at once. Only from the hub itself (a callback), not from a fiber."""
        fiber, self._fiber = self._fiber, None
        if fiber is not None:
            fiber.switch()


class Event:
    """Something that happens once; fibers can wait for it."""

    __slots__ = ("_hub", "_waiters", "is_set")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._waiters: list[Waiter] = []
        self.is_set = False

    def set(self) -> None:
        """It has happened."""
        self.is_set = True
        for waiter in self._waiters:
            waiter.unpark()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has happened, at most `seconds`; says whether it has."""
        if self.is_set:
            return True
        waiter = Waiter(self._hub)
        self._waiters.append(waiter)
        cancel = None if seconds is None else self._hub.timer(max(seconds, 0.0), waiter.unpark)
        try:
            waiter.park()
        finally:
            self._waiters.remove(waiter)
            if cancel is not None:
                cancel()
        return self.is_set


class Mailbox:
    """Brings small jobs from any thread to the hub, which runs them in the order of posting."""

    def __init__(self) -> None:
        self._watcher: Any = None
        self._jobs: deque[Callable[[], object]] = deque()
        self._open = False
        # Reentrant: a garbage collection inside `post` may finalize a pipeline, which posts.
        self._lock = threading.RLock()

    def open(self, hub: Hub) -> None:
        """From now on `hub`, whose thread this is, empties it."""
        self._watcher = hub.watcher()
        self._watcher.start(self._empty)
        self._open = True

    def post(self, job: Callable[[], object]) -> bool:
        """Have the hub run `job`, which must not wait. False when there is no hub (yet, or any more)."""
        with self._lock:
            if not self._open:
                return False
            self._jobs.append(job)
            # Always: a flag of ours "has been signalled" would lie for ever if a Ctrl-C came between flag and signal.
            self._watcher.send()
        return True

    def _empty(self) -> None:
        # Only what is there now: jobs that post jobs must not keep timers and sockets waiting.
        for _ in range(len(self._jobs)):
            self._next()

    def _next(self) -> None:
        try:
            self._jobs.popleft()()
        except BaseException:
            _logger.exception("a job posted to the engine's hub raised")

    def close(self) -> None:
        """Accept nothing more, and run what is left. Only in the hub's thread, before the hub is destroyed."""
        with self._lock:
            self._open = False
        while self._jobs:
            self._next()
        self._watcher.stop()
        self._watcher.close()


def refuse_patched_threads() -> None:
    """Refuse to start where threads are not threads.

    Raises:
        ConfigError: the process is monkey-patched, so the engine's thread would be a greenlet on the host's own hub.
    """
    if gevent.monkey.is_module_patched("threading"):
        raise ConfigError(
            "threading is monkey-patched by gevent in this process: the engine needs a real thread for its hub. "
            "Patch with thread=False, or run the pipeline in a process of its own."
        )
