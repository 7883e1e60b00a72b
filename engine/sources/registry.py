"""From what the user names to a source: ``scheme:rest``; what has no scheme is files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from ...errors import ConfigError, SourceError
from ...messages import redact
from ...registry import Registry, scheme_of
from .base import Source
from .files import FileSource
from .paths import is_url
from .selection import ALL, Selection
from .specs import matches
from .walk import is_pattern


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a source is made with besides its specs.

    Attributes:
        selection: what is wanted of folders.
        stdin: what ``-`` reads; standard input by default.
        null: paths in lists end with NUL rather than with a line's end.
        later: look at what the specs name when the first entry is asked for, not now: a job that goes on with its
            listing may never need it.
    """

    selection: Selection = ALL
    stdin: BinaryIO | None = None
    null: bool = False
    later: bool = False


Factory = Callable[[Sequence[str], SourceOptions], Source]
"""Takes all the specs, which have its scheme, whole; the source's `specs` make the same one again in any folder. Raises
SourceError for what is not there."""


def _make_files(specs: Sequence[str], options: SourceOptions) -> Source:
    return FileSource(specs, options.stdin, options.null, later=options.later, selection=options.selection)


FILES: Final = "file"

SCHEMES: dict[str, Factory] = {FILES: _make_files}
"""Scheme -> factory, of what is built in."""

SOURCES: Registry[Factory] = Registry("source", "penstock.sources", SCHEMES)
"""These, and what installed packages bring."""


def open_source(specs: Sequence[str], options: SourceOptions | None = None) -> Source:
    """Make a source. What an existing file has for its name is that file, whatever signs it holds.

    Args:
        specs: folders, files, globs, ``@list.txt``, ``-``, ``file:///folder``; or ``scheme:rest`` of a plugin, one or
            several of the same.
        options: see `SourceOptions`.

    Raises:
        SourceError: there is nothing, the scheme is not known, or sources of several kinds are mixed.
        ConfigError: a plugin is broken, or an option is not for this source.
    """
    options = options or SourceOptions()
    asked = redact(specs[0]) if specs else ""
    source = SOURCES.factory(_common_scheme(specs), asked)(specs, options)
    if source.selection != options.selection:
        given = ", ".join(options.selection.as_options())
        raise ConfigError(f"source: {asked!r} is no folder, which {given} is about")
    if source.null != options.null:
        raise ConfigError(f"null: is about lists of paths, and {asked!r} has none")
    return source


def _common_scheme(specs: Sequence[str]) -> str:
    """The one scheme of all specs.

    Raises:
        SourceError: there are several, or nothing reads what is named.
    """
    named = {scheme for spec in specs if ":" in spec and (scheme := scheme_of(spec))} - {FILES}
    if not named:
        return FILES
    if known := named.intersection(SOURCES.schemes()):
        first = {_known(spec, known): spec for spec in reversed(specs)}
        if len(first) > 1:
            some = " and ".join(repr(redact(spec)) for spec in reversed(first.values()))
            raise SourceError(f"{some} are sources of different kinds: give each to a job of its own")
        return next(iter(first))
    if all(map(_is_nothing, specs)):  # among files, one is like a file that is missing
        scheme = scheme_of(specs[0])
        if scheme and scheme != FILES:
            raise SourceError(f"{redact(specs[0])!r}: {_unread(specs[0], scheme)}")
    return FILES


def _is_nothing(spec: str) -> bool:
    """Whether it has a scheme, and no file has this name, or one that it matches as a glob."""
    return scheme_of(spec) is not None and not os.path.lexists(spec) and not (is_pattern(spec) and matches(spec))


def _unread(spec: str, scheme: str) -> str:
    if is_url(spec):
        return f"{SOURCES.problem(scheme)}; download the pictures, and give the folder"
    return f"there is no such file or folder, and of sources {SOURCES.problem(scheme)}"


def _known(spec: str, known: set[str]) -> str:
    scheme = scheme_of(spec)
    return scheme if scheme in known and not os.path.lexists(spec) else FILES
