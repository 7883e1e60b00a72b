"""Whole jobs on videos: a row for each frame with its time, whatever ends them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from penstock.engine.cli import main
from penstock.engine.journal import read_status
from penstock.errors import ConfigError
from penstock.sinks import read_dead_letters
from penstock.tests.clips import make_clip, picture
from penstock.tests.detector_models import frame, write_detector
from penstock.tests.html_pages import Page, assert_self_contained
from penstock.tests.video_jobs import OWN, SABOTEUR, clips, mine, rows_of, table
from penstock.tests.waiting import patient
from penstock.tests.whole_jobs import penstock as command
from penstock.tests.whole_jobs import started, wait_for

pytest.importorskip("av")
pytest.importorskip("pyarrow")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of 8, 10, 12 and 14 frames at every 100 ms, a page under the name of one, and a text."""
    made = clips(tmp_path_factory.mktemp("videos") / "clips")
    (made / "page.mp4").write_bytes(b"<html>not found</html>")
    (made / "notes.txt").write_text("no video")
    return made


def test_each_frame_is_a_row_with_its_time_and_each_video_is_accounted_for(folder: Path, tmp_path: Path) -> None:
    """In the order of videos and times; a broken video is a dead letter, what is no video is counted."""
    report = mine(folder, f"parquet:{tmp_path / 'out'}", job=tmp_path / "job")
    books = report.accounting
    assert (books.read, books.written, books.filtered, books.dead, books.in_flight) == (6, 4, 1, 1, 0)
    found = report.extra["videos"]
    frames = found["frames"]
    assert 44 <= frames.pop("decoded") <= 132
    assert frames == {"created": 44, "written": 44, "dropped": {}, "dead": 0}
    rows = rows_of(tmp_path / "out")
    assert [(Path(row["video_key"]).name, row["frame_pts_us"]) for row in rows] == [
        (f"{number}.mp4", 100_000 * step) for number in range(4) for step in range(8 + 2 * number)
    ]
    assert {(row["width"], row["height"]) for row in rows} == {(320, 180)}
    videos = table(tmp_path / "job" / "videos.parquet")
    assert [(Path(row["video_key"]).name, row["status"], row["frames_written"]) for row in videos] == [
        *((f"{number}.mp4", "written", 8 + 2 * number) for number in range(4)),
        ("page.mp4", "dead", 0),
    ]
    (letter,) = read_dead_letters(tmp_path / "job" / "dead-letters.jsonl")
    assert (Path(letter.key).name, letter.stage, letter.error) == ("page.mp4", "extract", "VideoError")
    assert videos[-1]["error_message"] == letter.message


def test_how_many_workers_and_how_large_batches_changes_nothing(folder: Path, tmp_path: Path) -> None:
    """The same rows in the same order."""
    mine(folder, f"parquet:{tmp_path / 'a'}", job=tmp_path / "job-a")
    mine(folder, f"parquet:{tmp_path / 'b'}", job=tmp_path / "job-b", workers=3, batch_size=5, slots=1)
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")


