"""The patches that cover a page: evenly spread squares, their positions, and how much of the page is theirs.

What others do (a constant stride, the last patch pulled back to the border) leaves one border with far more overlap
than the rest. Here the overlap is spread: a page of 2000 x 3000 has 4 x 6 patches that overlap by 16 and 14 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import UnreadableError

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

PATCH: Final = 512
"""Side of a patch, in pixels."""

CELL: Final = PATCH // 2
"""Side of a cell, in pixels: nine half-overlapping ones of a patch show how the slopes of its lines differ."""


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Where the patches of a page lie. Patch ``i`` is number ``i`` in reading order.

    Attributes:
        width: Of the page, in pixels. A page that is smaller than a patch is continued by its edge pixels.
        height: The same.
        size: Side of a patch, in pixels.

    Raises:
        UnreadableError: The page is empty.
    """

    width: int
    height: int
    size: int = PATCH

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 1:
            raise UnreadableError(f"an empty page of {self.width} x {self.height} pixels")

    @property
    def lefts(self) -> tuple[int, ...]:
        """First column of each patch of a row, in pixels."""
        return starts(self.width, self.size)

    @property
    def tops(self) -> tuple[int, ...]:
        """First row of each patch of a column, in pixels."""
        return starts(self.height, self.size)

    def __len__(self) -> int:
        return len(self.lefts) * len(self.tops)

    def position(self, index: int) -> tuple[int, int]:
        """``(left, top)`` of a patch, in pixels of the page."""
        row, column = divmod(index, len(self.lefts))
        return self.lefts[column], self.tops[row]

    def positions(self) -> npt.NDArray[np.int64]:
        """``(left, top)`` of every patch: int64 ``[n, 2]``."""
        return np.array([(left, top) for top, left in product(self.tops, self.lefts)], np.int64)

    def cut(self, page: UInt8, index: int) -> UInt8:
        """One patch.

        Args:
            page: uint8 ``[height, width]`` or ``[height, width, channels]``.
            index: of the patch.

        Returns:
            uint8 ``[size, size]``, with the channels of the page: a view of it wherever it is large enough. Below
            that the edge pixels are repeated, so that no edge appears that the page does not have.
        """
        left, top = self.position(index)
        patch = page[top : top + self.size, left : left + self.size]
        missing = [(0, self.size - side) for side in patch.shape[:2]]
        return np.pad(patch, [*missing, *[(0, 0)] * (page.ndim - 2)], mode="edge") if np.any(missing) else patch

    def weights(self) -> Floats:
        """How much of the page each patch stands for: float64 ``[n]``, positive, with the sum 1.

        A pixel that several patches have is shared among them, so ``weights @ vectors`` is a mean over the area of the
        page in which nothing counts twice.
        """
        down, across = (_exclusive(length, self.size) for length in (self.height, self.width))
        shares = np.outer(down, across).ravel()
        return np.asarray(shares / shares.sum(), np.float64)


@lru_cache(maxsize=1024)
def starts(length: int, size: int) -> tuple[int, ...]:
    """Where the fewest windows that cover ``length`` begin: the first at 0, the last ends with it, evenly between."""
    count = max(1, -(-length // size))
    return tuple(round(index * (length - size) / (count - 1)) for index in range(count)) if count > 1 else (0,)


def _exclusive(length: int, size: int) -> Floats:
    """For each window along one axis: its pixels, each divided by the number of windows that have it."""
    begins = starts(length, size)
    covered = np.zeros(max(length, size))
    for begin in begins:
        covered[begin : begin + size] += 1
    return np.array([(1 / covered[begin : begin + size]).sum() for begin in begins])


def grey(pixels: npt.NDArray[Any]) -> UInt8:
    """Pixels in grey, as Pillow weighs the colours (ITU-R 601): what the first pass looks at.

    Args:
        pixels: uint8 ``[..., h, w, 3]``, or without colours ``[..., h, w]``, which is returned as it is.

    Returns:
        uint8 ``[..., h, w]``.
    """
    if pixels.shape[-1] != 3:
        return pixels
    red, green, blue = (pixels[..., channel].astype(np.uint32) for channel in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)
