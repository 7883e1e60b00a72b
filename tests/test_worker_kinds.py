"""The contract every kind of work keeps: pictures, one in one file outside of the package, and one of these tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from penstock.engine.workers import PreprocessPool, SlotPool, WorkerKind
from penstock.engine.workers.items import item_kind, serve_items
from penstock.errors import DeadlineError, DecodeError, PoisonItemError
from penstock.preprocess import preset
from penstock.shm import ArraySpec, SlotLayout
from penstock.testing.workers import WorkerKindContract, done
from penstock.tests.waiting import DEADLINE

PLUGINS = Path(__file__).parent.parent / "examples" / "plugins"
PATIENCE = 3.0
"""Seconds of an item: a worker that is stopped costs as many, and whole ones need thousandths."""

LAYOUT = SlotLayout(8, (ArraySpec("square", (), "int64"), ArraySpec("pair", (2,), "float32")))


def main(sock: socket.socket, _argument: bytes, _fds: list[int]) -> None:
    """A worker that squares numbers, or does what a text says."""
    serve_items(sock, LAYOUT, square)


def square(item: Any, row: Mapping[str, NDArray[Any]]) -> None:
    """Fill one row, or end this process in one of several ways."""
    match item:
        case "fail":
            raise DecodeError("so it was wanted")
        case "exit":
            os._exit(3)
        case "raise":
            raise RuntimeError("a mistake in the function")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "wait":
            threading.Event().wait()
        case "spin":
            while True:
                pass
        case str():
            raise DecodeError(f"a text of {len(item)} characters")
        case _:
            row["square"][...] = item * item
            row["pair"][...] = item, -item


def squares(item_timeout: float | None = PATIENCE) -> WorkerKind[Any, Any]:
    """The kind of those workers."""
    return item_kind(f"{__name__}:main", LAYOUT, item_timeout=item_timeout, item="number")


@pytest.mark.slow
class TestSquares(WorkerKindContract):
    """A function of an item is all that such a kind needs."""

    def make(self) -> WorkerKind[Any, Any]:
        return squares()

    def good(self) -> Sequence[Any]:
        return [3, 4, 5]

    def bad(self) -> Any:
        return "fail"


@pytest.mark.slow
class TestDigests(WorkerKindContract):
    """One file outside of the package."""

    @pytest.fixture(autouse=True)
    def _found(self, monkeypatch: pytest.MonkeyPatch, photos: list[Path]) -> None:
        monkeypatch.syspath_prepend(str(PLUGINS))
        self.photos = [str(path) for path in photos[:4]]

    def make(self) -> WorkerKind[Any, Any]:
        import file_digests  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

        made: WorkerKind[Any, Any] = file_digests.kind()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        return replace(made, item_timeout=PATIENCE)

    def good(self) -> Sequence[Any]:
        return self.photos

    def bad(self) -> Any:
        return "/no/such/file"

    def test_the_rows_are_what_was_wanted(self, pool: SlotPool[Any, Any]) -> None:
        """Digest and size of each file."""
        rows, _ = done(pool, self.photos)
        files = [Path(photo).read_bytes() for photo in self.photos]
        assert rows["sha256"] == [sha256(data).digest() for data in files]
        assert [int.from_bytes(size, sys.byteorder) for size in rows["nbytes"]] == [len(data) for data in files]


@pytest.mark.slow
class TestPictures(WorkerKindContract):
    """The kind that is built in."""

    @pytest.fixture(autouse=True)
    def _found(self, photos: list[Path]) -> None:
        self.photos = [str(path) for path in photos[:4]]

    def make(self) -> WorkerKind[Any, Any]:
        return PreprocessPool(preset("clip", size=32), workers=1, batch_size=8, item_timeout=PATIENCE).kind

    def good(self) -> Sequence[Any]:
        return self.photos

    def bad(self) -> Any:
        return b"no picture"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["exit", "raise", "kill"])
def test_an_item_that_ends_its_worker_is_given_up_alone(how: str) -> None:
    """After three workers; its neighbours are done."""
    with SlotPool(squares(), workers=1, slots=1) as pool:
        pool.start_in_hub()
        rows, failures = done(pool, [1, how, 3])
        assert [int.from_bytes(value, sys.byteorder) for value in rows["square"]] == [1, 9]
        assert [(position, type(error)) for position, error in failures] == [(1, PoisonItemError)]
        pool.stop_in_hub()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wait", "spin"])
def test_an_item_over_its_deadline_fails_alone(how: str) -> None:
    """Whether it waits or works: where workers do not see to deadlines themselves, the pool does."""
    with SlotPool(squares(item_timeout=0.5), workers=1, slots=1) as pool:
        pool.start_in_hub()
        rows, failures = done(pool, [1, how, 3])
        assert [int.from_bytes(value, sys.byteorder) for value in rows["square"]] == [1, 9]
        ((position, error),) = failures
        assert (position, type(error)) == (1, DeadlineError)
        assert "took longer than item_timeout (0.5 s); worker 0" in str(error)
        assert "was killed" in str(error)
        pool.stop_in_hub()


@pytest.mark.slow
def test_a_batch_without_rows_holds_no_slot() -> None:
    """There is nothing in it to be used, so that there is nothing to give back."""
    with SlotPool(squares(), workers=1, slots=1) as pool:
        pool.start_in_hub()
        result = pool.run(["fail", "fail"])
        assert result.lease is None
        assert [position for position, _ in result.failures] == [0, 1]
        assert done(pool, [2])[0]["square"] == [(4).to_bytes(8, sys.byteorder)]
        pool.stop_in_hub()


@pytest.mark.slow
def test_an_item_that_cannot_be_said_is_refused_and_leaves_its_slot() -> None:
    """Items of these kinds are JSON."""
    with SlotPool(squares(), workers=1, slots=1) as pool:
        pool.start_in_hub()
        with pytest.raises(TypeError, match="JSON"):
            pool.run([object()])
        assert done(pool, [2])[0]["square"] == [(4).to_bytes(8, sys.byteorder)]
        pool.stop_in_hub()


@pytest.mark.slow
def test_what_is_much_goes_to_the_worker_beside_the_message() -> None:
    """Two megabytes of JSON, whole."""
    with SlotPool(squares(), workers=1, slots=1) as pool:
        pool.start_in_hub()
        rows, failures = done(pool, [7, "x" * 2_000_000])
        assert rows["square"] == [(49).to_bytes(8, sys.byteorder)]
        assert [(position, str(error)) for position, error in failures] == [(1, "a text of 2000000 characters")]
        pool.stop_in_hub()


@pytest.mark.slow
def test_the_example_prints_digests(photos: list[Path], tmp_path: Path) -> None:
    """As ``sha256sum`` would, and what cannot be read by name."""
    command = [sys.executable, str(PLUGINS / "file_digests.py"), *map(str, photos[:3]), "/no/such/file"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=True)
    lines = process.stdout.splitlines()
    expected = [f"{sha256(p.read_bytes()).hexdigest()} {p.stat().st_size} {p}" for p in photos[:3]]
    assert lines == ["/no/such/file: '/no/such/file' cannot be read: No such file or directory", *expected]
