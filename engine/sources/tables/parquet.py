"""Parquet files as tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

from .base import LocalFormat, TableFile, library

_BUFFER: Final = 1 << 20
"""Bytes that are read at once. With it a column is read page by page; without, all that a group has of it."""


class ParquetTable(TableFile):
    """A Parquet file; its groups are row groups.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        status = os.stat(path)  # noqa: PTH116  (as text)
        self.token = f"{status.st_size}.{status.st_mtime_ns}"
        # pre_buffer would hold a whole file's pictures in memory
        self._file: Any = library("pyarrow.parquet", "parquet").ParquetFile(
            path, pre_buffer=False, buffer_size=_BUFFER, page_checksum_verification=True
        )
        self.schema = self._file.schema_arrow
        metadata = self._file.metadata
        self.groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def batches(self, group: int, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """Page by page, in this thread alone."""
        found: Iterator[Any] = self._file.iter_batches(rows, row_groups=[group], columns=[*columns], use_threads=False)
        return found

    def close(self) -> None:
        """Idempotent."""
        self._file.close()


class ParquetFormat(LocalFormat):
    """``parquet:``."""

    needs = "pyarrow.parquet", "parquet"

    def open(self, name: str) -> TableFile:
        """A file."""
        return ParquetTable(name)
