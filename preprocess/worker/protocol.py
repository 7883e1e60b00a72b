"""What a worker of pictures and its parent say to each other: fixed struct headers, raw payloads, a little JSON. Never
pickle.

The frames are those of every worker that fills slots (``shm.protocol``). Of pictures they hold::

    TASK     n item records, then paths, references and errors, then data; where it is much, the data is beside it
    DONE     timings, rows records, JSON list of failures
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import errors
from ...references import Locator, Reference, Version
from ...shm import flat, nbytes_of
from ...shm.protocol import DONE, HEAD, TASK, Message, Piece, check_answered, decode_failures, encode_failures

_ITEM = struct.Struct("<BxxxQ")  # item kind, payload bytes
_SECONDS = struct.Struct("<4d")  # read decode kernel embed
_ROW = struct.Struct("<III")  # position in the task, width, height

_PATH, _BYTES, _ARRAY, _ERROR, _REFERENCE = range(5)
_DATA = (_BYTES, _ARRAY)

_LONGEST_PATH = 1 << 16
"""Bytes of a path. The system takes 4,096; a longer one is no path, and a batch of them no message."""

_SHOWN = 200
"""Characters of a path that cannot be one in its error."""

Loaded = bytes | memoryview | np.ndarray[Any, np.dtype[Any]] | errors.ItemError
"""A picture as it is decoded: the bytes of a picture file, or pixels ``(H, W[, C])``; or why it is none of these, which
is then its outcome."""

Source = str | Reference | Loaded
"""What a task's item may be: a path, a reference, or what is in memory already."""

_NUMBERS = "biuf"
"""Kinds of dtypes that samples may be of."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of a task's phases in the worker. ``read`` is what it waited for, not what ran beside its work."""

    read: float = 0.0
    decode: float = 0.0
    kernel: float = 0.0
    embed: float = 0.0

    @property
    def total(self) -> float:
        return self.read + self.decode + self.kernel + self.embed


