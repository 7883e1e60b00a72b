"""Which frames of a video are taken: those that are on the screen at the wanted times, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.preprocess.videos import Sampling, open_video, sample
from penstock.tests.clips import make_clip, read_number


@pytest.mark.parametrize(
    ("text", "step"),
    [("1s", 1_000_000), ("5s", 5_000_000), ("500ms", 500_000), ("0.04s", 40_000), ("2min", 120_000_000)],
)
def test_a_step_is_said_with_its_unit(text: str, step: int) -> None:
    """In microseconds, exactly."""
    assert Sampling.parse(text) == Sampling("every", step)


@pytest.mark.parametrize("text", ["", "1", "s", "0s", "-1s", "1 s", "1e3s", "keyframe", "0.1ms", "Scenes"])
def test_what_is_no_sampling_is_refused_by_name(text: str) -> None:
    """With what it may be."""
    with pytest.raises(ConfigError, match=r"^every=.*such as 1s"):
        Sampling.parse(text)


def test_frames_come_at_their_times(tmp_path: Path) -> None:
    """The frame that is read off the picture is the one whose time it has."""
    path = make_clip(tmp_path / "clip.mp4", frames=24, fps=24)
    with open_video(path) as video:
        taken = [(frame.pts_us, read_number(frame.rgb(90))) for frame in sample(video, Sampling.parse("250ms"))]
    assert taken == [(0, 0), (250_000, 6), (500_000, 12), (750_000, 18)]
