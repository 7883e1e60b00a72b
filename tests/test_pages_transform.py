"""Pages that lie askew or are bent: straightened, traced back to the scan, looked at again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator

from penstock.bench.page_renderer import WARPS, Layout, bent, draw, scanned, turn
from penstock.bench.page_truth import bent_lines, departure, result_of, turned_lines
from penstock.errors import ConfigError, TooLargeError
from penstock.preprocess.pages.patches import UInt8
from penstock.preprocess.pages.resample import Resampler, resample
from penstock.preprocess.pages.summary import PageSummary
from penstock.preprocess.pages.transform import PageTransform, Thresholds, plan_transform
from penstock.tests.page_looks import look

LAYOUT = Layout(width=1400, height=1800, size=26)
W, H = LAYOUT.width, LAYOUT.height
RESAMPLERS: tuple[Resampler, ...] = ("opencv", "pillow")


def planned(page: UInt8) -> PageTransform:
    transform = plan_transform(look(page), page.shape[1], page.shape[0])
    assert transform is not None
    return transform


def shifted(x: float, y: float, width: int = W, height: int = H) -> PageTransform:
    """The result at a position shows what the scan has at that position + (x, y)."""
    grid = np.stack(np.meshgrid(np.linspace(0, width - 1, 4), np.linspace(0, height - 1, 4)), -1).reshape(-1, 2)
    single = np.float32
    return PageTransform(grid.astype(single), (grid + np.array([x, y])).astype(single), width, height, width, height)


@pytest.mark.slow
@pytest.mark.parametrize("angle", [0.0, -6.0])
@pytest.mark.parametrize("warp", WARPS)
def test_bent_lines_become_straight(warp: str, angle: float) -> None:
    """What is left of the curvature of the true baselines is a tenth at most, and a second look finds nothing to do."""
    page, lines = draw(LAYOUT, 5)
    page = scanned(turn(bent(page, WARPS[warp]), angle), 5)
    transform = planned(page)
    before = bent_lines(lines, WARPS[warp], W, H)
    scan = turned_lines(before, angle, W, H)
    after = result_of(transform, scan.reshape(-1, 2), before.reshape(-1, 2)).reshape(before.shape)
    assert departure(after) * 10 <= departure(before)
    second = look(resample(page, transform), transform.inside)
    assert abs(second.angle) < 0.1
    assert plan_transform(second, transform.width, transform.height) is None


@pytest.mark.slow
@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_every_position_of_the_result_can_be_traced_to_the_scan(resampler: Resampler) -> None:
    """A mark that is at one place in the scan and at another in the result connects the two within half a pixel."""
    page, _ = draw(LAYOUT, 6)
    page = turn(bent(page, WARPS["mixed"]), 4.0)
    transform = planned(page)
    empty = np.full_like(page, 255)
    for x, y in ((300, 420), (700, 900), (1050, 1400)):
        marked = empty.copy()
        marked[y - 3 : y + 4, x - 3 : x + 4] = 0
        ink = 255.0 - resample(marked, transform, resampler=resampler)
        rows, columns = np.indices(ink.shape)
        centre = np.array([(columns * ink).sum(), (rows * ink).sum()]) / ink.sum()
        assert np.abs(centre - (x, y)).max() > 10  # it has moved
        assert np.abs(transform.trace(centre[None])[0] - (x, y)).max() < 0.5


@pytest.mark.slow
def test_a_page_without_opencv_is_straightened_by_pillow_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 1.5 grey levels in the mean, in grey and in colours; and the choice is made without being asked."""
    page, _ = draw(LAYOUT, 7)
    page = turn(bent(page, WARPS["wave"]), -3.0)
    transform = planned(page)
    for pixels in (page, np.stack([page, 255 - page, page // 2], -1)):
        pixels.flags.writeable = False  # as Pillow gives them
        by_opencv = resample(pixels, transform)
        with monkeypatch.context() as patched:
            patched.setattr("penstock.preprocess.pages.resample.find_spec", lambda name: None)
            patched.setitem(__import__("sys").modules, "cv2", None)
            by_pillow = resample(pixels, transform)
        assert by_opencv.shape == by_pillow.shape == (transform.height, transform.width, *pixels.shape[2:])
        within = np.s_[40:-40, 40:-40]
        apart = np.abs(by_opencv[within].astype(int) - by_pillow[within])
        assert 0 < apart.mean() <= 1.5


@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_a_page_that_is_shifted_by_whole_pixels_keeps_its_samples(resampler: Resampler) -> None:
    """To the bit, over the borders of bands and cells; beyond the scan is the fill."""
    page = np.random.default_rng(0).integers(0, 256, (701, 333), np.uint8)
    result = resample(page, shifted(5, -7, 333, 701), fill=1, resampler=resampler)
    np.testing.assert_array_equal(result[9:-2, :-7], page[2:-9, 5:-2])
    assert (result[:5] == 1).all()
    assert (result[:, -3:] == 1).all()


@pytest.mark.slow
def test_bands_leave_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is resampled in many bands is the page that is resampled at once."""
    page = turn(draw(LAYOUT, 8)[0], 2.0)
    transform = planned(page)
    for resampler in RESAMPLERS:
        whole = resample(page, transform, resampler=resampler)
        with monkeypatch.context() as patched:
            patched.setattr("penstock.preprocess.pages.resample._BAND_PIXELS", 1)
            banded = resample(page, transform, resampler=resampler)
        assert np.abs(whole.astype(int) - banded).max() <= 1


def test_a_second_transform_is_put_behind_the_first() -> None:
    """So that a page which goes round twice is resampled from its scan, once."""
    first, second = shifted(3, 4), shifted(10, -2)
    both = first.followed_by(second)
    np.testing.assert_allclose(both.trace(np.array([[50.0, 60]])), [[63, 62]], atol=1e-3)
    with pytest.raises(ConfigError, match="cannot follow"):
        first.followed_by(shifted(0, 0, 10, 10))


@pytest.mark.slow
def test_text_in_the_corner_of_a_scan_that_lay_askew_is_kept() -> None:
    """The result is larger than the scan where text would else be cut off; a straight page keeps its size."""
    page = turn(draw(LAYOUT, 9)[0], 12.0)
    transform = planned(page)
    assert transform.width >= W
    assert transform.height > H
    written = np.argwhere(page < 100)[:, ::-1]
    at = result_of(transform, written[:: len(written) // 500], written[:: len(written) // 500])
    assert (at > 0).all()
    assert (at < (transform.width, transform.height)).all()
    unturned = plan_transform(look(bent(draw(LAYOUT, 9)[0], WARPS["wave"])), W, H)
    assert unturned is not None
    assert abs(unturned.width - W) <= 8


def test_cells_that_show_an_added_border_are_left_out() -> None:
    """Those whose window reaches beyond the scan, and no others."""
    transform = shifted(200, 0)
    x = np.array([128.0, 700, W - 200 - 130, W - 200 - 120, W - 100])
    assert transform.inside(x, np.full(5, 700.0)).tolist() == [True, True, True, False, False]
    assert shifted(0, 0).inside(np.array([128.0, W - 128]), np.array([128.0, H - 128])).all()


def test_control_points_are_all_that_is_needed() -> None:
    """A spline through those of a row, by SciPy's name, is the mapping that the pixels were made by."""
    summary = PageSummary(1.5, 3, 9.0, (30.0, *[0.0] * 39), (200.0, 1200.0, 200.0, 1600.0))
    transform = plan_transform(summary, W, H)
    assert transform is not None
    points = np.concatenate([transform.result, transform.scan], 1)
    places = np.array([[100.0, 200], [1399, 1799], [0, 0]])
    spline = RBFInterpolator(points[:, :2], points[:, 2:], kernel="thin_plate_spline")
    np.testing.assert_allclose(transform.trace(places), spline(places), atol=1e-3)
    scan = np.random.default_rng(2).integers(0, 256, (H, W), np.uint8)
    again = PageTransform(points[:, :2], points[:, 2:], transform.width, transform.height, W, H)
    np.testing.assert_array_equal(resample(scan, again), resample(scan, transform))


def test_thresholds_decide_what_is_done() -> None:
    """Turned from 0.15 degrees on, straightened from 4 pixels in 2,000 on, nothing without quality."""
    bent_by = (30.0, *[0.0] * 39)
    box = 200.0, 1800.0, 200.0, 2800.0
    assert plan_transform(PageSummary(0.14, 3, 3.9, bent_by, box), 2000, 3000) is None
    assert plan_transform(PageSummary(0.15, 0.9, 9, bent_by, box), 2000, 3000) is None
    turned = plan_transform(PageSummary(-0.15, 3, 3.9, bent_by, box), 2000, 3000)
    assert turned is not None
    straightened = plan_transform(PageSummary(0.0, 3, 4.0, bent_by, box), 2000, 3000)
    assert straightened is not None
    assert np.ptp(straightened.scan[:10, 1]) > 10 > np.ptp(turned.scan[:10, 1])
    # the same bend of a page of half the width is twice as much
    assert plan_transform(PageSummary(0.0, 3, 2.0, bent_by, box), 1000, 3000) is not None
    # too few cells to say anything about curvature: turned within the whole page
    assert plan_transform(PageSummary(2.0, 1.4), 2000, 3000) is not None
    assert plan_transform(PageSummary(2.0, 3), 2000, 3000, Thresholds(angle=2.5)) is None
    with pytest.raises(ConfigError, match=r"quality=0\.5: must be at least 1"):
        Thresholds(quality=0.5)


def test_what_opencv_cannot_hold_is_refused() -> None:
    """And a page of another size than the transform's is no page of it."""
    page = np.zeros((1, 40_000), np.uint8)
    with pytest.raises(TooLargeError, match="a side is over 32766"):
        resample(page, shifted(0, 0, 40_000, 1))
    with pytest.raises(ConfigError, match="does not fit a page of 40000 x 1"):
        resample(page, shifted(0, 0))


@pytest.mark.nightly
@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_a_page_of_400_megapixels_is_resampled_within_bounds(resampler: Resampler) -> None:
    """Beside the page and its result there are bands only."""
    import tracemalloc

    page = np.zeros((20_000, 20_000), np.uint8)
    page[10_000:10_100, 10_000:10_100] = 255
    transform = shifted(100, 0, 20_000, 20_000)
    tracemalloc.start()
    result = resample(page, transform, resampler=resampler)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (result[10_000:10_100, 9_900:10_000] == 255).all()
    assert most < page.nbytes + 2**27
