"""``npy:DIR``: vectors as NumPy files with a Parquet file of metadata each, as clip-retrieval and its tools read them.

``img_emb/img_emb_00007.npy`` is float32 ``[n, D]``, ``metadata/metadata_00007.parquet`` has its rows in the same order.
The matrix is written last: metadata without one is a leftover, and not there for anybody who goes by the matrices.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Unpack

import numpy as np
from numpy.typing import NDArray

from ...descriptors import CloseOnFork
from ...errors import CollectionMismatchError, ConfigError, SinkError
from ..arrow import arrow
from ..base import Found, Hit, Scannable, Searchable
from ..parquet.reader import nearness
from ..parquet.table import RECIPE, hit
from ..parquet.table_sink import FolderSink, TableOptions
from ..rows import VECTOR, RowBatch
from .pairs import PATH, Pairs, disk_errors

_ROWS: Final = 8192
"""Vectors that a search looks at together."""


class NpySink(FolderSink):
    """A pair of files for each write, on disk when it returns. Finishing rewrites those with rows out of date."""

    scheme = "npy"
    reserved = frozenset({PATH})

    def __init__(self, folder: Path, dimension: int | None = None, **options: Unpack[TableOptions]) -> None:
        arrow()
        super().__init__(folder, dimension, **options)
        self._pairs = Pairs(self._folder, self.uri)
        self._lock: CloseOnFork | None = None

    @property
    def needs_finish(self) -> bool:
        return any(not live.all() for live in self._pairs.live(self._pairs.numbers()))

    def look(self) -> Found | None:
        """What is there; reads every key."""
        numbers = self._pairs.numbers()
        return Found(self._pairs.rows_in(numbers), self._pairs.note_in(numbers[0])) if numbers else None

    def open(self) -> None:
        """Make the folder, or check what is in it.

        Raises:
            SinkError: it is open in another process, or cannot be made.
            CollectionMismatchError: vectors of another dimension or other columns; to be read only: nothing is there.
        """
        numbers = self._pairs.numbers()
        if self._dimension is None:
            if not numbers:
                raise CollectionMismatchError(f"{self.uri}: there are no vectors")
            self._note = self._pairs.note_in(numbers[0])
            return
        self._pairs.make_folders()
        with disk_errors(self.uri):
            self._lock = self._locked()
        try:
            if numbers and not self._to_replace:
                self._check(numbers[0])
                self._note = self._pairs.note_in(numbers[0])
        except BaseException:
            self.close()
            raise

    @property
    def _is_writable(self) -> bool:
        return self._lock is not None

    def _put(self, table: Any) -> None:
        with self._mutex, disk_errors(self.uri):
            if not self._is_writable:
                raise self._not_open
            if self._to_replace:
                self._pairs.delete(self._pairs.numbers())
                self._to_replace = False
            self._pairs.write(table)

    def count(self) -> int:
        """Different keys. Reads all of them."""
        return self._pairs.rows_in(self._pairs.numbers())

    def finish(self) -> None:
        """Write pairs anew that have rows which were written over: each key is there once then."""
        with self._mutex, disk_errors(self.uri):
            numbers = self._pairs.numbers()
            for number, live in zip(numbers, self._pairs.live(numbers), strict=True):
                if not live.all():
                    if live.any():
                        self._pairs.write(self._pairs.table(number, live, self._layout.schema({RECIPE: self._note})))
                    self._pairs.delete([number])

    def reader(self) -> Searchable:
        """Looks at every vector: for up to some millions of them."""
        return self

    def scanner(self) -> Scannable:
        return self

    def scan(self) -> Iterator[RowBatch]:
        """See `Scannable`. Reads all keys before."""
        numbers = self._pairs.numbers()
        for number, live in zip(numbers, self._pairs.live(numbers), strict=True):
            yield self._pairs.rows(number, live)

    def get(self, keys: Sequence[str], *, vectors: bool = False) -> dict[str, dict[str, Any]]:
        """The rows with these keys, as column dicts by key."""
        return self._pairs.get(keys, vectors=vectors)

    def search(self, vector: NDArray[np.float32], k: int = 10) -> list[Hit]:
        """The nearest rows, by looking at all of them.

        Raises:
            ConfigError: a vector of another dimension.
        """
        query, numbers = np.asarray(vector, np.float32), self._pairs.numbers()
        best: list[tuple[float, int, int]] = []
        for number, live in zip(numbers, self._pairs.live(numbers), strict=True):
            matrix = self._pairs.matrix(number)
            if query.shape != matrix.shape[1:]:
                raise ConfigError(f"vector: {list(query.shape)} given, [{matrix.shape[1]}] needed")
            for first in range(0, len(matrix), _ROWS):
                scores = nearness(matrix[first : first + _ROWS], query, self._metric)
                scores[~live[first : first + _ROWS]] = -np.inf
                near = np.argsort(-scores)[:k].tolist()
                best += [(float(scores[at]), number, first + at) for at in near if scores[at] > -np.inf]
            best = sorted(best, reverse=True)[:k]
        sign = -1.0 if self._metric == "L2" else 1.0
        return [hit(self._pairs.row(number, row), sign * score) for score, number, row in best]

    def close(self) -> None:
        """Let others at the folder. Idempotent. A write that is under way is waited for by who comes next."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if self._mutex.acquire(blocking=False):
            self._mutex.release()
            lock.close()
        else:
            threading.Thread(target=self._close_later, args=(lock,), name="penstock-npy", daemon=True).start()

    def _close_later(self, lock: CloseOnFork) -> None:
        with self._mutex:
            lock.close()

    def _check(self, number: int) -> None:
        """Compare a pair with what this sink would write."""
        _, pq = arrow()
        length, there = self._pairs.matrix(number).shape[1], pq.read_schema(self._pairs.metadata(number))
        here = [PATH if name == "path" else name for name in self._layout.schema({}).names if name != VECTOR]
        wrong = ""
        if length != self._dimension:
            wrong = f"vectors of {length} dimensions, this job makes {self._dimension}"
        elif there.names != here:
            wrong = f"columns {', '.join(there.names)}, this job makes {', '.join(here)}"
        self._refuse(wrong)

    def _locked(self) -> CloseOnFork:
        lock = CloseOnFork(os.open(self._folder / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            fcntl.flock(lock.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise SinkError(f"{self.uri} is open in another process; wait for it, or choose another folder") from None
        return lock
