"""Rows: a batch of them, their keys, what became of them in a sink, and which no sink may be sent."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CollectionMismatchError, ConfigError, RowRefusedError

KEY, VECTOR = "key", "vector"
"""Names of the two columns that every store has."""

MAX_KEY_BYTES = 128
"""Longest primary key, in bytes of UTF-8. `row_key` makes 32."""

# Quotes, backslashes and control characters would have to be escaped in Milvus filter expressions, and pymilvus
# does not: its `get` pastes ids between quotes. Keys without them cannot carry an expression.
_UNFIT_IN_KEY = re.compile(r"[\x00-\x1f\x7f'\"\\]")


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """Rows for a sink. Three parallel sequences of length n; the sink keeps no reference to them after `Sink.write`.

    Raises:
        ConfigError: the lengths differ, or `vectors` is not a C-contiguous float32 matrix.
    """

    keys: list[str]
    """Primary keys, at most 128 bytes of UTF-8 each. The same key is the same row: it is written over."""

    vectors: NDArray[np.float32]
    """Embeddings, float32 [n, D], C-contiguous. May be a view of a shared-memory slot: read until `write` returns."""

    columns: list[dict[str, Any]]
    """Per row: `path` (str), `width`, `height` (pixels, int), and the user's metadata (JSON values, None left out)."""

    ordinals: list[int] | None = None
    """Per row its position in the listing of the job, for sinks that keep rows in that order; -1 or None: unknown."""

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32 or not self.vectors.flags.c_contiguous:
            raise ConfigError(
                f"vectors must be C-contiguous float32 [n, D], not {self.vectors.dtype} {list(self.vectors.shape)};"
                " pass np.ascontiguousarray(vectors, np.float32)"
            )
        ordinals = self.keys if self.ordinals is None else self.ordinals
        if not len(self.keys) == len(self.vectors) == len(self.columns) == len(ordinals):
            raise ConfigError(
                "keys, vectors and columns must have one entry per row:"
                f" {len(self.keys)} keys, {len(self.vectors)} vectors, {len(self.columns)} columns"
                + ("" if self.ordinals is None else f", {len(ordinals)} ordinals")
            )

    def __len__(self) -> int:
        return len(self.keys)


def concat(batches: Sequence[RowBatch]) -> RowBatch:
    """One batch of all the rows of several, in order. The vectors are copied.

    Raises:
        ConfigError: no batch at all, or vectors of different dimensions.
    """
    if len({batch.vectors.shape[1] for batch in batches}) != 1:
        raise ConfigError("concat needs at least one batch, and the same dimension in all of them")
    return RowBatch(
        keys=[key for batch in batches for key in batch.keys],
        vectors=np.concatenate([batch.vectors for batch in batches]),
        columns=[columns for batch in batches for columns in batch.columns],
        ordinals=[ordinal for batch in batches for ordinal in batch.ordinals or [-1] * len(batch)],
    )


def row_key(item: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    """Deterministic primary key of an item: 32 hex digits (BLAKE2b-128 of its name).

    Bytes and the text that `os.fsdecode` makes of them give the same key, whatever the locale.
    """
    name = os.fspath(item)
    return row_hash(name if isinstance(name, bytes) else _encoded(name)).hexdigest()


def row_hash(begin: bytes) -> hashlib.blake2b:
    """The hash behind `row_key`, for what comes in parts."""
    return hashlib.blake2b(begin, digest_size=16)


def _encoded(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that never was a byte, from a JSON manifest for example
        return name.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of one `Sink.write`. `written` + `len(refused)` is the number of rows given."""

    written: int
    """Rows whose key and newest value are in the sink now."""

    refused: list[tuple[int, RowRefusedError]] = field(default_factory=list[tuple[int, RowRefusedError]])
    """Index in the batch, and why: the rows that this sink will never take. Ascending."""


@dataclass(frozen=True, slots=True)
class Screened:
    """The rows of a batch that are fit to be sent, and what to say of the others."""

    kept: list[int]
    """Indices to send, ascending; each key once, at its last occurrence."""

    superseded: dict[int, list[int]]
    """Kept index -> earlier indices with the same key; they share its fate."""

    refused: list[tuple[int, RowRefusedError]]
    """Indices that must not be sent."""

    def result(self, refused_by_sink: Iterable[tuple[int, RowRefusedError]]) -> WriteResult:
        """The answer for the whole batch, once the kept rows were sent and some of them refused."""
        refused = list(self.refused)
        for index, error in refused_by_sink:
            refused += [(member, error) for member in (index, *self.superseded.get(index, ()))]
        refused.sort(key=lambda pair: pair[0])
        total = len(self.kept) + sum(map(len, self.superseded.values())) + len(self.refused)
        return WriteResult(total - len(refused), refused)


def need_dimension(rows: RowBatch, dimension: int | None, store: str) -> None:
    """Refuse vectors of another length than a store has; one that says none takes any.

    Raises:
        CollectionMismatchError: they are.
    """
    if dimension is not None and (length := rows.vectors.shape[1]) != dimension:
        raise CollectionMismatchError(f"{store} holds vectors of {dimension} dimensions, these have {length}")


class Arrivals:
    """Positions of rows that come without one: the order in which they came. Threads may share it."""

    def __init__(self) -> None:
        self._next = 0
        self._mutex = threading.Lock()

    def ordinals(self, rows: RowBatch, *, are_known: bool = True) -> list[int]:
        """Of each row its position in the listing, where all have one and `are_known`; else the next ones."""
        if are_known and rows.ordinals is not None and min(rows.ordinals, default=0) >= 0:
            return rows.ordinals
        with self._mutex:
            first, self._next = self._next, self._next + len(rows)
        return list(range(first, first + len(rows)))


def screen(rows: RowBatch) -> Screened:
    """Sort out what no sink should be sent: NaN and infinity (Milvus Lite accepts them), unfit keys, repeated keys.

    Of rows with the same key the last one wins: Milvus refuses repeated keys in one upsert.
    """
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(rows.vectors), axis=1)
    newest: dict[str, int] = {}
    earlier: dict[str, list[int]] = {}
    refused: list[tuple[int, RowRefusedError]] = []
    for index, key in enumerate(rows.keys):
        reason = _unfit_key(key) if finite[index] else "the vector holds NaN or infinity"
        if reason:
            refused.append((index, RowRefusedError(f"row {key!r:.150}: {reason}")))
            continue
        if key in newest:
            earlier.setdefault(key, []).append(newest[key])
        newest[key] = index
    return Screened(sorted(newest.values()), {newest[key]: indices for key, indices in earlier.items()}, refused)


def _unfit_key(key: str) -> str | None:
    if key.isascii() and key.isalnum() and len(key) <= MAX_KEY_BYTES:
        return None  # as all that `row_key` makes; every row of a job passes here
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "the key is not valid Unicode; use row_key(item)"
    if not 0 < size <= MAX_KEY_BYTES:
        return f"the key has {size} bytes, 1 to {MAX_KEY_BYTES} are possible; use row_key(item)"
    if _UNFIT_IN_KEY.search(key):
        return "the key holds a quote, a backslash or a control character; use row_key(item)"
    return None


def is_fit_key(key: str) -> bool:
    """Whether a row with this key can exist in a sink."""
    return _unfit_key(key) is None
