"""Which pixels of the source each pixel of the output is made of, in the reference's order of operations.

Everything is kept in coordinates of the full-size upright picture until the decoder says by how much it has reduced
it; so the grid is the reference's own, whatever was done to save work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ..spec import PreprocessSpec

SUPPORT: Final = {"bicubic": 2, "bilinear": 1}
"""Reach of the filter in pixels of the coarser grid, on one side."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Output pixel ``i`` is centred on source coordinate ``x0 + (i + 0.5) * sx`` (pixel edges are integers).

    Attributes:
        x0: Left edge of the box, in pixels of the picture it belongs to.
        y0: Top edge of the box.
        sx: Source pixels per output pixel, horizontally.
        sy: The same, vertically.
    """

    x0: float
    y0: float
    sx: float
    sy: float

    def reduced(self, fx: int, fy: int) -> Grid:
        """The same grid on the picture reduced by whole factors. Pixel ``i`` of that covers ``[i*f, (i+1)*f)``."""
        return Grid(self.x0 / fx, self.y0 / fy, self.sx / fx, self.sy / fy)


def grid_for(width: int, height: int, spec: PreprocessSpec) -> Grid:
    """The sampling grid for an upright picture of this size.

    Args:
        width: Pixels, at least 1.
        height: Pixels, at least 1.
        spec: Says the target size and the crop.
    """
    new_w, new_h = resized_size(width, height, spec)
    sx, sy = width / new_w, height / new_h
    return Grid(
        _crop_offset(new_w - spec.size, spec) * sx,
        _crop_offset(new_h - spec.size, spec) * sy,
        sx,
        sy,
    )


def resized_size(width: int, height: int, spec: PreprocessSpec) -> tuple[int, int]:
    """Size after the resize and before the crop: torchvision's rule, the longer side rounded down."""
    if spec.resize is None:
        return spec.size, spec.size
    if width <= height:
        return spec.resize, int(spec.resize * height / width)
    return int(spec.resize * width / height), spec.resize


def _crop_offset(margin: int, spec: PreprocessSpec) -> int:
    # torchvision: int(round(margin / 2.0)), and Python rounds halves to even. Hugging Face: floor division.
    return round(margin / 2.0) if spec.crop_rounding == "round" else margin // 2


def scale_limit(size: int) -> float:
    """The largest scale the kernel and the canvas are made for.

    A little over 2: the rounded-down longer side makes one axis' scale exceed the other's by up to one part in `size`,
    and a picture of exactly twice the target must not be reduced in that axis alone.
    """
    return 2.0 + 2.0 / size


def reduction(scale: float, size: int) -> int:
    """The smallest whole factor that brings `scale` within `scale_limit`."""
    return max(1, math.ceil(scale / scale_limit(size)))


def canvas_side(spec: PreprocessSpec) -> int:
    """Side of the square canvas in pixels: the largest box, the filter's reach and rounding on both sides.

    ``size * scale_limit + 2 * (2 * 2 + 1) + 2`` is ``2 * size + 14``; two more make rows of 224 a multiple of 16 bytes.
    """
    return 2 * spec.size + 16


def span(start: float, scale: float, spec: PreprocessSpec, limit: int) -> tuple[int, int]:
    """First and one-past-last source pixel that the filter reads along one axis, one spare on each side."""
    reach = SUPPORT[spec.interpolation] * max(scale, 1.0) + 1.0
    first = max(math.floor(start - reach), 0)
    last = min(math.ceil(start + spec.size * scale + reach), limit)
    return first, last
