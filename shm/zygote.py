"""The parent's side of our own fork server.

Not ``multiprocessing.forkserver``: there is one of that for the whole host process, so its preload and environment
are not ours to set; it refuses to work in a daemonic process (Airflow, ``multiprocessing.Pool``); and it imports the
user's main module again, which needs a ``__main__`` guard. This one is an ordinary subprocess that forks on request.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Self

from ..descriptors import is_open
from ..errors import WorkerStartError
from .child import Child, readable
from .fork_server import GRACE, PATIENCE
from .frames import recv_frame, recv_frame_fds, send_frame_fds

_TAIL = 4000

# Nothing is imported before sys.path is ours: even a json.py could be found on a PYTHONPATH that was set meanwhile.
_BOOTSTRAP = (
    f"import sys; sys.path[:] = sys.argv[1:]; del sys.argv[1:]; from {__package__}.fork_server import main; main()"
)


@dataclass(slots=True)
class _Server:
    """One running server process."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    errors: int  # memory file that is its stderr, for when it dies without a word
    ready: bool = False

    def last_words(self) -> str:
        """The end of what it wrote to its stderr."""
        size = os.fstat(self.errors).st_size
        return os.pread(self.errors, _TAIL, max(0, size - _TAIL)).decode(errors="replace").strip()

    def stop(self) -> None:
        """End it, reap it. Its children have ``GRACE`` seconds."""
        self.control.close()
        if not self.ready or not _ends_within(self.process.pid, GRACE + 1.0):
            self.process.kill()
        self.process.wait()
        os.close(self.errors)


