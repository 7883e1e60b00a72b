"""The Triton embedder against a real server: shared memory, bodies, greenlets, threads, several servers."""

from __future__ import annotations

import logging
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

from penstock.engine.embedders import ArrayView, Embedder, nonfinite_rows, parse_embedder
from penstock.engine.servers import Tensor, TritonServer, add_model
from penstock.errors import ConfigError, EmbedderError
from penstock.preprocess.slot_layout import pixel_layout
from penstock.preprocess.spec import PreprocessSpec
from penstock.shm import Ring
from penstock.tests.triton_slots import SlotOfRing, in_hub, regions, relay, slots
from penstock.tests.waiting import DEADLINE

pytestmark = pytest.mark.slow

Answers = Callable[[str, NDArray[Any]], NDArray[np.float32]]
MakeTriton = Callable[..., TritonServer]

SPECS = {
    "mean_u8": PreprocessSpec(size=64, dtype="uint8", mean=None, std=None),
    "mean_f32": PreprocessSpec(size=64, dtype="float32"),
    "subsample_u8": PreprocessSpec(size=224, dtype="uint8", mean=None, std=None),
    "sleeper": PreprocessSpec(size=224, dtype="uint8", mean=None, std=None),
}


@contextmanager
def opened(spec: str, model: str, rows: int) -> Generator[Embedder]:
    with parse_embedder(spec) as embedder:
        embedder.open(SPECS[model], rows)
        yield embedder


def ring_for(model: str, rows: int, dimension: int, count: int = 4) -> Ring:
    pixels = SPECS[model]
    return Ring.create(pixel_layout(rows, pixels.pixel_shape(), str(pixels.pixel_dtype()), dimension), count)


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def url(server: TritonServer, protocol: str, model: str) -> str:
    return f"triton+{protocol}://{server.http if protocol == 'http' else server.grpc}/{model}"


def test_greenlets_embed_slots_in_place(triton: TritonServer, triton_answer: Answers, protocol: str) -> None:
    """The server reads the pixels in the ring and writes the vectors there; one registration serves the whole ring."""
    with opened(url(triton, protocol, "mean_u8"), "mean_u8", 8) as embedder, ring_for("mean_u8", 8, 16) as ring:
        views = slots(ring)
        before = set(regions(triton))
        during: set[str] = set()

        def work(view: SlotOfRing) -> None:
            for rows in (8, 3):
                assert embedder.embed(view, rows) == {}
            during.update(regions(triton))

        in_hub(embedder, *(partial(work, view) for view in views))
        for view in views:
            np.testing.assert_array_equal(view.embeddings, triton_answer("mean_u8", view.pixels))
            assert (view.pins, view.held_ever) == (0, 2)
    assert len(during - before) == 1
    assert set(regions(triton)) <= before


def test_rows_beyond_the_last_are_untouched(triton: TritonServer, triton_answer: Answers, protocol: str) -> None:
    """A partial batch writes its own rows only, in the slot as in ordinary memory."""
    with opened(url(triton, protocol, "mean_u8"), "mean_u8", 8) as embedder, ring_for("mean_u8", 8, 16, 1) as ring:
        (view,) = slots(ring)
        plain = ArrayView(view.pixels.copy(), np.full((8, 16), -7, np.float32))
        view.embeddings[:] = -7
        in_hub(embedder, lambda: embedder.embed(view, 5))
        embedder.embed(plain, 5)
        expected = triton_answer("mean_u8", view.pixels[:5])
        for vectors in (view.embeddings, plain.embeddings):
            np.testing.assert_array_equal(vectors[:5], expected)
            assert (vectors[5:] == -7).all()


def test_a_thread_without_a_hub_embeds_and_gets_none(triton: TritonServer, triton_answer: Answers) -> None:
    """Search and the simple faces call from any thread; gevent must not make a hub there."""
    from gevent._hub_local import get_hub_if_exists

    found: list[object] = []
    with opened(url(triton, "http", "mean_u8"), "mean_u8", 4) as embedder:
        view = ArrayView(
            np.random.default_rng(5).integers(0, 250, (4, 3, 64, 64), np.uint8), np.zeros((4, 16), np.float32)
        )

        def work() -> None:
            found.append(embedder.embed(view, 4))
            found.append(get_hub_if_exists())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(DEADLINE)
    assert found == [{}, None]
    np.testing.assert_array_equal(view.embeddings, triton_answer("mean_u8", view.pixels))


