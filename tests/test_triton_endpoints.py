"""Which server is asked, what an error means, when to give up, without a server; with one: test_triton_faults.py."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from penstock.engine.embedders.triton.address import HostPort
from penstock.engine.embedders.triton.endpoints import Endpoint, Fleet
from penstock.engine.embedders.triton.faults import Fault, fault_of
from penstock.engine.embedders.triton.owner import Owner
from penstock.engine.embedders.triton.regions import Regions
from penstock.engine.embedders.triton.transport import Answer, Query, ServerSaid, Transport
from penstock.engine.embedders.triton.waiting import InThread
from penstock.errors import EmbedderError
from penstock.shm import Place

CRASH = ServerSaid(500, "Stub process 'm_0_0' is not healthy.")
PLACE = Place("penstock-" + "0" * 32, 4096, 64, 128)


class Scripted:
    """A `Transport` whose registrations answer as told."""

    piece: int | None = None

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def _next(self, what: str) -> None:
        self.asked.append(what)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer

    def register(self, region: str, key: str, nbytes: int) -> None:
        self._next(f"register {key} {nbytes}")

    def unregister(self, region: str) -> None:
        self._next("unregister")

    def regions(self) -> list[str]:
        return []

    def metadata(self, model: str, version: str) -> Mapping[str, Any]:
        raise AssertionError

    config = metadata

    def models(self) -> list[str]:
        raise AssertionError

    def ready(self, model: str, version: str) -> bool:
        raise AssertionError

    def infer(self, query: Query, seconds: float) -> Answer:
        raise AssertionError

    def close(self) -> None:
        self.asked.append("close")


def regions_with(transport: Transport) -> Regions:
    return Regions("here", transport, InThread(), Owner.current())


def fleet(count: int = 1, *, well: bool = True, patience: float = 5.0, capacity: int = 1) -> Fleet:
    endpoints: list[Endpoint] = []
    for number in range(count):
        transport = Scripted()
        endpoints.append(Endpoint(HostPort("h", number + 1), transport, regions_with(transport), capacity))
    return Fleet("test", endpoints, InThread(), lambda _: well, patience)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ConnectionRefusedError(111, "Connection refused"), Fault.AWAY),
        (TimeoutError("timed out"), Fault.AWAY),
        (ConnectionError("an answer that is no JSON"), Fault.AWAY),
        (ServerSaid(404, "Request for unknown model: 'm' is not found"), Fault.AWAY),
        (ServerSaid(404, "Request for unknown model: 'm' version 7 is not found"), Fault.AWAY),
        (ServerSaid(503, "Request for unknown model: 'm' version 1 is not at ready state"), Fault.AWAY),
        (ServerSaid(400, "Request for unknown model: 'm' has no available versions"), Fault.AWAY),
        (ServerSaid(429, "slow down"), Fault.AWAY),
        (ServerSaid(502, "Bad Gateway"), Fault.AWAY),
        (ServerSaid(500, "Exceeds maximum queue size"), Fault.AWAY),
        (ServerSaid(404, "Unable to find shared memory region: 'r'"), Fault.REGION_LOST),
        (ServerSaid(500, "Unable to find system shared memory region: 'r'"), Fault.REGION_LOST),
        (CRASH, Fault.CRASHED),
        (ServerSaid(500, "asked to fail"), Fault.REFUSED),
        (ServerSaid(400, "this picture is not found in the index"), Fault.REFUSED),
        (ServerSaid(400, "unexpected inference input 'NO' for model 'm'"), Fault.MISFIT),
        (ServerSaid(400, "inference input 'X' data-type is 'UINT8', but model 'm' expects 'FP32'"), Fault.MISFIT),
        (ServerSaid(400, "unexpected shape for input 'X' for model 'm'. Expected [-1,3,64,64]"), Fault.MISFIT),
        (ServerSaid(400, "input byte size mismatch for input 'X' for model 'm'. Expected 36864"), Fault.MISFIT),
        (ServerSaid(400, "inference request batch-size must be <= 64 for 'm'"), Fault.MISFIT),
        (ServerSaid(400, "Invalid offset + byte size for shared memory region: 'r'"), Fault.MISFIT),
        (ServerSaid(500, "shared memory size specified ... should be at least 128 bytes to hold"), Fault.MISFIT),
        (ServerSaid(403, "This API is restricted"), Fault.MISFIT),
        (ServerSaid(413, "Payload Too Large"), Fault.MISFIT),
    ],
)
def test_errors_mean_what_the_table_says(error: Exception, fault: Fault) -> None:
    """Most texts were observed at a real server, over HTTP and gRPC."""
    assert fault_of(error) is fault


def test_the_least_loaded_server_is_asked() -> None:
    """Requests spread evenly."""
    servers = fleet(3, capacity=2)
    asked: list[int] = []

    def nested(endpoint: Endpoint) -> None:
        asked.append(endpoint.server.port)
        if len(asked) < 6:
            servers.run(nested)

    servers.run(nested)
    assert sorted(asked) == [1, 1, 2, 2, 3, 3]
    assert sorted(asked[:3]) == [1, 2, 3]


def test_who_waits_for_a_full_server_gets_it_when_it_is_free() -> None:
    """No polling, no timeout: the leaver wakes the next in line."""
    servers = fleet()
    entered, leave, done = threading.Event(), threading.Event(), threading.Event()

    def first(_: Endpoint) -> None:
        entered.set()
        assert leave.wait(10)

    threads = [threading.Thread(target=servers.run, args=(first,))]
    threads[0].start()
    assert entered.wait(10)
    threads.append(threading.Thread(target=servers.run, args=(lambda _: done.set(),)))
    threads[1].start()
    assert not done.is_set()
    leave.set()
    assert done.wait(10)
    for thread in threads:
        thread.join(10)


def test_another_server_is_asked_when_one_does_not_answer() -> None:
    """And the one that failed is left alone until its backoff is over."""
    servers = fleet(2)
    asked: list[int] = []

    def work(endpoint: Endpoint) -> int:
        asked.append(endpoint.server.port)
        if endpoint.server.port == 1:
            raise ConnectionResetError("cut")
        return endpoint.server.port

    assert [servers.run(work) for _ in range(2)] == [2, 2]
    assert asked == [1, 2, 2]


def test_a_server_that_is_well_again_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """After a probe; and memory whose answers never came is let go of then."""
    caplog.set_level(logging.WARNING)
    servers = fleet()
    (endpoint,) = servers.endpoints
    released: list[int] = []
    endpoint.held.append(lambda: released.append(1))
    outcomes: list[Exception | None] = [ConnectionResetError("cut"), None]

    def work(_: Endpoint) -> str:
        outcome = outcomes.pop(0)
        if outcome:
            raise outcome
        return "done"

    assert servers.run(work) == "done"
    assert released == [1]
    assert [record.getMessage() for record in caplog.records] == [
        "test: h:1 is not asked for now: ConnectionResetError: cut",
        "test: h:1 answers again",
    ]


@pytest.mark.parametrize("well", [True, False])
def test_patience_ends_whether_probes_fail_or_only_the_requests(well: bool) -> None:
    """A server that says it is ready and never answers must not be asked for ever."""
    servers = fleet(well=well, patience=0.3)

    def work(_: Endpoint) -> None:
        raise ConnectionResetError("cut")

    with pytest.raises(EmbedderError, match=r"no answer from h:1 for 0.3 s; .*cut.*patience="):
        servers.run(work)


def test_a_success_renews_the_patience() -> None:
    """Trouble now and then is not trouble for so long."""
    servers = fleet(patience=0.4)
    for _ in range(4):
        outcomes: list[Exception | None] = [TimeoutError("slow"), None]

        def work(_: Endpoint, outcomes: list[Exception | None] = outcomes) -> None:
            threading.Event().wait(0.05)
            outcome = outcomes.pop(0)
            if outcome:
                raise outcome

        servers.run(work)


def test_what_kills_the_model_again_and_again_is_told_apart_from_a_model_that_is_dead() -> None:
    """Twice, and it had answered in between: it is these rows. Never answered again: it is the model."""
    servers = fleet(patience=0.5)

    def poison(endpoint: Endpoint) -> None:
        endpoint.crashed = False  # another request was answered meanwhile
        raise CRASH

    with pytest.raises(ServerSaid, match="not healthy"):
        servers.run(poison)

    def dead(_: Endpoint) -> None:
        raise CRASH

    with pytest.raises(EmbedderError, match="not healthy"):
        fleet(patience=0.5).run(dead)


def test_requests_given_up_take_up_room() -> None:
    """A server that is late with all it was given gets no more, and is not found well before an answer comes."""
    servers = fleet(patience=0.3, capacity=2)
    (endpoint,) = servers.endpoints

    def late(_: Endpoint) -> None:
        endpoint.late += 1
        raise TimeoutError("no answer")

    with pytest.raises(EmbedderError, match="no answer"):
        servers.run(late)
    assert endpoint.late == 2


def test_a_refusal_is_an_answer() -> None:
    """It is for the caller, and the server stays in use."""
    servers = fleet()

    def work(_: Endpoint) -> None:
        raise ServerSaid(500, "asked to fail")

    for _ in range(2):
        with pytest.raises(ServerSaid, match="asked to fail"):
            servers.run(work)
    assert servers.endpoints[0].healthy
    assert servers.endpoints[0].in_flight == 0


def test_a_segment_is_registered_once_whole_and_dropped_by_name() -> None:
    """From its beginning, all of it; the second user finds it there."""
    transport = Scripted()
    known = regions_with(transport)
    assert known.name(PLACE) == known.name(PLACE)
    assert known.drop()
    assert transport.asked == [f"register /{PLACE.segment} 4096", "unregister"]


def test_concurrent_first_users_wait_for_one_registration() -> None:
    """Eight threads, one call."""
    transport = Scripted()
    known = regions_with(transport)
    gate = threading.Event()
    plain = transport.register

    def slow(region: str, key: str, nbytes: int) -> None:
        assert gate.wait(10)
        plain(region, key, nbytes)

    transport.register = slow  # type: ignore[method-assign]
    names: list[str | None] = []
    threads = [threading.Thread(target=lambda: names.append(known.name(PLACE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(10)
    assert len(names) == 8
    assert len(set(names)) == 1
    assert len(transport.asked) == 1


@pytest.mark.parametrize(
    ("answer", "usable"),
    [
        (ServerSaid(400, "shared memory region 'r' already in manager"), True),
        (ServerSaid(403, "This API is restricted, expecting header 'k'"), False),
        (ServerSaid(503, "This protocol is restricted, expecting header 'k'"), False),
        (ServerSaid(500, "Unable to open shared memory region: '/penstock-0'"), False),
        (ServerSaid(404, "Not Found"), False),
        (ServerSaid(501, "unimplemented"), False),
    ],
)
def test_a_refused_registration_means_bodies(answer: ServerSaid, usable: bool) -> None:
    """Whatever the reason; it is kept for the warning. A name that is taken is ours."""
    transport = Scripted(answer)
    known = regions_with(transport)
    assert (known.name(PLACE) is not None) is usable
    assert known.refused == (None if usable else str(answer))
    known.name(PLACE)
    assert len(transport.asked) == 1


@pytest.mark.parametrize("trouble", [TimeoutError("slow"), ServerSaid(503, "busy")])
def test_a_registration_that_was_not_answered_is_tried_again(trouble: Exception) -> None:
    """It says nothing about whether the server maps our memory."""
    known = regions_with(Scripted(trouble, None))
    with pytest.raises(type(trouble)):
        known.name(PLACE)
    assert known.name(PLACE) is not None


def test_memory_in_use_is_unregistered_a_little_later() -> None:
    """Triton refuses while a request still uses it."""
    busy = ServerSaid(500, "Cannot unregister shared memory region 'r', it is currently in use.")
    transport = Scripted(None, busy, busy, None)
    known = regions_with(transport)
    known.name(PLACE)
    assert known.drop()
    assert transport.asked.count("unregister") == 3


def test_a_server_that_forgets_every_registration_gets_bodies() -> None:
    """A load balancer between us and several servers; one loss, as after a restart, is forgiven."""
    known = regions_with(Scripted())
    for _ in range(5):
        assert known.name(PLACE) is not None
        known.lost(PLACE.segment)
        known.lost(PLACE.segment)  # two requests were under way
        known.drop()
        assert known.name(PLACE) is not None
        known.worked()
    for _ in range(3):
        assert known.name(PLACE) is not None
        known.lost(PLACE.segment)
        known.drop()
    assert known.name(PLACE) is None
    assert known.refused == "it forgets what it was shown"
    known.drop()
    assert known.name(PLACE) is None


@pytest.mark.slow
def test_memory_that_stays_in_use_stays_registered() -> None:
    """After a second the rest goes on; the slots stay held."""
    busy = ServerSaid(500, "Cannot unregister shared memory region 'r', it is currently in use.")
    transport = Scripted(None, *[busy] * 100)
    known = regions_with(transport)
    name = known.name(PLACE)
    assert not known.drop()
    assert known.name(PLACE) == name
