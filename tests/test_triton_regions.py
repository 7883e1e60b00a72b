"""Which memory a server has, and when it is known to have it no more, without a server."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from penstock.engine.embedders.triton import regions as module
from penstock.engine.embedders.triton.io_backend import GreenletIo, Signal
from penstock.engine.embedders.triton.owner import Owner
from penstock.engine.embedders.triton.processes import started
from penstock.engine.embedders.triton.transport import ServerError
from penstock.tests.triton_fakes import PLACE, Scripted, on_a_hub, pool, regions_with
from penstock.tests.waiting import DEADLINE

BUSY = ServerError(500, "Cannot unregister shared memory region 'r', it is currently in use.")


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
        assert gate.wait(DEADLINE)
        plain(region, key, nbytes)

    transport.register = slow  # type: ignore[method-assign]
    names: list[str | None] = []
    threads = [threading.Thread(target=lambda: names.append(known.name(PLACE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(names) == 8
    assert len(set(names)) == 1
    assert len(transport.asked) == 1


@pytest.mark.parametrize(
    ("answer", "usable"),
    [
        (ServerError(400, "shared memory region 'r' already in manager"), True),
        (ServerError(403, "This API is restricted, expecting header 'k'"), False),
        (ServerError(503, "This protocol is restricted, expecting header 'k'"), False),
        (ServerError(500, "Unable to open shared memory region: '/penstock-0'"), False),
        (ServerError(404, "Not Found"), False),
        (ServerError(501, "unimplemented"), False),
    ],
)
def test_a_refused_registration_means_bodies(answer: ServerError, usable: bool) -> None:
    """Whatever the reason; it is kept for the warning. A name that is taken is ours."""
    transport = Scripted(answer)
    known = regions_with(transport)
    assert (known.name(PLACE) is not None) is usable
    assert known.refused == (None if usable else str(answer))
    known.name(PLACE)
    assert len(transport.asked) == 1


@pytest.mark.parametrize("trouble", [TimeoutError("slow"), ServerError(503, "busy")])
def test_a_registration_that_was_not_answered_is_tried_again(trouble: Exception) -> None:
    """It says nothing about whether the server maps our memory."""
    known = regions_with(Scripted(trouble, None))
    with pytest.raises(type(trouble)):
        known.name(PLACE)
    assert known.name(PLACE) is not None


def test_memory_in_use_is_unregistered_a_little_later() -> None:
    """Triton refuses while a request still uses it."""
    busy = ServerError(500, "Cannot unregister shared memory region 'r', it is currently in use.")
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
    """After a second the rest goes on; it is named no more before the server has let go, and then by another name."""
    busy = ServerError(500, "Cannot unregister shared memory region 'r', it is currently in use.")
    transport = Scripted(None, *[busy] * 100)
    known = regions_with(transport)
    name = known.name(PLACE)
    assert not known.drop()
    assert (known.name(PLACE), known.refused, known.settled) == (None, None, False)
    transport.answers.clear()
    assert known.retry_unregister()
    assert known.settled
    assert known.name(PLACE) not in (None, name)


@pytest.fixture
def mapping(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Processes that have mapped the segment, as the machine would show them; change it at will."""
    processes = set[int]()

    def register(transport: Scripted, region: str, key: str, nbytes: int) -> None:
        plain(transport, region, key, nbytes)
        processes.add(7)

    plain = Scripted.register
    monkeypatch.setattr(Scripted, "register", register)
    monkeypatch.setattr(module, "users", lambda _: frozenset(processes))
    monkeypatch.setattr(module, "has_mapped", lambda pid, _: pid in processes)
    return processes


def test_only_the_end_of_a_mapping_releases_what_was_kept(mapping: set[int]) -> None:
    """Not that the server's address forgets the region: a proxy, or a newer release, answers so while it is in use."""
    known = regions_with(Scripted())
    known.name(PLACE)
    assert known.watched(PLACE.segment)
    released: list[int] = []
    known.keep(PLACE.segment, lambda: released.append(1))
    known.reclaim()
    assert not known.drop()
    assert (released, known.kept, known.settled) == ([], 1, False)
    mapping.clear()
    known.reclaim()
    assert (released, known.kept, known.settled) == ([1], 0, True)


def test_a_region_that_is_listed_is_still_there(mapping: set[int]) -> None:
    """Newer releases say yes at once, and let go when the last request has ended."""
    transport = Scripted()
    known = regions_with(transport)
    name = known.name(PLACE)
    assert name is not None
    mapping.clear()
    listed = [name]
    transport.regions = lambda: listed  # type: ignore[method-assign]
    assert not known.drop()
    listed.clear()
    assert known.retry_unregister()


