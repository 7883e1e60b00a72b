"""Clips for tests of videos, made by PyAV; and a reader of the frame number that is burned into each frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

UInt8 = npt.NDArray[np.uint8]

BITS = 16
_TIME_BASE = Fraction(1, 90_000)

FASTEST = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
}
"""Options of encoders, which else look for small files."""


@dataclass(frozen=True, slots=True)
class Clip:
    """What a clip is like.

    Attributes:
        frames: how many; 0: a container with a video stream without any.
        fps: of a constant rate.
        times: seconds at which each frame appears, instead of `frames` and `fps`.
        start: seconds that are added to all times. Negative: frames before 0 are cut off by an edit list (mp4).
        width: of the frames as they are coded; rotation comes after it.
        height: the same.
        codec: encoder's name.
        gop: a keyframe at least every so many frames.
        bframes: in a row.
        pix_fmt: as it is coded.
        rotation: degrees counter-clockwise of the display matrix: 0, 90, 180, 270.
        mirrored: the matrix mirrors left and right, too.
        sample_aspect_ratio: width of a pixel / height.
        tags: attributes of the encoder's context and of each frame: ``color_trc``, ``colorspace``, ``color_range``.
        coded_as: number of the colour space that is coded without a tag; None: what the tags say, or BT.601.
        options: of the encoder, beside `FASTEST`.
        movflags: of the mp4 muxer.
        cover: an attached picture as the first stream.
        video: whether there is a video stream.
        sound: whether there is a track of silence, somewhat longer than the video.
        silence: seconds by which it goes on at least.
        draw: what is to be seen in frame ``n``: uint8 ``[height, width, 3]``, or uint16 of the full range; None:
            `picture`.
    """

    frames: int = 24
    fps: Fraction | int = 30
    times: Sequence[float] = ()
    start: float = 0
    width: int = 320
    height: int = 180
    codec: str = "libx264"
    gop: int = 12
    bframes: int = 0
    pix_fmt: str = "yuv420p"
    rotation: int = 0
    mirrored: bool = False
    sample_aspect_ratio: Fraction | None = None
    tags: dict[str, int] = field(default_factory=dict[str, int])
    coded_as: int | None = None
    options: dict[str, str] = field(default_factory=dict[str, str])
    movflags: str = ""
    cover: bool = False
    video: bool = True
    sound: bool = False
    silence: float = 0
    draw: Callable[[int], UInt8 | npt.NDArray[np.uint16]] | None = None

    @property
    def coded(self) -> list[float]:
        """When each frame appears, in seconds of the file's own clock."""
        times = self.times or [float(n / Fraction(self.fps)) for n in range(self.frames)]
        return [time + self.start for time in times]

    @property
    def shown(self) -> dict[int, float]:
        """Each frame that is to be seen, and when: seconds from the first one."""
        return {n: time - max(self.start, 0) for n, time in enumerate(self.coded) if time > -1e-6}


def make_clip(path: Path, clip: Clip | None = None, **changes: Any) -> Path:
    """Write a clip; its container is said by the suffix of the path.

    Args:
        path: of the file.
        clip: None: made of `changes`.
        changes: fields of `Clip`.

    Returns:
        The path.
    """
    import av

    os.environ.setdefault("SVT_LOG", "1")  # errors only: it writes to standard error
    clip = clip or Clip(**changes)
    options = {"movflags": clip.movflags} if clip.movflags else {}
    if clip.start < 0:
        options["avoid_negative_ts"] = "disabled"
    with _scheduled_as_before(), av.open(str(path), "w", options=options) as container:
        cover = _cover(container) if clip.cover else None
        stream = _video(container, clip) if clip.video else None
        sound = container.add_stream("aac", rate=8000, layout="mono") if clip.sound else None
        if cover is not None:
            container.mux(cover)
        if stream is not None and not clip.frames:
            container.start_encoding()
        elif stream is not None:
            for n, time in enumerate(clip.coded):
                container.mux(stream.encode(_frame(clip, n, round(time / _TIME_BASE))))
            container.mux(stream.encode(None))
        if sound is not None:
            _silence(container, sound, max([*clip.coded, 0.5]) + 0.1 + clip.silence)
    return path


@contextmanager
def _scheduled_as_before() -> Generator[None, None, None]:
    """Of a superuser the AV1 encoder makes the thread that opens it real-time, and so all processes it starts."""
    policy, param = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, param)