def test_a_job_that_is_killed_goes_on_and_leaves_the_same_rows(folder: Path, tmp_path: Path) -> None:
    """SIGKILL of the parent once a video is written, again and again; `resume` does the rest."""
    mine(folder, f"parquet:{tmp_path / 'whole'}", job=tmp_path / "job-whole")
    job, out = tmp_path / "job", tmp_path / "out"
    words = command("videos", str(folder), "--to", f"parquet:{out}", "--job", str(job), *OWN, "--progress", "none")
    for least in (1, 2, 3):
        with started(words) as process:
            wait_for(process, lambda least=least: _written(job) >= least)  # type: ignore[misc]
            process.kill()
    done = subprocess.run(
        command("resume", str(job), "--progress", "none"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert rows_of(out) == rows_of(tmp_path / "whole")
    assert table(job / "videos.parquet") == table(tmp_path / "job-whole" / "videos.parquet")
    counts = read_status(job).counts
    assert (counts.written, counts.filtered, counts.dead, counts.remaining) == (4, 1, 1, 0)


def _written(job: Path) -> int:
    return read_status(job).counts.written if (job / "job.json").is_file() else 0


@pytest.fixture
def sabotage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a job whose workers come to their ends by the names of videos."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "video_saboteur.py").write_text(SABOTEUR)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    how = {"embedder": "jax:video_saboteur:Embedder", "preset": "clip", "image_size": 32}
    return {**how, "item_timeout": patient(0.5)}


def test_workers_that_are_killed_cost_nothing(tmp_path: Path, sabotage: dict[str, Any]) -> None:
    """SIGKILL of a decoding process: another one reads the video again, and goes on at the same frame."""
    folder = clips(tmp_path / "clips", 2)
    for number in range(2):
        (folder / f"{number}.mp4").rename(folder / f"once{number}.mp4")
    mine(folder, f"parquet:{tmp_path / 'killed'}", job=tmp_path / "job", **sabotage)
    assert len([mark for mark in folder.iterdir() if mark.suffix != ".mp4"]) == 6
    mine(folder, f"parquet:{tmp_path / 'whole'}", job=tmp_path / "job-whole", **sabotage)
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")


def test_a_video_that_hangs_its_decoder_or_kills_it_is_given_up_alone(tmp_path: Path, sabotage: dict[str, Any]) -> None:
    """With what came of it before; the others are whole."""
    folder = clips(tmp_path / "clips", 2)
    for name in ("hangs", "kills"):
        (folder / f"{name}.mp4").write_bytes((folder / "1.mp4").read_bytes())
    report = mine(folder, f"parquet:{tmp_path / 'out'}", job=tmp_path / "job", **sabotage)
    books = report.accounting
    assert (books.read, books.written, books.dead, books.in_flight) == (4, 2, 2, 0)
    assert report.extra["videos"]["frames"]["written"] == 8 + 10 + 4 + 4
    letters = {Path(letter.key).name: letter for letter in read_dead_letters(tmp_path / "job" / "dead-letters.jsonl")}
    assert letters["hangs.mp4"].error == "DeadlineError"
    assert letters["kills.mp4"].error == "PoisonItemError"
    assert {letter.stage for letter in letters.values()} == {"extract"}


def test_a_job_whose_videos_all_failed_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, and why."""
    (tmp_path / "page.mp4").write_bytes(b"<html>")
    assert main(["videos", str(tmp_path), "--to", f"parquet:{tmp_path / 'out'}", *OWN, "--progress", "none"]) == 1
    assert "the only video failed: no video" in capsys.readouterr().err


def test_a_rate_of_failures_is_one_of_all_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a job of which nothing remains."""
    for number in range(2):
        (tmp_path / f"{number}.mp4").write_bytes(b"<html>")
    make_clip(tmp_path / "clip.mp4", frames=4)
    words = ["videos", str(tmp_path), "--to", f"parquet:{tmp_path / 'out'}", "--job", str(tmp_path / "job"), *OWN]
    main([*words, "--max-failures", "-1"])
    capsys.readouterr()
    assert main([*words, "--max-failures", "50%"]) == 1
    assert "stage 'extract': 2 of 3 items failed, more than max_failures=50% allows" in capsys.readouterr().err


def test_a_search_shows_where_in_its_video_a_frame_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Milvus its time is metadata of the row."""
    assert main(["videos", str(folder), "--to", str(tmp_path / "v.db"), *OWN, "--progress", "none"]) == 0
    Image.fromarray(picture(21, 320, 180)).save(tmp_path / "query.png")
    capsys.readouterr()
    assert main(["search", str(tmp_path / "v.db"), str(tmp_path / "query.png"), "-k", "1"]) == 0
    assert "mp4  at 0:00:00.700" in capsys.readouterr().out


def test_a_contact_sheet_shows_frames_that_were_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each video some, spread over it, with their times; how many were kept, and what was left out."""
    sheet = tmp_path / "sheet.html"
    assert main(["videos", str(folder), "--to", f"parquet:{tmp_path / 'out'}", "--html", str(sheet), *OWN]) == 0
    assert f"contact sheet: {sheet}" in capsys.readouterr().out
    page = Page(sheet.read_text())
    images = [attributes.get("src") for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 8 + 10 + 12 + 7
    assert len({*images}) >= 12
    assert "0:00:00.700" in page.words
    assert "14 frames kept" in page.words
    assert_self_contained(page)
    assert main(["videos", str(folder), "--to", "null:", "--html", str(tmp_path / "no" / "s.html"), *OWN]) == 2


def test_a_finished_job_does_nothing_and_its_tables_are_made_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed between the last row and the tables, say."""
    words = ["videos", str(folder), "--to", f"parquet:{tmp_path / 'out'}", "--job", str(tmp_path / "job"), *OWN]
    assert main(words) == 0
    before = table(tmp_path / "job" / "videos.parquet")
    (tmp_path / "job" / "videos.parquet").unlink()
    capsys.readouterr()
    assert main(words) == 0
    assert "finished already" in capsys.readouterr().out
    assert table(tmp_path / "job" / "videos.parquet") == before
    assert main(["resume", str(tmp_path / "job"), "--video-timeout", "60", "--downloads", "2"]) == 0
    settings = read_status(tmp_path / "job").settings["config"]
    assert (settings["video_timeout"], settings["downloads"]) == (60, 2)


def test_other_frames_are_another_job(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows that were chosen otherwise are not mixed."""
    words = ["videos", str(folder), "--to", f"parquet:{tmp_path / 'out'}", "--job", str(tmp_path / "job"), *OWN]
    assert main(words) == 0
    assert main([*words, "--every", "200ms"]) == 2
    assert "frames was every 100ms" in capsys.readouterr().err


def scenes(n: int) -> NDArray[np.uint8]:
    """Nine frames that stand still, nine black ones, and the same picture again; then others that move."""
    if 9 <= n < 18:
        return np.zeros((180, 320, 3), np.uint8)
    noise = np.random.default_rng(3 if n < 27 else n // 3).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((320, 180), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def with_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of 13 frames at every 100 ms: 3 that stand still, 3 black, 3 as the first, 4 that move."""
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(2):
        make_clip(folder / f"{number}.mp4", frames=39, draw=scenes, options={"crf": "12"})
    return folder


def test_frames_are_left_out_by_filters_and_what_repeats_the_last_one_of_its_video(
    with_scenes: Path, tmp_path: Path
) -> None:
    """Each with its reason, and its numbers; the books say how many, and a list which repeats which."""
    report = mine(with_scenes, f"parquet:{tmp_path / 'out'}", job=tmp_path / "job", filter="black,flat", dedup="video")
    frames = report.extra["videos"]["frames"]
    assert frames["dropped"] == {"black": 6, "duplicate": 10}
    assert (frames["created"], frames["written"], frames["dead"]) == (26, 10, 0)
    rows = [row for row in rows_of(tmp_path / "out") if row["video_key"].endswith("0.mp4")]
    assert [row["frame_pts_us"] for row in rows] == [0, 900_000, 1_000_000, 1_100_000, 1_200_000]
    assert all(row["mean"] > 16 and row["std"] > 6 for row in rows)
    dropped = table(tmp_path / "job" / "filtered.parquet")
    assert [(row["frame_pts_us"], row["reason"]) for row in dropped[:3]] == [(100_000 * n, "black") for n in (3, 4, 5)]
    assert all(row["mean"] < 16 for row in dropped)
    repeated = table(tmp_path / "job" / "duplicates.parquet")
    first = f"{with_scenes / '0.mp4'}#t="
    assert [(row["key"], row["duplicate_of"]) for row in repeated[:5]] == [
        (f"{first}{100_000 * n}", f"{first}0") for n in (1, 2, 6, 7, 8)
    ]


def test_thresholds_of_filters_can_be_changed(with_scenes: Path, tmp_path: Path) -> None:
    """Nothing is blacker than black."""
    how = {"filter": "black", "thresholds": {"black_mean": 0}}
    report = mine(with_scenes, f"parquet:{tmp_path / 'out'}", job=tmp_path / "job", **how)
    assert report.extra["videos"]["frames"]["dropped"] == {}


def test_what_repeats_is_the_same_whatever_the_batches_and_the_deaths(
    tmp_path: Path, with_scenes: Path, sabotage: dict[str, Any]
) -> None:
    """A worker that goes on with a video knows the last frame that was kept."""
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "once.mp4").write_bytes((with_scenes / "0.mp4").read_bytes())
    how = {**sabotage, "filter": "black", "dedup": "video", "batch_size": 3}
    mine(folder, f"parquet:{tmp_path / 'killed'}", job=tmp_path / "job", **how)
    assert len(list(folder.iterdir())) == 4
    mine(folder, f"parquet:{tmp_path / 'whole'}", job=tmp_path / "job-whole", **{**how, "batch_size": 7})
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    for name in ("filtered", "duplicates"):
        assert table(tmp_path / "job" / f"{name}.parquet") == table(tmp_path / "job-whole" / f"{name}.parquet")


def test_a_video_of_which_nothing_is_left_is_written_all_the_same(tmp_path: Path) -> None:
    """And a job that goes on does not miss its rows in the store."""
    folder = tmp_path / "clips"
    folder.mkdir()
    make_clip(folder / "black.mp4", draw=lambda _: np.zeros((180, 320, 3), np.uint8))
    make_clip(folder / "one.mp4", frames=1)
    mine(folder, str(tmp_path / "v.db"), job=tmp_path / "job", filter="black")
    make_clip(folder / "two.mp4", frames=2)
    report = mine(folder, str(tmp_path / "v.db"), job=tmp_path / "job", filter="black", update=True)
    assert report.extra["job"]["written"] == 3


def squares(n: int) -> NDArray[np.uint8]:
    """Frames 0 to 8 with a red square, 9 to 17 with a green one, then none."""
    colours = ("red", "green")
    shown = [(colours[n // 9], 100, 40, 180, 120)] if n < 18 else []
    return frame(320, 180, *shown)


def test_a_detector_says_what_is_in_frames_and_which_of_them_go(tmp_path: Path) -> None:
    """Boxes in pixels of the frame; frames without a wanted class are left out. A class it does not know is refused."""
    folder = tmp_path / "clips"
    folder.mkdir()
    make_clip(folder / "0.mp4", draw=squares, frames=27, options={"crf": "8"})
    model = write_detector(tmp_path / "squares.onnx", "v8")
    how = {"detector": f"onnx:{model}", "batch_size": 3}
    report = mine(folder, f"parquet:{tmp_path / 'red'}", job=tmp_path / "job", classes="red", **how)
    assert report.extra["videos"]["frames"]["dropped"] == {"classes": 6}
    rows = rows_of(tmp_path / "red")
    assert [row["frame_pts_us"] for row in rows] == [0, 100_000, 200_000]
    found = [json.loads(row["detections"]) for row in rows]
    assert {name for each in found for name in each["classes"]} == {"red"}
    (left, top, right, bottom), *_ = found[0]["boxes"]
    assert 60 < left < right < 220
    assert 0 < top < bottom < 160
    reasons = [row["reason"] for row in table(tmp_path / "job" / "filtered.parquet")]
    assert reasons == ["classes"] * 6
    mine(folder, f"parquet:{tmp_path / 'all'}", **how)
    assert [json.loads(row["detections"])["classes"][:1] for row in rows_of(tmp_path / "all")] == [
        *[["red"]] * 3,
        *[["green"]] * 3,
        *[[]] * 3,
    ]
    with pytest.raises(ConfigError, match=r"finds no 'rod'.* did you mean 'red'"):
        mine(folder, f"parquet:{tmp_path / 'none'}", classes="rod", **how)
    with pytest.raises(ConfigError, match="classes: are what a detector finds"):
        mine(folder, f"parquet:{tmp_path / 'none'}", classes="red")
