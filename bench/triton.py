"""``triton``: a real Triton server on this machine. How pixels get there, and whether the model ever waits.

The model of the first table only takes 512 of a picture's own values: what is measured is the way there and back. The
model of the second takes 40 ms for each batch of 32, whatever the machine: how busy it is says its own statistics.
"""

from __future__ import annotations

import importlib
import re
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import gevent
import numpy as np

from ..engine import PipelineBuilder
from ..engine.config.model import ServiceConfig
from ..engine.servers import Tensor, TritonServer, add_model
from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .pictures import make_set
from .result import Goal, Result, Table, tabulate
from .triton_witness import Witness
from .workload import BATCH, SIZE

IN_FLIGHT = 4
SLEEP_MS = 40
DTYPES = {"float32": "FP32", "uint8": "UINT8"}
_MODEL = Path(__file__).parent / "models" / "subsample.py"
_ENGINE = re.compile(r"MainThread|penstock-\d+(-.*)?")
_LEAST = 20 * BATCH
"""Fewer pictures have no steady state."""

_REQUESTS = {"float32": 60, "uint8": 240}


def run(options: Options) -> Result:
    """Measure both tables against one server.

    Raises:
        ServerUnavailableError: this machine cannot run Triton.
        WorkerError: a variant broke down.
    """
    paths = make_set("imagenet500", options.data, max(options.n or 3200, _LEAST))
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        repository = Path(folder)
        for dtype, kind in DTYPES.items():
            _add(repository, f"subsample_{dtype}", kind, sleep_ms=0)
        _add(repository, "sleeper", "UINT8", sleep_ms=SLEEP_MS)
        with TritonServer(repository) as server:
            tables = [_transport(server.http, dtype, len(paths), options.rounds or 5) for dtype in DTYPES]
            busy = _busy(server.http, paths, options.rounds or 3)
    return Result("triton", (*(table for pair in tables for table in pair), *busy))


def _add(repository: Path, name: str, kind: str, *, sleep_ms: int) -> None:
    add_model(
        repository,
        name,
        _MODEL,
        inputs=[Tensor("PIXELS", kind, (3, SIZE, SIZE))],
        outputs=[Tensor("VECTORS", "FP32", (512,))],
        parameters={"sleep_ms": str(sleep_ms)},
        instances=1 if sleep_ms else 2,
    )


def _transport(server: str, dtype: str, pictures: int, rounds: int) -> tuple[Table, Table, Table]:
    count = _REQUESTS[dtype] if pictures > _LEAST else 2 * IN_FLIGHT
    args = {"server": server, "dtype": dtype, "count": count}
    variants = [
        Variant("HTTP bodies", "triton:bodies", args),
        Variant("shared memory", "triton:shared", args),
    ]
    samples = run_rounds(variants, rounds)
    title = f"batches of {BATCH} {dtype} 3x{SIZE}x{SIZE} to Triton, {IN_FLIGHT} in flight"
    goal = {"float32": 8.0, "uint8": 4.0}[dtype]
    return (
        tabulate(
            title,
            "requests/s",
            samples.of("rate"),
            baseline="HTTP bodies",
            goals=[Goal("shared memory", goal, "HTTP bodies")],
        ),
        tabulate(f"{title}: CPU time of the client for a batch", "ms", samples.of("client_ms")),
        tabulate(
            f"{title}: longest time the hub was blocked",
            "ms",
            samples.of("blocked_ms"),
            goals=[Goal("shared memory", 10.0, at_most=True)],
        ),
    )


def _busy(server: str, paths: Sequence[str], rounds: int) -> tuple[Table, ...]:
    args = {"server": server, "paths": list(paths)}
    variants = [
        Variant("in turn", "triton:in_turn", args),
        Variant("penstock", "triton:penstock", args),
        Variant("penstock, hub watched", "triton:penstock", {**args, "watched": True}),
    ]
    samples = run_rounds(variants, rounds)
    title = f"JPEG files 500x375 through a model of {SLEEP_MS} ms a batch of {BATCH} into Milvus Lite"
    return (
        tabulate(
            f"{title}: share of the steady state in which the model works",
            "%",
            samples.of("busy"),
            goals=[Goal("penstock", 97.0)],
        ),
        tabulate(title, "pictures/s", samples.of("rate"), baseline="in turn"),
        tabulate(
            f"{title}: CPU time of the parent for a batch, without inserting",
            "ms",
            samples.of("parent_ms"),
            goals=[Goal("penstock", 2.0, at_most=True)],
        ),
        tabulate(f"{title}: CPU time of the parent for inserting a batch", "ms", samples.of("insert_ms")),
        tabulate(
            f"{title}: longest time the parent's hub was blocked",
            "ms",
            samples.of("blocked_ms"),
            goals=[Goal("penstock, hub watched", 10.0, at_most=True)],
        ),
    )


