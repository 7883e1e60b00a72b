"""How the sink adapts: how many calls are in flight, how many rows they carry, and what is in a call."""

from __future__ import annotations

import heapq
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymilvus import DataType, MilvusClient
from pymilvus.client.prepare import Prepare
from pymilvus.exceptions import MilvusException

from penstock.engine.servers import MilvusLiteServer
from penstock.errors import SinkError, SinkUnavailableError
from penstock.sinks import MilvusSink, RowBatch, WriteResult
from penstock.sinks.milvus.connection import Connection
from penstock.sinks.milvus.limiter import AdaptiveLimiter
from penstock.sinks.milvus.upsert import has_inside, message_of, upsert
from penstock.sinks.milvus.uri import parse_uri
from penstock.sinks.milvus.writer import MilvusWriter
from penstock.tests.waiting import DEADLINE, wait_until

# --- the pace, against servers that are a formula


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def drive(
    pace: AdaptiveLimiter, clock: Clock, seconds: Callable[[int, int], float], calls: int, noise: float = 0.0
) -> list[int]:
    """Keep as many calls in flight as the pace allows; the number allowed after each answer.

    Args:
        pace: under test.
        clock: its clock.
        seconds: of a call, from the calls in flight and the rows in it.
        calls: how many are answered.
        noise: part by which the time of a call varies.
    """
    chance = random.Random(7)
    flying: list[tuple[float, float, int]] = []
    seen: list[int] = []
    for _ in range(calls):
        while len(flying) < pace.calls:
            takes = seconds(len(flying) + 1, pace.rows) * chance.uniform(1 - noise, 1 + noise)
            heapq.heappush(flying, (clock.now + takes, takes, pace.rows))
        clock.now, takes, rows = heapq.heappop(flying)
        pace.done(rows, takes)
        seen.append(pace.calls)
    return seen


def serves_at_most(workers: int) -> Callable[[int, int], float]:
    """A server that works on so many calls at once; the others wait for it."""
    return lambda flying, rows: (0.005 + rows * 100e-6) * max(1.0, flying / workers)


@pytest.mark.parametrize(("workers", "least", "most"), [(1, 1, 2), (3, 3, 4), (6, 5, 7)])
def test_calls_rise_to_what_the_server_can_use(workers: int, least: int, most: int) -> None:
    """And no further, but for a look at the neighbour now and then."""
    clock = Clock()
    seen = drive(AdaptiveLimiter(8, 500, clock), clock, serves_at_most(workers), 2000, noise=0.2)[-1000:]
    usual = max(set(seen), key=seen.count)
    assert least <= usual <= most


def test_the_rate_is_near_the_best_there_is() -> None:
    """Searching costs little: 95 % of a server that is used at its best from the first call on."""
    clock = Clock()
    drive(AdaptiveLimiter(8, 500, clock), clock, serves_at_most(4), 3000)
    best = 3000 * serves_at_most(4)(1, 500) / 4
    assert clock.now < best / 0.95


def test_a_server_that_becomes_another_is_followed() -> None:
    """From one that works on five calls at once to one that works on one, and back."""
    clock = Clock()
    pace = AdaptiveLimiter(8, 500, clock)
    drive(pace, clock, serves_at_most(5), 1500)
    few = drive(pace, clock, lambda flying, rows: 0.02 * flying**1.5, 3000)[-500:]
    many = drive(pace, clock, serves_at_most(5), 3000)[-500:]
    assert max(set(few), key=few.count) <= 2
    assert max(set(many), key=many.count) >= 4


def test_a_rate_limit_halves_the_calls_and_success_adds_one() -> None:
    """Multiplicative decrease, additive increase."""
    clock = Clock()
    pace = AdaptiveLimiter(8, 100, clock)
    drive(pace, clock, serves_at_most(8), 1000)
    before = pace.calls
    assert before >= 6
    pace.limited()
    assert pace.calls == before // 2
    pace.limited()
    pace.limited()
    pace.limited()
    assert pace.calls == 1
    seen = drive(pace, clock, serves_at_most(8), 400)
    assert max(after - before for before, after in zip([1, *seen], seen, strict=False)) == 1
    assert max(seen) >= 4


def test_slow_calls_carry_fewer_rows_and_quick_ones_more_again() -> None:
    """Halved while a call takes longer than a second, never below 50; up in steps to the most."""
    pace = AdaptiveLimiter(1, 500, Clock())
    for expected in (250, 125, 62, 50, 50):
        pace.done(pace.rows, 3.0)
        assert pace.rows == expected
    pace.done(10, 0.01)
    assert pace.rows == 50  # that call was small: it says nothing about larger ones
    for _ in range(20):
        pace.done(pace.rows, 0.1)
    assert pace.rows == 500


