"""Hooks that raise, hang, swallow errors or are none; and how they hear of the end."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn

import gevent
import pytest

from penstock import ConfigError, PipelineFailure
from penstock.engine import (
    Pipeline,
    PipelineBuilder,
    PlainValues,
    StageInfo,
    TaskHook,
    green,
)
from penstock.tests.hooked import KINDS, Watch, odd_fails, operation, run, three, three_later
from penstock.tests.threads import threads_of
from penstock.tests.waiting import DEADLINE, wait_until

# -- what they may do -------------------------------------------------------------------------------------------------


class Raises(TaskHook):
    """Raises around the items it is told to."""

    def __init__(self, before: int | None = None, after: int | None = None) -> None:
        self.before = before
        self.after = after

    @asynccontextmanager
    async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
        if input_item == self.before:
            raise KeyError(f"before {input_item}")
        yield
        if input_item == self.after:
            raise KeyError(f"after {input_item}")


class Gone(PlainValues):
    """Remembers what was given back."""

    def __init__(self) -> None:
        self.values = Counter[Any]()

    def discard(self, value: Any) -> None:
        self.values[value] += 1


async def ten_times_later(x: int) -> int:
    return 10 * x


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_raises_fails_its_item_and_no_other(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Before the operation, which does not run then, or after it: what it made is given back, once."""
    tried: list[int] = []

    def op(x: int) -> int:
        tried.append(x)
        return 10 * x

    async def op_later(x: int) -> int:
        return op(x)

    gone = Gone()
    items, pipeline = run(op_later if kind == "async" else op, [Raises(1, 2)], range(4), kind=kind, values=gone)
    assert items == [0, 30]
    assert tried == [0, 2, 3]
    assert gone.values == {1: 1, 20: 1}
    assert pipeline.report().accounting.failed == 2
    assert "before 1" in caplog.text
    assert "after 2" in caplog.text


class Swallows(TaskHook):
    """Lets no error pass."""

    @asynccontextmanager
    async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
        with suppress(BaseException):
            yield


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_stays_one_where_a_hook_does_not_let_it_pass(kind: str) -> None:
    """Hooks look on: an item that failed is not delivered by them, nor is a generator's end put off."""
    items, pipeline = run(operation(kind), [Swallows()], kind=kind)
    assert items == [0, 20]
    assert pipeline.report().accounting.failed == 1
    assert run(three_later if kind == "async" else three, [Swallows()], [5], kind=kind)[0] == [5, 6, 7]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_raises_inside_of_one_that_lets_nothing_pass_fails_its_item(kind: str) -> None:
    """The operation does not run, and the item is not dropped in silence."""
    gone = Gone()
    op: Callable[[int], Any] = ten_times_later if kind == "async" else lambda x: 10 * x
    items, pipeline = run(op, [Swallows(), Raises(before=1)], kind=kind, values=gone)
    assert items == [0, 20]
    assert gone.values == {1: 1}
    accounting = pipeline.report().accounting
    assert (accounting.failed, accounting.dropped) == (1, 0)


def test_what_a_hook_makes_of_an_error_is_the_items_error(caplog: pytest.LogCaptureFixture) -> None:
    """With the original one as its cause."""

    class Explains(TaskHook):
        @asynccontextmanager
        async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
            try:
                yield
            except ValueError as error:
                raise OSError(f"item {input_item} is odd") from error

    run(odd_fails, [Explains()])
    assert "OSError: item 1 is odd" in caplog.text


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_is_seen_by_the_hooks_of_what_is_under_way(kind: str) -> None:
    """CancelledError in the task and in the stage; no thread stays, and the books hold."""
    inside, go, hook = threading.Event(), threading.Event(), Watch()

    def op(x: int) -> int:
        inside.set()
        assert go.wait(DEADLINE)
        return x

    async def op_later(x: int) -> int:
        inside.set()
        await asyncio.sleep(3600)
        return x

    @green
    def op_green(x: int) -> int:
        inside.set()
        gevent.sleep(3600)
        return x

    with ThreadPoolExecutor(1) as threads:
        builder = PipelineBuilder().add_source([1])
        builder.pipe(
            {"async": op_later, "green": op_green}.get(kind, op), executor=threads if kind == "executor" else None
        )
        pipeline = builder.add_sink().build(num_threads=1, task_hook_factory=lambda _: [hook])
        with pipeline.auto_stop(timeout=DEADLINE):
            assert inside.wait(DEADLINE)
            pipeline._runtime.request_stop()  # pyright: ignore[reportPrivateUsage]
            wait_until(lambda: ("fails", 1, asyncio.CancelledError) in hook.seen)
            go.set()
    assert hook.seen[-1] == ("stage fails", asyncio.CancelledError)
    assert threads_of(pipeline) == []
    pipeline.report().check()
    assert pipeline.report().accounting.in_flight == 1


