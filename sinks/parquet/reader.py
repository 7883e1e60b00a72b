"""Reading a data set: rows by key, and the nearest by looking at every vector."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, SinkError
from ..arrow import arrow
from ..base import Hit
from ..rows import KEY, VECTOR, RowBatch
from .place import Place
from .staged import live_in
from .table import decoded, hit, matrix, row_batch

_ROWS: Final = 8192
"""Read at once."""


@dataclass(frozen=True, slots=True)
class Files:
    """What there is to read.

    Attributes:
        names: of the files; of rows with the same key the last counts.
        distinct: whether no key is in them twice, as in a complete data set.
    """

    names: Sequence[str]
    distinct: bool


class Reader:
    """Finds rows of a data set again; see `Searchable`.

    Args:
        place: where it lies.
        files: says what there is at the moment.
        metric: COSINE, IP or L2.
    """

    def __init__(self, place: Place, files: Callable[[], Files], metric: str) -> None:
        self._place, self._files, self._metric = place, files, metric

    def get(self, keys: Sequence[str], *, vectors: bool = False) -> dict[str, dict[str, Any]]:
        """The rows with these keys, as column dicts by key. Reads the keys of every file."""
        pa, _ = arrow()
        found: dict[str, dict[str, Any]] = {}
        wanted = pa.array(list(keys), pa.string())
        for name in reversed(self._files().names):
            with self._opened(name) as file:
                for group in range(file.num_row_groups):
                    column = file.read_row_group(group, columns=[KEY]).column(0)
                    at = np.flatnonzero(np.asarray(pa.compute.is_in(column, value_set=wanted)))
                    if len(at):
                        rows = file.read_row_group(group, columns=None if vectors else _others(file))
                        for row in rows.take(pa.array(at)).to_pylist():
                            found.setdefault(row[KEY], decoded(row, file.schema_arrow, vectors=vectors))
        return found

    def search(self, vector: NDArray[np.float32], k: int = 10) -> list[Hit]:
        """The nearest rows, by looking at all of them.

        Raises:
            ConfigError: a vector of another dimension.
        """
        query, files = np.asarray(vector, np.float32), self._files()
        live = [None] * len(files.names) if files.distinct else live_in(self._place, files.names)
        best: list[tuple[float, int, int]] = []
        for number, name in enumerate(files.names):
            for first, scores in self._scores(name, query):
                if (mask := live[number]) is not None:
                    scores[~mask[first : first + len(scores)]] = -np.inf
                near = np.argpartition(scores, -k)[-k:] if len(scores) > k else np.arange(len(scores))
                some = [(float(scores[at]), number, first + int(at)) for at in near if scores[at] > -np.inf]
                best = heapq.nlargest(k, [*best, *some])
        sign = -1.0 if self._metric == "L2" else 1.0
        rows = self._rows(files.names, [(number, row) for _, number, row in best])
        return [hit(rows[number, row], sign * score) for score, number, row in best]

    def scan(self) -> Iterator[RowBatch]:
        """See `Scannable`. Reads every row, and where keys may be there twice all keys before."""
        files = self._files()
        live = [None] * len(files.names) if files.distinct else live_in(self._place, files.names)
        for number, name in enumerate(files.names):
            first = 0
            with self._opened(name) as file:
                for batch in file.iter_batches(_ROWS):
                    mask = live[number]
                    yield row_batch(batch, None if mask is None else mask[first : first + len(batch)])
                    first += len(batch)

    def _scores(self, name: str, query: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Of each row of a file how near it is, more being nearer: the number of the first, and the scores."""
        first = 0
        with self._opened(name) as file:
            for batch in file.iter_batches(_ROWS, columns=[VECTOR]):
                vectors = matrix(batch.column(0))
                if vectors.shape[1:] != query.shape:
                    raise ConfigError(f"vector: {list(query.shape)} given, [{vectors.shape[1]}] needed")
                yield first, nearness(vectors, query, self._metric)
                first += len(vectors)

    def _rows(self, names: Sequence[str], places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], dict[str, Any]]:
        """The columns of some rows, with the key, each row given by the number of its file and its own in that."""
        pa, _ = arrow()
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for number in sorted({number for number, _ in places}):
            rows = sorted(row for each, row in places if each == number)
            with self._opened(names[number]) as file:
                first = 0
                for group in range(file.num_row_groups):
                    end = first + file.metadata.row_group(group).num_rows
                    if mine := [row for row in rows if first <= row < end]:
                        table = file.read_row_group(group, columns=_others(file))
                        taken = table.take(pa.array([row - first for row in mine])).to_pylist()
                        for row, columns in zip(mine, taken, strict=True):
                            told = decoded(columns, file.schema_arrow, vectors=False)
                            found[number, row] = {**told, KEY: columns[KEY]}
                    first = end
        return found

    @contextmanager
    def _opened(self, name: str) -> Generator[Any]:
        pa, pq = arrow()
        try:
            with pq.ParquetFile(self._place.open(name), page_checksum_verification=True) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, SinkError):
                raise
            raise SinkError(f"{self._place.uri}: {name} cannot be read: {error}") from error


def _others(file: Any) -> list[str]:
    """Every column but the vector."""
    return [name for name in file.schema_arrow.names if name != VECTOR]


def nearness(vectors: NDArray[np.float32], query: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    if metric == "L2":
        away: NDArray[np.float32] = -((vectors - query) ** 2).sum(1)
        return away
    products: NDArray[np.float32] = vectors @ query
    if metric == "COSINE":
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors)) * np.linalg.norm(query)
        products /= np.maximum(lengths, np.finfo(np.float32).tiny)
    return products
