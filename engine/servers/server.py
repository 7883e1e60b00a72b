"""What all servers here have in common: start, wait until ready, kill, start again, leave nothing behind."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar, Self

from ...errors import ServerError
from .guarded import Command, Guarded

_ATTEMPTS = 5
_POLL_SECONDS = 0.02


class Server(ABC):
    """A server process below a guardian. ``with ... as server:`` starts and stops it; it ends with this process too.

    Attributes:
        pid: of the server's process, once started.
    """

    name: ClassVar[str]

    def __init__(self, start_timeout: float) -> None:
        self._start_timeout = start_timeout
        self._guard: Guarded | None = None
        self.pid = 0

    @abstractmethod
    def ready(self) -> bool:
        """Whether it says that it is ready; False also when it does not answer within a second."""

    @property
    def log(self) -> Path:
        """What it says; there until `stop`."""
        return self._guarded.log

    def start(self) -> Self:
        """Start it and wait until it is ready.

        Raises:
            ServerUnavailableError: this machine cannot run it, or not in this way.
            ServerError: it ended, or was not ready in time; with the end of its log.
        """
        if self._guard is not None:
            raise ServerError(f"{self.name} has been started already")
        self._guard = self._prepare()
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                self._choose_ports()
                try:
                    self.restart()
                except ServerError:
                    # Between our look and its bind somebody else may have taken a port.
                    if attempt == _ATTEMPTS or not self._port_taken():
                        raise
                else:
                    break
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it by SIGKILL, with all it left behind. Idempotent."""
        guarded, self._guard = self._guard, None
        if guarded is not None:
            guarded.close()

    def kill(self) -> None:
        """SIGKILL for it and its children, as in a crash."""
        self._guarded.kill()

    def restart(self) -> None:
        """Kill it if it runs, start it again where it was, wait until it is ready.

        Raises:
            ServerError: as for `start`; it may be tried again.
        """
        guarded = self._guarded
        self.pid = guarded.start(self._command(guarded))
        deadline = time.monotonic() + self._start_timeout
        while not (self.ready() and self._is_ours()):
            if not guarded.alive():
                raise ServerError(f"{self.name} ended while it started:\n{guarded.tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} was not ready after {self._start_timeout:g} s:\n{guarded.tail()}")
            time.sleep(_POLL_SECONDS)

    def pause(self) -> None:
        """SIGSTOP: it accepts connections, as the kernel does that, and answers nothing."""
        self._guarded.signal(signal.SIGSTOP)
        # A signal is not taken at once: on a busy machine it still answers for a while.
        while self.alive() and "\nState:\tT" not in Path(f"/proc/{self.pid}/status").read_text():
            time.sleep(_POLL_SECONDS)

    def resume(self) -> None:
        """SIGCONT."""
        self._guarded.signal(signal.SIGCONT)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._guard is not None and self._guard.alive()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self) -> Guarded:
        """Make what it needs, and its guardian."""

    @abstractmethod
    def _command(self, guarded: Guarded) -> Command:
        """How to start it."""

    def _choose_ports(self) -> None:  # noqa: B027  (one in a network of its own has nothing to choose)
        """Choose free ports; called again if they are not."""

    def _is_ours(self) -> bool:
        """Whether it is ours that answers: until ours dies of it, somebody else's server on that port looks ready."""
        return True

    def _port_taken(self) -> bool:
        said = self._guarded.tail().lower()
        return "already in use" in said or "failed to bind" in said

    @property
    def _guarded(self) -> Guarded:
        if self._guard is None:
            raise ServerError(f"{self.name} is not running: start() it")
        return self._guard


def http_ok(port: int, path: str) -> bool:
    """Whether a GET is answered with 200 within a second."""
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()  # one that is kept open delays the server's exit
