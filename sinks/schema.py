"""The Milvus collection: its fields, how it is made, how one that exists is checked, how a row becomes fields."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CollectionMismatchError, ConfigError, RowRefusedError
from .base import MAX_KEY_BYTES, RowBatch

KEY, VECTOR = "key", "vector"
METRICS = ("COSINE", "IP", "L2")
MAX_PATH_BYTES = 4096
MAX_METADATA_BYTES = 65_536
"""Milvus' own limit on the dynamic field of a row, as JSON. Milvus Lite has none; rows must fit both."""

MAX_DIMENSION = 32_768

NOTE = "made by penstock "
"""Begins the description of a collection of ours; the note follows."""
NOTE_PROPERTY = "penstock.recipe"
"""Milvus Lite keeps no description, but it keeps properties, where the note stands again."""

_COLUMNS = ("path", "width", "height")
# The dynamic field itself, and columns of Milvus Lite's storage, which drops metadata of these names silently.
_RESERVED = frozenset({KEY, VECTOR, "$meta", "_seq", "_partition"})
_COLLECTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What the sink wants its collection to be.

    Raises:
        ConfigError: a name, dimension or metric that Milvus does not know.
    """

    name: str
    dimension: int | None
    """Length of the vectors; None: whatever the existing collection has."""
    metric: str
    index: str
    note: str = ""
    """Kept with a new collection, as its description: what its vectors are made by."""

    def __post_init__(self) -> None:
        if not _COLLECTION_NAME.fullmatch(self.name):
            raise ConfigError(
                f"collection: {self.name!r:.100} is not a name Milvus takes: a letter or _, then letters, digits, _"
            )
        if self.dimension is not None and not 2 <= self.dimension <= MAX_DIMENSION:
            raise ConfigError(f"dimension: {self.dimension} is not possible, 2 to {MAX_DIMENSION} are")
        if self.metric not in METRICS:
            raise ConfigError(f"metric: {self.metric!r} is none of {', '.join(METRICS)}")


@dataclass(frozen=True, slots=True)
class Layout:
    """What an existing collection takes."""

    dimension: int
    nullable: frozenset[str]
    """Of path, width and height those that are fields which may be null."""
    note: str = ""
    """What the collection was made with; empty for one that was not made by us."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search."""

    key: str
    score: float
    """COSINE and IP: larger is nearer. L2: smaller is nearer."""
    path: str | None
    width: int | None
    height: int | None
    metadata: dict[str, Any]


