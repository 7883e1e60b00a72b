"""What is found out about a frame before it is preprocessed: its picture without bars, its numbers, whether it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ..pdq import luma, pdq, quality, squash64
from ..videos.filters import Filter, Thresholds, decide
from ..videos.letterbox import content_box
from ..videos.neighbours import FrameSignature, Neighbours, digest64
from ..videos.statistics import SIDE, squash224, statistics_of
from .video_protocol import REPEATED, Kept, LeftOut

UInt8 = NDArray[np.uint8]


class FrameLook:
    """Looks at the frames of one video, in the order of their times.

    Args:
        filters: names of those that are asked.
        neighbours: whether frames go that repeat the last one that was kept.
        kept: the last one that was kept before.
        thresholds: of the filters; None: the defaults.

    Attributes:
        kept: the last one by now; None where frames are not compared.
        statistics: float32 ``[7]``, the numbers of the frame that was looked at last.
    """

    def __init__(
        self, filters: Sequence[str], neighbours: bool, kept: Kept | None = None, thresholds: Thresholds | None = None
    ) -> None:
        self._filters, self._thresholds = cast("Sequence[Filter]", filters), thresholds
        self._neighbours = Neighbours() if neighbours else None
        self.kept = self._before = kept
        self.statistics: NDArray[np.float32] = np.zeros(0, np.float32)
        self._compare_with(kept)

    def _compare_with(self, kept: Kept | None) -> None:
        """This one is the last one that was kept."""
        self.kept = kept
        if self._neighbours is None:
            return
        self._neighbours = Neighbours()
        if kept is not None:
            hash_ = np.frombuffer(bytes.fromhex(kept.pdq), np.uint8)
            self._neighbours.see(kept.pts_us, FrameSignature(bytes.fromhex(kept.digest), hash_, kept.quality))

    def at(self, pts_us: int, rgb: UInt8) -> UInt8 | LeftOut:
        """The picture in a frame, without bars; or why it is left out.

        Args:
            pts_us: its time.
            rgb: uint8 ``[height, width, 3]``.
        """
        picture = content_box(rgb).cut(rgb)
        found = statistics_of(squash224(picture)[None])
        self.statistics = np.array([*found.columns().values()], np.float32)[:, 0]
        (reason,) = decide(found, self._filters, self._thresholds)
        if reason is not None:
            return LeftOut(pts_us, reason, None, 0, self._numbers())
        repeated = self._repeats(pts_us, picture)
        return picture if repeated is None else repeated

    def _repeats(self, pts_us: int, picture: UInt8) -> LeftOut | None:
        if self._neighbours is None:
            return None
        square = squash64(picture)
        lumas = luma(square)[None]
        frame = FrameSignature(digest64(square), pdq(lumas)[0], int(quality(lumas)[0]))
        same = self._neighbours.see(pts_us, frame)
        if same is None:
            self._before = self.kept
            self.kept = Kept(pts_us, frame.digest.hex(), frame.pdq.tobytes().hex(), frame.quality)
            return None
        return LeftOut(pts_us, REPEATED, same.of, same.distance, self._numbers())

    def left_out(self, pts_us: int, reason: str) -> LeftOut:
        """The frame that was looked at last goes for another reason: the next ones are not compared with it."""
        self._compare_with(self._before)
        return LeftOut(pts_us, reason, None, 0, self._numbers())

    def _numbers(self) -> list[float]:
        return [float(number) for number in self.statistics]


def warm_up() -> None:
    """Compile what looks at frames, before the first comes."""
    statistics_of(np.zeros((1, SIDE, SIDE, 3), np.uint8))