def test_a_fatal_failure_is_seen_by_the_hook_of_its_stage() -> None:
    """Others, whose work is done, see their end."""
    hooks: dict[str, Watch] = {}

    def factory(info: StageInfo) -> list[TaskHook]:
        hooks[info.stage_name] = Watch()
        return [hooks[info.stage_name]]

    builder = PipelineBuilder().add_source([1]).pipe(odd_fails, name="fails", max_failures=0).pipe(str, name="next")
    with pytest.raises(PipelineFailure):
        list(builder.add_sink().build(num_threads=1, task_hook_factory=factory))
    assert hooks["fails"].seen[-1] == ("stage fails", ValueError)
    assert hooks["next"].seen == [("stage begins",), ("stage ends",)]


class Broken(Watch):
    """Its stage hook raises, as it is entered or as it is left."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self._when = when

    @asynccontextmanager
    async def stage_hook(self) -> AsyncGenerator[None]:
        if self._when == "enter":
            raise OSError("no log file")
        yield
        raise OSError("no log file")


@pytest.mark.parametrize("when", ["enter", "leave"])
def test_a_stage_hook_that_raises_fails_the_pipeline(when: str) -> None:
    """With the stage's name; what had been delivered by then stays so."""
    builder = PipelineBuilder().add_source([1]).pipe(str, name="write").add_sink()
    pipeline = builder.build(num_threads=1, task_hook_factory=lambda _: [Broken(when)])
    got: list[str] = []
    with pytest.raises(PipelineFailure, match="'write': its stage_hook raised") as caught:
        got.extend(pipeline)
    assert got == ([] if when == "enter" else ["1"])
    assert caught.value.exceptions[0].__notes__ == ["penstock stage: write"]
    assert threads_of(pipeline) == []


def test_a_stage_hook_is_left_where_that_of_another_stage_could_not_be_entered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It hears that nothing will come; nobody waits for it in vain."""
    first, broken = Watch(), Broken("enter")
    builder = PipelineBuilder().add_source([1]).pipe(str, name="first").pipe(str).add_sink()
    pipeline = builder.build(
        num_threads=1, task_hook_factory=lambda info: [first if info.stage_name == "first" else broken]
    )
    with pytest.raises(PipelineFailure):
        list(pipeline)
    assert first.seen == [("stage begins",), ("stage fails", asyncio.CancelledError)]
    assert "did not end in time" not in caplog.text


def test_a_stage_hook_that_does_not_end_is_left_behind_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The end of a run is bounded."""

    class Hangs(Watch):
        @asynccontextmanager
        async def stage_hook(self) -> AsyncGenerator[None]:
            yield
            await asyncio.sleep(3600)

    builder = PipelineBuilder().add_source([1]).pipe(str, name="hangs").add_sink()
    pipeline = builder.build(num_threads=1, task_hook_factory=lambda _: [Hangs()])
    with pipeline.auto_stop(timeout=0.1):
        assert pipeline.get_item(timeout=DEADLINE) == "1"
    assert "stage_hook did not end in time: hangs" in caplog.text
    assert threads_of(pipeline) == []


def test_a_hook_that_hangs_is_in_the_dump() -> None:
    """A stage that stands still in a hook shows where."""

    class Hangs(TaskHook):
        @asynccontextmanager
        async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
            await asyncio.sleep(3600)
            yield

    builder = PipelineBuilder().add_source([1]).pipe(str, name="hangs").add_sink()
    with builder.build(num_threads=1, task_hook_factory=lambda _: [Hangs()]).auto_stop() as pipeline:
        wait_until(lambda: "await asyncio.sleep(3600)" in pipeline.dump())


# -- wrong ones -------------------------------------------------------------------------------------------------------


def build(factory: Callable[[StageInfo], Any]) -> Pipeline:
    return PipelineBuilder().add_source([1]).pipe(str).add_sink().build(num_threads=1, task_hook_factory=factory)


@pytest.mark.parametrize("made", [None, Watch(), 3, [3], [Watch]])
def test_a_factory_that_makes_no_hooks_is_refused(made: Any) -> None:
    """At build, by name."""
    with pytest.raises(ConfigError, match="task_hook_factory must return"):
        build(lambda _: made)


def test_a_task_hook_that_cannot_be_given_the_item_is_refused() -> None:
    """Rather than failing each item."""

    class Old(TaskHook):
        @asynccontextmanager
        async def task_hook(self) -> AsyncGenerator[None]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
            yield

    with pytest.raises(TypeError, match=r"Old\.task_hook cannot be called with the input item"):
        build(lambda _: [Old()])


def test_a_task_hook_that_is_no_context_manager_is_an_error_of_the_program() -> None:
    """Not one of the first item, and the next one, and the next one."""

    class Bare(TaskHook):
        async def task_hook(self, input_item: Any = None) -> NoReturn:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
            raise AssertionError

    with pytest.raises(PipelineFailure, match="cannot go on") as caught:
        list(build(lambda _: [Bare()]))
    assert "decorate it with contextlib.asynccontextmanager" in str(caught.value.exceptions[0])
