"""From Pillow's many modes to three that can be reduced: scaled, never clipped; nothing hidden leaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image

from ..limits import BAND_PIXELS
from ..spec import PreprocessSpec
from .color import to_rgb
from .tiff import is_min_white, sample_tags, top_sample
from .value_ranges import Range, range_of, scaled

_PLAIN: Final = ("L", "RGB", "CMYK")
_GREY: Final = ("1", "L", "LA", "La")


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


def is_deep(image: Image.Image) -> bool:
    """Whether its samples have more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def sample_range(image: Image.Image, spec: PreprocessSpec) -> Range | None:
    """How the samples of a picture are to be scaled; None where they have 8 bits or fewer."""
    if not is_deep(image):
        return None
    tags, dtype = sample_tags(image), {"I": np.int32, "F": np.float32}.get(image.mode, np.uint16)
    found, top = range_of(np.dtype(dtype), spec.value_range), top_sample(tags)
    if top is not None and not found.said:
        found = Range(0.0, top)
    return Range(found.white, found.black, found.said) if is_min_white(tags) else found


def without_unused_alpha(image: Image.Image) -> Image.Image:
    """A loaded picture; a BMP with nothing but zeros for alpha is opaque: exporters write that where there is none."""
    unused = image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)
    return image.convert("RGB") if unused else image


def with_alpha(image: Image.Image) -> Image.Image:
    """A picture of 8 bits that `has_transparency_data`, in whatever way, as LA or RGBA."""
    return image.convert("LA" if image.mode in _GREY else "RGBA")


def flatten(image: Image.Image, spec: PreprocessSpec, span: Range | None) -> tuple[Image.Image, bool]:
    """A loaded picture of any mode as L, RGB or CMYK at 8 bits.

    Args:
        image: Loaded; not changed. Maybe a band of a larger one.
        spec: Says the background under transparent pixels.
        span: `sample_range` of the whole picture.

    Returns:
        The picture, and whether its colour profile has been applied already (needed before compositing, because the
        background is sRGB).

    Raises:
        DecodeError: Samples far beyond their range, or not finite.
    """
    if span is not None:
        return _shallow(image, spec, span)
    if image.has_transparency_data:
        return _composite(image, spec), True
    if image.mode in _PLAIN:
        return image, False
    return image.convert("L" if image.mode == "1" else "RGB"), False


def _is_flat(image: Image.Image) -> bool:
    return image.mode in _PLAIN and not image.has_transparency_data


def _shallow(image: Image.Image, spec: PreprocessSpec, span: Range) -> tuple[Image.Image, bool]:
    deep = np.asarray(image)
    grey = Image.fromarray(scaled(deep, span))
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return grey, False
    alpha = Image.fromarray(np.where(deep == key, 0, 255).astype(np.uint8))
    return _over(to_rgb(grey, image.info.get("icc_profile"), spec.cmyk), alpha, spec), True


def _composite(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    rgba = with_alpha(image)
    colours = rgba.convert("L" if rgba.mode == "LA" else "RGB")  # a grey profile is for grey
    return _over(to_rgb(colours, image.info.get("icc_profile"), spec.cmyk), rgba.getchannel("A"), spec)


def _over(colours: Image.Image, alpha: Image.Image, spec: PreprocessSpec) -> Image.Image:
    # Composite before any resampling: means of hidden colours would bleed over the edge.
    if alpha.getextrema() == (255, 255):
        return colours
    below = Image.new("RGB", colours.size, spec.background)
    below.paste(colours.convert("RGB"), mask=alpha)
    return below