def test_a_batch_larger_than_the_models_limit_goes_in_parts(triton: TritonServer, triton_answer: Answers) -> None:
    """max_batch_size is 64; the slot has 100 rows."""
    with opened(url(triton, "http", "mean_u8"), "mean_u8", 100) as embedder, ring_for("mean_u8", 100, 16, 1) as ring:
        (view,) = slots(ring)
        in_hub(embedder, lambda: embedder.embed(view, 99))
        np.testing.assert_array_equal(view.embeddings[:99], triton_answer("mean_u8", view.pixels[:99]))
        assert view.held_ever == 2


@pytest.mark.parametrize("reason", ["restrict_shm", "private_shm"])
def test_a_server_that_does_not_map_our_memory_gets_bodies(
    reason: str, protocol: str, make_triton: MakeTriton, caplog: pytest.LogCaptureFixture
) -> None:
    """Detected at the server, said once with what to switch on; the vectors are the same to the bit."""
    caplog.set_level(logging.WARNING)
    vectors: list[NDArray[np.float32]] = []
    for settings in ({}, {reason: True}):
        server = make_triton("mean_f32", **settings)
        with opened(url(server, protocol, "mean_f32"), "mean_f32", 8) as embedder, ring_for("mean_f32", 8, 16) as ring:
            views = slots(ring)
            in_hub(embedder, *(partial(embedder.embed, view, 8) for view in views))
            vectors.append(np.stack([view.embeddings for view in views]))
            assert {view.held_ever for view in views} == ({0} if settings else {1})
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert nonfinite_rows(vectors[0].reshape(-1, 16)) == []
    (said,) = [record.getMessage() for record in caplog.records]
    for word in ("--allow-client-shm", "--ipc=host", "same host", "uint8", "quarter"):
        assert word in said


def test_shm_off_shares_nothing_and_warns_of_nothing(triton: TritonServer, caplog: pytest.LogCaptureFixture) -> None:
    """The user's own choice."""
    caplog.set_level(logging.WARNING)
    with (
        opened(url(triton, "http", "mean_u8") + "?shm=off", "mean_u8", 4) as embedder,
        ring_for("mean_u8", 4, 16, 1) as ring,
    ):
        (view,) = slots(ring)
        in_hub(embedder, lambda: embedder.embed(view, 4))
        assert view.held_ever == 0
        assert view.embeddings.any()
    assert not caplog.records


@pytest.mark.parametrize("shm", ["auto", "off"])
def test_shared_memory_keeps_pixels_off_the_connection(triton: TritonServer, protocol: str, shm: str) -> None:
    """Bytes are counted between client and server: under 4 KB a batch of 4.8 MB with shared memory."""
    target = triton.http if protocol == "http" else triton.grpc
    with (
        relay(target) as (address, counts, _),
        opened(f"triton+{protocol}://{address}/subsample_u8?shm={shm}", "subsample_u8", 32) as embedder,
        ring_for("subsample_u8", 32, 512, 2) as ring,
    ):
        views = slots(ring)
        body = views[0].pixels.nbytes
        assert body == 32 * 3 * 224 * 224
        in_between: list[int] = []

        def work() -> None:
            embedder.embed(views[0], 32)  # registers the ring
            in_between.append(sum(counts))
            for _ in range(10):
                embedder.embed(views[1], 32)
            in_between.append(sum(counts))

        in_hub(embedder, work)
        per_batch = (in_between[1] - in_between[0]) / 10
        if shm == "auto":
            assert per_batch < 4096
        else:
            assert body <= per_batch < 1.1 * body


def test_a_connection_that_is_cut_leaves_no_slot_held(
    make_triton: MakeTriton, triton_answer: Answers, protocol: str
) -> None:
    """The server lives on and still reads the slot: it is asked again, and the pin ends once it has let go of it."""
    server = make_triton("sleeper", sleep_ms={"sleeper": "500"})
    with (
        relay(server.http if protocol == "http" else server.grpc) as (address, _, cut),
        opened(f"triton+{protocol}://{address}/sleeper?concurrency=1", "sleeper", 2) as embedder,
        ring_for("sleeper", 2, 512, 2) as ring,
    ):
        views = slots(ring)
        most: list[int] = []

        def work() -> None:
            embedder.embed(views[1], 2)
            assert embedder.embed(views[0], 2) == {}
            most.append(views[0].held_ever)
            with gevent.Timeout(DEADLINE):
                while views[0].pins:
                    embedder.embed(views[1], 2)

        def cutter() -> None:
            with gevent.Timeout(DEADLINE):
                while not views[0].pins:
                    gevent.sleep(0.005)
            gevent.sleep(0.1)  # the server has begun
            cut()

        in_hub(embedder, work, cutter)
        assert most[0] > 1
        np.testing.assert_array_equal(views[0].embeddings, triton_answer("sleeper", views[0].pixels))


