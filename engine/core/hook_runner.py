"""Runs hooks around a stage and its tasks: they live on the pipeline's asyncio loop, wherever the operation runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any

from .asyncio_loop import AsyncLoop
from .hooks import TaskHook, as_manager
from .hub import Hub, Mailbox
from .operations import END
from .runners import Answer, Call, Job, Runner, answer_of

Managers = Iterable[AbstractAsyncContextManager[None]]
_NO_ANSWER = Answer(None, None, 0.0)


def task_managers(hooks: Iterable[TaskHook], item: Any) -> Managers:
    """Those around one task, made one after the other as they are entered."""
    return (as_manager(hook.task_hook(item), hook, "task_hook") for hook in hooks)


def stage_managers(hooks: Iterable[TaskHook]) -> Managers:
    """Those around a stage."""
    return (as_manager(hook.stage_hook(), hook, "stage_hook") for hook in hooks)


async def inside(managers: Managers, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
    """Do something inside of context managers, which see how it ends; never raises.

    Returns:
        What `work` returned; with another error where they raised one. What it made is there even so.
    """
    answer, end = _NO_ANSWER, StopAsyncIteration()
    try:
        async with AsyncExitStack() as stack:
            try:
                for manager in managers:
                    await stack.enter_async_context(manager)
            except BaseException as error:
                answer = Answer(None, error, 0.0)
                raise
            answer = await work()
            if answer.error is not None:
                raise answer.error
            if answer.result is END:
                raise end
    except BaseException as error:  # noqa: BLE001  (what leaves a task may end the loop)
        return answer if error is end else answer._replace(error=error)
    else:
        return answer  # with its error, if it had one: they do not undo a failure by not letting it pass
    finally:
        del answer, end  # their tracebacks lead back here


class Guard:
    """Context managers that are open on the asyncio loop while something is done elsewhere.

    Attributes:
        entered: ends when all are entered, or with the error that one of them raised.
        left: ends when all have been left, with what became of the work.
    """

    def __init__(self, hub: Hub, mailbox: Mailbox, loop: AsyncLoop, managers: Managers) -> None:
        self._loop = loop
        self._managers = managers
        self._outcome: asyncio.Future[Answer]
        self._has_entered = False
        self.entered = Call(hub, mailbox)
        self.left = Call(hub, mailbox)
        self.cancel = loop.start(self._run, self._unstarted)
        self.entered.stop = self.left.stop = self.cancel

    def leave(self, answer: Answer) -> None:
        """The work is done: leave them. From any thread, once they are entered."""
        self._loop.soon(lambda: None if self._outcome.done() else self._outcome.set_result(answer))

    async def _run(self) -> None:
        task = asyncio.current_task()
        self.entered.place = self.left.place = None if task is None else task.get_coro()
        self._outcome = asyncio.get_running_loop().create_future()
        answer = await inside(self._managers, self._wait)
        if not self._has_entered:
            self.entered.finish(answer)
        self.left.finish(answer)

    async def _wait(self) -> Answer:
        self._has_entered = True
        self.entered.finish(_NO_ANSWER)
        return await self._outcome

    def _unstarted(self) -> None:
        self.entered.unstarted()
        self.left.unstarted()


class HookedRunner:
    """Another runner, with hooks around each operation.

    Args:
        runner: where operations run; None: on the asyncio loop, in the same task as the hooks.
    """

    def __init__(
        self, hub: Hub, mailbox: Mailbox, loop: AsyncLoop, hooks: Iterable[TaskHook], runner: Runner | None
    ) -> None:
        self._hub, self._mailbox, self._loop = hub, mailbox, loop
        self._hooks = tuple(hooks)
        self._runner = runner
        self.collects = runner is not None and runner.collects

    def run(self, fn: Callable[[Any], Any], argument: Any, job: Job) -> Answer:
        """See `Runner`."""
        managers = task_managers(self._hooks, job.entry.value)
        if self._runner is None:
            return self._on_loop(fn, argument, job, managers)
        guard = Guard(self._hub, self._mailbox, self._loop, managers)
        answer = guard.entered.wait_for(job)
        if answer.error is not None:
            return answer
        try:
            answer = self._runner.run(fn, argument, job)
        except BaseException:
            guard.cancel()
            raise
        guard.leave(answer)
        return guard.left.wait_for(job)

    def _on_loop(self, fn: Callable[[Any], Any], argument: Any, job: Job, managers: Managers) -> Answer:
        call = Call(self._hub, self._mailbox)

        async def work() -> None:
            call.finish(await inside(managers, partial(answer_of, fn, argument, call)))

        call.stop = self._loop.start(work, call.unstarted)
        return call.wait_for(job)
