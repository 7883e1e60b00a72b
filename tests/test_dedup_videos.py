"""Videos that are the same, found by the frames that stay for theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock.engine.dedup import Rule, Signatures, SignatureWriter, decide
from penstock.engine.dedup import videos as same

WIDTH = 64


def write(folder: Path, video: str, scenes: list[int], *, side: int = 360, quality: int = 80) -> None:
    """A video whose frames show scenes; what shows the same scene is near."""
    own = sum(video.encode())
    vectors = np.stack([np.random.default_rng(scene).standard_normal(WIDTH) for scene in scenes])
    vectors += np.random.default_rng(own).standard_normal(vectors.shape) * 0.01
    pdq = np.stack([np.random.default_rng(scene).integers(0, 256, 32) for scene in scenes])
    keys = [f"{video}#{number:03}" for number in range(len(scenes))]
    columns = {"pdq": pdq, "quality": [quality] * len(scenes), "short_side": [side] * len(scenes)}
    SignatureWriter(folder).write(
        video, Signatures.of(keys, vectors.astype(np.float32), groups=[video] * len(scenes), **columns)
    )


def found(folder: Path) -> dict[str, tuple[str, float]]:
    return dict(decide(folder, Rule.parse("default")).same_videos().keepers)


def test_a_video_whose_frames_are_those_of_another_is_its_duplicate(tmp_path: Path) -> None:
    """Eight of ten suffice, seven do not; the longer one stays, of equal ones the larger."""
    write(tmp_path, "whole", list(range(20)))
    write(tmp_path, "cut", [*range(5, 13), 100, 101], side=720)
    write(tmp_path, "other", [*range(13, 20), 200, 201, 202])
    write(tmp_path, "small", list(range(300, 310)), side=180)
    write(tmp_path, "large", list(range(300, 310)))
    assert found(tmp_path) == {"cut": ("whole", 0.8), "small": ("large", 1.0)}


def test_frames_that_show_nothing_do_not_count(tmp_path: Path) -> None:
    """Two videos are not the same for being black."""
    write(tmp_path, "a", list(range(10)), quality=20)
    write(tmp_path, "b", list(range(10)), quality=20)
    assert found(tmp_path) == {}


def test_of_an_earlier_decision_the_video_that_stayed_stays(tmp_path: Path) -> None:
    """Also where a longer one comes later."""
    write(tmp_path, "short", list(range(5)))
    assert found(tmp_path) == {}
    write(tmp_path, "long", list(range(20)), side=720)
    assert found(tmp_path) == {"long": ("short", 1.0)}


def test_a_frame_that_very_many_videos_have_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A common intro does not make videos the same, and how many such frames there were is told."""
    monkeypatch.setattr(same, "CAP", 3)
    for number in range(5):
        write(tmp_path, f"v{number}", [0])
    videos = decide(tmp_path, Rule.parse("default")).same_videos()
    assert (dict(videos.keepers), videos.capped) == ({}, 1)
