"""What keeps a start short: the order of things between the start of a process and its first batch.

No test here measures time: each pins what somebody waited for needlessly before.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest

from penstock import ServiceConfig
from penstock.engine.jobs.common.plan import Plan, make_plan
from penstock.engine.jobs.images.search import query_vector
from penstock.engine.workers import PreprocessPool, SlotBatch
from penstock.engine.workers.process import WorkerProcess
from penstock.errors import SinkError
from penstock.preprocess import Preprocessor, Source, preset
from penstock.preprocess.slot_layout import dimension_of
from penstock.preprocess.worker.jax_runtime import compilation_cache
from penstock.shm import Ring, SlotLayout, Zygote
from penstock.tests.children import hear
from penstock.tests.waiting import DEADLINE, wait_until

SPEC = preset("clip", size=32)


def test_what_is_preloaded_is_imported_without_collections_and_left_alone_by_those_of_children(entries: str) -> None:
    """All of it stays, so a collection finds nothing; in a child it would copy every page of what was imported."""
    Path(entries, "shm_preload.py").write_text("import gc; collecting = gc.isenabled()")
    Path(entries, "shm_collects.py").write_text(
        "import gc, shm_preload\n"
        "from penstock.shm import send_frame\n"
        "def tell(sock, argument, fds):\n"
        "    send_frame(sock, b'%d %d %d' % (shm_preload.collecting, gc.isenabled(), gc.get_freeze_count() > 1000))\n"
    )
    with Zygote(["shm_preload"]) as zygote, zygote.fork("shm_collects:tell") as child:
        assert hear(child) == b"0 1 1"


def test_the_compilation_cache_is_found_without_running_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """``platform.processor`` runs ``uname``, in each worker; what kind of CPU this is stands in /proc."""
    monkeypatch.setattr(platform, "processor", lambda: pytest.fail("asked a program"))
    assert compilation_cache()


SERVES = """
import socket, sys
from penstock.preprocess import preset
from penstock.preprocess.worker.settings import WorkerSettings
from penstock.preprocess.worker.worker import Worker

spec = preset("clip", size=32)
embedder = ("penstock.engine.embedders:parse_embedder", "gist:32") if sys.argv[1:] else None
ours, theirs = socket.socketpair()
worker = Worker(theirs, WorkerSettings(spec.to_json(), 2, embedder), spec)
ours.shutdown(socket.SHUT_WR)  # no ring will come
worker.serve()
print(worker._preprocessor.kernel.compilations(), worker._embed._run._cache_size() if embedder else 0)
"""
"""A worker whose parent goes away before it has a ring: what it has compiled by then, of its kernel and its embedder.

In a process of its own, which a worker may take for itself."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "compiled"),
    [([], "1 0"), (["embed"], "0 1")],  # every batch needs the embedder; of the kernel's two programs maybe the other
    ids=["pixels", "embedding"],
)
def test_a_worker_compiles_while_its_ring_is_made(arguments: list[str], compiled: str) -> None:
    """What every first batch needs; else the compilation begins when the ring has come."""
    command = [sys.executable, "-c", SERVES, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=DEADLINE)
    assert done.stdout.strip() == compiled


@pytest.mark.slow
def test_rings_are_made_before_a_worker_has_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel clears their memory, 0.1 s, while the workers' fork server imports. One each, and those they get."""
    made: list[Ring] = []
    create, start = Ring.create, WorkerProcess.start

    def noted(layout: SlotLayout, slots: int) -> Ring:
        ring = create(layout, slots)
        made.append(ring)
        return ring

    def late(self: WorkerProcess, zygote: Zygote) -> SlotLayout:
        wait_until(lambda: len(made) == 2, "the making of both rings")
        return start(self, zygote)

    monkeypatch.setattr(Ring, "create", noted)
    monkeypatch.setattr(WorkerProcess, "start", late)
    with PreprocessPool(SPEC, workers=2, batch_size=2, slots=1) as pool:
        assert [ring.layout for ring in made] == [pool.layout] * 2


