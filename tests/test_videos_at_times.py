"""Frames of a video are found again by the times that their rows have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.preprocess.videos import Sampling, frames_at, gops, open_video, sample
from penstock.tests.clips import make_clip, read_number

pytest.importorskip("av")


@pytest.mark.parametrize(
    "clip",
    [{}, {"bframes": 3}, {"times": [0.0, 0.02, 0.3, 0.31, 0.7, 1.4]}, {"start": 1.5}, {"gop": 300}, {"gop": 1}],
    ids=["even", "B-frames", "uneven", "begins later", "one group", "groups of one"],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_frames_are_found_again_by_their_times(clip: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    """Whatever was sampled, also some of it only, and in whatever order the times are given."""
    path = make_clip(tmp_path / f"clip.{suffix}", **clip)
    with open_video(path) as video:
        taken = {frame.pts_us: read_number(frame.rgb()) for frame in sample(video, Sampling.parse("100ms"))}
    for times in ([*taken], [*taken][::-2], [*taken][-1:]):
        with open_video(path) as video:
            found = {time: read_number(frame.rgb()) for time, frame in frames_at(video, times)}
        assert found == {time: taken[time] for time in sorted(times)}


def test_a_time_between_two_frames_is_that_of_the_first_and_one_behind_the_end_has_none(tmp_path: Path) -> None:
    """As it is on the screen."""
    path = make_clip(tmp_path / "clip.mp4", frames=10, fps=10, gop=4)
    with open_video(path) as video:
        found = {time: read_number(frame.rgb()) for time, frame in frames_at(video, [950_000, 250_000, 5_000_000])}
    assert found == {250_000: 2, 950_000: 9}


def test_behind_damage_in_a_long_group_frames_are_those_of_their_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the group ends is known only when it has been read, decoded or not."""
    path = make_clip(tmp_path / "clip.mkv", frames=60, gop=20, fps=10)
    with open_video(path) as video:
        places = [(packet.pos or 0, packet.size) for packet in video.packets()]
    data, (at, size) = bytearray(path.read_bytes()), places[30]
    data[at + 6 : at + size] = bytes(byte ^ 0xFF for byte in data[at + 6 : at + size])
    path.write_bytes(data)
    monkeypatch.setattr(gops, "MAX_PACKETS", 7)
    with open_video(path) as video:
        found = {time: read_number(frame.rgb()) for time, frame in frames_at(video, [2_500_000, 4_500_000])}
        assert video.found.damaged == 1
    assert found == {2_500_000: 25, 4_500_000: 45}
