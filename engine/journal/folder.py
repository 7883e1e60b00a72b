"""A job folder: what became of every entry of a fixed, ordered source, through any crash."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...errors import JournalDamagedError, JournalError
from .disk import Disk, reading, writing
from .entries import Entry
from .layout import Layout, is_begun, is_ours
from .ledger import Ledger, event_of
from .listing_diff import GIVEN, SORTED, WALK, ListingDiff, common_order
from .lock import Lock
from .manifest import Difference, JobManifest, read_manifest, write_manifest
from .reading import Event
from .relisting import Relisting
from .snapshot import Snapshot
from .states import Counts, Ordinals, Outcome, States


class JobFolder:
    """The books of one job, in a folder. One live owner; its threads may share it. Use as a context manager.

    What was recorded is in the page cache when a method returns, so no death of the process loses it; after `sync` it
    is on the medium. The owner calls `sync` about once a second, from a thread that may wait for the disk.

    Raises:
        AccountingError: the journal and the listing do not add up.
        JobLockedError: a live process runs this job.
        JournalDamagedError: a file is not what was written, or the folder holds something else.
        JournalVersionError: another version of penstock wrote it.
        JournalDiskError: the disk refused.
    """

    def __init__(self, path: str | os.PathLike[str], disk: Disk | None = None) -> None:
        self._disk = disk or Disk()
        self._layout = Layout(str(Path(path).absolute()))
        with writing(self.path):
            self._disk.make_folder(self.path)
        self._check_place()
        self._closed = False
        self._lock = Lock(self._disk, self._layout.lock)
        try:
            self._manifest = self._open_manifest()
            self._ledger = Ledger(self._disk, self._layout, self._manifest.job)
        except BaseException:
            self._lock.close()
            raise

    @classmethod
    def create_or_open(cls, path: str | os.PathLike[str], disk: Disk | None = None) -> Self:
        """The job in a folder; a new one where there is none. See the class for what it raises."""
        return cls(path, disk)

    # -- what the job is --

    @property
    def path(self) -> str:
        """The folder, absolute."""
        return self._layout.folder

    @property
    def manifest(self) -> JobManifest:
        """Id, time of creation, fingerprints and settings."""
        return self._manifest

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """What may not change between runs; empty for a new job."""
        return self._manifest.fingerprints

    def check(self, fingerprints: Mapping[str, str]) -> list[Difference]:
        """What differs from the recorded fingerprints; nothing if none were recorded yet."""
        return self._manifest.differences(fingerprints)

    def accept(self, fingerprints: Mapping[str, str], settings: Mapping[str, Any] | None = None) -> None:
        """Record these from now on. Changes are recorded as an event.

        Args:
            fingerprints: by name.
            settings: shown to people, JSON values without secrets; None: as they were.

        Raises:
            JournalDiskError: the disk refused.
        """
        changes = self.check(fingerprints)
        shown = self._manifest.settings if settings is None else settings
        with self._ledger.maintenance:
            self._write_manifest(replace(self._manifest, fingerprints=dict(fingerprints), settings=dict(shown)))
        if changes:
            self.add_event("accepted", changes=[asdict(change) for change in changes])

    @property
    def events(self) -> Sequence[Event]:
        """What was recorded beside outcomes, oldest first."""
        return self._ledger.events

    def add_event(self, event: str, **fields: Any) -> None:
        """Record an event: its name, the time, and JSON values.

        Raises:
            ConfigError: over 1 MiB.
            JournalDiskError: the disk refused.
        """
        self._ledger.add_event(event_of(event, **fields))

    # -- the source --

    @property
    def has_snapshot(self) -> bool:
        """Whether the source has been listed."""
        return self._ledger.snapshot is not None

    @property
    def snapshot(self) -> Snapshot:
        """What the source held; valid until the folder is closed or the snapshot renewed.

        Raises:
            JournalError: there is none yet.
        """
        if self._ledger.snapshot is None:
            raise JournalError(f"{self.path}: the source is not listed yet")
        return self._ledger.snapshot

    @property
    def order(self) -> str:
        """The order that the listing promises; see `listing_diff`."""
        listings = [event for event in self.events if event["event"] in ("listed", "renewed")]
        return str(listings[-1].get("order", WALK)) if listings else WALK

    def write_snapshot(
        self, entries: Iterable[Entry], order: str | Callable[[], str] = WALK, *, sortable: bool = False
    ) -> None:
        """List the source, once. A run that dies in the middle leaves no snapshot.

        Args:
            entries: of the source.
            order: in which they come; see `listing_diff`. A function is asked once all have come.
            sortable: nobody minds in which order they are kept: if they came in none, they are sorted.

        Raises:
            JournalError: there is one.
            JournalDiskError: the disk refused; there is none then.
        """
        if self.has_snapshot:
            raise JournalError(f"{self.path}: the source is listed already; renew_snapshot takes its changes over")
        with self._ledger.maintenance:
            snapshot = self._ledger.list_source(entries)
            found = order() if callable(order) else order
            if sortable and found == GIVEN:  # else it could be compared with no later one
                with closing(snapshot) as listed:
                    snapshot = self._ledger.list_source(self._ledger.in_order(listed))
                found = SORTED
            event = event_of("listed", entries=len(snapshot), **_order_field(found))
            self._ledger.adopt(snapshot, States.undone(len(snapshot)), event)

    def renew_snapshot(
        self, entries: Iterable[Entry], order: str | Callable[[], str] = WALK, *, sortable: bool = False
    ) -> ListingDiff:
        """List the source again: what is the same keeps its outcome, what is new or changed is undone.

        What is gone is forgotten; ordinals change. Nothing else may be recorded meanwhile.

        Args:
            entries: of the source, as it is now.
            order: in which they come. Where it is a function, they are compared in that of the old listing, if they
                are in it.
            sortable: see `write_snapshot`. Where the old listing was sorted this one is, too.

        Raises:
            JournalError: there is none to renew.
            SourceOrderError: the two cannot be compared; the old one stays.
            JournalDiskError: the disk refused.
        """
        with self._ledger.maintenance:
            common = self.order if callable(order) else common_order(self.order, order)
            is_sorted = sortable and self.order == SORTED
            if is_sorted:
                entries = self._ledger.in_order(entries)
            relisting = Relisting(self.snapshot, self.states, common)
            snapshot = self._ledger.list_source(relisting.entries(entries))
            found = SORTED if is_sorted else order() if callable(order) else order
            fields = {**asdict(relisting.changes), "written": self.counts.written, **_order_field(found)}
            event = event_of("renewed", **fields)
            self._ledger.adopt(snapshot, relisting.states(), event)
        return relisting.changes

    # -- outcomes --

    @property
    def states(self) -> States:
        """The outcome of each ordinal. To be read only."""
        return self._ledger.states

    @property
    def counts(self) -> Counts:
        """How many entries came to what."""
        return self._ledger.states.counts

    @property
    def finished(self) -> bool:
        """Whether the source is listed and nothing of it remains."""
        return self.has_snapshot and not self.counts.remaining

    def remaining(self) -> Iterator[range]:
        """Ranges of ordinals that are not done, in order; lazily, so what is done meanwhile ahead of it is left out."""
        return self._ledger.states.ranges(Outcome.UNDONE)

    def entries(self, outcome: Outcome) -> Iterator[tuple[int, Entry]]:
        """The entries that came to this, with their ordinals, in order; as lazily as `remaining`."""
        if not self.has_snapshot:
            return iter(())
        return self.snapshot.numbered(self._ledger.states.ranges(outcome))

    def written(self, ordinals: Ordinals) -> None:
        """Every sink has acknowledged the rows of these.

        Raises:
            AccountingError: there are no such ordinals.
            JournalDiskError: the disk refused; nothing of this call is recorded then.
        """
        self._ledger.record(Outcome.WRITTEN, ordinals)

    def acknowledged(self, sink: int, ordinals: Ordinals) -> None:
        """One of several sinks has acknowledged the rows of these; `written` follows when all have.

        Raises as `written` does. Of ordinals that are done nothing is recorded.
        """
        self._ledger.acknowledge(sink, ordinals)

    def acknowledged_entries(self, sink: int) -> Iterator[tuple[int, Entry]]:
        """The entries that are not done and whose rows this sink has acknowledged, with their ordinals, in order."""
        return self.snapshot.numbered(self._ledger.states.acknowledged(sink)) if self.has_snapshot else iter(())

    def filtered(self, ordinals: Ordinals) -> None:
        """These were left out on purpose. Raises as `written` does."""
        self._ledger.record(Outcome.FILTERED, ordinals)

    def dead(self, ordinals: Ordinals) -> None:
        """The dead letters of these are written. Raises as `written` does."""
        self._ledger.record(Outcome.DEAD, ordinals)

    def undo(self, ordinals: Ordinals) -> None:
        """These are to be done again. Raises as `written` does."""
        self._ledger.record(Outcome.UNDONE, ordinals)

    # -- keeping it --

    def sync(self) -> None:
        """Back only when all that was recorded before is on the medium. Records may be added meanwhile.

        Raises:
            JournalDiskError: the disk refused. Call it again: then all is written into a new file.
        """
        self._ledger.sync()

    def compact(self) -> None:
        """Replace the journal by the shortest that says the same. Opening does so where it is worth it.

        Raises:
            JournalDiskError: the disk refused; the old one goes on, or the new one is in place.
        """
        self._ledger.compact()

    def close(self) -> None:
        """Sync and close. Idempotent.

        Raises:
            JournalDiskError: the disk refused the sync; all is closed nevertheless.
        """
        with self._ledger.maintenance:
            if self._closed:
                return
            self._closed = True
            try:
                self._ledger.sync()
            finally:
                self._ledger.abandon()
                self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _check_place(self) -> None:
        """A folder that holds anything else is not taken over: a slip of --job must not put files among photographs."""
        with reading(self.path):
            names = self._disk.names(self.path)
        foreign = sorted(name for name in names if not is_ours(name))
        if foreign and not is_begun(names):
            raise JournalDamagedError(
                f"{self.path}: is no job folder and not empty (it holds {foreign[0]!r}); give a new or empty folder"
            )

    def _open_manifest(self) -> JobManifest:
        with reading(self.path):
            if is_begun(self._disk.names(self.path)):
                return read_manifest(self._disk, self._layout.manifest)
        manifest = JobManifest()
        write_manifest(self._disk, self._layout.manifest, manifest)
        self._sync_names()
        return manifest

    def _write_manifest(self, manifest: JobManifest) -> None:
        write_manifest(self._disk, self._layout.manifest, manifest)
        self._manifest = manifest
        self._sync_names()

    def _sync_names(self) -> None:
        with writing(self.path):
            self._disk.sync_folder(self.path)


def _order_field(order: str) -> dict[str, str]:
    """What an event says of a listing's order: nothing of the usual one, which format 1 began with."""
    return {} if order == WALK else {"order": order}
