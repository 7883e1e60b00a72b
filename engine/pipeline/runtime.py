"""One run of a pipeline: the engine's thread, its hub, and everything that lives on it from start to end.

The thread begins with the resources, then the stages and the source; it is over when the last stage has ended or
somebody asks it to stop, and then gives everything back within a bounded time. It knows nothing of the user's
`Pipeline` object, so that a forgotten one can be collected.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic, perf_counter

from ...errors import FailureBudgetError, ItemError, PipelineFailure
from ..core.channel import Entry
from ..core.definitions import GraphDef
from ..core.executors import Executors
from ..core.feedback import FeedbackLoop
from ..core.graph import Graph
from ..core.hub import Event, Hub, Killed, Mailbox, refuse_patched_threads
from ..core.latch import Latch
from ..core.output_queue import OutputQueue, Record
from ..core.runners import Answer, Call
from ..core.stage import Node, as_exception
from ..core.stage_hooks import StageHooks
from ..core.threads import join_threads
from ..core.values import HubResource
from ..observe.dump import running
from ..observe.monitor import Monitor
from ..observe.report import Report
from ..observe.report_builder import make_report

_logger = logging.getLogger(__name__)

GRACE = 1.0
"""Seconds that running operations get to end at a stop, before their threads are abandoned."""
_BEGIN_SECONDS = 1.0
"""Seconds the engine's thread may take to begin where its start was interrupted."""
_RESOURCE_SECONDS = 10.0
"""Seconds a resource may take to stop."""
_REPORT_SECONDS = 2.0
"""Seconds to wait for a consistent report; a green operation that blocks the hub may keep it from being made."""
_EXIT_SECONDS = 2.0
"""Seconds the interpreter's exit waits for a pipeline that nobody stopped."""


