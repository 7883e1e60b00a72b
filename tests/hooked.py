"""Pipelines with hooks, and a hook that writes down what it sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from penstock.engine import (
    Pipeline,
    PipelineBuilder,
    PlainValues,
    TaskHook,
)
from penstock.tests.waiting import DEADLINE

KINDS = ("blocking", "async", "green", "executor")


class Watch(TaskHook):
    """Writes down what it sees."""

    def __init__(self, name: str = "", seen: list[tuple[Any, ...]] | None = None) -> None:
        self.name = name
        self.seen: list[tuple[Any, ...]] = [] if seen is None else seen

    def note(self, *what: Any) -> None:
        self.seen.append((self.name, *what) if self.name else what)

    @asynccontextmanager
    async def stage_hook(self) -> AsyncGenerator[None]:
        self.note("stage begins")
        try:
            yield
        except BaseException as error:
            self.note("stage fails", type(error))
            raise
        self.note("stage ends")

    @asynccontextmanager
    async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
        self.note("begins", input_item)
        try:
            yield
        except BaseException as error:
            self.note("fails", input_item, type(error))
            raise
        self.note("ends", input_item)


def run(
    op: Callable[..., Any],
    hooks: Sequence[TaskHook],
    source: Any = range(3),
    *,
    kind: str = "blocking",
    values: PlainValues | None = None,
    **knobs: Any,
) -> tuple[list[Any], Pipeline]:
    """All that comes out of one stage."""
    with ThreadPoolExecutor(2) as threads:
        builder = PipelineBuilder(values).add_source(source)
        builder.pipe(
            op,
            name="op",
            kind="green" if kind == "green" else None,
            executor=threads if kind == "executor" else None,
            **knobs,
        )
        pipeline = builder.add_sink().build(num_threads=2, task_hook_factory=lambda _: hooks)
        with pipeline.auto_stop():
            items = list(pipeline.get_iterator(timeout=DEADLINE))
        pipeline.report().check(ended=True)
        return items, pipeline


def odd_fails(x: int) -> int:
    if x % 2:
        raise ValueError(x)
    return 10 * x


async def odd_fails_later(x: int) -> int:
    await asyncio.sleep(0)
    return odd_fails(x)


def operation(kind: str) -> Callable[..., Any]:
    return odd_fails_later if kind == "async" else odd_fails


def three(x: int) -> Iterator[int]:
    yield from (x, x + 1, x + 2)


async def three_later(x: int) -> AsyncIterator[int]:
    for each in three(x):
        yield each