def test_a_sink_that_waits_for_its_rows_learns_nothing() -> None:
    """If the stages before are slow, more calls at once would not help, and fewer would not hurt."""
    clock = Clock()
    pace = AdaptiveLimiter(8, 500, clock)
    for _ in range(200):
        clock.now += 1.0
        pace.done(100, 0.05)
    assert pace.calls == 1


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 600), st.floats(0, 5), st.booleans()), max_size=200),
    st.integers(1, 16),
    st.integers(1, 2000),
)
def test_the_bounds_hold_whatever_happens(events: list[tuple[int, float, bool]], calls: int, rows: int) -> None:
    """At least one call and one row, at most what the user said."""
    clock = Clock()
    pace = AdaptiveLimiter(calls, rows, clock)
    for carried, seconds, limited in events:
        clock.now += seconds
        pace.limited() if limited else pace.done(carried, seconds)
        assert 1 <= pace.calls <= calls
        assert min(rows, 50) <= pace.rows <= rows


# --- the line, against a Milvus that is a function


class FakeMilvus:
    """Takes the calls of a writer; each waits for leave to end, unless it is open to all."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.leave = threading.Semaphore(0)
        self.arrived = threading.Semaphore(0)
        self.answer: Callable[[list[dict[str, Any]]], None] = lambda rows: None

    def upsert(self, client: Any, rows: list[dict[str, Any]], seconds: float) -> None:
        self.calls.append([row["key"] for row in rows])
        self.arrived.release()
        assert self.leave.acquire(timeout=DEADLINE)
        self.answer(rows)


@pytest.fixture
def milvus() -> FakeMilvus:
    return FakeMilvus()


@pytest.fixture
def writer(milvus: FakeMilvus, monkeypatch: pytest.MonkeyPatch) -> Iterator[MilvusWriter]:
    monkeypatch.setattr(Connection, "_connected", lambda self: None)
    connection = Connection(parse_uri("http://127.0.0.1:1"), "images", timeout=5.0, retry_for=1.0)
    yield MilvusWriter(connection, "images", milvus.upsert, calls=1, rows_per_call=10, call_bytes=1000)
    connection.close()


def give(writer: MilvusWriter, keys: str, size: int = 10) -> list[int]:
    """Write rows with these letters as keys; the indices of those that were refused."""
    return [index for index, _ in writer.write(list(range(len(keys))), lambda index: ({"key": keys[index]}, size))]


def lined_up(writer: MilvusWriter, count: int) -> None:
    wait_until(lambda: len(vars(writer)["_queue"]) >= count)


def submit(pool: ThreadPoolExecutor, writer: MilvusWriter, groups: list[str], size: int = 10) -> list[Any]:
    """Give each group from a thread of its own, in this order."""
    pending = []
    waiting = len(vars(writer)["_queue"])
    for number, group in enumerate(groups, 1):
        pending.append(pool.submit(give, writer, group, size))
        lined_up(writer, waiting + number)
    return pending


def start(pool: ThreadPoolExecutor, milvus: FakeMilvus, writer: MilvusWriter, keys: str) -> Any:
    """A write that is being answered."""
    first = pool.submit(give, writer, keys)
    assert milvus.arrived.acquire(timeout=DEADLINE)
    return first


def test_writers_that_wait_share_the_next_call(milvus: FakeMilvus, writer: MilvusWriter) -> None:
    """While one call is answered three more writers come; one call takes them all."""
    with ThreadPoolExecutor(4) as pool:
        pending = [start(pool, milvus, writer, "ab"), *submit(pool, writer, ["cd", "ef", "g"])]
        milvus.leave.release(9)
        assert [each.result(DEADLINE) for each in pending] == [[]] * 4
    assert [sorted(call) for call in milvus.calls] == [["a", "b"], ["c", "d", "e", "f", "g"]]


@pytest.mark.parametrize(
    ("groups", "size"),
    [(["bcdefg", "hijklm"], 10), (["bc", "de"], 300), (["bcd", "dcb"], 10)],
    ids=["rows", "bytes", "the same keys"],
)
def test_what_does_not_go_into_one_call_goes_into_two(
    milvus: FakeMilvus, writer: MilvusWriter, groups: list[str], size: int
) -> None:
    """More rows or bytes than a call may have, or a key that is in it already: Milvus would keep both its rows."""
    with ThreadPoolExecutor(3) as pool:
        pending = [start(pool, milvus, writer, "a"), *submit(pool, writer, groups, size)]
        milvus.leave.release(9)
        assert [each.result(DEADLINE) for each in pending] == [[]] * 3
    assert sorted(map("".join, milvus.calls[1:])) == sorted(groups)


def test_each_writer_hears_of_its_own_rows(milvus: FakeMilvus, writer: MilvusWriter) -> None:
    """A row that is refused in a shared call is its writer's, with the index that it has there."""

    def refuse(rows: list[dict[str, Any]]) -> None:
        if any(row["key"] in "dg" for row in rows):
            raise MilvusException(code=1100, message="this row is wrong")

    milvus.answer = refuse
    with ThreadPoolExecutor(4) as pool:
        pending = [start(pool, milvus, writer, "ab"), *submit(pool, writer, ["cd", "ef", "g"])]
        milvus.leave.release(99)
        assert [each.result(DEADLINE) for each in pending] == [[], [1], [], [0]]


