"""Tars as sources: what lies in them is found by its headers and read where it lies; what is wrong is said, once."""

from __future__ import annotations

import json
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.images.entries import readable
from penstock.engine.journal.listing_diff import merge
from penstock.engine.sources import Broken, Entry, Filtered, Item, Source, open_source
from penstock.engine.sources.shards import expanded
from penstock.errors import ItemError, SourceError, TooLargeError
from penstock.fetch import Fetchers
from penstock.testing.sources import SourceContract, listing
from penstock.tests.packed import picture, write_tar

LIMIT = 1 << 30


def read(item: Item) -> bytes:
    """The bytes of its picture, as a worker reads them."""
    assert item.reference is not None
    return Fetchers(LIMIT).read(item.reference)


def entries(*specs: Path | str) -> list[Entry]:
    return [*open_source([str(spec) for spec in specs])]


def loaded(*specs: Path | str) -> list[Item]:
    """The candidates as they go to the workers."""
    source = open_source([str(spec) for spec in specs])
    found = readable(ServiceConfig(to="null:"), source, source, LIMIT, LIMIT)
    return [entry for entry in found if isinstance(entry, Item)]


def names(found: list[Entry]) -> list[str]:
    """Of the members, behind the path of their tar."""
    return [entry.key.partition("!")[2] for entry in found]


