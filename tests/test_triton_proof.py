"""When a slot is free again after its request was cut off, with real servers: not before the proof."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import gevent
import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.engine.embedders import ArrayView, parse_embedder
from penstock.engine.embedders.triton import regions as module
from penstock.engine.embedders.triton.processes import has_mapped, started, users
from penstock.engine.servers import Tensor, TritonServer, add_model
from penstock.errors import EmbedderError
from penstock.preprocess.slot_layout import pixel_layout
from penstock.preprocess.spec import PreprocessSpec
from penstock.shm import Ring
from penstock.tests.triton_slots import SlotOfRing, in_hub, relay, slots
from penstock.tests.waiting import DEADLINE, wait_until

pytestmark = pytest.mark.slow

MakeTriton = Callable[..., TritonServer]
Answers = Callable[[str, NDArray[np.uint8]], NDArray[np.float32]]
LARGE = PreprocessSpec(size=224, dtype="uint8", mean=None, std=None)
SMALL = PreprocessSpec(size=16, resize=16, dtype="uint8", mean=None, std=None)


def until_free(view: SlotOfRing) -> None:
    """Wait in a greenlet until nobody holds a slot."""
    with gevent.Timeout(DEADLINE):
        while view.pins:
            gevent.sleep(0.01)


@pytest.mark.kills
def test_a_proxy_that_refuses_proves_nothing_and_the_end_of_the_process_does(make_triton: MakeTriton) -> None:
    """The server behind it lives on, and writes its vectors into the slot."""
    server = make_triton("sleeper", sleep_ms={"sleeper": "2000"})
    with ExitStack() as stack:
        address, _, _ = stack.enter_context(relay(server.http))
        with parse_embedder(f"triton+http://{address}/sleeper?patience=1") as embedder:
            embedder.open(LARGE, 1)
            ring = stack.enter_context(Ring.create(pixel_layout(1, LARGE.pixel_shape(), "uint8", 512), 1))
            (view,) = slots(ring)
            view.embeddings[:] = -1

            def work() -> None:
                with pytest.raises(EmbedderError, match="no answer"):
                    embedder.embed(view, 1)
                until_free(view)

            def beside() -> None:
                wait_until(lambda: view.pins)
                threading.Event().wait(0.5)  # the server has begun
                assert (view.embeddings == -1).all()
                closing.close()
                wait_until(lambda: (view.embeddings != -1).any())
                assert view.pins == 1
                server.kill()

            closing = stack.pop_all()
            try:
                in_hub(embedder, work, beside=beside)
            finally:
                closing.close()
            assert view.pins == 0


def test_a_slot_comes_back_though_its_server_was_found_well_before_it_was_done(make_triton: MakeTriton) -> None:
    """It works on the old request for longer than the server is waited for; and no batch comes that would notice."""
    server = make_triton("sleeper", sleep_ms={"sleeper": "2500"}, instances=2)
    with (
        relay(server.http) as (address, _, cut),
        parse_embedder(f"triton+http://{address}/sleeper") as embedder,
    ):
        embedder.open(LARGE, 1)
        with Ring.create(pixel_layout(1, LARGE.pixel_shape(), "uint8", 512), 2) as ring:
            first, second = slots(ring)

            def work() -> None:
                assert embedder.embed(first, 1) == {}
                until_free(first)
                assert embedder.embed(second, 1) == {}
                assert second.held_ever == 1  # shared memory again

            def cutter() -> None:
                with gevent.Timeout(DEADLINE):
                    while not first.pins:
                        gevent.sleep(0.005)
                gevent.sleep(0.3)
                cut()

            in_hub(embedder, work, cutter)
            assert first.pins == second.pins == 0


def test_a_server_that_cannot_be_watched_writes_nothing_into_slots(
    triton: TritonServer, triton_answer: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the pixels there; the vectors come in the answer, and no slot is ever held."""
    monkeypatch.setattr(module, "users", lambda _: frozenset())
    with parse_embedder(f"triton+http://{triton.http}/sleeper") as embedder:
        embedder.open(LARGE, 2)
        with Ring.create(pixel_layout(2, LARGE.pixel_shape(), "uint8", 512), 1) as ring:
            (view,) = slots(ring)
            in_hub(embedder, lambda: embedder.embed(view, 2))
            assert view.held_ever == 0
            np.testing.assert_array_equal(view.embeddings, triton_answer("sleeper", view.pixels))


