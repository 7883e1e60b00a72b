"""The books of a job: a folder that knows what became of every entry of its source, through any crash."""

from ...errors import (
    JobLockedError,
    JournalDamagedError,
    JournalDiskError,
    JournalError,
    JournalVersionError,
    SourceOrderError,
)
from .disk import Disk
from .entries import Entry, Kind
from .folder import JobFolder
from .listing_diff import ListingDiff
from .lock import Owner, held_by_orphan
from .manifest import Difference, JobManifest
from .reading import Event
from .snapshot import Snapshot
from .states import Counts, Ordinals, Outcome, States
from .status import Status, job_id, read_status

__all__ = [
    "Counts",
    "Difference",
    "Disk",
    "Entry",
    "Event",
    "JobFolder",
    "JobLockedError",
    "JobManifest",
    "JournalDamagedError",
    "JournalDiskError",
    "JournalError",
    "JournalVersionError",
    "Kind",
    "ListingDiff",
    "Ordinals",
    "Outcome",
    "Owner",
    "Snapshot",
    "SourceOrderError",
    "States",
    "Status",
    "held_by_orphan",
    "job_id",
    "read_status",
]
