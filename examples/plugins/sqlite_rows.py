"""A sink for penstock: rows in an SQLite database, one file.

::

    penstock embed ~/Pictures --to sqlite:rows.sqlite --job photos-job
    penstock search sqlite:rows.sqlite holiday.jpg

All rows of all collections are in one table: ``vector`` is a blob of float32, ``columns`` JSON (path, width, height and
the metadata). A search looks at every vector, so it is for some hundred thousand of them.
"""

from __future__ import annotations

import heapq
import json
import shlex
import sqlite3
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from penstock.errors import CollectionMismatchError, ConfigError, RowRefusedError, SinkError, SinkUnavailableError
from penstock.sinks import Found, Hit, RowBatch, Searchable, Sink, SinkOptions, WriteResult, refuse_settings
from penstock.sinks.rows import screen

_TABLES = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS collections (name TEXT PRIMARY KEY, dimension INTEGER, note TEXT);
CREATE TABLE IF NOT EXISTS rows (collection TEXT, key TEXT, vector BLOB, columns TEXT, PRIMARY KEY (collection, key));
"""

_PATIENCE = 120.0
"""Seconds for which another process may write."""

_AT_ONCE = 1024


class SqliteSink(Sink):
    """Rows in one file. Writes take turns, as SQLite has one writer at a time; each is a transaction."""

    def __init__(self, path: str, options: SinkOptions) -> None:
        self._named, self._options = Path(path), options
        self._name = options.collection
        self._to_replace = options.mode == "overwrite"
        self._mutex = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._dimension, self._note = 0, ""

    @property
    def threads(self) -> int:
        return 1

    @property
    def uri(self) -> str:
        return f"sqlite:{self._named.absolute()}"

    @property
    def fingerprint(self) -> str:
        return f"{self.uri} collection {self._name}"

    @property
    def local_path(self) -> Path:
        return self._named

    @property
    def next_step(self) -> str:
        collection = ["--collection", self._name] if self._name != "images" else []
        return f"search it: {shlex.join(['penstock', 'search', f'sqlite:{self._named}', 'IMAGE', *collection])}"

    @property
    def note(self) -> str:
        return self._note

    def look(self) -> Found | None:
        """What is there; the database is opened to be read only."""
        if not self._named.exists():
            return None
        with self._errors(), closing(self._connect("ro")) as connection:
            about = self._about(connection)
            return None if about is None else Found(self._rows(connection), about[1])

    def open(self) -> None:
        """Make the collection, or take the one that is there."""
        with self._errors():
            reads = self._options.dimension is None
            self._connection = self._connect("rw" if reads else "rwc")
            if not reads:
                self._connection.executescript(_TABLES)
            about = self._about(self._connection)
            if about is None and not reads:
                about = self._made(self._connection)
        if about is None:
            raise CollectionMismatchError(f"{self.uri}: there is no collection {self._name!r}")
        self._dimension, self._note = about
        if self._options.dimension not in (None, self._dimension) and not self._to_replace:
            raise CollectionMismatchError(
                f"{self.uri}: collection {self._name!r} holds vectors of {self._dimension} dimensions,"
                f" this job makes {self._options.dimension}; choose another collection (--collection)"
            )

    def write(self, rows: RowBatch) -> WriteResult:
        """One transaction."""
        dimension = self._options.dimension or self._dimension
        if rows.vectors.shape[1] != dimension:
            raise CollectionMismatchError(
                f"{self.uri} holds vectors of {dimension} dimensions, these have {rows.vectors.shape[1]}"
            )
        screened = screen(rows)
        records: list[tuple[str, str, bytes, str]] = []
        refused: list[tuple[int, RowRefusedError]] = []
        for index in screened.kept:
            columns = {name: value for name, value in rows.columns[index].items() if value is not None}
            try:
                text = json.dumps(columns)
            except (TypeError, ValueError) as error:
                refused.append((index, RowRefusedError(f"row {rows.keys[index]!r}: its metadata is not JSON: {error}")))
                continue
            records.append((self._name, rows.keys[index], rows.vectors[index].tobytes(), text))
        with self._mutex, self._errors(), self._open_connection() as connection:
            if self._to_replace:
                connection.execute("DELETE FROM rows WHERE collection = ?", (self._name,))
                self._dimension, self._note = self._made(connection)
            connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", records)
        self._to_replace = False
        return screened.result(refused)

    def count(self) -> int:
        with self._mutex, self._errors():
            return self._rows(self._open_connection())

    def reader(self) -> Searchable:
        return self

    def get(self, keys: Sequence[str], *, vectors: bool = False) -> dict[str, dict[str, Any]]:
        """The rows with these keys."""
        found: dict[str, dict[str, Any]] = {}
        with self._mutex, self._errors():
            for key in keys:
                query = "SELECT vector, columns FROM rows WHERE collection = ? AND key = ?"
                row = self._open_connection().execute(query, (self._name, key)).fetchone()
                if row is not None:
                    found[key] = json.loads(row[1])
                    if vectors:
                        found[key]["vector"] = np.frombuffer(row[0], np.float32)
        return found

    def search(self, vector: NDArray[np.float32], k: int = 10) -> list[Hit]:
        """The nearest rows, by looking at all of them."""
        query = np.asarray(vector, np.float32)
        if query.shape != (self._dimension,):
            raise ConfigError(f"vector: {list(query.shape)} given, [{self._dimension}] needed")
        sign = -1 if self._options.metric == "L2" else 1
        best: list[tuple[float, str]] = []
        with self._mutex, self._errors():
            for keys, matrix in self._matrices():
                scores = self._scores(matrix, query)
                best = heapq.nlargest(k, [*best, *zip(sign * scores, keys, strict=True)])
        columns = self.get([key for _, key in best])
        return [_hit(key, float(sign * score), columns[key]) for score, key in best]

    def close(self) -> None:
        with self._mutex:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"file:{quote(str(self._named.absolute()))}?mode={mode}"
        patience = self._options.retry_for or _PATIENCE
        return sqlite3.connect(uri, uri=True, timeout=patience, check_same_thread=False)

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise SinkError(f"{self.uri}: the sink is not open; call open() first")
        return self._connection

    def _made(self, connection: sqlite3.Connection) -> tuple[int, str]:
        """Make the collection; its dimension and note."""
        about = (self._options.dimension or 0, self._options.note)
        with connection:
            connection.execute("INSERT OR REPLACE INTO collections VALUES (?, ?, ?)", (self._name, *about))
        return about

    def _about(self, connection: sqlite3.Connection) -> tuple[int, str] | None:
        """Dimension and note of the collection; None where there is none."""
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'collections'").fetchone() is None:
            return None
        query = "SELECT dimension, note FROM collections WHERE name = ?"
        found: tuple[int, str] | None = connection.execute(query, (self._name,)).fetchone()
        return found

    def _rows(self, connection: sqlite3.Connection) -> int:
        (number,) = connection.execute("SELECT count(*) FROM rows WHERE collection = ?", (self._name,)).fetchone()
        return int(number)

    def _matrices(self) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        cursor = self._open_connection().execute("SELECT key, vector FROM rows WHERE collection = ?", (self._name,))
        while rows := cursor.fetchmany(_AT_ONCE):
            yield [key for key, _ in rows], np.stack([np.frombuffer(blob, np.float32) for _, blob in rows])

    def _scores(self, matrix: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._options.metric == "L2":
            distances: NDArray[np.float32] = ((matrix - query) ** 2).sum(1)
            return distances
        products: NDArray[np.float32] = matrix @ query
        if self._options.metric == "COSINE":
            lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
            products /= np.maximum(lengths, np.finfo(np.float32).tiny)
        return products

    @contextmanager
    def _errors(self) -> Generator[None]:
        """What SQLite refuses becomes an error that says where, and why."""
        try:
            yield
        except sqlite3.OperationalError as error:
            locked = "locked" in str(error)
            kind = SinkUnavailableError if locked else SinkError
            raise kind(f"{self.uri}: {error}") from error
        except sqlite3.Error as error:
            raise SinkError(f"{self.uri}: {error}") from error


def _hit(key: str, score: float, columns: dict[str, Any]) -> Hit:
    path, width, height = (columns.pop(name, None) for name in ("path", "width", "height"))
    return Hit(key, score, path, width, height, metadata=columns)


def make(uri: str, options: SinkOptions) -> Sink:
    """What penstock calls for ``sqlite:``."""
    refuse_settings(uri)
    path = uri.partition(":")[2]
    if not path or path.startswith("//"):
        raise ConfigError(f"uri: write sqlite:FILE, not {uri!r}")
    if not Path(path).absolute().parent.is_dir():
        raise ConfigError(f"uri: the folder {str(Path(path).absolute().parent)!r} does not exist; create it first")
    options.refuse_others(uri, "mode", "metric", "wait_index")
    return SqliteSink(path, options)
