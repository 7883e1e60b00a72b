"""Files of signatures: columns at offsets, written whole or not at all, and mapped into memory to be read.

A file is ``PENSIGNA``, the length of a header, the header (JSON: column -> type, shape, offset), and the columns at
multiples of 64 bytes. A folder of parts has one such file for each `SignatureWriter.write`; `merge` makes one of all.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import mmap
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...durable import DISK, Disk, replace_file, shut
from ...errors import SinkError
from .columns import COLUMNS, Signatures, Texts

SUFFIX: Final = ".signatures"

_UNFINISHED: Final = re.compile(r"\..+\.(?:signatures|set)\.\d+")
_MAGIC: Final = b"PENSIGNA"
_ALIGN: Final = 64
_CHUNK: Final = 1 << 16
"""Rows that are gathered at once."""


class SignatureWriter:
    """Writes parts into a folder: one file for each, there for good when `write` returns.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, signatures: Signatures) -> None:
        """Write a part. One of the same name is replaced; of a key in several parts the part with the last name counts.

        Args:
            name: without a slash, and not beginning with a dot.
            signatures: of the part.

        Raises:
            OSError: the disk refuses.
        """
        write_file(self._folder / f"{name}{SUFFIX}", signatures.columns())
        DISK.sync_folder(str(self._folder))


def parts_in(folder: Path) -> list[Path]:
    """The parts of a folder, by name; none where there is no folder."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))


def sweep(folder: Path) -> None:
    """Take away what a process that was killed has left half-written, where nobody writes at the moment."""
    for path in folder.glob(".*"):
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def read_signatures(path: Path) -> Signatures:
    """The signatures of a file, mapped into memory.

    Raises:
        SinkError: it is no such file, or was cut.
    """
    return Signatures.from_columns(read_file(path))


def write_file(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write columns into a file, whole or not at all.

    Raises:
        OSError: the disk refuses; what had the name still has it.
    """
    shapes = {name: (array.dtype, array.shape) for name, array in columns.items()}
    _write(path, shapes, (_bytes(array) for array in columns.values() if array.size))


def read_file(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of a file, mapped into memory; read-only.

    Raises:
        SinkError: it is no such file, or was cut.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    try:
        if data[: len(_MAGIC)] != _MAGIC:
            raise ValueError("another kind of file")
        begin = len(_MAGIC) + 8
        length = int.from_bytes(data[len(_MAGIC) : begin], "little")
        header: dict[str, Any] = json.loads(data[begin : begin + length])
        return {
            name: np.ndarray(tuple(shape), dtype, data, offset) if all(shape) else np.zeros(tuple(shape), dtype)
            for name, (dtype, shape, offset) in header.items()
        }
    except (ValueError, TypeError) as error:
        raise SinkError(f"{path} holds no signatures, or was cut: {error}") from error


def merge(parts: Sequence[Path], target: Path, only: NDArray[np.uint64] | None = None) -> Signatures:
    """Make one file of all parts in a linear pass: each key once, sorted.

    Args:
        parts: by name; of a key in several the last counts.
        target: where it will be.
        only: `key_hash` of the keys that are wanted, sorted; None: all.

    Raises:
        SinkError: a part is no file of signatures, or they are of different vectors.
        OSError: the disk refuses.
    """
    read = [each for each in map(read_signatures, parts) if len(each)]
    dimensions = {each.vector.shape[1] for each in read}
    if len(dimensions) > 1:
        raise SinkError(f"{target.parent}: signatures of vectors of {sorted(dimensions)} dimensions lie together")
    part, row = _merged_order([each.keys for each in read], only)
    n, width = len(part), next(iter(dimensions), 0)
    shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    for name in ("keys", "groups"):
        lengths = _gathered([np.diff(getattr(each, name).ends, prepend=0) for each in read], part, row, np.dtype("<i8"))
        shapes[name] = np.dtype("u1"), (int(lengths.sum()),)
        shapes[f"{name}.ends"] = np.dtype("<i8"), (n,)
    shapes |= {name: (np.dtype(dtype), (n, *more)) for name, (dtype, more) in COLUMNS.items()}
    shapes["vector"] = np.dtype("i1"), (n, width)
    _write(target, shapes, _pieces(shapes, read, part, row), _UNSYNCED)
    return read_signatures(target)


class _Unsynced(Disk):
    """For files that can be made again after a power failure."""

    def sync(self, fd: int) -> None:
        """Nothing."""


_UNSYNCED: Final = _Unsynced()


def _write(
    path: Path, shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], data: Iterator[Any], disk: Disk = DISK
) -> None:
    """Write a file of columns whose bytes come in the order of their shapes, each padded to its multiple."""
    sizes = {name: dtype.itemsize * int(np.prod(shape, dtype=np.int64)) for name, (dtype, shape) in shapes.items()}
    head = _header(shapes, sizes)

    def pieces() -> Iterator[bytes]:
        yield head
        for size in sizes.values():
            left = size
            while left:
                piece = next(data)
                left -= len(piece)
                yield piece
            yield b"\0" * (-size % _ALIGN)

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    shut(disk, replace_file(str(path), pieces(), disk=disk, temporary=str(temporary)))


