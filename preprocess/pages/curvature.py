"""How the lines of a page are bent: a smooth surface, fitted to the slopes that were seen in its cells.

The surface is the downward displacement of the lines in pixels, in the upright frame of the page, as a polynomial of
Legendre's: degrees 1 to 8 across, 0 to 4 down. Nothing is constant across, since slopes do not show by how much a whole
line is shifted.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre

from .patches import CELL

Floats = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]
"""Left, right, top and bottom, in pixels."""

ACROSS: Final = 8
DOWN: Final = 4
"""The highest degrees; of a page of fewer than so many cells lower ones, or noise would be taken for curvature."""

_RIDGE = 0.01
"""Of the mean of the normal equations' diagonal, and more for higher degrees. A hundredth of it took straight pages of
1000 x 1400 that lay askew for bent by 7 pixels in 2,000, where this says 1.3, and left more of true bends."""

_ROUNDS = 4


def upright(x: Floats, y: Floats, angle: float, width: int, height: int) -> tuple[Floats, Floats]:
    """Positions of the scan in the page turned back by `angle` about its centre; with ``-angle`` the other way.

    Args:
        x: In pixels, of any shape.
        y: The same.
        angle: Degrees, counter-clockwise positive.
        width: Of the scan, in pixels.
        height: The same.
    """
    turn = np.deg2rad(angle)
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    dx, dy = x - middle_x, y - middle_y
    return middle_x + np.cos(turn) * dx - np.sin(turn) * dy, middle_y + np.sin(turn) * dx + np.cos(turn) * dy


def displacement(coefficients: npt.ArrayLike, x: Floats, y: Floats, width: int, height: int) -> Floats:
    """By how many pixels lines lie too low at these positions of the upright frame.

    Args:
        coefficients: 40 numbers of `fit`.
        x: In pixels, of any shape. Beyond the page the surface goes on as at its edge.
        y: The same.
        width: Of the page, in pixels.
        height: The same.
    """
    u, v = (np.clip(2 * position / side - 1, -1, 1) for position, side in ((x, width), (y, height)))
    return _terms(legendre.legvander(u, ACROSS)[..., 1:], v) @ np.asarray(coefficients, np.float64)


def fit(x: Floats, y: Floats, slopes: Floats, weights: Floats, width: int, height: int) -> Floats:
    """Fit the surface to slopes. Cells that contradict their neighbours (pictures, rules, borders) come to count less.

    Args:
        x: float64 ``[n]``, centres of the cells in the upright frame, in pixels.
        y: The same.
        slopes: float64 ``[n]``, pixels down for each pixel to the right.
        weights: float64 ``[n]``, positive.
        width: Of the page, in pixels.
        height: The same.

    Returns:
        float64 ``[40]``, in pixels.
    """
    design = _slope_terms(2 * x / width - 1, 2 * y / height - 1) * 2 / width
    across, down = (axis.ravel() for axis in np.meshgrid(range(1, ACROSS + 1), range(DOWN + 1), indexing="ij"))
    kept = (across <= width // CELL + 2) & (down <= height // (2 * CELL) + 1)
    design, degrees = design[:, kept], (across**2 + down**2)[kept]
    smooth = np.diag(degrees / degrees.mean())
    coefficients = np.zeros(len(degrees))
    trust = weights
    for _ in range(_ROUNDS):  # iteratively reweighted least squares, by Huber's rule
        weighted = design * trust[:, None]
        normal = weighted.T @ weighted
        ridge = _RIDGE * np.trace(normal) / len(normal)
        coefficients = np.linalg.solve(normal + ridge * smooth, weighted.T @ (slopes * trust))
        residual = np.abs(design @ coefficients - slopes)
        usual = max(3 * float(np.median(residual)), 1e-3)
        trust = weights * np.where(residual < usual, 1, usual / np.maximum(residual, 1e-9))
    every = np.zeros(len(kept))
    every[kept] = coefficients
    return every


def bend(coefficients: npt.ArrayLike, x: Floats, y: Floats, box: Box, width: int, height: int) -> float:
    """The most by which a line departs from a straight one, in pixels, where there are cells with text.

    Args:
        coefficients: of `fit`.
        x: float64 ``[n]``, centres of the cells in the upright frame, in pixels.
        y: The same.
        box: Around them. The corners of a box around a page that lay askew have no text: there the surface is a guess.
        width: Of the page, in pixels.
        height: The same.
    """
    left, right, top, bottom = box
    across, down = np.meshgrid(np.linspace(left, right, 41), np.linspace(top, bottom, 31))
    lower = displacement(coefficients, across, down, width, height)
    # line by line: of a page of 400 megapixels there are 14,400 cells
    apart = [np.maximum(np.abs(across[0][:, None] - x), np.abs(line - y)).min(-1) for line in down[:, 0]]
    near = np.stack(apart) <= CELL / 2
    return float((np.abs(lower - _straightened(across, lower, near)) * near).max())


def _straightened(x: Floats, y: Floats, where: npt.NDArray[np.bool_]) -> Floats:
    """The straight line that is nearest to each row of points ``[lines, points]``, of those that count."""
    count = np.maximum(where.sum(1, keepdims=True), 1)
    mean_x, mean_y = (np.sum(values * where, 1, keepdims=True) / count for values in (x, y))
    dx = (x - mean_x) * where
    slope = (dx * y).sum(1, keepdims=True) / np.maximum((dx**2).sum(1, keepdims=True), 1e-9)
    return np.asarray(mean_y + slope * (x - mean_x), np.float64)


def tilt(coefficients: Floats, width: int) -> float:
    """The part of a fit that is a rotation of the whole page: degrees, counter-clockwise negative."""
    return float(np.rad2deg(np.arctan(2 * coefficients[0] / width)))


def _terms(across: npt.NDArray[Any], v: Floats) -> Floats:
    terms = across[..., :, None] * legendre.legvander(v, DOWN)[..., None, :]
    return np.asarray(terms.reshape(*np.shape(v), -1), np.float64)


def _slope_terms(u: Floats, v: Floats) -> Floats:
    derivative = legendre.legder(np.eye(ACROSS + 1))[:, 1:]  # of each polynomial but the constant, as polynomials
    return _terms(legendre.legvander(u, ACROSS - 1) @ derivative, v)
