"""The journal, its snapshot and what they say, as one thing that changes from one whole state to the next."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...errors import JournalDamagedError, JournalDiskError, JournalError
from .blocks import FORMAT
from .disk import Disk, reading, writing
from .entries import Entry
from .layout import Layout, numbers
from .loading import load
from .log import Log, of_event, of_records
from .reading import Event, Head
from .snapshot import Snapshot, write_snapshot
from .sorting import in_order
from .states import Ordinals, Outcome, States

logger = logging.getLogger("penstock.journal")

_COMPACT_BYTES: Final = 1 << 20
_COMPACT_RATIO: Final = 4
"""A journal above that size, and so many times larger than what it says, is replaced when it is opened."""


class Ledger:
    """What lies in a job folder but for its manifest and lock. The caller holds the lock.

    Threads may share it: records and events are exclusive for microseconds; a sync runs beside them.

    Args:
        disk: where it lies.
        layout: its paths.
        job: id of the job.

    Attributes:
        snapshot: what the source held; None: not listed yet.
        states: what became of each ordinal.

    Raises:
        JournalError: see ``JobFolder``.
    """

    def __init__(self, disk: Disk, layout: Layout, job: str) -> None:
        self._disk, self._layout, self._job = disk, layout, job
        self.maintenance = threading.RLock()  # through syncs and switches; taken before the other
        self.mutex = threading.RLock()  # for one record
        self.snapshot: Snapshot | None = None
        self.states = States.undone(0)
        self._events: list[Event] = []
        self._number = self._listed = 0
        self._format = FORMAT
        self._log: Log | None = None
        self._settled = True
        try:
            self._open()
        except BaseException:
            self.abandon()
            raise

    @property
    def events(self) -> Sequence[Event]:
        """What was recorded beside outcomes, oldest first."""
        return tuple(self._events)

    def record(self, outcome: Outcome, ordinals: Ordinals) -> None:
        """Append an outcome, then believe it."""
        with self.mutex:
            self._append(self.states.records(outcome, ordinals))

    def acknowledge(self, sink: int, ordinals: Ordinals) -> None:
        """Append that one of several sinks has acknowledged the rows of these, then believe it."""
        if self._format < FORMAT:  # those who know that format only must not read it
            self.compact()
        with self.mutex:
            self._append(self.states.acknowledgements(sink, ordinals))

    def _append(self, records: NDArray[np.void]) -> None:
        """Mutex held."""
        if len(records):
            self._open_log().append(of_records(records))
            self.states.apply(records)

    def add_event(self, event: Event) -> None:
        """Append an event."""
        with self.mutex:
            self._open_log().append(of_event(event))
            self._events.append(event)

    def sync(self) -> None:
        """Make all that was appended before durable. After a failed sync, all goes into a new file."""
        with self.maintenance:
            log = self._open_log()
            if not log.trusted:
                self.compact()
                return
            self.settle()
            log.sync()

    def compact(self) -> None:
        """Replace the journal by the shortest that says the same."""
        with self.maintenance, self.mutex:
            self._open_log()
            self.states.check()
            self._switch(self._listed, self.snapshot, self.states, self._events)

    def list_source(self, entries: Iterable[Entry]) -> Snapshot:
        """Write the next snapshot; it does not count until it is adopted."""
        path = self._layout.snapshot(self._listed + 1)
        snapshot = None
        try:
            snapshot = write_snapshot(self._disk, path, entries)
            self._sync_names()  # its name before the one of the journal that names it
        except BaseException:
            self._discard(path, snapshot)
            raise
        return snapshot

    def in_order(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The same, sorted in the job's folder; see `sorting.in_order`."""
        return in_order(self._disk, self._layout.folder, entries)

    def adopt(self, snapshot: Snapshot, states: States, event: Event) -> None:
        """From now on this snapshot counts, with these outcomes; a file that says both decides it."""
        try:
            with self.mutex:
                self._switch(self._listed + 1, snapshot, states, [*self._events, event])
        except BaseException:
            if self.snapshot is not snapshot:
                self._discard(snapshot.path, snapshot)
            raise

    def settle(self) -> None:
        """Make names durable that are not, then remove what they have replaced."""
        if self._settled:
            return
        self._sync_names()
        self._settled = True
        self._sweep()

    def abandon(self) -> None:
        """Close all files as they are. Idempotent."""
        log, self._log = self._log, None
        if log is not None:
            log.close()
        if self.snapshot is not None:
            self.snapshot.close()

    def _open(self) -> None:
        with reading(self._layout.folder):
            names = self._disk.names(self._layout.folder)
        found = numbers("journal", names)
        if not found:
            if numbers("snapshot", names):
                raise JournalDamagedError(
                    f"{self._layout.folder}: has a snapshot but no journal: what was done is not known; "
                    "restore the journal from a backup or start a new job folder"
                )
            self._switch(0, None, self.states, ())
            return
        self._load(found[-1])
        self._sweep()
        self._shorten()

    def _load(self, number: int) -> None:
        loaded = load(self._disk, self._layout, number, self._job, os.O_RDWR)
        path = self._layout.journal(number)
        log = self._log = Log(self._disk, path, loaded.fd, loaded.end, clean=not loaded.torn)
        self.snapshot, self.states = loaded.snapshot, loaded.states
        self._events, self._number, self._listed = [*loaded.events], number, loaded.head.snapshot
        self._format = loaded.format
        if loaded.torn:
            logger.warning("%s: its last write was cut off; %d bytes are left out", path, loaded.torn)
            log.mend()
        log.sync()

    def _shorten(self) -> None:
        size = self._open_log().size
        if size < _COMPACT_BYTES or size < _COMPACT_RATIO * sum(runs.nbytes for runs in self.states.runs()):
            return
        try:
            self.compact()
        except JournalDiskError as error:
            logger.warning("the journal stays as long as it is: %s", error)

    def _switch(self, listed: int, snapshot: Snapshot | None, states: States, events: Sequence[Event]) -> None:
        """The one way from one state to the next: a complete new journal gets its name."""
        number = self._number + 1
        head = Head(self._job, listed)
        log = Log.create(self._disk, self._layout.journal(number), head, events, states.runs())
        # It has its name, so it counts: nothing may fail before it is what is appended to.
        old_log, old_snapshot = self._log, self.snapshot
        self._log, self.snapshot, self.states = log, snapshot, states
        self._events, self._number, self._listed = [*events], number, listed
        self._format = FORMAT
        self._settled = False
        if old_log is not None:
            old_log.close()
        if old_snapshot is not None and old_snapshot is not snapshot:
            old_snapshot.close()
        self.settle()

    def _open_log(self) -> Log:
        if self._log is None:
            raise JournalError(f"{self._layout.folder}: the job folder is closed")
        return self._log

    def _sync_names(self) -> None:
        with writing(self._layout.folder):
            self._disk.sync_folder(self._layout.folder)

    def _discard(self, path: str, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            snapshot.close()
        with suppress(OSError):
            self._disk.unlink(path)

    def _sweep(self) -> None:
        """What stays behind here is removed by the next owner."""
        with suppress(OSError):
            names = self._disk.names(self._layout.folder)
            for path in self._layout.leftovers(names, self._number, self._listed):
                self._disk.unlink(path)


def event_of(name: str, **fields: Any) -> Event:
    """An event: its name, the time, and JSON values."""
    return {"event": name, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
