"""Frames of a group of pictures, each with its time; where the data is damaged, none until the next keyframe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from .gops import Gop
from .video import Video

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A decoded frame.

    Attributes:
        decoded: As the decoder made it.
        ticks: When it is shown.
        is_estimated: The file does not say when; the frames before it were counted.
    """

    decoded: VideoFrame
    ticks: int
    is_estimated: bool = False


class FrameDecoder:
    """The decoder of one video.

    Attributes:
        is_damaged: Whether the last group ended by damage.
    """

    def __init__(self, video: Video) -> None:
        self._video = video
        self._context = video.stream.codec_context
        self._shown: int | None = None  # when the last frame was, for those without a time
        self.is_damaged = False

    def frames(self, gop: Gop) -> Iterator[TimedFrame]:
        """Frames that are shown before the next group, in the order in which they are, decoded as they are asked for.

        Damage ends it: what follows looks right at best.
        """
        begins = self._video.ticks(gop.head)
        frames = self.alone(gop)
        first = next(frames, None)
        if gop.before and begins is not None and self._is_late(gop, first, begins):
            first, frames = None, self.alone(chain(gop.before, gop))
        for frame in chain(() if first is None else (first,), frames):
            if gop.stop is not None and frame.ticks >= gop.stop:
                return
            if begins is None or frame.ticks >= begins:
                yield frame

    def _is_late(self, gop: Gop, first: TimedFrame | None, begins: int) -> bool:
        """Whether a group does not begin with its keyframe: it takes some of its packets until a picture is whole."""
        if gop.head.is_discard or self.is_damaged or not gop.is_whole:
            return False
        return first is None or first.ticks > begins

    def alone(self, packets: Iterable[Packet[VideoStream]]) -> Iterator[TimedFrame]:
        """Frames of packets of which the first is a keyframe."""
        self.is_damaged = False
        self._context.flush_buffers()
        for packet in packets:
            self._video.tell(packet)
            yield from self._decoded(packet)
            if self.is_damaged:
                break
        yield from self._decoded(None)

    def _decoded(self, packet: Packet[VideoStream] | None) -> Iterator[TimedFrame]:
        """Frames that come out when a packet is fed; None: those that are still in the decoder."""
        import av.error

        try:
            decoded = self._context.decode(packet)
        except av.error.FFmpegError:
            self._damage()
            return
        for frame in decoded:
            self._video.found.frames_decoded += 1
            if frame.is_corrupt:
                self._damage()
                return
            yield self._timed(frame)

    def _damage(self) -> None:
        self._video.found.damaged += not self.is_damaged
        self.is_damaged = True

    def _timed(self, frame: VideoFrame) -> TimedFrame:
        ticks = frame.pts if self._video.has_times else None
        is_estimated = ticks is None
        if ticks is None:
            ticks = self._video.start if self._shown is None else self._shown + self._video.ticks_a_frame
        self._shown = ticks
        return TimedFrame(frame, ticks, is_estimated)
