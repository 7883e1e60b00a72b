"""From Pillow's many modes to three that can be reduced: scaled, never clipped; nothing hidden leaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import DecodeError
from .color import to_rgb
from .footprint import BAND_PIXELS
from .packed import UInt8
from .spec import PreprocessSpec

_PLAIN: Final = ("L", "RGB", "CMYK")
_DEEP_PREFIX: Final = "I;16"
_WIDE: Final = ("I", "F")

Range = tuple[float, float]
"""The samples that become 0 and 255."""


def bands(image: Image.Image, step: int) -> Iterator[Image.Image]:
    """A loaded picture in bands of `BAND_PIXELS` at least, whole multiples of `step` rows but for the last one.

    What is flat already comes in one: there is nothing on the way.
    """
    width, height = image.size
    rows = step * -(-BAND_PIXELS // (width * step))
    if rows >= height or _is_flat(image):
        yield image
        return
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(top + rows, height)))


def range_of(image: Image.Image) -> Range | None:
    """How the samples of a picture are to be scaled; None where its mode says it."""
    if image.mode not in _WIDE:
        return None
    samples = (_finite(np.asarray(band)) for band in bands(image, 1))
    extremes = [(float(finite.min()), float(finite.max())) for finite in samples]
    kind = "f" if image.mode == "F" else "i"
    return _range(min(low for low, _ in extremes), max(high for _, high in extremes), kind)


def flatten(image: Image.Image, spec: PreprocessSpec, wide: Range | None) -> tuple[Image.Image, bool]:
    """A loaded picture of any mode as L, RGB or CMYK at 8 bits.

    Args:
        image: Loaded; not changed. Maybe a band of a larger one.
        spec: Says the background under transparent pixels.
        wide: `range_of` the whole picture.

    Returns:
        The picture, and whether its colour profile has been applied already (needed before compositing, because the
        background is sRGB).

    Raises:
        DecodeError: A mode nobody knows how to read.
    """
    if image.mode in _WIDE or image.mode.startswith(_DEEP_PREFIX):
        return _shallow(image, spec, wide), False
    if image.has_transparency_data:
        return _composite(image, spec), True
    if image.mode in _PLAIN:
        return image, False
    return image.convert("L" if image.mode == "1" else "RGB"), False


def _is_flat(image: Image.Image) -> bool:
    return image.mode in _PLAIN and not image.has_transparency_data


def _shallow(image: Image.Image, spec: PreprocessSpec, wide: Range | None) -> Image.Image:
    deep = np.asarray(image)
    grey = Image.fromarray(to_uint8(deep.astype(np.uint16)) if wide is None else _stretched(_finite(deep), wide))
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return grey
    alpha = Image.fromarray(np.where(deep == key, 0, 255).astype(np.uint8))
    return _over(grey.convert("RGB"), alpha, spec)


def _composite(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    rgba = image.convert("RGBA")
    rgb = to_rgb(rgba.convert("RGB"), image.info.get("icc_profile"), spec.cmyk)
    return _over(rgb, rgba.getchannel("A"), spec)


def _over(rgb: Image.Image, alpha: Image.Image, spec: PreprocessSpec) -> Image.Image:
    # Composite before any resampling: means of hidden colours would bleed over the edge.
    if alpha.getextrema() == (255, 255):
        return rgb
    below = Image.new("RGB", rgb.size, spec.background)
    below.paste(rgb, mask=alpha)
    return below


def to_uint8(values: npt.NDArray[Any]) -> UInt8:
    """Samples of any numeric dtype as uint8, scaled by what the dtype or the values say, rounded to nearest.

    uint16 is divided by 257. Wider integers and floats take the smallest of the usual ranges that holds them all (0..1
    for floats only, 0..255, 0..65535), else their own minimum..maximum is stretched. Not-a-number counts as 0.

    Raises:
        DecodeError: Not a real number type.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind not in "iuf":
        raise DecodeError(f"array of dtype {values.dtype} is not a picture; give uint8, uint16 or float")
    finite = _finite(values)
    return _stretched(finite, _range(float(finite.min()), float(finite.max()), values.dtype.kind))


def _finite(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _range(low: float, high: float, kind: str) -> Range:
    for top in (1.0, 255.0, 65535.0) if kind == "f" else (255.0, 65535.0):
        if low >= 0.0 and high <= top:
            return 0.0, top
    return low, high


def _stretched(values: npt.NDArray[np.float64], wide: Range) -> UInt8:
    low, high = wide
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return np.rint((values - low) * (255.0 / (high - low))).astype(np.uint8)
