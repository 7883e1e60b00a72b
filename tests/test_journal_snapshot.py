"""The list of the source: any text survives, reading starts anywhere, damage is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.journal import Disk, Entry, JournalDamagedError, JournalDiskError, JournalVersionError, Kind
from penstock.engine.journal.entries import BLOCK_ENTRIES, decode, encode
from penstock.engine.journal.snapshot import Snapshot, write_snapshot

HOSTILE = ["", "a\nb", "\0", '"\\', "é", "\udcff\udc80", "\ud800\udc00", "𐀀", "-rf", "b'\\xff'", "x" * 5000, "\x1b[31m"]

ENTRIES = st.builds(
    Entry,
    st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(), max_size=30)),
    st.sampled_from(Kind),
    st.integers(-1, 2**63),
    st.integers(-(2**70), 2**70),
    st.text(st.characters(), max_size=10),
    st.integers(0, 5),
)


class _Reads(Disk):
    """Counts the bytes that are read."""

    def __init__(self) -> None:
        self.bytes = 0

    def read(self, fd: int, size: int, offset: int) -> bytes:
        data = super().read(fd, size, offset)
        self.bytes += len(data)
        return data


def photos(count: int) -> Iterator[Entry]:
    for number in range(count):
        yield Entry(f"/data/photos/2024/03/IMG_{number:06d}.jpg", Kind.ITEM, 3_000_000 + number, 10**18 + number)


@pytest.mark.slow
@given(st.lists(ENTRIES, min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_any_entry_survives_a_block(entries: list[Entry]) -> None:
    """Newlines, quotes, NUL, invalid UTF-8, lone and paired surrogates, numbers of any size."""
    assert list(decode(encode(entries))) == entries


@pytest.mark.parametrize("count", [0, 1, BLOCK_ENTRIES - 1, BLOCK_ENTRIES, BLOCK_ENTRIES + 1, 3 * BLOCK_ENTRIES])
def test_a_snapshot_holds_what_was_listed(tmp_path: Path, count: int) -> None:
    """Count, order and entries are the same after it was opened again, around the edges of blocks."""
    path = str(tmp_path / "snapshot-1")
    write_snapshot(Disk(), path, photos(count)).close()
    snapshot = Snapshot(Disk(), path)
    assert len(snapshot) == count
    assert list(snapshot) == list(photos(count))
    assert list(snapshot.entries(count)) == []
    snapshot.close()


def test_reading_begins_anywhere_and_reads_nothing_before(tmp_path: Path) -> None:
    """Entries of ordinals in the middle cost their own blocks alone, whatever lies before them."""
    path = str(tmp_path / "snapshot-1")
    write_snapshot(Disk(), path, photos(50 * BLOCK_ENTRIES)).close()
    disk = _Reads()
    snapshot = Snapshot(disk, path)
    disk.bytes = 0
    expected = list(photos(41 * BLOCK_ENTRIES))
    start = 40 * BLOCK_ENTRIES + 7
    assert list(snapshot.entries(start, start + 10)) == expected[start : start + 10]
    assert disk.bytes < (tmp_path / "snapshot-1").stat().st_size / 40
    assert snapshot[start] == expected[start]
    with pytest.raises(IndexError):
        snapshot[len(snapshot)]
    snapshot.close()


def test_a_typical_entry_takes_less_than_25_bytes(tmp_path: Path) -> None:
    """The promise about its size, with sizes and times that do not compress."""
    path = tmp_path / "snapshot-1"
    entries = (entry._replace(size=hash(entry.name) % 10**7, mtime_ns=hash(entry) % 10**19) for entry in photos(10_000))
    write_snapshot(Disk(), str(path), entries).close()
    assert path.stat().st_size < 25 * 10_000


def test_a_listing_that_fails_leaves_no_file(tmp_path: Path) -> None:
    """The source's own error comes through as it is, and a torn snapshot does not exist."""

    def failing() -> Iterator[Entry]:
        yield from photos(100)
        raise OSError("the folder went away")

    with pytest.raises(OSError, match="the folder went away") as caught:
        write_snapshot(Disk(), str(tmp_path / "snapshot-1"), failing())
    assert not isinstance(caught.value, JournalDiskError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    """No single damaged byte yields a wrong entry; at most the title names another version."""
    path = tmp_path / "snapshot-1"
    write_snapshot(Disk(), str(path), photos(30)).close()
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((JournalDamagedError, JournalVersionError)):
            _read(path)


@pytest.mark.parametrize("cut", [lambda size: 0, lambda size: size // 2, lambda size: size - 1])
def test_a_cut_snapshot_is_refused(tmp_path: Path, cut: Callable[[int], int]) -> None:
    """What is not whole is damaged, and the message says which file."""
    path = tmp_path / "snapshot-1"
    write_snapshot(Disk(), str(path), photos(30)).close()
    whole = path.read_bytes()
    path.write_bytes(whole[: cut(len(whole))])
    with pytest.raises(JournalDamagedError, match="snapshot-1"):
        _read(path)


def _read(path: Path) -> list[Entry]:
    snapshot = Snapshot(Disk(), str(path))
    try:
        return list(snapshot)
    finally:
        snapshot.close()
