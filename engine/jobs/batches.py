"""What flows through the graphs of a job: pictures, then pictures in a slot, then rows; and their books."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ...preprocess import Row, Source, Timings
from ...sinks import DeadLetters, RowBatch, is_fit_key, row_key
from .. import ItemFailure
from ..embedders import View


@dataclass(frozen=True, slots=True)
class Picture:
    """One item of a job.

    Attributes:
        key: what people know it by, in dead letters: its path, or its id.
        id: what the caller gets back for it.
        source: where its pixels come from.
        path: its path, if it has one.
        metadata: the user's, stored with its row.
    """

    key: str
    id: Any
    source: Source
    path: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def row_key(self) -> str:
        """The primary key of its row: the user's id where a sink can hold it, else a hash of the key."""
        own = str(self.id)
        return own if is_fit_key(own) else row_key(self.key)


class Slot(Protocol):
    """A preprocessed batch, in shared memory (``preprocess.SlotBatch``) or in this process (``local.LocalSlot``)."""

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
    """Pictures on their way to the embedder; with a slot once they are preprocessed."""

    pictures: list[Picture]
    slot: Slot | None = None


@dataclass(slots=True)
class Rows:
    """Pictures with their vectors, on the way to the sink. The vectors are the batch's own memory, not a slot's."""

    pictures: list[Picture]
    rows: RowBatch


@dataclass(slots=True)
class Written:
    """Pictures whose rows the sink has acknowledged."""

    pictures: list[Picture]


def preprocessed(batch: Batch, slot: Slot) -> tuple[Batch | None, list[ItemFailure]]:
    """The pictures that lie in the slot now, and those that could not be used."""
    failures = [ItemFailure(batch.pictures[position].key, error) for position, error in slot.failures]
    if not slot.rows:
        slot.release()
        return None, failures
    return Batch([batch.pictures[row.position] for row in slot.rows], slot), failures


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
    return Rows(pictures, RowBatch([picture.row_key for picture in pictures], vectors, columns))


def _columns(picture: Picture, row: Row) -> dict[str, Any]:
    own: dict[str, Any] = {"width": row.width, "height": row.height}
    if picture.path is not None:
        own["path"] = picture.path
    return {**picture.metadata, **own}


class JobValues:
    """The engine's view of a job's values: each counts as its pictures, and every failure is a dead letter."""

    def __init__(self, dead: DeadLetters) -> None:
        self._dead = dead

    def units(self, value: Any) -> int:
        """Pictures in a value."""
        return len(self._pictures(value))

    def nbytes(self, value: Any) -> int:
        """Bytes a value keeps alive besides its slot."""
        return value.rows.vectors.nbytes if isinstance(value, Rows) else 0

    def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> None:
        """Record what failed. A failure without a key is about all pictures of the value."""
        pictures = self._pictures(value)
        for failure in failures:
            keys = [failure.key] if failure.key else [picture.key for picture in pictures]
            for key in keys:
                self._dead.write(key, stage, failure.error, attempts=failure.attempts)

    def _pictures(self, value: Any) -> list[Picture]:
        if isinstance(value, list):
            return [picture for part in value for picture in self._pictures(part)]
        return list(getattr(value, "pictures", ()))

    def discard(self, value: Any) -> None:
        """A batch that goes no further gives its slot back."""
        if isinstance(value, Batch) and value.slot is not None:
            value.slot.release()
