"""Folders, files, globs and lists as items: order, overlap, what is a picture, what is never opened."""

from __future__ import annotations

import io
import os
import socket
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.sources import Broken, FileSource, Filtered, Item, Source, key_of
from penstock.engine.sources.kinds import looks_like_picture
from penstock.errors import ReadError, SourceError
from penstock.testing.sources import SourceContract
from penstock.tests.waiting import DEADLINE

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with pictures, sub-folders, text and a hidden picture."""
    for name in ("b.jpg", "a.PNG", "sub/c.jpeg", "sub/deep/d.webp", ".hidden.gif", "z.heic"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    (tmp_path / "tree" / "notes.txt").write_text("text")
    return tmp_path / "tree"


def names(source: Source, base: Path) -> list[str]:
    """Keys of the candidates, relative to a folder."""
    return [os.path.relpath(entry.key, base) for entry in source if isinstance(entry, Item)]


ALL_KINDS = frozenset({Item, Filtered, Broken})


class TestFolders(SourceContract):
    """The contract, for a folder."""

    kinds = ALL_KINDS

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        (tmp_path / "x.jpg").write_bytes(JPEG)
        (tmp_path / "x.txt").write_text("x")
        (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
        return FileSource(str(tmp_path))


class TestLists(SourceContract):
    """The contract, for a list of paths."""

    kinds = ALL_KINDS
    ordered = False

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        (tmp_path / "x.jpg").write_bytes(JPEG)
        (tmp_path / "x.txt").write_text("x")
        (tmp_path / "list").write_text(f"{tmp_path}/x.jpg\n{tmp_path}/x.txt\n{tmp_path}/gone.jpg\n")
        return FileSource(f"@{tmp_path}/list")


class TestNotUtf8(SourceContract):
    """The contract, for names that are no text."""

    kinds = ALL_KINDS

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        for name in (b"\xff.jpg", b"\\xff.jpg", "é.jpg".encode(), b"\xff.txt"):
            (tmp_path / os.fsdecode(name)).write_bytes(JPEG if name.endswith(b"jpg") else b"text")
        os.mkfifo(tmp_path / os.fsdecode(b"\xfe.jpg"))
        return FileSource(str(tmp_path))


def test_a_folder_is_walked_in_the_order_of_its_names(tree: Path) -> None:
    """Sub-folders stand where their name does; hidden files follow the same rule as others."""
    expected = [".hidden.gif", "a.PNG", "b.jpg", "sub/c.jpeg", "sub/deep/d.webp", "z.heic"]
    assert names(FileSource(str(tree)), tree) == expected


def test_text_is_filtered_with_a_reason(tree: Path) -> None:
    """Nothing in a folder disappears: what is no picture is an entry too."""
    assert [entry for entry in FileSource(str(tree)) if isinstance(entry, Filtered)] == [
        Filtered(str(tree / "notes.txt"), "not a picture")
    ]


@pytest.mark.parametrize("name", ["x.heic", "x.psd", "x.svg", "x.tga", "x.jp2", "x.CR2"])
def test_pictures_we_cannot_decode_stay_candidates(tmp_path: Path, name: str) -> None:
    """They end as dead letters with a reason, not among the text files."""
    (tmp_path / name).write_bytes(b"whatever")
    assert [type(entry) for entry in FileSource(str(tmp_path))] == [Item]


@pytest.mark.parametrize(
    ("head", "picture"),
    [
        (JPEG, True),
        (b"\x89PNG\r\n\x1a\n", True),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", True),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", False),
        (b"GIF89a", True),
        (b"BM\x36\x00\x00\x00\x00\x00\x00\x00\x36", True),
        (b"BMW is a car maker", False),
        (b"II*\x00", True),
        (b"MM\x00*", True),
        (b"", False),
        (b"<html>", False),
    ],
)
def test_other_names_are_judged_by_their_first_bytes(tmp_path: Path, head: bytes, picture: bool) -> None:
    """A picture without an extension is found; text is not taken for one."""
    (tmp_path / "name").write_bytes(head)
    (entry,) = FileSource(str(tmp_path))
    assert isinstance(entry, Item if picture else Filtered)


@given(st.binary(max_size=16))
@settings(max_examples=100, deadline=None)
def test_any_bytes_can_be_judged(head: bytes) -> None:
    """The judgement never fails, whatever a file holds."""
    assert looks_like_picture(head) in (True, False)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["b.jpg"]),
        ("**/*.jp*", ["b.jpg", "sub/c.jpeg"]),
        (
            "**",
            [".hidden.gif", "a.PNG", "b.jpg", "sub/c.jpeg", "sub/deep/d.webp", "z.heic"],
        ),  # the folder itself matches
        ("s*", ["sub/c.jpeg", "sub/deep/d.webp"]),
        ("sub/**/*.webp", ["sub/deep/d.webp"]),
        ("*/deep/?.webp", ["sub/deep/d.webp"]),
        ("[ab].*", ["a.PNG", "b.jpg"]),
        (".h*", [".hidden.gif"]),
        ("**/deep/**", ["sub/deep/d.webp"]),
    ],
)
def test_globs_match_as_in_a_shell(tree: Path, pattern: str, expected: list[str]) -> None:
    """Hidden names need the dot, ``**`` any number of folders, and a folder that matches is walked."""
    assert names(FileSource(f"{tree}/{pattern}"), tree) == expected


def test_a_name_that_exists_is_no_pattern(tmp_path: Path) -> None:
    """Files and folders with brackets in their names can be given, also before a real pattern."""
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "a[1]" / "x[2].jpg").write_bytes(JPEG)
    for spec in ("a[1]", "a[1]/x[2].jpg", "a[1]/*.jpg"):
        assert names(FileSource(str(tmp_path / spec)), tmp_path) == ["a[1]/x[2].jpg"]


@pytest.mark.parametrize(
    "specs",
    [
        ("", ""),
        ("", "sub"),
        ("sub", ""),
        ("sub/deep/d.webp", ""),
        ("", "b.jpg"),
        ("**/*.jpg", ""),
        ("b.jpg", "*.jpg", "."),
        ("link", ""),
        ("", "link"),
        ("sub/../sub", ""),
    ],
)
def test_overlapping_roots_are_read_once(tree: Path, specs: tuple[str, ...]) -> None:
    """In whatever order and spelling they are given."""
    (tree.parent / "link").symlink_to(tree)
    paths = [str(tree.parent / "link" if spec == "link" else f"{tree}/{spec}") for spec in specs]
    keys = [os.path.realpath(entry.key) for entry in FileSource(paths) if isinstance(entry, Item)]
    assert len(keys) == len(set(keys)) == 6


def test_links_to_folders_are_not_followed(tree: Path) -> None:
    """A loop of links ends the walk at once, and each link is counted as filtered."""
    (tree / "sub" / "loop").symlink_to(tree)
    entries = list(FileSource(str(tree)))
    assert [e.key for e in entries if isinstance(e, Filtered) and "link" in e.why] == [str(tree / "sub" / "loop")]
    assert sum(isinstance(entry, Item) for entry in entries) == 6


def test_links_to_pictures_are_pictures(tree: Path) -> None:
    """A farm of links is a usual way to choose some pictures of many."""
    farm = tree.parent / "farm"
    farm.mkdir()
    (farm / "one.jpg").symlink_to(tree / "b.jpg")
    assert names(FileSource(str(farm)), farm) == ["one.jpg"]


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_fifo, _socket, _device])
@pytest.mark.parametrize("name", ["x.jpg", "x"])
def test_what_is_no_regular_file_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], name: str
) -> None:
    """Opening a FIFO would wait for ever. It is a dead letter that says what it is."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    (entry,) = FileSource(str(tmp_path))
    assert isinstance(entry, Broken)
    assert "not a regular file" in str(entry.error)


