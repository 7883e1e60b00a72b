"""Every error penstock raises, and nothing else.

::

    PenstockError
    |-- ConfigError (ValueError)            what the user asked for cannot be: says the field and the way out
    |-- SourceError (OSError)               a source cannot be listed or read as a whole
    |-- ItemError                           one item cannot be done; it becomes a dead letter, the job goes on
    |   |-- ReadError (OSError)             its bytes cannot be read
    |   |   `-- DownloadError               it cannot be fetched from where it lies: says what was answered
    |   |-- HostStoppedError                its host refuses one request after the other, so it was not asked for it
    |   |-- DecodeError (ValueError)        its bytes are not a picture, or video, we can use
    |   |   |-- UnreadableError             no decoder knows it (empty file, HTML page under a .jpg name)
    |   |   |-- TruncatedError              it ends too early
    |   |   |-- UnsupportedFormatError      a format that is not on the allow-list
    |   |   |-- TooLargeError               its header promises more pixels than the limit
    |   |   `-- VideoError                  a file that is no video, or one that is damaged by more than half
    |   |-- EmbedError                      the embedder refused it
    |   |-- DetectError                     the detector's answer is none
    |   |-- ChildrenFailedError             too many of the values that it was made into failed
    |   |-- DeadlineError (TimeoutError)    it took longer than an item may
    |   |-- PoisonItemError (RuntimeError)  it killed every worker that tried it
    |   `-- RowRefusedError (ValueError)    the sink refused its row
    |-- EmbedderError (RuntimeError)        the embedder cannot work at all
    |-- DetectorError (RuntimeError)        the detector cannot work at all
    |-- SinkError                           the sink cannot work at all
    |   |-- SinkUnavailableError (ConnectionError)   not reachable, after retries
    |   |-- CollectionMismatchError (ValueError)     what exists there does not fit this job
    |   |-- PublishConflictError        another job has published there, or is about to
    |   `-- StoreChangedError           it does not hold what the job's books say it does
    |-- ObjectStoreError (OSError)          an object store refuses a request, or cannot be used
    |   |-- ObjectStoreUnavailableError (ConnectionError)   it does not answer, or is busy, after retries
    |   |-- ObjectNotFoundError (FileNotFoundError)         there is no such object, or bucket
    |   |-- ObjectDeniedError (PermissionError)             these credentials may not do that
    |   |-- ObjectChangedError              the object is not the one that was meant
    |   |-- ObjectExistsError (FileExistsError)             it was to be new, and is there
    |   `-- ObjectNameError (ValueError)    a key that the client cannot name
    |-- SharedMemoryError (OSError)
    |   |-- SharedMemoryFullError           /dev/shm has no room: says needed, free and what to set
    |   `-- StaleSlotError                  a slot was written by somebody who no longer owns it
    |-- WorkerError (RuntimeError)
    |   |-- WorkerStartError                a worker process cannot start
    |   `-- WorkerDiedError                 a worker process died: says its pid and how
    |-- JournalError                        the books of a job cannot be kept or read
    |   |-- JournalDiskError (OSError)      the disk refused; what was recorded before stays
    |   |-- JournalDamagedError             a file of the job is not what was written
    |   |-- JournalVersionError             another version of penstock wrote it
    |   |-- JobLockedError                  another live process runs this job
    |   `-- SourceOrderError                two listings of a source cannot be compared
    |-- ServerError (RuntimeError)          a server that penstock itself starts did not
    |   `-- ServerUnavailableError          this machine cannot run it at all
    `-- AccountingError (RuntimeError)      items are missing in the books; never expected

    PipelineFailure (ExceptionGroup)        why a pipeline stopped; each member is noted with its stage
    `-- FailureBudgetError                  more items failed than allowed: says the stage, how many, and the first

Leaves also inherit the built-in that a caller would catch anyway. An ``ItemError`` says something about one item, all
others about the job.
"""

from __future__ import annotations

from typing import Any, Self


class PenstockError(Exception):
    """Root of every error of penstock."""


class ConfigError(PenstockError, ValueError):
    """A wrong setting. The message names the field and what it may be."""


class SourceError(PenstockError, OSError):
    """A source cannot be listed or read as a whole."""


class ItemError(PenstockError):
    """One item cannot be done. It is recorded as a dead letter and the job goes on.

    Attributes:
        sha256: of its bytes, where they could be read; None elsewhere.
        retry_after: seconds before which it is not to be tried again, where somebody said so (an answer 429 or 503).
    """

    sha256: str | None = None
    retry_after: float | None = None


