"""What straightens a page: control points from the result back to the scan, and the thin-plate spline through them.

Rotation and dewarping are one mapping, so a page is resampled once, however often it was looked at: what a second look
finds is put behind the first (`PageTransform.followed_by`), and the scan is resampled anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError
from .curvature import Box, Floats, displacement, upright
from .patches import CELL, PATCH
from .summary import LEAST_QUALITY, PageSummary

if TYPE_CHECKING:
    from scipy.interpolate import RBFInterpolator

Points = npt.NDArray[np.float32]

STEP: Final = 32
"""Pixels between the nodes at which the spline is computed; linear between them it is within 0.06 pixels."""

_ACROSS, _DOWN = 10, 8  # control points
_MARGIN = 64  # pixels that control points reach beyond the centres of the cells with text


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on a page is resampled. With these 0 of 21 straight pages were, and 0 of 37 unbent ones dewarped.

    Attributes:
        angle: Degrees of skew from which on a page is turned.
        bend: Pixels for each 2,000 pixels of width from which on its lines are straightened.
        quality: Below it nothing is done; at least 1.

    Raises:
        ConfigError: One of them is negative, or `quality` below 1.
    """

    angle: float = 0.15
    bend: float = 4.0
    quality: float = LEAST_QUALITY

    def __post_init__(self) -> None:
        for name, least in (("angle", 0.0), ("bend", 0.0), ("quality", LEAST_QUALITY)):
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least {least:g}")

    def skewed(self, summary: PageSummary) -> bool:
        """Whether the page is to be turned."""
        return summary.quality >= self.quality and abs(summary.angle) >= self.angle

    def bent(self, summary: PageSummary, width: int) -> bool:
        """Whether its lines are to be straightened; `width` of the page in pixels."""
        return (
            summary.quality >= self.quality
            and summary.coefficients is not None
            and summary.bend * 2000 / width >= self.bend
        )


@dataclass(frozen=True, eq=False)
class PageTransform:
    """Where the positions of a straightened page lie in its scan.

    Positions are ``(x, y)`` in pixels with the origin at the centre of the first pixel. What lies between the control
    points is a thin-plate spline through them (`scipy.interpolate.RBFInterpolator(result, scan,
    kernel="thin_plate_spline")`): they are all that is needed to trace a position back.

    Attributes:
        result: float32 ``[80, 2]``, control points in the result.
        scan: float32 ``[80, 2]``, the same points in the scan.
        width: Of the result, in pixels.
        height: The same.
        scan_width: Of the scan, in pixels.
        scan_height: The same.
    """

    result: Points
    scan: Points
    width: int
    height: int
    scan_width: int
    scan_height: int

    @cached_property
    def _spline(self) -> RBFInterpolator:
        from scipy.interpolate import RBFInterpolator

        return RBFInterpolator(self.result.astype(float), self.scan.astype(float), kernel="thin_plate_spline")

    def trace(self, positions: npt.NDArray[Any]) -> Floats:
        """Where positions of the result lie in the scan: ``[n, 2]`` -> float64 ``[n, 2]``."""
        return np.asarray(self._spline(np.asarray(positions, float)), np.float64)

    def inside(self, x: Floats, y: Floats) -> npt.NDArray[np.bool_]:
        """Whether the cells with these centres show the scan only, and not the border that the resampling has added.

        For the second look at a page: borders would be taken for bent lines, up to 6 pixels.

        Args:
            x: float64 ``[n]``, in pixels of the result.
            y: The same.
        """
        corners = [(dx, dy) for dx in (-CELL / 2, CELL / 2) for dy in (-CELL / 2, CELL / 2)]
        positions = np.concatenate([np.stack([x + dx, y + dy], -1) for dx, dy in corners])
        scan = self.trace(positions).reshape(len(corners), len(x), 2)
        # A cell at the edge of a page reaches to its edge, and a page below a patch is continued by its edge pixels.
        sides = np.maximum([self.scan_width, self.scan_height], PATCH)
        return np.asarray(((scan >= -1) & (scan <= sides + 1)).all((0, 2)), np.bool_)

    def nodes(self, left: int, top: int, columns: int, rows: int) -> npt.NDArray[np.float32]:
        """The mapping at evenly spread nodes, of which number 0 is the centre of the cell of 32 pixels at 0.

        Args:
            left: number of the first node of a row; -1 lies half a cell outside of the result.
            top: the same of a column.
            columns: how many nodes a row has.
            rows: how many rows.

        Returns:
            float32 ``[rows, columns, 2]``, positions in the scan.
        """
        x, y = ((np.arange(first, first + count) + 0.5) * STEP - 0.5 for first, count in ((left, columns), (top, rows)))
        where = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        return self.trace(where).reshape(rows, columns, 2).astype(np.float32)

    def followed_by(self, second: PageTransform) -> PageTransform:
        """What makes of the scan what `second` would make of this one's result.

        Raises:
            ConfigError: `second` is of a page of another size.
        """
        if (second.scan_width, second.scan_height) != (self.width, self.height):
            raise ConfigError(
                f"a transform of {second.scan_width} x {second.scan_height} pixels cannot follow one whose result has"
                f" {self.width} x {self.height}"
            )
        scan = self.trace(second.scan).astype(np.float32)
        return PageTransform(second.result, scan, second.width, second.height, self.scan_width, self.scan_height)


def plan_transform(
    summary: PageSummary, width: int, height: int, thresholds: Thresholds | None = None
) -> PageTransform | None:
    """What straightens a page; None where nothing is to be done.

    Args:
        summary: of the page.
        width: of the page, in pixels.
        height: the same.
        thresholds: from when on; None: `Thresholds`' own.
    """
    thresholds = thresholds or Thresholds()
    dewarp = thresholds.bent(summary, width)
    if not dewarp and not thresholds.skewed(summary):
        return None
    box = summary.box or (0.0, width - 1.0, 0.0, height - 1.0)
    left, top, right, bottom = _frame(summary.box, summary.angle, width, height)
    x, y = (
        axis.ravel()
        for axis in np.meshgrid(
            np.linspace(box[0] - _MARGIN, box[1] + _MARGIN, _ACROSS),
            np.linspace(box[2] - _MARGIN, box[3] + _MARGIN, _DOWN),
        )
    )
    lower = displacement(summary.coefficients, x, y, width, height) if dewarp and summary.coefficients else 0.0
    scan = np.stack(upright(x, y + lower, -summary.angle, width, height), -1)
    result = np.stack([x - left, y - top], -1)
    single = np.float32
    return PageTransform(result.astype(single), scan.astype(single), right - left, bottom - top, width, height)


def _frame(box: Box | None, angle: float, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the result in the upright frame.

    The page's own frame, and more where a page that was turned has its text beyond that: a corner of a scan that was
    laid on askew.
    """
    if box is None:
        return 0, 0, width, height
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], np.float64)
    x, y = (axis + 0.5 for axis in upright(corners[:, 0] - 0.5, corners[:, 1] - 0.5, angle, width, height))
    reach = CELL / 2
    left = np.floor(min(0, max(box[0] - reach, x.min())))
    top = np.floor(min(0, max(box[2] - reach, y.min())))
    right = np.ceil(max(width, min(box[1] + reach, x.max())))
    bottom = np.ceil(max(height, min(box[3] + reach, y.max())))
    return int(left), int(top), int(right), int(bottom)
