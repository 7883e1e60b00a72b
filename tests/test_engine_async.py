"""Reading a pipeline in a coroutine, ``async for``: the loop goes on, and nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from penstock import PipelineFailure
from penstock.engine import ItemFailure, PipelineBuilder, PlainValues
from penstock.tests.coroutines import numbers, readers, until, waiting_for
from penstock.tests.waiting import DEADLINE

# -- reading ----------------------------------------------------------------------------------------------------------


def test_async_for_reads_all_in_order() -> None:
    """It starts the pipeline, as the first read does; once exhausted it gives nothing."""

    async def main() -> None:
        pipeline = numbers()
        assert [item async for item in pipeline] == list(range(20))
        assert [item async for item in pipeline] == []
        with pytest.raises(EOFError):
            await pipeline.aget_item()
        assert pipeline.report().accounting.delivered == 20

    asyncio.run(main())


def test_the_loop_goes_on_while_an_item_is_awaited() -> None:
    """What the reader waits for comes from another task of the same loop."""
    go = threading.Event()

    async def main() -> None:
        pipeline = PipelineBuilder().add_source(waiting_for(go)).add_sink().build(num_threads=1)

        async def free() -> None:
            await until(lambda: readers(pipeline))
            go.set()

        async with pipeline.auto_stop():
            assert await pipeline.aget_item() == 1
            other = asyncio.create_task(free())
            assert [item async for item in pipeline] == [2]
            await other

    asyncio.run(main())


def test_a_reader_that_never_waits_lets_others_have_their_turn() -> None:
    """Also where everything lies ready."""

    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        pipeline = PipelineBuilder().add_source(range(50)).add_sink(50).build(num_threads=1)
        pipeline.start()
        await until(lambda: pipeline.report().stages[-1].in_flight == 50)
        task = asyncio.create_task(other())
        before = turns
        assert [item async for item in pipeline] == list(range(50))
        assert turns - before >= 49
        task.cancel()

    asyncio.run(main())


def test_readers_of_all_kinds_share_one_stream() -> None:
    """Tasks of two loops and a thread: each item goes to one of them."""
    pipeline = PipelineBuilder().add_source(range(600)).pipe(lambda x: x).add_sink(2).build(num_threads=1)
    got: list[list[int]] = [[] for _ in range(4)]

    async def read(mine: list[int]) -> None:
        mine += [item async for item in pipeline]

    async def both() -> None:
        await asyncio.gather(read(got[0]), read(got[1]))

    threads = [
        threading.Thread(target=lambda: asyncio.run(both())),
        threading.Thread(target=lambda: asyncio.run(read(got[2]))),
        threading.Thread(target=lambda: got[3].extend(pipeline)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(itertools.chain(*got)) == list(range(600))
    pipeline.report().check(ended=True)


@pytest.mark.parametrize("steps", range(6))
def test_cancelling_a_reader_loses_nothing(steps: int) -> None:
    """At whatever step: the item is its result, or it is still there for the next one."""

    async def main() -> None:
        pipeline = numbers(200)
        got: list[int] = []
        with suppress(EOFError):
            while True:
                reader = asyncio.create_task(pipeline.aget_item())
                for _ in range(steps):
                    await asyncio.sleep(0)
                reader.cancel()
                with suppress(asyncio.CancelledError):
                    got.append(await reader)
                got.append(await pipeline.aget_item())
        assert got == list(range(200))
        assert readers(pipeline) == 0

    asyncio.run(main())


def test_a_timeout_loses_nothing() -> None:
    """`asyncio.timeout` around a read: what comes later is read by the next one, also of the same iterator."""
    go = threading.Event()

    async def main() -> None:
        async with PipelineBuilder().add_source(waiting_for(go)).add_sink().build(num_threads=1).auto_stop() as stream:
            items = aiter(stream)
            assert await anext(items) == 1
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(items)
            assert readers(stream) == 0
            go.set()
            assert await anext(items) == 2

    asyncio.run(main())


def test_the_work_for_failures_is_done_beside_the_loop_and_to_its_end() -> None:
    """It may wait for a disk, so not in the loop's thread; a reader that is cancelled meanwhile does not undo it."""
    go, where = threading.Event(), list[int]()

    class Letters(PlainValues):
        def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> Callable[[], object] | None:
            def write() -> None:
                where.append(threading.get_ident())

            return write

    def op(x: int) -> int:
        if x == 0:
            raise ValueError(x)
        return x

    async def main() -> None:
        builder = PipelineBuilder(Letters()).add_source(range(3)).pipe(op).add_sink()
        threads = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(threads)
        threads.submit(go.wait, DEADLINE)  # so that the work has not begun when its reader is cancelled
        async with builder.build(num_threads=1).auto_stop() as pipeline:
            reader = asyncio.create_task(pipeline.aget_item())
            await until(threads._work_queue.qsize)  # pyright: ignore[reportPrivateUsage]
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            assert pipeline.report().accounting.failed == 0
            go.set()
            assert [item async for item in pipeline] == [1, 2]
            await until(lambda: pipeline.report().accounting.failed == 1)
            pipeline.report().check(ended=True)

    asyncio.run(main())
    assert where
    assert threading.get_ident() not in where


def test_a_failure_comes_after_what_is_past_it_and_at_every_further_read() -> None:
    """As for plain readers; a stop that comes afterwards raises nothing."""

    def op(x: int) -> int:
        if x == 3:
            raise ValueError(x)
        return x

    async def main() -> None:
        builder = PipelineBuilder().add_source(range(9)).pipe(op, output_order="input", max_failures=0)
        pipeline = builder.add_sink().build(num_threads=1)
        got: list[int] = []

        async def read() -> None:
            async for item in pipeline:
                got.append(item)  # noqa: PERF401  (those before the failure count)

        for _ in range(2):
            with pytest.raises(PipelineFailure):
                await read()
        assert got == [0, 1, 2]
        await pipeline.astop()

    asyncio.run(main())
