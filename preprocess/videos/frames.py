"""A frame that was taken, and its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SampledFrame:
    """A frame that was taken of a video. It holds decoded pixels: let go of it before the next hundred.

    Attributes:
        index: Its number among those taken: 0, 1, 2 ...
        pts_us: Its own time in microseconds from the start of the video; not the time it was wanted for.
        is_keyframe: Whether it can be decoded alone.
        time_estimated: The file has no times: this is counted from the frame rate.
        decoded: As the decoder made it.
    """

    index: int
    pts_us: int
    is_keyframe: bool
    time_estimated: bool
    decoded: VideoFrame

    def rgb(self, short_side: int | None = None) -> UInt8:
        """Its pixels.

        Args:
            short_side: Scale it down to it; a smaller frame stays as it is. None: full size.

        Returns:
            uint8 ``[height, width, 3]``, sRGB, upright, C-contiguous.
        """
        from av.video.reformatter import Interpolation

        frame = self.decoded
        share = min(1.0, short_side / min(frame.width, frame.height)) if short_side else 1.0
        width, height = (max(1, round(side * share)) for side in (frame.width, frame.height))
        made = frame.reformat(width, height, "rgb24", interpolation=Interpolation.AREA, threads=1)
        return np.ascontiguousarray(made.to_ndarray(), np.uint8)
