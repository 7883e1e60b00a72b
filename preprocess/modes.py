"""From Pillow's many modes to three that can be reduced: scaled, never clipped; nothing hidden leaks."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import DecodeError
from .color import to_rgb
from .packed import UInt8
from .spec import PreprocessSpec

_PLAIN: Final = ("L", "RGB", "CMYK")
_DEEP_PREFIX: Final = "I;16"


def flatten(image: Image.Image, spec: PreprocessSpec) -> tuple[Image.Image, bool]:
    """A loaded picture of any mode as L, RGB or CMYK at 8 bits.

    Args:
        image: Loaded; not changed.
        spec: Says the background under transparent pixels.

    Returns:
        The picture, and whether its colour profile has been applied already (needed before compositing, because the
        background is sRGB).

    Raises:
        DecodeError: A mode nobody knows how to read.
    """
    if image.mode in ("I", "F") or image.mode.startswith(_DEEP_PREFIX):
        return _shallow(image, spec), False
    if image.has_transparency_data:
        return _composite(image, spec), True
    if image.mode in _PLAIN:
        return image, False
    return image.convert("L" if image.mode == "1" else "RGB"), False


def _shallow(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    deep = np.asarray(image)
    grey = Image.fromarray(to_uint8(deep.astype(np.uint16) if image.mode.startswith(_DEEP_PREFIX) else deep))
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
    return _stretched(np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0), values.dtype.kind)


def _stretched(values: npt.NDArray[np.float64], kind: str) -> UInt8:
    low, high = float(values.min()), float(values.max())
    for top in (1.0, 255.0, 65535.0) if kind == "f" else (255.0, 65535.0):
        if low >= 0.0 and high <= top:
            low, high = 0.0, top
            break
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return np.rint((values - low) * (255.0 / (high - low))).astype(np.uint8)
