"""Lists of paths: ``@list.txt`` and standard input, one path a line or ended by NUL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from ...errors import SourceError

_CHUNK = 64 * 1024
_LONGEST = 1024 * 1024
"""Bytes. No system has paths that long, so what has no end by then is no list of paths."""


def read_paths(file: BinaryIO, name: str, null: bool) -> Iterator[bytes]:
    """The paths in a list, as soon as they can be read; empty lines are passed over.

    Args:
        file: opened for bytes; names need not be UTF-8.
        name: for messages.
        null: paths end with NUL (``find -print0``) rather than with a line's end.

    Raises:
        SourceError: it cannot be read, or is no list of paths.
    """
    end = b"\0" if null else b"\n"
    rest = b""
    while chunk := _read(file, name):
        *whole, rest = (rest + chunk).split(end)
        for path in whole:
            if path := path if null else path.removesuffix(b"\r"):
                yield path
        if len(rest) > _LONGEST:
            knob = "it seems to have one path per line: leave out --null" if null else "is it ended by NUL? add --null"
            raise SourceError(f"{name} is no list of paths: no path ends within {_LONGEST} bytes; {knob}")
    if rest := rest if null else rest.removesuffix(b"\r"):
        yield rest


def _read(file: BinaryIO, name: str) -> bytes:
    # read1: a list that is still being written (find | penstock embed -) is used as it comes.
    read = getattr(file, "read1", file.read)
    try:
        chunk: bytes = read(_CHUNK)
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from error
    return chunk
