"""What this process may use of its machine: cores and memory, as containers limit them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

CGROUP: Final = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores this process may run on (affinity)."""
    return len(os.sched_getaffinity(0))


def core_quota(cgroup: Path = CGROUP) -> float | None:
    """Cores' worth of time a container is given; None without a limit."""
    quota, period = _words(cgroup / "cpu.max") or ("max", "100000")
    if quota == "max":  # not version 2, or no limit there
        quota = " ".join(_words(cgroup / "cpu" / "cpu.cfs_quota_us"))
        period = " ".join(_words(cgroup / "cpu" / "cpu.cfs_period_us"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def memory_limit(cgroup: Path = CGROUP) -> int | None:
    """Bytes a container may use; None without a limit."""
    for file in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        words = _words(file)
        # Version 1 says "no limit" with a number near 2**63.
        if words and words[0].isdigit() and int(words[0]) < 2**60:
            return int(words[0])
    return None


def memory_total(cgroup: Path = CGROUP) -> int:
    """Bytes there are, for the machine or for the container."""
    import psutil

    total = int(psutil.virtual_memory().total)
    limit = memory_limit(cgroup)
    return total if limit is None else min(total, limit)


def memory_available(cgroup: Path = CGROUP) -> int:
    """Bytes that can be had now, as far as the machine and the container's limit say."""
    import psutil

    available = int(psutil.virtual_memory().available)
    limit = memory_limit(cgroup)
    return available if limit is None else min(available, max(0, limit - _memory_held(cgroup)))


def _memory_held(cgroup: Path) -> int:
    """Bytes the container has in use, without file pages that the kernel takes back when it needs them."""
    for folder, used, idle in (
        (cgroup, "memory.current", "inactive_file"),
        (cgroup / "memory", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        words, stat = _words(folder / used), _words(folder / "memory.stat")
        if words:
            return int(words[0]) - int(dict(zip(stat[::2], stat[1::2], strict=False)).get(idle, 0))
    return 0


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