def test_who_has_mapped_a_segment_is_seen(triton: TritonServer) -> None:
    """The server while it has; neither this process nor others."""
    with parse_embedder(f"triton+http://{triton.http}/sleeper") as embedder:
        embedder.open(LARGE, 1)
        with Ring.create(pixel_layout(1, LARGE.pixel_shape(), "uint8", 512), 1) as ring:
            (view,) = slots(ring)
            seen: list[frozenset[int]] = []

            def work() -> None:
                embedder.embed(view, 1)
                seen.append(users(ring.name))

            assert users(ring.name) == frozenset()
            in_hub(embedder, work)
            assert seen == [frozenset({triton.pid})]
            assert not has_mapped(triton.pid, ring.name)
    assert started(os.getpid()) is not None


BROKEN = """
import importlib
import numpy as np

class TritonPythonModel:
    def initialize(self, args):
        self.pb = importlib.import_module("triton_python_backend_utils")
        self.asked = 0

    def execute(self, requests):
        return [self.answer(self.pb.get_input_tensor_by_name(r, "PIXELS").as_numpy()) for r in requests]

    def answer(self, pixels):
        self.asked += 1
        if self.asked > 3:
            return self.pb.InferenceResponse(error=self.pb.TritonError("CUDA error: an illegal memory access"))
        return self.pb.InferenceResponse([self.pb.Tensor("VECTORS", pixels.mean((2, 3)).astype(np.float32))])
"""


def test_a_model_that_fails_for_everything_ends_the_job(
    tmp_path: Path, own_server: Callable[[TritonServer], TritonServer], caplog: pytest.LogCaptureFixture
) -> None:
    """No picture is blamed: black ones fail, too."""
    caplog.set_level(logging.WARNING)
    pixels, vectors = [Tensor("PIXELS", "UINT8", (3, 16, 16))], [Tensor("VECTORS", "FP32", (3,))]
    add_model(tmp_path / "models", "broken", BROKEN, inputs=pixels, outputs=vectors)
    server = own_server(TritonServer(tmp_path / "models"))
    with parse_embedder(f"triton+http://{server.http}/broken?patience=1") as embedder:
        embedder.open(SMALL, 4)  # which asks once
        view = ArrayView(np.ones((4, 3, 16, 16), np.uint8), np.zeros((4, 3), np.float32))
        assert [embedder.embed(view, 4) for _ in range(2)] == [{}, {}]
        with pytest.raises(EmbedderError, match="illegal memory access"):
            embedder.embed(view, 4)


def test_a_failed_open_leaves_no_connection(tmp_path: Path, own_server: Callable[[TritonServer], TritonServer]) -> None:
    """Nor does a second one: descriptors are as many as before."""
    pixels, vectors = [Tensor("PIXELS", "UINT8", (3, 16, 16))], [Tensor("VECTORS", "FP32", (3,))]
    add_model(tmp_path / "models", "broken", BROKEN, inputs=pixels, outputs=vectors)
    server = own_server(TritonServer(tmp_path / "models"))
    with parse_embedder(f"triton+http://{server.http}/broken") as embedder:
        for _ in range(3):
            embedder.open(SMALL, 4)
        opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        kept = []
        for _ in range(3):
            with pytest.raises(EmbedderError, match="failed on black pictures") as failure:
                embedder.open(SMALL, 4)
            kept.append(failure)  # and with it all that its traceback refers to
        assert len(os.listdir("/proc/self/fd")) == opened - 1  # noqa: PTH208
