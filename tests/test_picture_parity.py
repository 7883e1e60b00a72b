"""The same picture as a file, as its bytes, as a PIL image and as an array gives the same pixels, in every mode.

Pictures are as large as the target: nothing is reduced, so the pixels are the same to the bit.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from penstock.engine.jobs.images.inputs import as_source
from penstock.errors import ItemError
from penstock.preprocess.decode.decode import Source, decode_into
from penstock.preprocess.kernel.canvas import make_canvas
from penstock.preprocess.spec import PreprocessSpec
from penstock.references import Reference
from penstock.tests.drawn import SIZE, bmp, channels, encoded, gamma_profile, smooth, tiff

SPEC = PreprocessSpec(size=SIZE, resize=SIZE, background=(7, 80, 200))
MAGENTA = (255, 0, 255)
UInt8 = npt.NDArray[np.uint8]


def decode(source: Source, spec: PreprocessSpec = SPEC) -> UInt8:
    """The decoded pixels, ``[h, w, 3]``."""
    canvas = make_canvas(spec, 1)[0]
    placed = decode_into(source, spec, canvas)
    width, height = (int(v) for v in placed.params[4:])
    return channels(canvas)[:height, :width]


def given(image: Image.Image) -> Source:
    """A PIL image as the workers get it."""
    source = as_source(image)
    assert not isinstance(source, (ItemError, Reference))
    return source


def rgb() -> Image.Image:
    return Image.fromarray(smooth())


def grey() -> Image.Image:
    return rgb().convert("L")


def half_hidden() -> UInt8:
    """RGBA whose left half is hidden magenta, and whose right half is half transparent."""
    rgba = np.dstack([smooth(), np.full((SIZE, SIZE), 128, np.uint8)])
    rgba[:, : SIZE // 2] = (*MAGENTA, 0)
    return rgba


def palette() -> Image.Image:
    """Index 0 is magenta."""
    indices = (np.arange(SIZE * SIZE).reshape(SIZE, SIZE) // 64 % 4).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette([*MAGENTA, 0, 255, 0, 10, 20, 30, 200, 100, 50])
    return image


def keyed() -> Image.Image:
    image = rgb()
    image.paste(MAGENTA, (0, 0, SIZE // 2, SIZE))
    return image


def deep(top: int = 65535) -> npt.NDArray[np.uint16]:
    return np.linspace(0, top, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)


def xmp(turn: int) -> bytes:
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % turn


def with_exif(turn: int, name: str, image: Image.Image | None = None, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    return encoded(image or rgb(), name, exif=exif, **options)


def grey_alpha() -> Image.Image:
    return Image.merge("LA", [grey(), Image.fromarray(half_hidden()[:, :, 3])])


FILES: dict[str, Callable[[], bytes]] = {
    "1": lambda: encoded(rgb().convert("1"), "PNG"),
    "L": lambda: encoded(grey(), "PNG"),
    "LA": lambda: encoded(grey_alpha(), "PNG"),
    "P": lambda: encoded(palette(), "PNG"),
    "P with a transparent index (PNG)": lambda: encoded(palette(), "PNG", transparency=0),
    "P with a transparent index (GIF)": lambda: encoded(palette(), "GIF", transparency=0),
    "P with alpha for each index": lambda: encoded(palette(), "PNG", transparency=bytes([0, 255, 100, 30])),
    "RGB": lambda: encoded(rgb(), "PNG"),
    "RGB with a transparent colour": lambda: encoded(keyed(), "PNG", transparency=MAGENTA),
    "L with a transparent grey": lambda: encoded(grey(), "PNG", transparency=100),
    "1 with a transparent value": lambda: encoded(rgb().convert("1"), "PNG", transparency=0),
    "RGBA (PNG)": lambda: encoded(Image.fromarray(half_hidden()), "PNG"),
    "RGBA (WebP)": lambda: encoded(Image.fromarray(half_hidden()), "WEBP", lossless=True, exact=True),
    "RGBA (TIFF)": lambda: encoded(Image.fromarray(half_hidden()), "TIFF"),
    "16 bits (PNG)": lambda: encoded(Image.fromarray(deep()), "PNG"),
    "16 bits with a transparent grey": lambda: encoded(Image.fromarray(deep()), "PNG", transparency=int(deep()[9, 9])),
    "16 bits (TIFF)": lambda: encoded(Image.fromarray(deep()), "TIFF"),
    "16 bits, big-endian": lambda: encoded(Image.fromarray(deep()).convert("I;16B"), "TIFF"),
    "16 bits, 0 is white": lambda: tiff(deep(), _262=0),
    "12 bits": lambda: tiff(deep(4095), bits=12),
    "12 bits in 16": lambda: tiff(deep(4095), _281=4095),
    "32 bits": lambda: encoded(Image.fromarray(deep(255).astype(np.int32)), "TIFF"),
    "floats": lambda: encoded(Image.fromarray((deep() / 65535).astype(np.float32)), "TIFF"),
    "CMYK": lambda: encoded(rgb().convert("CMYK"), "JPEG", quality=95),
    "CMYK, turned (TIFF)": lambda: with_exif(6, "TIFF", rgb().convert("CMYK")),
    "YCbCr": lambda: encoded(rgb().convert("YCbCr"), "TIFF"),
    "LAB": lambda: encoded(rgb().convert("LAB"), "TIFF"),
    "JPEG": lambda: encoded(rgb(), "JPEG", quality=95),
    **{f"turned {turn} by EXIF": partial(with_exif, turn, "JPEG") for turn in range(2, 9)},
    "turned by EXIF (TIFF)": lambda: with_exif(5, "TIFF"),
    "turned by EXIF, with a transparent index": lambda: with_exif(6, "PNG", palette(), transparency=0),
    "turned by EXIF, 16 bits": lambda: with_exif(8, "PNG", Image.fromarray(deep())),
    "turned by XMP (JPEG)": lambda: encoded(rgb(), "JPEG", quality=95, xmp=xmp(6)),
    "turned by XMP (WebP)": lambda: encoded(rgb(), "WEBP", lossless=True, xmp=xmp(3)),
    "turned by XMP (TIFF)": lambda: encoded(rgb().convert("CMYK"), "TIFF", tiffinfo={700: xmp(8)}),
    "RGB with a profile": lambda: encoded(rgb(), "PNG", icc_profile=gamma_profile()),
    "RGBA with a profile": lambda: encoded(Image.fromarray(half_hidden()), "PNG", icc_profile=gamma_profile()),
    "P with a profile": lambda: encoded(palette(), "PNG", icc_profile=gamma_profile()),
    "L with a profile": lambda: encoded(grey(), "PNG", icc_profile=gamma_profile(space="GRAY")),
    "LA with a profile": lambda: encoded(grey_alpha(), "PNG", icc_profile=gamma_profile(space="GRAY")),
    "16 bits with a profile": lambda: encoded(
        Image.fromarray(deep()), "PNG", icc_profile=gamma_profile(space="GRAY"), transparency=int(deep()[9, 9])
    ),
    "JPEG in a TIFF, with a profile": lambda: encoded(
        rgb(), "TIFF", compression="jpeg", quality=50, icc_profile=gamma_profile()
    ),
    "BMP": lambda: bmp(half_hidden()),
    "BMP whose alpha is nothing": lambda: bmp(np.dstack([smooth(), np.zeros((SIZE, SIZE), np.uint8)])),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_picture_is_the_same_however_it_is_given(kind: str, tmp_path: Path) -> None:
    """File, bytes, a PIL image that is opened, one that is loaded, and one in a file of its own."""
    data = FILES[kind]()
    path = tmp_path / "picture"
    path.write_bytes(data)
    expected = decode(str(path))
    assert (decode(data) == expected).all()
    for prepare in (Image.Image.getbands, Image.Image.load):
        image = Image.open(io.BytesIO(data))
        prepare(image)
        assert (decode(given(image)) == expected).all()
        assert (decode(image) == expected).all()


@pytest.mark.parametrize(
    "kind", ["1", "L", "RGB", "RGBA (PNG)", "16 bits (PNG)", "16 bits, big-endian", "32 bits", "floats"]
)
def test_an_array_is_the_same_as_its_file(kind: str) -> None:
    """Where the samples alone say what they mean."""
    data = FILES[kind]()
    assert (decode(np.asarray(Image.open(io.BytesIO(data)))) == decode(data)).all()


def test_what_is_hidden_stays_hidden_in_pil_images() -> None:
    """The magenta under transparency is nowhere in the pixels."""
    for kind in (
        "P with a transparent index (PNG)",
        "P with a transparent index (GIF)",
        "RGB with a transparent colour",
    ):
        pixels = decode(given(Image.open(io.BytesIO(FILES[kind]()))))
        assert not (pixels == MAGENTA).all(-1).any(), kind


@pytest.mark.parametrize("mode", ["HSV", "RGBa", "La", "PA", "RGBX"])
def test_modes_without_a_file_are_taken_too(mode: str) -> None:
    """What Pillow can make of a picture in memory; as the decoder itself would take it."""
    middle = {"La": "LA", "PA": "P"}.get(mode, "RGBA" if mode == "RGBa" else "RGB")
    image = Image.fromarray(half_hidden()).convert(middle).convert(mode)
    assert (decode(given(image)) == decode(image)).all()


def test_a_given_pil_image_is_left_as_it_was() -> None:
    """Its pixels, mode and metadata are the user's."""
    image = Image.open(io.BytesIO(FILES["turned by EXIF, with a transparent index"]()))
    as_source(image)
    assert (image.mode, image.info["transparency"], image.getexif()[0x0112]) == ("P", 0, 6)


