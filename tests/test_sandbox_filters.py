"""The parts a sandbox is made of: the filters, run call by call on every machine they are written for; and Landlock.

Contract: see `test_sandbox`, which tries them together, from inside real workers.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from penstock.preprocess.sandbox import landlock, sandbox, seccomp
from penstock.tests.waiting import DEADLINE


def verdict(program: bytes, number: int, *arguments: int, machine: int) -> int:
    """What a filter answers to a call: the instructions it uses, interpreted."""
    data = struct.pack("<IIQ6Q", number, machine, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at = register = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            register = struct.unpack_from("<I", data, value)[0]
            continue
        test = {0x15: register == value, 0x35: register >= value, 0x45: bool(register & value)}[code]
        at += yes if test else no


MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.mark.parametrize(
    ("machine", "call", "arguments", "expected"),
    [
        ("x86_64", 41, (), seccomp.REFUSE),  # socket
        ("aarch64", 198, (), seccomp.REFUSE),
        ("x86_64", 59, (), seccomp.REFUSE),  # execve
        ("aarch64", 221, (), seccomp.REFUSE),
        ("x86_64", 101, (), seccomp.KILL),  # ptrace
        ("aarch64", 117, (), seccomp.KILL),
        ("x86_64", 56, (0x11,), seccomp.REFUSE),  # clone: a process
        ("x86_64", 56, (0x3D0F00,), seccomp.ALLOW),  # a thread
        ("aarch64", 220, (0x11,), seccomp.REFUSE),
        ("aarch64", 220, (0x3D0F00,), seccomp.ALLOW),
        ("x86_64", 435, (), seccomp.UNKNOWN),  # clone3
        ("x86_64", 62, (4711, 9), seccomp.ALLOW),  # kill itself
        ("x86_64", 62, (4712, 9), seccomp.REFUSE),
        ("x86_64", 62, (0, 9), seccomp.REFUSE),  # its process group
        ("aarch64", 129, (2**32 - 1, 9), seccomp.REFUSE),  # everybody
        ("x86_64", 53, (1, 2), seccomp.REFUSE),  # socketpair
        ("aarch64", 199, (1, 1), seccomp.REFUSE),
        ("x86_64", 302, (0, 7), seccomp.ALLOW),  # prlimit64 of itself
        ("x86_64", 302, (4711, 7), seccomp.REFUSE),
        ("aarch64", 261, (1, 7), seccomp.REFUSE),
        ("x86_64", 203, (4712,), seccomp.REFUSE),  # sched_setaffinity
        ("x86_64", 29, (), seccomp.REFUSE),  # shmget
        ("aarch64", 194, (), seccomp.REFUSE),
        ("x86_64", 240, (), seccomp.REFUSE),  # mq_open
        ("x86_64", 72, (3, 1), seccomp.ALLOW),  # fcntl F_GETFD
        ("x86_64", 72, (3, 8), seccomp.REFUSE),  # F_SETOWN
        ("x86_64", 72, (3, 10), seccomp.REFUSE),  # F_SETSIG
        ("aarch64", 25, (3, 15), seccomp.REFUSE),  # F_SETOWN_EX
        ("x86_64", 16, (3, 0x5401), seccomp.ALLOW),  # ioctl TCGETS
        ("x86_64", 16, (3, 0x5451), seccomp.ALLOW),  # FIOCLEX
        ("x86_64", 16, (3, 0x40086602), seccomp.REFUSE),  # FS_IOC_SETFLAGS
        ("x86_64", 16, (3, 0x401C5820), seccomp.REFUSE),  # FS_IOC_FSSETXATTR
        ("aarch64", 29, (3, 0x8901), seccomp.REFUSE),  # FIOSETOWN
        ("x86_64", 0, (), seccomp.ALLOW),  # read
        ("x86_64", 47, (), seccomp.ALLOW),  # recvmsg
        ("x86_64", 202, (), seccomp.ALLOW),  # futex
        ("x86_64", 0x40000029, (), seccomp.KILL),  # socket of x32
    ],
)
def test_a_filter_answers_as_it_should(
    machine: str, call: int, arguments: tuple[int, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first filter, run call by call on both machines whose numbers are known."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    program = sandbox.alone(4711)
    assert verdict(program, call, *arguments, machine=MACHINES[machine]) == expected


@pytest.mark.parametrize(
    ("machine", "call", "arguments", "expected"),
    [
        ("x86_64", 257, (0, 0, os.O_RDONLY | os.O_CLOEXEC), seccomp.ALLOW),  # openat
        ("x86_64", 257, (0, 0, os.O_WRONLY), seccomp.REFUSE),
        ("x86_64", 257, (0, 0, os.O_RDWR), seccomp.REFUSE),
        ("x86_64", 257, (0, 0, os.O_CREAT), seccomp.REFUSE),
        ("x86_64", 2, (0, os.O_TRUNC), seccomp.REFUSE),  # open
        ("x86_64", 2, (0, os.O_RDONLY), seccomp.ALLOW),
        ("aarch64", 56, (0, 0, os.O_WRONLY), seccomp.REFUSE),
        ("aarch64", 56, (0, 0, os.O_RDONLY), seccomp.ALLOW),
        ("x86_64", 77, (), seccomp.REFUSE),  # ftruncate
        ("aarch64", 46, (), seccomp.REFUSE),
        ("x86_64", 437, (), seccomp.UNKNOWN),  # openat2
        ("x86_64", 73, (3, 2), seccomp.REFUSE),  # flock
        ("x86_64", 72, (3, 6), seccomp.REFUSE),  # fcntl F_SETLK
        ("x86_64", 72, (3, 1024), seccomp.REFUSE),  # F_SETLEASE
        ("aarch64", 25, (3, 3), seccomp.ALLOW),  # F_GETFL
    ],
)
def test_the_second_filter_leaves_reading(
    machine: str, call: int, arguments: tuple[int, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening to read passes, opening to write and everything that changes a file does not."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert verdict(sandbox.read_only(), call, *arguments, machine=MACHINES[machine]) == expected


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_calls_of_another_machine_kill(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers mean other calls in a 32-bit table, so none of them is answered."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert verdict(sandbox.read_only(), 1, machine=0x40000003) == seccomp.KILL


# -- Landlock alone ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
@pytest.mark.parametrize("number", range(1, landlock.version() + 1))
def test_landlock_of_every_version_keeps_files(number: int, tmp_path: Path) -> None:
    """Restricted as an older kernel would: reading passes, writing only where it is allowed, nothing is executed."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "there").write_text("precious")
    script = f"""
        import ctypes, os
        from pathlib import Path
        from penstock.preprocess.sandbox import landlock
        landlock.version = lambda: {number}
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
        folder = Path({str(tmp_path)!r})
        landlock.restrict([folder / "cache"], existing=[])
        (folder / "cache" / "kernel").write_text("fine")
        assert (folder / "there").read_text() == "precious"
        tries = [
            lambda: (folder / "new").write_text(""),
            lambda: (folder / "there").unlink(),
            lambda: (folder / "there").write_text(""),
            lambda: (folder / "cache" / "kernel").rename(folder / "moved"),
            lambda: os.execv("/bin/true", ["true"]),
        ]
        for attempt in tries:
            try:
                attempt()
            except OSError as error:
                print(error.errno)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert len(process.stdout.split()) == 5, process
    assert set(process.stdout.split()) <= {str(errno.EACCES), str(errno.EXDEV)}
    assert (tmp_path / "there").read_text() == "precious"
