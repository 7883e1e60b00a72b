"""The moment between a worker's death and its replacement: nobody waits for ever, and nothing stays behind.

Contract: a replacement that dies at any moment of its start is a death like any other; a pool that is stopped or closed
while one is being started leaves no process and no segment, and a stopped one can be used again.
"""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path

import gevent
import psutil
import pytest

from penstock.engine.workers import PreprocessPool
from penstock.engine.workers.picture_server import warm_start
from penstock.errors import WorkerError, WorkerStartError
from penstock.preprocess import preset
from penstock.shm import Ring, SlotLayout, SlotState, Zygote
from penstock.tests.waiting import DEADLINE, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.kills]

EMBEDDER = """
    import os, pathlib, signal, socket, time
    from penstock.preprocess.worker import worker

    class Nothing:
        dimension = 0
        def open(self, spec, rows): pass
        def embed(self, view, rows): return {{}}

    def make(argument):
        first, last, how = argument.split()
        starts = pathlib.Path({starts!r})
        with starts.open("a") as file:
            file.write("x")
        if int(first) <= len(starts.read_text()) <= int(last):
            globals()[how]()
        return Nothing()

    def before_the_ring():
        send = worker.send_frame
        def patched(sock, frame):
            sock.shutdown(socket.SHUT_RD)  # so that the ring cannot be sent, however soon it comes
            send(sock, frame)
            os.kill(os.getpid(), signal.SIGKILL)
        worker.send_frame = patched

    def before_its_introduction():
        os.kill(os.getpid(), signal.SIGKILL)

    def with_an_error():
        raise MemoryError("none left")

    def in_other_words():
        worker.encode_json = lambda kind, value: b"What?"

    def never():
        while True:
            time.sleep(0.01)
"""
"""An embedder of the worker's that spoils some of the starts of its worker; they are counted in a file."""


@pytest.fixture
def embedder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its name, found by workers."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"starts_{tmp_path.name.replace('-', '_')}"
    code = textwrap.dedent(EMBEDDER.format(starts=str(tmp_path / "starts")))
    (tmp_path / f"{name}.py").write_text(code)
    return f"{name}:make"


