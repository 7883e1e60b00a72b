"""Pictures that come as bytes or arrays: how much of them is in memory at once; batches are cut by bytes, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from ....errors import ItemError
from ....preprocess import Source
from ....references import Reference

if TYPE_CHECKING:
    from .memory_estimate import MemoryEstimate

BATCH_BYTES: Final = 64 * 2**20
"""Bytes of pictures in memory that a batch may have. A larger picture is a batch of its own."""

_LEAST_BYTES: Final = 2**20
_AHEAD: Final = 5
"""Batches before the workers: one being fetched, one being made, one in the source's hands, and what waits."""
_COPIES: Final = 2
"""Batches that a worker has a copy of: the one it does and the one behind it."""

_T = TypeVar("_T")


def nbytes_of(source: Source) -> int:
    """Bytes that a picture takes in memory on its way; those of a path or a reference do not count."""
    if isinstance(source, (str, ItemError, Reference)):
        return 0
    return len(source) if isinstance(source, bytes) else source.nbytes


def grouped(
    values: Iterable[_T], size: int, nbytes: Callable[[_T], int], most: int = BATCH_BYTES
) -> Iterator[list[_T]]:
    """Lists of up to ``size`` values that have up to ``most`` bytes together; a larger value is alone."""
    group: list[_T] = []
    held = 0
    for value in values:
        own = nbytes(value)
        if group and held + own > most:
            yield group
            group, held = [], 0
        group.append(value)
        held += own
        if len(group) == size or held >= most:
            yield group
            group, held = [], 0
    if group:
        yield group


def with_payloads(ceiling: MemoryEstimate) -> tuple[MemoryEstimate, int]:
    """The ceiling of a job whose pictures may come in memory, and how many bytes of them a batch may have.

    Where the memory is limited, it is so many that the ceiling stays below the limit if that is possible at all.
    """
    from .memory_estimate import Part  # the configuration comes with it, which a stream of pixels does without

    workers, slots = ceiling.settings["workers"], ceiling.settings["slots"]
    batches = _AHEAD + workers * (slots + _COPIES)
    left = BATCH_BYTES if ceiling.limit is None else (ceiling.limit - ceiling.total) // batches
    most = max(_LEAST_BYTES, min(BATCH_BYTES, left))
    part = Part("pictures in memory", batches * most, "parent")
    return replace(ceiling, parts=(*ceiling.parts, part)), most
