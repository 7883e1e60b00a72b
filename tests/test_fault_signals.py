"""Signals to whole jobs and to workers, at random moments: SIGKILL, SIGTERM, SIGINT, and as schedulers send them.

A failing seed is in the name of the test or in its message; the moments are drawn from it.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import gevent
import psutil
import pytest

import penstock
from penstock.engine.cli import main
from penstock.engine.journal import read_status
from penstock.engine.workers import PreprocessPool
from penstock.preprocess import preset
from penstock.shm import SlotState
from penstock.tests.segments import abandoned, left_since
from penstock.tests.waiting import DEADLINE, patient
from penstock.tests.whole_jobs import (
    children,
    digest,
    draw_folder,
    embed,
    started,
    wait_for,
    watching_ends,
    written,
)

pytestmark = pytest.mark.slow

PICTURES = 500
FLAGS = ["--workers", "2", "--batch-size", "8", "--insert-batch-size", "16"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("signals") / "pictures", PICTURES)


@pytest.fixture(scope="module")
def truth(pictures: Path) -> dict[str, str]:
    """What an undisturbed job leaves: key -> digest of its vector."""
    penstock.embed_images(pictures, to=str(pictures.parent / "rows.db"), progress="none")
    return digest(pictures.parent, pictures)


# -- workers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool() -> Iterator[PreprocessPool]:
    """One pool for all seeds: what a kill leaves behind would show in the next."""
    with PreprocessPool(preset("clip", size=64), workers=2, batch_size=4, slots=2, named=True) as made:
        made.start_in_hub()
        yield made
        made.stop_in_hub()


def pixels_of(pool: PreprocessPool, names: list[str]) -> Counter[tuple[str, str]]:
    """One batch: the bag of (picture, digest of its pixels)."""
    slot = pool.process(names)
    digests = [hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in slot.pixels]
    slot.check()
    found = Counter((names[row.position], made) for row, made in zip(slot.rows, digests, strict=True))
    slot.release()
    return found


@pytest.mark.kills
def test_a_worker_killed_at_a_random_moment_changes_nothing_of_the_result(
    pool: PreprocessPool, photos: list[Path]
) -> None:
    """Twenty seeds: the bag of pictures and pixels is that of an undisturbed run, and every slot comes back."""
    batches = [[str(path) for path in photos[start : start + 4]] for start in range(0, 24, 4)]
    truth = sum((pixels_of(pool, batch) for batch in batches), Counter[tuple[str, str]]())
    victims: set[int] = set()
    for seed in range(20):
        moment = random.Random(seed)
        jobs = [gevent.spawn(pixels_of, pool, batch) for batch in batches]
        gevent.sleep(moment.uniform(0, 0.12))
        victims.add(victim := kill_one(pool, moment))
        found = sum((job.get(timeout=DEADLINE) for job in jobs), Counter[tuple[str, str]]())
        assert found == truth, f"seed {seed}"
        assert pool.states[SlotState.FREE] == pool.capacity, f"seed {seed}"
        with gevent.Timeout(DEADLINE):
            while victim in pool.pids or any("not running" in state for state in pool.state()):
                gevent.sleep(0.005)  # a worker that dies at each of its starts is another matter
    assert len(victims) == 20


def kill_one(pool: PreprocessPool, moment: random.Random) -> int:
    """SIGKILL for one of the workers; its pid."""
    pid = moment.choice(pool.pids)
    os.kill(pid, signal.SIGKILL)
    return pid


STRANGER = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
memory = mmap.mmap(fd, 0)
assert len(memory) == int(sys.argv[2])
"""


def test_strangers_that_map_a_ring_and_exit_leave_it(pool: PreprocessPool, photos: list[Path]) -> None:
    """Twenty processes, one after the other, while the slot is in use: same pixels, same name (CPython #82300)."""
    names = [str(path) for path in photos[:4]]
    before = pixels_of(pool, names)
    slot = pool.process(names)
    place = slot.view.place
    assert place is not None
    path = Path("/dev/shm", place.segment)
    for _ in range(20):
        command = [sys.executable, "-S", "-E", "-c", STRANGER, str(path), str(place.nbytes)]
        subprocess.run(command, check=True, timeout=DEADLINE)
    assert path.stat().st_nlink == 1
    slot.check()
    slot.release()
    assert pixels_of(pool, names) == before


# -- whole jobs -------------------------------------------------------------------------------------------------------


@pytest.mark.kills
def test_nothing_outlives_a_job_that_is_killed(pictures: Path, tmp_path: Path) -> None:
    """Workers, fork server and store are gone within a second, and there is no segment more than before."""
    before = abandoned()
    with started(embed(pictures, tmp_path / "a", *FLAGS)) as process:
        wait_for(process, lambda: written(tmp_path / "a") > 0)
        family = children(process)
        assert {"penstock-zygote", "penstock-worker"} <= {child.name() for child in family}
        with watching_ends(family) as left:
            process.kill()
            assert left(patient(1.0)) == []
    assert not left_since(before)


WAYS = {
    "SIGTERM": [(signal.SIGTERM, 0.0)],
    "SIGINT twice": [(signal.SIGINT, 0.0), (signal.SIGINT, 0.01)],
    "SIGTERM, then SIGKILL": [(signal.SIGTERM, 0.0), (signal.SIGKILL, 0.02)],
}


@pytest.mark.kills
@pytest.mark.parametrize("way", WAYS)
def test_a_job_that_is_interrupted_ends_in_time_and_goes_on_later(
    way: str, pictures: Path, truth: dict[str, str], tmp_path: Path
) -> None:
    """At a random moment. Its status says so, the command to go on is told, and the end is an undisturbed job's."""
    folder, seed, signals = tmp_path / "a", random.randrange(2**32), WAYS[way]
    least = random.Random(seed).randrange(1, PICTURES // 2)
    with started(embed(pictures, folder, *FLAGS)) as process:
        wait_for(process, lambda: written(folder) >= least)
        began = time.monotonic()
        for number, pause in signals:
            with_pause(process, pause)
            process.send_signal(number)
        _, said = process.communicate(timeout=DEADLINE)
    seconds = time.monotonic() - began
    context = f"seed {seed}: {said}"
    killed = signals[-1][0] is signal.SIGKILL
    assert process.returncode == (-signal.SIGKILL if killed else 130), context
    assert seconds < patient(30 if len(signals) == 1 else 2), context
    if len(signals) == 1:
        assert f"to go on: penstock resume {folder / 'job'}" in said, context
    assert least <= written(folder) <= PICTURES, context  # all of them, where the signal came late
    assert read_status(folder / "job").owner is None, context
    assert main(["resume", str(folder / "job")]) == 0
    assert digest(folder, pictures) == truth


def with_pause(process: subprocess.Popen[str], seconds: float) -> None:
    """Let a little time pass; not longer than the process lives."""
    if seconds:
        psutil.wait_procs([psutil.Process(process.pid)], timeout=seconds)


def test_a_finished_job_run_again_writes_nothing(tmp_path: Path) -> None:
    """Every file of the job and of its store has the bytes and the time it had; only the lock says who looked."""
    pictures, folder = draw_folder(tmp_path / "pictures", 60), tmp_path / "a"

    def files() -> dict[Path, tuple[int, bytes]]:
        found = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}

    def run() -> str:
        with started(embed(pictures, folder, *FLAGS)) as process:
            said, _ = process.communicate(timeout=DEADLINE)
            assert process.returncode == 0
        return said

    run()
    before = files()
    assert len(before) > 5
    assert "finished already" in run()
    assert files() == before
