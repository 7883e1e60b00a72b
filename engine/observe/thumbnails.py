"""Small pictures, as pages hold them."""

from __future__ import annotations

import base64
import io
from typing import Final

from PIL import Image

THUMBNAIL: Final = 360
"""Longest side in pixels: sharp at the size a page shows it, about 20 KB each."""


def thumbnail(image: Image.Image) -> bytes:
    """A small JPEG of a picture, its longest side `THUMBNAIL` pixels at most. The picture is shrunk in place."""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=82)
    return file.getvalue()


def data_uri(jpeg: bytes) -> str:
    """A JPEG file as a page can hold it."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
