"""Who is to blame when servers die: the pictures, the model, or nobody. Without a server, but for the last."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import gevent
import pytest

from penstock.engine.embedders import parse_embedder
from penstock.engine.embedders.triton.endpoint_pool import Endpoint
from penstock.engine.embedders.triton.io_backend import GreenletIo
from penstock.engine.embedders.triton.transport import ServerError
from penstock.engine.servers import TritonServer
from penstock.errors import EmbedderError
from penstock.preprocess.slot_layout import pixel_layout
from penstock.preprocess.spec import PreprocessSpec
from penstock.shm import Ring
from penstock.tests.triton_fakes import on_a_hub, pool
from penstock.tests.triton_slots import in_hub, slots

CRASHES = [ServerError(500, "Stub process 'm_0_0' is not healthy."), ConnectionResetError("cut")]
EXIT = 254


@pytest.mark.parametrize("crash", CRASHES, ids=["model", "server"])
def test_what_kills_a_well_server_each_time_is_to_blame(crash: Exception) -> None:
    """Nobody else needs to be answered in between: once among others, then twice alone."""
    servers = pool(patience=20)
    asked: list[int] = []

    def poison(endpoint: Endpoint) -> None:
        asked.append(endpoint.in_flight)
        raise crash

    with pytest.raises(type(crash)):
        servers.run(poison)
    assert len(asked) == 3


def test_a_model_that_is_dead_is_no_fault_of_the_pictures() -> None:
    """Its server says that it is ready; black pictures show that it is not."""

    def trial(_: Endpoint) -> None:
        raise CRASHES[0]

    def dead(_: Endpoint) -> None:
        raise CRASHES[0]

    with pytest.raises(EmbedderError, match="not healthy"):
        pool(patience=0.5, trial=trial).run(dead)


def test_the_neighbours_of_what_kills_a_server_are_cleared() -> None:
    """Three requests die together, again and again; each is repeated alone, and only one dies of that."""

    def work(io: GreenletIo) -> None:
        servers = pool(capacity=3, patience=20, io=io)
        poisoned: list[bool] = []
        ended: list[str] = []

        def ask(poison: bool, endpoint: Endpoint) -> None:
            alone = endpoint.in_flight == endpoint.capacity and len(under_way) == 0
            under_way.append(poison)
            try:
                gevent.sleep(0.02)
                if True in under_way:
                    poisoned.append(alone)
                    raise ConnectionResetError("cut")
            finally:
                under_way.remove(poison)

        def one(name: str, poison: bool) -> None:
            try:
                servers.run(lambda endpoint: ask(poison, endpoint))
            except ConnectionResetError:
                ended.append(f"{name} blamed")
            else:
                ended.append(f"{name} done")

        under_way: list[bool] = []
        gevent.joinall(
            [gevent.spawn(one, "a", False), gevent.spawn(one, "b", True), gevent.spawn(one, "c", False)],
            raise_error=True,
        )
        assert sorted(ended) == ["a done", "b blamed", "c done"]
        assert servers.endpoints[0].in_flight == 0

    on_a_hub(work)


def test_doubt_takes_out_the_servers_that_fail_on_black_pictures() -> None:
    """The others go on; the one that failed is back when it does not fail any more."""
    ill = [1]

    def trial(endpoint: Endpoint) -> None:
        if endpoint.server.port in ill:
            raise ServerError(500, "CUDA error: an illegal memory access was encountered")

    servers = pool(2, trial=trial, patience=20)
    assert servers.probe_all()
    assert [endpoint.healthy for endpoint in servers.endpoints] == [False, True]
    assert not servers.probe_all()
    assert servers.run(lambda endpoint: endpoint.server.port) == 2
    ill.clear()
    servers.endpoints[1].healthy = False
    servers.endpoints[1].probe_at = float("inf")
    assert servers.run(lambda endpoint: endpoint.server.port) == 1


@pytest.mark.kills
@pytest.mark.slow
def test_a_picture_that_kills_the_server_is_refused_alone(
    make_triton: Callable[..., TritonServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Each time somebody starts the server again; the picture beside it is embedded."""
    caplog.set_level(logging.WARNING)
    server = make_triton("faulty")
    pixels = PreprocessSpec(size=64, dtype="uint8", mean=None, std=None)
    over = threading.Event()
    with parse_embedder(f"triton+http://{server.http}/faulty?timeout=10&patience=60") as embedder:
        embedder.open(pixels, 2)
        with Ring.create(pixel_layout(2, pixels.pixel_shape(), "uint8", embedder.dimension), 1) as ring:
            (view,) = slots(ring)
            view.mark(1, EXIT)
            refused: list[int] = []

            def work() -> None:
                try:
                    refused.extend(embedder.embed(view, 2))
                finally:
                    over.set()

            def supervise() -> None:
                deaths = 0
                while not over.wait(0.1):
                    if caplog.text.count("is not asked for now") > deaths:
                        deaths += 1
                        server.restart()

            in_hub(embedder, work, beside=supervise)
            assert refused == [1]
            assert view.embeddings[0].any()
            assert view.pins == 0
