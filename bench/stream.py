"""``stream``: files on disk to batches in the consumer, two workers, against PyTorch's DataLoader at its best."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .pictures import make_set
from .result import Goal, Result, tabulate
from .workload import BATCH, WORKERS, pixels

# Multiples of 128: an odd batch left over for one of two workers would be measured as a loss of up to a quarter.
_CASES = {
    "500x375 float32": ("imagenet500", "float32", 768, 1.4),
    "500x375 uint8": ("imagenet500", "uint8", 768, 1.15),
    "2048x1536 float32": ("camera2048", "float32", 256, 1.1),
}


def run(options: Options) -> Result:
    """Compare penstock's stream with both forms of the DataLoader.

    Raises:
        WorkerError: a variant broke down.
    """
    tables = []
    skipped: dict[str, str] = {}
    for label, (name, dtype, n, bound) in _CASES.items():
        paths = make_set(name, options.data, options.n or n)
        samples = run_rounds(_variants(paths, dtype), options.rounds or 5)
        goals = [Goal("penstock", bound, peer) for peer in ("dataloader", "dataloader, fastest form")]
        title = f"JPEG files {label} to batches in the consumer, {WORKERS} workers"
        tables.append(tabulate(title, "pictures/s", samples.of("rate"), baseline="dataloader", goals=goals))
        skipped |= samples.skipped
    return Result("stream", tuple(tables), skipped)


def _variants(paths: Sequence[str], dtype: str) -> list[Variant]:
    args = {"paths": list(paths), "dtype": dtype, "workers": WORKERS}
    return [
        Variant("dataloader", "dataloader:usual", args),
        Variant("dataloader, fastest form", "dataloader:fastest", args),
        Variant("penstock", "stream:penstock", {**args, "decoder": "pillow"}),
        Variant("penstock+simplejpeg", "stream:penstock", {**args, "decoder": "simplejpeg"}),
    ]


@contextmanager
def penstock(paths: Sequence[str], dtype: str, workers: int, decoder: str) -> Generator[Measure, None, None]:
    """``StreamingMultiprocessPreprocessor`` with the same consumer; its pool stays warm too."""
    from ..engine.jobs.images.preprocess_stream import StreamingMultiprocessPreprocessor

    stream = StreamingMultiprocessPreprocessor(num_workers=workers, batch_size=BATCH, spec=pixels(dtype, decoder))

    def measure() -> Measures:
        begin, cpu = time.perf_counter(), time.process_time()
        seen = batches = 0
        for batch in stream.preprocess_stream(paths):
            rows = batch["preprocessed"]
            seen += len(rows)
            batches += 1
            float(rows[0, 0, 0, 0])
        assert seen == len(paths)
        parent = (time.process_time() - cpu) / batches
        return {"rate": seen / (time.perf_counter() - begin), "parent_ms": parent * 1e3}

    with stream:
        yield measure
