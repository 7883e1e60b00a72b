"""A page resampled once, by a cubic filter: by OpenCV where it is installed, else by Pillow.

2,000 x 3,000 pixels in grey, one thread: OpenCV 108 ms, Pillow 600; both within 1.2 grey levels of one another in the
mean. Done band by band: a page of 20,000 x 20,000 needs itself, its result, and 32 MiB.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import ConfigError, TooLargeError
from .patches import UInt8
from .transform import STEP, PageTransform

Resampler = Literal["opencv", "pillow"]

MAX_SIDE: Final = 32_766
"""Pixels: OpenCV counts positions in 16 bits."""

_BAND_PIXELS = 2**21


def best_resampler() -> Resampler:
    """``opencv`` where it is installed (the extra ``penstock[volumes]``), else ``pillow``."""
    return "opencv" if find_spec("cv2") else "pillow"


def confine_opencv() -> None:
    """For a process of our own: OpenCV starts no threads, since there are as many workers as cores."""
    import cv2

    cv2.setNumThreads(1)


def resample(page: UInt8, transform: PageTransform, *, fill: int = 255, resampler: Resampler | None = None) -> UInt8:
    """Make the result of a transform.

    Args:
        page: uint8 ``[h, w]`` or ``[h, w, 3]``: the scan.
        transform: of a page of this size.
        fill: 0..255, what lies outside of the scan.
        resampler: None: `best_resampler`.

    Returns:
        uint8 ``[transform.height, transform.width]``, with the channels of the page.

    Raises:
        ConfigError: The transform is of a page of another size.
        TooLargeError: A side of the page or of the result is over 32,766 pixels.
    """
    height, width = page.shape[:2]
    if (width, height) != (transform.scan_width, transform.scan_height):
        raise ConfigError(
            f"a transform of {transform.scan_width} x {transform.scan_height} pixels does not fit a page of"
            f" {width} x {height}"
        )
    if max(width, height, transform.width, transform.height) > MAX_SIDE:
        raise TooLargeError(
            f"a page of {width} x {height} pixels, {transform.width} x {transform.height} when straightened: a side is"
            f" over {MAX_SIDE}"
        )
    band = _by_opencv if (resampler or best_resampler()) == "opencv" else _by_pillow
    result = np.empty((transform.height, transform.width, *page.shape[2:]), np.uint8)
    rows = max(1, _BAND_PIXELS // transform.width // STEP) * STEP
    for top in range(0, transform.height, rows):
        bottom = min(top + rows, transform.height)
        # one more node on each side, so that every pixel lies between nodes
        nodes = transform.nodes(-1, top // STEP - 1, -(-transform.width // STEP) + 2, -(-(bottom - top) // STEP) + 2)
        band(page, nodes, result[top:bottom], fill)
    return result


def _by_opencv(page: UInt8, nodes: npt.NDArray[np.float32], result: UInt8, fill: int) -> None:
    import cv2

    rows, columns = result.shape[:2]
    x, y = (
        np.ascontiguousarray(
            cv2.resize(np.ascontiguousarray(nodes[..., axis]), None, fx=STEP, fy=STEP)[
                STEP : STEP + rows, STEP : STEP + columns
            ]
        )
        for axis in range(2)
    )
    cv2.remap(
        page,
        x,
        y,
        cv2.INTER_CUBIC,
        dst=result,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(fill, fill, fill),
    )


def _by_pillow(page: UInt8, nodes: npt.NDArray[np.float32], result: UInt8, fill: int) -> None:
    """Quadrilaterals of one cell each, bilinear within, whose corners lie in the middle between four nodes."""
    rows, columns = result.shape[:2]
    # Pillow's positions are those of pixel edges
    corners = (nodes[:-1, :-1] + nodes[:-1, 1:] + nodes[1:, :-1] + nodes[1:, 1:]) / 4 + 0.5
    order = ((0, 0), (1, 0), (1, 1), (0, 1))  # top left, bottom left, bottom right, top right
    mesh = [
        (
            (column * STEP, row * STEP, (column + 1) * STEP, (row + 1) * STEP),
            tuple(float(part) for down, right in order for part in corners[row + down, column + right]),
        )
        for row in range(-(-rows // STEP))
        for column in range(-(-columns // STEP))
    ]
    size = -(-columns // STEP) * STEP, -(-rows // STEP) * STEP
    colour = fill if page.ndim == 2 else (fill,) * page.shape[2]
    made = Image.fromarray(page).transform(size, Image.Transform.MESH, mesh, Image.Resampling.BICUBIC, fillcolor=colour)
    result[:] = np.asarray(made)[:rows, :columns]
