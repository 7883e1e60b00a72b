"""A picture decoded at its full size: its own pixels, upright, in 8 bits; what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from penstock.errors import TooLargeError, TruncatedError, UnreadableError
from penstock.preprocess import PreprocessSpec
from penstock.preprocess.decode.whole import decode_whole

SPEC = PreprocessSpec()


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_grey_stays_grey_and_colours_are_three() -> None:
    """Every pixel as it is in the file, whatever its size."""
    grey = np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8)
    assert (decode_whole(encoded(Image.fromarray(grey)), SPEC) == grey).all()
    colours = np.random.default_rng(0).integers(0, 255, (1500, 40, 3), np.uint8)
    assert (decode_whole(encoded(Image.fromarray(colours)), SPEC) == colours).all()


def test_large_pictures_with_transparency_are_whole() -> None:
    """They are flattened band by band."""
    pixels = np.zeros((3000, 1200, 4), np.uint8)
    pixels[1700:, :, 3] = 255
    found = decode_whole(encoded(Image.fromarray(pixels, "RGBA")), SPEC)
    assert found.shape == (3000, 1200, 3)
    assert (found[:1700] == 255).all()
    assert (found[1700:] == 0).all()


def test_deep_samples_are_scaled_by_the_whole_picture() -> None:
    """And not clipped."""
    deep = np.array([[0, 65535], [257, 257 * 200]], np.uint16)
    assert decode_whole(encoded(Image.fromarray(deep)), SPEC).tolist() == [[0, 255], [1, 200]]


def test_it_is_turned_as_its_metadata_says() -> None:
    """A scan that lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(np.array([[0, 0, 255, 255], [0, 0, 255, 255]], np.uint8).repeat(8, 0).repeat(8, 1))
    found = decode_whole(encoded(lying, "JPEG", exif=exif, quality=95), SPEC)
    assert found.shape == (32, 16)
    assert found[:12].max() < 20
    assert found[-12:].min() > 235


@pytest.mark.parametrize(
    ("data", "spec", "error"),
    [
        (b"<html>", SPEC, UnreadableError),
        (encoded(Image.new("L", (64, 64)))[:60], SPEC, TruncatedError),
        (encoded(Image.new("L", (64, 64))), PreprocessSpec(max_pixels=1000), TooLargeError),
        # no fraction of it counts: it is wanted whole
        (encoded(Image.new("L", (640, 640)), "JPEG"), PreprocessSpec(max_pixels=400_000), TooLargeError),
        (encoded(Image.new("RGB", (64, 64)), "WEBP"), PreprocessSpec(max_side=60), TooLargeError),
    ],
)
def test_what_cannot_be_is_an_error_of_the_picture(data: bytes, spec: PreprocessSpec, error: type[Exception]) -> None:
    """No picture, half of one, more than is allowed."""
    with pytest.raises(error):
        decode_whole(data, spec)
