"""Where an operation runs: on the hub, in the thread pool, on the asyncio loop, or in somebody's executor.

All four look the same to a stage: `run(function, argument)` in a fiber, and back comes an `Answer`. Whatever the
operation raises is an answer, never an exception here: `SystemExit` or `StopIteration` must not end a thread, a loop or
a fiber.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from threading import get_ident
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from ...errors import PenstockError, WorkerDiedError
from .asyncio_loop import AsyncLoop
from .hub import Hub, Killed, Mailbox, Waiter
from .threads import DaemonThreads


class Answer(NamedTuple):
    """What became of one operation: a result or an error, and the seconds it took.

    Both where something around the operation went wrong when the result was there already.
    """

    result: Any
    error: BaseException | None
    seconds: float


class StageBroken(Exception):  # noqa: N818  (carries the error of the whole stage, is never seen by users)
    """The stage cannot go on, whatever its failure budget.

    Attributes:
        error: to report.
        why: in words.
    """

    def __init__(self, error: Exception, why: str = "cannot go on") -> None:
        super().__init__(why)
        self.error = error
        self.why = why


class Call:
    """One operation under way outside the hub.

    Attributes:
        place: what to look at to see what it does: the ident of its thread, its coroutine, or a future. None while it
            waits to begin.
    """

    __slots__ = ("_answer", "_late", "_mailbox", "_waiter", "cancelled", "place", "stop")

    def __init__(self, hub: Hub, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._waiter = Waiter(hub)
        self._answer: Answer | None = None
        self._late: Callable[[Answer], object] | None = None
        self.cancelled = False
        self.place: object = None
        self.stop: Callable[[], object] = _nothing

    def finish(self, answer: Answer) -> None:
        """From any thread: it has ended."""
        self._mailbox.post(lambda: self._arrive(answer))

    def unstarted(self) -> None:
        """From any thread: it was cancelled before it began."""
        self.finish(Answer(None, CancelledError(), 0.0))

    def wait_for(self, job: Job) -> Answer:
        """As `wait`; who is killed meanwhile finds it in the job."""
        job.call = self
        answer = self.wait()
        job.call = None
        return answer

    def wait(self) -> Answer:
        """Wait in a fiber until it has ended."""
        while (answer := self._answer) is None:
            self._waiter.park()
        self._answer = None  # its error's traceback leads back here: break the cycle
        return answer

    def abandon(self, late: Callable[[Answer], object]) -> None:
        """The fiber waits no more: ask the operation to end, and give its answer to `late` whenever it comes."""
        self.cancelled = True
        if not self.then(late):
            self.stop()

    def then(self, late: Callable[[Answer], object]) -> bool:
        """Give its answer to `late`, and to no fiber; says whether it was there already."""
        self._late = late
        if self._answer is None:
            return False
        late(self._answer)
        return True

    def _arrive(self, answer: Answer) -> None:
        if self._late is not None:
            self._late(answer)
        else:
            self._answer = answer
            self._waiter.resume()


class Job(Protocol):
    """Who waits for an operation; remembers the call in case it must be abandoned."""

    call: Call | None

    @property
    def entry(self) -> Any:
        """Whose `value` it is about."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether the engine has told this fiber to end."""
        ...


class Runner(Protocol):
    """A place where operations run.

    Attributes:
        collects: whether what a generator makes travels together, in one answer.
    """

    @property
    def collects(self) -> bool: ...

    def run(self, fn: Callable[[Any], Any], argument: Any, job: Job) -> Answer:
        """Run `fn(argument)`, waiting in the current fiber.

        Raises:
            StageBroken: nothing can run there any more.
        """
        ...


class GreenRunner:
    """On the hub, in the stage's own fiber."""

    collects = False

    def run(self, fn: Callable[[Any], Any], argument: Any, job: Job) -> Answer:
        """See `Runner`."""
        began = perf_counter()
        try:
            result = fn(argument)
        except BaseException as error:
            if isinstance(error, Killed) and job.cancelled:
                raise
            return Answer(None, error, perf_counter() - began)
        return Answer(result, None, perf_counter() - began)