def _bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _header(shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], sizes: Mapping[str, int]) -> bytes:
    """What stands before the columns, filled up to a multiple. Offsets are in it, so its length is found first."""
    length = 0
    while True:
        at, header = length, {}
        for name, (dtype, shape) in shapes.items():
            header[name] = dtype.str, list(shape), at
            at += sizes[name] + -sizes[name] % _ALIGN
        text = json.dumps(header).encode()
        needed = len(_MAGIC) + 8 + len(text)
        needed += -needed % _ALIGN
        if needed == length:
            return (_MAGIC + len(text).to_bytes(8, "little") + text).ljust(length, b"\0")
        length = max(length, needed)


def key_hash(key: bytes) -> int:
    """64 bits of a key, for sets of very many."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def _merged_order(
    keys: Sequence[Texts], only: NDArray[np.uint64] | None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Part and row of each key, in the order of keys; of equal keys the row of the last part."""
    streams = [_stream(texts, part) for part, texts in enumerate(keys)]
    most = sum(map(len, keys))
    parts, rows = np.empty(most, np.int32), np.empty(most, np.int32)
    n, before = 0, None
    for key, part, row in heapq.merge(*streams):
        if key != before:
            parts[n], rows[n] = -part, row
            n, before = n + 1, key
    parts, rows = parts[:n], rows[:n]
    if only is None:
        return parts, rows
    pairs = zip(parts.tolist(), rows.tolist(), strict=True)
    wanted = np.isin(np.fromiter((key_hash(keys[part][row]) for part, row in pairs), np.uint64, n), only)
    return parts[wanted], rows[wanted]


def _stream(texts: Texts, part: int) -> Iterator[tuple[bytes, int, int]]:
    return ((key, -part, row) for row, key in enumerate(texts))


def _gathered(
    columns: Sequence[NDArray[Any]], part: NDArray[np.int32], row: NDArray[np.int32], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Rows of several arrays as one."""
    found = np.empty((len(part), *(columns[0].shape[1:] if columns else ())), dtype)
    for each in np.unique(part):
        mine = part == each
        found[mine] = columns[each][row[mine]]
    return found


def _pieces(
    shapes: Mapping[str, Any], read: Sequence[Signatures], part: NDArray[np.int32], row: NDArray[np.int32]
) -> Iterator[Any]:
    """The bytes of the merged columns, chunk by chunk."""
    chunks = [slice(first, first + _CHUNK) for first in range(0, len(part), _CHUNK)]
    for name, (dtype, _) in shapes.items():
        base, ends = name.removesuffix(".ends"), name.endswith(".ends")
        total = 0
        for chunk in chunks:
            texts: list[Texts] = [getattr(each, base) for each in read] if base in ("keys", "groups") else []
            if texts and not any(each.blob.size for each in texts):
                found: NDArray[Any] = np.zeros(len(part[chunk]) if ends else 0, dtype)
            elif texts:
                pairs = zip(part[chunk].tolist(), row[chunk].tolist(), strict=True)
                picked = Texts.of([texts[each][line] for each, line in pairs])
                found = picked.ends + total if ends else picked.blob
                total = int(found[-1]) if ends else 0
            else:
                found = _gathered([getattr(each, name) for each in read], part[chunk], row[chunk], dtype)
            if found.size:
                yield _bytes(found)
