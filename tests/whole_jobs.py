"""Whole jobs on the command line, in processes of their own, and what they leave: for tests that kill them."""

from __future__ import annotations

import hashlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from penstock.engine.journal import read_status
from penstock.sinks import MilvusSink, row_key
from penstock.tests.waiting import DEADLINE


def draw(path: Path, noise: np.random.Generator) -> None:
    """One small picture of noise."""
    Image.fromarray(noise.integers(0, 256, (32, 32, 3), np.uint8)).save(path)


def draw_folder(folder: Path, count: int) -> Path:
    """A folder of them: 0000.png and so on."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(count):
        draw(folder / f"{number:04}.png", noise)
    return folder


def penstock(command: str, *arguments: str) -> list[str]:
    """A command line of penstock's."""
    return [sys.executable, "-m", "penstock", command, *arguments]


_SMALL_WRITES = """
import penstock.sinks.parquet.table_sink as tables
from penstock.engine.cli import main
tables.TableSink.rows_per_write = lambda self, asked: asked
main()
"""


def with_small_writes(command: str, *arguments: str) -> list[str]:
    """The same, with as many rows in each write of a table as were asked for, and not as many as are best."""
    return [sys.executable, "-c", _SMALL_WRITES, command, *arguments]


def embed(pictures: Path, folder: Path, *more: str) -> list[str]:
    """Embed a folder as the job in ``folder``, with its store beside it."""
    folder.mkdir(exist_ok=True)
    own = [str(pictures), "--to", str(folder / "rows.db"), "--job", str(folder / "job"), "--progress", "none"]
    return penstock("embed", *own, *more)


@contextmanager
def started(arguments: Sequence[str]) -> Generator[subprocess.Popen[str]]:
    """A command in a process of its own; killed at the end if it still runs."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Until it holds, or the process has ended."""
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def ends_within(process: subprocess.Popen[str], seconds: float) -> bool:
    """Whether it does."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def children(process: subprocess.Popen[str], name: str = "") -> list[psutil.Process]:
    """The processes of a job: all of them, or its ``penstock-worker``."""
    found = psutil.Process(process.pid).children(recursive=True)
    return [child for child in found if not name or child.name() == name]


@contextmanager
def watching_ends(processes: Sequence[psutil.Process]) -> Generator[Callable[[float], list[str]]]:
    """Within it, a function that waits so many seconds for their ends: the names of those that have not come.

    A dead process counts as ended, whether or not somebody has asked for its status.
    """
    fds = {os.pidfd_open(process.pid): f"{process.name()} ({process.pid})" for process in processes}
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)

    def left(seconds: float) -> list[str]:
        deadline, alive = time.monotonic() + seconds, dict(fds)
        while alive and (ended := poll.poll(max(0.0, deadline - time.monotonic()) * 1000)):
            for fd, _ in ended:
                poll.unregister(fd)
                del alive[fd]
        return list(alive.values())

    try:
        yield left
    finally:
        for fd in fds:
            os.close(fd)


def written(folder: Path) -> int:
    """Pictures that the journal calls written by now."""
    return read_status(folder / "job").counts.written if (folder / "job" / "job.json").is_file() else 0


def stored(folder: Path) -> int:
    """Rows in the store."""
    with MilvusSink(str(folder / "rows.db"), "images") as sink:
        return sink.count()


def digest(folder: Path, pictures: Path) -> dict[str, str]:
    """Every row of the store: key -> digest of its vector; and no row more than once."""
    rows = digest_of(folder, [row_key(str(path)) for path in sorted(pictures.glob("*.png"))])
    assert stored(folder) == len(rows)
    return rows


def digest_of(folder: Path, keys: list[str]) -> dict[str, str]:
    """Digests of the vectors of some rows."""
    with MilvusSink(str(folder / "rows.db"), "images") as sink:
        rows = sink.get(keys, vectors=True)
    return {key: hashlib.sha256(row["vector"].tobytes()).hexdigest() for key, row in rows.items()}