class ThreadRunner:
    """In the pipeline's thread pool."""

    collects = False

    def __init__(self, hub: Hub, mailbox: Mailbox, threads: DaemonThreads) -> None:
        self._hub, self._mailbox, self._threads = hub, mailbox, threads

    def run(self, fn: Callable[[Any], Any], argument: Any, job: Job) -> Answer:
        """See `Runner`."""
        call = Call(self._hub, self._mailbox)

        def work() -> None:
            if call.cancelled:
                call.unstarted()
                return
            began = perf_counter()
            call.place = get_ident()
            try:
                result = fn(argument)
            except BaseException as error:  # noqa: BLE001
                call.finish(Answer(None, error, perf_counter() - began))
            else:
                call.finish(Answer(result, None, perf_counter() - began))

        try:
            self._threads.post(work)
        except RuntimeError as error:
            raise StageBroken(error) from error
        return call.wait_for(job)


class AsyncRunner:
    """On the pipeline's asyncio loop."""

    collects = False

    def __init__(self, hub: Hub, mailbox: Mailbox, loop: AsyncLoop) -> None:
        self._hub, self._mailbox, self._loop = hub, mailbox, loop

    def run(self, fn: Callable[[Any], Coroutine[Any, Any, Any]], argument: Any, job: Job) -> Answer:
        """See `Runner`."""
        call = Call(self._hub, self._mailbox)

        async def work() -> None:
            call.finish(await answer_of(fn, argument, call))

        call.stop = self._loop.start(work, call.unstarted)
        return call.wait_for(job)


async def answer_of(fn: Callable[[Any], Coroutine[Any, Any, Any]], argument: Any, call: Call) -> Answer:
    """Run a coroutine function. Never raises: a SystemExit that leaves a task ends the loop for everybody."""
    began = perf_counter()
    try:
        call.place = coroutine = fn(argument)
        result = await coroutine
    except BaseException as error:  # noqa: BLE001
        return Answer(None, error, perf_counter() - began)
    return Answer(result, None, perf_counter() - began)


class ExecutorRunner:
    """In an executor of the user's, or in penstock's worker pool."""

    collects = True

    def __init__(self, hub: Hub, mailbox: Mailbox, executor: Executor) -> None:
        self._hub, self._mailbox, self._executor = hub, mailbox, executor
        self._processes: Any = None

    def run(self, fn: Callable[[Any], Any], argument: Any, job: Job) -> Answer:
        """See `Runner`."""
        call = Call(self._hub, self._mailbox)
        began = perf_counter()
        try:
            future: Future[Any]
            if isinstance(self._executor, ThreadPoolExecutor):
                future = self._executor.submit(_in_thread, call, fn, argument)
            else:
                future = self._executor.submit(fn, argument)
                call.place = future
        except BaseException as error:
            raise StageBroken(self._broken(error)) from error
        # ProcessPoolExecutor forgets its processes when it breaks; their exit codes are what one wants to know then.
        self._processes = getattr(self._executor, "_processes", None) or self._processes
        call.stop = future.cancel
        future.add_done_callback(lambda done: self._done(done, call, began))
        answer = call.wait_for(job)
        if isinstance(answer.error, BrokenExecutor):
            raise StageBroken(self._broken(answer.error)) from answer.error
        return answer

    @staticmethod
    def _done(future: Future[Any], call: Call, began: float) -> None:
        known = getattr(future, "seconds", None)  # a WorkerPool tells what the call itself took
        seconds = perf_counter() - began if known is None else known
        try:
            error = future.exception()
        except BaseException as cancelled:  # noqa: BLE001
            call.finish(Answer(None, cancelled, seconds))
            return
        call.finish(Answer(None if error is not None else future.result(), error, seconds))

    def _broken(self, error: BaseException) -> Exception:
        if not isinstance(error, BrokenExecutor):
            return error if isinstance(error, Exception) else PenstockError(f"{type(error).__name__}: {error}")
        exits = ", ".join(f"pid {p.pid}: exit code {p.exitcode}" for p in (self._processes or {}).values())
        broken = WorkerDiedError(
            f"the executor {type(self._executor).__name__} is broken, a worker died ({exits or 'exit codes unknown'}); "
            f"penstock's WorkerPool replaces dead workers and does their items again: {error}"
        )
        broken.__cause__ = error
        return broken


def _in_thread(call: Call, fn: Callable[[Any], Any], argument: Any) -> Any:
    call.place = get_ident()
    return fn(argument)


def _nothing() -> None:
    pass
