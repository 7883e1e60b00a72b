"""A worker's place in the pool: one process after another sits in it, until the pool is closed."""

from __future__ import annotations

import logging
import threading

import gevent
import gevent.threadpool  # pyright: ignore[reportUnusedImport]  (else imported by its first use, on the hub)

from ...errors import ConfigError, WorkerError, WorkerStartError
from ...preprocess.worker.settings import WorkerSettings
from ...shm import Ring, SlotLayout, Zygote
from .process import KilledError, WorkerProcess

logger = logging.getLogger("penstock.preprocess")

_STARTS = 3
"""How often the first process is started if it is killed before it is ready."""


class Seat:
    """Who sits in it, and who comes next.

    Attributes:
        process: the one that sits there, or did last; one that was never started before the first.
    """

    def __init__(self, index: int, settings: WorkerSettings) -> None:
        self._index = index
        self._settings = settings
        self._lock = threading.Lock()  # `close` may come from any thread: after it nobody else sits down
        self._zygote: Zygote | None = None
        self._coming: WorkerProcess | None = None
        self.process = WorkerProcess(index, settings)

    @property
    def is_open(self) -> bool:
        """Whether processes may sit down: from `open` to `close`."""
        return self._zygote is not None

    def open(self, zygote: Zygote) -> None:
        """Let processes sit down, forked from this ancestor."""
        with self._lock:
            self._zygote = zygote

    def introduce(self) -> SlotLayout:
        """Start the first process and hear what its slots must look like. Blocks: never on the hub.

        Raises:
            ConfigError: it says that it cannot do what it was set to.
            WorkerStartError: it cannot start, or does not speak in time; it was killed before, several times.
            WorkerError: the seat has been closed meanwhile.
        """
        for _ in range(_STARTS - 1):
            try:
                return self._introduce()
            except KilledError as killed:
                logger.warning("%s; another one is started", killed)
        return self._introduce()

    def _introduce(self) -> SlotLayout:
        process, zygote = self._next()
        layout = process.start(zygote)
        self.process = process
        return layout

    def replace(self, ring: Ring) -> None:
        """On the hub: start another process and give it the ring. If that is interrupted, nobody comes.

        Raises:
            ConfigError: it says that it cannot do any more what it was set to.
            WorkerStartError: it cannot start now.
            OSError: nor can it, for want of something.
            WorkerError: the seat has been closed.
        """
        process, zygote = self._next()

        def start() -> Exception | None:
            try:
                process.start(zygote)
                process.give(ring)
            except (ConfigError, WorkerStartError, OSError) as error:
                return error  # raised in a thread, the hub would print it as well
            return None

        try:
            failure = gevent.get_hub().threadpool.apply(start)
        except BaseException:
            process.close()
            raise
        if failure is not None:
            raise failure
        self.process = process

    def close(self) -> None:
        """Tell who sits there to go, and who is coming. Does not wait. Idempotent."""
        with self._lock:
            self._zygote = None
            for process in (self.process, self._coming):
                if process:
                    process.close()

    def _next(self) -> tuple[WorkerProcess, Zygote]:
        with self._lock:
            if self._zygote is None:
                raise WorkerError(f"worker {self._index}: its pool has been closed")
            self._coming = process = WorkerProcess(self._index, self._settings)
            return process, self._zygote
