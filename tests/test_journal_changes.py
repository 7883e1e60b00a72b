"""What differs between two listings of a source: the merge against plain dicts, on real walks and on lists."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.journal import Entry, SourceOrderError
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
    found = list(merge(*listings))
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


def test_both_sides_are_read_as_a_stream() -> None:
    """A difference is told before the rest of either side has been read."""

    def endless(first: int) -> Iterable[Entry]:
        number = first
        while True:
            yield Entry(f"{number:06d}")
            number += 1

    assert next(iter(merge(endless(0), endless(1)))) == (Entry("000000"), None)
