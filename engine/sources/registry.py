"""From what the user names to a source: ``scheme:rest``; what has no scheme is files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Final, cast

from ...errors import ConfigError, SourceError
from ...messages import redact
from ...object_stores.urls import is_store_url
from ...registry import Registry, scheme_of
from .base import Source
from .files import FileSource
from .options import Factory, SourceOptions
from .paths import is_url, path_of_url
from .specs import is_list, matches
from .walk import is_pattern


def _make_files(specs: Sequence[str], options: SourceOptions) -> Source:
    return FileSource(
        *(specs, options.stdin, options.null),
        later=options.later,
        selection=options.selection,
        urls=options.urls,
        media=options.media,
    )


def _in(module: str, name: str) -> Factory:
    """The factory of a part that is imported by those only who have such a source."""

    def make(specs: Sequence[str], options: SourceOptions) -> Source:
        factory = cast("Factory", getattr(import_module(module, __package__), name))
        return factory(specs, options)

    return make


FILES: Final = "file"

_WEB: Final = frozenset({"http", "https"})
"""Schemes of single pictures: they stand beside files, and in lists of them."""

SCHEMES: dict[str, Factory] = {
    FILES: _make_files,
    **dict.fromkeys(sorted(_WEB), _make_files),
    **dict.fromkeys(("s3", "gs", "az"), _in(".object_store", "make_objects")),
    "arrow": _in(".tables.source", "make_arrow"),
    "lance": _in(".tables.source", "make_lance"),
    "parquet": _in(".tables.source", "make_parquet"),
    "wds": _in(".tars.source", "make_tars"),
}
"""Scheme -> factory, of what is built in."""

_FOLDER: Final = ".lance"
"""Ends the names of tables that are folders."""

SUFFIXES: dict[str, str] = {
    ".parquet": "parquet",
    **dict.fromkeys((".arrow", ".feather"), "arrow"),
    _FOLDER: "lance",
    **dict.fromkeys((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"), "wds"),
}
"""How the names of files end that hold pictures, and by which scheme they are read where nothing else is named."""

SOURCES: Registry[Factory] = Registry("source", "penstock.sources", SCHEMES)
"""These, and what installed packages bring."""


def open_source(specs: Sequence[str], options: SourceOptions | None = None) -> Source:
    """Make a source. What an existing file has for its name is that file, whatever signs it holds.

    Args:
        specs: folders, files, globs, ``@list.txt``, ``-``, ``file:///folder``, ``https://host/picture.jpg``; or
            ``s3://bucket/folder``, ``gs://``, ``az://``, or ``scheme:rest`` of a plugin, one or several of the same.
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
    if source.media != options.media:
        raise SourceError(f"{asked!r} has no {options.media.noun}s: give files, folders, lists, or URLs of them")
    return source


def _common_scheme(specs: Sequence[str]) -> str:
    """The one scheme of all specs.

    Raises:
        SourceError: there are several, or nothing reads what is named.
    """
    if specs and (scheme := _by_suffix(specs[0])) and all(_by_suffix(spec) == scheme for spec in specs):
        return scheme
    named = {scheme for spec in specs if ":" in spec and (scheme := scheme_of(spec))} - {FILES, *_WEB}
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
        if scheme and scheme not in (FILES, *_WEB):
            raise SourceError(f"{redact(specs[0])!r}: {_unread(specs[0], scheme)}")
    return FILES


def _by_suffix(spec: str) -> str | None:
    """The scheme of a file, or of several by a glob or braces, whose name tells it; also of one that is not there."""
    name = spec.rpartition("?")[0] if "?" in spec and "=" in spec else spec
    end = next((end for end in SUFFIXES if name[-8:].lower().endswith(end)), None)
    path = path_of_url(name)
    if end is None or is_list(spec) or (end != _FOLDER and os.path.isdir(path)):  # noqa: PTH112
        return None
    return SUFFIXES[end] if is_store_url(path) or scheme_of(path) not in SOURCES.built_in else None


def _is_nothing(spec: str) -> bool:
    """Whether it has a scheme, and no file has this name, or one that it matches as a glob."""
    return scheme_of(spec) is not None and not os.path.lexists(spec) and not (is_pattern(spec) and matches(spec))


def _unread(spec: str, scheme: str) -> str:
    if is_url(spec):
        return f"{SOURCES.problem(scheme)}; download the pictures, and give the folder"
    return f"there is no such file or folder, and of sources {SOURCES.problem(scheme)}"


def _known(spec: str, known: set[str]) -> str:
    scheme = scheme_of(spec)
    if scheme in known and not os.path.lexists(spec):
        return scheme
    return _by_suffix(spec) or FILES
