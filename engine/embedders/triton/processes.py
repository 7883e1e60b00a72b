"""Which other programs have a segment in their memory: what proves that a server can no longer write there.

An answer of the server's address proves less: a proxy may stand there, the server may have unregistered a region whose
requests still run (releases from the end of 2024 on), and who listens now may be another process than before.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_GONE = (FileNotFoundError, ProcessLookupError)


def started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot, None if there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except _GONE:
        return None
    # The name of the program stands in brackets and may hold anything, also what is no UTF-8.
    return int(status.rpartition(b")")[2].split()[19])


def users(segment: str) -> frozenset[int]:
    """Processes of other programs than this one that have mapped a segment, as far as this one may see them."""
    own = _program("self")
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return frozenset(pid for pid in pids if _program(str(pid)) not in (own, None) and has_mapped(pid, segment))


def has_mapped(pid: int, segment: str) -> bool:
    """Whether a process may have mapped a segment. One that is dead, or a zombie, has not."""
    try:
        return segment.encode() in Path(f"/proc/{pid}/maps").read_bytes()
    except _GONE:
        return False
    except PermissionError:
        return True


def _program(pid: str) -> str | None:
    """The program of a process; None where that is not ours to see."""
    with suppress(*_GONE, PermissionError):
        return os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115  (may hold " (deleted)")
    return None