class ReadError(ItemError, OSError):
    """The bytes of an item cannot be read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {**self.__dict__, "errno": self.errno}  # an OSError's own forgets it


class DownloadError(ReadError):
    """An item cannot be fetched from where it lies. Its `errno` says whether it may come another time.

    Attributes:
        status: of the answer of HTTP; None where there was none.
        is_refusal: whether the host said that it does not want to be asked (429, 403, "sign in to confirm").
    """

    status: int | None = None
    is_refusal: bool = False


class HostStoppedError(ItemError):
    """The item's host refuses one request after the other: it is not asked any more in this run.

    Nothing is known about the item itself. It is no dead letter: it stays undone, and a later run asks again.
    """


class DecodeError(ItemError, ValueError):
    """The bytes of an item are not a picture, or a video, we can use."""


class UnreadableError(DecodeError):
    """No decoder knows these bytes."""


class TruncatedError(DecodeError):
    """The picture ends too early."""


class UnsupportedFormatError(DecodeError):
    """The picture's format is not on the allow-list."""


class TooLargeError(DecodeError):
    """The picture's header promises more pixels than the limit."""


class VideoError(DecodeError):
    """A file is no video that can be read, has no frames, or is damaged by more than half."""


class EmbedError(ItemError):
    """The embedder refused this item."""


class DetectError(ItemError):
    """The detector looked at this item, and its answer is none."""


class ChildrenFailedError(ItemError):
    """Too many of the children that a fan-out made of this item failed. The cause is the error of the first."""


class DeadlineError(ItemError, TimeoutError):
    """The item took longer than an item may take."""


class PoisonItemError(ItemError, RuntimeError):
    """The item killed every worker that tried it."""


class RowRefusedError(ItemError, ValueError):
    """The sink refused this row."""


class EmbedderError(PenstockError, RuntimeError):
    """The embedder cannot work at all."""


class DetectorError(PenstockError, RuntimeError):
    """The detector cannot work at all."""


class SinkError(PenstockError):
    """The sink cannot work at all."""


class SinkUnavailableError(SinkError, ConnectionError):
    """The sink is not reachable, after retries."""


class CollectionMismatchError(SinkError, ValueError):
    """What exists in the sink does not fit this job."""


class PublishConflictError(SinkError):
    """Another job has published a data set in the same place, or is about to. Nothing of either was touched."""


class StoreChangedError(SinkError):
    """The sink does not hold the rows that a job has written to it. The message says what differs and how to go on."""


class ObjectStoreError(PenstockError, OSError):
    """An object store refuses a request, or cannot be used. The message names the object, and no secret."""


class ObjectStoreUnavailableError(ObjectStoreError, ConnectionError):
    """The store does not answer, or is busy, after all attempts. It may be there again later."""


class ObjectNotFoundError(ObjectStoreError, FileNotFoundError):
    """There is no such object, or no such bucket."""


class ObjectDeniedError(ObjectStoreError, PermissionError):
    """The credentials are wrong, or may not do that."""


class ObjectChangedError(ObjectStoreError):
    """The object is not the one that was meant: it has been replaced since."""


class ObjectExistsError(ObjectStoreError, FileExistsError):
    """The object was to be new, and one is there."""


class ObjectNameError(ObjectStoreError, ValueError):
    """A key that the client library cannot name: with an empty part, ``..``, or a control character."""


class SharedMemoryError(PenstockError, OSError):
    """Shared memory cannot be had or trusted."""


class SharedMemoryFullError(SharedMemoryError):
    """Shared memory has no room for the rings."""


class StaleSlotError(SharedMemoryError):
    """A slot holds what somebody wrote who no longer owns it."""


class WorkerError(PenstockError, RuntimeError):
    """Something about a worker process."""


class WorkerStartError(WorkerError):
    """A worker process cannot start."""


class WorkerDiedError(WorkerError):
    """A worker process died."""


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


class ServerError(PenstockError, RuntimeError):
    """A server did not start, or not in time. The message ends with the last lines of its log."""


class ServerUnavailableError(ServerError):
    """This machine cannot run the server at all: says what is missing. Tests skip on it."""


class AccountingError(PenstockError, RuntimeError):
    """Items are missing in the books."""


class PipelineFailure(ExceptionGroup[Exception]):
    """Why a pipeline stopped. Members are Exceptions; each carries a note with the name of its stage."""

    def derive(self, excs: list[Exception]) -> Self:  # type: ignore[override]
        return type(self)(self.message, excs)


class FailureBudgetError(PipelineFailure):
    """More items failed in a stage than it may. Members are the latest errors; the message names the first items."""
