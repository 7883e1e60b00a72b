"""What this process may use of its machine: cores, memory and shared memory, as containers limit them.

The only place that asks. Everything that needs a default for workers, threads or sizes takes it from here.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

from ...errors import ConfigError
from . import cgroups

CORES_VARIABLE: Final = "PENSTOCK_CORES"
"""Environment variable: the most cores to use, where neither affinity nor a control group says it (Ray, some batch
systems)."""

SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  (POSIX shared memory lives there)

_ROOT: Final = Path("/")


def usable_cores(root: Path = _ROOT) -> int:
    """Cores' worth of work this process may do at once: the least of `core_limits`.

    Args:
        root: where ``/proc`` and ``/sys`` are looked for.

    Raises:
        ConfigError: ``PENSTOCK_CORES`` is no number of cores.
    """
    return min(core_limits(root).values())


def core_limits(root: Path = _ROOT) -> dict[str, int]:
    """What limits the cores, and to how many: ``affinity``, ``cgroup quota``, ``PENSTOCK_CORES``.

    A quota of 1.5 cores is counted as 2: one worker would leave half a core idle.

    Raises:
        ConfigError: ``PENSTOCK_CORES`` is no number of cores.
    """
    limits = {"affinity": len(os.sched_getaffinity(0))}
    quota = cgroups.cpu_quota(root)
    if quota is not None:
        limits["cgroup quota"] = max(1, math.ceil(quota))
    said = os.environ.get(CORES_VARIABLE, "").strip()
    if said:
        if not said.isdecimal() or int(said) < 1:
            raise ConfigError(f"the variable {CORES_VARIABLE}={said!r} must be a whole number of cores, at least 1")
        limits[CORES_VARIABLE] = int(said)
    return limits


def limited_by(root: Path = _ROOT) -> str:
    """Which of `core_limits` leaves this process fewer cores than its machine has; empty where none does."""
    limits = core_limits(root)
    name = min(limits, key=limits.__getitem__)
    return name if limits[name] < machine_cores() else ""


def machine_cores() -> int:
    """Cores of the machine, whoever may use them."""
    return os.cpu_count() or 1


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes a container may use; None without a limit."""
    return cgroups.memory_limit(root)


def memory_total(root: Path = _ROOT) -> int:
    """Bytes there are, for the machine or for the container."""
    import psutil

    total = int(psutil.virtual_memory().total)
    limit = memory_limit(root)
    return total if limit is None else min(total, limit)


def memory_available(root: Path = _ROOT) -> int:
    """Bytes that can be had now, as far as the machine and the container's limits say."""
    import psutil

    available = int(psutil.virtual_memory().available)
    left = cgroups.memory_left(root)
    return available if left is None else min(available, left)


def shared_memory_room(directory: str = SHARED_MEMORY) -> int:
    """Bytes that a job can have in ``/dev/shm``: what is free, and what dead owners left, which its start removes.

    Raises:
        SharedMemoryError: there is no such directory.
    """
    from ...shm import free_bytes, orphans  # NumPy comes with it: `penstock --help` does without

    return free_bytes(directory) + sum(orphan.nbytes for orphan in orphans(directory))
