"""Rows of tables by where they were listed: read on in one go as long as they come in order."""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final, NamedTuple, Self

from ....errors import ItemError, PenstockError, ReadError
from ....fetch import read_file, too_large
from ....messages import redact
from ....object_stores.options import StoreOptions
from ....object_stores.urls import is_store_url
from ....references import Locator, Version
from ..containers import may_pass
from ..paths import absolute, is_url, path_of_url, why_unread
from ..row_columns import as_columns
from ..url_options import UrlOptions
from .base import BATCH_ROWS, TableFile, TableFormat
from .columns import Columns, key_in, picture_in
from .formats import FORMATS
from .spec import TableSpec

MARK: Final = "#"
"""Between the name of a table's file and the number of a row in it."""


_MOST_VIEWED: Final = 16 << 20
"""Bytes of a batch of rows whose pictures are handed on where they lie. Of a larger one each is copied: it may be a
slice of much more, or hold one that is far larger than the others, and all of that would stay with the last of them."""


class RowPlace(NamedTuple):
    """Where a row lies. As text: ``12:1024.1764288000000000000:/data/part-0.parquet``."""

    row: int
    token: str
    name: str

    @classmethod
    def of(cls, ref: str, version: Version) -> Self:
        """Of the picture that was listed so.

        Raises:
            ReadError: its version tells no place.
        """
        row, _, rest = version.tag.partition(":")
        token, _, name = rest.partition(":")
        if not (row.isdigit() and name):
            raise ReadError(f"{ref!r} cannot be read: {version.tag!r} is no place in a table")
        return cls(int(row), token, name)

    def __str__(self) -> str:
        return f"{self.row}:{self.token}:{self.name}"

    @property
    def key(self) -> str:
        """By which a row is known that has no other key."""
        return f"{self.name}{MARK}{self.row:09}"


class Picture(NamedTuple):
    """What a row has: the bytes of a picture (a view keeps its batch of rows), its path, or its URL; and metadata."""

    data: memoryview | bytes | None
    path: str | None
    url: str | None
    metadata: dict[str, Any]


class TableReader:
    """Reads rows by their places. One thread at a time; fast in order, and with one batch of rows in memory.

    Args:
        spec: its place does not matter.
        options: how object stores are spoken to.
    """

    def __init__(self, spec: TableSpec, options: StoreOptions) -> None:
        self._spec = spec
        self._format = FORMATS[spec.scheme](options)
        self._open: _Open | None = None

    def row(self, ref: str, version: Version, max_bytes: int) -> Picture:
        """What is in a row.

        Raises:
            ReadError: it is not what was listed any more, has no picture, or cannot be read.
            TooLargeError: its picture has more bytes.
        """
        place = RowPlace.of(ref, version)
        try:
            opened = self._at(place)
        except Exception as error:
            raise ReadError(f"{ref!r} cannot be read: {said_of(error)}") from error
        try:
            return opened.row(place, ref, max_bytes)
        except ItemError:
            raise
        except Exception as error:
            raise ReadError(f"{ref!r} cannot be read: {said_of(error)}") from error

    def close(self) -> None:
        """Close the file at hand."""
        if self._open is not None:
            self._open.close()
        self._open = None

    def _at(self, place: RowPlace) -> _Open:
        if self._open is None or self._open.what != (place.name, place.token):
            self.close()
            self._open = _Open(self._format, place, self._spec)
        return self._open


