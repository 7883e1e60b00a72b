"""Parquet files as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..containers import BLOCK, Container, LocalContainer
from .base import ContainerFormat, TableFile, arrow_file, library

_BUFFER: Final = 1 << 20
"""Bytes that are read at once. With it a column is read page by page; without, all that a group has of it."""

_BATCH: Final = 4 << 20
"""Bytes of a batch of rows, about."""


class ParquetTable(TableFile):
    """A Parquet file; its groups are row groups.

    Args:
        container: the file.
    """

    def __init__(self, container: Container) -> None:
        self.token = str(container.known)
        self._container, self._opened = container, arrow_file(container)
        # pre_buffer would hold a whole file's pictures in memory
        self._file: Any = library("pyarrow.parquet", "parquet").ParquetFile(
            self._opened,
            pre_buffer=False,
            buffer_size=_BUFFER if isinstance(container, LocalContainer) else BLOCK,
            page_checksum_verification=True,
        )
        self.schema = self._file.schema_arrow
        metadata = self._file.metadata
        self.groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def batches(self, group: int, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """Page by page, in this thread alone; fewer rows of large ones."""
        chunks = self._file.metadata.row_group(group)
        nbytes = sum(
            chunk.total_uncompressed_size
            for chunk in map(chunks.column, range(chunks.num_columns))
            if chunk.path_in_schema.partition(".")[0] in columns
        )
        rows = max(1, min(rows, _BATCH * self.groups[group] // max(1, nbytes)))
        found: Iterator[Any] = self._file.iter_batches(rows, row_groups=[group], columns=[*columns], use_threads=False)
        return found

    def close(self) -> None:
        """Idempotent."""
        self._file.close()
        self._opened.close()
        self._container.close()


class ParquetFormat(ContainerFormat):
    """``parquet:``."""

    def table(self, container: Container) -> TableFile:
        """A file."""
        return ParquetTable(container)
