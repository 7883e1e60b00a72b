"""What is to be seen in a frame of a video, by a detector: a user's model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ...errors import ItemError
from ...lazy import import_named
from ..videos import SampledFrame, VideoInfo
from .video_protocol import Seen

_SHORT_SIDE: Final = 720
"""Frames are scaled down to it while their colours are converted: models look at squares of 320 to 640 pixels."""


class _Detections(Protocol):
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: Sequence[str]


class _Detector(Protocol):
    def open(self, threads: int = 1) -> None: ...
    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[Any]: ...


class Eyes:
    """A detector, and what is wanted of what it finds.

    Args:
        detector: ``(factory reference, specification)``: this floor does not know the detectors above it.
        classes: of which a frame must have something; empty: of none.
    """

    def __init__(self, detector: Sequence[str], classes: Sequence[str]) -> None:
        factory, spec = detector
        self._detector = cast("_Detector", import_named(factory)(spec))
        self._detector.open(threads=1)
        self._classes = frozenset(classes)

    def look(self, frame: SampledFrame, info: VideoInfo) -> Seen:
        """What is to be seen in a frame.

        Args:
            frame: of a video.
            info: of the video, in whose pixels boxes are.
        """
        picture = frame.rgb(_SHORT_SIDE)
        (found,) = self._detector.detect([picture])
        if isinstance(found, ItemError):
            return Seen([], [], [], str(found))
        seen = cast("_Detections", found)
        height, width = picture.shape[:2]
        scale = np.array([info.width / width, info.height / height] * 2, np.float32)
        return Seen((seen.boxes * scale).tolist(), seen.scores.tolist(), list(seen.classes))

    def is_without(self, seen: Seen) -> bool:
        """Whether a frame has nothing of what is wanted. One of which nothing can be said is not."""
        return bool(self._classes) and not seen.error and self._classes.isdisjoint(seen.classes)
