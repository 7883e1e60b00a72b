"""The worker pool: pictures in, slots out; and what holds when workers die.

Contract of the recovery: a worker's death costs time, never a picture. Its unfinished batches are done again by others,
a new process takes its place on the same ring. Only a picture that was being decoded at three deaths is given up,
alone.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import numpy as np
import psutil
import pytest

from penstock.engine import PipelineBuilder, green
from penstock.engine.workers import PreprocessPool, SlotBatch
from penstock.errors import ConfigError, DeadlineError, PoisonItemError, ReadError, UnreadableError
from penstock.preprocess import Preprocessor, preset
from penstock.shm import SlotState
from penstock.tests.segments import abandoned, left_since
from penstock.tests.waiting import DEADLINE, wait_until

Array = np.ndarray[Any, np.dtype[Any]]

SPEC = preset("clip", size=64)
MakePool = Callable[..., PreprocessPool]


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    """Pools that listen on this thread's hub; afterwards nothing of them is left."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    segments = abandoned()
    pools: list[PreprocessPool] = []

    def make(**options: object) -> PreprocessPool:
        pool = PreprocessPool(SPEC, **{"workers": 2, "batch_size": 4, "slots": 2, **options})  # type: ignore[arg-type]
        pools.append(pool)
        pool.start()
        pool.start_in_hub()
        return pool

    yield make
    for pool in pools:
        pool.stop_in_hub()
        pool.close()
    gone, alive = psutil.wait_procs(
        [child for child in psutil.Process().children(recursive=True) if child.pid not in before], timeout=5
    )
    assert not alive, (gone, alive)
    assert not left_since(segments)


def saboteur(folder: Path, body: str) -> tuple[str, str]:
    """An in-worker hook that makes decoding misbehave: a module of its own, found by the workers on ``sys.path``."""
    name = f"sabotage_{folder.name.replace('-', '_')}"
    code = f"""
        import os, signal, time
        from penstock.preprocess.worker.preprocessor import Preprocessor

        class Nothing:
            dimension = 0
            def open(self, spec, rows): pass
            def embed(self, view, rows): pass

        def make(argument):
            load = Preprocessor.load
            def patched(self, row, source):
                {body}
                return load(self, row, source)
            Preprocessor.load = patched
            return Nothing()
    """
    (folder / f"{name}.py").write_text(textwrap.dedent(code))
    return f"{name}:make", ""


def expected(paths: list[Path]) -> Array:
    """The same pixels, made in this process."""
    local = Preprocessor(SPEC, len(paths))
    for row, path in enumerate(paths):
        local.load(row, str(path))
    out = np.zeros((len(paths), *SPEC.pixel_shape()), SPEC.pixel_dtype())
    local.run(out, range(len(paths)))
    return out


@pytest.mark.slow
def test_a_batch_comes_back_as_the_pixels_this_process_would_make(make_pool: MakePool, photos: list[Path]) -> None:
    """Pixels in the slot are those of the in-process preprocessor, row for row."""
    pool = make_pool()
    batches = [photos[start : start + 4] for start in range(0, 12, 4)]
    jobs = [gevent.spawn(pool.process, [str(path) for path in batch]) for batch in batches]
    for batch, job in zip(batches, jobs, strict=True):
        slot = job.get(timeout=DEADLINE)
        assert [row.position for row in slot.rows] == [0, 1, 2, 3]
        np.testing.assert_allclose(slot.pixels, expected(batch), atol=1e-5)
        slot.check()
        slot.release()


@pytest.mark.slow
def test_every_kind_of_source_gives_the_same_pixels(make_pool: MakePool, photos: list[Path]) -> None:
    """A path, the file's bytes and a memoryview of them are one picture; arrays travel too."""
    pool = make_pool()
    data = photos[0].read_bytes()
    slot = pool.process([str(photos[0]), data, memoryview(data), np.zeros((50, 80, 3), np.uint8)])
    assert not slot.failures
    np.testing.assert_array_equal(slot.pixels[0], slot.pixels[1])
    np.testing.assert_array_equal(slot.pixels[0], slot.pixels[2])
    assert (slot.rows[3].width, slot.rows[3].height) == (80, 50)
    slot.release()


@pytest.mark.slow
def test_what_cannot_be_used_costs_its_own_row_only(make_pool: MakePool, photos: list[Path]) -> None:
    """Failures come back typed, by position; the neighbours lie in the slot without gaps."""
    pool = make_pool()
    slot = pool.process(["/nowhere/there.jpg", str(photos[1]), b"<html>404</html>", str(photos[2])])
    assert [row.position for row in slot.rows] == [1, 3]
    assert [(position, type(error)) for position, error in slot.failures] == [(0, ReadError), (2, UnreadableError)]
    sums = [error.sha256 for _, error in slot.failures]
    assert sums == [None, hashlib.sha256(b"<html>404</html>").hexdigest()], "of the bytes, where there were any"
    np.testing.assert_allclose(slot.pixels, expected([photos[1], photos[2]]), atol=1e-5)
    slot.release()