def test_a_folder_that_goes_away_is_a_dead_letter(tree: Path) -> None:
    """One bad folder does not end the walk, and does not pass in silence."""
    (tree / "aa").mkdir()
    walk = iter(FileSource(str(tree)))
    next(walk)
    (tree / "aa").rename(tree.parent / "elsewhere")
    broken = [entry for entry in walk if isinstance(entry, Broken)]
    assert [entry.key for entry in broken] == [str(tree / "aa")]
    assert isinstance(broken[0].error, ReadError)


@pytest.mark.parametrize("spec", ["nothing.jpg", "nothing/*.jpg", "*.nothing", "@nothing.txt", "@.", ""])
def test_a_source_that_is_not_there_is_refused_before_the_start(
    tree: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    """A typing error must not look like an empty job."""
    monkeypatch.chdir(tree)
    with pytest.raises(SourceError, match=r"nothing|no such|cannot be opened"):
        FileSource(spec)


def test_no_source_and_standard_input_twice_are_refused() -> None:
    """Both are mistakes of the caller."""
    with pytest.raises(SourceError, match="no source"):
        FileSource([])
    with pytest.raises(SourceError, match="once"):
        FileSource(["-", "-"])


def test_a_list_holds_files_and_folders_one_a_line(tree: Path) -> None:
    """Missing lines are dead letters, empty ones nothing, Windows line ends are taken off, the last needs no end."""
    lines = [f"{tree}/b.jpg\r", "", f"{tree}/sub", f"{tree}/gone.jpg", f"{tree}/a.PNG"]
    (tree.parent / "list.txt").write_text("\n".join(lines))
    entries = list(FileSource(f"@{tree.parent}/list.txt"))
    assert [os.path.relpath(entry.key, tree) for entry in entries] == [
        "b.jpg",
        "sub/c.jpeg",
        "sub/deep/d.webp",
        "gone.jpg",
        "a.PNG",
    ]
    assert [type(entry) for entry in entries].index(Broken) == 3


def test_standard_input_can_be_ended_by_nul(tmp_path: Path) -> None:
    """Names with newlines come through ``find -print0``."""
    hostile = tmp_path / "a\nb.jpg"
    hostile.write_bytes(JPEG)
    source = FileSource("-", stdin=io.BytesIO(os.fsencode(hostile) + b"\0"), null=True)
    assert [entry.key for entry in source] == [str(hostile)]


def test_a_path_that_is_not_utf8_is_found_by_its_own_bytes(tmp_path: Path) -> None:
    """From a list too; the path opens the file, the key is printable."""
    path = os.fsencode(tmp_path) + b"/\xff\xfe.jpg"
    Path(os.fsdecode(path)).write_bytes(JPEG)
    for source in (FileSource(str(tmp_path)), FileSource("-", stdin=io.BytesIO(path))):
        (item,) = source
        assert isinstance(item, Item)
        assert item.path is not None
        assert Path(item.path).read_bytes() == JPEG
        assert item.key == repr(path)


@pytest.mark.parametrize(("null", "data", "hint"), [(False, b"a\0b\n", "--null"), (True, b"\0\0/x\0", "")])
def test_a_list_with_the_other_line_end_is_explained(null: bool, data: bytes, hint: str) -> None:
    """NUL bytes in lines end as dead letters that name the option; nothing crashes."""
    (entry,) = FileSource("-", stdin=io.BytesIO(data), null=null)
    assert isinstance(entry, Broken)
    assert hint in str(entry.error)


def test_something_that_is_no_list_is_refused_in_little_memory() -> None:
    """A gigabyte without a line's end must not be collected."""

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            buffer[:] = b"x" * len(buffer)
            return len(buffer)

    with pytest.raises(SourceError, match="no list of paths"):
        list(FileSource("-", stdin=io.BufferedReader(Endless())))


def test_a_list_is_used_while_it_is_written(tree: Path) -> None:
    """``find | penstock embed -`` begins with the first line."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as listing, os.fdopen(write, "wb", buffering=0) as writer:
        entries = iter(FileSource("-", stdin=listing))
        writer.write(os.fsencode(tree / "b.jpg") + b"\n")
        assert next(entries).key == str(tree / "b.jpg")


def test_relative_and_absolute_names_have_the_same_key(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key does not depend on where the command was called."""
    monkeypatch.chdir(tree)
    assert [entry.key for entry in FileSource("sub")] == [entry.key for entry in FileSource(str(tree / "sub"))]


def test_entries_are_counted_in_the_background(tree: Path) -> None:
    """The number is that of all entries, also those that are filtered, and it is not known at standard input."""
    source = FileSource(str(tree))
    assert source.total() is None
    source.count()
    for thread in threading.enumerate():
        if thread.name == "penstock-count":
            thread.join(DEADLINE)
    assert source.total() == len(list(source)) == 7
    blind = FileSource("-", stdin=io.BytesIO())
    blind.count()
    assert blind.total() is None


def test_counting_gives_up_when_its_time_is_over(tmp_path: Path) -> None:
    """A slow file system must not be listed twice for the sake of an ETA."""
    for number in range(300):
        (tmp_path / f"{number}.jpg").touch()
    source = FileSource(str(tmp_path))
    source._count(seconds=-1.0)  # pyright: ignore[reportPrivateUsage]
    assert source.total() is None


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_folders(tmp_path: Path) -> None:
    """Twenty times the files in the same folders' size: the same peak."""

    def peak(folders: int) -> int:
        root = tmp_path / str(folders)
        for folder in range(folders):
            (root / f"{folder:04}").mkdir(parents=True)
            for number in range(20):
                (root / f"{folder:04}" / f"{number}.jpg").touch()
        tracemalloc.start()
        assert sum(1 for _ in FileSource(str(root))) == folders * 20
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    # The names of the folders themselves are one folder's names: about 200 bytes each.
    assert peak(400) - peak(20) < 380 * 500


@given(st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name and b"/" not in name), st.data())
@settings(max_examples=200, deadline=None)
def test_keys_never_collide(name: bytes, data: st.DataObject) -> None:
    """Two paths have one key only if they are one path, whatever bytes they consist of."""
    other = data.draw(st.one_of(st.just(repr(b"/" + name).encode()), st.binary(min_size=1, max_size=20)))
    other = other.replace(b"\0", b"")
    first, second = b"/" + name, b"/" + other
    assert (key_of(os.fsdecode(first)) == key_of(os.fsdecode(second))) == (first == second)
    key_of(os.fsdecode(first)).encode()


def test_a_path_that_never_was_bytes_has_a_key() -> None:
    """A lone surrogate, as JSON can hold one, has no bytes in any file system."""
    assert key_of("/a/\ud800.jpg") == r"b'/a/\xed\xa0\x80.jpg'"
    assert key_of("/a/\ud801.jpg") != key_of("/a/\ud800.jpg")
