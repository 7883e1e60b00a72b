"""The crash table: where a worker can come to its end, times how. One item fails, with its reason; the pool goes on.

=============  ===================================================================================================
place          what is known of the culprit
=============  ===================================================================================================
reading        the slot's header names the picture
decoding       the same; what is raised there is that picture's DecodeError and costs no worker
kernel         nothing: the batch is halved until the one picture is found
embedder       (one that runs in the worker) the same
operation      (of a ``WorkerPool``) the call that the worker was given
=============  ===================================================================================================
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import gevent
import psutil
import pytest

from penstock.engine.workers import PreprocessPool
from penstock.engine.workers.callables import WorkerPool
from penstock.errors import DeadlineError, DecodeError, ItemError, PoisonItemError
from penstock.preprocess import preset
from penstock.shm import SlotState
from penstock.sinks import read_dead_letters
from penstock.tests.endings import end
from penstock.tests.waiting import DEADLINE, patient
from penstock.tests.whole_jobs import penstock

pytestmark = [pytest.mark.slow, pytest.mark.kills]

WAYS = ["SIGSEGV", "_exit", "sys.exit", "raise", "MemoryError", "SIGSTOP"]
PLACES = ["reading", "decoding", "kernel", "embedder"]
ITEM_TIMEOUT = patient(0.25)

HOW_TOLD = {
    "SIGSEGV": r"was killed by signal 11 \(SIGSEGV\)",
    "_exit": "exited with status 3",
    "sys.exit": "exited with status 4",
    "raise": "exited with status 1",
    "MemoryError": "exited with status 1",
    "SIGSTOP": "did nothing for longer than item_timeout .* was killed",
}

SABOTEUR = """
import faulthandler, os, signal, sys
from penstock.preprocess.decode import decode
from penstock import fetch
from penstock.preprocess.worker.preprocessor import Preprocessor

doomed = {}  # row of the batch -> where and how

def meet(plan, place):
    where, _, how = plan.partition(":")
    if where != place:
        return
    if how.startswith("SIG"):
        faulthandler.disable()
        os.kill(os.getpid(), getattr(signal, how))
    elif how == "_exit":
        os._exit(3)
    elif how == "sys.exit":
        sys.exit(4)
    elif how in ("raise", "MemoryError"):
        raise (RuntimeError if how == "raise" else MemoryError)(how)

def plan_of(data):
    return data[:99].partition(b"PLAN=")[2].partition(b";")[0].decode()

def make(argument):
    read, place, load, run = fetch.read_file, decode._place_image, Preprocessor.load, Preprocessor.run

    def reading(path, limit):
        data = read(path, limit)
        meet(plan_of(data), "reading")
        return data

    def decoding(image, name, spec, canvas, data=b""):
        meet(plan_of(data), "decoding")
        return place(image, name, spec, canvas, data)

    def loading(self, row, source):
        doomed[row] = plan_of(source)
        return load(self, row, source)

    def kernel(self, out, rows):
        for row in rows:
            meet(doomed[row], "kernel")
        run(self, out, rows)
        Last.rows = list(rows)

    fetch.read_file, decode._place_image, Preprocessor.load, Preprocessor.run = reading, decoding, loading, kernel
    return Last()

class Embedder:  # for a whole job: jax:crash_saboteur:Embedder
    def __init__(self): make("")
    def __call__(self, pixels): return pixels.reshape(len(pixels), -1)[:, :16].astype("float32")

class Last:
    dimension = 0
    rows = []
    def open(self, spec, rows): pass
    def embed(self, view, rows):
        for row in self.rows:
            meet(doomed[row], "embedder")
        return {}
"""


@pytest.fixture(scope="module")
def saboteur(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the module that makes workers come to their ends."""
    folder = tmp_path_factory.mktemp("crashes")
    (folder / "crash_saboteur.py").write_text(SABOTEUR)
    return folder


