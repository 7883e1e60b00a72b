"""What a worker says that it should not: pictures, or a user's code, may have made it say anything.

Contract: an answer that makes no sense is a death of the worker that gave it. Its batches are done again; a picture
that causes it each time is given up, alone; nobody waits for ever and no slot is lost.
"""

from __future__ import annotations

import textwrap
from contextlib import suppress
from pathlib import Path

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.workers import PreprocessPool
from penstock.errors import PoisonItemError, ReadError, WorkerError
from penstock.preprocess import preset
from penstock.preprocess.worker.protocol import (
    Done,
    Row,
    Task,
    Timings,
    decode_done,
    encode_done,
)
from penstock.shm import SlotState
from penstock.shm.protocol import DONE, decode_answer, decode_layout
from penstock.tests.waiting import DEADLINE

LIAR = """
    import os, signal
    from penstock.preprocess.worker import worker
    from penstock.preprocess.worker.preprocessor import Preprocessor
    from penstock.preprocess.worker.protocol import Row, Task
    from penstock.shm import Ring

    class Nothing:
        dimension = 0
        def open(self, spec, rows): pass
        def embed(self, view, rows): return {}

    encode_done = worker.encode_done
    send = worker.send_frame
    mark = Ring.mark

    def again(task, rows, *rest):
        def twice(sock, frame):
            send(sock, frame)
            send(sock, frame)
        worker.send_frame = twice
        return encode_done(task, rows, *rest)

    LIES = {
        "garbage": lambda task, rows, *rest: b"\\x03garbage",
        "nothing": lambda task, rows, *rest: b"",
        "another kind": lambda task, rows, *rest: b"\\x09",
        "the head of a leave": lambda task, rows, *rest: b"\\x04",
        "its end cut off": lambda *given: encode_done(*given)[:-1],
        "a failure that is a number": lambda *given: encode_done(*given)[:-2] + b"[1]",
        "nested too deep": lambda *given: encode_done(*given)[:-2] + b"[" * 100_000,
        "no such position": lambda task, rows, *rest: encode_done(task, [Row(9, 1, 1), *rows[1:]], *rest),
        "a position twice": lambda task, rows, *rest: encode_done(task, [rows[0], *rows[:-1]], *rest),
        "a picture less": lambda task, rows, *rest: encode_done(task, rows[1:], *rest),
        "another slot": lambda task, rows, *rest: encode_done(Task(7, task.generation, task.sources), rows, *rest),
        "another generation": lambda task, rows, *rest: encode_done(Task(task.slot, 99, task.sources), rows, *rest),
        "all of it twice": again,
    }

    def poisoned(task):
        return any(bytes(source) == b"poison" for source in task.sources if not isinstance(source, str))

    def make(argument):
        lie, when, marker = argument.split("|")

        def lies(task):
            if when == "of poison":
                return poisoned(task)
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return False
            return True

        def marked(ring, slot, row):
            mark(ring, slot, None if row is None else 2**40)
            if row == 1 and lies(None):
                os.kill(os.getpid(), signal.SIGKILL)

        if lie == "a wrong mark":
            Ring.mark = marked
        else:
            worker.encode_done = lambda task, *rest: (LIES[lie] if lies(task) else encode_done)(task, *rest)
        Preprocessor.load = decode_poison(Preprocessor.load)
        return Nothing()

    def decode_poison(load):
        photo = open(PHOTO, "rb").read()
        def patched(self, row, source):
            whole = isinstance(source, str) or bytes(source) != b"poison"
            return load(self, row, source if whole else photo)
        return patched
"""
"""An embedder of the worker's that puts words into its mouth: once, or whenever a batch has the poison in it."""

LIES = [
    *("garbage", "nothing", "another kind", "the head of a leave", "its end cut off", "a failure that is a number"),
    *("nested too deep", "no such position", "a position twice", "a picture less", "another slot"),
    *("another generation", "all of it twice", "a wrong mark"),
]


