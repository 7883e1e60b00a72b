"""``penstock clean``: what it takes away, what it leaves, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.engine.cli import main
from penstock.engine.journal import JobFolder
from penstock.errors import SinkError
from penstock.sinks.parquet.folder import FolderPlace
from penstock.sinks.parquet.leftovers import leftovers
from penstock.tests.publishing import BATCH, JOB, OTHER, batch, run, seen, sink_on, watched

pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """In it a job that died as it published, and could go on; and one that died as it wrote, and cannot."""
    folder = tmp_path / "rows"

    def stop(name: str, at: str) -> None:
        if (name, at) == ("complete 00000.parquet", "after"):
            raise SinkError("a fault")

    with pytest.raises(SinkError, match="a fault"):
        run(watched(FolderPlace(folder), stop))
    (folder / "_staging" / OTHER).mkdir()
    (folder / "_staging" / OTHER / "rows-00000001-00000000.parquet").write_bytes(b"12")
    return folder


def test_a_dry_run_says_what_would_be_taken_away_and_takes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even a lock file is made."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main(["clean", f"parquet:{folder}", "--dry-run", "--all"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"job {JOB}: ")
    assert "2 parts not shown, a claim: would be taken away" in first
    assert second == f"job {OTHER}: 1 file (2 B): would be taken away"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_job_that_could_go_on_is_taken_away_if_that_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its id; then others may publish there."""
    assert main(["clean", f"parquet:{folder}"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f"a claim: can go on (penstock resume), left alone; --job {JOB} takes it away")
    assert second.endswith(": taken away")
    assert [left.job for left in leftovers(FolderPlace(folder))] == [JOB]
    assert main(["clean", f"parquet:{folder}", "--job", JOB]) == 0
    assert capsys.readouterr().out.endswith("a claim: taken away\n")
    assert list(folder.iterdir()) == []
    assert main(["clean", f"parquet:{folder}"]) == 0
    assert capsys.readouterr().out == f"nothing is left over in {folder}\n"
    run(FolderPlace(folder), OTHER, [0])
    assert seen(folder) == BATCH


def test_a_job_is_named_by_its_folder_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And a live one is left alone, with an exit status that says so."""
    with JobFolder.create_or_open(tmp_path / "job") as books:
        job = books.manifest.job
    with sink_on(place := FolderPlace(tmp_path / "rows"), job) as sink:
        sink.write(batch(0))
        assert main(["clean", f"parquet:{tmp_path / 'rows'}", "--job", str(tmp_path / "job")]) == 1
        assert "alive, left alone" in capsys.readouterr().out
        sink.finish()
    assert leftovers(place) == []
    assert main(["clean", f"parquet:{tmp_path / 'rows'}", "--job", str(tmp_path / "none")]) == 2
    assert "neither the id of a job nor the folder of one" in capsys.readouterr().err


def test_a_file_that_is_being_written_stays_while_any_job_is_live(folder: Path) -> None:
    """Also where only another job, which is dead, was named."""
    unfinished = folder / f"_SUCCESS.json.{'0' * 32}"
    unfinished.touch()
    hold = FolderPlace(folder).hold(JOB)
    assert main(["clean", f"parquet:{folder}", "--job", OTHER]) == 0
    assert unfinished.exists()
    hold.close()
    assert main(["clean", f"parquet:{folder}", "--job", JOB]) == 0
    assert not unfinished.exists()


def test_without_a_target_it_is_about_shared_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """Which starts look after by themselves."""
    assert main(["clean", "--dry-run"]) == 0
    assert "dead process" in capsys.readouterr().out
    assert main(["clean", "--all"]) == 2
    assert main(["clean", "photos.db"]) == 2
