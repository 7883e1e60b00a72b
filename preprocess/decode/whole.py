"""One picture at its full size, upright, in 8 bits: for what is measured in its own pixels, as scanned pages are."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from ..spec import PreprocessSpec
from .color import to_rgb
from .decode import PLUGINS, check_size, check_tile, guarded
from .exif import upright_image
from .headers import check_format, webp_size
from .modes import bands, flatten, sample_range, without_unused_alpha


def decode_whole(data: bytes, spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """Decode all of a picture.

    Args:
        data: The bytes of its file.
        spec: Says the limits, the formats, the background under transparent pixels, and how deep samples are scaled.

    Returns:
        uint8 ``[h, w]`` of a grey picture, ``[h, w, 3]`` of any other: sRGB.

    Raises:
        ItemError: As `decode_into` has them.
    """
    name = check_format(data, spec.formats)
    if name == "WEBP" and (promised := webp_size(data)):
        check_size(*promised, spec)

    def whole() -> npt.NDArray[np.uint8]:
        with PLUGINS[name](io.BytesIO(data), "") as image:
            check_size(*image.size, spec)
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                check_tile(image, spec)
            image.load()
            return _flat(upright_image(image), spec)

    return guarded(name, data, whole)


def _flat(image: Image.Image, spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """Band by band: what is on the way is much larger than what comes."""
    span, image = sample_range(image, spec), without_unused_alpha(image)
    pieces = []
    for band in bands(image, 1):
        profile = band.info.get("icc_profile")
        flat, converted = flatten(band, spec, span)
        pieces.append(np.asarray(flat if converted else to_rgb(flat, profile, spec.cmyk)))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