@pytest.fixture(scope="module")
def pool(saboteur: Path) -> Iterator[PreprocessPool]:
    """One worker for the whole table: it must be usable after each row of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(saboteur))
        spec = preset("clip", size=32)
        embedder = ("crash_saboteur:make", "")
        with PreprocessPool(
            spec, workers=1, batch_size=4, slots=2, embedder=embedder, item_timeout=ITEM_TIMEOUT
        ) as made:
            made.start_in_hub()
            yield made
            made.stop_in_hub()


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_a_picture_that_ends_its_worker_fails_alone(
    place: str, how: str, pool: PreprocessPool, photos: list[Path], tmp_path: Path
) -> None:
    """Its error names worker, pid and how it ended; the others of its batch, and the next batch, are done."""
    poison = planned(photos[0], f"{place}:{how}", tmp_path)
    good = str(photos[1])
    before = pool.pids[0]
    slot = pool.process([good, str(poison), good])
    slot.release()
    assert [row.position for row in slot.rows] == [0, 2]
    ((position, error),) = slot.failures
    assert position == 1
    check_error(error, place, how)
    assert (pool.pids[0] != before) == isinstance(error, PoisonItemError)
    again = pool.process([good, good])
    assert len(again) == 2
    again.release()
    assert pool.states[SlotState.FREE] == pool.capacity


def planned(photo: Path, plan: str, folder: Path, name: str = "poison.jpg") -> Path:
    """A whole JPEG with a comment that says where it is to do what."""
    comment = f"PLAN={plan};".encode()
    made = folder / name
    made.write_bytes(b"\xff\xd8\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + photo.read_bytes()[2:])
    return made


def check_error(error: ItemError, place: str, how: str) -> None:
    """Its class, and what it says."""
    if place == "decoding" and how in ("raise", "MemoryError"):
        assert type(error) is DecodeError
        assert ("RuntimeError" if how == "raise" else "no memory to decode it") in str(error)
        return
    assert type(error) is PoisonItemError
    with pytest.raises(PoisonItemError, match=rf"worker 0 \(pid \d+\) {HOW_TOLD[how]}"):
        raise error


def test_a_worker_that_somebody_stops_costs_nothing(pool: PreprocessPool, photos: list[Path]) -> None:
    """SIGSTOP from outside, in the middle of the work: it is replaced, and its batches are done."""
    names = [str(path) for path in photos[:4]]
    jobs = [gevent.spawn(pool.process, names) for _ in range(2)]
    gevent.sleep(0)
    os.kill(pool.pids[0], signal.SIGSTOP)
    for job in jobs:
        slot = job.get(timeout=DEADLINE)
        slot.release()
        assert (len(slot), slot.failures) == (4, [])


def test_two_pictures_of_one_batch_that_kill_the_kernel_are_both_found(
    photos: list[Path], tmp_path: Path, pool: PreprocessPool
) -> None:
    """Each is named, the others are done."""
    poison = planned(photos[0], "kernel:_exit", tmp_path)
    slot = pool.process([str(path) for path in (poison, photos[1], photos[2], poison)])
    slot.release()
    assert [row.position for row in slot.rows] == [1, 2]
    assert [position for position, _ in slot.failures] == [0, 3]
    assert all(isinstance(error, PoisonItemError) for _, error in slot.failures)


def test_a_whole_job_writes_one_dead_letter_for_each_picture_that_kills(
    saboteur: Path, photos: list[Path], tmp_path: Path
) -> None:
    """Stage, key, error and reason; everything else is a row."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for photo in photos[:10]:
        (folder / photo.name).symlink_to(photo)
    poisons = {str(planned(photos[0], f"{place}:SIGSEGV", folder, f"{place}.jpg")) for place in ("decoding", "kernel")}
    more = ["--embedder", "jax:crash_saboteur:Embedder", "--preset", "clip", "--image-size", "32", "--workers", "1"]
    command = penstock("embed", str(folder), "--to", str(tmp_path / "a.db"), *more, "--progress", "none")
    environment = {**os.environ, "PYTHONPATH": str(saboteur)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    assert "read 12 = written 10 + filtered 0 + dead 2 + in flight 0" in done.stdout
    letters = list(read_dead_letters(tmp_path / "a.dead-letters.jsonl"))
    assert {letter.key for letter in letters} == poisons
    assert [(letter.stage, letter.error) for letter in letters] == [("preprocess", "PoisonItemError")] * 2
    assert all("SIGSEGV" in letter.message and "pid" in letter.message for letter in letters)


# -- operations of a WorkerPool ---------------------------------------------------------------------------------------


def test_a_batch_of_nothing_but_poison_costs_its_pictures_only(
    photos: list[Path], saboteur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More deaths in a row than a worker may die by itself: each of them is a picture's."""
    monkeypatch.syspath_prepend(str(saboteur))
    poison = str(planned(photos[0], "decoding:_exit", tmp_path))
    with PreprocessPool(
        preset("clip", size=32), workers=1, batch_size=8, slots=2, embedder=("crash_saboteur:make", "")
    ) as wide:
        wide.start_in_hub()
        slot = wide.process([poison] * 7 + [str(photos[1])])
        slot.release()
        wide.stop_in_hub()
    assert [row.position for row in slot.rows] == [7]
    assert [type(error) for _, error in slot.failures] == [PoisonItemError] * 7


@pytest.fixture(scope="module")
def operations() -> Iterator[WorkerPool]:
    """One worker for its part of the table."""
    with WorkerPool(1, item_timeout=2.0) as made:
        yield made


OPERATION_ENDS: dict[str, tuple[type[BaseException], str]] = {
    "SIGSEGV": (PoisonItemError, HOW_TOLD["SIGSEGV"]),
    "_exit": (PoisonItemError, HOW_TOLD["_exit"]),
    "sys.exit": (SystemExit, "4"),
    "raise": (RuntimeError, "raise"),
    "MemoryError": (MemoryError, "MemoryError"),
    "SIGSTOP": (DeadlineError, r"took longer than item_timeout \(2 s\); worker 0 \(pid \d+\) was killed"),
}


@pytest.mark.parametrize("how", WAYS)
def test_a_call_that_ends_its_worker_fails_alone(how: str, operations: WorkerPool) -> None:
    """The neighbours' calls are done; the error says what happened, and where if it was raised."""
    error, says = OPERATION_ENDS[how]
    before = operations.submit(abs, -1)
    culprit = operations.submit(end, how)
    after = operations.submit(abs, -2)
    with pytest.raises(error, match=says) as caught:
        culprit.result(30)
    assert not wait([before, after], 30).not_done
    assert (before.result(), after.result()) == (1, 2)
    if error in (SystemExit, RuntimeError, MemoryError):
        assert "in worker process" in caught.value.__notes__[0]


def test_no_stopped_process_is_left(operations: WorkerPool) -> None:
    """What stood still was killed and is gone."""
    assert operations.submit(abs, -3).result(30) == 3
    states = [child.status() for child in psutil.Process().children(recursive=True)]
    assert psutil.STATUS_STOPPED not in states
