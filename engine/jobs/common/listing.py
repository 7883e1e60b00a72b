"""A source's entries as a job's listing keeps them, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ...journal import Entry, Kind
from ...sources import Broken, Filtered, Item, Source, Version, key_of


class ListingInterruptedError(Exception):
    """The user wants to stop; half a listing does not count. Goes no further than the books of the job."""


def entries_of(source: Source, stopped: Callable[[], bool]) -> Iterator[Entry]:
    """A source's entries as a listing keeps them.

    Args:
        source: is read once.
        stopped: whether to stop; asked at each entry.

    Raises:
        ListingInterruptedError: it is to stop.
        SourceError: the source is not there.
    """
    item, new = Kind.ITEM, tuple.__new__
    for part, name, found in source.listed():
        if stopped():
            raise ListingInterruptedError
        if isinstance(found, Version):  # nearly all, of millions: at a third of what the class costs
            yield new(Entry, (name, item, *found, part))
        elif isinstance(found, Filtered):
            yield Entry(name, Kind.FILTERED, tag=found.why, part=part)
        else:
            yield Entry(name, Kind.BROKEN, tag=str(found.error), part=part)


def entry_at(source: Source, ordinal: int, entry: Entry) -> Item | Filtered | Broken:
    """What is to be done about an entry of a listing. What was broken then may be mended by now, and is looked at."""
    if entry.kind is Kind.ITEM:
        return source.item(ordinal, entry.name, Version(entry.size, entry.mtime_ns, entry.tag))
    if entry.kind is Kind.FILTERED:
        return Filtered(key_of(entry.name), entry.tag, ordinal)
    return replace(source.look_again(entry.name, entry.tag), ordinal=ordinal)
