"""Landlock: what this thread, and the threads it starts from now on, may do to files and peers. Without root.

Since Linux 5.13, and where it is switched on. What a ruleset *handles* is forbidden except below the folders it names.
A thread's restriction can be tightened, never loosened.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same on every machine
_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE, _WRITE, _REMOVE_DIR, _REMOVE_FILE, _MAKE_REG = 1 << 0, 1 << 1, 1 << 4, 1 << 5, 1 << 8
_MAKE_ALL: Final = 0b1111111 << 6  # device nodes, folders, files, sockets, FIFOs, symbolic links
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_TCP: Final = 0b11  # bind, connect
_SCOPES: Final = 0b11  # abstract Unix sockets and signals stay among the restricted


def version() -> int:
    """The kernel's version of Landlock; 0 where it has none or does not let us. Changes nothing.

    1: files; 2: renaming across folders; 3: truncating; 4: TCP; 5: device controls; 6: signals, abstract sockets.
    """
    found = _call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    return max(found, 0)


def restrict(folders: Sequence[Path], existing: Sequence[Path] = ()) -> None:
    """Read what this user may read, write nothing but what is allowed here, execute nothing, no TCP.

    As far as this kernel's version goes. Call it before threads start: those that run already stay as they are.
    ``PR_SET_NO_NEW_PRIVS`` must be set. Other processes' memory and environment are closed too (as for ``ptrace``).

    Args:
        folders: where files may be made, written and removed.
        existing: folders whose files may be written, but not made nor removed.

    Raises:
        OSError: the kernel refuses, or a folder is not there.
    """
    number = version()
    handled = _handled(number)
    attributes = struct.pack("<QQQ", handled, _TCP if number >= 4 else 0, _SCOPES if number >= 6 else 0)
    size = 24 if number >= 6 else 16 if number >= 4 else 8
    ruleset = _checked(_CREATE, ctypes.c_char_p(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for folder in folders:
            _allow(ruleset, folder, handled & (_WRITE | _TRUNCATE | _MAKE_REG | _REMOVE_FILE))
        for folder in existing:
            _allow(ruleset, folder, _WRITE)
        _checked(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _handled(number: int) -> int:
    rights = _EXECUTE | _WRITE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_ALL
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEVICE)):
        if number >= since:
            rights |= right
    return rights


def _allow(ruleset: int, folder: Path, rights: int) -> None:
    fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("<Qi", rights, fd)
        _checked(
            _ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.c_char_p(rule), ctypes.c_uint32(0)
        )
    finally:
        os.close(fd)


def _checked(number: int, *arguments: object) -> int:
    found = _call(number, *arguments)
    if found < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return found


_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    found: int = _libc.syscall(ctypes.c_long(number), *arguments)
    return found
