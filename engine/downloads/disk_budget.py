"""How many bytes of a job may lie on the disk at once, and who waits when they do: disk as backpressure."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ...errors import WorkerError
from ...formatting import size

_LOG: Final = logging.getLogger("penstock.downloads")

_MOST: Final = 20 * 10**9
_SHARE: Final = 4
"""Without a limit of the user's: 20 GB, or a quarter of what is free."""

_FIRST_GUESS: Final = 2**28
"""Bytes that a download counts for while none has been finished."""

_LEAST_FREE: Final = 2**24
"""Bytes that must be free on a disk that was full before anything is written again, where no download is larger."""

_LOOK: Final = 1.0
"""Seconds between looks at a full disk: who makes room there may be somebody else."""


class DiskBudget:
    """Bytes on disk between download and clean-up. Threads may share it.

    What lies there is known by the id of its video. A download counts for as much as the largest one so far, since how
    large it will be is known only by and by; once it is there, for what it is. One alone is let in whatever its size,
    so a limit that is too small makes a job slow and never ends it.

    Args:
        folder: on the disk it is about.
        limit: bytes; None: 20 GB, or a quarter of what is free now if that is less.
        free: how many bytes are free there.
    """

    def __init__(self, folder: Path, limit: int | None = None, *, free: Callable[[], int] | None = None) -> None:
        self._folder = folder
        self._free = free or self._free_bytes
        self.limit = min(_MOST, self._free() // _SHARE) if limit is None else limit
        self._held: dict[str, int] = {}
        self._growing: dict[str, Callable[[], int]] = {}
        self._largest = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """Bytes that count at the moment."""
        with self._changed:
            return self._used()

    def enter(self, name: str, measure: Callable[[], int]) -> None:
        """Wait until there is room for one more download.

        Args:
            name: its id; what it held before counts no more.
            measure: bytes that it has so far.

        Raises:
            WorkerError: the budget has been closed.
        """
        with self._changed:
            self._let_go(name)
            self._changed.wait_for(lambda: self._closed or self._has_room())
            self._refuse_closed()
            self._held[name] = self._expected()
            self._growing[name] = measure

    def settle(self, name: str, nbytes: int) -> None:
        """It takes so many bytes now: of what it was, or of what was made of it."""
        with self._changed:
            self._growing.pop(name, None)
            self._held[name] = nbytes
            self._largest = max(self._largest, nbytes)
            self._changed.notify_all()

    def leave(self, name: str) -> None:
        """Nothing of it is on the disk any more, or it is there to stay. Idempotent."""
        with self._changed:
            self._let_go(name)
            self._changed.notify_all()

    def wait_for_space(self, pause: float = 0.0) -> None:
        """The disk is full: wait until it is not, whoever makes room there.

        Args:
            pause: seconds to wait at least. What is free says nothing of a quota, nor of what the download itself had
                written and is gone.

        Raises:
            WorkerError: the budget has been closed.
        """
        with self._changed:
            needed, begin = max(_LEAST_FREE, self._largest), time.monotonic()
            free = self._free()
            if free < needed:
                _LOG.warning("%s: the disk is full; downloads wait until %s are free", self._folder, size(needed))
            elif pause:
                said = "%s: the disk refuses a download again, with %s free (is there a quota?); next attempt in %.0f s"
                _LOG.warning(said, self._folder, size(free), pause)
            while not self._closed and (self._free() < needed or time.monotonic() < begin + pause):
                self._changed.wait(_LOOK)
            self._refuse_closed()

    def close(self) -> None:
        """Whoever waits is refused."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return not self._held or self._used() + self._expected() <= self.limit

    def _expected(self) -> int:
        return self._largest or _FIRST_GUESS

    def _used(self) -> int:
        growing = self._growing
        return sum(max(held, growing[name]()) if name in growing else held for name, held in self._held.items())

    def _let_go(self, name: str) -> None:
        self._held.pop(name, None)
        self._growing.pop(name, None)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise WorkerError("the downloads have been ended")

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._folder).free
