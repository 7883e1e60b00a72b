"""What goes wrong with servers, each against a real one.

=====================================================  ===========================================================
what happens                                           what must hold
=====================================================  ===========================================================
the server is killed in the middle, comes back at once registered again, nothing lost
it is away for 30 s                                    greenlets wait, nothing lost
it is stopped (SIGSTOP) for longer than a request      slots stay held until it is known to be done with them
may take
it stays away                                          EmbedderError after `patience`, naming servers and knob
the model fails for one picture                        that picture is refused, its neighbours embedded
the model gives NaN for one picture                    the same
the model gives vectors of another length              EmbedderError naming both shapes
the model's process died                               another server is asked; EmbedderError if there is none
it comes back with another model                       it stays out; EmbedderError naming the difference
the model is unloaded                                  waited for; EmbedderError after `patience`
somebody unregisters our memory                        the server is looked at anew, and it is registered again
our name is registered already                         it is ours: the answer to an earlier attempt was lost
the client is killed                                   its regions are given back by the next start on this host
=====================================================  ===========================================================

That somebody else has registered our *segment* under a name of his own cannot be: its name is unguessable, and its file
is only ours to open.
"""

from __future__ import annotations

import http.client
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.engine.embedders import ArrayView, Embedder, parse_embedder
from penstock.engine.embedders.triton.io_backend import ThreadIo
from penstock.engine.embedders.triton.owner import Owner, abandoned
from penstock.engine.embedders.triton.regions import Regions
from penstock.engine.servers import TritonServer
from penstock.errors import EmbedderError, EmbedError
from penstock.preprocess.slot_layout import pixel_layout
from penstock.preprocess.spec import PreprocessSpec
from penstock.shm import Ring
from penstock.tests.triton_slots import SlotOfRing, in_hub, regions, slots, transport
from penstock.tests.waiting import DEADLINE, wait_until

Answers = Callable[[str, NDArray[Any]], NDArray[np.float32]]
MakeTriton = Callable[..., TritonServer]

SMALL = PreprocessSpec(size=64, dtype="uint8", mean=None, std=None)
LARGE = PreprocessSpec(size=224, dtype="uint8", mean=None, std=None)
SLOW, ERROR, NAN, SHAPE, EXIT = range(250, 255)


@contextmanager
def served(
    spec: str, rows: int = 8, *, large: bool = False, count: int = 4
) -> Generator[tuple[Embedder, list[SlotOfRing]]]:
    """An opened embedder, and a ring of slots full of noise."""
    pixels = LARGE if large else SMALL
    with parse_embedder(spec) as embedder:
        embedder.open(pixels, rows)
        layout = pixel_layout(rows, pixels.pixel_shape(), "uint8", embedder.dimension)
        with Ring.create(layout, count) as ring:
            yield embedder, slots(ring)


def post(server: TritonServer, path: str) -> None:
    connection = http.client.HTTPConnection(server.http, timeout=DEADLINE)
    connection.request("POST", path, body=b"{}")
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    assert response.status == 200, answer


def url(server: TritonServer, model: str, protocol: str = "http", **options: object) -> str:
    host = server.http if protocol == "http" else server.grpc
    return f"triton+{protocol}://{host}/{model}?" + "&".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "away"),
    [("http", 0.0), ("grpc", 0.0), ("http", 2.0), pytest.param("http", 30.0, marks=pytest.mark.nightly)],
)
def test_a_server_killed_in_the_middle_and_back_again_loses_nothing(
    protocol: str, away: float, make_triton: MakeTriton, triton_answer: Answers
) -> None:
    """Requests under way are cut off, registrations gone: nothing is lost, and no slot stays held."""
    server = make_triton("sleeper", sleep_ms={"sleeper": "150"})
    with served(url(server, "sleeper", protocol, timeout=20), 4, large=True) as (embedder, views):
        begun = threading.Event()

        def work(view: SlotOfRing) -> None:
            for _ in range(4):
                view.embeddings[:] = -1
                assert embedder.embed(view, 4) == {}
                np.testing.assert_array_equal(view.embeddings, triton_answer("sleeper", view.pixels))
                begun.set()

        def kill() -> None:
            begun.wait(DEADLINE)
            wait_until(lambda: any(view.pins for view in views))
            server.kill()
            threading.Event().wait(away)
            server.restart()

        in_hub(embedder, *(partial(work, view) for view in views), beside=kill)
        assert [view.pins for view in views] == [0] * 4
    assert regions(server) == []


