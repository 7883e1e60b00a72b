"""Patches that cover a page: where they lie, what is in them, how much of the page each stands for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from penstock.errors import UnreadableError
from penstock.preprocess.pages.patches import PATCH, PatchGrid, grey

sides = st.integers(1, 6000)


@given(sides, sides)
def test_patches_cover_the_page_with_evenly_spread_overlap(width: int, height: int) -> None:
    """The fewest that do; each within the page, the first at its start and the last at its end."""
    grid = PatchGrid(width, height)
    for begins, length in ((grid.lefts, width), (grid.tops, height)):
        assert len(begins) == max(1, -(-length // PATCH))
        assert begins[0] == 0
        if length >= PATCH:
            assert begins[-1] == length - PATCH
        steps = np.diff(begins)
        assert len(steps) == 0 or (steps.max() - steps.min() <= 1 and steps.max() <= PATCH)
    assert len(grid) == len(grid.lefts) * len(grid.tops)
    assert grid.positions().tolist() == [list(grid.position(index)) for index in range(len(grid))]


def test_a_page_has_the_patches_that_are_expected() -> None:
    """2000 x 3000: four across, six down, in reading order."""
    grid = PatchGrid(2000, 3000)
    assert grid.lefts == (0, 496, 992, 1488)
    assert grid.tops == (0, 498, 995, 1493, 1990, 2488)
    assert grid.position(5) == (496, 498)


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_pixel_counts_once(width: int, height: int) -> None:
    """Weights are exclusive areas: a pixel is shared by the patches that have it."""
    grid = PatchGrid(width, height, size=8)
    owners = np.zeros((max(height, 8), max(width, 8)))
    boxes = [np.s_[top : top + 8, left : left + 8] for left, top in map(grid.position, range(len(grid)))]
    for box in boxes:
        owners[box] += 1
    expected = np.array([(1 / owners[box]).sum() for box in boxes]) / owners.size
    np.testing.assert_allclose(grid.weights(), expected)
    assert grid.weights().sum() == pytest.approx(1)


def test_patches_are_views_and_small_pages_are_continued_by_their_edges() -> None:
    """No edge appears that the page does not have; colours stay."""
    page = np.arange(700 * 600 * 3, dtype=np.uint32).astype(np.uint8).reshape(700, 600, 3)
    patch = PatchGrid(600, 700).cut(page, 3)
    assert patch.shape == (PATCH, PATCH, 3)
    assert np.shares_memory(patch, page)
    np.testing.assert_array_equal(patch, page[188:, 88:])
    for small in (page[:5, :7, 0], page[:1, :1], page[:, :9]):
        height, width = small.shape[:2]
        patch = PatchGrid(width, height).cut(small, 0)
        assert patch.shape[:2] == (PATCH, PATCH)
        np.testing.assert_array_equal(patch[:height, :width], small[:PATCH])
        assert (patch[:, width:] == patch[:, width - 1 : width]).all()
        assert (patch[height:] == patch[min(height, PATCH) - 1]).all()


def test_an_empty_page_is_refused() -> None:
    """As an empty picture is."""
    with pytest.raises(UnreadableError, match="an empty page of 0 x 10 pixels"):
        PatchGrid(0, 10)


def test_grey_is_what_pillow_makes_of_colours() -> None:
    """To the bit; what is grey already is not copied."""
    page = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(grey(page), np.asarray(Image.fromarray(page).convert("L")))
    assert grey(page[..., 0]) is not None
    assert np.shares_memory(grey(page[..., 0]), page)
