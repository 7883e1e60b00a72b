"""Operations that stand still, and waiting for what is told of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import gevent

from penstock.engine import Pipeline, Stall, green
from penstock.tests.waiting import DEADLINE, wait_until

SOON = 0.1
"""Seconds after which a stage counts as standing still here."""


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
