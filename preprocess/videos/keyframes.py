"""Keyframes: the packets say which they are, and nothing else is decoded.

(A decoder can be told to skip the others; that of VP9 does not listen.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .decoder import FrameDecoder, TimedFrame
from .video import Video


class Keyframes:
    """The keyframes of a video.

    Args:
        video: Of which.

    Attributes:
        had: How many were decoded.
        missed: How many could not be.
    """

    def __init__(self, video: Video) -> None:
        self._video = video
        self._decoder = FrameDecoder(video)
        self.had = self.missed = 0

    def frames(self) -> Iterator[TimedFrame]:
        """Each of them. Where an edit list cuts one off, the first frame behind it that is to be seen."""
        if not self._video.has_times:
            yield from self._counted()
            return
        for gop in self._video.groups():
            frame = next(self._decoder.alone([gop.head]), None)
            if frame is None and gop.head.is_discard:
                frame = next(self._decoder.frames(gop), None)
            yield from self._given(frame)

    def _counted(self) -> Iterator[TimedFrame]:
        """Those of a file without times: by how many packets come before."""
        for number, packet in enumerate(self._video.packets()):
            if packet.is_keyframe:
                frame = next(self._decoder.alone([packet]), None)
                ticks = self._video.start + number * self._video.ticks_a_frame
                yield from self._given(frame and replace(frame, ticks=ticks))

    def _given(self, frame: TimedFrame | None) -> Iterator[TimedFrame]:
        self.had += frame is not None
        self.missed += frame is None and self._decoder.is_damaged
        if frame is not None:
            yield frame