def test_a_server_whose_process_cannot_be_seen_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is not let write to our memory."""
    monkeypatch.setattr(module, "users", lambda _: frozenset())
    known = regions_with(Scripted())
    assert known.name(PLACE) is not None
    assert not known.watched(PLACE.segment)


def test_a_server_that_is_dead_releases_without_being_asked(mapping: set[int]) -> None:
    """Every slot may be waiting for it."""
    servers = pool(well=lambda _: (_ for _ in ()).throw(ConnectionRefusedError("refused")), patience=0.3)
    (endpoint,) = servers.endpoints
    endpoint.regions.name(PLACE)
    released: list[int] = []
    endpoint.regions.keep(PLACE.segment, lambda: released.append(1))
    mapping.clear()
    with pytest.raises(ConnectionRefusedError):
        endpoint.revive(lambda _: (_ for _ in ()).throw(ConnectionRefusedError("refused")))
    assert released == [1]


def release(signal: Signal) -> None:
    """What a pin's end does, as a signal."""
    signal.set()


def test_a_server_that_is_well_is_looked_after_until_it_has_let_go(mapping: set[int]) -> None:
    """It was still busy with the old request when it was found well, and nothing fails later on."""

    def work(io: GreenletIo) -> None:
        servers = pool(io=io)
        (endpoint,) = servers.endpoints
        endpoint.regions.name(PLACE)
        released = io.signal()
        endpoint.regions.keep(PLACE.segment, lambda: release(released))
        endpoint.eject(ConnectionResetError("cut"))
        while not endpoint.healthy:
            io.pause(0.01)
        assert endpoint.regions.kept == 1
        mapping.clear()
        assert released.wait(DEADLINE)

    on_a_hub(work)


def test_a_registration_refused_meanwhile_does_not_disturb_a_drop() -> None:
    """The drop waits for the answer, and goes on with the names that are left."""

    def work(io: GreenletIo) -> None:
        transport = Scripted()
        known = regions_with(transport, io)
        asked, answer = io.signal(), io.signal()

        def register(region: str, key: str, nbytes: int) -> None:
            del region, key, nbytes
            asked.set()
            answer.wait(DEADLINE)
            raise ServerError(500, "Unable to open shared memory region")

        transport.register = register  # type: ignore[method-assign]
        io.start(lambda: names.append(known.name(PLACE)))
        names: list[str | None] = []
        assert asked.wait(DEADLINE)
        dropped = io.signal()

        def drop() -> None:
            known.drop()
            dropped.set()

        io.start(drop)
        io.pause(0.01)
        answer.set()
        assert dropped.wait(DEADLINE)
        assert names == [None]
        assert known.settled

    on_a_hub(work)


def test_a_probe_that_fails_in_any_way_is_a_server_that_is_not_well() -> None:
    """Whoever looks after it goes on, and finds it well when it is."""
    answers: list[Exception] = [KeyError("inputs"), ValueError("no number")]

    def check(_: object) -> bool:
        if answers:
            raise answers.pop(0)
        return True

    def work(io: GreenletIo) -> None:
        servers = pool(io=io, well=check)
        (endpoint,) = servers.endpoints
        endpoint.eject(TimeoutError("silent"))
        assert servers.run(lambda _: "done") == "done"
        assert endpoint.healthy

    on_a_hub(work)
    assert answers == []


def test_the_sweep_gives_back_what_it_can() -> None:
    """One region that a request still uses does not keep the others; a server that was away is swept later."""
    owner = Owner.current()
    dead = [owner.region(n).replace(f"-{owner.started}-", f"-{owner.started + 1}-") for n in range(3)]
    transport = Scripted(None, BUSY, None)
    listings: list[Exception | None] = [TimeoutError("silent"), None]

    def listed() -> list[str]:
        error = listings.pop(0)
        if error:
            raise error
        return dead

    transport.regions = listed  # type: ignore[method-assign]
    known = regions_with(transport)
    with pytest.raises(TimeoutError):
        known.name(PLACE)
    assert known.name(PLACE) is not None
    assert transport.asked.count("unregister") == 3


def test_the_start_of_a_process_with_any_name_is_read() -> None:
    """Its name stands in the same file, and need not be UTF-8."""
    comm = Path("/proc/self/comm")
    before, when = comm.read_bytes(), started(os.getpid())
    try:
        comm.write_bytes(b"\xff) (")
        assert started(os.getpid()) == when
        assert when is not None
    finally:
        comm.write_bytes(before)
