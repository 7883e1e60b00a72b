"""A folder of everything a crawl brings home: odd but good pictures, broken ones, bombs, and what is no picture at all.

Every file comes with what must become of it, so the folder tests a whole job: ``read`` is the number of files, and
each ends as a row, as a dead letter of a given kind, or filtered.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from .pictures import texture

Outcome = Literal["row", "dead", "filtered"]

ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Expected:
    """What must become of a file.

    Attributes:
        outcome: how it ends.
        error: for a dead letter, the class of ``penstock.errors`` its error belongs to, itself or as a subclass.
        size: for a row, width and height of the picture as a person sees it, upright.
    """

    outcome: Outcome
    error: str | None = None
    size: tuple[int, int] | None = None


ROW = Expected("row", size=(120, 90))
FILTERED = Expected("filtered")


def make_hostile(folder: Path) -> dict[str, Expected]:
    """Fill an empty or new folder.

    Args:
        folder: where; its parents are made.

    Returns:
        What must become of each file, by its path relative to ``folder``.
    """
    expected: dict[str, Expected] = {}
    for name, (make, outcome) in {**_odd_pictures(), **_broken(), **_others()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make())
        expected[name] = outcome
    os.mkfifo(folder / "pipe.jpg")  # to open it would hang for ever
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    missing = Expected("dead", "ReadError")
    return {**expected, "pipe.jpg": missing, "gone.jpg": missing}


Files = dict[str, tuple[Callable[[], bytes], Expected]]


def _odd_pictures() -> Files:
    """Good pictures of kinds that a careless decoder shows wrong, or not at all."""
    photo = texture(1, (120, 90))
    alpha = photo.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(photo.size))
    ramp = np.linspace(0, 65535, 120 * 90).reshape(90, 120)
    frames = [texture(seed, photo.size) for seed in range(3)]
    files: Files = {
        "plain.jpg": (partial(_saved, photo, "JPEG"), ROW),
        "progressive.jpg": (partial(_saved, photo, "JPEG", progressive=True), ROW),
        "grey.jpg": (partial(_saved, photo.convert("L"), "JPEG"), ROW),
        "cmyk.jpg": (partial(_saved, photo.convert("CMYK"), "JPEG"), ROW),
        "png-under-another-name.jpg": (partial(_saved, photo, "PNG"), ROW),
        "no-extension": (partial(_saved, photo, "JPEG"), ROW),
        "UPPER CASE, space and ünicode.JPG": (partial(_saved, photo, "JPEG"), ROW),
        "line\nbreak.jpg": (partial(_saved, photo, "JPEG"), ROW),
        "-x $(id).jpg": (partial(_saved, photo, "JPEG"), ROW),
        "deep/er/still.jpg": (partial(_saved, photo, "JPEG"), ROW),
        "16-bit.png": (partial(_saved, Image.fromarray(ramp.astype(np.uint16)), "PNG"), ROW),
        "16-bit.tif": (partial(_saved, Image.fromarray(ramp.astype(np.uint16)), "TIFF"), ROW),
        "32-bit.tif": (partial(_saved, Image.fromarray((ramp / 257).astype(np.int32)), "TIFF"), ROW),
        "float.tif": (partial(_saved, Image.fromarray((ramp / 65535).astype(np.float32)), "TIFF"), ROW),
        "lab.tif": (partial(_saved, _lab(photo), "TIFF"), ROW),
        "1-bit.png": (partial(_saved, photo.convert("1"), "PNG"), ROW),
        "alpha.png": (partial(_saved, alpha, "PNG"), ROW),
        "alpha.webp": (partial(_saved, alpha, "WEBP"), ROW),
        "grey-alpha.png": (partial(_saved, alpha.convert("LA"), "PNG"), ROW),
        "palette.png": (partial(_saved, photo.quantize(32), "PNG"), ROW),
        "palette-alpha.png": (partial(_saved, photo.quantize(32), "PNG", transparency=0), ROW),
        "plain.bmp": (partial(_saved, photo, "BMP"), ROW),
        "one-pixel.png": (partial(_saved, photo.crop((0, 0, 1, 1)), "PNG"), Expected("row", size=(1, 1))),
        "panorama.jpg": (partial(_saved, photo.resize((3000, 20)), "JPEG"), Expected("row", size=(3000, 20))),
    }
    for orientation in range(1, 9):
        size = (90, 120) if orientation > 4 else (120, 90)
        make = partial(_saved, photo, "JPEG", exif=_exif(orientation))
        files[f"exif-{orientation}.jpg"] = (make, Expected("row", size=size))
    for name, form in (("gif", "GIF"), ("webp", "WEBP"), ("png", "PNG")):
        make = partial(_saved, frames[0], form, save_all=True, append_images=frames[1:])
        files[f"animated.{name}"] = (make, ROW)
    return files


def _broken() -> Files:
    """Files with a picture's name that are none, or none any more."""
    photo = texture(2, (120, 90))
    unreadable, truncated = (Expected("dead", error) for error in ("UnreadableError", "TruncatedError"))
    undecodable = Expected("dead", "DecodeError")
    unsupported, too_large = (Expected("dead", error) for error in ("UnsupportedFormatError", "TooLargeError"))
    files: Files = {
        "empty.jpg": (lambda: b"", unreadable),
        "bare-start.jpg": (lambda: b"\xff\xd8\xff", unreadable),
        "zeros.jpg": (lambda: bytes(4096), unreadable),
        "error-page.jpg": (lambda: b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n", unreadable),
        "lfs-pointer.png": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", unreadable),
        "targa.tga": (partial(_saved, photo, "TGA"), unreadable),
        "postscript.jpg": (partial(_saved, photo, "EPS"), unsupported),
        "photoshop.jpg": (lambda: b"8BPS\0\1" + bytes(64), unsupported),
        "jpeg2000.jpg": (lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64), unsupported),
        "texture.jpg": (lambda: b"BLP1" + bytes(256), unsupported),
        "phone.heic": (lambda: b"\0\0\0\x18ftypheic" + bytes(64), unsupported),
        "vector.svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', undecodable),
        "camera.cr2": (lambda: b"II*\0\x10\0\0\0CR\2\0" + bytes(64), unsupported),
        "of-another-range.tif": (partial(_saved, Image.new("F", photo.size, 4095.0), "TIFF"), undecodable),
        "not-a-number.tif": (partial(_saved, Image.new("F", photo.size, np.nan), "TIFF"), undecodable),
        "bomb.png": (partial(_png_header, 60_000, 60_000), too_large),
        "bomb.gif": (partial(_gif_header, 65_535, 65_535), too_large),
        "bomb.bmp": (partial(_bmp_header, 50_000, 50_000), too_large),
        "long.png": (partial(_png_header, 200_000, 4), too_large),
    }
    for name, form in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF")):
        files[f"cut-in-half.{name}"] = (partial(_half, photo, form), truncated)
    return files


def _others() -> Files:
    """What lies beside pictures."""
    texts = ("notes.txt", "labels.csv", "README", "deep/er/meta.json", "Thumbs.db", ".DS_Store", "empty-file")
    return {name: (partial(_text, name), FILTERED) for name in texts}


def _text(name: str) -> bytes:
    return b"" if name.startswith("empty") else f"this is {name}, not a picture\n".encode()


def _saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def _half(picture: Image.Image, form: str) -> bytes:
    data = _saved(picture, form)
    return data[: len(data) // 2]


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _lab(picture: Image.Image) -> Image.Image:
    from PIL import ImageCms

    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(picture, to_lab)
    assert lab is not None
    return lab


def _png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that promises much."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(64))))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _gif_header(width: int, height: int) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"


def _bmp_header(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 64, 0, 0, 54) + info + bytes(64)
