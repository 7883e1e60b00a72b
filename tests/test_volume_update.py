"""Jobs on volumes that look at their volumes again: what is new, changed or gone, and what is published anew."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.engine import Report
from penstock.engine.cli import main
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.volumes.run_volumes import run_volumes
from penstock.errors import PipelineFailure, SinkError
from penstock.tests.scans import config, write_pages
from penstock.tests.small_s3 import BUCKET, SmallS3
from penstock.tests.test_volume_publish import flat, rows, volume
from penstock.tests.test_volume_stores import fill, picture
from penstock.volumes import S3ParquetWriter

pytest.importorskip("pyarrow")


class Job:
    """A job on the volumes of ``scans``, with books.

    Args:
        folder: where all of it lies.
        specs: of the volumes; default: all folders of ``scans``.
    """

    def __init__(self, folder: Path, specs: Sequence[str] = ()) -> None:
        self.scans, self.out, self._folder = folder / "scans", folder / "out", folder
        self._specs = [*specs] or [str(self.scans / "*")]

    def run(self, **settings: Any) -> Report:
        """One run of it."""
        cfg = config(to=f"parquet:{self.out}", job=self._folder / "job", insert_batch_size=2, **settings)
        return run_volumes(cfg, self._specs)

    def publication(self, name: str) -> str:
        """Another one each time that the volume is published."""
        return str(json.loads((self.out / name / "_SUCCESS.json").read_text())["publication"])

    def pages(self, name: str) -> list[tuple[int, str]]:
        """The numbers and names of the pages that are published of a volume, in the order of the numbers."""
        return sorted((row["page"], row["key"].rpartition("/")[2]) for row in rows(self.out / name))

    def levels(self, name: str) -> dict[str, int]:
        """The grey of each page that is published."""
        return {row["key"].rpartition("/")[2]: round(row["vector"][0]) for row in rows(self.out / name)}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job that has published three volumes of four pages."""
    for name in ("vol_1", "vol_2", "vol_4"):
        write_pages(tmp_path / "scans" / name, {f"{number}.png": flat(10 * number) for number in (1, 3, 5, 7)})
    found = Job(tmp_path)
    assert found.run().extra["volumes"]["published"] == 3
    return found


@pytest.mark.slow
def test_new_pages_and_volumes_are_done_and_changed_ones_are_done_again(job: Job) -> None:
    """What did not change is not; a volume without changes is left as it was published."""
    before = {name: job.publication(name) for name in ("vol_1", "vol_2", "vol_4")}
    write_pages(job.scans / "vol_1", {"4.png": flat(40), "5.png": flat(99)})
    os.utime(job.scans / "vol_1" / "5.png", ns=(1, 1))
    volume(job.scans, "vol_3", 2)
    report = job.run(update=True)
    assert report.accounting.written == 4
    assert report.extra["job"]["update"] == {"same": 11, "new": 3, "changed": 1, "gone": 0}
    assert report.extra["volumes"]["published"] == 4
    assert job.pages("vol_1") == [(0, "1.png"), (1, "3.png"), (2, "4.png"), (3, "5.png"), (4, "7.png")]
    assert job.levels("vol_1") == {"1.png": 10, "3.png": 30, "4.png": 40, "5.png": 99, "7.png": 70}
    assert len(rows(job.out / "vol_3")) == 2
    after = {name: job.publication(name) for name in before}
    assert after["vol_1"] != before["vol_1"]
    assert (after["vol_2"], after["vol_4"]) == (before["vol_2"], before["vol_4"])
    nothing = job.run(update=True)
    assert nothing.stages == []
    assert {name: job.publication(name) for name in before} == after


@pytest.mark.slow
def test_pages_that_are_gone_leave_their_volume(job: Job) -> None:
    """It is published without them, though nothing is done; the numbers of the pages behind them follow."""
    (job.scans / "vol_2" / "3.png").unlink()
    before = job.publication("vol_1")
    report = job.run(update=True)
    assert report.stages == []
    assert report.extra["job"]["update"] == {"same": 11, "new": 0, "changed": 0, "gone": 1}
    assert job.pages("vol_2") == [(0, "1.png"), (1, "5.png"), (2, "7.png")]
    assert job.publication("vol_1") == before


@pytest.mark.slow
def test_a_page_that_cannot_be_read_any_more_leaves_its_volume(job: Job) -> None:
    """It is a dead letter, and the row of what it was goes."""
    (job.scans / "vol_4" / "7.png").write_bytes(b"no picture")
    report = job.run(update=True)
    assert (report.accounting.written, report.accounting.dead) == (0, 1)
    assert job.pages("vol_4") == [(0, "1.png"), (1, "3.png"), (2, "5.png")]
    write_pages(job.scans / "vol_4", {"7.png": flat(70)})
    job.run(update=True)
    assert job.levels("vol_4") == {"1.png": 10, "3.png": 30, "5.png": 50, "7.png": 70}


