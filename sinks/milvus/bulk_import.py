"""Milvus' bulk import of a folder that `ParquetBulkSink` made: the server reads the files itself."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import CollectionMismatchError, ConfigError, SinkError
from ..base import IndexState
from .bulk_manifest import Manifest, read_manifest
from .index_options import Number
from .schema import knows_null
from .sink import MilvusSink

_AT_ONCE = 8
"""Files a server is given to read at a time; it queues 32 by default, for everybody."""
_LOOK_AGAIN = 0.5


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is."""

    rows: int
    parts_done: int
    rows_visible: int = 0
    index: IndexState | None = None


def bulk_import(
    folder: str | os.PathLike[str],
    to: str,
    *,
    collection: str | None = None,
    token: str | None = None,
    mode: Literal["append", "overwrite"] = "append",
    partition: str | None = None,
    metric: str = "COSINE",
    index: str | None = None,
    index_params: Mapping[str, Number] | None = None,
    server_path: str | None = None,
    timeout: float = 3600.0,
    retry_for: float | None = None,
    on_progress: Callable[[ImportProgress], None] = lambda _: None,
    told: Callable[[ImportProgress], None] | None = None,
) -> ImportProgress:
    """Have a Milvus server load the parts of a finished folder, and wait until every row is there and indexed.

    The server reads the files by itself: from its own disk where that is its storage, or from its bucket. The same
    files must be there. Bulk import does not look at keys, so the collection (or partition) must be empty;
    ``overwrite`` empties it. What an import that was killed has left is in the way, too.

    Args:
        folder: with its ``manifest.json``.
        to: ``http://host:19530``; Milvus Lite has no bulk import.
        collection: default: the one the folder was made for.
        token: see `MilvusSink`; likewise partition, metric, index and index_params.
        mode: see above.
        partition: load into this one.
        metric: of a new collection.
        index: of a new collection.
        index_params: of a new collection.
        server_path: the folder as the server knows it: a path on its disk, or a prefix in its bucket. Default: the
            absolute path of `folder`, right for a server on this machine.
        timeout: seconds for all of it.
        retry_for: see `MilvusSink`.
        on_progress: hears how far it is.
        told: the older name of `on_progress`.

    Raises:
        ConfigError: no finished folder, a Milvus Lite, or the folder's rows do not fit the server.
        CollectionMismatchError: the collection there does not fit, or has rows.
        SinkError: the server cannot read a file, or it took too long.
    """
    manifest = read_manifest(folder)
    sink = MilvusSink(
        to,
        collection or manifest.collection,
        manifest.dimension,
        token=token,
        metric=metric,
        index=index,
        note=manifest.note,
        mode=mode,
        fields=manifest.fields,
        partition=partition,
        partition_key=manifest.partition_key,
        index_params=index_params,
        retry_for=retry_for,
    )
    prefix = server_path if server_path is not None else str(Path(folder).absolute())
    job = _Import(sink, manifest, prefix.rstrip("/"), time.monotonic() + timeout, told or on_progress)
    with sink:
        return job.run()


class _Import:
    """One import. All its waiting ends at the deadline."""

    def __init__(
        self,
        sink: MilvusSink,
        manifest: Manifest,
        prefix: str,
        deadline: float,
        on_progress: Callable[[ImportProgress], None],
    ) -> None:
        self._sink, self._manifest, self._prefix = sink, manifest, prefix
        self._deadline, self._on_progress = deadline, on_progress
        self._pause = threading.Event()

    def run(self) -> ImportProgress:
        self._check_server()
        self._sink.begin()
        self._check_empty()
        self._load()
        self._sink.refresh()
        self._wait_visible()
        rows = self._manifest.rows
        done = len(self._manifest.parts)
        state = self._sink.wait_index(
            max(0.0, self._deadline - time.monotonic()),
            lambda index: self._on_progress(ImportProgress(rows, done, rows, index)),
        )
        self._wait_visible()  # what a file that was loaded twice adds may have come later than the right number
        return ImportProgress(rows, done, rows, state)

    def _check_server(self) -> None:
        version = self._sink.server_version
        if "milvus_lite" in version:
            raise ConfigError(
                f"{self._sink.uri}: Milvus Lite has no bulk import; give a Milvus server, or embed into the file itself"
            )
        missing = {name: count for name, count in self._manifest.nulls.items() if count}
        if missing and not knows_null(version):
            listed = ", ".join(f"{name} ({count} rows)" for name, count in missing.items())
            raise ConfigError(
                f"{self._sink.uri}: this server ({version}) knows no null and would make 0 or '' of it in {listed};"
                " give every picture a value, or use Milvus 2.5"
            )

    def _check_empty(self) -> None:
        there = self._sink.count()
        if there:
            raise CollectionMismatchError(
                f"{self._sink.uri}: there are {there} rows already, and a bulk import does not look at keys: rows with"
                " the same key would be there twice. Import into an empty collection, or replace this one (--overwrite)"
            )

    def _load(self) -> None:
        waiting = [str(part["name"]) for part in self._manifest.parts]
        running: dict[int, str] = {}
        done = 0
        self._on_progress(ImportProgress(self._manifest.rows, 0))
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:
                name = waiting.pop(0)
                running[self._sink.start_import(f"{self._prefix}/{name}")] = name
            finished = [task for task in running if self._is_loaded(task, running[task])]
            for task in finished:
                del running[task]
            done += len(finished)
            self._on_progress(ImportProgress(self._manifest.rows, done))
            if not finished:
                self._wait(f"{done} of {len(self._manifest.parts)} parts are loaded")

    def _is_loaded(self, task: int, name: str) -> bool:
        state = self._sink.import_state(task)
        if "Failed" in state.state_name:
            raise SinkError(
                f"{self._sink.uri}: the server could not load {self._prefix}/{name}: {state.failed_reason}. It reads"
                " the files itself, from its own disk or bucket: --server-path says where the folder is there. What it"
                " has loaded stays; import again with --overwrite"
            )
        return bool(state.state_name == "Completed")

    def _wait_visible(self) -> None:
        """Loaded rows appear a while later, up to 20 s on 2.3."""
        rows = self._manifest.rows
        while (visible := self._sink.count()) != rows:
            if visible > rows:
                raise SinkError(
                    f"{self._sink.uri}: {visible} rows, but {rows} were imported: somebody else writes there, or a"
                    " lost answer made the server load a file twice. Import again with --overwrite"
                )
            self._on_progress(ImportProgress(rows, len(self._manifest.parts), visible))
            self._wait(f"{visible} of {rows} rows are visible")

    def _wait(self, so_far: str) -> None:
        if time.monotonic() >= self._deadline:
            raise SinkError(
                f"{self._sink.uri}: the import took too long: {so_far}. The server may go on with it; a longer time is"
                " --timeout"
            )
        self._pause.wait(_LOOK_AGAIN)
