"""Which volumes of a job are published, as its books have it: for whoever has no need to ask the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ...journal import Event, Status, read_status
from ..common.fingerprints import specs_of
from .source import VolumeSource

PUBLISHED: Final = "published"
"""Event: a volume is, as it is to be."""

REOPENED: Final = "reopened"
"""Event: it is not any more, since pages of it are to be done or have gone."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the volumes of a job are.

    Attributes:
        all: how many there are.
        published: how many of them are.
        unpublished: names of those of which all pages are done, and the rows are written and not published.
    """

    all: int
    published: int
    unpublished: Sequence[str]


def published_in(events: Iterable[Event]) -> set[str]:
    """Names of the volumes that are published by the last of these events."""
    found: set[str] = set()
    for event in events:
        if event["event"] == PUBLISHED:
            found.add(event["volume"])
        elif event["event"] == REOPENED:
            found.discard(event["volume"])
    return found


def standing_of(found: Status) -> Standing:
    """How far the volumes of a job are. Reads the names of all pages, and asks no store.

    Raises:
        JournalError: the books cannot be read.
    """
    source = VolumeSource(specs_of(found))
    volumes = read_status(found.path, group=lambda name: source.root_of(name).name).groups
    published = published_in(found.events) & volumes.keys()
    whole = (name for name, counts in volumes.items() if counts.written and not counts.remaining)
    return Standing(len(volumes), len(published), [name for name in whole if name not in published])
