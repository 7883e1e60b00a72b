"""Records as the columns of a Parquet data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from ....errors import SinkError
from ....sinks import RowBatch, row_key
from ....sinks.arrow import arrow
from ....sinks.parquet.table import DIMENSION, ORDINAL, Layout
from ....sinks.rows import KEY, VECTOR
from .pages import Record

VERSION: Final = "1"
"""Of the columns."""

PAGE: Final = "page"
"""The column that has the ordinal of a row, for people."""

_POINTS: Final = "control_points"

_ABOUT_POINTS: Final = (
    "x, y in the result and sx, sy where that lies in the scan; pixels, from the centre of the first one; in between a"
    " thin-plate spline"
)

_COLUMNS: Final = (
    ("volume_id", "string", False, ""),
    (PAGE, "int64", False, "number of the page in its volume, from 0"),
    ("etag", "string", True, "of the scan's object"),
    ("size", "int64", True, "of the scan's file, in bytes"),
    ("width", "int32", False, "of the scan, in pixels"),
    ("height", "int32", False, "of the scan, in pixels"),
    ("angle", "float32", False, "of the lines in the scan, in degrees, counter-clockwise positive"),
    ("bend", "float32", False, "the most by which a line of the scan departs from a straight one, in pixels"),
    ("quality", "float32", False, "how much the lines stand out in the scan: 0 blank, 2 to 5 straight text"),
    ("quality_after", "float32", True, "the same in the result"),
    ("passes", "int32", False, "how often the page was straightened"),
    ("best_pass", "int32", True, "whose result this is; 0: the scan, since straightening made its lines worse"),
    (_POINTS, None, True, _ABOUT_POINTS),
    ("out_width", "int32", True, "of the result, in pixels"),
    ("out_height", "int32", True, "of the result, in pixels"),
    ("patches", "int32", False, "that the vector is the mean of, by the area that each stands for"),
)
"""Name, type (None: the control points'), whether it may be null, and what it is; besides key, vector and ordinal."""


@dataclass(frozen=True, slots=True)
class RecordLayout(Layout):
    """The columns of a volume."""

    knows_positions: ClassVar[bool] = True

    def schema(self, about: Mapping[str, str]) -> Any:
        """The Arrow schema, with what is said of the file."""
        pa, _ = arrow()
        element = pa.field("element", pa.float32(), nullable=False)
        corners = pa.list_(pa.field("element", pa.struct([(name, pa.float32()) for name in ("x", "y", "sx", "sy")])))
        columns = [pa.field(KEY, pa.string(), nullable=False)]
        for name, kind, nullable, what in _COLUMNS:
            type_ = corners if kind is None else getattr(pa, kind)()
            columns.append(pa.field(name, type_, nullable, {"penstock.about": what} if what else None))
        columns.append(pa.field(VECTOR, pa.list_(element, self.dimension), nullable=False))
        columns.append(pa.field(ORDINAL, pa.int64(), nullable=False))
        return pa.schema(columns, metadata={**about, DIMENSION: str(self.dimension), "penstock.record": VERSION})

    def encoded(self, rows: RowBatch, index: int) -> dict[str, Any]:
        """The columns of a row that `rows_of` made; none is refused."""
        return rows.columns[index]


def rows_of(records: Sequence[Record]) -> RowBatch:
    """Records as rows of a sink whose layout is a `RecordLayout`.

    Raises:
        SinkError: one has no vector.
    """
    vectors = [record.vector for record in records if record.vector is not None]
    if len(vectors) < len(records):
        raise SinkError("a data set of volumes has a vector in each row, and these records have none")
    return RowBatch(
        keys=[row_key(record.key) for record in records],
        vectors=np.ascontiguousarray(np.stack(vectors), np.float32),
        columns=[_columns(record) for record in records],
        ordinals=[record.page for record in records],
    )


def _columns(record: Record) -> dict[str, Any]:
    columns: dict[str, Any] = {name: getattr(record, name) for name, *_ in _COLUMNS}
    if record.control_points is not None:
        points = record.control_points.tolist()
        columns[_POINTS] = [dict(zip(("x", "y", "sx", "sy"), point, strict=True)) for point in points]
    return {KEY: record.key, **columns}
