"""System-call filters (seccomp-bpf) for this process and its threads, without root: what may be refused, and how.

A filter is a small program that the kernel runs at each system call. It can be added, never taken away, and of several
the strictest answer counts. Built by hand because the standard library has no words for it and libseccomp is one more
thing to install.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import Final

ALLOW: Final = 0x7FFF0000
REFUSE: Final = 0x00050000 | 1
"""The call fails with EPERM: for what an honest library might try, and can live without."""

UNKNOWN: Final = 0x00050000 | 38
"""The call fails with ENOSYS, as on an older kernel: the C library then takes the older call, whose flags a filter can
see (those of clone3 and openat2 are behind a pointer)."""

KILL: Final = 0x80000000
"""The process dies by SIGSYS: for what only an attack does."""

_LOAD, _EQUAL, _ABOVE, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32: Final = 0x40000000

_SET_MODE_FILTER, _ACTION_AVAILABLE = 1, 2
_ALL_THREADS: Final = 1

# name: (x86_64, aarch64); None where there is no such call. From the kernel's asm/unistd_64.h and asm-generic/unistd.h.
_CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "mq_timedsend": (242, 182),
    "mq_timedreceive": (243, 183),
    "mq_notify": (244, 184),
    "mq_getsetattr": (245, 185),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "flock": (73, 32),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "bpf": (321, 280),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "creat": (85, None),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "seccomp": (317, 277),
}
_MACHINES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the table, and the kernel's word for the machine."""

Rules = Iterable[bytes]


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def is_known() -> bool:
    """Whether the numbers of this machine's system calls are known here."""
    return platform.machine() in _MACHINES and sys.maxsize > 2**32


def is_available() -> bool:
    """Whether this process may install filters. Changes nothing."""
    return is_known() and _seccomp(_ACTION_AVAILABLE, 0, ctypes.byref(ctypes.c_uint32(KILL))) == 0


def answer(verdict: int, *names: str) -> Rules:
    """These calls get this answer."""
    for name in names:
        number = _number(name)
        if number is not None:
            yield _step(_EQUAL, number, 0, 1) + _step(_RETURN, verdict)


def answer_if_bits(verdict: int, name: str, argument: int, mask: int, otherwise: int = ALLOW) -> Rules:
    """A call gets this answer where its argument (counted from 0, low 32 bits) has one of these bits."""
    yield from _by_argument(name, argument, [_step(_BITS, mask, 0, 1)], verdict, otherwise)


def answer_if_equal(verdict: int, name: str, argument: int, *values: int, otherwise: int = ALLOW) -> Rules:
    """A call gets this answer where its argument (counted from 0, low 32 bits) is one of these values."""
    yield from _by_argument(name, argument, [_step(_EQUAL, value, 0, 1) for value in values], verdict, otherwise)


def program(*rules: Rules) -> bytes:
    """The filter of these rules, for this machine; what none of them names is allowed.

    A system call of another machine's table (32 bits, x32) kills: the same numbers mean other calls there.
    """
    _, machine = _MACHINES[platform.machine()]
    return b"".join(
        [
            _step(_LOAD, _MACHINE),
            _step(_EQUAL, machine, 1, 0),
            _step(_RETURN, KILL),
            _step(_LOAD, _NUMBER),
            _step(_ABOVE, _X32, 0, 1),
            _step(_RETURN, KILL),
            *(step for rule in rules for step in rule),
            _step(_RETURN, ALLOW),
        ]
    )


def install(filter_program: bytes) -> None:
    """Put a filter on all threads of this process, present and to come. ``PR_SET_NO_NEW_PRIVS`` must be set.

    Raises:
        OSError: the kernel refuses, or a thread has a filter of its own that does not go with this one.
    """
    steps = _Program(len(filter_program) // 8, filter_program)
    left = _seccomp(_SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(steps))
    if left > 0:
        raise OSError(f"seccomp: thread {left} cannot be given the filter")
    if left < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def _by_argument(name: str, argument: int, tests: Sequence[bytes], verdict: int, otherwise: int) -> Rules:
    number = _number(name)
    if number is not None:
        load = _step(_LOAD, _ARGUMENTS + 8 * argument)  # both machines are little-endian: the low half comes first
        steps = [load, *(test + _step(_RETURN, verdict) for test in tests), _step(_RETURN, otherwise)]
        yield _step(_EQUAL, number, 0, 2 * len(tests) + 2) + b"".join(steps)


def _number(name: str) -> int | None:
    column, _ = _MACHINES[platform.machine()]
    return _CALLS[name][column]


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; a jump skips so many of the next ones."""
    return struct.pack("<HBBI", code, yes, no, value)


_libc = ctypes.CDLL(None, use_errno=True)


def _seccomp(operation: int, flags: int, argument: object) -> int:
    found: int = _libc.syscall(
        ctypes.c_long(_number("seccomp") or 0), ctypes.c_uint(operation), ctypes.c_uint(flags), argument
    )
    return found
