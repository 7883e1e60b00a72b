"""Open a file of which nothing is believed: what it may be is decided here, before anything is decoded."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from ...errors import ConfigError, ReadError, TooLargeError, UnsupportedFormatError, VideoError
from ...messages import kind_of_path
from .description import VideoFindings, VideoInfo, VideoLimits
from .hdr import is_hdr
from .orientation import Orientation, orientation_of
from .pixels import coded_size, square_pixels
from .video import SECOND, Video, demuxed

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FORMATS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,avi,flv,ogg,asf,mxf"
"""Containers that are read. Others are pictures, or lists that name further files and hosts."""

_BLOCK: Final = 64
"""Pixels of the largest blocks that frames are coded in."""

_LOOKED_AT: Final = 64
"""Packets in which the first frame is looked for."""


@contextmanager
def open_video(path: str | os.PathLike[str], limits: VideoLimits | None = None) -> Generator[Video, None, None]:
    """Open a video file. Its first frame is decoded: only that says how frames lie.

    Args:
        path: Of a file; whatever it looks like, it is not a URL.
        limits: None: the defaults.

    Raises:
        ConfigError: PyAV is not installed.
        ReadError: There is no such file, or it may not be read.
        UnsupportedFormatError: It is no container that is read.
        TooLargeError: It is over a limit.
        VideoError: It is none, or has no video stream.
    """
    limits = limits or VideoLimits()
    name = _regular(Path(path).absolute())
    with _container(name) as container:
        stream = _stream(container)
        _check(container, stream, limits)
        context = stream.codec_context
        context.thread_count = 1  # there is a process for each core
        # Damage is an error and not smeared over; and a stream may be larger than its header says. (In whole blocks.)
        coded = (context.width + _BLOCK) * (context.height + _BLOCK)
        context.options = {"err_detect": "explode", "max_pixels": str(max(limits.max_pixels, coded))}
        found = VideoFindings()
        first: list[Packet[VideoStream]] = []
        frame = _first_frame(container, stream, first, found)
        info = _info(container, stream, frame)
        # AVI has no times of frames, only their order; FFmpeg's guess is wrong where that is not the order of decoding.
        reordered = container.format.name == "avi" and context.name in ("h264", "hevc") and context.has_b_frames
        has_times = not reordered and bool(first) and first[0].pts is not None
        start = stream.start_time if stream.start_time is not None or not first else first[0].pts
        base = stream.time_base or Fraction(1, SECOND)
        yield Video(info, limits, name, container, stream, base, start or 0, first, has_times, found=found)


def _regular(path: Path) -> Path:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ReadError(f"cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):  # a FIFO would be waited for, and no timeout of FFmpeg's interrupts that
        raise VideoError(f"{'a folder' if stat.S_ISDIR(mode) else kind_of_path(mode)}, not a file")
    return path


def _container(path: Path) -> InputContainer:
    try:
        import av
        import av.error
    except ImportError as error:
        raise ConfigError("videos need PyAV: pip install 'penstock[videos]'") from error
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS, "fflags": "+genpts"}
    try:
        # "file:" in front, since a name such as concat:a|b would be a protocol
        return av.open(f"file:{path}", options=options)
    except av.error.ArgumentError as error:
        raise UnsupportedFormatError(f"no container that is read (those are {FORMATS})") from error
    except (av.error.PermissionError, av.error.FileNotFoundError) as error:
        raise ReadError(f"cannot be read: {error.strerror}") from error
    except av.error.FFmpegError as error:
        raise VideoError(f"no video, or one without its index: {error.strerror}") from error


def _stream(container: InputContainer) -> VideoStream:
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    has = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise VideoError(f"it has no video stream, only {'a cover picture' if container.streams.video else has}")


def _check(container: InputContainer, stream: VideoStream, limits: VideoLimits) -> None:
    context = cast("VideoCodecContext | None", stream.codec_context)
    if context is None:
        raise UnsupportedFormatError("no decoder knows its codec")
    if context.width * context.height > limits.max_pixels:
        raise TooLargeError(
            f"frames of {context.width} x {context.height} pixels are over max_pixels={limits.max_pixels}"
        )
    duration = _duration_us(container, stream)
    if duration is not None and duration > limits.max_duration_s * SECOND:
        raise TooLargeError(f"a duration of {duration / SECOND:g} s is over max_duration_s={limits.max_duration_s:g}")


def _duration_us(container: InputContainer, stream: VideoStream) -> int | None:
    if stream.duration and stream.time_base:
        return round(stream.duration * stream.time_base * SECOND)
    return container.duration


def _first_frame(
    container: InputContainer,
    stream: VideoStream,
    read: list[Packet[VideoStream]],
    found: VideoFindings,
) -> VideoFrame | None:
    """Of the first keyframe alone, or else of the first packets; None: there is none in them."""
    for packet in islice(demuxed(container, stream, found), _LOOKED_AT):
        read.append(packet)
        if packet.is_keyframe and (frame := _one_of(stream, [packet])) is not None:
            return frame
    return _one_of(stream, read)


def _one_of(stream: VideoStream, packets: Sequence[Packet[VideoStream]]) -> VideoFrame | None:
    """The first frame of packets; the decoder is left as it was."""
    import av.error

    frames: list[VideoFrame] = []
    for packet in (*packets, None):
        if not frames:
            with suppress(av.error.FFmpegError):
                frames = stream.codec_context.decode(packet)
    stream.codec_context.flush_buffers()
    return frames[0] if frames else None


def _info(container: InputContainer, stream: VideoStream, frame: VideoFrame | None) -> VideoInfo:
    context = stream.codec_context
    size = (context.width, context.height)
    if frame is not None:
        size = coded_size(frame, square_pixels(stream.sample_aspect_ratio))
    lies = orientation_of(frame) if frame is not None else Orientation()
    return VideoInfo(
        *(size[::-1] if lies.is_transposed else size),
        duration_us=_duration_us(container, stream),
        fps=float(stream.average_rate) if stream.average_rate else None,
        codec=context.name,
        container=container.format.name,
        rotation=lies.rotation,
        is_mirrored=lies.is_mirrored,
        is_interlaced=frame is not None and frame.interlaced_frame,
        is_hdr=frame is not None and is_hdr(frame),
    )
