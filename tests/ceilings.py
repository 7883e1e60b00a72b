"""Memory ceilings of jobs, for tests of what they consist of and of whether they are kept."""

from __future__ import annotations

from typing import Any

from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.memory_estimate import MemoryEstimate, estimate_memory
from penstock.engine.jobs.common.plan import make_plan

KIB, MIB, GIB = 2**10, 2**20, 2**30


def ceiling(entries: int | None = None, **values: Any) -> MemoryEstimate:
    """What a job with these settings takes at most, into a server unless said otherwise."""
    config = ServiceConfig(**{"to": "http://localhost:19530", **values})
    return estimate_memory(make_plan(config), config, entries)
