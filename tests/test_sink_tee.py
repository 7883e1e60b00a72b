"""Several stores at once: what a tee answers, and jobs into two of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from penstock import ConfigError, embed_images
from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.store_check import Known, checked
from penstock.engine.journal import JobFolder, read_status
from penstock.engine.journal.disk import Disk
from penstock.engine.journal.entries import Entry
from penstock.engine.journal.layout import Layout, numbers
from penstock.engine.journal.loading import load
from penstock.engine.journal.manifest import read_manifest as read_job_manifest
from penstock.errors import JournalDiskError, RowRefusedError, SinkUnavailableError, StoreChangedError
from penstock.sinks import (
    NullSink,
    ParquetBulkSink,
    RowBatch,
    SinkOptions,
    TeeSink,
    WriteResult,
    make_sink,
    read_manifest,
)
from penstock.sinks.base import Found, IndexState, SinkMemory
from penstock.testing.sinks import DIMENSION, make_rows
from penstock.tests.whole_jobs import draw_folder, started, wait_for
from penstock.tests.whole_jobs import penstock as command

SMALL: dict[str, Any] = {"workers": 1, "batch_size": 4, "embedder": "gist:32", "progress": "none"}


class Named(NullSink):
    """One that is told from others by its name, and refuses and fails as it is told."""

    def __init__(self, name: str, refuses: tuple[int, ...] = (), fails: bool = False) -> None:
        super().__init__()
        self.name, self.refuses, self.fails = name, refuses, fails

    @property
    def uri(self) -> str:
        return self.name

    @property
    def fingerprint(self) -> str:
        return self.name

    def write(self, rows: RowBatch) -> WriteResult:
        if self.fails:
            raise SinkUnavailableError(f"{self.name}: gone")
        super().write(rows)
        return WriteResult(
            len(rows) - len(self.refuses), [(index, RowRefusedError("too long")) for index in self.refuses]
        )


def test_a_row_is_written_when_all_have_taken_it() -> None:
    """What one refuses is refused, by its name, and once."""
    with TeeSink([Named("a", (1, 3)), Named("b", (3, 4))]) as tee:
        result = tee.write(make_rows(6))
    assert result.written == 3
    assert [(index, str(error)) for index, error in result.refused] == [
        (1, "a: too long"),
        (3, "a: too long"),
        (4, "b: too long"),
    ]


@pytest.mark.parametrize("failing", [0, 1])
def test_where_one_fails_the_others_finish_their_write(failing: int) -> None:
    """Then it is raised."""
    members = [Named("a"), Named("b")]
    members[failing].fails = True
    with TeeSink(members) as tee, pytest.raises(SinkUnavailableError, match="gone"):
        tee.write(make_rows(6))
    assert members[1 - failing].count() == 6


class Figured(NullSink):
    """One that keeps rows, and whose answers are all made of one number; 7 has what the others have not."""

    keeps_rows: ClassVar[bool] = True

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.special, self.closed = number, number == 7, False

    @property
    def fingerprint(self) -> str:
        return str(self.number)

    @property
    def note(self) -> str:
        return f"note {self.number}"

    @property
    def has_secret(self) -> bool:
        return self.special

    @property
    def needs_finish(self) -> bool:
        return self.special

    @property
    def local_path(self) -> Path | None:
        return Path("seven") if self.special else None

    @property
    def next_step(self) -> str:
        return "" if self.special else f"step {self.number}"

    def rows_per_write(self, asked: int) -> int:
        return asked * self.number

    def memory(self, dimension: int, rows: int) -> SinkMemory | None:
        return SinkMemory(f"store {self.number}", self.number, own_process=self.special)

    def reach(self) -> None:
        if self.special:
            raise SinkUnavailableError("gone")

    def look(self) -> Found | None:
        return Found(self.number, self.note)

    def count(self) -> int:
        return self.number

    def stats(self) -> dict[str, float]:
        return {"calls": self.number, "waiting": self.number}

    def wait_index(self, seconds: float, told: object = None, stop: object = None) -> IndexState:
        return IndexState(self.number, self.number, float(self.number))

    def close(self) -> None:
        self.closed = True
        if self.special:
            raise OSError("disk full")


def test_it_answers_for_all_its_stores() -> None:
    """With the least, the most or the sum of what they say, or as the first does."""
    members = [Figured(5), Figured(7), Figured(3)]
    tee = TeeSink(members)
    assert (tee.has_secret, tee.needs_finish, tee.local_path) == (True, True, Path("seven"))
    assert (tee.note, tee.next_step) == ("note 5", "step 5; step 3")
    assert tee.rows_per_write(10) == 70
    assert tee.memory(8, 100) == SinkMemory("store 5 and store 7 and store 3", 15, own_process=True)
    assert (tee.look(), tee.count()) == (Found(3, "note 5"), 3)
    assert tee.stats() == {"calls": 5, "calls 2": 7, "calls 3": 3, "waiting": 7, "waiting 2": 7, "waiting 3": 3}
    assert tee.wait_index(1.0).seconds == 7
    with pytest.raises(SinkUnavailableError):
        tee.reach()
    with pytest.raises(OSError, match="disk full"):
        tee.close()
    assert all(member.closed for member in members)


class Single(Named):
    """One that takes one thread at a time, and counts how many come."""

    def __init__(self) -> None:
        super().__init__("single")
        self.most, self._inside, self._both = 0, 0, threading.Barrier(2)

    @property
    def threads(self) -> int:
        return 1

    def write(self, rows: RowBatch) -> WriteResult:
        self._inside += 1
        self.most = max(self.most, self._inside)
        with suppress(threading.BrokenBarrierError):
            self._both.wait(0.2)  # a second one, if it may come, comes meanwhile
        self._inside -= 1
        return super().write(rows)


def test_no_store_is_given_more_threads_than_it_takes() -> None:
    """Another one of them may take more, and a job writes with as many."""
    single = Single()
    with TeeSink([Named("a"), single]) as tee, ThreadPoolExecutor(2) as pool:
        assert tee.threads == 4
        assert [result.written for result in pool.map(tee.write, [make_rows(2)] * 2)] == [2, 2]
    assert single.most == 1


def test_a_store_is_named_once(tmp_path: Path) -> None:
    """Its rows would be written twice, and counted."""
    uri = f"bulk:{tmp_path}"
    with pytest.raises(ConfigError, match=r"^to: bulk:\S+ collection images is named twice"):
        make_sink([uri, f"{uri}/"], SinkOptions(dimension=DIMENSION))


def test_several_are_said_in_each_spelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list or a tuple in Python, a list in a file, the option again on the command line; one of a list is one."""
    yaml = tmp_path / "job.yaml"
    yaml.write_text("to: [bulk:a, 'null:']\n")
    several = ("bulk:a", "null:")
    assert ServiceConfig(to=[Path("bulk:a"), "null:"]).to == ServiceConfig.from_yaml(yaml).to == several
    assert ServiceConfig(to=["photos.db"]).to == "photos.db"
    assert ServiceConfig(to=several).shown_to == "bulk:a, null:"
    with pytest.raises(ConfigError, match=r"^to: \['a', 4\] is not allowed: must be an address"):
        ServiceConfig(to=["a", 4])
    assert main(["embed", str(tmp_path), "--to", "null:", "--to", "bulk:"]) == 2
    assert "penstock: --to: 'bulk:' names no folder" in capsys.readouterr().err


