"""A whole storm: a job is run and run again under the faults of a seed, to its end; then what it leaves is compared."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from penstock.engine.journal import JournalError, Status, read_status
from penstock.tests.segments import abandoned, left_since
from penstock.tests.storm.drive import EARLY, Ended, Run
from penstock.tests.storm.pictures import Leavings, check_leavings, draw_pictures, leavings
from penstock.tests.storm.seeds import DISTURBED_RUNS, INSIDE, Seed
from penstock.tests.waiting import patient

_RUNS = DISTURBED_RUNS + 2
"""After so many a storm must be over."""

_DRAINS = "finishing what is in flight"

_SWEPT = patient(20.0)
"""Seconds after which a segment without an owner is nobody else's business any more."""

_TAIL = 2_000
"""Characters of a run's last words that a report shows."""


@dataclass
class Storm:
    """What a storm did and found.

    Attributes:
        seed: its draws.
        log: the faults that fired, and how each run ended.
        wrong: what is not as it must be; nothing, if all is well.
    """

    seed: Seed
    log: list[str] = field(default_factory=list[str])
    wrong: list[str] = field(default_factory=list[str])
    runs: int = 0

    @property
    def faults(self) -> int:
        """How many fired."""
        return sum(": exit" not in line for line in self.log)

    def __str__(self) -> str:
        on = ", ".join(sorted(self.seed.on)) or "no fault"
        lines = [f"seed {self.seed.number}: {self.seed.store}, embedder in a {self.seed.embedder}; on: {on}"]
        lines += [f"  {line}" for line in self.log]
        lines += [f"  WRONG: {line}" for line in self.wrong]
        return "\n".join([*lines, f"  again: python -m penstock.tests.storm --seed {self.seed.number}"])


def storm(number: int) -> Storm:
    """Run the storm of a seed."""
    seed = Seed.of(number)
    found = Storm(seed)
    before = abandoned()
    with _place() as folder:
        draw_pictures(folder / "pictures")
        for run in range(_RUNS):
            ended = Run(seed, run, folder, _arguments(seed, run, folder), found.log.append).finish()
            found.runs += 1
            found.log.append(f"run {run}: exit {ended.status}")
            found.wrong += [f"run {run}: {what}" for what in check_end(ended, _status(folder / "job"))]
            if ended.status == 0:
                break
        else:
            found.wrong.append(f"not finished after {_RUNS} runs")
            return found
        left = leavings(folder / "pictures", _store(seed, folder), folder / "job")
        found.wrong += check_leavings(left, undisturbed(seed.embedder))
    if new := left_since(before, _SWEPT):
        found.wrong.append(f"segments are left: {len(new)}")
    return found


@cache
def undisturbed(embedder: str) -> Leavings:
    """What a job leaves that nobody disturbs."""
    calm = Seed(0, "lite", "worker" if embedder == "worker" else "thread", frozenset())
    with _place() as folder:
        draw_pictures(folder / "pictures")
        ended = Run(calm, 0, folder, _arguments(calm, 0, folder), _ignore).finish()
        if ended.status:
            raise AssertionError(f"the undisturbed job ended with {ended.status}: {ended.said}")
        return leavings(folder / "pictures", _store(calm, folder), folder / "job")


@contextmanager
def _place() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="penstock-storm-") as name:
        yield Path(name).resolve()


def _ignore(line: str) -> None:
    del line


def _store(seed: Seed, folder: Path) -> str:
    return f"bulk:{folder / 'parts'}" if seed.store == "bulk" else str(folder / "rows.db")


def _arguments(seed: Seed, run: int, folder: Path) -> list[str]:
    """`resume`, where there is something to resume, or the command it was begun with, cut in another way."""
    status = _status(folder / "job")
    if status is not None and "config" in status.settings and seed.draws("resume", run).random() < 0.5:
        return ["resume", str(folder / "job")]
    embedder = "gist:32" if seed.embedder == "worker" else "python:penstock.tests.storm.child:embed"
    own = ["--to", _store(seed, folder), "--job", str(folder / "job"), "--embedder", embedder, "--image-size", "32"]
    return ["embed", str(folder / "pictures"), *own, "--progress", "none", *seed.settings(run)]


def _status(job: Path) -> Status | None:
    try:
        return read_status(job)
    except JournalError:
        return None


def check_end(ended: Ended, status: Status | None) -> list[str]:
    """Whether a run ended in a way that its faults explain."""
    early = {fault.removesuffix(f" {EARLY}") for fault in ended.fired if fault.endswith(EARLY)}
    fired = ended.fired | early
    allowed = {0}
    if fired & {"drain", "leave at once"}:
        allowed.add(130)
    if fired & {"kill the parent", "a write is torn"}:
        allowed.add(-9)
    if fired & set(INSIDE):
        allowed.add(1)
    # Before its handlers are there, and when they have done their work, a signal does what it always does.
    last_words = [line for line in ended.said.splitlines() if line.startswith("penstock: ") and _DRAINS not in line]
    over = bool(last_words) or (status is not None and status.finished)
    for fault, number in (("drain", -15), ("leave at once", -2), ("dump", -10)):
        if fault in (fired if over else early):
            allowed.add(number)
    wrong = [f"process left: {process}" for process in ended.left]
    if ended.hung:
        wrong.append("hung")
    if ended.status not in allowed:
        wrong.append(f"exit {ended.status} after {shlex.join(sorted(ended.fired)) or 'no fault'}")
    if "AccountingError" in ended.said or "do not balance" in ended.said or "disagree" in ended.said:
        wrong.append("its books do not balance")
    if "Traceback" in ended.said and "leave at once" not in early:
        wrong.append("a traceback")
    return [*wrong, ended.said[-_TAIL:]] if wrong else []
