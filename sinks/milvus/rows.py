"""Rows on their way into Milvus and back: typed fields, and what has no field of its own in the dynamic one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...errors import RowRefusedError
from ..base import Hit
from ..columns import metadata_json, split_columns
from ..rows import KEY, MAX_KEY_BYTES, VECTOR, RowBatch
from .schema import COLUMNS, RESERVED, Layout

MAX_METADATA_BYTES = 65_536
"""Milvus' own limit on the dynamic field of a row, as JSON. Milvus Lite has none; rows must fit both."""

_COLUMN_NAMES = frozenset(field.name for field in COLUMNS)


def encode_row(rows: RowBatch, index: int, layout: Layout) -> tuple[dict[str, Any], int]:
    """One row as Milvus takes it, and about how many bytes it is on the wire.

    Raises:
        RowRefusedError: a value that does not fit its field, or metadata with a reserved name, that is not JSON, or too
            large.
    """
    key = rows.keys[index]
    fields, metadata = split_columns(key, rows.columns[index], layout.fields)
    row: dict[str, Any] = {KEY: key, VECTOR: rows.vectors[index], **fields}
    size = 4 * rows.vectors.shape[1] + 2 * MAX_KEY_BYTES
    size += sum(len(value) if isinstance(value, str) else 8 for value in fields.values())
    if metadata:
        text = metadata_text(key, metadata)
        row.update(json.loads(text))
        size += len(text)
    return row, size


def metadata_text(key: str, metadata: Mapping[Any, Any]) -> bytes:
    """The dynamic field of a row, as JSON.

    Raises:
        RowRefusedError: a reserved name, a value that is not JSON, or too much of it.
    """
    text = metadata_json(key, metadata, RESERVED)
    if len(text) > MAX_METADATA_BYTES:
        raise RowRefusedError(
            f"row {key!r}: its metadata has {len(text)} bytes as JSON, Milvus takes {MAX_METADATA_BYTES}; keep less"
        )
    return text


def decode_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row that Milvus answered, without what is null or stands for it."""
    absent = {field.name: field.default for field in COLUMNS}
    return {
        name: value
        for name, value in row.items()
        if value is not None and name not in {KEY, VECTOR} and not (name in absent and value == absent[name])
    }


def decode_hit(entity: Mapping[str, Any], score: float) -> Hit:
    """A `Hit` from the fields that Milvus answered."""
    columns = decode_columns(entity)
    return Hit(
        key=str(entity[KEY]),
        score=score,
        path=columns.get("path"),
        width=columns.get("width"),
        height=columns.get("height"),
        metadata={name: value for name, value in columns.items() if name not in _COLUMN_NAMES},
    )
