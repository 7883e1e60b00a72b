"""Samples, as WebDataset has them: members that share a name up to its first dot, and metadata among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ....errors import ReadError
from ....references import Reference
from ..row_columns import as_columns, loads
from .place import Place

if TYPE_CHECKING:
    from .reader import TarReader

SIDECARS: Final = ("json", "txt", "cls")
"""Kinds of members that are metadata: an object, a text, a class."""

_LARGEST: Final = 64 * 1024
"""Bytes of one: no store takes more with a row."""

_NAME: Final = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)", re.DOTALL)


def sample_of(name: str) -> tuple[str, str]:
    """The name of a member's sample, and what it is in it: ``a/b.seg.PNG`` is the ``seg.png`` of ``a/b``."""
    found = _NAME.fullmatch(name)
    return (found[1], found[2].lower()) if found else (name, "")


def columns_of(reader: TarReader, reference: Reference) -> Mapping[str, Any]:
    """The metadata beside a picture.

    Raises:
        ReadError: it cannot be read, or is not what its name says.
    """
    columns: dict[str, Any] = {}
    place = Place.of(reference.ref, reference.version)
    for one in place.sidecars:
        if one.size > _LARGEST:
            raise ReadError(f"its metadata, the .{one.kind}, has {one.size:,} bytes; {_LARGEST:,} are the most")
        columns |= _columns(one.kind, reader.beside(reference, place, one.offset, one.size))
    return as_columns(columns)


def _columns(kind: str, data: bytes) -> dict[str, Any]:
    try:
        text = data.decode("utf-8-sig")
        if kind == "json":
            value = loads(text)
            return value if isinstance(value, dict) else {kind: value}
    except (ValueError, RecursionError) as error:
        raise ReadError(f"its metadata, the .{kind}, cannot be read: {error}") from None
    text = text.strip()
    return {kind: int(text) if kind == "cls" and re.fullmatch(r"-?\d{1,18}", text) else text}
