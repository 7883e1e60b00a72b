"""What a format of tables has to give: its files by name, and their rows in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from ....errors import ConfigError
from ..shards import check_named, files_named

BATCH_ROWS = 16
"""Rows with pictures that are in memory at once."""


class TableFile(ABC):
    """One file of a table, open for reading. One thread at a time.

    Attributes:
        token: another one is another content.
        schema: a ``pyarrow.Schema``.
        groups: how many rows each of its groups has. Reading begins at a group.
    """

    token: str
    schema: Any
    groups: Sequence[int]

    @abstractmethod
    def batches(self, group: int, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """The rows of a group, as ``pyarrow.RecordBatch`` with these columns at least.

        Args:
            group: which.
            columns: names, at the top of the schema.
            rows: of a batch at most.

        Raises:
            Exception: of the library, where they cannot be read.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up the file. Idempotent."""


class TableFormat(ABC):
    """How the tables of a format are found and opened."""

    @abstractmethod
    def check(self, place: str) -> None:
        """Refuse a place where nothing is.

        Raises:
            SourceError: nothing is.
            ConfigError: the library is not installed.
        """

    @abstractmethod
    def names(self, place: str, mark: str) -> Sequence[str]:
        """The files at a place, in the order of the bytes of ``name + mark``.

        Raises:
            SourceError: they cannot be found.
        """

    @abstractmethod
    def open(self, name: str) -> TableFile:
        """One of them.

        Raises:
            Exception: of the library or the system, where it cannot be opened.
        """


class LocalFormat(TableFormat):
    """Tables that lie on this machine: paths, globs and braces.

    Attributes:
        needs: a module of its library, and the extra that it is installed with.
    """

    needs: tuple[str, str]

    def check(self, place: str) -> None:
        """Whether the library is there, and a table of each name."""
        library(*self.needs)
        check_named(place, "table")

    def names(self, place: str, mark: str) -> Sequence[str]:
        """Absolute paths."""
        return files_named(place, mark)


def slices(batch: Any, rows: int) -> Iterator[Any]:
    """A ``pyarrow.RecordBatch`` in pieces of so many rows, which view it."""
    return (batch.slice(first, rows) for first in range(0, batch.num_rows, rows))


def library(module: str, extra: str) -> Any:
    """A module of a library that is installed with an extra.

    Raises:
        ConfigError: it is not.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"source: tables need {module.partition('.')[0]}: pip install 'penstock[{extra}]'") from error
