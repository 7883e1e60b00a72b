"""The zygote's own process: imports once, forks on request, says how its children ended.

It has one thread, and it does nothing with what it imported, so that a fork of it is safe: JAX in particular must be
imported here but never started (a fork of a started JAX hangs). See `Zygote` for the side that asks.

Frames on the control socket: hello (JSON: preload; with pidfd of the parent and its stderr) is answered by an empty
frame or by the text of an error; then each request (entry point, NUL, argument; with the child's descriptors) by
``+pid`` with the child's socket, pidfd and status pipe, or by ``-`` and the text of an error.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import NoReturn

from ..lazy import import_named
from .child import STATUS, readable
from .frames import recv_frame_fds, send_frame, send_frame_fds
from .janitor import sweep

GRACE = 1.0
"""Seconds that children have to leave by themselves when the zygote is closed; if the parent is dead they have none."""

PATIENCE = 120
"""Seconds for importing what is preloaded, from a cold network disk on a busy machine. A fork takes milliseconds."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

Entry = Callable[[socket.socket, bytes, list[int]], object]


@dataclass(frozen=True, slots=True)
class _ChildRecord:
    """What the server knows of a child until it is reaped."""

    pid: int
    status: int


class ForkServer:
    """Forks on request until its parent is gone or closes the control socket.

    Args:
        control: the stream to the parent.
        parent: pidfd of the parent. The end of ``control`` is not enough: a fork of the host may hold a copy of it.
        stderr: where children's tracebacks go; None for nowhere.
    """

    def __init__(self, control: socket.socket, parent: int, stderr: int | None) -> None:
        self._control = control
        self._parent = parent
        self._stderr = stderr
        self._children: dict[int, _ChildRecord] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(parent, select.POLLIN)

    def serve(self) -> NoReturn:
        """Until the end of this process."""
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._children:
                    self._reap(fd)
                elif fd == self._parent:
                    self._leave(0.0)
                else:
                    self._answer()

    def _answer(self) -> None:
        with suppress(ConnectionError):  # the parent has gone
            request = recv_frame_fds(self._control)
            if request is not None:
                self._try_fork(*request)
                return
        self._leave(GRACE)

    def _try_fork(self, frame: bytes, fds: list[int]) -> None:
        try:
            self._fork(frame, fds)
        except (Exception, SystemExit):  # noqa: BLE001  (whatever the import of an entry point raises is the answer)
            send_frame(self._control, b"-" + traceback.format_exc().encode(errors="replace"))
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, frame: bytes, fds: list[int]) -> None:
        name, _, argument = frame.partition(b"\0")
        entry = _resolve(name.decode())
        with ExitStack() as stack:
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            status_read, status_write = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, status_read)
            undo = stack.enter_context(ExitStack())  # what stays open if all goes well
            undo.callback(os.close, status_write)
            server = os.getpid()
            pid = os.fork()
            if pid == 0:
                _ForkedChild(server, self._stderr, theirs, fds).main(entry, argument)
            pidfd = _pidfd(pid)
            undo.pop_all()
            self._children[pidfd] = _ChildRecord(pid, status_write)
            self._poll.register(pidfd, select.POLLIN)
            send_frame_fds(self._control, b"+%d" % pid, [ours.fileno(), pidfd, status_read])

    def _reap(self, pidfd: int) -> None:
        """A child is dead: take its status, pass it on."""
        self._poll.unregister(pidfd)
        os.close(pidfd)
        child = self._children.pop(pidfd)
        _, status = os.waitpid(child.pid, 0)
        with suppress(BrokenPipeError):  # nobody wants to know any more
            os.write(child.status, STATUS.pack(os.waitstatus_to_exitcode(status)))
        os.close(child.status)

    def _leave(self, grace: float) -> NoReturn:
        """Let the children go, kill who stays, reap all: in a container nobody else would, and zombies pile up."""
        self._poll.unregister(self._control)
        deadline = time.monotonic() + grace
        while self._children and (left := deadline - time.monotonic()) > 0:
            for fd, _ in self._poll.poll(left * 1000):
                if fd in self._children:
                    self._reap(fd)
                else:
                    deadline = 0.0  # the parent is dead: nobody is there to be patient for
        for pidfd in self._children:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pidfd in list(self._children):
            self._reap(pidfd)
        if readable(self._parent, 0.0):
            sweep()  # its segments, if they have names: with our children the last that could use them are gone
        os._exit(0)


