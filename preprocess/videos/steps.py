"""Frames at multiples of a step: those that are on the screen then, exactly.

Seeking is not exact in any container, and goes astray in MPEG-TS. So all packets are read, which costs little; a group
of pictures is decoded only if a wanted time lies in it, and only up to there.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from .decoder import FrameDecoder, TimedFrame
from .gops import Gop
from .video import Video


class Steps:
    """The wanted times of a video, one after the other.

    Args:
        video: Of which.
        step_us: Microseconds between them.

    Attributes:
        had: How many of them a frame was found for.
        missed: For how many it could not be decoded.
    """

    def __init__(self, video: Video, step_us: int) -> None:
        self._video = video
        self._decoder = FrameDecoder(video)
        self._step = Fraction(step_us, 1_000_000) / video.time_base  # ticks
        self._number = 0
        self.had = self.missed = 0

    def frames(self) -> Iterator[TimedFrame]:
        """Each frame that is on the screen at a wanted time, once."""
        given: TimedFrame | None = None
        for gop in self._video.groups():
            for frame in self._of(gop):
                if frame is not given:
                    yield frame
                given = frame

    def _of(self, gop: Gop) -> Iterator[TimedFrame]:
        if gop.stop is not None and self._wanted >= gop.stop:
            return
        before: TimedFrame | None = None
        for frame in self._decoder.frames(gop):
            if frame.ticks > self._wanted:
                yield before or frame
                self.had += self._go_on(frame.ticks)
            before = frame
            if gop.stop is not None and self._wanted >= gop.stop:
                return
        for _ in gop.rest:  # damage ended it: now it is known where the next group begins
            pass
        shown = before.ticks if before else self._video.start
        stop = shown + self._video.ticks_a_frame if gop.stop is None else gop.stop
        if before is not None:
            # It stays on the screen until the next one; but which that is, damage has hidden.
            known = shown + 1 if self._decoder.is_damaged else stop
            if self._wanted < known:
                yield before
            self.had += self._go_on(known)
        self.missed += self._go_on(stop)

    @property
    def _wanted(self) -> int:
        return self._time(self._number)

    def _time(self, number: int) -> int:
        return self._video.start + round(number * self._step)

    def _go_on(self, ticks: int) -> int:
        """Take the first time that is not before this one; how many were passed. A frame may stay for years."""
        number = max(self._number, int((ticks - self._video.start) / self._step) - 1)
        while self._time(number) < ticks:
            number += 1
        passed, self._number = number - self._number, number
        return passed
