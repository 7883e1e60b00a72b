"""Hooks: user code around each stage and each task of it. Names follow SPDL's `spdl.pipeline`."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from inspect import signature
from time import perf_counter
from typing import Any, Final

from ...errors import ConfigError
from .metrics import Histogram

_logger = logging.getLogger(__name__)

_NOT_COUNTED: Final = (StopAsyncIteration, asyncio.CancelledError, GeneratorExit)
"""Raised around tasks that neither succeed nor fail: a generator's end, a stop."""


@dataclass(frozen=True, slots=True)
class StageInfo:
    """Which stage a hook is for.

    Attributes:
        pipeline_id: number of the pipeline in this process.
        stage_id: position of the stage; the source has 0.
        stage_name: as in reports.
        concurrency: tasks at once, at most.
    """

    pipeline_id: int
    stage_id: str
    stage_name: str
    concurrency: int | None = None

    def __str__(self) -> str:
        limit = "" if self.concurrency is None else f"[{self.concurrency}]"
        return f"{self.pipeline_id}:{self.stage_id}:{self.stage_name}{limit}"


class TaskHook(ABC):
    """User code around the tasks of one stage: for logs, traces, statistics. See ``build(task_hook_factory=)``.

    Both methods are asynchronous context managers, entered in the hooks' order and left in the reverse one, all on the
    pipeline's asyncio loop, whatever the stage's operation is and wherever it runs. So they must not block; state of a
    hook needs no lock.

    Example:
        >>> class Trace(TaskHook):
        ...     @asynccontextmanager
        ...     async def task_hook(self, input_item=None):
        ...         print("begin", input_item)
        ...         try:
        ...             yield
        ...             print("end", input_item)
        ...         except Exception as error:
        ...             print("failed", input_item, error)
        ...             raise
    """

    @asynccontextmanager
    async def stage_hook(self) -> AsyncGenerator[None]:
        """Around the stage: entered before its first task, left when its last one has ended.

        What ended the stage early is raised inside: the error that was fatal to it, or CancelledError at a stop. If
        this raises, the pipeline fails of it.
        """
        yield

    @abstractmethod
    def task_hook(self, input_item: Any = None) -> AbstractAsyncContextManager[None]:
        """Around one task: one run of the operation, so each attempt of an item that is tried again is one.

        What the operation raises is raised inside; it stays the item's failure if this does not let it pass. If this
        raises something of its own, before or after the operation, the item has failed of that, and what the operation
        made of it is discarded. Each value of a generator is a task; the one that finds it exhausted sees
        StopAsyncIteration. (Generators in processes are one task.) At a stop what is under way sees CancelledError.

        Args:
            input_item: the value the operation is called with.
        """


TaskHookFactory = Callable[[StageInfo], Sequence[TaskHook]]
"""Makes the hooks of a stage; none for stages without."""


@dataclass(frozen=True, slots=True)
class TaskPerfStats:
    """What the tasks of a stage took, in all or since the last time. Times are in seconds, of those that succeeded.

    Attributes:
        num_tasks: tasks that succeeded or failed.
        num_failures: those of them that failed.
        ave_time: mean.
        p90_time, p99_time: percentiles, right within 9 %.
    """

    num_tasks: int
    num_failures: int
    ave_time: float
    p90_time: float
    p99_time: float


class _Lap:
    """Counts and times of a stretch of time."""

    def __init__(self) -> None:
        self.times = Histogram()
        self.failures = 0

    def stats(self) -> TaskPerfStats:
        times = self.times
        return TaskPerfStats(
            times.count + self.failures, self.failures, times.mean, times.quantile(0.9), times.quantile(0.99)
        )


