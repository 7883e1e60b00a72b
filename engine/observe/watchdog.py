"""The watchdog: says which stage stands still, at what and where. It only tells; deadlines act.

A stage stands still when an operation of it is under way and nothing about the stage has changed for `stall_after`
seconds: nothing came in, went out, was dropped or failed. Who waits for input, for room behind it, for its turn or to
try again is not to blame, so of a whole row of waiting stages the one is named that the others wait for. The source is
named only when everything behind it is idle, the sink when it is full and nobody reads.

The hub stamps a beat; a thread looks at the beat and at the stages. When the hub does not beat, an operation blocks it,
and no stage can be blamed for standing still.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, replace
from time import perf_counter

from ...formatting import duration, plural, printable
from ..core.stage import Node
from ..core.stage_source import Source
from ..core.threads import daemon, join_threads
from .dump import Running, blocker, channels, is_at_work, named, oldest, operations, resources, under_way
from .report import Stall
from .stacks import indented, of_thread

_logger = logging.getLogger("penstock.engine.watchdog")  # by the name that is documented

_KEPT = 100
"""Past stalls that the report lists: the latest ones."""

_ITEMS = 3
"""Items named of a stage that stands still: the oldest ones."""


@dataclass(slots=True)
class _Case:
    """Something under watch: a stage, the sink or the hub.

    Attributes:
        mark: what it looked like at the last look; None while it waits for nothing.
        age: seconds for which it has looked like that.
        due: age at which it is told next.
        stall: what was told of it, while it lasts.
    """

    name: str
    due: float
    mark: Hashable | None = None
    age: float = 0.0
    stall: Stall | None = None


class Watchdog:
    """Watches one run from `begin` to `end`.

    Args:
        run: to be watched.
        stall_after: seconds without progress after which it is told; again at each doubling.

    Attributes:
        stalls: what was told, the oldest first; those that last are the last ones.
    """

    def __init__(self, run: Running, stall_after: float) -> None:
        self._run = run
        self._limit = stall_after
        self._pause = min(1.0, stall_after / 4)
        self._beats = self._seen = 0
        self._hub = _Case("engine", stall_after)
        self._sink = _Case("sink", stall_after)
        self._stages = [(node, _Case(node.name, stall_after)) for node in run.graph.nodes]
        self._past: deque[Stall] = deque(maxlen=_KEPT)
        self._over = threading.Event()
        self._complete = False
        self._thread: threading.Thread | None = None
        self.stalls: tuple[Stall, ...] = ()

    def begin(self) -> None:
        """Start watching, from the run's hub."""
        self._run.hub.timer(self._pause / 2, self.beat, every=True)
        self._thread = daemon(self._monitor, f"{self._run.label}-watchdog")

    def mute(self, complete: bool = False) -> None:
        """The run is ending, which takes a bounded time and has warnings of its own: only tell what has gone on.

        Args:
            complete: all stages have ended by themselves.
        """
        self._complete = complete
        self._over.set()

    def end(self) -> list[str]:
        """Stop watching; returns the thread's name if it does not end soon."""
        self._over.set()
        return join_threads([self._thread], 1.0) if self._thread is not None else []

    def beat(self) -> None:
        """The hub lives; called on it."""
        self._beats += 1

    def _monitor(self) -> None:
        before = perf_counter()
        while not self._over.wait(self._pause):
            now = perf_counter()
            # A process that was stopped, or starved, has not stood still all the while.
            self.look(min(now - before, 2 * self._pause))
            before = now
        for case in self._cases():
            self._close(case)
        self._list()

    def look(self, passed: float) -> None:
        """Look at everything once, `passed` seconds after the last look."""
        lives = self._beats != self._seen
        self._seen = self._beats
        if self._is_due(self._hub, None if lives else self._seen, passed):
            self._tell_hub()
        if lives:
            self._look_at_stages(passed)
        self._list()

    def _look_at_stages(self, passed: float) -> None:
        nodes, output = self._run.graph.nodes, self._run.output
        due = [
            (node, case, is_at_work(self._run, node))
            for node, case in self._stages
            if self._is_due(case, _mark(node, nodes), passed)
        ]
        unread = self._is_due(self._sink, output.last_take if output.books()[3] else None, passed)
        if unread and (output.is_full or not all(begun for _, _, begun in due)):  # what waits there may hold slots
            self._tell(self._sink, "sink", f"nobody reads the {plural(output.books()[3], 'value')} in it", [], [])
        for node, case, begun in due:
            # Who waits for what another stage holds (threads, slots) is not to blame, unless nobody else is.
            if begun or not self._is_suspected():
                self._tell_stage(node, case, begun)

    def _is_suspected(self) -> bool:
        """Whether somebody at work, or the reader, may be what all wait for. Half the limit, since not all of them
        stopped at the same moment."""
        at_work = [case for node, case in self._stages if is_at_work(self._run, node)]
        return any(case.age >= self._limit / 2 for case in (self._sink, *at_work))

    def _is_due(self, case: _Case, mark: Hashable | None, passed: float) -> bool:
        if mark is None or mark != case.mark:
            self._close(case)
            case.mark, case.age, case.due = mark, 0.0, self._limit
            return False
        case.age += passed
        if case.stall is not None:
            case.stall = replace(case.stall, seconds=case.age)
        return case.age >= case.due

    # -- telling ------------------------------------------------------------------------------------------------------

    def _tell_stage(self, node: Node, case: _Case, begun: bool) -> None:
        if isinstance(node, Source):
            why = "its iterator has not answered, and everything behind it is idle"
        elif begun:
            why = f"no progress with {plural(len(node.working), 'operation')} under way"
        else:
            why = "its operations get no thread, worker or slot, which nobody else seems to be holding up"
        items = (
            [] if isinstance(node, Source) else [named(self._run, job) for job in under_way(self._run, node)[:_ITEMS]]
        )
        self._tell(case, case.name, why, items, operations(self._run, node))

    def _tell_hub(self) -> None:
        job = blocker(self._run.graph.nodes)
        stage = self._hub.name if job is None else job.node.name
        items = [] if job is None else [named(self._run, job)]
        stack = of_thread(self._run.hub.thread_ident)
        self._tell(self._hub, stage, "it blocks the hub, on which all stages depend", items, [*items, *indented(stack)])

    def _tell(self, case: _Case, stage: str, why: str, items: list[str], lines: list[str]) -> None:
        case.due = 2 * case.age
        began = self._now() - case.age if case.stall is None else case.stall.began
        case.stall = Stall(stage, why, items, began, case.age)
        lines = [*lines, channels(self._run), *resources(self._run)]
        _logger.warning(
            "stage %s stands still for %s: %s\n%s",
            *(printable(stage), duration(case.age), why),
            "\n".join(indented(lines)),
        )

    def _close(self, case: _Case) -> None:
        stall, case.stall = case.stall, None
        if stall is not None:
            self._past.append(replace(stall, ended=self._now(), seconds=case.age))
            if self._complete or not self._over.is_set():
                _logger.warning("stage %s went on after %s", printable(stall.stage), duration(case.age))

    def _now(self) -> float:
        """Seconds since the start of the run."""
        return perf_counter() - (self._run.began or 0.0)

    def _cases(self) -> list[_Case]:
        return [self._hub, *(case for _, case in self._stages), self._sink]

    def _list(self) -> None:
        self.stalls = (*self._past, *(case.stall for case in self._cases() if case.stall is not None))


def _mark(node: Node, nodes: list[Node]) -> Hashable | None:
    """What a stage with an operation under way looks like; None for one that waits for others."""
    jobs = oldest(node)
    if not jobs or (isinstance(node, Source) and not all(other.is_idle for other in nodes if other is not node)):
        return None
    meter = node.meter
    counts = (meter.items_in, meter.items_out, meter.dropped, meter.failed, meter.created, meter.merged)
    return (jobs[0].since, *counts)
