"""Lines of a list, and names in it: nothing in one can end a job, each is its own dead letter with its number."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.sources import Broken, Entry, FileSource, Item
from penstock.errors import SourceError

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a picture."""
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").write_bytes(JPEG)
    return tmp_path


def listed(*lines: bytes) -> list[Entry]:
    """The entries of a list."""
    Path("list.txt").write_bytes(b"\n".join(lines))
    return list(FileSource("@list.txt"))


def _loop() -> bytes:
    Path("loop.jpg").symlink_to("loop.jpg")
    return b"loop.jpg"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"x" * 256 + b".jpg", "File name too long"),
        (b"y/" * 3000 + b"a.jpg", "longer than 4,096 bytes"),
        (b"a.jpg/b.jpg", "Not a directory"),
        (b"gone/b.jpg", "No such file"),
        (_loop, "Too many levels of symbolic links"),
        (b"a\0b.jpg", "NUL"),
        (b"a\0" + b"b" * 2000, "NUL"),
        (b"ftp://example.com/a.jpg", "of URLs, those of http, https, s3, gs, az are read"),
        (b"s3://bucket/\xff.jpg", "not UTF-8"),
        (b"s3://bucket", "names no picture"),
        (b"https://example.com/\x1b.jpg", "control character"),
        (b"path,album", "No such file"),
        (b"\xff\xfe\xfd.jpg", "No such file"),
        (b"\x1b[31m", "No such file"),
    ],
)
def test_a_bad_line_is_one_dead_letter_with_its_number(line: Any, words: str) -> None:
    """The lines around it are read; the key is no longer than a path can be."""
    bad = line if isinstance(line, bytes) else line()
    before, broken, after = listed(b"a.jpg", b"", bad, b"./a.jpg")
    assert isinstance(before, Item)
    assert isinstance(after, Item)
    assert isinstance(broken, Broken)
    assert str(broken.error).startswith("line 3 of @list.txt: ")
    assert words in str(broken.error)
    assert len(broken.key) < 5000
    assert broken.key.encode()


def test_what_is_wrong_below_a_folder_of_a_list_names_its_line(here: Path) -> None:
    """A list may have thousands of folders; the key says which of its files it is."""
    (here / "folder").mkdir()
    os.mkfifo(here / "folder" / "b.jpg")
    (here / "folder" / "c.jpg").symlink_to("gone")
    fifo, gone = listed(b"", b"folder")
    assert isinstance(fifo, Broken)
    assert isinstance(gone, Broken)
    assert str(fifo.error) == "line 2 of @list.txt: is a FIFO, not a regular file"
    assert str(gone.error) == "line 2 of @list.txt: cannot be read: No such file or directory"


def test_what_is_wrong_with_a_line_is_said_also_by_a_job_that_keeps_books(here: Path) -> None:
    """It is listed, then looked at once more; the number of the line and what is no path at all come through."""
    lines = [b"gone.jpg", b"ftp://example.com/a.jpg", b"a\0" + b"b" * 500, b"x" * 300, b"a.jpg"]
    (here / "list.txt").write_bytes(b"\n".join(lines))
    config = ServiceConfig(to="rows.db", job=here / "job")
    with JobCheckpoint(config, make_plan(config), FileSource("@list.txt")) as books:
        entries = list(books.entries())
        assert books.counts.total == 5
    assert [str(entry.error).partition(":")[0] for entry in entries if isinstance(entry, Broken)] == [
        f"line {number} of @list.txt" for number in (1, 2, 3, 4)
    ]
    assert [entry.key for entry in FileSource("@list.txt")] == [entry.key for entry in entries]


def test_credentials_in_a_url_are_neither_shown_nor_kept(here: Path) -> None:
    """As an argument and in a list: not in the message, not in the books."""
    url = "https://user:MARKER@example.com/a.jpg"
    with pytest.raises(SourceError, match=r"'https://\*\*\*@example.com/a.jpg': credentials in a URL"):
        FileSource(url)
    (here / "list.txt").write_text(f"{url}\n")
    (entry,) = FileSource("@list.txt")
    assert entry.key == "https://***@example.com/a.jpg"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOTCONN])