def test_a_sink_that_fails_fails_for_all_who_wait(milvus: FakeMilvus, writer: MilvusWriter) -> None:
    """Nobody in the line tries for another `retry_for` seconds what has just been given up."""

    def gone(rows: list[dict[str, Any]]) -> None:
        raise MilvusException(code=2, message="no server")

    milvus.answer = gone
    with ThreadPoolExecutor(4) as pool:
        pending = [start(pool, milvus, writer, "ab"), *submit(pool, writer, ["cdefghijkl", "m", "n"])]
        milvus.leave.release(999)
        for each in pending:
            with pytest.raises(SinkUnavailableError, match="retry_for"):
                each.result(DEADLINE)
    assert {"".join(call) for call in milvus.calls} == {"ab"}


def test_a_thread_that_is_stopped_does_not_leave_the_others_waiting(milvus: FakeMilvus, writer: MilvusWriter) -> None:
    """Its own error is raised in it; those in the line hear of it at once, and the writer can be used on."""
    milvus.answer = lambda rows: {}[rows[0]["key"]]
    with ThreadPoolExecutor(2) as pool:
        pending = [start(pool, milvus, writer, "a"), *submit(pool, writer, ["b"])]
        milvus.leave.release(9)
        with pytest.raises(KeyError):
            pending[0].result(DEADLINE)
        with pytest.raises(SinkError, match="gave up"):
            pending[1].result(DEADLINE)
    milvus.answer = lambda rows: None
    assert give(writer, "c") == []


