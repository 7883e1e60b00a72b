"""The worker pool of a pipeline: started when first needed, used again while it is what is asked for."""

from __future__ import annotations

import os

from ...preprocess import PreprocessPool
from ...shm import SlotState
from ..config import ServiceConfig
from .plan import Plan


class WarmPool:
    """None, or one pool. Not thread-safe."""

    def __init__(self) -> None:
        self._pool: PreprocessPool | None = None

    @property
    def family(self) -> frozenset[int]:
        """Process ids of its workers and their ancestor."""
        return self._pool.family if self._pool else frozenset()

    @property
    def dimension(self) -> int | None:
        """Floats of a vector in its slots; None while there is no pool."""
        return self._pool.layout.dimension if self._pool else None

    def started(self, plan: Plan, config: ServiceConfig) -> PreprocessPool:
        """A started pool for the workers and the batch size of the configuration; the warm one, if it has the same.

        An embedder that does not run in the workers must be open.
        """
        count = config.workers or len(os.sched_getaffinity(0))
        # A slot that a server may still use is out of use for good: a pool that holds one is not used again.
        unfit = self._pool and (self._pool.is_broken or self._pool.states[SlotState.QUARANTINED])
        if self._pool and (unfit or (self._pool.batch_size, self._pool.workers) != (config.batch_size, count)):
            self.close()
        if self._pool is None:
            self._pool = plan.pool(config)
        self._pool.start()
        return self._pool

    def close(self) -> None:
        """End the workers. Idempotent."""
        pool, self._pool = self._pool, None
        if pool:
            pool.close()
