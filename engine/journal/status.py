"""How far a job is, for anybody who asks: without the lock, also while its owner writes."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...errors import JournalDiskError
from .disk import Disk, reading
from .entries import Kind
from .layout import Layout, numbers
from .loading import load
from .lock import Owner, owner_of
from .manifest import read_manifest
from .reading import Event
from .snapshot import Snapshot
from .states import MOST_SINKS, Counts, Outcome, States

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
        events: what was recorded beside outcomes, oldest first.
        owner: who runs it now; None: nobody.
        acknowledged: of a job into several stores, of what remains the rows that each of them has already.
        groups: of entries, if they were asked for: how many of each came to what.
        orphan: pid of a process that a dead owner left behind and that still holds the job; 0: there is none.
        dead: names of the entries that are dead, if they were asked for.
        recorded: when the newest record was written, in seconds since 1970; None: nothing is recorded yet.
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
    dead: Sequence[str] = ()
    recorded: float | None = None
    orphan: int = 0
    acknowledged: Sequence[int] = ()
    groups: Mapping[str, Counts] = field(default_factory=dict[str, Counts])

    @property
    def finished(self) -> bool:
        """Whether nothing remains."""
        return self.listed and not self.counts.remaining


def read_status(
    path: str | os.PathLike[str],
    disk: Disk | None = None,
    *,
    dead: bool = False,
    group: Callable[[str], str] | None = None,
) -> Status:
    """How far a job is. Writes nothing. A record that is being written just now may be missing.

    Args:
        path: of its folder.
        disk: where it lies.
        dead: whether to read the names of what is dead, too.
        group: the group of an entry that was not left out, by its name. Then all names are read.

    Raises:
        JournalDiskError: there is no job, or it cannot be read.
        JournalDamagedError: a file is not what was written.
        JournalVersionError: another version of penstock wrote it.
    """
    disk = disk or Disk()
    layout = Layout(str(Path(path).absolute()))
    for attempt in range(_TRIES):
        try:
            return _read(disk, layout, attempt, dead, group)
        except JournalDiskError as error:
            # its owner may have replaced a file between our look at the names and at the file, or during the former
            if not isinstance(error.__cause__, FileNotFoundError) or attempt == _TRIES - 1:
                raise
    raise AssertionError


def job_id(path: str | os.PathLike[str]) -> str:
    """The id of a job; empty where none has begun in that folder. Reads one small file, and takes no lock.

    Raises:
        JournalDiskError: it cannot be read.
        JournalDamagedError: it is not what was written.
        JournalVersionError: another version of penstock wrote it.
    """
    manifest = Layout(str(Path(path).absolute())).manifest
    if not Path(manifest).exists():
        return ""
    with reading(str(path)):
        return read_manifest(Disk(), manifest).job


def _read(disk: Disk, layout: Layout, attempt: int, dead: bool, group: Callable[[str], str] | None) -> Status:
    with reading(layout.folder):
        manifest = read_manifest(disk, layout.manifest)
        names = disk.names(layout.folder)
        found = numbers("journal", names)
        if not found and (numbers("snapshot", names) or attempt < _TRIES - 1):
            # a name that is added and one that is removed while names are read may both be missed
            raise FileNotFoundError(errno.ENOENT, "there is no journal", layout.folder)
    counts, events, listed, names_of_dead = Counts(0, 0, 0, 0, 0), tuple[Event, ...](), False, list[str]()
    recorded, acknowledged, groups = None, list[int](), dict[str, Counts]()
    if found:
        with suppress(OSError):  # its owner may have replaced it by now
            recorded = Path(layout.journal(found[-1])).stat().st_mtime
        loaded = load(disk, layout, found[-1], manifest.job)
        try:
            if dead and loaded.snapshot is not None:
                spans = loaded.states.ranges(Outcome.DEAD)
                names_of_dead = [entry.name for _, entry in loaded.snapshot.numbered(spans)]
            if group is not None and loaded.snapshot is not None:
                groups = _grouped(loaded.snapshot, loaded.states, group)
            if next(loaded.states.acknowledged(), None) is not None:
                acknowledged = [sum(map(len, loaded.states.acknowledged(sink))) for sink in range(MOST_SINKS)]
        finally:
            loaded.close(disk)
        counts, events, listed = loaded.states.counts, loaded.events, loaded.snapshot is not None
    owner, orphan = owner_of(disk, layout.lock)
    return Status(
        layout.folder,
        manifest.job,
        manifest.created,
        manifest.fingerprints,
        manifest.settings,
        listed,
        counts,
        events,
        owner,
        names_of_dead,
        recorded,
        orphan,
        acknowledged,
        groups,
    )


def _grouped(snapshot: Snapshot, states: States, group: Callable[[str], str]) -> dict[str, Counts]:
    found: dict[str, Counter[Outcome]] = {}
    for ordinal, entry in snapshot.numbered([range(len(snapshot))]):
        if entry.kind is not Kind.FILTERED:
            found.setdefault(group(entry.name), Counter())[states[ordinal]] += 1
    return {
        name: Counts(
            each.total(), each[Outcome.WRITTEN], each[Outcome.FILTERED], each[Outcome.DEAD], each[Outcome.UNDONE]
        )
        for name, each in found.items()
    }
