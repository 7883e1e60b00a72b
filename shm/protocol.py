"""What a parent and a worker that fills slots say to each other, whatever the work is: struct headers, a little JSON.

Frames (each travels in one length-prefixed frame of the socket, see `frames`)::

    worker -> parent   LAYOUT   JSON: what its slots must look like; sent once, before anything is compiled
    worker -> parent   REFUSED  JSON: a text; instead, when the worker cannot do what it was set to, and leaves
    parent -> worker   RING     JSON: number of slots, accompanied by the segment's descriptor
    parent -> worker   TASK     head (slot, generation, n), then what the kind of work says of its n items; where that
                                is much, in a `Payload` instead, whose descriptor comes with the frame
    worker -> parent   DONE     head (slot, generation, rows), then what the kind of work says of them
    worker -> parent   HUNG     head (slot, generation, row): this item is over its deadline, the worker leaves

The parent takes nothing a worker says on trust: what it works on, or a user's code, may have made it say anything.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from .. import errors
from .layout import SlotLayout
from .payload import flat, nbytes_of

if TYPE_CHECKING:
    import numpy as np

LAYOUT, RING, TASK, DONE, HUNG, REFUSED = range(6)

HEAD = struct.Struct("<BxxxIQI")
"""Of TASK, DONE and HUNG: kind of frame, slot, generation; and items of the task, rows in the slot, or the item."""

_KIND = struct.Struct("<B")

_ITEM_ERRORS = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.ItemError)
}

Piece: TypeAlias = "bytes | memoryview | np.ndarray[Any, np.dtype[Any]]"
"""Data of a task; an array where its samples are yet to be brought into order, by who copies them anyway."""

_LARGE = 1 << 20
"""More bytes of data in a task go through shared memory: copied once, by a thread, and not by the hub."""

_SENSELESS = (struct.error, ValueError, TypeError, LookupError, RecursionError)
"""What reading a frame raises that makes no sense."""

_A = TypeVar("_A")


@dataclass(frozen=True, slots=True)
class Message:
    """A TASK as it is sent.

    Attributes:
        frame: pieces of the frame.
        payload: what goes beside it through shared memory, because it is much; else nothing.
    """

    frame: list[bytes | memoryview]
    payload: list[Piece]

    @classmethod
    def of(cls, frame: list[bytes | memoryview], data: list[Piece]) -> Self:
        """A frame with data at its end; beside it, if that is much."""
        if sum(map(nbytes_of, data)) > _LARGE:
            return cls(frame, data)
        return cls([*frame, *[piece if isinstance(piece, bytes) else flat(piece) for piece in data]], [])


@dataclass(frozen=True, slots=True)
class Hung:
    """The item at ``row`` of this task is over its deadline."""

    slot: int
    generation: int
    row: int


def encode_json(kind: int, value: Any = None) -> bytes:
    """A frame of ``kind`` that carries JSON."""
    return _KIND.pack(kind) + json.dumps(value).encode()


def decode_json(frame: bytes | memoryview) -> Any:
    """The JSON of such a frame."""
    return json.loads(bytes(frame[_KIND.size :]))


def decode_layout(frame: bytes) -> SlotLayout:
    """What a worker's first frame says.

    Raises:
        ConfigError: it is REFUSED; with the worker's own words.
        WorkerError: it is no LAYOUT, or cannot be read.
    """
    try:
        if frame[0] == LAYOUT:
            return SlotLayout.from_json(decode_json(frame))
        if frame[0] != REFUSED:
            raise ValueError(f"a frame of kind {frame[0]}")
        why = str(decode_json(frame))
    except _SENSELESS as error:
        raise _senseless(frame, error) from error
    raise errors.ConfigError(why)


def decode_answer(frame: bytes, decode_done: Callable[[bytes], _A]) -> _A | Hung:
    """What a worker's later frames say.

    Args:
        frame: the frame.
        decode_done: reads a DONE; of one that is not well-formed it raises ValueError or its like.

    Raises:
        WorkerError: it is no answer, or cannot be read.
    """
    try:
        if frame[0] == DONE:
            return decode_done(frame)
        if frame[0] != HUNG:
            raise ValueError(f"a frame of kind {frame[0]}")
        return Hung(*HEAD.unpack_from(frame)[1:])
    except _SENSELESS as error:
        raise _senseless(frame, error) from error


def _senseless(frame: bytes, error: Exception) -> errors.WorkerError:
    return errors.WorkerError(f"{len(frame)} bytes that make no sense ({error})")


def check_answered(positions: Sequence[int], size: int) -> None:
    """Make sure that an answer tells of each of a task's so many items, once.

    Raises:
        WorkerError: it does not.
    """
    if sorted(positions) != list(range(size)):
        raise errors.WorkerError(f"an answer for {len(positions)} items to a batch of {size}, not one for each")


def encode_hung(slot: int, generation: int, row: int) -> bytes:
    """A HUNG frame."""
    return HEAD.pack(HUNG, slot, generation, row)


def encode_failures(failures: Iterable[tuple[int, errors.ItemError]]) -> bytes:
    """Errors with the positions of their items, as JSON."""
    record = [
        (at, type(error).__name__, str(error), error.sha256, _errno(error), error.retry_after) for at, error in failures
    ]
    # ASCII with escapes: a message may quote a file name that is not UTF-8.
    return json.dumps(record).encode()


def _errno(error: errors.ItemError) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def decode_failures(data: bytes | memoryview) -> list[tuple[int, errors.ItemError]]:
    """What ``encode_failures`` gave. An error of a class that is not known here is an ItemError all the same.

    Raises:
        ValueError: it is something else.
    """
    return [_failure(record) for record in json.loads(bytes(data))]


def _failure(record: object) -> tuple[int, errors.ItemError]:
    match record:
        case [int(position), str(name), str(message), (str() | None) as sha256, (int() | None) as errno, later]:
            error = _ITEM_ERRORS.get(name, errors.ItemError)(message)
            error.sha256 = sha256
            error.retry_after = later if isinstance(later, float) else None
            if isinstance(error, OSError):
                error.errno = errno
            return position, error
        case _:
            raise ValueError("a failure that is none")