class Runtime:
    """The running side of a pipeline. `start` once; all other methods from any thread.

    Attributes:
        opened: set when all resources have started and the source is being read, or when that will never be.
        closed: set as the last thing the engine's thread does.
    """

    def __init__(self, definition: GraphDef, number: int) -> None:
        self.definition = definition
        self.values = definition.values
        self.hub = Hub()
        self.mailbox = Mailbox()
        self.output = OutputQueue(definition.sink_size, self.hub, self.mailbox)
        self.graph = Graph(self, definition, self.output, number)
        self.monitor = Monitor(definition)
        self.opened, self.closed = Latch(), Latch()
        self.began: float | None = None
        self.finished: float | None = None
        self.label = label = f"penstock-{number}"
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=label, daemon=True)
        self._begun = Latch()
        self._executors = Executors(definition, self.hub, self.mailbox, label)
        self._causes: list[Exception] = []
        self._message, self._kind = "", PipelineFailure
        self._failed: dict[Node, Exception | None] = {}
        self._hooks = StageHooks(self.hub, self.mailbox, self._record)
        self._over, self._quiet = Event(self.hub), Event(self.hub)
        self._stop_wish = self._discards = False
        self._drain_wish: tuple[float | None] | None = None
        self._grace = GRACE
        self._alive = 0
        self._orphans: dict[Call, str] = {}
        self._calm: Event | None = None
        self._started: list[HubResource] = []

    # -- from any thread ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the engine's thread.

        Raises:
            ConfigError: the process is monkey-patched.
        """
        refuse_patched_threads()
        self.began = perf_counter()
        running[self.label] = self
        # A forgotten pipeline must not keep working while the interpreter goes down around it. Before the thread, which
        # takes it back at its end: that may come before `start` returns.
        atexit.register(self._at_exit)
        try:
            self._thread.start()
        except BaseException:
            # A Ctrl-C while the thread begins does not keep it from running; once it has begun it can be stopped.
            if not self._begun.wait(_BEGIN_SECONDS):
                atexit.unregister(self._at_exit)
                del running[self.label]
                self.output.end()
            raise

    @property
    def starting(self) -> str:
        """What it waits for at its start, in words."""
        waiting = self.definition.resources[len(self._started) :]
        return f"{type(waiting[0]).__name__} has not started" if waiting else "its thread has not begun"

    def request_stop(self, grace: float | None = None, *, discard: bool = False) -> None:
        """Ask the thread to end early; operations get `grace` seconds. `discard`: see `Pipeline.stop`."""
        if grace is not None:
            self._grace = grace
        self._stop_wish = True
        self._discards = self._discards or discard
        self.mailbox.post(self._halt)
        if self.output.has_ended:  # else the thread sees the wish when it ends
            self._discard_unread()

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the engine's thread to end; says whether it has. At once when called from that thread."""
        if self._thread.ident is None or os.getpid() != self._pid:
            return True
        return not join_threads([self._thread], seconds) or self.is_own_thread

    def drain(self, timeout: float | None) -> None:
        """Stop reading the source; after `timeout` seconds stop everything."""
        self._drain_wish = (timeout,)
        self.mailbox.post(lambda: self._begin_drain(timeout))

    def report(self) -> Report:
        """The figures as they stand; made on the hub while it runs, so that they belong together."""
        made: list[Report] = []
        done = Latch()

        def make() -> None:
            made.append(make_report(self, self.monitor.memory, self.monitor.stalls))
            done.set()

        if not self.is_own_thread and self.mailbox.post(make) and done.wait(_REPORT_SECONDS):
            return made[0]
        still = self.is_own_thread or self.began is None or self.finished is not None
        return replace(make_report(self, self.monitor.memory, self.monitor.stalls), approximate=not still)

    def carry_out(self, record: Record) -> None:
        """In a reader's thread: do what is to be done about a failure. If it cannot be, its stage cannot go on."""
        try:
            record.work()
        except Exception as error:  # noqa: BLE001  (whatever it is becomes the pipeline's failure)
            failed, why = [error], "stopped"
            if not self.mailbox.post(lambda: self.fatal(record.node, failed, why)):
                self._record(record.node.name, failed, why)
        else:
            self.output.recorded(record)

    @property
    def is_own_thread(self) -> bool:
        """Whether this is the engine's thread."""
        return threading.get_ident() == self.hub.thread_ident

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:
            self.request_stop(0.0)
            self.join(_EXIT_SECONDS)

    # -- the engine's thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._begun.set()
        try:
            self.hub.open()
            try:
                self._conduct()
            finally:
                self.mailbox.close()
                self.hub.destroy()
        except BaseException as error:  # noqa: BLE001  (readers wait: they must hear of it, whatever it is)
            self._record("engine", [as_exception(error)], "ended unexpectedly")
        finally:
            self.finished = perf_counter()
            self.hub.thread_ident = 0
            self.output.end()
            running.pop(self.label, None)
            atexit.unregister(self._at_exit)
            self._discard_unread()
            self.opened.set()
            self.closed.set()

    def _conduct(self) -> None:
        self.mailbox.open(self.hub)
        self.monitor.begin(self)
        opened = Event(self.hub)
        opening = self.hub.spawn(self._open, opened.set)
        if self._stop_wish:  # it came before the mailbox was open
            self._halt()
        elif self._drain_wish is not None:
            self._begin_drain(*self._drain_wish)
        self._over.wait()
        self.monitor.mute(complete=not self._alive)
        deadline = monotonic() + self._grace
        if not opened.is_set:
            self.hub.kill(opening)
            opened.wait(self._grace)
        for step in (self._end_stages, self._hooks.end, self._give_back, self._stop_resources, self._end_threads):
            try:
                step(deadline)
            except BaseException as error:  # noqa: BLE001  (one thing that cannot end must not keep the others)
                self._record("engine", [as_exception(error)], "did not end cleanly")

    def _open(self) -> None:
        """Start the resources, then the stages, the source last."""
        try:
            for resource in self.definition.resources:
                resource.start_in_hub()
                self._started.append(resource)
            if not self._over.is_set:
                self._begin()
                self.opened.set()
        except BaseException as error:  # noqa: BLE001
            if not (isinstance(error, Killed) and self._over.is_set):
                self._record("resource" if not self._alive else "engine", [as_exception(error)], "could not start")
            self._over.set()

    def _begin(self) -> None:
        for pipe in self.graph.pipes:
            pipe.node.runner = self._executors.runner(pipe.node.kind, pipe.executor, pipe.hooks)
            if pipe.hooks and not self._hooks.enter(pipe.node, pipe.hooks, self._executors.loop):
                self._over.set()
                return
        self.graph.source.reader = self._executors.reader(self.definition.source)
        self._alive = len(self.graph.nodes)
        for node in reversed(self.graph.nodes):
            node.begin()

    # -- what stages tell; all on the hub -----------------------------------------------------------------------------

    def fatal(self, stage: Node, errors: Sequence[Exception], why: str, *, spent: bool = False) -> None:
        """See `stage.Engine`: what is past the stage is delivered, everything before it ends."""
        if stage in self._failed:
            return  # operations that ran beside the one that was fatal fail of the same cause
        self._failed[stage] = errors[0] if errors else None
        self._record(stage.name, errors, why, FailureBudgetError if spent else PipelineFailure)
        for node in self.graph.before(stage):
            node.kill()
        if stage.ordered:
            stage.kill()  # what came before the failure has left already, what comes after it must not
        else:
            stage.stop_input()
            self.hub.timer(self._grace, stage.kill)

    def settled(self, stage: Node) -> None:
        """See `stage.Engine`."""
        for loop in self.graph.loops:
            if stage in loop:
                self._try_close(loop)

    def ended(self, stage: Node) -> None:
        """See `stage.Engine`: the next channel closes, unless something may still come along a feedback edge."""
        self._alive -= 1
        self._hooks.leave(stage, self._failed.get(stage, CancelledError() if stage.cancelled else None))
        if stage.budget.is_exceeded and not (stage.cancelled or self._failed or self._drain_wish):
            errors = list(stage.budget.errors) or [ItemError("items of earlier runs failed")]
            self.fatal(stage, errors, str(stage.budget), spent=True)
        follower = self.graph.after(stage)
        if follower is None:
            self._over.set()
        else:
            loop = self.graph.loop_at(follower)
            if loop is None:
                follower.close_input()
            else:
                loop.is_armed = True
                self._try_close(loop)
        if not self._alive:
            self._quiet.set()

    @staticmethod
    def _try_close(loop: FeedbackLoop) -> None:
        if loop.has_ended():
            loop.head.close_input()

    def abandon(self, stage: Node, call: Call, late: Callable[[Answer], None]) -> None:
        """See `stage.Engine`."""
        self._orphans[call] = stage.name

        def settle(answer: Answer) -> None:
            self._orphans.pop(call, None)
            if self._calm is not None and not self._orphans:
                self._calm.set()
            late(answer)

        call.abandon(settle)

    def record(self, stage: Node, units: int, work: Callable[[], object]) -> None:
        """See `stage.Engine`."""
        self.output.put(Entry(Record(stage, units, work), 0, 0))

    # -- the end ------------------------------------------------------------------------------------------------------

    def _halt(self) -> None:
        self._over.set()

    def _begin_drain(self, timeout: float | None) -> None:
        source = self.graph.source
        if self._alive:
            source.stop_input()
            for pipe in self.graph.pipes:
                pipe.node.flush_retries()
            self.hub.timer(self._grace, source.kill)  # it may wait for a value that never comes
        else:
            self._halt()
        if timeout is not None:
            self.hub.timer(timeout, self._halt)

    def _end_stages(self, deadline: float) -> None:
        """End what still runs, and wait for it."""
        if self._alive:
            for node in self.graph.nodes:
                node.kill()
            if not self._quiet.wait(deadline - monotonic()):
                stuck = ", ".join(node.name for node in self.graph.nodes if node.is_running)
                _logger.warning("%s: stages that did not end within %.1f s: %s", self.label, self._grace, stuck)
        if self._orphans:
            self._calm = Event(self.hub)
            self._calm.wait(deadline - monotonic())
        for name in self._orphans.values():
            _logger.warning("stage %s: an operation did not end within %.1f s and was abandoned", name, self._grace)

    def _give_back(self, deadline: float) -> None:
        """Give back the values that are left over."""
        if self.graph.has_begun:
            values, late = self.graph.source.reader.finish(max(deadline - monotonic(), 0.0))
            self.graph.source.leftover(values)
            if late:
                _logger.warning("stage source: did not end within %.1f s; abandoned thread %s", self._grace, late[0])
        self.graph.discard_leftovers(self.values)
        self._discard_unread()

    def _discard_unread(self) -> None:
        if self._discards:
            self.output.discard(self.values.discard)

    def _end_threads(self, deadline: float) -> None:
        late = [*self.monitor.end(), *self._executors.close(max(deadline - monotonic(), 0.1))]
        if late:
            _logger.warning("%s: abandoned threads that did not end in time: %s", self.label, ", ".join(late))

    def _stop_resources(self, deadline: float) -> None:
        del deadline
        for resource in reversed(self._started):
            done = Event(self.hub)
            fiber = self.hub.spawn(partial(self._stop_resource, resource), done.set)
            if not done.wait(_RESOURCE_SECONDS):
                self.hub.kill(fiber)
                _logger.warning("%s: %r did not stop within %.0f s", self.label, resource, _RESOURCE_SECONDS)

    def _stop_resource(self, resource: HubResource) -> None:
        try:
            resource.stop_in_hub()
        except BaseException as error:  # noqa: BLE001
            self._record("resource", [as_exception(error)], "could not stop")

    # -- failures -----------------------------------------------------------------------------------------------------

    def _record(
        self, stage: str, errors: Sequence[Exception], why: str, kind: type[PipelineFailure] = PipelineFailure
    ) -> None:
        note = f"penstock stage: {stage}"
        for error in errors:
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
        if not self._causes:
            self._message, self._kind = f"stage {stage!r}: {why}", kind
        # By identity: errors may define equality as they like.
        known = {id(error) for error in self._causes}
        self._causes.extend(error for error in errors if id(error) not in known)

    def failure(self) -> PipelineFailure | None:
        """Why it failed; for whoever is told that nothing will come any more.

        A new one each time: the traceback of a kept one would refer to the reader's frames, and so to the `Pipeline`,
        which could never be collected.
        """
        return self._kind(self._message, self._causes) if self._causes else None
