"""The Milvus sink, faults, collections of others, secrets: against a real engine with faults injected."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import gevent.monkey
import grpc
import numpy as np
import pytest
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from penstock.errors import CollectionMismatchError, ConfigError, SinkError, SinkUnavailableError
from penstock.sinks import MilvusSink, RowBatch
from penstock.tests.waiting import DEADLINE, patient

DIMENSION = 4
MARKER = "MARKER-c0ffee-77"

Fault = Callable[[Any, Any], Any]


class FaultyMilvus(MilvusServicer):  # type: ignore[misc]
    """Milvus Lite's own service; upserts first go through the faults that a test has queued."""

    def __init__(self, database: MilvusLite) -> None:
        super().__init__(database)
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.handshake: Fault | None = None
        self.calls: list[int] = []

    def Connect(self, request: Any, context: Any) -> Any:
        if self.handshake is not None:
            self.handshake(request, context)
        return super().Connect(request, context)

    def Upsert(self, request: Any, context: Any) -> Any:
        self.calls.append(request.num_rows)
        fault = self.always or (self.faults.popleft() if self.faults else None)
        answer = fault(request, context) if fault is not None else None
        return super().Upsert(request, context) if answer is None else answer


def status(code: int, reason: str, *, legacy: Any = 1, retriable: bool = False) -> Fault:
    """A fault that Milvus reports in the answer's status."""
    answer = milvus_pb2.MutationResult(
        status=common_pb2.Status(code=code, error_code=legacy, reason=reason, retriable=retriable)
    )
    return lambda _request, _context: answer


def abort(code: grpc.StatusCode, details: str) -> Fault:
    """A fault that gRPC reports."""
    return lambda _request, context: context.abort(code, details)


class Server:
    """A gRPC server for one FaultyMilvus, in this process."""

    def __init__(self, directory: Path) -> None:
        self.database = MilvusLite(str(directory))
        self.milvus = FaultyMilvus(self.database)
        self.pool = futures.ThreadPoolExecutor(1)
        self.grpc = grpc.server(self.pool)
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(self.milvus, self.grpc)
        self.uri = f"http://127.0.0.1:{self.grpc.add_insecure_port('127.0.0.1:0')}"
        self.grpc.start()

    def stop(self) -> None:
        self.grpc.stop(None).wait()
        self.pool.shutdown()
        self.database.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "data")
    yield running
    running.stop()


@pytest.fixture
def sink(server: Server) -> Iterator[MilvusSink]:
    with MilvusSink(server.uri, "images", DIMENSION, retry_for=10.0) as opened:
        yield opened


@pytest.fixture
def client(server: Server) -> Iterator[MilvusClient]:
    opened = MilvusClient(server.uri, dedicated=True)
    yield opened
    opened.close()


def make_rows(count: int, **columns: Any) -> RowBatch:
    vectors = np.random.default_rng(count).standard_normal((count, DIMENSION), np.float32)
    return RowBatch([f"key-{n}" for n in range(count)], vectors, [dict(columns) for _ in range(count)])


# --- faults: (what happens) -> tried again, with nothing lost and nothing doubled


