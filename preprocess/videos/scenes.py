"""Shots: where a video is cut, and the frame in the middle of each shot.

Every frame is decoded and looked at in 48 x 27. The score of a frame is how much hue, saturation and value differ from
the frame before; a cut is where that is several times what it is around it, so that a moving camera makes none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from .decoder import FrameDecoder, TimedFrame
from .description import Scene
from .pixels import UInt8
from .video import SECOND, Video

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_WIDTH, _HEIGHT = 48, 27
_AROUND: Final = 2
"""Frames before and behind, whose mean score a cut stands out of."""

_RATIO: Final = 3.0
_LEAST: Final = 8.0
"""Score of a cut: so many times those around it, and so much."""

_SHORTEST_US: Final = 6 * SECOND // 10
"""A shot is not shorter: a flash is none."""

HELD_BYTES: Final = 96 * 2**20
HELD: Final = 32
"""Frames that are held of a shot, of which one will be in the middle: at most, and in bytes."""


class Scenes:
    """The frame in the middle of each shot.

    Args:
        video: Of which. What is found goes into its ``found.scenes``.

    Attributes:
        had: How many frames were looked at.
        missed: How many packets lay in damage.
    """

    def __init__(self, video: Video) -> None:
        self._video = video
        self._decoder = FrameDecoder(video)
        self.had = self.missed = 0

    def frames(self) -> Iterator[TimedFrame]:
        """Of each shot, when it has ended."""
        cuts, shot, last = CutDetector(), None, None
        coming: deque[TimedFrame] = deque()  # whether they begin a shot is not known yet
        for frame in self._every():
            is_cut = cuts.add(_small(frame.decoded))
            coming.append(frame)
            if len(coming) <= _AROUND:
                continue
            last = coming.popleft()
            if shot is None:
                shot = Shot(last.ticks)
            elif is_cut and self._video.us(last.ticks) - self._video.us(shot.start) >= _SHORTEST_US:
                yield self._ended(shot, last.ticks)
                shot = Shot(last.ticks)
            shot.add(last)
        for last in coming:
            shot = shot or Shot(last.ticks)
            shot.add(last)
        if shot is not None and last is not None:
            yield self._ended(shot, last.ticks + self._video.ticks_a_frame)

    def _every(self) -> Iterator[TimedFrame]:
        for gop in self._video.groups():
            before = self.had
            for frame in self._decoder.frames(gop):
                self.had += 1
                yield frame
            if self._decoder.is_damaged:
                self.missed += max(1, len(gop.packets) + 1 - (self.had - before))

    def _ended(self, shot: Shot, end: int) -> TimedFrame:
        self._video.found.scenes.append(Scene(self._video.us(shot.start), self._video.us(end)))
        return shot.middle(end)


@dataclass(slots=True)
class Shot:
    """A shot that has not ended.

    Attributes:
        start: Ticks at which it begins.
        step: Every so many frames are held.
        seen: Frames so far.
        held: Those that are.
    """

    start: int
    step: int = 1
    seen: int = 0
    held: list[TimedFrame] = field(default_factory=list[TimedFrame])

    def add(self, frame: TimedFrame) -> None:
        """Hold every frame, or, when there are too many, every second, fourth ... one."""
        if self.seen % self.step == 0:
            self.held.append(frame)
            picture = frame.decoded
            most = max(4, min(HELD, HELD_BYTES // max(1, sum(plane.buffer_size for plane in picture.planes))))
            if len(self.held) > most:
                self.held, self.step = self.held[::2], 2 * self.step
        self.seen += 1

    def middle(self, end: int) -> TimedFrame:
        """The one that is nearest to the middle."""
        return min(self.held, key=lambda frame: abs(2 * frame.ticks - self.start - end))


class CutDetector:
    """Tells of frames, in turn, which of them are the first of a shot."""

    def __init__(self) -> None:
        self._before: npt.NDArray[np.float32] | None = None
        self._scores: deque[float] = deque(maxlen=2 * _AROUND + 1)

    def add(self, rgb: UInt8) -> bool:
        """Whether the frame that came `_AROUND` before this one is the first of a shot.

        Args:
            rgb: uint8 ``[27, 48, 3]``.
        """
        now = _hsv(rgb)
        self._scores.append(0.0 if self._before is None else _difference(self._before, now))
        self._before = now
        if len(self._scores) <= 2 * _AROUND:
            return False  # near an end a shot would be too short
        score = self._scores[_AROUND]
        return score >= max(_LEAST, _RATIO * (sum(self._scores) - score) / (2 * _AROUND))


def _small(frame: VideoFrame) -> UInt8:
    from av.video.reformatter import Interpolation

    small = frame.reformat(_WIDTH, _HEIGHT, "rgb24", interpolation=Interpolation.AREA, threads=1)
    return np.asarray(small.to_ndarray(), np.uint8)


def _hsv(rgb: UInt8) -> npt.NDArray[np.float32]:
    """Hue of 0 to 180, saturation and value of 0 to 255: float32 ``[3, h, w]``."""
    red, green, blue = np.moveaxis(rgb.astype(np.float32), -1, 0)
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    some = np.maximum(chroma, 1)
    sextant = np.where(
        value == red, (green - blue) / some, np.where(value == green, 2 + (blue - red) / some, 4 + (red - green) / some)
    )
    return np.stack([sextant * 30 % 180, 255 * chroma / np.maximum(value, 1), value])


def _difference(before: npt.NDArray[np.float32], now: npt.NDArray[np.float32]) -> float:
    apart = np.abs(now - before)
    apart[0] = np.minimum(apart[0], 180 - apart[0])  # hue is a circle
    return float(apart.mean())
