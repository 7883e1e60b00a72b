"""Rows into Milvus: a Milvus Lite store, a Milvus server or Zilliz Cloud, by the same URI argument."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import CollectionMismatchError, ConfigError, SinkError
from ...messages import redact
from ..base import Deletable, Found, Hit, IndexState, Scannable, Searchable, Sink, SinkMemory
from ..fields import parse_fields
from ..rows import KEY, VECTOR, RowBatch, WriteResult, is_fit_key, screen
from .collection import Collection, partitions, wait_for_index
from .connection import RETRY_FOR, Connection
from .errors import CallError, ErrorKind
from .index_options import Number, check_index
from .lite_memory import lite_memory
from .rows import decode_columns, decode_hit, encode_row
from .schema import CollectionSpec, Layout
from .upsert import upsert
from .uri import parse_uri
from .whole import delete_rows, pages
from .writer import MilvusWriter


class MilvusSink(Sink):
    """Upserts rows by key into one collection, which it creates if there is none.

    Args:
        uri: ``photos.db`` (Milvus Lite, in a process of its own), ``http://host:19530``, ``https://...``: `parse_uri`.
        collection: name; letters, digits and ``_``.
        dimension: length of the vectors; None to take that of an existing collection (for searching).
        token: API key or ``user:password``; otherwise from the URI or from ``MILVUS_TOKEN``.
        metric: COSINE, IP or L2, in any case.
        index: Milvus index type of a new collection; one that has another is left as it is, with a warning. None:
            ``FLAT`` on Milvus Lite, ``AUTOINDEX`` on a server. FLAT is exact. Lite's AUTOINDEX is HNSW, built when rows
            are flushed: closing after 20,000 rows of 512 floats takes 8.9 s instead of 1.8 (on a busy machine 50 s
            instead of 4), a search then 12 ms instead of 41.
        timeout: seconds for one call.
        retry_for: seconds to go on trying while Milvus is gone, restarting, too busy or rate-limited. None: 120, but a
            server that is not there when the sink is opened is an error at once.
        rows_per_call: most rows in one upsert; fewer while calls take longer than a second. More than 500 bring nothing
            on Milvus Lite, a little on a server, and longer gaps for the hub of an engine beside it.
        max_call_bytes: size of one upsert; halved by itself when a server takes less. Milvus takes 64 MiB.
        note: kept with a collection that is made here, to be read back by `note`.
        threads: see `Sink.threads`; also the most upserts in flight. How many of them are used is found by trying, from
            one upwards; while all are taken, writers wait in a line whose rows share the next upsert. See `stats`.
        mode: what happens to rows that are there: ``append`` keeps them (the same key is written over), ``overwrite``
            deletes them, with the whole collection or the `partition`, when the first new rows arrive. Before that it
            is tried, on an empty collection of another name, whether the new one can be made.
        fields: typed columns, filled from metadata: ``{"year": "int64", "album": "varchar(256)"}``. They are nullable
            where the server has that (Milvus 2.5); elsewhere a row without a value is refused.
        partition: the one partition that everything is about; made if there is none.
        partition_key: field by whose values the server divides the collection; a varchar if `fields` does not say.
        index_params: of the index of a new collection: ``{"M": 16, "efConstruction": 200}``.

    Raises:
        ConfigError: a setting that cannot be. The message names it.
    """

    rewrites: ClassVar[bool] = True

    def __init__(
        self,
        uri: str | os.PathLike[str],
        collection: str = "images",
        dimension: int | None = None,
        *,
        token: str | None = None,
        metric: str = "COSINE",
        index: str | None = None,
        timeout: float = 30.0,
        retry_for: float | None = None,
        rows_per_call: int = 500,
        max_call_bytes: int = 8 * 2**20,
        threads: int = 8,
        note: str = "",
        mode: Literal["append", "overwrite"] = "append",
        fields: Mapping[str, str] | None = None,
        partition: str | None = None,
        partition_key: str | None = None,
        index_params: Mapping[str, Number] | None = None,
    ) -> None:
        _require_positive(
            timeout=timeout,
            retry_for=RETRY_FOR if retry_for is None else retry_for,
            rows_per_call=rows_per_call,
            max_call_bytes=max_call_bytes,
            threads=threads,
        )
        target = parse_uri(uri, token)
        self._given = os.fspath(uri)
        kind = index or ("FLAT" if target.lite else "AUTOINDEX")
        self._spec = CollectionSpec(
            collection,
            dimension,
            metric.upper(),
            kind,
            note,
            index_params=check_index(kind, index_params or {}),
            index_asked=index is not None,
            fields=parse_fields(fields or {}),
            partition_key=partition_key,
            partition=partition,
        )
        self._to_replace = mode == "overwrite" and dimension is not None
        self._replacing = threading.Lock()
        self._connection = Connection(target, collection, timeout=timeout, retry_for=retry_for)
        self._writer = MilvusWriter(
            self._connection,
            collection,
            self._upsert,
            calls=threads,
            rows_per_call=rows_per_call,
            call_bytes=max_call_bytes,
        )
        self._threads = threads
        self._layout: Layout | None = None

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def uri(self) -> str:
        return self._connection.target.named

    @property
    def fingerprint(self) -> str:
        partition = f" partition {self._spec.partition}" if self._spec.partition else ""
        return f"{self.uri} collection {self._spec.name}{partition}"

    @property
    def has_secret(self) -> bool:
        return bool(self._connection.target.token)

    @property
    def local_path(self) -> Path | None:
        return Path(self._given) if self._connection.target.lite else None

    def memory(self, dimension: int, rows: int) -> SinkMemory | None:
        """That of Milvus Lite; a server is somebody else's."""
        return lite_memory(dimension, rows) if self._connection.target.lite else None

    @property
    def next_step(self) -> str:
        collection = ["--collection", self._spec.name] if self._spec.name != "images" else []
        command = ["penstock", "search", redact(self._given), "IMAGE", *collection, "--html", "matches.html"]
        return f"search it: {shlex.join(command)}"

    @property
    def dimension(self) -> int:
        """Length of the vectors of the open collection."""
        return self._open_layout().dimension

    @property
    def note(self) -> str:
        """What the open collection was made with; empty where it does not say."""
        return self._open_layout().note

    def reach(self) -> None:
        """See whether there is a server, in milliseconds: before anything dear is begun. `open` does so, too.

        Raises:
            SinkUnavailableError: nobody listens there, and `retry_for` is not given.
        """
        self._connection.reach()

    def open(self) -> None:
        """Connect, then create the collection or check the one that is there. Also finishes one left without an index.

        Raises:
            SinkUnavailableError: Milvus does not answer.
            CollectionMismatchError: the collection does not fit, or there is none and no `dimension` to make one with.
            SinkError: access denied, or the Milvus Lite store is open in another process.
        """
        _warn_if_patched()
        try:
            self._layout = self._connection.call("connection", self._prepare, first=True)
        except CallError as cause:
            raise self._writer.error("opening", cause) from cause

    def write(self, rows: RowBatch) -> WriteResult:
        """Upsert all rows. The rows that Milvus will never take are in the answer, all others are acknowledged.

        Raises:
            CollectionMismatchError: vectors of another dimension.
            SinkUnavailableError: Milvus does not answer, after retries; write the same rows again later.
            SinkError: Milvus refuses everything, the collection has gone, or access is denied.
        """
        layout = self._open_layout()
        if len(rows) and rows.vectors.shape[1] == layout.dimension:
            self.begin()
            layout = self._open_layout()
        if rows.vectors.shape[1] != layout.dimension:
            raise CollectionMismatchError(
                f"{self.uri}: collection {self._spec.name!r} holds vectors of {layout.dimension} dimensions,"
                f" these have {rows.vectors.shape[1]}; choose another collection (--collection)"
            )
        screened = screen(rows)
        return screened.result(self._writer.write(screened.kept, lambda index: encode_row(rows, index, layout)))

    def stats(self) -> Mapping[str, float]:
        """How writing goes. All are sums since the sink was made, except the first two.

        Returns:
            ``rows_per_call`` (mean) and ``in_flight`` (upserts at once, as found best so far); ``calls`` (upserts that
            were answered), ``retries``, ``splits`` (upserts halved because they were too large or held a wrong row),
            ``limited_seconds`` (waited because Milvus said that its rate or quota was used up). Of now: ``waiting``
            (for how many seconds it has not answered; 0 while it does), ``retry_for`` (after how many it is given up).
        """
        waiting, limit = self._connection.waiting
        return {**self._writer.stats(), "waiting": waiting, "retry_for": limit}

    def count(self) -> int:
        """Rows in the collection: exact, at Strong consistency (Milvus' own statistics count replaced rows, too)."""
        answer = self._ask("count", lambda client, seconds: Collection(client, seconds, self._spec).count())
        return int(answer)

    def look(self) -> Found | None:
        """What is there, without making or changing anything; None where there is no store, collection or partition.

        Raises:
            SinkUnavailableError: Milvus does not answer.
            SinkError: access denied, or the Milvus Lite store is open in another process.
        """
        target = self._connection.target
        if target.lite and not Path(target.address).exists():
            return None  # connecting would make it
        try:
            return self._connection.call(
                "connection", lambda client, seconds: Collection(client, seconds, self._spec).look(), first=True
            )
        except CallError as cause:
            raise self._writer.error("looking", cause) from cause

    def wait_index(
        self,
        seconds: float,
        on_progress: Callable[[IndexState], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> IndexState:
        """Write out what is in the server's memory, and wait until its index covers every row.

        Args:
            seconds: to wait at most, after the flush.
            on_progress: hears how far it is, several times a second.
            stop: ends the waiting early.

        Raises:
            SinkError: it is not done in time. All rows are in the store.
        """
        name = self._spec.name
        self._ask("flush", lambda client, limit: client.flush(name, timeout=max(limit, seconds)))

        def look() -> IndexState:
            state = self._ask("index", lambda client, limit: Collection(client, limit, self._spec).index_state())
            assert isinstance(state, IndexState)
            return state

        return wait_for_index(look, self.count(), seconds, on_progress, stop)

    def reader(self) -> Searchable:
        return self

    def scanner(self) -> Scannable:
        return self

    def scan(self) -> Iterator[RowBatch]:
        """See `Scannable`: in the order of keys, a page at a time."""
        for rows in pages(self._ask, self._spec, self.uri):
            vectors = np.array([row[VECTOR] for row in rows], np.float32)
            yield RowBatch([str(row[KEY]) for row in rows], vectors, [decode_columns(row) for row in rows])

    def deleter(self) -> Deletable:
        return self

    def delete(self, keys: Sequence[str]) -> None:
        """See `Deletable`."""
        delete_rows(self._ask, self._spec, keys)

    def get(self, keys: Sequence[str], *, vectors: bool = False) -> dict[str, dict[str, Any]]:
        """The rows with these keys, as column dicts by key; keys that are not there are left out.

        Args:
            keys: primary keys. Those that no row can have are not asked for, so none is read as an expression.
            vectors: with the column ``vector``, float32 [D].
        """
        wanted = [key for key in keys if is_fit_key(key)]
        if not wanted:
            return {}
        answer = self._ask(
            "get",
            lambda client, seconds: client.get(
                self._spec.name,
                wanted,
                output_fields=["*"],
                consistency_level="Strong",
                timeout=seconds,
                **partitions(self._spec),
            ),
        )
        found: dict[str, dict[str, Any]] = {}
        for row in answer:
            columns = decode_columns(row)
            if vectors:
                columns[VECTOR] = np.asarray(row[VECTOR], np.float32)
            found[str(row[KEY])] = columns
        return found

    def search(
        self,
        vector: NDArray[np.float32],
        k: int = 10,
        *,
        filter: str = "",  # noqa: A002  (the word of Milvus)
        filter_params: Mapping[str, Any] | None = None,
        output_fields: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The nearest rows, nearest first, including every acknowledged write.

        Args:
            vector: [D], finite.
            k: how many at most.
            filter: Milvus expression, as ``width > 1000``. Never paste values of others into it: write ``path == {p}``
                and give ``p`` in `filter_params` (servers only: Milvus Lite 3.2 does not know them).
            filter_params: values for the names in braces.
            output_fields: names of columns; None for all.

        Raises:
            ConfigError: a vector, k or filter that cannot be.
            SinkUnavailableError: Milvus does not answer, after retries.
        """
        query = np.asarray(vector, np.float32)
        if query.shape != (self.dimension,) or not np.isfinite(query).all():
            raise ConfigError(f"vector: {list(query.shape)} given, [{self.dimension}] of finite numbers needed")
        if k < 1:
            raise ConfigError(f"k: {k} is not possible, 1 is the least")
        wanted = ["*"] if output_fields is None else [KEY, *output_fields]
        try:
            answer = self._connection.call(
                "search",
                lambda client, seconds: client.search(
                    self._spec.name,
                    [query.tolist()],
                    limit=k,
                    filter=filter,
                    filter_params=dict(filter_params or {}),
                    output_fields=wanted,
                    consistency_level="Strong",
                    timeout=seconds,
                    **partitions(self._spec),
                ),
            )
        except CallError as cause:
            if filter and cause.kind in {ErrorKind.ROW, ErrorKind.UNKNOWN}:
                raise ConfigError(f"filter: {filter!r} was refused: {cause}") from cause
            raise self._writer.error("search", cause) from cause
        return [decode_hit(hit["entity"], float(hit["distance"])) for hit in answer[0]]

    @property
    def server_version(self) -> str:
        """What the server says of itself: ``v2.5.4``, ``milvus_lite-3.2.2``."""
        return str(self._ask("version", lambda client, seconds: client.get_server_version(timeout=seconds)))

    def begin(self) -> None:
        """Overwrite now, rather than with the first rows. Otherwise nothing."""
        if self._to_replace:
            self._replace_once()

    def start_import(self, file: str) -> int:
        """Have the server load a Parquet file of its own storage; the number of the task.

        Raises:
            SinkError: the server refuses.
        """
        name, partition = self._spec.name, self._spec.partition or ""
        # The handler's, because pymilvus has it elsewhere only in its ORM, which is announced to go in 3.1.
        return int(
            self._ask(
                "import",
                lambda client, seconds: client._get_connection().do_bulk_insert(
                    name, partition, [file], timeout=seconds
                ),
            )
        )

    def import_state(self, task: int) -> Any:
        """How far a task is: pymilvus' ``BulkInsertState``."""
        return self._ask(
            "import", lambda client, seconds: client._get_connection().get_bulk_insert_state(task, timeout=seconds)
        )

    def refresh(self) -> None:
        """Make the server load what it has imported since it loaded the collection; it may take seconds."""
        self._ask("refresh", lambda client, seconds: client.refresh_load(self._spec.name, timeout=seconds))

    def drop(self) -> None:
        """Delete the collection and all its rows. Writing again needs `open` again."""
        self._ask("drop", lambda client, seconds: client.drop_collection(self._spec.name, timeout=seconds))
        self._layout = None

    def close(self) -> None:
        """Disconnect. On Milvus Lite also write out and index the last rows, which can take seconds."""
        self._connection.close()
        self._layout = None

    def _prepare(self, client: Any, seconds: float) -> Layout:
        collection = Collection(client, seconds, self._spec)
        # Milvus Lite takes no lock on writes; our own server of it has one worker, another's has ten.
        self._writer.one_at_a_time(collection.lite and not self._connection.target.lite)
        if self._to_replace and self._spec.partition is None and collection.exists():
            return collection.dry_run()
        return collection.prepare(self.uri)

    def _replace_once(self) -> None:
        """The rows that were there go when the first new ones come: a job that cannot start has taken nothing away."""
        with self._replacing:
            if self._to_replace:
                self._layout = self._ask("overwrite", self._replace)
                self._to_replace = False

    def _replace(self, client: Any, seconds: float) -> Layout:
        return Collection(client, seconds, self._spec).replace(self.uri)

    def _upsert(self, client: Any, rows: list[dict[str, Any]], seconds: float) -> None:
        upsert(client, self._spec.name, rows, partition=self._spec.partition or "", seconds=seconds)

    def _ask(self, what: str, request: Any) -> Any:
        self._open_layout()
        try:
            return self._connection.call(what, request)
        except CallError as cause:
            raise self._writer.error(what, cause) from cause

    def _open_layout(self) -> Layout:
        if self._layout is None:
            raise SinkError(f"{self.uri}: the sink is not open; call open() first")
        return self._layout


def _require_positive(**settings: float) -> None:
    for name, value in settings.items():
        if value <= 0:
            raise ConfigError(f"{name}: {value} is not possible, it must be more than 0")


def _warn_if_patched() -> None:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        warnings.warn(
            "gevent has patched the threading module of this process: pymilvus is known to hang then (pymilvus issues"
            " 1229, 1729, 2071). Do not monkey-patch; penstock needs no patching",
            RuntimeWarning,
            stacklevel=3,
        )
