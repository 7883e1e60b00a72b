"""``engine``: what the engine costs. Bare workers against the same workers under ring, hub and accounting."""

from __future__ import annotations

import mmap
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from .chains import make_preprocessor
from .child import Measure, Measures
from .harness import ONE_CORE, Child, Options, Variant, run_rounds
from .pictures import make_set
from .result import Goal, Result, tabulate
from .workload import BATCH, WORKERS, pixels


def run(options: Options) -> Result:
    """Compare bare workers with the engine and a consumer that does nothing; and take the parent's CPU time.

    Raises:
        WorkerError: a variant broke down.
    """
    paths = make_set("imagenet500", options.data, options.n or 1024)
    args = {"paths": paths, "workers": WORKERS}
    variants = [
        Variant("bare workers", "engine:bare", args),
        Variant("engine", "stream:penstock", {**args, "dtype": "float32", "decoder": "pillow"}),
    ]
    samples = run_rounds(variants, options.rounds or 7)
    rate = tabulate(
        f"JPEG files 500x375 to float32 batches, {WORKERS} workers, null embedder",
        "pictures/s",
        samples.of("rate"),
        baseline="bare workers",
        goals=[Goal("engine", 0.95, "bare workers")],
    )
    cost = tabulate(
        f"CPU time of the parent for a batch of {BATCH}",
        "ms",
        samples.of("parent_ms"),
        goals=[Goal("engine", 2.0, at_most=True)],
    )
    return Result("engine", (rate, cost), samples.skipped)


@contextmanager
def bare(paths: Sequence[str], workers: int) -> Generator[Measure, None, None]:
    """Processes that preprocess their share of the files into slots of their own and talk to nobody meanwhile."""
    with ExitStack() as stack:
        shares = [list(paths[index::workers]) for index in range(workers)]
        children = [
            stack.enter_context(Child(Variant(f"bare worker {index}", "engine:worker", {"paths": share}, env=ONE_CORE)))
            for index, share in enumerate(shares)
        ]

        def measure() -> Measures:
            start = time.perf_counter()
            for child in children:
                child.ask()
            for child in children:
                child.answer()
            return {"rate": len(paths) / (time.perf_counter() - start)}

        yield measure


@contextmanager
def worker(paths: Sequence[str]) -> Generator[Measure, None, None]:
    """A worker's loop and nothing else: files to batches in a shared slot."""
    from ..fetch import read_file

    spec = pixels("float32")
    preprocessor = make_preprocessor(spec)
    shape = (BATCH, *spec.pixel_shape())
    slot = np.frombuffer(mmap.mmap(-1, int(np.prod(shape)) * 4), np.float32).reshape(shape)
    preprocessor.run(slot, [])  # compile

    def measure() -> Measures:
        for begin in range(0, len(paths), BATCH):
            batch = paths[begin : begin + BATCH]
            for row, path in enumerate(batch):
                preprocessor.load(row, read_file(path, spec.max_file_bytes))
            preprocessor.run(slot, range(len(batch)))
        return {}

    yield measure
