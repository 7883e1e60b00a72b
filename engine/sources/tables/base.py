"""What a format of tables has to give: its files by name, and their rows in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from ....errors import ConfigError
from ....object_stores.options import StoreOptions
from ..container_finder import Containers
from ..containers import Container, Known, LocalContainer

BATCH_ROWS = 16
"""Rows with pictures that are in memory at once."""

BATCH_BYTES = 4 << 20
"""Bytes of such a batch, about, where the rows are smaller than that."""


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

    def largest_page(self, columns: Sequence[str]) -> int | None:
        """Bytes that a page of each of these columns has together, at most; None where nothing tells."""
        del columns
        return None

    @abstractmethod
    def close(self) -> None:
        """Give up the file. Idempotent."""


class TableFormat(ABC):
    """How the tables of a format are found and opened.

    Args:
        options: how object stores are spoken to.

    Attributes:
        needs: a module of its library, and the extra that it is installed with.
        unit: what is in memory at once of a table, besides a batch of rows.
    """

    needs: tuple[str, str]
    unit: str

    def __init__(self, options: StoreOptions) -> None:
        self.containers = Containers(options)

    def check(self, place: str) -> None:
        """Refuse a place where nothing is.

        Raises:
            SourceError: nothing is.
            ConfigError: the library is not installed.
        """
        library(*self.needs)
        self.containers.check(place, "table")

    def names(self, place: str, mark: str) -> Sequence[str]:
        """The files at a place, in the order of the bytes of ``name + mark``.

        Raises:
            SourceError: they cannot be found.
        """
        return self.containers.names(place, mark)

    @abstractmethod
    def open(self, name: str, token: str = "") -> TableFile:
        """One of them.

        Args:
            name: which.
            token: that it must have; by default it may have any.

        Raises:
            ReadError: it has another, or cannot be read.
            Exception: of the library or the system, where it cannot be opened.
        """


class ContainerFormat(TableFormat):
    """Tables each of which is a file that ``pyarrow`` opens, here or in an object store."""

    needs = "pyarrow", "parquet"

    def open(self, name: str, token: str = "") -> TableFile:
        """A file, which is not another than was listed."""
        container = self.containers.open(name, Known.parse(token) if token else None)
        container.check()
        return self.table(container)

    @abstractmethod
    def table(self, container: Container) -> TableFile:
        """The table in an open file, which it closes."""


def arrow_file(container: Container) -> Any:
    """A ``pyarrow.NativeFile``: of a file of this machine its own, which is read without the interpreter."""
    arrow = library("pyarrow", "parquet")
    if isinstance(container, LocalContainer):
        # Read, never mapped: a mapped file that is cut short meanwhile would end this process.
        return arrow.OSFile(container.name)
    return arrow.PythonFile(container.file(0), mode="r")


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
