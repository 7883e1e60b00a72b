"""Settings that are more than a number or a word, in both spellings: a text on a command line, a mapping in a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, cast

from pydantic import BeforeValidator


def _declarations(value: object) -> object:
    """``year:int64``, several of them, or the mapping they make."""
    if isinstance(value, str):
        value = re.split(r",\s*(?![^(]*\))", value)
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        return value
    found: dict[str, str] = {}
    for part in cast("Iterable[object]", value):
        name, colon, kind = str(part).partition(":")
        if not (name.strip() and colon and kind.strip()):
            raise ValueError("must be NAME:TYPE, as in year:int64 or album:varchar(256)")
        if name.strip() in found:
            raise ValueError(f"{name.strip()} is given twice")
        found[name.strip()] = kind.strip()
    return found


def _parameters(value: object) -> object:
    """``M=16,efConstruction=200``, or the mapping it makes."""
    if not isinstance(value, str):
        return value
    found: dict[str, Any] = {}
    for part in filter(None, re.split(r"[,\s]+", value)):
        name, equals, said = part.partition("=")
        if not (name and equals and said) or name in found:
            raise ValueError("must be NAME=VALUE,NAME=VALUE with each name once, as in M=16,efConstruction=200")
        found[name] = int(said) if re.fullmatch(r"-?\d+", said) else said
    return found


Declarations = Annotated[dict[str, str], BeforeValidator(_declarations)]
"""Name -> type."""

Parameters = Annotated[dict[str, int | float | str], BeforeValidator(_parameters)]
"""Name -> value."""
