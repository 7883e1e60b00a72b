"""The Milvus collection: what it shall be, how it is made, how one that exists is checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import CollectionMismatchError, ConfigError
from ..fields import INTEGERS, MAX_VARCHAR_BYTES, ScalarField
from ..rows import KEY, MAX_KEY_BYTES, VECTOR
from .index_options import Number

METRICS = ("COSINE", "IP", "L2")
MAX_DIMENSION = 32_768

NOTE = "made by penstock "
"""Begins the description of a collection of ours; the note follows."""
NOTE_PROPERTY = "penstock.recipe"
"""Milvus Lite keeps no description, but it keeps properties, where the note stands again."""

COLUMNS = (
    ScalarField("path", "varchar", 4096, default=""),
    ScalarField("width", "int32", default=0),
    ScalarField("height", "int32", default=0),
)
"""Fields of every collection of ours. No picture has the defaults: they stand for null where Milvus has none."""

# The dynamic field itself, and columns of Milvus Lite's storage, which drops metadata of these names silently.
RESERVED = frozenset({KEY, VECTOR, "$meta", "_seq", "_partition"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_VERSION = re.compile(r"v?(\d+)\.(\d+)")
_COLUMN_NAMES = frozenset(column.name for column in COLUMNS)


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What the sink wants its collection to be.

    Raises:
        ConfigError: a name, dimension, metric or field that Milvus does not know, or both kinds of partitions.
    """

    name: str
    dimension: int | None
    """Length of the vectors; None: whatever the existing collection has."""
    metric: str
    index: str
    note: str = ""
    """Kept with a new collection, as its description: what its vectors are made by."""
    index_params: Mapping[str, Number] = field(default_factory=dict[str, Number])
    index_asked: bool = False
    """Whether the index is what the user asked for, and not only what a new collection gets."""
    fields: tuple[ScalarField, ...] = ()
    """Typed columns besides our own, filled from metadata."""
    partition_key: str | None = None
    """Field whose value says in which partition a row lies: the server divides the collection by it."""
    partition: str | None = None
    """The one partition that all is about."""

    def __post_init__(self) -> None:
        _check_name("collection", self.name)
        if self.dimension is not None and not 2 <= self.dimension <= MAX_DIMENSION:
            raise ConfigError(f"dimension: {self.dimension} is not possible, 2 to {MAX_DIMENSION} are")
        if self.metric not in METRICS:
            raise ConfigError(f"metric: {self.metric!r} is none of {', '.join(METRICS)}")
        taken = RESERVED | _COLUMN_NAMES
        for each in self.fields:
            if each.name in taken:
                raise ConfigError(
                    f"field: {each.name!r}: the collection has one of this name already; rename the column"
                )
        if self.partition is not None:
            _check_name("partition", self.partition)
            if self.partition_key is not None:
                raise ConfigError(
                    f"partition {self.partition!r} and partition_key {self.partition_key!r} exclude one another:"
                    " with a key the server makes the partitions; give one of them"
                )
        if self.partition_key is not None and self._key_field().kind not in {"varchar", "int64"}:
            raise ConfigError(f"partition_key: {self.partition_key!r} must be a varchar or an int64")

    def _key_field(self) -> ScalarField:
        name = self.partition_key or ""
        return next((each for each in self.fields if each.name == name), _text_key(name))

    def typed(self) -> tuple[ScalarField, ...]:
        """The typed columns besides our own; the partition key is one of them, and never null."""
        if self.partition_key is None:
            return self.fields
        others = tuple(each for each in self.fields if each.name != self.partition_key)
        return (*others, replace(self._key_field(), nullable=False))


def _text_key(name: str) -> ScalarField:
    return ScalarField(name, "varchar", MAX_VARCHAR_BYTES)


@dataclass(frozen=True, slots=True)
class Layout:
    """What an existing collection takes."""

    dimension: int
    fields: tuple[ScalarField, ...] = ()
    """Its typed columns, besides key and vector; what is in none of them goes into the dynamic field."""
    note: str = ""
    """What the collection was made with; empty for one that was not made by us."""


def knows_null(version: str) -> bool:
    """Whether a server of this version has nullable fields: Milvus 2.5 and later, and Milvus Lite.

    Older ones take the word and forget it: rows without a value are refused later.
    """
    return _at_least(version, (2, 5))


def places_upserts(version: str) -> bool:
    """Whether upserts go by the partition key: Milvus 2.4 and later, and Milvus Lite.

    Seen on 2.3.5 (milvus issue 30607): they go by a hash of the primary key, and a search by the partition key, which
    looks into one partition only, finds nothing.
    """
    return _at_least(version, (2, 4))


def _at_least(version: str, least: tuple[int, int]) -> bool:
    match = _VERSION.match(version)
    return match is None or (int(match[1]), int(match[2])) >= least


def make_schema(client: Any, spec: CollectionSpec, nulls: bool) -> Any:
    """The pymilvus schema of a new collection: our fields, the user's, and a dynamic one for the rest.

    Args:
        client: of pymilvus.
        spec: what it shall be.
        nulls: whether the server knows nullable fields.
    """
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=True, description=NOTE + spec.note)
    schema.add_field(KEY, DataType.VARCHAR, is_primary=True, max_length=MAX_KEY_BYTES)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=spec.dimension)
    for each in (*COLUMNS, *spec.typed()):
        more: dict[str, Any] = {"max_length": each.length} if each.length else {}
        if each.name == spec.partition_key:
            more["is_partition_key"] = True
        schema.add_field(each.name, DataType[each.kind.upper()], nullable=nulls and each.nullable, **more)
    return schema


