"""The frame on the screen at each multiple of a step, in every container, codec and arrangement of frames."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from penstock.preprocess.videos import Sampling, open_video, sample
from penstock.tests.clips import Clip, make_clip, read_number

UNEVEN = tuple(itertools.accumulate((0.02 + 0.07 * (n * n % 5) for n in range(59)), initial=0.0))
"""Seconds at which frames of a variable rate are shown: some 20 ms apart, some 300."""

CODECS: Mapping[str, Mapping[str, Any]] = {
    "h264": {},
    "h264, B-frames": {"bframes": 3},
    "h264, open groups": {"bframes": 2, "options": {"x264-params": "open-gop=1:scenecut=0:b-adapt=0"}},
    "hevc": {"codec": "libx265", "bframes": 3},
    "hevc, open groups": {"codec": "libx265", "bframes": 3, "options": {"x265-params": "log-level=none:open-gop=1"}},
    "vp9": {"codec": "libvpx-vp9"},
    "av1": {"codec": "libsvtav1"},
    "mpeg2": {"codec": "mpeg2video", "bframes": 2},
    "mpeg4": {"codec": "mpeg4", "bframes": 2},
}
CONTAINERS = {"mp4": 90_000, "mkv": 1000, "ts": 90_000}
"""Ticks a second, to which times are rounded there."""

ARRANGED: Mapping[str, Mapping[str, Any]] = {
    "even": {"frames": 64},
    "uneven": {"times": UNEVEN},
    "begins later": {"frames": 64, "start": 1.5},
    "cut by an edit list": {"frames": 64, "start": -0.5},
}
STEPS = [Fraction(hundredths, 100) for hundredths in (3, 11, 37, 97)]


def on_screen(clip: Clip, suffix: str, step: Fraction) -> list[int]:
    """Numbers of the frames that are on the screen at multiples of a step, each once: by how the clip was made."""
    ticks = CONTAINERS[suffix]
    shown = {n: Fraction(round(time * ticks), ticks) for n, time in clip.shown.items()}
    # Of uneven times the last frame is where they end: for how long it stays, no container says.
    end = max(shown.values()) + (0 if clip.times else 1 / Fraction(clip.fps))
    wanted = [k * step for k in range(int(end / step) + 1) if k * step < end]
    return list(dict.fromkeys(max(n for n, time in shown.items() if time <= at) for at in wanted))


def taken(path: Path, step: Fraction) -> list[int]:
    """Numbers that are read off the sampled frames."""
    with open_video(path) as video:
        return [read_number(frame.rgb()) for frame in sample(video, Sampling("every", int(step * 1_000_000)))]


def arranged(codec: str, suffix: str) -> Iterator[str]:
    """What there is of a codec in a container."""
    if codec in ("vp9", "av1") and suffix == "ts":
        return
    yield "even"
    if codec in ("mpeg2", "mpeg4"):  # their clock is the frame rate
        return
    yield from ("uneven", "begins later")
    if suffix == "mp4":
        yield "cut by an edit list"


EVERYTHING = [
    (codec, suffix, how, gop)
    for codec in CODECS
    for suffix in CONTAINERS
    for how in arranged(codec, suffix)
    for gop in (30, 250)
]


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_no_frame_is_wrong(codec: str, suffix: str, tmp_path: Path) -> None:
    """Over groups of 30 and 250 frames, even and uneven times, beginnings other than 0, edit lists."""
    wrong: dict[tuple[str, int, Fraction], tuple[list[int], list[int]]] = {}
    for how, gop in itertools.product(arranged(codec, suffix), (30, 250)):
        clip = Clip(**CODECS[codec], **ARRANGED[how], gop=gop, width=160, height=90)
        path = make_clip(tmp_path / f"clip.{suffix}", clip)
        for step in STEPS:
            found, true = taken(path, step), on_screen(clip, suffix, step)
            if clip.times:
                found = [number for number in found if number != len(clip.times) - 1]
            if found != true:
                wrong[how, gop, step] = found, true
    assert not wrong


def test_the_matrix_asks_for_many_frames() -> None:
    """The figure that is claimed for them: none of so many is wrong."""
    asked = sum(
        len(on_screen(Clip(**CODECS[codec], **ARRANGED[how], gop=gop), suffix, step))
        for codec, suffix, how, gop in EVERYTHING
        for step in STEPS
    )
    assert asked >= 10_000


def test_making_clips_leaves_this_process_as_it_was_scheduled(tmp_path: Path) -> None:
    """An encoder that makes it real-time would starve all else on the machine, in later tests, too."""
    before = os.sched_getscheduler(0)
    make_clip(tmp_path / "clip.mp4", codec="libsvtav1", frames=3)
    assert os.sched_getscheduler(0) == before
