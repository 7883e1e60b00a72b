"""Descriptors of one process: which are open; close-on-fork, which POSIX knows (``FD_CLOFORK``) and Linux does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

# Not weak: one that is dropped without being closed is open all the same, and a child must let go of that too.
_open: set[CloseOnFork] = set()


class CloseOnFork:
    """A descriptor that a forked child closes as its first step; its parent's stays open.

    For files that carry a lock. ``flock`` belongs to the open file, so a child that the host forks (a data loader's, a
    pool's) would keep the lock of a dead owner for as long as it lives. A process that was forked behind Python's back,
    or that was given the descriptor, does keep it. Give it over before the lock is taken, to miss no fork in between.

    Args:
        fd: an open descriptor, which is this object's from now on.
        close: what closes it.

    Attributes:
        fd: the descriptor; -1 once closed, and in a forked child.
    """

    def __init__(self, fd: int, close: Callable[[int], None] = os.close) -> None:
        self.fd = fd
        self._close = close
        _open.add(self)

    def close(self) -> None:
        """Close it here. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._close(fd)
        _open.discard(self)


def is_open(fd: int) -> bool:
    """Whether this number is that of an open descriptor: the host may have closed the standard ones."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _close_in_child() -> None:
    for descriptor in list(_open):
        with suppress(OSError):  # one that cannot be closed is no reason to keep the others
            descriptor.close()


os.register_at_fork(after_in_child=_close_in_child)
