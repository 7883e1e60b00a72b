"""How far a job is, for anybody who asks: without the lock, also while its owner writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import JournalDiskError
from .card import read_card
from .disk import Disk, reading
from .layout import Layout, numbers
from .loading import load
from .lock import Owner, owner_of
from .reading import Event
from .states import Counts

_TRIES: Final = 10


@dataclass(frozen=True, slots=True)
class Status:
    """A job as it was when it was asked.

    Attributes:
        path: its folder.
        job: its id.
        created: UTC, ISO 8601.
        fingerprints: by name.
        settings: as they are shown.
        listed: whether the source has been listed.
        counts: how many entries came to what; all 0 before the source is listed.
        events: what was noted, oldest first.
        owner: who runs it now; None: nobody.
    """

    path: str
    job: str
    created: str
    fingerprints: Mapping[str, str]
    settings: Mapping[str, Any]
    listed: bool
    counts: Counts
    events: Sequence[Event]
    owner: Owner | None

    @property
    def finished(self) -> bool:
        """Whether nothing remains."""
        return self.listed and not self.counts.remaining


def read_status(path: str | os.PathLike[str], disk: Disk | None = None) -> Status:
    """How far a job is. Writes nothing. A record that is being written just now may be missing.

    Raises:
        JournalDiskError: there is no job, or it cannot be read.
        JournalDamagedError: a file is not what was written.
        JournalVersionError: another version of penstock wrote it.
    """
    disk = disk or Disk()
    layout = Layout(str(Path(path).absolute()))
    for attempt in range(_TRIES):
        try:
            return _read(disk, layout, attempt)
        except JournalDiskError as error:
            # its owner may have replaced a file between our look at the names and at the file, or during the former
            if not isinstance(error.__cause__, FileNotFoundError) or attempt == _TRIES - 1:
                raise
    raise AssertionError


def _read(disk: Disk, layout: Layout, attempt: int) -> Status:
    with reading(layout.folder):
        card = read_card(disk, layout.card)
        names = disk.names(layout.folder)
        found = numbers("journal", names)
        if not found and (numbers("snapshot", names) or attempt < _TRIES - 1):
            # a name that is added and one that is removed while names are read may both be missed
            raise FileNotFoundError(errno.ENOENT, "there is no journal", layout.folder)
    counts, events, listed = Counts(0, 0, 0, 0, 0), tuple[Event, ...](), False
    if found:
        loaded = load(disk, layout, found[-1], card.job)
        loaded.close(disk)
        counts, events, listed = loaded.states.counts, loaded.events, loaded.snapshot is not None
    owner = owner_of(disk, layout.lock)
    return Status(
        layout.folder, card.job, card.created, card.fingerprints, card.settings, listed, counts, events, owner
    )