# -- against numpy ----------------------------------------------------------------------------------------------------


def test_twelve_bits_are_scaled_by_twelve_bits() -> None:
    """Packed, or in 16 bits with a tag that says so."""
    expected = np.rint(deep(4095) * (255 / 4095))
    for kind in ("12 bits", "12 bits in 16"):
        assert (decode(FILES[kind]())[:, :, 0] == expected).all()


def test_a_tag_with_a_statistic_is_no_range() -> None:
    """The largest sample of this picture says nothing about the next one."""
    assert (decode(tiff(deep(3000), _281=3000))[:, :, 0] == np.rint(deep(3000) / 257)).all()


def test_zero_is_white_where_the_tiff_says_so() -> None:
    """A scan of a negative is none."""
    assert (decode(FILES["16 bits, 0 is white"]())[:, :, 0] == np.rint(255 - deep() / 257)).all()


def test_a_grey_profile_counts_under_alpha() -> None:
    """An opaque LA is its L."""
    profile = gamma_profile(space="GRAY")
    plain = decode(encoded(grey(), "PNG", icc_profile=profile))
    assert np.abs(plain[:, :, 0].astype(int) - np.asarray(grey())).mean() > 20
    opaque = Image.merge("LA", [grey(), Image.new("L", (SIZE, SIZE), 255)])
    assert (decode(encoded(opaque, "PNG", icc_profile=profile)) == plain).all()
    key = 3  # a grey that does not occur
    assert not (np.asarray(grey()) == key).any()
    assert (decode(encoded(grey(), "PNG", icc_profile=profile, transparency=key)) == plain).all()


def test_alpha_of_zeros_in_a_bmp_is_no_alpha() -> None:
    """Exporters leave the byte empty; where it is used it counts."""
    assert (decode(FILES["BMP whose alpha is nothing"]()) == smooth()).all()
    assert (decode(FILES["BMP"]())[:, : SIZE // 2] == SPEC.background).all()
