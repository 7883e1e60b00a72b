"""Where rows go: Milvus, and the dead letters for what cannot go anywhere. One contract, idempotent by key."""

from .base import Found, RowBatch, Sink, WriteResult, concat, is_fit_key, row_key
from .deadletters import DeadLetter, DeadLetters, read_dead_letters
from .fields import ScalarField, parse_fields
from .milvus import MilvusSink
from .milvus_collection import IndexState
from .milvus_import import ImportProgress, bulk_import
from .milvus_rows import Hit
from .milvus_uri import parse_uri
from .parquet_bulk import ParquetBulkSink, is_finished, read_manifest

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
