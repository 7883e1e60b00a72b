"""One worker process, as its parent sees it: started in a thread, spoken to from the hub, ended whenever it must be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator, Sequence
from contextlib import suppress

import gevent
from gevent.socket import wait_read, wait_write

from ...errors import WorkerError, WorkerStartError
from ...shm import Child, FrameReader, Payload, Ring, SlotLayout, Zygote, recv_frame, send_frame_fds
from ...shm.protocol import RING, Piece, decode_layout, encode_json

_START_TIMEOUT = 120.0

_STATUS_TIMEOUT = 1.0
"""Seconds the fork server may take to say how a worker ended. It is there at once, unless the server was stopped."""


class KilledError(WorkerStartError):
    """A worker was killed before it was ready, as opposed to: it cannot start."""


class WorkerProcess:
    """From its fork to its end; what replaces it is another one.

    ``close`` may be called at any time and from any thread. A start that is under way then fails soon, and leaves no
    process behind.

    Args:
        index: its number among the workers of the pool.
        entry, settings: see `WorkerKind`.
    """

    def __init__(self, index: int, entry: str, settings: bytes) -> None:
        self._index = index
        self._entry = entry
        self._settings = settings
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._begun = False
        self._closed = False
        self._reader = FrameReader()

    @property
    def pid(self) -> int:
        """The process id, also when it has ended; 0 before it is forked."""
        return self._child.pid if self._child else 0

    @property
    def closed(self) -> bool:
        """Whether it has been closed, or could not start."""
        return self._closed

    def __str__(self) -> str:
        return f"worker {self._index} (pid {self.pid})"

    def refuse_closed(self) -> None:
        """Raise WorkerStartError if it has been closed: it is not to have anything any more."""
        if self._closed:
            raise WorkerStartError(f"{self} was told to leave while it started")

    # -- blocking: never on the hub -----------------------------------------------------------------------------------

    def start(self, zygote: Zygote) -> SlotLayout:
        """Fork it and hear what its slots must look like. Once.

        Raises:
            ConfigError: it says that it cannot do what it was set to.
            KilledError: it was killed before it could say so.
            WorkerStartError: it cannot start, does not speak in time, or has been closed meanwhile.
        """
        try:
            self.refuse_closed()
            child = zygote.fork(self._entry, self._settings)
            with self._lock:
                self._child = child
            self.refuse_closed()
            layout = self._hear_layout(child)
            self.refuse_closed()
        except BaseException:
            self._closed = True
            raise
        finally:
            with self._lock:
                self._begun = True
                if self._closed and self._child is not None:
                    self._child.kill()
                    self._child.close()
        return layout

    def give(self, ring: Ring) -> None:
        """Hand it its ring. If it has died meanwhile, whoever listens to it hears that.

        Raises:
            WorkerStartError: it has been closed meanwhile.
        """
        with self._lock:
            self.refuse_closed()
            child = self._forked()
            with suppress(OSError):
                send_frame_fds(child.socket, encode_json(RING, {"slots": ring.slots}), [ring.fd])
            child.socket.setblocking(False)

    def _hear_layout(self, child: Child) -> SlotLayout:
        child.socket.settimeout(_START_TIMEOUT)
        try:
            frame = recv_frame(child.socket)
            if frame is not None:
                return decode_layout(frame)
        except TimeoutError as error:
            raise WorkerStartError(f"{self} said nothing for {_START_TIMEOUT:.0f} s") from error
        except WorkerError as error:
            raise WorkerStartError(f"{self} began with {error}") from error
        except ConnectionError:
            pass  # it left in the middle of it
        self.refuse_closed()
        how = f"{self} {child.describe_exit()} before it was ready"
        code = child.wait(0.0)
        if code is None or code < 0:
            raise KilledError(how)
        raise WorkerStartError(f"{how}; see its traceback above")

    # -- on the hub ---------------------------------------------------------------------------------------------------

    def send(self, pieces: Sequence[bytes | memoryview], fds: Sequence[int] = ()) -> None:
        """Send it the pieces of a frame, and copies of these descriptors with the first bytes.

        Raises:
            OSError: it has gone.
        """
        sock = self._forked().socket
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                try:
                    sent = socket.send_fds(sock, [rest], [*fds]) if fds else sock.send(rest)
                except BlockingIOError:
                    wait_write(sock.fileno())
                else:
                    rest, fds = rest[sent:], ()

    def frames(self) -> Generator[list[bytes]]:
        """What it says: complete frames, as they arrive, until it has gone.

        Raises:
            WorkerError: a frame is longer than any of ours.
        """
        sock, hub = self._forked().socket, gevent.get_hub()
        readable = hub.loop.io(sock.fileno(), 1)  # `wait_read` would make one each time, and tell the kernel of it
        try:
            while True:
                hub.wait(readable)
                try:
                    data = sock.recv(1 << 16)
                except BlockingIOError:
                    continue
                except OSError:
                    return
                if not data:
                    return
                yield self._reader.feed(data)
        finally:
            readable.close()

    def reap(self) -> str:
        """Kill it, if it still runs, and wait until it is gone: from then on it writes nowhere. How it ended."""
        child = self._forked()
        child.kill()
        if child.pidfd >= 0:
            wait_read(child.pidfd)
        if child.status >= 0:
            with suppress(TimeoutError):
                wait_read(child.status, _STATUS_TIMEOUT)
        return child.describe_exit(0.0)

    # -- from anywhere ------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        with self._lock:
            if self._child:
                self._child.kill()

    def close(self) -> None:
        """Tell it to go: it does when it has done its task, at once before it is ready. Does not wait. Idempotent."""
        with self._lock:
            self._closed = True
            if self._child is None:
                return
            if self._begun:
                self._child.close()
            else:
                self._child.kill()  # `start` waits for its words, hears its end instead, and closes it

    def _forked(self) -> Child:
        if self._child is None:
            raise WorkerError(f"worker {self._index} has not been started")
        return self._child


def in_memory(pieces: Sequence[Piece]) -> Payload:
    """What is too much for a message, copied in a thread: gigabytes take a second, and the hub goes on.

    Raises:
        SharedMemoryFullError: there is no memory for it.
    """

    def copy() -> Payload | Exception:
        try:
            return Payload(pieces)
        except Exception as error:  # noqa: BLE001  (raised in a thread, the hub would print it as well)
            return error

    made: Payload | Exception = gevent.get_hub().threadpool.apply(copy)
    if isinstance(made, Exception):
        raise made
    return made
