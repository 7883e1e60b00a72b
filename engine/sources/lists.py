"""Lists of paths: ``@list.txt`` and standard input, one path a line or ended by NUL."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import BinaryIO, Final

from ...errors import ReadError, SourceError
from .kinds import SNIFFED_BYTES, looks_like_picture
from .paths import Found

_CHUNK = 64 * 1024
_LONGEST = 1024 * 1024
"""Bytes. No system has paths that long, so what has no end by then is no list of paths."""

_LONGEST_PATH: Final = 4096
"""Bytes: PATH_MAX."""

_SHOWN: Final = 200
"""Characters of a line that is no path: it may be a megabyte."""

_BOM: Final = b"\xef\xbb\xbf"

_OTHERS: Final = (
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3\0", "an SQLite file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (b"\xfd7zXZ\0", "xz-compressed"),
    (b"%PDF-", "a PDF"),
)
"""What people take for lists, by its first bytes."""

_UNPRINTED: Final = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f]")


def open_list(path: str) -> BinaryIO:
    """Open a list.

    Raises:
        SourceError: it cannot be opened.
    """
    try:
        return open(path, "rb")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        knob = "; to embed what is in the folder, leave out the @" if isinstance(error, IsADirectoryError) else ""
        raise SourceError(f"the list {path!r} cannot be opened: {why}{knob}") from error


def check_list(path: str, null: bool) -> None:
    """Refuse what is no list, as far as its beginning tells. Of what can be read only once nothing is read.

    Raises:
        SourceError: it cannot be opened, or is no list of paths.
    """
    if _comes_once(path):
        return  # and to open a FIFO and close it again would end whoever writes to it
    with open_list(path) as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            _refuse_others(_read(file, f"@{path}"), f"@{path}", null)


def _comes_once(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)  # noqa: PTH116
    except (OSError, ValueError):
        return False


def read_paths(file: BinaryIO, name: str, null: bool) -> Iterator[tuple[int, bytes]]:
    """The paths in a list with the numbers of their lines, from 1, as soon as they can be read.

    Empty lines and lines that begin with ``#`` are passed over, and a byte order mark of UTF-8; with ``null``, where
    programs write and not people, a path may begin as it likes.

    Args:
        file: opened for bytes; names need not be UTF-8.
        name: for messages.
        null: paths end with NUL (``find -print0``) rather than with a line's end.

    Raises:
        SourceError: it cannot be read, or is no list of paths.
    """
    end = b"\0" if null else b"\n"
    number = 0
    rest = b""
    while chunk := _read(file, name):
        if not number:
            _refuse_others(rest + chunk, name, null)
        *lines, rest = (rest + chunk).split(end)
        for number, line in enumerate(lines, number + 1):  # noqa: B020
            if path := _path(line, number, null):
                yield number, path
        if len(rest) > _LONGEST:
            raise SourceError(f"{name} is no list of paths: no path ends within {_LONGEST} bytes; {_knob(null)}")
    if path := _path(rest, number + 1, null):
        yield number + 1, path


def broken_line(line: bytes, where: str) -> Found | None:
    """What is to be said of a line that cannot be a path; None for others."""
    if b"\0" in line:
        problem = "no path holds a NUL byte; is the list ended by NUL? add --null"
    elif len(line) > _LONGEST_PATH:
        problem = f"cannot be read: no path is longer than {_LONGEST_PATH:,} bytes, and this has {len(line):,}"
    else:
        return None
    text = os.fsdecode(line)
    return Found(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({where})", ReadError(problem))


def _path(line: bytes, number: int, null: bool) -> bytes:
    """The path in a line; nothing if there is none."""
    if null:
        return line
    line = line.removeprefix(_BOM) if number == 1 else line
    return b"" if line.startswith(b"#") else line.removesuffix(b"\r")


def _refuse_others(head: bytes, name: str, null: bool) -> None:
    """A file of another kind would be one dead letter after another, of its bytes."""
    what = next((what for magic, what in _OTHERS if head.startswith(magic)), None)
    if what is None and head[257:262] == b"ustar":
        what = "a tar archive"
    if what is not None:
        knob = "write the paths to a text file, one a line, and give that as @FILE"
    elif looks_like_picture(head[:SNIFFED_BYTES]):
        what, knob = "a picture", "to embed it, leave out the @"
    elif head[:2] in (b"\xff\xfe", b"\xfe\xff") and b"\0" in head[2:4]:
        what, knob = "text in UTF-16", "write it in UTF-8"
    elif len(_UNPRINTED.findall(head)) > len(head) // 50:
        what, knob = "binary", "it must be a text file with one path a line"
    elif head.count(b"\n" if null else b"\0") > 1 and (b"\0" if null else b"\n") not in head:
        what, knob = "one path only", _knob(null)
    else:
        return
    raise SourceError(f"{name} is no list of paths but {what}: {knob}")


def _knob(null: bool) -> str:
    return "it seems to have one path per line: leave out --null" if null else "is it ended by NUL? add --null"


def _read(file: BinaryIO, name: str) -> bytes:
    # read1: a list that is still being written (find | penstock embed -) is used as it comes.
    read = getattr(file, "read1", file.read)
    try:
        chunk: bytes = read(_CHUNK)
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from error
    return chunk
