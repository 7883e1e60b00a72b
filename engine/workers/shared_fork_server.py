"""A fork server that is shared: by all pools of this process whose workers need the same imports."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

from ...shm import Zygote


class SharedForkServer:
    """A fork server for as long as anybody needs it. A fork of the host makes its own.

    Args:
        preload: names of modules that it imports, which start neither a thread nor a JAX backend.
        environment: variables over those of this process, asked for when it starts.
    """

    def __init__(self, preload: Sequence[str], environment: Callable[[], Mapping[str, str]]) -> None:
        self._preload = preload
        self._environment = environment
        self._lock = threading.Lock()
        self._owner = 0
        self._users = 0
        self._zygote: Zygote | None = None

    def acquire(self) -> Zygote:
        """The fork server, starting (it imports while you go on). Pair with `release`.

        Raises:
            WorkerStartError: the interpreter cannot be executed.
        """
        with self._lock:
            if self._zygote is None or self._owner != os.getpid():
                self._zygote, self._owner, self._users = Zygote(self._preload, self._environment()), os.getpid(), 0
            self._zygote.start()
            self._users += 1
            return self._zygote

    def release(self, zygote: Zygote) -> None:
        """Done with it; the last one to say so ends it."""
        with self._lock:
            if zygote is not self._zygote or self._owner != os.getpid():
                return
            self._users -= 1
            if self._users:
                return
            self._zygote = None
        zygote.close()

    @contextmanager
    def warm(self) -> Generator[None]:
        """Keep it while the block runs."""
        zygote = self.acquire()
        try:
            yield
        finally:
            self.release(zygote)
