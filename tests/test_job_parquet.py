"""Whole jobs into a Parquet data set: published once, whatever ends them; searched; updated."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from penstock import ImageEmbeddingPipeline, embed_images
from penstock.engine.cli import main
from penstock.engine.journal import read_status
from penstock.errors import (
    CollectionMismatchError,
    PipelineFailure,
    PublishConflictError,
    SinkError,
    StoreChangedError,
)
from penstock.sinks import SinkOptions, make_sink
from penstock.sinks.parquet.sink import ParquetSink
from penstock.tests.whole_jobs import draw, draw_folder, started, wait_for, with_small_writes
from penstock.tests.whole_jobs import penstock as command

pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"workers": 1, "batch_size": 4, "embedder": "gist:32", "progress": "none"}
OWN = ["--workers", "1", "--batch-size", "4", "--embedder", "gist:32", "--progress", "none"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_folder(tmp_path / "pictures", 12)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tmp_path / "rows"


def manifest(rows: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((rows / "_SUCCESS.json").read_text())
    return found


def listed(rows: Path) -> list[str]:
    """Names of the pictures, in the order of the data set."""
    parts = [pq.read_table(rows / part["name"], columns=["path"]) for part in manifest(rows)["parts"]]
    return [Path(path).name for part in parts for path in part.column("path").to_pylist()]


def has_written(job: Path, least: int) -> bool:
    """Whether the books say so many."""
    return (job / "job.json").exists() and read_status(job).counts.written >= least


def names(pictures: Path) -> list[str]:
    return sorted(path.name for path in pictures.iterdir())


def test_a_job_publishes_and_its_data_set_is_searched(
    pictures: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line: rows in the order of the listing; run again nothing is written; the picture finds itself."""
    words = ["embed", str(pictures), "--to", f"parquet:{rows}", "--job", str(tmp_path / "job"), *OWN]
    assert main(words) == 0
    assert f"penstock search parquet:{rows} IMAGE" in capsys.readouterr().out
    assert listed(rows) == names(pictures)
    assert manifest(rows)["job"] == read_status(tmp_path / "job").job
    assert manifest(rows)["fingerprints"]["embedder"] == "gist:32"
    before = {path: path.stat().st_mtime_ns for path in rows.rglob("*")}
    assert main(words) == 0
    assert "finished already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in rows.rglob("*")} == before
    assert main(["search", f"parquet:{rows}", str(pictures / "0003.png"), "-k", "3"]) == 0
    assert "1.0000" in (first := capsys.readouterr().out.splitlines()[0])
    assert first.endswith("0003.png")


