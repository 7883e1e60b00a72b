"""What a slot looks like: where its header, its pixels and its embeddings lie."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

HEADER_BYTES = 64
PIXEL_DTYPES = ("float32", "float16", "uint8")

_ALIGNMENT = 64
"""XLA takes a view without copying it only if it is aligned to 64 bytes."""

_PAGE = 4096
"""Offsets that go to ``mmap`` (Triton's registration of a region) must be multiples of this."""


@dataclass(frozen=True, slots=True)
class SlotView:
    """The arrays of one slot, without a copy.

    The memory lives as long as they are referenced; whose it is at the moment, the slot's state says.

    Attributes:
        pixels: ``[B, *pixel_shape]``, the layout's dtype.
        embeddings: ``[B, D]`` float32; ``[B, 0]`` if the layout has no embeddings.
    """

    pixels: NDArray[Any]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a slot lies, for a process that maps the segment by its name.

    Attributes:
        segment: name of the POSIX shared-memory object; ``"/" + segment`` is what ``shm_open`` takes. Never used twice.
        nbytes: size of the whole segment.
        pixels: where row 0 of the pixels begins, in bytes from the start of the segment.
        embeddings: where row 0 of the embeddings begins.
    """

    segment: str
    nbytes: int
    pixels: int
    embeddings: int


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """Sizes and offsets of a slot. Both sides of a ring must have the same.

    Shared memory of a ring: ``slots * stride``; the stride is about ``rows * (row_bytes + 4 * dimension)``.

    Attributes:
        rows: B, the most pictures in a batch.
        pixel_shape: shape of one row, e.g. ``(3, 224, 224)``.
        pixel_dtype: ``float32``, ``float16`` or ``uint8``.
        dimension: D, floats of one row's embedding; 0 for no embeddings.

    Raises:
        ConfigError: a size that is not positive, or another dtype.
    """

    rows: int
    pixel_shape: tuple[int, ...]
    pixel_dtype: str = "float32"
    dimension: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError(f"rows (batch_size) must be at least 1, not {self.rows}")
        if not self.pixel_shape or min(self.pixel_shape) < 1:
            raise ConfigError(f"pixel_shape must be positive sizes, not {self.pixel_shape}")
        if self.pixel_dtype not in PIXEL_DTYPES:
            raise ConfigError(f"pixel_dtype must be one of {', '.join(PIXEL_DTYPES)}, not {self.pixel_dtype!r}")
        if self.dimension < 0:
            raise ConfigError(f"dimension must not be negative, not {self.dimension}")

    @property
    def header_bytes(self) -> int:
        """Bytes of the header at the start of a slot."""
        return HEADER_BYTES

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's pixels. Nothing lies between rows: n rows are exactly ``n * row_bytes``."""
        return math.prod(self.pixel_shape) * np.dtype(self.pixel_dtype).itemsize

    @property
    def pixels_offset(self) -> int:
        """Where the pixels begin, in bytes from the start of the slot."""
        return _up(self.header_bytes, _ALIGNMENT)

    @property
    def embeddings_offset(self) -> int:
        """Where the embeddings begin, in bytes from the start of the slot."""
        return _up(self.pixels_offset + self.rows * self.row_bytes, _ALIGNMENT)

    @property
    def embedding_bytes(self) -> int:
        """Bytes of the whole area of embeddings."""
        return self.rows * self.dimension * 4

    @property
    def stride(self) -> int:
        """Bytes from one slot to the next, whole pages."""
        return _up(self.embeddings_offset + self.embedding_bytes, _PAGE)

    def ring_bytes(self, slots: int) -> int:
        """Bytes of shared memory that a ring of so many slots takes."""
        return slots * self.stride

    def view(self, buffer: memoryview | mmap.mmap, offset: int = 0) -> SlotView:
        """The arrays of the slot that begins ``offset`` bytes into a buffer."""
        pixels: NDArray[Any] = np.ndarray(
            (self.rows, *self.pixel_shape), self.pixel_dtype, buffer, offset + self.pixels_offset
        )
        if not self.dimension:
            return SlotView(pixels, np.empty((self.rows, 0), np.float32))
        embeddings: NDArray[np.float32] = np.ndarray(
            (self.rows, self.dimension), np.float32, buffer, offset + self.embeddings_offset
        )
        return SlotView(pixels, embeddings)

    def private_view(self) -> SlotView:
        """A slot in this process' own memory, zeroed and aligned like a real one; it lives as long as its arrays."""
        return self.view(mmap.mmap(-1, self.stride, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def to_json(self) -> dict[str, Any]:
        """For the other process."""
        return {
            "rows": self.rows,
            "pixel_shape": list(self.pixel_shape),
            "pixel_dtype": self.pixel_dtype,
            "dimension": self.dimension,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What ``to_json`` gave.

        Raises:
            ConfigError: the sizes make no sense.
        """
        return cls(value["rows"], tuple(value["pixel_shape"]), value["pixel_dtype"], value["dimension"])


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
