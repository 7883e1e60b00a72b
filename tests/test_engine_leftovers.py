"""What stays behind: nothing in memory, no process, and the interpreter can always end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from penstock.engine import PipelineBuilder, green
from penstock.engine.workers.callables import WorkerPool
from penstock.errors import PipelineFailure
from penstock.tests.waiting import DEADLINE, wait_until


class Value:
    """Something that can be watched being collected."""


def all_gone(watched: list[weakref.ref[Any]]) -> bool:
    gc.collect()
    return not any(ref() for ref in watched)


async def same_later(value: Value) -> Value:
    await asyncio.sleep(0)
    return value


@pytest.mark.parametrize("end", ["natural", "early", "failure"])
def test_nothing_of_a_run_stays_in_memory(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the machine nor its values: a service may run a pipeline for every request."""

    def run() -> list[weakref.ref[Any]]:
        def op(value: Value) -> Value:
            if end == "failure":
                raise ValueError
            return value

        values = [Value() for _ in range(20)]
        builder = PipelineBuilder().add_source(values).pipe(same_later).pipe(green(lambda value: value))
        pipeline = builder.pipe(op, max_failures=0).add_sink().build(num_threads=2)
        with contextlib.suppress(PipelineFailure), pipeline.auto_stop():
            assert len(list(itertools.islice(pipeline, 3 if end == "early" else None))) in (3, 20)
        return [*map(weakref.ref, values), weakref.ref(pipeline._runtime)]  # pyright: ignore[reportPrivateUsage]

    with caplog.at_level(logging.CRITICAL, "penstock"):  # a captured record would keep its traceback's frames
        watched = run()
    wait_until(lambda: all_gone(watched))  # what a thread's greenlets held goes a moment after the thread


def test_a_run_that_ends_before_its_start_returns_is_held_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's thread may be faster than the user's."""

    def run() -> weakref.ref[Any]:
        pipeline = PipelineBuilder().add_source([]).add_sink().build(num_threads=1)
        thread = pipeline._runtime._thread  # pyright: ignore[reportPrivateUsage]
        start = thread.start

        def start_and_end() -> None:
            start()
            thread.join(DEADLINE)

        with monkeypatch.context() as patch:
            patch.setattr(thread, "start", start_and_end)
            pipeline.start()
        pipeline.stop()
        return weakref.ref(pipeline._runtime)  # pyright: ignore[reportPrivateUsage]

    watched = run()
    wait_until(lambda: all_gone([watched]))


@pytest.mark.parametrize("kind", ["blocking", "async", "green", "executor"])
def test_a_value_that_was_delivered_is_held_by_nobody(kind: str) -> None:
    """While the pipeline waits for more, what it has passed on is the reader's alone."""
    go = threading.Event()

    def source() -> Iterator[Value]:
        yield from (Value() for _ in range(3))
        go.wait(DEADLINE)

    op: Any = same_later if kind == "async" else (lambda value: value)
    with ThreadPoolExecutor(1) as executor:
        builder = PipelineBuilder().add_source(source())
        builder.pipe(op, kind="green" if kind == "green" else None, executor=executor if kind == "executor" else None)
        with builder.aggregate(1).disaggregate().add_sink().build(num_threads=1).auto_stop() as pipeline:
            watched: list[weakref.ref[Any]] = [weakref.ref(pipeline.get_item(timeout=DEADLINE)) for _ in range(3)]
            wait_until(lambda: all_gone(watched))
            go.set()


# -- whole programs ---------------------------------------------------------------------------------------------------


def program(text: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python program of its own."""
    command = [sys.executable, "-X", "faulthandler", "-W", "error", "-c", text, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


FORGOTTEN = """
import itertools, sys, threading
from penstock.engine import PipelineBuilder
builder = PipelineBuilder().add_source(itertools.count()).pipe(lambda x: x, concurrency=2).add_sink()
pipeline = builder.build(num_threads=2)
print(pipeline.get_item())
"""

BLOCKED = """
import threading
from penstock.engine import PipelineBuilder
inside = threading.Event()
def op(x):
    inside.set()
    threading.Event().wait()
pipeline = PipelineBuilder().add_source([1]).pipe(op).add_sink().build(num_threads=2)
pipeline.start()
inside.wait()
"""

CALLING = """
import time
from penstock import WorkerPool
pool = WorkerPool(1)
calls = [pool.submit(time.sleep, 3600) for _ in range(3)]
while not calls[0].running():
    time.sleep(0.001)
"""

READING = """
import itertools, threading, time
from penstock.engine import PipelineBuilder
def op(x):
    time.sleep(0.01)
    return x
try:
    pipeline = PipelineBuilder().add_source(itertools.count()).pipe(op).add_sink().build(num_threads=1)
    with pipeline.auto_stop():
        for item in pipeline:
            if item == 5:
                print("ready", flush=True)
finally:
    print("threads", threading.active_count(), flush=True)
"""

ASYNC = """
import asyncio
from penstock.engine import PipelineBuilder
async def op(x):
    await asyncio.sleep(3600)
pipeline = PipelineBuilder().add_source([1]).pipe(op).add_sink().build(num_threads=1)
pipeline.start()
print("ready", flush=True)
try:
    pipeline.get_item()
finally:
    pipeline.stop()
"""


@pytest.mark.slow
@pytest.mark.parametrize("text", [FORGOTTEN, BLOCKED, CALLING], ids=["running", "blocked", "calling"])
def test_what_is_forgotten_does_not_keep_the_interpreter(text: str) -> None:
    """The program ends in time, with status 0 and nothing to say, whatever the pipeline or the pool is doing."""
    process = program(text)
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "Fatal" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("text", [READING, ASYNC], ids=["reading", "async"])
def test_ctrl_c_ends_it(text: str) -> None:
    """SIGINT reaches the reader, and leaving the `with` block stops the rest."""
    process = program(text)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=DEADLINE / 2)
    assert "KeyboardInterrupt" in errors
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    if text is READING:
        assert output == "threads 1\n"


@pytest.mark.slow
def test_no_process_remains() -> None:
    """Workers leave with their pool, also when the pipeline was stopped in the middle."""
    before = psutil.Process().children()
    with WorkerPool(2) as pool:
        builder = PipelineBuilder().add_source(itertools.count()).pipe(abs, executor=pool, concurrency=2).add_sink()
        with builder.build(num_threads=1).auto_stop() as pipeline:
            assert pipeline.get_item(timeout=DEADLINE) in (0, 1)
            assert len(psutil.Process().children()) > len(before)
    assert psutil.Process().children() == before


def test_a_fork_does_not_touch_its_parents_pipeline() -> None:
    """A child of the user's own leaves without waiting for threads it does not have."""
    with PipelineBuilder().add_source(range(3)).add_sink().build(num_threads=1).auto_stop() as pipeline:
        assert pipeline.get_item(timeout=DEADLINE) == 0
        runtime = pipeline._runtime  # pyright: ignore[reportPrivateUsage]
        runtime._pid = os.getpid() + 1  # pyright: ignore[reportPrivateUsage]  # what a fork would see
        runtime._at_exit()  # pyright: ignore[reportPrivateUsage]
        runtime._pid = os.getpid()  # pyright: ignore[reportPrivateUsage]
        assert list(pipeline.get_iterator(timeout=DEADLINE)) == [1, 2]
