"""Bars round pictures are found and cut off; nothing else is."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from penstock.preprocess.pdq import hamming, luma64, pdq
from penstock.preprocess.videos.letterbox import Box, content_box

UInt8 = npt.NDArray[np.uint8]
PHOTOS = sorted((Path(__file__).resolve().parent.parent / "examples" / "photos").glob("*.jpg"))

# A retina in a black surround, which is cut close; stars that are as dark at the edges as bars.
OWN_BARS = ("retina-1",)
DARK_EDGES = ("hubble-deep-field-1",)


def photo(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def framed(image: Image.Image, wide: float, high: float, level: int, quality: int | None) -> tuple[UInt8, Box]:
    """The picture in the middle of a dark one so many times its size, and where it is."""
    canvas = Image.new("RGB", (round(image.width * wide), round(image.height * high)), (level, level, level))
    left, top = (canvas.width - image.width) // 2, (canvas.height - image.height) // 2
    canvas.paste(image, (left, top))
    if quality is not None:
        file = io.BytesIO()
        canvas.save(file, "JPEG", quality=quality)
        canvas = Image.open(file).convert("RGB")
    return np.asarray(canvas), Box(left, top, left + image.width, top + image.height)


def distance(one: UInt8, other: UInt8) -> int:
    hashes = pdq(np.stack([luma64(one), luma64(other)]))
    return int(hamming(hashes[0], hashes[1]))


def test_photographs_have_no_bars() -> None:
    """Bright or dark, nothing is cut; of the black round the retina, what is at the edges."""
    for path in PHOTOS:
        pixels = np.asarray(photo(path))
        whole = Box(0, 0, pixels.shape[1], pixels.shape[0])
        for light in (1, 0.5, 0.15, 0.05):
            found = content_box((pixels * light).astype(np.uint8))
            if path.stem not in OWN_BARS:
                assert found == whole, (path.stem, light)
            assert max(abs(a - b) for a, b in zip(found, whole, strict=True)) <= 8


@pytest.mark.slow
@pytest.mark.parametrize(("wide", "high"), [(1, 1.34), (1.7, 1), (1.3, 1.3), (3.1, 1)])
@pytest.mark.parametrize("quality", [None, 50])
@pytest.mark.parametrize("level", [0, 16])
def test_bars_are_cut_off_so_that_copies_are_found(wide: float, high: float, level: int, quality: int | None) -> None:
    """Above and below, beside, all round, a tall picture in a wide one; compressed hard, and of washed-out black.

    What is left is the picture, and its hash that of the picture without bars; with bars none is near it.
    """
    for path in PHOTOS:
        if path.stem in DARK_EDGES:
            continue
        original = photo(path)
        pixels, place = framed(original, wide, high, level, quality)
        found = content_box(pixels)
        assert max(abs(a - b) for a, b in zip(found, place, strict=True)) <= 8, path.stem
        assert distance(np.asarray(original), found.cut(pixels)) <= 31, path.stem
        assert distance(np.asarray(original), pixels) > 31


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_of_a_uniform_picture_all_is_left(width: int, height: int, level: int) -> None:
    """Black or not, however small."""
    assert content_box(np.full((height, width, 3), level, np.uint8)) == (0, 0, width, height)


def test_what_is_small_in_the_dark_stays_in_it() -> None:
    """A logo on black is a picture of a logo on black."""
    pixels = np.zeros((360, 640, 3), np.uint8)
    pixels[170:190, 300:340] = 200
    assert content_box(pixels) == (0, 0, 640, 360)


def test_what_fades_into_the_dark_is_a_picture_to_its_end() -> None:
    """A night that brightens slowly has no bar, though its first rows are black."""
    rows = np.linspace(0, 120, 360)[:, None, None]
    pixels = np.broadcast_to(rows, (360, 640, 3)).astype(np.uint8)
    assert content_box(pixels) == (0, 0, 640, 360)


def test_a_subtitle_within_a_bar_is_not_cut_off() -> None:
    """The bar ends where it begins."""
    image = Image.new("RGB", (640, 480))
    image.paste(photo(PHOTOS[1]).resize((640, 360)), (0, 60))
    ImageDraw.Draw(image).text((200, 432), "What is said below the picture", "white", ImageFont.load_default(20))
    found = content_box(np.asarray(image))
    assert found.top == 60
    assert 450 <= found.bottom <= 456


def test_a_cut_is_a_view() -> None:
    """No pixel is copied."""
    pixels = np.asarray(photo(PHOTOS[0]))
    part = Box(10, 20, 50, 90).cut(pixels)
    assert part.shape == (70, 40, 3)
    assert np.shares_memory(part, pixels)
