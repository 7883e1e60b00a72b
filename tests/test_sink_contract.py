"""The contract of a sink, run against one in memory, Parquet, Milvus Lite, and a Milvus Lite server over TCP."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from penstock.errors import CollectionMismatchError, RowRefusedError, SinkUnavailableError
from penstock.sinks import (
    MilvusSink,
    ParquetBulkSink,
    RowBatch,
    Sink,
    SinkOptions,
    TeeSink,
    WriteResult,
    make_sink,
    row_key,
)
from penstock.sinks.base import Found
from penstock.sinks.rows import screen
from penstock.testing.sinks import DIMENSION, SinkContract, StoreContract, make_rows
from penstock.tests.waiting import patient

pq = pytest.importorskip("pyarrow.parquet")


@dataclass
class Memory:
    """Where that sink puts its rows."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    note: str | None = None


class MemorySink(Sink):
    """The smallest thing that keeps the contract."""

    def __init__(self, memory: Memory, note: str) -> None:
        self._memory = memory
        self._new_note = note
        self._mutex = threading.Lock()

    @property
    def threads(self) -> int:
        return 4

    @property
    def fingerprint(self) -> str:
        return f"memory {id(self._memory)}"

    @property
    def uri(self) -> str:
        return "memory"

    def open(self) -> None:
        if self._memory.note is None:
            self._memory.note = self._new_note

    @property
    def note(self) -> str:
        return self._memory.note or ""

    def write(self, rows: RowBatch) -> WriteResult:
        if rows.vectors.shape[1] != DIMENSION:
            raise CollectionMismatchError(f"{DIMENSION} dimensions")
        screened = screen(rows)
        wrong = [index for index in screened.kept if isinstance(rows.columns[index].get("label"), set)]
        with self._mutex:
            for index in set(screened.kept) - set(wrong):
                self._memory.rows[rows.keys[index]] = {**rows.columns[index], "vector": rows.vectors[index].copy()}
        return screened.result((index, RowRefusedError(f"{rows.keys[index]}: a set")) for index in wrong)

    def count(self) -> int:
        return len(self._memory.rows)

    def look(self) -> Found | None:
        return None if self._memory.note is None else Found(len(self._memory.rows), self._memory.note)

    def close(self) -> None:
        pass


class TestNull(SinkContract):
    """The contract without the rows."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        return "null:"

    def make(self, place: Any, note: str = "") -> Sink:
        return make_sink(place, SinkOptions(dimension=DIMENSION, note=note))


class TestMemorySink(StoreContract):
    """The contract holds for a dictionary, so it asks nothing that only Milvus has."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Memory:
        return Memory()

    def make(self, place: Any, note: str = "") -> Sink:
        return MemorySink(place, note)

    def read(self, sink: Any, keys: list[str]) -> dict[str, dict[str, Any]]:
        return {key: sink._memory.rows[key] for key in keys}


class TestParquetBulk(StoreContract):
    """Parquet parts for bulk import."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "parts"

    def make(self, place: Any, note: str = "") -> Sink:
        return ParquetBulkSink(place, DIMENSION, note=note)

    def read(self, sink: Any, keys: list[str]) -> dict[str, dict[str, Any]]:
        """Of the parts, the newest last."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(Path(sink.uri.removeprefix("bulk:")).glob("*.parquet")):
            for row in pq.read_table(path).to_pylist():
                found[row.pop("key")] = {**json.loads(row.pop("$meta")), **row}
        return {key: found[key] for key in keys}


