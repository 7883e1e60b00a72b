"""The columns of a row as a store takes them: typed ones fitted, all others as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Mapping, Sequence
from typing import Any

from ..errors import RowRefusedError
from .fields import ScalarField, jsonable, printable


def split_columns(
    key: str, columns: Mapping[str, Any], fields: Sequence[ScalarField]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row's columns as values of the typed fields, all of them, and the rest, without what is None.

    Raises:
        RowRefusedError: a value that does not fit its field, or none where one is needed.
    """
    path = columns.get("path")
    if isinstance(path, (str, os.PathLike)):
        columns = {**columns, "path": printable(path)}
    # Null is sent, not left out: Milvus Lite's upsert keeps the old value of what is left out.
    typed = {field.name: _value(key, field, columns.get(field.name)) for field in fields}
    rest = {name: value for name, value in columns.items() if name not in typed and value is not None}
    return typed, rest


def _value(key: str, field: ScalarField, value: Any) -> Any:
    if value is None:
        if field.nullable or field.default is not None:
            return None if field.nullable else field.default
        raise RowRefusedError(f"row {key!r}: it has no {field.name!r}, and that field of the collection is required")
    try:
        return field.fitted(value)
    except ValueError as error:
        raise RowRefusedError(
            f"row {key!r}: {field.name!r} does not fit its field ({field.declared}): {error}"
        ) from error


def metadata_json(key: str, metadata: Mapping[Any, Any], reserved: Container[str] = frozenset()) -> bytes:
    """What of a row has no typed column, as JSON.

    Raises:
        RowRefusedError: a name that is no text, empty or reserved, or a value that is not JSON.
    """
    for name in metadata:
        if not isinstance(name, str) or not name or name in reserved:
            raise RowRefusedError(f"row {key!r}: metadata cannot be named {name!r}; rename that column")
    try:
        return json.dumps(metadata, default=jsonable, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:  # ValueError: NaN, a cycle, a lone surrogate
        raise RowRefusedError(f"row {key!r}: its metadata is not JSON: {error}") from error
