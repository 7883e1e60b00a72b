"""Operations that stand still, and waiting for what is told of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import gevent

from penstock.engine import Pipeline, Stall, green

DEADLINE = 20.0
"""Seconds after which a wait in a test has failed."""

SOON = 0.1
"""Seconds after which a stage counts as standing still here."""


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for something that cannot be waited for otherwise."""
    pause, deadline = threading.Event(), monotonic() + DEADLINE
    while not true():
        assert monotonic() < deadline, "it did not come to pass in time"
        pause.wait(0.005)


def stalls_of(pipeline: Pipeline) -> list[Stall]:
    """Those that are known."""
    return pipeline.report().stalls


def wait_for_stall(pipeline: Pipeline) -> Stall:
    """The first one."""
    wait_until(lambda: bool(stalls_of(pipeline)))
    return stalls_of(pipeline)[0]


def stuck_in(kind: str, go: threading.Event) -> Any:
    """An operation of this kind that waits for `go`."""

    def blocking(item: str) -> str:
        go.wait(DEADLINE)
        return item

    async def asynchronous(item: str) -> str:
        await asyncio.to_thread(go.wait, DEADLINE)
        return item

    @green
    def cooperative(item: str) -> str:
        while not go.is_set():
            gevent.sleep(0.005)
        return item

    def generator(item: str) -> Iterator[str]:
        go.wait(DEADLINE)
        yield item

    return {"blocking": blocking, "async": asynchronous, "green": cooperative, "generator": generator}[kind]
