"""How to wait: in greenlets of the engine's hub, or in plain threads that have none.

Everything else in this package is written once on top of the two. A greenlet must never wait in a system call, and a
thread without a hub must not be given one (gevent would make it, and leave it behind), so whoever waits does it here.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast

import gevent
import gevent.event
import gevent.socket
from gevent.threadpool import ThreadPool

T = TypeVar("T")


class Signal(Protocol):
    """An event: ``threading.Event`` or ``gevent.event.Event``."""

    def set(self) -> object: ...
    def clear(self) -> object: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class IoBackend(Protocol):
    """A way to wait."""

    beside: bool
    """Whether work can go on beside its caller, or after he gave up: only then may a server be shown shared memory."""

    def connect(self, address: tuple[str, int], seconds: float) -> socket.socket:
        """A TCP connection whose operations wait this way."""
        ...

    def call(self, work: Callable[[], T]) -> T:
        """Run what blocks its thread."""
        ...

    def signal(self) -> Signal:
        """An event to wait for."""
        ...

    def pause(self, seconds: float) -> None:
        """Sleep."""
        ...

    def start(self, work: Callable[[], None]) -> None:
        """Run `work`, which must not raise, beside the caller; or, where that cannot be, now."""
        ...

    def at_most(self, seconds: float, work: Callable[[], T]) -> T:
        """Run `work` and wait so long; it goes on beyond that by itself.

        Raises:
            TimeoutError: it has not ended yet.
        """
        ...

    def stop(self) -> None:
        """End what still runs."""
        ...


class ThreadIo:
    """In the calling thread, whichever it is."""

    beside = False

    def connect(self, address: tuple[str, int], seconds: float) -> socket.socket:
        """See `IoBackend`."""
        return socket.create_connection(address, seconds)

    def call(self, work: Callable[[], T]) -> T:
        """See `IoBackend`."""
        return work()

    def signal(self) -> Signal:
        """See `IoBackend`."""
        return threading.Event()

    def pause(self, seconds: float) -> None:
        """See `IoBackend`."""
        time.sleep(seconds)

    def start(self, work: Callable[[], None]) -> None:
        """See `IoBackend`."""
        work()

    def at_most(self, seconds: float, work: Callable[[], T]) -> T:  # noqa: ARG002
        """Waits to the end: a thread cannot leave its work behind."""
        return work()

    def stop(self) -> None:
        """Nothing runs beside the caller."""


class GreenletIo:
    """In greenlets of the hub of the thread that makes it.

    Args:
        threads: calls that block their thread, at once.
    """

    beside = True

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool: Any = None
        self._greenlets: set[Any] = set()

    def connect(self, address: tuple[str, int], seconds: float) -> socket.socket:
        """See `IoBackend`."""
        made: Any = gevent.socket.create_connection(address, seconds)
        return made  # type: ignore[no-any-return]

    def call(self, work: Callable[[], T]) -> T:
        """See `IoBackend`. In a pool of its own: the hub's default one also looks up names."""
        if self._pool is None:
            self._pool = ThreadPool(self._threads)
        # gevent would print what is raised in a thread of its pool, so nothing is.
        outcome: _Outcome[T] = self._pool.apply(_tried, (work,))
        return outcome.result()

    def signal(self) -> Signal:
        """See `IoBackend`."""
        made: Any = gevent.event.Event()
        return made  # type: ignore[no-any-return]

    def pause(self, seconds: float) -> None:
        """See `IoBackend`."""
        gevent.sleep(seconds)

    def start(self, work: Callable[[], None]) -> None:
        """See `IoBackend`."""
        self._spawn(work)

    def at_most(self, seconds: float, work: Callable[[], T]) -> T:
        """See `IoBackend`.

        A greenlet of its own also makes every request pass through the hub: on a busy machine the server has often
        answered before `send` returns, so that nothing would wait and nobody else's turn would come (seen: 348 ms).
        """
        outcome: list[_Outcome[T]] = []
        greenlet = self._spawn(lambda: outcome.append(_tried(work)))
        greenlet.join(seconds)
        if not outcome:
            raise TimeoutError(f"no answer within {seconds:g} s")
        return outcome.pop().result()

    def stop(self) -> None:
        """See `IoBackend`."""
        gevent.killall(list(self._greenlets), block=True, timeout=5)
        if self._pool is not None:
            self._pool.kill()

    def _spawn(self, work: Callable[[], None]) -> Any:
        greenlet: Any = gevent.spawn(work)
        self._greenlets.add(greenlet)
        greenlet.rawlink(self._greenlets.discard)
        return greenlet


class _Outcome(Generic[T]):
    """What came of a piece of work."""

    __slots__ = ("error", "value")

    def __init__(self, value: T | None, error: Exception | None) -> None:
        self.value, self.error = value, error

    def result(self) -> T:
        """The value, or the error raised."""
        error, self.error = self.error, None  # its traceback leads back here: break the cycle
        if error is not None:
            raise error
        return cast("T", self.value)


def _tried(work: Callable[[], T]) -> _Outcome[T]:
    try:
        return _Outcome(work(), None)
    except Exception as error:  # noqa: BLE001  (handed to whoever waits)
        return _Outcome(None, error)