@pytest.mark.parametrize(
    "fault",
    [
        status(8, "request is rejected by grpc RateLimiter middleware, please retry later: rate limit exceeded"),
        status(1, "legacy", legacy=common_pb2.RateLimit),
        status(2, "service unavailable"),
        status(4, "too many concurrent requests"),
        status(9, "quota exceeded"),
        status(1, "Milvus Proxy is not ready yet: service not ready"),
        status(65535, "segment moved", retriable=True),
        status(1, "[Errno 28] No space left on device"),
        abort(grpc.StatusCode.UNAVAILABLE, "connection reset"),
        abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too slow"),
        abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy"),
        abort(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
    ],
    ids=lambda fault: "",
)
def test_what_may_pass_is_tried_again(sink: MilvusSink, server: Server, fault: Fault) -> None:
    """After a fault that may pass, the same rows are sent again, and once."""
    server.milvus.faults.extend([fault, fault])
    assert sink.write(make_rows(30)).written == 30
    assert sink.count() == 30
    assert len(server.milvus.calls) >= 3


def test_an_answer_that_is_lost_doubles_nothing(sink: MilvusSink, server: Server) -> None:
    """Milvus writes the rows and the answer is lost: the retry writes them over."""

    def write_then_die(request: Any, context: Any) -> None:
        MilvusServicer.Upsert(server.milvus, request, context)
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    server.milvus.faults.append(write_then_die)
    assert sink.write(make_rows(40)).written == 40
    assert sink.count() == 40


def test_what_does_not_pass_ends_at_the_deadline(server: Server) -> None:
    """A limit that stays is an error after `retry_for`, which names place, cause and knob."""
    with MilvusSink(server.uri, "images", DIMENSION, retry_for=0.3) as sink:
        server.milvus.always = status(8, "rate limit exceeded")
        start = time.monotonic()
        with pytest.raises(SinkUnavailableError, match=r"127\.0\.0\.1.*rate limit exceeded.*retry_for"):
            sink.write(make_rows(3))
        assert time.monotonic() - start < patient(5)
    assert len(server.milvus.calls) >= 2


def test_a_last_try_that_is_cut_short_does_not_hide_why(server: Server) -> None:
    """It has what is left of `retry_for`; the error says what the server said while there was time for an answer."""
    full = status(1, "[Errno 28] No space left on device")
    late = abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too slow")
    with MilvusSink(server.uri, "images", DIMENSION, retry_for=0.5) as sink:
        server.milvus.always = lambda *call: (late if len(server.milvus.calls) > 1 else full)(*call)
        with pytest.raises(SinkUnavailableError, match=r"no write in 0\.5 s: .*No space left on device"):
            sink.write(make_rows(3))
    assert len(server.milvus.calls) >= 2


def test_closing_ends_a_write_that_waits(server: Server) -> None:
    """A job that stops does not wait for Milvus to come back."""
    sink = MilvusSink(server.uri, "images", DIMENSION, retry_for=600.0)
    sink.open()
    called, failed = threading.Event(), threading.Event()

    def refuse(request: Any, context: Any) -> Any:
        called.set()
        return status(8, "rate limit exceeded")(request, context)

    server.milvus.always = refuse

    def write() -> None:
        with pytest.raises(SinkError, match="closed"):
            sink.write(make_rows(3))
        failed.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert called.wait(DEADLINE)
    sink.close()
    assert failed.wait(DEADLINE)
    thread.join(DEADLINE)


def test_a_message_that_is_too_large_is_halved(sink: MilvusSink, server: Server) -> None:
    """What a server does not take in one piece arrives in several."""

    def at_most_20(request: Any, context: Any) -> None:
        if request.num_rows > 20:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 6)")

    server.milvus.always = at_most_20
    assert sink.write(make_rows(100)).written == 100
    assert sink.count() == 100


def test_calls_are_cut_by_rows_and_by_bytes(server: Server) -> None:
    """Neither limit is passed, whatever the rows look like."""
    with MilvusSink(server.uri, "rows", DIMENSION, rows_per_call=7) as sink:
        sink.write(make_rows(20))
    assert server.milvus.calls == [7, 7, 6]
    server.milvus.calls.clear()
    with MilvusSink(server.uri, "bytes", DIMENSION, max_call_bytes=10_000) as sink:
        sink.write(make_rows(10, text="x" * 4000))
    assert server.milvus.calls == [2] * 5


def test_rows_that_milvus_refuses_are_found_among_many(sink: MilvusSink, server: Server) -> None:
    """Whatever Milvus says of a row, only the rows concerned are left out: all others are written."""
    bad = {"key-3", "key-77", "key-78"}

    def refuse(request: Any, context: Any) -> Any:
        (keys,) = (field.scalars.string_data.data for field in request.fields_data if field.field_name == "key")
        return status(65535, "cannot make sense of this row")(request, context) if bad & set(keys) else None

    server.milvus.always = refuse
    result = sink.write(make_rows(100))
    assert {f"key-{index}" for index, _ in result.refused} == bad
    assert result.written == 97
    assert all("make sense" in str(error) for _, error in result.refused)
    server.milvus.always = None
    assert sink.count() == 97


