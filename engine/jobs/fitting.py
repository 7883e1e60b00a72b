"""Settings made to fit into the memory that a job is allowed: ``memory``, ``--memory 4GiB``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ...errors import ConfigError
from ..config import ServiceConfig
from ..machine import cores
from ..wording import size
from .ceiling import Ceiling, ceiling_of
from .plan import Plan

_USEFUL: Final = {"workers": 1, "batch_size": 8, "insert_batch_size": 32, "slots": 2}
"""The order in which settings are dear, the dearest first, and what each is worth having still. Below, a worker waits
for every slot and a message costs as much as its pictures."""

_LEAST_INSERTED: Final = 16


def fitted(
    plan: Plan, config: ServiceConfig, entries: int | None = None, letters: int = 0
) -> tuple[ServiceConfig, Ceiling]:
    """The configuration as it can be run in ``config.memory``, and what it takes at most.

    What the user has set (a profile's values too) stays as it is. Of the rest slots are given up first, then rows of a
    call to the store, then the size of batches, and workers last. Without ``memory`` nothing is changed.

    Args:
        plan: see `ceiling_of`; likewise entries and letters.
        config: settings.
        entries: of the job's books.
        letters: dead letters in them.

    Raises:
        ConfigError: even the smallest does not fit; the message has its parts.
    """

    def ceiling(settings: Mapping[str, int]) -> Ceiling:
        return ceiling_of(plan, config.model_copy(update=dict(settings)), entries, letters)

    limit = config.memory
    if limit is None:
        return config, ceiling({})
    options = _options(plan, config)
    least = {name: values[-1] for name, values in options.items()}
    for some in (_above(options), _below(options)):
        chosen = {name: values[-1] for name, values in some.items()}
        if ceiling(chosen).total > limit:
            continue
        for name, values in some.items():
            chosen[name] = next(value for value in values if ceiling({**chosen, name: value}).total <= limit)
        lowered = [
            f"{name} {value}, not {options[name][0]}" for name, value in chosen.items() if value < options[name][0]
        ]
        return config.model_copy(update=chosen), replace(ceiling(chosen), lowered=tuple(lowered))
    raise ConfigError(_too_little(ceiling(least), config, limit))


def allowed(plan: Plan, config: ServiceConfig) -> Ceiling:
    """What a configuration takes at most that is not to be changed any more.

    Raises:
        ConfigError: more than its ``memory``; the message has the parts.
    """
    found = ceiling_of(plan, config)
    if config.memory is not None and found.total > config.memory:
        raise ConfigError(
            f"memory: {size(config.memory)} is too little for {config.workers or cores()} workers and batches of"
            f" {config.batch_size}, which take up to {size(found.total)}:\n{found.table()}"
        )
    return found


def _options(plan: Plan, config: ServiceConfig) -> dict[str, list[int]]:
    """What each setting may become, the best first."""
    workers = config.workers or cores()
    free = {
        "workers": list(range(workers, 0, -1)),
        "batch_size": _halves(config.batch_size, 1),
        "insert_batch_size": _halves(config.insert_batch_size, _LEAST_INSERTED),
        "slots": list(range(plan.slots(config, workers), 0, -1)),
    }
    return {name: values[:1] if _is_set(config, name) else values for name, values in free.items()}


def _is_set(config: ServiceConfig, name: str) -> bool:
    return name in config.model_fields_set and getattr(config, name) is not None


def _halves(value: int, least: int) -> list[int]:
    found = [value]
    while found[-1] // 2 >= least:
        found.append(found[-1] // 2)
    return found


def _above(options: Mapping[str, list[int]]) -> dict[str, list[int]]:
    return {name: [value for value in options[name] if value >= _USEFUL[name]] or options[name][:1] for name in _USEFUL}


def _below(options: Mapping[str, list[int]]) -> dict[str, list[int]]:
    return {
        name: [value for value in options[name] if value <= _USEFUL[name]] or options[name][-1:] for name in _USEFUL
    }


def _too_little(least: Ceiling, config: ServiceConfig, limit: int) -> str:
    kept = [f"{name}={getattr(config, name)}" for name in _USEFUL if _is_set(config, name)]
    stands = f" (with {', '.join(kept)}, as set)" if kept else ""
    return (
        f"memory: {size(limit)} is too little, this job takes up to {size(least.total)} at the least{stands}:\n"
        f"{least.table()}\n"
        "allow more, or lower max_pixels, max_file_bytes or image_size"
    )
