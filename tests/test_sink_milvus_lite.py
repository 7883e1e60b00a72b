"""Milvus Lite's own process: it comes and goes with the sink, however either of them ends."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
from milvus_lite.db import MilvusLite

from penstock.errors import SinkError, SinkUnavailableError
from penstock.sinks import MilvusSink, RowBatch
from penstock.sinks.milvus import lite
from penstock.sinks.milvus import upsert as milvus_upsert
from penstock.sinks.milvus.collection import Collection
from penstock.sinks.milvus.lite import LiteServer, server_for, starting
from penstock.tests.waiting import DEADLINE

DIMENSION = 4
pytestmark = pytest.mark.slow


def make_rows(count: int, first: int = 0) -> RowBatch:
    vectors = np.random.default_rng(first).standard_normal((count, DIMENSION)).astype(np.float32)
    return RowBatch([f"key-{first + n}" for n in range(count)], vectors, [{} for _ in range(count)])


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "photos.db")


@pytest.fixture
def sink(path: str) -> Iterator[MilvusSink]:
    with MilvusSink(path, dimension=DIMENSION) as opened:
        yield opened


def server_of(sink: MilvusSink) -> int:
    """The process of the sink's server; of one that has just been killed, its successor."""
    pause, deadline = threading.Event(), time.monotonic() + DEADLINE
    while True:
        for child in psutil.Process().children():
            with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
                if sink.uri in child.cmdline():
                    return child.pid
        assert time.monotonic() < deadline, "there is no server"
        pause.wait(0.02)


def wait_for_end(pid: int, seconds: float = 30.0) -> bool:
    """Whether the process ends in that time. It need not be our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def test_closing_leaves_no_process_no_thread_and_no_lock(path: str) -> None:
    """When close returns, any process may open the file: here another engine does, in this one."""
    threads = set(threading.enumerate())
    with MilvusSink(path, dimension=DIMENSION) as sink:
        sink.write(make_rows(20))
        pid = server_of(sink)
    assert wait_for_end(pid, 0)
    assert set(threading.enumerate()) <= threads
    with MilvusLite(path) as engine:
        assert engine.get_collection("images").num_entities == 20


def test_the_file_is_one_that_plain_pymilvus_opens(path: str) -> None:
    """Users take their file elsewhere: MilvusClient("photos.db") reads it."""
    with MilvusSink(path, dimension=DIMENSION) as sink:
        sink.write(make_rows(20))
    code = (
        "import sys; from pymilvus import MilvusClient; client = MilvusClient(sys.argv[1]);"
        "client.load_collection('images');"
        "print(client.query('images', filter='', output_fields=['count(*)'])[0]['count(*)'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert done.stdout.split()[-1] == "20"


@pytest.mark.kills
def test_a_killed_server_is_started_again(sink: MilvusSink) -> None:
    """kill -9 of the server loses no acknowledged row; writing, counting and searching go on by themselves."""
    sink.write(make_rows(100))
    for round_ in range(2):
        os.kill(server_of(sink), signal.SIGKILL)
        assert sink.write(make_rows(50, first=100 + 50 * round_)).written == 50
    os.kill(server_of(sink), signal.SIGKILL)
    assert sink.count() == 200
    os.kill(server_of(sink), signal.SIGKILL)
    assert len(sink.search(np.ones(DIMENSION, np.float32), 5)) == 5


@pytest.mark.kills
def test_kills_while_writing_lose_and_double_nothing(path: str) -> None:
    """Four writers, a server killed again and again under them: every row is there, once."""
    with MilvusSink(path, dimension=DIMENSION, threads=4, retry_for=120.0) as sink:
        written = [0] * 4
        some_written = threading.Semaphore(0)

        def write(number: int) -> None:
            for part in range(20):
                written[number] += sink.write(make_rows(50, first=1000 * number + 50 * part)).written
                some_written.release()

        writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for writer in writers:
            writer.start()
        for _ in range(3):
            for _ in range(10):
                assert some_written.acquire(timeout=DEADLINE)
            os.kill(server_of(sink), signal.SIGKILL)
        for writer in writers:
            writer.join(DEADLINE)
        assert written == [1000] * 4
        assert sink.count() == 4000


PARENT = """
import sys
import numpy as np
import psutil
from penstock.sinks import MilvusSink, RowBatch

sink = MilvusSink(sys.argv[1], dimension=4)
sink.open()
print(psutil.Process().children()[0].pid, flush=True)
for number in range(10**6):
    sink.write(RowBatch([f"key-{number}-{n}" for n in range(50)], np.ones((50, 4), np.float32), [{}] * 50))
    print(50 * (number + 1), flush=True)
