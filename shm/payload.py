"""Bytes that are too many for a message: a file in memory without a name, whose descriptor goes with the message.

It is copied into once, takes no room in ``/dev/shm``, and is gone with its last descriptor and mapping.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import SharedMemoryFullError
from .frames import Buffer

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


class Payload:
    """Some buffers, one after the other, in memory that another process can map.

    Args:
        pieces: the buffers; copied. An array need not lie in one piece: it is brought into that order here.

    Attributes:
        fd: its descriptor; -1 once closed.

    Raises:
        SharedMemoryFullError: the system gives no memory, or no descriptor, for it.
    """

    def __init__(self, pieces: Sequence[Buffer | Array]) -> None:
        self.fd = -1
        try:
            self.fd = os.memfd_create("penstock-payload", os.MFD_CLOEXEC)
            for piece in pieces:
                _write(self.fd, flat(piece))
        except (OSError, MemoryError) as error:
            self.close()
            why = (error.strerror if isinstance(error, OSError) else None) or "Cannot allocate memory"
            raise SharedMemoryFullError(
                f"{sum(map(nbytes_of, pieces)):,} bytes of items cannot be handed to a worker: {why}; hand over"
                " smaller items, or paths"
            ) from error

    def close(self) -> None:
        """Let go of it; who has a copy of the descriptor keeps it. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close  # the thread that makes it may be one that nobody waits for any more


def nbytes_of(piece: Buffer | Array) -> int:
    """Bytes of a buffer, or of an array's samples."""
    return len(piece) if isinstance(piece, bytes) else piece.nbytes


def flat(piece: Buffer | Array) -> memoryview:
    """Its bytes, one after the other: a copy, which takes its time, where an array's samples do not lie so."""
    if not isinstance(piece, (bytes, memoryview)):
        import numpy as np  # is there, if an array is

        piece = np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data
    return memoryview(piece).cast("B")


def map_payload(fd: int) -> memoryview:
    """The bytes of a payload, to read. Takes the descriptor over. The memory goes with the last view."""
    try:
        return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(fd)


def _write(fd: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(fd, rest) :]  # two gigabytes at a time, at most
