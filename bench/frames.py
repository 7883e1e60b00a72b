"""``frames``: what looking at a frame costs, step by step, on one core."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from ..preprocess.pdq import UInt8, luma, pdq, quality, squash64
from ..preprocess.videos.letterbox import content_box
from ..preprocess.videos.statistics import squash224, statistics_of
from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .pictures import PHOTOS
from .result import Goal, Result, tabulate
from .workload import BATCH

_FRAME = (854, 480)
_CANDIDATES = 300  # boxes of a frame that are sure enough to be compared with one another
_STEPS = {
    "statistics": "statistics of 224 x 224",
    "hash": "PDQ and quality of 64 x 64",
    "suppress": f"suppression among {_CANDIDATES} boxes",
    "large": "854 x 480 squashed to 224",
    "small": "854 x 480 squashed to 64",
    "bars": "bars looked for",
    "barred": "bars found",
}


def run(options: Options) -> Result:
    """Photographs as frames; ``--n``: so many a round.

    Raises:
        WorkerError: a variant broke down.
    """
    n = max(BATCH, options.n or 16 * BATCH)
    variants = [
        Variant(name, "frames:looked_at", {"step": step, "n": n}, one_core=True) for step, name in _STEPS.items()
    ]
    samples = run_rounds(variants, options.rounds or 5)
    table = tabulate(
        "A frame, one core, CPU time",
        "ms",
        samples.of("ms"),
        goals=(Goal(_STEPS["statistics"], 0.46, at_most=True), Goal(_STEPS["hash"], 0.04, at_most=True)),
    )
    return Result("frames", (table,), samples.skipped)


@contextmanager
def looked_at(step: str, n: int) -> Generator[Measure, None, None]:
    """One of `_STEPS` over frames, in batches where it takes them."""
    look, frames = _look(step)
    look()

    def measure() -> Measures:
        turns = max(1, n // frames)
        start = time.process_time()
        for _ in range(turns):
            look()
        return {"ms": (time.process_time() - start) / (turns * frames) * 1e3}

    yield measure


def _look(step: str) -> tuple[Callable[[], object], int]:
    """What is done, and to how many frames at once."""
    photos = _photos()
    if step == "statistics":
        from ..preprocess.worker.jax_runtime import prepare_jax

        prepare_jax()
        frames = np.stack([squash224(photo) for photo in photos])
        return lambda: statistics_of(frames), len(frames)
    if step == "hash":
        squares = np.stack([squash64(photo) for photo in photos])
        return lambda: _hashed(squares), len(squares)
    if step == "suppress":
        from ..engine.detectors.boxes import suppress

        rng = np.random.default_rng(0)
        start = rng.uniform(0, 600, (_CANDIDATES, 2))
        boxes = np.concatenate([start, start + rng.uniform(10, 120, (_CANDIDATES, 2))], axis=1).astype(np.float32)
        scores, classes = rng.uniform(0.25, 1, _CANDIDATES).astype(np.float32), rng.integers(0, 80, _CANDIDATES)
        return lambda: suppress(boxes, scores, classes, 0.5), 1
    if step == "barred":
        for photo in photos:
            photo[:60] = photo[-60:] = 0
    one: Callable[[UInt8], object] = {"large": squash224, "small": squash64}.get(step, content_box)
    return lambda: [one(photo) for photo in photos], len(photos)


def _hashed(squares: UInt8) -> None:
    lumas = luma(squares)
    pdq(lumas)
    quality(lumas)


def _photos() -> list[UInt8]:
    found: list[UInt8] = []
    for path in sorted(PHOTOS.glob("*.jpg"))[:BATCH]:
        with Image.open(path) as image:
            found.append(np.array(image.convert("RGB").resize(_FRAME), np.uint8))
    return found
