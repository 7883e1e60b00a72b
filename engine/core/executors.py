"""The executors of one run: hub, threads and an asyncio loop, made when first needed and ended together."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Any

from .asyncio_loop import AsyncLoop
from .definitions import GraphDef
from .hook_runner import HookedRunner
from .hooks import TaskHook
from .hub import Hub, Mailbox
from .runners import AsyncRunner, ExecutorRunner, GreenRunner, Runner, ThreadRunner
from .source_reader import AsyncSourceReader, SourceReader, ThreadSourceReader
from .threads import DaemonThreads


class Executors:
    """What runs operations, and the source, for one pipeline."""

    def __init__(self, definition: GraphDef, hub: Hub, mailbox: Mailbox, label: str) -> None:
        self._hub = hub
        self._mailbox = mailbox
        self._label = label
        self._threads = DaemonThreads(definition.num_threads, f"{label}-op")
        self._loop: AsyncLoop | None = None

    @property
    def loop(self) -> AsyncLoop:
        """The asyncio loop, started when first asked for."""
        if self._loop is None:
            self._loop = AsyncLoop(self._threads, f"{self._label}-asyncio")
        return self._loop

    def reader(self, source: Iterable[Any] | AsyncIterable[Any]) -> SourceReader:
        """Where a source is iterated: what can be iterated in both ways in the plain one, as by a `for` of the user."""
        if isinstance(source, AsyncIterable) and not isinstance(source, Iterable):
            return AsyncSourceReader(source, self._on_loop())
        return ThreadSourceReader(source, self._hub, self._mailbox, f"{self._label}-source")

    def runner(self, kind: str, executor: Executor | None, hooks: Sequence[TaskHook] = ()) -> Runner:
        """Where a stage of this kind runs, with these hooks around each operation."""
        plain = self._plain(kind, executor)
        if not hooks:
            return plain
        return HookedRunner(self._hub, self._mailbox, self.loop, hooks, None if kind == "async" else plain)

    def _plain(self, kind: str, executor: Executor | None) -> Runner:
        if executor is not None:
            return ExecutorRunner(self._hub, self._mailbox, executor)
        match kind:
            case "async":
                return self._on_loop()
            case "green" | "disaggregate":
                return GreenRunner()
            case _:
                return ThreadRunner(self._hub, self._mailbox, self._threads)

    def _on_loop(self) -> AsyncRunner:
        return AsyncRunner(self._hub, self._mailbox, self.loop)

    def close(self, seconds: float) -> list[str]:
        """End all threads within about `seconds`; returns the names of those that do not end."""
        late = self._loop.close(seconds) if self._loop is not None else []
        self._threads.shutdown(wait=False)
        return late + self._threads.join(seconds)