def test_a_mount_that_fails_costs_the_line_or_the_argument_only(
    here: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whatever looking at a path says."""
    stat, lstat = os.stat, os.lstat
    away = str(here / "mount")

    def failing(real: Any) -> Any:
        def look(path: Any, *args: Any, **how: Any) -> os.stat_result:
            if isinstance(path, str) and path.startswith((away, "mount")):
                raise OSError(number, os.strerror(number), path)
            result: os.stat_result = real(path, *args, **how)
            return result

        return look

    monkeypatch.setattr(os, "stat", failing(stat))
    monkeypatch.setattr(os, "lstat", failing(lstat))
    one, two = listed(b"mount/b.jpg", b"a.jpg")
    assert isinstance(one, Broken)
    assert str(one.error) == f"line 1 of @list.txt: cannot be read: {os.strerror(number)}"
    assert isinstance(two, Item)
    assert [type(entry) for entry in FileSource(["a.jpg", "mount/b.jpg"])] == [Item, Broken]
    for alone in ("mount/b.jpg", "mount"):
        with pytest.raises(SourceError, match=f"'{alone}' cannot be read: {os.strerror(number)}"):
            FileSource(alone)


@pytest.mark.parametrize(
    ("spec", "words"),
    [("a.jpg/b", "Not a directory"), ("x" * 300, "File name too long"), ("a\0b", "null"), ("\ud800.png", "surrogates")],
)
def test_an_argument_that_can_be_no_path_is_refused_in_the_system_s_words(spec: str, words: str) -> None:
    """Alone; a picture among others is a dead letter."""
    with pytest.raises(SourceError, match=words):
        FileSource(spec)
    broken, _ = FileSource([f"{spec}.jpg", "a.jpg"])
    assert isinstance(broken, Broken)
    assert broken.key.encode()


@pytest.mark.parametrize("folder", ["a\0b", "\ud800", "../a\0b", "a\0b/..", "https://host/\0"])
def test_a_picture_in_a_folder_that_can_be_no_path_is_broken_and_ends_nothing(folder: str) -> None:
    """Links are resolved of its folder, to see whether it was read already; so are those of a glob below it."""
    picture, broken = FileSource(["a.jpg", f"{folder}/b.jpg"])
    assert isinstance(picture, Item)
    assert isinstance(broken, Broken)
    assert [type(entry) for entry in FileSource(["a.jpg", f"{folder}/[b].jpg"])] == [Item, Broken]


_AS_ANOTHER_USER = """
import json, os, sys
from penstock.engine.sources import Broken, FileSource
from penstock.errors import SourceError
if os.geteuid() == 0:
    os.setegid(65534); os.seteuid(65534)  # root is refused nothing
secret, other, listing = sys.argv[1:]
def refused(spec):
    try:
        return str(FileSource(spec))
    except SourceError as error:
        return str(error)
kinds = lambda specs: [[type(entry).__name__, str(getattr(entry, "error", ""))] for entry in FileSource(specs)]
alone = [refused(secret + "/a.jpg"), refused(secret + "/sub")]
print(json.dumps([*alone, kinds("@" + listing), kinds([other, secret + "/a.jpg"]), kinds(secret)]))
"""


def test_a_folder_that_may_not_be_entered_is_said_and_ends_nothing() -> None:
    """Of a line, of an argument, of an argument among others, of the folder itself."""
    with tempfile.TemporaryDirectory() as place:  # not below tmp_path, which only its owner may enter
        open_, secret, listing = Path(place), Path(place, "secret"), Path(place, "list.txt")
        secret.mkdir()
        for path in (open_ / "b.jpg", secret / "a.jpg"):
            path.write_bytes(JPEG)
        listing.write_text(f"{open_}/b.jpg\n{secret}/a.jpg\n")
        open_.chmod(0o755)
        secret.chmod(0o000)
        command = [sys.executable, "-c", _AS_ANOTHER_USER, str(secret), str(open_ / "b.jpg"), str(listing)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        secret.chmod(0o700)
    assert done.returncode == 0, done.stderr
    file, folder, lines, among, itself = json.loads(done.stdout)
    assert "cannot be read: Permission denied" in file
    assert "cannot be read: Permission denied" in folder
    assert lines == [["Item", ""], ["Broken", f"line 2 of @{listing}: cannot be read: Permission denied"]]
    assert among == [["Item", ""], ["Broken", "cannot be read: Permission denied"]]
    assert itself == [["Broken", "the folder cannot be listed: Permission denied"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PAR1\x15\x04\x15\x80" + bytes(200) + b"PAR1", "a Parquet file: write the paths to a text file"),
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (b"\x1f\x8b\x08\x00" + bytes(60), "gzip-compressed"),
        (b"x.jpg".ljust(257, b"\0") + b"ustar\x0000" + bytes(250), "a tar archive"),
        (JPEG, "a picture: to embed it, leave out the @"),
        ("a.jpg\n".encode("utf-16"), "text in UTF-16: write it in UTF-8"),
        (bytes(range(256)) * 4, "binary"),
        (b"a.jpg\0b.jpg\0c.jpg\0", "--null"),
    ],
)
def test_what_is_no_list_is_refused_at_once(content: bytes, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    """In one line, without its bytes, from a file and from standard input; before the job begins where that can be."""
    Path("no.list").write_bytes(content)
    with pytest.raises(SourceError, match="is no list of paths but .*" + words):
        FileSource("@no.list")
    with pytest.raises(SourceError, match="standard input is no list of paths but .*" + words):
        list(FileSource("-", stdin=io.BytesIO(content)))
    assert main(["embed", "@no.list", "--to", "rows.db"]) == 2
    assert len(capfd.readouterr().err) < 600


def test_lines_that_are_told_to_end_with_nul_and_do_not_are_explained() -> None:
    """A whole list would be one path."""
    with pytest.raises(SourceError, match="leave out --null"):
        list(FileSource("-", stdin=io.BytesIO(b"a.jpg\nb.jpg\nc.jpg\n"), null=True))


def test_a_list_may_have_a_mark_comments_and_any_line_end(here: Path) -> None:
    """As editors and spreadsheets write them; a file whose name begins with # is ./#name."""
    (here / "#1.jpg").write_bytes(JPEG)
    entries = listed(b"\xef\xbb\xbfa.jpg\r", b"# a comment\r", b"\r", b"./#1.jpg\r", b"gone.jpg\r")
    assert [Path(entry.key).name for entry in entries] == ["a.jpg", "#1.jpg", "gone.jpg"]
    assert str(entries[2].error).startswith("line 5 of @list.txt")  # type: ignore[union-attr]


def test_names_that_programs_write_are_taken_as_they_are(here: Path) -> None:
    """``find -print0``: no line is a comment there, and no mark belongs to nobody."""
    (here / "#1.jpg").write_bytes(JPEG)
    marked = "\ufeffa.jpg"
    (here / marked).write_bytes(JPEG)
    entries = list(FileSource("-", stdin=io.BytesIO(marked.encode() + b"\0#1.jpg\0gone\0"), null=True))
    assert [Path(entry.key).name for entry in entries] == [marked, "#1.jpg", "gone"]
    assert str(entries[2].error).startswith("path 3 of standard input: ")  # type: ignore[union-attr]


def test_a_list_that_can_be_read_once_is_not_counted_before(here: Path) -> None:
    """``@<(find ...)``: whoever counts it would take the lines away."""
    read, write = os.pipe()
    os.write(write, b"a.jpg\n")
    os.close(write)
    source = FileSource(f"@/dev/fd/{read}")
    source.count()
    assert [Path(entry.key).name for entry in source] == ["a.jpg"]
    os.close(read)


def test_a_list_may_come_through_a_fifo(here: Path) -> None:
    """It is opened once: whoever writes to it would else have nobody to write to."""
    os.mkfifo(here / "fifo")
    with ThreadPoolExecutor(1) as other:
        writing = other.submit((here / "fifo").write_bytes, b"a.jpg\n")
        source = FileSource("@fifo")
        assert [Path(entry.key).name for entry in source] == ["a.jpg"]
        assert writing.result() == 6
