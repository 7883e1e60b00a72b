"""``null:``: a sink that counts rows and drops them, for benchmarks and dry runs."""

from __future__ import annotations

import threading
from typing import ClassVar, Final

from .base import Found, Sink
from .rows import RowBatch, WriteResult, need_dimension, screen

URI: Final = "null:"


class NullSink(Sink):
    """Takes every row that another sink would take, and keeps none.

    Args:
        collection: told in the fingerprint.
        dimension: length of the vectors; None: any.
    """

    keeps_rows: ClassVar[bool] = False

    def __init__(self, collection: str = "images", dimension: int | None = None) -> None:
        self._collection, self._dimension = collection, dimension
        self._mutex = threading.Lock()
        self._written = 0

    @property
    def threads(self) -> int:
        return 4

    @property
    def fingerprint(self) -> str:
        return f"{URI} collection {self._collection}"

    @property
    def uri(self) -> str:
        return URI

    def look(self) -> Found | None:
        return None

    def open(self) -> None:
        pass

    def write(self, rows: RowBatch) -> WriteResult:
        need_dimension(rows, self._dimension, URI)
        result = screen(rows).result(())
        with self._mutex:
            self._written += result.written
        return result

    def count(self) -> int:
        """Rows that were taken; one that was written twice counts twice."""
        return self._written

    def close(self) -> None:
        pass