@pytest.mark.slow
def test_a_ring_is_made_for_what_the_worker_says_where_something_else_was_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The expected one is given back."""
    made: list[Ring] = []
    create = Ring.create

    def noted(layout: SlotLayout, slots: int) -> Ring:
        made.append(create(layout, slots))
        return made[-1]

    monkeypatch.setattr(Ring, "create", noted)
    embedder = ("penstock.engine.embedders:parse_embedder", "gist:32")
    with PreprocessPool(SPEC, workers=1, batch_size=2, slots=1, embedder=embedder, dimension=7) as pool:
        expected, right = made
        assert dimension_of(expected.layout) == 7
        assert expected.fd == -1
        assert right.layout == pool.layout
        assert pool.dimension != 7


def test_the_kernel_is_traced_as_one_program() -> None:
    """Not as sixty little jitted functions of jax.numpy inside it, each traced and lowered for itself."""
    preprocessor = Preprocessor(SPEC, 1)
    program = preprocessor.kernel._programs[0]  # pyright: ignore[reportPrivateUsage]
    canvas, params = (np.zeros(shape, kind) for shape, kind in (((1, 80, 80), np.uint32), ((1, 6), np.float32)))
    empty = np.zeros((1, *SPEC.pixel_shape()), SPEC.pixel_dtype())
    traced = cast("Any", program).trace(canvas, params, np.zeros(1, np.int32), np.int32(1), empty)
    assert str(traced.jaxpr).count("jit[") < 4


@pytest.fixture
def query() -> tuple[Plan, ServiceConfig]:
    config = ServiceConfig(to="a.db", batch_size=2, image_size=32, embedder="gist:32")
    return make_plan(config), config


@pytest.mark.slow
def test_the_picture_of_a_search_is_embedded_while_the_store_is_opened(
    query: tuple[Plan, ServiceConfig], photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not once it is."""
    made = threading.Event()
    process = PreprocessPool.process

    def noted(self: PreprocessPool, sources: Sequence[Source]) -> SlotBatch:
        batch = process(self, sources)
        made.set()
        return batch

    monkeypatch.setattr(PreprocessPool, "process", noted)
    opening = partial(wait_until, made.is_set, "the embedding of the picture")
    assert np.linalg.norm(query_vector(*query, str(photos[0]), opening)) == pytest.approx(1.0)


@pytest.mark.slow
def test_a_search_whose_store_does_not_open_leaves_no_worker(
    query: tuple[Plan, ServiceConfig], photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is being started comes to nothing, however far it is; the error is the store's."""
    pids: list[int] = []
    start = WorkerProcess.start

    def noted(self: WorkerProcess, zygote: Zygote) -> SlotLayout:
        try:
            return start(self, zygote)
        finally:
            pids.append(self.pid)

    def fails() -> None:
        raise SinkError("no store")

    monkeypatch.setattr(WorkerProcess, "start", noted)
    with pytest.raises(SinkError, match="no store"):
        query_vector(*query, str(photos[0]), fails)
    wait_until(lambda: not any(pid and psutil.pid_exists(pid) for pid in pids), "the end of the worker")


def test_the_end_of_a_command_does_not_look_through_all_that_was_imported() -> None:
    """The collections of an ending interpreter took it 0.2 s; in a process that goes on nothing is frozen."""
    code = (
        "import atexit, gc; from penstock.engine.cli import main; main(['--version']);"
        "print(gc.get_freeze_count());"
        "atexit.register(lambda: print(gc.get_freeze_count() > 10_000)); main()"
    )
    command = [sys.executable, "-c", code, "--version"]
    said = subprocess.run(command, capture_output=True, check=True, text=True, timeout=DEADLINE).stdout.splitlines()
    assert said[1::2] == ["0", "True"]


@pytest.mark.slow
def test_a_transform_may_have_control_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is traced as usual: what keeps the rest of the kernel in one piece would take a condition for a constant."""
    (tmp_path / "condition_of_test_starting.py").write_text(
        "import jax, jax.numpy as jnp\n"
        "def brighter(x):\n"
        "    return jax.lax.cond(x.mean() > 100, lambda x: x[:1, 0, 0], lambda x: -x[:1, 0, 0], x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    preprocessor = Preprocessor(
        preset("imagenet", size=32, resize=32, transform="condition_of_test_starting:brighter"), 2
    )
    out = np.empty((2, 1), np.float32)
    for row, shade in enumerate((200, 50)):
        preprocessor.load(row, np.full((32, 32, 3), shade, np.uint8))
    preprocessor.run(out, [0, 1])
    assert out.ravel().tolist() == [200.0, -50.0]
