"""Packing: pictures and arrays as one word a pixel, without a copy where the memory allows it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from penstock.preprocess.kernel.packed import pack, pack_array
from penstock.tests.drawn import channels, smooth


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (500, 375), (9000, 600)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_packed_pixels_are_pillows_own(size: tuple[int, int], mode: str) -> None:
    """A view of Pillow's memory, or a copy where it is scattered over several blocks (9000 x 600): the same pixels."""
    image = Image.effect_noise(size, 90).convert(mode)
    assert (channels(pack(image)) == np.asarray(image.convert("RGB"))).all()


def test_packed_pixels_outlive_their_picture() -> None:
    """The view keeps Pillow's memory alive: nothing else may be put there while it is read."""
    views = [pack(Image.new("RGB", (300, 300), (level, level, level))) for level in range(50)]
    assert [int(view[-1, -1]) & 255 for view in views] == list(range(50))


def test_packing_works_without_the_arrow_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pillow that does not offer it is slower, not wrong."""
    monkeypatch.delattr(Image.Image, "__arrow_c_array__")
    assert (channels(pack(Image.fromarray(smooth()))) == smooth()).all()


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
def test_arrays_are_packed_in_any_layout(shape: tuple[int, ...]) -> None:
    """Grey, colour and padded arrays, contiguous or not."""
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    for a in (array, array[::-1, ::2]):
        expected = np.repeat(a[:, :, None], 3, 2) if a.ndim == 2 else a[:, :, :3]
        assert (channels(pack_array(a)) == expected).all()
