"""Turns at a semaphore, for threads whose waiting can be ended; also at one of an asyncio loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Final

from ....errors import ReadError

_NOBODY: Final = "nobody waits for it any more"
_TICK: Final = 0.1
"""Seconds between two looks at whether anybody still waits: a semaphore for threads cannot be woken."""


class Waiting:
    """Those who wait for turns on behalf of one worker, until it ends."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._turns: set[AsyncTurn] = set()
        self._closed = False

    def wait_for(self, turn: AsyncTurn) -> None:
        """Back when the turn has come.

        Raises:
            ReadError: it is not waited for any more.
        """
        with self._mutex:
            if not self._closed:
                self._turns.add(turn)
                turn.begin()
        came = turn.wait()
        with self._mutex:
            self._turns.discard(turn)
        if not came:
            raise ReadError(_NOBODY)

    def acquire(self, semaphore: threading.Semaphore) -> None:
        """Back when one for threads was acquired.

        Raises:
            ReadError: it is not waited for any more.
        """
        while not semaphore.acquire(timeout=_TICK):
            if self._closed:
                raise ReadError(_NOBODY)

    def close(self) -> None:
        """Nobody waits any more, now or later. Idempotent."""
        with self._mutex:
            self._closed = True
            turns = [*self._turns]
        for turn in turns:
            turn.cancel()


class AsyncTurn:
    """A turn at an asyncio semaphore, waited for by a thread. One that is given up is given back, whenever it comes.

    Args:
        semaphore: of whoever shares it.
        loop: that it belongs to.
    """

    def __init__(self, semaphore: asyncio.Semaphore, loop: asyncio.AbstractEventLoop) -> None:
        self._semaphore, self._loop = semaphore, loop
        self._mutex = threading.Lock()
        self._settled = threading.Event()
        self._came = self._given_up = False
        self._task: Future[None] | None = None

    def begin(self) -> None:
        """Ask for it; in any thread but the loop's."""
        self._task = asyncio.run_coroutine_threadsafe(self._acquire(), self._loop)
        self._task.add_done_callback(lambda _: self._settled.set())  # also where the loop ends

    def wait(self) -> bool:
        """Whether it has come; False where it was given up, or never begun."""
        if self._task is not None:
            self._settled.wait()
        return self._came

    def cancel(self) -> None:
        """Give it up, if it has not come yet."""
        with self._mutex:
            self._given_up = not self._came
        if self._given_up and self._task is not None:
            self._settled.set()
            self._task.cancel()

    async def _acquire(self) -> None:
        await self._semaphore.acquire()
        with self._mutex:
            self._came = not self._given_up
        if not self._came:
            self._semaphore.release()