@pytest.mark.kills
@pytest.mark.slow
def test_a_stopped_server_keeps_its_slots_held_until_it_is_done_with_them(
    make_triton: MakeTriton, triton_answer: Answers
) -> None:
    """The deadline passes, the caller tries again; the abandoned request keeps its pin until its late answer."""
    server = make_triton("mean_u8")
    with served(url(server, "mean_u8", timeout=0.5, patience=45)) as (embedder, (view, *_)):
        stopped, held = threading.Event(), list[int]()

        def work() -> None:
            embedder.embed(view, 8)
            view.embeddings[:] = -1
            server.pause()
            with gevent.Timeout(DEADLINE):
                # A signal is not taken at once: a server that still answers would spoil the test.
                while "T (stopped)" not in Path(f"/proc/{server.pid}/status").read_text():
                    gevent.sleep(0.01)
            gevent.sleep(0.1)
            stopped.set()
            assert embedder.embed(view, 8) == {}
            with gevent.Timeout(DEADLINE):
                while view.pins:
                    gevent.sleep(0.01)

        def beside() -> None:
            assert stopped.wait(DEADLINE)
            threading.Event().wait(8)  # the request is given up after ten times its timeout
            held.append(view.pins)
            server.resume()

        in_hub(embedder, work, beside=beside)
        assert held[0] >= 1
        assert view.pins == 0
        np.testing.assert_array_equal(view.embeddings, triton_answer("mean_u8", view.pixels))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_deadline_of_a_request_leaves_its_slot_held_until_the_late_answer(
    protocol: str, make_triton: MakeTriton
) -> None:
    """A picture that takes 3 s, and a deadline of 1 s: the batch is given up, the server reads on."""
    server = make_triton("faulty")
    with served(url(server, "faulty", protocol, timeout=1, patience=0.5)) as (embedder, (view, *_)):
        view.mark(2, SLOW)
        pins: list[int] = []

        def work() -> None:
            with pytest.raises(EmbedderError, match=r"patience="):
                embedder.embed(view, 8)
            pins.append(view.pins)
            with gevent.Timeout(DEADLINE):
                while view.pins:
                    gevent.sleep(0.02)

        in_hub(embedder, work)
        assert pins[0] > 0
    assert regions(server) == []


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_nobody_answering_ends_after_the_patience(
    protocol: str, make_triton: MakeTriton, caplog: pytest.LogCaptureFixture
) -> None:
    """In the hub and in a plain thread; the message names the server and the knob, and the trouble was logged."""
    caplog.set_level(logging.WARNING)
    server = make_triton("mean_u8")
    with served(url(server, "mean_u8", protocol, patience=1)) as (embedder, (view, *_)):
        host = server.http if protocol == "http" else server.grpc

        def work() -> None:
            embedder.embed(view, 8)
            server.kill()
            with pytest.raises(EmbedderError, match=rf"no answer from {host} for 1 s.*patience="):
                embedder.embed(view, 8)

        in_hub(embedder, work)
        assert view.pins == 0
        plain = ArrayView(view.pixels.copy(), np.zeros((8, 16), np.float32))
        with pytest.raises(EmbedderError, match=rf"no answer from {host} for 1 s.*patience="):
            embedder.embed(plain, 8)
    assert f"{host} is not asked for now" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("shm", ["auto", "off"])
def test_a_picture_the_model_fails_on_is_refused_alone(triton: TritonServer, triton_answer: Answers, shm: str) -> None:
    """Bisected by rows, without a copy; NaN likewise; all others are embedded."""
    with served(url(triton, "faulty", shm=shm)) as (embedder, (view, *_)):
        clean = triton_answer("mean_u8", view.pixels)
        view.mark(2, ERROR)
        view.mark(5, NAN)
        view.mark(6, ERROR)
        expected = triton_answer("mean_u8", view.pixels)
        found: list[Any] = []
        in_hub(embedder, lambda: found.append(embedder.embed(view, 8)))
        (refused,) = found
        assert sorted(refused) == [2, 5, 6]
        assert all(isinstance(error, EmbedError) for error in refused.values())
        assert "asked to fail" in str(refused[2])
        assert "NaN" in str(refused[5])
        good = [0, 1, 3, 4, 7]
        np.testing.assert_array_equal(view.embeddings[good], expected[good])
        np.testing.assert_array_equal(view.embeddings[good], clean[good])
        assert view.pins == 0


