"""A frame that was taken, and its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from .pixels import UInt8, to_rgb

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


@dataclass(frozen=True, slots=True)
class SampledFrame:
    """A frame that was taken of a video. It holds decoded pixels: let go of it before the next hundred.

    Attributes:
        index: Its number among those taken: 0, 1, 2 ...
        pts_us: Its own time in microseconds from the start of the video; not the time it was wanted for.
        is_keyframe: Whether it can be decoded alone.
        time_estimated: The file has no times: this is counted from the frame rate.
        decoded: As the decoder made it.
        aspect: Width of its pixels to their height.
    """

    index: int
    pts_us: int
    is_keyframe: bool
    time_estimated: bool
    decoded: VideoFrame
    aspect: Fraction = Fraction(1)

    def rgb(self, short_side: int | None = None) -> UInt8:
        """Its pixels.

        Args:
            short_side: Scale it down to it; a smaller frame stays as it is. None: full size.

        Returns:
            uint8 ``[height, width, 3]``: sRGB, upright, with square pixels, C-contiguous, its own memory.
        """
        return to_rgb(self.decoded, self.aspect, short_side)
