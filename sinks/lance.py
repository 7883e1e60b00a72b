"""``lance:DIR``: rows in a Lance dataset, upserted by key in large batches, put in order once at the end."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Unpack

import numpy as np
from numpy.typing import NDArray

from ..errors import CollectionMismatchError, ConfigError, PenstockError, SinkError
from .arrow import arrow
from .base import Deletable, Found, Hit, Scannable, Searchable
from .parquet.table import RECIPE, decoded, hit, row_batch
from .parquet.table_sink import FolderSink, TableOptions
from .rows import KEY, VECTOR, RowBatch, is_fit_key

_METRICS: Final = {"COSINE": "cosine", "IP": "dot", "L2": "l2"}
_DISTANCE: Final = "_distance"
_ROWS: Final = 4096
_NO_TIME: Final = timedelta(0)


class LanceSink(FolderSink):
    """A dataset that has each key once. Writes take turns; each is a version, there for good when it returns."""

    scheme = "lance"
    reserved = frozenset({_DISTANCE})

    def __init__(self, folder: Path, dimension: int | None = None, **options: Unpack[TableOptions]) -> None:
        self._lance = _lance()
        super().__init__(folder, dimension, **options)
        self._dataset: Any = None
        self._is_open = False

    def look(self) -> Found | None:
        """What is there; reads its latest version."""
        with self._errors():
            dataset = self._there()
            return None if dataset is None else Found(int(dataset.count_rows()), _note_of(dataset))

    def open(self) -> None:
        """Take the dataset that is there, if one is.

        Raises:
            CollectionMismatchError: it has another dimension or other columns; to be read only: there is none.
        """
        with self._errors():
            self._dataset = self._there()
            if self._dataset is None and self._dimension is None:
                raise CollectionMismatchError(f"{self.uri}: there is no dataset")
            if self._dataset is not None and not self._to_replace:
                if self._dimension is not None:
                    self._check(self._dataset.schema)
                self._note = _note_of(self._dataset)
            self._is_open = True

    @property
    def _is_writable(self) -> bool:
        return self._is_open and self._dimension is not None

    def _put(self, table: Any) -> None:
        with self._mutex, self._errors():
            if not self._is_writable:
                raise self._not_open
            if self._dataset is None or self._to_replace:
                mode = "create" if self._dataset is None else "overwrite"
                self._dataset = self._lance.write_dataset(table, str(self._folder), mode=mode)
                self._to_replace = False
            else:
                merge = self._dataset.merge_insert(KEY).when_matched_update_all().when_not_matched_insert_all()
                merge.execute(table)
                self._dataset = self._there()

    def count(self) -> int:
        with self._mutex, self._errors():
            return 0 if self._dataset is None else int(self._dataset.count_rows())

    def finish(self) -> None:
        """Join the pieces that the writes have made, and let go of old versions."""
        with self._mutex, self._errors():
            if self._dataset is not None:
                self._dataset.optimize.compact_files()
                self._dataset.cleanup_old_versions(older_than=_NO_TIME)

    def reader(self) -> Searchable:
        """Lance's own search: over every vector unless somebody has made an index."""
        return self

    def scanner(self) -> Scannable:
        return self

    def scan(self) -> Iterator[RowBatch]:
        """See `Scannable`."""
        with self._errors():
            for batch in () if self._dataset is None else self._dataset.to_batches(batch_size=_ROWS):
                yield row_batch(batch)

    def deleter(self) -> Deletable | None:
        """Sees the dataset as it is now: others may have written since it was opened."""
        if not self._is_open:
            return None
        with self._mutex, self._errors():
            self._dataset = self._there()
        return self

    def delete(self, keys: Sequence[str]) -> None:
        """See `Deletable`. Makes a version without them; `finish` lets go of the others."""
        fit = [key for key in keys if is_fit_key(key)]
        with self._mutex, self._errors():
            if self._dataset is None:
                return
            for first in range(0, len(fit), _ROWS):
                named = ", ".join(f"'{key}'" for key in fit[first : first + _ROWS])
                self._dataset.delete(f"{KEY} IN ({named})")
            self._dataset = self._there()

    def get(self, keys: Sequence[str], *, vectors: bool = False) -> dict[str, dict[str, Any]]:
        """The rows with these keys, as column dicts by key."""
        pa, _ = arrow()
        named = [key for key in keys if is_fit_key(key)]
        if self._dataset is None or not named:
            return {}
        with self._errors():
            columns = None if vectors else self._others()
            found = self._dataset.to_table(filter=pa.compute.field(KEY).isin(named), columns=columns)
        return {row[KEY]: decoded(row, found.schema, vectors=vectors) for row in found.to_pylist()}

    def search(self, vector: NDArray[np.float32], k: int = 10) -> list[Hit]:
        """The nearest rows.

        Raises:
            ConfigError: a vector of another dimension.
        """
        if self._dataset is None:
            return []
        length = self._dataset.schema.field(VECTOR).type.list_size
        query = np.asarray(vector, np.float32)
        if query.shape != (length,):
            raise ConfigError(f"vector: {list(query.shape)} given, [{length}] needed")
        nearest = {"column": VECTOR, "q": query, "k": k, "metric": _METRICS[self._metric]}
        with self._errors():
            found = self._dataset.to_table(columns=[*self._others(), _DISTANCE], nearest=nearest)
        schema = found.drop_columns(_DISTANCE).schema
        hits: list[Hit] = []
        for row in found.to_pylist():
            away = float(row.pop(_DISTANCE))
            columns = {**decoded(row, schema, vectors=False), KEY: row[KEY]}
            hits.append(hit(columns, away if self._metric == "L2" else 1.0 - away))
        return hits

    def close(self) -> None:
        self._dataset, self._is_open = None, False

    def _there(self) -> Any:
        """The dataset; None where there is none."""
        return self._lance.dataset(str(self._folder)) if (self._folder / "_versions").is_dir() else None

    def _check(self, there: Any) -> None:
        """Compare the dataset with what this sink would write."""
        here = self._layout.schema({})
        length = there.field(VECTOR).type.list_size if VECTOR in there.names else 0
        wrong = ""
        if length != self._dimension:
            wrong = f"vectors of {length} dimensions, this job makes {self._dimension}"
        elif _told(there) != _told(here):
            wrong = f"columns {_told(there)}, this job makes {_told(here)}"
        self._refuse(wrong)

    def _others(self) -> list[str]:
        """Every column but the vector."""
        return [name for name in self._dataset.schema.names if name != VECTOR]

    @contextmanager
    def _errors(self) -> Generator[None]:
        """What Lance or the disk refuses becomes an error that says where, and why."""
        try:
            yield
        except PenstockError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise SinkError(f"{self.uri}: {type(error).__name__}: {said:.400}") from error


def _lance() -> Any:
    try:
        return import_module("lance")
    except ImportError as error:
        raise ConfigError("Lance datasets need pylance: pip install 'penstock[lance]'") from error


def _note_of(dataset: Any) -> str:
    return str((dataset.schema.metadata or {}).get(RECIPE.encode(), b""), "utf-8")


def _told(schema: Any) -> str:
    return ", ".join(f"{name} {schema.field(name).type}" for name in schema.names if name != VECTOR)
