"""What tests of decoding share: a picture that is known, and how to look at a canvas."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

SIZE = 64
UInt8 = npt.NDArray[np.uint8]


def channels(canvas: npt.NDArray[np.uint32]) -> UInt8:
    """Packed pixels as uint8 ``[c, c, 3]``."""
    return np.stack([(canvas >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)], -1)


def smooth(width: int = SIZE, height: int = SIZE) -> UInt8:
    """A picture that survives JPEG: soft, coloured, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    blue = 127 + 120 * np.sin(x / width * 5) * np.cos(y / height * 3)
    pixels: UInt8 = np.rint(np.stack([red, green, blue], -1)).astype(np.uint8)
    return pixels


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def gamma_profile(gamma: float = 1.0, space: Literal["RGB ", "GRAY"] = "RGB ") -> bytes:
    """A profile of sRGB's primaries, or of greys, with another tone curve, made from bytes: none ships with Pillow."""

    def s15(value: float) -> bytes:
        return round(value * 65536).to_bytes(4, "big", signed=True)

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(s15, values))

    curve = b"curv\0\0\0\0" + (1).to_bytes(4, "big") + round(gamma * 256).to_bytes(2, "big") + b"\0\0"
    text = b"desc\0\0\0\0" + (2).to_bytes(4, "big") + b"g\0" + bytes(78 + 2)
    tags = {
        b"desc": text, b"cprt": b"text\0\0\0\0x\0\0\0", b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.4360, 0.2225, 0.0139), b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve, b"kTRC": curve,
    }  # fmt: skip
    table, body = len(tags).to_bytes(4, "big"), b""
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name + (132 + 12 * len(tags) + len(body)).to_bytes(4, "big") + len(value).to_bytes(4, "big")
        body += value
    size = 128 + len(table) + len(body)
    kind = b"mntr" + space.encode() + b"XYZ "
    head = size.to_bytes(4, "big") + b"\0\0\0\0" + bytes.fromhex("02400000") + kind + bytes(12) + b"acsp"
    head += bytes(28) + s15(0.9642) + s15(1.0) + s15(0.8249)
    return head.ljust(128, b"\0") + table + body


def tiff(samples: npt.NDArray[Any], bits: int = 16, **tags: int) -> bytes:
    """A grey TIFF as instruments write it and Pillow cannot: 12 or 16 bits a sample, little-endian, one strip.

    Args:
        samples: ``[h, w]``, w even.
        bits: 12 (packed) or 16.
        tags: more of them, by number: ``_262=0``.
    """
    height, width = samples.shape
    strip = samples.astype("<u2").tobytes()
    if bits == 12:
        first, second = (samples.reshape(-1, 2)[:, i].astype(np.uint32) for i in (0, 1))
        packed = first << 12 | second
        strip = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1).astype(np.uint8).tobytes()
    said = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(strip)}
    said |= {int(name[1:]): value for name, value in tags.items()}
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little") for tag, value in sorted(said.items())
    )
    directory = (8 + len(strip)).to_bytes(4, "little")
    return b"II*\0" + directory + strip + len(said).to_bytes(2, "little") + entries + bytes(4)


def bmp(rgba: UInt8) -> bytes:
    """A BMP with a V4 header and a mask for alpha, which Pillow does not write."""
    height, width = rgba.shape[:2]
    pixels = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = b"".join(mask.to_bytes(4, "little") for mask in (0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    numbers = [
        (108, 4),
        (width, 4),
        (height, 4),
        (1, 2),
        (32, 2),
        (3, 4),
        (len(pixels), 4),
        (0, 4),
        (0, 4),
        (0, 4),
        (0, 4),
    ]
    head = b"".join(value.to_bytes(size, "little") for value, size in numbers) + masks + b"BGRs" + bytes(48)
    return (
        b"BM"
        + (14 + len(head) + len(pixels)).to_bytes(4, "little")
        + bytes(4)
        + (122).to_bytes(4, "little")
        + head
        + pixels
    )
