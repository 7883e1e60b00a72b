"""Where rows go: Milvus, and the dead letters for what cannot go anywhere. One contract, idempotent by key."""

from .base import Found, RowBatch, Sink, WriteResult, concat, is_fit_key, row_key
from .dead_letters import DeadLetter, DeadLetters, read_dead_letters
from .fields import ScalarField, parse_fields
from .milvus.bulk_files import ParquetBulkSink, is_finished, read_manifest
from .milvus.bulk_import import ImportProgress, bulk_import
from .milvus.collection import IndexState
from .milvus.rows import Hit
from .milvus.sink import MilvusSink
from .milvus.uri import parse_uri

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