@dataclass(frozen=True, slots=True)
class _ForkedChild:
    """A child's own side: its process from the first instruction to the last.

    Attributes:
        server: pid of the server it was forked from.
        stderr: see `ForkServer`.
        sock, fds: what is its own; everything else is closed.
    """

    server: int
    stderr: int | None
    sock: socket.socket
    fds: Sequence[int]

    def main(self, entry: Entry, argument: bytes) -> NoReturn:
        """Run the entry point and leave with its status. Never returns into the server's code, whatever happens."""
        status = 1
        try:
            status = self._run(entry, argument)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _settle(self) -> None:
        """Become a process of its own."""
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.server:
            os._exit(1)  # it died before we could ask to die with it
        _prctl(_PR_SET_NAME, b"penstock-worker")
        if self.stderr is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        else:
            os.dup2(self.stderr, 2)
        # Another child's socket held open here would hide that child's death from the parent, and the parent's from
        # it. The server's own Python objects for what is closed here stay referenced, so none of them closes a number
        # twice.
        close_others({self.sock.fileno(), *self.fds})

    def _run(self, entry: Entry, argument: bytes) -> int:
        try:
            self._settle()
            entry(self.sock, argument, list(self.fds))
        except SystemExit as leaving:
            if isinstance(leaving.code, str):
                print(leaving.code, file=sys.stderr)
            return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except BaseException as error:  # noqa: BLE001  (this is the bottom of the process)
            if isinstance(error, ConnectionError) and _hung_up(self.sock):
                return 0  # the parent closed while we were talking: that is how it sends us home
            traceback.print_exc()
            return 1
        return 0


def close_others(kept: Set[int]) -> None:
    """Close every descriptor but the standard ones and these.

    Those that are open, by name: where Python was built without ``close_range``, ``os.closerange`` tries every number
    up to the limit, which containers set to 2^30, and that takes minutes.
    """
    try:
        listed = os.listdir("/proc/self/fd")  # noqa: PTH208  (names, and nothing else, are wanted)
    except OSError:  # no /proc
        low = 3
        for fd in sorted(kept):
            os.closerange(low, fd)
            low = max(low, fd + 1)
        os.closerange(low, os.sysconf("SC_OPEN_MAX"))
        return
    for fd in map(int, listed):
        if fd > 2 and fd not in kept:
            with suppress(OSError):  # one of them was the listing's own
                os.close(fd)


def main() -> NoReturn:
    """What `Zygote.start` executes. The control socket is standard input, which is free for that."""
    _own_signals()
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nothing that is imported shall read from it
    faulthandler.enable()
    # Also for the children, whose 2 is another file: a worker that is asked where it is must not die of the question.
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=False)
    _prctl(_PR_SET_NAME, b"penstock-zygote")
    hello = recv_frame_fds(control)
    if hello is None:
        os._exit(0)
    frame, (parent, *stderr) = hello
    signal.alarm(PATIENCE)  # an import that hangs cannot see that the parent has given up, or died
    # What is imported stays: collections meanwhile find nothing, and are a fifth of the time that importing JAX takes.
    gc.disable()
    try:
        for module in json.loads(frame):
            importlib.import_module(module)
    except BaseException:  # noqa: BLE001  (told to the parent, which raises it)
        send_frame(control, traceback.format_exc().encode(errors="replace"))
        os._exit(1)
    # Else the first collection in a child touches, and so copies, every page of what was imported: with JAX 41 MiB of a
    # worker's own instead of 17.
    gc.freeze()
    gc.enable()
    signal.alarm(0)
    send_frame(control, b"")
    ForkServer(control, parent, stderr[0] if stderr else None).serve()


def _own_signals() -> None:
    """Whatever the host ignores, handles or blocks is inherited through exec: begin anew."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, there would be no statuses to reap
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A Ctrl-C is for the parent, which drains its workers before it lets them go.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _resolve(name: str) -> Entry:
    found: object = import_named(name)
    if not callable(found):
        raise TypeError(f"{name} is not a function")
    return found


def _pidfd(pid: int) -> int:
    """A descriptor of a new child of ours; nobody else reaps it, so the number cannot be another process' yet."""
    try:
        return os.pidfd_open(pid)
    except OSError:  # out of descriptors: a child that nobody can watch must not be
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _hung_up(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, 0)  # POLLHUP is always reported
    return bool(poll.poll(0))


_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int | bytes) -> None:
    wide = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if _libc.prctl(option, wide, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl failed")
