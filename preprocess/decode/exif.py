"""EXIF orientation without moving full-size pixels: views of the reduced picture, and the grid on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

from PIL import ExifTags, Image

from ..kernel.geometry import Grid
from ..kernel.packed import UInt32

_T = TypeVar("_T")

_TURNS: Final = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
"""EXIF orientation -> exchange the axes, then flip horizontally, then vertically (TIFF 6.0, section 8)."""

_METHODS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The same, for Pillow."""


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation of an opened picture, 1..8; 1 where there is none or its metadata is broken."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001  (struct.error, SyntaxError, ValueError... from broken metadata)
        return 1
    return found if found in _TURNS else 1


def upright_image(image: Image.Image) -> Image.Image:
    """A picture as it is meant to be seen; itself where it lies so."""
    method = _METHODS.get(orientation_of(image))
    return image if method is None else image.transpose(method)


@dataclass(frozen=True, slots=True)
class Orientation:
    """A picture as it is stored and as it is meant to be seen.

    Attributes:
        turn: EXIF orientation, 1..8.
        stored: Width and height in pixels as stored, before any reduction.
    """

    turn: int
    stored: tuple[int, int]

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height in pixels as seen."""
        return self.stored_axes(*self.stored)

    def stored_axes(self, horizontal: _T, vertical: _T) -> tuple[_T, _T]:
        """Exchange two per-axis values between stored and upright, which is the same both ways."""
        return (vertical, horizontal) if _TURNS[self.turn][0] else (horizontal, vertical)

    def apply(self, pixels: UInt32, grid: Grid, fx: int, fy: int) -> tuple[UInt32, Grid]:
        """The reduced pixels as seen, and the grid in them.

        Args:
            pixels: uint32 ``[h, w]`` as stored, reduced.
            grid: In the full-size upright picture.
            fx: By how much the stored width was reduced (to ``ceil(width / fx)``).
            fy: The same for the height.

        Returns:
            A view of `pixels` and the grid on it.
        """
        swap, flip_x, flip_y = _TURNS[self.turn]
        if swap:
            pixels = pixels.T
        pixels = pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        fx, fy = self.stored_axes(fx, fy)
        width, height = self.upright
        grid = grid.reduced(fx, fy)
        # Where the factor does not divide the side, the last pixel sticks out over the edge; once flipped, the first.
        x0 = grid.x0 + (pixels.shape[1] - width / fx if flip_x else 0.0)
        y0 = grid.y0 + (pixels.shape[0] - height / fy if flip_y else 0.0)
        return pixels, Grid(x0, y0, grid.sx, grid.sy)
