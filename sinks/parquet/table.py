"""Rows as Arrow tables: the columns of a data set, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, RowRefusedError
from ..arrow import arrow, arrow_type
from ..base import Hit
from ..columns import metadata_json, split_columns
from ..fields import MAX_VARCHAR_BYTES, ScalarField
from ..rows import KEY, VECTOR, RowBatch

METADATA, ORDINAL = "metadata", "ordinal"
RECIPE, JOB, DIMENSION, FORMAT = "penstock.recipe", "penstock.job", "penstock.dimension", "penstock.format"
"""Metadata of each file, besides the columns."""

FIRST, LAST = "penstock.first", "penstock.last"
"""The same of a part: its least ordinal, and its greatest."""

_TYPE: Final = b"penstock.type"
_COLUMNS: Final = (
    ScalarField("path", "varchar", MAX_VARCHAR_BYTES),
    ScalarField("width", "int32"),
    ScalarField("height", "int32"),
)
_TAKEN: Final = frozenset({KEY, VECTOR, METADATA, ORDINAL, *(each.name for each in _COLUMNS)})
_HITS_OWN: Final = frozenset({KEY, VECTOR, ORDINAL, "path", "width", "height"})
_ROW_BYTES: Final = 32
"""Of a row besides its vector and its texts."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a data set: key, vector, path, width, height, typed fields, ``metadata`` (JSON) and ``ordinal``.

    Raises:
        ConfigError: a field has a name that is taken.
    """

    knows_positions: ClassVar[bool] = False
    """Whether the ordinals of rows are positions in one listing also where no books are kept."""

    dimension: int
    fields: tuple[ScalarField, ...] = ()
    reserved: frozenset[str] = frozenset()
    """Further names that no field may have."""

    def __post_init__(self) -> None:
        for each in self.fields:
            if each.name in _TAKEN | self.reserved:
                raise ConfigError(f"field: {each.name!r}: the data set has a column of this name; rename the column")

    @property
    def typed(self) -> tuple[ScalarField, ...]:
        """Every typed column."""
        return (*_COLUMNS, *self.fields)

    def schema(self, about: Mapping[str, str]) -> Any:
        """The Arrow schema, with what is said of the file."""
        pa, _ = arrow()
        element = pa.field("element", pa.float32(), nullable=False)
        columns = [
            pa.field(KEY, pa.string(), nullable=False),
            pa.field(VECTOR, pa.list_(element, self.dimension), nullable=False),
            *(pa.field(each.name, arrow_type(each), metadata={_TYPE: each.declared}) for each in self.typed),
            pa.field(METADATA, pa.string(), metadata={_TYPE: "json"}),
            pa.field(ORDINAL, pa.int64(), nullable=False),
        ]
        return pa.schema(columns, metadata={**about, DIMENSION: str(self.dimension)})

    def encoded(self, rows: RowBatch, index: int) -> dict[str, Any]:
        """The columns of a row but for its vector and ordinal.

        Raises:
            RowRefusedError: a value that does not fit its field, or metadata that is not JSON.
        """
        key = rows.keys[index]
        typed, rest = split_columns(key, rows.columns[index], self.typed)
        typed = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in typed.items()}
        text = metadata_json(key, rest, _TAKEN).decode() if rest else None
        return {KEY: key, **typed, METADATA: text}

    def table(
        self, rows: RowBatch, kept: Sequence[int], ordinals: Sequence[int], about: Mapping[str, str]
    ) -> tuple[Any, list[tuple[int, RowRefusedError]]]:
        """A table of some rows, by ordinal, and those that do not fit.

        Args:
            rows: all.
            kept: indices of the wanted.
            ordinals: of all.
            about: what is said of the file.
        """
        pa, _ = arrow()
        schema = self.schema(about)
        fit: list[int] = []
        refused: list[tuple[int, RowRefusedError]] = []
        values: dict[str, list[Any]] = {name: [] for name in schema.names if name not in (VECTOR, ORDINAL)}
        for index in sorted(kept, key=ordinals.__getitem__):
            try:
                row = self.encoded(rows, index)
            except RowRefusedError as error:
                refused.append((index, error))
                continue
            fit.append(index)
            for name, value in row.items():
                values[name].append(value)
        arrays: dict[str, Any] = {name: pa.array(column, schema.field(name).type) for name, column in values.items()}
        flat = pa.array(rows.vectors[fit].reshape(-1))
        arrays[VECTOR] = pa.FixedSizeListArray.from_arrays(flat, type=schema.field(VECTOR).type)
        arrays[ORDINAL] = pa.array([ordinals[index] for index in fit], pa.int64())
        return pa.table([arrays[name] for name in schema.names], schema=schema), refused


def dimension_of(schema: Any) -> int:
    """The length of the vectors."""
    return int(schema.field(VECTOR).type.list_size)


def fields_of(schema: Any) -> dict[str, str]:
    """The typed columns that a user declared, as one writes them, of a schema that `Layout.schema` made."""
    return {name: _declared(schema, name) for name in schema.names if name not in _TAKEN}


def write_options(schema: Any) -> dict[str, Any]:
    """How every file is written: vectors do not repeat themselves, so they have no dictionary and no bounds."""
    plain = {KEY, VECTOR, ORDINAL, METADATA}
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in schema.names if name not in plain],
        "use_byte_stream_split": [f"{VECTOR}.list.element"],  # a tenth smaller, and read in half the time
        "write_statistics": [name for name in schema.names if name not in (VECTOR, METADATA)],
        "write_page_checksum": True,
    }


def matrix(column: Any) -> NDArray[np.float32]:
    """The vectors of an Arrow column, float32 ``[n, D]``, without a copy."""
    flat = np.asarray(column.flatten())
    return flat.reshape(-1, column.type.list_size)


def row_bytes(table: Any) -> NDArray[np.int64]:
    """About how many bytes each row of a table takes, before compression; of all columns but the vector."""
    pa, _ = arrow()
    compute = pa.compute
    total: NDArray[np.int64] = np.full(len(table), _ROW_BYTES, np.int64)
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_string(column.type):
            total += np.asarray(compute.fill_null(compute.binary_length(column), 0).combine_chunks(), np.int64)
    return total


def decoded(row: Mapping[str, Any], schema: Any, *, vectors: bool) -> dict[str, Any]:
    """The columns of a row of a table, as they were written, without what is null."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or name in (KEY, ORDINAL, VECTOR, METADATA):
            continue
        found[name] = json.loads(value) if _declared(schema, name) == "json" else value
    if row.get(METADATA):
        found = {**json.loads(row[METADATA]), **found}
    if vectors:
        found[VECTOR] = np.asarray(row[VECTOR], np.float32)
    return found


def row_batch(table: Any, mask: NDArray[np.bool_] | None = None) -> RowBatch:
    """Rows as they were written, of an Arrow record batch or table of all columns.

    Args:
        table: the rows.
        mask: which of them; None: all.
    """
    kept = np.arange(len(table)) if mask is None else np.flatnonzero(mask)
    column = table.column(VECTOR)
    vectors = matrix(column.combine_chunks() if hasattr(column, "combine_chunks") else column)
    others = table.select([name for name in table.schema.names if name != VECTOR]).to_pylist()
    rows = [others[row] for row in kept.tolist()]
    columns = [decoded(row, table.schema, vectors=False) for row in rows]
    return RowBatch([row[KEY] for row in rows], np.ascontiguousarray(vectors[kept], np.float32), columns)


def hit(row: Mapping[str, Any], score: float) -> Hit:
    """An answer of a search, of a row's columns and its key."""
    rest = {name: value for name, value in row.items() if name not in _HITS_OWN}
    return Hit(row[KEY], score, row.get("path"), row.get("width"), row.get("height"), rest)


def _declared(schema: Any, name: str) -> str:
    return str((schema.field(name).metadata or {}).get(_TYPE, b""), "ascii")
