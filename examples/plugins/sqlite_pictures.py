"""A source for penstock: pictures that lie in a table of an SQLite database.

::

    penstock embed 'sqlite:shop.db?table=photos&key=name&picture=jpeg&version=changed' --to photos.db --job photos-job

``table`` (default ``pictures``) has a text column ``key`` (default ``key``), unique, by which people know a picture,
and a blob column ``picture`` (default ``picture``) with the bytes of its file. With a column ``version``, whose value
differs whenever the picture does (a time, a counter), ``--update`` finds what has changed, and a picture that changes
between the listing and its turn is a dead letter that says so.

Workers read the table themselves, through connections of their own: see `TableReader`.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from penstock.engine.sources import Broken, Entry, Item, Locator, Reference, Source, SourceOptions, Version
from penstock.errors import ConfigError, ReadError, SourceError, TooLargeError
from penstock.registry import split_options

_COLUMNS = {"table": "pictures", "key": "key", "picture": "picture", "version": ""}
"""What may be said behind the question mark, and what it is where nothing is said."""


@dataclass(frozen=True)
class Table:
    """A table, and what its columns are called; a spec as text, in one spelling."""

    path: str
    table: str
    key: str
    picture: str
    version: str

    @classmethod
    def parse(cls, spec: str) -> Table:
        """Of ``sqlite:FILE?table=...``.

        Raises:
            ConfigError: an option is not known.
        """
        head, given = split_options("source", spec)
        if unknown := sorted(given.keys() - _COLUMNS.keys()):
            raise ConfigError(f"source: {spec!r}: there is no option {unknown[0]!r}, there are {', '.join(_COLUMNS)}")
        return cls(str(Path(head.partition(":")[2]).absolute()), **_COLUMNS | given)

    def __str__(self) -> str:
        said = {name: value for name in _COLUMNS if (value := getattr(self, name)) != _COLUMNS[name]}
        return f"sqlite:{self.path}" + (f"?{urlencode(said)}" if said else "")

    def connect(self) -> sqlite3.Connection:
        """Open the database, to be read only.

        Raises:
            sqlite3.Error: it cannot be opened.
        """
        return sqlite3.connect(f"file:{quote(self.path)}?mode=ro", uri=True, check_same_thread=False)

    def select(self, *columns: str, rest: str) -> str:
        """The statement. Names are quoted: they may be any text."""
        return f"SELECT {', '.join(columns)} FROM {_quoted(self.table)} {rest}"  # noqa: S608  (values are bound)

    def column(self, name: str) -> str:
        """A column in a statement. With its table's name: else SQLite takes one that is not there for a text."""
        return f"{_quoted(self.table)}.{_quoted(name)}"

    def columns(self) -> tuple[str, str, str]:
        """Expressions for the key, the picture's size in bytes, and its version as text."""
        version = f"CAST({self.column(self.version)} AS TEXT)" if self.version else "''"
        return self.column(self.key), f"length(CAST({self.column(self.picture)} AS BLOB))", version


class TablePictures(Source):
    """The rows of a table, by their keys. The order is that of the keys' bytes, which is SQLite's own for text.

    Raises:
        SourceError: there is no such database, table or column.
    """

    order = "bytes"

    def __init__(self, table: Table, later: bool = False) -> None:
        self.specs = (str(table),)
        self.locator = Locator("sqlite_pictures:open_table", str(table))
        self._table = table
        if not later:
            list(self._rows("LIMIT 0"))

    def __iter__(self) -> Iterator[Entry]:
        for key, size, version in self._rows(f"ORDER BY {self._table.column(self._table.key)} COLLATE BINARY"):
            if not isinstance(key, str):
                raise SourceError(f"{self.specs[0]!r}: the key {key!r} is no text: name another column (key=...)")
            if size is None:
                yield Broken(key, ReadError("there is no picture in its row"))
            else:
                yield self.item(-1, key, Version(size, tag=version or ""))

    def item(self, ordinal: int, name: str, version: Version) -> Item:
        """The picture of a row."""
        assert self.locator is not None
        return Item(name, ordinal=ordinal, version=version, reference=Reference(self.locator, name, version))

    def emptiness(self) -> str:
        """For people."""
        return f"the table {self._table.table!r} of {self._table.path!r} has no rows"

    def _rows(self, rest: str) -> Iterator[tuple[object, int | None, str | None]]:
        """Keys, sizes and versions, as they are read."""
        try:
            with closing(self._table.connect()) as connection:
                yield from connection.execute(self._table.select(*self._table.columns(), rest=rest))
        except sqlite3.Error as error:
            raise SourceError(f"{self.specs[0]!r} cannot be read: {error}") from error


class TableReader:
    """Reads pictures by their keys, in whichever process opened it; each thread through a connection of its own."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._own = threading.local()

    def read(self, ref: str, version: Version, max_bytes: int) -> bytes:
        """The picture of a row, if it still is the one that was listed."""
        key, size, now = self._table.columns()
        picture = f"CASE WHEN {size} <= ? THEN {self._table.column(self._table.picture)} END"
        query = self._table.select(size, now, picture, rest=f"WHERE {key} = ?")  # in one step: all belong together
        found = self._connection().execute(query, (max_bytes, ref)).fetchone()
        if found is None or found[0] is None:
            raise ReadError(f"{ref!r} is not in the table any more")
        nbytes, tag, data = found
        if (tag or "") != version.tag:
            raise ReadError(f"{ref!r} has changed since it was listed: --update takes it as it is now")
        if data is None:
            raise TooLargeError(f"{ref!r} has {nbytes} bytes; max_file_bytes allows {max_bytes}")
        return bytes(data)

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._own, "connection"):
            self._own.connection = self._table.connect()
        connection: sqlite3.Connection = self._own.connection
        return connection


def open_table(spec: str) -> TableReader:
    """What a worker calls: the text is the locator's."""
    return TableReader(Table.parse(spec))


def make(specs: Sequence[str], options: SourceOptions) -> Source:
    """What penstock calls for ``sqlite:``."""
    if len(specs) > 1:
        raise SourceError(f"{specs[0]!r} and {specs[1]!r} are two tables: give each to a job of its own")
    return TablePictures(Table.parse(specs[0]), options.later)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
