"""What differs between two listings of a source: the merge against plain dicts, on real walks and on lists."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.journal import Entry, JobFolder, ListingDiff, SourceOrderError
from penstock.engine.journal.listing_diff import merge, order_of
from penstock.engine.sources.earlier import Earlier
from penstock.engine.sources.walk import Root

NAMES = st.sampled_from(["a", "a.b", "a-", "ab", "B", "é", "a b", "\udcff", "z\n", "0"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
FILES = st.dictionaries(PATHS, st.integers(0, 3), max_size=12)

Pair = tuple[Entry | None, Entry | None]
"""An entry as it was and as it is; None where it is not."""


def make_tree(folder: str, files: dict[str, int]) -> None:
    """Files of these sizes; names that are files and folders at once stay what they were first."""
    for path, size in files.items():
        try:
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"x" * size)
        except OSError:
            continue


def walk(*roots: str) -> list[Entry]:
    """The entries of several roots, as a source would give them."""
    return [
        Entry(found.path, size=Path(found.path).stat().st_size, part=part)
        for part, root in enumerate(roots)
        for found in Root.of(root).walk(Earlier())
    ]


def by_dicts(old: Iterable[Entry], fresh: Iterable[Entry]) -> set[Pair]:
    """The same answer without any order."""
    before = {(entry.part, entry.name): entry for entry in old}
    now = {(entry.part, entry.name): entry for entry in fresh}
    return {(before.get(key), now.get(key)) for key in before.keys() | now.keys()}


@pytest.mark.slow
@given(FILES, FILES)
@settings(max_examples=60, deadline=None)
def test_a_walk_comes_in_the_order_that_is_merged_by(one: dict[str, int], other: dict[str, int]) -> None:
    """Folder by folder, names by bytes, roots as given: what `Root.walk` yields ascends, on real folders."""
    with tempfile.TemporaryDirectory() as folder:
        roots = [f"{folder}/r2", f"{folder}/r1"]
        for root, files in zip(roots, (one, other), strict=True):
            Path(root).mkdir()
            make_tree(root, files)
        keys = [order_of(entry) for entry in walk(*roots)]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


@pytest.mark.slow
@given(FILES, FILES, FILES)
@settings(max_examples=60, deadline=None)
def test_differences_of_two_walks_are_found(one: dict[str, int], other: dict[str, int], third: dict[str, int]) -> None:
    """New, changed, gone and unchanged files of real folders, as plain dicts find them; both sides in their order."""
    with tempfile.TemporaryDirectory() as folder:
        listings: list[list[Entry]] = []
        for files in (one, other):
            root = f"{folder}/b{len(listings)}"
            Path(root).mkdir()
            make_tree(root, files)
            Path(root).rename(f"{folder}/b")
            (Path(folder) / "a").mkdir(exist_ok=True)
            make_tree(f"{folder}/a", third if listings else {})
            listings.append(walk(f"{folder}/b", f"{folder}/a"))
            Path(f"{folder}/b").rename(f"{folder}/done{len(listings)}")
    before, after = listings
    found = list(merge(before, after))
    assert set(found) == by_dicts(*listings)
    assert [was for was, _ in found if was] == listings[0]
    assert [now for _, now in found if now] == listings[1]


@given(st.lists(st.integers(0, 30), unique=True), st.data())
@settings(max_examples=100, deadline=None)
def test_a_list_in_any_order_is_compared_up_to_its_end(numbers: list[int], data: st.DataObject) -> None:
    """Unchanged, changed in place, longer, or shorter: no order is needed for these."""
    old = [Entry(str(number)) for number in numbers]
    sizes = [data.draw(st.integers(-1, 0)) for _ in old]
    fresh = [entry._replace(size=size) for entry, size in zip(old, sizes, strict=True)]
    fresh = fresh[: data.draw(st.integers(0, len(fresh)))]
    if len(fresh) == len(old):
        fresh += [Entry(f"more {number}") for number in data.draw(st.permutations(range(3)))]
    assert set(merge(old, fresh)) == by_dicts(old, fresh)


@given(st.permutations("abcdef"), st.permutations("abcdxy"))
@settings(max_examples=200, deadline=None)
def test_lists_are_compared_rightly_or_not_at_all(old: list[str], fresh: list[str]) -> None:
    """Where the order does not allow an answer it is refused: never is one thing both gone and new."""
    left, right = [Entry(name) for name in old], [Entry(name) for name in fresh]
    try:
        found = set(merge(left, right))
    except SourceOrderError:
        assert old != sorted(old) or fresh != sorted(fresh)
    else:
        assert found == by_dicts(left, right)


def test_the_refusal_says_which_names_and_the_way_out() -> None:
    """Two names that are out of order, and that a new job can be started."""
    old, fresh = [Entry("c"), Entry("a")], [Entry("b"), Entry("c"), Entry("a")]
    with pytest.raises(SourceOrderError, match=r"'a' after 'c'.*start a new job"):
        list(merge(old, fresh))


def test_keys_in_the_plain_order_of_their_bytes_are_compared_anywhere() -> None:
    """As object stores list: "a-b" before "a/b", which a walk would turn round."""
    old = [Entry(name) for name in ("a-b", "a/b", "a/d", "b")]
    fresh = [Entry(name) for name in ("a-b", "a-c", "a/b", "a/d")]
    assert set(merge(old, fresh, "bytes")) == by_dicts(old, fresh)
    with pytest.raises(SourceOrderError, match="not the order of a walk"):
        list(merge(old, fresh))
    with pytest.raises(SourceOrderError, match="'a/b' after 'b', which is not the order of their bytes"):
        list(merge([Entry("a"), Entry("b"), Entry("a/b")], fresh, "bytes"))


def test_where_no_order_is_promised_lists_differ_at_their_end_only() -> None:
    """Sorted or not; in the middle both names could be anything."""
    old = [Entry(name) for name in ("a", "b")]
    longer = [*old, Entry("0")]
    assert set(merge(old, longer, "given")) == by_dicts(old, longer)
    with pytest.raises(SourceOrderError, match="has changed elsewhere than at its end"):
        list(merge(old, [Entry("a"), Entry("aa"), Entry("b")], "given"))


def test_a_listing_keeps_the_order_it_came_in(tmp_path: Path) -> None:
    """Also when it is opened again; one that says nothing is a walk's, and of two different ones nothing is left."""
    with JobFolder.create_or_open(tmp_path / "job") as job:
        assert job.order == "path"
        job.write_snapshot([Entry(name) for name in ("a-b", "a/b")], "bytes")
    with JobFolder.create_or_open(tmp_path / "job") as job:
        assert job.order == "bytes"
        assert job.renew_snapshot([Entry(name) for name in ("a-b", "a-c", "a/b")], "bytes") == ListingDiff(
            same=2, new=1
        )
        job.compact()
    with JobFolder.create_or_open(tmp_path / "job") as job:
        assert job.order == "bytes"
        with pytest.raises(SourceOrderError):
            job.renew_snapshot([Entry("a-b"), Entry("a/a"), Entry("a/b")], "path")
        assert job.renew_snapshot([*job.snapshot, Entry("c")], "path") == ListingDiff(same=3, new=1)
        assert job.order == "path"


def test_both_sides_are_read_as_a_stream() -> None:
    """A difference is told before the rest of either side has been read."""

    def endless(first: int) -> Iterable[Entry]:
        number = first
        while True:
            yield Entry(f"{number:06d}")
            number += 1

    assert next(iter(merge(endless(0), endless(1)))) == (Entry("000000"), None)