@pytest.mark.kills
@pytest.mark.slow
def test_a_killed_worker_costs_nothing(make_pool: MakePool, photos: list[Path]) -> None:
    """SIGKILL while batches are under way: every batch arrives whole, and new processes take the dead ones' places."""
    pool = make_pool()
    first = set(pool.pids)
    names = [str(path) for path in photos[:4]]
    truth = expected(photos[:4])
    jobs = [gevent.spawn(collect, pool, names, 12) for _ in range(4)]
    for pid in first:
        gevent.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
    for job in jobs:
        for pixels in job.get(timeout=DEADLINE):
            np.testing.assert_allclose(pixels, truth, atol=1e-5)
    assert not first & set(pool.pids)


def collect(pool: PreprocessPool, names: list[str], times: int) -> list[Array]:
    """Copies of the same batch's pixels, several times over."""
    found: list[Array] = []
    for _ in range(times):
        slot = pool.process(names)
        assert len(slot) == len(names)
        found.append(slot.pixels.copy())
        slot.release()
    return found


@pytest.mark.kills
@pytest.mark.slow
def test_a_picture_that_kills_its_worker_is_given_up_alone(
    make_pool: MakePool, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three deaths the poison is named; the rest of its batch is done."""
    monkeypatch.syspath_prepend(str(tmp_path))
    sabotage = saboteur(tmp_path, "if source == b'poison': os.kill(os.getpid(), signal.SIGSEGV)")
    pool = make_pool(embedder=sabotage)
    slot = pool.process([str(photos[0]), b"poison", str(photos[1])])
    assert [row.position for row in slot.rows] == [0, 2]
    ((position, error),) = slot.failures
    assert position == 1
    assert isinstance(error, PoisonItemError)
    assert "SIGSEGV" in str(error)
    slot.release()


@pytest.mark.kills
@pytest.mark.slow
def test_a_picture_that_never_ends_is_given_up_at_its_deadline(
    make_pool: MakePool, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker leaves and is replaced; the hanging picture is named, its neighbours are done."""
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = make_pool(embedder=saboteur(tmp_path, "if source == b'hang': time.sleep(3600)"), item_timeout=0.5)
    slot = pool.process([b"hang", str(photos[0])])
    assert [row.position for row in slot.rows] == [1]
    assert [(position, type(error)) for position, error in slot.failures] == [(0, DeadlineError)]
    slot.release()


@pytest.mark.slow
def test_a_pool_says_which_picture_each_worker_is_at_and_who_waits_for_a_slot(
    make_pool: MakePool, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the report of a stage that stands still."""
    monkeypatch.syspath_prepend(str(tmp_path))
    go = tmp_path / "go"
    wait = f"while isinstance(source, memoryview) and not os.path.exists({str(go)!r}): time.sleep(0.01)"
    pool = make_pool(embedder=saboteur(tmp_path, wait), workers=1, slots=1)
    (pid,) = pool.pids
    assert pool.state() == [f"worker 0 (pid {pid}): idle"]
    first = gevent.spawn(pool.process, [str(photos[0]), photos[1].read_bytes()])
    second = gevent.spawn(pool.process, [str(photos[2])])
    with gevent.Timeout(DEADLINE):
        while pool.state() != [f"worker 0 (pid {pid}): picture 2 of 2: one from memory"]:
            gevent.sleep(0.01)
    assert (pool.keeps_waiting(first), pool.keeps_waiting(second)) == (False, True)
    go.touch()
    first.get(timeout=DEADLINE).release()
    second.get(timeout=DEADLINE).release()
    assert not pool.keeps_waiting(second)
    pool.close()
    assert pool.state() == [f"worker 0 (pid {pid}): not running"]


@pytest.mark.slow
def test_slots_bound_what_is_made_ahead(make_pool: MakePool, photos: list[Path]) -> None:
    """Nobody gets a slot until one is released: backpressure is the number of slots."""
    pool = make_pool(workers=1, slots=2)
    names = [str(photos[0])]
    held = [pool.process(names), pool.process(names)]
    third = gevent.spawn(pool.process, names)
    gevent.sleep(0)
    assert not third.ready()
    held[0].release()
    slot: SlotBatch = third.get(timeout=DEADLINE)
    assert len(slot) == 1
    for one in (held[1], slot):
        one.release()


@pytest.mark.slow
def test_a_slot_that_another_process_may_still_use_is_in_quarantine(make_pool: MakePool, photos: list[Path]) -> None:
    """Released while held: nobody gets it before the last pin has ended, and then at once."""
    pool = make_pool(workers=1, slots=1, named=True)
    slot = pool.process([str(photos[0])])
    first, second = slot.view.pin(), slot.view.pin()
    assert pool.states[SlotState.EMBEDDING] == 1
    slot.release()
    assert pool.states[SlotState.QUARANTINED] == 1
    waiting = gevent.spawn(pool.process, [str(photos[1])])
    first()
    first()  # a second time, which changes nothing
    gevent.sleep(0)
    assert pool.states[SlotState.QUARANTINED] == 1
    assert not waiting.ready()
    second()
    waiting.get(timeout=DEADLINE).release()
    assert pool.states[SlotState.FREE] == 1


@pytest.mark.slow
def test_a_hold_that_ends_before_the_release_leaves_no_trace(make_pool: MakePool, photos: list[Path]) -> None:
    """The usual case: the server answers, then the slot is given back."""
    pool = make_pool(workers=1, slots=1, named=True)
    slot = pool.process([str(photos[0])])
    for _ in range(2):  # the second is a retry
        slot.view.pin()()
    slot.release()
    assert pool.states[SlotState.FREE] == 1


@pytest.mark.slow
def test_a_named_slot_is_found_by_whoever_knows_its_place(make_pool: MakePool, photos: list[Path]) -> None:
    """Name and offsets lead another mapping of the segment to the same bytes; without a name there is no place."""
    slot = make_pool(workers=1, slots=2, named=True).process([str(photos[0])])
    place = slot.view.place
    assert place is not None
    memory = np.memmap(f"/dev/shm/{place.segment}", np.uint8, "r")
    assert len(memory) == place.nbytes
    begin = place.offsets["pixels"]
    np.testing.assert_array_equal(memory[begin : begin + slot.pixels.nbytes].view(np.float32), slot.pixels.ravel())
    assert place.offsets["embeddings"] >= begin + slot.view.pixels.nbytes
    del memory
    slot.release()
    unnamed = make_pool(workers=1).process([str(photos[0])])
    assert unnamed.view.place is None
    unnamed.release()


@pytest.mark.kills
@pytest.mark.slow
def test_a_named_segment_does_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    """The fork server sees its parent die, ends the workers and then takes the names away."""
    code = """
        import sys, time
        from penstock.engine.workers import PreprocessPool
        from penstock.preprocess import preset
        pool = PreprocessPool(preset("clip", size=64), workers=2, batch_size=4, slots=2, named=True)
        pool.start()
        print(*pool.pids, *(worker.slots.ring.name for worker in pool._workers), flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as parent:
        assert parent.stdout is not None
        *pids, one, two = parent.stdout.readline().split()
        assert Path("/dev/shm", one).exists()
        parent.kill()
    workers = [psutil.Process(int(pid)) for pid in pids if psutil.pid_exists(int(pid))]
    assert not psutil.wait_procs(workers, timeout=DEADLINE)[1]
    wait_until(lambda: not any(Path("/dev/shm", name).exists() for name in (one, two)))


@pytest.mark.slow
def test_a_pool_serves_one_run_after_another(make_pool: MakePool, photos: list[Path]) -> None:
    """Warm between runs: the processes stay the same."""
    pool = make_pool()
    pids = pool.pids
    for _ in range(2):
        pool.process([str(photos[0])]).release()
        pool.stop_in_hub()
        pool.start_in_hub()
    assert pool.pids == pids


@pytest.mark.slow
def test_a_worker_that_cannot_start_says_why() -> None:
    """A missing transform is an error at the start, in the worker's own words, not an endless row of deaths."""
    pool = PreprocessPool(SPEC.replace(transform="no_such_module:function"), workers=1)
    with pytest.raises(ConfigError, match="transform: 'no_such_module:function'"):
        pool.start()


@pytest.mark.slow
def test_a_worker_is_watched_in_the_order_in_which_it_works(make_pool: MakePool, photos: list[Path]) -> None:
    """A slot may be granted to one who sends after another: what the worker is at is the first that was sent."""
    pool = make_pool(workers=1, slots=2)
    held = [pool.process([str(photos[0])]) for _ in range(2)]
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    seen: list[list[str]] = []

    def look() -> None:
        gevent.sleep(0.2)
        seen.append(pool.state())
        os.kill(pid, signal.SIGCONT)

    late = gevent.spawn(pool.process, [str(path) for path in photos[:3]])
    gevent.sleep(0)
    looking = gevent.spawn(look)
    for slot in held:
        slot.release()  # the first one is for whoever waits, who wakes up later
    early = pool.process([str(path) for path in photos[:2]])
    looking.join()
    early.release()
    late.get(timeout=DEADLINE).release()
    ((line,),) = seen
    assert line.index("batch of 2") < line.index("batch of 3")


@pytest.mark.slow
def test_an_ordered_stage_that_tries_again_gets_a_slot_while_all_others_wait_for_its_turn(photos: list[Path]) -> None:
    """The others hold what the credit allows; an idle pool does not keep back what is free."""
    failed: list[bool] = []
    with PreprocessPool(SPEC, workers=1, batch_size=1, slots=4) as pool:

        @green
        def once_lost(number: int) -> SlotBatch:
            slot = pool.process([str(photos[number])])
            if number == 0 and not failed:
                failed.append(True)
                slot.release()
                raise ConnectionResetError("lost")
            return slot

        builder = PipelineBuilder().add_source(range(8)).add_resource(pool)
        builder.pipe(once_lost, concurrency=pool.capacity, output_order="input", on_failure="retry:3")
        with builder.add_sink(1).build(num_threads=1).auto_stop() as pipeline:
            for _ in range(8):
                pipeline.get_item(timeout=DEADLINE).release()
    assert failed
