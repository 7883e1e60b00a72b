"""Where rows go: one contract, idempotent by key, a registry of sinks, and the dead letters for what goes nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_exports

if TYPE_CHECKING:
    from .base import Deletable, Found, Hit, IndexState, Scannable, Searchable, Sink, SinkMemory
    from .dead_letters import DeadLetter, DeadLetters, read_dead_letters
    from .fields import ScalarField, parse_fields
    from .milvus.bulk_files import ParquetBulkSink
    from .milvus.bulk_import import ImportProgress, bulk_import
    from .milvus.bulk_manifest import is_finished, read_manifest
    from .milvus.sink import MilvusSink
    from .milvus.uri import parse_uri
    from .null import NullSink
    from .registry import SINKS, SinkFactory, SinkOptions, make_sink, refuse_settings
    from .rows import RowBatch, WriteResult, concat, is_fit_key, row_key
    from .tee import TeeSink
else:
    # They import NumPy. A search starts Milvus Lite without it, and imports what uses it beside that.
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "base": ("Deletable", "Found", "Hit", "IndexState", "Scannable", "Searchable", "Sink", "SinkMemory"),
            "dead_letters": ("DeadLetter", "DeadLetters", "read_dead_letters"),
            "fields": ("ScalarField", "parse_fields"),
            "milvus.bulk_files": ("ParquetBulkSink",),
            "milvus.bulk_import": ("ImportProgress", "bulk_import"),
            "milvus.bulk_manifest": ("is_finished", "read_manifest"),
            "milvus.sink": ("MilvusSink",),
            "milvus.uri": ("parse_uri",),
            "null": ("NullSink",),
            "registry": ("SINKS", "SinkFactory", "SinkOptions", "make_sink", "refuse_settings"),
            "tee": ("TeeSink",),
            "rows": ("RowBatch", "WriteResult", "concat", "is_fit_key", "row_key"),
        },
    )

__all__ = [
    "SINKS",
    "DeadLetter",
    "DeadLetters",
    "Deletable",
    "Found",
    "Hit",
    "ImportProgress",
    "IndexState",
    "MilvusSink",
    "NullSink",
    "ParquetBulkSink",
    "RowBatch",
    "ScalarField",
    "Scannable",
    "Searchable",
    "Sink",
    "SinkFactory",
    "SinkMemory",
    "SinkOptions",
    "TeeSink",
    "WriteResult",
    "bulk_import",
    "concat",
    "is_finished",
    "is_fit_key",
    "make_sink",
    "parse_fields",
    "parse_uri",
    "read_dead_letters",
    "read_manifest",
    "refuse_settings",
    "row_key",
]
