"""Open a video file: what is in it, and its packets."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigError, ReadError, TooLargeError, VideoError
from ...messages import kind_of_path
from .description import VideoFindings, VideoInfo, VideoLimits

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,avi,flv,ogg,asf,mxf"
"""Containers that are read. Others are pictures, or lists that name further files and hosts."""


@dataclass(slots=True)
class Video:
    """A video file that is open. Made by `open_video`.

    Attributes:
        info: What its header says.
        limits: What it may be.
        found: What was found while it was read.
    """

    info: VideoInfo
    limits: VideoLimits
    container: InputContainer
    stream: VideoStream
    found: VideoFindings = field(default_factory=VideoFindings)

    @property
    def time_base(self) -> Fraction:
        """Seconds of a tick."""
        return self.stream.time_base or Fraction(1, 1_000_000)

    def us(self, ticks: int) -> int:
        """Microseconds from the start of the video."""
        return round((ticks - (self.stream.start_time or 0)) * self.time_base * 1_000_000)

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """All packets of its video stream."""
        for packet in self.container.demux(self.stream):
            self.found.packets += 1
            yield packet


@contextmanager
def open_video(path: str | os.PathLike[str], limits: VideoLimits | None = None) -> Generator[Video, None, None]:
    """Open a video file.

    Args:
        path: A file, never a URL.
        limits: None: the defaults.

    Raises:
        ConfigError: PyAV is not installed.
        ReadError: There is no such file, or it may not be read.
        VideoError: It is none that can be read, or has no video stream.
        TooLargeError: It is over a limit.
    """
    try:
        import av
        import av.error
        from av.stream import Disposition
    except ImportError as error:
        raise ConfigError("videos need PyAV: pip install 'penstock[videos]'") from error
    limits = limits or VideoLimits()
    name = Path(path).absolute()
    try:
        mode = name.stat().st_mode
    except OSError as error:
        raise ReadError(f"cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise VideoError(f"{kind_of_path(mode)}, not a file")
    try:
        container = av.open(
            f"file:{name}",
            options={"protocol_whitelist": "file", "format_whitelist": FORMATS, "fflags": "+genpts"},
        )
    except av.error.FFmpegError as error:
        raise VideoError(f"no video that can be read: {error.strerror}") from error
    with container:
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            raise VideoError("it has no video stream")
        stream = streams[0]
        context = stream.codec_context
        context.thread_count = 1
        if context.width * context.height > limits.max_pixels:
            raise TooLargeError(f"{context.width} x {context.height} pixels are over max_pixels={limits.max_pixels}")
        duration = None if stream.duration is None else stream.duration * (stream.time_base or 0)
        info = VideoInfo(
            context.width,
            context.height,
            container.duration if duration is None else round(duration * 1_000_000),
            float(stream.average_rate) if stream.average_rate else None,
            context.name,
            container.format.name,
        )
        yield Video(info, limits, container, stream)