def picture(n: int, width: int, height: int) -> UInt8:
    """Frame ``n``: a moving, coloured pattern with the number in 16 blocks along the upper edge.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    y, x = np.mgrid[0:height, 0:width]
    moved = x + 3 * n
    channels = 128 + 60 * np.sin(moved / 23), 128 + 60 * np.cos((y + n) / 17), 96 + (moved // 8 + y // 8) % 2 * 64
    return number(np.rint(np.stack(channels, -1)).astype(np.uint8), n)


def number(rgb: UInt8, n: int) -> UInt8:
    """Burn a number into a picture, in place: its bits, the highest first, as white and black blocks.

    In Gray code, of which one bit changes from a number to the next one: a detector of scenes would see more.
    """
    height, width = rgb.shape[:2]
    n ^= n >> 1
    for bit in range(BITS):
        left, right = (width * side // BITS for side in (bit, bit + 1))
        rgb[: height // 4, left:right] = 255 * (n >> (BITS - 1 - bit) & 1)
    return rgb


def read_number(rgb: UInt8) -> int:
    """The number that is burned into a frame, of whatever size it has been scaled to.

    Args:
        rgb: uint8 ``[h, w, 3]``, upright.

    Raises:
        ValueError: there is none: a block is neither black nor white.
    """
    height, width = rgb.shape[:2]
    found = 0
    for bit in range(BITS):
        left, right = ((width * (4 * bit + part)) // (4 * BITS) for part in (1, 3))
        level = float(rgb[height // 16 : height * 3 // 16, left : max(right, left + 1)].mean())
        if 80 < level < 176:
            raise ValueError(f"block {bit} is neither black nor white: {level:.0f}")
        found = found << 1 | ((level > 128) ^ (found & 1))
    return found


def damage(path: Path, *, spots: int, length: int = 64, seed: int = 0) -> Path:
    """Overwrite places in the middle of a file with noise, evenly spread."""
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for spot in range(spots):
        start = len(data) * (2 * spot + 3) // (2 * spots + 6)
        data[start : start + length] = rng.bytes(min(length, len(data) - start))
    path.write_bytes(data)
    return path


def cut(path: Path, share: float) -> Path:
    """Cut off a file behind this share of it."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def _video(container: OutputContainer, clip: Clip) -> VideoStream:
    rate = Fraction(clip.fps)
    options = {**FASTEST.get(clip.codec, {}), "g": str(clip.gop), **clip.options}
    stream = cast("VideoStream", container.add_stream(clip.codec, rate=rate, options=options))
    stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, clip.pix_fmt
    context = stream.codec_context
    if clip.codec not in ("mpeg4", "mpeg2video"):  # theirs is the rate
        context.time_base = _TIME_BASE
    context.gop_size, context.max_b_frames, context.thread_count = clip.gop, clip.bframes, 1
    if clip.sample_aspect_ratio is not None:
        context.sample_aspect_ratio = clip.sample_aspect_ratio
    for name, value in clip.tags.items():
        setattr(context, name, value)
    if clip.rotation or clip.mirrored:
        stream.set_display_rotation(clip.rotation, hflip=clip.mirrored)
    return stream


def _frame(clip: Clip, n: int, pts: int) -> Any:
    from av.video.frame import VideoFrame

    rgb = clip.draw(n) if clip.draw else picture(n, clip.width, clip.height)
    frame = VideoFrame.from_ndarray(rgb, "rgb24" if rgb.dtype == np.uint8 else "rgb48le")
    meant = clip.coded_as or clip.tags.get("colorspace")
    # by the scaler's numbers of colour spaces, which differ from those of H.273 but for these three
    space = {1: 1, 9: 9}.get(meant or 0, 5)
    frame = frame.reformat(format=clip.pix_fmt, dst_colorspace=space, dst_color_range=clip.tags.get("color_range"))
    frame.colorspace, frame.color_range = clip.tags.get("colorspace", 2), clip.tags.get("color_range", 0)
    frame.pts, frame.time_base = pts, _TIME_BASE
    for name, value in clip.tags.items():
        setattr(frame, name, value)
    return frame


def _cover(container: OutputContainer) -> Packet[Stream]:
    import av.stream
    from av.video.frame import VideoFrame

    stream = container.add_stream("mjpeg", rate=1, options={"strict": "unofficial"})
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
    stream.disposition = av.stream.Disposition.attached_pic
    frame = VideoFrame.from_ndarray(np.full((64, 64, 3), 200, np.uint8), "rgb24").reformat(format="yuvj420p")
    frame.pts = 0
    return (stream.encode(frame) + stream.encode(None))[0]


def _silence(container: OutputContainer, stream: Any, seconds: float) -> None:
    from av.audio.frame import AudioFrame

    for block in range(int(seconds * 8000) // 1024 + 1):
        frame = AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 8000, block * 1024
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
