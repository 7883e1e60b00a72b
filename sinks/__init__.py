"""Where rows go: Milvus, and the dead letters for what cannot go anywhere. One contract, idempotent by key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_exports

if TYPE_CHECKING:
    from .base import Found, RowBatch, Sink, WriteResult, concat, is_fit_key, row_key
    from .dead_letters import DeadLetter, DeadLetters, read_dead_letters
    from .fields import ScalarField, parse_fields
    from .milvus.bulk_files import ParquetBulkSink, is_finished, read_manifest
    from .milvus.bulk_import import ImportProgress, bulk_import
    from .milvus.collection import IndexState
    from .milvus.rows import Hit
    from .milvus.sink import MilvusSink
    from .milvus.uri import parse_uri
else:
    # They import NumPy. A search starts Milvus Lite without it, and imports what uses it beside that.
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "base": (
                "Found",
                "RowBatch",
                "Sink",
                "WriteResult",
                "concat",
                "is_fit_key",
                "row_key",
            ),
            "dead_letters": (
                "DeadLetter",
                "DeadLetters",
                "read_dead_letters",
            ),
            "fields": (
                "ScalarField",
                "parse_fields",
            ),
            "milvus.bulk_files": (
                "ParquetBulkSink",
                "is_finished",
                "read_manifest",
            ),
            "milvus.bulk_import": (
                "ImportProgress",
                "bulk_import",
            ),
            "milvus.collection": ("IndexState",),
            "milvus.rows": ("Hit",),
            "milvus.sink": ("MilvusSink",),
            "milvus.uri": ("parse_uri",),
        },
    )

__all__ = [
    "DeadLetter",
    "DeadLetters",
    "Found",
    "Hit",
    "ImportProgress",
    "IndexState",
    "MilvusSink",
    "ParquetBulkSink",
    "RowBatch",
    "ScalarField",
    "Sink",
    "WriteResult",
    "bulk_import",
    "concat",
    "is_finished",
    "is_fit_key",
    "parse_fields",
    "parse_uri",
    "read_dead_letters",
    "read_manifest",
    "row_key",
]
