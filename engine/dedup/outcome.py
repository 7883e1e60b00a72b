"""What was decided, on disk: so that a later run keeps who stayed, and compares only what is new."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from ...sinks.signatures import Signatures, Texts
from ...sinks.signatures.files import read_file, write_file
from .near import Index

_CHUNK: Final = 1 << 16
_DIGEST: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A decision on n items, sorted by key.

    Attributes:
        keys: of the items.
        signature: uint8 ``[n, 16]``, a digest of what each was judged by.
        generation: int32 ``[n]``, the decision in which each was new; from 0.
        keeper: int64 ``[n]``, the number of whom each is a duplicate of; -1 for those that stay.
        similarity: float64 ``[n]``; 0 for those that stay.
        is_exact: uint8 ``[n]``, 1 where the contents are the same.
        capped: int64 ``[1]``, how many items had more neighbours than are looked at.
    """

    keys: Texts
    signature: NDArray[np.uint8]
    generation: NDArray[np.int32]
    keeper: Index
    similarity: NDArray[np.float64]
    is_exact: NDArray[np.uint8]
    capped: NDArray[np.int64]

    def write(self, path: Path) -> None:
        """Put it on disk, whole or not at all.

        Raises:
            OSError: the disk refuses.
        """
        columns: dict[str, NDArray[Any]] = {"keys": self.keys.blob, "ends": self.keys.ends}
        names = ("signature", "generation", "keeper", "similarity", "is_exact", "capped")
        write_file(path, columns | {name: getattr(self, name) for name in names})

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What `write` wrote; None where there is nothing.

        Raises:
            SinkError: it is no such file, or was cut.
        """
        if not path.exists():
            return None
        columns = read_file(path)
        return cls(Texts(columns.pop("keys"), columns.pop("ends")), **columns)


def digests_of(signatures: Signatures) -> NDArray[np.uint8]:
    """Of each signature a digest that changes with any part of it, uint8 ``[n, 16]``."""
    found = np.empty((len(signatures), _DIGEST), np.uint8)
    names = ("short_side", "quality", "sharpness", "time", "pdq", "digest", "vector")
    for first in range(0, len(signatures), _CHUNK):
        part = slice(first, first + _CHUNK)
        columns = [np.ascontiguousarray(getattr(signatures, name)[part]) for name in names]
        rows = np.concatenate([each.view(np.uint8).reshape(len(each), -1) for each in columns], axis=1)
        digests = (hashlib.blake2b(row, digest_size=_DIGEST).digest() for row in rows)
        found[part] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST)
    return found


def matched(a: Texts, b: Texts) -> tuple[Index, Index]:
    """Where keys that both have stand in each: numbers in `a`, and in `b`. Both are sorted; a linear pass."""
    found = list(_matched(a, b))
    pairs = np.array(found, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _matched(a: Texts, b: Texts) -> Iterator[tuple[int, int]]:
    theirs = enumerate(b)
    at, key = next(theirs, (-1, b""))
    for number, mine in enumerate(a):
        while at >= 0 and key < mine:
            at, key = next(theirs, (-1, b""))
        if at < 0:
            return
        if key == mine:
            yield number, at
