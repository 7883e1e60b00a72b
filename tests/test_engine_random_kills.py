"""Workers of both pools are killed at random moments under random graphs: nothing is lost, nothing comes twice.

At most two in a run, so that no item can meet three deaths, at which it would be given up as poison.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import PipelineBuilder, green
from penstock.engine.workers import PreprocessPool
from penstock.engine.workers.callables import WorkerPool
from penstock.preprocess import preset
from penstock.tests.graphs import Step, check_delivered, figures, fitted, graphs, model
from penstock.tests.searching import searching
from penstock.tests.waiting import DEADLINE

DEATHS = 2

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("silent")]


@pytest.fixture(scope="module")
def workers() -> Iterator[WorkerPool]:
    """Lives through all that is done to it."""
    with WorkerPool(2, preload=["penstock.tests.graphs"]) as pool:
        yield pool


@contextmanager
def killing(pids: Callable[[], Sequence[int]], draw: random.Random, pause: float) -> Generator[list[int]]:
    """While the block runs, kill one of the processes now and then; what it yields has those that were."""
    stop, killed = threading.Event(), list[int]()

    def kill() -> None:
        while len(killed) < DEATHS and not stop.wait(draw.random() * pause):
            alive = [pid for pid in pids() if pid not in killed]
            if alive:
                killed.append(draw.choice(alive))
                with suppress(ProcessLookupError):  # it left by itself
                    os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        stop.set()
        killer.join(DEADLINE)


some_work = st.lists(st.sampled_from(["pass", "pass", "drop", "raise", "many"]), min_size=1, max_size=5).map(tuple)
first_stages = st.builds(
    Step,
    st.just("executor"),
    many=st.booleans(),
    ordered=st.booleans(),
    concurrency=st.integers(1, 4),
    acts=some_work,
)
killed_in_all: list[int] = []


@searching(30)
@given(first_stages, graphs, st.integers(0, 2**16))
def test_killed_workers_cost_a_random_graph_nothing(
    workers: WorkerPool, first: Step, rest: tuple[Step, ...], seed: int
) -> None:
    """The books and what comes out are the model's, to the last figure."""
    # what stumbles remembers it here, not in a worker
    graph = fitted((first, *(replace(step, stumbles=False) for step in rest[:3])))
    builder = PipelineBuilder().add_source(range(1, 121))
    lanes = False
    for index, step in enumerate(graph):
        step.declare(builder, index, lanes, workers)
        lanes = step.lane
    pipeline = builder.add_sink().build(num_threads=2)
    with killing(lambda: workers.pids, random.Random(seed), 0.03) as killed, pipeline.auto_stop():
        got = list(pipeline.get_iterator(timeout=DEADLINE))
    killed_in_all.extend(killed)
    report = pipeline.report()
    report.check(ended=True)
    expected, books = model(graph, range(1, 121))
    check_delivered(graph, got, expected)
    assert [figures(stage) for stage in report.stages[1:-1]] == books


def test_workers_were_killed_indeed(workers: WorkerPool) -> None:
    """The test before this one shows nothing without; alone it kills its own."""
    if not killed_in_all:
        with killing(
            lambda: workers.pids or [workers.submit(os.getpid).result(DEADLINE)], random.Random(0), 0.01
        ) as own:
            for _ in range(50):
                workers.submit(abs, -1).result(DEADLINE)
        killed_in_all.extend(own)
    assert killed_in_all


def digest(picture: tuple[str, bytes]) -> tuple[str, str]:
    """What a stage of a `WorkerPool` makes of a picture's pixels."""
    name, pixels = picture
    return name, hashlib.sha256(pixels).hexdigest()


@pytest.fixture(scope="module")
def pool() -> Iterator[PreprocessPool]:
    """Serves one pipeline after another."""
    with PreprocessPool(preset("clip", size=64), workers=2, batch_size=3, slots=2) as pool:
        yield pool


def run_both(pool: PreprocessPool, workers: WorkerPool, batches: list[list[Path]]) -> list[tuple[str, str]]:
    """Pictures through both pools; what comes out, each with the digest of its pixels."""

    @green
    def preprocess(batch: list[Path]) -> list[tuple[str, bytes]]:
        slot = pool.process([str(path) for path in batch])
        found = [(batch[row.position].name, slot.view.pixels[at].tobytes()) for at, row in enumerate(slot.rows)]
        slot.release()
        return found

    builder = PipelineBuilder().add_source(batches).add_resource(pool)
    builder.pipe(preprocess, concurrency=pool.capacity).disaggregate()
    builder.pipe(digest, executor=workers, concurrency=3).aggregate(5).disaggregate()
    pipeline = builder.add_sink().build(num_threads=1, max_failures=0)
    with pipeline.auto_stop():
        got: list[Any] = list(pipeline.get_iterator(timeout=DEADLINE))
    pipeline.report().check(ended=True)
    return sorted(got)


def test_killed_workers_of_both_pools_cost_no_picture(
    pool: PreprocessPool, workers: WorkerPool, photos: list[Path]
) -> None:
    """SIGKILL at random moments, ten runs: each picture once, with the same pixels as in a run that nobody disturbs."""
    batches = [photos[start : start + 3] for start in range(0, len(photos), 3)] * 2
    expected = run_both(pool, workers, batches)
    assert len(expected) == 2 * len(photos)
    deaths = 0
    for seed in range(10):
        draw = random.Random(seed)
        with killing(lambda: pool.pids, draw, 0.3) as one, killing(lambda: workers.pids, draw, 0.3) as other:
            assert run_both(pool, workers, batches) == expected, f"seed {seed}"
        deaths += len(one) + len(other)
    assert deaths >= 10