class TestTee(StoreContract):
    """Two stores as one: of what it holds both have a part in the answer."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> tuple[Memory, Path]:
        return Memory(), tmp_path / "parts"

    def make(self, place: Any, note: str = "") -> Sink:
        memory, folder = place
        return TeeSink([MemorySink(memory, note), ParquetBulkSink(folder, DIMENSION, note=note)])

    def read(self, sink: Any, keys: list[str]) -> dict[str, dict[str, Any]]:
        memory, parts = sink.members
        found = TestMemorySink().read(memory, keys)
        for key, row in TestParquetBulk().read(parts, keys).items():
            np.testing.assert_allclose(row["vector"], found[key]["vector"])
        return found


class MilvusContract(StoreContract):
    """The contract, and what only Milvus can do."""

    unfit: ClassVar[Mapping[str, Any]] = {"path": "p" * 5000}

    def test_search_gives_the_nearest_first(self, sink: MilvusSink) -> None:
        """The row itself comes first, scores descend, and columns come along."""
        rows = make_rows(50)
        sink.write(rows)
        hits = sink.search(rows.vectors[31], 4)
        unit = rows.vectors / np.linalg.norm(rows.vectors, axis=1, keepdims=True)
        nearest = np.argsort(-(unit @ unit[31]))[:4]
        assert [hit.key for hit in hits] == [rows.keys[index] for index in nearest]
        assert hits[0].score == pytest.approx(1.0, abs=1e-5)
        assert (hits[0].path, hits[0].width, hits[0].metadata) == ("/photos/31.jpg", 31, {"label": "é31"})

    def test_search_filters_by_columns_and_metadata(self, sink: MilvusSink) -> None:
        """Expressions see the fixed columns and the user's own."""
        rows = make_rows(20)
        sink.write(rows)
        assert {hit.width for hit in sink.search(rows.vectors[0], 20, filter="width >= 17")} == {17, 18, 19}
        (hit,) = sink.search(rows.vectors[0], 20, filter='label == "é3"', output_fields=["width"])
        assert (hit.width, hit.path) == (3, None)

    def test_a_key_cannot_be_an_expression(self, sink: MilvusSink) -> None:
        """Asking for a hostile id gives nothing, not everything."""
        sink.write(make_rows(3))
        for hostile in ('" or 1==1 or "', "' or 1==1 or '", "x'] or key != '", "\\"):
            assert sink.get([hostile]) == {}

    def test_a_column_that_goes_is_gone(self, sink: MilvusSink) -> None:
        """Writing a row without its size forgets the size: no row is a mix of two writes."""
        sink.write(make_rows(1))
        rows = RowBatch([row_key("0")], np.ones((1, DIMENSION), np.float32), [{"path": "/new.jpg"}])
        sink.write(rows)
        found = sink.get(rows.keys)[rows.keys[0]]
        assert (found["path"], found.get("width"), found.get("height")) == ("/new.jpg", None, None)

    def test_a_path_that_is_not_utf8_is_kept_readable(self, sink: MilvusSink) -> None:
        """Such a file is embedded like any other; its path is shown with the byte's number."""
        rows = RowBatch([row_key(b"caf\xe9")], np.ones((1, DIMENSION), np.float32), [{"path": "caf\udce9.jpg"}])
        assert sink.write(rows).written == 1
        assert sink.get(rows.keys)[rows.keys[0]]["path"] == "caf\\xe9.jpg"


@pytest.mark.slow
class TestMilvusLite(MilvusContract):
    """Milvus Lite from a path."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        return str(tmp_path / "photos.db")

    def make(self, place: Any, note: str = "") -> Sink:
        return MilvusSink(place, dimension=DIMENSION, rows_per_call=10, note=note)


class LiteProcess:
    """A real `milvus-lite server` on loopback, in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "milvus_lite", "server", "--data-dir", str(self._directory), *address],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert self.process.stdout is not None
        assert b"listening" in self.process.stdout.readline()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteProcess]:
    process = LiteProcess(tmp_path_factory.mktemp("milvus") / "data")
    yield process
    process.kill()


class TestMilvusServer(MilvusContract):
    """A Milvus server over TCP; each test has its own collection."""

    @pytest.fixture
    def place(self, server: LiteProcess) -> tuple[str, str]:
        return server.uri, f"c{uuid.uuid4().hex}"

    def make(self, place: Any, note: str = "") -> Sink:
        uri, collection = place
        return MilvusSink(uri, collection, DIMENSION, rows_per_call=10, note=note)


@pytest.mark.kills
@pytest.mark.slow
def test_a_server_that_is_killed_is_reported_within_the_deadline(tmp_path: Path) -> None:
    """With Milvus gone, a write ends after `retry_for` with an error that names the server and the knob."""
    process = LiteProcess(tmp_path / "data")
    with MilvusSink(process.uri, "images", DIMENSION, retry_for=1.0) as sink:
        sink.write(make_rows(5))
        process.kill()
        start = time.monotonic()
        with pytest.raises(SinkUnavailableError, match=rf"{process.uri}.*retry_for"):
            sink.write(make_rows(5))
        assert time.monotonic() - start < patient(10)


@pytest.mark.kills
@pytest.mark.slow
def test_a_write_goes_on_when_the_server_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that restarts, at the same address, costs time but no row. People are told once of each end of it."""
    monkeypatch.setattr("penstock.sinks.milvus.outage._WARN_AFTER", 0.0)
    process = LiteProcess(tmp_path / "data")
    try:
        with MilvusSink(process.uri, "images", DIMENSION, retry_for=60.0) as sink, ThreadPoolExecutor(1) as pool:
            sink.write(make_rows(50))
            process.kill()
            pending = pool.submit(sink.write, make_rows(50, first=25))
            with pytest.raises(TimeoutError):
                pending.result(0.5)
            process.start()
            assert pending.result(60) == WriteResult(50, [])
            assert sink.count() == 75
            assert len(sink.search(make_rows(1).vectors[0], 3)) == 3
        lines = [message.partition(" at http")[0] for message in caplog.messages if "Milvus at" in message]
        assert lines == ["waiting for Milvus", "Milvus"]
    finally:
        process.kill()