def test_only_who_lacks_a_row_is_asked_for_it() -> None:
    """And who has acknowledged what is told as it happens, also where another one fails."""
    told: list[tuple[int, list[int]]] = []
    members = [Named("a"), Named("b", (1,)), Named("c", fails=True)]
    with TeeSink(members[:2]) as tee:
        result = tee.write_missing(make_rows(4), [0b01, 0b01, 0b10, 0b11], lambda *said: told.append(said))
    assert sorted(told) == [(0, [2]), (1, [0])]
    assert (result.written, [index for index, _ in result.refused]) == (3, [1])
    told.clear()
    with TeeSink([members[0], members[2]]) as tee, pytest.raises(SinkUnavailableError):
        tee.write_missing(make_rows(4), [0] * 4, lambda *said: told.append(said))
    assert told == [(0, [0, 1, 2, 3])]


PLUGIN = """
import os
from penstock.sinks import NullSink

class Told(NullSink):
    \"\"\"Appends the keys of what it is given to a file; waits at a fifo beside it, if there is one, before.\"\"\"

    def __init__(self, uri, options):
        super().__init__(options.collection, options.dimension)
        self._uri, self._path = uri, uri.partition(":")[2]

    @property
    def uri(self):
        return self._uri

    @property
    def fingerprint(self):
        return self._uri

    def write(self, rows):
        if os.path.exists(self._path + ".fifo"):
            open(self._path + ".fifo").read()
        with open(self._path, "a") as file:
            file.writelines(key + "\\n" for key in rows.keys)
        return super().write(rows)
"""


