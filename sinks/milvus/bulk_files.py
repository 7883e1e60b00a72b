"""Rows into Parquet files for Milvus' bulk import: no server while embedding, one fast load afterwards."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from ...descriptors import CloseOnFork
from ...errors import CollectionMismatchError, RowRefusedError, SinkError
from ..arrow import arrow, arrow_type
from ..base import Found, Sink, SinkMemory
from ..columns import split_columns
from ..fields import parse_fields
from ..parquet.parts import Part, live_rows, merge, parts_in, write_part
from ..rows import KEY, VECTOR, RowBatch, WriteResult, need_dimension, screen
from .bulk_manifest import MANIFEST, SCHEME, Manifest, complete_parts, is_finished, read_manifest, write_manifest
from .rows import metadata_text
from .schema import COLUMNS, CollectionSpec

_LEAST_ROWS: Final = 4096
_MERGE_BYTES, _MERGE_ROW_BYTES = 128 * 2**20, 48
"""Finding the newest row of each key in all files, and copying them (measured: 40 bytes a row)."""
_WAY_ON = "the parts that are there stay: free some space or mend the disk, then run the job again and it goes on"
_META = "$meta"
_NOTE, _DIMENSION = b"penstock.recipe", b"penstock.dimension"


class ParquetBulkSink(Sink):
    """Writes rows as Parquet parts in the layout that ``do_bulk_insert`` of Milvus takes; see `bulk_import`.

    A write is a part, on disk when it returns. Closing merges them into parts of `part_bytes`, each key once, and
    leaves ``manifest.json``; a later session adds to them. One process at a time.

    Args:
        folder: where the parts go; created.
        dimension: length of the vectors.
        collection: name of the collection to import into.
        note: what the vectors are made by; kept in the parts, and with the collection.
        fields: typed columns, as for `MilvusSink`; likewise `partition_key` and `mode`.
        partition_key: of `fields`, or a varchar.
        mode: ``overwrite`` deletes the parts that are there when the first rows come.
        part_bytes: about the size of a part. Milvus takes up to 1 GiB (2.3) or 16 GiB (2.4).

    Raises:
        ConfigError: a setting that cannot be, or pyarrow is not installed.
    """

    has_collections: ClassVar[bool] = False
    keeps_collection_name: ClassVar[bool] = True

    def __init__(
        self,
        folder: str | os.PathLike[str],
        dimension: int,
        *,
        collection: str = "images",
        note: str = "",
        fields: Mapping[str, str] | None = None,
        partition_key: str | None = None,
        mode: Literal["append", "overwrite"] = "append",
        part_bytes: int = 256 * 2**20,
    ) -> None:
        arrow()
        self._named, self._dimension = Path(folder), dimension
        self._folder = self._named.absolute()
        self._spec = CollectionSpec(
            collection,
            dimension,
            "COSINE",
            "AUTOINDEX",
            note,
            fields=parse_fields(fields or {}),
            partition_key=partition_key,
        )
        self._columns = (*COLUMNS, *self._spec.typed())
        self._part_bytes = part_bytes
        self._to_replace = mode == "overwrite"
        self._mutex = threading.Lock()
        self._lock: CloseOnFork | None = None
        self._broken = False
        self._closing = False
        self._writes = 0  # under way
        self._note = note
        self._parts: list[Part] = []
        self._next = 1

    @property
    def threads(self) -> int:
        return 2

    @property
    def fingerprint(self) -> str:
        return f"{self.uri} collection {self._spec.name}"

    @property
    def uri(self) -> str:
        return f"{SCHEME}{self._folder}"

    @property
    def local_path(self) -> Path:
        return self._named

    def rows_per_write(self, asked: int) -> int:
        """Many: each write is a file until the end."""
        return max(asked, _LEAST_ROWS)

    def memory(self, dimension: int, rows: int) -> SinkMemory:
        """What putting the folder in order takes at the end."""
        del dimension
        return SinkMemory("merging", _MERGE_BYTES + _MERGE_ROW_BYTES * rows)

    @property
    def next_step(self) -> str:
        return f"import it: {shlex.join(['penstock', 'import', str(self._named), '--to', 'http://HOST:19530'])}"

    @property
    def needs_finish(self) -> bool:
        return not is_finished(self._folder)

    @property
    def note(self) -> str:
        """What the vectors of the folder are made by."""
        return self._note

    def open(self) -> None:
        """Make the folder, or check what is in it.

        Raises:
            SinkError: the folder is open in another process, or cannot be made.
            CollectionMismatchError: the parts there have another dimension or other columns.
        """
        with self._writing("take another folder (--to), or other permissions"):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
        try:
            self._parts = parts_in(self._folder)
            self._next = max((part.last for part in self._parts), default=0) + 1
            if self._parts and not self._to_replace:
                self._note = self._check(self._parts[0])
        except BaseException:
            self._let_go()
            raise

    def write(self, rows: RowBatch) -> WriteResult:
        """One part with all rows that fit. Refused rows are in the answer.

        Raises:
            CollectionMismatchError: vectors of another dimension.
            SinkError: the disk is full or gone.
        """
        if self._lock is None:
            raise SinkError(f"{self.uri}: the sink is not open; call open() first")
        need_dimension(rows, self._dimension, self.uri)
        screened = screen(rows)
        kept: list[int] = []
        values: dict[str, list[Any]] = {name: [] for name in (KEY, *(field.name for field in self._columns), _META)}
        refused: list[tuple[int, RowRefusedError]] = []
        for index in screened.kept:
            try:
                row = self._encoded(rows, index)
            except RowRefusedError as error:
                refused.append((index, error))
                continue
            kept.append(index)
            for name, value in row.items():
                values[name].append(value)
        if kept:
            with self._under_way(), self._writing():
                self._write_part(values, rows.vectors[kept])
        return screened.result(refused)

    def count(self) -> int:
        """Keys in the folder. Reads all of them."""
        with self._mutex:
            parts = list(self._parts)
        return sum(int(live.sum()) for live in live_rows(self._folder, parts))

    def look(self) -> Found | None:
        """What is there; None where there is no folder. Not while this sink is open.

        A finished folder holds what its manifest says, less the parts that are not there any more or have another size;
        of any other all keys are read.

        Raises:
            SinkError: the folder is open in another process.
        """
        if not self._folder.is_dir():
            return None
        with self._writing():
            lock = self._locked()
        try:
            if (self._folder / MANIFEST).exists():
                manifest = read_manifest(self._folder)
                return Found(sum(part["rows"] for part in complete_parts(self._folder, manifest)), manifest.note)
            parts = parts_in(self._folder)
            rows = sum(int(live.sum()) for live in live_rows(self._folder, parts))
            return Found(rows, self._note_in(parts[0]) if parts else "")
        finally:
            lock.close()

    def close(self) -> None:
        """Merge the parts, write the manifest, and let others at the folder. Idempotent.

        A write that is under way has been abandoned, and is not waited for: it lets others at the folder when it ends,
        which is unfinished then, as after a kill. Else its part would come among those of others.

        Raises:
            SinkError: the disk is full or gone; opening and closing again finishes it.
        """
        with self._mutex:
            if self._lock is None or self._closing:
                return
            self._closing = True
            if self._writes:
                return
        try:
            if not (self._broken or is_finished(self._folder)):
                with self._writing():
                    self._parts = merge(self._folder, self._parts, self._part_bytes)
                    self._write_manifest()
        finally:
            self._let_go()

    def _encoded(self, rows: RowBatch, index: int) -> dict[str, Any]:
        key = rows.keys[index]
        typed, rest = split_columns(key, rows.columns[index], self._columns)
        typed = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in typed.items()}
        return {KEY: key, **typed, _META: metadata_text(key, rest).decode()}

    def _write_part(self, values: dict[str, list[Any]], vectors: Any) -> None:
        pa, _ = arrow()
        starts = pa.array(range(0, vectors.size + 1, vectors.shape[1]), pa.int32())
        arrays = {VECTOR: pa.ListArray.from_arrays(starts, pa.array(vectors.reshape(-1)))}
        schema = self._schema()
        for name, column in values.items():
            arrays[name] = pa.array(column, schema.field(name).type)
        table = pa.table([arrays[name] for name in schema.names], schema=schema)
        with self._mutex:
            self._begin()
            part = Part(self._next, self._next)
            self._next += 1
        write_part(self._folder, part, iter([table]), schema)
        with self._mutex:
            self._parts = sorted([*self._parts, part])

    def _begin(self) -> None:
        """Before the first part of a session: the folder is unfinished again."""
        (self._folder / MANIFEST).unlink(missing_ok=True)
        if self._to_replace:
            for part in self._parts:
                (self._folder / part.name).unlink()
            self._parts, self._to_replace = [], False

    def _schema(self) -> Any:
        pa, _ = arrow()
        columns = [pa.field(KEY, pa.string(), nullable=False), pa.field(VECTOR, pa.list_(pa.float32()), nullable=False)]
        columns += [pa.field(each.name, arrow_type(each)) for each in self._columns]
        notes = {_NOTE: self._note.encode(), _DIMENSION: str(self._dimension).encode()}
        return pa.schema([*columns, pa.field(_META, pa.string())], metadata=notes)

    def _check(self, part: Part) -> str:
        """Compare a part that is there with what this sink would write; its note."""
        _, pq = arrow()
        there, here = pq.read_schema(self._folder / part.name), self._schema()
        length = int((there.metadata or {}).get(_DIMENSION, b"0"))
        wrong = [f"vectors of {length} dimensions, this job makes {self._dimension}"]
        wrong = wrong if length != self._dimension else []
        if not there.equals(here):
            wrong.append(f"columns {_columns(there)}, this job makes {_columns(here)}")
        if wrong:
            raise CollectionMismatchError(
                f"{self.uri} has parts with {'; '.join(wrong)}. Choose another folder, or replace them (--overwrite)"
            )
        return self._note_in(part)

    def _note_in(self, part: Part) -> str:
        _, pq = arrow()
        return str((pq.read_schema(self._folder / part.name).metadata or {}).get(_NOTE, b""), "utf-8")

    def _write_manifest(self) -> None:
        listed: list[dict[str, Any]] = []
        nulls = dict.fromkeys((each.name for each in self._spec.typed()), 0)
        for part in self._parts:
            path = self._folder / part.name
            rows = _count_nulls(path, nulls)
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            listed.append({"name": part.name, "rows": rows, "bytes": path.stat().st_size, "sha256": digest})
        manifest = Manifest(
            collection=self._spec.name,
            dimension=self._dimension,
            note=self._note,
            fields={each.name: each.declared for each in self._spec.typed()},
            partition_key=self._spec.partition_key,
            rows=sum(part["rows"] for part in listed),
            parts=listed,
            nulls=nulls,
        )
        write_manifest(self._folder, manifest)

    @contextmanager
    def _writing(self, way_on: str = _WAY_ON) -> Generator[None]:
        """What the disk refuses becomes an error that says where, why, and what to do."""
        try:
            yield
        except OSError as error:
            self._broken = True  # closing has nothing to add to that
            raise SinkError(f"{self.uri} cannot be written: {error.strerror or error}; {way_on}") from error

    def _locked(self) -> CloseOnFork:
        lock = CloseOnFork(os.open(self._folder / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            fcntl.flock(lock.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise SinkError(f"{self.uri} is open in another process; wait for it, or choose another folder") from None
        return lock

    @contextmanager
    def _under_way(self) -> Generator[None]:
        """A write, during which the folder stays ours."""
        with self._mutex:
            if self._lock is None or self._closing:
                raise SinkError(f"{self.uri}: the sink is closed")
            self._writes += 1
        try:
            yield
        finally:
            self._write_ended()

    def _write_ended(self) -> None:
        with self._mutex:
            self._writes -= 1
            if self._closing and not self._writes:
                self._let_go()

    def _let_go(self) -> None:
        self._closing = False
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()


def _count_nulls(path: Path, nulls: dict[str, int]) -> int:
    _, pq = arrow()
    metadata = pq.read_metadata(path)
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            if column.path_in_schema in nulls:
                nulls[column.path_in_schema] += column.statistics.null_count
    return int(metadata.num_rows)


def _columns(schema: Any) -> str:
    return ", ".join(f"{name} {schema.field(name).type}" for name in schema.names)
