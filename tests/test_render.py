"""Reports and contact sheets: figures right, names harmless, pages self-contained."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from penstock.engine import Accounting, Bottleneck, ChannelReport, MemoryReport, Report, StageReport
from penstock.engine.jobs.common.shown_frames import show_frames
from penstock.engine.observe import report_files
from penstock.engine.observe.contact_sheet import check_sheet_path, contact_sheet
from penstock.engine.observe.render_text import render_text, report_json
from penstock.engine.observe.report_files import check_report_path, write_report
from penstock.errors import ConfigError
from penstock.formatting import duration, printable, rate, size
from penstock.sinks import Hit
from penstock.tests.html_pages import HOSTILE, Page, assert_self_contained


def a_report(stage: str = "preprocess") -> Report:
    """A job of 1,000 items that lost none."""
    return Report(
        Accounting(read=1000, delivered=988, dropped=5, failed=7),
        [
            StageReport("source", "source", items_in=1000, items_out=995, dropped=5, rate=305.0),
            StageReport(
                stage,
                "green",
                concurrency=6,
                items_in=995,
                items_out=988,
                failed=7,
                rate=306.0,
                busy=0.98,
                mean_ms=101.0,
                p50_ms=98.0,
                p90_ms=130.0,
                p99_ms=210.0,
                wait_in=0.01,
                channel=ChannelReport(2, 2, occupancy=0.9),
                details={"decode": 12.3},
            ),
            StageReport("sink", "sink", items_in=988, items_out=988, rate=306.0, channel=ChannelReport(0, 4)),
        ],
        Bottleneck(stage, 0.98, f"{stage} works 98% of the time", 2.1),
        seconds=3.3,
        items_per_second=300.0,
        memory=MemoryReport(2**30, 2**31, 3, 4, "pss"),
        extra={"to": "photos.db"},
    )


def test_the_text_says_what_matters() -> None:
    """Accounting, bottleneck, rate, memory, and a row for each stage."""
    text = render_text(a_report())
    assert "read 1,000 = written 988 + filtered 5 + dead 7 + in flight 0" in text
    assert str(a_report().accounting) == "read 1,000 = written 988 + filtered 5 + dead 7 + in flight 0"
    assert "bottleneck: preprocess works 98% of the time" in text
    assert "988 pictures in 3.3 s, 300/s" in text
    assert "2.0 GiB at its peak (PSS, 3 processes)" in text
    assert [line.split()[0] for line in text.splitlines()[2:5]] == ["source", "preprocess", "sink"]
    assert max(map(len, text.splitlines())) <= 120


def test_what_was_tried_again_has_a_column_where_there_is_any() -> None:
    """Most jobs have none. The JSON always says it."""
    report = a_report()
    assert "retried" not in render_text(report)
    again = replace(report, stages=[replace(stage, retried=1234) for stage in report.stages])
    lines = render_text(again).splitlines()
    assert lines[1].split()[:5] == ["stage", "in", "out", "retried", "failed"]
    assert lines[3].split()[4:6] == ["1,234", "7"]
    assert [stage["retried"] for stage in report_json(again)["stages"]] == [1234] * 3


def test_a_report_of_nothing_can_be_rendered() -> None:
    """A job may end before anything happened."""
    assert "read 0 = written 0" in render_text(Report())
    assert report_json(Report())["bottleneck"] is None


def test_the_json_holds_at_least_what_is_promised() -> None:
    """The accounting in the words of jobs; numbers stay numbers."""
    found = json.loads(json.dumps(report_json(a_report())))
    assert found["accounting"] == {"read": 1000, "written": 988, "filtered": 5, "dead": 7, "in_flight": 0}
    assert found["stages"][1]["name"] == "preprocess"
    assert found["bottleneck"]["stage"] == "preprocess"
    assert (found["seconds"], found["images_per_second"], found["extra"]) == (3.3, 300.0, {"to": "photos.db"})


def test_what_is_created_and_merged_is_in_the_books_too() -> None:
    """The line must balance, also for graphs that split and collect."""
    text = render_text(Report(Accounting(read=10, created=5, delivered=12, merged=3)))
    assert "read 10 + created 5 = written 12 + filtered 0 + dead 0 + in flight 0 + merged 3" in text


def test_a_report_is_written_by_its_ending(tmp_path: Path) -> None:
    """JSON that can be read back; nothing else stays in the folder."""
    write_report(a_report(), tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(report_json(a_report())))
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize("name", ["r.txt", "r", "nowhere/r.json", "r.HTML", "folder.json"])
def test_a_report_that_cannot_be_written_is_refused_before_the_start(tmp_path: Path, name: str) -> None:
    """Hours of work must not end in a report with nowhere to go."""
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ConfigError, match=r"^report: "):
        check_report_path(tmp_path / name)


def test_a_page_without_matplotlib_is_refused_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that helps."""

    def nothing(name: str) -> None:
        del name

    monkeypatch.setattr(report_files, "find_spec", nothing)
    with pytest.raises(ConfigError, match=re.escape("pip install 'penstock[report]'")):
        check_report_path(tmp_path / "r.html")


def test_what_came_at_once_has_no_rate() -> None:
    """A short job's rows are one write: 0.0/s would look as if there were none."""
    stages = [
        StageReport("insert", "green", items_in=43, items_out=43),
        StageReport("embed", "green", items_in=43, items_out=43, rate=98.0),
        StageReport("stuck", "green", items_in=43),
    ]
    lines = render_text(Report(Accounting(read=43, delivered=43), stages, seconds=2.0)).splitlines()
    insert, embed, stuck = [
        next(line for line in lines if line.startswith(name)) for name in ("insert", "embed", "stu")
    ]
    assert "/s" not in insert
    assert "98/s" in embed
    assert "0.0/s" in stuck


