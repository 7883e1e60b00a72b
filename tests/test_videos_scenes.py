"""Shots: where a video is cut, and the frame in the middle of each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.preprocess.videos import Sampling, Scene, open_video, sample, scenes
from penstock.tests.clips import UInt8, make_clip, number, read_number

FPS = 30
SIZE: dict[str, Any] = {"width": 160, "height": 90}
COLOURS = np.array([(200, 60, 40), (40, 90, 200), (230, 220, 90), (30, 120, 60)])


def shots(*starts: int) -> Callable[[int], UInt8]:
    """A picture that moves slowly, and becomes another one at these frames."""
    x = np.arange(160)[None, :, None]

    def draw(n: int) -> UInt8:
        colour = COLOURS[bisect_right(starts, n) % len(COLOURS)]
        rgb = colour * (0.7 + 0.3 * np.sin((x + n) / 20))
        return number(np.repeat(rgb, 90, 0).astype(np.uint8), n)

    return draw


def cut_at(path: Path) -> tuple[list[Scene], list[int]]:
    """What scenes are found, and the number of the frame that is taken of each."""
    with open_video(path) as video:
        taken = [read_number(frame.rgb()) for frame in sample(video, Sampling.parse("scenes"))]
        return video.found.scenes, taken


def frames_of(found: list[Scene]) -> list[tuple[int, int]]:
    return [(round(scene.start_us * FPS / 1_000_000), round(scene.end_us * FPS / 1_000_000)) for scene in found]


@pytest.mark.parametrize("clip", [{"bframes": 2}, {"gop": 7}, {"codec": "libx265"}], ids=str)
def test_shots_begin_where_the_picture_changes(clip: dict[str, Any], tmp_path: Path) -> None:
    """One after the other, from the beginning to the end; the middle frame stands for each."""
    path = make_clip(tmp_path / "clip.mp4", frames=90, draw=shots(20, 45, 70), **SIZE, **clip)
    found, taken = cut_at(path)
    assert frames_of(found) == [(0, 20), (20, 45), (45, 70), (70, 90)]
    assert taken == [10, 32, 57, 80]


def test_a_moving_picture_is_one_shot(tmp_path: Path) -> None:
    """What changes all the time is no cut."""
    found, taken = cut_at(make_clip(tmp_path / "clip.mp4", frames=60, draw=shots(), **SIZE))
    assert frames_of(found) == [(0, 60)]
    assert taken == [30]


@pytest.mark.parametrize("frames", [1, 2, 4, 5])
def test_a_clip_of_a_few_frames_is_one_shot(frames: int, tmp_path: Path) -> None:
    """Too few to see a cut among them."""
    found, taken = cut_at(make_clip(tmp_path / "clip.mp4", frames=frames))
    assert frames_of(found) == [(0, frames)]
    assert len(taken) == 1


def test_a_flash_is_no_shot(tmp_path: Path) -> None:
    """None is shorter than 0.6 s, but where the video ends."""
    found, _ = cut_at(make_clip(tmp_path / "clip.mp4", frames=80, draw=shots(30, 36, 60), **SIZE))
    assert frames_of(found) == [(0, 30), (30, 60), (60, 80)]


@pytest.mark.parametrize(("bound", "most"), [("HELD", 8), ("HELD_BYTES", 4)])
def test_of_a_long_shot_few_frames_are_held(
    bound: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number and by bytes; what is taken lies near the middle."""
    path = make_clip(tmp_path / "clip.mp4", frames=120, draw=shots(50), **SIZE)
    monkeypatch.setattr(scenes, bound, most)
    held: list[int] = []
    add = scenes.Shot.add

    def counted(shot: scenes.Shot, frame: Any) -> None:
        add(shot, frame)
        held.append(len(shot.held))

    monkeypatch.setattr(scenes.Shot, "add", counted)
    found, taken = cut_at(path)
    assert frames_of(found) == [(0, 50), (50, 120)]
    assert len(held) == 120
    assert max(held) == most
    assert abs(taken[0] - 25) <= 50 / most
    assert abs(taken[1] - 85) <= 70 / most


def test_scenes_have_the_times_of_an_uneven_clip(tmp_path: Path) -> None:
    """Not those of a frame rate."""
    times = [0.05 * n + (0.9 if n >= 20 else 0) for n in range(40)]
    found, _ = cut_at(make_clip(tmp_path / "clip.mkv", times=times, draw=shots(20), **SIZE))
    assert [(scene.start_us, scene.end_us > 2_850_000) for scene in found] == [(0, False), (1_900_000, True)]
