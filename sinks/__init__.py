"""Where rows go: Milvus, and the dead letters for what cannot go anywhere. One contract, idempotent by key."""

from .base import RowBatch, Sink, WriteResult, concat, is_fit_key, row_key
from .deadletters import DeadLetter, DeadLetters, read_dead_letters
from .milvus import MilvusSink
from .milvus_uri import parse_uri
from .schema import Hit

__all__ = [
    "DeadLetter",
    "DeadLetters",
    "Hit",
    "MilvusSink",
    "RowBatch",
    "Sink",
    "WriteResult",
    "concat",
    "is_fit_key",
    "parse_uri",
    "read_dead_letters",
    "row_key",
]
