"""Random fan-outs against a model: each child's fate is told, each parent comes back once, nested ones included."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import PipelineFailure
from penstock.engine import Gathered, PipelineBuilder
from penstock.tests.graphs import Step, operations, results_of
from penstock.tests.searching import searching
from penstock.tests.waiting import DEADLINE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("silent")]


@dataclass(frozen=True)
class Batch:
    """An aggregate and, behind it, a disaggregate."""

    n: int


@dataclass(frozen=True)
class Nest:
    """A fan-out inside: the child goes on as it was if of its own children none fails."""

    inside: tuple[Step | Batch, ...]


Part = Step | Batch | Nest


def plain(step: Step) -> Step:
    """An operation that neither sends back nor chooses lanes: both are the other random graphs' subject."""
    return replace(step, back=None, lane=False, stumbles=step.stumbles and not step.many)


steps = operations.filter(lambda step: step.kind != "executor").map(plain)
batches = st.builds(Batch, st.integers(1, 5))
parts = st.lists(st.one_of(steps, steps, batches), max_size=3).map(tuple)
families = st.lists(st.one_of(steps, steps, batches, st.builds(Nest, parts)), max_size=4).map(tuple)


@dataclass(frozen=True)
class Run:
    """How it is fed, what the gather tolerates, and how it ends."""

    size: int
    tolerates: int
    ordered: bool
    concurrency: int
    end: Literal["whole", "whole", "stop", "drain"]


runs = st.builds(
    Run,
    st.integers(0, 9),
    st.integers(-1, 1),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from(["whole", "whole", "stop", "drain"]),
)


def children(value: int) -> Iterator[int]:
    """None to four."""
    for branch in range(crc32(repr(value).encode()) % 5):
        yield 4 * value + 1 + branch


def own_value(gathered: Gathered) -> Any:
    return gathered.value


def declare(builder: PipelineBuilder, family: Sequence[Part], numbers: Iterator[int]) -> None:
    for part in family:
        match part:
            case Step():
                part.declare(builder, next(numbers), False, None)
            case Batch():
                builder.aggregate(part.n).disaggregate()
            case Nest():
                builder.fanout(lambda value: list(children(value)))
                declare(builder, part.inside, numbers)
                builder.gather(child_failures=0).pipe(own_value)


def through(family: Sequence[Part], value: int) -> tuple[list[int], bool]:
    """What becomes of one child, and whether something of it failed."""
    values, failed = [value], False
    for part in family:
        taken, values = values, []
        for each in taken:
            match part:
                case Step():
                    made, wrong = results_of(part, each)
                    failed = failed or wrong
                    values += [result for result in made if result is not None]
                case Batch():
                    values.append(each)
                case Nest():
                    if any(through(part.inside, child)[1] for child in children(each)):
                        failed = True
                    else:
                        values.append(each)
    return values, failed


def model(family: Sequence[Part], run: Run) -> dict[int, tuple[Counter[Any], list[int], list[int]]]:
    """Results with their indices, failed and dropped children, of each parent that comes back."""
    expected: dict[int, tuple[Counter[Any], list[int], list[int]]] = {}
    for value in range(run.size):
        fates = [through(family, child) for child in children(value)]
        failed = [index for index, (_, wrong) in enumerate(fates) if wrong]
        if run.tolerates < 0 or len(failed) <= run.tolerates:
            results = Counter((index, result) for index, (made, _) in enumerate(fates) for result in made)
            dropped = [index for index, (made, wrong) in enumerate(fates) if not made and not wrong]
            expected[value] = (results, failed, dropped)
    return expected


@searching(100)
@given(families, runs)
def test_every_child_and_every_parent_is_accounted_for(family: tuple[Part, ...], run: Run) -> None:
    """Failing, dropped, many of one, tried again, in batches with others, with children of their own; early ends."""
    builder = PipelineBuilder().add_source(range(run.size))
    builder.fanout(children, concurrency=run.concurrency, output_order="input" if run.ordered else "completion")
    declare(builder, family, itertools.count())
    pipeline = builder.gather(child_failures=run.tolerates).add_sink().build(num_threads=2)
    got: list[Gathered] = []
    with pipeline.auto_stop():
        items = pipeline.get_iterator(timeout=DEADLINE)
        got.extend(items if run.end == "whole" else itertools.islice(items, 2))
        if run.end == "drain":
            pipeline.drain(timeout=DEADLINE)
            got.extend(items)
    with suppress(PipelineFailure):
        got.extend(pipeline)
    report = pipeline.report()
    report.check(ended=run.end == "whole")
    assert report.accounting.delivered == len(got)
    expected = model(family, run)
    seen = [item.value for item in got]
    assert len(seen) == len(set(seen))
    for item in got:
        results = Counter(zip(item.indices, item.results, strict=True))
        assert (results, list(item.errors), item.dropped) == expected[item.value]
    if run.end == "whole":
        assert set(seen) == expected.keys()
