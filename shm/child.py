"""A process that a `Zygote` has forked, as its parent sees it."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from contextlib import suppress
from typing import Self

STATUS = struct.Struct("<i")
"""What the zygote writes about a dead child: its exit code, or minus the number of the signal."""

_SERVER = "its fork server"


class Child:
    """One child process.

    It ends when its entry point returns, which should be when ``socket`` closes; it cannot outlive its zygote.

    Attributes:
        pid: its process id; stays readable.
        socket: our end of the stream between us; blocking. The child's death is its end-of-file.
        pidfd: becomes readable when it has died; for waiting in an event loop. -1 once closed.
        status: becomes readable when its zygote has said how it ended, which is soon after; likewise.
    """

    def __init__(self, pid: int, sock: socket.socket, pidfd: int, status: int) -> None:
        self.pid = pid
        self.socket = sock
        self.pidfd = pidfd
        self.status = status
        self._returncode: int | None = None
        self._orphaned = False

    @property
    def alive(self) -> bool:
        """Whether the process still runs. False once closed."""
        return self.pidfd >= 0 and not self._is_dead()

    def wait(self, timeout: float = 1.0) -> int | None:
        """Its exit code (negative: the signal that killed it); None if it is not known within so many seconds."""
        if self._returncode is None and self.status >= 0 and readable(self.status, timeout):
            said = os.read(self.status, STATUS.size)
            if said:
                self._returncode = STATUS.unpack(said)[0]
            else:
                self._orphaned = True
                readable(self.pidfd, timeout)  # the zygote is dead, so this child is dying too: see it through
        return self._returncode

    def describe_exit(self, timeout: float = 1.0) -> str:
        """How it ended, to follow its name in a sentence: ``was killed by signal 9 (SIGKILL)``.

        Blocks for as long as the zygote takes to say so, usually under a millisecond, at most ``timeout`` seconds.
        """
        code = self.wait(timeout)
        if code is None and self._is_dead():
            return f"was killed when {_SERVER} died" if self._orphaned else f"ended, {_SERVER} has not said how"
        if code is None:
            return "is still running"
        if code >= 0:
            return f"exited with status {code}"
        return f"was killed by signal {-code} ({_signal_name(-code)})"

    def _is_dead(self) -> bool:
        return self.pidfd >= 0 and readable(self.pidfd, 0.0)

    def kill(self) -> None:
        """Kill it (SIGKILL). Nothing happens if it is dead already; never hits another process of the same number."""
        if self.pidfd < 0:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Close our end, which asks it to leave, and forget about it. Does not wait. Idempotent."""
        self.wait(0.0)
        self.socket.close()
        for fd in (self.pidfd, self.status):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.status = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def readable(fd: int, timeout: float) -> bool:
    """Whether there is something to read, or the other end is gone; waits so many seconds for it, and blocks."""
    poll = select.poll()  # not select.select: it refuses descriptors over 1023, and hosts have many
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))
