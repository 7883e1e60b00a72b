"""The collection on a server: made or checked, replaced, divided, indexed. Calls of pymilvus that may be done twice."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ...errors import CollectionMismatchError, ConfigError, SinkError
from ..base import Found, IndexState
from ..rows import KEY, VECTOR
from .errors import caught
from .schema import (
    NOTE_PROPERTY,
    CollectionSpec,
    Layout,
    check_collection,
    check_metric,
    knows_null,
    make_schema,
    mismatch,
    note_of,
    other_index,
    places_upserts,
)

logger = logging.getLogger(__name__)

_LOOK_AGAIN = 0.25


class Collection:
    """What a sink does with its collection besides rows.

    Args:
        client: of pymilvus.
        seconds: for one call.
        spec: what the collection shall be.
    """

    def __init__(self, client: Any, seconds: float, spec: CollectionSpec) -> None:
        self._client, self._seconds, self._spec = client, seconds, spec
        self.version = str(client.get_server_version(timeout=seconds))

    @property
    def lite(self) -> bool:
        """Whether Milvus Lite answers, also at a server's address. (A full server may call itself ``v2.3.5-lite``.)"""
        return "milvus_lite" in self.version

    def exists(self) -> bool:
        """Whether there is one of that name."""
        return bool(self._client.has_collection(self._spec.name, timeout=self._seconds))

    def prepare(self, where: str) -> Layout:
        """Make it, or check the one there, and load it. Also finishes one left without an index, a partition or a note.

        Args:
            where: the address, for messages.

        Raises:
            CollectionMismatchError: it does not fit, or there is none and no dimension to make one with.
        """
        name, spec, client, seconds = self._spec.name, self._spec, self._client, self._seconds
        if not self.exists():
            if spec.dimension is None:
                raise CollectionMismatchError(
                    f"{where}: there is no collection {name!r}; check its name (--collection)"
                )
            self._create()
        layout = self._layout()
        # Creating and indexing are two calls: a job that was killed between them left no index.
        if not client.list_indexes(name, field_name=VECTOR, timeout=seconds):
            self._create_index()
        (index, *_) = client.list_indexes(name, field_name=VECTOR, timeout=seconds)
        described = client.describe_index(name, index, timeout=seconds)
        check_metric(str(described["metric_type"]), spec)
        if differs := other_index(described, spec):
            logger.warning(
                "collection %r stays as it was made: %s. An index is chosen for a new collection (--collection), or for"
                " one that is made anew (--overwrite)",
                name,
                differs,
            )
        self._find_partition()
        client.load_collection(name, timeout=seconds)
        # What made rows that are there already is not known, and stays so.
        if self.lite and spec.note and not layout.note and not self.count():
            self._keep_note()
            layout = self._layout()
        return layout

    def look(self) -> Found | None:
        """What is there, whether it fits or not; None where there is no such collection or partition."""
        spec, client, seconds = self._spec, self._client, self._seconds
        if not self.exists() or not (spec.partition is None or self._has_partition()):
            return None
        note = note_of(client.describe_collection(spec.name, timeout=seconds))
        if not client.list_indexes(spec.name, field_name=VECTOR, timeout=seconds):
            return Found(0, note)  # its maker was killed before any row; it cannot be loaded, nor counted
        client.load_collection(spec.name, timeout=seconds)
        return Found(self.count(), note)

    def dry_run(self) -> Layout:
        """Whether the server would make such a collection, found out under another name: what it would be like.

        Replacing begins with a deletion, and what cannot follow must be known before.
        """
        spec = replace(self._spec, name=f"{self._spec.name[:230]}_penstock_rehearsal")
        stand_in = Collection(self._client, self._seconds, spec)
        stand_in.drop()  # of a job that was killed here
        try:
            stand_in._create()
            stand_in._create_index()
            return replace(stand_in._layout(), note=spec.note)
        finally:
            with suppress(*caught()):
                stand_in.drop()

    def replace(self, where: str) -> Layout:
        """Delete all its rows (those of the partition, where it is about one), and make it as the spec says."""
        if self._spec.partition is None:
            self.drop()
        elif self.exists() and self._has_partition():
            if not self.lite:  # which cannot release a partition, and need not
                self._client.release_partitions(self._spec.name, [self._spec.partition], timeout=self._seconds)
            self._client.drop_partition(self._spec.name, self._spec.partition, timeout=self._seconds)
        return self.prepare(where)

    def drop(self) -> None:
        """Delete it, if it is there."""
        if self.exists():
            self._client.drop_collection(self._spec.name, timeout=self._seconds)

    def index_state(self) -> IndexState:
        """How many rows the index covers now."""
        (index, *_) = self._client.list_indexes(self._spec.name, field_name=VECTOR, timeout=self._seconds)
        said = self._client.describe_index(self._spec.name, index, timeout=self._seconds)
        rows = int(said["total_rows"])
        return IndexState(rows, min(int(said["indexed_rows"]), rows - int(said["pending_index_rows"])))

    def count(self) -> int:
        """Rows in the collection, or in the partition: exact, at Strong consistency."""
        spec = self._spec
        # Milvus Lite looks at the partition only where there is also a filter.
        everything = f'{KEY} != ""' if spec.partition is not None and self.lite else ""
        answer = self._client.query(
            spec.name,
            filter=everything,
            output_fields=["count(*)"],
            consistency_level="Strong",
            timeout=self._seconds,
            **partitions(spec),
        )
        return int(answer[0]["count(*)"])

    def _layout(self) -> Layout:
        description = self._client.describe_collection(self._spec.name, timeout=self._seconds)
        layout = check_collection(description, self._spec)
        divided = any(field.get("is_partition_key") for field in description["fields"])
        if divided and self._spec.dimension is not None and not places_upserts(self.version):
            raise mismatch(self._spec.name, [self._misplaced()])
        return layout

    def _misplaced(self) -> str:
        return (
            f"this server ({self.version}) puts rows into the wrong partitions of a partition key, where searches by it"
            " do not find them; that needs Milvus 2.4"
        )

    def _create(self) -> None:
        if self._spec.partition_key is not None and not places_upserts(self.version):
            raise ConfigError(f"partition_key: {self._misplaced()}, or do without")
        schema = make_schema(self._client, self._spec, knows_null(self.version))
        try:
            self._client.create_collection(self._spec.name, schema=schema, timeout=self._seconds)
        except Exception:
            if not self.exists():
                raise
            # Another process was faster; what it made is checked like any other.

    def _keep_note(self) -> None:
        """Milvus Lite keeps no description of a collection, where servers have the note; it has properties."""
        own = {NOTE_PROPERTY: self._spec.note}
        self._client.alter_collection_properties(self._spec.name, properties=own, timeout=self._seconds)

    def _create_index(self) -> None:
        spec = self._spec
        parameters = self._client.prepare_index_params()
        parameters.add_index(VECTOR, index_type=spec.index, metric_type=spec.metric, params=dict(spec.index_params))
        try:
            # Not sync: that sleeps half a second even on an empty collection; loading waits for what there is.
            self._client.create_index(spec.name, parameters, timeout=self._seconds, sync=False)
        except Exception:
            if not self._client.list_indexes(spec.name, field_name=VECTOR, timeout=self._seconds):
                raise

    def _has_partition(self) -> bool:
        return bool(self._client.has_partition(self._spec.name, self._spec.partition, timeout=self._seconds))

    def _find_partition(self) -> None:
        """Make the partition; a sink that only searches must find it there."""
        spec = self._spec
        if spec.partition is None or self._has_partition():
            return
        if spec.dimension is None:
            there = self._client.list_partitions(spec.name, timeout=self._seconds)
            raise mismatch(spec.name, [f"it has no partition {spec.partition!r}, only {', '.join(map(repr, there))}"])
        try:
            self._client.create_partition(spec.name, spec.partition, timeout=self._seconds)
        except Exception:
            if not self._has_partition():
                raise


