"""Pictures in tar archives: found by one pass over the headers, read by the workers at their offsets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, Final

from ....errors import ConfigError, ItemError, ReadError, SourceError
from ....object_stores.options import StoreOptions
from ....object_stores.urls import is_store_url
from ....references import Reference, Version
from ..ahead import mapped_ahead
from ..base import Source, SourceMemory
from ..container_finder import Containers, place_named, without_scheme
from ..containers import may_pass, settled
from ..entries import Broken, Entry, Item, key_of
from ..options import SourceOptions
from ..paths import reason
from .listing import MARK, SAMPLE_BYTES, TarListing
from .members import members_of
from .reader import TarReader, locator_of
from .samples import columns_of

SCHEME: Final = "wds"
_REST: Final = "#rest"
"""Ends the name of what cannot be read of a tar; in the order of bytes it comes behind those of its members."""

_COMPRESSED: Final = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".lz4", ".z")


class TarSource(Source):
    """The pictures in tars, in the order of the tars' names, and in each as they lie there.

    A picture is known as ``/path/of.tar!its/name.jpg``; the second one of a name as ``...jpg#2``. Members that follow
    one another and share their name up to the first dot of its last part are a sample, as in WebDataset: its ``json``
    (an object: its fields), ``txt`` and ``cls`` are metadata of its pictures. Nothing is ever written or unpacked:
    names are labels. Memory holds one sample, and 100 bytes for each member of the tar at hand, to tell names that
    repeat.

    What is damaged, or cut short, is one broken entry for the rest of its tar (``/path/of.tar#rest``); what was read
    before stays.

    Args:
        specs: paths of tars, globs, braces; each with ``wds:`` before it or not.
        later: do not look now whether they are there.

    Raises:
        SourceError: there is no such tar, or it is compressed, so that nothing in it can be read at an offset.
    """

    order = "bytes"

    def __init__(self, specs: Sequence[str], options: StoreOptions | None = None, later: bool = False) -> None:
        self._options = options or StoreOptions()
        self._containers = Containers(self._options)
        self.locator = self._locator = locator_of(self._options)
        self._patterns = [_pattern(spec) for spec in specs]
        self.specs = tuple(f"{SCHEME}:{pattern}" for pattern in self._patterns)
        for pattern in self._patterns:
            if pattern.lower().endswith(_COMPRESSED):
                raise SourceError(
                    f"{pattern!r} is compressed, so no picture in it can be read where it lies: unpack the compression"
                    " (gunzip, zstd -d) and give the .tar, which stays a tar"
                )
            if not later:
                self._containers.check(pattern, "tar")

    def __iter__(self) -> Iterator[Entry]:
        return (entry for _, entry in self.parts())

    def parts(self) -> Iterator[tuple[int, Entry]]:
        """The entries, each with the index of the spec it comes from."""
        for part, pattern in enumerate(self._patterns):
            for name in self._containers.names(pattern, MARK):
                for entry in self.members(name):
                    yield part, entry

    def members(self, name: str) -> Iterator[Entry]:
        """The entries of one tar, by its path or URL.

        Raises:
            SourceError: a store was busy, or away.
        """
        begun = False
        try:
            with closing(self._containers.open(name)) as tar, tar.file() as file:
                listed = TarListing(tar, file, self.item)
                for entry in listed.entries(members_of(file, tar.known.size)):
                    begun = True
                    yield entry
        except (OSError, ReadError) as error:
            if may_pass(error):
                raise SourceError(f"{name!r} cannot be listed: {error}") from error
            said = str(error) if isinstance(error, ReadError) else f"cannot be read: {reason(error)}"
            yield Broken(key_of(f"{name}{_REST}" if begun else name), ReadError(f"the tar {said}"))

    def item(self, ordinal: int, name: str, version: Version) -> Item:
        """The member that was listed so."""
        return Item(key_of(name), ordinal=ordinal, version=version, reference=Reference(self._locator, name, version))

    def name_of(self, entry: Entry) -> str:
        """The path of the tar and the member's name, of any bytes."""
        if isinstance(entry, Item) and entry.reference is not None:
            return entry.reference.ref
        return super().name_of(entry)

    def look_again(self, name: str, why: str) -> Entry:
        """It is broken still: what lies behind the damage is found by another listing."""
        return Broken(key_of(name), ReadError(f"{why} (--update looks again)"))

    def loaded(self, entries: Iterable[Any], max_bytes: int) -> Iterator[Any]:
        """The same entries, pictures with the metadata that lie beside them."""
        del max_bytes
        reader = TarReader(self._options)
        look = partial(self._with_metadata, reader)
        return mapped_ahead(look, entries) if any(map(is_store_url, self._patterns)) else map(look, entries)

    def _with_metadata(self, reader: TarReader, entry: Any) -> Any:
        if not (isinstance(entry, Item) and entry.reference is not None and entry.reference.locator == self.locator):
            return entry
        try:
            columns = columns_of(reader, entry.reference)
        except ItemError as error:
            return replace(entry, data=settled(error), reference=None)
        return replace(entry, metadata={**entry.metadata, **columns}) if columns else entry

    def memory(self, max_bytes: int) -> SourceMemory:
        """A sample of names, and what lies beside the pictures of the rows."""
        del max_bytes
        return SourceMemory(SAMPLE_BYTES, has_metadata=True)

    def emptiness(self) -> str:
        """What to say if there are no entries."""
        return f"{' '.join(self.specs)} has no members"


def make_tars(specs: Sequence[str], options: SourceOptions) -> Source:
    """The factory of ``wds:``, and of paths that end in ``.tar``."""
    return TarSource(specs, options.urls.stores, options.later)


def _pattern(spec: str) -> str:
    found = without_scheme(spec, SCHEME)
    if not found:
        raise ConfigError(f"source: {spec!r}: name a tar, as in {SCHEME}:shards-{{000..009}}.tar")
    return place_named(found)
