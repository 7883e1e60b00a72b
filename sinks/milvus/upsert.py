"""One upsert of pymilvus, its message filled column by column.

pymilvus fills it value by value, under the GIL, and makes a Python float of every number: 44 us for a row of 512 floats
and three columns, most of what a writing job spends on the store, and the reason why large calls stall the hub of an
engine beside it. On the wire a packed repeated float is the numbers as they lie in memory, and lists go in whole: 4 us.
The rows have been checked before (`rows`), and the server checks them again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from ..rows import VECTOR

# Inside of pymilvus; looked for before use, because nobody promises that they stay.
_OF_CLIENT = ("_get_connection", "_generate_call_context")
_OF_HANDLER = ("_get_schema", "_stub")

_Field = Mapping[str, Any]

_SCALARS = {
    "BOOL": "bool_data",
    "INT8": "int_data",
    "INT16": "int_data",
    "INT32": "int_data",
    "INT64": "long_data",
    "FLOAT": "float_data",
    "DOUBLE": "double_data",
    "VARCHAR": "string_data",
    "JSON": "json_data",
}
"""Type of a field -> where its values are in a message."""


def upsert(client: Any, collection: str, rows: list[dict[str, Any]], *, partition: str = "", seconds: float) -> None:
    """Upsert rows that each hold float32 `VECTOR` [D], all of one D.

    Never flushes, and tries once: when Milvus answers, its write-ahead log has the rows.

    Raises:
        MilvusException, grpc.RpcError: see `errors`.
    """
    from pymilvus.client.utils import check_status
    from pymilvus.exceptions import SchemaMismatchRetryableException

    if has_inside(client):
        handler, context = client._get_connection(), client._generate_call_context()
        schema, timestamp = handler._get_schema(collection, timeout=seconds, context=context)
        message = message_of(collection, rows, partition, schema, timestamp)
        if message is not None:
            try:
                check_status(_sent(handler, message, context, seconds).status)
            except SchemaMismatchRetryableException:
                pass  # the collection has changed: the long way reads its schema anew
            else:
                return
    client.upsert(collection, rows, timeout=seconds, partition_name=partition, retry_on_rate_limit=False)


def _sent(handler: Any, message: Any, context: Any, seconds: float) -> Any:
    from pymilvus.exceptions import MilvusException

    try:
        return handler._stub.Upsert(message, timeout=seconds, metadata=context.to_grpc_metadata())
    except ValueError as error:  # gRPC's own way to say that another thread has closed the channel meanwhile
        raise MilvusException(message=f"closed channel: {error}") from error


def has_inside(client: Any) -> bool:
    """Whether this pymilvus, on this machine, is built as the short way needs it."""
    return (
        sys.byteorder == "little"
        and all(hasattr(client, name) for name in _OF_CLIENT)
        and all(hasattr(client._get_connection(), name) for name in _OF_HANDLER)
    )


def message_of(
    collection: str, rows: list[dict[str, Any]], partition: str, schema: Mapping[str, Any], timestamp: int
) -> Any:
    """The request; None if there is something in the schema or the rows that only pymilvus knows, or can explain."""
    from pymilvus.grpc_gen import milvus_pb2

    fields: list[_Field] = schema["fields"]
    try:
        data = [_column(field, [row.get(field["name"]) for row in rows]) for field in fields]
        if schema.get("enable_dynamic_field"):
            data.append(_dynamic({field["name"] for field in fields}, rows))
    except (KeyError, TypeError, ValueError):  # an unknown type; a value that is missing, or not of the field's type
        return None
    return milvus_pb2.UpsertRequest(
        collection_name=collection,
        partition_name=partition,
        num_rows=len(rows),
        schema_timestamp=timestamp,
        fields_data=data,
    )


def _column(field: _Field, values: list[Any]) -> Any:
    from pymilvus.grpc_gen import schema_pb2

    column = schema_pb2.FieldData(type=field["type"], field_name=field["name"])
    if field["name"] == VECTOR:
        column.vectors.dim = len(values[0])
        column.vectors.float_vector.MergeFromString(_packed(values))
        return column
    kind = field["type"].name
    if field.get("nullable") or field.get("default_value"):
        column.valid_data.extend([value is not None for value in values])
        values = [value for value in values if value is not None]
    if kind == "JSON":
        values = [_json(value) for value in values]
    getattr(column.scalars, _SCALARS[kind]).data.extend(values)
    return column


def _dynamic(known: set[str], rows: list[dict[str, Any]]) -> Any:
    """The metadata that has no field of its own: a JSON object for each row."""
    from pymilvus.grpc_gen import schema_pb2

    column = schema_pb2.FieldData(type=schema_pb2.DataType.JSON, field_name="$meta", is_dynamic=True)
    rest = ({name: value for name, value in row.items() if name not in known} for row in rows)
    column.scalars.json_data.data.extend([_json(own) if own else b"{}" for own in rest])
    return column


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _packed(vectors: list[Any]) -> bytes:
    """A FloatArray message: tag of field 1 with a length, the length, the numbers."""
    numbers = b"".join(vectors)
    return b"\x0a" + _varint(len(numbers)) + numbers


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
