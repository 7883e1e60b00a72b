"""Which frames of a video are taken, where times, keyframes or frames are not as they usually are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.errors import ConfigError, TooLargeError, VideoError
from penstock.preprocess.videos import Sampling, VideoFindings, VideoLimits, gops, open_video, sample
from penstock.tests.clips import make_clip, read_number


def taken(path: Path, text: str) -> list[tuple[int, int]]:
    """Times in microseconds and numbers of the sampled frames."""
    with open_video(path) as video:
        return [(frame.pts_us, read_number(frame.rgb())) for frame in sample(video, Sampling.parse(text))]


def numbers(path: Path, text: str) -> list[int]:
    """Numbers of the sampled frames."""
    return [number for _, number in taken(path, text)]


def found(path: Path, text: str) -> VideoFindings:
    """What is found when a video is sampled."""
    with open_video(path) as video:
        for _ in sample(video, Sampling.parse(text)):
            pass
        return video.found


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


def test_a_frame_has_its_own_time(tmp_path: Path) -> None:
    """Not the one that it was wanted for."""
    path = make_clip(tmp_path / "clip.mp4", frames=24, fps=20, bframes=2)
    assert taken(path, "270ms") == [(0, 0), (250_000, 5), (500_000, 10), (800_000, 16), (1_050_000, 21)]


def test_frames_are_numbered_and_say_whether_they_are_keyframes(tmp_path: Path) -> None:
    """By how they were coded."""
    path = make_clip(tmp_path / "clip.mp4", frames=24, fps=24, gop=12)
    with open_video(path) as video:
        frames = list(sample(video, Sampling.parse("250ms")))
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert [frame.is_keyframe for frame in frames] == [True, False, True, False]
    assert not any(frame.time_estimated for frame in frames)


def test_a_frame_that_stays_on_the_screen_is_taken_once(tmp_path: Path) -> None:
    """Slides of a minute are not sixty pictures; and one of ten years takes no time."""
    path = make_clip(tmp_path / "clip.mkv", times=[0, 0.5, 60, 3e8])
    with open_video(path, VideoLimits(max_duration_s=1e9, max_frames=10**9)) as video:
        assert [frame.pts_us for frame in sample(video, Sampling.parse("1s"))] == [0, 500_000, 60_000_000, 3 * 10**14]


def test_a_first_frame_that_comes_late_is_taken_once(tmp_path: Path) -> None:
    """In AVI with B-frames it has the time of the second."""
    path = make_clip(tmp_path / "clip.avi", frames=10, fps=10, bframes=2, codec="mpeg4")
    assert taken(path, "10ms") == [(100_000 * (n + 1), n) for n in range(10)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_a_step_longer_than_the_clip_takes_its_first_frame(suffix: str, tmp_path: Path) -> None:
    """Of one frame, too."""
    codec = "mpeg4" if suffix == "avi" else "libx264"
    for frames in (20, 1):
        assert numbers(make_clip(tmp_path / f"{frames}.{suffix}", frames=frames, codec=codec), "10s") == [0]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_video_without_frames_is_an_error(suffix: str, tmp_path: Path) -> None:
    """Not an empty result."""
    with pytest.raises(VideoError):
        found(make_clip(tmp_path / f"clip.{suffix}", frames=0), "1s")


@pytest.mark.parametrize("start", [0.5, 6000])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_times_count_from_where_the_video_begins(suffix: str, start: float, tmp_path: Path) -> None:
    """Whatever its clock shows there."""
    path = make_clip(tmp_path / f"clip.{suffix}", frames=25, fps=25, start=start, bframes=2)
    assert taken(path, "400ms") == [(0, 0), (400_000, 10), (800_000, 20)]
    with open_video(path) as video:
        assert video.info.duration_us == pytest.approx(1_000_000, abs=1_000 if suffix != "mkv" else start * 1_000_000)
    assert not found(path, "400ms").is_truncated


def test_nothing_is_decoded_that_no_frame_needs(tmp_path: Path) -> None:
    """A group without a wanted time is left out; of others what lies behind it."""
    path = make_clip(tmp_path / "clip.mp4", frames=100, fps=10, gop=10)
    seen = found(path, "4s")
    assert (seen.packets, seen.frames_used) == (100, 3)
    assert seen.frames_decoded <= 12


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1", "mpeg4"])
def test_of_keyframes_nothing_else_is_decoded(codec: str, tmp_path: Path) -> None:
    """VP9 too, of which a decoder does not skip the others."""
    path = make_clip(tmp_path / "clip.mp4", frames=40, gop=12, codec=codec)
    assert numbers(path, "keyframes") == [0, 12, 24, 36]
    assert found(path, "keyframes").frames_decoded == 4


def test_a_keyframe_that_an_edit_list_cuts_off_is_stood_in_for(tmp_path: Path) -> None:
    """By the first frame behind it that is to be seen: a short clip would have none."""
    path = make_clip(tmp_path / "clip.mp4", frames=30, gop=20, start=-0.5, bframes=2)
    assert numbers(path, "keyframes") == [15, 20]


LONG: dict[str, dict[str, Any]] = {
    "h264": {"bframes": 2, "gop": 250},
    "hevc, open groups": {"codec": "libx265", "bframes": 3, "gop": 40, "options": {"x265-params": "log-level=none"}},
    "without keyframes but the first": {"gop": 10_000},
}


@pytest.mark.parametrize("clip", LONG.values(), ids=LONG)
@pytest.mark.parametrize("bound", [("MAX_PACKETS", 7), ("MAX_BYTES", 5000)])
def test_a_long_group_is_decoded_while_it_is_read(
    clip: dict[str, Any], bound: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same frames come of it, and no more than the bound is held."""
    path = make_clip(tmp_path / "clip.mkv", frames=90, width=160, height=90, **clip)
    expected = {text: taken(path, text) for text in ("100ms", "700ms", "5s", "keyframes", "scenes")}
    monkeypatch.setattr(gops, *bound)
    assert {text: taken(path, text) for text in expected} == expected
    with open_video(path) as video:
        for gop in video.groups():
            assert len(gop.packets) <= 90 if bound[0] == "MAX_BYTES" else 7


