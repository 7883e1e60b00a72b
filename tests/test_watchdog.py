"""The watchdog: which stage stands still, at what and where, when that is told; and what it looks like on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from penstock.engine import PipelineBuilder, PlainValues, green
from penstock.engine.observe.render_text import render_text, report_json
from penstock.engine.observe.watchdog import Watchdog
from penstock.engine.workers.callables import WorkerPool
from penstock.errors import ConfigError
from penstock.tests.stuck import SOON, stuck_in, wait_for_stall
from penstock.tests.waiting import DEADLINE, wait_until


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """What stuck operations wait for; set at the end, whatever happens."""
    event = threading.Event()
    yield event
    event.set()


def wait_for_file(item: str) -> str:
    """For a worker process: until the file is there."""
    wait_until(Path(item).exists)
    return item


@pytest.mark.parametrize(
    ("kind", "where", "line"),
    [
        ("blocking", "in thread penstock-", "in blocking: go.wait(DEADLINE)"),
        ("async", "on the asyncio loop", "in asynchronous: await asyncio.to_thread(go.wait, DEADLINE)"),
        ("green", "on the hub", "in cooperative: gevent.sleep(0.005)"),
        ("generator", "in thread penstock-", "in generator: go.wait(DEADLINE)"),
    ],
)
def test_a_stage_that_stands_still_is_named_with_its_item_and_where_it_is(
    kind: str, where: str, line: str, go: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """Once while it lasts and once when it goes on; stages that only wait for it are not blamed."""
    items = [f"picture-{number}\x1b" for number in range(9)]
    builder = PipelineBuilder().add_source(items).pipe(str, name="before", concurrency=2)
    builder.pipe(stuck_in(kind, go), name="stuck").pipe(str, name="behind").add_sink(9)
    with builder.build(num_threads=3, stall_after=SOON).auto_stop() as pipeline:
        stall = wait_for_stall(pipeline)
        assert (stall.stage, stall.ended) == ("stuck", None)
        assert stall.items in (["'picture-0\\x1b'"], ["'picture-1\\x1b'"])  # two were on their way to it
        assert stall.seconds >= SOON
        go.set()
        assert len(list(pipeline.get_iterator(timeout=DEADLINE))) == 9
        pipeline.stop()
    (stall,) = pipeline.report().stalls
    assert stall.ended is not None
    assert stall.ended >= stall.began + stall.seconds - 0.01
    for words in (
        "stage stuck stands still for ",
        " s: no progress with 1 operation",
        where,
        line,
        "stuck 2/2, behind 0/2",
    ):
        assert words in caplog.text
    assert caplog.text.count("stage stuck went on after") == 1
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert json.loads(json.dumps(report_json(pipeline.report())))["stalls"][0]["stage"] == "stuck"
    assert "stood still: stuck for " in render_text(pipeline.report())


def test_a_stage_in_an_executor_of_threads_is_told_with_its_threads(
    go: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """The user's executor knows nothing of stages; its threads' stacks are found all the same."""
    with ThreadPoolExecutor(1, "mine") as executor:
        builder = PipelineBuilder().add_source(["a", "b"])
        builder.pipe(stuck_in("blocking", go), name="stuck", executor=executor, concurrency=2).add_sink(9)
        with builder.build(num_threads=1, stall_after=SOON).auto_stop() as pipeline:
            assert wait_for_stall(pipeline).items == ["'a'", "'b'"]
            wait_until(lambda: "waiting:" in caplog.text)
            go.set()
    assert "in thread mine_0" in caplog.text
    assert "waiting for a free thread" in caplog.text


@pytest.mark.slow
def test_a_stage_in_worker_processes_is_told_with_their_pids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whose stacks they print themselves, on SIGUSR1."""
    file = tmp_path / "go"
    with WorkerPool(1) as pool:
        builder = PipelineBuilder().add_source([str(file)])
        builder.pipe(wait_for_file, name="stuck", executor=pool).add_sink()
        with builder.build(num_threads=1, stall_after=SOON).auto_stop() as pipeline:
            wait_until(lambda: f"in its WorkerPool of pid {pool.pids}".replace("[", "").replace("]", "") in caplog.text)
            file.touch()
            assert pipeline.get_item(timeout=DEADLINE) == str(file)