class TestTars(SourceContract):
    """The contract, for two tars of samples with metadata, of which the second is cut short."""

    kinds = frozenset({Item, Filtered, Broken})

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        (folder := tmp_path / "p #q{x}").mkdir()
        members = [(f"d/{number}.{kind}", data) for number in range(9) for kind, data in _sample(number)]
        write_tar(folder / "s-0.tar", [*members, ("none", b"x"), ("é \U0001f600.png", picture(1))])
        whole = write_tar(folder / "s-1.tar", members).read_bytes()
        (folder / "s-1.tar").write_bytes(whole[: len(whole) // 2])
        return open_source([f"{folder}/s-*.tar"])


def _sample(number: int) -> list[tuple[str, bytes]]:
    return [("json", json.dumps({"n": number}).encode()), ("png", picture(number))]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_member_is_read_as_it_was_put_in(tmp_path: Path, form: int) -> None:
    """In each of the formats, with names as long as it has them."""
    long = "/".join(["folder" * 7] * 3) + "/" if form == tarfile.USTAR_FORMAT else "ä" * 300 + "/"
    members = [(f"{long}{number}.jpg", os.urandom(number)) for number in (1, 511, 512, 513, 100_000)]
    found = entries(write_tar(tmp_path / "a.tar", members, form))
    assert names(found) == [name for name, _ in members]
    assert [read(item) for item in found if isinstance(item, Item)] == [data for _, data in members]


def test_a_name_of_any_bytes_keeps_working(tmp_path: Path) -> None:
    """Also one that is not UTF-8, which a key shows as its bytes."""
    name = b"\xff\xfe.jpg".decode("utf-8", "surrogateescape")
    (item,) = entries(write_tar(tmp_path / "a.tar", [(name, b"data")], tarfile.GNU_FORMAT))
    assert isinstance(item, Item)
    assert item.key.startswith("b'")
    assert read(item) == b"data"


def test_names_are_labels_and_nothing_is_ever_written(tmp_path: Path) -> None:
    """Absolute ones, such as lead out of a folder, links, devices, and names that repeat."""
    (folder := tmp_path / "only").mkdir()
    tar = write_tar(folder / "a.tar", [("/etc/x.jpg", b"1"), ("../../x.jpg", b"2"), ("x.jpg", b"3"), ("x.jpg", b"4")])
    with tarfile.open(tar, "a") as file:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("link.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
    found = entries(tar)
    assert names(found)[:4] == ["/etc/x.jpg", "../../x.jpg", "x.jpg", "x.jpg#2"]
    assert [read(item) for item in found if isinstance(item, Item)] == [b"1", b"2", b"3", b"4"]
    assert [entry.why for entry in found if isinstance(entry, Filtered)] == ["a link or a device in a tar"] * 4
    assert [*tmp_path.rglob("*")] == [folder, tar]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [0, 2, 1]])
def test_no_two_members_are_known_by_one_name(tmp_path: Path, order: list[int]) -> None:
    """Also where one has the very name that the second of another is given: one row would replace the other's."""
    members = [("x.jpg", b"1"), ("x.jpg", b"2"), ("x.jpg#2", picture(0))]
    found = entries(write_tar(tmp_path / "a.tar", [members[number] for number in order]))
    assert len(set(names(found))) == 3
    assert [read(item) for item in found if isinstance(item, Item)] == [members[number][1] for number in order]


def test_metadata_of_a_sample_go_with_its_pictures(tmp_path: Path) -> None:
    """Members belong together up to the first dot, whichever comes first; what is no picture is told from metadata."""
    members = [
        ("a/1.txt", b" a text\n"), ("a/1.jpg", b"x"), ("a/1.seg.png", b"x"), ("a/1.json", b'{"year": 2001, "t": [1]}'),
        ("a/1.CLS", b"7"), ("a/1.npy", b"x"), ("a/2.jpg", b"x"), ("b.txt", b"x"), ("c.jpg", b"x"), ("c.json", b"[1]"),
    ]  # fmt: skip
    tar = write_tar(tmp_path / "a.tar", members)
    one = {"txt": "a text", "year": 2001, "t": [1], "cls": 7}
    assert [item.metadata for item in loaded(tar)] == [one, one, {}, {"json": [1]}]
    why = [entry.why for entry in entries(tar) if isinstance(entry, Filtered)]
    assert [reason.startswith("metadata") for reason in why] == [True, True, True, False, False, True]


def test_metadata_of_names_that_rows_have_get_others(tmp_path: Path) -> None:
    """As ``img2dataset`` writes them: ``key``, ``width``; what is null or no number is left out."""
    said = b'{"key": "0001", "width": 256, "error_message": null, "similarity": NaN, "exif": {"a": NaN}}'
    tar = write_tar(tmp_path / "a.tar", [("1.jpg", b"x"), ("1.json", said)])
    (item,) = loaded(tar)
    assert item.metadata == {"source_key": "0001", "source_width": 256, "exif": {"a": None}}


@pytest.mark.parametrize(
    ("data", "said"), [(b"{", "cannot be read"), (b"\xff", "cannot be read"), (b" " * 65537, "65,537")]
)
def test_metadata_that_cannot_be_read_are_a_dead_letter_of_their_picture(
    tmp_path: Path, data: bytes, said: str
) -> None:
    """The pictures beside it go on."""
    tar = write_tar(tmp_path / "a.tar", [("1.jpg", b"x"), ("1.json", data), ("2.jpg", b"x")])
    broken, fine = loaded(tar)
    assert isinstance(broken.data, ItemError)
    assert said in str(broken.data)
    assert fine.reference is not None


def test_pictures_are_known_by_their_first_bytes_too(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [("one", picture(0)), ("two", b"no picture"), ("three.bin", picture(1))])
    assert [type(entry) for entry in entries(tar)] == [Item, Filtered, Item]


def test_a_tar_that_is_cut_gives_what_was_whole_and_one_broken_entry(tmp_path: Path) -> None:
    """Wherever it is cut: in a header, in data, in front of its end mark."""
    members = [(f"{number}.jpg", bytes([number]) * 700) for number in range(3)]
    whole = write_tar(tmp_path / "a.tar", members).read_bytes()
    (cut := tmp_path / "cut.tar").touch()
    for size, good in [(1, 0), (600, 0), (1300, 1), (1536, 1), (1600, 1), (2100, 1), (3072, 2), (4608, 3)]:
        cut.write_bytes(whole[:size])
        *items, broken = entries(cut)
        assert ([type(entry) for entry in items], size) == ([Item] * good, size)
        assert all(read(item) for item in items if isinstance(item, Item))
        assert isinstance(broken, Broken)
        assert broken.key == (f"{cut}#rest" if good else str(cut))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data[:3000] + b"\xff" * 512 + data[3512:], "is damaged at byte 3,072"),
        (lambda data: b"no tar".ljust(2000, b"."), "is no tar"),
        (lambda data: b"", "is no tar: empty file"),
        (lambda data: data[: 2 * 1536] + _huge(b"L") + data[3072:], "is damaged at byte 3,072: a header of"),
        (lambda data: data[: 2 * 1536] + _huge(b"x") + data[3072:], "is damaged at byte 3,072: a header of"),
    ],
)
def test_a_damaged_tar_is_one_broken_entry_for_its_rest(
    tmp_path: Path, spoil: Callable[[bytes], bytes], said: str
) -> None:
    """A header that is none is no end, and no header makes us read what it promises."""
    tar = write_tar(tmp_path / "a.tar", [(f"{number}.jpg", bytes(700)) for number in range(4)])
    tar.write_bytes(spoil(tar.read_bytes()))
    broken = entries(tar)[-1]
    assert isinstance(broken, Broken)
    assert said in str(broken.error)


