"""``sandbox``: a worker that a picture has taken over can do little with its process. Without root, best effort.

Two steps, because compiling needs more than decoding does. `confine` comes before the first thread (Landlock binds only
the calling thread and those it starts): no network, no other programs, no signals to others, no writing but into the
compilation cache. `seal` comes before the first picture: no writing at all, and limits on memory and descriptors.
What is refused fails with EPERM; what only an attack does (ptrace, mount, kernel modules) kills the worker by SIGSYS.

The parent asks `means` what this machine has; a worker that cannot apply all of that does not start.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import resource
import stat
import struct
from pathlib import Path
from typing import Final

from ...errors import ConfigError
from ...shm.janitor import DIRECTORY
from ..spec import PreprocessSpec
from . import landlock, seccomp

logger = logging.getLogger("penstock.preprocess")

_NETWORK: Final = ("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4")
_PROGRAMS: Final = ("execve", "execveat", "fork", "vfork")
_OTHERS: Final = (  # other processes: signals, priorities, memory, and what is shared with them by number or name
    *("tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "pidfd_getfd"),
    *("setpriority", "ioprio_set", "migrate_pages", "move_pages"),
    *("shmget", "shmat", "shmctl", "semget", "semop", "semtimedop", "semctl"),
    *("msgget", "msgsnd", "msgrcv", "msgctl"),
    *("mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr"),
)
_OF_ITSELF: Final = ("prlimit64", "sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr")
"""What it may do to itself alone: process 0."""

_SIGNALLING: Final = (8, 10, 15)
"""Of fcntl: F_SETOWN, F_SETSIG and F_SETOWN_EX, by which the kernel signals whom one likes."""

_LOCKING: Final = (6, 7, 37, 38, 1024)
"""Of fcntl: F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW and F_SETLEASE, which keep others waiting."""

_ASKING: Final = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""Of ioctl: TCGETS and TIOCGWINSZ (is it a terminal?), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Others change files, and
more, through descriptors that are open for reading only."""
_AROUND: Final = (  # ways round the rules, and large surfaces of the kernel
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "open_by_handle_at"),
    *("perf_event_open", "userfaultfd", "add_key", "request_key", "keyctl"),
)
_ATTACKS: Final = (
    *("ptrace", "process_vm_readv", "process_vm_writev", "unshare", "setns", "pivot_root", "chroot"),
    *("mount", "umount2", "open_tree", "open_tree_attr", "move_mount", "mount_setattr"),
    *("fsopen", "fsconfig", "fsmount"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "bpf"),
    *("reboot", "swapon", "swapoff"),
)
_CHANGES: Final = (  # of files; those of an open one too: a shortened ring would kill the parent by SIGBUS
    *("creat", "truncate", "ftruncate", "fallocate", "mkdir", "mkdirat", "rmdir", "mknod", "mknodat"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("utime", "utimes", "futimesat", "utimensat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat"),
    *("removexattr", "lremovexattr", "fremovexattr", "removexattrat", "file_setattr"),
)
_TO_WRITE: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CLONE_THREAD: Final = 0x10000

_DESCRIPTORS: Final = 256
"""Files open at once: a worker reads at most 64 ahead."""

_ROOM: Final = 4 * 2**30
"""Bytes of address space beyond what the compiled worker has; a picture of the largest kind takes 1.1 GiB of it."""

_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITIES_3: Final = 0x20080522
_READ_ANY_FILE: Final = 1 << 2


def means() -> list[str]:
    """What a worker can be confined by on this machine, for people; empty if by nothing that matters."""
    number = landlock.version()
    found = ["seccomp"] if seccomp.is_available() else []
    if number:
        found.append(f"Landlock {number}")
    return [*found, "resource limits"] if found else []


def lacking() -> list[str]:
    """What they cannot be confined by, for people, each with the reason."""
    found: list[str] = []
    if not seccomp.is_known():
        found.append(f"seccomp (its filters are not written for {platform.machine()})")
    elif not seccomp.is_available():
        found.append("seccomp (this kernel or container does not allow it)")
    if not landlock.version():
        found.append("Landlock (Linux 5.13 or newer has it, where it is switched on and the container allows it)")
    return found


def check_means() -> None:
    """Whether a sandbox can be had here. What it consists of is logged, what it lacks as a warning.

    Raises:
        ConfigError: neither system-call filters nor Landlock can be had here.
    """
    found = means()
    if not found:
        raise ConfigError(
            f"sandbox: there is nothing here to confine a worker by, neither {' nor '.join(lacking())};"
            " allow the system calls seccomp and landlock_* in the container's profile, or leave the sandbox out"
        )
    if less := lacking():
        logger.warning("the sandbox has to do without %s", " and ".join(less))
    logger.info("workers are confined by %s", ", ".join(found))


def confine(cache: Path | None) -> None:
    """The first step: in a process of one thread, before it starts others and before user code is imported.

    Args:
        cache: the folder of compiled kernels, the only place where files may still be written.

    Raises:
        OSError: the kernel refuses what `means` says it has.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _no_new_privileges()
    _no_capabilities()
    if landlock.version():
        # The ring's descriptor is opened anew when it is mapped, which counts as opening its file.
        landlock.restrict([cache] if cache else [], existing=[Path(DIRECTORY)])
    if seccomp.is_available():
        seccomp.install(alone(os.getpid()))


def seal(spec: PreprocessSpec) -> None:
    """The second step: when all is compiled and before a stranger's first byte is decoded. For all threads.

    Args:
        spec: its limits decide how much memory is more than any picture needs.

    Raises:
        OSError: the kernel refuses what `means` says it has.
    """
    _lower(resource.RLIMIT_NOFILE, _DESCRIPTORS)
    _lower(resource.RLIMIT_AS, _address_space() + max(_ROOM, 32 * spec.max_pixels + 2 * spec.max_file_bytes))
    if not any(stat.S_ISREG(os.fstat(fd).st_mode) for fd in (1, 2)):  # there, words in a log would be too much
        _lower(resource.RLIMIT_FSIZE, 0)
    if seccomp.is_available():
        seccomp.install(read_only())


def alone(pid: int) -> bytes:
    """The first filter: no network, no programs, no other processes; threads and signals to itself are left."""
    return seccomp.program(
        seccomp.answer(seccomp.KILL, *_ATTACKS),
        seccomp.answer(seccomp.REFUSE, *_NETWORK, *_PROGRAMS, *_OTHERS, *_AROUND),
        seccomp.answer(seccomp.UNKNOWN, "clone3"),
        seccomp.answer_if_bits(seccomp.ALLOW, "clone", 0, _CLONE_THREAD, otherwise=seccomp.REFUSE),
        seccomp.answer_if_equal(seccomp.ALLOW, "kill", 0, pid, otherwise=seccomp.REFUSE),
        seccomp.answer_if_equal(seccomp.ALLOW, "tgkill", 0, pid, otherwise=seccomp.REFUSE),
        *(seccomp.answer_if_equal(seccomp.ALLOW, name, 0, 0, otherwise=seccomp.REFUSE) for name in _OF_ITSELF),
        seccomp.answer_if_equal(seccomp.REFUSE, "fcntl", 1, *_SIGNALLING),
        seccomp.answer_if_equal(seccomp.ALLOW, "ioctl", 1, *_ASKING, otherwise=seccomp.REFUSE),
    )


def read_only() -> bytes:
    """The second filter: files are opened to be read; nothing about them is changed, and none is locked."""
    return seccomp.program(
        seccomp.answer(seccomp.REFUSE, *_CHANGES, "flock"),
        seccomp.answer_if_equal(seccomp.REFUSE, "fcntl", 1, *_LOCKING),
        seccomp.answer(seccomp.UNKNOWN, "openat2"),
        seccomp.answer_if_bits(seccomp.REFUSE, "open", 1, _TO_WRITE),
        seccomp.answer_if_bits(seccomp.REFUSE, "openat", 2, _TO_WRITE),
    )


def _no_new_privileges() -> None:
    """No set-uid program gives this process more than it has; the kernel asks for it before the rest."""
    libc = ctypes.CDLL(None, use_errno=True)
    one, zero = ctypes.c_ulong(1), ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, one, zero, zero, zero):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS) failed")


def _no_capabilities() -> None:
    """Where this user is root, as in many containers: no more than reading what root may read.

    Else it could raise its limits again, and read its parent's environment in spite of Landlock (CAP_PERFMON).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("<Ii", _CAPABILITIES_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: low halves, then high ones
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget failed")
    kept = sets[1] & _READ_ANY_FILE
    if libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept)):
        raise OSError(ctypes.get_errno(), "capset failed")


def _lower(kind: int, value: int) -> None:
    """Both limits, so that it cannot be raised again; a lower one stays."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
