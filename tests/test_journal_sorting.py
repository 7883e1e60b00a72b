"""Listings that come in no order: sorted in runs on the disk, and compared with later ones in whichever order."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.journal import Disk, Entry, JobFolder, ListingDiff
from penstock.engine.journal.listing_diff import order_of
from penstock.engine.journal.sorting import in_order
from penstock.errors import JournalDiskError

ENTRIES = st.lists(
    st.builds(Entry, name=st.sampled_from(["a", "a/b", "a-b", "é", "\udcff", "z\n"]), size=st.integers(0, 9)),
    max_size=12,
)


@given(ENTRIES, st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_entries_are_sorted_as_in_memory(entries: Sequence[Entry], run: int) -> None:
    """Those of the same name as they came; of any number of runs; and nothing is left in the folder."""
    with tempfile.TemporaryDirectory() as folder:
        found = list(in_order(Disk(), folder, entries, run))
        assert not list(Path(folder).iterdir())
    assert found == sorted(entries, key=lambda entry: order_of(entry, "bytes"))


def test_a_folder_that_is_not_there_is_a_refusal_of_the_disk(tmp_path: Path) -> None:
    """As of all that a job writes."""
    with pytest.raises(JournalDiskError, match="cannot be written"):
        list(in_order(Disk(), str(tmp_path / "gone"), [Entry("b"), Entry("a")], 1))


def test_listings_in_no_order_are_compared(tmp_path: Path) -> None:
    """Whatever came in between, wherever; what is the same keeps its outcome."""
    chance = random.Random(0)

    def shuffled(*, without: Sequence[int] = (), changed: Sequence[int] = (), more: int = 0) -> list[Entry]:
        entries = [
            Entry(f"s3://b/{n:03}", size=1 + (n in changed)) for n in range(0, 100 + 2 * more, 2) if n not in without
        ]
        chance.shuffle(entries)
        return entries

    with JobFolder.create_or_open(tmp_path / "job") as folder:
        folder.write_snapshot(shuffled(), lambda: "given", sortable=True)
        assert folder.order == "sorted"
        folder.written([0, 1, 2])
        diff = folder.renew_snapshot(shuffled(without=[4], changed=[90], more=3), lambda: "given", sortable=True)
        assert diff == ListingDiff(same=48, new=3, changed=1, gone=1)
        assert folder.counts.written == 2
        assert [entry.name for entry in folder.snapshot][:3] == ["s3://b/000", "s3://b/002", "s3://b/006"]
    with JobFolder.create_or_open(tmp_path / "job") as folder:
        assert folder.order == "sorted"
        assert folder.renew_snapshot(sorted(folder.snapshot), lambda: "bytes", sortable=True).same == 52