def make_schema(client: Any, spec: CollectionSpec) -> Any:
    """The pymilvus schema of a new collection: our fields, and a dynamic one for the user's metadata."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=True, description=NOTE + spec.note)
    schema.add_field(KEY, DataType.VARCHAR, is_primary=True, max_length=MAX_KEY_BYTES)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=spec.dimension)
    schema.add_field("path", DataType.VARCHAR, max_length=MAX_PATH_BYTES, nullable=True)
    schema.add_field("width", DataType.INT32, nullable=True)
    schema.add_field("height", DataType.INT32, nullable=True)
    return schema


def check_collection(description: Mapping[str, Any], spec: CollectionSpec) -> Layout:
    """Check what `describe_collection` says of an existing collection.

    Raises:
        CollectionMismatchError: it does not fit; names every difference and the ways out.
    """
    fields: dict[str, Mapping[str, Any]] = {field["name"]: field for field in description["fields"]}
    dimension = int(fields.get(VECTOR, {}).get("params", {}).get("dim", 0))
    wrong = [*_wrong_key(description, fields), *_wrong_fields(description, fields)]
    if dimension and spec.dimension not in {None, dimension}:
        wrong.append(f"its vectors have {dimension} dimensions, this job makes {spec.dimension}")
    if wrong:
        raise mismatch(spec.name, wrong)
    nullable = frozenset(name for name in _COLUMNS if fields.get(name, {}).get("nullable"))
    return Layout(dimension, nullable, _note(description))


def _note(description: Mapping[str, Any]) -> str:
    said = str(description.get("description") or "")
    own: Mapping[str, Any] = description.get("properties") or {}
    return str(own.get(NOTE_PROPERTY, said.removeprefix(NOTE) if said.startswith(NOTE) else ""))


def check_metric(metric: str, spec: CollectionSpec) -> None:
    """Check the metric of an existing index.

    Raises:
        CollectionMismatchError: it is another one.
    """
    if metric != spec.metric:
        raise mismatch(spec.name, [f"its index compares by {metric}, this job asks for {spec.metric}"])


def mismatch(name: str, differences: list[str]) -> CollectionMismatchError:
    """The error for a collection that exists and does not fit."""
    return CollectionMismatchError(
        f"collection {name!r} exists and does not fit: {'; '.join(differences)}."
        " Choose another collection name (--collection), or drop this one, or ask for what it has"
    )


def _wrong_key(description: Mapping[str, Any], fields: Mapping[str, Mapping[str, Any]]) -> list[str]:
    keys = [field for field in fields.values() if field.get("is_primary")]
    wrong: list[str] = []
    if description.get("auto_id") or any(field.get("auto_id") for field in keys):
        wrong.append("it has autoID, so a row that is written twice is there twice; penstock needs its own keys")
    return wrong + [
        f"its primary key is {field['name']!r} ({_type_name(field)}), not {KEY!r} (VARCHAR)"
        for field in keys
        if field["name"] != KEY or _type_name(field) != "VARCHAR"
    ]


def _wrong_fields(description: Mapping[str, Any], fields: Mapping[str, Mapping[str, Any]]) -> list[str]:
    wrong: list[str] = []
    if VECTOR not in fields or _type_name(fields[VECTOR]) != "FLOAT_VECTOR":
        wrong.append(f"it has no FLOAT_VECTOR field {VECTOR!r}")
    if not description.get("enable_dynamic_field"):
        wrong.append("it has no dynamic field for metadata")
    for name, field in fields.items():
        ours = name in {KEY, VECTOR, *_COLUMNS} or name.startswith("$")
        if not ours and not field.get("nullable") and field.get("default_value") is None:
            wrong.append(f"its field {name!r} is required, and this job does not fill it")
    return wrong


def _type_name(field: Mapping[str, Any]) -> str:
    return str(getattr(field.get("type"), "name", field.get("type")))


def encode_row(rows: RowBatch, index: int, layout: Layout) -> tuple[dict[str, Any], int]:
    """One row as Milvus takes it, and about how many bytes it is on the wire.

    Raises:
        RowRefusedError: metadata with a reserved name, that is not JSON, or too large.
    """
    columns = rows.columns[index]
    row: dict[str, Any] = {KEY: rows.keys[index], VECTOR: rows.vectors[index]}
    for name in _COLUMNS:
        value = columns.get(name)
        # Null is sent, not left out: Milvus Lite's upsert keeps the old value of what is left out.
        if value is not None or name in layout.nullable:
            row[name] = _printable(value) if isinstance(value, (str, os.PathLike)) else _plain(value)
    metadata = {name: value for name, value in columns.items() if name not in _COLUMNS and value is not None}
    size = 0
    if metadata:
        text = _metadata_json(rows.keys[index], metadata)
        size = len(text)
        row.update(json.loads(text))
    return row, 4 * rows.vectors.shape[1] + size + len(str(row.get("path", ""))) + 2 * MAX_KEY_BYTES


def _metadata_json(key: str, metadata: dict[Any, Any]) -> bytes:
    for name in metadata:
        if not isinstance(name, str) or not name or name in _RESERVED:
            raise RowRefusedError(f"row {key!r}: metadata cannot be named {name!r}; rename that column")
    try:
        text = json.dumps(metadata, default=_jsonable, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:  # ValueError: NaN, a cycle, a lone surrogate
        raise RowRefusedError(f"row {key!r}: its metadata is not JSON: {error}") from error
    if len(text) > MAX_METADATA_BYTES:
        raise RowRefusedError(
            f"row {key!r}: its metadata has {len(text)} bytes as JSON, Milvus takes {MAX_METADATA_BYTES}; keep less"
        )
    return text


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return _printable(value)
    raise TypeError(f"it holds an object of type {type(value).__name__}")


def _printable(path: str | os.PathLike[Any]) -> str:
    """The path as valid Unicode: bytes that are not UTF-8 appear as ``\\xe9``. The key still tells such paths apart."""
    name = os.fspath(path)
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")


def decode_hit(entity: Mapping[str, Any], score: float) -> Hit:
    """A `Hit` from the fields that Milvus answered."""
    known = {KEY, VECTOR, *_COLUMNS}
    return Hit(
        key=str(entity[KEY]),
        score=score,
        path=entity.get("path"),
        width=entity.get("width"),
        height=entity.get("height"),
        metadata={name: value for name, value in entity.items() if name not in known},
    )
