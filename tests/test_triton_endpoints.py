"""Which server is asked, what an error means, when to give up, without a server; with one: test_triton_faults.py."""

from __future__ import annotations

import logging
import threading

import gevent
import pytest

from penstock.engine.embedders.triton.endpoint_pool import Endpoint
from penstock.engine.embedders.triton.errors import ErrorKind, kind_of
from penstock.engine.embedders.triton.io_backend import GreenletIo
from penstock.engine.embedders.triton.transport import ServerError
from penstock.errors import EmbedderError
from penstock.tests.triton_fakes import PLACE, Scripted, on_a_hub, pool
from penstock.tests.waiting import DEADLINE

CRASH = ServerError(500, "Stub process 'm_0_0' is not healthy.")


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ConnectionRefusedError(111, "Connection refused"), ErrorKind.AWAY),
        (TimeoutError("timed out"), ErrorKind.AWAY),
        (ConnectionError("an answer that is no JSON"), ErrorKind.AWAY),
        (ConnectionResetError(104, "Connection reset by peer"), ErrorKind.CRASHED),
        (ServerError(404, "Request for unknown model: 'm' is not found"), ErrorKind.AWAY),
        (ServerError(404, "Request for unknown model: 'm' version 7 is not found"), ErrorKind.AWAY),
        (ServerError(503, "Request for unknown model: 'm' version 1 is not at ready state"), ErrorKind.AWAY),
        (ServerError(400, "Request for unknown model: 'm' has no available versions"), ErrorKind.AWAY),
        (ServerError(429, "slow down"), ErrorKind.AWAY),
        (ServerError(502, "Bad Gateway"), ErrorKind.AWAY),
        (ServerError(500, "Exceeds maximum queue size"), ErrorKind.AWAY),
        (ServerError(404, "Unable to find shared memory region: 'r'"), ErrorKind.REGION_LOST),
        (ServerError(500, "Unable to find system shared memory region: 'r'"), ErrorKind.REGION_LOST),
        (CRASH, ErrorKind.CRASHED),
        (ServerError(500, "asked to fail"), ErrorKind.REFUSED),
        (ServerError(400, "this picture is not found in the index"), ErrorKind.REFUSED),
        (ServerError(400, "unexpected inference input 'NO' for model 'm'"), ErrorKind.MISFIT),
        (ServerError(400, "inference input 'X' data-type is 'UINT8', but model 'm' expects 'FP32'"), ErrorKind.MISFIT),
        (ServerError(400, "unexpected shape for input 'X' for model 'm'. Expected [-1,3,64,64]"), ErrorKind.MISFIT),
        (ServerError(400, "input byte size mismatch for input 'X' for model 'm'. Expected 36864"), ErrorKind.MISFIT),
        (ServerError(400, "inference request batch-size must be <= 64 for 'm'"), ErrorKind.MISFIT),
        (ServerError(400, "Invalid offset + byte size for shared memory region: 'r'"), ErrorKind.MISFIT),
        (ServerError(500, "shared memory size specified ... should be at least 128 bytes to hold"), ErrorKind.MISFIT),
        (ServerError(403, "This API is restricted"), ErrorKind.MISFIT),
        (ServerError(413, "Payload Too Large"), ErrorKind.MISFIT),
    ],
)
def test_errors_mean_what_the_table_says(error: Exception, fault: ErrorKind) -> None:
    """Most texts were observed at a real server, over HTTP and gRPC."""
    assert kind_of(error) is fault


def test_the_least_loaded_server_is_asked() -> None:
    """Requests spread evenly."""
    servers = pool(3, capacity=2)
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
    servers = pool()
    entered, leave, done = threading.Event(), threading.Event(), threading.Event()

    def first(_: Endpoint) -> None:
        entered.set()
        assert leave.wait(DEADLINE)

    threads = [threading.Thread(target=servers.run, args=(first,))]
    threads[0].start()
    assert entered.wait(DEADLINE)
    threads.append(threading.Thread(target=servers.run, args=(lambda _: done.set(),)))
    threads[1].start()
    assert not done.is_set()
    leave.set()
    assert done.wait(DEADLINE)
    for thread in threads:
        thread.join(DEADLINE)


def test_another_server_is_asked_when_one_does_not_answer() -> None:
    """And the one that failed is left alone until its backoff is over."""
    servers = pool(2)
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
    servers = pool()
    (endpoint,) = servers.endpoints
    released: list[int] = []
    endpoint.regions.keep(PLACE.segment, lambda: released.append(1))
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
    servers = pool(well=well, patience=0.3)

    def work(_: Endpoint) -> None:
        raise TimeoutError("silent")

    with pytest.raises(EmbedderError, match=r"no answer from h:1 for 0.3 s; .*silent.*patience="):
        servers.run(work)


def test_a_success_renews_the_patience() -> None:
    """RequestError now and then is not trouble for so long."""
    servers = pool(patience=0.4)
    for _ in range(4):
        outcomes: list[Exception | None] = [TimeoutError("slow"), None]

        def work(_: Endpoint, outcomes: list[Exception | None] = outcomes) -> None:
            threading.Event().wait(0.05)
            outcome = outcomes.pop(0)
            if outcome:
                raise outcome

        servers.run(work)