"""


@pytest.mark.kills
def test_a_killed_job_leaves_no_server_and_loses_no_row(path: str) -> None:
    """kill -9 of the job: its server goes too, and a rerun opens the file at once and finds what was acknowledged."""
    job = subprocess.Popen([sys.executable, "-c", PARENT, path], stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    server = int(job.stdout.readline())
    acknowledged = [int(job.stdout.readline()) for _ in range(5)][-1]
    job.kill()
    rest = job.stdout.read().split()
    job.stdout.close()
    job.wait()
    assert wait_for_end(server)
    with MilvusSink(path, dimension=DIMENSION) as sink:
        count = sink.count()
    acknowledged = int(rest[-1]) if rest else acknowledged
    assert acknowledged <= count <= acknowledged + 50  # one more write may have arrived without its answer
    assert count % 50 == 0


def test_a_sink_opened_in_a_thread_outlives_the_thread(path: str) -> None:
    """Death signals go by thread, and jobs open sinks in thread pools: the server watches the process instead."""
    sink = MilvusSink(path, dimension=DIMENSION)
    thread = threading.Thread(target=sink.open)
    thread.start()
    thread.join(DEADLINE)
    pid = server_of(sink)
    assert not wait_for_end(pid, 0.3)
    assert sink.write(make_rows(5)).written == 5
    assert server_of(sink) == pid
    sink.close()


def test_sinks_of_one_process_share_a_file(path: str) -> None:
    """Two collections of one file can be open at once; the server goes with the last of their sinks."""
    images, faces = MilvusSink(path, "images", DIMENSION), MilvusSink(path, "faces", DIMENSION)
    images.open()
    faces.open()
    pid = server_of(images)
    images.write(make_rows(3))
    images.close()
    faces.write(make_rows(4))
    assert (server_of(faces), faces.count()) == (pid, 4)
    faces.close()
    faces.close()
    assert wait_for_end(pid, 0)
    with MilvusSink(path, "images") as again:
        assert again.count() == 3


@pytest.fixture
def store(path: str) -> str:
    """One that exists, and is not open."""
    with MilvusSink(path, dimension=DIMENSION) as made:
        made.write(make_rows(3))
    return path


def test_a_server_that_was_started_ahead_is_the_one_that_a_sink_gets(store: str) -> None:
    """It comes up while its user imports other things; afterwards it is gone."""
    with starting(store):
        ahead = server_for(store).pid
        assert ahead
        with MilvusSink(store) as sink:
            assert server_of(sink) == ahead
            assert sink.count() == 3
    assert not psutil.pid_exists(ahead)


def test_a_server_that_was_started_ahead_and_is_not_needed_is_gone_at_once(store: str) -> None:
    """Its user has found something else to be wrong."""
    with starting(store):
        ahead = server_for(store).pid
    assert ahead
    assert not psutil.pid_exists(ahead)


@pytest.mark.kills
def test_a_server_that_was_started_ahead_and_killed_is_started_again(store: str) -> None:
    with starting(store):
        ahead = server_for(store).pid
        assert ahead
        os.kill(ahead, signal.SIGKILL)
        with MilvusSink(store) as sink:
            assert sink.count() == 3


def test_nothing_is_started_ahead_for_a_store_that_is_in_use_or_not_there(store: str, tmp_path: Path) -> None:
    """Whoever opens it says so, in its own words."""
    with open(f"{store}/LOCK", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with starting(store):
            assert server_for(store).pid is None
    with starting(str(tmp_path / "none.db")):
        assert server_for(str(tmp_path / "none.db")).pid is None
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_open_elsewhere_is_an_error_with_its_name(sink: MilvusSink, path: str) -> None:
    """Not a hang, and not a second engine on the same files."""
    second = LiteServer(path, lock_timeout=0.1)
    with pytest.raises(SinkError, match=rf"{path} is open in another process"):
        second.address()
    assert sink.write(make_rows(1)).written == 1


def test_the_server_imports_without_collections_and_leaves_without_taking_its_interpreter_apart(tmp_path: Path) -> None:
    """Each takes a tenth of a second and more, for which a search waits. What is written is on the disk by then."""
    package = tmp_path / "milvus_lite" / "adapter" / "grpc"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "server.py").write_text(
        "import atexit, gc, threading\n"
        "from types import SimpleNamespace\n"
        "imported = gc.isenabled()\n"
        "def start_server_in_thread(directory, **_):\n"
        "    def note(what):\n"
        "        with open(directory + '/notes', 'a') as file: file.write(what + '\\n')\n"
        "    note(f'{imported} {gc.isenabled()}')\n"
        "    atexit.register(note, 'taken apart')\n"
        "    stop = lambda grace: SimpleNamespace(wait=lambda: note('stopped'))\n"
        "    return SimpleNamespace(stop=stop), SimpleNamespace(close=lambda: note('closed')), 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", str(lite._CHILD), str(tmp_path)],  # pyright: ignore[reportPrivateUsage]
        input=b"q",
        capture_output=True,
        check=True,
        timeout=DEADLINE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout == b'{"port": 1}\n'
    assert (tmp_path / "notes").read_text().splitlines() == ["False True", "stopped", "closed"]


def test_a_directory_that_milvus_lite_cannot_open_is_an_error(tmp_path: Path) -> None:
    """What the child says about its start reaches the user."""
    (tmp_path / "photos.db").mkdir()
    (tmp_path / "photos.db" / "collections").write_text("not a directory")
    server = LiteServer(str(tmp_path / "photos.db"))
    with pytest.raises(SinkError, match=r"cannot open .*photos\.db: FileExistsError"):
        server.address()
    assert server.pid is None


def test_a_server_that_does_not_start_is_reported(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that says nothing, or dies, costs `start_timeout` at most and is not left behind."""
    child = tmp_path / "child.py"
    monkeypatch.setattr(lite, "_CHILD", child)
    child.write_text("import sys; sys.stdin.read()")
    server = LiteServer(path, start_timeout=0.2)
    with pytest.raises(SinkUnavailableError, match=r"did not start in 0\.2 s"):
        server.address()
    child.write_text("raise SystemExit(3)")
    with pytest.raises(SinkUnavailableError, match="exit 3"):
        LiteServer(path).address()
    assert server.pid is None


