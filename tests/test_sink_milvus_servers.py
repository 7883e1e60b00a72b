"""What the sink promises of Milvus, against real servers over TCP: Milvus Lite's own, and the full standalone one."""

from __future__ import annotations

import socket
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from penstock.engine.servers import MilvusLiteServer, MilvusServer
from penstock.errors import CollectionMismatchError, SinkError, SinkUnavailableError
from penstock.sinks import MilvusSink, RowBatch, WriteResult, row_key
from penstock.sinks.milvus import rows as milvus_rows
from penstock.sinks.milvus import whole
from penstock.sinks.milvus.upsert import upsert
from penstock.tests.waiting import DEADLINE, wait_until

pytestmark = pytest.mark.slow

DIMENSION = 8

Own = Callable[[Any], Any]


def make_rows(count: int, first: int = 0, dimension: int = DIMENSION, **columns: Any) -> RowBatch:
    numbers = range(first, first + count)
    vectors = np.random.default_rng(first).standard_normal((count, dimension), np.float32)
    extra = [{"path": f"/photos/{number}.jpg", "width": number, **columns} for number in numbers]
    return RowBatch([row_key(str(number)) for number in numbers], vectors, extra)


class Relay:
    """A TCP relay to a server. While `deaf`, it forwards what the client says and keeps what the server answers."""

    def __init__(self, uri: str) -> None:
        host, port = uri.removeprefix("http://").split(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._deaf = threading.Event()
        self.swallowed = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def deafen(self) -> None:
        self._deaf.set()

    def cut(self) -> None:
        """Close all connections, and hear again on new ones."""
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._deaf.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(DEADLINE)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._open |= {client, server}
            pumps = [(client, server, False), (server, client, True)]
            self._threads += [threading.Thread(target=self._pump, args=ends) for ends in pumps]
            for thread in self._threads[-2:]:
                thread.start()

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if self._deaf.is_set() and answers:
                    self.swallowed += len(data)
                else:
                    target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()
        self._open.discard(source)


class Behaviours(ABC):
    """One test for each way in which a server may behave. A subclass names the server."""

    limits_calls: bool
    """Whether it refuses calls of more than 64 MiB."""

    @pytest.fixture
    @abstractmethod
    def uri(self) -> str:
        """Where the server answers."""

    @pytest.fixture
    def name(self) -> str:
        return f"c{uuid.uuid4().hex}"

    @pytest.fixture
    def sink(self, uri: str, name: str) -> Iterator[MilvusSink]:
        with MilvusSink(uri, name, DIMENSION) as opened:
            yield opened
            opened.drop()

    def test_upserting_again_changes_nothing(self, sink: MilvusSink) -> None:
        """Rows that overlap, from several threads, several times over, are there once each: count(*) at Strong."""
        batches = [make_rows(150, first=100 * number) for number in range(8)]
        for _ in range(3):
            with ThreadPoolExecutor(4) as pool:
                assert [result.written for result in pool.map(sink.write, batches)] == [150] * 8
        assert sink.count() == 850

    def test_of_equal_keys_the_last_wins(self, sink: MilvusSink) -> None:
        """Milvus 2.3 keeps both rows of a key that is twice in one upsert; it never gets them."""
        rows = make_rows(3)
        twice = RowBatch(
            [*rows.keys, rows.keys[0]], np.ones((4, DIMENSION), np.float32), [*rows.columns, {"width": 99}]
        )
        assert sink.write(twice) == WriteResult(4, [])
        assert sink.count() == 3
        assert sink.get(rows.keys[:1])[rows.keys[0]]["width"] == 99

    def test_every_row_of_many_writes_is_read_once(self, sink: MilvusSink, monkeypatch: pytest.MonkeyPatch) -> None:
        """Although a limited query of Milvus 2.3 gives rows in no order; deleted ones are not among them."""
        monkeypatch.setattr(whole, "_KEYS", 400)
        written = [make_rows(250, first=250 * number) for number in range(8)]
        for rows in written:
            sink.write(rows)
        found = [key for rows in sink.scan() for key in rows.keys]
        keys = [key for rows in written for key in rows.keys]
        assert sorted(found) == sorted(keys)
        sink.delete(keys[:700])
        assert sorted(key for rows in sink.scan() for key in rows.keys) == sorted(keys[700:])

    def test_nan_is_refused_alone(self, sink: MilvusSink) -> None:
        """Milvus Lite would take it: the sink's own check comes first."""
        rows = make_rows(60)
        rows.vectors[17, 3] = np.nan
        result = sink.write(rows)
        assert (result.written, [index for index, _ in result.refused]) == (59, [17])
        assert sink.count() == 59

    def test_a_text_that_is_too_long_is_refused_alone(self, sink: MilvusSink) -> None:
        """One row of many is refused, with its field in the message; all others are written."""
        rows = make_rows(60)
        rows.columns[17]["path"] = "p" * 5000
        result = sink.write(rows)
        assert (result.written, [index for index, _ in result.refused]) == (59, [17])
        assert "path" in str(result.refused[0][1])
        assert sink.count() == 59

    def test_a_text_that_only_the_server_finds_too_long_is_refused_alone(
        self, sink: MilvusSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What our own checks let through, the server's answer finds: bisected to that row."""
        encode = milvus_rows.encode_row

        def too_long(rows: RowBatch, index: int, layout: Any) -> tuple[dict[str, Any], int]:
            row, size = encode(rows, index, layout)
            return ({**row, "path": "p" * 5000} if index in {5, 41} else row), size

        monkeypatch.setattr("penstock.sinks.milvus.sink.encode_row", too_long)
        result = sink.write(make_rows(60))
        assert (result.written, [index for index, _ in result.refused]) == (58, [5, 41])
        assert all("5000" in str(error) for _, error in result.refused)
        assert sink.count() == 58
        assert sink.stats()["splits"] > 0

    def test_another_dimension_is_an_error_of_the_job(self, sink: MilvusSink) -> None:
        """Not one dead letter per row."""
        with pytest.raises(CollectionMismatchError, match=r"8 dimensions.*9.*--collection"):
            sink.write(make_rows(5, dimension=9))

    def test_a_collection_that_is_made_anew_meanwhile_is_an_error_of_the_job(
        self, sink: MilvusSink, uri: str, name: str
    ) -> None:
        """Another process has replaced it by one of another dimension: the job stops, no row is called wrong."""
        sink.write(make_rows(5))
        client = MilvusClient(uri, dedicated=True)
        client.drop_collection(name)
        with MilvusSink(uri, name, 4):
            pass
        with pytest.raises(SinkError, match=rf"{name}.*--collection"):
            sink.write(make_rows(20))
        client.close()

    def test_another_index_than_the_one_there_is_warned_of(
        self, uri: str, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """In one line that says what there is; who asks for none, or for that one, is not bothered."""
        MilvusSink(uri, name, DIMENSION, index="FLAT", metric="l2").__enter__().close()
        for asked in (None, "FLAT"):
            MilvusSink(uri, name, DIMENSION, index=asked, metric="L2").__enter__().close()
        with MilvusSink(uri, name, DIMENSION, index="HNSW", metric="L2") as sink:
            assert sink.write(make_rows(3)).written == 3
        (said,) = [message for message in caplog.messages if name in message]
        assert f"collection {name!r} stays as it was made: its index is FLAT, not HNSW." in said

    def test_a_missing_database_is_named(self, uri: str, name: str) -> None:
        """At once, with the way to name another."""
        sink = MilvusSink(f"{uri}/nodb", name, DIMENSION, retry_for=600.0)
        with pytest.raises(SinkError, match=r"/nodb.*database.*URI: http.*/DATABASE"):
            sink.open()
        sink.close()

    def test_more_than_64_mib_in_one_call_are_split(self, uri: str, name: str) -> None:
        """A full Milvus refuses more than 67,108,864 bytes; smaller calls are made from then on."""
        vectors = np.ones((550, 32_768), np.float32)
        rows = RowBatch([row_key(str(number)) for number in range(550)], vectors, [{}] * 550)
        with MilvusSink(uri, name, 32_768, rows_per_call=550, max_call_bytes=2**30, timeout=60) as sink:
            assert sink.write(rows) == WriteResult(550, [])
            assert sink.count() == 550
            assert (sink.stats()["splits"] > 0) is self.limits_calls
            sink.drop()

    def test_an_answer_that_is_lost_doubles_nothing(self, uri: str, name: str) -> None:
        """The server commits, its answer is swallowed, the connection cut: the rows go again, and are there once."""
        relay = Relay(uri)
        with MilvusSink(uri, name, DIMENSION) as witness, ThreadPoolExecutor(1) as pool:
            with MilvusSink(relay.uri, name, DIMENSION) as sink:
                sink.write(make_rows(10))
                for number in range(1, 4):
                    relay.deafen()
                    pending = pool.submit(sink.write, make_rows(40, first=40 * number))
                    wait_until(lambda number=number: witness.count() == 10 + 40 * number)  # type: ignore[misc]
                    assert not pending.done()
                    relay.cut()
                    assert pending.result(DEADLINE) == WriteResult(40, [])
                assert sink.stats()["retries"] >= 3
            assert relay.swallowed > 0
            assert witness.count() == 130
            witness.drop()
        relay.close()


class TestMilvusLiteServer(Behaviours):
    """``milvus-lite server``."""

    limits_calls = False

    @pytest.fixture
    def uri(self, milvus_lite_server: MilvusLiteServer) -> str:
        return milvus_lite_server.uri

    @pytest.mark.nightly
    def test_more_than_64_mib_in_one_call_are_split(self, uri: str, name: str) -> None:
        """They are not: it takes them as they are."""
        super().test_more_than_64_mib_in_one_call_are_split(uri, name)

    def test_it_would_take_nan(self, sink: MilvusSink, uri: str, name: str) -> None:
        """The reason for the sink's own check; if this changes, the check stays."""
        client = MilvusClient(uri, dedicated=True)
        rows = [{"key": "x", "vector": np.full(DIMENSION, np.nan, np.float32), "path": "", "width": 1, "height": 1}]
        upsert(client, name, rows, seconds=10)
        client.close()
        assert sink.count() == 1

    def test_a_server_that_is_killed_while_threads_write_loses_and_doubles_nothing(self, own_server: Own) -> None:
        """Three times killed and started: what was acknowledged is there, and every row once."""
        server = own_server(MilvusLiteServer())
        with MilvusSink(server.uri, "images", DIMENSION) as sink:
            written = write_while(sink, server, kills=3)
            assert sink.count() == written

    def test_a_server_that_hangs_is_waited_for(self, own_server: Own) -> None:
        """It accepts connections and answers nothing: calls time out, and are made again when it is back."""
        server = own_server(MilvusLiteServer())
        with MilvusSink(server.uri, "images", DIMENSION, timeout=2.0) as sink, ThreadPoolExecutor(1) as pool:
            sink.write(make_rows(10))
            server.pause()
            pending = pool.submit(sink.write, make_rows(40))
            wait_until(lambda: sink.stats()["retries"] >= 2)
            server.resume()
            assert pending.result(DEADLINE) == WriteResult(40, [])
            assert sink.count() == 40


class TestMilvusServer(Behaviours):
    """Milvus 2.3.5, standalone."""

    limits_calls = True

    @pytest.fixture
    def uri(self, milvus: MilvusServer) -> str:
        return milvus.uri

    def test_it_keeps_both_rows_of_a_key_that_is_twice_in_one_call(self, sink: MilvusSink, uri: str, name: str) -> None:
        """The reason why the sink never sends such a call."""
        client = MilvusClient(uri, dedicated=True)
        row = {"key": "x", "vector": np.ones(DIMENSION, np.float32), "path": "", "width": 1, "height": 1}
        upsert(client, name, [row, row], seconds=10)
        client.close()
        assert sink.count() == 2

    def test_denied_access_is_reported_at_once_and_names_the_token(self, own_server: Own) -> None:
        """With authorization switched on: no token and a wrong one end the job, the right one works."""
        server = own_server(MilvusServer(config={"common.security.authorizationEnabled": True}))
        for token in (None, "root:wrong"):
            sink = MilvusSink(server.uri, "images", DIMENSION, token=token, retry_for=600.0)
            with pytest.raises(SinkError, match=r"denied.*MILVUS_TOKEN") as failure:
                sink.open()
            sink.close()
            assert "wrong" not in str(failure.value)
        with MilvusSink(server.uri, "images", DIMENSION, token="root:Milvus") as sink:
            assert sink.write(make_rows(5)).written == 5
            assert sink.count() == 5
            limited_user(server.uri)
        reader = MilvusSink(server.uri, "images", DIMENSION, token="reader:reader1", retry_for=600.0)
        with pytest.raises(SinkError, match=r"denied.*MILVUS_TOKEN"):
            reader.open()
        reader.close()

    def test_a_rate_limit_costs_time_and_no_row(self, own_server: Own) -> None:
        """0.5 MB a second are allowed and more is sent: the sink waits, and says for how long."""
        limits = {"quotaAndLimits.enabled": True, "quotaAndLimits.dml.enabled": True}
        server = own_server(MilvusServer(config={**limits, "quotaAndLimits.dml.upsertRate.max": 0.5}))
        batches = [make_rows(100, first=100 * number, dimension=1024) for number in range(8)]
        with MilvusSink(server.uri, "images", 1024, threads=4, rows_per_call=100) as sink:
            with ThreadPoolExecutor(4) as pool:
                assert [result.written for result in pool.map(sink.write, batches)] == [100] * 8
            assert sink.count() == 800
            stats = sink.stats()
            assert stats["limited_seconds"] > 0
            assert stats["retries"] > 0
            assert stats["in_flight"] <= 2
        hasty = MilvusSink(server.uri, "images", 1024, retry_for=0.5)
        with hasty, pytest.raises(SinkUnavailableError, match=r"rate limit.*retry_for"):
            list(map(hasty.write, batches))

    def test_a_server_that_is_killed_while_threads_write_loses_and_doubles_nothing(self, own_server: Own) -> None:
        """Killed in the middle of a job and started again: what was acknowledged is there, and every row once."""
        server = own_server(MilvusServer())
        with MilvusSink(server.uri, "images", DIMENSION) as sink:
            written = write_while(sink, server, kills=1)
            assert sink.count() == written


def limited_user(uri: str) -> None:
    """Add the user ``reader``, who may do nothing."""
    client = MilvusClient(uri, token="root:Milvus", dedicated=True)
    _ = client.create_user("reader", "reader1")
    client.close()


def write_while(sink: MilvusSink, server: Any, kills: int) -> int:
    """Write from four threads, killing and restarting the server in between; the number of distinct rows."""
    enough = threading.Event()
    acknowledged = [0] * 4

    def write(lane: int) -> None:
        while not enough.is_set():
            rows = make_rows(50, first=1_000_000 * lane + 40 * acknowledged[lane])  # 10 of them are there already
            assert sink.write(rows).written == 50
            acknowledged[lane] += 1

    with ThreadPoolExecutor(4) as pool:
        pending = [pool.submit(write, lane) for lane in range(4)]
        try:
            for _ in range(kills):
                before = list(acknowledged)
                wait_until(lambda before=before: all(a > b + 2 for a, b in zip(acknowledged, before, strict=True)))  # type: ignore[misc]
                server.restart()
            before = list(acknowledged)
            wait_until(lambda: all(a > b for a, b in zip(acknowledged, before, strict=True)))
        finally:
            enough.set()
        for lane in pending:
            lane.result(DEADLINE)
    assert sink.stats()["retries"] > 0
    keys = [row_key(str(1_000_000 * lane + n)) for lane in range(4) for n in range(40 * acknowledged[lane] + 10)]
    assert len(sink.get(keys[:500])) == 500
    return len(keys)


def test_the_collection_of_a_user_with_short_texts_refuses_long_ones_alone(
    milvus_lite_server: MilvusLiteServer,
) -> None:
    """Limits of an existing collection are found, by the check or by its server."""
    name = f"c{uuid.uuid4().hex}"
    client = MilvusClient(milvus_lite_server.uri, dedicated=True)
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=128)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIMENSION)
    schema.add_field("path", DataType.VARCHAR, max_length=20, nullable=True)
    client.create_collection(name, schema=schema)
    rows = make_rows(10)
    rows.columns[3]["path"] = "/a/path/of/more/than/twenty"
    with MilvusSink(milvus_lite_server.uri, name) as sink:
        assert [index for index, _ in sink.write(rows).refused] == [3]
        assert sink.count() == 9
    with pytest.raises(MilvusException, match="20"):
        client.upsert(name, [{"key": "k", "vector": [0.5] * DIMENSION, "path": rows.columns[3]["path"]}])
    client.drop_collection(name)
    client.close()
