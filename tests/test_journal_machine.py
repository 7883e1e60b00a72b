"""Random lives of a job against a plain dict, with deaths of the process and of the machine in between.

The model of the machine's death: of each file what was synced is there, and of the rest any beginning, cut anywhere,
perhaps with a hole of zeros; of the names (new, replaced, removed) those that were synced, and any beginning of the
rest.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penstock.engine.journal import Disk, Entry, JobFolder, Outcome, read_status
from penstock.tests.searching import searching

Model = dict[str, Outcome]
Names = dict[str, int]

RANGES = st.tuples(st.integers(0, 29), st.integers(0, 9)).map(lambda at: range(at[0], sum(at)))
ORDINALS = st.lists(st.one_of(st.integers(0, 29), RANGES), max_size=4)
SOURCE = st.sets(st.sampled_from([f"{letter}{number}" for letter in "abc" for number in range(10)]))


class VolatileDisk(Disk):
    """A disk that knows what is on the medium. Files are told apart by numbers of our own: inodes are used again."""

    def __init__(self) -> None:
        self.paths: Names = {}
        self.fds: dict[int, int] = {}
        self.synced: dict[int, bytes] = {}
        self.removed: dict[int, bytes] = {}
        self.durable: Names = {}
        self.pending: list[Callable[[Names], None]] = []

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if path not in self.paths and not os.path.lexists(path) and flags & os.O_CREAT:
            number = len(self.synced)
            self._change(lambda names: names.__setitem__(path, number))
            self.synced[number] = b""
        fd = super().open(path, flags, mode)
        self.fds[fd] = self.paths[path]
        return fd

    def sync(self, fd: int) -> None:
        self.synced[self.fds[fd]] = self.read(fd, self.size(fd), 0)

    def sync_folder(self, path: str) -> None:
        self.durable = dict(self.paths)
        self.pending.clear()

    def rename(self, old: str, new: str) -> None:
        self._keep(new)
        super().rename(old, new)
        self._change(lambda names: names.__setitem__(new, names.pop(old)))

    def unlink(self, path: str) -> None:
        self._keep(path)
        super().unlink(path)
        self._change(lambda names: names.__delitem__(path))

    def close(self, fd: int) -> None:
        del self.fds[fd]
        super().close(fd)

    def kill(self) -> None:
        """The process dies: the kernel closes its files, and all it wrote is there."""
        for fd in [*self.fds]:
            self.close(fd)

    def crash(self, folder: str, draw: Callable[[int], int]) -> None:
        """The machine dies; the folder is as it may be afterwards."""
        self.kill()
        names = dict(self.durable)
        for change in self.pending[: draw(len(self.pending))]:
            change(names)
        left = {path: self._left(number, draw) for path, number in names.items()}
        shutil.rmtree(folder)
        Path(folder).mkdir()
        for path, content in left.items():
            Path(path).write_bytes(content)
        self.__init__()  # type: ignore[misc]
        for path, content in left.items():
            self.paths[path] = len(self.synced)
            self.synced[len(self.synced)] = content
        self.durable = dict(self.paths)

    def _change(self, change: Callable[[Names], None]) -> None:
        change(self.paths)
        self.pending.append(change)

    def _keep(self, path: str) -> None:
        if path in self.paths:
            self.removed[self.paths[path]] = Path(path).read_bytes()

    def _left(self, number: int, draw: Callable[[int], int]) -> bytes:
        current = [path for path, other in self.paths.items() if other == number]
        content = Path(current[0]).read_bytes() if current else self.removed[number]
        synced = self.synced[number]
        if not content.startswith(synced):  # it was cut, or written anew: before or after
            return synced if draw(1) else content
        loose = content[len(synced) :]
        loose = loose[: draw(len(loose))]
        hole = draw(len(loose))
        return synced + loose[:hole] + bytes(len(loose[hole : hole + 16])) + loose[hole + 16 :]


class JobLife(RuleBasedStateMachine):
    """One job, from its first listing on."""

    def __init__(self) -> None:
        super().__init__()
        self.base = tempfile.mkdtemp(prefix="penstock-test-")
        self.path = f"{self.base}/job"
        self.disk = VolatileDisk()
        self.job = JobFolder.create_or_open(self.path, self.disk)
        self.past: list[Model] = []
        """What the job may be after the machine's death: as it was when it was last durable, and ever since."""

    @property
    def model(self) -> Model:
        return self.past[-1]

    @initialize(source=SOURCE)
    def list_source(self, source: set[str]) -> None:
        self.job.write_snapshot(Entry(name) for name in sorted(source))
        self.past = [dict.fromkeys(sorted(source), Outcome.UNDONE)]

    @rule(outcome=st.sampled_from(Outcome), ordinals=ORDINALS)
    def record(self, outcome: Outcome, ordinals: list[int | range]) -> None:
        names = list(self.model)
        numbers = {number for one in ordinals for number in (one if isinstance(one, range) else (one,))}
        inside = sorted(number for number in numbers if number < len(names))
        calls = {Outcome.UNDONE: self.job.undo, Outcome.DEAD: self.job.dead, Outcome.FILTERED: self.job.filtered}
        calls.get(outcome, self.job.written)(inside)
        self.past.append(self.model | {names[number]: outcome for number in inside})

    @rule()
    def sync(self) -> None:
        self.job.sync()
        self.past = [self.model]

    @rule()
    def compact(self) -> None:
        self.job.compact()
        self.past = [self.model]

    @rule(source=SOURCE)
    def renew(self, source: set[str]) -> None:
        self.job.renew_snapshot(Entry(name) for name in sorted(source))
        self.past = [{name: self.model.get(name, Outcome.UNDONE) for name in sorted(source)}]

    @rule()
    def reopen(self) -> None:
        self.job.close()
        self.open()

    @rule()
    def kill(self) -> None:
        self.disk.kill()
        self.open()

    @rule(seed=st.integers(0, 2**16))
    def crash(self, seed: int) -> None:
        # not drawn one by one: sizes of files depend on the clock, and Hypothesis wants the same draws each time
        self.disk.crash(self.path, partial(random.Random(seed).randint, 0))
        self.job = JobFolder.create_or_open(self.path, self.disk)
        found = self.found()
        assert found in self.past, "neither what was durable nor what came after it"
        self.past = [found]

    def open(self) -> None:
        self.job = JobFolder.create_or_open(self.path, self.disk)
        assert self.found() == self.model
        self.past = [self.model]

    def found(self) -> Model:
        return {entry.name: self.job.states[ordinal] for ordinal, entry in enumerate(self.job.snapshot)}

    @invariant()
    def the_job_is_what_it_was_told(self) -> None:
        if not self.past:
            return
        assert self.found() == self.model
        values = list(self.model.values())
        counts = self.job.counts
        assert counts.total == len(values)
        assert (counts.dead, counts.remaining) == (values.count(Outcome.DEAD), values.count(Outcome.UNDONE))
        remaining = [number for one in self.job.remaining() for number in one]
        assert remaining == [number for number, outcome in enumerate(values) if outcome is Outcome.UNDONE]
        self.job.states.check()
        assert read_status(self.path).counts == counts

    def teardown(self) -> None:
        self.disk.kill()
        shutil.rmtree(self.base)


JobLife.TestCase.settings = searching(100, stateful_step_count=30)


TestJobLife = pytest.mark.slow(JobLife.TestCase)


@pytest.mark.parametrize("seed", range(40))
def test_what_was_synced_survives_the_machine(tmp_path: Path, seed: int) -> None:
    """After each way to die: all of before the sync is there, and of the rest whole records only."""
    disk = VolatileDisk()
    job = JobFolder.create_or_open(tmp_path / "job", disk)
    job.write_snapshot(Entry(str(number)) for number in range(20))
    job.written([range(5)])
    job.sync()
    for ordinal in range(5, 10):
        job.dead([ordinal])
    disk.crash(str(tmp_path / "job"), partial(random.Random(seed).randint, 0))
    with JobFolder.create_or_open(tmp_path / "job") as job:
        outcomes = [job.states[ordinal] for ordinal in range(20)]
    dead = outcomes.count(Outcome.DEAD)
    assert outcomes == [Outcome.WRITTEN] * 5 + [Outcome.DEAD] * dead + [Outcome.UNDONE] * (15 - dead)
