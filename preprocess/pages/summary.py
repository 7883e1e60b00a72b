"""What the first pass over a page amounts to: its angle, how its lines are bent, and how sure that is.

Measured on rendered text: the angle is within 0.05 degrees over +-15 (bench `pages`), also on tables, columns and pages
with pictures; a page without lines of text (blank, photographs, vertical text) has a quality below 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .curvature import Box, Floats, bend, fit, tilt, upright
from .first_pass import CELL_ANGLES, CELLS_A_SIDE, PAGE_ANGLES, Float32, split
from .patches import CELL, PATCH, PatchGrid

Inside = Callable[[Floats, Floats], npt.NDArray[np.bool_]]
"""Whether a cell with its centre there lies on the scan, for arrays of x and y in pixels of the page."""

LEAST_QUALITY: Final = 1.0
"""Below it there are no lines of text: nothing is to be corrected."""

LEAST_CELLS: Final = 24
"""With fewer cells of text nothing is said about curvature."""

_FLAT = 2.0  # grey levels: a patch whose pixels deviate by less is empty
_FAINT = 0.1  # of the energy of the strongest patch
_CELL_CONTRAST = 1.0
_MOST_WEIGHT = 3.0
_REACH = 9.0  # degrees that the lines of a cell may depart from those of the page
_TILT = 0.3  # degrees


@dataclass(frozen=True, slots=True)
class PageSummary:
    """How the lines of a page lie.

    Attributes:
        angle: Of the lines, in degrees, counter-clockwise positive, within +-20.
        quality: How much the page's angle stands out, as a logarithm: 0 blank, 2 to 5 straight text.
        bend: The most by which a line departs from a straight one, in pixels.
        coefficients: Of the surface that `curvature.fit` fitted; None where too few cells show text.
        box: Where the text is, in the upright frame (`curvature.upright`); None with `coefficients`.
    """

    angle: float = 0.0
    quality: float = 0.0
    bend: float = 0.0
    coefficients: tuple[float, ...] | None = None
    box: Box | None = None

    def departure(self, width: int) -> float:
        """How far lines of the page depart from level straight ones: in pixels, for each 2,000 of its width.

        Infinite where no lines stand out, so that of two looks at a page the one with less shows it straighter.
        """
        if self.quality < LEAST_QUALITY:
            return math.inf
        return 2000 * (abs(math.tan(math.radians(self.angle))) + self.bend / width)


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells of a page that show text: centres in pixels of the page, angles in degrees, weights; each ``[n]``."""

    x: Floats
    y: Floats
    angles: Floats
    weights: Floats

    def __len__(self) -> int:
        return len(self.x)

    def where(self, chosen: npt.NDArray[np.bool_]) -> _Cells:
        return _Cells(self.x[chosen], self.y[chosen], self.angles[chosen], self.weights[chosen])


def summarise(features: Float32, grid: PatchGrid, inside: Inside | None = None) -> PageSummary:
    """Sum up a page whose patches have all been looked at.

    Args:
        features: float32 ``[len(grid), 891]`` of `FirstPass`, in the order of the grid.
        grid: the patches of the page.
        inside: for a page that was resampled: what shows its border rather than the scan is left out.
    """
    energies, cell_energies, deviations = split(features)
    if not (deviations > _FLAT).any():
        return PageSummary()
    contrast = _contrast(energies)[_written(energies, deviations)].mean(0)
    quality = float(contrast.max() - np.median(contrast))
    angle = float(_peaks(contrast[None], PAGE_ANGLES)[0])
    if quality < LEAST_QUALITY:
        return PageSummary(quality=quality)
    cells = _cells(_contrast(cell_energies), grid, angle)
    if inside is not None:
        cells = cells.where(inside(cells.x, cells.y))
    if len(cells) < LEAST_CELLS:
        return PageSummary(angle, quality)
    return _with_curvature(angle, quality, cells, grid)


