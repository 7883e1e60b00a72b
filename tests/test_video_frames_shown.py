"""Frames of videos are shown on the page of a search, read again from their videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.engine.jobs.common.shown_frames import show_frames
from penstock.engine.observe.contact_sheet import contact_sheet
from penstock.errors import DeadlineError
from penstock.sinks import Hit
from penstock.tests.clips import cut, make_clip
from penstock.tests.html_pages import Page

pytest.importorskip("av")


def hit(path: Path, pts_us: int) -> Hit:
    known: dict[str, Any] = {"video_key": str(path), "frame_pts_us": pts_us}
    return Hit(f"{path}#t={pts_us}", 0.5, str(path), 320, 180, known)


def test_frames_are_shown_with_their_times(tmp_path: Path, photos: list[Path]) -> None:
    """Several of one video, each another picture; what cannot be read has a note that says why."""
    clip = make_clip(tmp_path / "clip.mp4", frames=50, fps=10)
    broken = cut(make_clip(tmp_path / "broken.mp4"), 0.5)
    gone = tmp_path / "gone.mp4"
    hits = [hit(clip, 4_500_000), hit(broken, 0), hit(clip, 0), hit(gone, 0)]
    page = Page(contact_sheet(str(photos[0]), hits, "photos.db", show_frames=show_frames))
    shown = [attributes.get("src") for tag, attributes in page.tags if tag == "img"]
    assert len({*shown}) == 3
    for words in ("clip.mp4 at 0:00:04.500", "clip.mp4 at 0:00:00.000", "gone.mp4 at 0:00:00.000"):
        assert words in page.words
    assert page.words.count("Cannot be shown") == 2


def test_a_page_waits_only_so_long_for_its_frames(tmp_path: Path) -> None:
    """What is not read by then has a note."""
    clip = make_clip(tmp_path / "clip.mp4")
    assert isinstance(show_frames([(str(clip), 0)], seconds=0.0)[str(clip), 0], DeadlineError)
