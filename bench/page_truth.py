"""Where what was drawn lies: true baselines of pages that were bent and turned, followed into what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import Polynomial

from ..preprocess.pages.transform import PageTransform
from .page_renderer import Floats, Line, Warp, shift


def bent_lines(lines: list[Line], warp: Warp, width: int, height: int, points: int = 40) -> Floats:
    """Where the baselines lie on the bent page: float64 ``[lines, points, 2]``, x and y in pixels."""
    places = np.array([np.linspace(line.left, line.right, points) for line in lines])
    straight = np.array([[line.y] for line in lines])
    y = np.broadcast_to(straight, places.shape)
    for _ in range(50):  # y - shift(x, y) is the straight line; shifts change slowly
        y = straight + shift(warp, places, y, width, height)
    return np.stack([places, y], -1)


def turned_lines(lines: Floats, angle: float, width: int, height: int) -> Floats:
    """Positions ``[..., 2]`` of a page on the same page after `turn`."""
    a, middle = np.deg2rad(angle), np.array([width - 1, height - 1]) / 2
    dx, dy = np.moveaxis(lines - middle, -1, 0)
    turned = np.stack([np.cos(a) * dx + np.sin(a) * dy, np.cos(a) * dy - np.sin(a) * dx], -1)
    return np.asarray(middle + turned, np.float64)


def result_of(transform: PageTransform, scan: npt.NDArray[Any], guess: npt.NDArray[Any]) -> Floats:
    """Where positions ``[n, 2]`` of the scan lie in the result: the inverse of `PageTransform.trace`, step by step.

    Args:
        transform: of the page.
        scan: the positions.
        guess: about where they lie, ``[n, 2]``.
    """
    found = np.asarray(guess, np.float64).copy()
    corner = transform.trace(np.array([[0, 0], [1000, 0], [0, 1000]]))
    back = np.linalg.inv((corner[1:] - corner[0]) / 1000)
    for _ in range(20):
        found += (scan - transform.trace(found)) @ back
    assert np.abs(transform.trace(found) - scan).max() < 0.01
    return found


def departure(lines: Sequence[npt.NDArray[Any]] | npt.NDArray[Any]) -> float:
    """How far the points ``[n, 2]`` of lines are from the straight one of each, in pixels: root mean square."""
    apart = [line[:, 1] - Polynomial.fit(line[:, 0], line[:, 1], 1)(line[:, 0]) for line in map(np.asarray, lines)]
    return float(np.sqrt((np.concatenate(apart) ** 2).mean()))
