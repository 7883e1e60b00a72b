"""One run of a storm's job, in a process of its own, and what is done to it from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from penstock.engine.journal import JournalError, read_status
from penstock.tests.storm.pictures import SHY, replaced
from penstock.tests.storm.seeds import OUTSIDE, Seed
from penstock.tests.waiting import DEADLINE, patient

_SLICES = 24
"""Passes while the pictures are done; some more while it begins and ends."""

MARK = "PENSTOCK_STORM"
"""In the environment of all processes of a storm, by which those that are left over are found."""


EARLY = "at once"
"""Behind the name of a fault that came before the job could have begun."""


@dataclass(frozen=True)
class Ended:
    """How a run has ended.

    Attributes:
        status: its exit status; less than 0 where a signal has ended it.
        said: its standard error.
        fired: the faults that it has met.
        hung: whether it had to be ended.
        left: processes that outlived it by more than a while.
    """

    status: int
    said: str
    fired: frozenset[str]
    hung: bool
    left: Sequence[str]


class Run:
    """Starts the job, does to it what the seed says, and waits for its end.

    Args:
        seed: the draws.
        number: of the run, from 0.
        folder: of the storm.
        arguments: of the command line.
        log: hears of each fault.
    """

    def __init__(
        self, seed: Seed, number: int, folder: Path, arguments: Sequence[str], log: Callable[[str], None]
    ) -> None:
        self._seed, self._number, self._log = seed, number, log
        self._pictures, self._job = folder / "pictures", folder / "job"
        self._said = folder / f"run-{number}.stderr"
        self._mark = str(folder)
        self._fired: set[str] = set()
        self._paused: dict[int, float] = {}
        self._passing = 0
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "penstock.tests.storm.child", str(seed.number), str(number), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                cwd=folder,
                env={**os.environ, MARK: self._mark},
            )

    def finish(self) -> Ended:
        """See it through."""
        deadline = time.monotonic() + DEADLINE
        seen: object = None
        while self._process.poll() is None and time.monotonic() < deadline:
            state = self._state()
            if state != seen:
                seen = state
                self._pass()
            self._wake(time.monotonic())
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.01)
        hung = self._process.poll() is None
        if hung:
            self._process.send_signal(signal.SIGUSR1)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(DEADLINE)
            self._process.kill()
        self._wake(None)
        status = self._process.wait()
        said = self._said.read_text(errors="replace")
        inside = {line[7:].split(" (")[0] for line in said.splitlines() if line.startswith("storm: ")}
        for line in said.splitlines():
            if line.startswith("storm: "):
                self._log(f"run {self._number}, in the job: {line[7:]}")
        return Ended(status, said, frozenset(self._fired | inside), hung, self._left())

    # -- what the driver sees -----------------------------------------------------------------------------------------

    def _state(self) -> object:
        """Where the job is: a pass of each fault comes with every step."""
        try:
            status = read_status(self._job)
        except JournalError:
            return "begins"
        if not status.listed:
            return "lists"
        done = status.counts.total - status.counts.remaining
        return done * _SLICES // max(1, status.counts.total), bool(self._workers())

    def _children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def _store(self) -> list[psutil.Process]:
        return [child for child in self._children() if "lite_child" in _command(child)]

    def _server(self) -> list[psutil.Process]:
        return [child for child in self._children() if "fork_server" in _command(child)]

    def _workers(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for server in self._server():
            with suppress(psutil.NoSuchProcess):
                found += server.children()
        return found

    def _left(self) -> list[str]:
        """Processes of this storm that are still there a while after its parent has gone."""
        deadline = time.monotonic() + patient(10)
        while (alive := _marked(self._mark)) and time.monotonic() < deadline:
            psutil.wait_procs(alive, timeout=0.05)
        lines = [f"pid {process.pid}: {_command(process)}" for process in alive]
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return lines

    # -- what the driver does -----------------------------------------------------------------------------------------

    def _pass(self) -> None:
        for fault in OUTSIDE:
            if self._seed.fires(fault, self._number, self._passing) and self._do(fault):
                self._fired.add(fault if self._passing else f"{fault} {EARLY}")
                self._log(f"run {self._number}, pass {self._passing}: {fault}")
        self._passing += 1

    def _do(self, fault: str) -> bool:
        """Whether there was somebody to do it to."""
        draw = self._seed.draws("which", fault, self._number, self._passing)
        crews = {"kill a worker": self._workers, "kill the fork server": self._server, "kill the store": self._store}
        if fault in crews:
            return self._signal(crews[fault](), draw.random(), signal.SIGKILL)
        if fault == "pause a worker":
            return self._pause(draw.random(), draw.uniform(0.05, 0.8))
        if fault in ("remove a picture", "replace a picture"):
            return self._change(fault, self._pictures / f"shy-{draw.randrange(SHY):02}.png")
        return self._tell(fault)

    def _tell(self, fault: str) -> bool:
        """A signal to the parent; one that is to leave at once gets two."""
        numbers = {"kill the parent": signal.SIGKILL, "drain": signal.SIGTERM, "dump": signal.SIGUSR1}
        self._process.send_signal(numbers.get(fault, signal.SIGINT))
        if fault == "leave at once":
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
            self._process.send_signal(signal.SIGINT)
        return True

    @staticmethod
    def _signal(processes: Sequence[psutil.Process], share: float, number: signal.Signals) -> bool:
        if not processes:
            return False
        with suppress(psutil.NoSuchProcess):
            processes[int(share * len(processes))].send_signal(number)
        return True

    def _pause(self, share: float, seconds: float) -> bool:
        workers = [worker for worker in self._workers() if worker.pid not in self._paused]
        if not self._signal(workers, share, signal.SIGSTOP):
            return False
        self._paused[workers[int(share * len(workers))].pid] = time.monotonic() + seconds
        return True

    def _wake(self, now: float | None) -> None:
        """Those whose pause is over go on; all of them where `now` is None."""
        for pid, until in list(self._paused.items()):
            if now is None or now >= until:
                del self._paused[pid]
                with suppress(psutil.NoSuchProcess):
                    worker = psutil.Process(pid)
                    if worker.environ().get(MARK) == self._mark:  # its number may be somebody else's by now
                        worker.resume()

    @staticmethod
    def _change(fault: str, path: Path) -> bool:
        if not path.exists():
            return False
        if fault == "remove a picture":
            path.unlink()
        else:
            replaced(path)
        return True


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _marked(mark: str) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