@pytest.fixture(autouse=True)
def segments(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Those of the rings that a test makes. After it neither they are there nor any process of its."""
    made: list[Path] = []
    create = Ring.create

    def noted(layout: SlotLayout, slots: int) -> Ring:
        ring = create(layout, slots)
        made.append(Path("/dev/shm", ring.name))
        return ring

    monkeypatch.setattr(Ring, "create", noted)
    before = processes()
    yield made
    wait_until(lambda: processes() <= before)
    assert not [path for path in made if path.exists()]


def processes() -> set[int]:
    """Children of this process, and theirs."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def pool_of(embedder: str | None = None, argument: str = "", workers: int = 1) -> PreprocessPool:
    """A pool of small pictures whose segments keep their names."""
    given = (embedder, argument) if embedder else None
    return PreprocessPool(preset("clip", size=32), workers=workers, batch_size=2, slots=2, embedder=given, named=True)


def made(pool: PreprocessPool, photos: list[Path]) -> int:
    """How many pictures of a batch came back."""
    with gevent.Timeout(DEADLINE):
        slot = pool.process([str(path) for path in photos[:2]])
    slot.release()
    return len(slot.rows)


@pytest.mark.parametrize("last", [2, 5])
@pytest.mark.parametrize("how", ["before_the_ring", "before_its_introduction", "with_an_error", "in_other_words"])
def test_a_replacement_that_dies_while_it_starts_is_replaced(
    how: str, last: int, embedder: str, photos: list[Path], tmp_path: Path
) -> None:
    """Between its introduction and its ring, before either, or by an error: once, or four times in a row."""
    with pool_of(embedder, f"2 {last} {how}") as pool:
        pool.start_in_hub()
        os.kill(pool.pids[0], signal.SIGKILL)
        assert made(pool, photos) == 2
        assert pool.states[SlotState.FREE] == pool.capacity
        pool.stop_in_hub()
    assert (tmp_path / "starts").read_text() == "x" * (last + 1)


def test_a_first_worker_that_dies_before_its_ring_is_replaced(embedder: str, photos: list[Path]) -> None:
    """It has said what its slots look like, so the pool is started, and its death is heard on the hub."""
    with pool_of(embedder, "1 1 before_the_ring") as pool:
        pool.start_in_hub()
        assert made(pool, photos) == 2
        pool.stop_in_hub()


@pytest.mark.parametrize("how", ["before_the_ring", "with_an_error"])
def test_replacements_that_all_die_are_an_error_for_whoever_waits(how: str, embedder: str, photos: list[Path]) -> None:
    """Nobody waits for ever; and the pool, closed and started again, is a new one."""
    with pool_of(embedder, f"2 17 {how}") as pool:
        pool.start_in_hub()
        os.kill(pool.pids[0], signal.SIGKILL)
        with pytest.raises(WorkerError, match="died 17 times in a row"):
            made(pool, photos)
        assert pool.is_broken
        pool.stop_in_hub()
        pool.close()
        pool.start()
        pool.start_in_hub()
        assert made(pool, photos) == 2
        pool.stop_in_hub()


def test_a_pool_stopped_just_after_a_death_serves_the_next_run(photos: list[Path]) -> None:
    """Thirty times, each a little later after the death."""
    with pool_of(workers=2) as pool:
        for round_ in range(30):
            pool.start_in_hub()
            assert made(pool, photos) == 2, f"round {round_}"
            os.kill(pool.pids[round_ % 2], signal.SIGKILL)
            gevent.sleep(round_ * 0.0007)
            pool.stop_in_hub()
        assert pool.states[SlotState.FREE] == pool.capacity


def test_a_pool_closed_just_after_a_death_leaves_nothing(segments: list[Path]) -> None:
    """Thirty times, while the fork server goes on for other pools, so that nothing ends with it."""
    with warm_start():
        with pool_of():
            pass  # the fork server has begun to fork
        number = len(processes())
        for round_ in range(30):
            pool = pool_of()
            pool.start()
            pool.start_in_hub()
            os.kill(pool.pids[0], signal.SIGKILL)
            gevent.sleep(round_ * 0.0007)
            pool.stop_in_hub()
            pool.close()
            assert not [path for path in segments if path.exists()], f"round {round_}"
            wait_until(lambda: len(processes()) <= number)
        assert len(segments) == 31, "one for each pool"


def test_a_stop_does_not_wait_for_a_replacement_that_never_speaks(
    embedder: str, photos: list[Path], tmp_path: Path
) -> None:
    """It is called off; the next run starts another one."""
    with pool_of(embedder, "2 2 never") as pool:
        pool.start_in_hub()
        os.kill(pool.pids[0], signal.SIGKILL)
        wait_for_the_second_start(tmp_path)
        with gevent.Timeout(DEADLINE):
            pool.stop_in_hub()
        pool.start_in_hub()
        assert made(pool, photos) == 2
        pool.stop_in_hub()


def test_a_close_does_not_wait_for_a_replacement_that_never_speaks(embedder: str, tmp_path: Path) -> None:
    """With the pool goes whoever was to come."""
    with warm_start():
        pool = pool_of(embedder, "2 2 never")
        pool.start()
        pool.start_in_hub()
        before = processes()
        victim = pool.pids[0]
        os.kill(victim, signal.SIGKILL)
        wait_for_the_second_start(tmp_path)
        pool.stop_in_hub()
        pool.close()
        wait_until(lambda: processes() <= before - {victim})


def wait_for_the_second_start(folder: Path) -> None:
    with gevent.Timeout(DEADLINE):
        while (folder / "starts").read_text() != "xx":
            gevent.sleep(0.005)


def test_a_closed_fork_server_forks_no_more() -> None:
    """Not even for a thread that was about to ask it: the new server would be nobody's."""
    zygote = Zygote()
    zygote.start()
    zygote.close()
    with pytest.raises(WorkerStartError, match="has been closed"):
        zygote.fork("os:getpid")
    assert zygote.pid == 0
