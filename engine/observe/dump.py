"""What a run is doing at this moment, as text. From any thread, and also while the run's hub is blocked.

Nothing here waits for the hub: the figures are read beside it, so that they may not belong together to the last item.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from time import perf_counter
from typing import Protocol

from ...formatting import count, duration, plural, printable
from ..core.definitions import GraphDef
from ..core.hub import Hub
from ..core.stage import Job, Node
from ..core.stage_source import Source
from ..core.values import TellsState, ValueModel
from . import stacks
from .report_builder import Run, make_report

_SHOWN = 3
"""Operations of a stage that are shown with their stacks: the oldest ones."""

_LONGEST = 200
"""Characters shown of what a value is called."""


class Running(Run, Protocol):
    """A run to look at."""

    hub: Hub
    values: ValueModel
    definition: GraphDef
    label: str


running: dict[str, Running] = {}
"""The runs of this process whose engines run now, by label. May be copied from any thread."""


def dump(run: Running) -> str:
    """All stages of a run with what is under way in them, and what its resources say of themselves."""
    lines = [_headline(run), *stacks.indented(_channels_and_states(run))]
    for node in run.graph.nodes:
        if node.working:
            lines += [f"stage {printable(node.name)}", *stacks.indented(operations(run, node))]
    return "\n".join([*lines, *resources(run)])


def dump_process() -> str:
    """The same for each run of this process, and the stacks of all threads."""
    runs = [dump(run) for run in list(running.values())]
    return "\n".join([f"process {os.getpid()}: {plural(len(runs), 'pipeline')}", *runs, *stacks.of_all_threads()])


def operations(run: Running, node: Node) -> list[str]:
    """The operations a stage has under way, those that have begun and then the oldest first, with items and stacks."""
    jobs, now, lines = under_way(run, node), perf_counter(), list[str]()
    for job in jobs[:_SHOWN]:
        where, stack = _whereabouts(run, node, job)
        lines.append(f"{named(run, job)}, for {duration(now - job.since)}, {where}")
        lines += stacks.indented(stack)
    if len(jobs) > _SHOWN:
        lines.append(f"and {count(len(jobs) - _SHOWN)} more")
    return lines


def oldest(node: Node) -> list[Job]:
    """What a stage works on, the oldest operation first."""
    return sorted(node.working.copy(), key=lambda job: job.since)


def under_way(run: Running, node: Node) -> list[Job]:
    """The same, but those whose operation has really begun come first."""
    return sorted(oldest(node), key=lambda job: not _has_begun(run, job))


def named(run: Running, job: Job) -> str:
    """What people know a job's value by."""
    if isinstance(job.node, Source):
        return "the next value"
    try:
        name = printable(run.values.describe(job.entry.value))
    except Exception as error:  # noqa: BLE001  (a user's model; the stage and the stack are worth having all the same)
        name = f"a value that cannot be described ({type(error).__name__})"
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."


def is_at_work(run: Running, node: Node) -> bool:
    """Whether an operation of the stage really runs, rather than waiting for a thread, a worker or a resource."""
    return any(_has_begun(run, job) for job in node.working.copy())


def _has_begun(run: Running, job: Job) -> bool:
    place = _place(job)
    if isinstance(place, Future):
        return place.running() or place.done()
    if job.call is not None:
        return place is not None
    return not any(each.keeps_waiting(job.fiber) for each in run.definition.resources if isinstance(each, TellsState))


def blocker(nodes: Sequence[Node]) -> Job | None:
    """The operation of these stages that has the hub's thread just now, if it is one of theirs."""
    jobs = [job for node in nodes for job in node.working.copy()]
    # Those that work have begun and have not ended; of their fibers only the one that runs has no frame to go on from.
    return next((job for job in jobs if (fiber := job.fiber) is not None and fiber.gr_frame is None), None)


def channels(run: Running) -> str:
    """What waits in front of each stage: ``waiting: embed 2/2, insert 0/2, sink 4/4``."""
    fills = [f"{printable(node.name)}{_fill(node)}" for node in run.graph.nodes if node.channel is not None]
    return f"waiting: {', '.join([*fills, f'sink {run.output.books()[3]}/{run.output.size}'])}"


def resources(run: Running) -> list[str]:
    """What the run's resources say of themselves."""
    lines: list[str] = []
    for resource in run.definition.resources:
        if isinstance(resource, TellsState):
            try:
                lines += resource.state()
            except Exception as error:  # noqa: BLE001  (it may be ending just now; the rest is worth having)
                lines.append(f"{type(resource).__name__} cannot say what it does: {printable(str(error))}")
    return lines


def _headline(run: Running) -> str:
    if run.began is None:
        return f"{run.label}: not started"
    state = "has run" if run.finished is not None else "has been running"
    report = make_report(run, None)
    return f"{run.label} {state} for {duration(report.seconds)}: {report.accounting}"


def _channels_and_states(run: Running) -> list[str]:
    lines = [f"{printable(node.name)}{_fill(node)}: {_state(node)}" for node in run.graph.nodes]
    waiting = run.output.books()[3]
    return [*lines, f"sink {waiting}/{run.output.size}: {'full, nobody reads' if run.output.is_full else 'has room'}"]


def _fill(node: Node) -> str:
    return "" if node.channel is None else f" {node.channel.count}/{node.channel.capacity}"


def _state(node: Node) -> str:
    """What the fibers of a stage do."""
    meter, jobs = node.meter, oldest(node)
    parts: list[str] = []
    if jobs:
        parts.append(f"{len(jobs)} at work, the oldest for {duration(perf_counter() - jobs[0].since)}")
    if node.retrying:
        parts.append(f"{len(node.retrying)} waiting to be tried again")
    if meter.wait_out.running:
        parts.append(f"{meter.wait_out.running} waiting for room or for their turn")
    if meter.wait_in.running:
        parts.append(f"{meter.wait_in.running} waiting for input")
    return ", ".join(parts) or ("about to go on" if node.is_running else "not running")


def _whereabouts(run: Running, node: Node, job: Job) -> tuple[str, list[str]]:
    """Where an operation is, in words, and its stack."""
    fiber = job.fiber
    if job.call is None and isinstance(node, Source):
        return stacks.of_call(node.reader.place, None)
    if job.call is None and fiber is not None:
        return "on the hub", stacks.of_fiber(fiber, run.hub.thread_ident)
    return stacks.of_call(_place(job), _executor(run, node))


def _place(job: Job) -> object:
    return None if job.call is None else job.call.place


def _executor(run: Running, node: Node) -> Executor | None:
    return next((placed.executor for placed in run.graph.pipes if placed.node is node), None)
