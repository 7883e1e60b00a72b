"""Pairs of a NumPy file of vectors and a Parquet file of metadata, numbered, as `NpySink` writes them."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...durable import put
from ...errors import ConfigError, SinkError
from ..arrow import arrow
from ..parquet.parts import digests_in, newest
from ..parquet.table import RECIPE, decoded, write_options
from ..rows import KEY, VECTOR, RowBatch

PATH: Final = "image_path"
"""What clip-retrieval calls the column ``path``."""

_NAME: Final = re.compile(r"img_emb_(\d{5,})\.npy")


class Pairs:
    """The pairs of one folder. Of rows with the same key the one in the latest pair counts.

    Every method raises SinkError where the disk refuses.

    Args:
        folder: where they lie.
        uri: what it is called in messages.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder, self._uri = folder, uri

    def make_folders(self) -> None:
        """Make what is not there."""
        with disk_errors(self._uri):
            for folder in ("img_emb", "metadata"):
                (self._folder / folder).mkdir(parents=True, exist_ok=True)

    def numbers(self) -> list[int]:
        """Of the pairs, in the order of writing."""
        with disk_errors(self._uri):
            names = os.listdir(self._folder / "img_emb") if (self._folder / "img_emb").is_dir() else []  # noqa: PTH208
        return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))

    def vectors(self, number: int) -> Path:
        """Path of the matrix."""
        return self._folder / "img_emb" / f"img_emb_{number:05}.npy"

    def metadata(self, number: int) -> Path:
        """Path of the table."""
        return self._folder / "metadata" / f"metadata_{number:05}.parquet"

    def matrix(self, number: int) -> NDArray[np.float32]:
        """The vectors, float32 ``[n, D]``, mapped from the file."""
        with disk_errors(self._uri):
            matrix: NDArray[np.float32] = np.load(self.vectors(number), mmap_mode="r", allow_pickle=False)
            return matrix

    def write(self, table: Any) -> None:
        """A new pair, of a table of all columns. It is on disk when this returns."""
        pa, pq = arrow()
        number = max(self.numbers(), default=-1) + 1
        vectors = np.asarray(table.column(VECTOR).combine_chunks().flatten()).reshape(len(table), -1)
        told = table.drop_columns(VECTOR)
        at = told.schema.get_field_index("path")
        schema = told.schema.set(at, told.schema.field(at).with_name(PATH))  # renaming the column loses the note
        told = pa.Table.from_arrays(told.columns, schema=schema)
        options = {name: value for name, value in write_options(told.schema).items() if name != "use_byte_stream_split"}
        with _named(self.metadata(number)) as unfinished:
            pq.write_table(told, unfinished, **options)
        with _named(self.vectors(number)) as unfinished, open(unfinished, "wb") as file:
            np.save(file, vectors, allow_pickle=False)

    def delete(self, numbers: Sequence[int]) -> None:
        """Take pairs away, the matrix first."""
        for number in numbers:
            self.vectors(number).unlink(missing_ok=True)
            self.metadata(number).unlink(missing_ok=True)

    def table(self, number: int, live: NDArray[np.bool_], schema: Any) -> Any:
        """The live rows of a pair as a table of all columns."""
        pa, pq = arrow()
        told = pq.read_table(self.metadata(number))
        told = told.rename_columns(["path" if name == PATH else name for name in told.column_names])
        flat = pa.array(np.ascontiguousarray(self.matrix(number)).reshape(-1))
        columns = {name: told.column(name) for name in told.column_names}
        columns[VECTOR] = pa.FixedSizeListArray.from_arrays(flat, type=schema.field(VECTOR).type)
        return pa.table([columns[name] for name in schema.names], schema=schema).filter(pa.array(live))

    def rows(self, number: int, live: NDArray[np.bool_]) -> RowBatch:
        """The live rows of a pair, as they were written."""
        _, pq = arrow()
        with disk_errors(self._uri):
            told = pq.read_table(self.metadata(number))
        vectors = np.ascontiguousarray(self.matrix(number)[live], np.float32)
        rows = [row for row, kept in zip(told.to_pylist(), live.tolist(), strict=True) if kept]
        columns = [_columns(row, told.schema, vectors=False) for row in rows]
        return RowBatch([row[KEY] for row in rows], vectors, columns)

    def live(self, numbers: Sequence[int]) -> list[NDArray[np.bool_]]:
        """For each pair, which of its rows are the newest of their key. Reads all keys."""
        with disk_errors(self._uri):
            return newest([digests_in(self.metadata(number)) for number in numbers])

    def rows_in(self, numbers: Sequence[int]) -> int:
        """Different keys in all of them."""
        return sum(int(live.sum()) for live in self.live(numbers))

    def row(self, number: int, row: int) -> dict[str, Any]:
        """The columns of one row, and its key."""
        _, pq = arrow()
        with disk_errors(self._uri):
            table = pq.read_table(self.metadata(number)).slice(row, 1)
        (found,) = table.to_pylist()
        return {**_columns(found, table.schema, vectors=False), KEY: found[KEY]}

    def note_in(self, number: int) -> str:
        """What the vectors are made by."""
        _, pq = arrow()
        with disk_errors(self._uri):
            return str((pq.read_schema(self.metadata(number)).metadata or {}).get(RECIPE.encode(), b""), "utf-8")

    def get(self, keys: Sequence[str], *, vectors: bool) -> dict[str, dict[str, Any]]:
        """The rows with these keys, as column dicts by key."""
        pa, pq = arrow()
        found: dict[str, dict[str, Any]] = {}
        for number in reversed(self.numbers()):
            with disk_errors(self._uri):
                table = pq.read_table(self.metadata(number), filters=pa.compute.field(KEY).isin(list(keys)))
                if not len(table):
                    continue
                every = pq.read_table(self.metadata(number), columns=[KEY]).column(KEY)
                matrix = self.matrix(number)
                for row in table.to_pylist():
                    if row[KEY] not in found:
                        own = {VECTOR: matrix[pa.compute.index(every, row[KEY]).as_py()]} if vectors else {}
                        found[row[KEY]] = _columns({**row, **own}, table.schema, vectors=vectors)
        return found


@contextmanager
def disk_errors(uri: str) -> Generator[None]:
    """What the disk refuses becomes an error that says where, why, and what to do."""
    pa, _ = arrow()
    try:
        yield
    except (OSError, pa.ArrowException, ValueError) as error:
        if isinstance(error, (SinkError, ConfigError)):
            raise
        why = getattr(error, "strerror", None) or str(error)
        raise SinkError(f"{uri}: {why}; what is there stays: free some space or mend the disk") from error


def _columns(row: Mapping[str, Any], schema: Any, *, vectors: bool) -> dict[str, Any]:
    found = decoded(row, schema, vectors=vectors)
    if PATH in found:
        found["path"] = found.pop(PATH)
    return found


@contextmanager
def _named(path: Path) -> Generator[Path]:
    """A file under another name, which it has until it is complete, and on disk."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        put(unfinished, path)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