def test_requests_given_up_take_up_room() -> None:
    """A server that is late with all it was given gets no more, and is not found well before an answer comes."""
    servers = pool(patience=0.3, capacity=2)
    (endpoint,) = servers.endpoints

    def late(_: Endpoint) -> None:
        endpoint.late += 1
        raise TimeoutError("no answer")

    with pytest.raises(EmbedderError, match="no answer"):
        servers.run(late)
    assert endpoint.late == 2


def test_a_refusal_is_an_answer() -> None:
    """It is for the caller, and the server stays in use."""
    servers = pool()

    def work(_: Endpoint) -> None:
        raise ServerError(500, "asked to fail")

    for _ in range(2):
        with pytest.raises(ServerError, match="asked to fail"):
            servers.run(work)
    assert servers.endpoints[0].healthy
    assert servers.endpoints[0].in_flight == 0


def test_patience_is_kept_though_a_neighbour_is_answered_late() -> None:
    """Its server is out already: that answer is no sign that the server is well, and the clock runs on."""

    def work(io: GreenletIo) -> None:
        servers = pool(well=False, patience=0.5, capacity=2, io=io)
        (endpoint,) = servers.endpoints
        out = io.signal()

        def late(_: Endpoint) -> str:
            assert out.wait(DEADLINE)
            return "late"

        def silent(_: Endpoint) -> None:
            raise TimeoutError("no answer")

        neighbour = gevent.spawn(servers.run, late)
        asker = gevent.spawn(servers.run, silent)
        while endpoint.healthy:
            io.pause(0.01)
        out.set()
        assert neighbour.get(timeout=DEADLINE) == "late"
        with pytest.raises(EmbedderError, match="no answer from h:1"):
            asker.get(timeout=DEADLINE)

    on_a_hub(work)


def test_patience_begins_when_a_late_request_takes_the_last_server_out() -> None:
    """Nobody waits for that request any more; who comes next must not wait for ever."""

    def work(io: GreenletIo) -> None:
        servers = pool(well=False, patience=0.3, io=io)
        servers.endpoints[0].eject(ConnectionResetError("cut"))
        with pytest.raises(EmbedderError, match="no answer from h:1"):
            servers.run(lambda _: None)

    on_a_hub(work)


def test_trouble_while_nobody_asked_is_not_counted() -> None:
    """A server that was out long ago, and has been well since, may fail once."""
    servers = pool(patience=0.2)
    servers.endpoints[0].eject(TimeoutError("silent"))
    assert servers.run(lambda _: "first") == "first"
    servers.endpoints[0].eject(TimeoutError("silent"))
    servers.endpoints[0].healthy = True
    threading.Event().wait(0.3)
    outcomes: list[Exception | None] = [TimeoutError("slow"), None]

    def work(_: Endpoint) -> str:
        outcome = outcomes.pop(0)
        if outcome:
            raise outcome
        return "done"

    assert servers.run(work) == "done"


def test_threads_do_not_wait_for_the_probe_of_a_silent_server() -> None:
    """Whoever probes has left the line; and while another server has room, nobody probes."""
    probing, end = threading.Event(), threading.Event()

    def check(_: Endpoint) -> bool:
        probing.set()
        assert end.wait(DEADLINE)
        return True

    servers = pool(2, well=check)
    silent, well = servers.endpoints
    silent.eject(TimeoutError("silent"))
    silent.probe_at = 0.0
    assert servers.run(lambda endpoint: endpoint.server.port) == 2
    assert not probing.is_set()

    entered, leave = threading.Event(), threading.Event()
    ports: list[int] = []

    def slow(endpoint: Endpoint) -> None:
        entered.set()
        assert leave.wait(DEADLINE)
        ports.append(endpoint.server.port)

    threads = [threading.Thread(target=servers.run, args=(slow,))]
    threads[0].start()
    assert entered.wait(DEADLINE)
    threads.append(threading.Thread(target=servers.run, args=(lambda e: ports.append(e.server.port),)))
    threads[1].start()
    assert probing.wait(DEADLINE)  # the other server is full
    leave.set()
    threads[0].join(DEADLINE)
    assert servers.run(lambda endpoint: endpoint.server.port) == 2  # though the probe is not over
    end.set()
    threads[1].join(DEADLINE)
    assert ports[0] == 2
    assert len(ports) == 2
    assert well.healthy


def test_all_servers_are_left_at_once() -> None:
    """Each of them may be silent for as long as a call may take."""

    def work(io: GreenletIo) -> None:
        servers = pool(3, io=io)
        arrived, all_here = [0], io.signal()
        for endpoint in servers.endpoints:
            endpoint.regions.name(PLACE)

            def unregister(region: str) -> None:
                del region
                arrived[0] += 1
                if arrived[0] == 3:
                    all_here.set()
                assert all_here.wait(DEADLINE), "one after the other"

            assert isinstance(endpoint.transport, Scripted)
            endpoint.transport.unregister = unregister  # type: ignore[method-assign]
        servers.close()
        assert arrived == [3]
        for endpoint in servers.endpoints:
            assert isinstance(endpoint.transport, Scripted)
            assert endpoint.transport.asked[-1] == "close"

    on_a_hub(work)
