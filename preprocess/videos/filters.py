"""Which frames go, decided from their statistics alone: pure NumPy, no pixels, no JAX.

The same statistics give the same decision at any later time, so that thresholds can be changed without decoding again.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError
from .statistics import FrameStatistics

Filter = Literal["black", "slide", "flat", "blur", "noise"]

FILTERS: Final[tuple[Filter, ...]] = ("black", "slide", "flat", "blur", "noise")
"""In the order in which they are asked: a frame is said to go by the first one that drops it."""

DEFAULT_FILTERS: Final[tuple[Filter, ...]] = ("blur", "black", "flat", "slide")

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What filters hold statistics against. Of 43 photographs the defaults drop none.

    Attributes:
        black_mean: Black: the mean is below it. 16: all copies of photographs at a twentieth of their light, half of
            those at a seventh.
        slide_bin: A slide of text: the fullest bin has more than this share of the pixels,
        slide_flat: and the share of pixels that are as their neighbours is above this,
        slide_edges: and the share of edges above this.
        flat_std: Flat: the standard deviation is below it,
        flat_entropy: or the entropy is. A slide is not flat, whether slides are asked for or not.
        blur: Blurred: below it. 0.02: four of five copies blurred by a Gaussian of 4 pixels of 640; 0.05: nearly all of
            them, and one photograph in twenty.
        noise: Snow: blur is above it.
    """

    black_mean: float = 16.0
    slide_bin: float = 0.7
    slide_flat: float = 0.8
    slide_edges: float = 0.02
    flat_std: float = 6.0
    flat_entropy: float = 0.5
    blur: float = 0.02
    noise: float = 8.0

    @classmethod
    def parse(cls, text: str) -> Thresholds:
        """The defaults but for what is said: ``blur=0.05,black_mean=10``.

        Raises:
            ConfigError: there is no such threshold, or it is no finite number from 0 up.
        """
        changed: dict[str, float] = {}
        for part in filter(None, text.split(",")):
            name, _, value = (piece.strip() for piece in part.partition("="))
            if name not in _THRESHOLDS:
                raise ConfigError(f"thresholds: there is no {name!r}{_hint(name, _THRESHOLDS)}")
            try:
                changed[name] = float(value)
            except ValueError:
                raise ConfigError(f"thresholds: {part.strip()!r}: they are written name=number") from None
        return cls(**changed)

    def changed(self) -> dict[str, float]:
        """Those that are not the defaults."""
        plain = Thresholds()
        return {name: getattr(self, name) for name in _THRESHOLDS if getattr(self, name) != getattr(plain, name)}

    def __post_init__(self) -> None:
        for name in _THRESHOLDS:
            value: float = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"thresholds: {name}={value}: it must be a finite number from 0 up")


_THRESHOLDS: Final = tuple(field.name for field in fields(Thresholds))


def decide(
    statistics: FrameStatistics, filters: Sequence[Filter] = DEFAULT_FILTERS, thresholds: Thresholds | None = None
) -> list[Filter | None]:
    """Which filter drops each frame.

    Args:
        statistics: Of B frames, fresh or out of a table.
        filters: Those that are asked, in any order.
        thresholds: None: the defaults.

    Returns:
        B names; None for a frame that stays.
    """
    dropped = _dropped(statistics, thresholds or Thresholds())
    answers: list[Filter | None] = [None] * len(statistics)
    for name in reversed(FILTERS):  # the first one has the last word
        for row in np.flatnonzero(dropped[name]) if name in filters else ():
            answers[row] = name
    return answers


def _dropped(of: FrameStatistics, at: Thresholds) -> dict[Filter, Bools]:
    slide = (of.biggest_bin > at.slide_bin) & (of.flat_share > at.slide_flat) & (of.edge_share > at.slide_edges)
    return {
        "black": of.mean < at.black_mean,
        "slide": slide,
        "flat": ((of.std < at.flat_std) | (of.entropy < at.flat_entropy)) & ~slide,
        "blur": of.blur < at.blur,
        "noise": of.blur > at.noise,
    }


def _hint(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f", there are {', '.join(names)}" + (f"; did you mean {near[0]!r}?" if near else "")