def test_a_milvus_that_refuses_everything_is_broken(sink: MilvusSink, server: Server) -> None:
    """If no row is taken, for no reason of theirs, the sink fails instead of making every item a dead letter."""
    server.milvus.always = status(65535, "internal confusion")
    with pytest.raises(SinkError, match="internal confusion"):
        sink.write(make_rows(20))


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
def test_denied_access_is_not_tried_again(sink: MilvusSink, server: Server, code: grpc.StatusCode) -> None:
    """Wrong rights stay wrong: the error comes at once and names the token."""
    server.milvus.always = abort(code, "no")
    with pytest.raises(SinkError, match="MILVUS_TOKEN"):
        sink.write(make_rows(2))
    assert len(server.milvus.calls) == 1


def test_a_refused_handshake_is_denied_access(server: Server) -> None:
    """pymilvus calls it a failed connection; it is not tried again as one."""
    server.milvus.handshake = abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")
    sink = MilvusSink(server.uri, "images", DIMENSION, retry_for=600.0)
    with pytest.raises(SinkError, match="MILVUS_TOKEN"):
        sink.open()
    sink.close()


def test_a_collection_that_goes_while_writing_is_an_error(sink: MilvusSink, client: MilvusClient) -> None:
    """Its rows are not refused one by one: the job must stop."""
    sink.write(make_rows(2))
    client.drop_collection("images")
    with pytest.raises(SinkError, match="images"):
        sink.write(make_rows(2))


def test_a_collection_that_was_released_is_loaded_again(sink: MilvusSink, client: MilvusClient) -> None:
    """A server forgets what was loaded when it restarts; a search goes on."""
    sink.write(make_rows(5))
    client.release_collection("images")
    assert len(sink.search(np.ones(DIMENSION, np.float32), 3)) == 3


# --- the collections of others


def make_collection(
    client: MilvusClient, *, key: str = "key", auto_id: bool = False, dynamic: bool = True, **more: Any
) -> None:
    schema = client.create_schema(auto_id=auto_id, enable_dynamic_field=dynamic)
    schema.add_field(key, DataType.INT64 if auto_id else DataType.VARCHAR, is_primary=True, max_length=128)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIMENSION)
    for name, kind in more.items():
        schema.add_field(name, kind)
    client.create_collection("images", schema=schema)


@pytest.mark.parametrize(
    ("collection", "settings_", "words"),
    [
        ({"auto_id": True}, {}, "autoID.*twice.*key"),
        ({"key": "id"}, {}, "primary key is 'id'"),
        ({"dynamic": False}, {}, "no dynamic field"),
        ({"owner": DataType.INT64}, {}, "'owner' is required"),
        ({}, {"dimension": 5}, "4 dimensions.*makes 5"),
    ],
    ids=["autoID", "other key", "not dynamic", "required field", "other dimension"],
)
def test_a_collection_that_does_not_fit_is_refused(
    server: Server, client: MilvusClient, collection: dict[str, Any], settings_: dict[str, Any], words: str
) -> None:
    """Before anything is written, with what differs and the ways out."""
    make_collection(client, **collection)
    arguments: dict[str, Any] = {"dimension": DIMENSION, **settings_}
    sink = MilvusSink(server.uri, "images", **arguments)
    with pytest.raises(CollectionMismatchError, match=rf"{words}.*--collection"):
        sink.open()
    sink.close()


def test_another_metric_is_refused(sink: MilvusSink, server: Server) -> None:
    """Scores of one metric are nonsense in another."""
    other = MilvusSink(server.uri, "images", DIMENSION, metric="L2")
    with pytest.raises(CollectionMismatchError, match=r"COSINE.*L2"):
        other.open()
    other.close()


def test_a_collection_of_the_user_is_used_as_it_is(server: Server, client: MilvusClient) -> None:
    """Without our columns and without an index: the columns become metadata, the index is made."""
    make_collection(client)
    with MilvusSink(server.uri, "images", DIMENSION) as sink:
        sink.write(make_rows(3, path="/a.jpg", width=None))
        assert sink.search(np.ones(DIMENSION, np.float32), 1)[0].path == "/a.jpg"


def test_an_existing_collection_is_opened_without_its_dimension(sink: MilvusSink, server: Server) -> None:
    """To search one need not know it; without a collection that is an error."""
    with MilvusSink(server.uri, "images") as reader:
        assert reader.dimension == DIMENSION
    missing = MilvusSink(server.uri, "elsewhere")
    with pytest.raises(CollectionMismatchError, match="no collection 'elsewhere'"):
        missing.open()
    missing.close()