class Ticker:
    """A greenlet that wants to run every millisecond.

    What it finds is the CPU time that the hub's thread took between two of its turns: nobody else on the hub could run
    for so long. The time of the wall would also tell how busy the machine is with others.
    """

    def __init__(self) -> None:
        self.worst = 0.0
        self._greenlet: Any = None

    def start_in_hub(self) -> None:
        """Begin to tick on the calling thread's hub."""
        self.worst = 0.0
        self._greenlet = gevent.spawn(self._run)

    def stop_in_hub(self) -> None:
        """End it."""
        self._greenlet.kill()

    def _run(self) -> None:
        before = time.thread_time()
        while True:
            gevent.sleep(0.001)
            now = time.thread_time()
            self.worst = max(self.worst, now - before)
            before = now


class Cost:
    """CPU time of this process and of its engine, over the middle three fifths of a run."""

    def __init__(self) -> None:
        self._samples: list[tuple[int, float, float]] = []
        self._done = 0

    def sample(self, value: Any) -> None:
        """So many pictures more are in the store."""
        self._done += len(value.pictures)
        self._samples.append((self._done, time.process_time(), _engine_seconds()))

    def figures(self) -> Measures:
        """Milliseconds a batch: of the whole process, and without what it takes to insert."""
        middle = [sample for sample in self._samples if 0.2 <= sample[0] / self._done <= 0.8]
        (first, cpu, engine), (last, cpu_end, engine_end) = middle[0], middle[-1]
        batches = (last - first) / BATCH
        total, own = (cpu_end - cpu) / batches * 1e3, (engine_end - engine) / batches * 1e3
        return {"parent_ms": own, "insert_ms": total - own}


def _engine_seconds() -> float:
    """CPU time of the main thread and of the engine's: hub, source, memory. The others insert, gRPC's included."""
    tasks = [thread.native_id for thread in threading.enumerate() if _ENGINE.fullmatch(thread.name)]
    return sum(_nanoseconds(task) for task in tasks) / 1e9