def test_one_picture_is_one_picture() -> None:
    """In the first line that people read."""
    assert render_text(Report(Accounting(read=1, delivered=1), seconds=2.0)).startswith("1 picture in 2.0 s")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra report")
def test_the_page_is_self_contained_and_escapes_names(tmp_path: Path) -> None:
    """Plots are inline, each with a text alternative; a stage named like markup, or like a formula, stays a name."""
    name = "$x$ <script>alert(1)</script>\x1b[0m"
    write_report(a_report(name), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert_self_contained(page)
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(plots) == 2
    assert all(plot.get("aria-label") for plot in plots)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "read 1,000 = written 988" in page.words
    assert "$x$ <script>alert(1)</script>\\x1b[0m" in page.words
    assert "\x1b" not in text
    write_report(a_report(name), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text


@pytest.fixture
def hits(tmp_path: Path) -> list[Hit]:
    """One picture under each hostile name, one that is gone, one that is broken, one without a path."""
    found: list[Any] = []
    for name in [*HOSTILE, "gone.jpg", "broken.jpg"]:
        path = str(tmp_path / name.replace("/", ""))
        if name == "broken.jpg":
            Path(path).write_bytes(b"no picture")
        elif name != "gone.jpg":
            Image.new("RGB", (40, 30), "red").save(path, "JPEG")
        stored = repr(os.fsencode(path)) if "\udcff" in path else path
        found.append(Hit(stored, 0.5, stored, 40, 30, {}))
    return [*found, Hit("by-id", 0.1, None, None, None, {})]


def test_a_contact_sheet_shows_query_and_neighbours(tmp_path: Path, hits: list[Hit]) -> None:
    """As pictures inside the page, with scores, in order; what cannot be shown says why."""
    query = tmp_path / "query.png"
    Image.new("RGBA", (1000, 10), (0, 0, 0, 0)).save(query)
    page = Page(contact_sheet(str(query), hits, "photos.db", show_frames=show_frames))
    assert_self_contained(page)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 1 + len(HOSTILE)
    assert all(picture.get("alt") for picture in pictures)
    assert page.words.count("0.5000") == len(HOSTILE) + 2
    for words in ("not there any more", "Cannot be shown: UnidentifiedImageError", "no path", "10. 0.1000", "cosine"):
        assert words in page.words


def test_hostile_names_are_shown_escaped_in_a_contact_sheet(tmp_path: Path, hits: list[Hit]) -> None:
    """No control character and no markup of a name reaches the page."""
    text = contact_sheet(str(tmp_path / "a\nb.jpg"), hits, "photos.db", show_frames=show_frames)
    assert not {"\x1b", "\u202e", "\udcff"} & set(text)
    assert "<script" not in text
    for shown in ("a\\nb.jpg", "\\x1b[31mred.jpg", "$(id).jpg", "-x.jpg", "<script>alert(1)<", "\\u202egpj.exe"):
        assert shown in Page(text).words


def test_a_sheet_of_no_neighbours_says_so(tmp_path: Path) -> None:
    """An empty page would look like a fault."""
    assert (
        "holds no pictures"
        in Page(contact_sheet(str(tmp_path / "q.jpg"), [], "photos.db", show_frames=show_frames)).words
    )


@pytest.mark.parametrize("name", ["folder", "nowhere/x.html"])
def test_a_sheet_that_cannot_be_written_is_refused_before_the_search(tmp_path: Path, name: str) -> None:
    """As for reports; the option is named."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"^--html: "):
        check_sheet_path(tmp_path / name)


def test_what_is_no_regular_file_is_not_opened_for_a_thumbnail(tmp_path: Path) -> None:
    """A path in a store may have become a FIFO, and opening it would wait for ever."""
    os.mkfifo(tmp_path / "x.jpg")
    page = Page(contact_sheet(str(tmp_path / "x.jpg"), [], "photos.db", show_frames=show_frames))
    assert "Cannot be shown: OSError" in page.words


def test_a_huge_picture_is_not_decoded_for_a_thumbnail(tmp_path: Path) -> None:
    """64 megapixels are the limit, judged by the header."""
    Image.new("1", (8001, 8001)).save(tmp_path / "bomb.png")
    assert (
        "Cannot be shown"
        in Page(contact_sheet(str(tmp_path / "bomb.png"), [], "photos.db", show_frames=show_frames)).words
    )


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_printable_text_is_printable_and_left_alone_where_it_was(text: str) -> None:
    """Nothing that a terminal could act on is left; what was harmless is not changed."""
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    assert shown == text or not text.isprintable()


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (size(0), "0 B"),
        (size(1536), "1.5 KiB"),
        (size(2**30 * 150), "150 GiB"),
        (size(2**51), "2048.0 TiB"),
        (rate(0.25), "0.2/s"),
        (rate(1234.5), "1,234/s"),
        (duration(4.25), "4.2 s"),
        (duration(59.4), "59 s"),
        (duration(200), "3 min 20 s"),
        (duration(7500), "2 h 05 min"),
    ],
)
def test_figures_have_units(shown: str, text: str) -> None:
    """As people write them."""
    assert shown == text
