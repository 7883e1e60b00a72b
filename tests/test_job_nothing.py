"""A job that writes no row says what there was and what was probably meant; what is left out can be listed."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest

from penstock import ConfigError, ServiceConfig, embed_images
from penstock.engine.cli import main
from penstock.engine.jobs.common.filtered import FilteredList, Passing, nothing_written
from penstock.engine.sources import FileSource, Filtered, Item, Selection
from penstock.errors import FailureBudgetError
from penstock.tests.whole_jobs import draw_folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(source: FileSource) -> str:
    """What a job over it has to say if nothing was written."""
    passing = Passing()
    entries = list(passing(source))
    counts = {"written": 0, "filtered": sum(isinstance(entry, Filtered) for entry in entries), "dead": 0}
    return nothing_written(counts, passing, source)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("imgs.txt", b"a.jpg\nb.jpg\n", "give it as @imgs.txt (/"),
        ("files", b"/x/\xc3\xa9.jpg\r\n", "give it as @files (/"),
        ("x.tar", b"a.jpg".ljust(512, b"\0"), "an archive that may hold some: a job of its own reads *.tar"),
        ("x.zip", b"PK\x03\x04", "an archive: unpack it, and give the folder"),
        ("list.parquet", b"PAR1", "a table that may hold some: a job of its own reads *.parquet"),
        ("list.csv", b"path,album\na.jpg,1\n", "a table: write its paths to a text file"),
        ("notes.bin", b"\x00\x01", "not a picture (/"),
    ],
)
def test_a_file_that_is_no_picture_says_what_it_may_be(name: str, content: bytes, words: str) -> None:
    """Named as a source it was meant to be something."""
    Path(name).write_bytes(content)
    assert said(FileSource(name)).startswith("nothing was written, for there was no picture: not a picture")
    assert words in said(FileSource(name))


def test_a_folder_of_shards_says_how_they_are_read() -> None:
    """Where other files are just no pictures."""
    Path("shards").mkdir()
    for name in ("0.tar", "1.tar", "notes.txt"):
        (Path("shards") / name).write_bytes(b"a.jpg")
    assert "a job of its own reads *.tar (2, such as" in said(FileSource("shards"))


def test_what_there_was_nothing_in_is_called_by_its_name() -> None:
    """A folder, a list, standard input."""
    Path("empty").mkdir()
    Path("list.txt").write_bytes(b"# only this\n\n")
    sources = {
        "the folder 'empty' has no files": FileSource("empty"),
        "the list 'list.txt' has no paths": FileSource("@list.txt"),
        "standard input had no paths": FileSource("-", stdin=io.BytesIO()),
        "the folder 'empty' has no files, the list 'list.txt' has no paths": FileSource(["empty", "@list.txt"]),
    }
    for words, source in sources.items():
        assert said(source) == f"nothing was read: {words}"


def test_links_and_globs_name_their_options(here: Path) -> None:
    """The most frequent reasons come first, each with an example."""
    (here / "set").mkdir()
    for number in range(3):
        (here / "set" / f"link{number}").symlink_to(here)
    (here / "set" / "a.png").touch()
    found = said(FileSource("set", selection=Selection(include=["*.jpg"])))
    assert f"link to a folder: --follow-links follows it (3, such as {here}/set/link0)" in found
    assert f"not included (--include) ({here}/set/a.png)" in found


def test_why_the_first_died_is_said() -> None:
    """That URLs are not read, or that each row lacks a column, is no detail for a file of letters."""
    counts = {"written": 0, "filtered": 0, "dead": 2}
    found = nothing_written(counts, Passing(), [], "line 1 of @urls.txt: URLs are not read yet")
    assert found.endswith("all 2 pictures failed, the first because: line 1 of @urls.txt: URLs are not read yet")
    counts["dead"] = 1
    assert nothing_written(counts, Passing(), []).endswith("the only picture failed")
    assert len(nothing_written(counts, Passing(), [], "x" * 9999)) < 400


def test_nothing_is_said_where_rows_were_written() -> None:
    """By this run, or by one before."""
    assert nothing_written({"written": 1, "filtered": 5, "dead": 5}, Passing(), []) == ""


def test_reasons_do_not_grow_with_the_number_of_files() -> None:
    """Some name the file they are about."""
    passing = Passing()
    for _ in passing(Filtered(f"/{number}", f"not a picture: {number}") for number in range(1000)):
        pass
    assert len(passing.reasons) < 100
    assert passing.reasons.total() == 1000


def test_what_is_left_out_is_listed_by_key_and_reason() -> None:
    """Whatever is in the name."""
    listing = FilteredList(Path("out.jsonl"))
    entries = [Filtered("/a\n\u202e.txt", "not a picture"), Item("/b.jpg", "/b.jpg"), Filtered("/c", "excluded")]
    assert list(Passing(listing)(entries)) == entries
    listing.close()
    assert [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()] == [
        {"key": "/a\n\u202e.txt", "why": "not a picture"},
        {"key": "/c", "why": "excluded"},
    ]


def test_a_list_that_cannot_be_written_is_refused() -> None:
    """Before anything starts."""
    with pytest.raises(ConfigError, match=r"list_filtered: 'gone/f' cannot be written: No such file"):
        FilteredList(Path("gone/f"))


@pytest.mark.slow
def test_whole_jobs_that_write_nothing_say_so(
    here: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Python as a warning and in the report; on the command line on standard error; where all died it fails."""
    (here / "imgs.txt").write_text("a.jpg\n")
    (here / "broken.jpg").write_text("this is text and not a picture")
    with caplog.at_level(logging.WARNING):
        report = embed_images("imgs.txt", to="rows.db", workers=1)
    assert "give it as @imgs.txt" in report.extra["nothing_written"]
    assert report.extra["nothing_written"] in caplog.messages
    assert report.extra["filtered"] == {"not a picture; if it is a list of paths, give it as @imgs.txt": 1}
    assert main(["embed", "@imgs.txt", "--to", "rows.db", "--workers", "1"]) == 1
    assert "the only picture failed: line 1 of @imgs.txt: cannot be read: No such file" in capsys.readouterr().err
    assert main(["embed", "broken.jpg", "--to", "rows.db", "--workers", "1", "--job", "job"]) == 1
    assert "the only picture failed: not a picture: looks like plain text" in capsys.readouterr().err
    assert main(["resume", "job"]) == 1
    assert "the only picture failed: not a picture: looks like plain text" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_lists_what_all_its_runs_have_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also when it is finished and run again for the list."""
    draw_folder(here / "pictures", 2)
    (here / "pictures" / "notes.txt").write_text("text")
    config = ServiceConfig(to="rows.db", job=here / "job", workers=1)
    assert embed_images("pictures", config=config).extra["filtered"] == {"not a picture": 1}
    assert main(["resume", "job", "--list-filtered", "out.jsonl"]) == 0
    assert "finished already" in capsys.readouterr().out
    assert json.loads(Path("out.jsonl").read_text()) == {
        "key": str(here / "pictures" / "notes.txt"),
        "why": "not a picture",
    }


@pytest.mark.slow
def test_a_job_that_fails_lists_what_it_has_left_out(here: Path) -> None:
    """It is no reason to empty the list of the run before."""
    draw_folder(here / "pictures", 1)
    (here / "pictures" / "notes.txt").write_text("text")
    (here / "pictures" / "broken.png").write_text("text")
    config = ServiceConfig(to="rows.db", job=here / "job", workers=1, max_failures=0, list_filtered=Path("out.jsonl"))
    with pytest.raises(FailureBudgetError):
        embed_images("pictures", config=config)
    assert json.loads(Path("out.jsonl").read_text())["key"] == str(here / "pictures" / "notes.txt")