@pytest.mark.slow
@pytest.mark.parametrize("shm", ["auto", "off"])
def test_vectors_of_another_length_are_an_error_of_the_model(triton: TritonServer, shm: str) -> None:
    """Not of a picture: the message names the shape that came and the one that was promised."""
    with served(url(triton, "faulty", shm=shm)) as (embedder, (view, *_)):
        view.mark(1, SHAPE)

        def work() -> None:
            with pytest.raises(EmbedderError, match=r"should be \[8, 16\] FP32.*answered \[8, 15\] FP32"):
                embedder.embed(view, 8)

        in_hub(embedder, work)
        assert view.pins == 0


@pytest.mark.slow
def test_a_model_whose_process_died_is_left_for_another_server(make_triton: MakeTriton, triton_answer: Answers) -> None:
    """Its server goes on saying that it is ready, and fails every request after a second."""
    sick, well = make_triton("faulty"), make_triton("faulty")
    with served(f"triton+http://{sick.http},{well.http}/faulty?patience=20") as (embedder, views):
        poison = np.zeros((1, 3, 64, 64), np.uint8)
        poison[0, 0, 0, 0] = EXIT
        with parse_embedder(url(sick, "faulty", patience=0.5)) as alone:
            alone.open(SMALL, 1)
            with pytest.raises(EmbedderError, match=r"not healthy"):
                alone.embed(ArrayView(poison, np.zeros((1, 16), np.float32)), 1)
        in_hub(embedder, *(partial(embedder.embed, view, 8) for view in views))
        for view in views:
            np.testing.assert_array_equal(view.embeddings, triton_answer("mean_u8", view.pixels))
            assert view.pins == 0


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_unloaded_model_is_waited_for(protocol: str, make_triton: MakeTriton, triton_answer: Answers) -> None:
    """Loaded again, it goes on; not loaded again, the job ends after the patience."""
    server = make_triton("mean_u8", model_control="explicit")
    post(server, "/v2/repository/models/mean_u8/load")
    with served(url(server, "mean_u8", protocol, patience=5)) as (embedder, (view, *_)):
        gone = threading.Event()

        def work() -> None:
            embedder.embed(view, 8)
            gevent.get_hub().threadpool.apply(post, (server, "/v2/repository/models/mean_u8/unload"))
            gone.set()
            view.embeddings[:] = -1
            assert embedder.embed(view, 8) == {}
            gevent.get_hub().threadpool.apply(post, (server, "/v2/repository/models/mean_u8/unload"))
            with pytest.raises(EmbedderError, match=r"Is the server up and the model loaded"):
                embedder.embed(view, 8)

        def load_again() -> None:
            assert gone.wait(DEADLINE)
            threading.Event().wait(0.3)
            post(server, "/v2/repository/models/mean_u8/load")

        in_hub(embedder, work, beside=load_again)
        assert view.pins == 0
        np.testing.assert_array_equal(view.embeddings, triton_answer("mean_u8", view.pixels))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_memory_that_somebody_unregisters_is_registered_again(
    protocol: str, make_triton: MakeTriton, triton_answer: Answers
) -> None:
    """Any client can unregister any region."""
    server = make_triton("mean_u8")
    asked = transport(server)
    with served(url(server, "mean_u8", protocol)) as (embedder, (view, *_)):

        def work() -> None:
            for _ in range(3):
                view.embeddings[:] = -1
                assert embedder.embed(view, 8) == {}
                np.testing.assert_array_equal(view.embeddings, triton_answer("mean_u8", view.pixels))
                (region,) = asked.regions()
                asked.unregister(region)

        in_hub(embedder, work)
        assert view.pins == 0
    asked.close()