@pytest.mark.slow
def test_an_update_that_is_cut_short_before_it_publishes_is_published_by_the_next_run(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers see the volume as it was until then, and a run without --update goes on with it."""

    def refused(*_: object) -> None:
        raise SinkError("the place refuses")

    write_pages(job.scans / "vol_1", {"0.png": flat(5), "9.png": flat(90)})
    (job.scans / "vol_1" / "3.png").unlink()
    (job.scans / "vol_4" / "3.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(S3ParquetWriter, "publish", refused)
        with pytest.raises((SinkError, PipelineFailure)):
            job.run(update=True)
    assert [page for page, _ in job.pages("vol_1")] == [0, 1, 2, 3]
    assert "0.png" not in job.levels("vol_1")
    assert job.run().extra["volumes"]["published"] == 3
    assert job.pages("vol_1") == [(0, "0.png"), (1, "1.png"), (2, "5.png"), (3, "7.png"), (4, "9.png")]
    assert job.pages("vol_4") == [(0, "1.png"), (1, "5.png"), (2, "7.png")]


@pytest.mark.slow
def test_rows_that_were_taken_away_are_missed(job: Job) -> None:
    """A volume whose data set is gone is not published with what an update has made; the others are."""
    for path in (job.out / "vol_2").iterdir():
        if path.is_file():
            path.unlink()
    write_pages(job.scans / "vol_2", {"9.png": flat(90)})
    volume(job.scans, "vol_3", 2)
    report = job.run(update=True)
    assert report.extra["volumes"]["published"] == 3
    assert "1 of the 5 rows that were written are there" in report.extra["volumes"]["each"]["vol_2"]["error"]
    assert len(rows(job.out / "vol_3")) == 2
    assert not (job.out / "vol_2" / "_SUCCESS.json").exists()


@pytest.mark.slow
def test_volumes_that_somebody_else_has_published_are_left_alone(job: Job, tmp_path: Path) -> None:
    """By an update, too."""
    volume(job.scans, "vol_3", 2)
    run_volumes(config(to=f"parquet:{job.out}"), [str(job.scans / "vol_3")])
    before = job.publication("vol_3")
    assert job.run(update=True).extra["volumes"]["published"] == 4
    volume(job.scans, "vol_3", 3)
    report = job.run(update=True)
    assert report.extra["volumes"]["published"] == 4
    assert job.publication("vol_3") == before


@pytest.mark.slow
def test_an_update_over_a_bucket_finds_what_is_new_changed_and_gone(small_s3: SmallS3, tmp_path: Path) -> None:
    """By size, etag and time; volumes whose names are the beginnings of others are told apart."""
    for name in ("vol", "vol-1", "vol_2"):
        fill(small_s3, name, 3)
    job = Job(tmp_path, [f"s3://{BUCKET}/vol*/"])
    job.run()
    before = {name: job.publication(name) for name in ("vol", "vol-1", "vol_2")}
    small_s3.put("vol/page-01.png", picture(99))
    small_s3.put("vol-1/page-000.png", picture(7))
    del small_s3.objects["vol-1/page-02.png"]
    fill(small_s3, "vol-0", 1)
    report = job.run(update=True)
    assert report.extra["job"]["update"] == {"same": 7, "new": 2, "changed": 1, "gone": 1}
    assert job.levels("vol") == {"page-00.png": 0, "page-01.png": 99, "page-02.png": 2}
    assert job.pages("vol-1") == [(0, "page-00.png"), (1, "page-000.png"), (2, "page-01.png")]
    assert len(rows(job.out / "vol-0")) == 1
    assert {name for name in before if job.publication(name) != before[name]} == {"vol", "vol-1"}


@pytest.mark.slow
def test_the_command_tells_what_an_update_has_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the command that the job was begun with, and of resume."""
    monkeypatch.chdir(tmp_path)
    volume(tmp_path / "scans", "vol", 3)
    begin = ["volumes", "scans/*", "--to", "parquet:out", "--embedder", "gist:32", "--job", "job", "--progress", "none"]
    assert main(begin) == 0
    (tmp_path / "scans" / "vol" / "page-001.png").unlink()
    assert main([*begin, "--update"]) == 0
    assert "pages: 0 new, 0 changed, 1 gone, 2 same" in capsys.readouterr().out
    volume(tmp_path / "scans", "vol", 2)
    assert main(["resume", "job", "--update"]) == 0
    assert "pages: 1 new, " in capsys.readouterr().out
    assert [row["page"] for row in rows(tmp_path / "out" / "vol")] == [0, 1, 2]


@pytest.mark.slow
def test_status_tells_volumes_that_are_written_and_not_published(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where an earlier data set of them is published, and where a run ended between the two."""

    def told() -> str:
        assert main(["status", str(tmp_path / "job")]) == 0
        return capsys.readouterr().out

    assert "3 volumes, 3 published" in told()
    (job.scans / "vol_2" / "3.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(S3ParquetWriter, "publish", lambda *_: None)
        job.run(update=True)
    assert "1 written, not published: vol_2" in told()
    with monkeypatch.context() as patch:
        patch.setattr(JobCheckpoint, "add_event", lambda *_, **__: None)
        job.run()
    assert "3 volumes, 2 published" in told()
    job.run()
    assert "3 volumes, 3 published" in told()
    assert "not published" not in told()
