"""SIGKILL of real processes: what they reported is there, and their lock is free."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.engine.cli import main
from penstock.engine.journal import Entry, JobFolder, JobLockedError, Outcome, read_status
from penstock.tests.waiting import wait_until

TOTAL = 100_000

OWNER = """
import os, sys
from penstock.engine.journal import JobFolder

job = JobFolder.create_or_open(sys.argv[1])
os.write(1, b"open\\n")
for number, part in enumerate(job.remaining()):
    for start in range(part.start, part.stop, 7):
        done = range(start, min(part.stop, start + 7))
        job.dead(done) if start % 3 == 0 else job.written(done)
        if start % 11 == 0:
            job.sync()
        if start % 50 == 0:
            job.compact()
        os.write(1, b"%d %d\\n" % (done.start, done.stop))
"""


@contextmanager
def owner(path: Path) -> Generator[subprocess.Popen[bytes]]:
    """A process that opens the job and records all that remains, reporting each record after it."""
    with subprocess.Popen([sys.executable, "-c", OWNER, str(path)], stdout=subprocess.PIPE) as process:
        try:
            assert line(process) == b"open\n"
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 30)[0], "the owner is silent"
    return process.stdout.readline()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A job that is listed and not begun."""
    with JobFolder.create_or_open(tmp_path / "job") as job:
        job.write_snapshot(Entry(str(number)) for number in range(TOTAL))
    return tmp_path / "job"


@pytest.mark.kills
@pytest.mark.slow
def test_what_a_killed_owner_reported_is_there(path: Path) -> None:
    """Twenty owners in turn, each killed at a random moment among appends, syncs and switches of the file."""
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    reported: list[bytes] = []
    for _ in range(20):
        with owner(path) as process:
            reported += [line(process) for _ in range(draw.randrange(60))]
            process.kill()
            assert process.stdout is not None
            reported += [reply for reply in process.stdout if reply.endswith(b"\n")]  # a pipe may hold more
        assert read_status(path).owner is None
        with JobFolder.create_or_open(path) as job:
            for reply in reported:
                start, stop = map(int, reply.split())
                outcome = Outcome.DEAD if start % 3 == 0 else Outcome.WRITTEN
                assert all(job.states[ordinal] is outcome for ordinal in range(start, stop)), f"{reply!r}, seed {seed}"
            done = job.counts.total - job.counts.remaining
            told_done = sum(int(stop) - int(start) for start, stop in map(bytes.split, reported))
            assert told_done <= done <= told_done + 7 * 20


@pytest.mark.kills
@pytest.mark.slow
def test_the_lock_of_a_live_owner_holds_and_that_of_a_dead_one_is_free(path: Path) -> None:
    """A second owner is refused with the pid of the first; after SIGKILL it gets in, with no file to remove."""
    with owner(path) as process:
        with pytest.raises(JobLockedError, match=f"process {process.pid} on {os.uname().nodename}"):
            JobFolder.create_or_open(path)
        status = read_status(path)
        assert status.owner is not None
        assert status.owner.pid == process.pid
    JobFolder.create_or_open(path).close()


FORKS = """
import multiprocessing, os, sys, time
from penstock.engine.journal import JobFolder

job = JobFolder.create_or_open(sys.argv[1])
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
child.start()
os.write(1, b"%d\\n" % child.pid)
time.sleep(600)
"""

PASSES_ON = """
import subprocess, os, sys, time
from penstock.engine.journal import JobFolder

job = JobFolder.create_or_open(sys.argv[1])
fd = job._lock._file.fd
os.set_inheritable(fd, True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=[fd])
os.write(1, b"%d\\n" % child.pid)
time.sleep(600)
"""


@contextmanager
def killed_with_a_child(script: str, path: Path) -> Generator[int]:
    """An owner that has started a process and is killed: the pid of that process, which lives until the end."""
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as process:
        child = 0
        try:
            child = int(line(process))
            process.kill()
            process.wait()
            yield child
        finally:
            process.kill()
            if child:
                os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_a_forked_child_of_a_killed_owner_does_not_keep_the_lock(path: Path) -> None:
    """As a data loader or a pool of the host makes them: they have a copy of everything, but not of this."""
    with killed_with_a_child(FORKS, path):
        # The owner may be dead before the child has taken its first step, in which it lets go.
        wait_until(lambda: read_status(path).owner is None)
        JobFolder.create_or_open(path).close()


@pytest.mark.slow
def test_a_process_that_keeps_the_lock_of_a_dead_owner_is_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not the owner, which is dead: nobody could wait for it or stop it."""
    with killed_with_a_child(PASSES_ON, path) as child:
        with pytest.raises(JobLockedError, match=rf"a child of the dead job \(pid {child}\) still holds it"):
            JobFolder.create_or_open(path)
        status = read_status(path)
        assert (status.owner, status.orphan) == (None, child)
        assert main(["status", str(path)]) == 0
        assert f"not running, but a child of the dead job (pid {child}) still holds it" in capsys.readouterr().out


@pytest.mark.slow
def test_asking_never_disturbs_and_never_fails_beside_an_owner(path: Path) -> None:
    """While files grow and are replaced, each status is whole, and what is done only grows."""
    with owner(path) as process:
        before = 0
        for _ in range(50):
            line(process)
            counts = read_status(path).counts
            assert counts.total == TOTAL
            assert counts.total - counts.remaining >= before
            before = counts.total - counts.remaining
        assert process.poll() is None
