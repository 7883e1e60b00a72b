"""What flows through the graphs of a job: pictures, then pictures in a slot, then rows; and their accounting."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ....errors import ItemError, PenstockError
from ....formatting import printable
from ....preprocess import Row, Source, Timings
from ....sinks import RowBatch, Sink, WriteResult, is_fit_key, row_key
from ... import ItemFailure
from ...embedders import View

if TYPE_CHECKING:  # the first batch of a new process need not wait for it
    from ..common.checkpoint import JobCheckpoint


@dataclass(frozen=True, slots=True)
class Picture:
    """One item of a job.

    Attributes:
        key: what people know it by, in dead letters: its path, or its id.
        id: what the caller gets back for it.
        source: where its pixels come from; nothing once they lie in a slot.
        path: its path, if it has one.
        metadata: the user's, stored with its row.
        ordinal: its position in the listing of a job that keeps books, or among the inputs of a call; -1 in others.
    """

    key: str
    id: Any
    source: Source
    path: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    ordinal: int = -1

    def failure(self, error: Exception, attempts: int = 1) -> PictureFailure:
        """It could not be done."""
        return PictureFailure(self.key, error, attempts, self.ordinal, self)

    def decoded(self) -> Picture:
        """Itself without what was decoded, which may be megabytes that somebody waits to have back."""
        return self if isinstance(self.source, str) else replace(self, source=b"")

    @property
    def row_key(self) -> str:
        """The primary key of its row: the user's id where a sink can hold it, else a hash of the key."""
        own = str(self.id)
        return own if is_fit_key(own) else row_key(self.key)


@dataclass(frozen=True, slots=True)
class PictureFailure(ItemFailure):
    """One picture, or what was meant to be one, that could not be done.

    Attributes:
        ordinal: see `Picture`.
        picture: None for what never was one.
    """

    ordinal: int = -1
    picture: Picture | None = field(default=None, repr=False, compare=False)


class Letters(Protocol):
    """Where it is said what could not be done: a file of dead letters, or whoever is given the error."""

    def write(self, key: str, stage: str, error: Exception, *, attempts: int, **details: Any) -> object:
        """An item could not be done, after so many attempts."""
        ...


class Slot(Protocol):
    """A preprocessed batch, in shared memory (``workers.SlotBatch``) or in this process (``in_process.LocalSlot``)."""

    @property
    def rows(self) -> Sequence[Row]: ...
    @property
    def failures(self) -> Sequence[tuple[int, Exception]]: ...
    @property
    def timings(self) -> Timings: ...
    @property
    def view(self) -> View: ...
    def check(self) -> None: ...
    def release(self) -> None: ...


@dataclass(slots=True)
class Batch:
    """Pictures on their way to the embedder; with a slot once they are preprocessed.

    Attributes:
        is_last: whether what is done with them now is not done again.
    """

    pictures: list[Picture]
    slot: Slot | None = None
    is_last: bool = False

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def refused(self) -> Mapping[int, Exception]:
        """Those that failed have gone already."""
        return {}

    @property
    def lease(self) -> Slot:
        """The slot that it lies in."""
        assert self.slot is not None
        return self.slot

    def failure(self, row: int, error: Exception) -> PictureFailure:
        """The picture in a row of the slot could not be done."""
        return self.pictures[row].failure(error)


@dataclass(slots=True)
class Rows:
    """Pictures with their vectors, on the way to the sink. The vectors are the batch's own memory, not a slot's."""

    pictures: list[Picture]
    rows: RowBatch


@dataclass(slots=True)
class Written:
    """The ordinals of pictures whose rows the sink has acknowledged. It keeps none of them alive."""

    ordinals: list[int]


def preprocessed(batch: Batch, slot: Slot) -> tuple[Batch | None, list[ItemFailure]]:
    """The pictures that lie in the slot now, and those that could not be used."""
    failures: list[ItemFailure] = [batch.pictures[position].failure(error) for position, error in slot.failures]
    if not slot.rows:
        slot.release()
        return None, failures
    return Batch([batch.pictures[row.position].decoded() for row in slot.rows], slot), failures


def take_rows(batch: Batch, refused: Container[int] = ()) -> Rows:
    """Copy the vectors out of the slot, make rows of them (without the refused ones), and give the slot back.

    They are copied (64 KiB per batch, microseconds) because a slot that waited for the sink would keep the embedder
    waiting: its pixels are 75 to 300 times as much.

    Raises:
        StaleSlotError: the slot was written by somebody else meanwhile.
    """
    slot = batch.slot
    assert slot is not None
    kept = [row for row in range(len(batch.pictures)) if row not in refused]
    vectors = np.array(slot.view.embeddings[kept], np.float32, order="C")
    slot.check()
    pictures = [batch.pictures[row] for row in kept]
    columns = [_columns(batch.pictures[row], slot.rows[row]) for row in kept]
    slot.release()
    keys, ordinals = [picture.row_key for picture in pictures], [picture.ordinal for picture in pictures]
    return Rows(pictures, RowBatch(keys, vectors, columns, ordinals))


