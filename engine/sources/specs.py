"""What a user may name as a source, and whether it is there: found out before a job begins."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import SourceError
from ...messages import redact
from .earlier import Earlier
from .kinds import PICTURES
from .lists import check_list
from .paths import is_url, reason, why_unread
from .walk import Root, is_pattern

STDIN = "-"

_SHOWN = 3
"""Sources to name in a message."""


def list_of(spec: str) -> str | None:
    """The path of the list that ``@path`` names; None for anything else."""
    return spec[1:] if spec.startswith("@") and len(spec) > 1 else None


def is_list(spec: str) -> bool:
    """Whether it is a list: ``@path``, or standard input."""
    return spec == STDIN or list_of(spec) is not None


def as_pattern(spec: str) -> bool:
    """Whether it is a glob: nothing has this very name."""
    return is_pattern(spec) and not os.path.lexists(spec)


def check(specs: Iterable[str], null: bool) -> None:
    """Refuse what is not there; lists and globs are looked into.

    A picture that is missing among others that are there is left to be a dead letter: of a million files one may go
    away at any time.

    Args:
        specs: see ``FileSource``.
        null: paths in lists end with NUL.

    Raises:
        SourceError: there is nothing; says what, and what may have been meant.
    """
    missing: str | None = None
    there = False
    for spec in specs:
        # [...] may be part of a name, * and ? hardly are
        is_picture = PICTURES.has_name(spec) and not ("*" in spec or "?" in spec or list_of(spec))
        if is_picture and there:
            continue  # not looked at: of a million that would take as long as the listing
        wrong = _what_is_wrong(spec, null)
        if wrong is None:
            there = True
        elif not is_picture:
            raise SourceError(wrong)
        missing = missing or wrong
    if missing and not there:
        raise SourceError(missing)


def emptiness(specs: Sequence[str]) -> str:
    """Of sources in which there was nothing: what they are, in true words."""
    said = [_emptiness(spec) for spec in specs[:_SHOWN]]
    more = f" and {len(specs) - _SHOWN:,} more sources" if len(specs) > _SHOWN else ""
    return ", ".join(said) + more


def _emptiness(spec: str) -> str:
    if spec == STDIN:
        return "standard input had no paths"
    if (path := list_of(spec)) is not None:
        return f"the list {path!r} has no paths"
    return f"the folder {spec!r} has no files"


def _what_is_wrong(spec: str, null: bool) -> str | None:
    if spec == STDIN:
        return None
    if (path := list_of(spec)) is not None:
        check_list(path, null)
        return None
    try:
        os.lstat(spec)
    except (OSError, ValueError) as error:
        if as_pattern(spec):
            return None if matches(spec) else f"{spec!r} matches nothing"
        if is_url(spec):
            why = why_unread(spec)
            return f"{redact(spec)!r}: {why}" if why else None
        if isinstance(error, OSError) and error.errno == errno.ENOENT:
            return f"{spec!r}: there is no such file or folder"
        return f"{spec!r} cannot be read: {reason(error)}"
    return None


def matches(spec: str) -> bool:
    """Whether there is anything that this glob is about."""
    root = Root.of_pattern(spec)
    return Path(root.base).exists() and next(root.walk(Earlier()), None) is not None
