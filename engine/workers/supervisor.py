"""Supervises one worker: starts its process and, when that has died, another, until the pool is closed."""

from __future__ import annotations

import logging
import threading

import gevent
import gevent.threadpool  # pyright: ignore[reportUnusedImport]  (else imported by its first use, on the hub)

from ...errors import ConfigError, WorkerError, WorkerStartError
from ...shm import Ring, SlotLayout, Zygote
from .process import KilledError, WorkerProcess

logger = logging.getLogger("penstock.preprocess")

_STARTS = 3
"""How often the first process is started if it is killed before it is ready."""


class WorkerSupervisor:
    """The process of one worker, and its replacements.

    Attributes:
        process: the one that runs, or did last; before the first, one that was never started.
    """

    def __init__(self, index: int, entry: str, settings: bytes) -> None:
        self._index = index
        self._entry = entry
        self._settings = settings
        self._lock = threading.Lock()  # `close` may come from any thread: after it none is started
        self._zygote: Zygote | None = None
        self._starting: WorkerProcess | None = None
        self.process = WorkerProcess(index, entry, settings)

    @property
    def is_open(self) -> bool:
        """Whether processes may be started: from `open` to `close`."""
        return self._zygote is not None

    def open(self, zygote: Zygote) -> None:
        """Allow processes to be started, forked from this fork server."""
        with self._lock:
            self._zygote = zygote

    def handshake(self) -> SlotLayout:
        """Start the first process and hear what its slots must look like. Blocks: never on the hub.

        Raises:
            ConfigError: it says that it cannot do what it was set to.
            WorkerStartError: it cannot start, or does not speak in time; it was killed before, several times.
            WorkerError: the pool has been closed meanwhile.
        """
        for _ in range(_STARTS - 1):
            try:
                return self._handshake()
            except KilledError as killed:
                logger.warning("%s; another one is started", killed)
        return self._handshake()

    def _handshake(self) -> SlotLayout:
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
            WorkerError: the pool has been closed.
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
        """Tell the process to go, and one that is being started. Does not wait. Idempotent."""
        with self._lock:
            self._zygote = None
            for process in (self.process, self._starting):
                if process:
                    process.close()

    def _next(self) -> tuple[WorkerProcess, Zygote]:
        with self._lock:
            if self._zygote is None:
                raise WorkerError(f"worker {self._index}: its pool has been closed")
            self._starting = process = WorkerProcess(self._index, self._entry, self._settings)
            return process, self._zygote
