"""Whether a job's store holds what the job's books say: asked at the start of every run after the first rows.

A collection has an id, random, kept in its note from the moment it is made; the books have the id before the first row
that they call written. So a job that is killed between the two has recorded no row, and takes the collection that it
finds. Collections and job folders from before there were ids are judged by the number of their rows alone.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from uuid import uuid4

import numpy as np

from ....errors import StoreChangedError
from ....formatting import count, plural
from ....sinks import Found
from ...journal import Event, JobFolder, Outcome

_ID = "collection"
STORE, REDONE = "store", "redone"
"""Events of the journal: the id of the collection, with the rows that may be missing; all is to be done again."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the books of a job know of its store."""

    id: str = ""
    """Of the collection that has its rows; empty where it has none, or where there are no rows."""

    missing: int = 0
    """Rows that may be missing in it: the user has accepted that."""


def with_id(recipe: str, known: str = "") -> str:
    """The note of a new collection: its recipe, and an id of its own; or one that is known already."""
    return json.dumps({**json.loads(recipe), _ID: known or uuid4().hex})


def id_of(note: str) -> str:
    """The id in a collection's note; empty where there is none, as in one that was not made by a job."""
    try:
        said = json.loads(note)
    except ValueError:
        return ""
    return str(said.get(_ID, "")) if isinstance(said, dict) else ""


def known_of(events: Sequence[Event]) -> defaultdict[int, Known]:
    """What the events of a journal say of each store, by its number."""
    known = defaultdict[int, Known](Known)
    for event in events:
        if event["event"] == REDONE:
            known.clear()
        elif event["event"] == STORE:
            known[event.get("store", 0)] = Known(event["id"], event["missing"])
    return known


def checked(
    folder: JobFolder,
    known: Known,
    found: Found | None,
    where: str,
    *,
    number: int = 0,
    accept: bool,
    rows: int | None = None,
) -> Known:
    """Hold the store against the books of a job that has written rows.

    Args:
        folder: the books.
        known: what they know of the store.
        found: what is there.
        where: the store, for people.
        number: of the store, where rows go into several: what it has acknowledged counts, too.
        accept: whether to take it as it is.
        rows: that were written; None: one for each entry that is written.

    Returns:
        What is to be known of the store from now on.

    Raises:
        StoreChangedError: it has gone, is another one, or holds fewer rows than were written. Says how to go on.
    """
    there = id_of(found.note) if found else ""
    held = found.rows if found else 0
    written = folder.counts.written + sum(map(len, folder.states.acknowledged(number))) if rows is None else rows
    if rows is None and held < written - known.missing:  # the same key twice in the listing is one row
        entries = chain(folder.entries(Outcome.WRITTEN), folder.acknowledged_entries(number))
        written = _distinct(entry.name for _, entry in entries)
    if accept:
        return Known(there, max(0, written - held))
    wrong = _what_differs(known, found, there, written)
    if wrong:
        raise StoreChangedError(
            f"the job in {folder.path} has written {plural(written, 'row')} to {where}, but {wrong}. Put back"
            f" what was there, or go on with --redo (forget what was recorded as written and do all of it again, into"
            " the store as it is now), or with --accept-store (go on with this store as it is)"
        )
    return Known(there, known.missing)


def _what_differs(known: Known, found: Found | None, there: str, written: int) -> str:
    due = written - known.missing
    if found is None:
        return "it is not there any more" if due > 0 else ""
    if known.id not in {"", there}:
        return f"what is there now is another one, with {plural(found.rows, 'row')}"
    if found.rows >= due:
        return ""
    accepted = f" ({count(known.missing)} were accepted as missing)" if known.missing else ""
    return f"it holds {count(found.rows)} now{accepted}"


def _distinct(names: Iterable[str]) -> int:
    """How many different names there are, in 8 bytes each."""
    digests = (
        int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()) for name in names
    )
    return len(np.unique(np.fromiter(digests, np.uint64)))
