"""The largest settings that fit, and how it is said that they are smaller than they would be. Imports nothing large."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from ....formatting import plural, size
from ...machine.resources import SHARED_MEMORY, usable_cores

_logger = logging.getLogger(__name__)

USEFUL: Final = {"workers": 1, "batch_size": 8, "insert_batch_size": 32, "slots": 2}
"""The order in which settings are dear, the dearest first, and what each is worth having still. Below, a worker waits
for every slot and a message costs as much as its pictures."""

_MANY_WORKERS: Final = 2
"""Workers for each core that are worth having where storage is slow."""

_MIB: Final = 2**20
_SPARE: Final = 64 * _MIB
"""Shared memory to leave for others, in what is advised."""

Options = Mapping[str, list[int]]
"""What each setting may become, the best first; settings in the order in which they are dear."""


def largest(options: Options, fits: Callable[[Mapping[str, int]], bool]) -> dict[str, int] | None:
    """The best values that fit together: first those that are worth having at all, then the dearest as good as can be.

    Args:
        options: settings of `fit_to_memory`, with what each may become.
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


def lowered(options: Options, chosen: Mapping[str, int]) -> tuple[str, ...]:
    """Of each setting that is smaller than the best, what it is, and what it is not."""
    best = {name: options[name][0] for name in chosen}
    return tuple(f"{name} {value}, not {best[name]}" for name, value in chosen.items() if value < best[name])


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


def _above(options: Options) -> dict[str, list[int]]:
    return {
        name: [value for value in values if value >= USEFUL[name]] or values[:1] for name, values in options.items()
    }


def _below(options: Options) -> dict[str, list[int]]:
    return {
        name: [value for value in values if value <= USEFUL[name]] or values[-1:] for name, values in options.items()
    }
