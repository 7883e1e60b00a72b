"""What a slot looks like: where its header and its named arrays lie."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ..errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEADER_BYTES = 64

_ALIGNMENT = 64
"""XLA takes a view without copying it only if it is aligned to 64 bytes."""

_PAGE = 4096
"""Offsets that go to ``mmap`` (Triton's registration of a region) must be multiples of this."""

_NUMBERS = "biuf"
"""Kinds of dtypes that mean the same in every process."""

SlotView: TypeAlias = "Mapping[str, NDArray[Any]]"
"""The arrays of one slot by name, ``[rows, *shape]`` each, without a copy. The memory lives as long as they are
referenced; whose it is at the moment, the slot's state says."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a slot.

    Attributes:
        name: what it is asked for by.
        shape: shape of one row, e.g. ``(3, 224, 224)``; a size of 0 is an array without bytes.
        dtype: any type of numbers, e.g. ``"float32"``.

    Raises:
        ConfigError: a size is negative, or these are no numbers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if min(self.shape, default=0) < 0:
            raise ConfigError(f"array {self.name!r} of a slot: sizes must not be negative, not {self.shape}")
        try:
            numbers = _dtype(self.dtype).kind in _NUMBERS
        except TypeError:
            numbers = False
        if not numbers:
            raise ConfigError(f"array {self.name!r} of a slot: {self.dtype!r} is no type of numbers")

    @property
    def row_bytes(self) -> int:
        """Bytes of one row. Nothing lies between rows: n rows are exactly ``n * row_bytes``."""
        return math.prod(self.shape) * _dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Place:
    """Where a slot lies, for a process that maps the segment by its name.

    Attributes:
        segment: name of the POSIX shared-memory object; ``"/" + segment`` is what ``shm_open`` takes. Never used twice.
        nbytes: size of the whole segment.
        offsets: array -> where its row 0 begins, in bytes from the start of the segment.
    """

    segment: str
    nbytes: int
    offsets: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """Sizes and offsets of a slot: a header, then its arrays in order. Both sides of a ring must have the same.

    Shared memory of a ring: ``slots * stride``; the stride is about ``rows`` times the bytes of one row of each array.

    Attributes:
        rows: the most items in a batch; each array has so many rows.
        arrays: what a slot holds; nothing but the header if there are none.

    Raises:
        ConfigError: no rows, or two arrays of one name.
    """

    rows: int
    arrays: tuple[ArraySpec, ...] = ()

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError(f"rows (batch_size) must be at least 1, not {self.rows}")
        names = [array.name for array in self.arrays]
        if len({*names}) < len(names):
            raise ConfigError(f"arrays of a slot must have names of their own, not {', '.join(names)}")

    def __getitem__(self, name: str) -> ArraySpec:
        """The array of this name.

        Raises:
            KeyError: there is none.
        """
        for array in self.arrays:
            if array.name == name:
                return array
        raise KeyError(name)

    @property
    def header_bytes(self) -> int:
        """Bytes of the header at the start of a slot."""
        return HEADER_BYTES

    @property
    def offsets(self) -> Mapping[str, int]:
        """Where each array begins, in bytes from the start of the slot."""
        return self._placed()[0]

    @property
    def stride(self) -> int:
        """Bytes from one slot to the next, whole pages."""
        return _up(self._placed()[1], _PAGE)

    def _placed(self) -> tuple[dict[str, int], int]:
        """Where each array begins, and where the last one ends."""
        offsets: dict[str, int] = {}
        end = self.header_bytes
        for array in self.arrays:
            offsets[array.name] = _up(end, _ALIGNMENT)
            end = offsets[array.name] + self.rows * array.row_bytes
        return offsets, end

    def ring_bytes(self, slots: int) -> int:
        """Bytes of shared memory that a ring of so many slots takes."""
        return slots * self.stride

    def view(self, buffer: memoryview | mmap.mmap, offset: int = 0) -> SlotView:
        """The arrays of the slot that begins ``offset`` bytes into a buffer."""
        if not self.arrays:
            return {}
        import numpy as np

        offsets = self.offsets
        return {
            array.name: np.ndarray((self.rows, *array.shape), array.dtype, buffer, offset + offsets[array.name])
            for array in self.arrays
        }

    def private_view(self) -> SlotView:
        """A slot in this process' own memory, zeroed and aligned like a real one; it lives as long as its arrays."""
        return self.view(mmap.mmap(-1, self.stride, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def to_json(self) -> dict[str, Any]:
        """For the other process."""
        return {"rows": self.rows, "arrays": [[array.name, [*array.shape], array.dtype] for array in self.arrays]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What ``to_json`` gave.

        Raises:
            ConfigError: the sizes make no sense.
        """
        return cls(value["rows"], tuple(ArraySpec(name, tuple(shape), dtype) for name, shape, dtype in value["arrays"]))


def _dtype(name: str) -> np.dtype[Any]:
    import numpy as np  # here: a worker whose slots have no arrays needs none of it

    return np.dtype(name)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