@pytest.mark.slow
@pytest.mark.kills
def test_a_job_killed_between_two_acknowledgements_asks_only_the_store_that_lags(
    tmp_path: Path, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first store has rows that the second has not: they are embedded again, and go into the second alone."""
    install("told_sink", {"told": "told_sink:Told"}, PLUGIN, "penstock.sinks")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pictures, job, fifo = draw_folder(tmp_path / "pictures", 8), tmp_path / "job", tmp_path / "b.fifo"
    os.mkfifo(fifo)
    stores = [word for name in "ab" for word in ("--to", f"told:{tmp_path / name}")]
    own = ["--job", str(job), "--workers", "1", "--batch-size", "4", "--insert-batch-size", "4", "--progress", "none"]
    with started(command("embed", str(pictures), *stores, *own)) as process:
        wait_for(process, lambda: acknowledged(job) > 0)
        assert process.poll() is None
        process.kill()
        process.wait()
    first = (tmp_path / "a").read_text().split()
    had = acknowledged(job)
    assert read_status(job).counts.written == 0
    assert not (tmp_path / "b").exists()
    fifo.unlink()
    with started(command("resume", str(job), "--progress", "none")) as process:
        process.communicate()
        assert process.returncode == 0
    every = (tmp_path / "b").read_text().split()
    assert len(every) == len(set(every)) == 8
    again = (tmp_path / "a").read_text().split()[len(first) :]
    assert len(again) == 8 - had
    assert {*first, *again} == {*every}
    assert read_status(job).counts.written == 8


def acknowledged(job: Path) -> int:
    """Rows that the first store alone has acknowledged, as the journal has it; 0 while there is none."""
    if not (job / "job.json").exists():
        return 0
    disk, layout = Disk(), Layout(str(job))
    found = numbers("journal", [path.name for path in job.iterdir()])
    if not found:
        return 0
    with suppress(JournalDiskError):  # a newer one has just taken its place
        loaded = load(disk, layout, found[-1], read_job_manifest(disk, layout.manifest).job)
        loaded.close(disk)
        return sum(map(len, loaded.states.acknowledged(0)))
    return 0


@pytest.mark.slow
def test_a_job_into_two_stores_is_one_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command: both have all rows, the end says what to do with each, and `resume` knows both."""
    pictures, job = draw_folder(tmp_path / "pictures", 10), tmp_path / "job"
    stores = [f"bulk:{tmp_path / name}" for name in "ab"]
    command = ["embed", str(pictures), "--to", stores[0], "--to", stores[1], "--job", str(job), "--workers", "1"]
    assert main([*command, "--progress", "none", "--embedder", "gist:32"]) == 0
    out = capsys.readouterr().out
    assert f"penstock import {tmp_path / 'a'} " in out
    assert f"penstock import {tmp_path / 'b'} " in out
    assert [read_manifest(tmp_path / name).rows for name in "ab"] == [10, 10]
    assert read_status(job).counts.written == 10
    assert main(["resume", str(job)]) == 0
    assert "finished already" in capsys.readouterr().out


@pytest.mark.slow
def test_another_second_store_is_noticed(tmp_path: Path) -> None:
    """The message names it; and other stores are another job."""
    pictures = draw_folder(tmp_path / "pictures", 5)
    how: dict[str, Any] = {"job": tmp_path / "job", **SMALL}
    stores = [f"bulk:{tmp_path / name}" for name in "ab"]
    embed_images(pictures, to=stores, **how)
    with pytest.raises(ConfigError, match="was begun otherwise: store was"):
        embed_images(pictures, to=stores[0], **how)
    (tmp_path / "b").rename(tmp_path / "away")
    with pytest.raises(StoreChangedError, match=f"rows to {stores[1]}, .* is not there any more"):
        embed_images(pictures, to=stores, **how)
    with ParquetBulkSink(tmp_path / "b", 512) as other:
        other.write(RowBatch(["x"], make_rows(1).vectors.repeat(64, 1), [{}]))
    with pytest.raises(StoreChangedError, match=f"rows to {stores[1]}, .* is another one, with 1 row"):
        embed_images(pictures, to=stores, **how)


def test_a_store_that_lost_what_it_alone_had_acknowledged_is_noticed(tmp_path: Path) -> None:
    """Before any row is written everywhere: else those rows would be missing there for good."""
    with JobFolder.create_or_open(tmp_path / "job") as job:
        job.write_snapshot(Entry(name) for name in "abc")
        job.acknowledged(1, [0, 1])
        with pytest.raises(StoreChangedError, match="has written 2 rows to b, but it is not there any more"):
            checked(job, Known("x"), None, "b", number=1, accept=False)
        assert checked(job, Known(), None, "a", number=0, accept=False) == Known()
