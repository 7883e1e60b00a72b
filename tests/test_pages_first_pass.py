"""The first look at pages: angles of drawn text, and what has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.bench import page_renderer
from penstock.bench.page_renderer import Layout, draw, fonts, scanned, turn
from penstock.bench.pictures import texture
from penstock.errors import ConfigError
from penstock.preprocess.pages.first_pass import CELL_ANGLES, FEATURES, PAGE_ANGLES, FirstPass, split
from penstock.preprocess.pages.patches import PatchGrid, UInt8
from penstock.preprocess.pages.summary import PageSummary
from penstock.preprocess.pages.transform import Thresholds, plan_transform
from penstock.tests.page_looks import first_pass, look

Floats = NDArray[np.float64]

PAGE = Layout(width=1000, height=1400, size=22)


def drawn(angle: float = 0.0, seed: int = 0, layout: Layout = PAGE) -> UInt8:
    return scanned(turn(draw(layout, seed)[0], angle), seed)


def test_energies_are_those_of_sheared_row_profiles() -> None:
    """Against the plain definition: windowed, Fourier along y, shifted by each shear, summed along x."""
    patch = np.random.default_rng(3).integers(0, 256, (512, 512), np.uint8)
    whole, cells, deviations = split(first_pass()(patch[None]))
    pixels = patch.astype(float).reshape(256, 2, 64, 8).mean((1, 3))

    def energies(window: Floats, angles: Floats, frequencies: Floats) -> Floats:
        rows, columns = window.shape
        hann = [0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n) for n in (rows, columns)]
        weights = np.outer(*hann)
        window = (window - (window * weights).sum() / weights.sum()) * weights
        x, y = (np.arange(columns) - (columns - 1) / 2) * 8, np.arange(rows) * 2
        spectrum = np.exp(-2j * np.pi * np.outer(frequencies, y)) @ window
        shear = np.exp(-2j * np.pi * frequencies[:, None, None] * x[:, None] * np.tan(np.deg2rad(angles)))
        return np.asarray((np.abs(np.einsum("fx,fxa->fa", spectrum, shear)) ** 2 * frequencies[:, None]).sum(0))

    expected = energies(pixels, PAGE_ANGLES, np.linspace(6 / 512, 0.16, 72))
    np.testing.assert_allclose(whole[0], expected, rtol=1e-3)
    for number, box in ((0, np.s_[:128, :32]), (5, np.s_[64:192, 32:])):
        expected = energies(pixels[box], CELL_ANGLES, np.linspace(8 / 512, 0.16, 40))
        np.testing.assert_allclose(cells[0, number], expected, rtol=1e-3)
    assert deviations[0] == pytest.approx(pixels.std(), rel=1e-4)


def test_a_patch_is_seen_alike_in_any_batch() -> None:
    """The last batch is filled up, and what fills it leaves no trace."""
    patches = np.random.default_rng(4).integers(0, 256, (6, 512, 512), np.uint8)
    together = first_pass()(patches)
    assert together.shape == (6, FEATURES)
    np.testing.assert_array_equal(first_pass()(patches[5:]), together[5:])
    np.testing.assert_array_equal(first_pass()(patches[:0]), together[:0])


def test_one_shape_is_compiled_whatever_number_of_patches_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program sees full batches only."""
    look_at, shapes = FirstPass(batch=4), list[tuple[int, ...]]()

    def program(patches: UInt8) -> NDArray[np.float32]:
        shapes.append(patches.shape)
        return np.zeros((len(patches), FEATURES), np.float32)

    monkeypatch.setattr(look_at, "_run", program)
    for count in (1, 4, 6):
        assert look_at(np.zeros((count, 512, 512), np.uint8)).shape == (count, FEATURES)
    assert shapes == [(4, 512, 512)] * 4


def test_a_batch_of_nothing_is_refused() -> None:
    """The message names the setting."""
    with pytest.raises(ConfigError, match="batch=0"):
        FirstPass(0)


def test_there_are_six_fonts_where_matplotlib_is_installed() -> None:
    """Else the tests here draw with Pillow's own, as one of them does anyway."""
    assert len(fonts()) >= 6 or fonts() == (page_renderer.PILLOW,)


@pytest.mark.slow
@pytest.mark.parametrize("font", [*fonts(), page_renderer.PILLOW] if len(fonts()) > 1 else fonts())
def test_the_angle_of_a_page_is_found(font: str) -> None:
    """Within 0.2 degrees over +-15, in each font."""
    for seed, angle in enumerate((-15.0, -6.4, -0.33, 2.1, 9.7, 15.0)):
        summary = look(drawn(angle, seed, replace(PAGE, font=font)))
        assert abs(summary.angle - angle) <= 0.2, (font, angle)
        assert summary.quality >= 1


@pytest.mark.parametrize(
    "layout",
    [
        PAGE,
        replace(PAGE, columns=2),
        replace(PAGE, picture=True),
        replace(PAGE, table=True),
        replace(PAGE, filled=0.3),
        replace(PAGE, filled=0.1),
        replace(PAGE, size=14),
        replace(PAGE, size=40),
    ],
    ids=["text", "columns", "picture", "table", "a third filled", "a tenth filled", "small", "large"],
)
def test_straight_pages_are_left_alone(layout: Layout) -> None:
    """Whatever is on them, and how much is empty paper with a scanner's noise."""
    summary = look(drawn(layout=layout))
    assert abs(summary.angle) < 0.1
    assert plan_transform(summary, PAGE.width, PAGE.height) is None


@pytest.mark.slow
@pytest.mark.parametrize("size", [(800, 1100), (1000, 1400)], ids=str)
def test_straight_pages_that_lay_askew_are_turned_only(size: tuple[int, int]) -> None:
    """However far: what few cells of a small page say is not taken for curvature, nor a guess for its empty corners."""
    for font in fonts()[:3]:
        for seed, angle in enumerate((-15.0, -8.0, 10.0, 14.5)):
            layout = replace(PAGE, width=size[0], height=size[1], size=20, font=font)
            summary = look(drawn(angle, seed, layout))
            assert Thresholds().skewed(summary)
            assert not Thresholds().bent(summary, layout.width), (font, angle, summary.bend)


def test_colours_make_no_difference() -> None:
    """A coloured page is looked at in grey."""
    page = drawn(3.0)
    assert look(np.stack([page] * 3, -1)) == look(page)


@pytest.mark.parametrize(
    "page",
    [
        np.full((1400, 1000), 240, np.uint8),
        np.zeros((1, 1), np.uint8),
        np.full((3, 2000), 9, np.uint8),
        scanned(np.full((1400, 1000), 240, np.uint8), 1),
        np.asarray(texture(1, (1000, 1400)).convert("L")),
        np.ascontiguousarray(np.rot90(drawn())),
    ],
    ids=["blank", "1x1", "flat strip", "noise", "picture", "turned by 90 degrees"],
)
def test_where_no_lines_are_nothing_is_done(page: UInt8) -> None:
    """Quality stays below 1, nothing is said about angle or bend, and no warning of a division appears."""
    summary = look(page)
    assert summary == PageSummary(quality=summary.quality)
    assert 0 <= summary.quality < 1
    assert plan_transform(summary, page.shape[1], page.shape[0]) is None


def test_features_of_a_page_are_small() -> None:
    """What travels instead of pixels: 84 kB for 2000 x 3000."""
    features = first_pass().of_page(np.full((3000, 2000), 240, np.uint8), PatchGrid(2000, 3000))
    assert features.nbytes == 24 * 891 * 4