def test_two_jobs_may_create_the_collection_at_once(server: Server) -> None:
    """Whoever is second uses what the first has made."""
    sinks = [MilvusSink(server.uri, "images", DIMENSION) for _ in range(4)]
    with futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(MilvusSink.open, sinks))
    for number, sink in enumerate(sinks):
        sink.write(RowBatch([f"key-{number}"], np.ones((1, DIMENSION), np.float32), [{}]))
    assert sinks[0].count() == 4
    for sink in sinks:
        sink.close()


def test_a_dropped_collection_is_gone(sink: MilvusSink) -> None:
    """And is made anew, empty, at the next open."""
    sink.write(make_rows(3))
    sink.drop()
    with pytest.raises(SinkError, match="open"):
        sink.count()
    sink.open()
    assert sink.count() == 0


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vector": np.ones(3)}, "vector"),
        ({"vector": np.full(DIMENSION, np.nan)}, "vector"),
        ({"k": 0}, "k"),
        ({"filter": "width ==="}, "filter.*width ==="),
    ],
    ids=["dimension", "nan", "k", "filter"],
)
def test_a_search_that_cannot_be_is_a_config_error(sink: MilvusSink, arguments: dict[str, Any], words: str) -> None:
    """The argument is named; it is not an error of the store."""
    complete: dict[str, Any] = {"vector": np.ones(DIMENSION, np.float32), **arguments}
    with pytest.raises(ConfigError, match=words):
        sink.search(**complete)


# --- manners


def test_no_secret_is_ever_shown(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """Not in repr, fingerprint, errors with all their causes, logs, or on the terminal."""
    caplog.set_level(logging.DEBUG)
    sink = MilvusSink(f"http://user:{MARKER}@127.0.0.1:1/db", "images", 4, retry_for=0.2, timeout=0.5)
    shown = [repr(sink), sink.uri, sink.fingerprint, repr(vars(sink)["_connection"].target)]
    with pytest.raises(SinkUnavailableError) as failure:
        sink.open()
    sink.close()
    shown += traceback.format_exception(failure.value)
    with pytest.raises(ConfigError) as wrong:
        MilvusSink(f"ftp://user:{MARKER}@host")
    shown += traceback.format_exception(wrong.value)
    output = capfd.readouterr()
    assert MARKER not in "\n".join([*shown, caplog.text, output.out, output.err])
    assert "127.0.0.1:1/db" in str(failure.value)


def test_a_server_that_repeats_the_token_does_not_leak_it(server: Server) -> None:
    """Servers put odd things into their messages; ours pass through a filter."""
    with MilvusSink(server.uri, "images", DIMENSION, token=MARKER) as sink:
        server.milvus.always = status(65535, f"no user for {MARKER}")
        with pytest.raises(SinkError, match=r"no user for \*\*\*"):
            sink.write(make_rows(3))


def test_pymilvus_logs_nothing_of_what_we_handle(sink: MilvusSink, server: Server, client: MilvusClient) -> None:
    """It prints a traceback for every failed call; ours are retried or reported, the host's own are left alone."""
    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("pymilvus.decorators")
    logger.addHandler(listener)
    server.milvus.faults.append(abort(grpc.StatusCode.UNAVAILABLE, "gone"))
    rows = make_rows(4)
    rows.columns[2]["path"] = "p" * 5000
    assert sink.write(rows).written == 3
    assert said == []
    with pytest.raises(MilvusException, match="bogus"):
        client.query("images", filter="bogus ===")
    logger.removeHandler(listener)
    assert "bogus" in said[0]


def test_a_monkey_patched_process_is_warned(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """pymilvus hangs there; the user learns it before it does."""
    monkeypatch.setattr(gevent.monkey, "is_module_patched", lambda name: name == "threading")
    with pytest.warns(RuntimeWarning, match="monkey-patch"), MilvusSink(server.uri, "images", DIMENSION):
        pass


def test_a_closed_or_unopened_sink_says_so(server: Server) -> None:
    """Not an AttributeError of some client."""
    sink = MilvusSink(server.uri, "images", DIMENSION)
    with pytest.raises(SinkError, match="open"):
        sink.write(make_rows(1))
    sink.open()
    sink.close()
    with pytest.raises(SinkError, match="open"):
        sink.count()
