"""The user's handle on a pipeline: start, read, stop, report; each of the first three also with ``await``."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from itertools import count
from time import monotonic
from typing import Any, Self

from ..core.definitions import GraphDef, PipeDef
from ..core.latch import AsyncBell
from ..core.output_queue import ENDED, NOT_YET, Record
from ..observe.dump import dump
from ..observe.report import Report
from ..observe.stacks import of_all_threads
from .iteration import AsyncItems, AutoStop, Items
from .runtime import GRACE, Runtime

_logger = logging.getLogger(__name__)
_numbers = count(1)

_MARGIN = 12.0
"""Seconds beyond the grace that `stop` waits for the engine's thread: resources may take up to 10."""


class Pipeline:
    """A pipeline that can be run once. Made by `PipelineBuilder.build`.

    All methods may be called from any thread, also from inside a running asyncio loop. What blocks its caller has a
    twin for coroutines that does not: ``async for`` over the pipeline, `aget_item`, `astart`, `astop`, and ``async
    with`` for `auto_stop`. Cancelling them loses nothing. A pipeline that is forgotten stops when it is
    garbage-collected, and at interpreter exit.
    """

    def __init__(self, definition: GraphDef) -> None:
        self._definition = definition
        self._runtime = Runtime(definition, next(_numbers))
        self._lock = threading.Lock()
        self._started = False
        self._stopped = False
        self._failure_seen = False
        # The runtime does not know this object, so nothing but the user keeps it alive.
        weakref.finalize(self, _forget, self._runtime, os.getpid()).atexit = False

    def __str__(self) -> str:
        stages = [
            f"{name}[{stage.concurrency}]" if isinstance(stage, PipeDef) else name
            for name, stage in zip(self._definition.names, self._definition.stages, strict=True)
        ]
        return f"Pipeline({' -> '.join(['source', *stages, f'sink[{self._definition.sink_size}]'])})"

    __repr__ = __str__

    # -- running ------------------------------------------------------------------------------------------------------

    def start(self, *, timeout: float | None = None) -> None:
        """Start it.

        Args:
            timeout: seconds to wait until it runs: all its resources (`PipelineBuilder.add_resource`) have started and
                the source is being read. None: do not wait; what takes its time to start does so beside.

        Raises:
            RuntimeError: it was started or stopped before: a pipeline runs once. Build another one.
            TimeoutError: it did not run in time. It is being stopped, and cannot be started again.
            PipelineFailure: a resource could not start, and this waited for it.
            ConfigError: `threading` is monkey-patched in this process.
        """
        self._begin()
        if timeout is not None:
            self._check_opened(self._runtime.opened.wait(timeout), timeout)

    async def astart(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109  (the same as of `start`)
        """`start`, for coroutines: the running asyncio loop goes on while this waits.

        Args:
            timeout: as for `start`.

        Raises:
            RuntimeError, TimeoutError, PipelineFailure, ConfigError: as `start`.
        """
        self._begin()
        if timeout is not None:
            self._check_opened(await self._runtime.opened.wait_async(timeout), timeout)

    def _begin(self) -> None:
        with self._lock:
            if self._started or self._stopped:
                what = "started" if self._started else "stopped"
                raise RuntimeError(f"this pipeline was {what} already and runs only once: build another one")
            self._started = True
            self._runtime.start()

    def _check_opened(self, opened: bool, timeout: float) -> None:
        if not opened:
            starting = self._runtime.starting
            self._ask_to_stop(0.0, discard=False)
            raise TimeoutError(f"the pipeline did not run within {timeout:g} s and is being stopped: {starting}")
        if not self._runtime.graph.has_begun:
            self._raise_unseen()

    def stop(self, *, timeout: float | None = None, discard: bool = False) -> None:
        """End it, early if need be. Idempotent. What is in the sink stays readable; no thread remains.

        Args:
            timeout: seconds that running operations get to end (default 1). Threads of operations that take longer are
                abandoned with a warning that names the stage.
            discard: nobody will read what is in the sink: it is given to `ValueModel.discard`, as is all else that is
                left over. For values that own resources.

        Raises:
            PipelineFailure: it has failed and nobody has seen that yet. Raised once.
        """
        grace = GRACE if timeout is None else timeout
        if self._ask_to_stop(grace, discard=discard):
            self._check_closed(self._runtime.join(grace + _MARGIN), grace)

    # Not how long this may take, but how long operations may.
    async def astop(self, *, timeout: float | None = None, discard: bool = False) -> None:  # noqa: ASYNC109
        """`stop`, for coroutines: the running asyncio loop goes on while this waits.

        A task that is cancelled here does not wait for the end, which comes all the same.

        Args:
            timeout: as for `stop`.
            discard: as for `stop`.

        Raises:
            PipelineFailure: as `stop`.
        """
        grace = GRACE if timeout is None else timeout
        if self._ask_to_stop(grace, discard=discard):
            closed = await self._runtime.closed.wait_async(grace + _MARGIN)
            # After its last act the thread needs a moment to be gone.
            self._check_closed(closed and self._runtime.join(_MARGIN), grace)

    def _ask_to_stop(self, grace: float, *, discard: bool) -> bool:
        """Have it end soon; False if it never began."""
        with self._lock:
            self._stopped = True
        if not self._started:
            self._runtime.output.end()
            return False
        self._runtime.request_stop(grace, discard=discard)
        return True

    def _check_closed(self, closed: bool, grace: float) -> None:
        if not closed:
            _logger.warning("%s did not end within %.0f s: a green operation blocks its hub", self, grace + _MARGIN)
        self._raise_unseen()

    def _raise_unseen(self) -> None:
        failure = self._runtime.failure()
        if failure is not None and not self._failure_seen:
            self._failure_seen = True
            raise failure

    def auto_stop(self, *, timeout: float | None = None, discard: bool = False) -> AutoStop[Self]:
        """Start it, and stop it at the end of the ``with`` or ``async with`` block, whose value is this pipeline.

        Args:
            timeout: as for `stop`.
            discard: as for `stop`.

        Raises:
            RuntimeError: as `start`.
            PipelineFailure: as `stop`, unless the block itself raises: then the failure is a note on that.
        """
        return AutoStop(self, timeout, discard)

    def drain(self, *, timeout: float | None = None) -> None:
        """Stop reading the source and let what is in flight finish. Returns at once: go on reading until the end.

        What waits to be tried again is tried once more, at once; if it fails of something transient still, it stays in
        flight.

        Args:
            timeout: seconds after which everything is stopped, finished or not.
        """
        self._runtime.drain(timeout)

    # -- reading ------------------------------------------------------------------------------------------------------

    def get_item(self, *, timeout: float | None = None) -> Any:
        """The next item. The first read starts a pipeline that was not started.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            TimeoutError: nothing came in time. An item that comes later is not lost: read again.
            EOFError: there is nothing more, and never will be.
            PipelineFailure: it has failed; all items that were past the failure have been read. Raised at each read.
        """
        self._begin_once()
        return self._read(self._take(timeout))

    async def aget_item(self) -> Any:
        """`get_item`, for coroutines: the running asyncio loop goes on while this waits.

        Whoever does not want to wait for ever cancels it, with ``asyncio.timeout`` for example: nothing is lost.

        Raises:
            EOFError: as `get_item`.
            PipelineFailure: as `get_item`.
        """
        self._begin_once()
        await asyncio.sleep(0)  # others on the loop get their turn, also where there is always something to read
        while True:
            bell = AsyncBell()
            item = self._runtime.output.poll(bell.ring)
            if item is NOT_YET:
                try:
                    await bell.wait()
                finally:
                    self._runtime.output.forget(bell.ring)
            elif isinstance(item, Record):
                # It may wait for a disk. Once it has been taken it must be done, whoever is cancelled meanwhile.
                done = asyncio.get_running_loop().run_in_executor(None, self._runtime.carry_out, item)
                await asyncio.shield(done)
            else:
                return self._read(item)

    def _begin_once(self) -> None:
        with self._lock:
            if not (self._started or self._stopped):
                self._started = True
                self._runtime.start()

    def _read(self, item: Any) -> Any:
        """An item that was taken, or what its absence means."""
        if item is not ENDED:
            return item
        failure = self._runtime.failure()
        if failure is not None:
            self._failure_seen = True
            raise failure
        raise EOFError("the pipeline has delivered everything")

    def _take(self, timeout: float | None) -> Any:
        """The next value, or `ENDED`; records that come before it are carried out."""
        deadline, left = None if timeout is None else monotonic() + timeout, timeout
        while isinstance(item := self._runtime.output.take(left), Record):
            self._runtime.carry_out(item)
            if deadline is not None and (left := deadline - monotonic()) <= 0:
                raise TimeoutError(f"only failures arrived within {timeout} s: read again")
        return item

    def get_iterator(self, *, timeout: float | None = None) -> Iterator[Any]:
        """Iterate over the items. All iterators share one stream: a second one goes on where the first stopped.

        Args:
            timeout: seconds to wait for each item.

        Raises:
            TimeoutError: from ``next``; iterating can go on afterwards.
            PipelineFailure: from ``next``, see `get_item`.
        """
        return Items(lambda: self.get_item(timeout=timeout))

    def __iter__(self) -> Iterator[Any]:
        return self.get_iterator()

    def __aiter__(self) -> AsyncIterator[Any]:
        return AsyncItems(self.aget_item)

    def dump(self) -> str:
        """What it is doing at this moment, as text for people: each stage with its items and stacks, then all threads.

        For a pipeline that stands still. It does not wait for the engine, so it works from any thread, in a signal
        handler and while an operation blocks the hub::

            signal.signal(signal.SIGUSR1, lambda *_: print(pipeline.dump(), file=sys.stderr))
        """
        return "\n".join([dump(self._runtime), *of_all_threads()])

    # -- figures ------------------------------------------------------------------------------------------------------

    def report(self) -> Report:
        """All figures, at any time: before the start, while it runs, after the end."""
        return self._runtime.report()

    def snapshot(self) -> Report:
        """The same as `report`, under the name that suits a running pipeline; cheap enough for four times a second."""
        return self._runtime.report()


def _forget(runtime: Runtime, pid: int) -> None:
    """Stop what nobody holds, and so nobody can read. Runs wherever the garbage collector does, so it does not wait."""
    if os.getpid() == pid and not sys.is_finalizing():
        runtime.request_stop(0.0, discard=True)
