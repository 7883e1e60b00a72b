"""The contract of a source: what jobs, their listings, fingerprints, progress and ``penstock resume`` ask of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple

from ...errors import ReadError
from ...references import Locator, Version
from .entries import Broken, Entry, Filtered, Item
from .kinds import PICTURES, Media
from .selection import ALL, Selection

Order = Literal["path", "bytes", "given"]
"""The order in which a source yields its names, within each of its parts: by bytes with "/" as the least one, as a walk
of folders goes; by plain bytes of UTF-8, as object stores list; or as somebody gave them. Two listings in one of the
first two are compared by a merge; of the third they may differ in place or at their end only."""

MANY: Final = 100
"""More specs than these are told by a digest, and kept in a file of their own."""


class SourceMemory(NamedTuple):
    """Memory that a source takes while it is read.

    Attributes:
        nbytes: besides its pictures, and what its rows are made of.
        has_metadata: whether rows get metadata of it.
        uncounted: what takes some more, in words, where nobody can say how much.
    """

    nbytes: int = 0
    has_metadata: bool = False
    uncounted: tuple[str, ...] = ()


class Source(ABC):
    """Where items come from.

    Iterating again gives the same entries in the same order, as long as what is read does not change; memory does not
    grow with their number. What is wrong with one item is a ``Broken`` entry, never an exception; where the source as
    a whole cannot be read it raises a SourceError.

    A job that keeps books lists a source once: of each entry its name (`name_of`), version and kind are kept, and its
    ordinal is its position. A later run, maybe in another process that made the source again from its specs, asks
    `item` for what remains, and reads the source only where it is to be compared (``--update``).

    Attributes:
        specs: what the user named. The registry makes the source again from them (see `portable_specs`); empty: it
            cannot be made again, and only its maker can go on with a job.
        order: see `Order`.
        sortable: whether a job may take its entries in another order: it sorts a listing that came in none.
        selection: what is wanted of its folders; likewise null, whether paths in its lists end with NUL, and media,
            what is looked for. A source that has no such things keeps the defaults, and the options are refused.
        in_memory: whether its items bring their data, so that pictures in memory have to be counted.
        locator: how the pictures of its references are read; None where items have paths or data.
    """

    specs: Sequence[str] = ()
    order: Order = "bytes"
    sortable: bool = False
    selection: Selection = ALL
    null: bool = False
    media: Media = PICTURES
    in_memory: bool = False
    locator: Locator | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Entry]: ...

    @abstractmethod
    def item(self, ordinal: int, name: str, version: Version) -> Item:
        """The candidate that was listed so. Nothing is read, or even looked at.

        Args:
            ordinal: its position in the listing, to be kept in the item. They are asked for in order.
            name: see `name_of`.
            version: what it was then.
        """

    def loaded(self, entries: Iterable[Any], max_bytes: int) -> Iterable[Any]:
        """The same entries, in the same order, with what a listing does not keep, as they go to the workers.

        Items get the metadata that lie with them; and where a place is read in one go far better than picture by
        picture, their data (then the source is `in_memory`). What cannot be had is the `data` of its item: an
        ItemError. Bounded memory; read in one thread. By default there is nothing to add.

        Args:
            entries: this source's, in the order of the listing, with gaps; other things pass.
            max_bytes: of a picture.
        """
        del max_bytes
        return entries

    def parts(self) -> Iterator[tuple[int, Entry]]:
        """The entries, each with the index of the root it comes from; it never decreases. One root by default."""
        return ((0, entry) for entry in self)

    def listed(self) -> Iterator[tuple[int, str, Version | Filtered | Broken]]:
        """What a job's listing keeps of each entry: the index of its root, its name, and of a candidate its version.

        A source of millions may know that without making an `Item` of each.
        """
        for part, entry in self.parts():
            yield part, self.name_of(entry), self.version_of(entry) if isinstance(entry, Item) else entry

    def name_of(self, entry: Entry) -> str:
        """What a listing knows an entry by: any text, in the order that the source promises. The key by default."""
        return entry.key

    def version_of(self, item: Item) -> Version:
        """Of a candidate that is being listed."""
        return item.version or Version()

    def look_again(self, name: str, why: str) -> Entry:
        """What is now where something was broken when it was listed; by default it still is.

        Args:
            name: of the entry.
            why: what was said of it then.
        """
        return Broken(name, ReadError(why))

    def memory(self, max_bytes: int) -> SourceMemory:
        """What reading it takes in this process at most. May look at what is to be read.

        Args:
            max_bytes: of a picture.
        """
        del max_bytes
        return SourceMemory()

    def total(self) -> int | None:
        """How many entries there will be, if that is known by now. Returns at once."""
        return None

    def count(self, seconds: float = 10.0) -> None:
        """Begin to find out `total` in a thread, for so many seconds at most; or leave it."""
        del seconds

    def emptiness(self) -> str:
        """What to say if there are no entries."""
        return f"{' '.join(self.specs) or 'the source'} has no pictures"

    def portable_specs(self) -> Iterator[str]:
        """The specs as they name the same in any folder, without secrets."""
        return iter(self.specs)

    def fingerprint(self) -> str:
        """What may not change from run to run, in words that people can compare."""
        return " ".join([*self._specs_summary(), *self.selection.as_options()])

    def _specs_summary(self) -> list[str]:
        """Specs for people, and to be told from others: all of them, or of many the ends and a digest."""
        if len(self.specs) <= MANY:
            return [*self.portable_specs()]
        digest = blake2b(digest_size=16)
        first = last = ""
        for last in self.portable_specs():
            first = first or last
            digest.update(last.encode("utf-8", "surrogatepass") + b"\0")
        return [first, "...", last, f"({len(self.specs):,} in all, digest {digest.hexdigest()})"]
