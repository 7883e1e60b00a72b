"""Sees to it that no decoder of videos stands still."""

from __future__ import annotations

import os
import socket
import threading
import time

from ...shm import send_frame
from ...shm.protocol import encode_hung
from .worker import HUNG_STATUS


class StallWatch:
    """Sees to it that no decoder stands still: a thread cannot be killed, so this process leaves.

    Args:
        sock: to the parent, which is told of which task.
        timeout: seconds without a step.
    """

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._sock, self._timeout = sock, timeout
        self._lock = threading.Lock()
        self._task: tuple[int, int] | None = None
        self._stepped = 0.0
        threading.Thread(target=self._run, name="penstock-watch", daemon=True).start()

    def over(self, slot: int, generation: int) -> StallWatch:
        """Watch this task while the ``with`` block runs."""
        self._stepped = time.monotonic()
        self._task = slot, generation
        return self

    def step(self) -> None:
        """It goes on."""
        self._stepped = time.monotonic()

    def pause(self) -> None:
        """What comes now is no decoder."""
        with self._lock:
            self._task = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.pause()

    def _run(self) -> None:
        while True:
            time.sleep(min(1.0, self._timeout / 4))
            with self._lock:
                if self._task and time.monotonic() - self._stepped > self._timeout:
                    send_frame(self._sock, encode_hung(*self._task, 0))
                    os._exit(HUNG_STATUS)