@dataclass(frozen=True, slots=True)
class Row:
    """One picture that lies in the slot: its position in the task, and its size in pixels as a person sees it."""

    position: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Task:
    """A batch to do, as the worker gets it."""

    slot: int
    generation: int
    sources: list[Source]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a task: ``rows[i]`` lies in row ``i`` of the slot; ``failures`` are (position, error)."""

    slot: int
    generation: int
    rows: list[Row]
    failures: list[tuple[int, errors.ItemError]]
    timings: Timings

    def check(self, size: int) -> None:
        """Make sure that it answers for each of a task's so many pictures, once.

        Raises:
            WorkerError: it does not.
        """
        check_answered([row.position for row in self.rows] + [position for position, _ in self.failures], size)


def encode_task(slot: int, generation: int, sources: Sequence[Source]) -> Message:
    """A task to send. Neither bytes nor pixels are copied, but for a few (an array that is turned, mirrored or cut).

    What cannot be sent travels as the error that the worker then answers for it: it costs its neighbours nothing.
    """
    records: list[bytes] = [HEAD.pack(TASK, slot, generation, len(sources))]
    words: list[bytes | memoryview] = []
    data: list[Piece] = []
    for source in sources:
        try:
            if isinstance(source, str):  # by far the most, and this runs on the hub
                path = _encode_path(source)
                records.append(_ITEM.pack(_PATH, len(path)))
                words.append(path)
                continue
            kind, pieces = _encode_data(source)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is about this item)
            kind, pieces = _ERROR, [_encode_error(_unfit(source, error))]
        records.append(_ITEM.pack(kind, sum(map(nbytes_of, pieces))))
        if kind in _DATA:
            data += pieces
        else:
            words += map(flat, pieces)
    return Message.of([b"".join(records), *words], data)


def _encode_path(path: str) -> bytes:
    name = path.encode("utf-8", "surrogateescape")
    if len(name) > _LONGEST_PATH:
        raise ValueError(f"it has {len(name):,} bytes")
    return name


def _encode_data(source: Reference | Loaded) -> tuple[int, list[Piece]]:
    if isinstance(source, Reference):
        return _REFERENCE, [json.dumps(source).encode()]  # named tuples are arrays there
    if isinstance(source, (bytes, memoryview)):
        return _BYTES, [memoryview(source).cast("B")]
    if isinstance(source, errors.ItemError):
        return _ERROR, [_encode_error(source)]
    if source.dtype.kind not in _NUMBERS:  # objects have no bytes, and some others no size
        raise TypeError("give uint8, uint16 or float")
    head = json.dumps([source.dtype.str, source.shape]).encode()
    return _ARRAY, [struct.pack("<H", len(head)), head, source]


def _unfit(source: Source, error: Exception) -> errors.ItemError:
    """What is wrong with an item that has no bytes to send."""
    if isinstance(source, str):
        return errors.ReadError(f"{source[:_SHOWN]!r} is not a possible file name: {error}")
    what = f"array of dtype {source.dtype}" if isinstance(source, np.ndarray) else type(source).__name__
    return errors.DecodeError(f"{what} is not a picture; {error}")


def decode_task(frame: bytes | memoryview, payload: memoryview | None = None) -> Task:
    """The task of a TASK frame; byte and array payloads are views into it, or into what came beside it."""
    view = memoryview(frame)
    _, slot, generation, n = HEAD.unpack_from(view)
    records = [*_ITEM.iter_unpack(view[HEAD.size : HEAD.size + n * _ITEM.size])]
    at = HEAD.size + n * _ITEM.size
    data = view[at + sum(nbytes for kind, nbytes in records if kind not in _DATA) :] if payload is None else payload
    begin = 0
    sources: list[Source] = []
    for kind, nbytes in records:
        if kind in _DATA:
            sources.append(_decode_source(kind, data[begin : begin + nbytes]))
            begin += nbytes
        else:
            sources.append(_decode_source(kind, view[at : at + nbytes]))
            at += nbytes
    return Task(slot, generation, sources)


def _decode_source(kind: int, payload: memoryview) -> Source:
    if kind == _PATH:
        return bytes(payload).decode("utf-8", "surrogateescape")
    if kind == _BYTES:
        return payload
    if kind == _ERROR:
        return decode_failures(payload)[0][1]
    if kind == _REFERENCE:
        locator, ref, version = json.loads(bytes(payload))
        return Reference(Locator(*locator), ref, Version(*version))
    (head,) = struct.unpack_from("<H", payload)
    dtype, shape = json.loads(bytes(payload[2 : 2 + head]))
    return np.frombuffer(payload[2 + head :], np.dtype(dtype)).reshape(shape)


def encode_done(
    task: Task, rows: Iterable[Row], failures: Iterable[tuple[int, errors.ItemError]], timings: Timings
) -> bytes:
    """A DONE frame."""
    records = b"".join(_ROW.pack(row.position, row.width, row.height) for row in rows)
    head = HEAD.pack(DONE, task.slot, task.generation, len(records) // _ROW.size)
    seconds = _SECONDS.pack(timings.read, timings.decode, timings.kernel, timings.embed)
    return head + seconds + records + encode_failures(failures)


def decode_done(frame: bytes | memoryview) -> Done:
    """What a DONE frame says; of one that is not well-formed, ValueError and its like."""
    view = memoryview(frame)
    _, slot, generation, rows = HEAD.unpack_from(view)
    seconds = _SECONDS.unpack_from(view, HEAD.size)
    if not all(math.isfinite(value) for value in seconds):
        raise ValueError(f"seconds {seconds}")
    begin = HEAD.size + _SECONDS.size
    end = begin + rows * _ROW.size
    return Done(
        slot,
        generation,
        [Row(*record) for record in _ROW.iter_unpack(view[begin:end])],
        decode_failures(view[end:]),
        Timings(*seconds),
    )


def _encode_error(error: errors.ItemError) -> bytes:
    return encode_failures([(0, error)])
