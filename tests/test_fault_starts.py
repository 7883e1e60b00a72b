"""What is killed while it starts is started again: a worker, its replacement, the fork server, the store's process.

The window is short, so what starts kills itself there: each start of it is counted in a file.
"""

from __future__ import annotations

import os
import signal
import socket
import textwrap
from pathlib import Path

import gevent
import pytest

from penstock.engine.workers import PreprocessPool
from penstock.errors import SinkUnavailableError, WorkerStartError
from penstock.preprocess import preset
from penstock.shm import Zygote
from penstock.sinks.milvus import lite
from penstock.tests.waiting import DEADLINE

pytestmark = [pytest.mark.slow, pytest.mark.kills]

DIES = """
    import os, pathlib, signal
    starts = pathlib.Path({starts!r})
    with starts.open("a") as file:
        file.write("x")
    if len(starts.read_text()) in {deaths}:
        os.kill(os.getpid(), signal.SIGKILL)
"""
"""The beginning of a module that kills whoever imports it, the first time or another."""


def dying(folder: Path, deaths: set[int], rest: str = "") -> Path:
    """A module that kills its process at those of its starts; under a name of its own."""
    path = folder / f"dying_{folder.name.replace('-', '_')}.py"
    starts = str(folder / "starts")
    path.write_text(textwrap.dedent(DIES.format(starts=starts, deaths=deaths)) + textwrap.dedent(rest))
    return path


EMBEDDER = """
    class Nothing:
        dimension = 0
        def open(self, spec, rows): pass
        def embed(self, view, rows): pass

    def make(argument):
        return Nothing()
"""


def answer(sock: socket.socket, *_: object) -> None:
    """What a child of the fork server does."""
    sock.send(b"here")


@pytest.fixture
def in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that workers find modules in."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def pool_of(module: Path) -> PreprocessPool:
    return PreprocessPool(
        preset("clip", size=32), workers=1, batch_size=2, slots=2, embedder=(f"{module.stem}:make", "")
    )


def made(pool: PreprocessPool, photos: list[Path]) -> int:
    """How many pictures of a batch came back."""
    job = gevent.spawn(pool.process, [str(path) for path in photos[:2]])
    with gevent.Timeout(DEADLINE):
        slot = job.get()
    slot.release()
    return len(slot.rows)


@pytest.mark.parametrize("deaths", [{1}, {1, 2}])
def test_a_worker_that_is_killed_while_it_starts_is_started_again(
    in_path: Path, deaths: set[int], photos: list[Path]
) -> None:
    """Once or twice; the job does not hear of it."""
    with pool_of(dying(in_path, deaths, EMBEDDER)) as pool:
        pool.start_in_hub()
        assert made(pool, photos) == 2
        pool.stop_in_hub()


def test_a_replacement_that_is_killed_while_it_starts_is_started_again(in_path: Path, photos: list[Path]) -> None:
    """The second death finds nobody who would have noticed the first one's end."""
    with pool_of(dying(in_path, {2, 3}, EMBEDDER)) as pool:
        pool.start_in_hub()
        assert made(pool, photos) == 2
        os.kill(pool.pids[0], signal.SIGKILL)
        assert made(pool, photos) == 2
        pool.stop_in_hub()
    assert (in_path / "starts").read_text() == "xxxx"


def test_a_worker_that_is_killed_at_each_start_is_an_error(in_path: Path) -> None:
    """After the third: this machine does not let it start."""
    pool = pool_of(dying(in_path, set(range(1, 99)), EMBEDDER))
    with pytest.raises(WorkerStartError, match="signal 9"):
        pool.start()
    assert (in_path / "starts").read_text() == "xxx"


def test_a_fork_server_that_is_killed_while_it_imports_is_started_again(in_path: Path) -> None:
    """Once; a second death is what it imports."""
    with Zygote([dying(in_path, {1}).stem]) as zygote, zygote.fork(f"{__name__}:answer") as child:
        assert child.socket.recv(9) == b"here"
    (in_path / "starts").unlink()
    with Zygote([dying(in_path, set(range(1, 99))).stem]) as zygote, pytest.raises(WorkerStartError, match="importing"):
        zygote.fork("os:getpid")


@pytest.mark.parametrize(("deaths", "starts"), [({1, 2}, "xxx"), (set(range(1, 99)), "xxx")], ids=["twice", "always"])
def test_a_store_that_is_killed_while_it_starts_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: set[int], starts: str
) -> None:
    """Its lock goes with it; after the third time it is given up."""
    real = f"import runpy; runpy.run_path({str(lite._CHILD)!r}, run_name='__main__')"  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(lite, "_CHILD", dying(tmp_path, deaths, real))
    server = lite.LiteServer(str(tmp_path / "rows.db"))
    server.hold()
    if 3 in deaths:
        with pytest.raises(SinkUnavailableError, match="exit -9"):
            server.address()
    else:
        assert server.address().startswith("http://127.0.0.1:")
    server.release()
    assert (tmp_path / "starts").read_text() == starts
