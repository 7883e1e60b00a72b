"""How much memory Milvus Lite takes."""

from __future__ import annotations

from ..base import SinkMemory

_BYTES, _ROW_BYTES, _COPIES = 160 * 2**20, 512, 2
_SEGMENT_BYTES, _PACKING = 144 * 2**20, 13
"""It keeps the rows of a file in memory, vectors about twice; packing what has come since the last time takes 13 times
its vectors (measured with 128 and 512 floats, up to 300,000 rows)."""


def lite_memory(dimension: int, rows: int) -> SinkMemory:
    """What it takes at most for so many rows."""
    vectors = 4 * dimension * rows
    kept = _COPIES * vectors + _ROW_BYTES * rows
    return SinkMemory("Milvus Lite", _BYTES + kept + _PACKING * min(vectors, _SEGMENT_BYTES), own_process=True)
