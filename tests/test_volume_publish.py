"""Volumes that are published: what readers find, when, and what becomes of a job that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.bench.volume_parts import Around
from penstock.engine.cli import main
from penstock.engine.jobs.common.drive import Interrupt
from penstock.engine.jobs.volumes.run_volumes import run_volumes
from penstock.engine.journal import JobFolder
from penstock.errors import ConfigError, PipelineFailure, PublishConflictError, SinkError, SourceError
from penstock.tests.html_pages import Page, assert_self_contained
from penstock.tests.scans import (
    WatchedBatcher,
    cancel_in_a_batch,
    config,
    in_a_batch,
    page,
    tasks_in,
    worker,
    write_pages,
)
from penstock.tests.waiting import DEADLINE, wait_until
from penstock.volumes import ImageTask, S3Context, S3ParquetWriter, VolumeWorker

pq = pytest.importorskip("pyarrow.parquet")


def flat(level: int) -> Any:
    return np.full((20, 30), level, np.uint8)


def volume(folder: Path, name: str, pages: int) -> None:
    """A volume of small blank pages, each of another grey."""
    write_pages(folder / name, {f"page-{number:03}.png": flat(number) for number in range(pages)})


def rows(out: Path) -> list[dict[str, Any]]:
    """The rows of a published volume, in the order in which they lie there."""
    manifest = json.loads((out / "_SUCCESS.json").read_text())
    return [row for part in manifest["parts"] for row in pq.read_table(out / part["name"]).to_pylist()]


def blank(out: Path | None, scans: Path, **settings: Any) -> VolumeWorker:
    """A worker over the volume ``vol``, of which nothing is straightened."""
    cfg = config(scans, **({} if out is None else {"out_prefix": str(out)}), **settings)
    return worker(scans, cfg, batcher=WatchedBatcher(cfg), transform=Around(lambda _: 0))


# -- one volume -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_volume_is_a_data_set_with_a_row_for_each_page(tmp_path: Path) -> None:
    """In the order of its pages, with all columns and what they are; crooked pages with their control points."""
    write_pages(tmp_path / "vol", {"a.png": page(1), "b.png": page(2, 3.0)})
    cfg = config(tmp_path, out_prefix=(tmp_path / "out").as_uri())
    VolumeWorker(cfg, S3Context(cfg), "vol", tasks_in(tmp_path, "vol")).run_sync()
    straight, turned = rows(tmp_path / "out" / "vol")
    assert [row["key"] for row in (straight, turned)] == ["vol/a.png", "vol/b.png"]
    assert (straight["volume_id"], straight["page"], straight["width"], straight["height"]) == ("vol", 0, 700, 1000)
    assert straight["size"] == (tmp_path / "vol" / "a.png").stat().st_size
    assert straight["control_points"] is straight["quality_after"] is straight["out_height"] is straight["etag"] is None
    assert turned["passes"] == 1
    assert set(turned["control_points"][0]) == {"x", "y", "sx", "sy"}
    assert turned["angle"] == pytest.approx(3, abs=0.1)
    assert len(turned["vector"]) == 3
    (part,) = (tmp_path / "out" / "vol").glob("part-*.parquet")
    schema = pq.read_schema(part)
    assert "counter-clockwise" in schema.field("angle").metadata[b"penstock.about"].decode()
    assert str(schema.field("vector").type).startswith("fixed_size_list")


def test_the_documents_example_publishes_and_is_not_done_twice(tmp_path: Path) -> None:
    """With a bucket that is a folder; the second time nothing is read."""
    volume(tmp_path, "vol_A", 6)

    async def run() -> VolumeWorker:
        cfg = config(
            s3_bucket=tmp_path.as_uri(), out_prefix=str(tmp_path / "out"), staging_prefix=str(tmp_path / "staging")
        )
        tasks = [ImageTask(key=f"vol_A/page-{i:03d}.png", etag=None, size=None, volume_id="vol_A") for i in range(6)]
        global_sem = asyncio.Semaphore(cfg.s3_max_inflight_global)
        s3 = S3Context(cfg, global_sem)
        worker = VolumeWorker(cfg, s3, "vol_A", tasks)
        await worker.run()
        return worker

    first, second = asyncio.run(run()), asyncio.run(run())
    assert [row["page"] for row in rows(tmp_path / "out" / "vol_A")] == list(range(6))
    assert first.report is not None
    assert first.report.accounting.written == 6
    assert second.report is not None
    assert second.report.stages == []
    assert second.report.extra["volumes"]["each"]["vol_A"]["published"] is True


def test_a_volume_with_dead_pages_is_published_without_them(tmp_path: Path) -> None:
    """They are dead letters, beside the folder."""
    write_pages(tmp_path / "vol", {"a.png": flat(1), "b.png": b"no picture", "c.png": flat(3)})
    blank(tmp_path / "out", tmp_path).run_sync()
    assert [row["page"] for row in rows(tmp_path / "out" / "vol")] == [0, 2]
    (letter,) = (tmp_path / "out.dead-letters.jsonl").read_text().splitlines()
    entry = json.loads(letter)
    assert (entry["key"], entry["stage"], entry["volume"], entry["page"]) == ("vol/b.png", "decode", "vol", 1)


def test_of_two_workers_one_publishes(tmp_path: Path) -> None:
    """The other one fails clean: it has left nothing."""
    volume(tmp_path, "vol", 3)
    cfg = config(tmp_path, out_prefix=str(tmp_path / "out"))
    late, watched = blank(tmp_path / "out", tmp_path), WatchedBatcher(cfg)
    slow = worker(tmp_path, cfg, batcher=watched, transform=Around(lambda _: 0))

    async def both() -> None:
        async with in_a_batch(slow, watched) as running:
            await late.run()
            watched.may_run.set()
            with pytest.raises((PublishConflictError, PipelineFailure)) as caught:
                await running
            error: BaseException = caught.value
            cause = error.exceptions[0] if isinstance(error, PipelineFailure) else error
            assert isinstance(cause, PublishConflictError)

    asyncio.run(both())
    assert len(rows(tmp_path / "out" / "vol")) == 3
    names = {path.name.split("-")[0] for path in (tmp_path / "out" / "vol").rglob("*") if path.is_file()}
    assert names == {"part", "_SUCCESS", "_SUCCESS.json"}


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """It would be one row."""
    cfg = config(tmp_path, out_prefix=str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="is there twice"):
        VolumeWorker(cfg, S3Context(cfg), "vol", [ImageTask("vol/a.png"), ImageTask("vol/a.png")])


def test_a_volume_whose_vectors_were_made_otherwise_is_not_taken_for_done(tmp_path: Path) -> None:
    """It says so, before anything is read."""
    volume(tmp_path, "vol", 1)
    blank(tmp_path / "out", tmp_path).run_sync()
    with pytest.raises(SinkError, match="made otherwise"):
        blank(tmp_path / "out", tmp_path, image_size=20).run_sync()


def test_what_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """No row is to be seen, nor anything of the worker's."""
    volume(tmp_path, "vol", 3)
    cfg = config(tmp_path, out_prefix=str(tmp_path / "out"), insert_batch_size=1)
    watched = WatchedBatcher(cfg)
    done = worker(tmp_path, cfg, batcher=watched, transform=Around(lambda _: 0))
    asyncio.run(cancel_in_a_batch(done, watched))
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


