"""Dark bars round a picture: where the picture itself lies. NumPy only.

Bars are cut off before anything looks at a frame, never a reason to drop it: of two copies of which one has bars, none
is found otherwise.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_DARK: Final = 32.0  # the brightest mean of a line of a bar, in grey levels: limited range shown as full has 16
_UNIFORM: Final = 5.0  # its largest standard deviation: compression adds 1 or 2, a subtitle 20
_STEP: Final = 7.0  # the picture's first line is by so much brighter, or livelier: what fades out is a picture
_RINGING: Final = 8  # lines of a bar at a picture's edge that compression has made uneven: one block of its transform
_SAMPLES: Final = 256  # pixels of a line, evenly spread, that are enough to know it by
_LEAST: Final = 0.2  # of a side that is picture: a tall video in a wide one has 0.32. Less is something in the dark


class Box(NamedTuple):
    """A part of a picture, in pixels; the last two are one past the end."""

    left: int
    top: int
    right: int
    bottom: int

    def cut(self, rgb: UInt8) -> UInt8:
        """The part itself: a view ``[bottom - top, right - left, 3]``."""
        return rgb[self.top : self.bottom, self.left : self.right]


def content_box(rgb: UInt8) -> Box:
    """The picture without uniform dark bars at its edges.

    Args:
        rgb: uint8 ``[height, width, 3]``.

    Returns:
        A box that is never empty: all of it where there are no bars, where it is dark all over, and where what is left
        would be a small thing in the dark.
    """
    top, bottom = _ends(rgb)
    left, right = _ends(rgb[top:bottom].swapaxes(0, 1))  # beside rows of bars, lines of columns are half dark
    return Box(left, top, right, bottom)


def _ends(lines: UInt8) -> tuple[int, int]:
    """First and one past last of the lines ``[n, m, 3]`` that are no bars."""
    count = len(lines)
    sparse = lines[:, :: -(-lines.shape[1] // _SAMPLES)]
    if not _dark(*_figures(sparse[[0, -1]])).any():  # nearly always
        return 0, count
    means, deviations = _figures(sparse)
    dark, levels = _dark(means, deviations), means + deviations  # of stars in the night, the mean alone says little
    first, last = _bar(dark, levels), count - _bar(dark[::-1], levels[::-1])
    return (first, last) if last - first >= max(1, _LEAST * count) else (0, count)


def _bar(dark: Bools, levels: Floats) -> int:
    """How many lines from the first on are a bar; all, if there is nothing else."""
    even = len(dark) if dark.all() else int(dark.argmin())
    if even in (0, len(dark)):
        return even
    steps = np.diff(levels[even - 1 : even + 1 + _RINGING])
    return even + int(steps.argmax()) if steps.max() >= _STEP else 0


def _figures(lines: UInt8) -> tuple[Floats, Floats]:
    """Means and standard deviations of the grey of lines."""
    grey = lines[..., 0].astype(np.float32)
    grey += lines[..., 1]  # channel by channel: ten times faster than a sum over an axis of three
    grey += lines[..., 2]
    return grey.mean(axis=1) / 3, grey.std(axis=1) / 3


def _dark(means: Floats, deviations: Floats) -> Bools:
    return (means < _DARK) & (deviations < _UNIFORM)