def _written(energies: Float32, deviations: Float32) -> npt.NDArray[np.bool_]:
    """The patches that are asked for the page's angle: not those that show empty paper.

    The noise of a scanner has an angle of its own in each of them: a noisy page with text on its upper third only was
    taken for turned by 0.16 degrees, and with 0.00 is not.
    """
    strength = np.median(energies, -1)
    outstanding = energies.max(-1) > np.e * strength
    strong = strength > _FAINT * strength[deviations > _FLAT].max()
    written: npt.NDArray[np.bool_] = (deviations > _FLAT) & (strong | outstanding)
    return written


def _with_curvature(angle: float, quality: float, cells: _Cells, grid: PatchGrid) -> PageSummary:
    width, height = grid.width, grid.height
    x, y, coefficients = _fitted(cells, angle, grid)
    if abs(tilted := tilt(coefficients, width)) >= _TILT:  # a straight slope of all lines is rotation
        angle -= tilted
        x, y, coefficients = _fitted(cells, angle, grid)
    left, right = np.quantile(x, [0.01, 0.99])
    top, bottom = np.quantile(y, [0.01, 0.99])
    box = float(left), float(right), float(top), float(bottom)
    most = bend(coefficients, x, y, box, width, height)
    return PageSummary(angle, quality, most, tuple(map(float, coefficients)), box)


def _fitted(cells: _Cells, angle: float, grid: PatchGrid) -> tuple[Floats, Floats, Floats]:
    """Centres of the cells in the upright frame, and the surface that their slopes are of."""
    x, y = upright(cells.x, cells.y, angle, grid.width, grid.height)
    slopes = -np.tan(np.deg2rad(cells.angles - angle))
    return x, y, fit(x, y, slopes, cells.weights, grid.width, grid.height)


def _cells(contrast: Floats, grid: PatchGrid, angle: float) -> _Cells:
    """The cells whose lines stand out. Angles far from the page's are those of pictures, rules and letters."""
    near = np.abs(CELL_ANGLES - angle) <= _REACH
    angles = _peaks(contrast, CELL_ANGLES, near)
    weights = np.where(near, contrast, -np.inf).max(-1)
    offsets = CELL // 2 + np.arange(CELLS_A_SIDE) * (PATCH - CELL) // (CELLS_A_SIDE - 1)
    down, across = (axis.ravel() for axis in np.meshgrid(offsets, offsets, indexing="ij"))
    positions = grid.positions()
    centres = positions[:, :1] + across, positions[:, 1:] + down
    x, y = (np.asarray(axis.ravel(), np.float64) for axis in centres)
    every = _Cells(x, y, angles.ravel(), np.minimum(weights, _MOST_WEIGHT).ravel())
    return every.where((weights > _CELL_CONTRAST).ravel())


def _contrast(energies: npt.NDArray[Any]) -> Floats:
    """Logarithm of energies over their median angle, along the last axis."""
    usual = np.median(energies, -1, keepdims=True)
    return np.asarray(np.log(np.maximum(energies, 1e-6) / np.maximum(usual, 1e-6)), np.float64)


def _peaks(contrast: Floats, angles: Floats, near: npt.NDArray[np.bool_] | None = None) -> Floats:
    """The angle of the greatest contrast: ``[..., angles]`` -> ``[...]``, by a parabola through five points.

    Args:
        contrast: by angle, along the last axis.
        angles: evenly spread, in degrees.
        near: the angles among which the greatest is looked for.
    """
    best = (contrast if near is None else np.where(near, contrast, -np.inf)).argmax(-1)
    middle = np.clip(best, 2, len(angles) - 3)
    offsets = np.arange(-2, 3)
    around = np.take_along_axis(contrast, middle[..., None] + offsets, -1)
    slope = around @ offsets / 10  # of the least-squares parabola
    curve = (around @ offsets**2 - 2 * around.sum(-1)) / 14
    shift = np.where(curve < 0, -slope / (2 * np.minimum(curve, -1e-12)), 0)
    step = angles[1] - angles[0]
    return np.asarray(np.where(middle == best, angles[middle] + np.clip(shift, -2, 2) * step, angles[best]), np.float64)
