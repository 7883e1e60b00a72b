"""How much is under way between this process and all stores: one cap on requests and on bytes, for everybody in it."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final


class InFlight:
    """A cap on requests and on their bytes. Whoever comes first goes first, so that large ones do not starve.

    Any thread; never the thread of an event loop, which it would stop.

    Args:
        requests: at once.
        nbytes: of all of them together; one that is larger goes alone.
    """

    def __init__(self, requests: int, nbytes: int) -> None:
        self.requests, self.nbytes = requests, nbytes
        self._mutex = threading.Lock()
        self._waiting: deque[tuple[int, threading.Event]] = deque()
        self._under_way = self._bytes = 0

    @property
    def under_way(self) -> tuple[int, int]:
        """Requests, and their bytes."""
        return self._under_way, self._bytes

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._waiting)

    def limit(self, requests: int | None = None, nbytes: int | None = None) -> None:
        """Set the cap anew; what is under way goes on."""
        with self._mutex:
            self.requests = requests or self.requests
            self.nbytes = nbytes or self.nbytes
            self._admit()

    def hold(self, nbytes: int = 0) -> _Turn:
        """Wait for a turn, and have it for a ``with`` block.

        Args:
            nbytes: that the request will bring into memory, or take out of it.
        """
        return _Turn(self, nbytes)

    def enter(self, nbytes: int) -> None:
        """Wait for a turn; `leave` ends it."""
        with self._mutex:
            if not self._waiting and self._fits(nbytes):
                self._under_way += 1
                self._bytes += nbytes
                return
            turn = threading.Event()
            self._waiting.append((nbytes, turn))
        try:
            turn.wait()
        except BaseException:  # an interrupt, in the main thread
            with self._mutex:
                if turn.is_set():
                    self._leave(nbytes)
                else:
                    self._waiting.remove((nbytes, turn))
                    self._admit()
            raise

    def leave(self, nbytes: int) -> None:
        """The turn is over."""
        with self._mutex:
            self._leave(nbytes)

    def _fits(self, nbytes: int) -> bool:
        if self._under_way >= self.requests:
            return False
        return not self._under_way or self._bytes + nbytes <= self.nbytes

    def _leave(self, nbytes: int) -> None:
        self._under_way -= 1
        self._bytes -= nbytes
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            nbytes, turn = self._waiting.popleft()
            self._under_way += 1
            self._bytes += nbytes
            turn.set()


class _Turn:
    """A turn that is waited for at its beginning. A class: thousands a second begin."""

    __slots__ = ("_cap", "_nbytes")

    def __init__(self, cap: InFlight, nbytes: int) -> None:
        self._cap, self._nbytes = cap, nbytes

    def __enter__(self) -> None:
        self._cap.enter(self._nbytes)

    def __exit__(self, *_: object) -> None:
        self._cap.leave(self._nbytes)


IN_FLIGHT: Final = InFlight(requests=64, nbytes=2**30)
"""That of this process. More than 64 requests at once make each slower, and none of them faster."""
