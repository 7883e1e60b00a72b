"""How those outside of the engine's thread wait for it: plain threads, and tasks of anybody's asyncio loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


class AsyncBell:
    """Wakes one task of the running asyncio loop; it may be rung from any thread, and also when the loop has ended.

    Raises:
        RuntimeError: no loop runs in this thread.
    """

    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def ring(self) -> None:
        """Let the task go on, soon."""
        with suppress(RuntimeError):  # the loop is closed, and so nobody waits there any more
            self._loop.call_soon_threadsafe(self._wake)

    async def wait(self) -> None:
        """Wait until it rings."""
        await self._future

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class Latch:
    """Something that happens once. Threads and asyncio tasks can wait for it, and any thread can set it.

    Not a `threading.Event`: a Ctrl-C inside of its ``wait`` can leave its lock taken, and whoever sets it would hang.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._lock = threading.Lock()
        self._bells: set[Callable[[], object]] = set()

    def set(self) -> None:
        """It has happened."""
        with self._lock:
            self.is_set = True
            bells, self._bells = self._bells, set()
        for ring in bells:
            ring()

    def wait(self, seconds: float) -> bool:
        """Wait in this thread until it has happened, at most `seconds`; says whether it has."""
        bell = threading.Lock()
        bell.acquire()
        if self._expect(bell.release):
            try:
                bell.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))
            finally:
                self._forget(bell.release)
        return self.is_set

    async def wait_async(self, seconds: float) -> bool:
        """Likewise, in a task of the running asyncio loop, which goes on meanwhile."""
        bell = AsyncBell()
        if self._expect(bell.ring):
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await bell.wait()
            finally:
                self._forget(bell.ring)
        return self.is_set

    def _expect(self, ring: Callable[[], object]) -> bool:
        """Have `ring` called when it happens; False if it has."""
        with self._lock:
            if not self.is_set:
                self._bells.add(ring)
            return not self.is_set

    def _forget(self, ring: Callable[[], object]) -> None:
        with self._lock:
            self._bells.discard(ring)
