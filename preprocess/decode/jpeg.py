"""JPEG decoded at a reduced size: half, quarter or eighth come nearly for free out of the inverse transform."""

from __future__ import annotations

import functools
from typing import Any, Final, Protocol, cast

from PIL import Image

from ...errors import ConfigError
from ..kernel.packed import UInt8, UInt32, pack_array
from ..spec import PreprocessSpec

# Other eighths exist in libjpeg-turbo, but have no SIMD code: 5/8 takes 0.89 ms where the full size takes 0.69.
_FACTORS: Final = (8, 4, 2)

_MARK, _SCAN = 0xFF, 0xDA
_SEQUENTIAL: Final = frozenset((0xC0, 0xC1, 0xC9))
_OTHER_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - _SEQUENTIAL - {0xC4, 0xC8, 0xCC}


def draft_factor(width: int, height: int, spec: PreprocessSpec) -> int:
    """The largest of 8, 4, 2, 1 that keeps both sides at least as long as the resize wants them (Pillow's own rule)."""
    fits = min(width, height) // (spec.resize or spec.size)
    return next((f for f in _FACTORS if fits >= f), 1)


def is_held_whole(data: bytes) -> bool:
    """Whether a JPEG is held in memory at its full size, as coefficients of 2 bytes, however small it is decoded.

    libjpeg does so where a block is not complete after one scan: in progressive files, and where colours have scans of
    their own. What cannot be read up to its first scan counts as held.
    """
    at, colours = 2, 0
    while at + 10 <= len(data) and data[at] == _MARK:
        marker = data[at + 1]
        if marker in _SEQUENTIAL:
            colours = data[at + 9]
        elif marker == _SCAN:
            return data[at + 4] < colours
        elif marker in _OTHER_FRAMES:
            return True
        at += 1 if marker == _MARK else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return True


def load(image: Image.Image, factor: int, spec: PreprocessSpec) -> None:
    """Decode an opened picture, a JPEG at 1/`factor` of its size.

    Raises:
        Exception: Whatever the plugin raises.
    """
    if factor > 1:
        target = spec.resize or spec.size
        image.draft(None, (target, target))
    image.load()


class _SimpleJpeg(Protocol):
    def decode_jpeg(self, data: bytes, colorspace: str, **options: Any) -> UInt8: ...


@functools.cache
def _simplejpeg() -> _SimpleJpeg | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return cast("_SimpleJpeg", simplejpeg)


def check_decoder(spec: PreprocessSpec) -> None:
    """Refuse a decoder that is not installed, rather than be slow without a word.

    Raises:
        ConfigError: simplejpeg was asked for and is not there.
    """
    if spec.decoder == "simplejpeg" and _simplejpeg() is None:
        raise ConfigError("decoder: simplejpeg is not installed: pip install 'penstock[jpeg]'")


def fast_jpeg(image: Image.Image, data: bytes, factor: int) -> UInt32 | None:
    """The same picture by simplejpeg, or None when Pillow must do it.

    Args:
        image: Opened by Pillow, not loaded: its header says what the picture is.
        data: The whole file.
        factor: 8, 4, 2 or 1.

    Returns:
        Packed, uint32 ``[ceil(h / factor), ceil(w / factor)]``, or None for grey, CMYK, a colour profile, no
        simplejpeg, or anything it raises: Pillow then says what is wrong.
    """
    decoder = _simplejpeg()
    if decoder is None or image.mode != "RGB" or "icc_profile" in image.info:
        return None
    width, height = -(-image.width // factor), -(-image.height // factor)
    try:
        pixels = decoder.decode_jpeg(data, "RGBX", min_height=height, min_width=width)
    except Exception:  # noqa: BLE001  (it raises ValueError for any warning of the library)
        return None
    return pack_array(pixels) if pixels.shape == (height, width, 4) else None
