"""What every source must hold: tests to subclass, for your own kind of source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..engine.jobs.common.listing import entries_of, entry_at
from ..engine.journal import Entry as Listed
from ..engine.journal import Kind
from ..engine.journal.listing_diff import merge, order_of
from ..engine.sources import Broken, Filtered, Item, Source, SourceOptions, key_of, open_source
from ..errors import ItemError, TooLargeError
from ..fetch import Fetchers
from ..references import Reference

_LARGEST = 2**30


def listing(source: Source) -> list[Listed]:
    """A source as a job lists it."""
    return list(entries_of(source, lambda: False))


def items(source: Source) -> list[Item]:
    """Its candidates."""
    return [entry for entry in source if isinstance(entry, Item)]


def references(source: Source) -> list[Reference]:
    """Of its candidates, those that are read so."""
    return [item.reference for item in items(source) if item.reference is not None]


class UnnamedSourceContract(ABC):
    """What holds for every source, also for one that has no specs, so that only its maker can make it again.

    Subclasses make one; its first pictures can be read, if they have references.

    Attributes:
        kinds: of entries that the source under test has.
        ordered: whether the source under test is in the order that its kind promises; a list of paths need not be.
    """

    kinds: frozenset[type] = frozenset({Item})
    ordered: bool = True

    @pytest.fixture
    @abstractmethod
    def source(self, tmp_path: Path) -> Source:
        """A source with several items."""

    def test_iterating_again_gives_the_same(self, source: Source) -> None:
        """Order and entries are those of the first time."""
        first = [(type(entry), entry.key) for entry in source]
        assert first == [(type(entry), entry.key) for entry in source]
        assert {kind for kind, _ in first} == self.kinds

    def test_keys_are_unique_and_valid_unicode(self, source: Source) -> None:
        """A key can go to a store, to JSON, and stands for one entry."""
        keys = [entry.key for entry in source]
        assert len(set(keys)) == len(keys)
        assert all(key.encode() for key in keys)

    def test_an_item_has_something_to_read(self, source: Source) -> None:
        """A path, a reference or data: one of them."""
        for item in items(source):
            assert sum(way is not None for way in (item.path, item.reference, item.data)) == 1

    def test_what_is_aside_says_why(self, source: Source) -> None:
        """A dead letter needs an item error with a message; what is left out, a phrase."""
        assert all(str(entry.error) for entry in source if isinstance(entry, Broken))
        assert all(entry.why for entry in source if isinstance(entry, Filtered))

    def test_total_is_none_or_the_number_of_entries(self, source: Source) -> None:
        """A wrong total would make a wrong ETA."""
        assert source.total() in (None, len(list(source)))

    def test_it_is_told_in_one_line(self, source: Source) -> None:
        """To people, and to be compared; and if there is nothing in it."""
        for said in (source.fingerprint(), source.emptiness()):
            assert len(said.splitlines()) == 1

    def test_a_listing_gives_the_entries_back(self, source: Source) -> None:
        """What is kept of each, the name by which it is known, its kind and version, makes it again; also twice."""
        listed, entries = listing(source), [*source]
        assert [key_of(one.name) for one in listed] == [entry.key for entry in entries]
        for ordinal, (one, entry) in [*enumerate(zip(listed, entries, strict=True))] * 2:
            again = entry_at(source, ordinal, one)
            assert (again.key, again.ordinal) == (entry.key, ordinal)
            if isinstance(entry, Item):
                assert isinstance(again, Item)
                assert (again.path, again.reference) == (entry.path, entry.reference)

    def test_versions_are_told_while_it_is_listed(self, source: Source) -> None:
        """What is unchanged has the version it had; one of which nothing is known is never seen to change."""
        assert listing(source) == listing(source)

    def test_names_come_in_the_order_it_promises(self, source: Source) -> None:
        """An entry that is new, or gone, anywhere is found by comparing two listings in it."""
        listed = listing(source)
        assert [one.part for one in listed] == sorted(one.part for one in listed)
        if source.order == "given" or not self.ordered:
            return
        keys = [order_of(one, source.order) for one in listed]
        assert keys == sorted(set(keys))
        without = listed[: len(listed) // 2] + listed[len(listed) // 2 + 1 :]
        assert _differing(without, listed, source.order) == 1
        assert _differing(listed, without, source.order) == 1

    def test_references_are_read_by_its_locator(self, source: Source) -> None:
        """From several threads at once; each gives as many bytes as it has, and never more than are allowed."""
        found = references(source)
        assert {reference.locator for reference in found} <= {source.locator}
        fetchers = Fetchers(_LARGEST)
        with ThreadPoolExecutor(8) as threads:
            read = list(threads.map(fetchers.read, found[:8] * 4))
        for reference, data in zip(found[:8] * 4, read, strict=True):
            assert data
            assert reference.version.size in (-1, len(data))
        for reference in found[:1]:
            with pytest.raises(TooLargeError):
                Fetchers(1).read(reference)

    def test_what_cannot_be_read_is_an_error_of_its_item(self, source: Source) -> None:
        """A picture that is gone, and one that is another by now, if the source knows versions."""
        for reference in references(source)[:1]:
            with pytest.raises(ItemError):
                Fetchers(_LARGEST).read(reference._replace(ref=f"{reference.ref} no such picture"))
            if reference.version.tag:
                other = reference.version._replace(tag=f"{reference.version.tag} another")
                with pytest.raises(ItemError, match=reference.ref):
                    Fetchers(_LARGEST).read(reference._replace(version=other))

    def test_loading_keeps_entries_and_their_order(self, source: Source) -> None:
        """With gaps, as a job that goes on has them; what cannot be had is an error of its item, which has a way to be
        read else, as it is, or its bytes."""
        entries = [*source]
        for wanted in (entries, entries[1::2], entries[-1:]):
            found = [*source.loaded(iter(wanted), _LARGEST)]
            assert [(type(entry), entry.key) for entry in found] == [(type(entry), entry.key) for entry in wanted]
            loaded = [entry for entry in found if isinstance(entry, Item)]
            ways = [(item.path, item.reference, item.data) for item in loaded]
            assert all(sum(way is not None for way in each) == 1 for each in ways)
            assert source.in_memory or not any(isinstance(item.data, (bytes, memoryview)) for item in loaded)

    def test_broken_entries_may_be_mended(self, source: Source) -> None:
        """They are looked at again when they are tried again, and have their key still."""
        for number, one in enumerate(listing(source)):
            if one.kind is Kind.BROKEN:
                assert entry_at(source, number, one).key == key_of(one.name)


class SourceContract(UnnamedSourceContract):
    """What holds for a source that is made of its specs: one that has a scheme, or files."""

    def test_it_is_made_again_in_another_folder(
        self, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """From its specs, as ``penstock resume`` does: the same entries, by the same fingerprint."""
        assert source.specs
        specs = [*source.portable_specs()]
        (tmp_path / "elsewhere").mkdir()
        before = listing(source)
        monkeypatch.chdir(tmp_path / "elsewhere")
        again = open_source(specs, SourceOptions(source.selection, null=source.null))
        assert (again.fingerprint(), again.order) == (source.fingerprint(), source.order)
        assert listing(again) == before
        assert [*again.portable_specs()] == specs


def _differing(old: Sequence[Listed], fresh: Sequence[Listed], order: str) -> int:
    return sum(before != now for before, now in merge(old, fresh, order))
