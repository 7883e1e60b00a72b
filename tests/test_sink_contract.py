"""The contract of a sink, run against one in memory, Parquet, Milvus Lite, and a Milvus Lite server over TCP."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import CollectionMismatchError, RowRefusedError, SinkUnavailableError
from penstock.sinks import MilvusSink, ParquetBulkSink, RowBatch, Sink, WriteResult, row_key
from penstock.sinks.base import Found
from penstock.sinks.rows import screen
from penstock.tests.waiting import patient

pq = pytest.importorskip("pyarrow.parquet")

DIMENSION = 8


def make_rows(count: int, first: int = 0, **columns: Any) -> RowBatch:
    """Rows with distinct keys, nearly orthogonal vectors that are a function of the key, and full columns."""
    numbers = range(first, first + count)
    vectors = np.stack([np.random.default_rng(number).standard_normal(DIMENSION) for number in numbers])
    extra = [{"path": f"/photos/{n}.jpg", "width": n, "height": 7, "label": f"é{n}", **columns} for n in numbers]
    return RowBatch([row_key(str(number)) for number in numbers], vectors.astype(np.float32), extra)


class MemorySink(Sink):
    """The smallest thing that keeps the contract."""

    def __init__(self, store: dict[str, dict[str, Any]]) -> None:
        self._store = store
        self._mutex = threading.Lock()

    @property
    def threads(self) -> int:
        return 4

    @property
    def fingerprint(self) -> str:
        return f"memory {id(self._store)}"

    @property
    def uri(self) -> str:
        return "memory"

    def open(self) -> None:
        pass

    def write(self, rows: RowBatch) -> WriteResult:
        if rows.vectors.shape[1] != DIMENSION:
            raise CollectionMismatchError(f"{DIMENSION} dimensions")
        screened = screen(rows)
        too_long = [index for index in screened.kept if len(str(rows.columns[index].get("path"))) > 4096]
        with self._mutex:
            for index in set(screened.kept) - set(too_long):
                self._store[rows.keys[index]] = {**rows.columns[index], "vector": rows.vectors[index].copy()}
        return screened.result((index, RowRefusedError("path too long")) for index in too_long)

    def count(self) -> int:
        return len(self._store)

    def look(self) -> Found | None:
        return Found(len(self._store), "") if self._store else None

    def close(self) -> None:
        pass


class SinkContract(ABC):
    """What every sink must do. A subclass says how to open one on an empty place, and again on the same place."""

    @pytest.fixture
    @abstractmethod
    def place(self, tmp_path: Path) -> Any:
        """A fresh, empty place."""

    @abstractmethod
    def make(self, place: Any) -> Sink:
        """A sink on that place, not open."""

    @abstractmethod
    def read(self, sink: Any, keys: list[str]) -> dict[str, dict[str, Any]]:
        """Rows by key, with their vectors."""

    @pytest.fixture
    def sink(self, place: Any) -> Iterator[Sink]:
        with self.make(place) as opened:
            yield opened

    def test_rows_are_found_again_with_all_their_columns(self, sink: Sink) -> None:
        """What was written is what is read: vector, path, size and metadata."""
        rows = make_rows(5, first=1, tags=["a", "b"], score=0.5, nothing=None)
        assert sink.write(rows) == WriteResult(5, [])
        found = self.read(sink, rows.keys)
        assert set(found) == set(rows.keys)
        for index, key in enumerate(rows.keys):
            wanted = {name: value for name, value in rows.columns[index].items() if value is not None}
            assert {**wanted, **found[key]} == {**found[key], **wanted}
            np.testing.assert_allclose(found[key]["vector"], rows.vectors[index])

    def test_writing_again_changes_nothing(self, sink: Sink) -> None:
        """The same rows twice are there once: what makes a retry harmless."""
        rows = make_rows(20)
        for _ in range(3):
            assert sink.write(rows).written == 20
        assert sink.count() == 20

    def test_a_row_with_a_known_key_is_written_over(self, sink: Sink) -> None:
        """The newest value of a key is the one that is kept."""
        sink.write(make_rows(3))
        newer = make_rows(3, label="new")
        newer.vectors[:] = 2.0
        sink.write(newer)
        found = self.read(sink, newer.keys)
        assert [found[key]["label"] for key in newer.keys] == ["new"] * 3
        np.testing.assert_allclose(found[newer.keys[0]]["vector"], 2.0)
        assert sink.count() == 3

    def test_of_equal_keys_in_one_write_the_last_wins(self, sink: Sink) -> None:
        """A key that is given twice is one row, and both are counted as written."""
        rows = RowBatch(
            ["same", "other", "same"], np.eye(3, DIMENSION, dtype=np.float32), [{"width": n} for n in range(3)]
        )
        assert sink.write(rows) == WriteResult(3, [])
        assert sink.count() == 2
        assert self.read(sink, ["same"])["same"]["width"] == 2

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_vector_that_is_not_finite_is_refused_alone(self, sink: Sink, value: float) -> None:
        """NaN and infinity do not get into the store, and do not keep others out."""
        rows = make_rows(10)
        rows.vectors[4, 3] = value
        result = sink.write(rows)
        assert (result.written, [index for index, _ in result.refused]) == (9, [4])
        assert isinstance(result.refused[0][1], RowRefusedError)
        assert sink.count() == 9

    def test_a_row_that_does_not_fit_is_refused_alone(self, sink: Sink) -> None:
        """One path that is too long costs that row only, and the message says why."""
        rows = make_rows(30)
        rows.columns[17]["path"] = "p" * 5000
        result = sink.write(rows)
        assert (result.written, [index for index, _ in result.refused]) == (29, [17])
        assert "path" in str(result.refused[0][1])
        assert sink.count() == 29

    def test_a_look_finds_the_rows_and_makes_nothing(self, place: Any) -> None:
        """Also where the sink is not open; it counts a row that was written twice once."""
        looking = self.make(place)
        assert looking.look() is None
        assert looking.look() is None
        looking.close()
        with self.make(place) as sink:
            sink.write(make_rows(5))
            sink.write(make_rows(5, first=3))
        looking = self.make(place)
        found = looking.look()
        looking.close()
        assert found is not None
        assert found.rows == 8

    def test_rows_survive_closing_and_opening(self, place: Any) -> None:
        """A second sink on the same place sees what the first has written."""
        with self.make(place) as first:
            first.write(make_rows(12))
        with self.make(place) as second:
            assert second.count() == 12
            second.write(make_rows(12, first=6))
            assert second.count() == 18

    def test_several_threads_write_at_once(self, sink: Sink) -> None:
        """As many writers as the sink allows, and twice as many, lose nothing."""
        batches = [make_rows(25, first=20 * number) for number in range(4 * sink.threads)]
        with ThreadPoolExecutor(2 * sink.threads) as pool:
            assert [result.written for result in pool.map(sink.write, batches)] == [25] * len(batches)
        assert sink.count() == len({key for rows in batches for key in rows.keys})

    def test_an_empty_batch_is_nothing(self, sink: Sink) -> None:
        """No rows, no error."""
        assert sink.write(RowBatch([], np.empty((0, DIMENSION), np.float32), [])) == WriteResult(0, [])

    def test_vectors_of_another_dimension_are_a_mismatch(self, sink: Sink) -> None:
        """Wrong vectors are an error of the job, not of single rows."""
        with pytest.raises(CollectionMismatchError, match="8 dimensions"):
            sink.write(RowBatch(["a"], np.ones((1, 9), np.float32), [{}]))

    def test_closing_twice_is_harmless(self, place: Any) -> None:
        """So is closing what was never open."""
        sink = self.make(place)
        sink.close()
        sink.close()

    def test_the_fingerprint_is_that_of_the_place(self, place: Any) -> None:
        """Two sinks on one place are the same for a journal."""
        assert self.make(place).fingerprint == self.make(place).fingerprint


class TestMemorySink(SinkContract):
    """The contract holds for a dictionary, so it asks nothing that only Milvus has."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> dict[str, dict[str, Any]]:
        return {}

    def make(self, place: Any) -> Sink:
        return MemorySink(place)

    def read(self, sink: Any, keys: list[str]) -> dict[str, dict[str, Any]]:
        return {key: sink._store[key] for key in keys}


