"""Random graphs with random failures against an independent model (``graphs.py``): nothing lost, nothing doubled.

The books of each stage are those of the model, to the last figure, and hold at any moment; and an early end leaves what
came out, what did not, and no thread.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import Pipeline, PipelineBuilder, Report, TaskHook
from penstock.errors import AccountingError, PipelineFailure
from penstock.tests.graphs import Step, check_delivered, figures, graphs, leaves, model
from penstock.tests.searching import searching
from penstock.tests.waiting import DEADLINE, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("silent")]


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    """Somebody else's threads."""
    with ThreadPoolExecutor(3, "foreign") as threads:
        yield threads


# -- sources and ends -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """How a graph is fed, and how it ends.

    Attributes:
        size: values of the source.
        source: what kind; one that fails does so behind its last value.
        end: read to its end, or stopped or drained after `after` values.
        hooks: around each task, which change nothing.
    """

    size: int
    source: Literal["list", "generator", "async", "fails"]
    sink: int
    threads: int
    end: Literal["whole", "stop", "drain"]
    after: int
    hooks: bool = False


runs = st.builds(
    Run,
    st.integers(0, 24),
    st.sampled_from(["list", "generator", "async", "fails"]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["whole", "whole", "stop", "drain"]),
    st.integers(0, 8),
    hooks=st.sampled_from([False, False, True]),
)


class Hook(TaskHook):
    """One that waits, and swallows what it can."""

    @asynccontextmanager
    async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
        await asyncio.sleep(0)
        with suppress(BaseException):
            yield
        await asyncio.sleep(0)


class SourceBroke(OSError):
    """The failure of a source."""


def values_of(run: Run) -> Iterable[int] | AsyncIterator[int]:
    """The numbers from 1, in one of the ways in which a source gives them."""

    def plain() -> Iterator[int]:
        yield from range(1, run.size + 1)
        if run.source == "fails":
            raise SourceBroke

    async def later() -> AsyncIterator[int]:
        for value in plain():
            yield value

    return list(plain()) if run.source == "list" else later() if run.source == "async" else plain()


@contextmanager
def watched(pipeline: Pipeline) -> Generator[None]:
    """While the block runs, another thread checks the books of each stage again and again."""
    stop, wrong = threading.Event(), list[AccountingError]()

    def watch() -> None:
        while not stop.wait(0.002):
            try:
                pipeline.snapshot().check()
            except AccountingError as error:
                wrong.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join(DEADLINE)
    assert not wrong


def own_threads() -> set[str]:
    """Those of pipelines that run."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("penstock-")}


def check_no_thread_is_left() -> None:
    """At once after a stop, soon after a pipeline was forgotten."""
    wait_until(lambda: not own_threads(), "the end of all threads")


# -- one example ------------------------------------------------------------------------------------------------------


def build(graph: Sequence[Step], run: Run, executor: Executor) -> Pipeline:
    builder = PipelineBuilder().add_source(values_of(run))
    lanes = False
    for index, step in enumerate(graph):
        step.declare(builder, index, lanes, executor)
        lanes = step.lane
    return builder.add_sink(run.sink).build(
        num_threads=run.threads, task_hook_factory=(lambda _: [Hook(), Hook()]) if run.hooks else None
    )


def perform(pipeline: Pipeline, run: Run) -> tuple[list[Any], list[type[Exception]]]:
    """Run it as the run says; returns all that was delivered, and why it failed, if it did."""
    got: list[Any] = []
    causes: list[type[Exception]] = []
    with watched(pipeline):
        try:
            with pipeline.auto_stop():
                items = pipeline.get_iterator(timeout=DEADLINE)
                got.extend(items if run.end == "whole" else itertools.islice(items, run.after))
                if run.end == "drain":
                    pipeline.drain(timeout=DEADLINE)
                    got.extend(items)
        except PipelineFailure as failure:
            causes = [type(cause) for cause in failure.exceptions]
        with suppress(PipelineFailure):
            got.extend(pipeline)  # what still lay in the sink
    return got, causes


def check(graph: Sequence[Step], run: Run, got: Sequence[Any], report: Report) -> None:
    """The books hold; and where nothing was cut off they are the model's, as is what was delivered."""
    report.check()
    books = report.accounting
    assert books.delivered == len(got)
    if run.end == "stop" or (run.end == "drain" and any(step.stumbles for step in graph)):
        # what waited to be tried again when the drain came is in flight
        expected, _ = model(graph, range(1, run.size + 1))
        assert not Counter(leaves(got)) - Counter(leaves(expected))
        return
    assert books.read == run.size or run.end == "drain"
    assert books.in_flight == 0
    expected, stages = model(graph, range(1, books.read + 1))
    check_delivered(graph, got, expected)
    assert [figures(stage) for stage in report.stages[1:-1]] == stages


@searching(100)
@given(graphs, runs)
def test_any_graph_does_with_each_value_what_the_model_says(
    executor: Executor, graph: tuple[Step, ...], run: Run
) -> None:
    """Kinds of stages, orders, lanes, loops; drops, errors of all kinds, second attempts; sources; early ends."""
    pipeline = build(graph, run, executor)
    got, causes = perform(pipeline, run)
    check(graph, run, got, pipeline.report())
    assert set(causes) <= ({SourceBroke} if run.source == "fails" else set())
    assert causes or run.source != "fails" or run.end != "whole"
    check_no_thread_is_left()


@searching(12)
@given(graphs, runs)
def test_any_graph_that_is_forgotten_ends(executor: Executor, graph: tuple[Step, ...], run: Run) -> None:
    """In the middle of its work; no thread of it remains."""
    pipeline = build(graph, run, executor)
    with suppress(PipelineFailure):
        for _ in itertools.islice(pipeline, run.after):
            pass
    del pipeline
    gc.collect()
    check_no_thread_is_left()