class _Open:
    """The file at hand, and the batch of it."""

    def __init__(self, format_: TableFormat, place: RowPlace, spec: TableSpec) -> None:
        self.what = place.name, place.token
        self._file = format_.open(place.name, place.token)
        self._columns = Columns.of(spec, self._file.schema)
        self._rows = _Rows(self._file, self._columns.all)

    def close(self) -> None:
        self._file.close()

    def row(self, place: RowPlace, ref: str, max_bytes: int) -> Picture:
        batch, index = self._rows.at(place.row)
        key = place.key
        if self._columns.key:
            key = key_in(batch.column(self._columns.key)[index].as_py())
        if key != ref:
            raise ReadError(f"{ref!r} is not in its row any more, there is {key!r:.100}")
        data, path = picture_in(batch.column(self._columns.image)[index])
        if data is not None and data.size > max_bytes:
            raise too_large(ref, data.size, max_bytes)
        metadata = as_columns({name: batch.column(name)[index].as_py() for name in self._columns.metadata})
        if data is not None:
            is_small = batch.get_total_buffer_size() <= _MOST_VIEWED
            return Picture(memoryview(data).cast("B") if is_small else data.to_pybytes(), None, None, metadata)
        found = path_of_url(path or "")
        if is_url(found):
            if why := why_unread(found):
                raise ReadError(f"{redact(found)!r:.200}: {why}")
            return Picture(None, None, found, metadata)
        return Picture(None, _beside(found, place.name), None, metadata)


class _Rows:
    """The rows of a file by their numbers: from the batch at hand, or on from there, or from their group's begin."""

    def __init__(self, file: TableFile, columns: list[str]) -> None:
        self._file, self._columns = file, columns
        self._starts = [*accumulate(file.groups, initial=0)]
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._span = range(0)
        self._broken: Exception | None = None

    def at(self, row: int) -> tuple[Any, int]:
        """The batch that has the row, and its index there.

        Raises:
            Exception: of the library.
        """
        if row not in self._span:
            self._move(row)
        return self._batch, row - self._span.start

    def _move(self, row: int) -> None:
        if row >= self._starts[-1]:
            raise ReadError(f"there is no row {row:,}")
        group = bisect_right(self._starts, row) - 1
        if group != self._group or row < self._span.start:
            start = self._starts[group]
            self._group, self._span, self._batch, self._broken = group, range(start, start), None, None
            self._batches = self._file.batches(group, self._columns, BATCH_ROWS)
        while row >= self._span.stop:
            if self._broken is not None:  # else each row that follows would read the group again
                raise self._broken
            self._batch = None  # one at a time
            try:
                self._batch = next(self._batches)
            except StopIteration:
                self._broken = ReadError(f"its group ends before row {row:,}")
            except Exception as error:  # whatever a library says of a damaged page
                if may_pass(error):
                    self._group = -1  # the next row begins anew
                    raise
                self._broken = error
            else:
                self._span = range(self._span.stop, self._span.stop + self._batch.num_rows)


class TableFetcher:
    """The fetcher behind a table's references: a reader for each thread. Jobs read rows in order instead: `loaded`."""

    def __init__(self, spec: TableSpec, urls: UrlOptions) -> None:
        self._spec, self._urls = spec, urls
        self._fetcher = urls.locator.open()
        self._own = threading.local()

    def read(self, ref: str, version: Version, max_bytes: int) -> bytes:
        """The picture of a row, if it still is the one that was listed."""
        if not hasattr(self._own, "reader"):
            self._own.reader = TableReader(self._spec, self._urls.stores)
        found: Picture = self._own.reader.row(ref, version, max_bytes)
        if found.data is not None:
            return bytes(found.data)
        if found.url is not None:
            return self._fetcher.read(found.url, Version(), max_bytes)
        return read_file(found.path or "", max_bytes)


def locator_of(spec: TableSpec, urls: UrlOptions) -> Locator:
    """By which workers read."""
    return Locator(f"{__name__}:open_table", json.dumps([spec.scheme, spec.options, urls.locator.options]))


def open_table(options: str) -> TableFetcher:
    """What a worker calls: the text is the locator's."""
    scheme, columns, urls = json.loads(options)
    return TableFetcher(TableSpec.parse(f"{scheme}:.?{columns}", scheme), UrlOptions.load(urls))


def _beside(path: str, table: str) -> str:
    """A path that a row names, seen from its table's folder."""
    if is_store_url(table):
        if path.startswith("/"):
            raise ReadError(f"{path!r:.200}: a table in a store names no files of this machine")
        raise ReadError(f"{path!r:.200}: a table in a store names its pictures by whole URLs")
    return absolute(os.path.join(os.path.dirname(table), path))  # noqa: PTH120


def said_of(error: Exception) -> str:
    """What an error says, in a line."""
    if isinstance(error, PenstockError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
