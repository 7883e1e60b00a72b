"""One writer for each job folder: a lock of the kernel's, which cannot outlive its owner.

It belongs to an open file, which a forked child lets go of (`CloseOnFork`). A process that holds it all the same in a
dead owner's place is named.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ...descriptors import CloseOnFork
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
    """The lock, held from here to `close`, in this process only.

    The file stays: to remove it would let two owners lock two files of the same name.

    Raises:
        JobLockedError: a live process holds it.
        JournalDiskError: the disk refused the file.
    """

    def __init__(self, disk: Disk, path: str) -> None:
        with writing(path):
            self._file = CloseOnFork(disk.open(path, os.O_RDWR | os.O_CREAT), partial(shut, disk))
        try:
            with writing(path):
                taken = _take(self._file.fd)
            if not taken:
                raise JobLockedError(_refusal(disk, path, self._file.fd))
            owner = Owner(os.getpid(), socket.gethostname(), time.time())
            with writing(path):
                disk.truncate(self._file.fd, 0)
                disk.write(self._file.fd, json.dumps(asdict(owner)).encode(), 0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go. Idempotent."""
        self._file.close()


def owner_of(disk: Disk, path: str) -> tuple[Owner | None, int]:
    """Who runs the job now; and, where its owner is dead, the pid of what that left behind with the lock, else 0."""
    try:
        fd = disk.open(path, os.O_RDONLY)
    except OSError:
        return None, 0
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _written(disk, path)
        orphan = _orphan(disk, path, fd, owner)
        return (None, orphan) if orphan else (owner or Owner(0, "unknown", 0.0), 0)
    finally:
        shut(disk, fd)
    return None, 0


def held_by_orphan(pid: int) -> str:
    """Who holds a job whose owner is dead, and what to do."""
    return f"a child of the dead job (pid {pid}) still holds it; end that process first"


def _take(fd: int) -> bool:
    for _ in range(_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE)
        else:
            return True
    return False


def _refusal(disk: Disk, path: str, fd: int) -> str:
    owner = _written(disk, path)
    if orphan := _orphan(disk, path, fd, owner):
        return f"{Path(path).parent}: {held_by_orphan(orphan)}"
    who = f"process {owner.pid} on {owner.host}" if owner else "another process"
    return f"{Path(path).parent}: {who} is running this job; wait for it or stop it, or give another --job folder"


def _orphan(disk: Disk, path: str, fd: int, owner: Owner | None) -> int:
    """Who holds the lock in the place of a dead owner; 0 where that cannot be seen, as on other machines."""
    if owner is None or _holds(owner.pid, fd):
        return 0
    found = next((pid for pid in _processes() if _holds(pid, fd)), 0)
    return found if _written(disk, path) == owner else 0  # else there is a new one by now


def _processes() -> list[int]:
    with suppress(OSError):
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return []


def _holds(pid: int, fd: int) -> bool:
    """Whether a process holds a lock on the file of a descriptor of ours, as far as one may look."""
    lock_file, folder = os.fstat(fd), Path(f"/proc/{pid}")
    try:
        theirs = list((folder / "fd").iterdir())
    except OSError:
        return False
    for each in theirs:
        with suppress(OSError):
            if os.path.samestat(each.stat(), lock_file) and "FLOCK" in (folder / "fdinfo" / each.name).read_text():
                return True
    return False


def _written(disk: Disk, path: str) -> Owner | None:
    with suppress(OSError, ValueError, TypeError):
        return Owner(**json.loads(read_file(disk, path)))
    return None
