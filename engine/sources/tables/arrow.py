"""Arrow files as tables: the file format (Feather 2 is its other name), and streams, which ``datasets`` keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..containers import Container
from .base import ContainerFormat, TableFile, arrow_file, library, slices

_FILE_MAGIC: Final = b"ARROW1"


class ArrowTable(TableFile):
    """An Arrow file or stream; its groups are record batches, each of which is in memory whole while it is read.

    Of a stream, which has no index, all that lies before a batch is read to find it.

    Args:
        container: the file.
    """

    def __init__(self, container: Container) -> None:
        self.token = str(container.known)
        self._arrow: Any = library("pyarrow", "parquet")
        self._container, self._file = container, arrow_file(container)
        self._stream = self._file.read(len(_FILE_MAGIC)) != _FILE_MAGIC
        self._at: tuple[list[int], int, Any] = ([], 0, None)
        self.schema = self._reader([]).schema
        self.groups = [batch.num_rows for batch in self._all(self._least())]

    def batches(self, group: int, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """Slices of a record batch."""
        wanted = sorted(self.schema.get_field_index(name) for name in columns)
        return slices(self._batch(group, wanted), rows)

    def close(self) -> None:
        """Idempotent."""
        self._file.close()
        self._container.close()

    def _reader(self, fields: list[int]) -> Any:
        self._file.seek(0)
        ipc = self._arrow.ipc
        options = ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        return (ipc.open_stream if self._stream else ipc.open_file)(self._file, options=options)

    def _all(self, fields: list[int]) -> Iterator[Any]:
        reader = self._reader(fields)
        if self._stream:
            yield from reader
        else:
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))

    def _batch(self, group: int, fields: list[int]) -> Any:
        before, at, reader = self._at
        if before != fields or (self._stream and at > group):
            at, reader = 0, self._reader(fields)
        self._at = fields, group + 1, reader
        if not self._stream:
            return reader.get_batch(group)
        for _ in range(at, group):
            reader.read_next_batch()
        return reader.read_next_batch()

    def _least(self) -> list[int]:
        """The column that costs least to read, to count rows by."""
        widths = [_width(field.type) for field in self.schema]
        return [widths.index(min(widths))] if widths else []


def _width(type_: Any) -> int:
    try:
        return int(type_.bit_width)
    except ValueError:  # of no fixed width
        return 1 << 30


class ArrowFormat(ContainerFormat):
    """``arrow:``."""

    unit = "a record batch of the table"

    def table(self, container: Container) -> TableFile:
        """A file or stream."""
        return ArrowTable(container)
