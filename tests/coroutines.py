"""Pipelines that coroutines read, and waiting in a coroutine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

from penstock.engine import Pipeline, PipelineBuilder
from penstock.tests.waiting import DEADLINE


def numbers(count: int = 20) -> Pipeline:
    return PipelineBuilder().add_source(range(count)).pipe(lambda x: x).add_sink(2).build(num_threads=1)


def waiting_for(go: threading.Event) -> Iterator[int]:
    """One value, and a second one after `go`."""
    yield 1
    assert go.wait(DEADLINE)
    yield 2


def readers(pipeline: Pipeline) -> int:
    """How many wait for an item."""
    return len(pipeline._runtime.output._readers)  # pyright: ignore[reportPrivateUsage]


async def until(true: Callable[[], object]) -> None:
    """As `wait_until`, while the loop goes on."""
    async with asyncio.timeout(DEADLINE):
        while not true():  # noqa: ASYNC110  (what is waited for happens in other threads)
            await asyncio.sleep(0.005)
