"""Stages over messages about videos, the project's and a user's own; and the miner from Python."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.downloads import video_id
from penstock.errors import ConfigError, ItemError
from penstock.preprocess.videos.statistics import STATISTICS
from penstock.preprocess.worker.frame_files import MANIFEST
from penstock.tests.clips import make_clip
from penstock.tests.video_jobs import SMALL, clips, mine, rows_of
from penstock.videos import (
    AsyncPipelineOrchestrator,
    BaseStageWorker,
    FilterWorker,
    PipelineMetrics,
    StageMessage,
    VideoConfig,
    VideoMiner,
    default_stages,
)

pytest.importorskip("av")


def test_a_message_is_followed_by_one_about_the_same_video() -> None:
    """With what is known of it by then."""
    first = StageMessage("0" * 20, "a.mp4", {"key": "a.mp4"})
    second = first.followed(Path("frames"), passed=3)
    assert (second.video_id, second.input_path) == (first.video_id, Path("frames"))
    assert second.metadata == {"key": "a.mp4", "passed": 3}
    assert first.metadata == {"key": "a.mp4"}
    assert second.timestamp >= first.timestamp


def test_a_miner_needs_a_place_for_its_rows() -> None:
    """Said when it is made."""
    with pytest.raises(ConfigError, match="to is missing"):
        VideoMiner(every="1s")


def test_the_filter_holds_frames_against_the_jobs_thresholds(tmp_path: Path) -> None:
    """Of three frames by their stored numbers: no pixel is looked at."""
    numbers = dict.fromkeys(STATISTICS, 1.0)
    lines = [json.dumps({**numbers, "mean": mean}) for mean in (5, 15, 25)]
    (tmp_path / MANIFEST).write_text("".join(f"{line}\n" for line in lines))
    for thresholds, passed in (("", 1), ("black_mean=10", 2), ("black_mean=99", None)):
        worker = FilterWorker(VideoConfig(filter="black", thresholds=thresholds))
        message = worker.process(StageMessage("0" * 20, tmp_path))
        assert (message.metadata["passed"] if message else None) == passed


class Checked(BaseStageWorker):
    """Refuses one video, leaves out another, and notes what it was given."""

    def __init__(self) -> None:
        super().__init__(name="check", concurrency=2)
        self.seen: list[StageMessage] = []
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")

    def close(self) -> None:
        self.calls.append("close")

    def process(self, msg: StageMessage) -> StageMessage | None:
        self.seen.append(msg)
        name = Path(str(msg.metadata["key"])).name
        if name == "1.mp4":
            raise ItemError("not this one")
        return None if name == "2.mp4" else msg.followed(msg.input_path, checked=True)


@pytest.mark.slow
@pytest.mark.parametrize("async_mode", [True, False])
def test_a_users_stage_is_a_stage_like_any_other(tmp_path: Path, async_mode: bool) -> None:
    """Between the filter and the collector; what fails of one video costs no other, and the books say so."""
    folder = clips(tmp_path / "clips", 4)
    (folder / "copy.mp4").write_bytes((folder / "0.mp4").read_bytes())
    (folder / "page.mp4").write_bytes(b"<html>")
    own = Checked()

    def stages(config: VideoConfig, files: Any) -> list[BaseStageWorker]:
        *first, collector = default_stages(config, files)
        return [*first, own, collector]

    settings = {**SMALL, "work": tmp_path / "work", "filter": "black", "async_mode": async_mode}
    runs = AsyncPipelineOrchestrator(VideoConfig(**settings), stages)
    duplicates = asyncio.run(runs.run([str(path) for path in sorted(folder.iterdir())]))
    assert own.calls == ["open", "close"]
    assert sorted(message.metadata["passed"] for message in own.seen) == [8, 8, 10, 12, 14]
    assert all((Path(message.input_path) / "passed.jsonl").is_file() for message in own.seen)
    metrics = runs.metrics
    assert isinstance(metrics, PipelineMetrics)
    assert metrics.stage_counts == {"download": 6, "extract": 5, "filter": 5, "check": 3, "dedup": 3}
    assert {video for video, _ in metrics.errors} == {video_id(str(folder / name)) for name in ("1.mp4", "page.mp4")}
    assert set(metrics.queue_depths.values()) == {0}
    assert runs.report is not None
    assert runs.report.accounting.filtered == 1
    copies = {each.key for each in duplicates if each.rule == "exact"}
    assert {f"{folder / 'copy.mp4'}#t={100_000 * n}" for n in range(8)} <= copies


@pytest.mark.slow
def test_a_miner_does_what_the_command_does(tmp_path: Path) -> None:
    """The same rows; its metrics name videos that failed."""
    pytest.importorskip("pyarrow")
    folder = clips(tmp_path / "clips", 2)
    (folder / "page.mp4").write_bytes(b"<html>")
    mine(folder, f"parquet:{tmp_path / 'a'}")
    settings: dict[str, Any] = {**SMALL, "to": f"parquet:{tmp_path / 'b'}"}
    miner = VideoMiner(**settings)
    report = miner.run(folder)
    assert report.accounting.written == 2
    assert rows_of(tmp_path / "b") == rows_of(tmp_path / "a")
    ((video, why),) = miner.metrics.errors
    assert video == video_id(str(folder / "page.mp4"))
    assert why.startswith("VideoError: no video")
    assert miner.metrics.stage_counts["videos"] == 2


@pytest.mark.slow
def test_without_overlapping_the_rows_are_the_same(tmp_path: Path) -> None:
    """`--no-async-mode`."""
    pytest.importorskip("pyarrow")
    folder = clips(tmp_path / "clips", 3)
    make_clip(folder / "x.mkv", frames=12)
    mine(folder, f"parquet:{tmp_path / 'a'}", job=tmp_path / "job-a", workers=2)
    mine(folder, f"parquet:{tmp_path / 'b'}", job=tmp_path / "job-b", workers=2, async_mode=False)
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")
