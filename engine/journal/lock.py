"""One writer for each job folder: a lock of the kernel's, which cannot outlive its owner."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ...errors import JobLockedError
from .disk import Disk, read_file, shut, writing

_TRIES: Final = 5
_PAUSE: Final = 0.02
"""Seconds. Whoever asks for the status holds the lock, shared, for microseconds; that is no owner."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who writes, or wrote, a job."""

    pid: int
    host: str
    since: float
    """Seconds since 1970."""


class Lock:
    """The lock, held from here to `close`.

    The file stays: to remove it would let two owners lock two files of the same name.

    Raises:
        JobLockedError: a live process holds it.
        JournalDiskError: the disk refused the file.
    """

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        with writing(path):
            self._fd = disk.open(path, os.O_RDWR | os.O_CREAT)
        try:
            with writing(path):
                taken = _take(self._fd)
            if not taken:
                raise JobLockedError(_refusal(disk, path))
            owner = Owner(os.getpid(), socket.gethostname(), time.time())
            with writing(path):
                disk.truncate(self._fd, 0)
                disk.write(self._fd, json.dumps(asdict(owner)).encode(), 0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            shut(self._disk, fd)


def owner_of(disk: Disk, path: str) -> Owner | None:
    """Who holds the lock now; None if nobody does."""
    try:
        fd = disk.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written(disk, path) or Owner(0, "unknown", 0.0)
    finally:
        shut(disk, fd)
    return None


def _take(fd: int) -> bool:
    for _ in range(_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE)
        else:
            return True
    return False


def _refusal(disk: Disk, path: str) -> str:
    owner = _written(disk, path)
    who = f"process {owner.pid} on {owner.host}" if owner else "another process"
    return f"{Path(path).parent}: {who} is running this job; wait for it or stop it, or give another --job folder"


def _written(disk: Disk, path: str) -> Owner | None:
    with suppress(OSError, ValueError, TypeError):
        return Owner(**json.loads(read_file(disk, path)))
    return None
