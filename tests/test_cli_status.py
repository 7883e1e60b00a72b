"""``penstock status`` as people read it: what they gave, how fast it goes, and what is left."""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.journal import JobFolder, read_status
from penstock.engine.sources import FileSource
from penstock.errors import DecodeError, ReadError
from penstock.sinks import DeadLetters
from penstock.tests.whole_jobs import draw_folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    draw_folder(tmp_path / "my pictures", 8)


@pytest.fixture
def books() -> Generator[JobCheckpoint]:
    """A job over eight pictures that runs now."""
    config = ServiceConfig(to="rows.db", job=Path("job"), preset="clip")
    with JobCheckpoint(config, make_plan(config), FileSource("../my pictures")) as made:
        yield made


def shown_status(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main(["status", "job", *more]) == 0
    return capsys.readouterr().out


def test_sources_and_pixels_are_shown_as_people_know_them(
    books: JobCheckpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No ``..`` in the path, no JSON."""
    text = shown_status(capsys)
    assert f"source: '{tmp_path}/my pictures'\n" in text
    assert f"store: {tmp_path}/run/rows.db collection images" in text
    (pixels,) = [line for line in text.splitlines() if line.startswith("pixels: ")]
    assert pixels.startswith("pixels: size 224, resize 224, interpolation bicubic, mean ")
    assert "mean 0.48145466 0.4578275 0.40821073" in pixels
    assert not set('{}"[]') & set(pixels)


def test_of_several_stores_those_that_are_ahead_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A later run gives these rows to the others alone."""
    config = ServiceConfig(to=["null:", f"bulk:{tmp_path / 'a'}?collection=x", "parts.db"], job=Path("job"))
    with JobCheckpoint(config, make_plan(config), FileSource("../my pictures")) as books:
        assert "already" not in shown_status(capsys)
        books.acknowledged(1, [0, 1, 5])
        books.acknowledged(2, [5])
        books.acknowledged(0, [7])
        books.written([7])
    text = shown_status(capsys)
    assert f"  3 of the remaining are in bulk:{tmp_path / 'a'}?collection=x already\n" in text
    assert f"  1 of the remaining are in {tmp_path / 'run' / 'parts.db'} already\n" in text
    assert [*json.loads(shown_status(capsys, "--json"))["acknowledged"].values()] == [3, 1]


def test_a_path_whose_dots_lead_over_a_link_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Behind a link, the folder above is another one."""
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    draw_folder(tmp_path / "elsewhere" / "pictures", 1)
    Path("link").symlink_to(tmp_path / "elsewhere" / "deep")
    config = ServiceConfig(to="rows.db", job=Path("job"))
    with JobCheckpoint(config, make_plan(config), FileSource("link/../pictures")):
        pass
    assert f"source: {tmp_path}/run/link/../pictures\n" in shown_status(capsys)


def test_a_running_job_tells_its_pace(books: JobCheckpoint, capsys: pytest.CaptureFixture[str]) -> None:
    """Since its run began, and not counting what earlier runs had done."""
    began = datetime.now(UTC) - timedelta(seconds=100)

    def event_of(name: str, **fields: Any) -> dict[str, Any]:
        return {"event": name, "time": began.isoformat(), **fields}

    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr("penstock.engine.journal.folder.event_of", event_of)
        books.starts()
    assert "0.0/s since it was started, the last one" in shown_status(capsys)
    books.dead([0, 1, 2, 3])
    found = json.loads(shown_status(capsys, "--json"))
    assert found["running"]
    assert found["entries_per_second"] == pytest.approx(0.04, rel=0.5)
    assert found["eta_seconds"] == pytest.approx(100, rel=0.5)
    assert found["seconds_since_record"] >= 0
    assert "to go, the last one" in shown_status(capsys)


def test_a_job_that_nobody_runs_has_no_pace(capsys: pytest.CaptureFixture[str]) -> None:
    """Its last figures are of another day."""
    config = ServiceConfig(to="rows.db", job=Path("job"))
    with JobCheckpoint(config, make_plan(config), FileSource("../my pictures")) as books:
        books.starts()
    assert "since it was started" not in shown_status(capsys)
    assert "eta_seconds" not in json.loads(shown_status(capsys, "--json"))


def test_a_retry_of_an_error_that_there_is_not_names_those_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is misspelled, most likely; nothing is done again."""
    config = ServiceConfig(to="rows.db", job=Path("job"))
    with (
        JobCheckpoint(config, make_plan(config), FileSource("../my pictures")) as books,
        DeadLetters("job/dead-letters.jsonl") as letters,
    ):
        for number, error in enumerate((ReadError("a"), ReadError("b"), DecodeError("c"))):
            letters.write(str(tmp_path / "my pictures" / f"{number:04}.png"), "preprocess", error)
        books.dead([0, 1, 2])
    assert main(["retry", "job", "--error", "ReadErrorr"]) == 0
    said = capsys.readouterr().out
    assert "no dead letter has the error ReadErrorr; there are " in said
    assert read_status("job").counts.dead == 3
    assert main(["retry", "job", "--stage", "embed", "--error", "Read\x1b"]) == 0
    assert "has the error Read\\x1b and the stage embed; there are" in capsys.readouterr().out


def test_books_that_cannot_be_kept_there_are_told_without_talk_of_the_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was recorded, and no disk is full."""
    Path("file").touch()
    assert main(["embed", str(tmp_path / "my pictures"), "--to", "rows.db", "--job", "file/job"]) == 1
    said = capsys.readouterr().err
    assert "cannot be written: Not a directory; the books of a job need a folder that may be written to" in said
    assert "mend the disk" not in said


@pytest.mark.slow
def test_an_update_without_news_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """And does not recommend itself."""
    given = ["../my pictures", "--to", "rows.db", "--job", "job", "--workers", "1", "--progress", "none"]
    assert main(["embed", *given]) == 0
    capsys.readouterr()
    assert main(["resume", "job", "--update"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("nothing new: 8 entries: 8 written")
    assert "--update" not in said
    assert main(["resume", "job"]) == 0
    assert "--update looks for new and changed files" in capsys.readouterr().out
    with JobFolder.create_or_open("job") as job:
        assert [event["event"] for event in job.events if event["event"] == "started"] == ["started"]