class TaskStatsHook(TaskHook):
    """Statistics of a stage's tasks: logged at its end, and handed to a callback at intervals.

    Args:
        info: the stage.
        interval: seconds between calls of `interval_stats_callback`; not positive: none.
    """

    def __init__(self, info: StageInfo, interval: float = -1) -> None:
        self.info = info
        self.interval = interval
        self._all, self._lap = _Lap(), _Lap()

    @property
    def num_tasks(self) -> int:
        """Tasks that succeeded or failed."""
        return self.num_success + self.num_failures

    @property
    def num_success(self) -> int:
        """Tasks that succeeded."""
        return self._all.times.count

    @property
    def num_failures(self) -> int:
        """Tasks that failed."""
        return self._all.failures

    @property
    def ave_time(self) -> float:
        """Mean time of a task that succeeded, in seconds."""
        return self._all.times.mean

    async def interval_stats_callback(self, stats: TaskPerfStats) -> None:
        """What is done at intervals with the figures since the last time: logged at INFO. To be overridden.

        What it raises is logged, and it is called again after the next interval.
        """
        self._log_stats(stats)

    @asynccontextmanager
    async def stage_hook(self) -> AsyncGenerator[None]:
        """See `TaskHook`."""
        reports = asyncio.create_task(self._at_intervals()) if self.interval > 0 else None
        try:
            yield
        finally:
            if reports is not None:
                reports.cancel()
                with suppress(asyncio.CancelledError):
                    await reports
            self._log_stats(self._all.stats())

    @asynccontextmanager
    async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:  # noqa: ARG002
        """See `TaskHook`."""
        began = perf_counter()
        try:
            yield
        except _NOT_COUNTED:
            raise
        except BaseException:
            self._all.failures += 1
            self._lap.failures += 1
            raise
        seconds = perf_counter() - began
        self._all.times.add(seconds)
        self._lap.times.add(seconds)

    async def _at_intervals(self) -> None:
        while True:
            await asyncio.sleep(self.interval)
            await self._log_interval_stats()

    async def _log_interval_stats(self) -> None:
        lap, self._lap = self._lap, _Lap()
        try:
            await self.interval_stats_callback(lap.stats())
        except Exception:
            _logger.exception("stage %s: interval_stats_callback raised", self.info)

    def _log_stats(self, stats: TaskPerfStats) -> None:
        _logger.info(
            "[%s] completed %d tasks (%d failed), mean %.3g ms, p90 %.3g ms, p99 %.3g ms",
            *(self.info, stats.num_tasks, stats.num_failures),
            *(1e3 * stats.ave_time, 1e3 * stats.p90_time, 1e3 * stats.p99_time),
        )


def make_hooks(factory: TaskHookFactory, info: StageInfo) -> tuple[TaskHook, ...]:
    """The hooks of a stage, looked at.

    Raises:
        ConfigError: the factory made something else.
        TypeError: a `task_hook` cannot be called with the input item.
    """
    made: Any = factory(info)
    if isinstance(made, TaskHook) or not isinstance(made, Sequence):
        raise ConfigError(f"task_hook_factory must return a list of TaskHooks, not {made!r} (for stage {info})")
    hooks: tuple[Any, ...] = tuple(made)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    for hook in hooks:
        if not isinstance(hook, TaskHook):
            raise ConfigError(f"task_hook_factory must return TaskHooks, not {hook!r} (for stage {info})")
        try:
            signature(hook.task_hook).bind(None)
        except TypeError as error:
            raise TypeError(
                f"{type(hook).__name__}.task_hook cannot be called with the input item ({error}): "
                "write async def task_hook(self, input_item=None)"
            ) from None
    return hooks


def as_manager(made: Any, hook: TaskHook, method: str) -> AbstractAsyncContextManager[None]:
    """What a method of a hook returned, as an asynchronous context manager.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(made, AbstractAsyncContextManager):
        if asyncio.iscoroutine(made):
            made.close()
        raise ConfigError(
            f"{type(hook).__name__}.{method} must be an asynchronous context manager: "
            "decorate it with contextlib.asynccontextmanager"
        )
    return made  # pyright: ignore[reportUnknownVariableType]
