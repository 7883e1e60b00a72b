"""Pictures on disk: folders, files, globs and lists of paths, in a fixed order, in constant memory but for the names
of one folder, about 270 bytes each while it is listed."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ...errors import ReadError, SourceError
from .base import Broken, Entry, Filtered, Item, key_of
from .kinds import has_picture_name, looks_like_picture, read_head
from .lists import read_paths
from .walk import Found, Root, is_pattern, look

STDIN = "-"


@dataclass(frozen=True, slots=True)
class _List:
    """A list of paths: a file, or None for standard input."""

    path: str | None


class FileSource:
    """What the user named on the command line, as entries; see ``Source``.

    Each spec is a folder (walked to its end), a file, a glob (``*``, ``?``, ``[...]``, ``**``), ``@list.txt`` (a file
    of paths, one a line) or ``-`` (such a list on standard input). A name that exists is taken literally; a file whose
    name begins with ``@`` is ``./@name``. Roots that overlap are read once; lists are taken as they are.

    A file with the name of a picture is a candidate, also in formats that are not decoded: those end as dead letters.
    Of other files the first 16 bytes are looked at: a picture is a candidate, the rest is filtered. What is listed and
    missing, folders that cannot be listed, and what is no regular file are ``Broken``; the latter are never opened.

    Args:
        specs: at least one.
        stdin: what ``-`` reads; standard input by default. It can be read once.
        null: paths in lists end with NUL rather than with a line's end.
        later: look at the specs when the first entry is asked for, not now: what is wrong with them is raised then.

    Raises:
        SourceError: nothing lies at a spec, or a pattern matches nothing, or a list cannot be opened.
    """

    def __init__(
        self, specs: str | Sequence[str], stdin: BinaryIO | None = None, null: bool = False, *, later: bool = False
    ) -> None:
        self.specs = (specs,) if isinstance(specs, str) else tuple(specs)
        self.null = null
        self._stdin = stdin
        if not self.specs:
            raise SourceError("no source: give a folder, a file, a glob, @list.txt or -")
        if self.specs.count(STDIN) > 1:
            raise SourceError("standard input (-) can be read once: give - once")
        self._parts = None if later else self._parsed()
        self._total: int | None = None

    def __iter__(self) -> Iterator[Entry]:
        return (_entry(found) for _, found in self._found())

    def parts(self) -> Iterator[tuple[int, Entry]]:
        """The entries, each with the index of the spec it comes from."""
        return ((part, _entry(found)) for part, found in self._found())

    def total(self) -> int | None:
        """How many entries there will be, once `count` has found out."""
        return self._total

    def count(self, seconds: float = 10.0) -> None:
        """Begin to count entries in a thread, for the time left. Gives up after so many seconds, or at standard input.

        Nothing is opened but lists: the names are counted.
        """
        if STDIN not in self.specs:
            threading.Thread(target=self._count, args=(seconds,), name="penstock-count", daemon=True).start()

    def _count(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        number = 0
        try:
            for number, _ in enumerate(self._found(), 1):
                if number % 256 == 0 and time.monotonic() > end:
                    return
        except SourceError:
            return  # a list went away; whoever iterates is told
        self._total = number

    def _parsed(self) -> list[Root | _List]:
        return [_parse(spec) for spec in self.specs]

    def _found(self) -> Iterator[tuple[int, Found]]:
        earlier: list[Root] = []
        self._parts = self._parts or self._parsed()
        for number, part in enumerate(self._parts):
            if isinstance(part, Root):
                yield from ((number, found) for found in part.walk(earlier))
                earlier.append(part)
            else:
                for path in self._paths(part):
                    listed = Root.of(os.fsdecode(path)).walk() if b"\0" not in path else _with_nul(path)
                    yield from ((number, found) for found in listed)

    def _paths(self, part: _List) -> Iterator[bytes]:
        if part.path is None:
            yield from read_paths(self._stdin or sys.stdin.buffer, "standard input", self.null)
            return
        with _open(part.path) as file:
            yield from read_paths(file, part.path, self.null)


def look_again(path: str, why: str) -> Entry:
    """What lies now where something was broken when it was listed. A folder still is: what it holds is not listed.

    Args:
        path: where.
        why: what was said of it then.
    """
    found = look(path)
    if found.linked_folder:
        return Broken(key_of(path), ReadError(f"{why} (a folder: --update looks into it again)"))
    return _entry(found)


def _parse(spec: str) -> Root | _List:
    if spec == STDIN:
        return _List(None)
    if spec.startswith("@") and len(spec) > 1:
        _open(spec[1:]).close()
        return _List(spec[1:])
    if spec and os.path.lexists(spec):
        return Root.of(spec)
    if is_pattern(spec):
        root = Root.of_pattern(spec)
        if not Path(root.base).is_dir() or next(root.walk(), None) is None:
            raise SourceError(f"{spec!r} matches nothing")
        return root
    raise SourceError(f"{spec!r}: there is no such file or folder")


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise SourceError(f"the list {path!r} cannot be opened: {error.strerror}") from error


def _with_nul(path: bytes) -> Iterator[Found]:
    reason = "no path holds a NUL byte; is the list ended by NUL? add --null"
    yield Found(os.fsdecode(path), ReadError(reason))


def _entry(found: Found) -> Entry:
    """Picture, not a picture, or broken."""
    path, key = found.path, key_of(found.path)
    if found.problem is not None:
        return Broken(key, found.problem)
    if found.linked_folder:
        return Filtered(key, "link to a folder: give it as a source of its own")
    if has_picture_name(os.path.basename(path)):
        return Item(key, path)
    try:
        head = read_head(path)
    except OSError as error:
        return Broken(key, ReadError(f"cannot be read: {error.strerror}"))
    return Item(key, path) if looks_like_picture(head) else Filtered(key, "not a picture")
