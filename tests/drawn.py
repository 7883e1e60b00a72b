"""What tests of decoding share: a picture that is known, and how to look at a canvas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SIZE = 64
UInt8 = npt.NDArray[np.uint8]


def channels(canvas: npt.NDArray[np.uint32]) -> UInt8:
    """Packed pixels as uint8 ``[c, c, 3]``."""
    return np.stack([(canvas >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)], -1)


def smooth(width: int = SIZE, height: int = SIZE) -> UInt8:
    """A picture that survives JPEG: soft, coloured, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    blue = 127 + 120 * np.sin(x / width * 5) * np.cos(y / height * 3)
    pixels: UInt8 = np.rint(np.stack([red, green, blue], -1)).astype(np.uint8)
    return pixels
