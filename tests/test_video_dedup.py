"""Near-duplicates across videos: rows are held back until all are there, and the decision is the same every time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from penstock.engine.jobs.videos.held import HeldRows
from penstock.engine.journal import read_status
from penstock.errors import SinkError
from penstock.sinks import MilvusSink
from penstock.tests.clips import make_clip
from penstock.tests.video_jobs import mine, rows_of, table

pytest.importorskip("av")
pytest.importorskip("pyarrow")
pytestmark = pytest.mark.slow


def slides(first: int) -> Any:
    """Another picture every 100 ms, of a series that begins with this one."""

    def draw(n: int) -> NDArray[np.uint8]:
        noise = np.random.default_rng(first + n // 3).integers(0, 256, (6, 8, 3), np.uint8)
        return np.asarray(Image.fromarray(noise).resize((320, 180), Image.Resampling.BICUBIC))

    return draw


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures; the same in a larger, a worse copy; four others, and two of the first."""
    made = tmp_path_factory.mktemp("copies")
    make_clip(made / "a.mp4", frames=18, draw=slides(0), options={"crf": "14"})
    make_clip(made / "b.mp4", frames=18, draw=slides(0), options={"crf": "28"})
    make_clip(made / "c.mp4", frames=18, draw=slides(4), options={"crf": "14"})
    return made


def kept(data_set: Path) -> set[str]:
    """Keys of the frames that are in it."""
    return {f"{row['video_key']}#t={row['frame_pts_us']}" for row in rows_of(data_set)}


def test_of_frames_that_several_videos_have_one_stays(folder: Path, tmp_path: Path) -> None:
    """The others are listed with the one that stays, and are in no store; nothing is left of what was held back."""
    report = mine(folder, f"parquet:{tmp_path / 'out'}", job=tmp_path / "job", dedup="all")
    stay = kept(tmp_path / "out")
    gone = {row["key"]: row["duplicate_of"] for row in table(tmp_path / "job" / "duplicates.parquet")}
    assert len(stay) == 10
    assert len(gone) == 8
    assert not stay & gone.keys()
    assert set(gone.values()) <= stay
    assert report.accounting.written == 3
    same = [row["duplicate_of"] for row in table(tmp_path / "job" / "videos.parquet")]
    names = [None if of is None else Path(of).name for of in same]
    assert names in (["b.mp4", None, None], [None, "a.mp4", None])
    assert report.extra["videos"]["near_duplicates"]["duplicates"] == 8
    assert not (tmp_path / "job" / "held").exists()
    assert not {"pdq", "digest"} & rows_of(tmp_path / "out")[0].keys()