def partitions(spec: CollectionSpec) -> dict[str, Any]:
    """What keeps a query or a search to the partition."""
    return {} if spec.partition is None else {"partition_names": [spec.partition]}


def wait_for_index(
    look: Callable[[], IndexState],
    rows: int,
    seconds: float,
    on_progress: Callable[[IndexState], None],
    stop: threading.Event | None = None,
) -> IndexState:
    """Wait until the index covers every row.

    Args:
        look: asks the server.
        rows: that must be known to the index at least.
        seconds: at most.
        on_progress: hears of each look.
        stop: ends the waiting early.

    Returns:
        The last state, complete unless `stop` was set.

    Raises:
        SinkError: it is not done in time. The rows are in the store all the same.
    """
    begin = time.monotonic()
    pause = stop or threading.Event()
    while True:
        state = replace(look(), seconds=time.monotonic() - begin)
        on_progress(state)
        if state.indexed >= max(state.rows, rows):
            return state
        if state.seconds >= seconds:
            raise SinkError(
                f"the index covers {state.indexed} of {max(state.rows, rows)} rows after {seconds:g} s; all rows are in"
                " the store, and the server goes on building. Searches may be slow until then; to wait longer:"
                " --wait-index (of penstock import: --timeout)"
            )
        if pause.wait(min(_LOOK_AGAIN, seconds)):
            return state
