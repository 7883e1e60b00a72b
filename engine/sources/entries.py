"""What a source yields: candidates, what it left out, what is broken; and the keys by which they are known."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import ItemError
from ...references import Reference, Version

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Item:
    """A candidate: something that may be a picture, not opened yet. It has a path, a reference or data.

    Attributes:
        key: what people know it by; valid Unicode, unique in its source, the same in every run.
        path: where it lies, as the operating system knows it (bytes that are not UTF-8 are surrogates).
        data: the bytes of its file, or its pixels, where they are in memory; or why they could not be had.
        metadata: stored with its row.
        ordinal: its position in the listing of a job that keeps books; -1 in others. Also of the entries below.
        version: of its content, where the source has looked already.
        reference: how whoever decodes it reads it, where it is no file.
    """

    key: str
    path: str | None = None
    data: bytes | memoryview | np.ndarray[Any, np.dtype[Any]] | ItemError | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ordinal: int = -1
    version: Version | None = field(default=None, compare=False)
    reference: Reference | None = None


@dataclass(frozen=True, slots=True)
class Filtered:
    """Something that is no picture and was not meant to be one. It is counted, nothing more.

    Attributes:
        key: see `Item`.
        why: one phrase.
    """

    key: str
    why: str
    ordinal: int = -1


@dataclass(frozen=True, slots=True)
class Broken:
    """Something that was asked for and cannot even become a candidate: it is a dead letter.

    Attributes:
        key: see `Item`.
        error: why.
    """

    key: str
    error: ItemError
    ordinal: int = -1


Entry = Item | Filtered | Broken


def key_of(path: str) -> str:
    """The key of a path: the path itself where it is valid Unicode, else the repr of its bytes.

    The two cannot meet: an absolute path begins with a slash, the other with ``b'``.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return repr(_name_of(path))
    return path


def _name_of(path: str) -> bytes:
    """The bytes of a name that is not valid Unicode."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:  # a lone surrogate that never was a byte, from a JSON manifest for example
        return path.encode("utf-8", "surrogatepass")


def path_of(key: str) -> str:
    """The path that `key_of` made this key of."""
    if not key.startswith(("b'", 'b"')):
        return key
    try:
        return os.fsdecode(ast.literal_eval(key))
    except (ValueError, SyntaxError):
        return key
