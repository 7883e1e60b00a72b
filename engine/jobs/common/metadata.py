"""A file of columns for pictures, by path or key: looked up while the job runs, from an index on disk."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ....errors import ConfigError, SourceError
from ....sinks import ScalarField, parse_fields
from ...sources import absolute, key_of


class Metadata:
    """The rows of a file, indexed in a temporary database. One thread at a time.

    Args:
        path: ``.csv`` with a header, ``.jsonl`` or ``.parquet``. Each row has a ``path`` (relative ones start at the
            file's folder) or a ``key``, as in dead letters; what else it has is stored with the picture's row.
        fields: types of columns: they turn a CSV's text into values.

    Raises:
        ConfigError: another kind of file, or one that is not there.
        SourceError: the file cannot be read, or a row has neither path nor key.
    """

    def __init__(self, path: Path, fields: Mapping[str, str]) -> None:
        if path.suffix not in _READERS:
            raise ConfigError(f"metadata: {os.fspath(path)!r} must end in {', '.join(_READERS)}")
        if not path.is_file():
            raise ConfigError(f"metadata: there is no file {os.fspath(path)!r}")
        self._path = path
        self._folder = absolute(str(path.parent))  # links stay, as in the keys of pictures
        self._fields = {field.name: field for field in parse_fields(fields)}
        self._missed = 0
        # An empty name is a file of SQLite's own, deleted when it is closed or the process ends.
        self._rows = sqlite3.connect("", check_same_thread=False)
        try:
            self._rows.execute(
                "CREATE TABLE row (key TEXT PRIMARY KEY, said TEXT, met INTEGER DEFAULT 0) WITHOUT ROWID"
            )
            self._rows.executemany("INSERT OR REPLACE INTO row (key, said) VALUES (?, ?)", self._indexed())
        except BaseException:
            self.close()
            raise

    def __call__(self, entries: Iterable[Any]) -> Iterator[Any]:
        """The entries of a source, items and pictures with their columns. What they bring themselves goes first."""
        for entry in entries:
            if hasattr(entry, "metadata"):
                yield replace(entry, metadata={**self._said(entry.key), **entry.metadata})
            else:
                yield entry

    def report(self, is_full_run: bool) -> dict[str, int]:
        """Rows of the file, pictures for which there was no row, and rows for which there was no picture.

        Args:
            is_full_run: whether all pictures have passed; else there is nothing to say of the last.
        """
        ((rows, met),) = self._rows.execute("SELECT count(*), coalesce(sum(met), 0) FROM row")
        unmatched = {"unmatched_rows": rows - met} if is_full_run else {}
        return {"rows": rows, "pictures_without": self._missed, **unmatched}

    def close(self) -> None:
        """Delete the index. Idempotent."""
        self._rows.close()

    def _said(self, key: str) -> dict[str, Any]:
        row = self._rows.execute("SELECT said, met FROM row WHERE key = ?", (key,)).fetchone()
        if row is None:
            self._missed += 1
            return {}
        said, met = row
        if not met:  # a picture may be listed twice
            self._rows.execute("UPDATE row SET met = 1 WHERE key = ?", (key,))
        columns: dict[str, Any] = json.loads(said)
        return columns

    def _indexed(self) -> Iterator[tuple[str, str]]:
        rows = _READERS[self._path.suffix](self._path)
        number = 1
        try:
            while (row := next(rows, None)) is not None:
                yield self._keyed(row)
                number += 1
        except ConfigError:  # about the reader, and no row
            raise
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise SourceError(f"metadata: {os.fspath(self._path)!r}, row {number}: {error}") from error

    def _keyed(self, row: dict[str, Any]) -> tuple[str, str]:
        path, key = row.pop("path", None), row.pop("key", None)
        if not (path or key):
            raise ValueError("it has neither a path nor a key")
        name = key if key else key_of(os.path.normpath(os.path.join(self._folder, path)))
        columns = {column: _value(self._fields.get(column), value) for column, value in row.items()}
        return str(name), json.dumps(columns, default=str)


def _value(field: ScalarField | None, value: Any) -> Any:
    """The value a text stands for where its column has a type. A text that stands for none is refused with its row."""
    if field is None or not isinstance(value, str):
        return value
    try:
        return field.parsed(value)
    except ValueError:
        return value


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            if None in row or None in row.values():
                raise ValueError("it has more or fewer cells than the header")
            yield {name: value for name, value in row.items() if value != ""}


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TypeError("it is not a JSON object")
                yield row


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        module = import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError("metadata: Parquet files need pyarrow: pip install 'penstock[parquet]'") from error
    with closing(module.ParquetFile(path)) as file:
        for batch in file.iter_batches(8192):
            yield from batch.to_pylist()


_READERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
