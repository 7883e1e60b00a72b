"""The asyncio loop of a pipeline, in a daemon thread of its own: where async operations and sources run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from .threads import DaemonThreads, daemon, join_threads

_logger = logging.getLogger(__name__)


class AsyncLoop:
    """A loop that runs until `close`.

    Args:
        threads: the pipeline's thread pool, which is the loop's default executor, too.
        name: of the thread.
    """

    def __init__(self, threads: DaemonThreads, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(threads)
        self._stopping = False
        self._thread = daemon(self._run, name)

    def start(
        self, work: Callable[[], Coroutine[Any, Any, None]], unstarted: Callable[[], object]
    ) -> Callable[[], None]:
        """Run a coroutine, which must not raise, from any thread; returns what cancels it (from any thread, too).

        `unstarted` is called instead if it is cancelled before its first step.
        """
        task: asyncio.Task[None] | None = None
        cancelled = False

        def begin() -> None:
            nonlocal task
            if cancelled:
                unstarted()
                return
            task = self._loop.create_task(work())
            task.add_done_callback(lambda done: unstarted() if done.cancelled() else None)

        def stop() -> None:
            if task is not None:
                task.cancel()

        def cancel() -> None:
            nonlocal cancelled
            cancelled = True
            self.soon(stop)

        self._loop.call_soon_threadsafe(begin)
        return cancel

    def soon(self, work: Callable[[], object]) -> None:
        """Call something, which must not raise, on the loop, from any thread; not where that has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work)

    def close(self, seconds: float) -> list[str]:
        """Cancel what still runs and end the thread within `seconds`; returns the thread's name if it does not end."""
        self._stopping = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        return join_threads([self._thread], seconds)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._stopping:
            try:
                self._loop.run_forever()
            except BaseException:  # a task that a user's operation left behind raised SystemExit: not the loop's end
                _logger.exception("a task on the pipeline's asyncio loop wanted to end the thread")
        try:
            self._loop.run_until_complete(self._finish())
        finally:
            self._loop.close()

    async def _finish(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
