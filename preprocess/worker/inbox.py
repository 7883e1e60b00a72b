"""Tasks as they come from the parent: whatever has come begins to be read, while an earlier one is decoded."""

from __future__ import annotations

import socket
from collections import deque

from ...shm import map_payload, recv_frame_fds
from ...shm.child import readable
from .protocol import Task, decode_task
from .reader import ReadAhead, Reader


class Inbox:
    """The tasks that a worker has been given and has not begun. For its main thread.

    Args:
        sock: to the parent.
        reader: of their pictures.
    """

    def __init__(self, sock: socket.socket, reader: Reader) -> None:
        self._sock, self._reader = sock, reader
        self._tasks: deque[tuple[Task, ReadAhead]] = deque()
        self._ended = False

    @property
    def has_message(self) -> bool:
        """Whether something has come, be it the end."""
        return readable(self._sock.fileno(), 0.0)

    def next(self) -> tuple[Task, ReadAhead] | None:
        """The next task, which is waited for; None once the parent has closed the socket."""
        while not self._ended and (not self._tasks or self.has_message):
            self._receive()
        return None if self._ended else self._tasks.popleft()

    def look(self) -> None:
        """Between two pictures: a task that has come waits for no end of this one, if its reads take a while."""
        if self._reader.ahead and not self._ended and self.has_message:
            self._receive()

    def _receive(self) -> None:
        message = recv_frame_fds(self._sock)
        if message is None:
            self._ended = True
            return
        frame, fds = message
        task = decode_task(frame, map_payload(fds[0]) if fds else None)
        self._tasks.append((task, self._reader.start(task.sources)))