def test_a_writer_that_is_interrupted_in_the_line_takes_its_rows_along(
    milvus: FakeMilvus, writer: MilvusWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C the memory of its vectors may be used for something else: nobody sends them any more."""

    def interrupted(condition: Any, predicate: Any, timeout: Any = None) -> bool:
        assert not predicate()
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        first = start(pool, milvus, writer, "a")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Condition, "wait_for", interrupted)
            with pytest.raises(KeyboardInterrupt):
                give(writer, "b")
        (last,) = submit(pool, writer, ["c"])
        milvus.leave.release(9)
        assert [first.result(DEADLINE), last.result(DEADLINE)] == [[], []]
    assert milvus.calls == [["a"], ["c"]]


def test_the_figures_say_what_was_found(milvus: FakeMilvus, writer: MilvusWriter) -> None:
    """Rows of a call, calls in flight, tries, halves, and the time that a rate limit cost."""
    errors = [MilvusException(code=8, message="rate limit exceeded"), MilvusException(code=1100, message="wrong")]
    milvus.answer = lambda rows: (_ for _ in ()).throw(errors.pop(0)) if errors else None
    milvus.leave.release(99)
    assert give(writer, "abcd") == []
    stats = dict(writer.stats())
    assert stats.pop("limited_seconds") > 0
    assert stats == {"rows_per_call": 2.0, "in_flight": 1, "calls": 2, "retries": 1, "splits": 1}


# --- the message


FIELDS: list[dict[str, Any]] = [
    {"name": "key", "type": DataType.VARCHAR, "params": {"max_length": 128}, "is_primary": True},
    {"name": "vector", "type": DataType.FLOAT_VECTOR, "params": {"dim": 3}},
    {"name": "path", "type": DataType.VARCHAR, "params": {"max_length": 4096}, "nullable": True},
    {"name": "width", "type": DataType.INT32, "params": {}, "nullable": True},
    {"name": "year", "type": DataType.INT64, "params": {}},
    {"name": "good", "type": DataType.BOOL, "params": {}, "nullable": True},
    {"name": "score", "type": DataType.DOUBLE, "params": {}},
]
ROWS = st.fixed_dictionaries(
    {
        "key": st.text(min_size=1, max_size=9),
        "vector": st.lists(st.floats(width=32), min_size=3, max_size=3).map(lambda v: np.array(v, np.float32)),
        "path": st.none() | st.text(max_size=9),
        "width": st.none() | st.integers(-(2**31), 2**31 - 1),
        "year": st.integers(-(2**63), 2**63 - 1),
        "score": st.floats(allow_nan=False),
    },
    optional={
        "good": st.none() | st.booleans(),
        "label": st.text(max_size=9) | st.integers(0, 9) | st.lists(st.booleans(), max_size=3),
    },
)


@settings(max_examples=100, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=6))
def test_the_message_is_the_one_that_pymilvus_makes(rows: list[dict[str, Any]]) -> None:
    """Field by field, whatever the rows hold; the metadata as JSON of the same meaning."""
    ours = message_of("images", rows, "p", {"fields": FIELDS, "enable_dynamic_field": True}, 5)
    theirs = Prepare.row_upsert_param("images", rows, "p", FIELDS, enable_dynamic=True, schema_timestamp=5)
    for message in (ours, theirs):
        (meta,) = (field for field in message.fields_data if field.is_dynamic)
        for index, text in enumerate(meta.scalars.json_data.data):
            meta.scalars.json_data.data[index] = text.decode().replace(" ", "").encode()
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


def test_what_the_short_way_does_not_know_goes_the_long_way() -> None:
    """A type of field that is new to us, a value that is missing or of another type: pymilvus decides."""
    row = {"key": "a", "vector": np.ones(3, np.float32), "year": 1, "score": 0.5}
    schema = {"fields": FIELDS}
    assert message_of("images", [row], "", schema, 0) is not None
    assert message_of("images", [{**row, "year": None}], "", schema, 0) is None
    assert message_of("images", [{**row, "year": "x"}], "", schema, 0) is None
    other = {"name": "box", "type": DataType.ARRAY, "params": {}}
    assert message_of("images", [row], "", {"fields": [*FIELDS, other]}, 0) is None


@pytest.fixture
def name() -> str:
    return f"c{uuid.uuid4().hex}"


@pytest.fixture
def client(milvus_lite_server: MilvusLiteServer) -> Iterator[MilvusClient]:
    opened = MilvusClient(milvus_lite_server.uri, dedicated=True)
    yield opened
    opened.close()


@pytest.mark.slow
def test_both_ways_write_the_same_rows(milvus_lite_server: MilvusLiteServer, client: MilvusClient, name: str) -> None:
    """The short way is the one of this pymilvus; without its inside the long one does the same."""
    rows = RowBatch(["a", "b"], np.eye(2, 4, dtype=np.float32), [{"path": "/a", "tag": "é"}, {"width": 7}])

    class Public:
        """A client of another pymilvus: what is promised, and nothing else."""

        upsert = staticmethod(client.upsert)

    with MilvusSink(milvus_lite_server.uri, name, 4) as sink:
        assert has_inside(client)
        assert sink.write(rows) == WriteResult(2, [])
        short = sink.get(rows.keys, vectors=True)
        sink.drop()
        sink.open()
        encoded = [{"key": "a", "vector": rows.vectors[0], "path": "/a", "width": None, "height": None, "tag": "é"}]
        encoded += [{"key": "b", "vector": rows.vectors[1], "path": None, "width": 7, "height": None}]
        assert not has_inside(Public)
        upsert(Public, name, encoded, seconds=10)
        long = sink.get(rows.keys, vectors=True)
    assert repr(short) == repr(long)


@pytest.mark.slow
def test_a_collection_whose_schema_changes_is_read_anew(
    milvus_lite_server: MilvusLiteServer, client: MilvusClient, name: str
) -> None:
    """Dropped and made with other fields under the same name."""
    with MilvusSink(milvus_lite_server.uri, name, 4) as sink:
        sink.write(RowBatch(["a"], np.ones((1, 4), np.float32), [{"year": 7}]))
        sink.drop()
        schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=128)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
        schema.add_field("year", DataType.INT64, nullable=True)
        client.create_collection(name, schema=schema)
        sink.open()
        assert sink.write(RowBatch(["a"], np.ones((1, 4), np.float32), [{"year": 8}])).written == 1
        assert sink.get(["a"])["a"]["year"] == 8