@pytest.mark.slow
def test_a_server_that_comes_back_with_another_model_stays_out(make_triton: MakeTriton, tmp_path: Path) -> None:
    """Its vectors would not go with those that were written; the end says in what it differs."""
    server = make_triton("mean_u8")
    with served(url(server, "mean_u8", patience=4)) as (embedder, (view, *_)):

        def work() -> None:
            embedder.embed(view, 8)
            server.kill()
            (config,) = tmp_path.glob("triton-models-*/mean_u8/config.pbtxt")
            config.write_text(config.read_text().replace("[16]", "[12]"))
            server.restart()
            with pytest.raises(EmbedderError, match=r"dimension is 16 at one and 12 at the other"):
                embedder.embed(view, 8)

        in_hub(embedder, work)
        assert view.pins == 0


@pytest.mark.slow
def test_a_registration_whose_answer_was_lost_is_ours(triton: TritonServer) -> None:
    """The server says that the name is taken; nobody else could have taken it."""
    asked = transport(triton)
    with Ring.create(pixel_layout(1, (3, 8, 8), "uint8", 4), 1) as ring:
        known = Regions("here", asked, ThreadIo(), Owner.current(), {})
        name = known.name(ring.place(0))
        known.lost(ring.name)  # as if the answer had never come
        assert known.name(ring.place(0)) == name
        assert known.refused is None
        assert known.drop()
    assert name not in asked.regions()
    asked.close()


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_regions_of_a_killed_client_are_given_back_by_the_next_start(protocol: str, make_triton: MakeTriton) -> None:
    """The server would hold their memory for ever; those of the living stay."""
    server = make_triton("mean_u8")
    spec = url(server, "mean_u8", protocol)
    with served(spec) as (embedder, (view, *_)):

        def work() -> None:
            embedder.embed(view, 8)
            (mine,) = regions(server)
            program = (
                "import importlib.util, os, signal, sys\n"
                f"s = importlib.util.spec_from_file_location('t', {__file__!r})\n"
                "t = importlib.util.module_from_spec(s); s.loader.exec_module(t)\n"
                "def work(): e.embed(v[0], 8); os.kill(os.getpid(), signal.SIGKILL)\n"
                "with t.served(sys.argv[1]) as (e, v): t.in_hub(e, work)\n"
            )
            ended = subprocess.run([sys.executable, "-c", program, spec], timeout=DEADLINE, check=False)
            assert ended.returncode == -signal.SIGKILL
            (orphan,) = set(regions(server)) - {mine}
            assert abandoned([mine, orphan, "penstock", "somebody's"]) == [orphan]
            with served(spec) as (other, (slot, *_)):
                in_hub(other, lambda: other.embed(slot, 8))
            assert regions(server) == [mine]

        in_hub(embedder, lambda: gevent.get_hub().threadpool.apply(lambda: None), work)
    assert regions(server) == []


def test_names_of_regions_say_whose_they_are() -> None:
    """Own process: alive. Another start time of the pid: dead. Another host: not ours to judge."""
    owner = Owner.current()
    assert owner.pid == os.getpid()
    mine = owner.region(3)
    reused = mine.replace(f"-{owner.started}-", f"-{owner.started + 1}-")
    elsewhere = reused.replace(owner.host, "0" * 16)
    assert abandoned([mine, reused, elsewhere, "ring", "penstock-x"]) == [reused]
    assert Owner.current().region(3) != mine


@pytest.mark.slow
def test_held_slots_come_back_though_nobody_asks_for_a_server(make_triton: MakeTriton) -> None:
    """With every slot in quarantine no batch would come that could notice that the server is well again."""
    server, spare = make_triton("sleeper", sleep_ms={"sleeper": "400"}), make_triton("sleeper")
    with served(f"triton+http://{server.http},{spare.http}/sleeper", 2, large=True, count=2) as (embedder, views):

        def work(view: SlotOfRing) -> None:
            embedder.embed(view, 2)
            assert embedder.embed(view, 2) == {}
            with gevent.Timeout(DEADLINE):
                while view.pins:
                    gevent.sleep(0.01)

        def kill() -> None:
            wait_until(lambda: all(view.pins for view in views))
            server.kill()

        in_hub(embedder, *(partial(work, view) for view in views), beside=kill)
        assert [view.pins for view in views] == [0, 0]
