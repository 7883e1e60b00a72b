"""That no slot of a worker pool is lost: what every test is looked at for afterwards."""

from __future__ import annotations

import weakref
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from penstock.engine.workers import PreprocessPool
from penstock.shm import SlotState


def in_use(pool: PreprocessPool) -> dict[str, int]:
    """How many slots are not free, by state."""
    return {state.value: number for state, number in pool.states.items() if number and state is not SlotState.FREE}


class SlotWatch:
    """Knows the pools of this process, and which of them had slots in use when they were closed."""

    def __init__(self) -> None:
        self._pools: weakref.WeakSet[PreprocessPool] = weakref.WeakSet()
        self._lost: list[dict[str, int]] = []

    @contextmanager
    def watching(self) -> Generator[None]:
        """Notice each pool that is started or closed."""
        start, close = PreprocessPool.start, PreprocessPool.close

        def noted(pool: PreprocessPool) -> None:
            self._pools.add(pool)
            start(pool)

        def looked_at(pool: PreprocessPool) -> None:
            if not pool.is_broken and (found := in_use(pool)):
                self._lost.append(found)
            close(pool)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PreprocessPool, "start", noted)
            patch.setattr(PreprocessPool, "close", looked_at)
            yield

    def lost(self) -> list[dict[str, int]]:
        """Slots in use of pools that have been closed since the last time, and of those that are warm now."""
        lost, self._lost = self._lost, []
        return lost + [found for pool in list(self._pools) if (found := in_use(pool))]
