"""What a pipeline is made of: what `PipelineBuilder` accepts, refuses, names and pickles."""

from __future__ import annotations

import asyncio
import functools
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import pytest

from penstock.engine import NOTHING, Outcome, PipelineBuilder, green
from penstock.errors import ConfigError, PipelineFailure


def run(builder: PipelineBuilder, *, num_threads: int = 2) -> list[Any]:
    """All that comes out, with the books checked."""
    pipeline = builder.add_sink().build(num_threads=num_threads)
    with pipeline.auto_stop():
        items = list(pipeline)
    pipeline.report().accounting.check()
    return items


def increment(x: int) -> int:
    return x + 1


def add(x: int, y: int) -> int:
    return x + y


class Callable_:
    def __call__(self, x: int) -> int:
        return x + 1

    def method(self, x: int) -> int:
        return x + 1


class AsyncCallable:
    async def __call__(self, x: int) -> int:
        await asyncio.sleep(0)
        return x + 1


async def increment_later(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


def twice(x: int) -> Iterator[int]:
    yield x
    yield x


async def twice_later(x: int) -> AsyncIterator[int]:
    yield x
    await asyncio.sleep(0)
    yield x


@pytest.mark.parametrize(
    "op",
    [
        increment,
        lambda x: x + 1,
        functools.partial(add, 1),
        functools.partial(add, y=1),
        Callable_(),
        Callable_().method,
        AsyncCallable(),
        increment_later,
        functools.partial(increment_later),
        green(lambda x: x + 1),
        (1).__add__,
    ],
)
def test_every_kind_of_callable_is_an_operation(op: Callable[[Any], Any]) -> None:
    """Functions, lambdas, partials, callable objects, methods, coroutine functions: all mean the same."""
    assert sorted(run(PipelineBuilder().add_source(range(5)).pipe(op))) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("op", [twice, twice_later, green(twice), functools.partial(twice)])
def test_generators_emit_many_values(op: Callable[[int], Any]) -> None:
    """A generator or async generator function is one to many."""
    assert run(PipelineBuilder().add_source(range(3)).pipe(op)) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("cls", [str, int, float])
def test_a_class_is_called(cls: type) -> None:
    """A class is an operation that makes instances, also a built-in one without a signature."""
    assert run(PipelineBuilder().add_source(["1", "2"]).pipe(cls)) == [cls("1"), cls("2")]


def test_a_class_is_called_even_if_it_can_be_indexed() -> None:
    """`list[int]` makes sense, too, but a class as an operation is called."""
    assert run(PipelineBuilder().add_source(["ab"]).pipe(list)) == [["a", "b"]]


@pytest.mark.parametrize("container", [{1: "one", 2: "two"}, ["zero", "one", "two"]])
def test_a_container_is_indexed(container: Any) -> None:
    """A container with __getitem__ that is not callable maps keys to values."""
    assert run(PipelineBuilder().add_source([1, 2]).pipe(container)) == ["one", "two"]


def test_a_missing_key_is_a_failure_of_that_item() -> None:
    """What a container does not have fails like an operation that raises."""
    assert run(PipelineBuilder().add_source([1, 3]).pipe({1: "one"})) == ["one"]


def test_sync_async_green_and_executor_stages_mix() -> None:
    """All kinds of stages stand in one pipeline."""
    with ThreadPoolExecutor(1) as executor:
        builder = (
            PipelineBuilder()
            .add_source(range(5))
            .pipe(increment)
            .pipe(increment_later)
            .pipe(increment, kind="green")
            .pipe(increment, executor=executor)
            .pipe(twice)
            .aggregate(2)
            .disaggregate()
        )
        assert run(builder) == [value for x in range(4, 9) for value in (x, x)]


@pytest.mark.parametrize("value", [0, False, "", [], {}, 0.0, b"", Exception("a value"), StopIteration])
def test_falsy_and_odd_values_pass(value: Any) -> None:
    """Only None drops; everything else goes on."""
    assert run(PipelineBuilder().add_source([1]).pipe(lambda _: value)) == [value]


def test_none_drops_the_item() -> None:
    """Returning None drops, and the books say dropped."""
    pipeline = (
        PipelineBuilder().add_source(range(6)).pipe(lambda x: x if x % 2 else None).add_sink().build(num_threads=1)
    )
    with pipeline.auto_stop():
        assert list(pipeline) == [1, 3, 5]
    assert pipeline.report().accounting.dropped == 3


class Untouchable:
    """Raises when compared, hashed or tested for truth."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    def __bool__(self) -> bool:
        raise AssertionError("tested for truth")

    def __len__(self) -> int:
        raise AssertionError("measured")


def test_values_are_opaque() -> None:
    """The engine never compares, hashes or tests values."""
    values = [Untouchable() for _ in range(4)]
    builder = (
        PipelineBuilder()
        .add_source(values)
        .pipe(lambda x: x, concurrency=2, output_order="input")
        .pipe(lambda x: Outcome(x))
        .aggregate(2)
        .disaggregate()
    )
    got = run(builder)
    assert [id(value) for value in got] == [id(value) for value in values]


def test_a_none_from_the_source_is_a_value() -> None:
    """Only operations drop; a source may well give None."""
    assert run(PipelineBuilder().add_source([None, 1]).pipe(str)) == ["None", "1"]


@pytest.mark.parametrize("nothing", [None, NOTHING])
def test_an_outcome_without_a_value_drops(nothing: Any) -> None:
    """An Outcome that holds nothing is like a None."""
    assert run(PipelineBuilder().add_source([1, 2]).pipe(lambda x: Outcome(nothing if x == 1 else x))) == [2]


@pytest.mark.parametrize(
    ("declare", "knob"),
    [
        (lambda b: b.add_source([1]), "add_source"),
        (lambda b: b.add_sink().add_sink(), "add_sink"),
        (lambda b: b.pipe(increment, concurrency=0), "concurrency"),
        (lambda b: b.pipe(increment, concurrency=1.5), "concurrency"),
        (lambda b: b.pipe(increment, concurrency=True), "concurrency"),
        (lambda b: b.pipe(increment, output_order="random"), "output_order"),
        (lambda b: b.pipe(increment_later, executor=ThreadPoolExecutor(1)), "executor"),
        (lambda b: b.pipe(twice_later, executor=ThreadPoolExecutor(1)), "executor"),
        (lambda b: b.pipe(green(lambda x: x), executor=ThreadPoolExecutor(1)), "executor"),
        (lambda b: b.pipe(increment_later, kind="green"), "kind"),
        (lambda b: b.pipe(increment, kind="purple"), "kind"),
        (lambda b: b.pipe(increment, buffer_size=0), "buffer_size"),
        (lambda b: b.pipe(increment, buffer_bytes=0), "buffer_bytes"),
        (lambda b: b.pipe(increment, lanes={}), "lanes"),
        (lambda b: b.pipe(increment, lanes={"a": 0}), "lanes"),
        (lambda b: b.pipe(increment, max_failures=-2), "max_failures"),
        (lambda b: b.pipe(increment, max_failures=0.1), "max_failures"),
        (lambda b: b.pipe(increment, max_failures=Fraction(0)), "max_failures"),
        (lambda b: b.pipe(increment, max_failures=Fraction(3, 2)), "max_failures"),
        (lambda b: b.pipe(3), "op"),
        (lambda b: b.aggregate(0), "aggregate"),
        (lambda b: b.aggregate(-1), "aggregate"),
        (lambda b: b.aggregate(1, max_wait=0), "max_wait"),
        (lambda b: b.aggregate(1, buffer_size=0), "buffer_size"),
        (lambda b: b.add_sink(0), "buffer_size"),
        (lambda b: b.add_sink().build(num_threads=0), "num_threads"),
        (lambda b: b.add_sink().build(num_threads=1, max_failures=Fraction(2)), "max_failures"),
        (lambda b: b.add_sink().build(num_threads=1, log_interval=0), "log_interval"),
        (lambda b: b.pipe(increment, feedback="nobody").add_sink().build(num_threads=1), "feedback"),
        (
            lambda b: b.pipe(increment, feedback="late").pipe(add, name="late").add_sink().build(num_threads=1),
            "feedback",
        ),
    ],
)
def test_a_wrong_setting_is_refused_at_once_by_name(declare: Callable[[Any], Any], knob: str) -> None:
    """Each wrong setting is a ValueError that names the knob."""
    with pytest.raises(ValueError, match=knob) as caught:
        declare(PipelineBuilder().add_source([1]))
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize("source", [3, None, list, object()])
def test_a_source_that_is_not_iterable_is_refused(source: Any) -> None:
    """A source must be an iterable or an async iterable."""
    with pytest.raises(ValueError, match="add_source"):
        PipelineBuilder().add_source(source)


def test_a_sequence_without_iter_is_a_source() -> None:
    """The old sequence protocol is enough."""

    class Old:
        def __getitem__(self, index: int) -> int:
            if index > 2:
                raise IndexError
            return index

    source: Any = Old()
    assert run(PipelineBuilder().add_source(source)) == [0, 1, 2]


def test_build_needs_source_and_sink() -> None:
    """What is missing is a RuntimeError at build."""
    with pytest.raises(RuntimeError, match="source"):
        PipelineBuilder().add_sink().build(num_threads=1)
    with pytest.raises(RuntimeError, match="sink"):
        PipelineBuilder().add_source([1]).build(num_threads=1)


def test_num_threads_must_be_given() -> None:
    """There is no default number of threads."""
    with pytest.raises(TypeError):
        PipelineBuilder().add_source([1]).add_sink().build()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("op", [add, lambda: 1, lambda *, key: key, functools.partial(add, 1, 2), twice.__get__(1)])
def test_an_operation_that_cannot_take_one_argument_is_refused_at_build(op: Any) -> None:
    """An error of the program is seen before the first item."""
    builder = PipelineBuilder().add_source([1]).pipe(op, name="wrong").add_sink()
    with pytest.raises(TypeError, match="wrong"):
        builder.build(num_threads=1)


def test_a_built_in_that_cannot_take_one_argument_fails_at_the_first_call() -> None:
    """Some built-ins have no signature; still nothing is dropped silently."""
    pipeline = PipelineBuilder().add_source([1, 2]).pipe(getattr, name="wrong").add_sink().build(num_threads=1)
    with pytest.raises(PipelineFailure) as caught, pipeline.auto_stop():
        list(pipeline)
    assert isinstance(caught.value.exceptions[0], TypeError)


def test_a_type_error_in_the_body_is_an_ordinary_failure() -> None:
    """Only the call itself can be an error of the program."""

    def op(x: Any) -> Any:
        return x + 1

    assert run(PipelineBuilder().add_source([1, "a", 2]).pipe(op)) == [2, 3]
    assert run(PipelineBuilder().add_source(["1", None, "2"]).pipe(int)) == [1, 2]


def test_a_builder_builds_again_and_again() -> None:
    """Each build is a new pipeline of its own."""
    builder = PipelineBuilder().add_source(range(3)).pipe(increment).add_sink()
    for _ in range(2):
        with builder.build(num_threads=1).auto_stop() as pipeline:
            assert list(pipeline) == [1, 2, 3]


def test_a_builder_can_be_pickled() -> None:
    """A declaration travels to another process."""
    builder = (
        PipelineBuilder().add_source([1, 2]).pipe(str, concurrency=2, output_order="input", lanes={"a": 1}).aggregate(2)
    )
    copy: PipelineBuilder = pickle.loads(pickle.dumps(builder))
    assert run(copy) == [["1", "2"]]


def test_a_pipeline_names_its_stages_with_their_concurrency() -> None:
    """`str(pipeline)` is a picture of the graph."""
    builder = PipelineBuilder().add_source([1]).pipe(increment, concurrency=3).pipe(str, name="text").aggregate(5)
    assert str(builder.add_sink(7).build(num_threads=1)) == (
        "Pipeline(source -> increment[3] -> text[1] -> aggregate(5) -> sink[7])"
    )


def test_repeated_names_are_numbered() -> None:
    """Every stage can be told from the others in logs and reports."""
    builder = PipelineBuilder().add_source([1]).pipe(increment).pipe(increment).pipe(increment).add_sink()
    report = builder.build(num_threads=1).report()
    assert [stage.name for stage in report.stages] == ["source", "increment", "increment#2", "increment#3", "sink"]


def test_aggregate_keeps_the_short_list_unless_told_to_drop_it() -> None:
    """Five values in lists of two: the last one is short."""
    assert run(PipelineBuilder().add_source(range(5)).aggregate(2)) == [[0, 1], [2, 3], [4]]
    assert run(PipelineBuilder().add_source(range(5)).aggregate(2, drop_last=True)) == [[0, 1], [2, 3]]
    assert run(PipelineBuilder().add_source([]).aggregate(2)) == []


def test_disaggregate_fails_only_what_is_not_iterable() -> None:
    """A value that has no members is that value's failure."""
    assert run(PipelineBuilder().add_source([[1, 2], 3, (4,), []]).disaggregate()) == [1, 2, 4]


def test_a_pipeline_without_stages_passes_its_source_on() -> None:
    """Source and sink alone are a pipeline."""
    assert run(PipelineBuilder().add_source("abc")) == ["a", "b", "c"]
