"""How a job begins to write and how it ends: what an earlier run left undone there is done by the next."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import PipelineFailure, Report
from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.journal import read_status
from penstock.engine.sources import FileSource
from penstock.sinks import ParquetBulkSink
from penstock.tests.whole_jobs import draw_folder, stored

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"workers": 1, "batch_size": 4, "progress": "none"}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_folder(tmp_path / "pictures", 8)


def run(pictures: Path, folder: Path, **settings: Any) -> Report:
    """The job in ``folder``, in this process."""
    own: dict[str, Any] = {"to": str(folder / "rows.db"), "job": folder / "job"}
    return penstock.embed_images(pictures, **own | SMALL | settings)


def test_an_overwriting_job_that_died_before_its_first_row_still_overwrites(pictures: Path, tmp_path: Path) -> None:
    """``penstock resume`` knows that it was to; once the job has rows of its own they stay."""
    (tmp_path / "others").mkdir()
    shutil.copy(pictures / "0000.png", tmp_path / "others" / "other.png")
    penstock.embed_images(tmp_path / "others", to=str(tmp_path / "rows.db"), **SMALL)
    config = ServiceConfig(to=str(tmp_path / "rows.db"), job=tmp_path / "job", mode="overwrite", **SMALL)
    with JobCheckpoint(config, make_plan(config), FileSource(str(pictures))):
        pass  # killed when it had listed its source
    assert stored(tmp_path) == 1
    assert main(["resume", str(tmp_path / "job")]) == 0
    assert stored(tmp_path) == 8
    (pictures / "0003.png").touch()
    assert main(["resume", str(tmp_path / "job"), "--update"]) == 0
    assert stored(tmp_path) == 8


def test_the_index_of_a_finished_job_is_waited_for(pictures: Path, tmp_path: Path) -> None:
    """As its first run did not, because it was killed or the time was too short."""
    run(pictures, tmp_path)
    again = run(pictures, tmp_path, wait_index=30.0)
    assert list(again.stages) == []
    assert (again.extra["index"]["rows"], again.extra["index"]["indexed"]) == (8, 8)


def test_the_parts_of_a_bulk_folder_are_merged_while_the_job_is_still_ours(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else can own the job before its store is closed."""
    owned: list[bool] = []
    close = ParquetBulkSink.close

    def watched(sink: ParquetBulkSink) -> None:
        owned.append(read_status(tmp_path / "job").owner is not None)
        close(sink)

    monkeypatch.setattr(ParquetBulkSink, "close", watched)
    run(pictures, tmp_path, to=f"bulk:{tmp_path / 'parts'}")
    assert owned
    assert owned[0]
    assert (tmp_path / "parts" / "manifest.json").exists()


def test_a_finished_job_writes_a_report_that_is_not_there_and_leaves_one_that_is(
    pictures: Path, tmp_path: Path
) -> None:
    """What was asked for is there in the end, and the figures of the run that did the work are kept."""
    run(pictures, tmp_path, report=tmp_path / "one.json")
    before = (tmp_path / "one.json").read_bytes()
    run(pictures, tmp_path, report=tmp_path / "one.json")
    assert (tmp_path / "one.json").read_bytes() == before
    run(pictures, tmp_path, report=[tmp_path / "two.json", tmp_path / "one.json"])
    assert (tmp_path / "one.json").read_bytes() == before
    assert json.loads((tmp_path / "two.json").read_text())["extra"]["job"]["written"] == 8


def test_a_report_that_cannot_be_written_does_not_hide_why_the_job_failed(tmp_path: Path) -> None:
    """It is a note on that."""
    (tmp_path / "reports").mkdir()

    def source() -> Iterator[bytes]:
        shutil.rmtree(tmp_path / "reports")
        yield from ()
        raise OSError("the source broke")

    with pytest.raises(PipelineFailure, match="source") as failed:
        penstock.embed_images(source(), to=str(tmp_path / "rows.db"), report=tmp_path / "reports" / "r.json", **SMALL)
    assert "the source broke" in repr(failed.value.exceptions)
    assert [note for note in failed.value.__notes__ if note.startswith("no report: ") and "r.json" in note]


def test_rows_of_a_metadata_file_are_only_missed_by_a_run_over_all_pictures(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that goes on with a job has not seen them all."""
    lines = [json.dumps({"path": f"pictures/{name}.png", "n": 1}) for name in ("0000", "0001", "nowhere")]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    first = run(pictures, tmp_path, metadata=tmp_path / "rows.jsonl")
    assert first.extra["metadata"] == {"rows": 3, "pictures_without": 6, "unmatched_rows": 1}
    shutil.copy(pictures / "0000.png", pictures / "new.png")
    assert main(["resume", str(tmp_path / "job"), "--update"]) == 0
    assert "met no picture" not in capsys.readouterr().err