def _columns(picture: Picture, row: Row) -> dict[str, Any]:
    own: dict[str, Any] = {"width": row.width, "height": row.height}
    if picture.path is not None:
        own["path"] = picture.path
    return {**picture.metadata, **own}


class JobValues:
    """The engine's view of a job's values: each counts as its pictures, and every failure is a dead letter.

    Args:
        dead: where the letters go.
        checkpoint: told of each, after its letter; None for a job that cannot be resumed.
        on_failure: told the stage and each, too.
    """

    def __init__(
        self,
        dead: Letters,
        checkpoint: JobCheckpoint | None = None,
        on_failure: Callable[[str, PictureFailure], None] | None = None,
    ) -> None:
        self._dead = dead
        self._checkpoint = checkpoint
        self._on_failure = on_failure

    def write(self, sink: Sink, rows: RowBatch, pictures: Sequence[Picture]) -> WriteResult:
        """Write rows into a sink; of several sinks only those that have not acknowledged a row are asked for it."""
        checkpoint = self._checkpoint
        if checkpoint is None or len(sink.members) == 1:
            return sink.write(rows)
        ordinals = [picture.ordinal for picture in pictures]
        return sink.write_missing(
            rows,
            [checkpoint.acknowledged_by(ordinal) for ordinal in ordinals],
            lambda number, indices: checkpoint.acknowledged(number, [ordinals[index] for index in indices]),
        )

    def units(self, value: Any) -> int:
        """Pictures in a value."""
        return len(value.ordinals if isinstance(value, Written) else self._pictures(value))

    def nbytes(self, value: Any) -> int:
        """Bytes a value keeps alive besides its slot."""
        return value.rows.vectors.nbytes if isinstance(value, Rows) else 0

    def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> Callable[[], None]:
        """Who failed, to be recorded where one may wait. A failure without a key is about all pictures of the value."""
        found: list[ItemFailure] = []
        for failure in failures:
            if self._checkpoint and _is_about_the_job(failure.error):
                continue  # the next run does them again
            if failure.key:
                found.append(failure)
            else:
                found += [picture.failure(failure.error, failure.attempts) for picture in self._pictures(value)]
        return partial(self._record, stage, found)

    def _record(self, stage: str, failures: Sequence[ItemFailure]) -> None:
        for failure in failures:
            self._write(stage, failure)

    def _write(self, stage: str, failure: ItemFailure) -> None:
        earlier = self._checkpoint.attempts(failure.key) if self._checkpoint else 0
        sha256 = failure.error.sha256 if isinstance(failure.error, ItemError) else None
        known = {"sha256": sha256} if sha256 else {}
        self._dead.write(failure.key, stage, failure.error, attempts=earlier + failure.attempts, **known)
        if isinstance(failure, PictureFailure):
            if self._checkpoint:
                self._checkpoint.dead([failure.ordinal])
            if self._on_failure:
                self._on_failure(stage, failure)

    def _pictures(self, value: Any) -> list[Picture]:
        if isinstance(value, list):
            return [picture for part in value for picture in self._pictures(part)]
        return list(getattr(value, "pictures", ()))

    def discard(self, value: Any) -> None:
        """A batch that goes no further gives its slot back."""
        if isinstance(value, Batch) and value.slot is not None:
            value.slot.release()

    def part(self, value: Any, failures: Sequence[ItemFailure]) -> Batch | None:
        """The pictures that could not be read are a batch; those in a slot have given it back by then."""
        pictures = [one.picture for one in failures if isinstance(one, PictureFailure) and one.picture is not None]
        if not isinstance(value, Batch) or value.slot is not None or len(pictures) < len(failures):
            return None
        return Batch(pictures)

    def last_attempt(self, value: Any) -> None:
        """An embedder that fails of something transient finds out then which pictures are to blame."""
        if isinstance(value, Batch):
            value.is_last = True

    def describe(self, value: Any) -> str:
        """The key of its first picture, and how many more there are."""
        keys = [printable(picture.key) for picture in self._pictures(value)]
        return f"{keys[0]} and {len(keys) - 1} more" if len(keys) > 1 else "".join(keys)


def _is_about_the_job(error: Exception) -> bool:
    """An error that ends the job says nothing about the pictures it met."""
    return isinstance(error, PenstockError) and not isinstance(error, ItemError)
