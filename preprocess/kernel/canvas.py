"""The canvas: where decoders put the piece of a picture that the kernel samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..spec import PreprocessSpec
from .geometry import Grid, canvas_side, span
from .packed import UInt32

Float32 = npt.NDArray[np.float32]
Params = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a picture lies in its canvas, and what it was.

    Attributes:
        params: ``x0, y0, sx, sy, w, h``: the sampling grid in canvas pixels, then the size of the valid piece.
        width: Of the original as seen upright, in pixels.
        height: The same.
        format: "JPEG", "PNG"..., or "array", or "image" for a picture made in memory.
    """

    params: Params
    width: int
    height: int
    format: str


def aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Zeros that start on a 64-byte boundary, which numpy does not promise: XLA copies what starts elsewhere.

    The array owns its memory (through its base); use it for as long as you like.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def make_canvas(spec: PreprocessSpec, rows: int) -> UInt32:
    """A canvas for `rows` pictures of packed pixels: uint32 ``[rows, c, c]``, 64-byte aligned, zeroed."""
    side = canvas_side(spec)
    return aligned((rows, side, side), np.uint32)


def make_params(spec: PreprocessSpec, rows: int) -> Float32:
    """Parameters float32 ``[rows, 6]`` that are harmless for rows nobody has filled: the kernel divides by no zero."""
    params = aligned((rows, 6), np.float32)
    side = canvas_side(spec)
    params[:] = (0.0, 0.0, 1.0, 1.0, side, side)
    return params


def blit(pixels: UInt32, grid: Grid, spec: PreprocessSpec, canvas: UInt32) -> Params:
    """Copy what the filter reads into the canvas.

    Args:
        pixels: Packed, uint32 ``[h, w]``, upright, reduced so that no scale is above the limit.
        grid: The sampling grid in `pixels`.
        spec: Says the target size and the filter.
        canvas: uint32 ``[c, c]``, written. What lies outside the piece stays as it was: its weights are 0.
    """
    height, width = pixels.shape
    left, right = span(grid.x0, grid.sx, spec, width)
    top, bottom = span(grid.y0, grid.sy, spec, height)
    canvas[: bottom - top, : right - left] = pixels[top:bottom, left:right]
    return (grid.x0 - left, grid.y0 - top, grid.sx, grid.sy, float(right - left), float(bottom - top))
