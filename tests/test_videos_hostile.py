"""Files that are broken, are none, or mean harm: each is an error of its own, or is marked; none opens another file."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from penstock.errors import ConfigError, DecodeError, ReadError, TooLargeError, UnsupportedFormatError, VideoError
from penstock.preprocess.videos import Sampling, VideoFindings, VideoLimits, open_video, sample
from penstock.tests.clips import UInt8, cut, damage, make_clip, read_number


def read(path: Path, text: str = "100ms") -> tuple[list[int], VideoFindings]:
    """Numbers of the frames, and what was found."""
    with open_video(path) as video:
        return [read_number(frame.rgb()) for frame in sample(video, Sampling.parse(text))], video.found


def test_an_index_at_the_end_that_is_cut_off_leaves_no_video(tmp_path: Path) -> None:
    """Of MP4 as cameras write it."""
    path = cut(make_clip(tmp_path / "clip.mp4", frames=60), 0.5)
    with pytest.raises(VideoError, match="no video, or one without its index"):
        read(path)


CUT: dict[str, dict[str, Any]] = {
    "mp4": {"movflags": "+faststart"},
    "mkv": {},
    "webm": {"codec": "libvpx-vp9"},
}


@pytest.mark.parametrize("suffix", CUT)
@pytest.mark.parametrize("text", ["100ms", "keyframes", "scenes"])
def test_frames_of_a_truncated_file_are_kept_and_it_is_marked(suffix: str, text: str, tmp_path: Path) -> None:
    """Also where it ends silently: the header says how long it was."""
    path = make_clip(tmp_path / f"clip.{suffix}", frames=100, width=160, height=90, **CUT[suffix])
    whole, found = read(path, text)
    assert not found.is_truncated
    some, found = read(cut(path, 0.5), text)
    assert found.is_truncated
    assert len(some) > 0
    assert some == whole[: len(some)] or text == "scenes"


def test_a_transport_stream_that_is_cut_gives_what_is_there(tmp_path: Path) -> None:
    """It declares the shorter duration itself: that it was longer cannot be known."""
    path = cut(make_clip(tmp_path / "clip.ts", frames=100), 0.5)
    some, found = read(path)
    assert some == list(range(0, 3 * len(some), 3))
    assert not found.is_truncated


def test_sound_that_goes_on_is_no_truncation(tmp_path: Path) -> None:
    """The duration of a container is that of its longest stream."""
    for suffix in ("mp4", "mkv"):
        path = make_clip(tmp_path / f"clip.{suffix}", frames=20, sound=True, silence=4.0)
        assert not read(path)[1].is_truncated


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mpeg2video"])  # AV1 and VP9 decode whatever is there
@pytest.mark.parametrize("seed", [1, 2, 3])  # and so does H.264 with one of three such noises
def test_damage_ends_at_the_next_keyframe_and_is_counted(codec: str, seed: int, tmp_path: Path) -> None:
    """What is taken are the very frames of the undamaged file: none that only looks like one."""
    path = make_clip(tmp_path / "clip.mp4", frames=90, gop=12, bframes=2, width=160, height=90, codec=codec)

    def pictures() -> dict[int, UInt8]:
        with open_video(path) as video:
            found.append(video.found)
            return {frame.pts_us: frame.rgb() for frame in sample(video, Sampling.parse("33ms"))}

    found: list[VideoFindings] = []
    whole = pictures()
    damage(path, spots=2, length=24, seed=seed)
    some = pictures()
    assert (found[0].damaged, found[0].missed) == (0, 0)
    assert found[1].damaged in (1, 2)
    assert 0 < found[1].missed < 45
    assert 45 < len(some) < len(whole)
    assert [time for time, rgb in some.items() if not np.array_equal(rgb, whole[time])] == []


@pytest.mark.parametrize("text", ["33ms", "keyframes", "scenes"])
def test_more_than_half_damaged_is_an_error(text: str, tmp_path: Path) -> None:
    """Known at the end only."""
    path = make_clip(tmp_path / "clip.mp4", frames=90, gop=6, width=160, height=90)
    damage(path, spots=60, length=100)
    with pytest.raises(VideoError, match=r"damaged in \d+ places: \d+ frames cannot be decoded|index"):
        read(path, text)


def html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>404 not found</body></html>" * 50)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(100_000))


def empty(path: Path) -> None:
    path.touch()


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(100_000))


def beginning(path: Path) -> None:
    make_clip(path)
    cut(path, 0.01)


@pytest.mark.parametrize("write", [html, zeros, empty, noise, beginning])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_what_is_no_video_is_a_decode_error(write: Callable[[Path], None], suffix: str, tmp_path: Path) -> None:
    """Whatever its name."""
    write(path := tmp_path / f"clip.{suffix}")
    with pytest.raises(DecodeError):
        read(path)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_picture_is_no_video(name: str, tmp_path: Path) -> None:
    """FFmpeg would open it as one of a single frame."""
    Image.new("RGB", (64, 64)).save(path := tmp_path / "clip.mp4", name)
    with pytest.raises(UnsupportedFormatError, match="no container that is read"):
        read(path)


class Listener:
    """A server on the loopback that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked = asked = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


LISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{other}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{other}'\n",
    "sdp": "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "mpd": "<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><Period><BaseURL>{other}</BaseURL></Period></MPD>",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "mkv"])
def test_a_list_opens_no_other_file_and_no_connection(text: str, suffix: str, tmp_path: Path) -> None:
    """Playlists under any name: what they name stays unread."""
    listener = Listener()
    thread = Thread(target=listener.server.serve_forever)
    thread.start()
    try:
        other = make_clip(tmp_path / "secret.ts", frames=5)
        for target in (str(other), "secret.ts", f"{listener.url}/x.ts"):
            path = tmp_path / f"list.{suffix}"
            path.write_text(text.format(other=target))
            with pytest.raises(DecodeError):
                read(path)
    finally:
        listener.server.shutdown()
        listener.server.server_close()
        thread.join()
    assert listener.asked == []


@pytest.mark.parametrize("name", ["concat:clip.mp4|clip.mp4", "subfile,,start,0,end,9,,:clip.mp4", "data:x", "http:x"])
def test_a_name_is_no_protocol(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with such a name is read; without one nothing is."""
    monkeypatch.chdir(tmp_path)
    clip = make_clip(tmp_path / "clip.mp4", frames=4)
    with pytest.raises(ReadError, match="cannot be read: No such file"):
        read(Path(name))
    clip.rename(tmp_path / name)
    assert read(Path(name))[0] == [0, 3]


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """Opening a FIFO would wait for whoever writes into it."""
    os.mkfifo(tmp_path / "clip.mp4")
    with pytest.raises(VideoError, match="a FIFO, not a file"):
        read(tmp_path / "clip.mp4")
    with pytest.raises(VideoError, match="a folder, not a file"):
        read(tmp_path)
    with pytest.raises(ReadError):
        read(tmp_path / "none.mp4")


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    """It is a stream of one frame, before or behind the real one."""
    assert read(make_clip(tmp_path / "clip.mp4", frames=10, cover=True))[0] == [0, 3, 6, 9]


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    """Nor with a cover picture."""
    with pytest.raises(VideoError, match="no video stream, only audio"):
        read(make_clip(tmp_path / "sound.mp4", video=False, sound=True))
    with pytest.raises(VideoError, match="no video stream, only a cover picture"):
        read(make_clip(tmp_path / "covered.mp4", video=False, sound=True, cover=True))


def test_limits_are_held_before_anything_is_decoded(tmp_path: Path) -> None:
    """By what the header says."""
    path = make_clip(tmp_path / "clip.mp4", frames=60)
    for limits, message in (
        (VideoLimits(max_pixels=320 * 180 - 1), "frames of 320 x 180 pixels are over max_pixels=57599"),
        (VideoLimits(max_duration_s=1.5), "a duration of 2 s is over max_duration_s=1.5"),
    ):
        with pytest.raises(TooLargeError, match=message), open_video(path, limits):
            pass
    with pytest.raises(ConfigError, match="max_frames=0"):
        VideoLimits(max_frames=0)


def declare(path: Path, seconds: float) -> Path:
    """Have a Matroska file of two seconds say another duration."""
    hours, rest = divmod(seconds, 3600)
    tag = f"{int(hours):02d}:{int(rest // 60):02d}:{rest % 60:012.9f}".encode()
    data = path.read_bytes().replace(b"00:00:02.000000000", tag)  # of the stream
    at = data.index(b"\x44\x89\x88") + 3  # of the segment: milliseconds, float64
    path.write_bytes(data[:at] + struct.pack(">d", seconds * 1000) + data[at + 8 :])
    return path


def test_a_video_that_is_longer_than_it_said_is_ended(tmp_path: Path) -> None:
    """By its own clock."""
    path = declare(make_clip(tmp_path / "clip.mkv", frames=60), 0.1)
    with open_video(path, VideoLimits(max_duration_s=1)) as video, pytest.raises(TooLargeError, match="it goes on"):
        list(sample(video, Sampling.parse("100ms")))


def test_ten_declared_hours_take_no_longer_than_what_is_there(tmp_path: Path) -> None:
    """The rest of them is missing."""
    numbers, found = read(declare(make_clip(tmp_path / "clip.mkv", frames=60), 36_000), "1s")
    assert numbers == [0, 30]
    assert found.is_truncated


def test_a_stream_of_other_sizes_than_the_header_says_stays_within_the_limit(tmp_path: Path) -> None:
    """VP8 says its size in each keyframe: 16383 x 16383 here, under a header of 320 x 180."""
    path = make_clip(tmp_path / "clip.webm", frames=24, gop=12, codec="libvpx")
    data = path.read_bytes().replace(b"\x9d\x01\x2a", b"\x9d\x01\x2b")
    first, second = (data.index(b"\x9d\x01\x2b"), data.rindex(b"\x9d\x01\x2b"))
    assert first < second
    size = (16383).to_bytes(2, "little") * 2
    made = data[: second + 3] + size + data[second + 7 :]
    path.write_bytes(made.replace(b"\x9d\x01\x2b", b"\x9d\x01\x2a"))
    numbers, found = read(path)
    assert numbers == [0, 3, 6, 9]
    assert found.damaged == 1


def test_frames_may_change_their_size_within_the_limit(tmp_path: Path) -> None:
    """As joined parts of a stream do; beyond it they are damage, and no memory is taken for them."""
    parts = [
        make_clip(tmp_path / f"{width}.ts", frames=30, width=width, height=width * 9 // 16) for width in (160, 320)
    ]
    (joined := tmp_path / "joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    for limits, widths, damaged in (
        (VideoLimits(), {160, 320}, False),
        (VideoLimits(max_pixels=160 * 90), {160}, True),
    ):
        with open_video(joined, limits) as video:
            assert {frame.rgb().shape[1] for frame in sample(video, Sampling.parse("100ms"))} == widths
        assert (video.found.damaged > 0) == damaged


def test_a_file_that_is_no_video_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """Nor one that is, when it has been read, or when its reader has had enough."""
    good = make_clip(tmp_path / "good.mp4")
    (bad := tmp_path / "bad.mp4").write_bytes(bytes(1000))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with open_video(good) as video:
            next(sample(video, Sampling.parse("100ms")))
        with pytest.raises(VideoError):
            read(bad)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_pyav_is_imported_when_a_video_is_opened() -> None:
    """It is an extra; its absence is one line that says how to get it."""
    code = """
import sys
import penstock, penstock.preprocess, penstock.preprocess.videos as videos
assert "av" not in sys.modules
videos.Sampling.parse("1s")
sys.modules["av"] = None
try:
    with videos.open_video(sys.executable):
        pass
except penstock.ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/")
    assert done.stdout == "videos need PyAV: pip install 'penstock[videos]'\n"


@pytest.mark.parametrize("text", ["soon", "00:00:1/0", "1e9:0:0", "0:0:1e999999999"])
def test_a_tag_of_matroska_that_is_no_duration_says_nothing(text: str, tmp_path: Path) -> None:
    """Anybody may write anything there, a number with a billion digits among it."""
    path = make_clip(tmp_path / "clip.mkv", frames=10)
    data = path.read_bytes()
    at = data.index(b"DURATION") + 11  # behind its name, and the head of its text
    path.write_bytes(data[:at] + text.encode().ljust(18, b"\0") + data[at + 18 :])
    numbers, found = read(path)
    assert (len(numbers), found.is_truncated) == (4, False)