@pytest.fixture
def liar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: list[Path]) -> str:
    """Its name, found by workers."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"liar_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(LIAR) + f"\nPHOTO = {str(photos[0])!r}\n")
    return f"{name}:make"


def pool_of(embedder: str, argument: str) -> PreprocessPool:
    return PreprocessPool(
        preset("clip", size=32), workers=1, batch_size=4, slots=2, embedder=(embedder, argument), item_timeout=10
    )


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.parametrize("lie", LIES)
def test_a_worker_that_answers_wrongly_is_replaced(lie: str, liar: str, photos: list[Path], tmp_path: Path) -> None:
    """Once: its batches are done again, and both slots are free at the end."""
    with pool_of(liar, f"{lie}|once|{tmp_path / 'lied'}") as pool:
        pool.start_in_hub()
        (first,) = pool.pids
        jobs = [gevent.spawn(pool.process, [str(path) for path in photos[:4]]) for _ in range(4)]
        for job in jobs:
            slot = job.get(timeout=DEADLINE)
            assert [row.position for row in slot.rows] == [0, 1, 2, 3]
            slot.check()
            slot.release()
        assert pool.pids != [first], "nobody lied: the test has tested nothing"
        assert pool.states[SlotState.FREE] == pool.capacity
        pool.stop_in_hub()


@pytest.mark.slow
@pytest.mark.kills
def test_a_picture_of_which_a_worker_answers_wrongly_is_given_up_alone(
    liar: str, photos: list[Path], tmp_path: Path
) -> None:
    """Each time: it is found by halving its batch, and its error says what was wrong."""
    with pool_of(liar, f"no such position|of poison|{tmp_path / 'lied'}") as pool:
        pool.start_in_hub()
        job = gevent.spawn(pool.process, [str(photos[1]), b"poison", str(photos[2]), str(photos[3])])
        slot = job.get(timeout=DEADLINE)
        assert [row.position for row in slot.rows] == [0, 2, 3]
        [(position, error)] = slot.failures
        slot.release()
        assert position == 1
        assert isinstance(error, PoisonItemError)
        assert "answered wrongly" in str(error)
        pool.stop_in_hub()


def answer(positions: list[int], failed: list[int]) -> bytes:
    """A well-formed answer to a batch of four."""
    failures = [(position, ReadError("gone")) for position in failed]
    return encode_done(Task(0, 1, [""] * 4), [Row(position, 5, 5) for position in positions], failures, Timings())


@pytest.mark.parametrize("positions", [[0, 1, 3], [3, 1, 0], [0, 1, 3, 4], [0, 1, 1, 3], [0, 1, 2, 3], []])
def test_an_answer_is_one_for_each_picture(positions: list[int]) -> None:
    """Made or failed: neither none nor two."""
    done = decode_answer(answer(positions, failed=[2]), decode_done)
    assert isinstance(done, Done)
    if sorted(positions) == [0, 1, 3]:
        done.check(4)
    else:
        with pytest.raises(WorkerError, match="not one for each"):
            done.check(4)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=99), st.integers(0, 200), st.sampled_from([bytes([DONE]), b"\x04", b"\0", b""]))
def test_bytes_that_make_no_sense_are_an_error_and_nothing_else(noise: bytes, at: int, kind: bytes) -> None:
    """Noise, and a real answer with noise in it."""
    whole = answer([0, 1, 3], failed=[2])
    for frame in (kind + noise, whole[:at] + noise + whole[at + len(noise) :]):
        with suppress(WorkerError):
            decode_answer(frame, decode_done)
        with suppress(WorkerError):
            decode_layout(frame)


@pytest.mark.parametrize("seconds", ["nan", "inf"])
def test_seconds_that_are_no_numbers_are_an_error(seconds: str) -> None:
    """They would spoil every sum that they go into."""
    frame = encode_done(Task(0, 1, []), [], [], Timings(read=float(seconds)))
    with pytest.raises(WorkerError, match="no sense"):
        decode_answer(frame, decode_done)
