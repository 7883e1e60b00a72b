"""The watchdog: of many stages that wait, the one is named that the others wait for."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import gevent
import pytest

from penstock.engine import PipelineBuilder, green
from penstock.engine.core.policies import Retry
from penstock.tests.stuck import SOON, stalls_of, stuck_in, wait_for_stall
from penstock.tests.waiting import DEADLINE, wait_until


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """What stuck operations wait for; set at the end, whatever happens."""
    event = threading.Event()
    yield event
    event.set()


def test_a_source_that_does_not_answer_is_told_when_all_behind_it_is_idle(
    go: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """What an aggregate holds back is waiting for the source, too."""

    def source() -> Iterator[int]:
        yield 1
        go.wait(DEADLINE)
        yield 2

    builder = PipelineBuilder().add_source(source()).pipe(str).aggregate(2).add_sink()
    with builder.build(num_threads=1, stall_after=SOON).auto_stop() as pipeline:
        stall = wait_for_stall(pipeline)
        assert (stall.stage, stall.items) == ("source", [])
        go.set()
        assert list(pipeline.get_iterator(timeout=DEADLINE)) == [["1", "2"]]
    assert "its iterator has not answered" in caplog.text
    assert "in source: go.wait(DEADLINE)" in caplog.text


def test_a_source_is_not_blamed_while_something_is_under_way(go: threading.Event) -> None:
    """It may wait for just that, as a crawler does."""

    def source() -> Iterator[int]:
        yield 1
        go.wait(DEADLINE)

    builder = PipelineBuilder().add_source(source()).pipe(stuck_in("blocking", go), name="stuck").add_sink()
    with builder.build(num_threads=1, stall_after=SOON).auto_stop() as pipeline:
        wait_until(lambda: any(stall.seconds > 4 * SOON for stall in stalls_of(pipeline)))
        assert {stall.stage for stall in stalls_of(pipeline)} == {"stuck"}


def test_a_sink_that_nobody_reads_is_told_as_that(caplog: pytest.LogCaptureFixture) -> None:
    """The stages before it wait for room; who reads slowly is not told of."""
    builder = PipelineBuilder().add_source(range(20)).pipe(str).pipe(str, kind="green", concurrency=2).add_sink(2)
    with builder.build(num_threads=1, stall_after=SOON).auto_stop() as pipeline:
        assert wait_for_stall(pipeline).stage == "sink"
        assert "full, nobody reads" in pipeline.dump()
        assert "2 waiting for room or for their turn" in pipeline.dump()
        assert len(list(pipeline.get_iterator(timeout=DEADLINE))) == 20
    assert {stall.stage for stall in stalls_of(pipeline)} == {"sink"}
    assert re.search(r"stage sink stands still for [\d.]+ s: nobody reads the 2 values in it", caplog.text)


def test_a_stage_that_finds_no_thread_is_not_blamed_for_the_one_that_holds_it(go: threading.Event) -> None:
    """Plain operations of all stages share the pipeline's threads."""

    def second_is_slow(number: int) -> int:
        if number:
            go.wait(DEADLINE)
        return number

    builder = PipelineBuilder().add_source([0, 1]).pipe(second_is_slow, name="holds").pipe(str, name="starves")
    with builder.add_sink().build(num_threads=1, stall_after=SOON).auto_stop() as pipeline:
        wait_until(lambda: any(stall.seconds > 4 * SOON for stall in stalls_of(pipeline)))
        assert {stall.stage for stall in stalls_of(pipeline)} == {"holds"}
        go.set()
        assert len(list(pipeline.get_iterator(timeout=DEADLINE))) == 2


def test_a_stage_that_waits_for_a_slot_is_not_blamed_unless_nobody_else_is(
    go: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """A resource says which operations it keeps waiting; who holds what they wait for is named, if that is known."""

    class Slots:
        """One slot, which somebody has to give back."""

        def __init__(self) -> None:
            self.waiting: set[object] = set()
            self.given_back = False

        def start_in_hub(self) -> None: ...
        def stop_in_hub(self) -> None: ...
        def state(self) -> list[str]:
            return [f"{len(self.waiting)} wait for a slot"]

        def keeps_waiting(self, fiber: object) -> bool:
            return fiber in self.waiting

    @green
    def takes(item: str) -> str:
        if item != "a":
            slots.waiting.add(gevent.getcurrent())
            while not slots.given_back:
                gevent.sleep(0.005)
            slots.waiting.clear()
        return item

    for holder in (stuck_in("blocking", go), str):
        slots = Slots()
        builder = PipelineBuilder().add_source(["a", "b"]).add_resource(slots).pipe(takes).pipe(holder, name="holder")
        with builder.add_sink().build(num_threads=1, stall_after=2 * SOON).auto_stop() as pipeline:
            if holder is str:
                assert pipeline.get_item(timeout=DEADLINE) == "a"
            wait_until(lambda: any(stall.seconds > 6 * SOON for stall in stalls_of(pipeline)))
            assert {stall.stage for stall in stalls_of(pipeline)} == {"takes" if holder is str else "holder"}
            go.set()
            slots.given_back = True
            list(pipeline.get_iterator(timeout=DEADLINE))
    assert "which nobody else seems to be holding up" in caplog.text
    assert "1 wait for a slot" in caplog.text


def test_waiting_to_try_again_is_told_as_that_and_is_no_stall() -> None:
    """The engine knows when it will go on."""

    def fails(_: int) -> None:
        raise ConnectionError

    builder = PipelineBuilder().add_source([1]).pipe(fails, on_failure=Retry(3, first=1e6, longest=1e6)).add_sink()
    with builder.build(num_threads=1, stall_after=SOON).auto_stop() as pipeline:
        wait_until(lambda: "1 waiting to be tried again" in pipeline.dump())
        wait_until(lambda: pipeline.report().seconds > 5 * SOON)
        assert stalls_of(pipeline) == []


def test_what_goes_on_is_never_told(caplog: pytest.LogCaptureFixture) -> None:
    """Many short operations take longer than the limit together; and without a limit nobody watches."""

    def short(number: int) -> int:
        threading.Event().wait(0.02)
        return number

    for limit in (0.5, None):
        pipeline = (
            PipelineBuilder().add_source(range(40)).pipe(short).add_sink().build(num_threads=1, stall_after=limit)
        )
        with pipeline.auto_stop():
            pipeline.get_item(timeout=DEADLINE)
            watched = any("watchdog" in thread.name for thread in threading.enumerate())
            assert watched == (limit is not None)
            assert len(list(pipeline.get_iterator(timeout=DEADLINE))) == 39
        assert pipeline.report().stalls == []
    assert "stands still" not in caplog.text
