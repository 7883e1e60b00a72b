"""Settings made to fit into what a job is allowed or can have: ``memory`` (``--memory 4GiB``), and ``/dev/shm``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ....errors import ConfigError, SharedMemoryFullError
from ....formatting import size
from ....shm import no_room
from ...config.model import ServiceConfig
from ...machine.resources import usable_cores
from ...sources import SourceMemory
from .largest import USEFUL, cramped, halves, largest, lowered
from .memory_estimate import MemoryEstimate, estimate_memory
from .payloads import with_payloads
from .plan import Plan

_LEAST_INSERTED: Final = 16


def fit_to_memory(
    plan: Plan,
    config: ServiceConfig,
    entries: int | None = None,
    letters: int = 0,
    room: int | None = None,
    *,
    in_memory: bool = False,
    source: SourceMemory | None = None,
) -> tuple[ServiceConfig, MemoryEstimate]:
    """The configuration as it can be run in ``config.memory`` and in the shared memory there is, and what it takes.

    What the user has set (a profile's values too) stays as it is. Of the rest slots are given up first, then rows of a
    call to the store, then the size of batches, and workers last. Without ``memory`` and ``room`` nothing is changed.

    Args:
        plan: see `estimate_memory`; likewise entries and letters.
        config: settings.
        entries: of the job's books.
        letters: dead letters in them.
        room: bytes that ``/dev/shm`` has for the rings; None: do not look at it.
        in_memory: whether pictures come as bytes or arrays: then the least of them that `with_payloads` counts has room
            in ``memory``, too.
        source: what reading takes.

    Raises:
        ConfigError: even the smallest does not fit into ``memory``; the message has its parts.
        SharedMemoryFullError: even the smallest does not fit into ``/dev/shm``.
    """

    def ceiling(settings: Mapping[str, int]) -> MemoryEstimate:
        return estimate_memory(
            plan, config.model_copy(update=dict(settings)), entries, letters, source or SourceMemory()
        )

    def counted(found: MemoryEstimate) -> MemoryEstimate:
        return with_payloads(found)[0] if in_memory else found

    def fits(settings: Mapping[str, int]) -> bool:
        found = counted(ceiling(settings))
        return (limit is None or found.total <= limit) and (room is None or found.rings <= room)

    limit = config.memory
    wanted = ceiling({})
    if limit is None and room is None:
        return config, wanted
    options = _options(plan, config)
    chosen = largest(options, fits)
    if chosen is None:
        least = ceiling({name: values[-1] for name, values in options.items()})
        raise _refusal(counted(least), config)
    smaller = lowered(options, chosen)
    crowded = cramped(wanted.rings, room, smaller) if room is not None and smaller else ""
    return config.model_copy(update=chosen), replace(ceiling(chosen), lowered=smaller, cramped=crowded)


def _options(plan: Plan, config: ServiceConfig) -> dict[str, list[int]]:
    workers = config.workers or usable_cores()
    free = {
        "workers": list(range(workers, 0, -1)),
        "batch_size": halves(config.batch_size, 1),
        "insert_batch_size": halves(config.insert_batch_size, _LEAST_INSERTED),
        "slots": list(range(plan.slots(config, workers), 0, -1)),
    }
    return {name: values[:1] if _is_set(config, name) else values for name, values in free.items()}


def _is_set(config: ServiceConfig, name: str) -> bool:
    return name in config.model_fields_set and getattr(config, name) is not None


def _refusal(least: MemoryEstimate, config: ServiceConfig) -> ConfigError | SharedMemoryFullError:
    kept = [f"{name}={getattr(config, name)}" for name in USEFUL if _is_set(config, name)]
    stands = f" (with {', '.join(kept)}, as set)" if kept else ""
    if least.limit is None or least.total <= least.limit:
        return SharedMemoryFullError(no_room(least.rings) + stands)
    return ConfigError(
        f"memory: {size(least.limit)} is too little, this job takes up to {size(least.total)} at the least{stands}:\n"
        f"{least.table()}\n"
        "allow more, or lower max_pixels (--max-pixels), max_file_bytes or image_size"
    )