def _nanoseconds(task: int | None) -> int:
    """CPU time of a thread; none of one that has just ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/self/task/{task}/schedstat").read_text().split()[0])
    return 0


def _pictures(dtype: str) -> np.ndarray[Any, np.dtype[Any]]:
    values = np.random.default_rng(0).integers(0, 256, (BATCH, 3, SIZE, SIZE), np.uint8)
    return values if dtype == "uint8" else (values / np.float32(255)).astype(np.float32)


def _timed(count: int, request: Any) -> Measures:
    """`IN_FLIGHT` greenlets that call ``request(i)`` until all requests of a round are done."""
    ticker = Ticker()
    ticker.start_in_hub()
    todo = iter(range(count))

    def work(lane: int) -> None:
        for _ in todo:
            request(lane)

    begin, cpu = time.perf_counter(), time.process_time()
    gevent.joinall([gevent.spawn(work, lane) for lane in range(IN_FLIGHT)], raise_error=True)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    ticker.stop_in_hub()
    return {"rate": count / seconds, "client_ms": cpu / count * 1e3, "blocked_ms": ticker.worst * 1e3}


@contextmanager
def bodies(server: str, dtype: str, count: int) -> Generator[Measure, None, None]:
    """What everybody writes: ``tritonclient.http`` in greenlets, pixels in the body of the request."""
    importlib.import_module("geventhttpclient")  # where it is missing, tritonclient raises what looks like a fault
    import tritonclient.http as triton

    client = triton.InferenceServerClient(server, concurrency=IN_FLIGHT)
    pixels = _pictures(dtype)

    def request(_: int) -> None:
        tensor = triton.InferInput("PIXELS", list(pixels.shape), DTYPES[dtype])
        tensor.set_data_from_numpy(pixels)
        output = triton.InferRequestedOutput("VECTORS", binary_data=True)
        answer = client.infer(f"subsample_{dtype}", [tensor], outputs=[output]).as_numpy("VECTORS")
        assert answer is not None
        assert answer.shape == (BATCH, 512)

    yield lambda: _timed(count, request)
    client.close()


@contextmanager
def shared(server: str, dtype: str, count: int) -> Generator[Measure, None, None]:
    """penstock's embedder over the slots of a ring."""
    from ..engine.embedders import parse_embedder
    from ..engine.workers.pictures import LeasedView
    from ..preprocess import preset
    from ..preprocess.slot_layout import pixel_layout, pixel_view
    from ..shm import Ring

    class Loan:
        def pin(self) -> Any:
            return lambda: None

    spec = preset("imagenet", size=SIZE, dtype=dtype)
    embedder = parse_embedder(f"triton+http://{server}/subsample_{dtype}?concurrency={IN_FLIGHT}")
    embedder.open(spec, BATCH)
    layout = pixel_layout(BATCH, spec.pixel_shape(), dtype, 512)
    with Ring.create(layout, IN_FLIGHT) as ring:
        loan: Any = Loan()
        slots = []
        for slot in range(IN_FLIGHT):
            memory = pixel_view(ring.view(slot))
            memory.pixels[...] = _pictures(dtype)
            slots.append(LeasedView(memory.pixels, memory.embeddings, ring.place(slot), loan))
        embedder.start_in_hub()
        yield lambda: _timed(count, lambda lane: embedder.embed(slots[lane], BATCH))
        expected = slots[0].pixels.reshape(BATCH, -1)[:, :: 3 * SIZE * SIZE // 512][:, :512].astype(np.float32)
        assert all((slot.embeddings == expected).all() for slot in slots)
        embedder.stop_in_hub()
        embedder.close()


@contextmanager
def penstock(server: str, paths: Sequence[str], watched: bool = False) -> Generator[Measure, None, None]:
    """The main job: worker processes, rings, Triton, Milvus Lite. With a `Ticker`, which costs CPU, or without."""
    from ..engine.jobs.common.plan import make_plan
    from ..engine.jobs.images.graphs import ImageParts, streaming
    from ..engine.jobs.images.inputs import batched, pictures_of
    from ..engine.jobs.images.runner import JobRunner

    ticker = Ticker()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        config = _config(server, folder)
        plan = make_plan(config)
        plan.embedder.open(plan.spec, BATCH)
        with closing(JobRunner(config)) as runner, plan.pool(config) as pool:

            def graph(parts: ImageParts) -> PipelineBuilder:
                builder = streaming(parts, pool, plan.embedder)
                return builder.add_resource(ticker) if watched else builder

            def measure() -> Measures:
                cost = Cost()

                def job() -> int:
                    source = batched(pictures_of(paths, None, None, "bench"), BATCH)
                    return runner.run_graph(source, graph, None, 2, collect=cost.sample).accounting.written

                figures = _watched(server, len(paths), job)
                return {"blocked_ms": ticker.worst * 1e3} if watched else {**figures, **cost.figures()}

            yield measure
        plan.embedder.close()


@contextmanager
def in_turn(server: str, paths: Sequence[str]) -> Generator[Measure, None, None]:
    """The naive loop: decode, infer, insert, one after the other."""
    from ..engine.jobs.images.pipeline import ImageEmbeddingPipeline

    some = paths[: max(_LEAST, len(paths) // 4)]
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder,
        ImageEmbeddingPipeline(_config(server, folder)) as pipeline,
    ):
        yield lambda: _watched(server, len(some), lambda: sum(own is not None for own in pipeline.insert_images(some)))


def _config(server: str, folder: str) -> ServiceConfig:
    return ServiceConfig(
        to=str(Path(folder) / "bench.db"),
        embedder=f"triton+http://{server}/sleeper",
        image_size=SIZE,
        workers=2,
        batch_size=BATCH,
    )


def _watched(server: str, count: int, job: Callable[[], int]) -> dict[str, float]:
    begin = time.perf_counter()
    with Witness(server, "sleeper") as witness:
        written = job()
    seconds = time.perf_counter() - begin
    assert written == count
    return {"busy": witness.busy * 100, "rate": count / seconds}
