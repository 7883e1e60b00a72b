"""The contract of a sink: a place where rows go, idempotent by key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from .rows import RowBatch, WriteResult


@dataclass(frozen=True, slots=True)
class Found:
    """What is in the place of a sink already."""

    rows: int
    """Exact, and including every acknowledged write."""

    note: str
    """What its first writer said of it, see `Sink.note`; empty where nothing was said."""


@dataclass(frozen=True, slots=True)
class SinkMemory:
    """Memory that a sink takes on this machine, besides rows that are on their way to it."""

    name: str
    """Of what takes it, for people: ``Milvus Lite``."""

    nbytes: int

    own_process: bool = False
    """Whether a process of the sink's own has it, and not the caller's."""


@dataclass(frozen=True, slots=True)
class IndexState:
    """How far the index of a sink is."""

    rows: int
    """Rows it knows of; on a server that includes rows written over and not yet compacted away."""
    indexed: int
    """Of these, how many the index covers."""
    seconds: float = 0.0
    """How long was waited for it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search."""

    key: str
    score: float
    """COSINE and IP: larger is nearer. L2: smaller is nearer."""
    path: str | None
    width: int | None
    height: int | None
    metadata: dict[str, Any]


class Searchable(Protocol):
    """A sink that finds its rows again."""

    def get(self, keys: Sequence[str], *, vectors: bool = False) -> dict[str, dict[str, Any]]:
        """The rows with these keys, as column dicts by key; with `vectors` also the column ``vector``, float32 [D]."""
        ...

    def search(self, vector: NDArray[np.float32], k: int = 10) -> list[Hit]:
        """The nearest rows, at most `k`, nearest first, including every acknowledged write. `vector`: [D], finite."""
        ...


class Scannable(Protocol):
    """A sink whose rows can be read from the first to the last."""

    def scan(self) -> Iterator[RowBatch]:
        """Every row once, in any order, with the columns that were written; including every acknowledged write.

        What is written while it runs may be among them or not.

        Raises:
            SinkUnavailableError: not reachable, after retries.
        """
        ...


class Deletable(Protocol):
    """A sink that rows can be taken out of."""

    def delete(self, keys: Sequence[str]) -> None:
        """Take out the rows with these keys, if they are there. When it returns they are gone for every reader.

        Raises:
            SinkUnavailableError: not reachable, after retries; doing it again is harmless.
        """
        ...


class Sink(ABC):
    """A place where rows go, idempotent by key.

    `write` blocks and may be called from up to `threads` threads at once. Writing the same rows again changes nothing,
    so a caller that does not know whether a write arrived writes again. Usable as a context manager. What is not
    abstract has a default that is right for a plain store on a server; `penstock.testing` has the contract as tests.
    """

    keeps_rows: ClassVar[bool] = True
    """Whether `count` and `look` know the rows that were written; a job that goes on compares them with its books."""

    has_collections: ClassVar[bool] = True
    """Whether its place has room for several collections."""

    keeps_collection_name: ClassVar[bool] = False
    """Whether a place that has room for one alone keeps the name of it all the same."""

    rewrites: ClassVar[bool] = False
    """Whether rows of a scan can be written back with other metadata, also where it was opened without a dimension."""

    @property
    def members(self) -> Sequence[Sink]:
        """The sinks it is made of: itself, but for a tee."""
        return (self,)

    # -- what it is: known before `open`, and without it --------------------------------------------------------------

    @property
    @abstractmethod
    def threads(self) -> int:
        """How many threads may, and for full speed should, call `write` at once."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """What this sink is, for the books of a job: equal for the same destination. Without secrets."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """Where the rows go, as it can be named from any folder. Without secrets."""

    @property
    def has_secret(self) -> bool:
        """Whether it was given a secret, which is kept nowhere: who goes on with a job has to give it again."""
        return False

    @property
    def local_path(self) -> Path | None:
        """The file or folder on this machine that the rows go into, as it was named; None if they go elsewhere."""
        return None

    def rows_per_write(self, asked: int) -> int:
        """How many rows to give to one `write`, where the user said `asked`."""
        return asked

    def writes_at_once(self, rows: int) -> int:
        """How many writes of so many rows may be under way: more than `threads` where some may wait for others."""
        del rows
        return self.threads

    def memory(self, dimension: int, rows: int) -> SinkMemory | None:
        """The most memory it takes on this machine for so many rows; None where it takes none worth naming."""
        del dimension, rows
        return None

    @property
    def next_step(self) -> str:
        """What people can do with the rows now: ``search it: penstock search photos.db IMAGE``. May be empty."""
        return ""

    @property
    def needs_finish(self) -> bool:
        """Whether a run that was killed has left undone what follows the last row: `open` and `close` do it then."""
        return False

    def reach(self) -> None:  # noqa: B027  (most have no way to see that before they are opened)
        """See whether it is there, in milliseconds: before anything dear is begun. `open` does so, too.

        Raises:
            SinkUnavailableError: it is not.
        """

    @abstractmethod
    def look(self) -> Found | None:
        """What is there, without making or changing anything; None where there is nothing. Needs no `open`.

        Raises:
            SinkUnavailableError: not reachable.
            SinkError: it cannot be read, or is open in another process.
        """

    # -- writing ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def open(self) -> None:
        """Connect, and create or check what is there. Once, before anything else.

        Raises:
            SinkUnavailableError: not reachable.
            CollectionMismatchError: what exists there does not fit.
        """

    @property
    def note(self) -> str:
        """What was said of the rows when the open place was made (`SinkOptions.note`); empty where nothing was."""
        return ""

    @abstractmethod
    def write(self, rows: RowBatch) -> WriteResult:
        """Write all rows that can be written; when it returns they are acknowledged.

        Raises:
            SinkUnavailableError: not reachable, after retries. Some of the rows may have been written.
            CollectionMismatchError: vectors of another dimension.
        """

    def write_missing(
        self, rows: RowBatch, has: Sequence[int], on_acknowledged: Callable[[int, Sequence[int]], object]
    ) -> WriteResult:
        """`write`, for who keeps books of each of the `members`.

        Args:
            rows: as for `write`.
            has: for each row the members that have acknowledged it before, the n-th by the bit ``1 << n``; they are
                not asked for it.
            on_acknowledged: hears, from any thread, each member that has acknowledged rows, by its number, and their
                indices.
        """
        del has, on_acknowledged
        return self.write(rows)

    @abstractmethod
    def count(self) -> int:
        """How many rows there are: exact, and including every acknowledged write.

        Raises:
            SinkUnavailableError: not reachable, after retries.
        """

    def finish(self) -> None:  # noqa: B027  (in most stores rows are to be seen as soon as they are written)
        """All rows of the job are written: show them to others, where that is a step of its own. Repeatable.

        Not called where the job failed, or is to go on later. The sink is open, and nothing is being written.

        Raises:
            SinkError: it cannot be; nothing is shown then, and a later run may try again.
        """

    def stats(self) -> Mapping[str, float]:
        """How it works at the moment, for the report: plain figures by name. Any time, from any thread."""
        return {}

    def wait_index(
        self, seconds: float, on_progress: Callable[[IndexState], None] = lambda _: None, stop: Event | None = None
    ) -> IndexState:
        """Wait until every row can be found at full speed.

        Args:
            seconds: to wait at most.
            on_progress: hears how far it is, several times a second.
            stop: ends the waiting early.

        Raises:
            SinkError: it is not done in time. All rows are in the store.
        """
        del seconds, stop
        rows = self.count()
        on_progress(state := IndexState(rows, rows))
        return state

    def reader(self) -> Searchable | None:
        """What finds the rows again, once the sink is open; None for one that cannot."""
        return None

    def scanner(self) -> Scannable | None:
        """What reads all rows, once the sink is open; None for one that cannot."""
        return None

    def deleter(self) -> Deletable | None:
        """What takes rows out, once the sink is open to be written to; None for one that cannot."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Let go of everything: connections, threads, processes, locks. Idempotent."""

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.uri}>"
