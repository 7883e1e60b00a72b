"""Milvus Lite in a process of its own, for as long as a sink is open.

In the process of the job it would share the GIL with the engine's hub. Measured on 2 cores, 20,000 rows of 512 floats
in batches of 100: a 1 ms ticker beside it ran every 3.7 ms (every 6.2 with batches of 250) instead of every 1.1, and
the process spent 3.2 s of CPU instead of 0.9, at the same 6,200 rows/s. It starts in 0.6 s instead of 0.1. And what it
keeps in its process (threads, 460 MB of index, the lock on the directory) goes when the process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast
from weakref import WeakValueDictionary

from ...errors import SinkError, SinkUnavailableError

_CHILD = Path(__file__).with_name("lite_child.py")

_STARTS = 3
"""How often a server is started that is killed before it answers."""

# A directory can be open once, also in one process: the sinks for its collections share a server.
_servers: WeakValueDictionary[str, LiteServer] = WeakValueDictionary()
_servers_mutex = threading.Lock()


class _KilledError(SinkUnavailableError):
    """The server was killed before it answered, as opposed to: it cannot start."""


def server_for(directory: str) -> LiteServer:
    """The one server of this process for a directory; not started. Whoever uses it calls `hold`, and `release` once."""
    path = os.path.realpath(directory)
    with _servers_mutex:
        server = _servers.get(path)
        if server is None:
            server = _servers[path] = LiteServer(path)
        return server


@contextmanager
def starting(uri: str) -> Generator[None]:
    """While the block runs the server of a Milvus Lite store that exists is coming up, or there. Else nothing.

    For who has other things to import before it opens a sink for the store, which then says what is wrong with it.
    """
    if not (Path(uri) / "collections").is_dir():
        yield
        return
    server = server_for(uri)
    server.hold()
    try:
        server.prepare()
        yield
    finally:
        server.release()


class LiteServer:
    """Serves one Milvus Lite directory on a free loopback port. Starts on demand, again if it died. Thread-safe.

    Args:
        directory: the data directory; created if it does not exist.
        start_timeout: seconds for the server to start.
        lock_timeout: seconds to wait for another process to let go of the directory. One that was killed needs none,
            one that is closing needs the time to build its index.
        stop_timeout: seconds for the server to write its last rows, at most about 60,000 of 512 floats, and index them
            (for 20,000: FLAT 2 s, HNSW 9 s, on a busy machine 50 s). After that it is killed; its log keeps the rows.
    """

    def __init__(
        self, directory: str, *, start_timeout: float = 60.0, lock_timeout: float = 5.0, stop_timeout: float = 300.0
    ) -> None:
        self.directory = directory
        self._start_timeout = start_timeout
        self._lock_timeout = lock_timeout
        self._stop_timeout = stop_timeout
        self._mutex = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._holders = 0

    @property
    def pid(self) -> int | None:
        """The server's process, while there is one."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def prepare(self) -> None:
        """Have the server start, and go on; `address` waits for it. Nothing if the directory is in use."""
        with self._mutex:
            if self.pid is None and self._is_free():
                self._discard()
                self._spawn()

    def address(self) -> str:
        """Where the server answers; starts it if it is not running.

        Raises:
            SinkError: the directory is open in another process, or is not what Milvus Lite can open.
            SinkUnavailableError: the server did not start in time.
        """
        with self._mutex:
            if self.pid is None or not self._port:
                self._start_surely()
            return f"http://127.0.0.1:{self._port}"

    def hold(self) -> None:
        """Keep the server until `release`. Waits while it is being stopped."""
        with self._mutex:
            self._holders += 1

    def release(self) -> None:
        """The opposite of `hold`. When the last holder's returns, any process may open the directory."""
        with self._mutex:
            self._holders -= 1
            if not self._holders:
                self._stop()

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        try:
            if process.poll() is None and self._port:  # else it has not answered yet, and nothing was written
                cast("IO[bytes]", process.stdin).write(b"q")
                process.wait(self._stop_timeout)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            pass  # too slow, or it died just now; killed below, nothing acknowledged is lost
        finally:  # also when interrupted
            self._discard()

    def _start_surely(self) -> None:
        """Start it, again where it is killed meanwhile: any part of a job may be, at any moment."""
        for _ in range(_STARTS - 1):
            try:
                self._start()
            except _KilledError:
                continue
            return
        self._start()

    def _start(self) -> None:
        process = self._process
        if process is None or self.pid is None:
            self._discard()
            self._wait_until_free()
            process = self._spawn()
        try:
            import_module("pymilvus")  # what comes next, and takes as long as the server's start
            answer = self._first_line(process)
        except BaseException:
            self._discard()
            raise
        if "port" in answer:
            self._port = int(answer["port"])
            return
        self._discard()
        if answer.get("error") == "DataDirLockedError":
            raise self._locked()
        raise SinkError(f"Milvus Lite cannot open {self.directory}: {answer.get('error')}: {answer.get('message')}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        # `-P`: this folder must not be on the child's path. Its own session: the terminal's Ctrl-C is for the parent.
        process = self._process = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD), self.directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != "MILVUS_TOKEN"},
        )
        return process

    def _first_line(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """What the child says about its start. It is short enough for the pipe, and says nothing more afterwards."""
        stdout = cast("IO[bytes]", process.stdout)
        deadline = time.monotonic() + self._start_timeout
        poll = select.poll()  # not select.select: it refuses descriptors over 1023, and hosts have many
        poll.register(stdout, select.POLLIN)
        line = b""
        while not line.endswith(b"\n"):
            if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
                raise SinkUnavailableError(
                    f"the Milvus Lite server for {self.directory} did not start in {self._start_timeout:g} s;"
                    " is the machine overloaded?"
                )
            part = stdout.read(4096)
            if not part:
                status = process.wait()
                raise (_KilledError if status < 0 else SinkUnavailableError)(
                    f"the Milvus Lite server for {self.directory} ended while starting (exit {status});"
                    f" to see why, run: milvus-lite server --host 127.0.0.1 --data-dir {self.directory}"
                )
            line += part
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _discard(self) -> None:
        process, self._process, self._port = self._process, None, 0
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _wait_until_free(self) -> None:
        """Wait for the lock that Milvus Lite will take, without starting a server for each try."""
        deadline = time.monotonic() + self._lock_timeout
        while not self._is_free():
            if time.monotonic() >= deadline:
                raise self._locked()
            time.sleep(0.05)  # flock has no timeout

    def _is_free(self) -> bool:
        try:
            lock = os.open(os.path.join(self.directory, "LOCK"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(lock)  # and the lock with it

    def _locked(self) -> SinkError:
        return SinkError(
            f"{self.directory} is open in another process, and Milvus Lite allows one. Wait for it to end, or"
            f" serve the file to both: milvus-lite server --host 127.0.0.1 --data-dir {self.directory},"
            " then use http://127.0.0.1:19530"
        )