@pytest.mark.kills
def test_a_server_that_does_not_stop_is_killed(path: str) -> None:
    """A stopped (SIGSTOP) server cannot hold up the end of a job; its rows are in its log."""
    server = LiteServer(path, stop_timeout=0.2)
    server.hold()
    server.address()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    server.release()
    assert wait_for_end(pid, 0)


def test_the_token_is_not_handed_to_the_child(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users' tools read the environment and arguments of processes; a secret is in neither."""
    monkeypatch.setenv("MILVUS_TOKEN", "MARKER-deadbeef")
    with MilvusSink(path, dimension=DIMENSION) as sink:
        process = Path(f"/proc/{server_of(sink)}")
        assert b"MARKER" not in (process / "environ").read_bytes() + (process / "cmdline").read_bytes()


def test_the_server_listens_on_loopback_only(sink: MilvusSink) -> None:
    """Milvus Lite has no access control: nobody else on the network may reach it."""
    links = [str(Path(entry.path).readlink()) for entry in os.scandir(f"/proc/{server_of(sink)}/fd")]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    listening: list[str] = []
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        listening += [line.split()[1] for line in lines if line.split()[3] == "0A" and line.split()[9] in inodes]
    assert listening
    # hexadecimal, in host order: 127.0.0.1, or the same in the IPv6 table
    hosts = {address.split(":")[0] for address in listening}
    assert hosts <= {"0100007F", "0000000000000000FFFF00000100007F"}


def test_a_connection_that_another_thread_closes_meanwhile_is_made_anew(
    sink: MilvusSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC says so with an error of its own, a bare ValueError, once the message is made."""
    make, connection = milvus_upsert.message_of, cast("Any", sink)._connection
    closed: list[object] = []

    def closing(*arguments: Any) -> Any:
        if not closed:
            closed.append(connection._client)
            connection._give_up(connection._client)
        return make(*arguments)

    monkeypatch.setattr(milvus_upsert, "message_of", closing)
    assert sink.write(make_rows(3)).written == 3
    assert closed
    assert sink.count() == 3


@pytest.mark.parametrize(("rows", "note"), [(0, "gist"), (2, "")])
def test_a_collection_made_by_a_job_that_died_before_its_note_gets_one_while_it_is_empty(
    rows: int, note: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows that are there already nobody knows what made them."""

    class DiedError(Exception):
        pass

    def die(collection: Collection) -> None:
        raise DiedError(str(collection))

    with monkeypatch.context() as patch:
        patch.setattr(Collection, "_keep_note", die)
        with pytest.raises(DiedError), MilvusSink(path, "images", DIMENSION, note="gist"):
            pass
    with MilvusSink(path, "images", DIMENSION) as plain:
        plain.write(make_rows(rows))
        assert plain.note == ""
    with MilvusSink(path, "images", DIMENSION, note="gist") as again:
        assert again.note == note
