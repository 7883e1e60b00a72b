"""Which sample is black and which is white: said by the type of the samples or by the user, never by the samples.

So one sample over the edge cannot darken a whole picture, and the frames of a series stay comparable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import DecodeError
from ..kernel.packed import UInt8

ValueRange = tuple[float, float]
"""The samples that become 0 and 255."""

_BAND_SAMPLES: Final = 2**20
"""How many samples are scaled at once: what is on the way takes 8 bytes each."""

_OVERSHOOT: Final = 0.5
"""Of the range, on both sides: more than a resize or a sharpening leaves, less than any other usual range."""


@dataclass(frozen=True, slots=True)
class Range:
    """How samples become 0..255.

    Attributes:
        black: the sample that becomes 0.
        white: the sample that becomes 255; smaller than `black` where small samples are bright.
        said: by the user: all samples beyond are clipped. Else those far beyond are refused, as of another range.
    """

    black: float
    white: float
    said: bool = False


def range_of(dtype: np.dtype[Any], said: ValueRange | None) -> Range:
    """The range of samples of a numeric type: floats are 0..1, uint16 is 0..65535, other integers are 0..255.

    Args:
        dtype: of the samples, in any byte order.
        said: by the user, instead.
    """
    if said is not None:
        return Range(*said, said=True)
    if dtype.kind == "f":
        return Range(0.0, 1.0)
    return Range(0.0, 65535.0 if dtype.kind == "u" and dtype.itemsize == 2 else 255.0)


def to_uint8(values: npt.NDArray[Any], said: ValueRange | None = None) -> UInt8:
    """Samples of any numeric type as uint8, by the range of the type or by the one that is said; see `scaled`.

    uint8 is taken as it is, and bool is black or white, whatever is said.

    Raises:
        DecodeError: no numbers, not finite, or far beyond their range.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "iuf":
        raise DecodeError(f"array of dtype {values.dtype} is not a picture; give uint8, uint16 or float")
    return scaled(values, range_of(values.dtype, said))


def scaled(values: npt.NDArray[Any], span: Range) -> UInt8:
    """Real samples as uint8, rounded to nearest; what lies beyond the range is clipped.

    Args:
        values: ``[h, w, ...]`` of any real type, in any byte order.
        span: what becomes 0 and 255.

    Raises:
        DecodeError: a sample is not finite, or further beyond a range that nobody has said than half its width.
    """
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    _check(values, span)
    result = np.empty(values.shape, np.uint8)
    rows = max(1, _BAND_SAMPLES // max(1, math.prod(values.shape[1:])))
    for top in range(0, len(values), rows):
        band = values[top : top + rows].astype(np.float64)
        band -= span.black
        band *= 255.0 / (span.white - span.black)
        result[top : top + rows] = np.rint(np.clip(band, 0.0, 255.0, out=band), out=band)
    return result


def _check(values: npt.NDArray[Any], span: Range) -> None:
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DecodeError(f"{values.dtype} samples that are no numbers (NaN) or infinite: replace them")
    if span.said:
        return
    least, most = sorted((span.black, span.white))
    beyond = _OVERSHOOT * (most - least)
    if low < least - beyond or high > most + beyond:
        raise DecodeError(
            f"{values.dtype} samples from {low:g} to {high:g}, where {least:g}..{most:g} is meant: scale them, or say"
            " which samples are black and white (value_range, --value-range)"
        )