def test_the_decision_is_the_same_whatever_the_batches_and_what_ended_the_job(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that ends between the decision and the stores decides again; one that is done does nothing."""
    mine(folder, f"parquet:{tmp_path / 'a'}", job=tmp_path / "job-a", dedup="all")
    release = HeldRows.release

    def broken(self: HeldRows, stores: Any, frames: int) -> Any:
        release(self, stores, frames)
        raise SinkError("the disk is on fire")

    settings: dict[str, Any] = {"job": tmp_path / "job-b", "dedup": "all", "batch_size": 5, "workers": 2}
    with monkeypatch.context() as patch:
        patch.setattr(HeldRows, "release", broken)
        with pytest.raises(SinkError, match="on fire"):
            mine(folder, f"parquet:{tmp_path / 'b'}", **settings)
    mine(folder, f"parquet:{tmp_path / 'b'}", **settings)
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")
    assert table(tmp_path / "job-a" / "duplicates.parquet") == table(tmp_path / "job-b" / "duplicates.parquet")
    mine(folder, f"parquet:{tmp_path / 'b'}", **settings)
    assert read_status(tmp_path / "job-b").counts.written == 3


def test_what_comes_later_is_held_against_what_stayed(folder: Path, tmp_path: Path) -> None:
    """With `--update`: who stayed stays, also where the newcomer is the better picture."""
    clips = tmp_path / "clips"
    clips.mkdir()
    settings: dict[str, Any] = {"job": tmp_path / "job", "dedup": "all"}
    (clips / "b.mp4").write_bytes((folder / "b.mp4").read_bytes())
    mine(clips, str(tmp_path / "v.db"), **settings)
    (clips / "a.mp4").write_bytes((folder / "a.mp4").read_bytes())
    mine(clips, str(tmp_path / "v.db"), update=True, **settings)
    gone = table(tmp_path / "job" / "duplicates.parquet")
    assert {Path(row["key"].partition("#")[0]).name for row in gone} == {"a.mp4"}
    assert {Path(row["duplicate_of"].partition("#")[0]).name for row in gone} == {"b.mp4"}
    assert len(gone) == 6
    with MilvusSink(str(tmp_path / "v.db"), "images") as sink:
        assert sink.count() == 6


def test_a_job_without_books_holds_its_rows_back_too(folder: Path, tmp_path: Path) -> None:
    """Into Milvus, beside which they lie until all are there, in a folder of their own: others are left alone."""
    others = [tmp_path / name for name in ("v.held", "v.held.tmp", "v.signatures", "held", "signatures")]
    for other in others:
        other.mkdir()
        (other / "mine.txt").write_text("not yours")
    report = mine(folder, str(tmp_path / "v.db"), dedup="all")
    assert report.extra["videos"]["near_duplicates"]["items"] == 18
    with MilvusSink(str(tmp_path / "v.db"), "images") as sink:
        assert sink.count() == 10
    assert all((other / "mine.txt").exists() for other in others)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("step", ["_decided", "release"])
def test_a_collection_that_is_to_be_replaced_is_replaced_by_the_run_that_copies(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Not kept because a run before had held rows back; also if that one ended where the copying begins."""
    out = f"parquet:{tmp_path / 'out'}"
    (tmp_path / "other").mkdir()
    make_clip(tmp_path / "other" / "x.mp4", frames=8)
    mine(tmp_path / "other", out, job=tmp_path / "job-other")
    settings: dict[str, Any] = {"job": tmp_path / "job", "dedup": "all", "mode": "overwrite"}
    with monkeypatch.context() as patch:
        patch.setattr(HeldRows, step, _on_fire)
        with pytest.raises(SinkError, match="on fire"):
            mine(folder, out, **settings)
    mine(folder, out, **settings)
    assert len(kept(tmp_path / "out")) == 10
    assert not any("x.mp4" in key for key in kept(tmp_path / "out"))


def test_a_job_that_is_ended_while_it_deletes_what_it_held_has_lost_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of it is no loss of rows to the next run, which deletes the rest."""

    def half(path: Path, **_: Any) -> None:
        for part in Path(path).rglob("*.parquet"):
            part.unlink()
            raise SinkError("the disk is on fire")

    with monkeypatch.context() as patch:
        patch.setattr("penstock.engine.jobs.videos.held.shutil.rmtree", half)
        with pytest.raises(SinkError, match="on fire"):
            mine(folder, f"parquet:{tmp_path / 'out'}", job=tmp_path / "job", dedup="all")
    mine(folder, f"parquet:{tmp_path / 'out'}", job=tmp_path / "job", dedup="all")
    assert len(kept(tmp_path / "out")) == 10
    assert len(table(tmp_path / "job" / "duplicates.parquet")) == 8
    assert not [path for path in (tmp_path / "job").iterdir() if path.name.startswith("held")]


def test_an_update_that_is_ended_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds back are the rows of the new videos alone: those of before are in the store."""
    clips, out = tmp_path / "clips", f"parquet:{tmp_path / 'out'}"
    clips.mkdir()
    settings: dict[str, Any] = {"job": tmp_path / "job", "dedup": "all"}
    (clips / "b.mp4").write_bytes((folder / "b.mp4").read_bytes())
    mine(clips, out, **settings)
    (clips / "c.mp4").write_bytes((folder / "c.mp4").read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(HeldRows, "release", _on_fire)
        with pytest.raises(SinkError, match="on fire"):
            mine(clips, out, update=True, **settings)
    mine(clips, out, **settings)
    mine(clips, out, **settings)
    assert len(kept(tmp_path / "out")) == 10


def test_all_done_again_into_another_store_is_as_many_rows(folder: Path, tmp_path: Path) -> None:
    """`--redo`, where the store has gone: each frame is counted once, and later runs find what they expect."""
    settings: dict[str, Any] = {"job": tmp_path / "job", "dedup": "all"}
    mine(folder, str(tmp_path / "v.db"), **settings)
    shutil.rmtree(tmp_path / "v.db")
    mine(folder, str(tmp_path / "v.db"), redo=True, **settings)
    mine(folder, str(tmp_path / "v.db"), **settings)
    with MilvusSink(str(tmp_path / "v.db"), "images") as sink:
        assert sink.count() == 10


def _on_fire(*_: Any) -> Any:
    raise SinkError("the disk is on fire")
