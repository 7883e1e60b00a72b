"""``scaling``: two workers against one, with a consumer that does nothing."""

from __future__ import annotations

from .harness import Options, Variant, run_rounds
from .pictures import make_set
from .result import Goal, Result, tabulate

_SETS = {"imagenet500": ("JPEG files 500x375", 1024), "camera2048": ("JPEG files 2048x1536", 256)}


def run(options: Options) -> Result:
    """Compare one worker with two, on web-sized and camera-sized pictures.

    Raises:
        WorkerError: a variant broke down.
    """
    tables = []
    skipped: dict[str, str] = {}
    for name, (label, n) in _SETS.items():
        args = {"paths": make_set(name, options.data, options.n or n), "dtype": "float32", "decoder": "pillow"}
        variants = [
            Variant(label, "stream:penstock", {**args, "workers": workers})
            for workers, label in ((1, "1 worker"), (2, "2 workers"))
        ]
        samples = run_rounds(variants, options.rounds or 5)
        goals = [Goal("2 workers", 1.85, "1 worker")]
        title = f"{label} to float32 batches, null embedder"
        tables.append(tabulate(title, "pictures/s", samples.of("rate"), baseline="1 worker", goals=goals))
        skipped |= samples.skipped
    return Result("scaling", tuple(tables), skipped)