def _huge(kind: bytes) -> bytes:
    """A header of a name that is said to have 8 GB."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, 8**11 - 1
    return info.tobuf(tarfile.GNU_FORMAT)


def test_archives_one_behind_the_other_are_read_to_their_end(tmp_path: Path) -> None:
    """As ``cat`` makes them."""
    parts = [write_tar(tmp_path / f"{name}.tar", [(f"{name}.jpg", b"x")]).read_bytes() for name in "ab"]
    (tmp_path / "both.tar").write_bytes(b"".join(parts))
    assert names(entries(tmp_path / "both.tar")) == ["a.jpg", "b.jpg"]


def test_a_member_of_ten_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    """What lies behind it is found, in a file of which the disk holds nothing but headers."""
    size = 10 << 30
    with open(tmp_path / "a.tar", "wb") as file:
        for name, length in (("huge.jpg", size), ("small.jpg", 3)):
            info = tarfile.TarInfo(name)
            info.size = length
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            file.seek(-(-length // 512) * 512, os.SEEK_CUR)
        file.write(bytes(1024))
    huge, small = entries(tmp_path / "a.tar")
    assert isinstance(huge, Item)
    with pytest.raises(TooLargeError, match="10737418240 bytes"):
        read(huge)
    assert isinstance(small, Item)
    assert read(small) == bytes(3)


def test_a_tar_that_was_cut_and_is_whole_again_is_compared_with_its_listing(tmp_path: Path) -> None:
    """Beside others: what was read of it, and what was not, is found anew; the rest is as it was."""
    whole = write_tar(tmp_path / "a.tar", [(f"{number}.jpg", b"x") for number in range(3)]).read_bytes()
    write_tar(tmp_path / "b.tar", [("0.jpg", b"x")])
    source = open_source([f"{tmp_path}/*.tar"])
    (tmp_path / "a.tar").write_bytes(whole[:1500])
    before = listing(source)
    (tmp_path / "a.tar").write_bytes(whole)
    pairs = [*merge(before, listing(source), source.order)]
    names = [tuple(one and one.name.rpartition("/")[2] for one in pair) for pair in pairs]
    assert names == [
        ("a.tar!0.jpg", "a.tar!0.jpg"),
        (None, "a.tar!1.jpg"),
        (None, "a.tar!2.jpg"),
        ("a.tar#rest", None),
        ("b.tar!0.jpg", "b.tar!0.jpg"),
    ]
    assert [old == new for old, new in pairs] == [False] * 4 + [True]


def test_a_member_with_holes_is_broken(tmp_path: Path) -> None:
    """Its data are not in one piece."""
    info = tarfile.TarInfo("holes.jpg")
    info.size, info.type = 512, tarfile.GNUTYPE_SPARSE
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(512 + 1024))
    (broken,) = entries(tmp_path / "a.tar")
    assert isinstance(broken, Broken)
    assert "sparse" in str(broken.error)


def test_a_picture_that_is_not_where_it_was_listed_is_not_read(tmp_path: Path) -> None:
    """A tar that was written anew, even with the same size and time."""
    tar = write_tar(tmp_path / "a.tar", [("a.jpg", b"1"), ("b.jpg", b"2")])
    first, _ = entries(tar)
    assert isinstance(first, Item)
    status = tar.stat()
    write_tar(tar, [("b.jpg", b"2"), ("a.jpg", b"1")])
    os.utime(tar, ns=(status.st_mtime_ns, status.st_mtime_ns))
    with pytest.raises(ItemError, match="has changed since it was listed: --update"):
        read(first)
    os.utime(tar, ns=(0, 0))
    with pytest.raises(ItemError, match="has changed since it was listed: --update"):
        read(first)


def test_what_is_named_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that ends in .tar without a scheme, globs, braces, folders of such a name; several are one source."""
    monkeypatch.chdir(tmp_path)
    for number in (8, 9, 10):
        write_tar(tmp_path / f"s-{number:03}.tar", [("x.jpg", b"x")])
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "folder.tar" / "y.jpg").write_bytes(b"x")
    for spec in ("s-*.tar", "wds:s-*", "s-{008..010}.tar", "s-{008,009,010}.tar", "file://" + f"{tmp_path}/s-*.tar"):
        assert [entry.key for entry in entries(spec)] == [f"{tmp_path}/s-{n:03}.tar!x.jpg" for n in (8, 9, 10)], spec
    assert len(entries("s-008.tar", "wds:s-009.tar")) == 2
    assert names(entries("folder.tar")) == [""]
    # among files it is one of them, as ever
    assert [type(entry) for entry in entries("folder.tar", "s-008.tar")] == [Item, Filtered]


