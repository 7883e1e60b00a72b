"""Rows into Milvus: a Milvus Lite file, a Milvus server or Zilliz Cloud, by the same URI argument."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CollectionMismatchError, ConfigError, RowRefusedError, SinkError
from .base import RowBatch, Sink, WriteResult, is_fit_key, screen
from .milvus_connection import Connection
from .milvus_errors import Kind, Trouble, caught, quiet
from .milvus_uri import parse_uri
from .schema import (
    KEY,
    NOTE_PROPERTY,
    VECTOR,
    CollectionSpec,
    Hit,
    Layout,
    check_collection,
    check_metric,
    decode_hit,
    encode_row,
    make_schema,
)

_Row = tuple[int, dict[str, Any]]
_SMALLEST_CALL_BYTES = 64 * 1024


class MilvusSink(Sink):
    """Upserts rows by key into one collection, which it creates if there is none.

    Args:
        uri: ``photos.db`` (Milvus Lite, in a process of its own), ``http://host:19530``, ``https://...``: `parse_uri`.
        collection: name; letters, digits and ``_``.
        dimension: length of the vectors; None to take that of an existing collection (for searching).
        token: API key or ``user:password``; otherwise from the URI or from ``MILVUS_TOKEN``.
        metric: COSINE, IP or L2.
        index: Milvus index type of a new collection; None: ``FLAT`` on Milvus Lite, ``AUTOINDEX`` on a server. FLAT is
            exact. Lite's AUTOINDEX is HNSW, built when rows are flushed: closing after 20,000 rows of 512 floats takes
            8.9 s instead of 1.8 (on a busy machine 50 s instead of 4), a search then 12 ms instead of 41.
        timeout: seconds for one call.
        retry_for: seconds to go on trying while Milvus is gone, restarting, too busy or rate-limited.
        rows_per_call: rows in one upsert. 100 to 250 keep the hub of the engine responsive: pymilvus builds the message
            under the GIL (1,000 rows stall it for 0.1 s).
        max_call_bytes: size of one upsert; halved by itself when a server takes less. Milvus takes 64 MiB.
        note: kept with a collection that is made here, to be read back by `note`.
        threads: see `Sink.threads`. Two overlap building a message with the server's work on another; more buy little.

    Raises:
        ConfigError: a setting that cannot be. The message names it.
    """

    def __init__(
        self,
        uri: str,
        collection: str = "images",
        dimension: int | None = None,
        *,
        token: str | None = None,
        metric: str = "COSINE",
        index: str | None = None,
        timeout: float = 30.0,
        retry_for: float = 120.0,
        rows_per_call: int = 200,
        max_call_bytes: int = 8 * 2**20,
        threads: int = 2,
        note: str = "",
    ) -> None:
        _require_positive(
            timeout=timeout,
            retry_for=retry_for,
            rows_per_call=rows_per_call,
            max_call_bytes=max_call_bytes,
            threads=threads,
        )
        target = parse_uri(uri, token)
        self._spec = CollectionSpec(
            collection, dimension, metric, index or ("FLAT" if target.lite else "AUTOINDEX"), note
        )
        self._connection = Connection(target, collection, timeout=timeout, retry_for=retry_for)
        self._rows_per_call = rows_per_call
        self._call_bytes = max_call_bytes
        self._threads = threads
        self._layout: Layout | None = None
        self._one_at_a_time: threading.Lock | None = None

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def uri(self) -> str:
        return self._connection.target.shown

    @property
    def fingerprint(self) -> str:
        spec = self._spec
        return f"milvus {self.uri} collection={spec.name} dimension={spec.dimension} metric={spec.metric}"

    @property
    def dimension(self) -> int:
        """Length of the vectors of the open collection."""
        return self._open_layout().dimension

    @property
    def note(self) -> str:
        """What the open collection was made with; empty where it does not say."""
        return self._open_layout().note

    def open(self) -> None:
        """Connect, then create the collection or check the one that is there. Also finishes one left without an index.

        Raises:
            SinkUnavailableError: Milvus does not answer.
            CollectionMismatchError: the collection does not fit, or there is none and no `dimension` to make one with.
            SinkError: access denied, or the Milvus Lite file is open in another process.
        """
        _warn_if_patched()
        try:
            self._layout = self._connection.call("connection", self._prepare)
        except Trouble as trouble:
            raise self._sink_error("opening", trouble) from trouble

    def write(self, rows: RowBatch) -> WriteResult:
        """Upsert all rows. The rows that Milvus will never take are in the answer, all others are acknowledged.

        Raises:
            CollectionMismatchError: vectors of another dimension.
            SinkUnavailableError: Milvus does not answer, after retries; write the same rows again later.
            SinkError: Milvus refuses everything, the collection has gone, or access is denied.
        """
        layout = self._open_layout()
        if rows.vectors.shape[1] != layout.dimension:
            raise CollectionMismatchError(
                f"{self.uri}: collection {self._spec.name!r} holds vectors of {layout.dimension} dimensions,"
                f" these have {rows.vectors.shape[1]}; choose another collection (--collection)"
            )
        screened = screen(rows)
        refused: list[tuple[int, RowRefusedError]] = []
        for call in self._calls(rows, screened.kept, layout, refused):
            refused += self._send_all(call)
        return screened.result(refused)

    def count(self) -> int:
        """Rows in the collection: exact, at Strong consistency (Milvus' own statistics count replaced rows, too)."""
        answer = self._ask(
            "count",
            lambda client, seconds: client.query(
                self._spec.name, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=seconds
            ),
        )
        return int(answer[0]["count(*)"])

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
                self._spec.name, wanted, output_fields=["*"], consistency_level="Strong", timeout=seconds
            ),
        )
        found: dict[str, dict[str, Any]] = {}
        for row in answer:
            columns = {name: value for name, value in row.items() if value is not None and name not in {KEY, VECTOR}}
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
                ),
            )
        except Trouble as trouble:
            if filter and trouble.kind in {Kind.ROW, Kind.UNKNOWN}:
                raise ConfigError(f"filter: {filter!r} was refused: {trouble}") from trouble
            raise self._sink_error("search", trouble) from trouble
        return [decode_hit(hit["entity"], float(hit["distance"])) for hit in answer[0]]

    def drop(self) -> None:
        """Delete the collection and all its rows. Writing again needs `open` again."""
        self._ask("drop", lambda client, seconds: client.drop_collection(self._spec.name, timeout=seconds))
        self._layout = None

    def close(self) -> None:
        """Disconnect. On Milvus Lite also write out and index the last rows, which can take seconds."""
        self._connection.close()
        self._layout = None

    def _prepare(self, client: Any, seconds: float) -> Layout:
        name, spec = self._spec.name, self._spec
        if not client.has_collection(name, timeout=seconds):
            if spec.dimension is None:
                raise CollectionMismatchError(
                    f"{self.uri}: there is no collection {name!r}; check its name (--collection)"
                )
            self._create(client, seconds)
        layout = check_collection(client.describe_collection(name, timeout=seconds), spec)
        # Creating and indexing are two calls: a job that was killed between them left no index.
        if not client.list_indexes(name, field_name=VECTOR, timeout=seconds):
            self._create_index(client, seconds)
        (index, *_) = client.list_indexes(name, field_name=VECTOR, timeout=seconds)
        check_metric(str(client.describe_index(name, index, timeout=seconds)["metric_type"]), spec)
        client.load_collection(name, timeout=seconds)
        # Milvus Lite takes no lock on writes; our own server of it has one worker, another's has ten.
        other_lite = not self._connection.target.lite and "lite" in str(client.get_server_version(timeout=seconds))
        self._one_at_a_time = threading.Lock() if other_lite else None
        return layout

    def _create(self, client: Any, seconds: float) -> None:
        try:
            client.create_collection(self._spec.name, schema=make_schema(client, self._spec), timeout=seconds)
        except Exception:
            if not client.has_collection(self._spec.name, timeout=seconds):
                raise
            return  # another process was faster; what it made is checked like any other
        if self._spec.note:
            # Servers that take no properties of ours have it in the description; Milvus Lite is the other way round.
            with suppress(*caught()), quiet():
                own = {NOTE_PROPERTY: self._spec.note}
                client.alter_collection_properties(self._spec.name, properties=own, timeout=seconds)

    def _create_index(self, client: Any, seconds: float) -> None:
        parameters = client.prepare_index_params()
        parameters.add_index(VECTOR, index_type=self._spec.index, metric_type=self._spec.metric)
        try:
            # Not sync: that sleeps half a second even on an empty collection; loading waits for what there is.
            client.create_index(self._spec.name, parameters, timeout=seconds, sync=False)
        except Exception:
            if not client.list_indexes(self._spec.name, field_name=VECTOR, timeout=seconds):
                raise

    def _calls(
        self, rows: RowBatch, kept: list[int], layout: Layout, refused: list[tuple[int, RowRefusedError]]
    ) -> Iterator[list[_Row]]:
        """Cut the rows into calls by number and bytes; rows that cannot be encoded go to `refused`."""
        call: list[_Row] = []
        size = 0
        for index in kept:
            try:
                row, row_bytes = encode_row(rows, index, layout)
            except RowRefusedError as error:
                refused.append((index, error))
                continue
            if call and (len(call) == self._rows_per_call or size + row_bytes > self._call_bytes):
                yield call
                call, size = [], 0
            call.append((index, row))
            size += row_bytes
        if call:
            yield call

    def _send_all(self, call: list[_Row]) -> list[tuple[int, RowRefusedError]]:
        troubles = self._send(call)
        if len(troubles) == len(call) > 1 and all(trouble.kind is Kind.UNKNOWN for _, trouble in troubles):
            raise self._sink_error("write", troubles[0][1]) from troubles[0][1]  # it is not the rows
        keys = {index: row[KEY] for index, row in call}
        return [
            (index, RowRefusedError(f"row {keys[index]!r}: Milvus refused it: {trouble}"))
            for index, trouble in troubles
        ]

    def _send(self, call: list[_Row]) -> list[tuple[int, Trouble]]:
        """Upsert; halves what is too large, and bisects to the rows that are refused."""
        try:
            with self._one_at_a_time or nullcontext():
                self._connection.call("write", lambda client, seconds: self._upsert(client, call, seconds))
        except Trouble as trouble:
            if trouble.kind is Kind.MISSING:
                raise self._sink_error("write", trouble) from trouble
            if len(call) == 1:
                return [(call[0][0], trouble)]
            if trouble.kind is Kind.TOO_LARGE:
                self._call_bytes = max(_SMALLEST_CALL_BYTES, self._call_bytes // 2)
        else:
            return []
        middle = len(call) // 2
        return self._send(call[:middle]) + self._send(call[middle:])

    def _upsert(self, client: Any, call: list[_Row], seconds: float) -> None:
        # Never flush here: Milvus' write-ahead log has the rows when it answers. Our own backoff follows rate limits.
        client.upsert(self._spec.name, [row for _, row in call], timeout=seconds, retry_on_rate_limit=False)

    def _ask(self, what: str, request: Any) -> Any:
        self._open_layout()
        try:
            return self._connection.call(what, request)
        except Trouble as trouble:
            raise self._sink_error(what, trouble) from trouble

    def _open_layout(self) -> Layout:
        if self._layout is None:
            raise SinkError(f"{self.uri}: the sink is not open; call open() first")
        return self._layout

    def _sink_error(self, what: str, trouble: Trouble) -> SinkError:
        gone = " (the collection has gone)" if trouble.kind is Kind.MISSING else ""
        return SinkError(f"{self.uri}: {what} failed on collection {self._spec.name!r}{gone}: {trouble}")


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
