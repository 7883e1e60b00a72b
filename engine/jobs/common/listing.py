"""A source's things as the entries of a job's listing, and entries as things again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

from ....errors import ConfigError, ReadError
from ...journal import Entry, Kind
from ...sources import Broken, FileSource, Filtered, Item, key_of, look_again, path_of


class ListingInterruptedError(Exception):
    """The user wants to stop; half a listing does not count. Goes no further than the books of the job."""


def entries_of(source: FileSource, stopped: Callable[[], bool]) -> Iterator[Entry]:
    """A source's entries as a listing keeps them.

    Args:
        source: is read once.
        stopped: whether to stop; asked at each entry.

    Raises:
        ListingInterruptedError: it is to stop.
        SourceError: the source is not there.
    """
    for part, thing in source.parts():
        if stopped():
            raise ListingInterruptedError
        match thing:
            case Item(path=str(path)):
                size, mtime = thing.looked or _look(path)
                yield Entry(path, Kind.ITEM, size, mtime, "", part)
            case Filtered():
                yield Entry(path_of(thing.key), Kind.FILTERED, tag=thing.why, part=part)
            case Broken():
                yield Entry(path_of(thing.key), Kind.BROKEN, tag=str(thing.error), part=part)
            case _:
                raise ConfigError("job: a job that keeps books needs files")


def thing_of(ordinal: int, entry: Entry) -> Item | Filtered | Broken:
    """What is to be done about an entry. What was broken when it was listed may be mended by now, and is looked at."""
    key = key_of(entry.name)
    if entry.kind is Kind.ITEM:
        return Item(key, entry.name, ordinal=ordinal)
    if entry.kind is Kind.FILTERED:
        return Filtered(key, entry.tag, ordinal)
    if "\0" in entry.name:  # no path at all
        return Broken(key, ReadError(entry.tag), ordinal)
    return replace(look_again(entry.name, entry.tag), ordinal=ordinal)


def _look(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116  (as text, once a picture)
    except OSError:
        return -1, 0  # it went away just now: the worker will say so
    return status.st_size, status.st_mtime_ns