def check_collection(description: Mapping[str, Any], spec: CollectionSpec) -> Layout:
    """Check what `describe_collection` says of an existing collection.

    Raises:
        CollectionMismatchError: it does not fit; names every difference and the ways out.
    """
    fields: dict[str, Mapping[str, Any]] = {each["name"]: each for each in description["fields"]}
    dimension = int(fields.get(VECTOR, {}).get("params", {}).get("dim", 0))
    there = {each.name: each for each in map(_scalar, fields.values()) if each is not None}
    wrong = [*_wrong_key(description, fields), *_wrong_fields(description, fields, spec)]
    wrong += [*_wrong_types(there, spec), *_wrong_partitions(fields, spec)]
    if dimension and spec.dimension not in {None, dimension}:
        wrong.append(f"its vectors have {dimension} dimensions, this job makes {spec.dimension}")
    if wrong:
        raise mismatch(spec.name, wrong)
    return Layout(dimension, tuple(there.values()), note_of(description))


def _scalar(described: Mapping[str, Any]) -> ScalarField | None:
    """A field of a collection as one of ours; None for the key, vectors, and what has a default of its own."""
    kind, name = _type_name(described).lower(), str(described["name"])
    if described.get("is_primary") or kind not in {"bool", *INTEGERS, "float", "double", "varchar", "json"}:
        return None
    nullable = bool(described.get("nullable"))
    if name.startswith("$") or (described.get("default_value") is not None and not nullable):
        return None
    length = int(described.get("params", {}).get("max_length", MAX_VARCHAR_BYTES)) if kind == "varchar" else 0
    default = next((column.default for column in COLUMNS if column.name == name), None)
    return ScalarField(name, kind, length, nullable, default)


def note_of(description: Mapping[str, Any]) -> str:
    """What a collection was made with, of what `describe_collection` says; empty for one that was not made by us."""
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


def other_index(described: Mapping[str, Any], spec: CollectionSpec) -> str:
    """How an existing index differs from one that the user asked for, in words; empty where it does not.

    Milvus Lite does not tell an index's parameters, so only its type is compared there.
    """
    if not spec.index_asked:
        return ""
    there = str(described["index_type"])
    wrong = [f"its index is {there}, not {spec.index}"] * (there != spec.index)
    wrong += [
        f"its index has {name}={described[name]}, not {value}"
        for name, value in spec.index_params.items()
        if there == spec.index and str(described.get(name, value)) != str(value)
    ]
    return "; ".join(wrong)


def mismatch(name: str, differences: list[str]) -> CollectionMismatchError:
    """The error for a collection that exists and does not fit."""
    return CollectionMismatchError(
        f"collection {name!r} exists and does not fit: {'; '.join(differences)}."
        " Choose another collection name (--collection), or replace this one (--overwrite), or ask for what it has"
    )


def _wrong_key(description: Mapping[str, Any], fields: Mapping[str, Mapping[str, Any]]) -> list[str]:
    keys = [each for each in fields.values() if each.get("is_primary")]
    wrong: list[str] = []
    if description.get("auto_id") or any(each.get("auto_id") for each in keys):
        wrong.append("it has autoID, so a row that is written twice is there twice; penstock needs its own keys")
    return wrong + [
        f"its primary key is {each['name']!r} ({_type_name(each)}), not {KEY!r} (VARCHAR)"
        for each in keys
        if each["name"] != KEY or _type_name(each) != "VARCHAR"
    ]


def _wrong_fields(
    description: Mapping[str, Any], fields: Mapping[str, Mapping[str, Any]], spec: CollectionSpec
) -> list[str]:
    wrong: list[str] = []
    if VECTOR not in fields or _type_name(fields[VECTOR]) != "FLOAT_VECTOR":
        wrong.append(f"it has no FLOAT_VECTOR field {VECTOR!r}")
    if not description.get("enable_dynamic_field"):
        wrong.append("it has no dynamic field for metadata")
    filled = {KEY, VECTOR, *_COLUMN_NAMES, *(each.name for each in spec.typed())}
    for name, each in fields.items():
        optional = name.startswith("$") or each.get("nullable") or each.get("default_value") is not None
        # Searching (no dimension) fills nothing, so nothing can be missing.
        if name not in filled and not optional and spec.dimension is not None:
            declared = _scalar(each)
            way = f" (--field {name}:{declared.declared} fills it from metadata)" if declared else ""
            wrong.append(f"its field {name!r} is required, and this job does not fill it{way}")
    return wrong


def _wrong_types(there: Mapping[str, ScalarField], spec: CollectionSpec) -> list[str]:
    wrong: list[str] = []
    for asked in spec.typed():
        has = there.get(asked.name)
        if has is None:
            wrong.append(f"it has no field {asked.name!r} ({asked.declared})")
        elif has.kind != asked.kind or has.length < asked.length:
            wrong.append(f"its field {asked.name!r} is {has.declared}, this job asks for {asked.declared}")
    for ours in COLUMNS:
        has = there.get(ours.name)
        if has and (has.kind in INTEGERS) != (ours.kind in INTEGERS):
            wrong.append(f"its field {ours.name!r} is {has.declared}, the pictures' is {ours.declared}")
    return wrong


def _wrong_partitions(fields: Mapping[str, Mapping[str, Any]], spec: CollectionSpec) -> list[str]:
    key = next((name for name, each in fields.items() if each.get("is_partition_key")), None)
    if spec.partition is not None and key is not None:
        return [f"the server divides it by its partition key {key!r}, so it has no partition {spec.partition!r}"]
    if spec.partition_key not in {None, key}:
        return [f"its partition key is {key!r}, this job asks for {spec.partition_key!r}"]
    return []


def _type_name(described: Mapping[str, Any]) -> str:
    return str(getattr(described.get("type"), "name", described.get("type")))


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{what}: {name!r:.100} is not a name Milvus takes: a letter or _, then letters, digits, _")
