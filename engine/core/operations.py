"""What an operation is: how it is called, whether it makes one value or many, and whether it can be called at all."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import ConfigError

END: Any = object()
"""What `step` and `advance` return at the end."""

Kind = Literal["blocking", "async", "green", "process"]

_ARITY = re.compile(r"(expected|takes) .*arguments?.*(got 1\b|\(1 given\))|missing \d+ required")


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, looked at.

    Attributes:
        call: what to call with the item.
        is_async: a coroutine function or an async generator function.
        is_many: a generator or async generator function.
        is_green: marked as cooperative.
        name: for reports.
    """

    call: Callable[[Any], Any]
    is_async: bool
    is_many: bool
    is_green: bool
    name: str


def look_at(op: Any) -> Operation:
    """Find out what `op` is.

    Raises:
        ConfigError: it is neither callable nor a container.
    """
    if not callable(op):
        getitem = getattr(op, "__getitem__", None)
        if getitem is None:
            raise ConfigError(f"pipe(op): {op!r} is neither callable nor a container with __getitem__")
        return Operation(getitem, False, False, False, type(op).__name__)
    inner: Any = op
    green = hasattr(op, "__penstock_green__")
    while isinstance(inner, functools.partial):
        inner = inner.func
        green = green or hasattr(inner, "__penstock_green__")
    name = getattr(inner, "__name__", type(inner).__name__)
    if not (inspect.isroutine(inner) or inspect.isclass(inner)):
        inner = inner.__call__  # a callable object: what counts is its method
    is_agen, is_gen = inspect.isasyncgenfunction(inner), inspect.isgeneratorfunction(inner)
    return Operation(op, is_agen or inspect.iscoroutinefunction(inner), is_agen or is_gen, green, name)


def check_arity(op: Operation, stage: str) -> None:
    """Check that an operation can be called with one positional argument, as far as its signature tells.

    Raises:
        TypeError: it cannot.
    """
    try:
        signature = inspect.signature(op.call)
    except (ValueError, TypeError):
        return  # many built-ins tell nothing; `is_arity_error` looks at their first call
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(
            f"stage {stage!r}: {op.name}{signature} cannot be called with one positional argument ({error}); "
            "bind the others with functools.partial"
        ) from None


def is_arity_error(error: BaseException, op: Operation) -> bool:
    """Whether a built-in without a signature complains about the number of arguments, not about this item."""
    if not isinstance(error, TypeError) or _ARITY.search(str(error)) is None:
        return False
    try:
        inspect.signature(op.call)
    except (ValueError, TypeError):
        return True
    return False


def step(iterator: Iterator[Any]) -> Any:
    """The next value of a generator, or `END`."""
    return next(iterator, END)


async def advance(iterator: AsyncIterator[Any]) -> Any:
    """The next value of an async generator, or `END`."""
    return await anext(iterator, END)


@dataclass(frozen=True, slots=True)
class ListOf:
    """An operation whose result is gone through where it runs, so that its values travel together; None stays None."""

    op: Callable[[Any], Any]

    def __call__(self, item: Any) -> list[Any] | None:
        """All that is in its result."""
        made = self.op(item)
        return None if made is None else list(made)


@dataclass(frozen=True, slots=True)
class ListOfAsync:
    """Likewise of a coroutine function."""

    op: Callable[[Any], Any]

    async def __call__(self, item: Any) -> list[Any] | None:
        """All that is in its result."""
        made = await self.op(item)
        return None if made is None else list(made)