class Zygote:
    """The fork server of worker processes: imports once what all of them need, then forks them in milliseconds.

    Works in any process and any thread: daemonic, in a notebook, without a ``__main__`` guard, with standard streams
    closed. The children cannot outlive it, and it cannot outlive the process that started it, however that one dies.
    It is in a session of its own: a Ctrl-C in the terminal, or a signal to the host's process group, reaches the host
    alone.

    Args:
        preload: names of modules to import before the first fork. They must not start threads (a fork would lose them),
            hold files open (a child closes all but its own) or start a JAX backend (its fork hangs).
        env: environment variables to set for it and its children, over those of this process, e.g.
            ``OPENBLAS_NUM_THREADS=1``, without which NumPy starts a thread.
    """

    def __init__(self, preload: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        self._preload = list(preload)
        self._env = dict(env or {})
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._owner = 0
        self._closed = False

    @property
    def pid(self) -> int:
        """Process id of the fork server; 0 while there is none."""
        server = self._server
        return server.process.pid if server else 0

    def start(self) -> None:
        """Start the fork server. Returns at once, while it imports. Idempotent; the first ``fork`` does it.

        Raises:
            WorkerStartError: the interpreter cannot be executed, or processes cannot be watched here.
        """
        with self._lock:
            self._closed = False
            self._running()

    def fork(self, entry: str, argument: bytes = b"", fds: Sequence[int] = ()) -> Child:
        """Make a child process that calls ``entry(socket, argument, fds)`` and leaves with status 0 when it returns.

        An exception becomes a traceback on stderr and status 1. The child has SIGINT ignored, SIGTERM as usual,
        ``/dev/null`` for stdin, and no descriptor but 1, 2, its socket and its own copies of ``fds``. Blocks until it
        is there, the first call for as long as the preload takes. From any thread. A fork server that was killed
        meanwhile is replaced.

        Args:
            entry: ``package.module:function``; the module is imported before the fork, like those of ``preload``.
            argument: handed to the function.
            fds: file descriptors to give copies of; they stay the caller's.

        Raises:
            WorkerStartError: it cannot be started; says why, with what the fork server last wrote to its stderr. Or the
                fork server has been closed.
        """
        with self._lock:
            if self._closed:  # by another thread: a new server would be nobody's
                raise WorkerStartError(f"cannot start {entry}: the fork server has been closed")
            try:
                return self._ask(entry, argument, fds)
            except _Died:
                if self._closed:
                    raise
                return self._ask(entry, argument, fds)  # whatever it had begun died with it

    def close(self) -> None:
        """End the fork server and, after a second of grace, its children. Idempotent; a later ``start`` starts anew."""
        self._closed = True
        server = self._server
        if server and self._owner == os.getpid():
            _hang_up(server.control)  # whoever waits in fork() holds the lock, and wakes up of this
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- with the lock held -------------------------------------------------------------------------------------------

    def _running(self) -> _Server:
        if self._server is not None:
            refuse_fork(self._owner)
        else:
            self._owner = os.getpid()
            self._server = _launch(self._preload, self._env)
        return self._server

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server and self._owner == os.getpid():
            server.stop()

    def _ask(self, entry: str, argument: bytes, fds: Sequence[int]) -> Child:
        server = self._running()
        try:
            if not server.ready:
                self._await_preload(server)
            send_frame_fds(server.control, entry.encode() + b"\0" + argument, fds)
            answer = recv_frame_fds(server.control)
        except TimeoutError as error:
            server.process.kill()
            raise WorkerStartError(str(self._died(f"said nothing for {PATIENCE} s"))) from error
        except OSError as error:
            raise self._died(str(error)) from error
        if answer is None:
            raise self._died("ended without an answer")
        frame, got = answer
        if not frame.startswith(b"+"):
            raise WorkerStartError(f"cannot start {entry}: {frame[1:].decode(errors='replace').strip()}")
        ours, pidfd, status = got
        return Child(int(frame[1:]), socket.socket(fileno=ours), pidfd, status)

    def _await_preload(self, server: _Server) -> None:
        failure = recv_frame(server.control)
        if failure is None:
            raise self._died(f"ended while importing {', '.join(self._preload) or 'itself'}")
        if failure:
            self._stop()
            raise WorkerStartError(f"cannot preload the workers' modules: {failure.decode(errors='replace').strip()}")
        server.ready = True

    def _died(self, how: str) -> WorkerStartError:
        server = self._server
        words = server.last_words() if server else ""
        self._stop()
        return _Died(f"the fork server {how}" + (f"; it last wrote:\n{words}" if words else ""))


def refuse_fork(owner: int) -> None:
    """Refuse to use a copy of what belongs to another process.

    Args:
        owner: id of the process that made it.

    Raises:
        WorkerStartError: this one is a fork of that.
    """
    if owner != os.getpid():
        raise WorkerStartError(
            f"this worker pool belongs to process {owner}, of which this one is a fork: make a new one"
        )


class _Died(WorkerStartError):  # noqa: N818  (seen here only; users see a WorkerStartError)
    """The fork server is gone, as opposed to: it refused."""


def _launch(preload: Sequence[str], env: Mapping[str, str]) -> _Server:
    if not sys.executable:
        raise WorkerStartError(
            "sys.executable is empty (an embedded Python?): there is no interpreter to start workers with"
        )
    # Before anything is opened: in a host with its standard streams closed, what we open would get their numbers.
    stdout = None if is_open(1) else subprocess.DEVNULL
    stderr = [2] if is_open(2) else []
    with ExitStack() as ours, ExitStack() as undo:  # what is closed in any case, and what only if this fails
        parent, child = socket.socketpair()
        ours.callback(child.close)
        control = undo.enter_context(socket.socket(fileno=_above_standard(parent.detach())))
        errors = _above_standard(os.memfd_create("penstock-zygote-stderr"))
        undo.callback(os.close, errors)
        me = _own_pidfd()
        ours.callback(os.close, me)
        try:
            process = subprocess.Popen(
                [sys.executable, *_flags(), "-c", _BOOTSTRAP, *_path()],
                stdin=child.fileno(),
                stdout=stdout,
                stderr=errors,
                env={**os.environ, **env},
                start_new_session=True,
            )
            control.settimeout(PATIENCE)
            send_frame_fds(control, json.dumps(list(preload)).encode(), [me, *stderr])
        except OSError as error:
            raise WorkerStartError(f"cannot execute {sys.executable}: {error}") from error
        undo.pop_all()
    return _Server(process, control, errors)


def _own_pidfd() -> int:
    try:
        return os.pidfd_open(os.getpid())
    except OSError as error:
        raise WorkerStartError(
            f"pidfd_open does not work here ({error}), and without it nobody sees a process end: it needs Linux 5.3 or "
            "later, and a container that allows it (gVisor and old seccomp profiles do not)"
        ) from error


def _path() -> list[str]:
    """This process' sys.path, so that the same modules are found, whatever PYTHONPATH says or lies in the directory."""
    return [str(entry) or os.getcwd() for entry in sys.path]


def _flags() -> list[str]:
    """Switches of ours that decide what the start of an interpreter runs (user site, hooks in PYTHONPATH)."""
    chosen = {"-I": sys.flags.isolated, "-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site}
    return [flag for flag, on in chosen.items() if on]


def _above_standard(fd: int) -> int:
    """The same file under a number over 2: one of the lower three would be overwritten in the new process."""
    if fd > 2:
        return fd
    higher = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return higher


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):  # closed, or its peer is gone: just as well
        sock.shutdown(socket.SHUT_RDWR)


def _ends_within(pid: int, seconds: float) -> bool:
    """Wait for the end of an unreaped child of ours, without reaping it and without polling."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return readable(pidfd, seconds)
    finally:
        os.close(pidfd)
