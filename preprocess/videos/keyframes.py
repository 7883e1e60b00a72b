"""Keyframes: the packets say which they are, and nothing else is decoded.

(A decoder can be told to skip the others; that of VP9 does not listen.)
"""

from __future__ import annotations

from collections.abc import Iterator

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
        for gop in self._video.groups():
            frame = next(self._decoder.alone([gop.head]), None)
            if frame is None and gop.head.is_discard:
                frame = next(self._decoder.frames(gop), None)
            self.had += frame is not None
            self.missed += frame is None and self._decoder.is_damaged
            if frame is not None:
                yield frame
