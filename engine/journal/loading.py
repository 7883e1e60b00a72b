"""From the files of a job to what they say: for the one writer, and for anybody who asks."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ...errors import AccountingError, JournalDamagedError
from .disk import Disk, reading, shut
from .layout import Layout
from .reading import Event, Head, Reader, damaged, open_journal
from .snapshot import Snapshot
from .states import States


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a journal says. The receiver owns the descriptor and the snapshot.

    Attributes:
        number: of the journal.
        fd: its file.
        head: its head.
        format: that it was begun in.
        end: where its last whole block ends.
        torn: bytes after that.
        events: all of them.
        states: what became of each ordinal.
        snapshot: what the ordinals count; None: there is none yet.
    """

    number: int
    fd: int
    head: Head
    format: int
    end: int
    torn: int
    events: tuple[Event, ...]
    states: States
    snapshot: Snapshot | None

    def close(self, disk: Disk) -> None:
        """Close the files."""
        shut(disk, self.fd)
        if self.snapshot is not None:
            self.snapshot.close()


def load(disk: Disk, layout: Layout, number: int, job: str, flags: int = os.O_RDONLY) -> Loaded:
    """Read a journal and open its snapshot.

    Raises:
        AccountingError: what it says and what its snapshot holds do not add up.
        JournalDamagedError: one of them is damaged, missing, or of another job.
        JournalVersionError: one has another format.
        JournalDiskError: one cannot be read.
    """
    path = layout.journal(number)
    with reading(path):
        fd, reader = open_journal(disk, path, flags)
        snapshot = None
        try:
            if reader.head.job != job:
                raise JournalDamagedError(f"{path}: belongs to job {reader.head.job}, the folder to job {job}")
            snapshot = _snapshot(disk, layout, reader.head)
            states = States.undone(0 if snapshot is None else len(snapshot))
            events = _replay(reader, states, path)
            _check_listing(events, snapshot, path)
            return Loaded(number, fd, reader.head, reader.format, reader.end, reader.torn, events, states, snapshot)
        except BaseException:
            shut(disk, fd)
            if snapshot is not None:
                snapshot.close()
            raise


def _snapshot(disk: Disk, layout: Layout, head: Head) -> Snapshot | None:
    return Snapshot(disk, layout.snapshot(head.snapshot)) if head.snapshot else None


def _check_listing(events: tuple[Event, ...], snapshot: Snapshot | None, path: str) -> None:
    """The journal has recorded how long its listing is: another one in its place is not counted with."""
    listings = [event for event in events if event["event"] in ("listed", "renewed")]
    if snapshot is None or not listings:
        return
    last = listings[-1]
    counted = last["entries"] if last["event"] == "listed" else last["same"] + last["new"] + last["changed"]
    if counted != len(snapshot):
        raise AccountingError(
            f"{path}: was written for a listing of {counted} entries, {snapshot.path} has {len(snapshot)}: "
            "restore both from one backup, or start a new job folder"
        )


def _replay(reader: Reader, states: States, path: str) -> tuple[Event, ...]:
    events: list[Event] = []
    for piece in reader.pieces():
        if not states.load(piece.records):
            raise damaged(path, reader.end)
        events += piece.events
    states.recount()
    return tuple(events)
