"""The worker pool of a pipeline: started when first needed, used again while it is what is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from ....errors import ConfigError
from ....preprocess.slot_layout import dimension_of
from ....shm import SlotState
from ...config.model import ServiceConfig
from ...machine.resources import shared_memory_room, usable_cores
from ...workers.pool import SlotPool
from .autosize import fit_to_memory
from .largest import tell_cramped, tell_workers
from .memory_estimate import MemoryEstimate
from .plan import Plan

P = TypeVar("P", bound=SlotPool[Any, Any])


class PoolCache(Generic[P]):
    """None, or one pool, which serves one job at a time.

    Args:
        make: makes one, not started; its slots are those of pictures (``preprocess.slot_layout``).
    """

    def __init__(self, make: Callable[[Plan, ServiceConfig], P]) -> None:
        self._make = make
        self._pool: P | None = None
        self._asked: tuple[int, int] | None = None
        self._ceiling: MemoryEstimate | None = None
        self._serving = threading.Lock()

    @contextmanager
    def serving(self) -> Generator[None]:
        """While the block runs its job has the pool to itself.

        Raises:
            ConfigError: another job has it.
        """
        if not self._serving.acquire(blocking=False):
            raise ConfigError(
                "this pipeline's workers serve another call (insert_images_streaming, from another thread or from its "
                "own inputs): wait until that has returned, or make a second pipeline"
            )
        try:
            yield
        finally:
            self._serving.release()

    @property
    def ceiling(self) -> MemoryEstimate | None:
        """The most memory that a job with this pool takes; None while there has been none."""
        return self._ceiling

    @property
    def family(self) -> frozenset[int]:
        """Process ids of its workers and their fork server."""
        return self._pool.family if self._pool else frozenset()

    @property
    def dimension(self) -> int | None:
        """Floats of a vector in its slots; None while there is no pool."""
        return dimension_of(self._pool.layout) if self._pool else None

    def started(self, plan: Plan, config: ServiceConfig, *, in_memory: bool = False) -> P:
        """A started pool for the workers and the batch size of the configuration; the warm one, if made for them.

        What the configuration leaves open is made to fit into its memory and into ``/dev/shm``: the pool's
        ``batch_size`` may be smaller. An embedder that does not run in the workers must be open.
        ``in_memory``: see `fit_to_memory`.

        Raises:
            ConfigError: it cannot be made to fit into ``memory``.
            SharedMemoryFullError: nor into ``/dev/shm``.
            WorkerStartError: a worker cannot start.
        """
        asked = (config.batch_size, config.workers or usable_cores())
        # A slot that a server may still use is out of use for good: a pool that holds one is not used again.
        unfit = self._pool and (self._pool.is_broken or self._pool.states[SlotState.QUARANTINED])
        if unfit or self._asked != asked:
            self.close()
        if self._pool is None:
            possible, self._ceiling = fit_to_memory(plan, config, room=shared_memory_room(), in_memory=in_memory)
            tell_cramped(self._ceiling.cramped)
            self._pool, self._asked = self._make(plan, possible), asked
            tell_workers(self._pool.workers)
        self._pool.start()
        return self._pool

    def close(self) -> None:
        """End the workers. Idempotent."""
        pool, self._pool = self._pool, None
        if pool:
            pool.close()
