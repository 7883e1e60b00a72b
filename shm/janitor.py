"""What dead owners left in shared memory: how to see it, how to remove it.

An owner holds ``flock(LOCK_EX)`` on its segment from before the segment has a name until it is closed, and the kernel
lets go of a lock when the last process that holds that open file is gone. So *locked* means *in use*: no pid is
compared (pids are reused and mean nothing across containers), no clock is read, no file says who is alive.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger("penstock.shm")

# POSIX shared memory on Linux; what is made there is unguessable, exclusive and 0600.
DIRECTORY = "/dev/shm"  # noqa: S108
PREFIX = "penstock-"

_NAME = re.compile(re.escape(PREFIX) + r"[0-9a-f]{32,64}")


@dataclass(frozen=True, slots=True)
class Orphan:
    """A segment whose owner is dead.

    Attributes:
        path: where it lies.
        nbytes: bytes of memory it holds.
    """

    path: str
    nbytes: int


def orphans(directory: str = DIRECTORY) -> list[Orphan]:
    """The segments of this user that nobody owns any more, by path. Removes nothing."""
    found: list[Orphan] = []
    for path in _candidates(directory):
        with _abandoned(path, fcntl.LOCK_SH) as status:
            if status is not None:
                found.append(Orphan(path, status.st_blocks * 512))
    return found


def sweep(directory: str = DIRECTORY) -> list[str]:
    """Remove the segments of this user that nobody owns any more.

    Foreign names, other users' files, links and everything that is not a regular file are left alone. Several processes
    may sweep at once.

    Returns:
        The paths that were removed.
    """
    removed: list[str] = []
    for path in _candidates(directory):
        with _abandoned(path, fcntl.LOCK_EX) as status:
            if status is not None and _remove(path):
                removed.append(path)
    if removed:
        # Not the names: whoever knows a name of this user's can map it.
        logger.info("removed %d shared-memory segments of dead processes from %s", len(removed), directory)
    return removed


def _candidates(directory: str) -> list[str]:
    """Our names, our user, regular files: what is worth opening."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.path for entry in entries if _NAME.fullmatch(entry.name) and _is_ours(entry))
    except FileNotFoundError:
        return []


def _is_ours(entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


@contextmanager
def _abandoned(path: str, lock: int) -> Generator[os.stat_result | None]:
    """The segment's status if its owner is dead, else None. Locked while the block runs."""
    try:
        # The file may have been swapped since it was listed: never follow a link, never wait for a FIFO's writer.
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None  # gone, or not ours after all
        return
    try:
        fcntl.flock(fd, lock | fcntl.LOCK_NB)
        status = os.fstat(fd)
        ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink > 0
    except BlockingIOError:
        ours, status = False, None
    try:
        yield status if ours else None
    finally:
        os.close(fd)


def _remove(path: str) -> bool:
    try:
        Path(path).unlink()
    except FileNotFoundError:
        return False
    return True
