"""How a pipeline is started and read, and the surroundings it works in."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator

import gevent
import pytest

from penstock.engine import Pipeline, PipelineBuilder
from penstock.tests.waiting import DEADLINE, wait_until

# -- reading ----------------------------------------------------------------------------------------------------------


def small(n: int = 5) -> Pipeline:
    return PipelineBuilder().add_source(range(n)).pipe(lambda x: x).add_sink().build(num_threads=1)


def test_auto_stop_starts_and_stops() -> None:
    """The context manager is all one needs."""
    with small().auto_stop() as pipeline:
        assert list(pipeline) == [0, 1, 2, 3, 4]
    with pytest.raises(EOFError):
        pipeline.get_item()


def test_the_first_read_starts_it() -> None:
    """A pipeline that was not started starts by itself."""
    pipeline = small()
    assert pipeline.get_item(timeout=DEADLINE) == 0
    assert list(pipeline) == [1, 2, 3, 4]
    pipeline.stop()


def test_starting_twice_is_an_error_also_after_a_stop() -> None:
    """A pipeline runs once."""
    pipeline = small()
    pipeline.start()
    with pytest.raises(RuntimeError, match="build another"):
        pipeline.start()
    pipeline.stop()
    with pytest.raises(RuntimeError, match="build another"):
        pipeline.start()
    never = small()
    never.stop()
    with pytest.raises(RuntimeError, match="stopped"):
        never.start()
    with pytest.raises(EOFError):
        never.get_item()


def test_stop_is_idempotent() -> None:
    """One may stop as often as one likes."""
    pipeline = small()
    pipeline.start()
    for _ in range(3):
        pipeline.stop()


def test_iterators_share_one_stream() -> None:
    """A second iterator goes on where the first stopped; an exhausted pipeline yields nothing."""
    with small().auto_stop() as pipeline:
        assert list(itertools.islice(pipeline, 2)) == [0, 1]
        assert list(pipeline.get_iterator(timeout=DEADLINE)) == [2, 3, 4]
        assert list(pipeline) == []
        with pytest.raises(EOFError):
            pipeline.get_item()


def test_an_item_that_comes_after_a_timeout_is_not_lost() -> None:
    """`get_item` and `next` raise TimeoutError, and the item comes at the next read."""
    go = threading.Event()

    def source() -> Iterator[int]:
        assert go.wait(DEADLINE)
        yield 1
        yield 2

    with PipelineBuilder().add_source(source()).add_sink().build(num_threads=1).auto_stop() as pipeline:
        iterator = pipeline.get_iterator(timeout=0.01)
        with pytest.raises(TimeoutError):
            pipeline.get_item(timeout=0.01)
        with pytest.raises(TimeoutError):
            next(iterator)
        go.set()
        assert pipeline.get_item(timeout=DEADLINE) == 1
        assert list(pipeline.get_iterator(timeout=DEADLINE)) == [2]


def test_items_in_the_sink_stay_readable_after_a_stop() -> None:
    """What was finished is not lost by a stop; then comes EOFError for ever."""
    pipeline = PipelineBuilder().add_source(itertools.count()).add_sink(3).build(num_threads=1)
    with pipeline.auto_stop():
        assert pipeline.get_item() == 0
        wait_until(lambda: pipeline.report().stages[-1].in_flight == 3)
    assert list(pipeline) == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(EOFError):
            pipeline.get_item()


def test_several_threads_may_read() -> None:
    """Every item reaches exactly one reader."""
    got: list[int] = []
    with small(200).auto_stop() as pipeline:
        readers = [threading.Thread(target=lambda: got.extend(pipeline)) for _ in range(3)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(DEADLINE)
    assert sorted(got) == list(range(200))


# -- surroundings -----------------------------------------------------------------------------------------------------


def test_works_inside_a_running_asyncio_loop() -> None:
    """The engine's loops are its own."""

    async def main() -> list[int]:
        async def op(x: int) -> int:
            await asyncio.sleep(0)
            return x + 1

        with PipelineBuilder().add_source(range(5)).pipe(op).add_sink().build(num_threads=1).auto_stop() as pipeline:
            return [item async for item in _threaded(pipeline)]

    assert asyncio.run(main()) == [1, 2, 3, 4, 5]


async def _threaded(pipeline: Pipeline) -> AsyncIterator[int]:
    while True:
        try:
            yield await asyncio.to_thread(pipeline.get_item)
        except EOFError:
            return


def test_works_from_any_thread_and_several_at_once() -> None:
    """Eight pipelines in eight threads do not know of one another."""
    results: dict[int, list[int]] = {}

    def run(k: int) -> None:
        builder = PipelineBuilder().add_source(range(50)).pipe(lambda x: x * k, concurrency=2, output_order="input")
        with builder.add_sink().build(num_threads=2).auto_stop() as pipeline:
            results[k] = list(pipeline)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert results == {k: [x * k for x in range(50)] for k in range(8)}


def test_a_pipeline_may_be_an_others_source() -> None:
    """Pipelines compose as iterables."""
    inner = PipelineBuilder().add_source(range(10)).pipe(lambda x: x + 1).add_sink().build(num_threads=1)
    with inner.auto_stop(), PipelineBuilder().add_source(inner).add_sink().build(num_threads=1).auto_stop() as outer:
        assert list(outer) == list(range(1, 11))


def test_patched_threads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a monkey-patched process the engine would take over the host's own hub."""
    monkeypatch.setattr("gevent.monkey.is_module_patched", lambda name: name == "threading")
    with pytest.raises(ValueError, match="monkey-patched"):
        small().start()


def test_gevent_lives_on_in_the_users_thread() -> None:
    """A hub of the user's own is not touched by the engine's."""
    done: list[int] = []
    greenlet = gevent.spawn(done.append, 1)
    with small().auto_stop() as pipeline:
        assert list(pipeline) == [0, 1, 2, 3, 4]
    greenlet.join(DEADLINE)
    assert done == [1]
    gevent.get_hub().destroy()
