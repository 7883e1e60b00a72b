"""What ``for``, ``async for``, ``with`` and ``async with`` need of a pipeline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from ...errors import PipelineFailure


class Runs(Protocol):
    """What can be started and stopped."""

    def start(self) -> None: ...
    def stop(self, *, timeout: float | None, discard: bool) -> None: ...
    async def astop(self, *, timeout: float | None, discard: bool) -> None: ...  # noqa: ASYNC109


_P = TypeVar("_P", bound=Runs)


class AutoStop(Generic[_P]):
    """A pipeline that runs for the time of a block; see `Pipeline.auto_stop`."""

    def __init__(self, pipeline: _P, timeout: float | None, discard: bool) -> None:
        self._pipeline = pipeline
        self._timeout = timeout
        self._discard = discard

    def __enter__(self) -> _P:
        try:
            self._pipeline.start()
        except KeyboardInterrupt as error:  # the engine's thread may have begun before it
            self.__exit__(None, error, None)
            raise
        return self._pipeline

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        with _beside(error):
            self._pipeline.stop(timeout=self._timeout, discard=self._discard)

    async def __aenter__(self) -> _P:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        with _beside(error):
            await self._pipeline.astop(timeout=self._timeout, discard=self._discard)


@contextmanager
def _beside(error: BaseException | None) -> Generator[None]:
    """A failure of the pipeline is a note on the error that is to be raised, if there is one."""
    try:
        yield
    except PipelineFailure as failure:
        if error is None:
            raise
        causes = "; ".join(f"{type(cause).__name__}: {cause}" for cause in failure.exceptions)
        error.add_note(f"the pipeline had failed, too: {causes}")


class Items:
    """An iterator that survives a TimeoutError, which a generator would not."""

    def __init__(self, get_item: Callable[[], Any]) -> None:
        self._get_item = get_item

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._get_item()
        except EOFError:
            raise StopIteration from None


class AsyncItems:
    """An asynchronous iterator that survives a cancellation, which an async generator would not."""

    def __init__(self, get_item: Callable[[], Awaitable[Any]]) -> None:
        self._get_item = get_item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._get_item()
        except EOFError:
            raise StopAsyncIteration from None