def test_two_servers_share_the_load(make_triton: MakeTriton) -> None:
    """Least loaded first: two slow servers take about half the time of one, and both end up with our ring."""
    first = make_triton("sleeper", sleep_ms={"sleeper": "100"})
    second = make_triton("sleeper", sleep_ms={"sleeper": "100"})
    both = f"triton+http://{first.http},{second.http}/sleeper"
    with opened(both, "sleeper", 1) as embedder, ring_for("sleeper", 1, 512, 8) as ring:
        assert embedder.concurrency == 4
        views = slots(ring)
        mapped: list[int] = []

        def work(view: SlotOfRing) -> None:
            embedder.embed(view, 1)
            mapped.append(len(regions(first)) + len(regions(second)))

        in_hub(embedder, *(partial(work, view) for view in views))
        assert max(mapped) == 2
    assert regions(first) == regions(second) == []


def test_servers_with_different_models_are_refused(
    make_triton: MakeTriton, triton: TritonServer, tmp_path: Path
) -> None:
    """Their vectors would not go together; the message says in what they differ."""
    code = (Path(__file__).parent / "triton_models" / "means.py").read_text()
    pixels, vectors = [Tensor("PIXELS", "FP32", (3, 64, 64))], [Tensor("VECTORS", "FP32", (16,))]
    add_model(tmp_path / "other", "mean_u8", code, inputs=pixels, outputs=vectors)
    with TritonServer(tmp_path / "other") as other:
        embedder = parse_embedder(f"triton+http://{triton.http},{other.http}/mean_u8")
        with pytest.raises(ConfigError, match=r"input is PIXELS UINT8 at one and PIXELS FP32 at the other"):
            embedder.check(SPECS["mean_u8"])


