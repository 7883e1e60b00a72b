"""Jobs on videos behind URLs: downloaded when their turn comes, and gone when their rows are recorded."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.cli import main
from penstock.engine.downloads import video_id
from penstock.engine.journal import read_status
from penstock.sinks import read_dead_letters
from penstock.tests.clips import make_clip
from penstock.tests.video_jobs import OWN, mine, rows_of, table
from penstock.tests.video_server import VideoServer, served
from penstock.tests.waiting import DEADLINE
from penstock.tests.whole_jobs import penstock as command
from penstock.tests.whole_jobs import started, wait_for

pytest.importorskip("av")
pytest.importorskip("pyarrow")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames at every 100 ms."""
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=30)


@pytest.fixture
def server(clip: Path) -> Iterator[VideoServer]:
    with served(clip.read_bytes()) as videos:
        yield videos


def listed(folder: Path, *sources: str) -> str:
    """A list of paths and URLs."""
    path = folder / "list.txt"
    path.write_text("".join(f"{source}\n" for source in sources))
    return f"@{path}"


def how(server: VideoServer, folder: Path, **more: Any) -> dict[str, Any]:
    """Settings of a job that may ask the server."""
    return {
        "job": folder / "job",
        "allow_hosts": (server.host,),
        "politeness": 0,
        "on_failure": {"preprocess": "skip"},
        **more,
    }


def frames(data_set: Path) -> list[tuple[int, str]]:
    """Time and vector of each row."""
    return sorted((row["frame_pts_us"], row["vector"]) for row in rows_of(data_set))


def test_videos_behind_urls_give_the_rows_of_their_files_and_nothing_is_left(
    server: VideoServer, clip: Path, tmp_path: Path
) -> None:
    """Beside local files; what cannot be had, and what is no video, are dead letters of the download."""
    names = (server.url("ok.mp4"), str(clip), server.url("missing.mp4"), server.url("html.mp4"))
    report = mine(listed(tmp_path, *names), f"parquet:{tmp_path / 'out'}", **how(server, tmp_path))
    books = report.accounting
    assert (books.read, books.written, books.dead, books.in_flight) == (4, 2, 2, 0)
    rows = rows_of(tmp_path / "out")
    by_video = [[row for row in rows if row["video_key"] == name] for name in names[:2]]
    assert [[row["vector"] for row in each] for each in by_video] == [[row["vector"] for row in by_video[1]]] * 2
    assert {row["url"] for row in by_video[0]} == {names[0]}
    letters = {
        letter.key: (letter.stage, letter.error)
        for letter in read_dead_letters(tmp_path / "job" / "dead-letters.jsonl")
    }
    assert letters.keys() == set(names[2:])
    assert {stage for stage, _ in letters.values()} == {"download"}
    (host,) = report.extra["videos"]["hosts"]
    assert (host["downloads"], host["failures"]) == (1, 2)
    assert [*(tmp_path / "job" / "work").rglob("video*")] == []


def test_what_links_are_can_be_said(server: VideoServer, tmp_path: Path) -> None:
    """A page that is taken for a file is a dead letter that says so."""
    own = how(server, tmp_path, downloader="fetch")
    report = mine(listed(tmp_path, server.url("page"), server.url("ok")), f"parquet:{tmp_path / 'out'}", **own)
    assert (report.accounting.written, report.accounting.dead) == (1, 1)
    (letter,) = read_dead_letters(tmp_path / "job" / "dead-letters.jsonl")
    assert (letter.error, "--downloader auto" in letter.message) == ("UnreadableError", True)


@pytest.mark.parametrize("keep", ["frames", "all"])
def test_what_is_kept_is_there_whole(server: VideoServer, clip: Path, tmp_path: Path, keep: str) -> None:
    """JPEG files with a manifest, also of local files, which stay where they are."""
    names = (server.url("ok.mp4"), str(clip))
    work = tmp_path / "kept"
    mine(listed(tmp_path, *names), f"parquet:{tmp_path / 'out'}", **how(server, tmp_path, keep=keep, work=work))
    assert clip.is_file()
    for name in names:
        folder = work / video_id(name)[:2] / video_id(name)
        lines = [json.loads(line) for line in (folder / "frames" / "manifest.jsonl").read_text().splitlines()]
        assert [line["pts_us"] for line in lines] == [100_000 * number for number in range(10)]
        assert {path.name for path in (folder / "frames").iterdir()} == {line["file"] for line in lines} | {
            "manifest.jsonl"
        }
        assert all((folder / "frames" / line["file"]).stat().st_size == line["bytes"] for line in lines)
        assert (folder / "video").exists() == (keep == "all" and name == names[0])
    assert not [*work.rglob("*.tmp")]


