"""The N-th operation on the disk fails, for N = 1, 2, 3... until a run is undisturbed (SQLite's method).

After each: the folder opens, each step is there whole or not at all, and all that was acknowledged is there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.journal import Disk, Entry, JobFolder, JournalDiskError, read_status
from penstock.engine.journal.snapshot import write_snapshot
from penstock.engine.journal.states import Outcome

View = tuple[Any, ...]


class Killed(BaseException):
    """The process is gone."""


class FaultyDisk(Disk):
    """One operation fails, and perhaps all after it. A failing write has written half.

    Args:
        fail_at: the number of the operation, from 1.
        code: errno; None: the process is killed there, and nothing more happens.
        persistent: all later operations fail as well.
    """

    def __init__(self, fail_at: int, code: int | None = None, persistent: bool = False) -> None:
        self.fail_at, self.code, self.persistent = fail_at, code, persistent
        self.count = 0
        self.looking = False
        self.fds: set[int] = set()

    @property
    def disturbed(self) -> bool:
        return self.count >= self.fail_at

    def fails(self) -> bool:
        if self.looking:
            return False
        self.count += 1
        return self.count == self.fail_at or (self.disturbed and (self.persistent or self.code is None))

    def step(self) -> None:
        if self.fails():
            self.fail()

    def fail(self) -> None:
        if self.code is None:
            raise Killed
        raise OSError(self.code, os.strerror(self.code))

    def abandon(self) -> None:
        """What the kernel does with the descriptors of the dead."""
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()

    def make_folder(self, path: str) -> None:
        self.step()
        super().make_folder(path)

    def names(self, folder: str) -> list[str]:
        self.step()
        return super().names(folder)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        self.step()
        fd = super().open(path, flags, mode)
        self.fds.add(fd)
        return fd

    def read(self, fd: int, size: int, offset: int) -> bytes:
        self.step()
        return super().read(fd, size, offset)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        if self.fails():
            if not (self.disturbed and self.count > self.fail_at):
                super().write(fd, data[: len(data) // 2], offset)
            self.fail()
        super().write(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        self.step()
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        self.step()  # and no more: nothing here loses its page cache

    def sync_folder(self, path: str) -> None:
        self.step()

    def rename(self, old: str, new: str) -> None:
        self.step()
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        self.step()
        super().unlink(path)

    def close(self, fd: int) -> None:
        if self.code is None and self.disturbed:
            return  # the dead close nothing themselves
        self.fds.discard(fd)
        super().close(fd)
        self.step()


class RenamedAndFailed(Disk):
    """A rename that happens and reports an error."""

    def rename(self, old: str, new: str) -> None:
        super().rename(old, new)
        raise OSError(errno.EIO, "Input/output error")


@dataclass
class Step:
    """One thing that is done to a job, and the event that it leaves."""

    do: Callable[[JobFolder], object]
    event: str | None = None


ENTRIES = [Entry(name, size=1) for name in "abcdefghij"]
RENEWED = [Entry(name, size=1) for name in "abcdfghijk"]

STEPS = [
    Step(lambda job: job.accept({"source": "1"}, {"workers": 2})),
    Step(lambda job: job.write_snapshot(ENTRIES), "listed"),
    Step(lambda job: job.written([range(3), 5])),
    Step(lambda job: job.add_event("run started"), "run started"),
    Step(lambda job: job.dead([4])),
    Step(lambda job: job.sync()),
    Step(lambda job: job.filtered([6, 7])),
    Step(lambda job: job.compact()),
    Step(lambda job: job.undo([5, 6])),
    Step(lambda job: job.sync()),
    Step(lambda job: job.written([4])),
    Step(lambda job: job.renew_snapshot(RENEWED), "renewed"),
    Step(lambda job: job.written([8, 9])),
    Step(lambda job: job.close()),
]


def view(job: JobFolder) -> View:
    """All that a job says but its events: whole after each step, or as before it."""
    names = [entry.name for entry in job.snapshot] if job.has_snapshot else []
    outcomes = [job.states[ordinal] for ordinal in range(len(job.states))]
    return dict(job.fingerprints), names, outcomes


def look(job: JobFolder, disk: FaultyDisk) -> View:
    """The view, without any fault."""
    disk.looking = True
    try:
        return view(job)
    finally:
        disk.looking = False


def expected_views(folder: Path) -> list[View]:
    """The view after each step of an undisturbed run; the first is before all."""
    with JobFolder.create_or_open(folder) as job:
        views = [view(job)]
        for step in STEPS[:-1]:
            step.do(job)
            views.append(view(job))
    return [*views, views[-1]]


def reopened(folder: Path) -> tuple[View, list[str]]:
    """What the folder says now; it must open."""
    with JobFolder.create_or_open(folder) as job:
        assert read_status(folder).counts == job.counts
        return view(job), [str(event["event"]) for event in job.events]


def run(folder: Path, disk: FaultyDisk, views: list[View]) -> tuple[list[View], list[str], bool]:
    """Do the steps up to the first that fails.

    Returns:
        The views that may be found afterwards, the events that must be, and whether a step failed.
    """
    events: list[str] = []
    job: JobFolder | None = None
    done = 0
    try:
        job = JobFolder.create_or_open(folder, disk)
        for step in STEPS:
            step.do(job)
            events += [step.event] if step.event else []
            done += 1
    except (JournalDiskError, Killed):
        if job is None:
            return views[:1], [], True
        return views[done : done + 2], events, True
    else:
        return views[-1:], events, False
    finally:
        if job is not None:
            with suppress(JournalDiskError, Killed):
                job.close()
        assert disk.code is None or not disk.fds, "a failed job leaves descriptors open"
        disk.abandon()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "persistent"),
    [(errno.EIO, False), (errno.EIO, True), (errno.ENOSPC, False), (errno.ENOSPC, True), (None, True)],
    ids=["io-once", "io-for-ever", "full-once", "full-for-ever", "killed"],
)
def test_every_operation_may_fail(tmp_path: Path, code: int | None, persistent: bool) -> None:
    """Before or after, nothing between; acknowledged outcomes and events are there; the error is one of the job's."""
    views = expected_views(tmp_path / "undisturbed")
    fail_at, disturbed = 0, True
    while disturbed:
        fail_at += 1
        folder = tmp_path / str(fail_at)
        disk = FaultyDisk(fail_at, code, persistent)
        allowed, acknowledged, failed = run(folder, disk, views)
        found, events = reopened(folder)
        assert found in allowed, f"operation {fail_at}"
        assert events[: len(acknowledged)] == acknowledged, f"operation {fail_at}"
        assert failed or found == views[-1]
        disturbed = disk.disturbed
    assert fail_at > 60


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_job_goes_on_after_an_operation_failed(tmp_path: Path, code: int) -> None:
    """Each step that failed is done again, as a patient owner would: in the end all is there, nothing twice."""
    views = expected_views(tmp_path / "undisturbed")
    fail_at, disturbed = 0, True
    while disturbed:
        fail_at += 1
        folder = tmp_path / str(fail_at)
        disk = FaultyDisk(fail_at, code)
        try:
            job = JobFolder.create_or_open(folder, disk)
        except JournalDiskError:
            job = JobFolder.create_or_open(folder, disk)
        for before, after, step in zip(views, views[1:], STEPS[:-1], strict=False):
            try:
                step.do(job)
            except JournalDiskError:
                assert look(job, disk) in (before, after)
                if look(job, disk) == before:
                    step.do(job)
            assert look(job, disk) == after
        with suppress(JournalDiskError):
            job.close()
        assert reopened(folder)[0] == views[-1], f"operation {fail_at}"
        disturbed = disk.disturbed


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failed_append_says_what_to_do_and_the_next_is_whole(
    tmp_path: Path, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a block was written: nothing of it is believed, then or later, and its error names errno."""
    disk = FaultyDisk(10**9, code)
    with JobFolder.create_or_open(tmp_path / "job", disk) as job:
        job.write_snapshot(ENTRIES)
        job.written([0])
        disk.fail_at = disk.count + 1
        with pytest.raises(JournalDiskError, match=r"journal-2: cannot be written: .*it resumes") as caught:
            job.written([1, 3, 5, 7, 9])  # its half is longer than the next record
        assert caught.value.errno == code
        assert job.states[1] is Outcome.UNDONE
        job.written([2])
    with JobFolder.create_or_open(tmp_path / "job") as job:
        assert [job.states[ordinal] for ordinal in range(4)] == [1, 0, 1, 0]
    assert not caplog.records, "there was nothing to cut off"


def test_a_failed_sync_is_not_believed_later(tmp_path: Path) -> None:
    """The kernel may drop pages that it could not write: the next sync writes all of it into a new file."""
    disk = FaultyDisk(10**9, errno.EIO)
    with JobFolder.create_or_open(tmp_path / "job", disk) as job:
        job.write_snapshot(ENTRIES)
        job.written([0])
        disk.fail_at = disk.count + 1
        with pytest.raises(JournalDiskError):
            job.sync()
        job.written([1])
        assert not (tmp_path / "job" / "journal-3").exists()
        job.sync()
        assert (tmp_path / "job" / "journal-3").exists()
        job.written([2])
    assert read_status(tmp_path / "job").counts.written == 3


def test_a_rename_that_happened_and_failed_has_happened(tmp_path: Path) -> None:
    """Two files must not both claim to be the last: what has its name counts."""
    snapshot = write_snapshot(RenamedAndFailed(), str(tmp_path / "snapshot-1"), ENTRIES)
    assert list(snapshot) == ENTRIES
    snapshot.close()


def test_a_job_that_is_done_writes_nothing_when_it_is_run_again(tmp_path: Path) -> None:
    """Nothing remains, so nothing is recorded: the journal is the same file, byte for byte."""
    with JobFolder.create_or_open(tmp_path / "job") as job:
        job.write_snapshot(ENTRIES)
        job.written([range(10)])
    before = (tmp_path / "job" / "journal-2").read_bytes()
    with JobFolder.create_or_open(tmp_path / "job") as job:
        assert list(job.remaining()) == []
    assert (tmp_path / "job" / "journal-2").read_bytes() == before
