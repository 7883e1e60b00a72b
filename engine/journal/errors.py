"""What can be wrong with the books of a job."""

from __future__ import annotations

from ...errors import PenstockError


class JournalError(PenstockError):
    """The books of a job cannot be kept or read."""


class JournalDiskError(JournalError, OSError):
    """The disk refused (``errno`` says why). What was recorded before stays; the job can be resumed."""


class JournalDamagedError(JournalError):
    """A file of the job is not what was written: damaged, missing, or of another job."""


class JournalVersionError(JournalError):
    """The job folder was written by another version of penstock, in a format that this one does not know."""


class JobLockedError(JournalError):
    """Another live process writes this job; the message says which."""


class SourceOrderError(JournalError):
    """Two listings differ and are not in the order of a walk: they cannot be compared."""
