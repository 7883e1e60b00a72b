"""What control groups allow this process: read along its own path, from its own group up to the highest it can see.

A limit holds for a group and all groups below it, so each level is asked and the tightest one counts. Both versions are
known, mixed too, with and without a namespace of control groups (where a container sees its own group as ``/``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted hierarchy, as ``/proc/self/mountinfo`` has it.

    Attributes:
        version: 1 or 2.
        controllers: of version 1, e.g. ``{"rw", "cpu", "cpuacct"}`` (among other options).
        top: which of its groups is mounted.
        place: where.
    """

    version: int
    controllers: frozenset[str]
    top: PurePosixPath
    place: Path

    def holds(self, group: PurePosixPath) -> bool:
        """Whether the group lies below what is mounted, and can be seen there."""
        return group.is_relative_to(self.top) and ".." not in group.parts


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Cores' worth of time this process is given; None without a limit.

    Args:
        root: where ``/proc`` and ``/sys`` are looked for.
    """
    found = [quota for folder in _levels("cpu", root) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes this process and its groups may use, hard limits and the ones that slow it down; None without a limit."""
    return min((limit for folder in _levels("memory", root) for limit in _limits(folder)), default=None)


def memory_left(root: Path = _ROOT) -> int | None:
    """Bytes that can still be had below each of these limits; None without a limit."""
    left = (limit - _held(folder) for folder in _levels("memory", root) for limit in _limits(folder))
    least = min(left, default=None)
    return None if least is None else max(0, least)


def _levels(controller: str, root: Path) -> Iterator[Path]:
    """Folders of the process's groups, its own first, up to where its hierarchy is mounted."""
    mounts = _mounts(root)
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        version = 2 if number == "0" and not controllers else 1
        if version == 1 and controller not in controllers.split(","):
            continue
        there = [mount for mount in mounts if mount.version == version]
        if version == 1:
            there = [mount for mount in there if controller in mount.controllers]
        group = PurePosixPath(path)
        # A path outside of all mounts is one of another namespace: then the mount itself is the nearest that is known.
        for mount in [mount for mount in there if mount.holds(group)] or there[-1:]:
            folder = mount.place / group.relative_to(mount.top) if mount.holds(group) else mount.place
            yield folder
            while folder != mount.place:
                folder = folder.parent
                yield folder


def _mounts(root: Path) -> list[_Mount]:
    found: list[_Mount] = []
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(" "), after.split(" ")
        if kind in ("cgroup", "cgroup2") and rest:
            top, place = (_unescaped(field) for field in fields[3:5])
            controllers = frozenset(rest[-1].split(","))
            version = 2 if kind == "cgroup2" else 1
            found.append(_Mount(version, controllers, PurePosixPath(top), root / place.lstrip("/")))
    return found


def _unescaped(field: str) -> str:
    """The kernel writes blanks and the like as ``\\040``."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)


def _quota(folder: Path) -> float | None:
    words = _words(folder / "cpu.max") or [
        *_words(folder / "cpu.cfs_quota_us"),
        *_words(folder / "cpu.cfs_period_us"),
    ]
    if len(words) != 2 or not all(map(str.isdecimal, words)):  # "max", -1, or no such file
        return None
    quota, period = map(int, words)
    return quota / period if period else None


def _limits(folder: Path) -> Iterator[int]:
    for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
        words = _words(folder / name)
        # Version 1 says "no limit" with a number near 2**63.
        if words and words[0].isdecimal() and int(words[0]) < 2**60:
            yield int(words[0])


def _held(folder: Path) -> int:
    """Bytes in use, without file pages that the kernel takes back when it needs them."""
    for used, idle in (("memory.current", "inactive_file"), ("memory.usage_in_bytes", "total_inactive_file")):
        words, stat = _words(folder / used), _words(folder / "memory.stat")
        if words:
            return int(words[0]) - int(dict(zip(stat[::2], stat[1::2], strict=False)).get(idle, 0))
    return 0


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
