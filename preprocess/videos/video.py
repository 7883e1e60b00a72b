"""An open video: what is in it, and its packets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...errors import TooLargeError
from .description import VideoFindings, VideoInfo, VideoLimits
from .gops import Groups
from .pixels import square_pixels

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

OnPacket = Callable[[int | None], None]
"""Called with the time of each packet, in microseconds from the start, when it is read and when it is decoded; None:
the file does not say. What it raises ends the reading."""

SECOND: Final = 1_000_000
"""Microseconds."""

_SHORT = Fraction(1, 50)
"""Of the declared duration, but at least a second: what may be missing at the end."""

_CLOCK: Final = re.compile(r"(\d{1,9}):(\d{1,2}):(\d{1,2}(?:\.\d{1,18})?)\0*$", re.ASCII)


@dataclass(slots=True)
class Video:
    """A video file that is open; made by `open_video`. It is read once.

    Attributes:
        info: What its header and its first frame say.
        limits: What it may be.
        path: Of the file.
        container: As PyAV has opened it.
        stream: Its first video stream that is no cover picture.
        time_base: Seconds of a tick of the stream's clock.
        start: Ticks at which it begins.
        first: Packets that have been read to find the first frame.
        has_times: Whether the file says when its frames are shown.
        on_packet: See `OnPacket`.
        found: What was found while it was read.
    """

    info: VideoInfo
    limits: VideoLimits
    path: Path
    container: InputContainer
    stream: VideoStream
    time_base: Fraction
    start: int
    first: list[Packet[VideoStream]] = field(default_factory=list["Packet[VideoStream]"])
    has_times: bool = True
    on_packet: OnPacket | None = None
    found: VideoFindings = field(default_factory=VideoFindings)

    @property
    def aspect(self) -> Fraction:
        """Width of a pixel to its height."""
        return square_pixels(self.stream.sample_aspect_ratio)

    @property
    def ticks_a_frame(self) -> int:
        """How long a frame is shown, on average."""
        return max(1, round(1 / ((self.stream.guessed_rate or Fraction(25)) * self.time_base)))

    def us(self, ticks: int) -> int:
        """Microseconds from its start."""
        half = self.time_base.denominator  # integers: this is asked of every packet
        return (2 * (ticks - self.start) * self.time_base.numerator * SECOND + half) // (2 * half)

    def ticks(self, packet: Packet[VideoStream]) -> int | None:
        """When a packet is shown; None: the file does not say."""
        return packet.pts if self.has_times else None

    def tell(self, packet: Packet[VideoStream]) -> None:
        """Tell whoever watches that this packet's turn has come."""
        if self.on_packet is not None:
            shown = self.ticks(packet)
            self.on_packet(None if shown is None else self.us(shown))

    def groups(self) -> Groups:
        """Its packets by what can be decoded alone."""
        return Groups(self.packets(), self.ticks)

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """All packets of its stream, in the order of decoding. At their end it is known whether the file is whole.

        Raises:
            TooLargeError: They go on for longer than a video may.
        """
        longest, second = (int(seconds / self.time_base) for seconds in (self.limits.max_duration_s, 1))
        end, shift, is_whole, frame = self.start, 0, True, self.ticks_a_frame
        for packet in chain(self.first, demuxed(self.container, self.stream, self.found)):
            self.found.packets += 1
            if packet.pts is not None:
                if packet.is_keyframe and packet.pts + shift < end - second:
                    shift = (
                        end - packet.pts
                    )  # its clock was set back, as where parts of a stream are joined: it goes on
                packet.pts += shift
                end = max(end, packet.pts + (packet.duration or frame))
            if end - self.start > longest:
                raise TooLargeError(f"it goes on beyond max_duration_s={self.limits.max_duration_s:g}")
            is_whole = not packet.is_corrupt
            self.tell(packet)
            yield packet
        self.found.end_us = self.us(end)
        declared = self._declared()
        if not is_whole or (declared and declared - end * self.time_base > max(Fraction(1), _SHORT * declared)):
            self.found.is_truncated = True

    def _declared(self) -> Fraction | None:
        """Seconds of its clock at which the stream ends, where something says that of this stream."""
        if self.stream.duration:
            return (self.stream.duration + self.start) * self.time_base
        if (tag := self.stream.metadata.get("DURATION")) is not None:  # Matroska
            return _clock(tag)
        if self.container.duration and len(self.container.streams) == 1:
            return Fraction(self.container.duration, SECOND) + self.start * self.time_base
        return None


def _clock(text: str) -> Fraction | None:
    """Seconds of ``01:02:03.400000000``; None where it is something else: anybody may write anything there."""
    found = _CLOCK.match(text)
    return 3600 * int(found[1]) + 60 * int(found[2]) + Fraction(found[3]) if found else None


def demuxed(container: InputContainer, stream: VideoStream, found: VideoFindings) -> Iterator[Packet[VideoStream]]:
    """Packets of a stream, up to where the file can be read."""
    import av.error

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            found.is_truncated = True
            return
        if packet is None:
            return
        if packet.size:  # the last one is empty: it tells a decoder to give what it has left
            yield packet