def test_a_server_that_is_away_at_the_start_is_left_out_with_a_warning(
    triton: TritonServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One of two answers: the job starts."""
    caplog.set_level(logging.WARNING)
    with opened(f"triton+http://127.0.0.1:9,{triton.http}/mean_u8", "mean_u8", 4) as embedder:
        view = ArrayView(np.ones((4, 3, 64, 64), np.uint8), np.zeros((4, 16), np.float32))
        assert embedder.embed(view, 4) == {}
    assert "127.0.0.1:9 cannot be asked yet" in caplog.text


def test_what_the_server_says_is_what_a_job_wants(triton: TritonServer, protocol: str) -> None:
    """Dtype, size, layout, concurrency; and a fingerprint that does not depend on the way there."""
    embedder = parse_embedder(url(triton, protocol, "nhwc_f32"))
    wants = embedder.wants
    assert (wants.size, wants.dtype, wants.layout, embedder.concurrency) == (64, "float32", "NHWC", 2)
    assert embedder.fingerprint == parse_embedder(url(triton, "http", "nhwc_f32")).fingerprint
    assert embedder.fingerprint != parse_embedder(url(triton, "http", "mean_f32")).fingerprint


def test_no_server_no_model_no_version_are_told_apart(triton: TritonServer, protocol: str) -> None:
    """The message says what is missing, and what there is instead."""
    with pytest.raises(EmbedderError, match=rf"no Triton server answers .*{protocol.upper()} port"):
        parse_embedder(f"triton+{protocol}://127.0.0.1:9/mean_u8").check(SPECS["mean_u8"])
    with pytest.raises(ConfigError, match=r"has no model 'mean'; it has faulty, mean_f32, mean_u8"):
        parse_embedder(url(triton, protocol, "mean")).check(SPECS["mean_u8"])
    with pytest.raises(EmbedderError, match=r"has the model in version 7, but it is not ready"):
        parse_embedder(url(triton, protocol, "mean_u8") + "?version=7").check(SPECS["mean_u8"])


ODD = """
import importlib, json
import numpy as np

class TritonPythonModel:
    def initialize(self, args):
        self.pb = importlib.import_module("triton_python_backend_utils")
        output = json.loads(args["model_config"])["output"][0]
        self.type = {"TYPE_FP16": np.float16, "TYPE_FP32": np.float32, "TYPE_FP64": np.float64}[output["data_type"]]
        self.ones = sum(d == 1 for d in output["dims"][1:])

    def execute(self, requests):
        return [self.answer(self.pb.get_input_tensor_by_name(r, "PIXELS").as_numpy()) for r in requests]

    def answer(self, pixels):
        out = pixels.astype(np.float32).mean((-2, -1)).astype(self.type)
        out = np.ascontiguousarray(out.reshape(out.shape + (1,) * self.ones))
        return self.pb.InferenceResponse([self.pb.Tensor("VECTORS", out)])
"""


@pytest.mark.parametrize(
    ("dtype", "dims", "batch", "out", "out_dims"),
    [
        ("UINT8", (3, 16, 16), 8, "FP32", (-1,)),  # says no dimension
        ("UINT8", (3, 16, 16), 3, "FP16", (3,)),  # vectors that must come in the answer, to be cast
        ("FP16", (3, 16, 16), 8, "FP64", (3,)),
        ("UINT8", (-1, 3, 16, 16), 0, "FP32", (-1, 3)),  # the batch spelled out
        ("UINT8", (4, 3, 16, 16), 0, "FP32", (4, 3)),  # exactly four
        ("UINT8", (3, 16, 16), 0, "FP32", (3,)),  # no batch
        ("UINT8", (3, -1, -1), 8, "FP32", (3, 1, 1)),  # ones behind the vector
    ],
)
def test_models_of_every_form_give_the_same_vectors(
    dtype: str, dims: tuple[int, ...], batch: int, out: str, out_dims: tuple[int, ...], protocol: str, tmp_path: Path
) -> None:
    """Element types, batch limits, batches spelled out or fixed, shapes left open; in slots and in plain memory."""
    add_model(
        tmp_path / "odd",
        "odd",
        ODD,
        inputs=[Tensor("PIXELS", dtype, dims)],
        outputs=[Tensor("VECTORS", out, out_dims)],
        max_batch_size=batch,
    )
    spec = PreprocessSpec(size=16, resize=16, dtype="uint8", mean=None, std=None)
    if dtype == "FP16":
        spec = PreprocessSpec(size=16, resize=16, dtype="float16")
    with TritonServer(tmp_path / "odd") as server, parse_embedder(url(server, protocol, "odd")) as embedder:
        embedder.open(spec, 7)
        assert embedder.dimension == 3
        with Ring.create(pixel_layout(7, (3, 16, 16), spec.dtype, 3), 1) as ring:
            (view,) = slots(ring)
            plain = ArrayView(view.pixels.copy(), np.zeros((7, 3), np.float32))
            in_hub(embedder, lambda: embedder.embed(view, 6))
            assert embedder.embed(plain, 6) == {}
            np.testing.assert_allclose(view.embeddings[:6], view.pixels[:6].astype(np.float32).mean((2, 3)), rtol=1e-3)
            np.testing.assert_array_equal(view.embeddings, plain.embeddings)
            assert not view.embeddings[6].any()
            assert bool(view.held_ever) is (out == "FP32")  # written in place; of the fixed batches, the full ones


def test_in_hub_requests_go_on_at_once_and_in_order_of_asking(triton: TritonServer) -> None:
    """More greenlets than the servers take at once wait in line and none is passed over."""
    order: list[int] = []
    address = url(triton, "http", "sleeper") + "?concurrency=1"
    with opened(address, "sleeper", 1) as embedder, ring_for("sleeper", 1, 512, 6) as ring:
        views = slots(ring)

        def work(number: int) -> None:
            embedder.embed(views[number], 1)
            order.append(number)

        in_hub(embedder, *(partial(work, number) for number in range(6)))
    assert order == list(range(6))


def test_the_hub_stays_free_while_large_bodies_travel(triton: TritonServer) -> None:
    """19 MB of float32 a batch: other greenlets get their turn all the while."""
    spec = PreprocessSpec(size=224, dtype="float32")
    with parse_embedder(url(triton, "http", "subsample_f32") + "?shm=off") as embedder:
        embedder.open(spec, 32)
        layout = pixel_layout(32, spec.pixel_shape(), "float32", 512)
        with Ring.create(layout, 2) as ring:
            views = slots(ring)
            ticks: list[int] = []
            done: list[int] = []

            def tick() -> None:
                while len(done) < 2:
                    ticks.append(1)
                    gevent.sleep(0.002)

            def work(view: SlotOfRing) -> None:
                for _ in range(4):
                    embedder.embed(view, 32)
                done.append(1)

            in_hub(embedder, tick, *(partial(work, view) for view in views))
    # 8 bodies; a client that composes and sends one in a piece lets a ticker run about twice for each.
    assert len(ticks) > 40