# -- many volumes -----------------------------------------------------------------------------------------------------


def test_each_folder_of_a_pattern_is_a_volume(tmp_path: Path) -> None:
    """Others are none; what is no picture is counted; a volume that is there already is left alone."""
    for name, pages in (("vol_1", 5), ("vol_2", 3), ("other", 1)):
        volume(tmp_path / "scans", name, pages)
    (tmp_path / "scans" / "vol_1" / "notes.txt").write_text("none")
    cfg, specs = config(to=f"parquet:{tmp_path / 'out'}"), [str(tmp_path / "scans" / "vol_*")]
    report = run_volumes(cfg, specs)
    assert (report.accounting.written, report.accounting.filtered) == (8, 1)
    assert report.extra["volumes"]["published"] == 2
    assert [row["key"] for row in rows(tmp_path / "out" / "vol_2")] == [
        str(tmp_path / "scans" / "vol_2" / f"page-{number:03}.png") for number in range(3)
    ]
    volume(tmp_path / "scans", "vol_3", 2)
    again = run_volumes(cfg, specs)
    assert again.accounting.written == 2
    assert again.extra["volumes"]["published"] == 3
    assert not (tmp_path / "out" / "other").exists()


def test_names_that_are_no_text_or_look_like_something_else_are_read(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, quotes, signs of patterns; also in the names of volumes."""
    names = [b"\xff.png", b"it's.png", b"a*[b].png", b"s3:x.png"]
    for name in ("vol [1]", "vol 2"):
        folder = tmp_path / "scans" / name
        volume(folder.parent, name, 1)
        for other in names:
            Path(os.fsdecode(os.fsencode(folder) + b"/" + other)).write_bytes((folder / "page-000.png").read_bytes())
    report = run_volumes(
        config(to=f"parquet:{tmp_path / 'out'}", job=tmp_path / "job"), [str(tmp_path / "scans" / "*")]
    )
    assert (report.accounting.written, report.accounting.dead) == (10, 0)
    for name in ("vol [1]", "vol 2"):
        assert len(rows(tmp_path / "out" / name)) == 5


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], "no volumes: give a folder"),
        (["nowhere"], "nowhere: there is no such volume"),
        (["a/vol", "b/vol"], "two volumes are called 'vol'"),
        (["a/vol", "a"], "a/vol lies in another volume"),
        (["empty"], "empty has no pages"),
    ],
)
def test_volumes_that_are_not_there_are_said_so(tmp_path: Path, specs: list[str], message: str) -> None:
    """At once."""
    (tmp_path / "empty").mkdir()
    for folder in ("a", "b"):
        volume(tmp_path / folder, "vol", 1)
    with pytest.raises((SourceError, PipelineFailure)) as caught:
        run_volumes(config(to=f"parquet:{tmp_path / 'out'}"), [str(tmp_path / spec) for spec in specs])
    error: BaseException = caught.value
    assert message in str(error.exceptions[0] if isinstance(error, PipelineFailure) else error)


def test_a_job_whose_volumes_have_no_pages_says_so(tmp_path: Path) -> None:
    """At its first run, and at any other."""
    (tmp_path / "empty").mkdir()
    cfg = config(to=f"parquet:{tmp_path / 'out'}", job=tmp_path / "job")
    for _ in range(2):
        with pytest.raises(SourceError, match="empty has no pages"):
            run_volumes(cfg, [str(tmp_path / "empty")])


# -- with books -------------------------------------------------------------------------------------------------------


def test_a_job_that_was_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    """Pages that are written are not done again, and the whole is as if nothing had happened."""
    for name in ("vol_1", "vol_2"):
        volume(tmp_path / "scans", name, 12)
    (tmp_path / "scans" / "vol_1" / "page-005.png").write_bytes(b"no picture")
    specs: list[str] = [str(tmp_path / "scans" / "*")]
    settings: dict[str, Any] = {"insert_batch_size": 2, "s3_max_inflight": 1}
    run_volumes(config(to=f"parquet:{tmp_path / 'whole'}", **settings), specs)

    interrupt, shown = Interrupt(), list[dict[str, int]]()

    class Soon:
        interval = 0.0

        def update(self, report: Any) -> None:
            shown.append(report.extra["volumes"])
            if report.accounting.written >= 4:
                interrupt.request()

    cfg = config(to=f"parquet:{tmp_path / 'out'}", job=tmp_path / "job", **settings)
    first = run_volumes(cfg, specs, watcher=Soon(), interrupt=interrupt)
    assert shown[-1]["all"] == 2
    books = first.extra["job"]
    second = run_volumes(cfg, specs)
    assert second.accounting.written == books["remaining"] - (books["dead"] == 0)
    assert second.extra["job"]["written"] == 23
    assert second.extra["volumes"]["published"] == 2
    for name in ("vol_1", "vol_2"):
        assert rows(tmp_path / "out" / name) == rows(tmp_path / "whole" / name)
    third = run_volumes(cfg, specs)
    assert third.stages == []
    assert third.extra["volumes"]["published"] == 2


def test_a_job_with_other_thresholds_is_another_job(tmp_path: Path) -> None:
    """Its rows could not be compared with those that are there."""
    volume(tmp_path / "scans", "vol", 1)
    settings: dict[str, Any] = {"to": f"parquet:{tmp_path / 'out'}", "job": tmp_path / "job"}
    run_volumes(config(**settings), [str(tmp_path / "scans" / "vol")])
    with pytest.raises(ValueError, match="begun otherwise: pages was"):
        run_volumes(config(**settings, min_angle=1.0), [str(tmp_path / "scans" / "vol")])


COMMAND = [sys.executable, "-m", "penstock", "volumes", "scans/*", "--to", "parquet:out", "--job", "job"]
QUICK = ["--embedder", "gist:32", "--insert-batch-size", "2", "--s3-max-inflight", "1", "--progress", "none"]


@pytest.mark.slow
def test_a_job_that_is_killed_goes_on_and_publishes_the_same(tmp_path: Path) -> None:
    """With the rows that it had, and each volume once."""
    for name in ("vol_1", "vol_2"):
        volume(tmp_path / "scans", name, 40)
    for staged in (0, 12):
        _run_and_kill(tmp_path, staged)
    done = subprocess.run([*COMMAND, *QUICK], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    assert "2 volumes: 2 published" in done.stdout
    undisturbed = [*COMMAND[:-3], "parquet:whole", *QUICK]
    subprocess.run(undisturbed, cwd=tmp_path, check=True, capture_output=True, timeout=DEADLINE)
    for name in ("vol_1", "vol_2"):
        assert rows(tmp_path / "out" / name) == rows(tmp_path / "whole" / name)
        assert [row["page"] for row in rows(tmp_path / "out" / name)] == list(range(40))


def _run_and_kill(folder: Path, staged: int) -> None:
    """Begin, or go on, and die when there are more staged files than that, or at the end."""
    child = subprocess.Popen([*COMMAND, *QUICK], cwd=folder)

    def is_time() -> bool:
        return child.poll() is not None or sum(1 for _ in (folder / "out").rglob("rows-*.parquet")) > staged

    wait_until(is_time, "rows of this run")
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_what_was_done_but_not_published_is_published_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may die between the last page and the publication, or the place refuse it."""
    volume(tmp_path / "scans", "vol", 3)
    cfg = config(to=f"parquet:{tmp_path / 'out'}", job=tmp_path / "job")
    specs = [str(tmp_path / "scans" / "vol")]

    def refused(*_: object) -> None:
        raise SinkError("the place refuses")

    with monkeypatch.context() as patch:
        patch.setattr(S3ParquetWriter, "publish", refused)
        with pytest.raises(SinkError):
            run_volumes(cfg, specs)
    with JobFolder.create_or_open(tmp_path / "job") as books:
        assert books.finished
    assert not (tmp_path / "out" / "vol" / "_SUCCESS.json").exists()
    report = run_volumes(cfg, specs)
    assert report.stages == []
    assert report.extra["volumes"]["published"] == 1
    assert len(rows(tmp_path / "out" / "vol")) == 3


def _finish_with_a_dead_page(folder: Path) -> None:
    """A job in the working folder, done: of the three pages of its volume one is no picture."""
    volume(folder / "scans", "vol", 3)
    (folder / "scans" / "vol" / "page-001.png").write_bytes(b"no picture")
    line = ["volumes", "scans/*", "--to", "parquet:out", "--embedder", "gist:32", "--job", "job", "--progress", "none"]
    assert main(line) == 0


def test_resume_status_and_retry_know_jobs_about_volumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that was mended joins its volume, which is published anew."""
    monkeypatch.chdir(tmp_path)
    _finish_with_a_dead_page(tmp_path)
    assert main(["status", "job"]) == 0
    assert "1 dead" in capsys.readouterr().out.replace(",", "")
    assert main(["resume", "job"]) == 0
    assert "finished already: 1 volume: 1 published" in capsys.readouterr().out
    volume(tmp_path / "scans", "vol", 3)
    monkeypatch.chdir("/")  # the job knows its places
    assert main(["retry", str(tmp_path / "job"), "--progress", "none"]) == 0
    assert sorted(row["page"] for row in rows(tmp_path / "out" / "vol")) == [0, 1, 2]
    assert main(["resume", str(tmp_path / "job"), "--workers", "3"]) == 2
    assert "--workers: jobs on volumes have no such setting" in capsys.readouterr().err


def test_retry_knows_the_stages_of_volumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says which there are, where one is none."""
    monkeypatch.chdir(tmp_path)
    _finish_with_a_dead_page(tmp_path)
    volume(tmp_path / "scans", "vol", 3)
    assert main(["retry", "job", "--stage", "preprocess"]) == 2
    assert "there are source, prefetch, decode, patches, compute, pages, look, transform, write" in (
        capsys.readouterr().err
    )
    assert main(["retry", "job", "--stage", "compute"]) == 0
    assert "no dead letter has the stage compute; there are UnreadableError 1" in capsys.readouterr().out
    assert main(["retry", "job", "--stage", "decode", "--progress", "none"]) == 0
    assert sorted(row["page"] for row in rows(tmp_path / "out" / "vol")) == [0, 1, 2]


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """Examples, what a volume is, what is published."""
    assert main(["volumes", "--help"]) == 0
    text = capsys.readouterr().out
    assert "penstock volumes 's3://bucket/vol_*/' --to parquet:s3://bucket/out" in text
    assert "_SUCCESS.json" in text
    for option in ("--max-passes", "--min-angle", "--embedder", "--job"):
        assert f"  {option} " in text


def test_the_command_says_what_there_is_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the second time that there was nothing to do."""
    monkeypatch.chdir(tmp_path)
    volume(tmp_path / "scans", "vol", 2)
    (tmp_path / "scans" / "vol" / "bad.png").write_bytes(b"x")
    line = ["volumes", "scans/vol", "--to", "parquet:out", "--embedder", "gist:32", "--progress", "plain"]
    assert main(line) == 0
    text = capsys.readouterr().out
    assert "= written 2 + filtered 0 + dead 1 " in text
    assert "1 volume: 1 published in parquet:out" in text
    assert "1 dead letter in " in text
    assert main(line) == 0
    assert "1 volume: 1 published in parquet:out" in capsys.readouterr().out


@pytest.mark.slow
def test_a_contact_sheet_shows_the_first_pages_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each volume, in order: what was straightened with its result. A place that cannot be is said so before."""
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        write_pages(tmp_path / "scans" / name, {"0.png": page(1), "1.png": page(2, 3.0), "2.png": b"no picture"})
    volume(tmp_path / "scans", "c", 15)
    line = ["volumes", "scans/*", "--to", "parquet:out", "--embedder", "gist:32", "--progress", "plain", "--html"]
    assert main([*line, "nowhere/sheet.html"]) == 2
    assert not (tmp_path / "out").exists()
    capsys.readouterr()
    assert main([*line, "sheet.html"]) == 0
    assert "contact sheet: sheet.html" in capsys.readouterr().out
    sheet = Page((tmp_path / "sheet.html").read_text())
    assert_self_contained(sheet)
    shown = [attributes["alt"] or "" for tag, attributes in sheet.tags if tag == "img"]
    few = ["0.png, scan", "1.png, scan", "1.png, result"]
    assert [text.rpartition("/")[2] for text in shown] == [*few, *few, *(f"page-{n:03}.png, scan" for n in range(12))]
    for words in ("scans/*", "+3.0", "degrees", "quality"):
        assert words in sheet.words


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["volumes", "scans"], "--to is missing"),
        (["volumes", "--to", "parquet:out"], "no volumes: give a folder"),
        (["volumes", "nowhere", "--to", "parquet:out"], "there is no such volume"),
        (
            ["volumes", "scans", "--to", "photos.db"],
            "--to: 'photos.db': volumes are published in one place, as Parquet",
        ),
        (["volumes", "scans", "--to", "parquet:out", "--update"], "--update: is about the books of a job"),
        (["volumes", "scans/**", "--to", "parquet:out"], "** stands for folders at any depth"),
    ],
)
def test_wrong_usage_is_said_so(
    line: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one line, with exit status 2."""
    monkeypatch.chdir(tmp_path)
    assert main(line) == 2
    assert message in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []
