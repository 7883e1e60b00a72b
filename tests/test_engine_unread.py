"""What lies in the sink when a pipeline is stopped: kept for whoever reads on, or given back where nobody will."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest

from penstock.engine import Pipeline, PipelineBuilder
from penstock.engine.core.values import PlainValues
from penstock.tests.waiting import wait_until


class Owned(PlainValues):
    """Values that own something until they are given back; remembers which were."""

    def __init__(self) -> None:
        self.given_back: list[Any] = []

    def discard(self, value: Any) -> None:
        self.given_back.append(value)


def pipeline_of(values: Owned, source: Iterable[int]) -> Pipeline:
    return PipelineBuilder(values=values).add_source(source).pipe(lambda x: x).add_sink(4).build(num_threads=1)


def fill(pipeline: Pipeline) -> None:
    """Wait until the sink is full."""
    wait_until(lambda: pipeline.report().stages[-1].in_flight == 4)


SOURCES: dict[str, Callable[[], Iterable[int]]] = {"ended": lambda: range(4), "running": itertools.count}


def stopped(pipeline: Pipeline) -> None:
    pipeline.stop(discard=True)


def left(pipeline: Pipeline) -> None:
    """By an exception in the block that reads it."""
    with suppress(LookupError), pipeline.auto_stop(discard=True):
        fill(pipeline)
        raise LookupError


@pytest.mark.parametrize("how", [stopped, left])
@pytest.mark.parametrize("source", SOURCES)
def test_what_nobody_will_read_is_given_back(how: Callable[[Pipeline], None], source: str) -> None:
    """Each value once, whether the pipeline still ran or had ended by itself; in the books it stays in flight."""
    values = Owned()
    pipeline = pipeline_of(values, SOURCES[source]())
    if how is stopped:
        pipeline.start()
        fill(pipeline)
    how(pipeline)
    accounting = pipeline.report().accounting
    assert sorted(values.given_back) == list(range(accounting.read))
    assert (accounting.in_flight, accounting.delivered) == (accounting.read, 0)
    accounting.check()
    with pytest.raises(EOFError):
        pipeline.get_item()


def test_what_is_in_the_sink_stays_readable_after_a_plain_stop() -> None:
    """Values that own nothing are worth reading."""
    values = Owned()
    pipeline = pipeline_of(values, range(4))
    pipeline.start()
    fill(pipeline)
    pipeline.stop()
    assert list(pipeline) == [0, 1, 2, 3]
    assert not values.given_back


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_in_the_sink_of_a_forgotten_pipeline_is_given_back(source: str) -> None:
    """Nobody can read it any more."""
    values = Owned()
    pipeline = pipeline_of(values, SOURCES[source]())
    pipeline.start()
    fill(pipeline)
    del pipeline
    gc.collect()
    wait_until(lambda: set(range(4)) <= set(values.given_back))
    assert len(values.given_back) == len(set(values.given_back))


def test_a_read_that_times_out_leaves_nothing_behind() -> None:
    """A reader may look up as often as it likes while nothing comes."""
    pipeline = PipelineBuilder().add_source(iter([])).pipe(lambda x: x).add_sink().build(num_threads=1)
    output = pipeline._runtime.output  # pyright: ignore[reportPrivateUsage]
    for _ in range(100):
        with pytest.raises(TimeoutError):
            output.take(1e-6)
    assert not output._readers  # pyright: ignore[reportPrivateUsage]
