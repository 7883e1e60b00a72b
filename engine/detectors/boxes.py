"""Boxes: frames into squares and back, and which of several boxes on one thing stays. NumPy and Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

GREY: Final = 114
"""What models of the YOLO family were trained with round their pictures."""

_MOST: Final = 1000  # the surest boxes of a frame that are looked at: what a model sees in noise must not take minutes


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where a frame lies in its square.

    Attributes:
        left: First column of the frame in the square.
        top: First row.
        across: Pixels of the square for each of the frame, horizontally.
        down: The same vertically: they differ by rounding.
        width: Of the frame, in its own pixels.
        height: The same.
    """

    left: int
    top: int
    across: float
    down: float
    width: int
    height: int

    def back(self, boxes: Floats) -> Floats:
        """Boxes ``[n, 4]`` in pixels of the square -> in pixels of the frame, cut at its edges."""
        moved = (boxes - np.tile((self.left, self.top), 2)) / np.tile((self.across, self.down), 2)
        return np.asarray(np.clip(moved, 0, np.tile((self.width, self.height), 2)), np.float32)


def letterbox(frame: UInt8, square: UInt8) -> Letterbox:
    """Put a frame into the middle of a square, as large as it fits, grey round it.

    Args:
        frame: uint8 ``[height, width, 3]``.
        square: uint8 ``[side, side, 3]``, written.
    """
    (height, width), side = frame.shape[:2], len(square)
    scale = min(side / width, side / height)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (side - new_width) // 2, (side - new_height) // 2
    image = Image.fromarray(frame)
    if image.size != (new_width, new_height):
        image = image.resize((new_width, new_height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    square[:] = GREY
    square[top : top + new_height, left : left + new_width] = np.asarray(image)
    return Letterbox(left, top, new_width / width, new_height / height, width, height)


def corners(boxes: Floats) -> Floats:
    """Centres and sizes ``[n, 4]`` -> left, top, right, bottom."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.asarray(np.concatenate([centre - half, centre + half], axis=1), np.float32)


def suppress(boxes: Floats, scores: Floats, classes: Ints, iou: float) -> Ints:
    """Non-maximum suppression: of boxes of one class that overlap, the surest stays. Classes leave each other alone.

    Args:
        boxes: float32 ``[n, 4]``: left, top, right, bottom.
        scores: float32 ``[n]``. Of equal ones the first counts as surer.
        classes: int64 ``[n]``.
        iou: intersection over union above which two boxes are on one thing.

    Returns:
        Indices of those that stay, the surest first; of more than 1000 the surest 1000 are looked at.
    """
    order = np.argsort(-scores, kind="stable")[:_MOST]
    hides = _overlaps(boxes[order]) > iou
    hides &= classes[order, None] == classes[order]
    stays = np.ones(len(order), bool)
    for place, hidden in enumerate(hides):
        if stays[place]:
            hidden[: place + 1] = False
            stays &= ~hidden
    return order[stays]


def _overlaps(boxes: Floats) -> Floats:
    """Intersection over union of each with each ``[n, n]``; 0 where neither has an area."""
    left, top, right, bottom = boxes.T
    wide = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
    high = np.minimum(bottom[:, None], bottom) - np.maximum(top[:, None], top)
    shared = wide.clip(0) * high.clip(0)
    areas = (right - left) * (bottom - top)
    union = areas[:, None] + areas - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
