"""Parquet files as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..containers import BLOCK, Container, LocalContainer
from .base import BATCH_BYTES, ContainerFormat, TableFile, arrow_file, library

_BUFFER: Final = 1 << 20
"""Bytes that are read at once. With it a column is read page by page; without, all that a group has of it."""


_PAGE: Final = 2**31
"""Bytes: what a page's header can tell."""


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
        nbytes = sum(chunk.total_uncompressed_size for chunk in self._chunks(group, columns))
        rows = max(1, min(rows, BATCH_BYTES * self.groups[group] // max(1, nbytes)))
        found: Iterator[Any] = self._file.iter_batches(rows, row_groups=[group], columns=[*columns], use_threads=False)
        return found

    def largest_page(self, columns: Sequence[str]) -> int:
        """No footer tells how large pages are, and none is larger than what its group has of its column."""
        groups = range(len(self.groups))
        sizes = (sum(min(chunk.total_uncompressed_size, _PAGE) for chunk in self._chunks(g, columns)) for g in groups)
        return max(sizes, default=0)

    def _chunks(self, group: int, columns: Sequence[str]) -> Iterator[Any]:
        """What a group has of columns, leaf by leaf."""
        chunks = self._file.metadata.row_group(group)
        return (
            chunk
            for chunk in map(chunks.column, range(chunks.num_columns))
            if chunk.path_in_schema.partition(".")[0] in columns
        )

    def close(self) -> None:
        """Idempotent."""
        self._file.close()
        self._opened.close()
        self._container.close()


class ParquetFormat(ContainerFormat):
    """``parquet:``."""

    unit = "a page of the table"

    def table(self, container: Container) -> TableFile:
        """A file."""
        return ParquetTable(container)