def test_a_job_that_is_killed_in_a_download_goes_on(server: VideoServer, clip: Path, tmp_path: Path) -> None:
    """Its books know nothing of that video yet; the other one is not done again."""
    source = listed(tmp_path, server.url("ok.mp4"), server.url("hold.mp4"))
    own = ["--job", str(tmp_path / "job"), "--allow-host", server.host, *OWN, "--progress", "none"]
    with started(command("videos", source, "--to", f"parquet:{tmp_path / 'out'}", *own)) as process:
        wait_for(process, lambda: server.held > 0 and _written(tmp_path / "job") == 1)
        process.kill()
    server.let_go.set()
    again = command("resume", str(tmp_path / "job"), "--progress", "none")
    done = subprocess.run(again, capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    mine(str(clip), f"parquet:{tmp_path / 'file'}")
    assert frames(tmp_path / "out") == sorted(2 * frames(tmp_path / "file"))
    assert [row["status"] for row in table(tmp_path / "job" / "videos.parquet")] == ["written", "written"]
    assert server.seen["/ok.mp4"] == 1
    assert [*(tmp_path / "job" / "work").rglob("video*")] == []


def _written(job: Path) -> int:
    return read_status(job).counts.written if (job / "job.json").is_file() else 0


def test_what_was_left_of_a_recorded_video_is_deleted_by_the_next_run(server: VideoServer, tmp_path: Path) -> None:
    """Killed between the record and the clean-up."""
    names = [server.url("ok.mp4"), server.url("missing.mp4")]
    source, to = listed(tmp_path, *names), f"parquet:{tmp_path / 'out'}"
    mine(source, to, **how(server, tmp_path))
    folder = tmp_path / "job" / "work" / video_id(names[0])[:2] / video_id(names[0])
    folder.mkdir(parents=True)
    (folder / "video").write_bytes(b"left")
    subprocess.run(command("retry", str(tmp_path / "job"), "--progress", "none"), check=False, timeout=DEADLINE)
    assert not folder.exists()


def test_what_could_not_be_downloaded_is_tried_again_by_its_stage(
    server: VideoServer, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`retry --stage download` does it, and nothing else; a stage that there is not is refused with those there are."""
    job = str(tmp_path / "job")
    source = listed(tmp_path, str(clip), server.url("missing.mp4"))
    mine(source, f"parquet:{tmp_path / 'out'}", **how(server, tmp_path))
    asked = server.seen["/missing.mp4"]
    assert main(["retry", job, "--stage", "extract"]) == 0
    assert "no dead letter has the stage extract" in capsys.readouterr().out
    assert server.seen["/missing.mp4"] == asked
    assert main(["retry", job, "--stage", "download", "--progress", "none"]) == 0
    assert server.seen["/missing.mp4"] > asked
    assert main(["retry", job, "--stage", "preprocess"]) == 2
    assert "there are source, download, extract" in capsys.readouterr().err
    (letter,) = read_dead_letters(tmp_path / "job" / "dead-letters.jsonl")
    assert letter.attempts == 2


def test_videos_of_a_host_that_refuses_stay_undone_for_a_later_run(server: VideoServer, tmp_path: Path) -> None:
    """They are no dead letters; nothing is published before they are done."""
    names = [f"{server.url('refused.mp4')}?{number}" for number in range(8)]
    report = mine(
        listed(tmp_path, *names), f"parquet:{tmp_path / 'out'}", **how(server, tmp_path, downloads=1, per_host=1)
    )
    left = report.extra["videos"]["left"]
    assert left > 0
    assert report.accounting.in_flight == left
    counts = read_status(tmp_path / "job").counts
    assert (counts.remaining, counts.dead) == (left, 8 - left)
    assert not (tmp_path / "job" / "videos.parquet").exists()