def test_an_operation_that_blocks_the_hub_is_named(go: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    """And nobody else, though nothing moves any more. `dump` does not need the hub."""

    @green
    def rude(item: str) -> str:
        go.wait(DEADLINE)
        return item

    pipeline = PipelineBuilder().add_source(["a"]).pipe(rude).add_sink().build(num_threads=1, stall_after=SOON)
    with pipeline.auto_stop():
        wait_until(lambda: "blocks the hub" in caplog.text)
        text = pipeline.dump()
        assert "in rude: go.wait(DEADLINE)" in text
        go.set()
        assert pipeline.get_item(timeout=DEADLINE) == "a"
    (stall,) = pipeline.report().stalls
    assert (stall.stage, stall.items) == ("rude", ["'a'"])
    assert "in rude: go.wait(DEADLINE)" in caplog.text


def test_what_blocks_the_hub_outside_of_operations_is_shown_too(
    go: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """A value model that waits stops everything as well."""

    class Slow(PlainValues):
        def nbytes(self, value: Any) -> int:
            go.wait(DEADLINE)
            return 0

    builder = PipelineBuilder(values=Slow()).add_source([1]).add_sink()
    with builder.build(num_threads=1, stall_after=SOON).auto_stop() as pipeline:
        wait_until(lambda: "blocks the hub" in caplog.text)
        go.set()
        assert pipeline.get_item(timeout=DEADLINE) == 1
    assert pipeline.report().stalls[0].stage == "engine"
    assert "in nbytes: go.wait(DEADLINE)" in caplog.text


# -- when it is told --------------------------------------------------------------------------------------------------


def test_a_stall_is_told_again_at_doubled_times(go: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    """After 10, 20, 40, 80 s, not every second for hours. Time in which the hub was blocked is not the stage's."""
    builder = PipelineBuilder().add_source(["a"]).pipe(stuck_in("blocking", go), name="stuck").add_sink()
    with builder.build(num_threads=1, stall_after=None).auto_stop() as pipeline:
        runtime = pipeline._runtime  # pyright: ignore[reportPrivateUsage]
        wait_until(
            lambda: "in blocking: go.wait(DEADLINE)\n" in pipeline.dump()
        )  # with its line's end: this line is in it, too
        dog = Watchdog(runtime, 10.0)
        for _ in range(101):
            dog.beat()
            dog.look(1.0)
        assert [record.getMessage().split(":")[0] for record in caplog.records] == [
            f"stage stuck stands still for {age}" for age in ("10 s", "20 s", "40 s", "1 min 20 s")
        ]
        assert dog.stalls[0].seconds == 100.0
        caplog.clear()
        for _ in range(12):  # no beat
            dog.look(1.0)
        assert [(stall.stage, stall.seconds) for stall in dog.stalls] == [("engine", 11.0), ("stuck", 100.0)]
        assert "stage engine stands still for 10 s: it blocks the hub" in caplog.text
        dog.beat()
        dog.look(1.0)
        assert "stage engine went on after 11 s" in caplog.text
        assert [(stall.stage, stall.ended is None) for stall in dog.stalls] == [("engine", False), ("stuck", True)]
        go.set()


@pytest.mark.parametrize("seconds", [0, -1.0])
def test_a_limit_that_cannot_be_is_refused(seconds: float) -> None:
    """None is never; 0 would be always."""
    with pytest.raises(ConfigError, match="stall_after"):
        PipelineBuilder().add_source([1]).add_sink().build(num_threads=1, stall_after=seconds)


# -- on demand --------------------------------------------------------------------------------------------------------


def test_a_dump_can_be_had_at_any_time(go: threading.Event) -> None:
    """Before the start, while all is well, from an operation on the hub, and after the end."""
    from_inside: list[str] = []

    @green
    def look(item: str) -> str:
        from_inside.append(pipeline.dump())
        return item

    builder = PipelineBuilder().add_source(["a\nb", "c"]).pipe(look).pipe(stuck_in("blocking", go), name="stuck")
    pipeline = builder.add_sink().build(num_threads=1)
    assert "not started" in pipeline.dump()
    with pipeline.auto_stop():
        wait_until(lambda: "in blocking: go.wait(DEADLINE)\n" in pipeline.dump() and len(from_inside) == 2)
        text = pipeline.dump()
        go.set()
        assert len(list(pipeline.get_iterator(timeout=DEADLINE))) == 2
    for words in ("read 2 = written 0", "'a\\nb', for ", "in blocking: go.wait(DEADLINE)", "thread MainThread"):
        assert words in text
    assert "stage look" in from_inside[0]
    assert "has run for" in pipeline.dump()
    assert "\nstage " not in pipeline.dump()


def test_resources_say_what_they_do(go: threading.Event) -> None:
    """And one that cannot say it does not keep the rest from being caplog."""

    class Calm:
        def start_in_hub(self) -> None: ...
        def stop_in_hub(self) -> None: ...
        def state(self) -> list[str]:
            return ["the client is connected"]

        def keeps_waiting(self, fiber: object) -> bool:
            return False

    class Broken(Calm):
        def state(self) -> list[str]:
            raise ValueError("closed")

    builder = PipelineBuilder().add_source([1]).pipe(stuck_in("blocking", go)).add_sink()
    builder.add_resource(Broken()).add_resource(Calm())
    with builder.build(num_threads=1).auto_stop() as pipeline:
        text = pipeline.dump()
    assert "Broken cannot say what it does: closed\nthe client is connected" in text
