"""A job that stands still, seen from outside: what the command says by itself, and what it says to SIGUSR1."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest

from penstock.engine.cli.options import configured
from penstock.engine.cli.sigusr1 import dumping
from penstock.engine.jobs.images.pipeline import ImageEmbeddingPipeline
from penstock.engine.workers import PreprocessPool
from penstock.preprocess import PreprocessSpec, Row
from penstock.tests.standard_error import kept_in
from penstock.tests.waiting import DEADLINE, wait_until

EMBEDDER = """
    import numpy as np
    from pathlib import Path

    calls = []

    def waits(pixels):
        calls.append(len(pixels))
        while len(calls) > 1 and not Path({go!r}).exists():  # the first call is a probe
            pass
        return np.ones((len(pixels), 8), np.float32)
"""


class Job:
    """``penstock embed`` of the example photographs with an embedder that waits for a file, in a group of its own."""

    def __init__(self, folder: Path, photos: Path) -> None:
        self.go, self._errors = folder / "go", folder / "errors.txt"
        (folder / "slow_embedder.py").write_text(textwrap.dedent(EMBEDDER).format(go=str(self.go)))
        arguments = ["embed", str(photos), "--to", str(folder / "rows.db"), "--embedder", "python:slow_embedder:waits"]
        options = ["--progress", "none", "--stall-after", "1", "--workers", "1", "--batch-size", "8"]
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "penstock", *arguments, *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": str(folder)},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it has written to standard error by now."""
        return self._errors.read_text()

    def wait_for(self, words: str) -> None:
        """Until it has said this."""
        wait_until(lambda: words in self.said or self.process.poll() is not None)
        assert words in self.said

    def workers(self) -> list[psutil.Process]:
        """Its preprocessing processes, and the server they were forked from."""
        return [
            each
            for each in psutil.Process(self.process.pid).children(recursive=True)
            if each.name().startswith("penstock-")
        ]


@pytest.fixture
def job(tmp_path: Path, photos: list[Path]) -> Iterator[Job]:
    """Running; killed at the end if it still does."""
    job = Job(tmp_path, photos[0].parent)
    with job.process:
        yield job
        job.process.kill()


@pytest.mark.slow
def test_a_job_that_stands_still_says_where_and_goes_on(job: Job, photos: list[Path]) -> None:
    """By itself also without any progress display, and at each SIGUSR1; which harms neither it nor its workers."""
    job.wait_for("stage embed stands still for")
    assert "preprocess stands still" not in job.said.partition("stage embed stands still for")[2]  # it waits for slots
    said = job.said
    for words in (".jpg and 7 more, for ", "slow_embedder.py:", "in waits: while len(calls)", "waiting: preprocess"):
        assert words in said
    assert "worker 0 (pid " in said

    os.killpg(job.process.pid, signal.SIGUSR1)
    job.wait_for("thread MainThread")
    said = job.said
    assert "Stack (most recent call first):" in said
    assert f"process {job.process.pid}: 1 pipeline\npenstock-1 has been running for" in said
    assert re.search(r"\n  embed \d/2: \d at work, the oldest for", said)

    family = job.workers()
    assert {process.name() for process in family} == {"penstock-zygote", "penstock-worker"}
    stacks = job.said.count("Stack (most recent call first):")
    for process in family:
        process.send_signal(signal.SIGUSR1)
    wait_until(lambda: job.said.count("Stack (most recent call first):") > stacks)
    assert "preprocess/worker/worker.py" in job.said
    assert all(process.is_running() for process in family)

    job.go.touch()
    assert job.process.wait(DEADLINE) == 0
    assert job.process.stdout is not None
    report = job.process.stdout.read().decode()
    assert f"{len(photos)} dead" not in report
    # On a slow machine the worker's first batch may have stood still for as long.
    assert re.search(r"stood still: .*embed for", report)
    assert "stage embed went on after" in job.said


@pytest.mark.slow
@pytest.mark.usefixtures("own_fork_server")
def test_a_worker_in_the_sandbox_answers_sigusr1_and_lives(photos: list[Path], tmp_path: Path) -> None:
    """The filter lets it say where it is."""
    errors = tmp_path / "errors.txt"
    with kept_in(errors), PreprocessPool(PreprocessSpec(), workers=1, batch_size=4, sandbox=True) as pool:
        from penstock.engine import PipelineBuilder, green

        @green
        def rows(paths: list[str]) -> Sequence[Row]:
            slot = pool.process(paths)
            slot.release()
            return slot.rows

        builder = PipelineBuilder().add_source([[str(path) for path in photos[:4]]]).add_resource(pool)
        builder.pipe(rows).add_sink()
        with builder.build(num_threads=1).auto_stop() as pipeline:
            assert len(pipeline.get_item(timeout=DEADLINE)) == 4
        (pid,) = pool.pids
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: "preprocess/worker/worker.py" in errors.read_text())
        assert psutil.Process(pid).is_running()
        assert pool.state() == [f"worker 0 (pid {pid}): idle"]


def test_a_signal_prints_what_is_going_on_while_the_main_thread_is_busy(tmp_path: Path) -> None:
    """Here, with nothing running: the threads. The process' own handlers are back afterwards."""
    handler, woken = signal.getsignal(signal.SIGUSR1), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(woken)
    errors = tmp_path / "errors.txt"

    def has_said(times: int) -> bool:
        said = "\n" + errors.read_text()
        return said.count(f"\nprocess {os.getpid()}: ") == said.count("\nthread penstock-dump\n") == times

    with kept_in(errors), dumping():
        for times in (1, 2):
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_until(partial(has_said, times))
            assert errors.read_text().splitlines().count("Stack (most recent call first):") == times
    assert signal.getsignal(signal.SIGUSR1) is handler
    assert signal.set_wakeup_fd(woken) == woken
    assert not any(thread.name == "penstock-dump" for thread in threading.enumerate())


def test_dumping_leaves_other_threads_alone() -> None:
    """Handlers can be set in the main thread only."""
    failures: list[BaseException] = []

    def inside() -> None:
        try:
            with dumping():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert failures == []


@pytest.mark.parametrize(("said", "seconds"), [("90", 90.0), ("0.5", 0.5), ("0", None)])
def test_the_limit_is_a_setting_and_zero_is_never(
    said: str, seconds: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--stall-after``, as the engine gets it."""
    from penstock.engine import PipelineBuilder

    seen: list[object] = []
    built = PipelineBuilder.build

    def build(self: PipelineBuilder, **settings: object) -> object:
        seen.append(settings["stall_after"])
        return built(self, **settings)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(PipelineBuilder, "build", build)
    config = configured(None, {"stall_after": said, "to": f"bulk:{tmp_path / 'parts'}"})
    with ImageEmbeddingPipeline(config) as pipeline:
        assert pipeline.insert_images([]) == []
    assert seen == [seconds]
