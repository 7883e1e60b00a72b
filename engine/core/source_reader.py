"""Where values come in: the source is iterated in a thread of its own, or on the asyncio loop, a few values ahead."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from .hub import Hub, Mailbox, Waiter
from .operations import END, advance
from .runners import AsyncRunner, Job
from .threads import daemon, join_threads

_logger = logging.getLogger(__name__)

_AHEAD = 4
"""Values a blocking source may be ahead of the engine. More saves thread switches."""


class Drawn(NamedTuple):
    """One value of the source, and the seconds it took to come."""

    value: Any
    seconds: float


class SourceReader(Protocol):
    """One run over a source."""

    def draw(self, job: Job) -> Drawn | None:
        """The next value, waiting in the current fiber; None at the end.

        Raises:
            BaseException: whatever the source raised.
        """
        ...

    @property
    def place(self) -> int | None:
        """The ident of the thread in which the source is iterated, if it has one."""
        ...

    def stop(self) -> None:
        """Draw no more; a generator is closed as soon as it lets go."""
        ...

    def finish(self, seconds: float) -> tuple[list[Any], list[str]]:
        """After `stop`, outside of the hub: values drawn that nobody took, and threads that do not end in time."""
        ...


class ThreadSourceReader:
    """A blocking iterable in a daemon thread, through a bounded handover to the hub."""

    def __init__(self, source: Iterable[Any], hub: Hub, mailbox: Mailbox, name: str) -> None:
        self._source = source
        self._hub = hub
        self._mailbox = mailbox
        self._room = threading.Condition()
        self._drawn: deque[Drawn] = deque()
        self._waiter: Waiter | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._stopping = False
        self._thread = daemon(self._pump, name)

    def draw(self, job: Job) -> Drawn | None:
        """See `SourceReader`."""
        del job
        while True:
            with self._room:
                if self._drawn:
                    if len(self._drawn) == _AHEAD:
                        self._room.notify()
                    return self._drawn.popleft()
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                if self._ended:
                    return None
                self._waiter = Waiter(self._hub)
                waiter = self._waiter
            waiter.park()

    @property
    def place(self) -> int | None:
        """See `SourceReader`."""
        return self._thread.ident

    def stop(self) -> None:
        """See `SourceReader`."""
        with self._room:
            self._stopping = True
            self._room.notify()

    def finish(self, seconds: float) -> tuple[list[Any], list[str]]:
        """See `SourceReader`."""
        running = join_threads([self._thread], seconds)
        with self._room:
            values = [drawn.value for drawn in self._drawn]
            self._drawn.clear()
        return values, running

    def _pump(self) -> None:
        iterator: Any = None
        try:
            iterator = iter(self._source)
            while self._has_room():
                began = perf_counter()
                try:
                    value = next(iterator)
                except StopIteration:
                    break
                self._hand_over(Drawn(value, perf_counter() - began))
                del value  # the next one may be long in coming
        except BaseException as error:  # noqa: BLE001  (whatever it is becomes the pipeline's failure)
            self._error = error
        finally:
            if isinstance(iterator, Generator):
                self._close(iterator)
            self._end()

    def _has_room(self) -> bool:
        with self._room:
            while len(self._drawn) >= _AHEAD and not self._stopping:
                self._room.wait()
            return not self._stopping

    def _hand_over(self, drawn: Drawn) -> None:
        with self._room:
            self._drawn.append(drawn)
            self._wake()

    def _end(self) -> None:
        with self._room:
            self._ended = True
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._mailbox.post(waiter.resume)

    @staticmethod
    def _close(iterator: Generator[Any, Any, Any]) -> None:
        try:
            iterator.close()
        except BaseException:
            _logger.exception("the source raised while it was being closed")


class AsyncSourceReader:
    """An async iterable on the pipeline's asyncio loop, one value at a time. The loop's end closes generators."""

    def __init__(self, source: AsyncIterable[Any], runner: AsyncRunner) -> None:
        self._source = source
        self._runner = runner
        self._iterator: AsyncIterator[Any] | None = None
        self._stopping = False

    def draw(self, job: Job) -> Drawn | None:
        """See `SourceReader`."""
        if self._stopping:
            return None
        if self._iterator is None:
            self._iterator = aiter(self._source)
        answer = self._runner.run(advance, self._iterator, job)
        if answer.error is not None:
            raise answer.error
        return None if answer.result is END else Drawn(answer.result, answer.seconds)

    @property
    def place(self) -> int | None:
        """See `SourceReader`: none of its own."""
        return None

    def stop(self) -> None:
        """See `SourceReader`: the draw under way is cancelled by the fiber that waits for it, when that is killed."""
        self._stopping = True

    def finish(self, seconds: float) -> tuple[list[Any], list[str]]:
        """See `SourceReader`."""
        del seconds
        return [], []
