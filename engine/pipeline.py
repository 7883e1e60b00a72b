"""The user's handle on a pipeline: start, read, stop, report."""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import count
from time import monotonic
from typing import Any, Self

from ..errors import PipelineFailure
from .defs import GraphDef, PipeDef
from .dump import dump
from .outlet import ENDED, Record
from .report import Report
from .runtime import GRACE, Runtime
from .stacks import of_all_threads

_logger = logging.getLogger(__name__)
_numbers = count(1)

_MARGIN = 12.0
"""Seconds beyond the grace that `stop` waits for the engine's thread: resources may take up to 10."""


class Pipeline:
    """A pipeline that can be run once. Made by `PipelineBuilder.build`.

    All methods may be called from any thread, also from inside a running asyncio loop (though they block their caller).
    A pipeline that is forgotten stops when it is garbage-collected, and at interpreter exit.
    """

    def __init__(self, definition: GraphDef) -> None:
        self._definition = definition
        self._runtime = Runtime(definition, f"penstock-{next(_numbers)}")
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

    def start(self) -> None:
        """Start it.

        Raises:
            RuntimeError: it was started or stopped before: a pipeline runs once. Build another one.
            ConfigError: `threading` is monkey-patched in this process.
        """
        with self._lock:
            if self._started or self._stopped:
                what = "started" if self._started else "stopped"
                raise RuntimeError(f"this pipeline was {what} already and runs only once: build another one")
            self._started = True
            self._runtime.start()

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
        with self._lock:
            self._stopped = True
        grace = GRACE if timeout is None else timeout
        if not self._started:
            self._runtime.outlet.end()
            return
        self._runtime.request_stop(grace, discard=discard)
        if not self._runtime.join(grace + _MARGIN):
            _logger.warning("%s did not end within %.0f s: a green operation blocks its hub", self, grace + _MARGIN)
        failure = self._runtime.failure()
        if failure is not None and not self._failure_seen:
            self._failure_seen = True
            raise failure

    @contextmanager
    def auto_stop(self, *, timeout: float | None = None, discard: bool = False) -> Generator[Self]:
        """Start it, and stop it at the end of the ``with`` block.

        Args:
            timeout: as for `stop`.
            discard: as for `stop`.

        Raises:
            RuntimeError: as `start`.
            PipelineFailure: as `stop`, unless the block itself raises: then the failure is a note on that.
        """
        try:
            self.start()
        except KeyboardInterrupt as error:  # the engine's thread may have begun before it
            self._stop_for(error, timeout, discard)
            raise
        try:
            yield self
        except BaseException as error:
            self._stop_for(error, timeout, discard)
            raise
        self.stop(timeout=timeout, discard=discard)

    def _stop_for(self, error: BaseException, timeout: float | None, discard: bool) -> None:
        """Stop it because of an error that is to be raised; a failure of its own is a note on that."""
        try:
            self.stop(timeout=timeout, discard=discard)
        except PipelineFailure as failure:
            told = "; ".join(f"{type(cause).__name__}: {cause}" for cause in failure.exceptions)
            error.add_note(f"the pipeline had failed, too: {told}")

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
        with self._lock:
            start = not (self._started or self._stopped)
            if start:
                self._started = True
                self._runtime.start()
        item = self._take(timeout)
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
        while isinstance(item := self._runtime.outlet.take(left), Record):
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
        return _Items(self, timeout)

    def __iter__(self) -> Iterator[Any]:
        return self.get_iterator()

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


class _Items:
    """An iterator that survives a TimeoutError, which a generator would not."""

    def __init__(self, pipeline: Pipeline, timeout: float | None) -> None:
        self._pipeline = pipeline
        self._timeout = timeout

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._pipeline.get_item(timeout=self._timeout)
        except EOFError:
            raise StopIteration from None


def _forget(runtime: Runtime, pid: int) -> None:
    """Stop what nobody holds, and so nobody can read. Runs wherever the garbage collector does, so it does not wait."""
    if os.getpid() == pid and not sys.is_finalizing():
        runtime.request_stop(0.0, discard=True)
