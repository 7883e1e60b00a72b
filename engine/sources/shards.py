"""Many files by one name: globs, and the braces by which shards of a data set are named (``shards-{000..009}.tar``)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from glob import iglob
from typing import Final

from ...errors import SourceError
from .paths import absolute
from .walk import is_pattern

_BRACES: Final = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]*(?:,[^{},]*)+))\}")


def expanded(pattern: str) -> Iterator[str]:
    """The names that braces stand for: ``{000..009}`` ten numbers, ``{a,b}`` two texts; a file of this name is itself.

    Numbers are as wide as the wider end if it begins with a zero.
    """
    found = None if os.path.lexists(pattern) else _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    first, last, listed = found.groups()
    head, tail = pattern[: found.start()], pattern[found.end() :]
    for choice in _numbers(first, last) if listed is None else listed.split(","):
        yield from expanded(f"{head}{choice}{tail}")


def _numbers(first: str, last: str) -> Iterator[str]:
    width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
    step = 1 if int(first) <= int(last) else -1
    return (f"{number:0{width}}" for number in range(int(first), int(last) + step, step))


def files_named(pattern: str, mark: str) -> list[str]:
    """The files that a name stands for, as absolute paths, each once.

    They come in such an order that the names ``path + mark + ...`` of what is in them come in the order of bytes.

    Args:
        pattern: of the user; braces first, then globs.
        mark: what follows a file's path in the name of a thing in it.
    """
    found: set[str] = set()
    for name in expanded(pattern):
        if is_pattern(name) and not os.path.lexists(name):
            found.update(map(absolute, iglob(name, recursive=True, include_hidden=True)))  # noqa: PTH207  (bytes)
        else:
            found.add(absolute(name))
    return sorted(found, key=lambda path: os.fsencode(path + mark))


def check_named(pattern: str, what: str) -> None:
    """Refuse a name that stands for nothing.

    Args:
        pattern: of the user.
        what: it should be, for the message.

    Raises:
        SourceError: a file that is named is not there, or a glob matches nothing.
    """
    for name in expanded(pattern):
        if os.path.lexists(name):
            continue
        if not is_pattern(name):
            raise SourceError(f"{name!r}: there is no such {what}")
        if next(iglob(name, recursive=True, include_hidden=True), None) is None:  # noqa: PTH207
            raise SourceError(f"{name!r} matches nothing")