def test_braces_are_numbers_or_texts() -> None:
    assert [*expanded("s-{9..11}")] == ["s-9", "s-10", "s-11"]
    assert [*expanded("s-{09..11}-{a,b}")][:3] == ["s-09-a", "s-09-b", "s-10-a"]
    assert [*expanded("s-{2..0}")] == ["s-2", "s-1", "s-0"]
    assert [*expanded("s-{x}")] == ["s-{x}"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("none.tar", "'.*none.tar': there is no such tar"),
        ("none-*.tar", "none-.*matches nothing"),
        ("a-{0..2}.tar", "a-1.tar': there is no such tar"),
        ("a.tar.gz", "is compressed"),
        ("wds:a.TGZ", "is compressed"),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-0.tar").touch()
    with pytest.raises(SourceError, match=said):
        open_source([spec])


def test_a_tar_that_is_gone_or_none_is_a_broken_entry(tmp_path: Path) -> None:
    """Of several, at its turn; a FIFO is not opened."""
    for name in "ab":
        write_tar(tmp_path / f"{name}.tar", [("x.jpg", b"x")])
    source = open_source([str(tmp_path / f"{name}.tar") for name in "ab"])
    (tmp_path / "a.tar").unlink()
    os.mkfifo(tmp_path / "a.tar")
    assert [type(entry) for entry in source] == [Broken, Item]


def test_memory_does_not_grow_with_a_tar(tmp_path: Path) -> None:
    """`tarfile` keeps every member; here nothing but names' hashes stays."""
    tar = tmp_path / "a.tar"
    with open(tar, "wb") as file:
        for number in range(5_000):
            file.write(tarfile.TarInfo(f"{number:09}.jpg").tobuf(tarfile.USTAR_FORMAT))
        file.write(bytes(1024))
    source = open_source([str(tar)])
    tracemalloc.start()
    try:
        assert sum(1 for _ in source) == 5_000
        assert tracemalloc.get_traced_memory()[1] < 5_000 * 150 + (1 << 20)
    finally:
        tracemalloc.stop()