class TestParquetBulk(SinkContract):
    """Parquet parts for bulk import."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "parts"

    def make(self, place: Any) -> Sink:
        return ParquetBulkSink(place, DIMENSION)

    def read(self, sink: Any, keys: list[str]) -> dict[str, dict[str, Any]]:
        """Of the parts, the newest last."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(Path(sink.uri.removeprefix("bulk:")).glob("*.parquet")):
            for row in pq.read_table(path).to_pylist():
                found[row.pop("key")] = {**json.loads(row.pop("$meta")), **row}
        return {key: found[key] for key in keys}


class MilvusContract(SinkContract):
    """The contract, and what only a vector store can do."""

    def read(self, sink: Any, keys: list[str]) -> dict[str, dict[str, Any]]:
        return dict(sink.get(keys, vectors=True))

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

    def make(self, place: Any) -> Sink:
        return MilvusSink(place, dimension=DIMENSION, rows_per_call=10)


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

    def make(self, place: Any) -> Sink:
        uri, collection = place
        return MilvusSink(uri, collection, DIMENSION, rows_per_call=10)


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
    monkeypatch.setattr("penstock.sinks.milvus.outage._TOLD_AFTER", 0.0)
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
        told = [message.partition(" at http")[0] for message in caplog.messages if "Milvus at" in message]
        assert told == ["waiting for Milvus", "Milvus"]
    finally:
        process.kill()
