"""Signatures of items as columns sorted by key: what near-duplicates are found by, half a kilobyte an item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

LEVELS: Final = 127
"""The greatest component of a quantized vector."""


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Texts as bytes of UTF-8, one behind the other.

    Attributes:
        blob: uint8, all of them.
        ends: int64 ``[n]``, where each ends.
    """

    blob: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Self:
        """These, in this order."""
        return cls(
            np.frombuffer(b"".join(texts), np.uint8), np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        )

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> bytes:
        begin = int(self.ends[index - 1]) if index else 0
        return self.blob[begin : int(self.ends[index])].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        begin = 0
        for end in self.ends.tolist():
            yield self.blob[begin:end].tobytes()
            begin = end

    def text(self, index: int) -> str:
        """One as it was given."""
        return decoded(self[index])


def encoded(key: str) -> bytes:
    """Bytes of a key; names of files that are no UTF-8 keep their bytes."""
    return key.encode("utf-8", "surrogateescape")


def decoded(key: bytes) -> str:
    """The reverse of `encoded`."""
    return key.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True, eq=False)
class Signatures:
    """Signatures of n items, sorted by the bytes of their keys, each key once. All but the keys may be memory-mapped.

    Attributes:
        keys: what people know the items by.
        groups: the video each frame is of; empty for what is in none.
        short_side: int32, of the source, in pixels; 0: unknown.
        quality: uint8, see `preprocess.pdq.quality`; 0 where there is no PDQ hash.
        sharpness: float32; only compared.
        time: int64, of a frame in its video, in microseconds.
        pdq: uint8 ``[n, 32]``; zeros where there is none.
        vector: int8 ``[n, D]``, the direction of the vector: the greatest component of each is 127 or -127.
        norm: int32, the square of its length.
        digest: uint8 ``[n, 16]``, of the content: equal digests have equal signatures. Zeros: none.
    """

    keys: Texts
    groups: Texts
    short_side: NDArray[np.int32]
    quality: NDArray[np.uint8]
    sharpness: NDArray[np.float32]
    time: NDArray[np.int64]
    pdq: NDArray[np.uint8]
    vector: NDArray[np.int8]
    norm: NDArray[np.int32]
    digest: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(cls, keys: Sequence[str], vectors: NDArray[np.float32], **columns: Any) -> Self:
        """Make signatures; of equal keys the last one counts.

        Args:
            keys: n texts.
            vectors: float ``[n, D]``, finite.
            **columns: any other column, by its name, ``[n]`` or ``[n, width]``; groups as texts. Default: zeros.
        """
        names = list(map(encoded, keys))
        order = [row for _, row in sorted({name: row for row, name in enumerate(names)}.items())]
        quantized = _quantized(np.asarray(vectors)[order])
        groups = columns.pop("groups", None) or [""] * len(names)
        found: dict[str, Any] = {
            "keys": Texts.of([names[row] for row in order]),
            "groups": Texts.of([encoded(groups[row]) for row in order]),
            "vector": quantized,
            "norm": np.einsum("nd,nd->n", quantized, quantized, dtype=np.int32),
        }
        for name, (dtype, width) in COLUMNS.items():
            if name not in found:
                given = columns.pop(name, None)
                full = np.zeros((len(names), *width), dtype) if given is None else np.asarray(given, dtype)
                found[name] = full[order].reshape(len(order), *width)
        if columns:
            raise TypeError(f"signatures have no column {sorted(columns)[0]!r}")
        return cls(**found)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Every column by its name, texts as two."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("keys", "groups")}
        texts = {f"{name}{end}": array for name, end, array in _parts_of_texts(self)}
        return {**own, **texts}

    @classmethod
    def from_columns(cls, columns: dict[str, NDArray[Any]]) -> Self:
        """The reverse of `columns`."""
        found: dict[str, Any] = {name: columns[name] for name in (*COLUMNS, "vector")}
        texts = {name: Texts(columns[name], columns[f"{name}.ends"]) for name in ("keys", "groups")}
        return cls(keys=texts["keys"], groups=texts["groups"], **found)


COLUMNS: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    "short_side": ("<i4", ()),
    "quality": ("u1", ()),
    "sharpness": ("<f4", ()),
    "time": ("<i8", ()),
    "pdq": ("u1", (32,)),
    "norm": ("<i4", ()),
    "digest": ("u1", (16,)),
}
"""Types and widths of the columns but the texts and the vector."""


def _parts_of_texts(signatures: Signatures) -> Iterator[tuple[str, str, NDArray[Any]]]:
    for name, texts in (("keys", signatures.keys), ("groups", signatures.groups)):
        yield name, "", texts.blob
        yield name, ".ends", texts.ends


def _quantized(vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    """Vectors as directions in int8: a cosine is off by 0.0027 at most. Zero stays zero."""
    peak = np.abs(vectors).max(axis=1, keepdims=True, initial=0).astype(np.float64)
    scale = np.divide(LEVELS, peak, out=np.zeros_like(peak), where=peak > 0)
    return np.asarray(np.rint(vectors * scale), np.int8)
