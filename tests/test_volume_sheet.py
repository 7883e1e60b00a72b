"""The contact sheet of a volume: pages before and after, side by side."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from penstock.engine.observe.volume_sheet import PagePair, page_thumbnail, volume_sheet
from penstock.tests.html_pages import HOSTILE, Page, assert_self_contained

SCAN = np.full((900, 600), 200, np.uint8)


@dataclass(frozen=True)
class Row:
    key: str
    volume_id: str = "vol_A"
    width: int = 600
    height: int = 900
    angle: float | None = -1.234
    bend: float | None = 7.04
    quality: float | None = 2.44
    quality_after: float | None = None


def pictures(page: Page) -> list[Image.Image]:
    files = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    return [Image.open(io.BytesIO(base64.b64decode(file.split(",")[1]))) for file in files]


def test_a_volume_sheet_shows_pages_before_and_after() -> None:
    """Both pictures in their order, what was found, and what became of it."""
    pair = PagePair(Row("p1.jpg", quality_after=3.51), page_thumbnail(SCAN), page_thumbnail(SCAN // 4))
    page = Page(volume_sheet([pair], "s3://bucket/vol_*"))
    assert_self_contained(page)
    before, after = pictures(page)
    assert before.size == (240, 360)
    assert np.asarray(before).mean() == pytest.approx(200, abs=2)
    assert np.asarray(after).mean() == pytest.approx(50, abs=2)
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == ["p1.jpg, scan", "p1.jpg, result"]
    for words in ("s3://bucket/vol_*", "vol_A", "600 x 900", "-1.23 degrees, bent by 7.0", "quality 2.4, then 3.5"):
        assert words in page.words


def test_pages_that_were_left_as_they_were_say_so() -> None:
    """Each volume has its heading, in the order in which they come; what is not known is not shown."""
    rows = [Row("1"), Row("2", "vol_B", angle=None, bend=None, quality=None), Row("3")]
    page = Page(volume_sheet([PagePair(row, page_thumbnail(SCAN)) for row in rows], "here"))
    assert len(pictures(page)) == 3
    assert page.words.count("Left as it was.") == 3
    assert page.words.index("vol_A") < page.words.index("vol_B")
    assert [tag for tag, _ in page.tags].count("h2") == 2
    assert page.words.count("quality") == 2
    assert "Cannot be shown." in Page(volume_sheet([PagePair(Row("4"), None)], "here")).words
    assert "There are no pages." in Page(volume_sheet([], "here")).words


def test_hostile_names_are_shown_escaped_in_a_volume_sheet() -> None:
    """Of pages, of volumes and of places."""
    for name in HOSTILE:
        text = volume_sheet([PagePair(Row(name, volume_id=name), page_thumbnail(SCAN), page_thumbnail(SCAN))], name)
        assert not {"\x1b", "\u202e", "\udcff"} & set(text)
        assert "<script" not in text
        assert_self_contained(Page(text))


def test_thumbnails_are_small_in_grey_and_in_colours() -> None:
    """And the page that they are of is left as it is."""
    page = np.random.default_rng(0).integers(0, 256, (2000, 1500, 3), np.uint8)
    kept = page.copy()
    for pixels in (page, page[..., 0]):
        jpeg = page_thumbnail(pixels)
        assert len(jpeg) < 100_000
        assert max(Image.open(io.BytesIO(jpeg)).size) == 360
    np.testing.assert_array_equal(page, kept)
