"""``gist``: the built-in embedder on one core, pixels to vectors, by its working size."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np

from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .result import Goal, Result, tabulate
from .workload import BATCH

_SIZES = (32, 64, 128)
_GOAL = 1000.0


def run(options: Options) -> Result:
    """Measure batches of random pixels; the time does not depend on what a picture shows.

    Raises:
        WorkerError: a variant broke down.
    """
    n = options.n or 16 * BATCH
    variants = [
        Variant(f"gist:{size}" if size != 64 else "gist", "gist:embed", {"size": size, "n": n}, one_core=True)
        for size in _SIZES
    ]
    samples = run_rounds(variants, options.rounds or 5)
    table = tabulate(
        "uint8 pixels to GIST vectors of 512, one core",
        "pictures per second of CPU",
        samples.of("rate"),
        baseline="gist:128",
        goals=(Goal("gist", _GOAL),),
    )
    return Result("gist", (table,), samples.skipped)


@contextmanager
def embed(size: int, n: int) -> Generator[Measure, None, None]:
    """Embed ``n`` pictures in batches, with a worker's settings."""
    from ..engine.embedders import ArrayView, Gist
    from ..preprocess import PreprocessSpec
    from ..preprocess.worker.jax_runtime import prepare_jax

    prepare_jax()
    spec = PreprocessSpec(size=size, resize=None, dtype="uint8")
    embedder = Gist(size)
    embedder.open(spec, BATCH)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, *spec.pixel_shape()), np.uint8)
    view = ArrayView(pixels, np.zeros((BATCH, embedder.dimension), np.float32))

    def measure() -> Measures:
        start = time.process_time()
        for _ in range(max(1, n // BATCH)):
            embedder.embed(view, BATCH)
        return {"rate": max(1, n // BATCH) * BATCH / (time.process_time() - start)}

    yield measure