def test_what_follows_a_keyframe_with_a_wrong_time_is_not_held() -> None:
    """Of one that is hours ahead all the rest of a file would have to be shown before it."""
    read: list[int] = []

    def packet(number: int) -> Any:
        read.append(number)
        return SimpleNamespace(is_keyframe=number in (0, 5), pts=10**9 if number == 5 else number, duration=1, size=1)

    groups = iter(gops.Groups(map(packet, range(10_000)), lambda packet: packet.pts))
    assert next(groups).stop == 10**9
    assert len(read) <= 100


def test_a_video_that_is_refreshed_bit_by_bit_is_sampled_whole(tmp_path: Path) -> None:
    """What it marks as keyframes are only where a refresh begins; one of them alone is none."""
    path = make_clip(tmp_path / "clip.ts", frames=70, gop=20, options={"x264-params": "intra-refresh=1"})
    assert numbers(path, "200ms") == list(range(0, 70, 6))
    assert numbers(path, "5s") == [0]
    assert found(path, "200ms").damaged == 0


def test_a_stream_whose_clock_is_set_back_goes_on(tmp_path: Path) -> None:
    """As where the parts of a stream are joined to a file: nothing of the later ones is left out."""
    parts = [make_clip(tmp_path / f"{n}.ts", frames=60, bframes=2, gop=20) for n in range(3)]
    (joined := tmp_path / "joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = taken(joined, "500ms")
    assert [number for _, number in frames] == 3 * [0, 15, 30, 45]
    assert [time for time, _ in frames] == [500_000 * n for n in range(12)]


def test_an_intra_only_video_is_sampled_by_packet(tmp_path: Path) -> None:
    """Each of its frames is a group."""
    path = make_clip(tmp_path / "clip.mkv", frames=30, codec="mjpeg", pix_fmt="yuvj420p")
    assert numbers(path, "350ms") == [0, 10, 21]
    assert found(path, "350ms").frames_decoded <= 3


def test_frames_of_avi_are_counted_where_their_order_is_not_that_of_packets(tmp_path: Path) -> None:
    """H.264 with B-frames in AVI has no times; they are marked as estimated."""
    path = make_clip(tmp_path / "clip.avi", frames=30, fps=10, bframes=2, gop=10)
    with open_video(path) as video:
        frames = [(frame.pts_us, read_number(frame.rgb())) for frame in sample(video, Sampling.parse("700ms"))]
    assert frames == [(0, 0), (700_000, 7), (1_400_000, 14), (2_100_000, 21), (2_800_000, 28)]
    assert taken(path, "keyframes") == [(0, 0), (1_000_000, 10), (2_000_000, 20)]


def test_estimated_times_are_marked(tmp_path: Path) -> None:
    """Of each frame."""
    path = make_clip(tmp_path / "clip.avi", frames=8, bframes=2)
    for text in ("100ms", "keyframes", "scenes"):
        with open_video(path) as video:
            assert all(frame.time_estimated for frame in sample(video, Sampling.parse(text)))


def test_more_frames_than_a_video_may_have_are_refused(tmp_path: Path) -> None:
    """Before anything is decoded where the header says so, and where it turns out."""
    path = make_clip(tmp_path / "clip.mp4", frames=60)
    limits = VideoLimits(max_frames=3)
    with open_video(path, limits) as video, pytest.raises(TooLargeError, match="max_frames=3; take a longer step"):
        next(sample(video, Sampling.parse("500ms")))
    with open_video(path, limits) as video, pytest.raises(TooLargeError, match="max_frames=3"):
        list(sample(video, Sampling.parse("keyframes")))


@pytest.mark.parametrize("text", ["100ms", "5s", "keyframes", "scenes"])
def test_whoever_watches_is_told_of_every_packet(text: str, tmp_path: Path) -> None:
    """With its time; and may end the reading by an error."""
    path = make_clip(tmp_path / "clip.mp4", frames=40)
    times: list[int | None] = []
    with open_video(path) as video:
        list(sample(video, Sampling.parse(text), times.append))
    assert {round(n * 1_000_000 / 30) for n in range(40)} <= set(times)

    def enough(time_us: int | None) -> None:
        if time_us is not None and time_us > 500_000:
            raise TimeoutError("enough")

    with open_video(path) as video, pytest.raises(TimeoutError, match="enough"):
        list(sample(video, Sampling.parse(text), enough))
