"""The vocabulary of values: what operations may return besides plain values, and what the engine asks about them.

Values are opaque: the engine never compares, hashes or tests them for truth. The few types here are the exception.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

_logger = logging.getLogger(__name__)
_F = TypeVar("_F", bound=Callable[..., Any])


class Nothing(Enum):
    """The type of `NOTHING`."""

    NOTHING = "nothing"


NOTHING: Final = Nothing.NOTHING
"""No value at all: what an `Outcome` holds when nothing goes on."""


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """One item that could not be done.

    Attributes:
        key: the item's key. Empty where the whole value failed (its operation raised).
        error: why.
        attempts: how often it was tried.
    """

    key: str
    error: Exception
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation (or a source) returns to say more than a value: parts that failed, were dropped, timings.

    Attributes:
        value: what goes on; `NOTHING` or None when nothing does.
        failures: items of the input that failed; one unit each.
        dropped: units of the input that were filtered out.
        seconds: how long the work really took, when it ran elsewhere (in a worker process, on a server).
        details: named sub-timings in seconds, summed up in the stage's report.
    """

    value: Any = NOTHING
    failures: Sequence[ItemFailure] = ()
    dropped: int = 0
    seconds: float | None = None
    details: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Lane:
    """Emit `value` into a named lane of the next stage's channel."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class Feedback:
    """Send `value` back along the stage's feedback edge; `lane` None is the last lane declared there."""

    value: Any
    lane: str | None = None


@dataclass(frozen=True, slots=True)
class Gathered:
    """A value and what has become of its children; see `PipelineBuilder.gather`.

    Attributes:
        value: what the fan-out was called with.
        results: what came of the children, in their order. A child of which an operation made several has several.
        indices: which child each result is of, from 0.
        errors: why those children failed that did, by index.
        dropped: indices of those that were filtered out.
    """

    value: Any
    results: list[Any]
    indices: list[int]
    errors: dict[int, Exception]
    dropped: list[int]


class ValueModel(Protocol):
    """What the engine asks about values. All methods are called in the engine's thread and must return at once: what
    may wait (for a disk, mostly) `failed` returns, and the thread that reads the pipeline does it.

    Each value the engine holds ends in exactly one way: it is emitted (delivered, or turned into what its operation
    returned), its `part` takes its place, or it is given to `discard`. Two exceptions, both after an early stop: what
    waits in the sink stays readable, unless it is stopped with ``discard=True`` or forgotten (then it is discarded, by
    the thread that stops it where the engine's own has ended), and what an abandoned operation still works on is never
    given back, for it may still be written to.
    Lists made by `aggregate` and what `gather` makes are values like others: all methods see them.
    """

    def units(self, value: Any) -> int:
        """How many items the value stands for. Every count of the engine is in these units."""
        ...

    def nbytes(self, value: Any) -> int:
        """How many bytes it holds in memory; 0 when unknown."""
        ...

    def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> Callable[[], object] | None:
        """Called for every failure that leaves its item out.

        A failure with an empty key is about the whole value: its operation raised.

        Returns:
            What is still to be done about it and may wait, such as writing it down; None for nothing. It travels to the
            end of the pipeline as values do, with the same room and backpressure, and is called inside of `get_item`
            (or an iterator's ``next``), in the thread that reads. Until it has returned the items count as in flight,
            then as failed; what is never read is in flight for ever. If it raises, the pipeline fails of that. `value`
            may have been given to `discard` by then.
        """
        ...

    def discard(self, value: Any) -> None:
        """The engine lets go of a value that will not go on (failed, dropped, left over at a stop)."""
        ...

    def part(self, value: Any, failures: Sequence[ItemFailure]) -> Any:
        """The part of an operation's input that these failures of its Outcome are about, to be done again.

        It takes the place of `value`, whose other items are done with. None: it cannot be had, the failures stay.
        """
        ...

    def last_attempt(self, value: Any) -> None:
        """The attempt at it that begins now is the last one. Only where the stage has a policy of trying again."""
        ...

    def describe(self, value: Any) -> str:
        """What people know the value by, for messages about it: short, and one line. Called from any thread."""
        ...


class PlainValues:
    """The default model: every value is one item of unknown size."""

    def units(self, value: Any) -> int:
        """One, whatever the value."""
        del value
        return 1

    def nbytes(self, value: Any) -> int:
        """Unknown."""
        del value
        return 0

    def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> Callable[[], object] | None:
        """Log what an `Outcome` reports, which nobody else would; what was raised the engine has logged already."""
        del value
        for failure in failures:
            if failure.key:
                _logger.warning("stage %s: item %s failed: %s", stage, failure.key, failure.error)
        return None

    def discard(self, value: Any) -> None:
        """Nothing to give back."""
        del value

    def part(self, value: Any, failures: Sequence[ItemFailure]) -> Any:
        """One item has no parts."""
        del value, failures

    def last_attempt(self, value: Any) -> None:
        """Nothing to prepare."""
        del value

    def describe(self, value: Any) -> str:
        """Its `repr`, cut short."""
        return reprlib.repr(value)


class HubResource(Protocol):
    """Something that lives on the engine's hub for the time of a run: a pool of workers, a client, a writer."""

    def start_in_hub(self) -> None:
        """Runs in a greenlet on the hub before the first item is read. Raising fails the pipeline."""
        ...

    def stop_in_hub(self) -> None:
        """Runs in a greenlet on the hub when all stages have ended, whatever the reason. Raising fails the pipeline."""
        ...


@runtime_checkable
class TellsState(Protocol):
    """A `HubResource` that can say what it is doing, for reports of a pipeline that stands still."""

    def state(self) -> Sequence[str]:
        """A line for each of its parts. Called from any thread at any time, and must return at once."""
        ...

    def keeps_waiting(self, fiber: object) -> bool:
        """Whether a green operation in this fiber waits here for what others have yet to give back. Called likewise."""
        ...


def green(op: _F) -> _F:
    """Mark a function as cooperative: it runs in a greenlet on the engine's hub and must never block the thread."""
    op.__penstock_green__ = True  # type: ignore[attr-defined]
    return op
