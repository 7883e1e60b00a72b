"""Reading ahead of the decoder: within its room in memory, in any timing, and never in the way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ReadError
from penstock.fetch import read_file
from penstock.preprocess.worker.inbox import Inbox
from penstock.preprocess.worker.protocol import encode_task
from penstock.preprocess.worker.reader import REMOTE_THREADS, Reader
from penstock.references import Locator, Reference, Version
from penstock.shm.frames import frame_pieces
from penstock.tests.waiting import DEADLINE, wait_until

SLOW = 0.001
"""Seconds a read takes; far above what is worth a thread."""


class Storage:
    """Real files that take long to read; counts what lies read by threads and not taken."""

    def __init__(self, folder: Path, sizes: list[int]) -> None:
        self.paths = [str(folder / f"{number}.bin") for number in range(len(sizes))]
        for path, size in zip(self.paths, sizes, strict=True):
            Path(path).write_bytes(bytes([size % 256]) * size)
        self.read_ahead = 0
        self.most = 0
        self._lock = threading.Lock()

    def read(self, source: str | Reference) -> bytes:
        threading.Event().wait(SLOW)
        data = read_file(str(source), 1 << 30)
        if threading.current_thread() is not threading.main_thread():
            with self._lock:
                self.read_ahead += len(data)
                self.most = max(self.most, self.read_ahead)
        return data

    def taken(self, data: bytes) -> None:
        with self._lock:
            self.read_ahead = max(0, self.read_ahead - len(data))


def reader_of(storage: Storage, threads: int, room: int) -> Reader:
    """A reader that has seen how slow the storage is."""
    reader = Reader(storage.read, threads, room)
    for _ in range(8):
        reader.take(reader.start(storage.paths[:1]), 0)
    assert reader.ahead
    storage.read_ahead = storage.most = 0
    return reader


def take_all(reader: Reader, storage: Storage, tasks: list[list[str]]) -> list[bytes]:
    started = [(task, reader.start(task)) for task in tasks]
    found: list[bytes] = []
    for task, reads in started:
        for position in range(len(task)):
            data = reader.take(reads, position)
            assert isinstance(data, bytes)
            storage.taken(data)
            found.append(data)
    return found


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 400), min_size=1, max_size=40),
    threads=st.integers(1, 5),
    room=st.integers(0, 1000),
    cut=st.integers(1, 40),
)
def test_every_file_arrives_once_and_in_order_whatever_fits(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], threads: int, room: int, cut: int
) -> None:
    """Small rooms, files larger than the room, several tasks at once: nothing is lost, nothing waits for ever."""
    storage = Storage(tmp_path_factory.mktemp("files"), sizes)
    tasks = [storage.paths[:cut], storage.paths[cut:]]
    found = take_all(reader_of(storage, threads, room), storage, tasks)
    assert [len(data) for data in found] == sizes


@pytest.mark.parametrize("source", [str, lambda path: Reference(Locator("a:b"), path, Version(100))], ids=["p", "r"])
def test_what_lies_read_stays_within_its_room(tmp_path: Path, source: Callable[[str], str | Reference]) -> None:
    """A hundred files wait in tasks; only as many as there is room for are read before one is taken.

    Of a path the size is asked for, of a reference the listing has told it.
    """
    storage = Storage(tmp_path, [100] * 100)
    reader = reader_of(storage, 4, 1000)
    task = reader.start([source(path) for path in storage.paths])
    wait_until(lambda: storage.read_ahead == 1000)
    data = reader.take(task, 0)
    assert isinstance(data, bytes)
    storage.taken(data)
    wait_until(lambda: storage.read_ahead == 1000)
    assert storage.most <= 1000
    for position in range(1, 100):
        reader.take(task, position)


def test_a_failed_read_is_raised_where_its_item_is_taken(tmp_path: Path) -> None:
    """The others are not touched by it, and its room is free again: the last one is read ahead."""
    storage = Storage(tmp_path, [60, 60, 60])
    reader = reader_of(storage, 1, 100)
    Path(storage.paths[1]).unlink()
    task = reader.start(storage.paths)
    assert reader.take(task, 0) == bytes([60]) * 60
    storage.taken(bytes(60))
    with pytest.raises(ReadError):
        reader.take(task, 1)
    wait_until(lambda: storage.read_ahead == 60)
    assert reader.take(task, 2) == bytes([60]) * 60


def test_what_lies_elsewhere_is_read_ahead_from_the_first_task_on() -> None:
    """Thirty-two at once: each read waits for all the others, and none would come if they were done one by one."""
    meeting = threading.Barrier(REMOTE_THREADS, timeout=DEADLINE)

    def read(source: str | Reference) -> bytes:
        meeting.wait()
        return str(source).encode()

    reader = Reader(read, None)
    names = [str(number) for number in range(REMOTE_THREADS)]
    task = reader.start([Reference(Locator("no:where"), name) for name in names])
    assert [reader.take(task, position) for position in range(len(names))] == [name.encode() for name in names]


def test_a_number_that_somebody_says_holds_for_what_lies_elsewhere() -> None:
    """None at all is one by one, in the thread that decodes."""
    threads: set[str] = set()

    def read(source: str | Reference) -> bytes:
        threads.add(threading.current_thread().name)
        return b""

    reader = Reader(read, 0)
    task = reader.start([Reference(Locator("no:where"), "a")] * 3)
    for position in range(3):
        reader.take(task, position)
    assert threads == {threading.current_thread().name}


def test_a_task_that_comes_while_another_is_decoded_is_read_meanwhile() -> None:
    """Between two pictures: else each batch would wait for its reads when the one before it is done."""
    begun = {name: threading.Event() for name in ("a", "b")}

    def read(source: str | Reference) -> bytes:
        begun[str(source)].set()
        return b"x"

    parent, ours = socket.socketpair()
    with parent, ours:

        def send(name: str) -> None:
            message = encode_task(0, 1, [Reference(Locator("no:where"), name)])
            parent.sendall(b"".join(map(bytes, frame_pieces(message.frame))))

        inbox = Inbox(ours, Reader(read, None))
        send("a")
        found = inbox.next()
        assert found is not None
        assert found[0].sources[0] == Reference(Locator("no:where"), "a")
        inbox.look()  # nothing has come
        send("b")
        inbox.look()
        assert begun["b"].wait(DEADLINE)
        assert inbox.next() is not None
        parent.close()
        assert inbox.next() is None
