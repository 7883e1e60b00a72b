"""Volumes of a job that are not published though others are: somebody else was there, or too many pages are dead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.cli import main
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.volumes.run_volumes import run_volumes
from penstock.engine.jobs.volumes.source import VolumeSource
from penstock.tests.scans import config
from penstock.tests.test_volume_publish import rows, volume
from penstock.volumes import S3ParquetWriter

pytest.importorskip("pyarrow")


@pytest.mark.slow
@pytest.mark.parametrize("keeps_books", [True, False])
def test_a_volume_that_somebody_else_has_published_is_its_own_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], keeps_books: bool
) -> None:
    """Meanwhile: it is named with the ways on, the others are published, and with books its rows wait to be wanted."""
    monkeypatch.chdir(tmp_path)
    for name, pages in (("vol_1", 2), ("vol_2", 3), ("vol_3", 2)):
        volume(tmp_path / "scans", name, pages)
    publish, theirs = S3ParquetWriter.publish, list[S3ParquetWriter]()

    def late(writer: S3ParquetWriter, pages: int, dead: int) -> Any:
        if pages == 3 and not theirs:
            theirs.append(writer)
            run_volumes(config(to="parquet:out", embedder="gist:32", image_size=None, dtype=None), ["scans/vol_2"])
        return publish(writer, pages, dead)

    monkeypatch.setattr(S3ParquetWriter, "publish", late)
    line = ["volumes", "scans/*", "--to", "parquet:out", "--embedder", "gist:32", "--progress", "none"]
    assert main([*line, *(["--job", "job"] if keeps_books else [])]) == 1
    text = capsys.readouterr()
    assert "3 volumes: 2 published in parquet:out, 1 could not be" in text.out
    assert "volume 'vol_2': job " in text.err
    assert [len(rows(tmp_path / "out" / name)) for name in ("vol_1", "vol_2", "vol_3")] == [2, 3, 2]
    if not keeps_books:
        assert "take another place (--to)" in text.err
        assert not [*(tmp_path / "out" / "vol_2").glob("_staging/*/*")]
        return
    published = json.loads((tmp_path / "out" / "vol_2" / "_SUCCESS.json").read_text())["publication"]
    assert main(["status", "job"]) == 0
    told = capsys.readouterr().out
    assert "to go on: penstock resume" in told
    assert "3 volumes, 2 published" in told
    assert "1 written, not published: vol_2" in told
    assert main(["resume", "job"]) == 1
    assert "take away its _SUCCESS.json and go on (penstock resume)" in capsys.readouterr().err
    (tmp_path / "out" / "vol_2" / "_SUCCESS.json").unlink()
    assert main(["resume", "job"]) == 0
    assert json.loads((tmp_path / "out" / "vol_2" / "_SUCCESS.json").read_text())["publication"] != published
    assert main(["status", "job", "--json"]) == 0
    said = capsys.readouterr().out
    assert json.loads(said[said.index("{\n") :])["volumes"] == {"all": 3, "published": 3, "unpublished": []}
    assert len(rows(tmp_path / "out" / "vol_2")) == 3


def test_a_volume_with_too_many_dead_pages_is_not_published_though_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the share of its own pages: what a job's failure budget allows, each volume that is published keeps to."""
    monkeypatch.chdir(tmp_path)
    for name, pages in (("vol_1", 9), ("vol_2", 2)):
        volume(tmp_path / "scans", name, pages)
    (tmp_path / "scans" / "vol_2" / "bad.png").write_bytes(b"no picture")
    line = ["volumes", "scans/*", "--to", "parquet:out", "--embedder", "gist:32", "--progress", "none", "--job", "job"]
    assert main([*line, "--max-failures", "10%"]) == 1
    text = capsys.readouterr()
    assert "2 volumes: 1 published in parquet:out, 1 could not be" in text.out
    assert "volume 'vol_2' is not published: 1 of 3 items failed, more than max_failures=10% allows" in text.err
    assert len(rows(tmp_path / "out" / "vol_1")) == 9
    assert not (tmp_path / "out" / "vol_2" / "_SUCCESS.json").exists()
    assert main(["resume", "job"]) == 1
    assert main(["resume", "job", "--max-failures", "40%"]) == 0
    assert len(rows(tmp_path / "out" / "vol_2")) == 2


def test_the_failure_budget_of_a_job_on_volumes_is_one_of_all_its_runs(tmp_path: Path) -> None:
    """A page that was mended does not hide those that were not: a rate is judged of what earlier runs did, too."""
    volume(tmp_path / "scans", "vol", 4)
    for number in range(3):
        (tmp_path / "scans" / "vol" / f"bad-{number}.png").write_bytes(b"no picture")
    cfg = config(to=f"parquet:{tmp_path / 'out'}", job=tmp_path / "job")
    run_volumes(cfg, [str(tmp_path / "scans" / "vol")])
    books = JobCheckpoint(cfg, make_plan(cfg), VolumeSource([str(tmp_path / "scans" / "vol")]))
    with books:
        assert books.earlier(cfg.stages)["decode"] == (7, 3)
        assert books.earlier(cfg.stages)["compute"] == (4, 0)
