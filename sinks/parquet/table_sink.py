"""Sinks that write a table for each batch: what those into Parquet, Lance and NumPy files have in common."""

from __future__ import annotations

import shlex
import threading
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict, Unpack

from ...errors import CollectionMismatchError, SinkError
from ..base import Sink
from ..fields import parse_fields
from ..rows import Arrivals, RowBatch, WriteResult, need_dimension, screen
from .table import RECIPE, Layout


class TableSink(Sink):
    """A sink whose write is one table, of all rows that fit.

    Args:
        where: its place, as it can be named from any folder.
        local_path: the same as it was named, where it is on this machine.
        dimension: length of the vectors; None: only to be read.
        note: what the vectors are made by.
        layout: the columns.
        metric: how vectors are compared: COSINE, IP or L2.
    """

    scheme: ClassVar[str]
    """Without a colon."""

    write_rows: ClassVar[int]
    write_bytes: ClassVar[int]
    """The most to ask for in one write: rows, and bytes of their vectors."""

    has_collections: ClassVar[bool] = False

    def __init__(
        self, where: str, local_path: Path | None, dimension: int | None, note: str, layout: Layout, metric: str
    ) -> None:
        self._uri, self._local_path = f"{self.scheme}:{where}", local_path
        words = ["penstock", "search", f"{self.scheme}:{local_path or where}", "IMAGE"]
        self._next_step = f"search it: {shlex.join(words)}"
        self._dimension, self._note, self._layout, self._metric = dimension, note, layout, metric
        self._arrivals = Arrivals()

    @property
    def uri(self) -> str:
        return self._uri

    @property
    def fingerprint(self) -> str:
        return self._uri

    @property
    def local_path(self) -> Path | None:
        return self._local_path

    def rows_per_write(self, asked: int) -> int:
        """Many: each write makes files that stay until the end."""
        return max(asked, min(self.write_rows, self.write_bytes // (4 * (self._dimension or 1))))

    @property
    def next_step(self) -> str:
        return self._next_step

    @property
    def note(self) -> str:
        return self._note

    def write(self, rows: RowBatch) -> WriteResult:
        """One table with all rows that fit. Refused rows are in the answer.

        Raises:
            CollectionMismatchError: vectors of another dimension.
            SinkError: the place refuses.
        """
        if not self._is_writable:
            raise self._not_open
        need_dimension(rows, self._dimension, self.uri)
        screened = screen(rows)
        ordinals = self._arrivals.ordinals(rows, are_known=self._knows_positions)
        table, refused = self._layout.table(rows, screened.kept, ordinals, self._about)
        if len(table):
            self._put(table)
        return screened.result(refused)

    @property
    def _not_open(self) -> SinkError:
        return SinkError(f"{self.uri}: the sink is not open for writing; call open() first")

    @property
    @abstractmethod
    def _is_writable(self) -> bool:
        """Whether it is open for writing."""

    @abstractmethod
    def _put(self, table: Any) -> None:
        """Write a table that has rows."""

    @property
    def _about(self) -> dict[str, str]:
        """Metadata of each table."""
        return {RECIPE: self._note}

    @property
    def _knows_positions(self) -> bool:
        """Whether ordinals of rows are positions in one listing."""
        return True

    def _refuse(self, wrong: str) -> None:
        """Refuse to add to rows of another kind.

        Args:
            wrong: in what they differ; empty: in nothing.

        Raises:
            CollectionMismatchError: they do.
        """
        if wrong:
            raise CollectionMismatchError(
                f"{self.uri} has rows with {wrong}. Choose another place, or replace them (--overwrite)"
            )


class TableOptions(TypedDict, total=False):
    """What may be said of a table's rows."""

    note: str
    """What the vectors are made by; kept with them."""
    fields: Mapping[str, str]
    """Typed columns, as for `MilvusSink`."""
    mode: Literal["append", "overwrite"]
    """``overwrite`` replaces what is there."""
    metric: str
    """How vectors are compared: COSINE, IP or L2."""


class FolderSink(TableSink):
    """One of a folder of this machine, written to by one thread.

    Args:
        folder: made with the first rows at the latest; what is in it is replaced when they come, if it is to be.
        dimension: length of the vectors; None: only to be read.
        options: see there.

    Raises:
        ConfigError: a setting that cannot be, or a library that is not installed.
    """

    write_rows, write_bytes = 16_384, 64 * 2**20

    reserved: ClassVar[frozenset[str]]
    """Columns of the format's own, besides those that every table has."""

    def __init__(self, folder: Path, dimension: int | None = None, **options: Unpack[TableOptions]) -> None:
        self._folder = folder.absolute()
        layout = Layout(dimension or 0, parse_fields(options.get("fields", {})), self.reserved)
        note, metric = options.get("note", ""), options.get("metric", "COSINE")
        super().__init__(str(self._folder), folder, dimension, note, layout, metric)
        self._to_replace = options.get("mode") == "overwrite"
        self._mutex = threading.RLock()

    @property
    def threads(self) -> int:
        return 1
