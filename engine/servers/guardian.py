"""The process above one server: when whoever started it is gone, the server goes too, with all that it left behind.

Run as a script (``python -I -S guardian.py``), never imported; the standard library only, so that it is up in 20 ms.
It reads one JSON object a line on its standard input and answers each with one. The first is its settings::

    {"parent": PID, "remove": [PATH...], "shm_prefix": NAME, "private_shm": BOOL, "relays": [ARGV...]}

``shm_prefix`` is what the names of the server's own files in /dev/shm begin with. ``relays`` are commands of processes
that pass connections on into a private network; the number of a listening socket is put behind each. Then::

    {"do": "start", "argv": [...], "env": {...}, "cwd": PATH, "log": PATH}   -> {"pid": PID}
    {"do": "look"}                      -> {"status": null while it runs, else its wait status}
    {"do": "signal", "number": N}       -> {}    to the server and all below it
    {"do": "kill"}                      -> {}    likewise, and waits until they are gone

The end of the input, or of the parent, ends everything; so do SIGTERM, SIGINT and SIGHUP.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from functools import partial
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_SIOCSIFFLAGS, _IFF_UP_RUNNING_LOOPBACK = 0x8914, 0x49
_SHM = "/dev/shm"  # noqa: S108  (POSIX shared memory lives there)

_libc = ctypes.CDLL(None, use_errno=True)


class Guardian:
    """The server, what is below it, and what has to be removed behind it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._remove: list[str] = settings["remove"]
        self._shm_prefix: str = settings["shm_prefix"]
        self._relays: set[int] = set()
        self._server = 0
        self._status: int | None = None
        self.ports: list[int] = []
        # A stub whose server was killed becomes our child instead of init's: what the server started stays in reach.
        _call(_libc.prctl, _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if settings["private_shm"]:
            _private_shm()
        if settings["relays"]:
            self._open_relays(settings["relays"])

    def do(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order."""
        self.reap()
        match order["do"]:
            case "start":
                self._kill()
                self._start(order["argv"], order["env"], order["cwd"], order["log"])
                return {"pid": self._server}
            case "look":
                return {"status": self._status}
            case "signal":
                for pid in self._pids():
                    _send(pid, order["number"])
                return {}
            case "kill":
                self._kill()
                return {}
            case other:
                return {"error": f"unknown order {other!r}"}

    def reap(self) -> None:
        """Record who has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._record_exit(pid, status)

    def end(self) -> None:
        """Nothing stays: no process, no file."""
        self._kill()
        for pid in self._relays:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for path in self._remove:
            shutil.rmtree(path, ignore_errors=True)

    def _start(self, argv: list[str], env: dict[str, str], cwd: str, log: str) -> None:
        self._status = None
        with open(log, "ab") as output:
            self._server = _spawn(argv, env, cwd, output.fileno())

    def _kill(self) -> None:
        while pids := self._pids():  # again, until nothing is left that could have started another
            for pid in pids:
                _send(pid, signal.SIGKILL)
            # Whoever is not our own child becomes it when its parent, dead as well, has been reaped.
            self._record_exit(*os.waitpid(-1, 0))
        if self._shm_prefix:
            for name in os.listdir(_SHM):  # noqa: PTH208  (pathlib would double the time this takes to start)
                if name.startswith(self._shm_prefix):
                    os.unlink(f"{_SHM}/{name}")  # noqa: PTH108

    def _record_exit(self, pid: int, status: int) -> None:
        if pid == self._server:
            self._status = status
        self._relays.discard(pid)

    def _pids(self) -> list[int]:
        """Every process below this one but the relays, parents first."""
        parents = _parents()
        found = [os.getpid()]
        for above in found:
            found.extend(pid for pid, parent in parents.items() if parent == above and pid not in self._relays)
        return found[1:]

    def _open_relays(self, commands: list[list[str]]) -> None:
        """Listen on the host's loopback, then leave for a network of our own; the relays keep a foot in both."""
        listeners = [socket.create_server(("127.0.0.1", 0), backlog=128) for _ in commands]
        self.ports = [listener.getsockname()[1] for listener in listeners]
        _call(_libc.unshare, _CLONE_NEWNET)
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP_RUNNING_LOOPBACK))
        for argv, listener in zip(commands, listeners, strict=True):
            with listener:
                self._relays.add(_spawn([*argv, str(listener.fileno())], {}, "/", None, listener.fileno()))


def _spawn(argv: list[str], env: dict[str, str], cwd: str, output: int | None, *keep: int) -> int:
    process = subprocess.Popen(
        argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if output is None else output,
        stderr=subprocess.STDOUT,
        pass_fds=keep,
        # Should this process be killed itself. It has one thread, so a function between fork and exec is safe.
        preexec_fn=partial(_die_with, os.getpid()),  # noqa: PLW1509
    )
    process.returncode = 0  # it is waited for here, not by subprocess
    return process.pid


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before we could ask to die with it


def _private_shm() -> None:
    """A /dev/shm that nobody else sees, as on another host."""
    _call(_libc.unshare, _CLONE_NEWNS)
    _call(_libc.mount, b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    _call(_libc.mount, b"tmpfs", _SHM.encode(), b"tmpfs", 0, b"size=1g")


def _call(function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _parents() -> dict[int, int]:
    """The parent of each process."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    parents[int(entry)] = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue  # it has just ended
    return parents


def _say(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def _serve(guardian: Guardian, rest: bytes, parent: int, wakeup: int) -> None:
    """Carry out orders until there is nobody left to give any."""
    poll = select.poll()
    for fd in (0, parent, wakeup):
        poll.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if wakeup in ready:
            if {*os.read(wakeup, 4096)} - {signal.SIGCHLD}:
                return
            guardian.reap()
        if parent in ready:
            return
        if 0 in ready:
            part = os.read(0, 65536)
            if not part:
                return
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                try:
                    answer = guardian.do(json.loads(line))
                except OSError as error:
                    answer = {"error": str(error)}
                _say(answer)


def _signals() -> int:
    """A descriptor with the numbers of signals, a byte each: a child has ended, or this process is to end."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return reading


def main() -> int:
    """Serve the process that started this one."""
    first, _, rest = os.read(0, 65536).partition(b"\n")  # one write of less than PIPE_BUF: it comes whole
    settings: dict[str, Any] = json.loads(first)
    # Not the pipe alone: a fork of the parent may hold a copy of its end.
    parent = os.pidfd_open(settings["parent"])
    if os.getppid() != settings["parent"]:
        return 1  # it has ended already, and the number may be another's by now
    try:
        guardian = Guardian(settings)
    except OSError as error:
        _say({"error": str(error)})
        return 1
    try:
        _say({"ports": guardian.ports})
        _serve(guardian, rest, parent, _signals())
    except BrokenPipeError:
        pass  # the parent has ended while it waited for the answer
    finally:
        guardian.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