def test_a_job_that_could_not_publish_does_it_when_it_is_run_again(
    pictures: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is embedded again, and it says what it did."""

    def refuse(_: object) -> NoReturn:
        raise SinkError("no room")

    words = ["embed", str(pictures), "--to", f"parquet:{rows}", "--job", str(tmp_path / "job"), *OWN]
    with monkeypatch.context() as patch:
        patch.setattr(ParquetSink, "finish", refuse)
        assert main(words) == 1
    assert not (rows / "_SUCCESS.json").exists()
    capsys.readouterr()
    assert main(words) == 0
    assert "What an earlier run had left to do in the store is done" in capsys.readouterr().out
    assert listed(rows) == names(pictures)
    assert main(words) == 0
    assert "finished already" in capsys.readouterr().out


def test_a_job_without_books_publishes_too(pictures: Path, rows: Path, tmp_path: Path) -> None:
    """And a second one is refused before it embeds anything, unless it overwrites."""
    embed_images(pictures, to=f"parquet:{rows}", **SMALL)
    assert sorted(listed(rows)) == names(pictures)
    first = manifest(rows)["job"]
    with pytest.raises(PublishConflictError, match=f"job {first} has published"):
        embed_images(pictures, to=f"parquet:{rows}", **SMALL)
    embed_images(pictures, to=f"parquet:{rows}", mode="overwrite", **SMALL)
    assert manifest(rows)["job"] != first
    assert sorted(listed(rows)) == names(pictures)


def test_a_job_that_fails_publishes_nothing(pictures: Path, rows: Path) -> None:
    """Half a data set would be taken for a whole one."""
    (pictures / "9999.png").write_bytes(b"no picture")
    with pytest.raises(PipelineFailure):
        embed_images(pictures, to=f"parquet:{rows}", max_failures=0, **SMALL)
    assert not (rows / "_SUCCESS.json").exists()
    assert list(rows.rglob("*.parquet")) == []


def test_a_job_that_fails_by_its_budget_publishes_nothing_either(pictures: Path, rows: Path, tmp_path: Path) -> None:
    """However often it is run again, until more failures are allowed."""
    for number in range(6):
        (pictures / f"99{number}.png").write_bytes(b"no picture")
    how: dict[str, Any] = {"to": f"parquet:{rows}", "job": tmp_path / "job", **SMALL}
    for _ in range(2):
        with pytest.raises(PipelineFailure):
            embed_images(pictures, max_failures="10%", **how)
        assert not (rows / "_SUCCESS.json").exists()
    embed_images(pictures, **how)
    assert manifest(rows)["rows"] == 12


def test_a_pipeline_publishes_when_it_is_closed(pictures: Path, rows: Path) -> None:
    """After several inserts; not after an error in its block."""
    paths = [str(path) for path in sorted(pictures.iterdir())]
    with ImageEmbeddingPipeline(to=f"parquet:{rows}", embedder="gist:32") as pipeline:
        pipeline.insert_images(paths[:4])
        pipeline.insert_images(paths[4:8])
        assert not (rows / "_SUCCESS.json").exists()
    assert sorted(listed(rows)) == names(pictures)[:8]
    with ImageEmbeddingPipeline(to=f"parquet:{rows.with_name('other')}", embedder="gist:32") as pipeline:
        pipeline.insert_images(paths[:4])
        pipeline.__exit__(KeyError, KeyError(), None)
    assert not (rows.with_name("other") / "_SUCCESS.json").exists()


def test_an_update_adds_to_what_the_job_has_published(pictures: Path, rows: Path, tmp_path: Path) -> None:
    """New pictures come into new parts, a changed one takes the place of its row."""
    how: dict[str, Any] = {"to": f"parquet:{rows}", "job": tmp_path / "job", **SMALL}
    embed_images(pictures, **how)
    before = {row["path"]: row["vector"] for row in pq.read_table(rows).to_pylist()}
    draw(pictures / "0100.png", np.random.default_rng(9))
    draw(pictures / "0005.png", np.random.default_rng(10))
    embed_images(pictures, update=True, **how)
    after = {row["path"]: row["vector"] for row in pq.read_table(rows).to_pylist()}
    assert sorted(listed(rows)) == names(pictures)
    changed = {Path(path).name for path in before if after[path] != before[path]}
    assert changed == {"0005.png"}


def test_a_data_set_that_was_taken_away_is_noticed(pictures: Path, rows: Path, tmp_path: Path) -> None:
    """By the books."""
    how: dict[str, Any] = {"to": f"parquet:{rows}", "job": tmp_path / "job", **SMALL}
    embed_images(pictures, **how)
    rows.rename(tmp_path / "away")
    with pytest.raises(StoreChangedError, match="is not there any more"):
        embed_images(pictures, **how)


def test_searching_where_nothing_is_published_says_so(pictures: Path, rows: Path) -> None:
    """In words of the data set."""
    with pytest.raises(CollectionMismatchError, match="holds no complete data set"):
        ImageEmbeddingPipeline(to=f"parquet:{rows}", embedder="gist:32").search(str(pictures / "0000.png"))


@pytest.mark.kills
def test_a_job_killed_again_and_again_publishes_once_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    """Killed while it writes, and while it publishes; readers see nothing until all of it is there."""
    pictures = draw_folder(tmp_path / "pictures", 120)
    undisturbed, rows, job = tmp_path / "undisturbed", tmp_path / "rows", tmp_path / "job"
    embed_images(pictures, to=f"parquet:{undisturbed}", job=tmp_path / "other", **SMALL)
    own = ["--job", str(job), *OWN, "--insert-batch-size", "4"]
    words = with_small_writes("embed", str(pictures), "--to", f"parquet:{rows}", *own)
    for least in (1, 30):
        with started(words) as process:
            wait_for(process, partial(has_written, job, least))
            assert process.poll() is None
            process.kill()
        with pytest.raises(CollectionMismatchError):
            make_sink(f"parquet:{rows}", SinkOptions()).open()
    with started(words) as process:
        wait_for(process, (rows / "_publishing.json").exists)
    with started(command("resume", str(job), "--progress", "none")) as process:
        process.communicate()
        assert process.returncode == 0
    assert listed(rows) == names(pictures)
    kept = ["key", "vector", "path", "width", "height", "ordinal"]
    assert pq.read_table(rows, columns=kept).equals(pq.read_table(undisturbed, columns=kept))
    assert not (rows / "_publishing.json").exists()
    assert [path.name for path in rows.iterdir() if path.is_dir()] == []
