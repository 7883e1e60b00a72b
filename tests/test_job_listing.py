"""While a job lists its source: it can be interrupted, and half a listing does not count."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import Report
from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.drive import Interrupt
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.images.run_job import run_job
from penstock.engine.journal import JobFolder, read_status
from penstock.engine.sources import FileSource
from penstock.sinks import DeadLetters
from penstock.tests.whole_jobs import draw_folder


class Listing(io.RawIOBase):
    """A list of paths that comes slowly: the user interrupts the job when the first part of it has been read."""

    def __init__(self, parts: list[bytes], interrupt: Callable[[], None]) -> None:
        self._parts, self._interrupt = iter(parts), interrupt
        self._read = 0

    def read(self, size: int = -1, /) -> bytes:
        self._read += 1
        if self._read == 2:
            self._interrupt()
        return next(self._parts, b"")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_folder(tmp_path / "pictures", 4)


@pytest.fixture
def config(tmp_path: Path) -> ServiceConfig:
    return ServiceConfig(to=str(tmp_path / "rows.db"), job=tmp_path / "job", workers=1, batch_size=2)


def interrupted(config: ServiceConfig, pictures: Path, names: list[str]) -> Report:
    """A run whose list is interrupted behind the first of these names."""
    interrupt = Interrupt()
    parts = [f"{pictures / name}\n".encode() for name in names]
    source = FileSource("-", stdin=Listing(parts, interrupt.request))  # type: ignore[arg-type]
    return run_job(config, source, interrupt=interrupt, begins=lambda *_: pytest.fail("the job began"))


def test_an_interrupted_listing_starts_nothing_and_does_not_count(
    tmp_path: Path, pictures: Path, config: ServiceConfig
) -> None:
    """The next run lists from the beginning."""
    names = [path.name for path in sorted(pictures.iterdir())]
    report = interrupted(config, pictures, names)
    assert (report.accounting.read, list(report.stages)) == (0, [])
    status = read_status(tmp_path / "job")
    assert not status.listed
    assert status.owner is None
    assert not (tmp_path / "rows.db").exists()
    listing = io.BytesIO(b"".join(f"{pictures / name}\n".encode() for name in names))
    with JobCheckpoint(config, make_plan(config), FileSource("-", stdin=listing)) as books:
        assert books.remaining == 4


def test_an_interrupted_update_leaves_the_listing_as_it_was(pictures: Path, config: ServiceConfig) -> None:
    """Nothing is forgotten because the new list was cut short."""
    names = [path.name for path in sorted(pictures.iterdir())]
    listing = io.BytesIO(b"".join(f"{pictures / name}\n".encode() for name in names))
    with JobCheckpoint(config, make_plan(config), FileSource("-", stdin=listing)) as books:
        books.dead([1])
    interrupted(config.model_copy(update={"update": True}), pictures, names)
    assert config.job is not None
    assert (read_status(config.job).counts.total, read_status(config.job).counts.dead) == (4, 1)


def test_a_wish_to_stop_before_anything_began_is_heard(tmp_path: Path, pictures: Path) -> None:
    """Also by a job that keeps no books."""
    interrupt = Interrupt()
    interrupt.request()
    config = ServiceConfig(to=str(tmp_path / "rows.db"), workers=1)
    report = run_job(config, FileSource(str(pictures)), interrupt=interrupt)
    assert list(report.stages) == []
    assert not (tmp_path / "rows.db").exists()


def test_letters_are_on_the_medium_before_the_records_that_vouch_for_them(
    pictures: Path, config: ServiceConfig, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """About once a second; a power failure takes no letter of an item that the journal calls dead."""
    monkeypatch.setattr("penstock.engine.jobs.common.checkpoint._SYNC_SECONDS", 0.0)
    assert config.job is not None
    with (
        JobCheckpoint(config, make_plan(config), FileSource(str(pictures))) as books,
        DeadLetters(config.job / "dead-letters.jsonl") as letters,
    ):
        letters.write(str(pictures / "0000.png"), "preprocess", ValueError("no"))
        books.dead([0])
        synced.clear()
        books.flush(letters)
        assert [Path(path).name for path in synced] == ["dead-letters.jsonl", "job", "journal-2"]


@pytest.mark.slow
def test_progress_counts_what_remains(
    tmp_path: Path, pictures: Path, config: ServiceConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the whole job nothing is walked a second time."""
    command: list[Any] = [str(pictures), "--to", config.to, "--job", config.job, "--workers", "1", "--progress", "json"]
    with JobCheckpoint(config, make_plan(config), FileSource(str(pictures))):
        pass
    with JobFolder.create_or_open(tmp_path / "job") as folder:
        folder.filtered([0])
    assert main(["embed", *map(str, command)]) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert {line["total"] for line in events if line["event"] == "progress"} == {3}
