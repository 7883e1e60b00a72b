"""How frames lie: a decoder gives them as they were coded, and the file says by a matrix how they are to be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


class Orientation(NamedTuple):
    """A multiple of 90 degrees, mirrored or not.

    Attributes:
        is_transposed: Rows and columns change places. That is done first.
        flips_columns: Left and right change places.
        flips_rows: Top and bottom do.
    """

    is_transposed: bool = False
    flips_columns: bool = False
    flips_rows: bool = False

    @property
    def is_mirrored(self) -> bool:
        """Whether text would read backwards if it were only turned."""
        return (self.is_transposed + self.flips_columns + self.flips_rows) % 2 == 1

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise, after left and right have changed places if it is mirrored."""
        if self.is_transposed:
            return 270 if self.flips_columns else 90
        return 180 if self.flips_rows else 0

    def upright(self, coded: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A view of a frame as it is to be seen.

        Args:
            coded: ``[height, width, ...]``.

        Returns:
            ``[height, width, ...]``, of which sides have changed places if it is transposed.
        """
        turned = coded.swapaxes(0, 1) if self.is_transposed else coded
        return turned[:: -1 if self.flips_rows else 1, :: -1 if self.flips_columns else 1]


def orientation_of(frame: VideoFrame) -> Orientation:
    """How a decoded frame is to be seen. Angles between multiples of 90 degrees are taken for the nearest one."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return Orientation()
    # A point (x, y) is shown at (a x + c y, b x + d y); y points down.
    a, b, _, c, d = np.frombuffer(bytes(found), np.int32)[:5].astype(np.int64)  # type: ignore[call-overload]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, bool(a < 0), bool(d < 0))
    return Orientation(True, bool(c < 0), bool(b < 0))
