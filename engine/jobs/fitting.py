"""Settings made to fit into what a job is allowed or can have: ``memory`` (``--memory 4GiB``), and ``/dev/shm``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from ...errors import ConfigError, SharedMemoryFullError
from ...shm import no_room
from ..config import ServiceConfig
from ..machine import SHARED_MEMORY, usable_cores
from ..wording import plural, size
from .ceiling import Ceiling, ceiling_of
from .plan import Plan

_logger = logging.getLogger(__name__)

_USEFUL: Final = {"workers": 1, "batch_size": 8, "insert_batch_size": 32, "slots": 2}
"""The order in which settings are dear, the dearest first, and what each is worth having still. Below, a worker waits
for every slot and a message costs as much as its pictures."""

_LEAST_INSERTED: Final = 16

_MANY_WORKERS: Final = 2
"""Workers for each core that are worth having where storage is slow."""

_MIB: Final = 2**20
_SPARE: Final = 64 * _MIB
"""Shared memory to leave for others, in what is advised."""

Options = Mapping[str, list[int]]
"""What each setting may become, the best first; settings in the order in which they are dear."""


def fitted(
    plan: Plan, config: ServiceConfig, entries: int | None = None, letters: int = 0, room: int | None = None
) -> tuple[ServiceConfig, Ceiling]:
    """The configuration as it can be run in ``config.memory`` and in the shared memory there is, and what it takes.

    What the user has set (a profile's values too) stays as it is. Of the rest slots are given up first, then rows of a
    call to the store, then the size of batches, and workers last. Without ``memory`` and ``room`` nothing is changed.

    Args:
        plan: see `ceiling_of`; likewise entries and letters.
        config: settings.
        entries: of the job's books.
        letters: dead letters in them.
        room: bytes that ``/dev/shm`` has for the rings; None: do not look at it.

    Raises:
        ConfigError: even the smallest does not fit into ``memory``; the message has its parts.
        SharedMemoryFullError: even the smallest does not fit into ``/dev/shm``.
    """

    def ceiling(settings: Mapping[str, int]) -> Ceiling:
        return ceiling_of(plan, config.model_copy(update=dict(settings)), entries, letters)

    def fits(settings: Mapping[str, int]) -> bool:
        found = ceiling(settings)
        return (limit is None or found.total <= limit) and (room is None or found.rings <= room)

    limit = config.memory
    wanted = ceiling({})
    if limit is None and room is None:
        return config, wanted
    options = _options(plan, config)
    chosen = largest(options, fits)
    if chosen is None:
        least = ceiling({name: values[-1] for name, values in options.items()})
        raise _refusal(least, config)
    lowered = tuple(
        f"{name} {value}, not {options[name][0]}" for name, value in chosen.items() if value < options[name][0]
    )
    crowded = cramped(wanted.rings, room, lowered) if room is not None and lowered else ""
    return config.model_copy(update=chosen), replace(ceiling(chosen), lowered=lowered, cramped=crowded)


def largest(options: Options, fits: Callable[[Mapping[str, int]], bool]) -> dict[str, int] | None:
    """The best values that fit together: first those that are worth having at all, then the dearest as good as can be.

    Args:
        options: settings of `fitted`, with what each may become.
        fits: whether these values can be had; with smaller ones it must say yes, too.

    Returns:
        A value for each setting; None: not even the smallest ones fit.
    """
    for some in (_above(options), _below(options)):
        chosen = {name: values[-1] for name, values in some.items()}
        if fits(chosen):
            for name, values in some.items():
                chosen[name] = next(value for value in values if fits({**chosen, name: value}))
            return chosen
    return None


def cramped(wanted: int, room: int, lowered: tuple[str, ...]) -> str:
    """That ``/dev/shm`` has less than was wanted, and what came of it; empty where it has enough."""
    if wanted <= room:
        return ""
    has = f"{SHARED_MEMORY} has {size(room)}, not {size(wanted)}"
    return f"shared memory: {has}: {', '.join(lowered)} ({roomier(wanted)} gives more)"


def roomier(wanted: int) -> str:
    """The option of docker that makes ``/dev/shm`` large enough."""
    return f"docker run --shm-size={-(-(wanted + _SPARE) // _MIB)}m"


def tell_workers(workers: int) -> None:
    """Say so where there are many more workers than cores to run them."""
    cores = usable_cores()
    if workers > _MANY_WORKERS * cores:
        _logger.warning(
            "workers: %d on %s: they take one another's time, and each takes memory and a while to start",
            *(workers, plural(cores, "usable core")),
        )


def tell_cramped(sentence: str) -> None:
    """Say what was made smaller for want of shared memory, if anything was."""
    if sentence:
        _logger.warning("%s", sentence)


def halves(value: int, least: int) -> list[int]:
    """The value, its half, a quarter..., down to ``least``."""
    found = [value]
    while found[-1] // 2 >= least:
        found.append(found[-1] // 2)
    return found


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


def _above(options: Options) -> dict[str, list[int]]:
    return {
        name: [value for value in values if value >= _USEFUL[name]] or values[:1] for name, values in options.items()
    }


def _below(options: Options) -> dict[str, list[int]]:
    return {
        name: [value for value in values if value <= _USEFUL[name]] or values[-1:] for name, values in options.items()
    }


def _refusal(least: Ceiling, config: ServiceConfig) -> ConfigError | SharedMemoryFullError:
    kept = [f"{name}={getattr(config, name)}" for name in _USEFUL if _is_set(config, name)]
    stands = f" (with {', '.join(kept)}, as set)" if kept else ""
    if least.limit is None or least.total <= least.limit:
        return SharedMemoryFullError(no_room(least.rings) + stands)
    return ConfigError(
        f"memory: {size(least.limit)} is too little, this job takes up to {size(least.total)} at the least{stands}:\n"
        f"{least.table()}\n"
        "allow more, or lower max_pixels, max_file_bytes or image_size"
    )
